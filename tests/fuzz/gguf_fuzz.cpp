// A GGUF file: open, print its metadata, decode every tensor; as a model, its tokenizer and a few tokens through it.
#include <memory>

#include "core/formats/gguf.h"
#include "runtime/decoder.h"
#include "tests/fuzz/fuzz.h"

namespace crumb::fuzz {
namespace {

void read_file(const Path& path) {
  const formats::GgufReader reader(path);
  for (const auto& [key, value] : reader.metadata()) CRUMB_ASSERT(!value.text().empty() || reader.find(key) != nullptr);
  for (const auto& tensor : reader.tensors()) {
    CRUMB_ASSERT(static_cast<int64_t>(reader.bytes(tensor).size()) == tensor.bytes);
    if (!tensor.readable) continue;
    std::vector<float> values(static_cast<size_t>(tensor.rows() * tensor.cols()));
    reader.read_rows(tensor, 0, tensor.rows(), values.data());
    reader.release_rows(tensor, 0, tensor.rows());
  }
}

void use_tokenizer(const quant::Checkpoint& checkpoint) {
  const auto tokenizer = checkpoint.load_tokenizer();
  for (const auto id : tokenizer->encode("The end.</s> \xf0\x9f\x98\x80 1234\n", true)) {
    CRUMB_ASSERT(id >= 0 && id < tokenizer->vocab_size());
    tokenizer->decode({id}, true);
  }
  quant::check_vocabulary(checkpoint, *tokenizer);
}

void run_model(const quant::Checkpoint& checkpoint) {
  static const auto pool = std::make_shared<ThreadPool>(1);
  const auto decoder = runtime::load_decoder(checkpoint, pool);
  const auto state = decoder->new_state();
  const auto last = static_cast<runtime::TokenId>(decoder->spec().vocab_size - 1);
  const std::vector<runtime::TokenId> tokens = {0, last, last / 2};
  int64_t rows = 0;
  decoder->forward(std::vector<runtime::SequenceInput>{{state.get(), tokens}}, runtime::LogitsFor::all,
                   [&](int64_t, int64_t, std::span<const float> logits) {
                     CRUMB_ASSERT(static_cast<int64_t>(logits.size()) == decoder->spec().vocab_size);
                     ++rows;
                   });
  CRUMB_ASSERT(rows == static_cast<int64_t>(tokens.size()));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const testing::TempDir dir;
  const Path path = dir / "model.gguf";
  testing::write_file(path, std::string(as_text(data, size)));
  survives([&] { read_file(path); });
  survives([&] {
    const auto checkpoint = quant::open_checkpoint(path);
    survives([&] { checkpoint->hf_config(); });
    survives([&] { use_tokenizer(*checkpoint); });
    run_model(*checkpoint);
  });
  return 0;
}

}  // namespace crumb::fuzz
