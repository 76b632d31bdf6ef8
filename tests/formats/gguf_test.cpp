#include "core/formats/gguf.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/formats/dtype.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

GgufValue array(GgufType type, decltype(GgufArray::values) values) {
  return {GgufArray{.type = type, .values = std::move(values)}};
}

// One key of every type, and an array of every type.
std::vector<std::pair<std::string, GgufValue>> every_kind() {
  return {{"s.u8", {uint8_t{200}}},
          {"s.i8", {int8_t{-100}}},
          {"s.u16", {uint16_t{60000}}},
          {"s.i16", {int16_t{-30000}}},
          {"s.u32", {uint32_t{4000000000}}},
          {"s.i32", {int32_t{-2000000000}}},
          {"s.f32", {0.1f}},
          {"s.bool", {true}},
          {"s.string", {std::string("gr\xc3\xbc\xc3\x9f")}},
          {"s.u64", {uint64_t{1} << 63}},
          {"s.i64", {-(int64_t{1} << 62)}},
          {"s.f64", {0.1}},
          {"a.u8", array(GgufType::u8, std::vector<uint8_t>{1, 255})},
          {"a.i8", array(GgufType::i8, std::vector<int8_t>{1, -1})},
          {"a.u16", array(GgufType::u16, std::vector<uint16_t>{1, 65535})},
          {"a.i16", array(GgufType::i16, std::vector<int16_t>{1, -1})},
          {"a.u32", array(GgufType::u32, std::vector<uint32_t>{1, 4000000000})},
          {"a.i32", array(GgufType::i32, std::vector<int32_t>{1, -1})},
          {"a.f32", array(GgufType::f32, std::vector<float>{0.5f, -1.25f})},
          {"a.bool", array(GgufType::boolean, std::vector<bool>{true, false, true})},
          {"a.string", array(GgufType::string, std::vector<std::string>{"", "a", "bc"})},
          {"a.u64", array(GgufType::u64, std::vector<uint64_t>{1, uint64_t{1} << 63})},
          {"a.i64", array(GgufType::i64, std::vector<int64_t>{1, -1})},
          {"a.f64", array(GgufType::f64, std::vector<double>{0.25, -2})},
          {"a.empty", array(GgufType::i32, std::vector<int32_t>{})}};
}

bool equal(const GgufValue& a, const GgufValue& b) {
  const auto* x = std::get_if<GgufArray>(&a.value);
  const auto* y = std::get_if<GgufArray>(&b.value);
  if (x != nullptr && y != nullptr) return x->type == y->type && x->values == y->values;
  if (a.type() != b.type()) return false;
  return a.text(1000) == b.text(1000);
}

struct Plan {
  std::string name;
  TensorType type;
  std::vector<int64_t> shape;
};
const std::vector<Plan> kPlans = {
    {"norm", TensorType::f32, {7}},     {"half", TensorType::f16, {3, 5}},  {"brain", TensorType::bf16, {2, 3, 5}},
    {"q8", TensorType::q8_0, {3, 64}},  {"q4", TensorType::q4_0, {1, 32}},  {"q6", TensorType::q6_k, {2, 256}},
    {"q2", TensorType::q2_k, {3, 512}}, {"empty", TensorType::f32, {0, 4}}, {"crumbs", TensorType::q2_0c, {2, 512}}};

std::vector<uint8_t> content(const Plan& plan, size_t i) {
  GgufTensor t;
  t.shape = plan.shape;
  return random_bytes(static_cast<size_t>(t.rows() * row_bytes(plan.type, t.cols())), static_cast<uint32_t>(i));
}

GgufWriter planned_writer() {
  GgufWriter writer;
  for (auto& [key, value] : every_kind()) writer.set(key, value);
  for (const auto& plan : kPlans) writer.declare(plan.name, plan.type, plan.shape);
  return writer;
}

// Writes the plan in pieces of at most `piece` bytes.
void write_plan(const fs::path& path, size_t piece) {
  GgufWriter writer = planned_writer();
  writer.begin(path);
  for (size_t i = 0; i < kPlans.size(); ++i) {
    const auto bytes = content(kPlans[i], i);
    for (size_t at = 0; at < bytes.size(); at += piece) {
      writer.write(bytes.data() + at, static_cast<int64_t>(std::min(piece, bytes.size() - at)));
    }
  }
  writer.finish();
  writer.commit();
}

TEST(Gguf, WhatIsWrittenIsReadBack) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1000);
  const GgufReader reader(dir / "a.gguf");
  EXPECT_EQ(reader.version(), 3u);
  EXPECT_EQ(reader.alignment(), 32);
  const auto keys = every_kind();
  ASSERT_EQ(reader.metadata().size(), keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(reader.metadata()[i].first, keys[i].first);
    EXPECT_TRUE(equal(reader.metadata()[i].second, keys[i].second)) << keys[i].first;
  }
  ASSERT_EQ(reader.tensors().size(), kPlans.size());
  for (size_t i = 0; i < kPlans.size(); ++i) {
    const GgufTensor& t = reader.tensor(kPlans[i].name);
    EXPECT_EQ(t.shape, kPlans[i].shape);
    EXPECT_EQ(t.type, kPlans[i].type);
    EXPECT_EQ(t.type_name, type_name(kPlans[i].type));
    EXPECT_EQ((reader.data_begin() + t.offset) % 32, 0);
    const auto bytes = reader.bytes(t);
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end()), content(kPlans[i], i)) << t.name;
  }
}

TEST(Gguf, TheSizeIsKnownBeforeWriting) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1 << 20);
  EXPECT_EQ(static_cast<int64_t>(fs::file_size(dir / "a.gguf")), planned_writer().file_bytes());
}

TEST(Gguf, TheSizeOfThePiecesDoesNotMatter) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1 << 20);
  write_plan(dir / "b.gguf", 13);
  EXPECT_EQ(read_file(dir / "a.gguf"), read_file(dir / "b.gguf"));
}

TEST(Gguf, AFileWithoutTensorsHasNoDataSection) {
  const TempDir dir;
  GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  writer.begin(dir / "a.gguf");
  writer.finish();
  writer.commit();
  const GgufReader reader(dir / "a.gguf");
  EXPECT_TRUE(reader.tensors().empty());
  EXPECT_EQ(reader.file_bytes(), writer.file_bytes());
}

TEST(Gguf, AnUnfinishedFileNeverAppears) {
  const TempDir dir;
  {
    GgufWriter writer;
    writer.declare("x", TensorType::f32, {2, 4});
    writer.begin(dir / "a.gguf");
    const float half[4] = {};
    writer.write(half, sizeof half);
    EXPECT_THAT(error_of([&] { writer.finish(); }), HasSubstr("16 bytes"));
    EXPECT_TRUE(fs::exists(writer.temporary_path()));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Gguf, TheWriterRefusesLongNamesAndRaggedRows) {
  GgufWriter writer;
  writer.declare(std::string(63, 'n'), TensorType::f32, {1});
  EXPECT_THAT(error_of([&] { writer.declare(std::string(64, 'n'), TensorType::f32, {1}); }), HasSubstr("63"));
  EXPECT_THAT(error_of([&] { writer.declare("x", TensorType::q2_0c, {4, 768}); }), HasSubstr("768"));
}

TEST(Gguf, RowsAreDecodedFromAnyStart) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1 << 20);
  const GgufReader reader(dir / "a.gguf");
  const GgufTensor& t = reader.tensor("q2");
  std::vector<float> all(3 * 512), some(512);
  reader.read_rows(t, 0, 3, all.data());
  reader.read_rows(t, 1, 2, some.data());
  reader.release_rows(t, 0, 3);
  EXPECT_EQ(0, std::memcmp(some.data(), all.data() + 512, 512 * sizeof(float)));
}

TEST(Gguf, TypedAccessAcceptsEveryIntegerWidthAndNamesWhatIsWrong) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1 << 20);
  const GgufReader reader(dir / "a.gguf");
  EXPECT_EQ(reader.get_int("s.u8"), 200);
  EXPECT_EQ(reader.get_int("s.i16"), -30000);
  EXPECT_EQ(reader.get_int("s.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(reader.get_float("s.f32"), 0.1);  // what was meant, not the nearest float's own digits
  EXPECT_EQ(reader.get_float("s.f64"), 0.1);
  EXPECT_EQ(reader.get_string("s.string"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_TRUE(reader.get_bool_or("s.bool", false));
  EXPECT_EQ(reader.get_strings("a.string").size(), 3u);
  EXPECT_EQ(reader.get_int_or("absent", 5), 5);
  EXPECT_EQ(reader.get_float_or("absent", 0.5), 0.5);
  EXPECT_EQ(reader.get_string_or("absent", "x"), "x");
  EXPECT_THAT(error_of([&] { reader.get_int("absent"); }), HasSubstr("'absent' is missing"));
  EXPECT_THAT(error_of([&] { reader.get_int("s.u64"); }), HasSubstr("'s.u64' must be a whole number"));
  EXPECT_THAT(error_of([&] { reader.get_int("s.bool"); }), HasSubstr("got true"));
  EXPECT_THAT(error_of([&] { reader.get_float_or("s.string", 1); }),
              HasSubstr("'s.string' must be a floating-point number"));
  EXPECT_THAT(error_of([&] { reader.get_strings("a.i32"); }), HasSubstr("list of strings, got [1, -1]"));
  EXPECT_THAT(error_of([&] { reader.tensor("absent"); }), HasSubstr("no tensor 'absent'"));
}

TEST(Gguf, LongArraysAreCutInText) {
  EXPECT_EQ(array(GgufType::i32, std::vector<int32_t>{1, 2, 3, 4}).text(2), "[1, 2, ... 4 in all]");
  EXPECT_EQ(array(GgufType::boolean, std::vector<bool>{true}).text(), "[true]");
  EXPECT_EQ(GgufValue{uint8_t{65}}.text(), "65");
}

TEST(Gguf, TheGgufPackageReadsOurFiles) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  GgufWriter writer;  // the package knows no Q2_0C, and an empty array has no type there
  writer.set_string("general.architecture", "llama");
  for (auto& [key, value] : every_kind()) {
    if (key != "a.empty") writer.set(key, value);
  }
  for (const auto& plan : kPlans) {
    if (plan.type != TensorType::q2_0c && plan.name != "empty") writer.declare(plan.name, plan.type, plan.shape);
  }
  writer.begin(dir / "a.gguf");
  for (size_t i = 0; i < kPlans.size(); ++i) {
    const auto bytes = content(kPlans[i], i);
    if (kPlans[i].type != TensorType::q2_0c) writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
  writer.commit();

  const auto seen = nlohmann::json::parse(call_peer(python, "gguf-read " + (dir / "a.gguf").string()));
  const auto value = [&](const char* key) { return seen["keys"][key][1]; };
  EXPECT_EQ(value("s.u8"), 200);
  EXPECT_EQ(value("s.i32"), -2000000000);
  EXPECT_EQ(value("s.u64"), uint64_t{1} << 63);
  EXPECT_EQ(value("s.bool"), true);
  EXPECT_EQ(value("s.string"), "gr\xc3\xbc\xc3\x9f");
  EXPECT_EQ(value("a.string"), (std::vector<std::string>{"", "a", "bc"}));
  EXPECT_EQ(value("a.f32"), (std::vector<float>{0.5f, -1.25f}));
  EXPECT_EQ(value("a.i8"), (std::vector<int>{1, -1}));
  for (const auto& [key, entry] : every_kind()) {
    if (key == "a.empty") continue;
    const int type = seen["keys"][key][0][0];
    EXPECT_EQ(type, static_cast<int>(entry.type())) << key;
  }
  size_t at = 0;
  for (size_t i = 0; i < kPlans.size(); ++i) {
    if (kPlans[i].type == TensorType::q2_0c || kPlans[i].name == "empty") continue;
    const auto& tensor = seen["tensors"][at++];
    const auto bytes = content(kPlans[i], i);
    EXPECT_EQ(tensor[0], kPlans[i].name);
    EXPECT_EQ(tensor[1], kPlans[i].shape);
    EXPECT_EQ(tensor[2], ggml_type_id(kPlans[i].type));
    EXPECT_EQ(tensor[4], hex(bytes.data(), bytes.size()));
  }
  EXPECT_EQ(at, seen["tensors"].size());
}

TEST(Gguf, FilesOfTheGgufPackageAreReadWithTheirAlignment) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const auto expected = nlohmann::json::parse(call_peer(python, "gguf-write " + (dir / "a.gguf").string()));
  const GgufReader reader(dir / "a.gguf");
  EXPECT_EQ(reader.alignment(), 64);
  EXPECT_EQ(reader.get_int("k.i64"), -(int64_t{1} << 62));
  EXPECT_EQ(std::get<uint64_t>(reader.find("k.u64")->value), (uint64_t{1} << 63) + 5);
  EXPECT_EQ(reader.get_float("k.f64"), 0.1);
  EXPECT_EQ(reader.get_string("k.string"), "gr\xc3\xbc\xc3\x9f \xf0\x9f\x98\x80");
  EXPECT_EQ(reader.get_strings("k.strings"), (std::vector<std::string>{"a", "",
                                                                       "\xe2\x96\x81"
                                                                       "b"}));
  EXPECT_EQ(reader.find("k.bools")->text(), "[true, false]");
  ASSERT_EQ(reader.tensors().size(), expected.size());
  for (const auto& t : reader.tensors()) {
    std::vector<float> values(3 * 64);
    reader.read_rows(t, 0, 3, values.data());
    EXPECT_EQ(expected[t.name], hex(values.data(), values.size() * sizeof(float))) << t.name;
  }
}

TEST(Gguf, Version2IsRead) {
  const TempDir dir;
  write_plan(dir / "a.gguf", 1 << 20);
  std::string text = read_file(dir / "a.gguf");
  text[4] = 2;
  write_file(dir / "b.gguf", text);
  EXPECT_EQ(GgufReader(dir / "b.gguf").version(), 2u);
}

TEST(Gguf, VocabularyFilesOfLlamaCppAreRead) {
  CRUMB_NEED_DATA(folder, "tokenizers/ggml-vocabs");
  const std::vector<std::pair<std::string, size_t>> sizes = {
      {"gpt-2", 50257}, {"llama-spm", 32000}, {"phi-3", 32064}, {"deepseek-llm", 102400}};
  for (const auto& [name, size] : sizes) {
    const GgufReader reader(folder / ("ggml-vocab-" + name + ".gguf"));
    EXPECT_EQ(reader.get_strings("tokenizer.ggml.tokens").size(), size) << name;
    EXPECT_EQ(reader.find("tokenizer.ggml.token_type")->type(), GgufType::array);
    EXPECT_TRUE(reader.tensors().empty());
  }
}

TEST(Gguf, HandMadeFilesAreReadOrRefusedInOneLine) {
  CRUMB_NEED_DATA(folder, "vectors/bitnet-rs-gguf");
  int read = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".gguf") continue;
    const std::string error = error_of([&] {
      const GgufReader reader(entry.path());
      EXPECT_FALSE(reader.get_string("general.architecture").empty());
      ++read;
    });
    if (error.empty()) continue;
    EXPECT_THAT(error, HasSubstr(entry.path().string()));
    EXPECT_EQ(error.find('\n'), std::string::npos);
    EXPECT_EQ(entry.path().filename(), "mini.gguf");  // has two fields that GGUF does not know, before its metadata
  }
  EXPECT_EQ(read, 17);
}

}  // namespace
}  // namespace crumb::formats
