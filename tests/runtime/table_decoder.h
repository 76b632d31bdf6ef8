// A model of few tokens whose logits are a random function of the last tokens of the text.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "core/common/rng.h"
#include "runtime/decoder.h"

namespace crumb::testing {

class TableDecoder : public runtime::Decoder {
 public:
  /// Logits between -range and range, of another function for another seed.
  TableDecoder(int64_t vocab_size, int64_t context_length, uint64_t seed, double range = 2.0)
      : seed_(seed), range_(range) {
    spec_.vocab_size = vocab_size;
    spec_.context_length = context_length;
  }

  std::vector<float> logits(std::span<const runtime::TokenId> text) const {
    uint64_t last = 1;
    for (const auto id : text.last(std::min<size_t>(3, text.size()))) last = last * 101 + static_cast<uint64_t>(id) + 1;
    std::vector<float> row;
    for (int64_t id = 0; id < spec_.vocab_size; ++id)
      row.push_back(static_cast<float>(range_ * (2 * Rng(seed_, last).uniform(static_cast<uint64_t>(id)) - 1)));
    return row;
  }
  int64_t passes() const { return passes_; }
  int64_t tokens() const { return tokens_; }  // of all passes

  const arch::DecoderSpec& spec() const override { return spec_; }
  std::unique_ptr<runtime::SequenceState> new_state() const override { return std::make_unique<State>(); }
  runtime::WeightBytes weight_bytes() const override { return {}; }
  runtime::PassSeconds seconds() const override { return {}; }
  void forward(std::span<const runtime::SequenceInput> inputs, runtime::LogitsFor which,
               const LogitsSink& sink) override {
    ++passes_;
    for (size_t i = 0; i < inputs.size(); ++i) {
      auto& text = static_cast<State*>(inputs[i].state)->text;
      for (size_t t = 0; t < inputs[i].tokens.size(); ++t, ++tokens_) {
        text.push_back(inputs[i].tokens[t]);
        CRUMB_CHECK(static_cast<int64_t>(text.size()) <= spec_.context_length, "beyond the context");
        if (which == runtime::LogitsFor::last && t + 1 < inputs[i].tokens.size()) continue;
        sink(static_cast<int64_t>(i), static_cast<int64_t>(text.size()) - 1, logits(text));
      }
    }
  }

 private:
  struct State : runtime::SequenceState {
    std::vector<runtime::TokenId> text;
    int64_t length() const override { return static_cast<int64_t>(text.size()); }
    void truncate(int64_t length) override { text.resize(static_cast<size_t>(length)); }
    void reserve(int64_t) override {}
    std::unique_ptr<runtime::SequenceState> fork() const override { return std::make_unique<State>(*this); }
    int64_t bytes() const override { return 0; }
  };

  arch::DecoderSpec spec_;
  uint64_t seed_;
  double range_;
  int64_t passes_ = 0, tokens_ = 0;
};

}  // namespace crumb::testing
