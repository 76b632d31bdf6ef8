// Models whose quantized linears read rounded activations.
#include <gtest/gtest.h>

#include "core/common/rng.h"
#include "quant/activations.h"
#include "runtime/linear.h"
#include "tests/quant/codes_model.h"
#include "tests/runtime/golden.h"
#include "tests/testing/testing.h"

namespace crumb::runtime {
namespace {

using arch::Slot;

const quant::ActivationFormat kInt8{quant::Grid::intn, 8};

/// A folder of quant::CodesModel with k_proj in floats.
std::unique_ptr<quant::Checkpoint> rounding_model(const Path& path) {
  const quant::CodesModel model;
  auto formats = model.source().formats;
  std::erase_if(formats, [](const auto& entry) { return entry.first.find("k_proj") != std::string::npos; });
  std::filesystem::create_directories(path);
  quant::CodesFolder folder(path, *model.base, formats, {"k_proj"}, "", quant::Masters::left_out, kInt8);
  model.write(folder);
  return quant::open_checkpoint(path);
}

TEST(RoundedInputs, AreReadOnceByTheQuantizedLinearsAlone) {
  const testing::TempDir dir;
  const auto model = rounding_model(dir / "out");
  ThreadPool pool(3);
  constexpr int64_t kTokens = 9;
  for (const auto& slots :
       {std::vector{Slot::q, Slot::k, Slot::v}, std::vector{Slot::o}, std::vector{Slot::gate, Slot::up}}) {
    std::vector<LinearTensors> members;
    for (const Slot slot : slots) members.push_back({&model->tensor({slot, 0}), nullptr});
    const int64_t cols = members[0].weight->desc.cols();
    std::vector<float> x;
    for (int64_t i = 0; i < kTokens * cols; ++i)
      x.push_back(static_cast<float>(Rng(1).normal(static_cast<uint64_t>(i))) * (i % cols == 3 ? 50.0f : 1.0f));
    std::vector<float> rounded(x.size());
    quant::ActivationRounder(kInt8).round(x.data(), kTokens, cols, rounded.data());
    ASSERT_NE(x, rounded);

    std::vector<std::vector<float>> outputs;
    std::vector<float*> pointers;
    for (const auto& member : members)
      outputs.emplace_back(static_cast<size_t>(kTokens * member.weight->desc.rows()), NAN);
    for (auto& output : outputs) pointers.push_back(output.data());
    make_linears(*model, members)->forward(x.data(), kTokens, pointers, pool);
    for (size_t i = 0; i < slots.size(); ++i) {
      const auto& weight = *members[i].weight;
      std::vector<float> expected(outputs[i].size(), NAN);
      float* const out = expected.data();
      make_dense_linear({quant::read_all(*model, weight), weight.desc.rows(), cols})
          ->forward(slots[i] == Slot::k ? x.data() : rounded.data(), kTokens, {&out, 1}, pool);
      EXPECT_EQ(outputs[i], expected) << weight.desc.hf_name;
    }
  }
}

TEST(RoundedInputs, GiveTheSameLogitsHoweverTheTextIsCut) {
  const testing::TempDir dir;
  const auto model = rounding_model(dir / "out");
  const auto decoder = load_decoder(*model, testing::two_threads());
  const std::vector<TokenId> ids = {1, 7, 3, 30, 12, 5, 9};
  const auto whole = testing::all_logits(*decoder, ids);
  const auto state = decoder->new_state();
  std::vector<float> one_by_one;
  for (const TokenId id : ids) {
    const SequenceInput input{state.get(), {&id, 1}};
    decoder->forward({&input, 1}, LogitsFor::all, [&](int64_t, int64_t, std::span<const float> row) {
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    });
  }
  EXPECT_EQ(whole, one_by_one);
}

}  // namespace
}  // namespace crumb::runtime
