#include "runtime/weight_pool.h"

#include <gmock/gmock.h>

#include "runtime/precision.h"
#include "tests/quant/codes_model.h"
#include "tests/runtime/block_model.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using testing::two_threads;

const std::vector<TokenId> kIds = {1, 7, 3, 30, 12, 5, 9};

std::unique_ptr<Decoder> load(const Path& path, const std::shared_ptr<WeightPool>& pool,
                              const Precision& precision = {}) {
  return load_decoder(*quant::open_checkpoint(path), two_threads(), precision, {pool});
}

TEST(WeightPool, HoldsOnceWhatHasTheSameBits) {
  WeightPool pool;
  const auto hold = [&](std::vector<float> values) { return hold_in(&pool, std::move(values)); };
  const auto first = hold({1, 2, 3}), again = hold({1, 2, 3});
  EXPECT_EQ(first, again);
  EXPECT_EQ(pool.shared_bytes(), 0) << "within one model";
  pool.begin_model();
  EXPECT_EQ(hold({1, 2, 3}), first);
  EXPECT_EQ(pool.shared_bytes(), 12);
  EXPECT_NE(hold({1, 2, 4}), first);
  EXPECT_NE(hold({1, 2}), first);
  EXPECT_NE(hold({0.0f}), hold({-0.0f})) << "equal, but not in their bits";
  EXPECT_NE(hold_in<std::vector<float>>(nullptr, {1, 2, 3}), first);
  EXPECT_EQ(pool.shared_bytes(), 12);
}

TEST(WeightPool, OwnsNothing) {
  WeightPool pool;
  const std::weak_ptr<const std::vector<float>> gone = hold_in(&pool, std::vector<float>{1, 2, 3});
  EXPECT_TRUE(gone.expired());
  hold_in(&pool, std::vector<float>{1, 2, 3});
  EXPECT_EQ(pool.shared_bytes(), 0);
}

TEST(WeightPool, AModelLoadedAgainFromAnotherFileTakesNoMemoryForWeights) {
  const testing::TempDir dir;
  for (const std::string name : {"llama", "llama_tied", "qwen3", "mistral"}) {  // none has biases
    testing::fs::copy(testing::golden_folder(name), dir / name, testing::fs::copy_options::recursive);
    const auto pool = std::make_shared<WeightPool>();
    auto first = load(testing::golden_folder(name), pool);
    const int64_t before = pool->shared_bytes();
    EXPECT_EQ(before, 0) << "no two tensors of the model are the same";
    const auto second = load(dir / name, pool);
    EXPECT_EQ(pool->shared_bytes(), second->weight_bytes().held) << name;
    first.reset();
    EXPECT_EQ(testing::all_logits(*second, kIds), testing::all_logits(*load(dir / name, nullptr), kIds)) << name;
  }
}

TEST(WeightPool, CodesAreSharedWhateverReadsThem) {
  const testing::TempDir dir;
  testing::write_block_model(dir / "a.gguf", testing::block_spec(true),
                             [](const auto&) { return formats::TensorType::q8_0; });
  testing::fs::copy(dir / "a.gguf", dir / "b.gguf");
  const auto pool = std::make_shared<WeightPool>();
  const auto floats = load(dir / "a.gguf", pool), int8 = load(dir / "b.gguf", pool, {.activations = Activations::int8});
  EXPECT_EQ(pool->shared_bytes(), int8->weight_bytes().held);
  EXPECT_EQ(testing::all_logits(*int8, kIds),
            testing::all_logits(*load(dir / "b.gguf", nullptr, {.activations = Activations::int8}), kIds));
}

TEST(WeightPool, AQuantizedModelSharesWhatWasLeftAsItWas) {
  const testing::TempDir dir;
  const quant::CodesModel model;
  testing::fs::create_directories(dir / "codes");
  quant::CodesFolder folder(dir / "codes", *model.base, model.source().formats, {}, "", quant::Masters::left_out, {});
  model.write(folder);
  const auto pool = std::make_shared<WeightPool>();
  const auto base = load(model.base->path(), pool), codes = load(dir / "codes", pool);
  int64_t expected = 0;  // embedding and head in bfloat16, norms in float32
  for (const auto& tensor : model.base->tensors()) {
    using enum arch::TensorRole;
    const auto role = tensor.desc.role;
    if (role != linear && role != bias) expected += (role == norm ? 4 : 2) * tensor.desc.elements();
  }
  EXPECT_GT(expected, 0);
  EXPECT_EQ(pool->shared_bytes(), expected);
}

TEST(WeightPool, OtherModelsShareNothing) {
  const auto pool = std::make_shared<WeightPool>();
  const auto a = load(testing::golden_folder("llama"), pool), b = load(testing::golden_folder("mistral"), pool);
  EXPECT_EQ(pool->shared_bytes(), 0);
}

}  // namespace
}  // namespace crumb::runtime
