// Rotations of a model that leave what it computes as it was, fused into the weights: QuaRot (arXiv:2404.00456),
// SpinQuant (arXiv:2405.16406). They spread outliers of activations over all dimensions, which every method after them
// gains from.
//
//   R1, residual: the residual stream x becomes x Q. RMSNorm without a gain commutes with Q, so the gains of the norms
//   go
//       into the columns of the linears that read them (q, k, v; gate, up; the head) and become 1. Rows of the
//       embedding e -> e Q; rows of what reads the stream w -> (w * gain) Q; outputs of what writes to it (o, down) W
//       -> Q^T W, biases b -> b Q. The gain of the final norm and the embedding want different matrices: a tied head is
//       untied.
//   R2, heads: the values of a layer's kv head become v R. v_proj's outputs and bias are rotated, and o_proj's columns
//       for every query head of its group.
//
// Queries and keys are not rotated (R3), nor the inputs of down_proj (R4): both need work at run time. So biases of q
// and k and norms within heads stay as they are. Q and R: ptq/hadamard.h.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "core/common/config.h"
#include "quant/checkpoint.h"

namespace crumb::ptq {

struct RotationOptions {
  bool residual = false, heads = false;
  int64_t seed = 0;

  template <class V>
  void visit(V& v) {
    v.field("residual", residual,
            "R1: the residual stream by a random Hadamard matrix. Norm gains go into the linears behind them; a head "
            "that is the embedding becomes a matrix of its own, which makes the model larger");
    v.field("heads", heads, "R2: the values of each kv head, between v_proj and o_proj");
    v.field("seed", seed, "of the random signs of both");
  }
  bool rotates() const { return residual || heads; }
  bool operator==(const RotationOptions&) const = default;
};

/// `base` as the rotated model: its rows are rotated in double as they are read, and rounded to float32 once. `base`
/// must outlive it. May be read by several threads; keeps the last whole matrix of those whose rows the rotation mixes
/// (o, down). It has no codes and no stored rows; the dtype of a tensor is the base's, for what is stored of it.
/// hf_config() says what was done: "crumb_rotation": {"residual": true, "heads": true, "seed": 0}.
///
/// options.rotates(). UserError: a tensor it is not known for how rotations change it, a model that is rotated already.
std::unique_ptr<quant::Checkpoint> rotate(const quant::Checkpoint& base, const RotationOptions& options);

/// How the model with this config.json was rotated; nothing if it was not. UserError beginning with `where` if what it
/// says of that is no such thing.
std::optional<RotationOptions> rotation_of(const nlohmann::json& hf_config, const std::string& where);

}  // namespace crumb::ptq
