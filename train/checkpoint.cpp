#include "train/checkpoint.h"

#include <algorithm>
#include <charconv>

#include "core/common/error.h"
#include "train/tensor_file.h"

namespace crumb::train {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStep = "step-";

/// Complete checkpoints by step, oldest first.
std::map<int64_t, Path> checkpoints(const Path& output) {
  std::map<int64_t, Path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(output / "checkpoints", none)) {
    const int64_t step = checkpoint_step(entry.path());
    if (step >= 0 && fs::exists(entry.path() / "state.json")) found[step] = entry.path();
  }
  return found;
}

/// A kill must not leave half a checkpoint under its name.
void remove_checkpoint(const Path& folder) {
  const Path aside = folder.parent_path() / fmt::format(".{}.tmp-0-0", folder.filename().string());
  fs::rename(folder, aside);
  fs::remove_all(aside);
}

}  // namespace

int64_t checkpoint_step(const Path& folder) {
  const std::string name = folder.filename().string();
  int64_t step = -1;
  if (name.starts_with(kStep)) std::from_chars(name.data() + kStep.size(), name.data() + name.size(), step);
  return step;
}

nlohmann::ordered_json TrainState::to_json() const {
  return {{"step", step},
          {"best_value", best_value},
          {"best_step", best_step},
          {"measure", measure},
          {"threads", threads},
          {"isa", isa},
          {"torch_version", torch_version},
          {"inputs", inputs}};
}

TrainState TrainState::from_json(const JsonObject& json) {
  TrainState state{.step = json.get<int64_t>("step"),
                   .best_value = json.get<double>("best_value", 0.0),
                   .best_step = json.get<int64_t>("best_step"),
                   .measure = json.get<std::string>("measure"),
                   .threads = json.get<int64_t>("threads"),
                   .isa = json.get<std::string>("isa"),
                   .torch_version = json.get<std::string>("torch_version"),
                   .inputs = {}};
  const JsonObject inputs = json.inner("inputs");
  for (const auto& [name, value] : inputs.object().items())
    state.inputs[name] = json_as<std::string>(value, inputs.where(), name);
  return state;
}

std::optional<Path> newest_checkpoint(const Path& output) {
  const auto all = checkpoints(output);
  return all.empty() ? std::nullopt : std::optional<Path>(all.rbegin()->second);
}

void save_checkpoint(const Path& output, const TrainState& state, const AdamW& optimizer, int64_t keep) {
  make_folders(output / "checkpoints");
  AtomicFolder folder(output / "checkpoints" / fmt::format("step-{:06d}", state.step));
  std::map<std::string, torch::Tensor> masters;
  for (const auto& p : optimizer.parameters()) masters[p.name] = p.value;
  write_tensors(folder.temporary_path() / "masters.safetensors", masters);
  write_tensors(folder.temporary_path() / "optimizer.safetensors", optimizer.state());
  write_text(folder.temporary_path() / "state.json", dump_json(state.to_json(), 2) + "\n");
  folder.commit();
  auto all = checkpoints(output);
  for (; static_cast<int64_t>(all.size()) > keep; all.erase(all.begin())) remove_checkpoint(all.begin()->second);
}

void load_masters(const Path& folder, const std::vector<TrainedParameter>& parameters) {
  const torch::NoGradGuard no_grad;
  const Path path = folder / "masters.safetensors";
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

static TrainState read_state(const Path& path) {
  try {
    const auto json = read_json(path);
    return TrainState::from_json(JsonObject(json, path.string()));
  } catch (const UserError& e) {
    user_error("{}; remove its folder to go on from the checkpoint before it", e.what());
  }
}

TrainState load_checkpoint(const Path& folder, AdamW& optimizer) {
  load_masters(folder, optimizer.parameters());
  const TrainState state = read_state(folder / "state.json");
  optimizer.load_state(read_tensors(folder / "optimizer.safetensors"), state.step);
  return state;
}

}  // namespace crumb::train
