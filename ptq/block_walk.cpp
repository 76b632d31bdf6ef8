#include "ptq/block_walk.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/progress.h"
#include "kernels/torch/where.h"
#include "ptq/gram.h"
#include "ptq/row_walk.h"
#include "quant/codes_parts.h"
#include "quant/scale_search.h"

namespace crumb::ptq {
namespace {

using arch::Slot;
using arch::TensorDesc;
using quant::QuantizedTensor;

constexpr int64_t kTokensAtOnce = 4096;

/// Reads floats until it is quantized, then what `rounder` makes of them.
class WalkedLinear : public model::LinearModule {
 public:
  WalkedLinear(torch::Tensor initial_weight, torch::Tensor initial_bias, const quant::ActivationRounder* rounder,
               bool is_quantized)
      : rounder_(rounder), is_quantized_(is_quantized) {
    weight = register_parameter("weight", std::move(initial_weight));
    if (initial_bias.defined()) bias = register_parameter("bias", std::move(initial_bias));
  }
  torch::Tensor forward(const torch::Tensor& x) override {
    const auto type = x.scalar_type();
    const bool rounds = is_quantized_ && rounder_ != nullptr;
    return torch::linear(rounds ? rounded(x.to(torch::kFloat32), *rounder_).to(type) : x, weight.to(type),
                         effective_bias(type));
  }
  torch::Tensor effective_weight() override { return weight.detach(); }
  void become_quantized() { is_quantized_ = true; }

 private:
  const quant::ActivationRounder* rounder_;
  bool is_quantized_;
};

class BlockWalk {
 public:
  BlockWalk(const quant::Checkpoint& model, quant::CodesFolder& folder, const BlockMethod& method,
            const PruningOptions& pruning, const std::optional<quant::ActivationFormat>& activations,
            ActivationMemory& memory, InputSquares squares)
      : model_(model),
        folder_(folder),
        method_(method),
        pruning_(pruning),
        memory_(memory),
        squares_(squares),
        table_(arch::tensor_table(model.spec())) {
    if (activations) rounder_.emplace(*activations);
  }

  QuantizeReport run(const CalibrationTokens& calibration) {
    const bool is_resumed = folder_.num_finished() > 0;
    put_kept_tensors(model_, folder_, report_, [&](const TensorDesc& desc) { return may_change(desc); });
    const int64_t layers = model_.spec().num_layers();
    embed(calibration);
    if (method_.reads_float_prefix()) {
      float_residual_ = memory_.make(residual_.sizes());
      float_residual_.copy_(residual_);
    }
    Progress progress("quantize", layers, "blocks");
    int64_t finished = 0;
    while (finished < layers && is_finished(finished)) ++finished;
    if (is_resumed) log_info("going on: {} of {} blocks are done", finished, layers);
    for (int64_t layer = 0; layer < layers; ++layer) {
      if (layer < finished) {
        replay(static_cast<int>(layer));
      } else {
        quantize(static_cast<int>(layer));
      }
      if (layer + 1 == finished) progress.set_start(finished);
      if (layer >= finished) progress.update(layer + 1);
    }
    progress.finish();
    return std::move(report_);
  }

 private:
  bool is_quantized(const TensorDesc& desc) const { return folder_.format_of(desc) != nullptr; }
  /// A norm or a bias that is written when its block is finished, as the method leaves it.
  bool may_change(const TensorDesc& desc) const {
    return desc.id.layer >= 0 && arch::is_small(desc.role) && method_.changes(desc.id.slot);
  }

  template <class Function>
  void for_each_linear(int64_t layer, const Function& function) const {
    for (const auto& desc : table_) {
      if (desc.id.layer == layer && is_quantized(desc)) function(desc);
    }
  }

  bool is_finished(int64_t layer) const {
    return std::ranges::all_of(
        table_, [&](const TensorDesc& desc) { return desc.id.layer != layer || folder_.is_finished(desc); });
  }

  /// The residual stream before the first block: rows of the embedding as the output stores them.
  void embed(const CalibrationTokens& calibration) {
    const TensorDesc& desc = model_.tensor(arch::TensorId{Slot::embedding}).desc;
    residual_ = ptq::embed(calibration, desc.cols(), memory_,
                           [&](int64_t token, float* out) { folder_.read_rows(desc, token, token + 1, out); });
  }

  /// The block with float weights; one that is finished, with those of the folder.
  std::shared_ptr<model::Block> make_block(int layer, bool finished) const {
    const model::TensorSource source = [&, finished](const TensorDesc& desc) {
      if (finished || !(is_quantized(desc) || may_change(desc))) return read_folder(desc);
      return model::checkpoint_source(model_)(desc);
    };
    const model::LinearFactory make_linear = [&](const std::string& name, torch::Tensor weight, torch::Tensor bias) {
      const auto desc = std::ranges::find(table_, name, &TensorDesc::module_name);
      return std::make_shared<WalkedLinear>(std::move(weight), std::move(bias), rounder(),
                                            finished && is_quantized(*desc));
    };
    return ptq::make_block(model_.spec(), layer, table_, source, make_linear);
  }

  torch::Tensor read_folder(const TensorDesc& desc) const {
    torch::Tensor values = torch::empty(desc.shape);
    folder_.read_rows(desc, 0, desc.rows(), values.data_ptr<float>());
    return values;
  }

  BlockWork work_of(int layer, model::Block& block) {
    BlockWork work = make_work(layer, block, residual_, memory_);
    work.float_residual = float_residual_;
    work.rounder = rounder();
    work.pruning = pruning_;
    for_each_linear(layer, [&](const TensorDesc& desc) { work.formats[desc.id.slot] = *folder_.format_of(desc); });
    return work;
  }

  bool is_last(int layer) const { return layer + 1 == model_.spec().num_layers(); }

  void run_block(int layer, bool finished, const torch::Tensor& residual) {
    const auto block = make_block(layer, finished);
    const BlockWork work = work_of(layer, *block);
    for (GroupedPass pass(work, residual); !pass.is_done();) pass.advance();
  }

  void replay(int layer) {
    if (!is_last(layer)) {
      run_block(layer, true, residual_);
      if (float_residual_.defined()) run_block(layer, false, float_residual_);
    }
    for_each_linear(layer, [&](const TensorDesc& desc) {
      report_.tensors.push_back(from_note(folder_.note(desc)));
      report_.quantized_bytes += quant::codes_bytes(desc.rows(), desc.cols(), *folder_.format_of(desc));
    });
  }

  void quantize(int layer) {
    const auto block = make_block(layer, false);
    BlockWork work = work_of(layer, *block);
    work.needs_output = !is_last(layer);
    method_.quantize(work);
    residual_ = work.residual;
    for (const auto& desc : table_) {
      if (desc.id.layer != layer || !may_change(desc) || folder_.is_finished(desc)) continue;
      folder_.put(desc, 0, desc.rows(), block->parameters_by_id().at(desc.id).const_data_ptr<float>());
      folder_.finish(desc);
    }
    for_each_linear(layer, [&](const TensorDesc& desc) {
      put(desc, work.results.at(desc.id.slot));
      report_.quantized_bytes += quant::codes_bytes(desc.rows(), desc.cols(), *folder_.format_of(desc));
    });
  }

  void put(const TensorDesc& desc, const LinearResult& result) {
    const QuantizedTensor& codes = result.codes;
    const torch::Tensor& w = result.weight;
    const torch::Tensor kept = masked(w, codes.mask);
    TensorError error{.module = desc.module_name(),
                      .layer = desc.id.layer,
                      .error = weight_error(w.const_data_ptr<float>(), codes),
                      .scales = std::ssize(codes.scales),
                      .clamped_scales = quant::count_clamped(kept.const_data_ptr<float>(), codes.scales.data(),
                                                             codes.rows, codes.cols, codes.format),
                      .pruned = std::ranges::count(codes.mask, 0),
                      .output = output_error(w, dequantized(codes), result.gram),
                      .largest_input = result.largest_input};
    if (squares_ == InputSquares::kept) {
      const torch::Tensor diagonal = result.gram.diagonal().contiguous();
      const float* first = diagonal.const_data_ptr<float>();
      error.input_squares.assign(first, first + diagonal.numel());
    }
    report_.tensors.push_back(error);
    if (folder_.is_finished(desc)) return;  // of a block that was not
    folder_.put(desc, 0, codes);
    if (folder_.keeps_masters()) folder_.put_masters(desc, 0, codes.rows, result.masters.const_data_ptr<float>());
    folder_.finish(desc, to_note(error));
  }

  const quant::ActivationRounder* rounder() const { return rounder_ ? &*rounder_ : nullptr; }

  const quant::Checkpoint& model_;
  quant::CodesFolder& folder_;
  const BlockMethod& method_;
  const PruningOptions& pruning_;
  ActivationMemory& memory_;
  InputSquares squares_;
  std::vector<TensorDesc> table_;
  std::optional<quant::ActivationRounder> rounder_;
  torch::Tensor residual_, float_residual_;  // the second is undefined where the method does not ask for it
  QuantizeReport report_;
};

}  // namespace

std::shared_ptr<model::Block> make_block(const arch::DecoderSpec& spec, int layer, const std::vector<TensorDesc>& table,
                                         const model::TensorSource& source, const model::LinearFactory& make_linear) {
  auto block = std::make_shared<model::Block>(spec.layers[static_cast<size_t>(layer)], spec.rms_norm_eps, layer, table,
                                              source, make_linear);
  for (const auto& parameter : block->parameters()) parameter.set_requires_grad(false);
  return block;
}

BlockWork make_work(int layer, model::Block& block, const torch::Tensor& residual, ActivationMemory& memory) {
  const int64_t tokens = residual.size(1);
  const auto& spec = block.spec();
  return {.layer = layer,
          .block = block,
          .context = {.rotary = model::make_rotary_table(spec.rope, tokens),
                      .mask = model::make_window_mask(spec.window, tokens),
                      .compute = torch::kFloat32,
                      .round_small_tensors = true},
          .residual = residual,
          .windows_at_once = std::max<int64_t>(1, kTokensAtOnce / tokens),
          .formats = {},
          .memory = memory};
}

torch::Tensor embed(const CalibrationTokens& calibration, int64_t width, ActivationMemory& memory,
                    const std::function<void(int64_t token, float* out)>& row) {
  torch::Tensor residual = memory.make({calibration.windows, calibration.length, width});
  float* out = residual.data_ptr<float>();
  std::unordered_map<tokenizer::TokenId, std::vector<float>> rows;
  for (size_t i = 0; i < calibration.ids.size(); ++i) {
    auto& values = rows[calibration.ids[i]];
    if (values.empty()) {
      values.resize(static_cast<size_t>(width));
      row(calibration.ids[i], values.data());
    }
    std::ranges::copy(values, out + static_cast<int64_t>(i) * width);
  }
  return residual;
}

const std::string& BlockWork::name(Slot slot) const {
  const auto found = std::ranges::find(block.linears(), linear(slot), &model::NamedLinear::second);
  CRUMB_ASSERT(found != block.linears().end());
  return found->first;
}

template <class Step>
void GroupedPass::step_all(const Step& step) {
  const torch::NoGradGuard no_grad;
  torch::Tensor next;
  const int64_t windows = residual_.size(0);
  for_each_batch(windows, work_.windows_at_once, [&](int64_t begin, int64_t end) {
    const model::BlockState state = step(begin, end);
    residual_.slice(0, begin, end).copy_(state.residual);
    if (!state.input.defined()) return;
    if (!next.defined()) {
      const int64_t cols = state.input.size(2);
      torch::Tensor& memory = memory_[cols];
      // Where input and output are equally wide, a batch is read before it is overwritten.
      if (!memory.defined()) memory = work_.memory.make({windows, residual_.size(1), cols});
      next = memory;
    }
    next.slice(0, begin, end).copy_(state.input);
  });
  input_ = next;
}

GroupedPass::GroupedPass(const BlockWork& work, const torch::Tensor& residual) : work_(work), residual_(residual) {
  step_all(
      [&](int64_t begin, int64_t end) { return work_.block.begin(residual_.slice(0, begin, end), work_.context); });
}

void GroupedPass::advance() {
  CRUMB_ASSERT(!is_done());
  step_all([&](int64_t begin, int64_t end) {
    model::BlockState state{residual_.slice(0, begin, end), input_.slice(0, begin, end)};
    work_.block.advance(state, group_, work_.context);
    return state;
  });
  ++group_;
}

void for_each_group(BlockWork& work, const std::function<void(const std::vector<Slot>&, const torch::Tensor&)>& look) {
  const torch::Tensor input = work.memory.make(work.residual.sizes());
  input.copy_(work.residual);
  for (GroupedPass pass(work); !pass.is_done(); pass.advance()) look(pass.group(), pass.input());
  work.residual.copy_(input);
}

namespace {

struct RoundTokens : torch::autograd::Function<RoundTokens> {
  static torch::Tensor forward(torch::autograd::AutogradContext*, const torch::Tensor& x,
                               const quant::ActivationRounder* rounder) {
    const torch::Tensor from = x.contiguous(), out = torch::empty_like(from);
    const int64_t cols = x.size(-1);
    kernels::torch_executor().run(x.numel() / cols, 8, [&](int64_t begin, int64_t end, int) {
      rounder->round(from.const_data_ptr<float>() + begin * cols, end - begin, cols,
                     out.data_ptr<float>() + begin * cols);
    });
    return out;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list grads) {
    return {grads[0], {}};
  }
};

}  // namespace

torch::Tensor rounded(const torch::Tensor& x, const quant::ActivationRounder& rounder) {
  return RoundTokens::apply(x, &rounder);
}

InputStatistics measure_inputs(const torch::Tensor& input, int64_t windows_at_once, double token_cap,
                               const std::string& where, const quant::ActivationRounder* rounder,
                               const torch::Tensor& float_input) {
  const torch::NoGradGuard no_grad;
  const int64_t cols = input.size(2), tokens = input.size(0) * input.size(1);
  InputStatistics out{.gram = {}, .mean_abs = torch::zeros({cols}), .max_abs = torch::zeros({cols})};
  GramSum gram(cols);
  if (float_input.defined()) out.drift = torch::zeros({cols, cols});
  for_each_batch(input.size(0), windows_at_once, [&](int64_t begin, int64_t end) {
    torch::Tensor x = input.slice(0, begin, end).reshape({-1, cols});
    const torch::Tensor size = x.abs(), largest = size.amax(0);
    if (!largest.isfinite().all().item<bool>())
      user_error("{}: its inputs are not finite on the calibration text", where);
    out.max_abs = torch::maximum(out.max_abs, largest);
    out.mean_abs.add_(size.sum(0));
    if (rounder != nullptr) x = rounded(x, *rounder);
    torch::Tensor drift;
    if (float_input.defined()) drift = float_input.slice(0, begin, end).reshape({-1, cols}) - x;
    if (token_cap > 0) {
      const torch::Tensor energy = x.square().mean(1, true);
      const torch::Tensor share = (energy.median() * token_cap / energy.clamp_min(1e-30)).clamp_max(1);
      out.capped_tokens += (share < 1).sum().item<int64_t>();
      x = x * share.sqrt();
      if (drift.defined()) drift.mul_(share.sqrt());
    }
    gram.add(x);
    if (drift.defined()) out.drift.addmm_(drift.t(), x);
  });
  out.gram = gram.mean(tokens);
  if (out.drift.defined()) out.drift.div_(static_cast<double>(tokens));
  out.mean_abs.div_(static_cast<double>(tokens));
  out.largest = out.max_abs.max().item<double>();
  const bool is_finite = out.gram.diagonal().isfinite().all().item<bool>() &&
                         (!out.drift.defined() || out.drift.isfinite().all().item<bool>());
  if (!is_finite) user_error("{}: its inputs are too large on the calibration text", where);
  return out;
}

namespace {

/// Where the method does not choose them itself.
void choose_masks(BlockWork& work, const std::map<Slot, torch::Tensor>& weights, const InputStatistics& inputs) {
  if (!work.pruning.prunes() || work.pruning.is_joint()) return;
  const torch::Tensor sizes = inputs.gram.diagonal().to(torch::kFloat64).sqrt().contiguous();
  const double* factors = work.pruning.looks_at_activations() ? sizes.const_data_ptr<double>() : nullptr;
  for (const auto& [slot, w] : weights)
    work.masks[slot] = choose_mask(w.const_data_ptr<float>(), w.size(0), w.size(1), factors, work.pruning.amount());
}

}  // namespace

void LinearMethod::quantize(BlockWork& work) const {
  GroupedPass pass(work);
  std::optional<GroupedPass> float_pass;
  if (reads_float_prefix()) float_pass.emplace(work, work.float_residual);
  for (; !pass.is_done(); pass.advance()) {
    std::map<Slot, torch::Tensor> weights;
    for (const Slot slot : pass.group()) {
      if (work.formats.contains(slot)) weights[slot] = work.linear(slot)->weight.detach().clone();
    }
    std::optional<InputStatistics> measured;
    if (!weights.empty())
      measured = measure_inputs(pass.input(), work.windows_at_once, token_cap_, work.name(weights.begin()->first),
                                work.rounder, float_pass ? float_pass->input() : torch::Tensor());
    const bool goes_on = work.needs_output || work.results.size() + weights.size() < work.formats.size();
    if (float_pass && goes_on) float_pass->advance();  // before the weights change
    if (!measured) continue;
    const InputStatistics& inputs = *measured;
    if (inputs.capped_tokens > 0)
      log_info("{}: {} of {} tokens weigh no more than token_cap lets them", work.name(weights.begin()->first),
               inputs.capped_tokens, pass.input().size(0) * pass.input().size(1));
    choose_masks(work, weights, inputs);
    for (auto& [slot, result] : round(work, weights, inputs)) {
      if (work.masks.contains(slot)) result.codes.mask = work.masks.at(slot);
      CRUMB_ASSERT(!result.codes.format.has_mask || result.codes.find_broken_mask() < 0);
      result.weight = weights.at(slot);
      result.gram = inputs.gram;
      result.largest_input = inputs.largest;
      replace_weight(*work.linear(slot), result.codes);
      work.results[slot] = std::move(result);
    }
    if (!goes_on) return;
  }
}

namespace {

/// sum over rows of x gram x^T; of the symmetric matrix little more than one half is multiplied out.
double energy(const torch::Tensor& x, const torch::Tensor& gram) {
  constexpr int64_t kLeastStrip = 192, kMostStrips = 8;
  const int64_t n = gram.size(0), strip = std::max(kLeastStrip, (n + kMostStrips - 1) / kMostStrips);
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += strip) {
    const int64_t count = std::min(strip, n - begin);
    torch::Tensor product = x.narrow(1, begin, count).mm(gram.narrow(0, begin, count).slice(1, begin));
    product.slice(1, count).mul_(2);
    sum += product.mul_(x.slice(1, begin)).sum(torch::kFloat64).item<double>();
  }
  return sum;
}

}  // namespace

OutputError output_error(const torch::Tensor& w, const torch::Tensor& q, const torch::Tensor& gram) {
  const torch::NoGradGuard no_grad;
  return {.error_square = std::max(0.0, energy(w - q, gram)), .output_square = energy(w, gram)};
}

torch::Tensor masked(const torch::Tensor& w, const std::vector<uint8_t>& mask) {
  if (mask.empty()) return w;
  return w * torch::from_blob(const_cast<uint8_t*>(mask.data()), w.sizes(), torch::kUInt8);
}

torch::Tensor dequantized(const QuantizedTensor& codes) {
  torch::Tensor values = torch::empty({codes.rows, codes.cols});
  codes.dequantize(values.data_ptr<float>());
  return values;
}

void replace_weight(model::LinearModule& linear, const QuantizedTensor& codes) {
  const torch::NoGradGuard no_grad;
  linear.weight.copy_(dequantized(codes));
  if (auto* walked = dynamic_cast<WalkedLinear*>(&linear)) walked->become_quantized();
}

QuantizeReport walk_blocks(const quant::Checkpoint& model, quant::CodesFolder& folder, const BlockMethod& method,
                           const CalibrationTokens& calibration, const PruningOptions& pruning,
                           const std::optional<quant::ActivationFormat>& activations, ActivationMemory& memory,
                           ThreadPool& pool, InputSquares squares) {
  at::set_num_threads(pool.num_threads());
  return BlockWalk(model, folder, method, pruning, activations, memory, squares).run(calibration);
}

}  // namespace crumb::ptq
