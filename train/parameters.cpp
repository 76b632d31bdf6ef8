#include "train/parameters.h"

#include "core/common/error.h"
#include "model/decoder.h"

namespace crumb::train {

bool is_trained(arch::TensorRole role, const TrainedParts& parts, bool tied_head) {
  switch (role) {
    case arch::TensorRole::embedding:
      return parts.embeddings || (tied_head && parts.head);
    case arch::TensorRole::head:
      return parts.head;
    case arch::TensorRole::linear:
      return parts.linears;
    case arch::TensorRole::norm:
      return parts.norms;
    case arch::TensorRole::bias:
      return parts.biases;
  }
  return false;
}

namespace {

ParameterKind kind_of(arch::TensorRole role) {
  switch (role) {
    case arch::TensorRole::linear:
      return ParameterKind::weight;
    case arch::TensorRole::norm:
      return ParameterKind::gain;
    case arch::TensorRole::bias:
      return ParameterKind::small;
    default:
      return ParameterKind::table;
  }
}

}  // namespace

int64_t count_trained(const arch::DecoderSpec& spec, const TrainedParts& parts) {
  int64_t weights = 0;
  for (const auto& desc : arch::tensor_table(spec))
    weights += is_trained(desc.role, parts, spec.tied_head) ? desc.elements() : 0;
  return weights;
}

int64_t count_optimizer_state(const arch::DecoderSpec& spec, const TrainedParts& parts,
                              const OptimizerOptions& optimizer) {
  const TrainedParts linears{
      .linears = parts.linears, .norms = false, .biases = false, .embeddings = false, .head = false};
  return (optimizer.ema > 0 ? 3 : 2) * count_trained(spec, parts) -
         (optimizer.name == "muon" ? count_trained(spec, linears) : 0);
}

std::vector<TrainedParameter> trained_parameters(model::Decoder& decoder, const TrainedParts& parts) {
  std::vector<TrainedParameter> out;
  for (auto& parameter : decoder.parameters()) parameter.set_requires_grad(false);
  const auto add = [&out](const std::string& name, torch::Tensor value, ParameterKind kind) {
    value.set_requires_grad(true);
    out.push_back({name, std::move(value), kind, {}});
  };
  for (const auto& desc : arch::tensor_table(decoder.spec())) {
    if (!is_trained(desc.role, parts, decoder.spec().tied_head)) continue;
    add(desc.hf_name, decoder.parameter(desc), kind_of(desc.role));
  }
  for (const auto& [name, linear] : decoder.linears()) {
    if (!parts.linears) break;
    for (const auto& parameter : linear->named_parameters(/*recurse=*/false)) {
      if (parameter.key() != "weight" && parameter.key() != "bias")
        add(name + "." + parameter.key(), parameter.value(), ParameterKind::scale);
    }
  }
  CRUMB_CHECK(!out.empty(), "train: nothing is to be trained");
  return out;
}

}  // namespace crumb::train
