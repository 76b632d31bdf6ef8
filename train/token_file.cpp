#include "train/token_file.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "core/common/rng.h"
#include "core/formats/gguf.h"
#include "core/tokenizer/text_file.h"

namespace crumb::train {
namespace {

using tokenizer::TextFile;
using tokenizer::TokenId;

constexpr char kMagic[8] = {'C', 'R', 'U', 'M', 'B', 'T', 'K', '1'};
constexpr size_t kBatchBytes = size_t{8} << 20;  // text encoded in parallel at once

struct Header {
  char magic[8];
  uint64_t key, documents, tokens;
};

uint64_t key_of(const std::vector<TextFile>& texts, const std::string& separator, const TextEncoder& encoder) {
  uint64_t h = hash_word(hash_name("crumb token file 2"), encoder.identity);  // 1 read other files as JSON
  h = hash_bytes(h, separator);
  for (const auto& text : texts) h = hash_bytes(hash_word(h, text.is_json() ? 1 : 0), text.text());
  return h;
}

/// Encodes documents in batches, in parallel, and keeps tokens and ends.
class Encoder {
 public:
  Encoder(const tokenizer::Tokenizer& tokenizer, const ParallelFor& parallel_for)
      : tokenizer_(tokenizer), parallel_for_(parallel_for) {}

  void add(std::string_view document) {
    batch_.emplace_back(document);
    batch_bytes_ += document.size();
    if (batch_bytes_ >= kBatchBytes) flush();
  }
  void flush() {
    std::vector<std::vector<TokenId>> encoded(batch_.size());
    parallel_for_(static_cast<int64_t>(batch_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        encoded[static_cast<size_t>(i)] = tokenizer_.encode(batch_[static_cast<size_t>(i)]);
    });
    for (const auto& document : encoded) {
      ids.insert(ids.end(), document.begin(), document.end());
      if (tokenizer_.special().eos) ids.push_back(*tokenizer_.special().eos);
      ends.push_back(ids.size());
    }
    batch_.clear();
    batch_bytes_ = 0;
  }

  std::vector<TokenId> ids;
  std::vector<uint64_t> ends;

 private:
  const tokenizer::Tokenizer& tokenizer_;
  const ParallelFor& parallel_for_;
  std::vector<std::string> batch_;
  size_t batch_bytes_ = 0;
};

void write_token_file(const Path& path, uint64_t key, const Encoder& encoder) {
  Header header{{}, key, encoder.ends.size(), encoder.ids.size()};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  AtomicFile file(path);
  file.write(&header, sizeof header);
  file.write(encoder.ends.data(), static_cast<int64_t>(encoder.ends.size() * sizeof(uint64_t)));
  file.write(encoder.ids.data(), static_cast<int64_t>(encoder.ids.size() * sizeof(TokenId)));
  file.commit();
}

void tokenize(const std::vector<TextFile>& texts, const std::string& separator, const TextEncoder& encoder,
              const Path& path, uint64_t key, const ParallelFor& parallel_for) {
  if (!encoder.tokenizer->special().eos)
    log_warning("the tokenizer names no EOS: documents follow each other without a token between them");
  const Stopwatch clock;
  Encoder tokens(*encoder.tokenizer, parallel_for);
  for (const auto& text : texts)
    text.for_each_document(separator, [&](std::string_view document) { tokens.add(document); });
  tokens.flush();
  write_token_file(path, key, tokens);
  log_info("tokenized {} documents into {} tokens in {:.1f} s", format_count(static_cast<int64_t>(tokens.ends.size())),
           format_count(static_cast<int64_t>(tokens.ids.size())), clock.seconds());
}

bool is_writable_folder(const Path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return !error && access(folder.c_str(), W_OK | X_OK) == 0;
}

}  // namespace

TokenFile::TokenFile(const Path& path, uint64_t key) : file_(path), key_(key) {
  const auto bytes = file_.bytes();
  Header header{};
  if (bytes.size() >= sizeof header) std::memcpy(&header, bytes.data(), sizeof header);
  const bool is_ours = std::memcmp(header.magic, kMagic, sizeof kMagic) == 0 && header.key == key;
  const bool fits =
      is_ours && header.documents < bytes.size() && header.tokens < bytes.size() &&
      bytes.size() == sizeof header + header.documents * sizeof(uint64_t) + header.tokens * sizeof(TokenId);
  CRUMB_CHECK(fits, "{}: not a token file of this text; remove it", path.string());
  ends_ = {reinterpret_cast<const uint64_t*>(bytes.data() + sizeof header), header.documents};
  ids_ = {reinterpret_cast<const TokenId*>(bytes.data() + sizeof header + header.documents * sizeof(uint64_t)),
          header.tokens};
}

uint64_t tokenizer_identity(const Path& model) {
  uint64_t h = hash_name("tokenizer");
  if (!is_folder(model)) {
    const auto metadata = static_cast<size_t>(formats::GgufReader(model).data_begin());
    const MappedFile file(model);
    return hash_bytes(h, {reinterpret_cast<const char*>(file.bytes().data()), metadata});
  }
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "config.json"}) {
    if (is_there(model / name)) h = hash_file(hash_word(h, hash_name(name)), model / name);
  }
  return h;
}

TokenFile open_token_file(const std::vector<Path>& texts, const std::string& separator, const TextEncoder& encoder,
                          const Path& cache, const ParallelFor& parallel_for) {
  // Judged before the cache is asked: what they hold is told in every run.
  const std::vector<TextFile> files(texts.begin(), texts.end());
  const uint64_t key = key_of(files, separator, encoder);
  const Path path = cache / fmt::format("{:016x}.tokens", key);
  remove_leftovers(cache);
  if (!is_there(path)) tokenize(files, separator, encoder, path, key, parallel_for);
  return TokenFile(path, key);
}

Path token_cache_folder(const Path& fallback) {
  const auto from = [](const char* variable, const char* inside) {
    const char* value = std::getenv(variable);
    return value == nullptr || *value == '\0' ? Path() : Path(value) / inside;
  };
  for (const Path& folder : {from("CRUMB_CACHE", ""), from("XDG_CACHE_HOME", "crumb"), from("HOME", ".cache/crumb")}) {
    if (!folder.empty() && is_writable_folder(folder)) return folder;
  }
  make_folders(fallback);
  return fallback;
}

}  // namespace crumb::train
