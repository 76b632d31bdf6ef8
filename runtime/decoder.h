// The decoder that runs models, no Torch. Built from any checkpoint; sequences keep their attention state in a
// SequenceState.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/arch/decoder_spec.h"
#include "core/common/thread_pool.h"
#include "core/tokenizer/tokenizer.h"
#include "quant/checkpoint.h"
#include "runtime/linear.h"

namespace crumb::runtime {

using tokenizer::TokenId;

/// What the model remembers of one sequence. Belongs to the decoder that made it.
class SequenceState {
 public:
  virtual ~SequenceState() = default;
  virtual int64_t length() const = 0;  // positions seen
  /// Forgets positions from `length` on, 0 <= length <= length(): what follows is computed as if they had not been.
  virtual void truncate(int64_t length) = 0;
  void clear() { truncate(0); }
  /// Makes room for `length` positions at once; a pass that needs more makes it itself. RunError that says how much
  /// memory it takes, before any is taken, where there is less.
  virtual void reserve(int64_t length) = 0;
  /// A copy that goes on by itself: candidates of a speculation, prompts that begin alike, several continuations.
  virtual std::unique_ptr<SequenceState> fork() const = 0;
  virtual int64_t bytes() const = 0;  // of memory held, with room for positions to come
};

/// How sequences hold their keys and values: as they are, or rounded to half of the bytes, or to bytes with a scale for
/// each head of a position.
enum class CacheType { f32, f16, q8 };

/// Where passes spend their time: in linears, with what they do to their inputs, and in attention, which is products
/// with keys and values and the softmax between. The rest is norms, activations, rotations, logits that are handed out.
struct PassSeconds {
  double linears = 0, attention = 0;
};

/// Tokens to append to one sequence, and which of their positions need logits.
struct SequenceInput {
  SequenceState* state = nullptr;
  std::span<const TokenId> tokens;
};

enum class LogitsFor { all, last };

class Decoder {
 public:
  virtual ~Decoder() = default;
  virtual const arch::DecoderSpec& spec() const = 0;
  virtual std::unique_ptr<SequenceState> new_state() const = 0;
  /// Of the whole model; a pass of one token reads one row of the embedding.
  virtual WeightBytes weight_bytes() const = 0;
  /// Of all passes so far.
  virtual PassSeconds seconds() const = 0;

  /// Appends tokens to several sequences in one pass (prefill, decoding of a batch, scoring). Calls `logits(sequence,
  /// position, row)` for each wanted position, in order, with vocab_size floats valid during the call only: logits
  /// never exist for all tokens at once.
  using LogitsSink = std::function<void(int64_t sequence, int64_t position, std::span<const float> logits)>;
  virtual void forward(std::span<const SequenceInput> inputs, LogitsFor which, const LogitsSink& logits) = 0;
};

/// UserError: vocabulary, shapes or values that do not fit. `make_linear`: asked for the groups of each layer, the
/// embedding and the head (make_linears()). `cache`: of new_state(). `stores`: of what make_linear does not make.
std::unique_ptr<Decoder> load_decoder(const quant::Checkpoint& checkpoint, std::shared_ptr<Executor> executor,
                                      const LinearMaker& make_linear = nullptr, CacheType cache = CacheType::f32,
                                      const WeightStores& stores = {});

}  // namespace crumb::runtime
