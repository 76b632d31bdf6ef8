#include "core/formats/imatrix.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/formats/gguf.h"
#include "tests/formats/support.h"
#include "tests/testing/testing.h"

namespace crumb::formats {
namespace {

using ::testing::HasSubstr;

class Imatrix : public ::testing::Test {
 protected:
  std::string error_of(const std::string& bytes) const {
    testing::write_file(path_, bytes);
    return testing::error_of([&] { read_imatrix(path_); });
  }
  /// A GGUF with these tensors.
  std::string error_of(const std::map<std::string, std::vector<float>>& tensors) const {
    write(tensors);
    return testing::error_of([&] { read_imatrix(path_); });
  }
  void write(const std::map<std::string, std::vector<float>>& tensors) const {
    GgufWriter writer;
    for (const auto& [name, values] : tensors) writer.declare(name, TensorType::f32, {std::ssize(values)});
    writer.begin(path_);
    for (const auto& [name, values] : tensors) writer.write(values.data(), 4 * std::ssize(values));
    writer.finish();
    writer.commit();
  }

  testing::TempDir dir_;
  testing::fs::path path_ = dir_ / "imatrix";
};

std::string int32(int32_t value) { return {reinterpret_cast<const char*>(&value), sizeof(value)}; }

/// An entry of the .dat form.
std::string entry(const std::string& name, int32_t calls, const std::vector<float>& values) {
  return int32(static_cast<int32_t>(name.size())) + name + int32(calls) + int32(static_cast<int32_t>(values.size())) +
         std::string(reinterpret_cast<const char*>(values.data()), 4 * values.size());
}

TEST_F(Imatrix, WhatIsWrittenIsReadBack) {
  const MeanSquares squares = {{"blk.0.attn_q.weight", {0.5f, 2, 0}}, {"blk.0.ffn_down.weight", {3, 0.25f}}};
  write_imatrix(path_, squares, {{"corpus.txt"}, 16, 512}, Overwrite::no);
  EXPECT_EQ(read_imatrix(path_), squares);  // 8192 tokens: a power of two
  EXPECT_THAT(testing::error_of([&] {
                write_imatrix(path_, squares, {{}, 1, 2}, Overwrite::no);
              }),
              HasSubstr("imatrix"));
}

TEST_F(Imatrix, TheGgufPackageSeesLlamaCppsKeysAndTensors) {
  CRUMB_NEED_PEERS(python);
  write_imatrix(path_, {{"blk.0.attn_q.weight", {0.5f, 2}}}, {{"a.txt", "b.txt"}, 3, 4}, Overwrite::no);
  const auto read = nlohmann::json::parse(call_peer(python, "gguf-read " + path_.string()));
  EXPECT_EQ(read["keys"]["general.type"][1], "imatrix");
  EXPECT_EQ(read["keys"]["imatrix.datasets"][1], (std::vector<std::string>{"a.txt", "b.txt"}));
  EXPECT_EQ(read["keys"]["imatrix.chunk_count"][1], 3);
  EXPECT_EQ(read["keys"]["imatrix.chunk_size"][1], 4);
  ASSERT_EQ(read["tensors"].size(), 2u);
  const auto hex = [](std::vector<float> values) {
    std::string out;
    for (size_t i = 0; i < 4 * values.size(); ++i)
      out += fmt::format("{:02x}", reinterpret_cast<const uint8_t*>(values.data())[i]);
    return out;
  };
  EXPECT_EQ(read["tensors"][0][0], "blk.0.attn_q.weight.in_sum2");
  EXPECT_EQ(read["tensors"][0][2], 0);  // F32
  EXPECT_EQ(read["tensors"][0][4], hex({6, 24}));
  EXPECT_EQ(read["tensors"][1][0], "blk.0.attn_q.weight.counts");
  EXPECT_EQ(read["tensors"][1][4], hex({12}));
}

TEST_F(Imatrix, TheOldFormIsReadWithAndWithoutItsEnd) {
  const std::string entries =
      int32(2) + entry("blk.0.attn_q.weight", 4, {8, 2}) + entry("blk.0.ffn_up.weight", 1, {0, 3});
  const MeanSquares squares = {{"blk.0.attn_q.weight", {2, 0.5f}}, {"blk.0.ffn_up.weight", {0, 3}}};
  for (const std::string& end : {std::string(), int32(4) + int32(5) + "a.txt"}) {
    testing::write_file(path_, entries + end);
    EXPECT_EQ(read_imatrix(path_), squares);
  }
}

TEST_F(Imatrix, AMatrixThatNoTokenReachedWeighsAllInputsTheSame) {
  testing::write_file(path_, int32(1) + entry("a.weight", 0, {0, 0}));
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(read_imatrix(path_), (MeanSquares{{"a.weight", {1, 1}}}));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("a.weight: no token has reached it"));
  // of two experts the second
  write({{"a.weight.in_sum2", {4, 8, 0, 0}}, {"a.weight.counts", {4, 0}}, {"a.weight.in_sum", {1, 1, 0, 0}}});
  EXPECT_EQ(read_imatrix(path_), (MeanSquares{{"a.weight", {1, 2, 1, 1}}}));
}

TEST_F(Imatrix, SaysWhichTensorIsWrongAndHow) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  using Tensors = std::map<std::string, std::vector<float>>;
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1, -2}}, {"a.weight.counts", {4}}}),
              HasSubstr("a.weight: -2 is no sum of squares"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {nan}}, {"a.weight.counts", {4}}}),
              HasSubstr("a.weight: nan is no sum of squares"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1}}, {"a.weight.counts", {-1}}}),
              HasSubstr("a.weight: -1 is no number of tokens"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1}}, {"a.weight.counts", {0.5f}}}),
              HasSubstr("a.weight: 0.5 is no number of tokens"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1, 2, 0, 7}}, {"a.weight.counts", {1, 0}}}),
              HasSubstr("a.weight: a sum of squares of 7 over no token"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1, 2, 3}}, {"a.weight.counts", {4, 4}}}),
              HasSubstr("a.weight: 3 sums of squares do not belong to 2 counts"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.in_sum2", {1}}}), HasSubstr("a.weight.in_sum2 without a.weight.counts"));
  EXPECT_THAT(error_of(Tensors{{"a.weight.counts", {1}}}), HasSubstr("a.weight.counts without a.weight.in_sum2"));
  EXPECT_THAT(error_of(Tensors{{"blk.0.attn_q.weight", {1}}}), HasSubstr("is none of an importance matrix"));
}

TEST_F(Imatrix, RefusesOtherFilesAndThoseThatAreCutOff) {
  const std::string whole = int32(1) + entry("a.weight", 2, {1, 2}) + int32(2) + int32(1) + "t";
  for (size_t length = 0; length < whole.size(); ++length) {
    if (length == int32(1).size() + entry("a.weight", 2, {1, 2}).size()) continue;  // the form without an end
    EXPECT_THAT(error_of(whole.substr(0, length)), HasSubstr(path_.string())) << length;
  }
  EXPECT_THAT(error_of(whole + "x"), HasSubstr("1 bytes behind its end"));
  EXPECT_THAT(error_of(int32(0)), HasSubstr("is no importance matrix"));
  EXPECT_THAT(error_of(std::string("Once upon a time, there was a text.")), HasSubstr("no importance matrix"));
  EXPECT_THAT(error_of(int32(2) + entry("a", 1, {1}) + entry("a", 1, {1})), HasSubstr("a is there twice"));
  EXPECT_THAT(error_of(int32(1) + int32(1) + "a" + int32(1) + int32(1 << 30)), HasSubstr("ends in the midst of a"));
}

}  // namespace
}  // namespace crumb::formats
