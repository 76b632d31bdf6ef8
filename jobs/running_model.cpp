#include "jobs/running_model.h"

#include <algorithm>
#include <future>
#include <set>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/thread_pool.h"
#include "kernels/cpu_features.h"
#include "quant/fingerprint.h"
#include "runtime/weight_cache.h"

namespace crumb::jobs {

Loading loading_with(int64_t threads) {
  return {std::make_shared<ThreadPool>(static_cast<int>(threads)), std::make_shared<runtime::WeightPool>()};
}

void require_names_apart(const std::vector<NamedModel>& models) {
  std::set<std::string> names;
  for (const auto& model : models)
    CRUMB_CHECK(names.insert(model.name).second, "two models are called \"{}\"; name them: NAME=PATH", model.name);
}

namespace {

/// Tells the weights of a model, and how they are read, from those of another.
std::string weights_identity(const Path& path, const std::vector<Path>& files) {
  return fmt::format("{} {} {}", quant::weights_fingerprint(files), quant::weights_times(files),
                     quant::config_fingerprint(path));
}

/// As exactly as can be had without reading all of it.
std::string exact_identity(const Path& path) {
  const auto files = quant::weight_files(path);
  return fmt::format("{} {}", weights_identity(path, files), quant::weights_change_times(files));
}

/// The one name of what is there or may come there.
Path whole_path(const Path& path) { return std::filesystem::weakly_canonical(std::filesystem::absolute(path)); }

}  // namespace

RunningModel load_model(const Path& path, const runtime::Precision& precision, const Loading& loading,
                        const Path& weight_cache) {
  const Stopwatch watch;
  runtime::WeightStores stores{loading.pool};
  std::string identity;
  if (!weight_cache.empty()) {
    CRUMB_CHECK(precision.device == runtime::Device::cpu,
                "--weight-cache: weights in the order that a GPU reads are not kept; leave it out with --device cuda");
    require_apart(weight_cache, {path});
    CRUMB_CHECK(is_there(path), "{}: no such file or folder", path.string());
    CRUMB_CHECK(!is_folder(path) || whole_path(path) != whole_path(weight_cache).parent_path(),
                "--weight-cache: {} lies in the model's folder, which would have another file of weights; name a place "
                "beside it",
                weight_cache.string());
    identity = exact_identity(path);
    stores.cache = std::make_shared<runtime::WeightCache>(weight_cache, identity);
  }
  RunningModel model;
  model.checkpoint =
      quant::open_checkpoint(path, *loading.executor, stores.cache == nullptr ? nullptr : stores.cache->formats());
  if (!model.checkpoint->has_tokenizer()) model.checkpoint->load_tokenizer();  // says what is missing
  const auto policy = std::launch::async | std::launch::deferred;              // later, where no thread is to be had
  auto tokenizer = std::async(policy, [&] { return model.checkpoint->load_tokenizer(); });
  model.precision = runtime::resolved(precision, *model.checkpoint);
  model.decoder = runtime::load_decoder(*model.checkpoint, loading.executor, model.precision, stores);
  model.tokenizer = tokenizer.get();
  quant::check_vocabulary(*model.checkpoint, *model.tokenizer);
  model.load_seconds = watch.seconds();
  if (stores.cache == nullptr || stores.cache->is_read()) return model;
  if (exact_identity(path) == identity)
    stores.cache->save(*model.checkpoint, *loading.executor);
  else
    log_warning("{}: the model has changed while it was read; its weights are not kept", path.string());
  return model;
}

std::vector<std::string> RunningModel::held() const {
  std::vector<std::string> lines;
  if (precision.device == runtime::Device::cpu) lines = runtime::describe_held(*checkpoint);
  if (!precision.is_exact()) lines.push_back("computed with " + runtime::to_text(precision));
  return lines;
}

std::vector<tokenizer::TokenId> document_ends(const RunningModel& model) {
  const auto& special = model.tokenizer->special();
  std::set<tokenizer::TokenId> ends(special.end.begin(), special.end.end());
  if (special.eos) ends.insert(*special.eos);
  if (special.bos) ends.insert(*special.bos);
  return {ends.begin(), ends.end()};
}

std::string cache_identity(const RunningModel& model) {
  const Path& path = model.checkpoint->path();
  return fmt::format("{} {} {}", weights_identity(path, quant::weight_files(path)), runtime::to_text(model.precision),
                     kernels::isa_name(kernels::best_isa()));
}

void check_caches(const Path& prompt_cache, const Path& weight_cache) {
  if (prompt_cache.empty()) return;
  CRUMB_CHECK(weight_cache.empty() || whole_path(prompt_cache) != whole_path(weight_cache),
              "--prompt-cache and --weight-cache are one file, {}; name two", prompt_cache.string());
  if (!is_there(prompt_cache)) require_new_file(prompt_cache, false);
}

runtime::SamplingOptions sampling_options(const SamplingChoice& choice, const RunningModel& model,
                                          double default_temperature) {
  return {.temperature = choice.temperature.value_or(default_temperature),
          .top_p = choice.top_p,
          .top_k = choice.top_k,
          .min_p = choice.min_p,
          .repetition_penalty = choice.repetition_penalty,
          .seed = choice.seed,
          .vocab_size = model.tokenizer->vocab_size()};
}

double rate_of(int64_t tokens, double seconds) { return static_cast<double>(tokens) / std::max(seconds, 1e-9); }

}  // namespace crumb::jobs
