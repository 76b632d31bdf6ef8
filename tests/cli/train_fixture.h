// A model and texts small enough to train in a test, and the program run in pieces.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "core/common/rng.h"
#include "tests/testing/running_crumb.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

using Json = nlohmann::ordered_json;

inline void append_utf8(int code_point, std::string& out) {
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else {
    out += static_cast<char>(0xc0 | code_point >> 6);
    out += static_cast<char>(0x80 | (code_point & 0x3f));
  }
}

/// A byte-level BPE without merges: GPT-2's alphabet, then <|end|> = 256.
inline Json byte_tokenizer() {
  Json vocabulary = Json::object();
  int id = 0, spare = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    std::string piece;
    append_utf8(is_printable ? byte : spare++, piece);
    vocabulary[piece] = id++;
  }
  vocabulary["<|end|>"] = 256;
  const Json end{{"id", 256},       {"content", "<|end|>"}, {"single_word", false}, {"lstrip", false},
                 {"rstrip", false}, {"normalized", false},  {"special", true}};
  return {{"version", "1.0"},
          {"added_tokens", Json::array({end})},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", nullptr},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", Json::array()}}}};
}

/// config.json and tokenizer of a model of two layers of 32.
inline fs::path make_blank_model(const fs::path& folder) {
  fs::create_directories(folder);
  const Json config{{"architectures", Json::array({"LlamaForCausalLM"})},
                    {"model_type", "llama"},
                    {"vocab_size", 257},
                    {"hidden_size", 32},
                    {"intermediate_size", 64},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 2},
                    {"num_key_value_heads", 1},
                    {"head_dim", 16},
                    {"max_position_embeddings", 32},
                    {"rms_norm_eps", 1e-5},
                    {"rope_theta", 10000.0},
                    {"hidden_act", "silu"},
                    {"tie_word_embeddings", true},
                    {"bos_token_id", 256},
                    {"eos_token_id", 256},
                    {"torch_dtype", "float32"}};
  write_file(folder / "config.json", config.dump(2));
  write_file(folder / "tokenizer.json", byte_tokenizer().dump());
  write_file(
      folder / "tokenizer_config.json",
      Json{{"eos_token", "<|end|>"}, {"bos_token", "<|end|>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}}.dump());
  return folder;
}

/// Sentences that a small model can learn something from.
inline std::string sentences(int documents) {
  const char* subjects[] = {"the crow", "a river", "my neighbour", "the old clock"};
  const char* verbs[] = {"watches", "forgets", "follows", "mends"};
  const Rng rng(11);
  std::string text;
  for (int i = 0; i < documents; ++i) {
    const auto r = rng.bits(static_cast<uint64_t>(i));
    text += std::string(i == 0 ? "" : "\n\n\n") + subjects[r % 4] + " " + verbs[r / 4 % 4] + " " +
            subjects[r / 16 % 4] + " " + std::to_string(r / 64 % 100) + " times.";
  }
  return text;
}

inline std::vector<Json> log_of(const fs::path& run) {
  std::vector<Json> lines;
  std::istringstream text(read_file(run / "log.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(Json::parse(line, nullptr, false));
  return lines;
}

}  // namespace crumb::testing
