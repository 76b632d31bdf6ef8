#include "runtime/cuda/decoder.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/common/error.h"
#include "core/common/finite.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "kernels/cuda/decoder.h"
#include "quant/activations.h"
#include "runtime/cuda/device.h"
#include "runtime/cuda/linears.h"
#include "runtime/held_codes.h"
#include "runtime/passes.h"
#include "runtime/rope_table.h"

namespace crumb::runtime {
namespace {

using arch::Slot;
using cuda::Device;
using cuda::DeviceFloats;
using cuda::DeviceLinears;
using cuda::DeviceMemory;
using kernels::Bf16;

constexpr int64_t kTokensPerPass =
    cuda::kMostTokens;                        // more are multiplied with dequantized weights, which no pass does
constexpr int64_t kMostTokensOfGraph = 16;    // that the kernels for few tokens take
constexpr int64_t kFirstRopePositions = 256;  // tables grow by doubling from here
constexpr int64_t kFloat = sizeof(float);

/// Of each panel of positions: the keys and values of all layers (kernels/cuda/decoder.h).
struct CacheLayout {
  std::vector<int64_t> offsets = {};  // of the layers, in elements
  int64_t panel = 0;                  // elements
  int64_t element_bytes = 2;

  int64_t panel_bytes() const { return panel * element_bytes; }
};

CacheLayout cache_layout(const arch::DecoderSpec& spec, CacheType type) {
  CacheLayout layout{.element_bytes = type == CacheType::f32 ? 4 : 2};
  for (const auto& layer : spec.layers) {
    layout.offsets.push_back(layout.panel);
    layout.panel += 2 * layer.gqa().kv_heads * layer.gqa().head_dim * kernels::kCachePanel;
  }
  return layout;
}

int64_t panels_of(int64_t positions) { return (positions + kernels::kCachePanel - 1) / kernels::kCachePanel; }

/// Keys and values on the device, panel after panel.
class CudaState : public SequenceState {
 public:
  CudaState(std::shared_ptr<const Device> device, const CacheLayout& layout, int64_t limit, const char* hint)
      : device_(std::move(device)), layout_(layout), limit_(limit), hint_(hint) {}

  int64_t length() const override { return length_; }
  void truncate(int64_t length) override {
    CRUMB_ASSERT(0 <= length && length <= length_);
    length_ = length;
  }
  /// The old lies beside the new while it is copied.
  void reserve(int64_t length) override {
    constexpr int64_t kFirstPanels = 2;
    const int64_t held = memory_.bytes() / layout_.panel_bytes();
    if (panels_of(length) <= held) return;
    int64_t panels = std::max(panels_of(length), std::min(panels_of(limit_), std::max(kFirstPanels, 2 * held)));
    if (panels * layout_.panel_bytes() > device_->free_bytes()) panels = panels_of(length);  // more is a wish
    const std::string what = fmt::format("keys and values of {} positions", panels * kernels::kCachePanel);
    device_->require_free(panels * layout_.panel_bytes(), what, hint_);
    DeviceMemory larger = device_->allocate(panels * layout_.panel_bytes(), what);
    device_->copy_within(larger.data(), memory_.data(), panels_of(length_) * layout_.panel_bytes());
    device_->wait();
    memory_ = std::move(larger);
  }
  std::unique_ptr<SequenceState> fork() const override {
    auto other = std::make_unique<CudaState>(device_, layout_, limit_, hint_);
    other->reserve(length_);
    other->length_ = length_;
    device_->copy_within(other->memory_.data(), memory_.data(), panels_of(length_) * layout_.panel_bytes());
    device_->wait();
    return other;
  }
  int64_t bytes() const override { return memory_.bytes(); }

  const void* data() const { return memory_.data(); }
  void set_length(int64_t length) { length_ = length; }

 private:
  std::shared_ptr<const Device> device_;
  CacheLayout layout_;
  int64_t length_ = 0, limit_;
  const char* hint_;
  DeviceMemory memory_;
};

/// Cosines and sines of positions, of the layers with one rotary embedding.
class DeviceRope {
 public:
  explicit DeviceRope(const arch::RopeSpec& spec) : spec_(spec), table_(spec) {}

  const arch::RopeSpec& spec() const { return spec_; }
  int64_t half() const { return table_.half(); }
  const float* cos() const { return cos_.as<float>(); }
  const float* sin() const { return sin_.as<float>(); }
  /// True where the tables are others then.
  bool grow(const Device& device, int64_t positions, int64_t limit) {
    const int64_t held = half() == 0 ? positions : cos_.bytes() / (half() * kFloat);
    if (positions <= held) return false;
    const int64_t count = std::max(positions, std::min(limit, std::max(kFirstRopePositions, 2 * held)));
    table_.grow(count);
    device.wait();  // for who reads the old ones
    const int64_t bytes = count * half() * kFloat;
    const auto upload = [&](const float* from) {
      DeviceMemory memory = device.allocate(bytes, "tables of the rotary embedding");
      device.copy_to_device(memory.data(), from, bytes);
      return memory;
    };
    DeviceMemory cos = upload(table_.cos(0)), sin = upload(table_.sin(0));  // both, or neither
    cos_ = std::move(cos), sin_ = std::move(sin);
    return true;
  }

 private:
  arch::RopeSpec spec_;
  RopeTable table_;
  DeviceMemory cos_, sin_;
};

struct Layer {
  DeviceMemory attention_norm, mlp_norm, query_norm, key_norm;
  std::optional<DeviceLinears> query_key_value, output, gate_up, down;
  size_t rope = 0;
};

/// What a pass reads of its tokens; kernels get it from the device's copy.
struct PassTable {
  int32_t ids[kTokensPerPass], positions[kTokensPerPass];
  uint64_t sequences[kTokensPerPass];
};

void refuse_what_has_no_kernels(const quant::Checkpoint& checkpoint, CacheType cache) {
  const std::string where = checkpoint.path().string();
  CRUMB_CHECK(cache != CacheType::q8, "--cache-type q8: on a GPU keys and values are held in f32 or f16");
  if (const auto own = quant::activations_of(checkpoint))
    user_error(
        "{}: the model rounds the activations of its quantized linears to {} itself, for which --device cuda has "
        "no kernels; use --device cpu",
        where, own->title());
  for (const auto& layer : checkpoint.spec().layers) {
    const auto& gqa = layer.gqa();
    CRUMB_CHECK(gqa.head_dim % 8 == 0 && gqa.head_dim <= kernels::kMostCacheDim,
                "{}: heads of {} values: --device cuda has kernels for multiples of 8 up to {}; use --device cpu",
                where, gqa.head_dim, kernels::kMostCacheDim);
  }
}

/// Quantized linears that are floats on the device, once, with the first one's reason.
void tell_of_floats(const quant::Checkpoint& checkpoint, const kernels::MatmulDevice& device) {
  std::string first, obstacle, why;
  int64_t count = 0;
  for (const auto& tensor : checkpoint.tensors()) {
    if (tensor.desc.role != arch::TensorRole::linear || cuda::tile_form(tensor, device, &why) || why.empty()) continue;
    if (count++ == 0) first = tensor.desc.module_name(), obstacle = why;
  }
  if (count > 0)
    log_warning("{}: {} quantized linears are held as floats on the GPU, {} for example: {}",
                checkpoint.path().string(), count, first, obstacle);
}

class CudaDecoder : public Decoder {
 public:
  CudaDecoder(const quant::Checkpoint& checkpoint, Executor& executor, CacheType cache)
      : spec_(checkpoint.spec()), cache_type_(cache), layout_(cache_layout(spec_, cache)) {
    refuse_what_has_no_kernels(checkpoint, cache);
    device_ = std::make_shared<const Device>();
    tell_of_floats(checkpoint, device_->matmul());
    say_what_is_needed(checkpoint);
    for (int i = 0; i < static_cast<int>(spec_.num_layers()); ++i) load_layer(checkpoint, executor, i);
    final_norm_ = upload(checkpoint, checkpoint.tensor({Slot::final_norm}));
    const auto* embedding = &checkpoint.tensor({Slot::embedding});
    embedding_.emplace(*device_, checkpoint, std::span(&embedding, 1), executor);
    if (!spec_.tied_head) head_.emplace(load(checkpoint, executor, -1, {Slot::head}));
    take_buffers();
    device_->wait();
  }

  const arch::DecoderSpec& spec() const override { return spec_; }
  std::unique_ptr<SequenceState> new_state() const override {
    return std::make_unique<CudaState>(
        device_, layout_, spec_.context_length,
        cache_type_ == CacheType::f32 ? "; use --cache-type f16 or a shorter text" : "; use a shorter text");
  }
  WeightBytes weight_bytes() const override {
    const int64_t embedding = embedding_->bytes();
    WeightBytes bytes{embedding, spec_.tied_head ? embedding : embedding / spec_.vocab_size};
    const auto add = [&](int64_t more) { bytes += {more, more}; };
    if (head_) add(head_->weight_bytes());
    add(final_norm_.bytes());
    for (const auto& layer : layers_) {
      for (const auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.query_norm, &layer.key_norm})
        add(norm->bytes());
      for (const auto* linears : {&layer.query_key_value, &layer.output, &layer.gate_up, &layer.down})
        add((*linears)->weight_bytes());
    }
    return bytes;
  }
  /// The device is not asked: that would be waiting for it.
  PassSeconds seconds() const override { return {}; }

  void forward(std::span<const SequenceInput> inputs, LogitsFor which, const LogitsSink& logits) override {
    for (const auto& input : inputs) {
      CRUMB_ASSERT(dynamic_cast<const CudaState*>(input.state) != nullptr);
      check_text(input, spec_);
    }
    for (const auto& pass : cut_into_passes(inputs, kTokensPerPass)) run_pass(inputs, pass, which, logits);
  }

 private:
  DeviceLinears load(const quant::Checkpoint& checkpoint, Executor& executor, int layer,
                     std::initializer_list<Slot> slots) const {
    return {*device_, checkpoint, linear_tensors(checkpoint, layer, slots), executor};
  }
  DeviceMemory upload(const quant::Checkpoint& checkpoint, const quant::StoredTensor& tensor) const {
    const auto values = quant::read_all(checkpoint, tensor);
    const auto bytes = static_cast<int64_t>(values.size()) * kFloat;
    DeviceMemory memory = device_->allocate(bytes, tensor.desc.hf_name);
    device_->copy_to_device(memory.data(), values.data(), bytes);
    return memory;
  }

  void load_layer(const quant::Checkpoint& checkpoint, Executor& executor, int index) {
    const auto norm = [&](Slot slot) {
      const auto* tensor = checkpoint.find({slot, index});
      return tensor != nullptr ? upload(checkpoint, *tensor) : DeviceMemory();
    };
    Layer layer;
    layer.attention_norm = norm(Slot::attention_norm);
    layer.mlp_norm = norm(Slot::ffn_norm);
    layer.query_norm = norm(Slot::q_norm);
    layer.key_norm = norm(Slot::k_norm);
    layer.query_key_value.emplace(load(checkpoint, executor, index, {Slot::q, Slot::k, Slot::v}));
    layer.output.emplace(load(checkpoint, executor, index, {Slot::o}));
    layer.gate_up.emplace(load(checkpoint, executor, index, {Slot::gate, Slot::up}));
    layer.down.emplace(load(checkpoint, executor, index, {Slot::down}));
    const auto& rope = spec_.layers[static_cast<size_t>(index)].rope;
    const auto found = std::ranges::find(ropes_, rope, &DeviceRope::spec);
    layer.rope = static_cast<size_t>(found - ropes_.begin());
    if (found == ropes_.end()) ropes_.emplace_back(rope);
    layers_.push_back(std::move(layer));
  }

  /// Before anything is taken.
  void say_what_is_needed(const quant::Checkpoint& checkpoint) const {
    int64_t weights = 0;
    for (const auto& tensor : checkpoint.tensors()) weights += cuda::least_bytes(tensor, device_->matmul());
    const auto sizes = buffer_sizes();
    const int64_t buffers = sizes.table + sizes.floats * kFloat + sizes.logits * kFloat;
    const int64_t cache = panels_of(std::min<int64_t>(spec_.context_length, 256)) * layout_.panel_bytes();
    log_info("{}: {} of weights, {} of activations and {} for each 256 positions go to {} ({} of its {} are free)",
             checkpoint.path().string(), format_bytes(weights), format_bytes(buffers), format_bytes(cache),
             device_->name(), format_bytes(device_->free_bytes()), format_bytes(device_->total_bytes()));
    device_->require_free(weights + buffers + cache, "the model", "; use --device cpu");
  }

  struct BufferSizes {
    int64_t table, floats, logits;
  };
  /// Floats a token of each activation.
  struct Widths {
    int64_t normed = 0, wide = 0, attended = 0, gated = 0;
  };
  Widths widths() const {
    Widths widths{.normed = spec_.hidden_size};
    for (const auto& layer : spec_.layers) {
      const auto& gqa = layer.gqa();
      widths.wide =
          std::max({widths.wide, (gqa.heads + 2 * gqa.kv_heads) * gqa.head_dim, 2 * layer.mlp().intermediate});
      widths.attended = std::max(widths.attended, gqa.heads * gqa.head_dim);
      widths.gated = std::max(widths.gated, layer.mlp().intermediate);
    }
    return widths;
  }
  int64_t logit_rows() const { return std::clamp<int64_t>(kLogitFloats / spec_.vocab_size, 1, kTokensPerPass); }
  BufferSizes buffer_sizes() const {
    const Widths w = widths();
    return {sizeof(PassTable), kTokensPerPass * (3 * w.normed + w.wide + w.attended + w.gated),
            logit_rows() * spec_.vocab_size};
  }

  void take_buffers() {
    const Widths w = widths();
    const auto take = [&](int64_t floats) {
      return device_->allocate(kTokensPerPass * floats * kFloat, "activations");
    };
    table_ = device_->allocate(sizeof(PassTable), "activations");
    hidden_ = take(w.normed);
    normed_ = take(w.normed);
    block_ = take(w.normed);
    wide_ = take(w.wide);
    attended_ = take(w.attended);
    gated_ = take(w.gated);
    logits_ = device_->allocate(logit_rows() * spec_.vocab_size * kFloat, "logits");
    host_logits_ = std::make_unique<cuda::PinnedMemory>(logit_rows() * spec_.vocab_size * kFloat);
    int64_t workspace = 0;
    const auto need = [&](const DeviceLinears& linears) { workspace = std::max(workspace, linears.workspace_bytes()); };
    for (const auto& layer : layers_) {
      for (const auto* linears : {&layer.query_key_value, &layer.output, &layer.gate_up, &layer.down}) need(**linears);
    }
    if (head_) need(*head_);
    for (const auto& layer : spec_.layers) {
      const auto& gqa = layer.gqa();
      for (int64_t tokens = 1; tokens <= kTokensPerPass; ++tokens)
        workspace = std::max(
            workspace, kFloat * kernels::attention_workspace(tokens, gqa.heads, gqa.head_dim, splits_of(gqa, tokens)));
    }
    if (workspace > 0) workspace_ = device_->allocate(workspace, "sums of products");
    grow_ropes(1);
  }

  void grow_ropes(int64_t positions) {
    for (auto& rope : ropes_) {
      if (rope.grow(*device_, positions, spec_.context_length)) steps_.clear();  // they have the old tables
    }
  }

  void run_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices, LogitsFor which,
                const LogitsSink& logits) {
    const int64_t tokens = start_pass(inputs, slices);
    std::vector<Wanted> wanted;
    list_wanted(inputs, slices, which, wanted);
    const bool all_wanted = std::ssize(wanted) == tokens;
    if (all_wanted && tokens <= std::min(kMostTokensOfGraph, logit_rows())) {
      compute_step(tokens);
      give(wanted, logits);
    } else {
      compute(tokens);
      give_in_parts(wanted, logits);
    }
    for (const auto& slice : slices) {
      auto* state = static_cast<CudaState*>(inputs[static_cast<size_t>(slice.sequence)].state);
      state->set_length(state->length() + slice.count);
    }
    device_->wait();
  }

  /// compute() and the logits of all tokens. The first time as it is, which loads the kernels; recorded the second
  /// time.
  void compute_step(int64_t tokens) {
    const auto launches = [&] {
      compute(tokens);
      multiply_head(0, tokens);
    };
    const auto [step, is_first] = steps_.try_emplace(tokens);
    if (is_first) return launches();
    if (!step->second) step->second.emplace(device_->record(launches));
    device_->launch(*step->second);
  }

  /// Room in the caches, and the table on the device.
  int64_t start_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices) {
    int64_t tokens = 0, longest = 0;
    for (const auto& slice : slices) {
      const auto& input = inputs[static_cast<size_t>(slice.sequence)];
      auto* state = static_cast<CudaState*>(input.state);
      const int64_t length = state->length();
      state->reserve(length + slice.count);
      longest = std::max(longest, length + slice.count);
      for (int64_t t = 0; t < slice.count; ++t, ++tokens) {
        host_table_.ids[tokens] = input.tokens[static_cast<size_t>(slice.begin + t)];
        host_table_.positions[tokens] = static_cast<int32_t>(length + t);
        host_table_.sequences[tokens] = reinterpret_cast<uint64_t>(state->data());
      }
    }
    grow_ropes(longest);
    device_->send(table_.data(), &host_table_, sizeof(PassTable));
    return tokens;
  }

  /// A typed view of what a linear reads: bfloat16 or float32.
  template <class Body>
  static void as_input_of(const DeviceLinears& linears, const DeviceMemory& memory, const Body& body) {
    if (linears.reads_bf16())
      body(memory.as<Bf16>());
    else
      body(memory.as<float>());
  }

  float epsilon() const { return static_cast<float>(spec_.rms_norm_eps); }
  const PassTable* table() const { return table_.as<PassTable>(); }

  /// hidden += addend (null: nothing); normed = norm(hidden), as `bf16` says.
  void normalize(const DeviceMemory& weight, const float* addend, int64_t tokens, bool bf16) {
    const auto to = [&](auto* out) {
      kernels::add_rms_norm(hidden_.as<float>(), addend, weight.as<float>(), epsilon(), tokens, spec_.hidden_size, out,
                            device_->stream());
    };
    if (bf16)
      to(normed_.as<Bf16>());
    else
      to(normed_.as<float>());
  }

  /// All layers and the last norm.
  void compute(int64_t tokens) {
    const auto stream = device_->stream();
    embedding_->read_rows(table()->ids, tokens, hidden_.as<float>(), stream);
    const float* addend = nullptr;
    for (size_t i = 0; i < layers_.size(); ++i) {
      const Layer& layer = layers_[i];
      normalize(layer.attention_norm, addend, tokens, layer.query_key_value->reads_bf16());
      layer.query_key_value->multiply(normed_.data(), tokens, wide_.as<float>(), workspace_.data());
      if (cache_type_ == CacheType::f32)
        run_attention<float>(i, tokens);
      else
        run_attention<Half>(i, tokens);
      layer.output->multiply(attended_.data(), tokens, block_.as<float>(), workspace_.data());
      normalize(layer.mlp_norm, block_.as<float>(), tokens, layer.gate_up->reads_bf16());
      layer.gate_up->multiply(normed_.data(), tokens, wide_.as<float>(), workspace_.data());
      as_input_of(*layer.down, gated_, [&](auto* out) {
        kernels::swiglu_rows(layer.gate_up->output(0, wide_.as<float>(), tokens),
                             layer.gate_up->output(1, wide_.as<float>(), tokens), tokens,
                             spec_.layers[i].mlp().intermediate, out, stream);
      });
      layer.down->multiply(gated_.data(), tokens, block_.as<float>(), workspace_.data());
      addend = block_.as<float>();
    }
    normalize(final_norm_, addend, tokens, head_reads_bf16());
  }

  int64_t splits_of(const arch::GqaSpec& gqa, int64_t tokens) const {
    return kernels::attention_splits(tokens, gqa.kv_heads, device_->matmul().multiprocessors);
  }

  template <class C>
  void run_attention(size_t index, int64_t tokens) {
    const Layer& layer = layers_[index];
    const auto& spec = spec_.layers[index];
    const auto& gqa = spec.gqa();
    const auto& rope = ropes_[layer.rope];
    const auto rows = [&](size_t member) { return layer.query_key_value->output(member, wide_.as<float>(), tokens); };
    const kernels::CacheView cache{.positions = table()->positions,
                                   .sequences = table()->sequences,
                                   .panel_stride = layout_.panel,
                                   .offset = layout_.offsets[index]};
    kernels::prepare_heads<C>({.q = rows(0),
                               .k = rows(1),
                               .v = rows(2),
                               .tokens = tokens,
                               .heads = gqa.heads,
                               .kv_heads = gqa.kv_heads,
                               .dim = gqa.head_dim,
                               .q_norm = layer.query_norm.as<float>(),
                               .k_norm = layer.key_norm.as<float>(),
                               .norm_is_before_rope = gqa.qk_norm == arch::QkNorm::before_rope,
                               .eps = epsilon(),
                               .cos = rope.cos(),
                               .sin = rope.sin(),
                               .half = rope.half()},
                              cache, device_->stream());
    as_input_of(*layer.output, attended_, [&](auto* out) {
      kernels::attend<C>(rows(0), tokens, gqa.heads, gqa.kv_heads, gqa.head_dim, spec.window, cache,
                         splits_of(gqa, tokens), workspace_.as<float>(), out, device_->stream());
    });
  }

  bool head_reads_bf16() const { return head_ ? head_->reads_bf16() : embedding_->is_bf16(); }
  /// logits = head(normed), of tokens from `first`.
  void multiply_head(int64_t first, int64_t tokens) {
    const int64_t offset = first * spec_.hidden_size * (head_reads_bf16() ? 2 : kFloat);
    const void* x = normed_.as<uint8_t>() + offset;
    if (head_)
      head_->multiply(x, tokens, logits_.as<float>(), workspace_.data());
    else
      embedding_->multiply(x, head_reads_bf16(), tokens, nullptr, logits_.as<float>(), device_->stream());
  }

  /// Neighbours at once, as many as there is room for.
  void give_in_parts(const std::vector<Wanted>& wanted, const LogitsSink& logits) {
    for (size_t begin = 0; begin < wanted.size();) {
      size_t end = begin + 1;
      while (end < wanted.size() && static_cast<int64_t>(end - begin) < logit_rows() &&
             wanted[end].token == wanted[end - 1].token + 1)
        ++end;
      multiply_head(wanted[begin].token, static_cast<int64_t>(end - begin));
      give(std::span(wanted).subspan(begin, end - begin), logits);
      begin = end;
    }
  }

  void give(std::span<const Wanted> wanted, const LogitsSink& logits) {
    const auto vocab = static_cast<size_t>(spec_.vocab_size);
    device_->copy_to_host(host_logits_->as<float>(), logits_.data(), std::ssize(wanted) * spec_.vocab_size * kFloat);
    device_->wait();
    for (size_t i = 0; i < wanted.size(); ++i) {
      const std::span<const float> row(host_logits_->as<float>() + i * vocab, vocab);
      if (!are_finite(row))
        run_error("the model computes values that are not finite at position {}; its weights are broken{}",
                  wanted[i].position,
                  cache_type_ == CacheType::f16 ? ", or float16 does not hold its keys and values: use --cache-type f32"
                                                : "");
      logits(wanted[i].sequence, wanted[i].position, row);
    }
  }

  arch::DecoderSpec spec_;
  CacheType cache_type_;
  CacheLayout layout_;
  std::shared_ptr<const Device> device_;  // shared with the states; before all that lies on it
  std::vector<DeviceRope> ropes_;
  std::vector<Layer> layers_;
  DeviceMemory final_norm_;
  std::optional<DeviceFloats> embedding_;
  std::optional<DeviceLinears> head_;  // none where the embedding is it

  PassTable host_table_{};
  // Activations of a pass, [kTokensPerPass, ...].
  DeviceMemory table_, hidden_, normed_, block_, wide_, attended_, gated_, logits_, workspace_;
  std::unique_ptr<cuda::PinnedMemory> host_logits_;
  std::map<int64_t, std::optional<cuda::Graph>> steps_;  // by tokens; a graph from the second time on
};

}  // namespace

std::unique_ptr<Decoder> load_cuda_decoder(const quant::Checkpoint& checkpoint, Executor& executor, CacheType cache) {
  return std::make_unique<CudaDecoder>(checkpoint, executor, cache);
}

std::string cuda_device_name() { return Device().name(); }

}  // namespace crumb::runtime
