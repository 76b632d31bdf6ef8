// Files that keep several tensors of a model in one: a table in which q, k and v are rows of one stored tensor.
#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>

#include "core/arch/gguf_metadata.h"
#include "core/formats/safetensors.h"
#include "quant/checkpoint_kinds.h"
#include "quant/codes_folder.h"
#include "tests/testing/testing.h"

namespace crumb::quant {
namespace {

using arch::Slot;
using arch::StoredSlice;
using arch::TensorDesc;
using testing::error_of;
using ::testing::HasSubstr;
using testing::TempDir;

Path tiny_model(const std::string& name) { return testing::source_dir() / "tests" / "runtime" / "goldens" / name; }

constexpr Slot kMatrices[] = {Slot::q, Slot::k, Slot::v}, kBiases[] = {Slot::q_bias, Slot::k_bias, Slot::v_bias};

/// Keeps the tensors of these slots one behind the other in one tensor a layer, "model.layers.N" + name.
void store_together(std::vector<TensorDesc>& table, std::span<const Slot> slots, StoredSlice TensorDesc::*format,
                    const std::string& name) {
  for (auto& first : table) {
    if (first.id.slot != slots.front()) continue;
    std::vector<TensorDesc*> parts;
    int64_t rows = 0;
    for (const Slot slot : slots) {
      parts.push_back(&*std::ranges::find(table, arch::TensorId{slot, first.id.layer}, &TensorDesc::id));
      parts.back()->*format = {arch::layer_module(first.id.layer) + name, rows, parts.back()->shape};
      rows += parts.back()->shape.front();
    }
    for (auto* part : parts) (part->*format).shape.front() = rows;
  }
}

std::vector<TensorDesc> fused_table(const arch::DecoderSpec& spec) {
  auto table = arch::tensor_table(spec);
  for (const auto format : {&TensorDesc::hf, &TensorDesc::gguf}) {
    store_together(table, kMatrices, format, ".attn.qkv.weight");
    store_together(table, kBiases, format, ".attn.qkv.bias");
  }
  return table;
}

/// The experts' way: up and gate of one shape as [2, rows, cols].
std::vector<TensorDesc> stacked_table(const arch::DecoderSpec& spec) {
  auto table = fused_table(spec);
  for (auto& desc : table) {
    if (desc.id.slot != Slot::gate && desc.id.slot != Slot::up) continue;
    const int64_t first_row = desc.id.slot == Slot::up ? desc.rows() : 0;
    desc.gguf = {arch::layer_module(desc.id.layer) + ".exps", first_row, {2, desc.rows(), desc.cols()}};
  }
  return table;
}

struct Stored {
  std::vector<int64_t> shape;
  std::vector<float> values;
};

/// The stored tensors that `table` asks for, float32, from the values of `model`.
std::map<std::string, Stored> stored_tensors(const Checkpoint& model, const std::vector<TensorDesc>& table,
                                             StoredSlice TensorDesc::*format) {
  std::map<std::string, Stored> out;
  for (const auto& desc : table) {
    const StoredSlice& slice = desc.*format;
    auto& stored = out[slice.name];
    stored.shape = slice.shape;
    int64_t elements = 1;
    for (const int64_t size : slice.shape) elements *= size;
    stored.values.resize(static_cast<size_t>(elements));
    const auto values = read_all(model, model.tensor(desc.id));
    const int64_t cols = desc.shape.size() == 1 ? 1 : desc.cols();
    for (int64_t row = 0; row < desc.elements() / cols; ++row) {
      const int64_t to = format == &TensorDesc::gguf ? desc.gguf_row(row) : slice.first_row + row;
      std::copy_n(values.begin() + row * cols, cols, stored.values.begin() + to * cols);
    }
  }
  return out;
}

void write_folder(const Path& folder, const std::map<std::string, Stored>& tensors, const nlohmann::json& config) {
  std::filesystem::create_directories(folder);
  formats::SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) writer.declare(name, formats::DType::f32, tensor.shape);
  writer.begin_folder(folder, int64_t{1} << 40);
  for (const auto& [name, tensor] : tensors)
    writer.write(tensor.values.data(), static_cast<int64_t>(tensor.values.size() * sizeof(float)));
  writer.finish();
  testing::write_file(folder / "config.json", config.dump());
}

void write_gguf(const Path& path, const std::map<std::string, Stored>& tensors, const arch::DecoderSpec& spec) {
  formats::GgufWriter writer;
  arch::set_gguf_metadata(spec, writer);
  for (const auto& [name, tensor] : tensors) writer.declare(name, formats::TensorType::f32, tensor.shape);
  writer.begin(path);
  for (const auto& [name, tensor] : tensors)
    writer.write(tensor.values.data(), static_cast<int64_t>(tensor.values.size() * sizeof(float)));
  writer.finish();
  writer.commit();
}

/// Every tensor whole and a block of its rows; sizes add up to those of the file.
void expect_same_values(const Checkpoint& actual, const Checkpoint& expected) {
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& tensor : actual.tensors()) {
    const auto& name = tensor.desc.hf_name;
    const auto values = read_all(expected, expected.tensor(tensor.desc.id));
    EXPECT_EQ(read_all(actual, tensor), values) << name;
    EXPECT_EQ(tensor.stored_bytes, 4 * tensor.desc.elements()) << name;
    if (tensor.desc.shape.size() == 1) continue;
    std::vector<float> block(static_cast<size_t>(4 * tensor.desc.cols()));
    actual.read_rows(tensor, 3, 7, block.data());
    actual.release_rows(tensor, 3, 7);
    EXPECT_TRUE(std::equal(block.begin(), block.end(), values.begin() + 3 * tensor.desc.cols())) << name;
    const auto rows = actual.stored_rows(tensor);
    ASSERT_EQ(std::get<formats::DType>(rows.encoding()), formats::DType::f32);
    for (int64_t row = 0; row < rows.rows(); ++row)
      ASSERT_EQ(std::memcmp(rows.row(row).data(), values.data() + row * rows.cols(), rows.row(row).size()), 0) << name;
  }
}

TEST(FusedTensors, OfASafetensorsFolderOpenAsTheTensorsTheyHold) {
  for (const char* name : {"llama_bias", "qwen2", "llama"}) {
    SCOPED_TRACE(name);
    const TempDir dir;
    const auto model = open_checkpoint(tiny_model(name));
    const auto stored = stored_tensors(*model, fused_table(model->spec()), &TensorDesc::hf);
    EXPECT_EQ(stored.count("model.layers.1.attn.qkv.weight"), 1u);
    EXPECT_EQ(stored.count("model.layers.1.self_attn.q_proj.weight"), 0u);
    write_folder(dir / "fused", stored, model->hf_config());
    expect_same_values(*open_folder_checkpoint(dir / "fused", fused_table), *model);
  }
}

TEST(FusedTensors, OfAGgufOpenAsTheTensorsTheyHoldInHfsOrder) {
  for (const char* name : {"llama_bias", "llama", "qwen3"}) {  // llama: q and k are permuted inside it
    SCOPED_TRACE(name);
    const TempDir dir;
    const auto model = open_checkpoint(tiny_model(name));
    auto spec = model->spec();
    auto stored = stored_tensors(*model, stacked_table(spec), &TensorDesc::gguf);
    const std::vector<TensorDesc> table = stacked_table(spec);
    write_gguf(dir / "fused.gguf", stored, spec);
    // Biases are told by the names of tensors that are not there: the table of the model counts.
    const auto make = [&](const arch::DecoderSpec&) { return table; };
    expect_same_values(*open_gguf_checkpoint(dir / "fused.gguf", make), *model);
  }
}

TEST(FusedTensors, AreCheckedAgainstTheWholeStoredTensor) {
  const TempDir dir;
  const auto model = open_checkpoint(tiny_model("llama"));
  const auto good = stored_tensors(*model, fused_table(model->spec()), &TensorDesc::hf);
  const std::string name = "model.layers.0.attn.qkv.weight";
  const int64_t rows = good.at(name).shape[0], cols = good.at(name).shape[1];
  auto longer = good;
  longer.at(name).shape[0] += 1;
  longer.at(name).values.resize(static_cast<size_t>((rows + 1) * cols));
  write_folder(dir / "longer", longer, model->hf_config());
  EXPECT_THAT(error_of([&] { open_folder_checkpoint(dir / "longer", fused_table); }),
              HasSubstr("tensor " + name + " has shape [65, 32], the configuration asks for [64, 32]"));
  // A table with a hole: nothing would read the rows of v.
  const auto without_v = [&](const arch::DecoderSpec& spec) {
    auto table = fused_table(spec);
    std::erase_if(table, [](const TensorDesc& desc) { return desc.id == arch::TensorId{Slot::v, 0}; });
    return table;
  };
  write_folder(dir / "good", good, model->hf_config());
  EXPECT_THAT(error_of([&] { open_folder_checkpoint(dir / "good", without_v); }),
              HasSubstr("tensor " + name + " holds 2048 numbers, the tensors of the model within it 1536"));
  auto missing = good;
  missing.erase(name);
  write_folder(dir / "missing", missing, model->hf_config());
  EXPECT_THAT(error_of([&] { open_folder_checkpoint(dir / "missing", fused_table); }),
              HasSubstr("tensor " + name + " is missing"));
}

TEST(FusedTensors, ACodesFolderOfSuchAModelHoldsEachAlone) {
  const TempDir dir;
  const auto model = open_checkpoint(tiny_model("llama_bias"));
  write_folder(dir / "fused", stored_tensors(*model, fused_table(model->spec()), &TensorDesc::hf), model->hf_config());
  const auto fused = open_folder_checkpoint(dir / "fused", fused_table);
  CodesSource source;
  source.formats[fused->tensor({Slot::k, 1}).desc.hf_name] = {};
  source.rows = [&](const TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    fused->read_rows(fused->tensor(desc.id), begin, end, out);
  };
  source.codes = [](const TensorDesc& desc, int64_t begin, int64_t end) {
    QuantizedTensor block{{}, end - begin, desc.cols(), {}, {}, {}};
    for (int64_t i = begin * desc.cols(); i < end * desc.cols(); ++i) block.codes.push_back((i * i / 7 + i) & 3);
    block.scales.assign(static_cast<size_t>(end - begin), 0.25f);
    return block;
  };
  std::filesystem::create_directories(dir / "codes");
  write_codes_folder(dir / "codes", *fused, source, {});
  const auto codes = open_folder_checkpoint(dir / "codes", fused_table);
  EXPECT_TRUE(codes->tensor({Slot::k, 1}).format.has_value());
  const auto query = read_all(*model, model->tensor({Slot::q, 1}));
  EXPECT_EQ(read_all(*codes, codes->tensor({Slot::q, 1})), query);
  EXPECT_EQ(read_all(*codes, codes->tensor({Slot::v_bias, 0})), read_all(*model, model->tensor({Slot::v_bias, 0})));
}

}  // namespace
}  // namespace crumb::quant
