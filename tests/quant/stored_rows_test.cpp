#include "quant/stored_rows.h"

#include <gmock/gmock.h>

#include <cstring>

#include "core/arch/gguf_metadata.h"
#include "core/arch/hf_config.h"
#include "core/common/rng.h"
#include "core/formats/row_codes.h"
#include "core/formats/safetensors.h"
#include "kernels/seq.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using arch::Slot;
using formats::DType;
using formats::TensorType;
using testing::TempDir;

/// A row by the codecs of core/formats alone.
struct Decoder {
  const StoredRows& rows;
  int64_t row;
  float* out;

  void operator()(DType dtype) const { formats::to_float(dtype, rows.row(row).data(), rows.cols(), out); }
  void operator()(TensorType type) const { formats::decode_row(type, rows.row(row).data(), rows.cols(), out); }
  void operator()(const PackedCodes& packed) const {
    std::vector<uint8_t> codes(static_cast<size_t>(rows.cols()));
    unpack_row(rows.row(row).data(), rows.cols(), packed.format.bits, codes.data());
    const auto levels = packed.format.levels();
    for (int64_t i = 0; i < rows.cols(); ++i) {
      const int64_t group = i / packed.format.group_cols(rows.cols());
      out[i] = packed.group(row, group).value(levels[codes[static_cast<size_t>(i)]]);
    }
  }
};

/// Every matrix; how many there were.
int expect_rows_of_read_rows(const Checkpoint& model) {
  int matrices = 0;
  for (const auto& tensor : model.tensors()) {
    if (tensor.desc.shape.size() != 2) continue;
    ++matrices;
    const auto rows = model.stored_rows(tensor);
    EXPECT_EQ(rows.rows(), tensor.desc.rows());
    EXPECT_EQ(rows.cols(), tensor.desc.cols());
    std::vector<float> decoded(static_cast<size_t>(tensor.desc.elements()));
    for (int64_t row = 0; row < rows.rows(); ++row) {
      EXPECT_EQ(static_cast<int64_t>(rows.row(row).size()), rows.row_bytes());
      EXPECT_EQ(reinterpret_cast<uintptr_t>(rows.row(row).data()) % static_cast<uintptr_t>(rows.alignment()), 0u);
      if (rows.is_in_order()) {
        EXPECT_EQ(rows.row(row).data(), rows.row(0).data() + row * rows.row_bytes());
      }
      std::visit(Decoder{rows, row, decoded.data() + row * rows.cols()}, rows.encoding());
    }
    EXPECT_EQ(decoded, read_all(model, tensor)) << tensor.desc.hf_name;
  }
  return matrices;
}

/// One layer whose rows are whole blocks of every type, 9 matrices.
arch::DecoderSpec one_layer(arch::Architecture architecture) {
  arch::LayerSpec layer;
  layer.attention = arch::GqaSpec{.heads = 2, .kv_heads = 1, .head_dim = 256};
  layer.feed_forward = arch::MlpSpec{.intermediate = 512};
  layer.rope = {256, 10000.0, std::vector<double>(128, 1.0)};
  if (architecture == arch::Architecture::qwen3) {
    std::get<arch::GqaSpec>(layer.attention).qk_norm = arch::QkNorm::before_rope;
  }
  return {.architecture = architecture,
          .vocab_size = 8,
          .hidden_size = 512,
          .context_length = 16,
          .rms_norm_eps = 1e-5,
          .tied_head = false,
          .layers = {layer}};
}

/// Bytes that are finite numbers in every type.
std::vector<uint8_t> harmless_bytes(int64_t count, const std::string& name) {
  const Rng rng(5, hash_name(name));
  std::vector<uint8_t> bytes(static_cast<size_t>(count));
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(rng.bits(i / 8) >> (i % 8 * 8) & 0x3b);
  return bytes;
}

void write_folder(const Path& folder, const arch::DecoderSpec& spec, DType dtype) {
  std::filesystem::create_directories(folder);
  formats::SafetensorsWriter writer;
  const auto table = arch::tensor_table(spec);
  for (const auto& desc : table) writer.declare(desc.hf_name, dtype, desc.shape);
  writer.begin_folder(folder, int64_t{1} << 40);
  for (const auto& desc : table) {
    const auto bytes = harmless_bytes(desc.elements() * formats::dtype_bytes(dtype), desc.hf_name);
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
  testing::write_file(folder / "config.json", arch::hf_config_from_spec(spec).dump());
}

/// Matrices in `type` of the bytes that `row` gives for (name, row of HF), vectors in float32.
template <class Row>
void write_gguf(const Path& path, const arch::DecoderSpec& spec, TensorType type, const Row& row) {
  formats::GgufWriter writer;
  arch::set_gguf_metadata(spec, writer);
  const auto table = arch::tensor_table(spec);
  const auto type_of = [&](const auto& desc) { return desc.shape.size() == 2 ? type : TensorType::f32; };
  for (const auto& desc : table) writer.declare(desc.gguf.name, type_of(desc), desc.shape);
  writer.begin(path);
  for (const auto& desc : table) {
    if (desc.shape.size() == 1) {
      const std::vector<float> ones(static_cast<size_t>(desc.elements()), 1.0f);
      writer.write(ones.data(), desc.elements() * 4);
      continue;
    }
    for (int64_t i = 0; i < desc.rows(); ++i) {
      const int64_t from = desc.permuted_head_dim > 0 ? arch::hf_row_of_gguf_row(i, desc.permuted_head_dim) : i;
      const std::vector<uint8_t> bytes = row(desc, from);
      writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
    }
  }
  writer.finish();
  writer.commit();
}

TEST(StoredRows, OfAnHfFolderDecodeToWhatReadRowsGives) {
  for (const auto dtype : {DType::f32, DType::bf16, DType::f16, DType::f64, DType::f8_e4m3, DType::f8_e5m2}) {
    const TempDir dir;
    write_folder(dir / "model", one_layer(arch::Architecture::llama), dtype);
    const auto model = open_checkpoint(dir / "model");
    EXPECT_EQ(expect_rows_of_read_rows(*model), 9);
    const auto rows = model->stored_rows(model->tensor({Slot::q, 0}));
    EXPECT_EQ(std::get<DType>(rows.encoding()), dtype);
    EXPECT_TRUE(rows.is_in_order());
  }
}

TEST(StoredRows, OfATiedModelThatStoresItsHeadAreThoseOfTheHead) {
  const TempDir dir;
  auto spec = one_layer(arch::Architecture::llama);
  write_folder(dir / "model", spec, DType::bf16);
  spec.tied_head = true;
  formats::SafetensorsWriter writer;
  const auto table = arch::tensor_table(spec);
  const auto name = [](const arch::TensorDesc& desc) {
    return desc.id.slot == Slot::embedding ? arch::hf_name(arch::Architecture::llama, Slot::head) : desc.hf_name;
  };
  for (const auto& desc : table) writer.declare(name(desc), DType::bf16, desc.shape);
  std::filesystem::create_directories(dir / "tied");
  writer.begin_folder(dir / "tied", int64_t{1} << 40);
  for (const auto& desc : table) {
    const auto bytes = harmless_bytes(2 * desc.elements(), name(desc));
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
  testing::write_file(dir / "tied" / "config.json", arch::hf_config_from_spec(spec).dump());
  EXPECT_EQ(expect_rows_of_read_rows(*open_checkpoint(dir / "tied")), 8);
}

QuantFormat format_of(Slot slot) {
  switch (slot) {
    case Slot::q:
      return {Grid::intn, 4, false, 64};
    case Slot::k:
      return {Grid::intn, 8, true, 0};
    case Slot::v:
      return {Grid::intn, 3, true, 32};
    case Slot::o:
      return {Grid::seq, 2, true, 128};
    case Slot::gate:
      return {Grid::intn, 5, false, 0};
    default:
      return {};
  }
}

/// Codes and scales that are a function of name and row.
QuantizedTensor random_codes(const arch::TensorDesc& desc, const QuantFormat& format, int64_t begin, int64_t end) {
  QuantizedTensor block{format, end - begin, desc.cols(), {}, {}, {}};
  const Rng rng(3, hash_name(desc.hf_name));
  for (auto i = static_cast<uint64_t>(begin * desc.cols()); i < static_cast<uint64_t>(end * desc.cols()); ++i)
    block.codes.push_back(static_cast<uint8_t>(rng.below(i, uint64_t{1} << format.bits)));
  const int64_t groups = format.groups(desc.cols());
  for (auto i = static_cast<uint64_t>(begin * groups); i < static_cast<uint64_t>(end * groups); ++i) {
    block.scales.push_back(kernels::round_scale(static_cast<float>(0.01 + rng.uniform(i))));
    if (format.has_zero_points()) block.zero_points.push_back(static_cast<int32_t>(i % 16));
    if (format.has_minima) block.minima.push_back(round_minimum(-0.01f * static_cast<float>(i % 16)));
  }
  return block;
}

TEST(StoredRows, OfACodesFolderArePackedCodesWithTheirScales) {
  const TempDir dir;
  write_folder(dir / "model", one_layer(arch::Architecture::llama), DType::f16);
  const auto base = open_checkpoint(dir / "model");
  CodesSource source;
  for (const auto& tensor : base->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear && tensor.desc.id.slot != Slot::down)
      source.formats[tensor.desc.hf_name] = format_of(tensor.desc.id.slot);
  }
  source.codes = [](const auto& desc, int64_t begin, int64_t end) {
    return random_codes(desc, format_of(desc.id.slot), begin, end);
  };
  source.rows = [&](const auto& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.id), begin, end, out);
  };
  std::filesystem::create_directories(dir / "codes");
  write_codes_folder(dir / "codes", *base, source, {});
  const auto model = open_checkpoint(dir / "codes");
  EXPECT_EQ(expect_rows_of_read_rows(*model), 9);
  for (const auto slot : {Slot::q, Slot::k, Slot::v, Slot::o, Slot::gate, Slot::up}) {
    const auto& tensor = model->tensor({slot, 0});
    const auto rows = model->stored_rows(tensor);
    const auto& packed = std::get<PackedCodes>(rows.encoding());
    EXPECT_EQ(packed.format, format_of(slot));
    EXPECT_EQ(packed.groups, packed.format.groups(512));
    EXPECT_EQ(packed.zero_points != nullptr, packed.format.has_zero_points());
    EXPECT_EQ(packed.minima != nullptr, packed.format.has_minima);
    EXPECT_EQ(rows.row_bytes(), packed_row_bytes(512, packed.format.bits));
    const auto expected = random_codes(tensor.desc, packed.format, 7, 8);
    for (int64_t group = 0; group < packed.groups; ++group)
      EXPECT_EQ(packed.group(7, group), expected.group(static_cast<size_t>(group)));
  }
  EXPECT_EQ(std::get<DType>(model->stored_rows(model->tensor({Slot::down, 0})).encoding()), DType::f16);
}

constexpr TensorType kLast = TensorType::nvfp4;

TEST(StoredRows, OfAGgufDecodeToWhatReadRowsGivesInEveryType) {
  for (const auto architecture : {arch::Architecture::llama, arch::Architecture::qwen3}) {
    const auto spec = one_layer(architecture);
    for (int i = 0; i <= static_cast<int>(kLast); ++i) {
      const auto type = static_cast<TensorType>(i);
      SCOPED_TRACE(formats::type_name(type));
      const TempDir dir;
      write_gguf(dir / "model.gguf", spec, type, [&](const arch::TensorDesc& desc, int64_t row) {
        return harmless_bytes(formats::row_bytes(type, desc.cols()), desc.hf_name + std::to_string(row));
      });
      const auto model = open_checkpoint(dir / "model.gguf");
      EXPECT_EQ(expect_rows_of_read_rows(*model), 9);
      const auto rows = model->stored_rows(model->tensor({Slot::k, 0}));
      EXPECT_EQ(rows.is_in_order(), architecture == arch::Architecture::qwen3);
      const bool is_plain = type == TensorType::f32 || type == TensorType::f16 || type == TensorType::bf16;
      EXPECT_EQ(std::holds_alternative<DType>(rows.encoding()), is_plain);
      if (!is_plain) {
        EXPECT_EQ(std::get<TensorType>(rows.encoding()), type);
      }
    }
  }
}

TEST(StoredRows, OfAGgufFromCodesAreBlocksThatComeApartIntoTheSameCodes) {
  const QuantFormat format;
  const auto levels = format.levels();
  for (const auto type : {TensorType::q2_0c, TensorType::q2_k, TensorType::q4_0, TensorType::q8_0}) {
    SCOPED_TRACE(formats::type_name(type));
    const TempDir dir;
    write_gguf(dir / "model.gguf", one_layer(arch::Architecture::llama), type,
               [&](const arch::TensorDesc& desc, int64_t row) {
                 const auto block = random_codes(desc, format, row, row + 1);
                 std::vector<uint8_t> bytes(static_cast<size_t>(formats::row_bytes(type, desc.cols())));
                 formats::encode_codes_row(type, block.codes.data(), levels, block.scales.data(), desc.cols(),
                                           desc.cols(), bytes.data());
                 return bytes;
               });
    const auto model = open_checkpoint(dir / "model.gguf");
    EXPECT_EQ(expect_rows_of_read_rows(*model), 9);
    for (const auto slot : {Slot::q, Slot::k, Slot::v, Slot::down}) {
      const auto& tensor = model->tensor({slot, 0});
      ASSERT_EQ(tensor.format, format);
      const auto rows = model->stored_rows(tensor);
      std::vector<uint8_t> codes(512);
      std::vector<float> scales(static_cast<size_t>(512 / formats::block_size(type)));
      for (int64_t row = 0; row < rows.rows(); ++row) {
        ASSERT_TRUE(formats::RowCodes(std::get<TensorType>(rows.encoding()), levels)
                        .decode(rows.row(row).data(), 512, codes.data(), scales.data()));
        const auto expected = random_codes(tensor.desc, format, row, row + 1);
        ASSERT_EQ(codes, expected.codes) << "row " << row;
        ASSERT_EQ(scales[0], expected.scales[0]);
      }
    }
  }
}

TEST(StoredRows, TellTheAlignmentOfEveryRow) {
  alignas(64) static uint8_t memory[1024];
  const auto alignment = [](const uint8_t* data, int64_t row_bytes) {
    return StoredRows(DType::u8, data, 3, row_bytes, row_bytes, 0).alignment();
  };
  EXPECT_EQ(alignment(memory, 256), 64);
  EXPECT_EQ(alignment(memory, 34), 2);
  EXPECT_EQ(alignment(memory + 8, 64), 8);
  EXPECT_EQ(alignment(memory + 1, 64), 1);
}

}  // namespace
}  // namespace crumb::quant
