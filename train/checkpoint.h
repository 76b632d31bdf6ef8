// Training checkpoints: OUTPUT/checkpoints/step-000200/{masters,optimizer}.safetensors and state.json, which holds a
// checksum of each of the three ("checksums": 16 hex digits of core/common/hash.h by file; of itself: of everything
// else in it). Those of earlier versions have none; they are still gone on from, with a warning.
#pragma once

#include <optional>

#include "core/common/json.h"
#include "train/optimizer.h"

namespace crumb::train {

/// What must go on exactly where it stopped, beside masters and moments.
struct TrainState {
  int64_t step = 0;
  int64_t idle_steps = 0;         // of these: without a supervised token, so that the optimizer did not step
  int64_t stale_validations = 0;  // in a row, without a better one (ValidateOptions::patience)
  double best_value = 0;          // of the validation measure; lower is better
  int64_t best_step = -1;         // -1: none yet
  std::string measure;            // "kl" or "cross_entropy"
  int64_t threads = 0;
  std::string isa, torch_version;
  /// Fingerprints of what the run reads ("text", "model", ...): it goes on only with the same.
  std::map<std::string, std::string> inputs;

  nlohmann::ordered_json to_json() const;
};

/// Folder of the newest checkpoint under `output`, if any, whole or not.
std::optional<Path> newest_checkpoint(const Path& output);

/// What is wrong with a checkpoint, such as "masters.safetensors is not as it was written"; "" if it is whole. Reads
/// every byte, 3 GB a second or as fast as the disk.
std::string damage_of(const Path& checkpoint);

/// The newest checkpoint that is whole; a warning for each damaged one that is passed over. UserError when there are
/// checkpoints and none is whole.
std::optional<Path> newest_whole_checkpoint(const Path& output);

/// The step in the name of a checkpoint's folder; -1 for other names.
int64_t checkpoint_step(const Path& folder);

/// Writes aside, syncs, renames; then removes those of later steps, which the run has left, and all but the newest
/// `keep`.
void save_checkpoint(const Path& output, const TrainState& state, const Optimizer& optimizer, int64_t keep);

/// Loads masters and moments into `optimizer`'s parameters. UserError naming the file for parameters that do not match.
TrainState load_checkpoint(const Path& folder, Optimizer& optimizer);

/// Copies the masters of a checkpoint into the parameters of the same names. UserError for a master that has no
/// parameter or another shape, and for a scale without a master; other parameters may be absent and stay.
void load_masters(const Path& folder, const std::vector<TrainedParameter>& parameters);

}  // namespace crumb::train
