#include "qat/convert.h"

#include <algorithm>

#include "core/common/error.h"
#include "qat/quant_linear.h"
#include "quant/codes_folder.h"
#include "quant/scale_search.h"

namespace crumb::qat {
namespace {

void copy_rows(const torch::Tensor& value, const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
  const torch::Tensor rows =
      value.reshape({desc.rows(), desc.cols()}).slice(0, begin, end).to(torch::kCPU, torch::kFloat32).contiguous();
  std::copy_n(rows.const_data_ptr<float>(), rows.numel(), out);
}

}  // namespace

void warn_about_clamped_scales(const model::Decoder& decoder) {
  std::vector<quant::ClampedScales> scales;
  for (const auto& [name, linear] : quant_linears(decoder))
    scales.push_back({name, linear->clamped_scales(), linear->log_scales().numel()});
  quant::warn_about_clamped_scales(scales);
}

void save_model(const Path& folder, model::Decoder& decoder, const quant::Checkpoint& base,
                const std::vector<std::string>& exclude) {
  const torch::NoGradGuard no_grad;
  const auto quant_linear = [&](const arch::TensorDesc& desc) {
    return std::dynamic_pointer_cast<QuantLinear>(decoder.linear(desc.id));
  };
  quant::CodesSource source;
  for (const auto& stored : base.tensors()) {
    if (stored.desc.role != arch::TensorRole::linear) continue;
    if (const auto linear = quant_linear(stored.desc)) source.formats[stored.desc.hf_name] = linear->format();
  }
  source.codes = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    return quant_linear(desc)->quantized(begin, end);
  };
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    copy_rows(decoder.value(desc), desc, begin, end, out);
  };
  AtomicFolder output(folder);
  quant::write_codes_folder(output.temporary_path(), base, source, exclude);
  output.commit();
}

}  // namespace crumb::qat
