// The vocabularies that are there, and a small one to change.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {

using Ids = std::vector<TokenId>;
using nlohmann::json;

inline const std::vector<std::string> kAllVocabularies = {"models/ref-llama-15m",
                                                          "models/stories260K-hf",
                                                          "models/stories260K/tok512.bin",
                                                          "models/tiny1m-hf",
                                                          "tokenizers/gpt2-hf-json",
                                                          "tokenizers/llama2-hf-json",
                                                          "tokenizers/llama2-spm/tokenizer.bin",
                                                          "tokenizers/ggml-vocabs/ggml-vocab-gpt-2.gguf",
                                                          "tokenizers/ggml-vocabs/ggml-vocab-llama-spm.gguf",
                                                          "tokenizers/ggml-vocabs/ggml-vocab-phi-3.gguf",
                                                          "tokenizers/ggml-vocabs/ggml-vocab-deepseek-llm.gguf"};

/// A byte-level tokenizer.json of the 256 bytes, a few merges and `patch` merged over it.
inline json small_json(const json& patch = json::object()) {
  json vocab = json::object();
  for (uint32_t c = 0, id = 0; id < 256; ++c) {
    const bool printable = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c < 256);
    if (!printable && c < 256) continue;
    std::string piece;
    append_utf8(c, piece);
    vocab[piece] = id++;
  }
  vocab["he"] = 256;
  vocab["the"] = 257;
  json out = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "t he"}}}},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
              {"decoder", {{"type", "ByteLevel"}}},
              {"added_tokens", {{{"id", 258}, {"content", "<|end|>"}, {"special", true}}}}};
  out.merge_patch(patch);
  return out;
}

inline std::unique_ptr<Tokenizer> load_json(const json& content, const json& config = nullptr) {
  const testing::TempDir dir;
  testing::write_file(dir / "tokenizer.json", content.dump());
  if (!config.is_null()) testing::write_file(dir / "tokenizer_config.json", config.dump());
  return load_tokenizer(dir.path());
}

inline void write_gguf(const Tokenizer& tokenizer, int64_t rows, const testing::fs::path& file) {
  formats::GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  tokenizer.set_gguf_metadata(rows, writer);
  writer.begin(file);
  writer.finish();
  writer.commit();
}

}  // namespace crumb::tokenizer
