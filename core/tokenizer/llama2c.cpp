#include "core/tokenizer/llama2c.h"

#include <cstring>

#include "core/common/error.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

constexpr TokenId kUnknown = 0, kBos = 1, kEos = 2, kFirstByte = 3;

class Cursor {
 public:
  explicit Cursor(const Path& file) : file_(file) {}

  bool at_end() const { return position_ == file_.size(); }
  template <class T>
  T read() {
    T value;
    std::memcpy(&value, take(sizeof(T)), sizeof(T));
    return value;
  }
  std::string read_string(int64_t size) {
    return {reinterpret_cast<const char*>(take(size)), static_cast<size_t>(size)};
  }

 private:
  const uint8_t* take(int64_t size) {
    CRUMB_CHECK(size >= 0 && size <= file_.size() - position_,
                "{}: not a tokenizer.bin of llama2.c, or truncated: wants {} bytes at {} of {}", file_.path().string(),
                size, position_, file_.size());
    const uint8_t* data = file_.bytes().data() + position_;
    position_ += size;
    return data;
  }

  MappedFile file_;
  int64_t position_ = 0;
};

std::string with_marks(std::string_view piece) {
  std::string out;
  for (const char c : piece) {
    if (c == ' ')
      out += kSpaceMark;
    else
      out += c;
  }
  return out;
}

void set_reserved(Description& out, const std::string& name) {
  CRUMB_CHECK(out.tokens.size() >= kFirstByte + 256, "{}: {} tokens, expected at least 3 special ones and 256 bytes",
              name, out.tokens.size());
  out.tokens[kUnknown] = {"<unk>", TokenType::unknown, 0, true};
  out.tokens[kBos] = {"<s>", TokenType::control, 0, true};
  out.tokens[kEos] = {"</s>", TokenType::control, 0, true};
  for (int byte = 0; byte < 256; ++byte) {
    Token& token = out.tokens[static_cast<size_t>(kFirstByte + byte)];
    CRUMB_CHECK(byte_of_piece(token.piece) == byte, "{}: token {} is \"{}\", expected {}", name, kFirstByte + byte,
                token.piece, piece_of_byte(static_cast<uint8_t>(byte)));
    token.type = TokenType::byte;
  }
  for (const TokenId id : {kUnknown, kBos, kEos}) {
    out.added.push_back({out.tokens[static_cast<size_t>(id)].piece, id, true, false, false, false, false});
  }
}

}  // namespace

Description read_llama2c(const Path& file) {
  const std::string name = file.string();
  Description out;
  out.source = name;
  out.kind = Description::Kind::sentencepiece;
  out.priority = Description::Priority::scores;
  out.rules = Description::Rules::llamacpp;
  Cursor cursor(file);
  cursor.read<int32_t>();  // the longest piece
  while (!cursor.at_end()) {
    const auto score = cursor.read<float>();
    const auto size = cursor.read<int32_t>();
    std::string storage;
    out.tokens.push_back({with_marks(valid_utf8(cursor.read_string(size), storage)), TokenType::normal, score, true});
  }
  set_reserved(out, name);
  out.byte_fallback = true;
  out.fuse_unknown = true;
  out.unknown = kUnknown;
  out.normalizer.steps = {{NormalizerStep::Kind::prepend, "", std::string(kSpaceMark), {}},
                          {NormalizerStep::Kind::replace, " ", std::string(kSpaceMark), {}}};
  out.strip_leading_space = true;
  out.special = {kBos, kEos, kUnknown, std::nullopt, true, false, {kEos}};
  out.prefix = {kBos};
  return out;
}

}  // namespace crumb::tokenizer
