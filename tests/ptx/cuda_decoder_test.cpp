// The decoder of a GPU without one: its host code as it is shipped, its kernels as compiled PTX executed on the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/bf16.h"
#include "runtime/cuda/decoder.h"
#include "runtime/generate.h"
#include "runtime/precision.h"
#include "tests/export/test_models.h"
#include "tests/ptx/cuda_runtime.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using ::testing::HasSubstr;
using testing::two_threads;

const quant::QuantFormat kSeq2{quant::Grid::seq, 2, true, 0};

class CudaDecoderOverPtx : public ::testing::Test {
 protected:
  void SetUp() override { ptx::stand_in_device() = {}; }
  void TearDown() override { EXPECT_EQ(ptx::stand_in_device().used_bytes, 0u) << "memory that was not given back"; }
};

std::unique_ptr<Decoder> on_device(const quant::Checkpoint& checkpoint, CacheType cache = CacheType::f16) {
  return load_cuda_decoder(checkpoint, *two_threads(), cache);
}
/// The CPU with the same roundings: bfloat16 activations, and keys and values in float16.
std::unique_ptr<Decoder> on_cpu(const quant::Checkpoint& checkpoint, CacheType cache = CacheType::f16) {
  return load_decoder(checkpoint, two_threads(), {.activations = Activations::bf16, .cache_type = cache});
}

std::vector<TokenId> some_ids(const Decoder& decoder, int64_t count) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((i * 37 + 5) % decoder.spec().vocab_size));
  return ids;
}

/// Logits of a text in one pass, and greedy tokens one by one.
void expect_like_cpu(const quant::Checkpoint& checkpoint, int64_t prompt, int64_t more, double within,
                     CacheType cache = CacheType::f16) {
  const auto device = on_device(checkpoint, cache), cpu = on_cpu(checkpoint, cache);
  const auto ids = some_ids(*cpu, prompt);
  EXPECT_LT(testing::relative_difference(testing::all_logits(*device, ids), testing::all_logits(*cpu, ids)), within);
  const std::vector<GenerateRequest> requests{{ids, more, 0}};
  const auto tokens = [&](Decoder& decoder) {
    return generate(decoder, requests, {.temperature = 0}, {}, 1, nullptr).front().tokens;
  };
  EXPECT_EQ(tokens(*device), tokens(*cpu));
}

TEST_F(CudaDecoderOverPtx, RunsStories260K) {
  const auto model = testing::data("models/stories260K-hf");
  if (model.empty()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs models/stories260K-hf of the shared data");
  const testing::TempDir dir;
  testing::quantize_model(model, dir / "codes", kSeq2);
  expect_like_cpu(*quant::open_checkpoint(dir / "codes"), 5, 8, 1e-3);
  EXPECT_GT(ptx::stand_in_device().graph_launches, 0u);
}

}  // namespace
}  // namespace crumb::runtime
