// The goldens made by make_goldens.py: tiny models of every architecture and option with transformers' logits.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "core/formats/safetensors.h"
#include "runtime/decoder.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

inline const std::vector<std::string>& golden_names() {
  static const std::vector<std::string> names{
      "llama",        "llama_tied", "llama_bias", "llama3",       "llama_linear", "mistral",        "qwen2",
      "qwen2_window", "qwen3",      "qwen3_bias", "qwen3_window", "hunyuan",      "hunyuan_untied", "hunyuan_bias"};
  return names;
}
inline Path golden_folder(const std::string& name) { return source_dir() / "tests" / "runtime" / "goldens" / name; }

struct Golden {
  std::vector<runtime::TokenId> ids;
  std::vector<float> logits;  // [ids, vocab]
};
inline Golden read_golden(const std::string& name) {
  const formats::SafetensorsReader reader(golden_folder(name) / "golden.safetensors");
  const auto& ids = reader.at("ids");
  const auto& logits = reader.at("logits");
  std::vector<int64_t> wide(static_cast<size_t>(ids.elements()));
  std::memcpy(wide.data(), reader.bytes(ids).data(), wide.size() * sizeof(int64_t));
  Golden golden{{wide.begin(), wide.end()}, std::vector<float>(static_cast<size_t>(logits.elements()))};
  reader.read_rows(logits, 0, logits.rows(), golden.logits.data());
  return golden;
}

inline std::shared_ptr<ThreadPool> two_threads() { return std::make_shared<ThreadPool>(2); }

/// Logits of every position of a text, [ids, vocab], in one call.
inline std::vector<float> all_logits(runtime::Decoder& decoder, const std::vector<runtime::TokenId>& ids) {
  std::vector<float> result;
  const auto state = decoder.new_state();
  const runtime::SequenceInput input{state.get(), ids};
  decoder.forward({&input, 1}, runtime::LogitsFor::all, [&](int64_t, int64_t, std::span<const float> row) {
    result.insert(result.end(), row.begin(), row.end());
  });
  return result;
}

/// Largest difference as a share of the range of `expected`.
inline double relative_difference(const std::vector<float>& actual, const std::vector<float>& expected) {
  if (actual.size() != expected.size() || actual.empty()) return INFINITY;
  double difference = 0.0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double d = std::abs(static_cast<double>(actual[i]) - expected[i]);
    if (!(d <= difference)) difference = d;  // also NaN
  }
  const auto [low, high] = std::minmax_element(expected.begin(), expected.end());
  return difference / (static_cast<double>(*high) - *low);
}

}  // namespace crumb::testing
