#include "core/formats/codec.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <bit>

#include "core/formats/blocks.h"
#include "core/formats/dtype.h"
#include "core/formats/safetensors.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

const std::vector<TensorType> kAllTypes = {
    TensorType::f32,    TensorType::f16,     TensorType::bf16,   TensorType::q8_0,  TensorType::q4_0,
    TensorType::q6_k,   TensorType::q2_k,    TensorType::q2_0c,  TensorType::q4_1,  TensorType::q5_0,
    TensorType::q5_1,   TensorType::q3_k,    TensorType::q4_k,   TensorType::q5_k,  TensorType::iq4_nl,
    TensorType::iq4_xs, TensorType::iq2_xxs, TensorType::iq2_xs, TensorType::iq2_s, TensorType::iq3_xxs,
    TensorType::iq3_s,  TensorType::iq1_s,   TensorType::iq1_m,  TensorType::tq1_0, TensorType::tq2_0,
    TensorType::mxfp4,  TensorType::nvfp4};

bool same(float a, float b) {
  return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b) || (std::isnan(a) && std::isnan(b));
}

void expect_same(const std::vector<float>& got, const std::vector<float>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i)
    ASSERT_TRUE(same(got[i], expected[i])) << "at " << i << ": " << got[i] << " against " << expected[i];
}

std::vector<uint8_t> encode(TensorType type, const std::vector<float>& values, int64_t cols) {
  const int64_t rows = static_cast<int64_t>(values.size()) / cols, row = row_bytes(type, cols);
  std::vector<uint8_t> out(static_cast<size_t>(rows * row));
  for (int64_t i = 0; i < rows; ++i) encode_row(type, values.data() + i * cols, cols, out.data() + i * row);
  return out;
}

std::vector<float> decode(TensorType type, const std::vector<uint8_t>& bytes) {
  const int64_t count = static_cast<int64_t>(bytes.size()) / block_bytes(type) * block_size(type);
  std::vector<float> out(static_cast<size_t>(count));
  decode_row(type, bytes.data(), count, out.data());
  return out;
}

double squared_error(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
  return sum;
}

// Matrices of the reference model, and distributions it does not have.
struct Weights {
  std::string name;
  std::vector<float> values;  // rows of 512
};

std::vector<Weights> real_weights() {
  std::vector<Weights> all;
  const auto folder = crumb::testing::data("models/ref-llama-15m");
  if (folder.empty()) return all;
  const SafetensorsReader reader(folder);
  for (const auto& t : reader.tensors()) {
    if (t.shape.size() != 2) continue;
    Weights w{.name = t.name, .values = std::vector<float>(static_cast<size_t>(t.elements()))};
    reader.read_rows(t, 0, t.rows(), w.values.data());
    all.push_back(std::move(w));
  }
  return all;
}

// Rows that meet every branch of the encoders: zero, one weight, constant, both signs of the extreme, ties, many
// magnitudes.
std::vector<float> awkward_rows() {
  std::vector<float> all(512, 0.0f);
  all[100] = -0.0f;
  const auto append = [&all](std::vector<float> row) { all.insert(all.end(), row.begin(), row.end()); };
  for (int exponent = -24; exponent <= 12; ++exponent)
    append(random_normal(512, 100 + exponent, std::ldexp(1.0f, exponent)));
  for (const float extreme : {8.0f, -8.0f, 7.0f, -1.0f, 127.0f, -127.0f}) {  // whole and half levels
    std::vector<float> row(512);
    for (size_t i = 0; i < row.size(); ++i) row[i] = extreme * static_cast<float>(static_cast<int>(i % 33) - 16) / 16;
    append(row);
  }
  std::vector<float> constant(512, 0.3f), single(512, 0.0f), tiny(512, 1e-30f), mixed = random_normal(512, 7);
  single[3] = -5.0f;
  for (size_t i = 0; i < mixed.size(); i += 17) mixed[i] *= 100;
  for (const auto& row : {constant, single, tiny, mixed}) append(row);
  return all;
}

TEST(TensorTypes, HaveTheSizesOfGgml) {
  EXPECT_EQ(row_bytes(TensorType::f32, 7), 28);
  EXPECT_EQ(row_bytes(TensorType::bf16, 7), 14);
  EXPECT_EQ(row_bytes(TensorType::q8_0, 2048), 2176);
  EXPECT_EQ(row_bytes(TensorType::q4_0, 2048), 1152);
  EXPECT_EQ(row_bytes(TensorType::q6_k, 2048), 1680);
  EXPECT_EQ(row_bytes(TensorType::q2_k, 2048), 672);
  EXPECT_EQ(row_bytes(TensorType::q2_0c, 2048), 520);
  EXPECT_THAT(error_of([] { row_bytes(TensorType::q2_0c, 768); }), HasSubstr("768"));
}

TEST(TensorTypes, AreFoundByTheirNames) {
  for (const TensorType type : kAllTypes) EXPECT_EQ(type_from_name(type_name(type)), type);
  EXPECT_FALSE(type_from_name("q8_k").has_value());
}

class DecoderTest : public ::testing::TestWithParam<TensorType> {};
class BlockDecoderTest : public DecoderTest {};
class PeerDecoderTest : public DecoderTest {};

TEST_P(PeerDecoderTest, EqualsTheGgufPackageOnRandomBytes) {
  CRUMB_NEED_PEERS(python);
  const TensorType type = GetParam();
  const TempDir dir;
  const auto bytes = random_bytes(static_cast<size_t>(block_bytes(type)) * (block_size(type) == 1 ? 65536 : 1024), 11);
  write_values(dir / "in", bytes);
  call_peer(python,
            "dequantize " + std::string(type_name(type)) + " " + (dir / "in").string() + " " + (dir / "out").string());
  expect_same(decode(type, bytes), read_values<float>(dir / "out"));
}

template <class Block>
Block block_at(const std::vector<uint8_t>& bytes, size_t i) {
  Block block;
  std::memcpy(&block, bytes.data() + i * sizeof(Block), sizeof block);
  return block;
}

// One weight of a block in double precision, by the index formulas of the format's description.
double formula(TensorType type, const std::vector<uint8_t>& bytes, size_t b, int w) {
  if (type == TensorType::q4_0) {
    const auto block = block_at<BlockQ4_0>(bytes, b);
    const int q = w < 16 ? block.qs[w] % 16 : block.qs[w - 16] / 16;
    return static_cast<double>(from_f16(block.d)) * (q - 8);
  }
  if (type == TensorType::q8_0) {
    const auto block = block_at<BlockQ8_0>(bytes, b);
    return static_cast<double>(from_f16(block.d)) * block.qs[w];
  }
  if (type == TensorType::q2_k) {  // w = 128 h + 32 j + l
    const auto block = block_at<BlockQ2_K>(bytes, b);
    const int h = w / 128, j = w % 128 / 32, l = w % 32, q = block.qs[32 * h + l] / (1 << 2 * j) % 4;
    return static_cast<double>(from_f16(block.d)) * (block.scales[w / 16] % 16) * q -
           static_cast<double>(from_f16(block.dmin)) * (block.scales[w / 16] / 16);
  }
  if (type == TensorType::q6_k) {  // four runs of 32 in each half share the bytes
    const auto block = block_at<BlockQ6_K>(bytes, b);
    const int h = w / 128, run = w % 128 / 32, l = w % 32;
    const uint8_t low = block.ql[64 * h + l + (run % 2 == 1 ? 32 : 0)], high = block.qh[32 * h + l];
    const int q = (run < 2 ? low % 16 : low / 16) + 16 * (high / (1 << 2 * run) % 4);
    return static_cast<double>(from_f16(block.d)) * block.scales[8 * h + 2 * run + l / 16] * (q - 32);
  }
  const auto block = block_at<BlockQ2_0C>(bytes, b);
  return static_cast<double>(from_f16(block.d)) * (2 * (block.qs[w / 4] / (1 << 2 * (w % 4)) % 4) - 3);
}

TEST_P(BlockDecoderTest, EqualsTheFormula) {
  const TensorType type = GetParam();
  const auto bytes = random_bytes(static_cast<size_t>(block_bytes(type)) * 64, 12);
  const auto values = decode(type, bytes);
  for (size_t i = 0; i < values.size(); ++i) {
    const auto size = static_cast<size_t>(block_size(type));
    const auto expected = static_cast<float>(formula(type, bytes, i / size, static_cast<int>(i % size)));
    ASSERT_TRUE(values[i] == expected || std::isnan(expected)) << "block " << i / size << " weight " << i % size;
  }
}

TEST_P(DecoderTest, ReadsRowsThatLieAtAnyByte) {
  const TensorType type = GetParam();
  const auto bytes = random_bytes(static_cast<size_t>(block_bytes(type)), 13);
  std::vector<uint8_t> shifted(bytes.size() + 1);
  std::copy(bytes.begin(), bytes.end(), shifted.begin() + 1);
  std::vector<float> out(static_cast<size_t>(block_size(type)));
  decode_row(type, shifted.data() + 1, block_size(type), out.data());
  expect_same(out, decode(type, bytes));
}

std::vector<TensorType> types_of_the_gguf_package() {
  auto types = kAllTypes;
  std::erase(types, TensorType::q2_0c);  // EqualsTheFormula compares it
  return types;
}

std::string test_name(const ::testing::TestParamInfo<TensorType>& info) { return std::string(type_name(info.param)); }
INSTANTIATE_TEST_SUITE_P(Types, DecoderTest, ::testing::ValuesIn(kAllTypes), test_name);
INSTANTIATE_TEST_SUITE_P(Types, BlockDecoderTest,
                         ::testing::Values(TensorType::q8_0, TensorType::q4_0, TensorType::q6_k, TensorType::q2_k,
                                           TensorType::q2_0c),
                         test_name);
INSTANTIATE_TEST_SUITE_P(Types, PeerDecoderTest,  // all that the package knows: Q2_0C is not among them
                         ::testing::ValuesIn(types_of_the_gguf_package()), test_name);

class EncoderTest : public ::testing::TestWithParam<TensorType> {};

TEST_P(EncoderTest, EqualsTheGgufPackageBitForBit) {
  CRUMB_NEED_PEERS(python);
  const TensorType type = GetParam();
  std::vector<float> values = awkward_rows();
  for (const auto& w : real_weights()) {
    if (values.size() < (1u << 21)) values.insert(values.end(), w.values.begin(), w.values.end());
  }
  const TempDir dir;
  write_values(dir / "in", values);
  call_peer(python, "quantize " + std::string(type_name(type)) + " 512 " + (dir / "in").string() + " " +
                        (dir / "out").string());
  const auto expected = read_values<uint8_t>(dir / "out"), got = encode(type, values, 512);
  ASSERT_EQ(got.size(), expected.size());
  const auto [at, other] = std::mismatch(got.begin(), got.end(), expected.begin());
  EXPECT_TRUE(at == got.end()) << "row " << (at - got.begin()) / row_bytes(type, 512) << ": " << int{*at} << " against "
                               << int{*other};
}

INSTANTIATE_TEST_SUITE_P(Types, EncoderTest,
                         ::testing::Values(TensorType::bf16, TensorType::f16, TensorType::q8_0, TensorType::q4_0,
                                           TensorType::q4_1),
                         test_name);

TEST(Encoders, RefuseWeightsThatAreNotFiniteOrTooLarge) {
  std::vector<float> row = random_normal(256, 1);
  std::vector<uint8_t> out(1024);
  for (const TensorType type : {TensorType::q4_0, TensorType::q4_1, TensorType::q8_0, TensorType::q6_k}) {
    for (const float bad : {NAN, INFINITY, -INFINITY}) {
      row[77] = bad;
      EXPECT_THAT(error_of([&] { encode_row(type, row.data(), 256, out.data()); }), HasSubstr("weight 77"))
          << type_name(type);
    }
    row[77] = 1e9f;
    EXPECT_THAT(error_of([&] { encode_row(type, row.data(), 256, out.data()); }), HasSubstr("binary16"))
        << type_name(type);
  }
}

TEST(Encoders, WeightsFarBelowBinary16BecomeZero) {
  for (const TensorType type : {TensorType::q4_0, TensorType::q4_1, TensorType::q8_0, TensorType::q6_k}) {
    for (const float tiny :
         {1e-41f, -1e-41f, 1e-30f, -1e-20f}) {  // also where the reciprocal of the block scale overflows
      const auto back = decode(type, encode(type, std::vector<float>(256, tiny), 256));
      EXPECT_THAT(back, ::testing::Each(0.0f)) << type_name(type) << " " << tiny;
    }
  }
}

TEST(Encoders, RefuseTypesThatAreOnlyRead) {
  const std::vector<float> row(256, 1.0f);
  const std::vector<uint8_t> codes(256, 0);
  std::vector<uint8_t> out(4096);
  for (const TensorType type : kAllTypes) {
    if (type < TensorType::q5_0) continue;
    const std::string name(type_name(type));
    EXPECT_EQ(error_of([&] { encode_row(type, row.data(), 256, out.data()); }), name + " can be read, not written");
    for (const auto& levels : {std::vector{-1.5f, -0.5f, 0.5f, 1.5f}, std::vector{-1.0f, 0.0f, 1.0f}}) {
      EXPECT_EQ(error_of([&] { encode_codes_row(type, codes.data(), levels, row.data(), 256, 256, out.data()); }),
                fmt::format("{} cannot hold {} levels from {} to {}", name, levels.size(), levels[0], levels.back()));
    }
  }
}

TEST(Encoders, SendTwoBitTypesToCodesAndScales) {
  const std::vector<float> row(512, 1.0f);
  std::vector<uint8_t> out(4096);
  for (const TensorType type : {TensorType::q2_k, TensorType::q2_0c}) {
    EXPECT_THAT(error_of([&] { encode_row(type, row.data(), 512, out.data()); }), HasSubstr("codes and scales"));
  }
  EXPECT_THAT(error_of([&] { encode_row(TensorType::q6_k, row.data(), 300, out.data()); }), HasSubstr("300"));
}

std::vector<Weights> q6_k_samples() {
  auto all = real_weights();
  all.push_back({"normal", random_normal(512 * 256, 21)});
  all.push_back({"awkward", awkward_rows()});
  Weights heavy{"heavy tails", random_normal(512 * 256, 22)};
  for (auto& v : heavy.values) v = v * v * v;
  all.push_back(std::move(heavy));
  return all;
}

TEST(Q6K, SquaredErrorIsNoWorseThanGgmlsOnEveryMatrix) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  std::vector<float> all;
  for (const auto& w : q6_k_samples()) all.insert(all.end(), w.values.begin(), w.values.end());
  write_values(dir / "in", all);
  call_peer(python, "ggml-quantize q6_k 512 " + (dir / "in").string() + " " + (dir / "out").string());
  const auto theirs_all = decode(TensorType::q6_k, read_values<uint8_t>(dir / "out"));
  auto at = theirs_all.begin();
  for (const auto& w : q6_k_samples()) {
    const auto end = at + static_cast<std::ptrdiff_t>(w.values.size());
    const double theirs = squared_error(w.values, {at, end});
    const double ours = squared_error(w.values, decode(TensorType::q6_k, encode(TensorType::q6_k, w.values, 512)));
    EXPECT_LE(ours, theirs) << w.name << ": " << ours / theirs;
    EXPECT_GT(ours, 0.5 * theirs) << w.name << ": too good to be true";
    at = end;
  }
}

TEST(Q6K, ZeroAndSingleWeightsAreHeld) {
  std::vector<float> values(512, 0.0f);
  values[300] = -3.0f;  // 3 = 32 * sc * d is within binary16's precision
  const auto back = decode(TensorType::q6_k, encode(TensorType::q6_k, values, 512));
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(back[i], values[i], 3.0f / 2048) << i;
}

TEST(Q6K, EncodingDoesNotDependOnTheUnit) {
  const auto values = random_normal(2048, 31);
  auto doubled = values;
  for (auto& v : doubled) v *= 2;
  const auto a = decode(TensorType::q6_k, encode(TensorType::q6_k, values, 2048));
  const auto b = decode(TensorType::q6_k, encode(TensorType::q6_k, doubled, 2048));
  for (size_t i = 0; i < a.size(); ++i) ASSERT_EQ(2 * a[i], b[i]) << i;
}

TEST(Q6K, TinyWeightsKeepWhatBinary16ScalesAllow) {
  for (const float size : {1e-3f, 1e-4f, 1e-5f, 3e-6f}) {  // from subnormal block scales on downwards
    const auto values = random_normal(256, 41, size);
    const double energy = squared_error(values, std::vector<float>(256, 0.0f));
    const double error = squared_error(values, decode(TensorType::q6_k, encode(TensorType::q6_k, values, 256)));
    EXPECT_LT(error, 0.02 * energy) << size;
  }
}

TEST(Q6K, RowsAreEncodedIndependently) {
  const auto values = random_normal(4 * 512, 51);
  const auto whole = encode(TensorType::q6_k, values, 2048), rows = encode(TensorType::q6_k, values, 512);
  EXPECT_EQ(whole, rows);
}

}  // namespace
}  // namespace crumb::formats
