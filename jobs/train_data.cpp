#include "jobs/train_data.h"

#include <sys/stat.h>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/thread_pool.h"

namespace crumb::jobs {
namespace {

std::string names_of(const std::vector<Path>& paths) {
  return paths.size() == 1 ? paths[0].string() : fmt::format("{} and {} more", paths[0].string(), paths.size() - 1);
}

/// The same for every name of a file; nothing where it is absent.
std::optional<std::pair<dev_t, ino_t>> identity_of(const Path& path) {
  struct stat st {};
  if (stat(path.c_str(), &st) != 0) return std::nullopt;
  return std::pair{st.st_dev, st.st_ino};
}

void require_no_folder(const char* key, const Path& text) {
  CRUMB_CHECK(text.empty() || !is_folder(text), "{}: {} is a folder; name the files in it", key, text.string());
}

/// Validation text must not be trained on. A text given twice would be split as one, with copies on both sides.
void check_sources(const train::DataOptions& data) {
  const auto valid = data.valid_path() == nullptr ? std::nullopt : identity_of(*data.valid_path());
  std::set<std::pair<dev_t, ino_t>> seen;
  for (const auto& source : data.train) {
    const auto file = identity_of(source.path);
    if (!file) continue;  // told where it is read
    CRUMB_CHECK(file != valid, "data.valid: {} is trained on, too; give another text, or a share such as 1%",
                source.path.string());
    CRUMB_CHECK(seen.insert(*file).second, "data.train: {} is given twice", source.path.string());
  }
}

}  // namespace

void check_texts(const TrainJob& job) {
  for (const auto& source : job.data.train) require_no_folder("data.train", source.path);
  if (job.data.valid_path() != nullptr) require_no_folder("data.valid", *job.data.valid_path());
  for (const Path& text : job.evaluate.texts) require_no_folder("evaluate.text", text);
  check_sources(job.data);
}

text::TextEncoder text_encoder(const TrainJob& job, const tokenizer::Tokenizer& tokenizer) {
  const Path folder = job.model.tokenizer_folder();
  return {&tokenizer, text::tokenizer_identity(folder),
          text::ChatFormat{.roles = job.data.roles, .enable_thinking = job.data.thinking, .model = folder.string()}};
}

TrainData open_train_data(const TrainJob& job, const text::TextEncoder& encoder, int64_t length, const Path& fallback) {
  ThreadPool pool(static_cast<int>(job.threads.value_or(0)));
  const Path cache = text::token_cache_folder(fallback);
  const double share = job.data.valid_share();
  TrainData data;
  const auto open = [&](const std::vector<Path>& texts) {
    const auto file = std::make_shared<const text::TokenFile>(
        text::open_token_file(texts, job.data.separator, encoder, cache, pool.as_parallel_for()));
    data.key = hash_word(data.key, file->key());
    return file;
  };
  const auto add = [&](const std::vector<Path>& texts, double weight) {
    auto split = train::split_text(open(texts), share, length, static_cast<uint64_t>(job.seed), names_of(texts));
    data.train.push_back({std::move(split.train), weight});
    if (split.valid.size() > 0) data.valid.push_back(std::move(split.valid));
  };
  std::vector<Path> unweighted;
  for (const auto& source : job.data.train) {
    if (!source.weight) unweighted.push_back(source.path);
    if (source.weight.value_or(0) > 0) add({source.path}, *source.weight);
  }
  if (!unweighted.empty()) add(unweighted, 1.0);
  if (const Path* path = job.data.valid_path(); path != nullptr) {
    data.valid.push_back(train::split_text(open({*path}), 0, length, 0, path->string()).train);
  }
  CRUMB_CHECK(!data.valid.empty(), "data.valid: a share of 0 leaves nothing to validate on");
  return data;
}

int64_t count_windows(const TrainJob& job, int64_t length) {
  const auto tokenizer = tokenizer::load_tokenizer(job.model.tokenizer_folder());
  auto data = open_train_data(job, text_encoder(job, *tokenizer), length, temporary_folder() / "crumb-tokens");
  return train::Sampler(std::move(data.train), length, 0).num_windows();
}

}  // namespace crumb::jobs
