#include "eval/damage.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "core/common/log.h"
#include "core/common/progress.h"
#include "core/common/quantity.h"
#include "core/common/spread.h"
#include "eval/evaluate.h"
#include "eval/runtime_scorer.h"
#include "quant/row_blocks.h"
#include "runtime/packed_linear.h"

namespace crumb::eval {
namespace {

using quant::Checkpoint;
using quant::StoredTensor;

/// What the baseline's linears do besides their work.
struct Control {
  std::set<std::string> quantized;  // modules that give what the quantized model's do
  bool is_observing = false;
};

/// What was seen of a linear while its inputs went by.
struct Observed {
  double error_square = 0, output_square = 0, token_errors = 0, largest_input = 0;
  int64_t tokens = 0;
  std::vector<std::pair<float, int32_t>> largest_outputs;  // of each token: value and channel; of o and down alone
};

/// By module, and by layer and half of a layer the RMS of the residual stream at each token.
struct Observations {
  std::map<std::string, Observed> linears;
  std::map<std::pair<int, bool>, std::vector<double>> residual_rms;  // true: before the feed-forward block
};

bool adds_to_residual(const arch::TensorId& id) { return id.slot == arch::Slot::o || id.slot == arch::Slot::down; }

double square_of(std::span<const float> values) {
  double sum = 0;
  for (const float v : values) sum += double{v} * v;
  return sum;
}

/// The baseline's linears, and beside them the quantized ones, which take their place or are compared with them.
class WatchedLinears : public runtime::LinearGroup {
 public:
  struct Member {
    std::string module;
    arch::TensorId id;
    int64_t rows = 0, cols = 0;
    std::unique_ptr<LinearGroup> quantized;  // null: the same in both models
  };

  WatchedLinears(std::unique_ptr<LinearGroup> own, std::vector<Member> members, const Control& control,
                 Observations& observations)
      : own_(std::move(own)), members_(std::move(members)), control_(control), observations_(observations) {}

  void forward(const float* x, int64_t tokens, std::span<float* const> outputs, Executor& executor) const override {
    own_->forward(x, tokens, outputs, executor);
    for (size_t i = 0; i < members_.size(); ++i) {
      const Member& member = members_[i];
      if (member.quantized == nullptr) continue;
      if (control_.quantized.contains(member.module))
        member.quantized->forward(x, tokens, outputs.subspan(i, 1), executor);
      if (control_.is_observing) observe(member, x, tokens, outputs[i], executor);
    }
  }
  void forward_normed(const float* x, const runtime::RmsNorm& norm, int64_t tokens, std::span<float* const> outputs,
                      Executor& executor) const override {
    if (control_.is_observing) {
      auto& rms = observations_.residual_rms[{members_[0].id.layer, members_[0].id.slot == arch::Slot::gate}];
      const size_t cols = norm.weight.size();
      for (int64_t t = 0; t < tokens; ++t)
        rms.push_back(std::sqrt(square_of({x + static_cast<size_t>(t) * cols, cols}) / static_cast<double>(cols)));
    }
    LinearGroup::forward_normed(x, norm, tokens, outputs, executor);
  }
  void read_row(int64_t row, float* out) const override { own_->read_row(row, out); }
  runtime::WeightBytes weight_bytes() const override { return own_->weight_bytes(); }

 private:
  void observe(const Member& member, const float* x, int64_t tokens, const float* y, Executor& executor) const {
    std::vector<float> other(static_cast<size_t>(tokens * member.rows));
    float* const out = other.data();
    member.quantized->forward(x, tokens, {&out, 1}, executor);
    Observed& seen = observations_.linears[member.module];
    for (int64_t t = 0; t < tokens; ++t) {
      double error = 0, square = 0;
      std::pair<float, int32_t> largest{0, 0};
      for (int64_t r = 0; r < member.rows; ++r) {
        const float value = y[t * member.rows + r];
        const double difference = double{out[t * member.rows + r]} - value;
        error += difference * difference;
        square += double{value} * value;
        if (std::abs(value) > std::abs(largest.first)) largest = {value, static_cast<int32_t>(r)};
      }
      seen.error_square += error;
      seen.output_square += square;
      seen.token_errors += square > 0 ? error / square : 0;
      for (int64_t c = 0; c < member.cols; ++c)
        seen.largest_input = std::max(seen.largest_input, double{std::abs(x[t * member.cols + c])});
      if (adds_to_residual(member.id)) seen.largest_outputs.push_back(largest);
    }
    seen.tokens += tokens;
  }

  std::unique_ptr<LinearGroup> own_;
  std::vector<Member> members_;
  const Control& control_;
  Observations& observations_;
};

/// A decoder that is shared, with some of its linears quantized.
class SwitchedDecoder : public runtime::Decoder {
 public:
  SwitchedDecoder(runtime::Decoder& decoder, Control& control, std::set<std::string> quantized)
      : decoder_(decoder), control_(control), quantized_(std::move(quantized)) {}
  const arch::DecoderSpec& spec() const override { return decoder_.spec(); }
  std::unique_ptr<runtime::SequenceState> new_state() const override { return decoder_.new_state(); }
  runtime::WeightBytes weight_bytes() const override { return decoder_.weight_bytes(); }
  runtime::PassSeconds seconds() const override { return decoder_.seconds(); }
  void forward(std::span<const runtime::SequenceInput> inputs, runtime::LogitsFor which,
               const LogitsSink& logits) override {
    control_.quantized = quantized_;
    decoder_.forward(inputs, which, logits);
  }

 private:
  runtime::Decoder& decoder_;
  Control& control_;
  std::set<std::string> quantized_;
};

bool is_quantized(const StoredTensor& tensor, const StoredTensor& original) {
  return tensor.desc.role == arch::TensorRole::linear && (tensor.format || tensor.dtype != original.dtype);
}

double median_of(std::vector<double> values) { return values.empty() ? 0 : spread_of(std::move(values)).median; }

/// Of the codes of a file: how often each level is taken, and the scales.
void look_at_codes(const Checkpoint& model, const StoredTensor& tensor, LinearDamage& damage) {
  if (!tensor.format) return;
  std::vector<int64_t> counts(tensor.format->levels().size());
  std::vector<double> scales;
  quant::for_each_row_block(tensor.desc.rows(), tensor.desc.cols(), [&](int64_t begin, int64_t end) {
    const auto codes = model.read_codes(tensor, begin, end);
    for (size_t i = 0; i < codes.codes.size(); ++i) {
      if (codes.mask.empty() || codes.mask[i] != 0) ++counts[codes.codes[i]];
    }
    scales.insert(scales.end(), codes.scales.begin(), codes.scales.end());
  });
  int64_t all = 0;
  for (const int64_t count : counts) all += count;
  for (const int64_t count : counts) {
    const double share = static_cast<double>(count) / static_cast<double>(std::max<int64_t>(1, all));
    damage.code_shares.push_back(share);
    if (share > 0) damage.entropy -= share * std::log2(share);
  }
  const Spread spread = spread_of(std::move(scales));
  damage.least_scale = spread.least;
  damage.median_scale = spread.median;
  damage.largest_scale = spread.most;
}

double weight_error(const Checkpoint& model, const StoredTensor& tensor, const Checkpoint& baseline,
                    const StoredTensor& original) {
  double error = 0, square = 0;
  std::vector<float> q, w;
  quant::for_each_row_block(tensor.desc.rows(), tensor.desc.cols(), [&](int64_t begin, int64_t end) {
    q.resize(static_cast<size_t>((end - begin) * tensor.desc.cols()));
    w.resize(q.size());
    model.read_rows(tensor, begin, end, q.data());
    baseline.read_rows(original, begin, end, w.data());
    for (size_t i = 0; i < q.size(); ++i) {
      const double difference = double{q[i]} - w[i];
      error += difference * difference;
      square += double{w[i]} * w[i];
    }
  });
  model.release_rows(tensor, 0, tensor.desc.rows());
  baseline.release_rows(original, 0, original.desc.rows());
  return square > 0 ? error / square : 0;
}

/// Norms and biases that are others: what a linear is judged beside is then not what it was made for.
void warn_of_other_vectors(const Checkpoint& model, const Checkpoint& baseline) {
  std::vector<std::string> others;
  for (const auto& tensor : model.tensors()) {
    if (!arch::is_small(tensor.desc.role)) continue;
    const auto own = quant::read_all(model, tensor), other = quant::read_all(baseline, baseline.tensor(tensor.desc.id));
    double difference = 0;
    for (size_t i = 0; i < own.size(); ++i) difference += std::pow(double{own[i]} - other[i], 2);
    // Rounding to bfloat16 alone gives 2^-18 at most.
    if (difference > 0x1.0p-16 * square_of(other)) others.push_back(tensor.desc.module_name());
  }
  if (others.empty()) return;
  log_warning(
      "--damage: {} of the norms and biases are not the baseline's (the first is {}): linears are judged beside "
      "the baseline's, which some methods do not make them for",
      others.size(), others.front());
}

/// Layer by layer as the decoder asks for them.
class DamageMapper {
 public:
  DamageMapper(const DamageOptions& options, const Checkpoint& model, const Checkpoint& baseline,
               const DamageText& text, const std::shared_ptr<ThreadPool>& pool)
      : options_(options), model_(model), baseline_(baseline), text_(text), pool_(pool) {}

  DamageMap run() {
    look_at_weights();
    load();
    observe();
    fill_observed();
    find_massive();
    find_outstanding();
    if (options_.depth == DamageDepth::layers || options_.depth == DamageDepth::linears) measure_divergences();
    choose_overrides();
    return std::move(map_);
  }

 private:
  void look_at_weights() {
    for (const auto& tensor : model_.tensors()) {
      const StoredTensor* original = baseline_.find(tensor.desc.id);
      CRUMB_CHECK(original != nullptr && original->desc.shape == tensor.desc.shape,
                  "--damage: {} of {} is not in the baseline {} with the same shape", tensor.desc.hf_name,
                  model_.path().string(), baseline_.path().string());
    }
    warn_of_other_vectors(model_, baseline_);
    map_.depth = options_.depth;
    for (const auto& tensor : model_.tensors()) {
      const StoredTensor* original = baseline_.find(tensor.desc.id);
      if (!is_quantized(tensor, *original)) continue;
      LinearDamage damage;
      damage.module = tensor.desc.module_name();
      damage.layer = tensor.desc.id.layer;
      damage.dtype = tensor.dtype;
      damage.bits = 8.0 * static_cast<double>(tensor.stored_bytes) / static_cast<double>(tensor.desc.elements());
      damage.weight_error = weight_error(model_, tensor, baseline_, *original);
      look_at_codes(model_, tensor, damage);
      modules_.insert(damage.module);
      map_.linears.push_back(std::move(damage));
    }
    const auto is_another = [](const LinearDamage& linear) { return linear.weight_error >= 1; };
    if (const auto others = std::ranges::count_if(map_.linears, is_another); others > 0)
      log_warning(
          "--damage: the weights of {} linears (the first is {}) are farther from the baseline's than zeros: channels "
          "in another order (method.reorder), a rotation, or another model; errors and KL of single linears then mean "
          "nothing",
          others, std::ranges::find_if(map_.linears, is_another)->module);
    CRUMB_CHECK(!map_.linears.empty(), "--damage: {} has no linear in another type than the baseline {}",
                model_.path().string(), baseline_.path().string());
  }

  void load() {
    const auto packed = runtime::packed_linears(runtime::Activations::floats, pool_);
    const auto maker = [&](const Checkpoint& checkpoint,
                           std::span<const runtime::LinearTensors> members) -> std::unique_ptr<runtime::LinearGroup> {
      if (members.front().weight->desc.role != arch::TensorRole::linear) return packed(checkpoint, members);
      std::vector<WatchedLinears::Member> watched;
      for (const auto& member : members) {
        const auto& desc = member.weight->desc;
        auto& one = watched.emplace_back(
            WatchedLinears::Member{desc.module_name(), desc.id, desc.rows(), desc.cols(), nullptr});
        if (!modules_.contains(one.module)) continue;
        const auto tensors = runtime::linear_tensors(model_, desc.id.layer, {desc.id.slot});
        one.quantized = runtime::make_linears(model_, tensors, packed, {}, *pool_);
      }
      return std::make_unique<WatchedLinears>(runtime::make_linears(checkpoint, members, packed, {}, *pool_),
                                              std::move(watched), control_, observations_);
    };
    decoder_ = runtime::load_decoder(baseline_, pool_, maker);
  }

  void observe() {
    const Stopwatch watch;
    control_.is_observing = true;
    Progress progress("damage: outputs", std::ssize(text_.windows) * text_.context, "tokens");
    for (const auto& window : text_.windows) {
      const auto state = decoder_->new_state();
      const auto tokens =
          std::span(text_.stream.ids).subspan(static_cast<size_t>(window.begin), static_cast<size_t>(text_.context));
      const runtime::SequenceInput input{state.get(), tokens};
      decoder_->forward({&input, 1}, runtime::LogitsFor::last, [](int64_t, int64_t, std::span<const float>) {});
      progress.add(text_.context);
    }
    progress.finish();
    control_.is_observing = false;
    seconds_ = watch.seconds();
    map_.windows = std::ssize(text_.windows);
    map_.tokens = map_.windows * text_.context;
  }

  void fill_observed() {
    double errors = 0;
    for (auto& linear : map_.linears) {
      const Observed& seen = observations_.linears.at(linear.module);
      linear.output_error = seen.output_square > 0 ? seen.error_square / seen.output_square : 0;
      linear.token_error = seen.token_errors / static_cast<double>(seen.tokens);
      linear.largest_input = seen.largest_input;
      errors += linear.output_error;
    }
    for (auto& linear : map_.linears) linear.share = errors > 0 ? linear.output_error / errors : 0;
  }

  void find_massive() {
    for (const auto& linear : map_.linears) {
      const auto& largest = observations_.linears.at(linear.module).largest_outputs;
      if (largest.empty()) continue;
      const bool is_down = linear.kind() == baseline_down();
      const double usual = median_of(observations_.residual_rms.at({linear.layer, is_down}));
      MassiveActivation massive;
      massive.module = linear.module;
      for (size_t t = 0; t < largest.size(); ++t) {
        const auto [value, channel] = largest[t];
        if (!(std::abs(value) > kMassive && std::abs(value) > kMassive * usual)) continue;
        ++massive.tokens;
        if (std::abs(value) <= std::abs(massive.value)) continue;
        massive.value = value;
        massive.times = std::abs(value) / usual;
        massive.channel = channel;
        massive.seen = static_cast<int64_t>(t) % text_.context;
        massive.index = text_.windows[t / static_cast<size_t>(text_.context)].begin + massive.seen;
      }
      if (massive.tokens == 0) continue;
      const auto id = text_.stream.ids[static_cast<size_t>(massive.index)];
      massive.token = text_.tokenizer.is_special(id) ? text_.tokenizer.piece(id) : text_.tokenizer.token_bytes(id);
      map_.massive.push_back(std::move(massive));
    }
    std::ranges::stable_sort(map_.massive, [](const auto& a, const auto& b) { return a.times > b.times; });
  }
  std::string baseline_down() const {
    const std::string name = baseline_.tensor({arch::Slot::down, 0}).desc.module_name();
    return name.substr(name.rfind('.') + 1);
  }

  void find_outstanding() {
    constexpr double kInputs = 20;  // medians of the kind
    std::map<std::string, std::vector<double>> of_kind;
    for (const auto& linear : map_.linears) of_kind[linear.kind()].push_back(linear.largest_input);
    for (const auto& linear : map_.linears) {
      const double usual = std::max(median_of(of_kind[linear.kind()]), 1e-30);
      if (linear.largest_input > kInputs * usual)
        map_.outstanding.push_back(
            fmt::format("{} stands out: its largest input, {:.4g}, is {:.3g} times the median of {}", linear.module,
                        linear.largest_input, linear.largest_input / usual, linear.kind()));
    }
  }

  /// What is quantized alone, one after the other.
  std::vector<std::set<std::string>> variants() const {
    std::vector<std::set<std::string>> sets;
    int last = -2;
    for (const auto& linear : map_.linears) {
      if (options_.depth == DamageDepth::linears || linear.layer != last) sets.emplace_back();
      sets.back().insert(linear.module);
      last = linear.layer;
    }
    return sets;
  }

  void measure_divergences() {
    constexpr size_t kTogether = 4;  // beside one pass of the baseline; each holds keys and values of its own
    const auto sets = variants();
    // Observing took a pass of both models.
    const double each = seconds_ / 2 * (1 + 1.0 / kTogether);
    log_info("damage: {} passes over {} tokens, one with each of the {} alone quantized: about {:.0f} s", sets.size(),
             format_count(map_.tokens), options_.depth == DamageDepth::layers ? "layers" : "linears",
             each * static_cast<double>(sets.size()));
    RuntimeScorer plain(std::make_unique<SwitchedDecoder>(*decoder_, control_, std::set<std::string>()));
    std::vector<Estimate> found;
    for (size_t first = 0; first < sets.size(); first += kTogether) {
      std::vector<std::unique_ptr<RuntimeScorer>> owned;
      std::vector<Scorer*> scorers;
      for (size_t i = first; i < std::min(first + kTogether, sets.size()); ++i) {
        owned.push_back(
            std::make_unique<RuntimeScorer>(std::make_unique<SwitchedDecoder>(*decoder_, control_, sets[i])));
        scorers.push_back(owned.back().get());
      }
      const auto scores =
          score_stream(scorers, &plain, text_.stream, text_.windows, text_.context, pool_->as_parallel_for());
      for (const auto& of_set : scores) found.push_back(of_set.pooled.at("kl"));
    }
    for (size_t i = 0; i < sets.size(); ++i) {
      const auto linear = std::ranges::find(map_.linears, *sets[i].begin(), &LinearDamage::module);
      if (options_.depth == DamageDepth::layers) {
        map_.layers.push_back({linear->layer, found[i]});
      } else {
        linear->kl = found[i];
      }
    }
  }

  /// The next format that holds more: as GGUF's small types, 4 bits, then 8.
  static std::string more_bits(double bits) { return bits < 4 ? "{grid: int, bits: 4}" : "{grid: int, bits: 8}"; }

  void choose_overrides() {
    struct Cost {
      std::string pattern, format;
      double cost = 0;
    };
    std::vector<Cost> costs;
    if (options_.depth == DamageDepth::layers) {
      for (const auto& layer : map_.layers) {
        const double bits = std::ranges::find(map_.linears, layer.layer, &LinearDamage::layer)->bits;
        costs.push_back({arch::layer_module(layer.layer) + ".*", more_bits(bits), layer.kl.value});
      }
    } else {
      for (const auto& linear : map_.linears)
        costs.push_back({linear.module, more_bits(linear.bits), linear.kl ? linear.kl->value : linear.output_error});
    }
    std::vector<double> all;
    for (const auto& cost : costs) all.push_back(cost.cost);
    const double usual = median_of(all);
    std::erase_if(costs, [&](const Cost& cost) { return !(cost.cost > kOverride * usual); });
    std::ranges::stable_sort(costs, [](const Cost& a, const Cost& b) { return a.cost > b.cost; });
    if (costs.size() > 10) costs.resize(10);
    if (costs.empty()) return;
    map_.overrides = "overrides:\n";
    for (const auto& cost : costs) map_.overrides += fmt::format("  \"{}\": {}\n", cost.pattern, cost.format);
  }

  const DamageOptions& options_;
  const Checkpoint &model_, &baseline_;
  const DamageText& text_;
  std::shared_ptr<ThreadPool> pool_;
  std::set<std::string> modules_;  // that are quantized
  Control control_;
  Observations observations_;
  std::unique_ptr<runtime::Decoder> decoder_;
  double seconds_ = 0;
  DamageMap map_;
};

constexpr std::pair<const char*, DamageDepth> kDepths[] = {{"none", DamageDepth::none},
                                                           {"outputs", DamageDepth::outputs},
                                                           {"layers", DamageDepth::layers},
                                                           {"linears", DamageDepth::linears}};

}  // namespace

DamageDepth damage_depth_from_name(const std::string& name) {
  for (const auto& [known, depth] : kDepths) {
    if (name == known) return depth;
  }
  user_error("--damage: unknown \"{}\"; known: outputs, layers, linears", name);
}

double LinearDamage::sqnr_db() const {
  return output_error > 0 ? -10 * std::log10(output_error) : std::numeric_limits<double>::infinity();
}

DamageMap map_damage(const DamageOptions& options, const Checkpoint& model, const Checkpoint& baseline,
                     const DamageText& text, const std::shared_ptr<ThreadPool>& pool) {
  return DamageMapper(options, model, baseline, text, pool).run();
}

}  // namespace crumb::eval
