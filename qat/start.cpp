#include "qat/start.h"

#include "core/common/error.h"
#include "core/common/log.h"
#include "qat/quant_linear.h"
#include "quant/checkpoint_kinds.h"
#include "quant/codes_folder.h"

namespace crumb::qat {

Masters::Masters(const quant::Checkpoint& start) : start_(start) {
  const Path folder = start.path() / quant::kMastersFolder;
  if (is_there(folder)) {
    reader_ = std::make_shared<const formats::SafetensorsReader>(folder);
  } else {
    log_warning(
        "{}: holds no masters, so every weight begins at the level of its code; crumb quantize keeps them with "
        "masters=true",
        start.path().string());
  }
}

torch::Tensor Masters::operator()(const arch::TensorDesc& desc) const {
  const auto* info = reader_ == nullptr ? nullptr : reader_->find(desc.hf_name);
  if (info == nullptr) return model::checkpoint_source(start_)(desc);
  const Path folder = start_.path() / quant::kMastersFolder;
  CRUMB_CHECK(info->shape == desc.shape, "{}: {} has another shape than in the model", folder.string(), desc.hf_name);
  torch::Tensor values = torch::empty(desc.shape);
  reader_->read_rows(*info, 0, desc.rows(), values.data_ptr<float>());
  quant::check_finite(values.const_data_ptr<float>(), values.numel(), folder, desc.hf_name);
  return values;
}

void take_scales(const quant::Checkpoint& start, model::Decoder& decoder) {
  for (const auto& stored : start.tensors()) {
    if (!stored.format) continue;
    const auto linear = std::dynamic_pointer_cast<QuantLinear>(decoder.linear(stored.desc.id));
    const quant::QuantizedTensor codes = start.read_codes(stored, 0, stored.desc.rows());
    CRUMB_ASSERT(linear != nullptr);
    if (codes.format.has_mask) linear->set_mask(codes.mask);
    linear->set_scales(torch::tensor(codes.scales).view({codes.rows, -1}));
    CRUMB_ASSERT(linear->format() == *stored.format);
    const quant::QuantizedTensor now = linear->quantized();
    CRUMB_CHECK(now.codes == codes.codes && now.scales == codes.scales,
                "{}: the masters of {} do not belong to its codes; make the folder again", start.path().string(),
                stored.desc.module_name());
  }
}

}  // namespace crumb::qat
