#include "runtime/packed_linear.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "kernels/code_matmul.h"
#include "kernels/code_matmul_portable.h"
#include "kernels/rms_norm.h"
#include "kernels/rounding.h"
#include "quant/activations.h"
#include "runtime/held_codes.h"

namespace crumb::runtime {
namespace {

constexpr std::pair<std::string_view, Activations> kNames[] = {{"auto", Activations::automatic},
                                                               {"float", Activations::floats},
                                                               {"bf16", Activations::bf16},
                                                               {"int8", Activations::int8}};
const quant::ActivationFormat kInt8{quant::Grid::intn, 8};
constexpr int64_t kScaleCols = 64;

/// Tokens rounded to int8, as the kernels read them.
class RoundedTokens {
 public:
  /// values_of(token) [cols], a scale for scale_cols of them; sums over segment_cols, which divide scale_cols. The
  /// values are read before another token of the same thread is asked for.
  template <class ValuesOf>
  const kernels::Int8Tokens& round(const ValuesOf& values_of, int64_t tokens, int64_t cols, int64_t scale_cols,
                                   int64_t segment_cols, Executor& executor) {
    constexpr int64_t kTokens = 4;  // a thread takes
    const int64_t stride = kernels::int8_stride(cols);
    codes_.resize(static_cast<size_t>(tokens * stride));
    scales_.resize(static_cast<size_t>(tokens * (cols / scale_cols)));
    sums_.resize(static_cast<size_t>(tokens * (cols / segment_cols)));
    view_ = {codes_.data(), tokens, cols, stride, scales_.data(), scale_cols, segment_cols, sums_.data()};
    executor.run(tokens, kTokens, [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; ++token) round_token(values_of(token), token);
    });
    return view_;
  }

 private:
  void round_token(const float* x, int64_t token) {
    int8_t* codes = codes_.data() + token * view_.stride;
    float* scale = scales_.data() + token * (view_.cols / view_.scale_cols);
    for (int64_t k = 0; k < view_.cols; k += view_.scale_cols)
      *scale++ = kernels::round_to_int8(x + k, view_.scale_cols, codes + k);
    std::fill(codes + view_.cols, codes + view_.stride, int8_t{0});
    int32_t* sum = sums_.data() + token * (view_.cols / view_.segment_cols);
    for (int64_t k = 0; k < view_.cols; k += view_.segment_cols)
      *sum++ = std::accumulate(codes + k, codes + k + view_.segment_cols, 0);
  }

  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  kernels::Int8Tokens view_;
};

class PackedLinears : public LinearGroup {
 public:
  /// scale_cols: columns of an int8 input that share a scale.
  PackedLinears(std::vector<std::shared_ptr<const HeldCodes>> members, Activations activations, int64_t scale_cols)
      : members_(std::move(members)), activations_(activations), scale_cols_(scale_cols) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    if (activations_ == Activations::floats) return kernels::code_matmul(x, tokens, products(outputs), executor);
    if (activations_ == Activations::bf16) return kernels::code_matmul_of_bf16(x, tokens, products(outputs), executor);
    const int64_t cols = members_.front()->cols();
    multiply_rounded([&](int64_t token) { return x + token * cols; }, tokens, outputs, executor);
  }
  void forward_normed(const float* x, const RmsNorm& norm, int64_t tokens, std::span<float* const> outputs,
                      Executor& executor) const override {
    if (activations_ != Activations::int8) return LinearGroup::forward_normed(x, norm, tokens, outputs, executor);
    const int64_t cols = members_.front()->cols();
    const auto normed = [&](int64_t token) {
      float* const values = thread_scratch(cols);
      kernels::rms_norm_forward(x + token * cols, norm.weight.data(), norm.epsilon, 1, cols, values, serial_executor());
      return values;
    };
    multiply_rounded(normed, tokens, outputs, executor);
  }
  void read_row(int64_t row, float* out) const override {
    kernels::portable::dequantize_row(members_.front()->product(nullptr).matrix, row, out);
  }
  WeightBytes weight_bytes() const override {
    WeightBytes bytes;
    for (const auto& member : members_) bytes += {member->bytes(), member->bytes()};
    return bytes;
  }

 private:
  std::span<const kernels::CodeProduct> products(std::span<float* const> outputs) const {
    CRUMB_ASSERT(outputs.size() == members_.size());
    thread_local std::vector<kernels::CodeProduct> products;  // kept, like what is rounded: decoding allocates nothing
    products.clear();
    for (size_t i = 0; i < members_.size(); ++i) products.push_back(members_[i]->product(outputs[i]));
    return products;
  }
  template <class ValuesOf>
  void multiply_rounded(const ValuesOf& values_of, int64_t tokens, std::span<float* const> outputs,
                        Executor& executor) const {
    thread_local RoundedTokens rounded;
    const auto& first = *members_.front();
    const int64_t segment_cols = std::min(scale_cols_, first.group_cols());
    kernels::code_matmul(rounded.round(values_of, tokens, first.cols(), scale_cols_, segment_cols, executor),
                         products(outputs), executor);
  }

  std::vector<std::shared_ptr<const HeldCodes>> members_;
  Activations activations_;
  int64_t scale_cols_;
};

/// A member and how it is held.
struct HeldMember {
  LinearTensors tensors;
  HeldForm form;
};
/// All of them, or none.
std::vector<HeldMember> held_members(std::span<const LinearTensors> members) {
  std::vector<HeldMember> held;
  for (const auto& member : members) {
    const auto form = held_form(*member.weight);
    if (!form) return {};
    held.push_back({member, *form});
  }
  return held;
}

/// Int8 members are given the sums of one cut into groups.
bool share_groups(std::span<const HeldMember> members) {
  return std::ranges::all_of(members,
                             [&](const auto& member) { return member.form.group_cols == members[0].form.group_cols; });
}

/// A model that rounds what its quantized linears read may say `same` or nothing.
void check_reads(const quant::Checkpoint& checkpoint, const std::optional<quant::ActivationFormat>& same,
                 Activations activations) {
  const auto own = quant::activations_of(checkpoint);
  CRUMB_CHECK(
      !own || own == same,
      "{}: the model rounds the activations of its quantized linears to {} itself, {} activations are not for it",
      checkpoint.path().string(), own->title(), name_of(activations));
}

/// Whether a linear that is no codes reads bfloat16 if it is that.
bool rounds_floats(const quant::Checkpoint& checkpoint, const quant::StoredTensor& weight, Activations activations) {
  return activations == Activations::bf16 ||
         (activations == Activations::int8 && !is_quantized(weight) && has_quantized_linears(checkpoint));
}

/// Columns of an int8 input that share a scale: those of a token in a model that rounds them so itself, else few, which
/// keeps outliers from the others (docs/performance.md has what that is worth).
int64_t scale_cols_of(const quant::Checkpoint& checkpoint, const HeldForm& form) {
  const auto own = quant::activations_of(checkpoint);
  check_reads(checkpoint, kInt8, Activations::int8);
  const bool divides = form.group_cols % kScaleCols == 0 || kScaleCols % form.group_cols == 0;
  return own || !divides || form.cols % kScaleCols != 0 ? form.cols : kScaleCols;
}

/// What has been said of a model.
struct Told {
  const quant::Checkpoint* checkpoint = nullptr;
  bool of_unpacked = false;
};

/// int8 was asked for; what does not have it is named, once a model. Members that are not taken together are asked for
/// alone: only then is it known.
void tell_of_floats(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members, bool reads_floats,
                    Told& told) {
  const std::string where = checkpoint.path().string();
  if (told.checkpoint != &checkpoint) told = {.checkpoint = &checkpoint};
  const auto& weight = *members.front().weight;
  if (!is_multiplied(checkpoint, weight)) return;  // an embedding that is read alone
  if (!reads_floats || members.size() > 1 || !is_quantized(weight) || told.of_unpacked) return;
  told.of_unpacked = true;
  log_warning("{}: {} ({}) and others like it are not multiplied as codes: they read floats, not int8", where,
              weight.desc.module_name(), weight.format ? weight.format->title() : weight.dtype);
}

}  // namespace

Activations activations_from_name(const std::string& name, const std::string& where) {
  std::vector<std::string_view> known;
  for (const auto& [title, activations] : kNames) {
    if (name == title) return activations;
    known.push_back(title);
  }
  user_error("{}: unknown \"{}\"; known: {}", where, name, fmt::join(known, ", "));
}

std::string_view name_of(Activations activations) {
  return std::ranges::find(kNames, activations, [](const auto& entry) { return entry.second; })->first;
}

Activations resolved(Activations activations, const quant::Checkpoint& checkpoint) {
  if (activations == Activations::int8 && !has_quantized_linears(checkpoint)) {
    log_warning("{}: int8 activations are for quantized linears, and it has none: it reads floats",
                checkpoint.path().string());
    return Activations::floats;
  }
  if (activations != Activations::automatic) return activations;
  const auto own = quant::activations_of(checkpoint);
  const bool is_held = std::ranges::any_of(
      checkpoint.tensors(), [&](const auto& tensor) { return is_multiplied(checkpoint, tensor) && held_form(tensor); });
  return is_held && (!own || *own == kInt8) ? Activations::int8 : Activations::floats;
}

LinearMaker packed_linears(Activations activations, std::shared_ptr<Executor> executor, WeightStores stores) {
  CRUMB_ASSERT(activations != Activations::automatic);
  const auto make = [=](const quant::Checkpoint& checkpoint,
                        std::span<const LinearTensors> members) -> std::unique_ptr<LinearGroup> {
    if (activations == Activations::bf16) check_reads(checkpoint, std::nullopt, activations);
    const auto held = held_members(members);
    if (held.empty()) {
      if (members.size() > 1 || !rounds_floats(checkpoint, *members.front().weight, activations)) return nullptr;
      return read_dense_linear(checkpoint, members.front(), stores, *executor, DenseInputs::bf16);
    }
    int64_t scale_cols = 0;
    if (activations == Activations::int8) {
      scale_cols = scale_cols_of(checkpoint, held.front().form);
      if (!share_groups(held)) return nullptr;
    }
    std::vector<std::shared_ptr<const HeldCodes>> packed;
    for (const auto& member : members) {
      auto codes = hold_codes(checkpoint, member, *executor, stores.cache.get());
      if (codes == nullptr) return nullptr;
      packed.push_back(stores.pool == nullptr ? codes : stores.pool->hold(codes));
    }
    return std::make_unique<PackedLinears>(std::move(packed), activations, scale_cols);
  };
  const auto told = std::make_shared<Told>();
  return [=](const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members) {
    auto group = make(checkpoint, members);
    if (activations == Activations::int8) tell_of_floats(checkpoint, members, group == nullptr, *told);
    return group;
  };
}

}  // namespace crumb::runtime
