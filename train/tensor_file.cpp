#include "train/tensor_file.h"

#include "core/formats/safetensors.h"

namespace crumb::train {

void write_tensors(const Path& path, const std::map<std::string, torch::Tensor>& tensors) {
  formats::SafetensorsWriter writer;
  for (const auto& [name, tensor] : tensors) writer.declare(name, formats::DType::f32, tensor.sizes().vec());
  writer.begin_file(path);
  for (const auto& [name, tensor] : tensors) {
    const torch::Tensor values = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
    writer.write(values.data_ptr<float>(), values.numel() * static_cast<int64_t>(sizeof(float)));
  }
  writer.finish();
}

std::map<std::string, torch::Tensor> read_tensors(const Path& path) {
  const formats::SafetensorsReader reader(path);
  std::map<std::string, torch::Tensor> tensors;
  for (const auto& info : reader.tensors()) {
    torch::Tensor values = torch::empty(info.shape);
    if (values.numel() > 0) reader.read_rows(info, 0, info.rows(), values.data_ptr<float>());
    tensors[info.name] = values;
  }
  return tensors;
}

}  // namespace crumb::train
