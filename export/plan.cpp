#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <string_view>
#include <utility>

#include "core/arch/gguf_metadata.h"
#include "core/common/error.h"
#include "core/common/quantity.h"
#include "export/export.h"

namespace crumb::exporting {
namespace {

using arch::TensorDesc;
using arch::TensorRole;
using formats::TensorType;
using quant::QuantFormat;

using FormatMap = std::map<std::string, QuantFormat>;  // of the quantized linears by hf_name

constexpr int64_t kGgufAlignment = 32;
constexpr int kScaleBits = 6;  // significant bits of every scale
constexpr int kBf16Bits = 8;   // significant bits of bfloat16
constexpr std::string_view kKeptInFloat = "not quantized, kept in float";

/// Zero points, integers or floats, are minima there.
bool holds_zeros(TensorType type) { return type == TensorType::q4_1; }

struct Target {
  std::string name;
  std::vector<TensorType> linear_types;  // of a quantized linear: the first that holds it exactly
  TensorType type() const { return linear_types.front(); }
  bool is_gguf() const { return name.starts_with("gguf-"); }
  bool is_two_bit() const { return type() == TensorType::q2_0c || type() == TensorType::q2_k; }
  bool holds_levels(const QuantFormat& format) const {
    const bool has_zeros = format.symmetric || holds_zeros(type());
    return has_zeros && formats::level_factor(type(), format.levels()).has_value();
  }
  /// A 2-bit target does not quietly become a 4-bit one for levels it cannot hold. But linears that were given more
  /// bits than the others, which it does hold, take a type of theirs.
  std::vector<TensorType> types_for(const QuantFormat& format, const FormatMap& formats) const {
    if (holds_levels(format)) return linear_types;
    const bool is_mixed =
        std::ranges::any_of(formats, [this](const auto& entry) { return holds_levels(entry.second); });
    if (!is_mixed) return is_two_bit() ? std::vector{type()} : linear_types;
    std::vector<TensorType> types = {type()};
    for (const TensorType other : {TensorType::q4_0, TensorType::q4_1, TensorType::q8_0, TensorType::bf16}) {
      const bool is_narrower = other == TensorType::q4_0 && !is_two_bit();
      if (other != type() && !is_narrower) types.push_back(other);
    }
    return types;
  }
};

const std::vector<Target>& targets() {
  static const std::vector<Target> all = {
      {"gguf-q2_0c", {TensorType::q2_0c, TensorType::q2_k, TensorType::q4_0, TensorType::bf16}},
      {"gguf-q2_k", {TensorType::q2_k, TensorType::q4_0, TensorType::bf16}},
      {"gguf-q4_0", {TensorType::q4_0, TensorType::bf16}},
      {"gguf-q4_1", {TensorType::q4_1, TensorType::bf16}},
      {"gguf-q8_0", {TensorType::q8_0, TensorType::bf16}},
      {"gguf-bf16", {TensorType::bf16}},
      {"hf-bf16", {TensorType::bf16}},
  };
  return all;
}

std::string join(const std::vector<std::string>& parts, std::string_view separator) {
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : std::string(separator)) + part;
  return out;
}

const Target& find_target(const std::string& name) {
  const auto it = std::ranges::find(targets(), name, &Target::name);
  CRUMB_CHECK(it != targets().end(), "unknown export target \"{}\"; known: {}", name, join(target_names(), ", "));
  return *it;
}

/// "INT4 symmetric, one scale per 64"
std::string grid_text(const QuantFormat& format) {
  const std::string scales = format.group_size == 0 ? "a row" : fmt::format("per {}", format.group_size);
  return fmt::format("{}, one scale {}", format.title(), scales);
}

/// Why rows of this length do not fit the type; empty if they do.
std::string row_obstacle(TensorType type, int64_t cols) {
  const int64_t block = formats::block_size(type);
  if (cols % block == 0) return "";
  return fmt::format("{} needs rows of a multiple of {}, not {}", formats::type_name(type), block, cols);
}

/// Why the type has no room for the row or for its scales; empty if it has.
std::string size_obstacle(TensorType type, const QuantFormat& format, int64_t cols) {
  const std::string row = row_obstacle(type, cols);
  if (!row.empty()) return row;
  if (type == TensorType::q2_0c)
    return format.groups(cols) == 1 ? "" : fmt::format("q2_0c has one scale a row, not one per {}", format.group_size);
  const int64_t block = formats::block_size(type);
  if (format.group_cols(cols) % block == 0) return "";
  return fmt::format("{} has one scale per {}, not per {}", formats::type_name(type), block, format.group_size);
}

int significant_bits(float x) {
  if (x == 0) return 0;
  int exponent = 0;
  const auto mantissa = static_cast<uint32_t>(std::ldexp(std::fabs(std::frexp(x, &exponent)), 24));
  return 24 - std::countr_zero(mantissa);
}

// Level times scale in bf16: the significant bits of both must fit together. Zero points move integers within the range
// of the levels.
std::string bf16_obstacle(const QuantFormat& format) {
  if (format.has_minima) return fmt::format("bf16 has {} significant bits, and its minima have more", kBf16Bits);
  int bits = 0;
  for (const float level : format.levels()) bits = std::max(bits, significant_bits(level));
  bits += kScaleBits;
  return bits <= kBf16Bits ? ""
                           : fmt::format("bf16 has {} significant bits, its values need up to {}", kBf16Bits, bits);
}

/// Why the type does not hold the levels; empty if it does.
std::string level_obstacle(TensorType type, const QuantFormat& format) {
  if (type == TensorType::bf16) return bf16_obstacle(format);
  const bool holds = formats::level_factor(type, format.levels()).has_value();
  if (!format.symmetric && !holds_zeros(type)) return fmt::format("{} has no zero points", formats::type_name(type));
  if (!holds && (type == TensorType::q2_k || type == TensorType::q2_0c))
    return fmt::format("{} holds the SEQ grid only", formats::type_name(type));
  const int bits = type == TensorType::q8_0 ? 8 : 4;
  return holds ? "" : fmt::format("{} has {} bits for evenly spaced levels", formats::type_name(type), bits);
}

/// Why the type does not hold the tensor exactly; empty if it does.
std::string obstacle(TensorType type, const QuantFormat& format, int64_t cols) {
  const std::string levels = level_obstacle(type, format);
  return levels.empty() ? size_obstacle(type, format, cols) : levels;
}

std::string targets_that_hold(const QuantFormat& format, int64_t cols, const FormatMap& formats) {
  std::vector<std::string> names;
  for (const Target& target : targets()) {
    const auto types = target.types_for(format, formats);
    if (std::ranges::any_of(types, [&](auto type) { return obstacle(type, format, cols).empty(); }))
      names.push_back(target.name);
  }
  return names.empty() ? "no target holds it exactly yet" : "use " + join(names, ", ");
}

struct Choice {
  TensorType type;
  std::string reason;
};

Choice choose_quantized(const Target& target, const TensorDesc& desc, const QuantFormat& format,
                        const FormatMap& formats) {
  std::vector<std::string> reasons;
  for (const TensorType type : target.types_for(format, formats)) {
    const std::string reason = obstacle(type, format, desc.cols());
    if (reason.empty()) return {type, join(reasons, "; ")};
    reasons.push_back(reason);
  }
  user_error("{} cannot hold {} ({}) exactly: {}; {}", target.name, desc.hf_name, grid_text(format),
             join(reasons, "; "), targets_that_hold(format, desc.cols(), formats));
}

Choice choose_plain(const Target& target, const TensorDesc& desc, bool model_is_quantized) {
  if (target.type() == TensorType::bf16) return {TensorType::bf16, ""};
  CRUMB_CHECK(model_is_quantized || !target.is_two_bit(),
              "{} needs a quantized model, this one has no codes and scales: quantize it first (crumb quantize, crumb "
              "train), or export to gguf-q4_0, gguf-q4_1, gguf-q8_0 or "
              "gguf-bf16",
              target.name);
  // Left in float by choice: what was evaluated stays what is shipped.
  if (model_is_quantized) return {TensorType::bf16, std::string(kKeptInFloat)};
  const std::string reason = row_obstacle(target.type(), desc.cols());
  return {reason.empty() ? target.type() : TensorType::bf16, reason};
}

/// The type asked for an embedding or a head; `option` names it in messages.
Choice choose_asked(const Target& target, const TensorDesc& desc, const std::string& name, std::string_view option) {
  static constexpr std::array kAllowed = {TensorType::q4_0, TensorType::q6_k, TensorType::q8_0,
                                          TensorType::bf16, TensorType::f16,  TensorType::f32};
  const auto type = formats::type_from_name(name);
  CRUMB_CHECK(type && std::ranges::count(kAllowed, *type) > 0,
              "{}: unknown type \"{}\"; known: q4_0, q6_k, q8_0, bf16, f16, f32", option, name);
  CRUMB_CHECK(target.is_gguf() || *type == TensorType::bf16, "{}: {} holds bf16 only, not {}", option, target.name,
              name);
  const std::string reason = row_obstacle(*type, desc.cols());
  CRUMB_CHECK(reason.empty(), "{}: {} ({}); choose another", option, reason, desc.hf_name);
  return {*type, ""};
}

Choice choose_embedding(const Target& target, const TensorDesc& desc, const std::string& asked,
                        std::string_view option) {
  if (!asked.empty()) return choose_asked(target, desc, asked, option);
  if (target.type() == TensorType::bf16) return {TensorType::bf16, ""};
  std::vector<std::string> reasons;
  for (const TensorType type : {TensorType::q6_k, TensorType::q8_0}) {
    const std::string reason = row_obstacle(type, desc.cols());
    if (reason.empty()) return {type, join(reasons, "; ")};
    reasons.push_back(reason);
  }
  return {TensorType::bf16, join(reasons, "; ")};
}

Choice choose(const Target& target, const TensorDesc& desc, const FormatMap& formats, const ExportOptions& options) {
  const bool is_head = desc.role == TensorRole::head;
  const std::string& asked = is_head ? options.head_type : options.embedding_type;
  const std::string_view option = is_head ? "--head-type" : "--embedding-type";
  if (const auto found = formats.find(desc.hf_name); found != formats.end()) {
    CRUMB_CHECK(desc.role == TensorRole::linear || asked.empty(), "{}: {} is quantized, its type follows {}", option,
                desc.hf_name, target.name);
    return choose_quantized(target, desc, found->second, formats);
  }
  switch (desc.role) {
    case TensorRole::linear:
      return choose_plain(target, desc, !formats.empty());
    case TensorRole::embedding:
    case TensorRole::head:
      return choose_embedding(target, desc, asked, option);
    case TensorRole::norm:
    case TensorRole::bias:
      break;
  }
  return {target.is_gguf() ? TensorType::f32 : TensorType::bf16, ""};
}

/// File order of the published 2-bit files: rope_freqs (as the stock converter), output_norm, token_embd, output, then
/// the layers, each by name.
std::pair<int, std::string> gguf_order(const PlannedTensor& tensor) {
  using arch::Slot;
  static constexpr std::array kFirst = {Slot::rope_freqs, Slot::final_norm, Slot::embedding, Slot::head};
  const auto it = std::ranges::find(kFirst, tensor.desc.id.slot);
  const auto rank = static_cast<int>(it - kFirst.begin());
  return {it == kFirst.end() ? rank + tensor.desc.id.layer : rank, tensor.desc.gguf.name};
}

void add_rope_freqs(const arch::DecoderSpec& spec, ExportPlan& plan) {
  const auto desc = arch::rope_freqs_tensor(spec);
  if (!desc) return;
  PlannedTensor tensor;
  tensor.desc = *desc;
  plan.tensors.push_back(std::move(tensor));
}

void warn_about_window(const arch::DecoderSpec& spec, ExportPlan& plan) {
  for (const auto& layer : spec.layers) {
    if (layer.window == 0 || layer.window >= spec.context_length) continue;
    plan.warnings.push_back(
        fmt::format("stock llama.cpp ignores the sliding window of {} tokens of this {} model (context {}): beyond {} "
                    "tokens its output differs",
                    layer.window, arch::architecture_name(spec.architecture), spec.context_length, layer.window));
    return;
  }
}

void add_bytes(ExportPlan& plan, int64_t alignment) {
  for (auto& tensor : plan.tensors) {
    tensor.bytes = tensor.desc.rows() * formats::row_bytes(tensor.type, tensor.desc.cols());
    plan.data_bytes += (tensor.bytes + alignment - 1) / alignment * alignment;
  }
}

/// Rows that fit no block of the target make a file of another size than its name promises.
void warn_about_fallbacks(const Target& target, ExportPlan& plan) {
  int64_t linears = 0, fitting = 0;
  std::map<std::pair<TensorType, std::string>, int64_t> others;
  for (const auto& tensor : plan.tensors) {
    if (tensor.desc.role != TensorRole::linear) continue;
    ++linears;
    if (tensor.type == target.type()) {
      ++fitting;
    } else {
      ++others[{tensor.type, tensor.reason}];
    }
  }
  for (const auto& [other, count] : others) {
    const auto& [type, reason] = other;
    if (reason == kKeptInFloat && others.size() > 1) continue;  // as the job asked
    if (fitting == 0) {
      plan.warnings.push_back(fmt::format("no linear is {}: {}", formats::type_name(target.type()), reason));
      return;
    }
    if (reason == kKeptInFloat) continue;
    plan.warnings.push_back(fmt::format("{} of {} linears become {}, not {}: {}", count, linears,
                                        formats::type_name(type), formats::type_name(target.type()), reason));
  }
}

void check_formats(const arch::DecoderSpec& spec, const std::vector<TensorDesc>& table, const FormatMap& formats,
                   const ExportOptions& options) {
  for (const auto& [name, format] : formats)
    CRUMB_CHECK(std::ranges::count(table, name, &TensorDesc::hf_name) == 1, "the model has no tensor {}", name);
  CRUMB_CHECK(!spec.tied_head || options.head_type.empty() || options.head_type == options.embedding_type,
              "--head-type: the head of this model is its embedding; use --embedding-type");
}

}  // namespace

const std::vector<std::string>& target_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& target : targets()) out.push_back(target.name);
    return out;
  }();
  return names;
}

int64_t ExportPlan::bytes_of(TensorRole role) const {
  int64_t bytes = 0;
  for (const auto& tensor : tensors) bytes += tensor.desc.role == role ? tensor.bytes : 0;
  return bytes;
}

double TypeTotal::bits() const {
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(std::max<int64_t>(weights, 1));
}

void TypeTotal::add(const PlannedTensor& tensor) {
  ++tensors;
  bytes += tensor.bytes;
  weights += tensor.desc.elements();
}

formats::TensorType ExportPlan::main_type() const {
  std::map<formats::TensorType, int64_t> weights;
  for (const auto& tensor : tensors) {
    if (tensor.desc.role == arch::TensorRole::linear) weights[tensor.type] += tensor.desc.elements();
  }
  if (weights.empty() || weights.contains(type)) return type;
  return std::ranges::max_element(weights, {}, [](const auto& entry) { return entry.second; })->first;
}

TypeTotal ExportPlan::total() const {
  TypeTotal total;
  for (const auto& tensor : tensors) total.add(tensor);
  return total;
}

std::map<std::string, TypeTotal> ExportPlan::totals_by_type() const {
  std::map<std::string, TypeTotal> totals;
  for (const auto& tensor : tensors) totals[std::string(formats::type_name(tensor.type))].add(tensor);
  return totals;
}

std::string ExportPlan::summary() const {
  std::vector<std::string> counts;
  for (const auto& [name, total] : totals_by_type()) counts.push_back(fmt::format("{} {}", total.tensors, name));
  return fmt::format("{}: {}; {} of tensors", target, join(counts, ", "), format_bytes(data_bytes));
}

ExportPlan plan_export(const arch::DecoderSpec& spec, const FormatMap& formats, const ExportOptions& options) {
  const Target& target = find_target(options.target);
  if (target.is_gguf()) arch::check_llama_cpp_loads(spec);
  const auto table = arch::tensor_table(spec);
  if (target.is_gguf())
    arch::check_stored_alone(table, &TensorDesc::gguf, "GGUF");
  else
    arch::check_stored_alone(table, &TensorDesc::hf, "an HF folder");
  check_formats(spec, table, formats, options);
  ExportPlan plan;
  plan.target = target.name;
  plan.type = target.type();
  if (target.is_gguf()) add_rope_freqs(spec, plan);
  for (const auto& desc : table) {
    const auto it = formats.find(desc.hf_name);
    const QuantFormat* format = it == formats.end() ? nullptr : &it->second;
    const Choice choice = choose(target, desc, formats, options);
    PlannedTensor tensor{desc, {}, choice.type, 0, choice.reason};
    if (format != nullptr) tensor.format = *format;
    plan.tensors.push_back(tensor);
  }
  if (target.is_gguf()) {
    std::ranges::stable_sort(plan.tensors, {}, gguf_order);
    warn_about_window(spec, plan);
  }
  add_bytes(plan, target.is_gguf() ? kGgufAlignment : 1);
  warn_about_fallbacks(target, plan);
  return plan;
}

}  // namespace crumb::exporting
