#include "runtime/decoder.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "core/common/error.h"
#include "core/common/progress.h"
#include "kernels/rms_norm.h"
#include "kernels/rope.h"
#include "kernels/swiglu.h"
#include "runtime/attention.h"
#include "runtime/kv_cache.h"
#include "runtime/passes.h"
#include "runtime/rope_table.h"

namespace crumb::runtime {
namespace {

using arch::Slot;

constexpr int64_t kTokensPerPass = 512;  // bounds the activations; more tokens at once are not faster
constexpr int64_t kTokenGrain = 4;       // tokens a thread takes of elementwise work

using Floats = std::shared_ptr<const std::vector<float>>;

struct Layer {
  Floats attention_norm, mlp_norm, query_norm, key_norm;
  std::unique_ptr<LinearGroup> query_key_value, output, gate_up, down;
  std::shared_ptr<RopeTable> rope;
};

class FloatDecoder : public Decoder {
 public:
  FloatDecoder(const quant::Checkpoint& checkpoint, std::shared_ptr<Executor> executor, const LinearMaker& make_linear,
               CacheType cache, const WeightStores& stores)
      : spec_(checkpoint.spec()), executor_(std::move(executor)), cache_(cache) {
    if (stores.pool != nullptr) stores.pool->begin_model();
    const Loader loader{checkpoint, make_linear, stores, *executor_};
    for (int i = 0; i < static_cast<int>(spec_.num_layers()); ++i) layers_.push_back(load_layer(loader, i));
    final_norm_ = loader.floats(checkpoint.tensor({Slot::final_norm}));
    embedding_ = loader.make(-1, {Slot::embedding});
    if (!spec_.tied_head) head_ = loader.make(-1, {Slot::head});
  }

  const arch::DecoderSpec& spec() const override { return spec_; }
  std::unique_ptr<SequenceState> new_state() const override { return std::make_unique<KvCache>(spec_, cache_); }
  WeightBytes weight_bytes() const override {
    WeightBytes bytes = head().weight_bytes();
    const int64_t embedding = embedding_->weight_bytes().held;
    bytes += {spec_.tied_head ? 0 : embedding, embedding / spec_.vocab_size};
    const auto add_norm = [&](const Floats& norm) {
      if (norm != nullptr) bytes += {bytes_of(*norm), bytes_of(*norm)};
    };
    add_norm(final_norm_);
    for (const auto& layer : layers_) {
      for (const auto* norm : {&layer.attention_norm, &layer.mlp_norm, &layer.query_norm, &layer.key_norm})
        add_norm(*norm);
      for (const auto* group : {&layer.query_key_value, &layer.output, &layer.gate_up, &layer.down})
        bytes += (*group)->weight_bytes();
    }
    return bytes;
  }
  PassSeconds seconds() const override { return seconds_; }

  void forward(std::span<const SequenceInput> inputs, LogitsFor which, const LogitsSink& logits) override {
    for (const auto& input : inputs) check_input(input);
    for (const auto& pass : cut_into_passes(inputs, kTokensPerPass)) run_pass(inputs, pass, which, logits);
  }

 private:
  /// What a model is made of.
  struct Loader {
    const quant::Checkpoint& checkpoint;
    const LinearMaker& make_linear;
    const WeightStores& stores;
    Executor& executor;

    Floats floats(const quant::StoredTensor& tensor) const {
      return hold_in(stores.pool.get(), quant::read_all(checkpoint, tensor));
    }
    std::unique_ptr<LinearGroup> make(int layer, std::initializer_list<Slot> slots) const {
      return make_linears(checkpoint, linear_tensors(checkpoint, layer, slots), make_linear, stores, executor);
    }
  };

  /// A tied head is the embedding.
  const LinearGroup& head() const { return spec_.tied_head ? *embedding_ : *head_; }

  Layer load_layer(const Loader& loader, int index) const {
    const auto norm = [&](Slot slot) {
      const auto* tensor = loader.checkpoint.find({slot, index});
      return tensor != nullptr ? loader.floats(*tensor) : nullptr;
    };
    Layer layer;
    layer.attention_norm = norm(Slot::attention_norm);
    layer.mlp_norm = norm(Slot::ffn_norm);
    layer.query_norm = norm(Slot::q_norm);
    layer.key_norm = norm(Slot::k_norm);
    layer.query_key_value = loader.make(index, {Slot::q, Slot::k, Slot::v});
    layer.output = loader.make(index, {Slot::o});
    layer.gate_up = loader.make(index, {Slot::gate, Slot::up});
    layer.down = loader.make(index, {Slot::down});
    layer.rope = rope_table(index, spec_.layers[static_cast<size_t>(index)].rope);
    return layer;
  }

  /// Neighbours with the same rotary embedding share a table.
  std::shared_ptr<RopeTable> rope_table(int64_t index, const arch::RopeSpec& rope) const {
    if (index > 0 && spec_.layers[static_cast<size_t>(index - 1)].rope == rope) return layers_.back().rope;
    return std::make_shared<RopeTable>(rope);
  }

  void check_input(const SequenceInput& input) const {
    CRUMB_ASSERT(dynamic_cast<const KvCache*>(input.state) != nullptr);
    check_text(input, spec_);
  }

  void run_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices, LogitsFor which,
                const LogitsSink& logits) {
    start_pass(inputs, slices);
    for (size_t i = 0; i < layers_.size(); ++i) {
      run_attention(static_cast<int64_t>(i));
      run_mlp(layers_[i], spec_.layers[i].mlp().intermediate);
    }
    list_wanted(inputs, slices, which, wanted_);
    for (const auto& segment : segments_) segment.cache->set_length(segment.position + segment.count);
    give_logits(logits);
  }

  /// Room in the caches, positions, embeddings.
  void start_pass(std::span<const SequenceInput> inputs, const std::vector<Slice>& slices) {
    segments_.clear();
    positions_.clear();
    ids_.clear();
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
        ids_.push_back(input.tokens[static_cast<size_t>(slice.begin + i)]);
      }
    }
    tokens_ = static_cast<int64_t>(positions_.size());
    for (auto& layer : layers_) layer.rope->grow(longest);
    hidden_.resize(static_cast<size_t>(tokens_ * spec_.hidden_size));
    normed_.resize(hidden_.size());
    for_tokens([&](int64_t token) {
      embedding_->read_row(ids_[static_cast<size_t>(token)], hidden_.data() + token * spec_.hidden_size);
    });
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

    multiply_normed(*layer.query_key_value, layer.attention_norm, {query_.data(), key_.data(), value_.data()});
    for_tokens([&](int64_t token) {
      prepare_heads(layer, gqa, gqa.heads, layer.query_norm, token, query_.data() + token * q_cols);
      prepare_heads(layer, gqa, gqa.kv_heads, layer.key_norm, token, key_.data() + token * kv_cols);
      store(index, gqa, token);
    });
    const Stopwatch watch;
    list_attention_items(segments_, gqa, items_);
    attend(items_, index, spec, query_.data(), attended_.data(), *executor_);
    seconds_.attention += watch.seconds();
    multiply(*layer.output, attended_, {normed_.data()});
    add_residual();
  }

  /// QK norm and rotation of the heads of one token.
  void prepare_heads(const Layer& layer, const arch::GqaSpec& gqa, int64_t heads, const Floats& norm, int64_t token,
                     float* data) const {
    const int64_t position = positions_[static_cast<size_t>(token)].second;
    const auto normalize_heads = [&] {
      kernels::rms_norm_forward(data, norm->data(), epsilon(), heads, gqa.head_dim, data, serial_executor());
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
      cache.put(layer, head, position, key_.data() + offset + head * dim, value_.data() + offset + head * dim);
    }
  }

  void run_mlp(const Layer& layer, int64_t cols) {
    gate_.resize(static_cast<size_t>(tokens_ * cols));
    up_.resize(gate_.size());
    multiply_normed(*layer.gate_up, layer.mlp_norm, {gate_.data(), up_.data()});
    kernels::swiglu_forward(gate_.data(), up_.data(), tokens_ * cols, gate_.data(), *executor_);
    multiply(*layer.down, gate_, {normed_.data()});
    add_residual();
  }

  void give_logits(const LogitsSink& logits) {
    kernels::rms_norm_forward(hidden_.data(), final_norm_->data(), epsilon(), tokens_, spec_.hidden_size,
                              normed_.data(), *executor_);
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
    float* const output = logits_.data();
    run_linears(head(), head_input_.data(), static_cast<int64_t>(end - begin), {&output, 1});
    for (size_t i = begin; i < end; ++i) {
      logits(wanted_[i].sequence, wanted_[i].position, {logits_.data() + (i - begin) * vocab, vocab});
    }
  }

  /// All tokens of the pass.
  void multiply(const LinearGroup& group, const std::vector<float>& x, std::initializer_list<float*> outputs) {
    run_linears(group, x.data(), tokens_, {outputs.begin(), outputs.size()});
  }
  /// Of norm(hidden).
  void multiply_normed(const LinearGroup& group, const Floats& norm, std::initializer_list<float*> outputs) {
    const Stopwatch watch;
    group.forward_normed(hidden_.data(), {*norm, epsilon()}, tokens_, {outputs.begin(), outputs.size()}, *executor_);
    seconds_.linears += watch.seconds();
  }
  /// Two looks at the clock a group are nothing beside it.
  void run_linears(const LinearGroup& group, const float* x, int64_t tokens, std::span<float* const> outputs) {
    const Stopwatch watch;
    group.forward(x, tokens, outputs, *executor_);
    seconds_.linears += watch.seconds();
  }
  float epsilon() const { return static_cast<float>(spec_.rms_norm_eps); }
  /// hidden += normed (which then holds the output of a block)
  void add_residual() {
    for_tokens([&](int64_t token) {
      float* const sum = hidden_.data() + token * spec_.hidden_size;
      const float* const addend = normed_.data() + token * spec_.hidden_size;
      for (int64_t i = 0; i < spec_.hidden_size; ++i) sum[i] += addend[i];
    });
  }
  template <class Body>
  void for_tokens(const Body& body) {
    executor_->run(tokens_, kTokenGrain, [&](int64_t begin, int64_t end, int) {
      for (int64_t token = begin; token < end; ++token) body(token);
    });
  }

  arch::DecoderSpec spec_;
  std::shared_ptr<Executor> executor_;
  Floats final_norm_;
  std::vector<Layer> layers_;
  std::unique_ptr<LinearGroup> embedding_, head_;  // no head where the embedding is it
  CacheType cache_;
  PassSeconds seconds_;  // of all passes

  // Of the pass that runs; kept for the next, so that decoding allocates nothing large. The activations are [tokens,
  // ...].
  int64_t tokens_ = 0;
  std::vector<Segment> segments_;
  std::vector<AttentionItem> items_;
  std::vector<std::pair<int64_t, int64_t>> positions_;  // of each token: segment and position in its sequence
  std::vector<TokenId> ids_;
  std::vector<float> hidden_, normed_, query_, key_, value_, attended_, gate_, up_, head_input_, logits_;
  std::vector<Wanted> wanted_;
};

}  // namespace

std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, std::shared_ptr<Executor> executor,
                                      const LinearMaker& make_linear, CacheType cache, const WeightStores& stores) {
  return std::make_unique<FloatDecoder>(checkpoint, std::move(executor), make_linear, cache, stores);
}

}  // namespace crumb::runtime
