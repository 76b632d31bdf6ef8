#include "core/tokenizer/tokenizer.h"

#include <cstdio>

#include "core/common/error.h"
#include "core/tokenizer/bpe_tokenizer.h"
#include "core/tokenizer/gguf_vocabulary.h"
#include "core/tokenizer/hf_json.h"
#include "core/tokenizer/llama2c.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

Description read_folder(const Path& folder) {
  const Path json = folder / "tokenizer.json";
  if (is_there(json)) return read_hf_json(json);
  const bool has_model = is_there(folder / "tokenizer.model");
  user_error("{}: no tokenizer.json{}", folder.string(),
             has_model ? " (a SentencePiece tokenizer.model is not read: save the tokenizer again with transformers to "
                         "get a tokenizer.json)"
                       : "");
}

Description read_file(const Path& path) {
  const MappedFile file(path);
  const std::string_view head(reinterpret_cast<const char*>(file.bytes().data()),
                              static_cast<size_t>(std::min<int64_t>(file.size(), 64)));
  if (head.starts_with("GGUF")) return read_gguf_vocabulary(formats::GgufReader(path));
  const size_t first = head.find_first_not_of(" \t\r\n");
  if (first != std::string_view::npos && head[first] == '{') return read_hf_json(path);
  return read_llama2c(path);
}

}  // namespace

int byte_of_piece(std::string_view piece) {
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; };
  if (piece.size() != 6 || !piece.starts_with("<0x") || piece[5] != '>') return -1;
  const int high = digit(piece[3]), low = digit(piece[4]);
  return high < 0 || low < 0 ? -1 : 16 * high + low;
}

std::string piece_of_byte(uint8_t byte) { return fmt::format("<0x{:02X}>", byte); }

std::unique_ptr<Tokenizer> load_tokenizer(const Path& path) {
  CRUMB_CHECK(is_there(path), "{}: no such file or folder", path.string());
  return std::make_unique<BpeTokenizer>(is_folder(path) ? read_folder(path) : read_file(path));
}

std::unique_ptr<Tokenizer> load_tokenizer(const formats::GgufReader& gguf) {
  return std::make_unique<BpeTokenizer>(read_gguf_vocabulary(gguf));
}

std::optional<TokenId> first_difference(const Tokenizer& a, const Tokenizer& b) {
  CRUMB_ASSERT(a.vocab_size() == b.vocab_size());
  for (TokenId id = 0; id < a.vocab_size(); ++id) {
    if (a.piece(id) != b.piece(id)) return id;
  }
  return std::nullopt;
}

std::string StreamingDecoder::push(TokenId id) {
  if (tokenizer_.is_special(id)) return "";
  pending_ += first_ ? tokenizer_.decode({id}) : tokenizer_.token_bytes(id);
  first_ = false;
  std::string out;
  size_t at = 0;
  while (at < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(at);
    const Utf8Sequence next = next_utf8(rest);
    if (next.state == Utf8Sequence::State::incomplete) break;
    out += next.state == Utf8Sequence::State::valid ? rest.substr(0, next.size) : kReplacement;
    at += next.size;
  }
  pending_.erase(0, at);
  return out;
}

std::string StreamingDecoder::finish() {
  const bool left = !pending_.empty();
  pending_.clear();
  return left ? std::string(kReplacement) : "";
}

}  // namespace crumb::tokenizer
