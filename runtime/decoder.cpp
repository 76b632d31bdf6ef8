#include "runtime/decoder.h"

#include <algorithm>
#include <utility>

#include "core/common/error.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "runtime/attention.h"
#include "runtime/kv_cache.h"
#include "runtime/rope_table.h"

namespace crumb::runtime {
namespace {

constexpr int64_t kTokensPerPass = 512;             // bounds the activations; more tokens at once are not faster
constexpr int64_t kLogitFloats = int64_t{8} << 20;  // bounds the logits that exist at once
constexpr int64_t kTokenGrain = 4;                  // tokens a thread takes of elementwise work

struct Layer {
  std::vector<float> attention_norm, mlp_norm, query_norm, key_norm;
  std::unique_ptr<Linear> query, key, value, output, gate, up, down;
  std::shared_ptr<RopeTable> rope;
};

/// Tokens [begin, begin + count) of inputs[sequence].
struct Slice {
  int64_t sequence, begin, count;
};

/// Cuts the inputs into passes of at most kTokensPerPass tokens, in order.
std::vector<std::vector<Slice>> cut_into_passes(std::span<const SequenceInput> inputs) {
  std::vector<std::vector<Slice>> passes;
  int64_t room = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const auto size = static_cast<int64_t>(inputs[i].tokens.size());
    for (int64_t begin = 0; begin < size;) {
      if (room == 0) {
        passes.emplace_back();
        room = kTokensPerPass;
      }
      const int64_t count = std::min(room, size - begin);
      passes.back().push_back({static_cast<int64_t>(i), begin, count});
      begin += count;
      room -= count;
    }
  }
  return passes;
}

class FloatDecoder : public Decoder {
 public:
  FloatDecoder(const quant::Checkpoint& checkpoint, std::shared_ptr<Executor> executor, LinearMaker make_linear)
      : spec_(checkpoint.spec()), executor_(std::move(executor)), make_linear_(std::move(make_linear)) {
    const auto& embedding = checkpoint.tensor("model.embed_tokens.weight");
    embedding_ = quant::read_all(checkpoint, embedding);
    for (int64_t i = 0; i < spec_.num_layers(); ++i) layers_.push_back(load_layer(checkpoint, i));
    final_norm_ = quant::read_all(checkpoint, checkpoint.tensor("model.norm.weight"));
    if (!spec_.tied_head) {
      head_ = make(checkpoint, "lm_head");
    } else if (make_linear_) {
      head_ = make_linear_(checkpoint, embedding, nullptr);
    } else {
      head_ = make_dense_linear_view(embedding_.data(), spec_.vocab_size, spec_.hidden_size);
    }
  }

  const arch::DecoderSpec& spec() const override { return spec_; }
  std::unique_ptr<SequenceState> new_state() const override { return std::make_unique<KvCache>(spec_); }

  void forward(std::span<const SequenceInput> inputs, LogitsFor which, const LogitsSink& logits) override {
    for (const auto& input : inputs) check_input(input);
    for (const auto& pass : cut_into_passes(inputs)) run_pass(inputs, pass, which, logits);
  }

 private:
  std::unique_ptr<Linear> make(const quant::Checkpoint& checkpoint, const std::string& module) const {
    const auto& weight = checkpoint.tensor(module + ".weight");
    const auto* bias = checkpoint.find(module + ".bias");
    if (make_linear_) return make_linear_(checkpoint, weight, bias);
    return make_dense_linear(quant::read_all(checkpoint, weight), weight.desc.rows(), weight.desc.cols(),
                             bias != nullptr ? quant::read_all(checkpoint, *bias) : std::vector<float>());
  }

  Layer load_layer(const quant::Checkpoint& checkpoint, int64_t index) const {
    const auto prefix = "model.layers." + std::to_string(index) + ".";
    const auto& spec = spec_.layers[static_cast<size_t>(index)];
    Layer layer;
    for (const auto& tensor : checkpoint.tensors()) {
      if (tensor.desc.layer != index || tensor.desc.role != arch::TensorRole::norm) continue;
      norm_of(layer, tensor.desc.gguf_name) = quant::read_all(checkpoint, tensor);
    }
    layer.query = make(checkpoint, prefix + "self_attn.q_proj");
    layer.key = make(checkpoint, prefix + "self_attn.k_proj");
    layer.value = make(checkpoint, prefix + "self_attn.v_proj");
    layer.output = make(checkpoint, prefix + "self_attn.o_proj");
    layer.gate = make(checkpoint, prefix + "mlp.gate_proj");
    layer.up = make(checkpoint, prefix + "mlp.up_proj");
    layer.down = make(checkpoint, prefix + "mlp.down_proj");
    layer.rope = rope_table(index, spec.rope);
    return layer;
  }

  /// GGUF's names of the norms are the same for every architecture.
  static std::vector<float>& norm_of(Layer& layer, const std::string& gguf_name) {
    if (gguf_name.ends_with("attn_q_norm.weight")) return layer.query_norm;
    if (gguf_name.ends_with("attn_k_norm.weight")) return layer.key_norm;
    if (gguf_name.ends_with("attn_norm.weight")) return layer.attention_norm;
    CRUMB_ASSERT(gguf_name.ends_with("ffn_norm.weight"));
    return layer.mlp_norm;
  }

  /// Neighbours with the same rotary embedding share a table.
  std::shared_ptr<RopeTable> rope_table(int64_t index, const arch::RopeSpec& rope) const {
    if (index > 0) {
      const auto& last = spec_.layers[static_cast<size_t>(index - 1)].rope;
      if (last.dim == rope.dim && last.base == rope.base && last.divisors == rope.divisors) return layers_.back().rope;
    }
    return std::make_shared<RopeTable>(rope);
  }

  void check_input(const SequenceInput& input) const {
    CRUMB_ASSERT(dynamic_cast<const KvCache*>(input.state) != nullptr);
    const int64_t length = input.state->length() + static_cast<int64_t>(input.tokens.size());
    CRUMB_CHECK(length <= spec_.context_length, "a text of {} tokens is longer than the model's context of {}", length,
                spec_.context_length);
    for (const auto id : input.tokens) {
      CRUMB_CHECK(id >= 0 && id < spec_.vocab_size, "token id {} is outside the model's vocabulary of {}", id,
                  spec_.vocab_size);
    }
  }

  void run_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices, LogitsFor which,
                const LogitsSink& logits) {
    start_pass(inputs, slices);
    for (size_t i = 0; i < layers_.size(); ++i) {
      run_attention(static_cast<int64_t>(i));
      run_mlp(layers_[i]);
    }
    for (const auto& segment : segments_) segment.cache->set_length(segment.position + segment.count);
    give_logits(inputs, slices, which, logits);
  }

  /// Room in the caches, positions, embeddings.
  void start_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices) {
    segments_.clear();
    positions_.clear();
    hidden_.clear();
    int64_t longest = 0;
    for (const auto& slice : slices) {
      const auto& input = inputs[static_cast<size_t>(slice.sequence)];
      auto* cache = static_cast<KvCache*>(input.state);
      const auto first = static_cast<int64_t>(positions_.size());
      segments_.push_back({cache, first, slice.count, cache->length()});
      cache->reserve(cache->length() + slice.count);
      longest = std::max(longest, cache->length() + slice.count);
      for (int64_t i = 0; i < slice.count; ++i) {
        positions_.push_back({static_cast<int64_t>(segments_.size()) - 1, cache->length() + i});
        const auto id = input.tokens[static_cast<size_t>(slice.begin + i)];
        const auto row = embedding_.begin() + id * spec_.hidden_size;
        hidden_.insert(hidden_.end(), row, row + spec_.hidden_size);
      }
    }
    tokens_ = static_cast<int64_t>(positions_.size());
    for (auto& layer : layers_) layer.rope->grow(longest);
    normed_.resize(hidden_.size());
  }

  void run_attention(int64_t index) {
    const auto& layer = layers_[static_cast<size_t>(index)];
    const auto& spec = spec_.layers[static_cast<size_t>(index)];
    const auto& gqa = spec.gqa();
    const int64_t q_cols = gqa.heads * gqa.head_dim, kv_cols = gqa.kv_heads * gqa.head_dim;
    query_.resize(static_cast<size_t>(tokens_ * q_cols));
    attended_.resize(query_.size());
    key_.resize(static_cast<size_t>(tokens_ * kv_cols));
    value_.resize(key_.size());

    normalize(layer.attention_norm);
    layer.query->forward(normed_.data(), tokens_, query_.data(), *executor_);
    layer.key->forward(normed_.data(), tokens_, key_.data(), *executor_);
    layer.value->forward(normed_.data(), tokens_, value_.data(), *executor_);
    for_tokens([&](int64_t token) {
      prepare_heads(layer, gqa, gqa.heads, layer.query_norm, token, query_.data() + token * q_cols);
      prepare_heads(layer, gqa, gqa.kv_heads, layer.key_norm, token, key_.data() + token * kv_cols);
      store(index, gqa, token);
    });
    attend(attention_items(segments_, gqa), index, spec, query_.data(), attended_.data(), *executor_);
    layer.output->forward(attended_.data(), tokens_, normed_.data(), *executor_);
    add_residual();
  }

  /// QK norm and rotation of the heads of one token.
  void prepare_heads(const Layer& layer, const arch::GqaSpec& gqa, int64_t heads, const std::vector<float>& norm,
                     int64_t token, float* data) const {
    const int64_t position = positions_[static_cast<size_t>(token)].second;
    const auto normalize_heads = [&] {
      kernels::rms_norm_forward(data, norm.data(), epsilon(), heads, gqa.head_dim, data, serial_executor());
    };
    if (gqa.qk_norm == arch::QkNorm::before_rope) normalize_heads();
    kernels::rope(data, layer.rope->cos(position), layer.rope->sin(position), 1, 1, heads, gqa.head_dim,
                  layer.rope->half(), false, data, serial_executor());
    if (gqa.qk_norm == arch::QkNorm::after_rope) normalize_heads();
  }

  /// Puts a token's keys and values into its sequence's cache.
  void store(int64_t layer, const arch::GqaSpec& gqa, int64_t token) {
    const auto [segment, position] = positions_[static_cast<size_t>(token)];
    auto& cache = *segments_[static_cast<size_t>(segment)].cache;
    const int64_t dim = gqa.head_dim, offset = token * gqa.kv_heads * dim;
    for (int64_t head = 0; head < gqa.kv_heads; ++head) {
      std::copy_n(key_.data() + offset + head * dim, dim, cache.keys(layer, head) + position * dim);
      std::copy_n(value_.data() + offset + head * dim, dim, cache.values(layer, head) + position * dim);
    }
  }

  void run_mlp(const Layer& layer) {
    const int64_t cols = layer.gate->rows();
    gate_.resize(static_cast<size_t>(tokens_ * cols));
    up_.resize(gate_.size());
    normalize(layer.mlp_norm);
    layer.gate->forward(normed_.data(), tokens_, gate_.data(), *executor_);
    layer.up->forward(normed_.data(), tokens_, up_.data(), *executor_);
    kernels::swiglu_forward(gate_.data(), up_.data(), tokens_ * cols, gate_.data(), *executor_);
    layer.down->forward(gate_.data(), tokens_, normed_.data(), *executor_);
    add_residual();
  }

  void give_logits(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices, LogitsFor which,
                   const LogitsSink& logits) {
    normalize(final_norm_);
    wanted_.clear();
    for (size_t i = 0; i < slices.size(); ++i) {
      const auto& segment = segments_[i];
      const auto total = static_cast<int64_t>(inputs[static_cast<size_t>(slices[i].sequence)].tokens.size());
      const bool ends = slices[i].begin + slices[i].count == total;
      const int64_t from = which == LogitsFor::all ? 0 : ends ? segment.count - 1 : segment.count;
      for (int64_t t = from; t < segment.count; ++t) {
        wanted_.push_back({slices[i].sequence, segment.position + t, segment.first + t});
      }
    }
    const auto step = static_cast<size_t>(std::clamp<int64_t>(kLogitFloats / spec_.vocab_size, 1, kTokensPerPass));
    for (size_t begin = 0; begin < wanted_.size(); begin += step) {
      give_some_logits(begin, std::min(begin + step, wanted_.size()), logits);
    }
  }

  void give_some_logits(size_t begin, size_t end, const LogitsSink& logits) {
    const auto hidden = static_cast<size_t>(spec_.hidden_size), vocab = static_cast<size_t>(spec_.vocab_size);
    head_input_.clear();
    for (size_t i = begin; i < end; ++i) {
      const auto row = normed_.begin() + wanted_[i].token * spec_.hidden_size;
      head_input_.insert(head_input_.end(), row, row + static_cast<int64_t>(hidden));
    }
    logits_.resize((end - begin) * vocab);
    head_->forward(head_input_.data(), static_cast<int64_t>(end - begin), logits_.data(), *executor_);
    for (size_t i = begin; i < end; ++i) {
      logits(wanted_[i].sequence, wanted_[i].position, {logits_.data() + (i - begin) * vocab, vocab});
    }
  }

  /// normed = norm(hidden)
  void normalize(const std::vector<float>& weight) {
    kernels::rms_norm_forward(hidden_.data(), weight.data(), epsilon(), tokens_, spec_.hidden_size, normed_.data(),
                              *executor_);
  }
  float epsilon() const { return static_cast<float>(spec_.rms_norm_eps); }
  /// hidden += normed (which then holds the output of a block)
  void add_residual() {
    for (size_t i = 0; i < hidden_.size(); ++i) hidden_[i] += normed_[i];
  }
  template <class Body>
  void for_tokens(const Body& body) {
    executor_->run(tokens_, kTokenGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; ++token) body(token);
    });
  }

  struct Wanted {
    int64_t sequence, position, token;
  };

  arch::DecoderSpec spec_;
  std::shared_ptr<Executor> executor_;
  LinearMaker make_linear_;
  std::vector<float> embedding_, final_norm_;
  std::vector<Layer> layers_;
  std::unique_ptr<Linear> head_;

  // Of the pass that runs. The activations are [tokens, ...].
  int64_t tokens_ = 0;
  std::vector<Segment> segments_;
  std::vector<std::pair<int64_t, int64_t>> positions_;  // of each token: segment and position in its sequence
  std::vector<float> hidden_, normed_, query_, key_, value_, attended_, gate_, up_, head_input_, logits_;
  std::vector<Wanted> wanted_;
};

}  // namespace

std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, std::shared_ptr<Executor> executor,
                                      const LinearMaker& make_linear) {
  return std::make_unique<FloatDecoder>(checkpoint, std::move(executor), make_linear);
}

}  // namespace crumb::runtime
