// Where a quantized model is damaged: for each linear the error of its weights, how its codes and scales are used, the
// error of its outputs on the judged text, and the KL of the baseline with that linear, or that layer, alone quantized.
//
// Outputs are those on the baseline's own inputs, so the errors of linears are apart from each other: what reaches the
// last layer of the quantized model is more than their sum.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/common/thread_pool.h"
#include "core/text/token_stream.h"
#include "core/text/windows.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/measure.h"
#include "quant/checkpoint.h"

namespace crumb::eval {

/// `outputs`: a pass over the text; `layers`, `linears`: also one for each with that alone quantized.
enum class DamageDepth { none, outputs, layers, linears };
/// "none", "outputs", "layers", "linears"; UserError.
DamageDepth damage_depth_from_name(const std::string& name);

struct DamageOptions {
  DamageDepth depth = DamageDepth::none;
  int64_t windows = 4;  // of those that are judged, spread evenly
};

struct LinearDamage {
  std::string module;  // "model.layers.0.self_attn.q_proj"
  int layer = 0;
  std::string dtype;                // as it is stored: "seq2"
  double bits = 0;                  // a weight, scales included
  double weight_error = 0;          // sum (w - q)^2 / sum w^2
  std::vector<double> code_shares;  // of each level; empty: the file holds no codes
  double entropy = 0;               // of those, bits
  double least_scale = 0, median_scale = 0, largest_scale = 0;
  double output_error = 0;     // sum |x (w - q)^T|^2 / sum |x w^T|^2 over tokens
  double token_error = 0;      // mean of that of each token, so that none weighs more than another
  double largest_input = 0;    // |x|
  double share = 0;            // of the damage, if it were as the output errors: adds up to 1
  std::optional<Estimate> kl;  // with it alone quantized, nats a token
  double sqnr_db() const;      // of outputs; infinite without error
  std::string kind() const { return module.substr(module.rfind('.') + 1); }  // "q_proj"
};

/// The entry of the output of a linear that is added to the residual stream, more than kMassive, and than kMassive
/// times the median over tokens of the stream's RMS there (Sun et al., Massive Activations in Large Language Models,
/// arXiv:2402.17762).
struct MassiveActivation {
  std::string module;
  int64_t tokens = 0;                        // that have one
  double value = 0, times = 0;               // of the largest: itself, and in medians
  int64_t channel = 0, index = 0, seen = 0;  // its place; of its token: in all texts, and how many stood before it
  std::string token;
};
inline constexpr double kMassive = 100;

struct LayerDamage {
  int layer = 0;
  Estimate kl;
};

struct DamageMap {
  DamageDepth depth = DamageDepth::outputs;
  int64_t windows = 0, tokens = 0;  // of the text
  std::vector<LinearDamage> linears;
  std::vector<LayerDamage> layers;         // with DamageDepth::layers
  std::vector<MassiveActivation> massive;  // the largest first
  std::vector<std::string> outstanding;    // sentences: linears with an input far larger than others of their kind
  /// "overrides:" of a job for the linears, or layers, that cost more than kOverride times the median, the worst first,
  /// ten at most: one step more bits. Empty: none does.
  std::string overrides;
};
inline constexpr double kOverride = 4;

/// The text that is looked at.
struct DamageText {
  const text::TokenStream& stream;
  std::vector<text::Window> windows;
  int64_t context = 0;
  const tokenizer::Tokenizer& tokenizer;
};

/// In exact arithmetic (float activations). Tells before how long the passes of each layer or linear will take.
/// UserError: the models' tensors differ in shape, or no linear differs between them.
DamageMap map_damage(const DamageOptions& options, const quant::Checkpoint& model, const quant::Checkpoint& baseline,
                     const DamageText& text, const std::shared_ptr<ThreadPool>& pool);

}  // namespace crumb::eval
