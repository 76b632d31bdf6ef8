// Token files of texts, made once and kept in a folder. They may be removed at any time, and are made again.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "core/text/chat.h"
#include "core/text/token_file.h"

namespace crumb::text {

/// What turns text into tokens. `identity` stands for it in the key of a cached file: see tokenizer_identity().
struct TextEncoder {
  const tokenizer::Tokenizer* tokenizer = nullptr;
  uint64_t identity = 0;
  std::optional<ChatFormat> chat = {};  // none: files of conversations are refused
};
/// A hash of the tokenizer files of an HF folder, or of a GGUF's metadata.
uint64_t tokenizer_identity(const Path& model);

/// Opens the token file of `texts` in `cache`: their documents one after the other, each in its document_frame()
/// without BOS, and conversations as ChatEncoder writes them. It is written first if it is absent, and again, with a
/// warning, if it is damaged. Its name is a hash of the texts' bytes, the separator, the tokenizer and, of
/// conversations, the template and the format: a changed text gets a new file. Memory holds a batch of documents
/// (DocumentEncoder), whatever the size of the texts.
TokenFile open_token_file(const std::vector<Path>& texts, const std::string& separator, const TextEncoder& encoder,
                          const Path& cache, const ParallelFor& parallel_for);

/// $CRUMB_CACHE, else $XDG_CACHE_HOME/crumb, else ~/.cache/crumb; `fallback` where none can be written.
Path token_cache_folder(const Path& fallback);

}  // namespace crumb::text
