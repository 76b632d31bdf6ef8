// Texts as tokens, made once and kept in a file that is mapped.
//
// Layout, little-endian: "CRUMBTK1", u64 key, u64 documents, u64 tokens, u64 document_end[documents], i32 id[tokens].
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/common/file.h"
#include "core/common/thread_pool.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::train {

/// The documents of one or more texts, one after the other, EOS after each (if the tokenizer has one).
class TokenFile {
 public:
  /// UserError if the file is not one of ours, or not of this key.
  TokenFile(const Path& path, uint64_t key);

  /// A hash of the texts, the separator and the tokenizer.
  uint64_t key() const { return key_; }
  int64_t num_tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t num_documents() const { return static_cast<int64_t>(ends_.size()); }
  int64_t document_begin(int64_t i) const { return i == 0 ? 0 : document_end(i - 1); }
  int64_t document_end(int64_t i) const { return static_cast<int64_t>(ends_[static_cast<size_t>(i)]); }
  std::span<const tokenizer::TokenId> ids() const { return ids_; }

 private:
  MappedFile file_;
  uint64_t key_;
  std::span<const uint64_t> ends_;
  std::span<const tokenizer::TokenId> ids_;
};

/// What turns text into tokens. `identity` stands for it in the key of a cached file: see tokenizer_identity().
struct TextEncoder {
  const tokenizer::Tokenizer* tokenizer = nullptr;
  uint64_t identity = 0;
};
/// A hash of the tokenizer files of an HF folder, or of a GGUF's metadata.
uint64_t tokenizer_identity(const Path& model);

/// Opens the token file of `texts` in `cache`, and writes it first if it is absent. Its name is a hash of the texts'
/// bytes, the separator and the tokenizer: a changed text gets a new file.
TokenFile open_token_file(const std::vector<Path>& texts, const std::string& separator, const TextEncoder& encoder,
                          const Path& cache, const ParallelFor& parallel_for);

/// $CRUMB_CACHE, else $XDG_CACHE_HOME/crumb, else ~/.cache/crumb; `fallback` where none can be written.
Path token_cache_folder(const Path& fallback);

}  // namespace crumb::train
