#include "model/float_model.h"

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/formats/safetensors.h"

namespace crumb::model {
namespace {

using formats::DType;

constexpr int64_t kShardBytes = int64_t{5'000'000'000};

}  // namespace

DType stored_dtype(const nlohmann::json& config) {
  const JsonObject keys(config, "config.json");
  const std::string name = keys.text("dtype", keys.text("torch_dtype", "bfloat16"));
  return name == "float32" ? DType::f32 : name == "float16" ? DType::f16 : DType::bf16;
}

void save_float_model(const Path& folder, Decoder& decoder, const nlohmann::json& config,
                      const std::function<void(const Path&)>& write_companions) {
  const DType dtype = stored_dtype(config);
  AtomicFolder out(folder);
  formats::SafetensorsWriter writer;
  const auto tensors = arch::tensor_table(decoder.spec());
  arch::check_stored_alone(tensors, &arch::TensorDesc::hf, "an HF folder");
  for (const auto& desc : tensors) writer.declare(desc.hf_name, dtype, desc.shape);
  writer.begin_folder(out.temporary_path(), kShardBytes);
  std::vector<uint8_t> bytes;
  for (const auto& desc : tensors) {
    const torch::Tensor values = decoder.value(desc).to(torch::kCPU).contiguous();
    bytes.resize(static_cast<size_t>(values.numel() * formats::dtype_bytes(dtype)));
    formats::from_float(dtype, values.data_ptr<float>(), values.numel(), bytes.data());
    writer.write(bytes.data(), static_cast<int64_t>(bytes.size()));
  }
  writer.finish();
  write_text(out.temporary_path() / "config.json", dump_json(config, 2) + "\n");
  write_companions(out.temporary_path());
  out.commit();
}

nlohmann::json read_hf_config(const Path& path) {
  const Path file = is_folder(path) ? path / "config.json" : path;
  auto config = read_json(file);
  CRUMB_CHECK(config.is_object(), "{}: not a JSON object", file.string());
  return config;
}

}  // namespace crumb::model
