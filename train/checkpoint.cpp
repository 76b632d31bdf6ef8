#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/common/rng.h"
#include "core/formats/safetensors.h"
#include "train/tensor_file.h"

namespace crumb::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr std::string_view kStep = "step-";
constexpr const char* kMasters = "masters.safetensors";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "state.json";
constexpr const char* kChecksums = "checksums";

/// By step, oldest first.
std::map<int64_t, Path> checkpoints(const Path& output) {
  std::map<int64_t, Path> found;
  if (!is_folder(output / "checkpoints")) return found;
  for (const Path& path : paths_in(output / "checkpoints")) {
    const int64_t step = checkpoint_step(path);
    if (step >= 0) found[step] = path;
  }
  return found;
}

std::string hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

std::string checksum_of_file(const Path& path) { return hex(hash_file(hash_name(path.filename().string()), path)); }

/// Of what state.json says, whatever the order and spaces.
std::string checksum_of_state(nlohmann::json state) {
  state[kChecksums].erase(kState);
  return hex(hash_bytes(hash_name(kState), dump_json(state)));
}

void write_state(const Path& folder, const TrainState& state) {
  Json json = state.to_json();
  for (const char* name : {kMasters, kOptimizer}) json[kChecksums][name] = checksum_of_file(folder / name);
  json[kChecksums][kState] = checksum_of_state(json);
  write_text(folder / kState, dump_json(json, 2) + "\n");
}

TrainState state_from_json(const nlohmann::json& json, const std::string& where) {
  const JsonObject object(json, where);
  TrainState state{.step = object.get<int64_t>("step"),
                   .idle_steps = object.get<int64_t>("idle_steps", 0),
                   .stale_validations = object.get<int64_t>("stale_validations", 0),
                   .best_value = object.get<double>("best_value", 0.0),
                   .best_step = object.get<int64_t>("best_step"),
                   .measure = object.get<std::string>("measure"),
                   .threads = object.get<int64_t>("threads"),
                   .isa = object.get<std::string>("isa"),
                   .torch_version = object.get<std::string>("torch_version"),
                   .inputs = {}};
  if (const auto* inputs = object.find("inputs")) {
    for (const auto& [name, fingerprint] : JsonObject(*inputs, where).object().items())
      state.inputs[name] = json_as<std::string>(fingerprint, where, name);
  }
  Json known = state.to_json();
  known[kChecksums] = nullptr;
  for (const auto& [key, value] : json.items())
    CRUMB_CHECK(known.contains(key), "{}: {} is not a key of a training state", where, key);
  return state;
}

/// The first file whose checksum is another; "" for none, and for a state without checksums.
std::string changed_file(const Path& folder, const nlohmann::json& state) {
  if (!state.contains(kChecksums)) return "";
  const JsonObject checksums(state[kChecksums], (folder / kState).string());
  if (checksums.get<std::string>(kState) != checksum_of_state(state)) return kState;
  for (const char* name : {kMasters, kOptimizer})
    if (checksums.get<std::string>(name) != checksum_of_file(folder / name)) return name;
  return "";
}

bool has_checksums(const Path& folder) { return read_json(folder / kState).contains(kChecksums); }

}  // namespace

int64_t checkpoint_step(const Path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(kStep)) return -1;
  int64_t step = -1;
  const char* end = name.data() + name.size();
  const auto parsed = std::from_chars(name.data() + kStep.size(), end, step);
  return parsed.ec == std::errc() && parsed.ptr == end ? step : -1;  // not a copy, "step-000200.old"
}

nlohmann::ordered_json TrainState::to_json() const {
  nlohmann::ordered_json json = {{"step", step},
                                 {"best_value", best_value},
                                 {"best_step", best_step},
                                 {"measure", measure},
                                 {"threads", threads},
                                 {"isa", isa},
                                 {"torch_version", torch_version},
                                 {"inputs", inputs}};
  if (stale_validations > 0) json["stale_validations"] = stale_validations;
  if (idle_steps > 0) json["idle_steps"] = idle_steps;  // texts of which every token is supervised have none
  return json;
}

std::optional<Path> newest_checkpoint(const Path& output) {
  const auto all = checkpoints(output);
  return all.empty() ? std::nullopt : std::optional<Path>(all.rbegin()->second);
}

std::string damage_of(const Path& checkpoint) {
  try {
    for (const char* name : {kState, kMasters, kOptimizer})
      if (!is_there(checkpoint / name)) return fmt::format("{} is missing", name);
    const auto json = read_json(checkpoint / kState);
    const TrainState state = state_from_json(json, (checkpoint / kState).string());
    if (const std::string name = changed_file(checkpoint, json); !name.empty())
      return name + " is not as it was written";
    if (state.step != checkpoint_step(checkpoint)) return fmt::format("{} says step {}", kState, state.step);
    for (const char* name : {kMasters, kOptimizer}) formats::SafetensorsReader reader(checkpoint / name);
    return "";
  } catch (const UserError& e) {
    return e.what();
  }
}

std::optional<Path> newest_whole_checkpoint(const Path& output) {
  const auto all = checkpoints(output);
  for (auto entry = all.rbegin(); entry != all.rend(); ++entry) {
    const Path& folder = entry->second;
    const std::string damage = damage_of(folder);
    if (damage.empty()) {
      if (!has_checksums(folder))
        log_warning("{}: written without checksums, by an earlier version; damage to its numbers would go unnoticed",
                    folder.string());
      return folder;
    }
    log_warning("{} is damaged ({}) and passed over", folder.string(), damage);
  }
  CRUMB_CHECK(all.empty(), "{}: no checkpoint is whole; put one back, or start again with --force",
              (output / "checkpoints").string());
  return std::nullopt;
}

void save_checkpoint(const Path& output, const TrainState& state, const Optimizer& optimizer, int64_t keep) {
  make_folders(output / "checkpoints");
  AtomicFolder folder(output / "checkpoints" / fmt::format("step-{:06d}", state.step));
  std::map<std::string, torch::Tensor> masters;
  for (const auto& p : optimizer.parameters()) masters[p.name] = p.value;
  write_tensors(folder.temporary_path() / kMasters, masters);
  write_tensors(folder.temporary_path() / kOptimizer, optimizer.state());
  write_state(folder.temporary_path(), state);
  folder.commit();
  auto all = checkpoints(output);
  for (; all.rbegin()->first > state.step; all.erase(std::prev(all.end()))) remove_folder(all.rbegin()->second);
  for (; static_cast<int64_t>(all.size()) > keep; all.erase(all.begin())) remove_folder(all.begin()->second);
}

void load_masters(const Path& folder, const std::vector<TrainedParameter>& parameters) {
  const torch::NoGradGuard no_grad;
  const Path path = folder / kMasters;
  auto masters = read_tensors(path);
  for (const auto& p : parameters) {
    const auto found = masters.find(p.name);
    // Scales belong to the weights they were trained with.
    CRUMB_CHECK(found != masters.end() || p.kind != ParameterKind::scale,
                "{}: no {}: the run did not quantize this matrix", path.string(), p.name);
    if (found == masters.end()) continue;
    CRUMB_CHECK(found->second.sizes() == p.value.sizes(), "{}: {} has another shape", path.string(), p.name);
    torch::Tensor value = p.value;
    value.copy_(found->second);
    masters.erase(found);
  }
  CRUMB_CHECK(masters.empty(), "{}: {} has no place in this model: the run quantized other matrices", path.string(),
              masters.begin()->first);
}

TrainState load_checkpoint(const Path& folder, Optimizer& optimizer) {
  load_masters(folder, optimizer.parameters());
  const TrainState state = state_from_json(read_json(folder / kState), (folder / kState).string());
  optimizer.load_state(read_tensors(folder / kOptimizer), state.step - state.idle_steps);
  return state;
}

}  // namespace crumb::train
