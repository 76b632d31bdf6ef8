// What training minimises. The trainer knows this interface only; distill/ holds the teacher-student losses.
//
// An objective never sees logits: it gets the final hidden states and the head, and makes logits for a few tokens at a
// time.
#pragma once

#include <torch/torch.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "model/head_loss.h"

namespace crumb::train {

/// One micro-batch. Position i of `ids` predicts `targets` at i.
struct Batch {
  torch::Tensor ids;      // [batch, tokens] int64
  torch::Tensor targets;  // [batch, tokens] int64, the next ids; any valid id where the mask is 0
  torch::Tensor mask;     // [batch, tokens] float32, 1 where the position is supervised, else 0; undefined: all are
  /// [batch, tokens] int64: the number of a token's document in its window, from 0, where documents are kept apart
  /// (Decoder::forward); undefined: a window is one text.
  torch::Tensor documents = {};

  /// Supervised positions.
  double num_supervised() const {
    return mask.defined() ? mask.sum(torch::kFloat64).item<double>() : static_cast<double>(ids.numel());
  }
  /// `count` windows from window `begin` on.
  Batch windows(int64_t begin, int64_t count) const {
    return {.ids = ids.narrow(0, begin, count),
            .targets = targets.narrow(0, begin, count),
            .mask = mask.defined() ? mask.narrow(0, begin, count) : torch::Tensor(),
            .documents = documents.defined() ? documents.narrow(0, begin, count) : torch::Tensor()};
  }
};

/// Loss of one micro-batch.
struct Loss {
  torch::Tensor total;  // scalar with gradient: sum over supervised positions / total_supervised
  std::map<std::string, double>
      parts;  // unweighted terms by their keys in a job ("kl", "hidden_mse", "cross_entropy"), divided alike
};

/// Sums over supervised positions, to be added over batches and divided by `tokens` once.
struct EvaluationSums {
  double tokens = 0;
  double cross_entropy = 0;  // nats
  double kl = 0;             // KL(teacher || student), nats, at temperature 1; 0 without a teacher
  double top1 = 0;  // positions where student and teacher have the same argmax (without a teacher: where the argmax is
                    // the target)

  EvaluationSums& operator+=(const EvaluationSums& other) {
    tokens += other.tokens;
    cross_entropy += other.cross_entropy;
    kl += other.kl;
    top1 += other.top1;
    return *this;
  }
};

class Objective {
 public:
  virtual ~Objective() = default;

  /// Layers whose hidden states loss() wants in DecoderOutput::hidden.
  virtual std::vector<int> wanted_layers() const { return {}; }
  virtual bool has_teacher() const { return false; }

  /// `total_supervised`: supervised positions of the whole optimizer step over all its micro-batches and processes, so
  /// that the losses and gradients of micro-batches add up to those of one batch. `head` [vocab, hidden] is
  /// Decoder::head_weight().
  virtual Loss loss(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head,
                    double total_supervised) = 0;
  /// Without gradients; needs no wanted layers.
  virtual EvaluationSums evaluate(const Batch& batch, const model::DecoderOutput& output,
                                  const torch::Tensor& head) = 0;
};

/// The student's side of a loss of logits.
model::HeadLossInput head_loss_input(const Batch& batch, const model::DecoderOutput& output, const torch::Tensor& head);

/// Plain next-token cross-entropy.
std::unique_ptr<Objective> make_cross_entropy();

}  // namespace crumb::train
