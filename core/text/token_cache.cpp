#include "core/text/token_cache.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <string>
#include <utility>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "core/common/rng.h"
#include "core/formats/gguf.h"
#include "core/text/encode.h"
#include "core/text/text_file.h"

namespace crumb::text {
namespace {

/// Not of the layout of the file, which its magic tells: a run goes on with the same text under another layout.
uint64_t key_of(const std::vector<TextFile>& texts, const std::string& separator, const TextEncoder& encoder,
                const std::optional<ChatEncoder>& chat) {
  uint64_t h = hash_word(hash_name("crumb token file 2"), encoder.identity);  // 1 read other files as JSON
  h = hash_bytes(h, separator);
  for (const auto& text : texts) h = text.hash(h);
  if (chat) h = hash_word(h, chat->identity());
  return h;
}

/// What writes the conversations among the texts; nothing where there are none.
std::optional<ChatEncoder> chat_encoder(const std::vector<TextFile>& texts, const TextEncoder& encoder) {
  const auto chat = std::find_if(texts.begin(), texts.end(), [](const TextFile& text) { return text.is_chat(); });
  if (chat == texts.end()) return std::nullopt;
  CRUMB_CHECK(encoder.chat, "{}: conversations (\"messages\") are read by crumb train only; give a text",
              chat->path().string());
  return std::optional<ChatEncoder>(std::in_place, *encoder.tokenizer, *encoder.chat);
}

void tokenize(const std::vector<TextFile>& texts, const std::string& separator, const tokenizer::Tokenizer& tokenizer,
              const std::optional<ChatEncoder>& chat, const Path& path, uint64_t key, const ParallelFor& parallel_for) {
  TokenFileWriter file(path, key, tokenizer.vocab_size());
  const Frame frame = document_frame(tokenizer, /*bos=*/false);
  const bool has_plain = std::any_of(texts.begin(), texts.end(), [](const TextFile& text) { return !text.is_chat(); });
  if (has_plain && !frame.after)
    log_warning("the tokenizer names no EOS: documents follow each other without a token between them");
  const Stopwatch clock;
  DocumentEncoder documents(
      tokenizer, frame, parallel_for,
      [&](std::span<const TokenId> ids, std::span<const uint8_t> supervised) { file.add(ids, supervised); });
  std::set<std::string> roles;  // of all conversations
  for (const auto& text : texts) {
    if (text.is_chat())
      text.for_each_conversation([&](Conversation one) {
        for (const auto& message : one.messages) roles.insert(message["role"].get<std::string>());
        documents.add(std::move(one), *chat);
      });
    else
      text.for_each_document(separator, [&](std::string_view document) { documents.add(document); });
  }
  documents.finish();
  if (chat) {
    for (const auto& role : chat->roles())
      CRUMB_CHECK(role == ChatFormat::kAll || roles.contains(role),
                  "data.roles: no conversation has the role \"{}\"; they have {}", role, fmt::join(roles, ", "));
  }
  file.commit();
  log_info("tokenized {} documents into {} tokens in {:.1f} s", format_count(file.num_documents()),
           format_count(file.num_tokens()), clock.seconds());
}

bool is_writable_folder(const Path& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  return !error && access(folder.c_str(), W_OK | X_OK) == 0;
}

}  // namespace

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
  const auto chat = chat_encoder(files, encoder);
  const uint64_t key = key_of(files, separator, encoder, chat);
  // Version 1 wrote KEY.tokens: a program of that version beside this one keeps its own.
  const Path path = cache / fmt::format("{:016x}.tokens2", key);
  const int64_t vocabulary = encoder.tokenizer->vocab_size();
  remove_leftovers(cache);
  if (is_there(path)) {
    try {
      return TokenFile(path, key, vocabulary);
    } catch (const UserError& e) {
      log_warning("{}; it is made again", e.what());
    }
  }
  tokenize(files, separator, *encoder.tokenizer, chat, path, key, parallel_for);
  return TokenFile(path, key, vocabulary);
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

}  // namespace crumb::text
