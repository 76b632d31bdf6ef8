// The walk of methods with activations: block by block, each on what the quantized blocks before it give.
#pragma once

#include <torch/torch.h>

#include <algorithm>
#include <functional>
#include <map>
#include <optional>

#include "core/common/thread_pool.h"
#include "model/block.h"
#include "ptq/activations.h"
#include "ptq/calibration.h"
#include "ptq/pruning.h"
#include "ptq/report.h"
#include "quant/activations.h"
#include "quant/checkpoint.h"
#include "quant/codes_folder.h"
#include "quant/quantized_tensor.h"

namespace crumb::ptq {

/// What became of a linear.
struct LinearResult {
  quant::QuantizedTensor codes;
  torch::Tensor masters;      // [rows, cols] float32: what the codes are nearest to
  torch::Tensor weight = {};  // [rows, cols] float32: what they stand for
  torch::Tensor gram = {};    // of its inputs (InputStatistics), which the report judges its outputs by
  double largest_input = 0;   // |x|
};

/// One block, while it is quantized.
struct BlockWork {
  int layer = 0;
  model::Block& block;                // float weights; a method replaces those it has quantized
  model::BlockContext context;        // as the shipped model computes: small tensors rounded
  torch::Tensor residual;             // [windows, tokens, hidden]: the block's input; afterwards its output
  torch::Tensor float_residual = {};  // the same where nothing is quantized; undefined: the method does not ask for it
  bool needs_output = true;           // false of the last block, after which nothing reads it
  int64_t windows_at_once = 1;        // batches of this size, in order, whoever computes: sums come out the same
  std::map<arch::Slot, quant::QuantFormat> formats;  // of the linears that are quantized
  ActivationMemory& memory;
  const quant::ActivationRounder* rounder = nullptr;  // of what quantized linears read; null: nothing is rounded
  PruningOptions pruning = {};
  std::map<arch::Slot, std::vector<uint8_t>> masks = {};  // [rows, cols], of linears that are pruned before rounding
  std::map<arch::Slot, LinearResult> results = {};        // to be filled: one for each of `formats`

  const std::shared_ptr<model::LinearModule>& linear(arch::Slot slot) const {
    return block.linears_by_id().at(arch::TensorId{slot, layer});
  }
  const std::string& name(arch::Slot slot) const;  // of the module, for messages
};

/// The float block of a layer, read from `source`, without gradients. `table`: tensor_table() of the model.
std::shared_ptr<model::Block> make_block(const arch::DecoderSpec& spec, int layer,
                                         const std::vector<arch::TensorDesc>& table, const model::TensorSource& source,
                                         const model::LinearFactory& make_linear = model::make_float_linear);

/// Work on a block that reads `residual`; nothing of it is quantized yet.
BlockWork make_work(int layer, model::Block& block, const torch::Tensor& residual, ActivationMemory& memory);

/// The residual stream before the first block, [windows, tokens, width]. row(token, out) gives a row of the embedding.
torch::Tensor embed(const CalibrationTokens& calibration, int64_t width, ActivationMemory& memory,
                    const std::function<void(int64_t token, float* out)>& row);

/// Calls body(begin, end) for the batches of `windows`, in order.
template <class Body>
void for_each_batch(int64_t windows, int64_t windows_at_once, const Body& body) {
  for (int64_t begin = 0; begin < windows; begin += windows_at_once)
    body(begin, std::min(begin + windows_at_once, windows));
}

class BlockMethod {
 public:
  virtual ~BlockMethod() = default;
  /// Fills work.results, leaves the quantized weights in work.block and, where work.needs_output, its output in
  /// work.residual. Nothing may depend on the number of threads but by the rounding of Torch's sums.
  virtual void quantize(BlockWork& work) const = 0;
  /// Whether it chooses masks itself where PruningOptions::is_joint().
  virtual bool prunes_jointly() const { return false; }
  /// Whether it looks at BlockWork::float_residual.
  virtual bool reads_float_prefix() const { return false; }
  /// Whether it may change norms or biases in this place of work.block; they are written as it leaves them.
  virtual bool changes(arch::Slot /*slot*/) const { return false; }
};

/// A block run group of linears by group of linears for all windows at once.
class GroupedPass {
 public:
  explicit GroupedPass(const BlockWork& work) : GroupedPass(work, work.residual) {}
  /// Of another stream through the same block, which becomes the block's output.
  GroupedPass(const BlockWork& work, const torch::Tensor& residual);

  bool is_done() const { return group_ == work_.block.groups().size(); }
  const std::vector<arch::Slot>& group() const { return work_.block.groups()[group_]; }
  /// What they read, [windows, tokens, cols].
  const torch::Tensor& input() const { return input_; }
  /// On to the next group, with the weights as they are now.
  void advance();

 private:
  /// state = step(begin, end) of every batch, into residual and input.
  template <class Step>
  void step_all(const Step& step);

  const BlockWork& work_;
  torch::Tensor residual_;
  size_t group_ = 0;
  torch::Tensor input_;
  std::map<int64_t, torch::Tensor> memory_;  // by width, one for each
};

/// look(group, what its linears read) for each group of the block as it is; work.residual stays the block's input.
void for_each_group(BlockWork& work,
                    const std::function<void(const std::vector<arch::Slot>& group, const torch::Tensor& input)>& look);

/// What is known of the inputs of a group of linears.
struct InputStatistics {
  torch::Tensor gram;        // [cols, cols] float32: mean of x x^T over tokens
  torch::Tensor drift = {};  // [cols, cols] float32: mean of (f - x)^T x, f what the float model reads; undefined
  torch::Tensor mean_abs, max_abs;  // [cols] float32: |x|; no token_cap
  double largest = 0;               // |x|
  int64_t capped_tokens = 0;
};
/// input [windows, tokens, cols]. token_cap > 0: a token whose energy is above that many medians of its batch counts
/// as one of that energy. The Gram matrix is that of what the linears read: rounded, if there is a rounder.
/// float_input [windows, tokens, cols]: the inputs of the float model, for `drift`. UserError naming `where` for those
/// that are not finite.
InputStatistics measure_inputs(const torch::Tensor& input, int64_t windows_at_once, double token_cap,
                               const std::string& where, const quant::ActivationRounder* rounder = nullptr,
                               const torch::Tensor& float_input = {});
/// x [..., cols] float32 as quantized linears read it; the gradient passes unchanged.
torch::Tensor rounded(const torch::Tensor& x, const quant::ActivationRounder& rounder);

/// Methods that round linear by linear, looking at what they read: each group on the inputs that the quantized groups
/// before it give.
class LinearMethod : public BlockMethod {
 public:
  explicit LinearMethod(double token_cap) : token_cap_(token_cap) {}
  void quantize(BlockWork& work) const final;

 protected:
  /// Rounds linears that share an input: w by slot. Gives codes and masters. The weights that work.masks prunes are
  /// still there, and must become 0 in both.
  virtual std::map<arch::Slot, LinearResult> round(const BlockWork& work, const std::map<arch::Slot, torch::Tensor>& w,
                                                   const InputStatistics& inputs) const = 0;

 private:
  double token_cap_;
};

/// sum over tokens |x (w - q)^T|^2 and |x w^T|^2, each by the number of tokens. w, q [rows, cols].
OutputError output_error(const torch::Tensor& w, const torch::Tensor& q, const torch::Tensor& gram);

/// w [rows, cols] with zeros where the mask has them.
torch::Tensor masked(const torch::Tensor& w, const std::vector<uint8_t>& mask);
torch::Tensor dequantized(const quant::QuantizedTensor& codes);
/// Puts the dequantized codes in the place of a linear's weight. A linear of the walk rounds what it reads from then
/// on, where the job rounds activations.
void replace_weight(model::LinearModule& linear, const quant::QuantizedTensor& codes);

/// Fills `folder` as walk_rows() does, by `method` and its activations; the inputs of quantized linears are those of
/// `activations`, where there are any. UserError naming the linear whose inputs are not finite.
QuantizeReport walk_blocks(const quant::Checkpoint& model, quant::CodesFolder& folder, const BlockMethod& method,
                           const CalibrationTokens& calibration, const PruningOptions& pruning,
                           const std::optional<quant::ActivationFormat>& activations, ActivationMemory& memory,
                           ThreadPool& pool, InputSquares squares = InputSquares::left_out);

}  // namespace crumb::ptq
