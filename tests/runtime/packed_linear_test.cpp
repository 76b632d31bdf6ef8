#include "runtime/packed_linear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/common/rng.h"
#include "core/formats/dtype.h"
#include "kernels/rms_norm.h"
#include "quant/activations.h"
#include "quant/scale_search.h"
#include "runtime/held_codes.h"
#include "tests/quant/codes_model.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using arch::Slot;
using ::testing::HasSubstr;
using testing::two_threads;

const quant::ActivationFormat kInt8{quant::Grid::intn, 8}, kFp8{quant::Grid::fp8, 8};
const std::vector<TokenId> kIds = {1, 7, 3, 30, 12, 5, 9};

/// A folder of quant::CodesModel, which has SEQ, and integers of 3 (with minima, too), 4 (with zero points) and 8 bits.
std::unique_ptr<quant::Checkpoint> codes_model(const Path& path,
                                               std::optional<quant::ActivationFormat> activations = std::nullopt,
                                               const quant::CodesModel& model = {}) {
  std::filesystem::create_directories(path);
  quant::CodesFolder folder(path, *model.base, model.source().formats, {}, "", quant::Masters::left_out, activations);
  model.write(folder);
  return quant::open_checkpoint(path);
}

std::vector<LinearTensors> members_of(const quant::Checkpoint& model, std::initializer_list<Slot> slots,
                                      int layer = 0) {
  std::vector<LinearTensors> members;
  for (const Slot slot : slots) {
    const auto bias = arch::bias_slot(slot);
    members.push_back({&model.tensor({slot, layer}), bias ? model.find({*bias, layer}) : nullptr});
  }
  return members;
}

std::vector<float> normal_tokens(int64_t tokens, int64_t cols) {
  std::vector<float> x;
  for (int64_t i = 0; i < tokens * cols; ++i)
    x.push_back(static_cast<float>(Rng(1).normal(static_cast<uint64_t>(i))) * (i % cols == 3 ? 50.0f : 1.0f));
  return x;
}

std::vector<float> forward(const LinearGroup& linear, const std::vector<float>& x, int64_t tokens, int64_t rows) {
  std::vector<float> y(static_cast<size_t>(tokens * rows), NAN);
  float* const out = y.data();
  linear.forward(x.data(), tokens, {&out, 1}, *two_threads());
  return y;
}

TEST(PackedLinears, WithFloatsGiveTheLogitsOfDenseFloatsToTheLastBit) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  const auto dense = load_decoder(*model, two_threads());
  const auto packed = load_decoder(*model, two_threads(), packed_linears(Activations::floats, two_threads()));
  EXPECT_EQ(testing::all_logits(*packed, kIds), testing::all_logits(*dense, kIds));
  EXPECT_EQ(testing::all_logits(*packed, {1}), testing::all_logits(*dense, {1}));
}

TEST(PackedLinears, TakeGridsWithEqualStepsInGroupsTheKernelsKnow) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  const auto floats = packed_linears(Activations::floats, two_threads());
  const auto int8 = packed_linears(Activations::int8, two_threads());
  const auto takes = [&](const LinearMaker& maker, std::initializer_list<Slot> slots) {
    return maker(*model, members_of(*model, slots)) != nullptr;
  };
  EXPECT_TRUE(takes(floats, {Slot::q, Slot::k, Slot::v}));
  EXPECT_FALSE(takes(int8, {Slot::q, Slot::k, Slot::v})) << "groups of 16 and 32 columns";
  EXPECT_TRUE(takes(int8, {Slot::q}));
  EXPECT_TRUE(takes(int8, {Slot::gate, Slot::up}));
  EXPECT_FALSE(takes(floats, {Slot::o})) << "groups of 8 columns";
  EXPECT_THAT(describe_held(*model),
              ::testing::Contains(HasSubstr("held as floats, as groups of 8 columns are no multiple of 16")));
  const auto embedding = &model->tensor({Slot::embedding});
  const LinearTensors head{embedding, nullptr};
  EXPECT_EQ(floats(*model, {&head, 1}), nullptr) << "not quantized";
}

TEST(PackedLinears, LeaveZeroPointsBeyondTheCodesToTheDenseFloats) {
  quant::CodesModel codes;
  codes.tensors.at("model.layers.0.self_attn.q_proj.weight").zero_points[5] = -3;
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out", std::nullopt, codes);
  const auto maker = packed_linears(Activations::floats, two_threads());
  EXPECT_EQ(maker(*model, members_of(*model, {Slot::q})), nullptr);
  EXPECT_NE(maker(*model, members_of(*model, {Slot::k})), nullptr);
  EXPECT_EQ(testing::all_logits(*load_decoder(*model, two_threads(), maker), kIds),
            testing::all_logits(*load_decoder(*model, two_threads()), kIds));
}

/// One linear with int8 activations beside double precision, its input rounded with a scale for scale_cols.
void expect_rounded_product(const quant::Checkpoint& model, Slot slot, int64_t scale_cols, int layer = 0) {
  constexpr int64_t kTokens = 9;
  const auto members = members_of(model, {slot}, layer);
  const auto& desc = members[0].weight->desc;
  const int64_t rows = desc.rows(), cols = desc.cols();
  ASSERT_EQ(cols % scale_cols, 0);
  const auto x = normal_tokens(kTokens, cols);
  std::vector<float> rounded(x.size());
  quant::ActivationRounder(kInt8).round(x.data(), kTokens * cols / scale_cols, scale_cols, rounded.data());
  const auto linear = packed_linears(Activations::int8, two_threads())(model, members);
  ASSERT_NE(linear, nullptr);
  const auto y = forward(*linear, x, kTokens, rows);

  const auto w = quant::read_all(model, *members[0].weight);
  const auto bias = members[0].bias != nullptr ? quant::read_all(model, *members[0].bias) : std::vector<float>();
  for (int64_t i = 0; i < kTokens * rows; ++i) {
    double sum = bias.empty() ? 0.0 : bias[static_cast<size_t>(i % rows)], magnitude = std::abs(sum);
    for (int64_t k = 0; k < cols; ++k) {
      const double product = static_cast<double>(rounded[static_cast<size_t>(i / rows * cols + k)]) *
                             w[static_cast<size_t>(i % rows * cols + k)];
      sum += product;
      magnitude += std::abs(product);
    }
    ASSERT_NEAR(y[static_cast<size_t>(i)], sum, 8 * 0x1.0p-24 * magnitude) << desc.hf_name << " value " << i;
  }
}

TEST(PackedLinears, WithInt8AreTheProductWithRoundedTokens) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  for (const Slot slot : {Slot::q, Slot::k, Slot::v, Slot::gate, Slot::down})
    expect_rounded_product(*model, slot, model->tensor({slot, 0}).desc.cols());  // 32 and 48 columns
  const auto& with_minima = model->tensor({Slot::v, 1});
  ASSERT_TRUE(with_minima.format->has_minima);
  expect_rounded_product(*model, Slot::v, with_minima.desc.cols(), 1);
}

TEST(PackedLinears, WithInt8HaveAScaleFor64ColumnsWhereTheyFit) {
  const Path path = testing::data("models/tiny1m-hf");
  if (path.empty()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs the data file models/tiny1m-hf; set CRUMB_DATA");
  const auto base = quant::open_checkpoint(path);
  for (const int64_t group_size : {0, 32}) {
    const quant::QuantFormat format{.group_size = group_size};
    quant::CodesSource source;
    for (const auto& tensor : base->tensors()) {
      if (tensor.desc.role == arch::TensorRole::linear) source.formats[tensor.desc.hf_name] = format;
    }
    const auto read = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
      base->read_rows(base->tensor(desc.id), begin, end, out);
    };
    source.rows = read;
    source.codes = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
      std::vector<float> w(static_cast<size_t>((end - begin) * desc.cols()));
      read(desc, begin, end, w.data());
      return quant::round_to_nearest(w.data(), end - begin, desc.cols(), format, quant::ScaleInit::absmean);
    };
    const testing::TempDir dir;
    std::filesystem::create_directories(dir / "out");
    quant::write_codes_folder(dir / "out", *base, source, {});
    const auto model = quant::open_checkpoint(dir / "out");
    expect_rounded_product(*model, Slot::q, 64);      // of 128 columns
    expect_rounded_product(*model, Slot::down, 352);  // no multiple of 64
    const auto floats = packed_linears(Activations::floats, two_threads());
    EXPECT_EQ(testing::all_logits(*load_decoder(*model, two_threads(), floats), kIds),
              testing::all_logits(*load_decoder(*model, two_threads()), kIds));
  }
}

void expect_near_logits_however_cut(const quant::Checkpoint& model, Activations activations, double near) {
  const auto decoder = load_decoder(model, two_threads(), packed_linears(activations, two_threads()));
  const auto whole = testing::all_logits(*decoder, kIds);
  const auto state = decoder->new_state();
  std::vector<float> one_by_one;
  for (const TokenId id : kIds) {
    const SequenceInput input{state.get(), {&id, 1}};
    decoder->forward({&input, 1}, LogitsFor::all, [&](int64_t, int64_t, std::span<const float> row) {
      one_by_one.insert(one_by_one.end(), row.begin(), row.end());
    });
  }
  EXPECT_EQ(whole, one_by_one);
  const auto exact = testing::all_logits(*load_decoder(model, two_threads()), kIds);
  const double difference = testing::relative_difference(whole, exact);
  EXPECT_GT(difference, 0.0);
  EXPECT_LT(difference, near);
}

TEST(PackedLinears, WithRoundedInputsGiveATokenTheSameLogitsHoweverTheTextIsCut) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  expect_near_logits_however_cut(*model, Activations::int8, 0.05);
  expect_near_logits_however_cut(*model, Activations::bf16, 0.01);
}

TEST(PackedLinears, LinearsOfBf16ReadBf16BesideInt8AndWhereItIsAskedFor) {
  const testing::TempDir dir;
  const auto codes = codes_model(dir / "out");
  const auto base = quant::open_checkpoint(quant::tiny_model("llama_bias"));
  for (const auto* model : {codes.get(), base.get()}) {
    const LinearTensors head{&model->tensor({Slot::head}), nullptr};
    const int64_t rows = head.weight->desc.rows(), cols = head.weight->desc.cols();
    const auto x = normal_tokens(5, cols);
    auto rounded = x;
    for (float& value : rounded) value = formats::round_to_bf16(value);
    const auto exact = make_linears(*model, {&head, 1});
    for (const auto activations : {Activations::floats, Activations::bf16, Activations::int8}) {
      const auto linear = packed_linears(activations, two_threads())(*model, {&head, 1});
      const bool rounds =
          activations == Activations::bf16 || (activations == Activations::int8 && model == codes.get());
      ASSERT_EQ(linear != nullptr, rounds) << name_of(activations);
      if (!rounds) continue;
      const auto y = forward(*linear, x, 5, rows);
      EXPECT_LT(testing::relative_difference(y, forward(*exact, rounded, 5, rows)), 1e-5);
      EXPECT_GT(testing::relative_difference(y, forward(*exact, x, 5, rows)), 1e-4);
    }
  }
}

TEST(PackedLinears, NormaliseTheirInputsAsTheNormBeforeThemWould) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  const auto members = members_of(*model, {Slot::gate, Slot::up});
  const int64_t rows = members[0].weight->desc.rows(), cols = members[0].weight->desc.cols();
  const auto gains = normal_tokens(1, cols);
  const RmsNorm norm{gains, 1e-5f};
  for (const Activations activations : {Activations::floats, Activations::bf16, Activations::int8}) {
    const auto group = packed_linears(activations, two_threads())(*model, members);
    ASSERT_NE(group, nullptr);
    for (const int64_t tokens : {1, 9}) {
      const auto x = normal_tokens(tokens, cols);
      std::vector<float> normed(x.size());
      kernels::rms_norm_forward(x.data(), gains.data(), norm.epsilon, tokens, cols, normed.data(), serial_executor());
      std::vector<std::vector<float>> y(4, std::vector<float>(static_cast<size_t>(tokens * rows), NAN));
      float* const once[] = {y[0].data(), y[1].data()};
      float* const twice[] = {y[2].data(), y[3].data()};
      group->forward_normed(x.data(), norm, tokens, once, *two_threads());
      group->forward(normed.data(), tokens, twice, *two_threads());
      EXPECT_EQ(y[0], y[2]) << name_of(activations) << ", tokens: " << tokens;
      EXPECT_EQ(y[1], y[3]) << name_of(activations) << ", tokens: " << tokens;
    }
  }
}

TEST(PackedLinears, InputsThatAreNotFiniteMakeTheirTokenNaN) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  const auto members = members_of(*model, {Slot::q});
  const auto linear = packed_linears(Activations::int8, two_threads())(*model, members);
  const int64_t rows = members[0].weight->desc.rows(), cols = members[0].weight->desc.cols();
  auto x = normal_tokens(3, cols);
  x[static_cast<size_t>(cols + 2)] = INFINITY;
  std::fill_n(x.begin() + 2 * cols, cols, 0.0f);
  const auto y = forward(*linear, x, 3, rows);
  const auto bias = quant::read_all(*model, *members[0].bias);
  for (int64_t row = 0; row < rows; ++row) {
    EXPECT_TRUE(std::isfinite(y[static_cast<size_t>(row)]));
    EXPECT_TRUE(std::isnan(y[static_cast<size_t>(rows + row)]));
    EXPECT_EQ(y[static_cast<size_t>(2 * rows + row)], bias[static_cast<size_t>(row)]);
  }
}

TEST(PackedLinears, OfAModelThatRoundsActivationsItselfGoOnToDoSo) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "int8", kInt8);
  const auto dense = testing::all_logits(*load_decoder(*model, two_threads()), kIds);
  const auto floats = packed_linears(Activations::floats, two_threads());
  EXPECT_EQ(testing::all_logits(*load_decoder(*model, two_threads(), floats), kIds), dense);
  const auto int8 = packed_linears(Activations::int8, two_threads());
  // The same inputs, rounded alike, but where sums in another order end on the other side of a half.
  EXPECT_LT(testing::relative_difference(testing::all_logits(*load_decoder(*model, two_threads(), int8), kIds), dense),
            3e-3);

  const auto fp8 = codes_model(dir / "fp8", kFp8);
  EXPECT_EQ(testing::all_logits(*load_decoder(*fp8, two_threads(), floats), kIds),
            testing::all_logits(*load_decoder(*fp8, two_threads()), kIds));
  const auto bf16 = packed_linears(Activations::bf16, two_threads());
  for (const auto* rounding : {model.get(), fp8.get()})
    EXPECT_THAT(testing::error_of([&] { load_decoder(*rounding, two_threads(), bf16); }),
                HasSubstr("itself, bf16 activations are not for it"));
  const auto dense_linear = members_of(*fp8, {Slot::o});  // in groups that are not held as codes
  EXPECT_THAT(testing::error_of([&] { bf16(*fp8, dense_linear); }), HasSubstr("bf16 activations are not for it"));
  EXPECT_THAT(
      testing::error_of([&] { load_decoder(*fp8, two_threads(), int8); }),
      HasSubstr("fp8: the model rounds the activations of its quantized linears to FP8, a scale a token itself, "
                "int8 activations are not for it"));
}

TEST(Activations, AreNamed) {
  EXPECT_EQ(activations_from_name("float", ""), Activations::floats);
  EXPECT_EQ(activations_from_name("bf16", ""), Activations::bf16);
  EXPECT_EQ(activations_from_name("int8", ""), Activations::int8);
  EXPECT_EQ(testing::error_of([] { activations_from_name("int4", "--activations"); }),
            "--activations: unknown \"int4\"; known: auto, float, bf16, int8");
}

TEST(PackedLinears, SayWhatTheyHoldAndRead) {
  const testing::TempDir dir;
  const auto model = codes_model(dir / "out");
  const auto maker = packed_linears(Activations::floats, two_threads());
  const auto bytes = [&](std::initializer_list<Slot> slots) {
    return maker(*model, members_of(*model, slots))->weight_bytes();
  };
  // 32 x 32: codes of 4 bits, scales, zero points and biases of 4 bytes, 2 groups a row
  EXPECT_EQ(bytes({Slot::q}).held, 32 * 32 / 2 + 2 * 4 * 32 * 2 + 4 * 32);
  EXPECT_EQ(bytes({Slot::q}).read, bytes({Slot::q}).held);
  EXPECT_EQ(bytes({Slot::q, Slot::k}).held, bytes({Slot::q}).held + bytes({Slot::k}).held);
}

}  // namespace
}  // namespace crumb::runtime
