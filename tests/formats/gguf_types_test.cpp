// Tensor types whose ids mean different things in different files: the chain of offsets decides.
#include <gmock/gmock.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "core/formats/ggml_types.h"
#include "core/formats/gguf.h"
#include "tests/formats/support.h"

namespace crumb::formats {
namespace {

// A tensor by id and by what its writer meant.
struct Meant {
  uint32_t id;
  std::string name;
};

int64_t bytes_of(const Meant& meant, int64_t rows, int64_t cols) {
  for (const auto& type : ggml_type_readings(meant.id)) {
    if (type.name == meant.name) return *type.bytes(rows * cols, cols);
  }
  ADD_FAILURE() << meant.name;
  return 0;
}

// Tensors t0, t1 ... of 3 x 512 weights, between two norms.
std::string file_of(const std::vector<Meant>& tensors, bool norm_behind = true) {
  RawGguf raw;
  uint64_t offset = 0;
  const auto add = [&](const std::string& name, uint32_t id, const std::vector<uint64_t>& dims, int64_t bytes) {
    raw.tensor(name, id, dims, offset);
    offset += static_cast<uint64_t>(bytes + (32 - bytes % 32) % 32);
  };
  add("norm", 0, {16}, 64);
  for (size_t i = 0; i < tensors.size(); ++i) {
    add("t" + std::to_string(i), tensors[i].id, {512, 3}, bytes_of(tensors[i], 3, 512));
  }
  if (norm_behind) add("norm_behind", 0, {16}, 64);
  raw.data.resize(offset, '\x55');
  return raw.text();
}

std::vector<std::string> read_types(const std::string& text) {
  const TempDir dir;
  write_file(dir / "a.gguf", text);
  const GgufReader reader(dir / "a.gguf");
  std::vector<std::string> names;
  for (const auto& t : reader.tensors()) {
    if (t.name.starts_with("t")) names.emplace_back(t.type_name);
    EXPECT_EQ(t.readable, type_from_name(t.type_name).has_value());
    EXPECT_TRUE(!t.readable || type_name(t.type) == t.type_name);
  }
  return names;
}

TEST(AmbiguousTypes, EveryReadingIsRecognised) {
  for (const std::string a : {"nvfp4", "q2_0c", "stq1_0"}) {
    for (const std::string b : {"q1_0", "q2_0c"}) {
      for (const std::string c : {"q2_0", "stq1_0"}) {
        EXPECT_EQ(read_types(file_of({{40, a}, {41, b}, {42, c}})), (std::vector<std::string>{a, b, c}));
        EXPECT_EQ(read_types(file_of({{42, c}, {40, a}, {40, a}, {8, "q8_0"}})),
                  (std::vector<std::string>{c, a, a, "q8_0"}));
      }
    }
  }
}

TEST(AmbiguousTypes, TheEndOfTheFileDecidesForTheLastTensor) {
  for (const Meant& meant : std::vector<Meant>{
           {40, "nvfp4"}, {40, "q2_0c"}, {40, "stq1_0"}, {41, "q1_0"}, {41, "q2_0c"}, {42, "q2_0"}, {42, "stq1_0"}}) {
    EXPECT_EQ(read_types(file_of({meant}, false)), std::vector<std::string>{meant.name}) << meant.id;
  }
}

TEST(AmbiguousTypes, AChainThatFitsNoReadingIsRefused) {
  // 40 meant twice, differently: no file-wide reading explains it.
  EXPECT_THAT(error_of([] { read_types(file_of({{40, "q2_0c"}, {40, "nvfp4"}})); }), HasSubstr("expected"));
}

TEST(AmbiguousTypes, AFileThatFitsSeveralReadingsIsRefused) {
  const std::string text = file_of({{41, "q2_0c"}}, false) + std::string(1000, '\0');
  EXPECT_THAT(error_of([&] { read_types(text); }), HasSubstr("several meanings"));
}

TEST(AmbiguousTypes, Q2_0CUnderEitherIdDecodesTheSame) {
  const TempDir dir;
  std::vector<std::vector<float>> rows;
  for (const uint32_t id : {40u, 41u}) {
    write_file(dir / "a.gguf", file_of({{id, "q2_0c"}}));
    const GgufReader reader(dir / "a.gguf");
    reader.read_rows(reader.tensor("t0"), 0, 3, rows.emplace_back(3 * 512).data());
  }
  EXPECT_EQ(rows[0], rows[1]);
  EXPECT_EQ(rows[0][0], -85.3125f);  // all bytes 0x55: code 1, and 0x5555 is the half 85.3125
}

TEST(AmbiguousTypes, UnreadableTensorsAreListedWithTheirSizeButNotDecoded) {
  const TempDir dir;
  write_file(dir / "a.gguf", file_of({{40, "stq1_0"}, {15, "q8_k"}}));
  const GgufReader reader(dir / "a.gguf");
  EXPECT_EQ(reader.tensor("t0").bytes, 3 * 512 / 256 * 42);
  EXPECT_EQ(reader.tensor("t1").bytes, 3 * 512 / 256 * 292);
  EXPECT_EQ(reader.bytes(reader.tensor("t1")).size(), 1752u);
  std::vector<float> out(512);
  EXPECT_THAT(error_of([&] { reader.read_rows(reader.tensor("t1"), 0, 1, out.data()); }), HasSubstr("q8_k"));
}

// Tensors of the published Hy-MT2-1.8B low-bit files, in their order: name, shape, is it a 2-bit linear.
struct HyTensor {
  std::string name;
  std::vector<int64_t> shape;
};
std::vector<HyTensor> hy_tensors() {
  std::vector<HyTensor> all = {{"output_norm", {2048}}, {"token_embd", {120818, 2048}}};
  for (int layer = 0; layer < 32; ++layer) {
    const std::string prefix = "blk." + std::to_string(layer) + ".";
    for (const auto& [name, shape] : std::vector<HyTensor>{{"attn_k", {512, 2048}},
                                                           {"attn_k_norm", {128}},
                                                           {"attn_norm", {2048}},
                                                           {"attn_output", {2048, 2048}},
                                                           {"attn_q", {2048, 2048}},
                                                           {"attn_q_norm", {128}},
                                                           {"attn_v", {512, 2048}},
                                                           {"ffn_down", {2048, 6144}},
                                                           {"ffn_gate", {6144, 2048}},
                                                           {"ffn_norm", {2048}},
                                                           {"ffn_up", {6144, 2048}}}) {
      all.push_back({prefix + name, shape});
    }
  }
  return all;
}

TensorType hy_type(const HyTensor& t) {
  if (t.name == "token_embd") return TensorType::q6_k;
  return t.shape.size() == 2 ? TensorType::q2_0c : TensorType::f32;
}

constexpr int64_t kHyDataBytes = 595'444'768;  // of the published 600,534,880 bytes; the rest is header and vocabulary

TEST(PublishedFiles, TheSizeOfHyMt2IsPredictedExactly) {
  GgufWriter with, without;
  for (const auto& t : hy_tensors()) with.declare(t.name + ".weight", hy_type(t), t.shape);
  for (auto& t : hy_tensors()) {  // the same header, no data
    t.shape.front() = 0;
    without.declare(t.name + ".weight", hy_type(t), t.shape);
  }
  EXPECT_EQ(with.file_bytes() - without.file_bytes(), kHyDataBytes);
}

TEST(PublishedFiles, OffsetsOfHyMt2AreReadUnderBothIds) {
  for (const uint64_t id : {40, 41}) {
    RawGguf raw;
    uint64_t offset = 0;
    for (const auto& t : hy_tensors()) {
      const TensorType type = hy_type(t);
      const std::vector<uint64_t> dims(t.shape.rbegin(), t.shape.rend());
      raw.tensor(t.name + ".weight", type == TensorType::q2_0c ? static_cast<uint32_t>(id) : ggml_type_id(type), dims,
                 offset);
      const int64_t rows = t.shape.size() == 2 ? t.shape[0] : 1;
      offset += static_cast<uint64_t>(rows * row_bytes(type, t.shape.back()));  // all multiples of 32
    }
    EXPECT_EQ(offset, static_cast<uint64_t>(kHyDataBytes));
    const TempDir dir;
    write_file(dir / "hy.gguf", raw.text());
    fs::resize_file(dir / "hy.gguf", raw.text().size() + offset);  // sparse
    const GgufReader reader(dir / "hy.gguf");
    EXPECT_EQ(reader.tensor("blk.0.attn_k_norm.weight").offset,
              203'248'672);  // the offset in stock llama.cpp's message
    for (const auto& t : reader.tensors()) EXPECT_TRUE(t.readable) << t.name;
    EXPECT_EQ(reader.tensor("blk.31.ffn_up.weight").type, TensorType::q2_0c);
  }
}

TEST(GgmlTypes, SizesEqualTheGgufPackages) {
  CRUMB_NEED_PEERS(python);
  const auto sizes = nlohmann::json::parse(call_peer(python, "gguf-sizes"));
  int known = 0;
  for (const auto& [id, size] : sizes.items()) {
    if (id == "9") continue;  // Q8_1 has two halves in ggml, not the two floats the package says; it is never stored
    const auto readings = ggml_type_readings(static_cast<uint32_t>(std::stoi(id)));
    ASSERT_FALSE(readings.empty()) << "type " << id;
    EXPECT_EQ(readings[0].block_size, size[0]) << readings[0].name;
    EXPECT_EQ(readings[0].block_bytes, size[1]) << readings[0].name;
    ++known;
  }
  EXPECT_GE(known, 30);
}

TEST(GgmlTypes, AgreeWithTheCodecs) {
  for (int i = 0; i <= static_cast<int>(TensorType::nvfp4); ++i) {
    const auto type = static_cast<TensorType>(i);
    bool found = false;
    for (const auto& reading : ggml_type_readings(ggml_type_id(type))) {
      if (reading.codec != type) continue;
      found = true;
      EXPECT_EQ(reading.block_size, block_size(type));
      EXPECT_EQ(reading.block_bytes, block_bytes(type));
      EXPECT_EQ(reading.name, type_name(type));
    }
    EXPECT_TRUE(found) << type_name(type);
  }
}

}  // namespace
}  // namespace crumb::formats
