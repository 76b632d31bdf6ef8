// Asking other programs what they make of exported files, and comparing with our runtime.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "quant/checkpoint.h"
#include "runtime/decoder.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {

namespace fs = std::filesystem;

inline std::string script(const std::string& name) {
  return (testing::source_dir() / "tests" / "export" / name).string();
}

/// Runs llama.cpp on a list of jobs. Seldom its server waits for itself as it starts: then it is started again.
inline nlohmann::json llama_cpp(const fs::path& python, const testing::TempDir& dir, const nlohmann::json& jobs) {
  testing::write_file(dir / "jobs.json", jobs.dump());
  constexpr int kLate = 124;  // of timeout
  const std::string command = "timeout --kill-after=5 300 " + python.string() + " " + script("llama_cpp_peer.py") +
                              " " + (dir / "jobs.json").string() + " " + (dir / "results.json").string();
  auto result = testing::run_command(command);
  if (result.exit_code == kLate) result = testing::run_command(command);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  const nlohmann::json results = nlohmann::json::parse(testing::read_file(dir / "results.json"));
  for (size_t i = 0; i < results.size(); ++i)
    EXPECT_FALSE(results[i].contains("error")) << jobs[i]["model"] << ": " << results[i] << result.err;
  return results;
}

inline std::vector<float> log_probabilities(std::span<const float> logits) {
  const float most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(static_cast<double>(logit - most));
  std::vector<float> out(logits.begin(), logits.end());
  for (float& value : out) value -= most + static_cast<float>(std::log(sum));
  return out;
}

/// What our runtime says after the prompt and after each id that llama.cpp chose.
inline std::vector<std::vector<float>> our_steps(const fs::path& model, std::vector<runtime::TokenId> ids,
                                                 const nlohmann::json& steps) {
  const size_t prompt = ids.size();
  for (const auto& step : steps) ids.push_back(step["id"]);
  ids.pop_back();
  const auto decoder = runtime::load_decoder(*quant::open_checkpoint(model), std::make_shared<ThreadPool>(2));
  const auto state = decoder->new_state();
  std::vector<std::vector<float>> out;
  decoder->forward(std::vector<runtime::SequenceInput>{{state.get(), ids}}, runtime::LogitsFor::all,
                   [&](int64_t, int64_t position, std::span<const float> logits) {
                     if (position + 1 >= static_cast<int64_t>(prompt)) out.push_back(log_probabilities(logits));
                   });
  return out;
}

/// Largest difference of the log-probabilities llama.cpp lists.
inline float log_probability_difference(const std::vector<std::vector<float>>& ours, const nlohmann::json& steps) {
  float most = 0;
  for (size_t i = 0; i < ours.size(); ++i)
    for (const auto& entry : steps[i]["top"])
      most = std::max(most, std::abs(ours[i][entry[0].get<size_t>()] - entry[1].get<float>()));
  return most;
}

struct Agreement {
  int64_t compared = 0, equal = 0;
};

/// Next ids, where ours are further apart than the error of llama.cpp's 8-bit activations.
inline Agreement next_id_agreement(const std::vector<std::vector<float>>& ours, const nlohmann::json& steps) {
  constexpr float kGap = 0.2f;
  Agreement out;
  for (size_t i = 0; i < ours.size(); ++i) {
    auto sorted = ours[i];
    std::ranges::partial_sort(sorted, sorted.begin() + 2, std::greater{});
    if (sorted[0] - sorted[1] < kGap) continue;
    ++out.compared;
    out.equal += ours[i][steps[i]["id"].get<size_t>()] == sorted[0] ? 1 : 0;
  }
  return out;
}

}  // namespace crumb::exporting
