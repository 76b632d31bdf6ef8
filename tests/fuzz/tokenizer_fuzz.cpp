// Three parts: tokenizer.json (or, without a brace first, llama2.c's tokenizer.bin), a text, tokenizer_config.json.
// Open; encode and decode the text; write the vocabulary as GGUF metadata.
#include "core/tokenizer/tokenizer.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
namespace {

void use(const tokenizer::Tokenizer& tokenizer, const std::string& text) {
  for (const bool special : {false, true}) {
    const auto ids = tokenizer.encode(text, special, special);
    tokenizer::StreamingDecoder stream(tokenizer);
    for (const auto id : ids) {
      CRUMB_ASSERT(id >= 0 && id < tokenizer.vocab_size());
      tokenizer.token_bytes(id);
      stream.push(id);
    }
    stream.finish();
    tokenizer.decode(ids, special);
  }
  for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const auto piece = tokenizer.piece(static_cast<tokenizer::TokenId>(id));
    tokenizer.find_piece(piece);
  }
  formats::GgufWriter writer;
  tokenizer.set_gguf_metadata(tokenizer.vocab_size() + 1, writer);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  const auto input = as_text(data, size);
  const bool is_json = input.starts_with('{');
  if (!is_json) {
    testing::write_file(dir / "tokenizer.bin", std::string(input));
    survives([&] { use(*tokenizer::load_tokenizer(dir / "tokenizer.bin"), "Once upon a time"); });
    return 0;
  }
  const auto parts = cut(input, 3);
  testing::write_file(dir / "tokenizer.json", parts[0]);
  testing::fs::remove(dir / "tokenizer_config.json");
  if (!parts[2].empty()) testing::write_file(dir / "tokenizer_config.json", parts[2]);
  survives([&] { use(*tokenizer::load_tokenizer(dir.path()), parts[1]); });
  return 0;
}

}  // namespace crumb::fuzz
