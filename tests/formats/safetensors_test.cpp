#include "core/formats/safetensors.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

using Json = nlohmann::json;

struct Plan {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
};

// Every dtype, of odd sizes: what follows an odd tensor must still be aligned to its elements.
std::vector<Plan> every_dtype() {
  std::vector<Plan> plans = {{"scalar", DType::f32, {}}, {"empty", DType::f32, {3, 0}}};
  for (const DType dtype :
       {DType::boolean, DType::u8, DType::i8, DType::f8_e5m2, DType::f8_e4m3, DType::i16, DType::u16, DType::f16,
        DType::bf16, DType::i32, DType::u32, DType::f32, DType::i64, DType::u64, DType::f64}) {
    plans.push_back({"t." + std::string(dtype_name(dtype)), dtype, {3, 5}});
  }
  return plans;
}

int64_t elements(const Plan& plan) {
  int64_t count = 1;
  for (const int64_t n : plan.shape) count *= n;
  return count;
}

std::vector<uint8_t> content(const Plan& plan, size_t seed) {
  auto bytes = random_bytes(static_cast<size_t>(elements(plan) * dtype_bytes(plan.dtype)), static_cast<uint32_t>(seed));
  if (plan.dtype == DType::boolean) {
    for (auto& b : bytes) b &= 1;
  }
  return bytes;
}

void write_all(SafetensorsWriter& writer, const std::vector<Plan>& plans, size_t piece) {
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto bytes = content(plans[i], i);
    for (size_t at = 0; at < bytes.size(); at += piece) {
      writer.write(bytes.data() + at, static_cast<int64_t>(std::min(piece, bytes.size() - at)));
    }
  }
  writer.finish();
}

SafetensorsWriter writer_of(const std::vector<Plan>& plans) {
  SafetensorsWriter writer;
  for (const auto& plan : plans) writer.declare(plan.name, plan.dtype, plan.shape);
  return writer;
}

void expect_content(const SafetensorsReader& reader, const std::vector<Plan>& plans) {
  ASSERT_EQ(reader.tensors().size(), plans.size());
  for (size_t i = 0; i < plans.size(); ++i) {
    const TensorInfo& info = reader.at(plans[i].name);
    EXPECT_EQ(info.dtype, plans[i].dtype) << info.name;
    EXPECT_EQ(info.shape, plans[i].shape) << info.name;
    const auto bytes = reader.bytes(info);
    EXPECT_EQ(std::vector<uint8_t>(bytes.begin(), bytes.end()), content(plans[i], i)) << info.name;
  }
}

TEST(Safetensors, EveryDtypeSurvivesARoundTripInPiecesOfAnySize) {
  for (const size_t piece : {size_t{1}, size_t{7}, size_t{1} << 20}) {
    const TempDir dir;
    const auto plans = every_dtype();
    auto writer = writer_of(plans);
    writer.begin_file(dir / "a.safetensors");
    write_all(writer, plans, piece);
    const SafetensorsReader reader(dir / "a.safetensors");
    expect_content(reader, plans);
    EXPECT_EQ(reader.metadata().at("format"), "pt");
  }
}

TEST(Safetensors, TensorsAreAlignedToTheirElements) {
  const TempDir dir;
  const auto plans = every_dtype();
  auto writer = writer_of(plans);
  writer.begin_file(dir / "a.safetensors");
  write_all(writer, plans, 64);
  const SafetensorsReader reader(dir / "a.safetensors");
  for (const auto& t : reader.tensors()) EXPECT_EQ(t.offset % dtype_bytes(t.dtype), 0) << t.name;
}

TEST(Safetensors, AnAlignedOrderOfDeclarationIsKept) {
  const TempDir dir;
  const std::vector<Plan> plans = {{"b", DType::u8, {4}}, {"a", DType::f32, {2}}, {"c", DType::u8, {3}}};
  auto writer = writer_of(plans);
  writer.begin_file(dir / "a.safetensors");
  write_all(writer, plans, 64);
  const SafetensorsReader reader(dir / "a.safetensors");
  EXPECT_EQ(reader.tensors()[0].name, "b");
  EXPECT_EQ(reader.tensors()[1].name, "a");
  EXPECT_EQ(reader.tensors()[2].name, "c");
}

TEST(Safetensors, TorchLoadsOurFiles) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  auto plans = every_dtype();
  plans.push_back({"a \"quoted\" n\xc3\xa4me", DType::u8, {1}});
  auto writer = writer_of(plans);
  writer.begin_file(dir / "a.safetensors");
  write_all(writer, plans, 64);
  const auto seen = Json::parse(call_peer(python, "safetensors-read " + (dir / "a.safetensors").string()));
  ASSERT_EQ(seen.size(), plans.size());
  for (size_t i = 0; i < plans.size(); ++i) {
    const auto bytes = content(plans[i], i);
    EXPECT_EQ(seen[plans[i].name], Json({dtype_name(plans[i].dtype), plans[i].shape, hex(bytes.data(), bytes.size())}))
        << plans[i].name;
  }
}

TEST(Safetensors, FilesOfTorchAreRead) {
  CRUMB_NEED_PEERS(python);
  const TempDir dir;
  const auto expected = Json::parse(call_peer(python, "safetensors-write " + (dir / "a.safetensors").string()));
  const SafetensorsReader reader(dir / "a.safetensors");
  EXPECT_EQ(reader.metadata().at("note"), "gr\xc3\xbc\xc3\x9f");
  ASSERT_EQ(reader.tensors().size(), expected.size());
  for (const auto& t : reader.tensors()) {
    const auto bytes = reader.bytes(t);
    EXPECT_EQ(expected[t.name], Json({dtype_name(t.dtype), t.shape, hex(bytes.data(), bytes.size())})) << t.name;
  }
}

TEST(Safetensors, RowsOfFloatTypesAreReadAsFloats) {
  const TempDir dir;
  const std::vector<std::pair<DType, std::vector<uint8_t>>> halves = {{DType::f16, {0x00, 0x3c, 0x00, 0xc0}},
                                                                      {DType::bf16, {0x80, 0x3f, 0x00, 0xc0}},
                                                                      {DType::f8_e4m3, {0x38, 0xc0}},
                                                                      {DType::f8_e5m2, {0x3c, 0xc0}}};
  for (const auto& [dtype, bytes] : halves) {
    SafetensorsWriter writer;
    writer.declare("x", dtype, {2, 1});
    writer.begin_file(dir / "a.safetensors");
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
    writer.finish();
    const SafetensorsReader reader(dir / "a.safetensors");
    float values[2] = {};
    reader.read_rows(reader.at("x"), 0, 2, values);
    EXPECT_EQ(values[0], 1.0f);
    EXPECT_EQ(values[1], -2.0f);
    reader.read_rows(reader.at("x"), 1, 2, values);
    EXPECT_EQ(values[0], -2.0f);
    reader.release_rows(reader.at("x"), 0, 2);
  }
}

TEST(Safetensors, IntegersAreNotReadAsFloats) {
  const TempDir dir;
  SafetensorsWriter writer;
  writer.declare("codes", DType::u8, {1});
  writer.begin_file(dir / "a.safetensors");
  writer.write("x", 1);
  writer.finish();
  const SafetensorsReader reader(dir / "a.safetensors");
  float value = 0;
  EXPECT_THAT(error_of([&] { reader.read_rows(reader.at("codes"), 0, 1, &value); }), HasSubstr("'codes': U8"));
}

TEST(Safetensors, ViewsOfShapesAreRowsAndColumns) {
  const auto view = [](std::vector<int64_t> shape) {
    TensorInfo info;
    info.shape = std::move(shape);
    return std::pair{info.rows(), info.cols()};
  };
  EXPECT_EQ(view({}), std::pair(int64_t{1}, int64_t{1}));
  EXPECT_EQ(view({5}), std::pair(int64_t{1}, int64_t{5}));
  EXPECT_EQ(view({3, 5}), std::pair(int64_t{3}, int64_t{5}));
  EXPECT_EQ(view({2, 3, 5}), std::pair(int64_t{6}, int64_t{5}));
}

TEST(Safetensors, AnUnfinishedFileNeverAppears) {
  const TempDir dir;
  {
    SafetensorsWriter writer;
    writer.declare("x", DType::f32, {4});
    writer.begin_file(dir / "a.safetensors");
    writer.write("1234", 4);
    EXPECT_THAT(error_of([&] { writer.finish(); }), HasSubstr("12 bytes"));
  }
  EXPECT_TRUE(fs::is_empty(dir.path()));
}

TEST(Shards, TensorsAreSplitByBytesAndReadBackAsOneModel) {
  const TempDir dir;
  const std::vector<Plan> plans = {{"a", DType::f32, {10}},    {"b", DType::u8, {7}},  {"c", DType::f32, {10}},
                                   {"big", DType::f32, {100}}, {"e", DType::f32, {0}}, {"f", DType::bf16, {3, 3}}};
  auto writer = writer_of(plans);
  writer.begin_folder(dir.path(), 64);
  EXPECT_FALSE(fs::exists(dir / "model-00001-of-00004.safetensors"));
  write_all(writer, plans, 11);
  const SafetensorsReader reader(dir.path());
  expect_content(reader, plans);
  ASSERT_EQ(reader.files().size(), 4u);
  EXPECT_EQ(reader.files()[3].filename(), "model-00004-of-00004.safetensors");
  EXPECT_EQ(reader.at("b").file, 0);
  EXPECT_EQ(reader.at("big").file, 2);
  EXPECT_EQ(reader.total_bytes(), 40 + 7 + 40 + 400 + 18);
  const auto index = Json::parse(read_file(dir / "model.safetensors.index.json"));
  EXPECT_EQ(index["metadata"]["total_size"], reader.total_bytes());
  EXPECT_EQ(index["weight_map"]["f"], "model-00004-of-00004.safetensors");
}

TEST(Shards, AModelThatFitsIsOneFileWithoutIndex) {
  const TempDir dir;
  const auto plans = every_dtype();
  auto writer = writer_of(plans);
  writer.begin_folder(dir.path(), 1 << 20);
  write_all(writer, plans, 64);
  EXPECT_TRUE(fs::exists(dir / "model.safetensors"));
  EXPECT_FALSE(fs::exists(dir / "model.safetensors.index.json"));
  expect_content(SafetensorsReader(dir.path()), plans);
}

class BrokenShards : public ::testing::Test {
 protected:
  BrokenShards() {
    const std::vector<Plan> plans = {{"a", DType::f32, {10}}, {"b", DType::f32, {10}}};
    auto writer = writer_of(plans);
    writer.begin_folder(dir_.path(), 40);
    write_all(writer, plans, 64);
    index_ = Json::parse(read_file(dir_ / "model.safetensors.index.json"));
  }
  std::string error() {
    write_file(dir_ / "model.safetensors.index.json", index_.dump());
    return error_of([&] { SafetensorsReader reader(dir_.path()); });
  }
  TempDir dir_;
  Json index_;
};

TEST_F(BrokenShards, AMissingShardIsNamed) {
  fs::remove(dir_ / "model-00002-of-00002.safetensors");
  EXPECT_THAT(error(), HasSubstr("model-00002-of-00002.safetensors"));
}
TEST_F(BrokenShards, ATensorThatIsNotInItsShardIsNamed) {
  index_["weight_map"]["a"] = "model-00002-of-00002.safetensors";
  EXPECT_THAT(error(), HasSubstr("'a' is not in model-00002"));
  index_["weight_map"]["a"] = "model-00001-of-00002.safetensors";
  index_["weight_map"]["ghost"] = "model-00001-of-00002.safetensors";
  EXPECT_THAT(error(), HasSubstr("'ghost' is not in"));
}
TEST_F(BrokenShards, ATensorInTwoShardsIsNamed) {
  fs::copy_file(dir_ / "model-00001-of-00002.safetensors", dir_ / "copy.safetensors");
  index_["weight_map"]["b"] = "copy.safetensors";
  EXPECT_THAT(error(), HasSubstr("'a' is also in"));
}
TEST_F(BrokenShards, AnIndexMayNotLeaveItsFolder) {
  for (const char* name : {"../x.safetensors", "/etc/passwd", "", ".."}) {
    index_["weight_map"]["a"] = name;
    EXPECT_THAT(error(), HasSubstr("same folder")) << name;
  }
}
TEST_F(BrokenShards, AnIndexThatIsNoIndexIsRefused) {
  for (const Json& bad :
       {Json::array(), Json::object(), Json{{"weight_map", 3}}, Json{{"weight_map", Json::object()}}}) {
    index_ = bad;
    EXPECT_THAT(error(), HasSubstr("weight_map"));
  }
  index_ = {{"weight_map", {{"a", 3}}}};
  EXPECT_THAT(error(), HasSubstr("file name"));
  write_file(dir_ / "model.safetensors.index.json", "{");
  EXPECT_THAT(error_of([&] { SafetensorsReader reader(dir_.path()); }), HasSubstr("not valid JSON"));
}

// ---- malformed headers ----

std::string framed(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1');
}

std::string open_error(const std::string& text) {
  const TempDir dir;
  write_file(dir / "bad.safetensors", text);
  const std::string error = error_of([&] { SafetensorsReader reader(dir / "bad.safetensors"); });
  EXPECT_TRUE(error.empty() || error.find("bad.safetensors") != std::string::npos) << error;
  EXPECT_EQ(error.find('\n'), std::string::npos) << error;
  return error;
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

TEST(DamagedSafetensors, OffsetsMustCoverTheDataOnce) {
  const auto error = [](const std::string& first, const std::string& second, size_t data) {
    return open_error(framed("{" + entry("a", "U8", "[4]", first) + "," + entry("b", "U8", "[4]", second) + "}", data));
  };
  EXPECT_EQ(error("[0,4]", "[4,8]", 8), "");
  EXPECT_EQ(error("[4,8]", "[0,4]", 8), "");
  EXPECT_THAT(error("[0,4]", "[3,7]", 8), HasSubstr("'b' overlaps"));
  EXPECT_THAT(error("[0,4]", "[0,4]", 8), HasSubstr("overlaps"));
  EXPECT_THAT(error("[0,4]", "[5,9]", 9), HasSubstr("1 bytes before tensor 'b'"));
  EXPECT_THAT(error("[1,5]", "[5,9]", 9), HasSubstr("1 bytes before tensor 'a'"));
  EXPECT_THAT(error("[0,4]", "[4,8]", 9), HasSubstr("1 bytes after the last tensor"));
  EXPECT_THAT(error("[0,4]", "[4,8]", 7), HasSubstr("'b' ends 1 bytes after the end"));
  EXPECT_THAT(error("[0,4]", "[8,4]", 8), HasSubstr("[begin, end]"));
}

TEST(DamagedSafetensors, ShapesMustGiveTheLength) {
  const auto error = [](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return open_error(framed("{" + entry("a", dtype, shape, offsets) + "}", 8));
  };
  EXPECT_EQ(error("F32", "[2]", "[0,8]"), "");
  EXPECT_EQ(error("F64", "[]", "[0,8]"), "");
  EXPECT_THAT(error("F32", "[3]", "[0,8]"), HasSubstr("need 12 bytes, data_offsets give 8"));
  EXPECT_THAT(error("F32", "[4611686018427387904,4]", "[0,8]"), HasSubstr("absurdly large"));
  EXPECT_THAT(error("U8", "[9223372036854775807]", "[0,9223372036854775807]"), HasSubstr("after the end of the file"));
  EXPECT_THAT(error("U8", "[18446744073709551615]", "[0,8]"), HasSubstr("whole numbers"));
  EXPECT_THAT(error("U8", "[-8]", "[0,8]"), HasSubstr("whole numbers"));
  EXPECT_THAT(error("U8", "[8.0]", "[0,8]"), HasSubstr("whole numbers"));
  EXPECT_THAT(error("U8", "8", "[0,8]"), HasSubstr("shape must be a list"));
  EXPECT_THAT(error("U8", "[8]", "[8]"), HasSubstr("[begin, end]"));
  EXPECT_THAT(error("F4", "[8]", "[0,8]"), HasSubstr("unknown dtype 'F4'"));
}

TEST(DamagedSafetensors, HeadersMustBeMapsOfTensors) {
  EXPECT_THAT(open_error(framed("{\"a\":3}", 0)), HasSubstr("'a': expected an object"));
  EXPECT_THAT(open_error(framed("{\"a\":{}}", 0)), HasSubstr("dtype is missing"));
  EXPECT_THAT(open_error(framed("[]", 0)), HasSubstr("does not start with '{'"));
  EXPECT_THAT(open_error(framed("{\"a\":", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(open_error(framed("{\"\xff\":3}", 0)), HasSubstr("not valid JSON"));
  EXPECT_THAT(open_error(framed(R"({"__metadata__":{"a":1}})", 0)), HasSubstr("__metadata__.a"));
  EXPECT_THAT(open_error(framed(R"({"__metadata__":[]})", 0)), HasSubstr("map of strings"));
  EXPECT_EQ(open_error(framed(R"({"__metadata__":null})", 0)), "");
  EXPECT_EQ(open_error(framed("{}   ", 0)), "");
  const std::string twice = entry("a", "U8", "[0]", "[0,0]");
  EXPECT_THAT(open_error(framed("{" + twice + "," + twice + "}", 0)), HasSubstr(": header:1:56: \"a\" is given twice"));
  EXPECT_THAT(open_error(framed("{\"a\":" + std::string(100000, '['), 0)),
              HasSubstr(": header:1:8: nested deeper than 3 levels"));
}

TEST(DamagedSafetensors, HeaderLengthsAreCheckedBeforeAnythingIsRead) {
  for (const uint64_t length : {uint64_t{100'000'001}, uint64_t{1} << 40, uint64_t{1} << 63, ~uint64_t{0}}) {
    EXPECT_THAT(open_error(std::string(reinterpret_cast<const char*>(&length), 8) + "{}"),
                HasSubstr("at most 100000000"));
  }
  EXPECT_THAT(open_error(framed("{}", 0).substr(0, 9)), HasSubstr("truncated"));
  EXPECT_THAT(open_error("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
              HasSubstr("a Git LFS pointer"));
  EXPECT_THAT(open_error("1234567"), HasSubstr("too few"));
  EXPECT_THAT(open_error(""), HasSubstr("too few"));
}

std::string sound_file() {
  const TempDir dir;
  const std::vector<Plan> plans = {{"a", DType::f32, {2, 3}}, {"b", DType::u8, {5}}, {"c", DType::u8, {0}}};
  auto writer = writer_of(plans);
  writer.begin_file(dir / "a.safetensors");
  write_all(writer, plans, 64);
  return read_file(dir / "a.safetensors");
}

TEST(DamagedSafetensors, TruncationAtEveryByteIsAnError) {
  const std::string text = sound_file();
  for (size_t length = 0; length < text.size(); ++length) ASSERT_NE(open_error(text.substr(0, length)), "") << length;
}

TEST(DamagedSafetensors, AFlippedByteIsAnErrorOrAnotherSoundFile) {
  const std::string text = sound_file();
  const TempDir dir;
  int refused = 0;
  for (size_t at = 0; at < text.size() - 29; ++at) {  // all but the data
    for (const int flip : {0x01, 0x02, 0x10, 0x80}) {
      std::string damaged = text;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      write_file(dir / "a.safetensors", damaged);
      const std::string error = error_of([&] {
        const SafetensorsReader reader(dir / "a.safetensors");
        for (const auto& t : reader.tensors()) reader.bytes(t);
      });
      refused += error.empty() ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST(Fixtures, EveryTinyCheckpointOpens) {
  CRUMB_NEED_DATA(folder, "vectors/tiny-hf-fixtures");
  int opened = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    const SafetensorsReader reader(entry.path());
    EXPECT_GT(reader.tensors().size(), 10u) << entry.path();
    EXPECT_NE(reader.find("model.embed_tokens.weight") != nullptr,
              reader.find("language_model.model.embed_tokens.weight") != nullptr)
        << entry.path();
    ++opened;
  }
  EXPECT_EQ(opened, 11);
}

TEST(Fixtures, TheShardedOneHasTheTensorsOfItsIndex) {
  CRUMB_NEED_DATA(folder, "vectors/tiny-hf-fixtures/tiny_qwen3_sharded");
  const SafetensorsReader reader(folder);
  EXPECT_EQ(reader.files().size(), 2u);
  const auto index = Json::parse(read_file(folder / "model.safetensors.index.json"));
  EXPECT_EQ(reader.tensors().size(), index["weight_map"].size());
}

TEST(Fixtures, AFolderWithoutWeightsIsNamed) {
  const TempDir dir;
  EXPECT_THAT(error_of([&] { SafetensorsReader reader(dir.path()); }), HasSubstr("neither model.safetensors nor"));
  EXPECT_THAT(error_of([&] { SafetensorsReader reader(dir / "absent"); }), HasSubstr("absent"));
}

}  // namespace
}  // namespace crumb::formats
