#include "train/checkpoint.h"

#include <algorithm>

#include "core/common/error.h"
#include "train/tensor_file.h"

namespace crumb::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// Complete checkpoints, oldest first.
std::vector<Path> checkpoints(const Path& output) {
  std::vector<Path> found;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(output / "checkpoints", none)) {
    if (entry.path().filename().string().starts_with("step-") && fs::exists(entry.path() / "state.json"))
      found.push_back(entry.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

}  // namespace

nlohmann::ordered_json TrainState::to_json() const {
  return {{"step", step},
          {"best_value", best_value},
          {"best_step", best_step},
          {"measure", measure},
          {"threads", threads},
          {"isa", isa},
          {"torch_version", torch_version}};
}

TrainState TrainState::from_json(const Json& json) {
  return {.step = json.at("step"),
          .best_value = json.at("best_value").is_null() ? 0.0 : json.at("best_value").get<double>(),
          .best_step = json.at("best_step"),
          .measure = json.at("measure"),
          .threads = json.at("threads"),
          .isa = json.at("isa"),
          .torch_version = json.at("torch_version")};
}

std::optional<Path> newest_checkpoint(const Path& output) {
  const auto all = checkpoints(output);
  return all.empty() ? std::nullopt : std::optional<Path>(all.back());
}

void save_checkpoint(const Path& output, const TrainState& state, const AdamW& optimizer, int64_t keep) {
  make_folders(output / "checkpoints");
  AtomicFolder folder(output / "checkpoints" / fmt::format("step-{:06d}", state.step));
  std::map<std::string, torch::Tensor> masters;
  for (const auto& p : optimizer.parameters()) masters[p.name] = p.value;
  write_tensors(folder.temporary_path() / "masters.safetensors", masters);
  write_tensors(folder.temporary_path() / "optimizer.safetensors", optimizer.state());
  write_text(folder.temporary_path() / "state.json", state.to_json().dump(2) + "\n");
  folder.commit();
  const auto all = checkpoints(output);
  for (size_t i = 0; i + static_cast<size_t>(keep) < all.size(); ++i) fs::remove_all(all[i]);
}

void load_masters(const Path& folder, const std::vector<TrainedParameter>& parameters) {
  const torch::NoGradGuard no_grad;
  const Path path = folder / "masters.safetensors";
  const auto masters = read_tensors(path);
  for (const auto& p : parameters) {
    const auto found = masters.find(p.name);
    CRUMB_CHECK(found != masters.end(), "{}: no {}: the run trained other parameters", path.string(), p.name);
    CRUMB_CHECK(found->second.sizes() == p.value.sizes(), "{}: {} has another shape", path.string(), p.name);
    torch::Tensor value = p.value;
    value.copy_(found->second);
  }
}

TrainState load_checkpoint(const Path& folder, AdamW& optimizer) {
  load_masters(folder, optimizer.parameters());
  const Json json = Json::parse(read_text(folder / "state.json"), nullptr, false);
  CRUMB_CHECK(json.is_object() && json.contains("step"), "{}: not a training state", (folder / "state.json").string());
  const TrainState state = TrainState::from_json(json);
  optimizer.load_state(read_tensors(folder / "optimizer.safetensors"), state.step);
  return state;
}

}  // namespace crumb::train
