// What is in a checkpoint, a GGUF or a safetensors file.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/common/file.h"
#include "core/tokenizer/tokenizer.h"

namespace crumb::jobs {

/// A tensor as it is stored.
struct StoredEntry {
  std::string name, type;
  std::vector<int64_t> shape;
  int64_t bytes = 0;
  bool is_vocabulary = false;            // embedding or head
  bool is_readable = true;               // Crumb has a codec for it
  std::vector<int64_t> codes_histogram;  // of codes and scales
  int64_t pruned = 0;                    // weights that a mask takes out

  int64_t elements() const;
};

struct Contents {
  std::string kind, architecture, note;
  std::unique_ptr<arch::DecoderSpec> spec;  // of supported architectures
  std::vector<StoredEntry> entries;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::unique_ptr<tokenizer::Tokenizer> tokenizer = nullptr;
  std::string tokenizer_note = {};  // why there is none
};

/// Sums over entries.
struct Total {
  int64_t tensors = 0, elements = 0, bytes = 0, pruned = 0;
  void add(const StoredEntry& entry);
  double bits() const;  // a weight
};

/// UserError: no such file or folder, or none that can be read. A model that Crumb does not run, or a tokenizer, is no
/// error: the notes say why.
Contents inspect(const Path& path);

/// Of all entries, or of all but embedding and head.
Total total_of(const Contents& contents, bool with_vocabulary);
std::map<std::string, Total> totals_by_type(const Contents& contents);

/// Codes of all tensors of one type, "seq2" -> counts.
std::map<std::string, std::vector<int64_t>> codes_by_type(const Contents& contents);

}  // namespace crumb::jobs
