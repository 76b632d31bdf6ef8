#include "ptq/quantize_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/common/quantity.h"
#include "quant/codes_parts.h"

namespace crumb::ptq {
namespace {

int64_t kept_bytes(const quant::StoredTensor& tensor) {
  return tensor.desc.elements() * formats::dtype_bytes(quant::kept_dtype(tensor));
}

QuantizePlan::Part& part_of(QuantizePlan& plan, const quant::QuantFormat& format) {
  const auto found = std::ranges::find(plan.parts, format, &QuantizePlan::Part::format);
  return found != plan.parts.end() ? *found : plan.parts.emplace_back(QuantizePlan::Part{.format = format});
}

}  // namespace

std::optional<AddedHead> added_head(const quant::Checkpoint& stored, const quant::Checkpoint& model) {
  if (stored.spec().tied_head == model.spec().tied_head) return std::nullopt;
  const auto& head = model.tensor(arch::TensorId{arch::Slot::head});
  return AddedHead{head.desc.elements(), kept_bytes(head), std::string(formats::dtype_name(quant::kept_dtype(head)))};
}

std::string to_text(const AddedHead& head) {
  return fmt::format(
      "rotation.residual: the head, which was the embedding, becomes a matrix of its own: {} parameters and {} in {} "
      "more; rotation.residual=false avoids it",
      format_count(head.parameters), format_bytes(head.bytes), head.dtype);
}

QuantizePlan::Part QuantizePlan::total() const {
  Part total;
  for (const Part& part : parts) {
    total.linears += part.linears;
    total.weights += part.weights;
    total.bytes += part.bytes;
  }
  return total;
}

double QuantizePlan::bits_per_weight() const {
  const Part all = total();
  return all.weights == 0 ? 0 : 8.0 * static_cast<double>(all.bytes) / static_cast<double>(all.weights);
}

QuantizePlan plan_of(const quant::Checkpoint& stored, const quant::Checkpoint& model,
                     const std::map<std::string, quant::QuantFormat>& formats, quant::Masters masters) {
  QuantizePlan plan;
  for (const auto& tensor : model.tensors()) {
    const auto& desc = tensor.desc;
    const auto found = formats.find(desc.hf_name);
    if (found == formats.end()) {
      plan.kept_parameters += desc.elements();
      plan.kept_bytes += kept_bytes(tensor);
      continue;
    }
    QuantizePlan::Part& part = part_of(plan, found->second);
    ++part.linears;
    part.weights += desc.elements();
    part.bytes += quant::codes_bytes(desc.rows(), desc.cols(), found->second);
  }
  if (masters == quant::Masters::kept)
    plan.masters_bytes = plan.total().weights * formats::dtype_bytes(formats::DType::f32);
  plan.added_head = added_head(stored, model);
  return plan;
}

}  // namespace crumb::ptq
