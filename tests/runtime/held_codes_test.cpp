// Block types of GGUF that stay codes in memory.
#include "runtime/held_codes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/common/quantity.h"
#include "runtime/packed_linear.h"
#include "tests/runtime/block_model.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using arch::Slot;
using arch::TensorDesc;
using formats::TensorType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::two_threads;

const std::vector<TokenId> kIds = {1, 7, 3, 30, 12, 5, 9};

std::unique_ptr<quant::Checkpoint> block_model(const Path& path,
                                               const std::function<TensorType(const TensorDesc&)>& type_of,
                                               bool tied_head = false) {
  testing::write_block_model(path, testing::block_spec(tied_head), type_of);
  return quant::open_checkpoint(path);
}

/// Everything but the embedding is of one type.
std::unique_ptr<quant::Checkpoint> model_of(const Path& path, TensorType type) {
  return block_model(path, [type](const TensorDesc& desc) {
    return desc.role == arch::TensorRole::embedding ? TensorType::f32 : type;
  });
}

std::vector<LinearTensors> members_of(const quant::Checkpoint& model, std::initializer_list<Slot> slots) {
  std::vector<LinearTensors> members;
  for (const Slot slot : slots) members.push_back({&model.tensor({slot, slot == Slot::head ? -1 : 0}), nullptr});
  return members;
}

LinearMaker with(Activations activations) { return packed_linears(activations, two_threads()); }

class BlockTypes : public ::testing::TestWithParam<TensorType> {};
INSTANTIATE_TEST_SUITE_P(Types, BlockTypes, ::testing::ValuesIn(testing::block_types()),
                         [](const auto& info) { return std::string(formats::type_name(info.param)); });

TEST_P(BlockTypes, WithFloatsGiveTheLogitsOfDenseFloatsToTheLastBit) {
  const testing::TempDir dir;
  const auto model = model_of(dir / "model.gguf", GetParam());
  const auto dense = load_decoder(*model, two_threads());
  const auto packed = load_decoder(*model, two_threads(), with(Activations::floats));
  const auto logits = testing::all_logits(*dense, kIds);
  EXPECT_TRUE(std::ranges::all_of(logits, [](float x) { return std::isfinite(x); }));
  EXPECT_EQ(testing::all_logits(*packed, kIds), logits);
  EXPECT_EQ(testing::all_logits(*packed, {1}), testing::all_logits(*dense, {1}));
}

TEST_P(BlockTypes, WithInt8AreNearDenseFloatsButNotThem) {
  const testing::TempDir dir;
  const auto model = model_of(dir / "model.gguf", GetParam());
  const auto exact = testing::all_logits(*load_decoder(*model, two_threads()), kIds);
  const auto rounded = testing::all_logits(*load_decoder(*model, two_threads(), with(Activations::int8)), kIds);
  const double difference = testing::relative_difference(rounded, exact);
  EXPECT_GT(difference, 0.0);
  EXPECT_LT(difference, 0.03);
}

TEST_P(BlockTypes, StayCodesInMemory) {
  const testing::TempDir dir;
  const auto model = model_of(dir / "model.gguf", GetParam());
  const auto form = *formats::block_form(GetParam());
  for (const Slot slot : {Slot::q, Slot::k, Slot::down, Slot::head}) {
    const auto members = members_of(*model, {slot});
    const auto held = hold_codes(*model, members[0], *two_threads());
    const int64_t rows = (members[0].weight->desc.rows() + 15) / 16 * 16, cols = 512;
    const int64_t bits = form.levels.size() <= 4 ? 2 : form.levels.size() <= 16 ? 4 : 8;
    EXPECT_EQ(held->bytes(), rows * cols * bits / 8 + rows * cols / form.group_cols * (form.has_minima ? 8 : 4));
    EXPECT_LE(held->bytes(), rows * cols * 10 / 8) << "a third of the floats at most";
  }
}

TEST(HeldCodes, MembersOfSeveralTypesRunTogetherOrAloneAndGiveTheSame) {
  const testing::TempDir dir;
  const auto model = block_model(dir / "model.gguf", [](const TensorDesc& desc) {
    if (desc.id.slot == Slot::v || desc.id.slot == Slot::down) return TensorType::q6_k;
    if (desc.id.slot == Slot::gate) return TensorType::iq4_xs;
    return desc.role == arch::TensorRole::embedding ? TensorType::f32 : TensorType::q4_k;
  });
  const auto qkv = members_of(*model, {Slot::q, Slot::k, Slot::v});
  EXPECT_NE(with(Activations::floats)(*model, qkv), nullptr);
  EXPECT_EQ(with(Activations::int8)(*model, qkv), nullptr) << "groups of 32 and 16 columns";
  EXPECT_NE(with(Activations::int8)(*model, members_of(*model, {Slot::gate, Slot::up})), nullptr);
  const auto exact = testing::all_logits(*load_decoder(*model, two_threads()), kIds);
  EXPECT_EQ(testing::all_logits(*load_decoder(*model, two_threads(), with(Activations::floats)), kIds), exact);
  ::testing::internal::CaptureStderr();
  const auto decoder = load_decoder(*model, two_threads(), with(Activations::int8));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "") << "all of them read int8";
  const auto rounded = testing::all_logits(*decoder, kIds);
  EXPECT_GT(testing::relative_difference(rounded, exact), 0.0);
  EXPECT_LT(testing::relative_difference(rounded, exact), 0.03);
}

TEST(HeldCodes, ATiedHeadOfBlocksIsHeldAsCodes) {
  const testing::TempDir dir;
  const auto model = block_model(
      dir / "model.gguf", [](const TensorDesc&) { return TensorType::q6_k; }, true);
  const LinearTensors head{&model->tensor({Slot::embedding}), nullptr};
  EXPECT_NE(with(Activations::floats)(*model, {&head, 1}), nullptr);
  EXPECT_EQ(testing::all_logits(*load_decoder(*model, two_threads(), with(Activations::floats)), kIds),
            testing::all_logits(*load_decoder(*model, two_threads()), kIds));
}

TEST(HeldCodes, FloatsAreLeftToTheDenseProducts) {
  const testing::TempDir dir;
  const auto model = model_of(dir / "model.gguf", TensorType::f32);
  EXPECT_EQ(with(Activations::floats)(*model, members_of(*model, {Slot::q})), nullptr);
  EXPECT_EQ(describe_held(*model), std::vector<std::string>());
}

TEST(HeldCodes, Float16OfAFileStaysThat) {
  const testing::TempDir dir;
  const auto model = model_of(dir / "model.gguf", TensorType::f16);
  const auto q = members_of(*model, {Slot::q});
  const auto& desc = q[0].weight->desc;
  EXPECT_EQ(make_linears(*model, q)->weight_bytes().held, 2 * ((desc.rows() + 31) / 32 * 32 * desc.cols()));
}

/// The model with one byte of q's first block changed.
void change_byte(const Path& path, size_t at, uint8_t value) {
  const auto model = quant::open_checkpoint(path);
  const uint8_t* data = model->stored_rows(model->tensor({Slot::q, 0})).row(0).data();
  std::string file = testing::read_file(path);
  const std::string row(reinterpret_cast<const char*>(data), 272);
  const size_t place = file.find(row);
  ASSERT_NE(place, std::string::npos);
  file[place + at] = static_cast<char>(value);
  std::ofstream(path, std::ios::binary) << file;
}

TEST(HeldCodes, WeightsThatAreNotFiniteAreRefusedAsFloatsAre) {
  const testing::TempDir dir;
  model_of(dir / "half.gguf", TensorType::q4_k);
  change_byte(dir / "half.gguf", 1, 0x7c);  // d is infinite or NaN
  model_of(dir / "exponent.gguf", TensorType::mxfp4);
  change_byte(dir / "exponent.gguf", 0, 0xff);  // 2^127 times levels up to 12
  for (const std::string name : {"half.gguf", "exponent.gguf"}) {
    const auto model = quant::open_checkpoint(dir / name);
    const auto dense = testing::error_of([&] { load_decoder(*model, two_threads()); });
    EXPECT_THAT(dense, HasSubstr("blk.0.attn_q.weight"));
    EXPECT_EQ(testing::error_of([&] { load_decoder(*model, two_threads(), with(Activations::floats)); }), dense);
  }
}

TEST(HeldCodes, LargeScalesWhoseLargestLevelsDoNotOccurAreTaken) {
  const testing::TempDir dir;
  model_of(dir / "model.gguf", TensorType::mxfp4);
  change_byte(dir / "model.gguf", 0, 0xfe);                                       // half of 2^127
  for (size_t at = 1; at <= 16; ++at) change_byte(dir / "model.gguf", at, 0x01);  // levels 0 and 1
  const auto model = quant::open_checkpoint(dir / "model.gguf");
  const auto members = members_of(*model, {Slot::q});
  const auto held = hold_codes(*model, members[0], *two_threads());
  const std::vector<float> x(512, 0x1p-40f);
  const auto product = [&](const LinearGroup& linear) {
    std::vector<float> y(512);
    float* const out = y.data();
    linear.forward(x.data(), 1, {&out, 1}, *two_threads());
    return y;
  };
  const auto y = product(*with(Activations::floats)(*model, members));
  EXPECT_GT(y[0], 0x1p+80f);
  EXPECT_EQ(y, product(*make_dense_linear({quant::read_all(*model, *members[0].weight), 512, 512})));
}

TEST(HeldCodes, AnEmbeddingOfBlocksIsNoQuantizedLinear) {
  const testing::TempDir dir;
  const auto model = block_model(dir / "model.gguf", [](const TensorDesc& desc) {
    return desc.role == arch::TensorRole::embedding ? TensorType::q8_0 : TensorType::f32;
  });
  EXPECT_EQ(describe_held(*model), std::vector<std::string>());
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(resolved(Activations::int8, *model), Activations::floats);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("int8 activations are for quantized linears, and it has none"));
}

TEST(HeldCodes, AreDescribedByTypeWithTheirBytes) {
  const testing::TempDir dir;
  const auto model = block_model(dir / "model.gguf", [](const TensorDesc& desc) {
    if (desc.id.slot == Slot::v) return TensorType::q5_k;
    return desc.role == arch::TensorRole::linear ? TensorType::iq4_xs : TensorType::f32;
  });
  // five of 512 x 512 and k of 128: codes of 4 bits and a float for 32, 4.25 bits in the file; v: 8 bits and two floats
  // for 32, 5.5 bits
  const int64_t weights = 5 * 512 * 512 + 128 * 512, of_v = 128 * 512;
  EXPECT_THAT(describe_held(*model),
              ElementsAre(fmt::format("6 iq4_xs held as codes of 4 bits: {} in memory, {} in the file",
                                      format_bytes(weights * 5 / 8), format_bytes(weights * 17 / 32)),
                          fmt::format("1 q5_k held as codes of 8 bits: {} in memory, {} in the file",
                                      format_bytes(of_v * 10 / 8), format_bytes(of_v * 11 / 16))));
}

TEST(LevelForm, EvenLevelsAreCodesAndOthersNumbersOfATable) {
  const auto form = [](const std::vector<float>& levels) { return level_form(levels).value(); };
  const LevelForm seq = form({-1.5f, -0.5f, 0.5f, 1.5f}), odd = form({-3, -1, 1, 3}), uneven = form({-43, -8, 8, 43});
  EXPECT_EQ(std::tuple(seq.bits, seq.step, seq.zero, seq.unit), std::tuple(2, 2, 3, 2.0f));
  EXPECT_EQ(std::tuple(odd.bits, odd.step, odd.zero, odd.unit), std::tuple(2, 2, 3, 1.0f));
  EXPECT_EQ(std::tuple(uneven.bits, uneven.step, uneven.zero, uneven.unit), std::tuple(4, 1, 128, 1.0f));
  EXPECT_EQ(uneven.table,
            (std::vector<uint8_t>{85, 120, 136, 171, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128}));
  std::vector<float> many;
  for (int i = 0; i < 17; ++i) many.push_back(static_cast<float>(i * i));
  EXPECT_FALSE(level_form(many).has_value()) << "17 uneven levels";
  EXPECT_FALSE(level_form(std::vector<float>{0, 1, 2.5f}).has_value()) << "no whole numbers";
}

}  // namespace
}  // namespace crumb::runtime
