#include "runtime/packed_linear.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <new>
#include <numeric>
#include <optional>
#include <span>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "kernels/code_matmul.h"
#include "quant/activations.h"

namespace crumb::runtime {
namespace {

using kernels::CodeMatrix;
using kernels::kCodePanelRows;

constexpr std::pair<std::string_view, Activations> kNames[] = {{"float", Activations::floats},
                                                               {"int8", Activations::int8}};
const quant::ActivationFormat kInt8{quant::Grid::intn, 8};
constexpr uint8_t kInt8Zero = 128;  // its code
constexpr int64_t kScaleCols = 64;
constexpr int64_t kMostZero = 255;  // kernels::CodeMatrix::zeros

/// The levels of a grid with equal steps: level = (step * code - zero) / step.
struct EvenLevels {
  int32_t step, zero;
};
std::optional<EvenLevels> even_levels(const quant::QuantFormat& format) {
  const auto levels = format.levels();
  for (size_t code = 1; code < levels.size(); ++code) {
    if (levels[code] - levels[code - 1] != 1) return std::nullopt;
  }
  const float least = -levels.front();
  for (const int32_t step : {1, 2}) {
    const float zero = least * static_cast<float>(step);
    if (zero == std::round(zero) && zero >= 0 && zero <= kMostZero) return EvenLevels{step, static_cast<int32_t>(zero)};
  }
  return std::nullopt;
}

/// Bits of a code as it lies in memory: no kernel reads 3, 5, 6 or 7.
int held_bits(int bits) { return bits <= 2 ? 2 : bits <= 4 ? 4 : 8; }

bool fits(const quant::StoredTensor& tensor) {
  if (!tensor.format) return false;
  const int64_t cols = tensor.desc.cols(), group_cols = tensor.format->group_cols(cols);
  const auto levels = even_levels(*tensor.format);
  return levels && (levels->step == 1 || held_bits(tensor.format->bits) < 8) && group_cols <= kernels::kMostCodeCols &&
         (group_cols == cols || group_cols % kernels::kCodeColsMultiple == 0);
}

/// Memory that begins at a line of the cache.
class Lines {
 public:
  explicit Lines(int64_t bytes) : data_(static_cast<uint8_t*>(std::aligned_alloc(kLine, rounded(bytes)))) {
    if (data_ == nullptr) throw std::bad_alloc();
  }
  uint8_t* data() const { return data_.get(); }

 private:
  static constexpr size_t kLine = 64;
  static size_t rounded(int64_t bytes) { return (static_cast<size_t>(bytes) + kLine - 1) / kLine * kLine; }
  struct Free {
    void operator()(uint8_t* p) const { std::free(p); }
  };
  std::unique_ptr<uint8_t, Free> data_;
};

/// A matrix of codes that owns what it points at.
class OwnedCodes {
 public:
  OwnedCodes(const quant::StoredTensor& tensor, std::vector<float> bias)
      : format_(*tensor.format),
        levels_(*even_levels(format_)),
        panel_bytes_(kernels::code_panel_bytes(tensor.desc.cols(), held_bits(format_.bits))),
        codes_((tensor.desc.rows() + kCodePanelRows - 1) / kCodePanelRows * panel_bytes_),
        bias_(std::move(bias)) {
    const int64_t cols = tensor.desc.cols();
    matrix_ = {.bits = held_bits(format_.bits),
               .rows = tensor.desc.rows(),
               .cols = cols,
               .group_cols = format_.group_cols(cols),
               .step = levels_.step,
               .zero = levels_.zero,
               .codes = codes_.data()};
    scales_.resize(static_cast<size_t>(matrix_.panels() * matrix_.groups() * kCodePanelRows));
    if (format_.has_zero_points()) zeros_.resize(scales_.size());
    matrix_.scales = scales_.data();
    matrix_.zeros = zeros_.empty() ? nullptr : zeros_.data();
  }
  OwnedCodes(const OwnedCodes&) = delete;
  OwnedCodes& operator=(const OwnedCodes&) = delete;

  /// Rows [begin, end), begin at a panel; false if a zero point is too large for the kernels.
  bool take(const quant::QuantizedTensor& rows, int64_t begin) {
    for (int64_t row = 0; row < rows.rows; row += kCodePanelRows) {
      const int64_t panel = (begin + row) / kCodePanelRows, count = std::min(kCodePanelRows, rows.rows - row);
      kernels::pack_code_panel(rows.codes.data() + row * rows.cols, count, rows.cols, matrix_.bits,
                               codes_.data() + panel * panel_bytes_);
      for (int64_t i = 0; i < count; ++i) {
        if (!take_groups(rows, row + i, panel, i)) return false;
      }
    }
    return true;
  }

  kernels::CodeProduct product(float* y) const { return {matrix_, bias_.empty() ? nullptr : bias_.data(), y}; }
  int64_t cols() const { return matrix_.cols; }
  int64_t group_cols() const { return matrix_.group_cols; }
  /// All of it is read by every pass.
  int64_t bytes() const {
    return matrix_.panels() * panel_bytes_ +
           static_cast<int64_t>(sizeof(float) * (scales_.size() + bias_.size()) + sizeof(int32_t) * zeros_.size());
  }

 private:
  bool take_groups(const quant::QuantizedTensor& rows, int64_t row, int64_t panel, int64_t lane) {
    for (int64_t group = 0; group < matrix_.groups(); ++group) {
      const auto from = static_cast<size_t>(row * matrix_.groups() + group);
      const auto to = static_cast<size_t>((panel * matrix_.groups() + group) * kCodePanelRows + lane);
      scales_[to] = rows.scales[from] / static_cast<float>(levels_.step);
      if (zeros_.empty()) continue;
      const int64_t zero = int64_t{rows.zero_points[from]} * levels_.step + levels_.zero;
      if (zero < 0 || zero > kMostZero) return false;
      zeros_[to] = static_cast<int32_t>(zero);
    }
    return true;
  }

  quant::QuantFormat format_;
  EvenLevels levels_;
  int64_t panel_bytes_;
  Lines codes_;
  std::vector<float> scales_, bias_;
  std::vector<int32_t> zeros_;
  CodeMatrix matrix_;
};

/// Null if the kernels cannot hold its zero points.
std::unique_ptr<OwnedCodes> read_codes(const quant::Checkpoint& checkpoint, const LinearTensors& tensors,
                                       Executor& executor) {
  constexpr int64_t kRows = 4 * kCodePanelRows;  // read at once
  const auto& weight = *tensors.weight;
  auto bias = tensors.bias == nullptr ? std::vector<float>() : quant::read_all(checkpoint, *tensors.bias);
  auto codes = std::make_unique<OwnedCodes>(weight, std::move(bias));
  const int64_t rows = weight.desc.rows();
  std::atomic<bool> fit{true};
  executor.run_in_turns((rows + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * kRows, last = std::min(first + kRows, rows);
      if (!codes->take(checkpoint.read_codes(weight, first, last), first)) fit = false;
    }
  });
  checkpoint.release_rows(weight, 0, rows);
  return fit ? std::move(codes) : nullptr;
}

/// Tokens rounded to int8, as the kernels read them.
class RoundedTokens {
 public:
  /// x [tokens, cols], a scale for scale_cols of them; sums over segment_cols, which divide scale_cols.
  const kernels::Int8Tokens& round(const quant::ActivationRounder& rounder, const float* x, int64_t tokens,
                                   int64_t cols, int64_t scale_cols, int64_t segment_cols, Executor& executor) {
    constexpr int64_t kTokens = 4;  // a thread takes
    const int64_t stride = kernels::int8_stride(cols);
    codes_.resize(static_cast<size_t>(tokens * stride));
    scales_.resize(static_cast<size_t>(tokens * (cols / scale_cols)));
    sums_.resize(static_cast<size_t>(tokens * (cols / segment_cols)));
    view_ = {codes_.data(), tokens, cols, stride, scales_.data(), scale_cols, segment_cols, sums_.data()};
    executor.run(tokens, kTokens, [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; ++token) round_token(rounder, x + token * cols, token);
    });
    return view_;
  }

 private:
  void round_token(const quant::ActivationRounder& rounder, const float* x, int64_t token) {
    int8_t* codes = codes_.data() + token * view_.stride;
    float* scale = scales_.data() + token * (view_.cols / view_.scale_cols);
    for (int64_t k = 0; k < view_.cols; k += view_.scale_cols)
      *scale++ = round_group(rounder, x + k, view_.scale_cols, codes + k);
    std::fill(codes + view_.cols, codes + view_.stride, int8_t{0});
    int32_t* sum = sums_.data() + token * (view_.cols / view_.segment_cols);
    for (int64_t k = 0; k < view_.cols; k += view_.segment_cols)
      *sum++ = std::accumulate(codes + k, codes + k + view_.segment_cols, 0);
  }
  /// The scale.
  static float round_group(const quant::ActivationRounder& rounder, const float* x, int64_t n, int8_t* codes) {
    const float scale = rounder.find_codes(x, n, reinterpret_cast<uint8_t*>(codes));
    if (scale > 0)
      std::transform(codes, codes + n, codes, [](int8_t code) { return static_cast<int8_t>(code ^ kInt8Zero); });
    else
      std::fill_n(codes, n, int8_t{0});
    return scale;
  }

  std::vector<int8_t> codes_;
  std::vector<float> scales_;
  std::vector<int32_t> sums_;
  kernels::Int8Tokens view_;
};

class PackedLinears : public LinearGroup {
 public:
  /// scale_cols: columns of the input that share a scale; 0: the input stays floats.
  PackedLinears(std::vector<std::unique_ptr<OwnedCodes>> members, int64_t scale_cols)
      : members_(std::move(members)), scale_cols_(scale_cols) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    CRUMB_ASSERT(outputs.size() == members_.size());
    std::vector<kernels::CodeProduct> products;
    for (size_t i = 0; i < members_.size(); ++i) products.push_back(members_[i]->product(outputs[i]));
    if (scale_cols_ == 0) return kernels::code_matmul(x, tokens, products, executor);
    thread_local RoundedTokens rounded;  // of the caller; kept, so that decoding allocates nothing large
    const auto& first = *members_.front();
    kernels::code_matmul(rounded.round(rounder_, x, tokens, first.cols(), scale_cols_,
                                       std::min(scale_cols_, first.group_cols()), executor),
                         products, executor);
  }
  WeightBytes weight_bytes() const override {
    WeightBytes bytes;
    for (const auto& member : members_) bytes += {member->bytes(), member->bytes()};
    return bytes;
  }

 private:
  std::vector<std::unique_ptr<OwnedCodes>> members_;
  int64_t scale_cols_;
  quant::ActivationRounder rounder_{kInt8};
};

/// Int8 members are given the sums of one cut into groups.
bool share_groups(std::span<const LinearTensors> members) {
  const auto group_cols = [](const LinearTensors& member) {
    return member.weight->format->group_cols(member.weight->desc.cols());
  };
  return std::ranges::all_of(members, [&](const auto& member) { return group_cols(member) == group_cols(members[0]); });
}

/// Columns of an int8 input that share a scale: those of a token in a model that rounds them so itself, else few, which
/// keeps outliers from the others (docs/performance.md has what that is worth).
int64_t scale_cols_of(const quant::Checkpoint& checkpoint, const LinearTensors& member) {
  const auto own = quant::activations_of(checkpoint);
  CRUMB_CHECK(
      !own || *own == kInt8,
      "{}: the model rounds the activations of its quantized linears to {} itself, int8 activations are not for "
      "it",
      checkpoint.path().string(), own->title());
  const int64_t cols = member.weight->desc.cols(), group_cols = member.weight->format->group_cols(cols);
  const bool fit = cols % kScaleCols == 0 && (group_cols % kScaleCols == 0 || kScaleCols % group_cols == 0);
  return own || !fit ? cols : kScaleCols;
}

/// What has been said of a model.
struct Told {
  const quant::Checkpoint* checkpoint = nullptr;
  bool of_unpacked = false;
};

/// int8 was asked for; what does not have it is named, once a model.
void tell_of_floats(const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members, bool reads_floats,
                    Told& told) {
  const std::string where = checkpoint.path().string();
  if (told.checkpoint != &checkpoint) {
    told = {.checkpoint = &checkpoint};
    const bool has_codes =
        std::ranges::any_of(checkpoint.tensors(), [](const auto& tensor) { return tensor.format.has_value(); });
    if (!has_codes) log_warning("{}: int8 activations are for quantized linears, and it has none", where);
  }
  const auto quantized =
      std::ranges::find_if(members, [](const auto& member) { return member.weight->format.has_value(); });
  if (!reads_floats || quantized == members.end() || told.of_unpacked) return;
  told.of_unpacked = true;
  log_warning("{}: {} ({}) and others like it are not multiplied as codes: they read floats, not int8", where,
              quantized->weight->desc.module_name(), quantized->weight->format->title());
}

}  // namespace

Activations activations_from_name(const std::string& name, const std::string& where) {
  const auto found = std::ranges::find(kNames, name, [](const auto& entry) { return entry.first; });
  CRUMB_CHECK(found != std::end(kNames), "{}: unknown \"{}\"; known: {}", where, name,
              fmt::join(activations_names(), ", "));
  return found->second;
}

std::vector<std::string> activations_names() {
  std::vector<std::string> names;
  for (const auto& [name, activations] : kNames) names.emplace_back(name);
  return names;
}

LinearMaker packed_linears(Activations activations, std::shared_ptr<Executor> executor) {
  const auto make = [=](const quant::Checkpoint& checkpoint,
                        std::span<const LinearTensors> members) -> std::unique_ptr<LinearGroup> {
    if (!std::ranges::all_of(members, [](const auto& member) { return fits(*member.weight); })) return nullptr;
    int64_t scale_cols = 0;
    if (activations == Activations::int8) {
      scale_cols = scale_cols_of(checkpoint, members.front());
      if (!share_groups(members)) return nullptr;
    }
    std::vector<std::unique_ptr<OwnedCodes>> packed;
    for (const auto& member : members) {
      packed.push_back(read_codes(checkpoint, member, *executor));
      if (packed.back() == nullptr) return nullptr;
    }
    return std::make_unique<PackedLinears>(std::move(packed), scale_cols);
  };
  const auto told = std::make_shared<Told>();
  return [=](const quant::Checkpoint& checkpoint, std::span<const LinearTensors> members) {
    auto group = make(checkpoint, members);
    if (activations == Activations::int8) tell_of_floats(checkpoint, members, group == nullptr, *told);
    return group;
  };
}

}  // namespace crumb::runtime
