#include "eval/judged.h"

#include <fmt/ranges.h>

#include <set>

#include "eval/runtime_scorer.h"
#include "quant/checkpoint.h"
#include "quant/fingerprint.h"

namespace crumb::eval {
namespace {

std::string kind_name(quant::CheckpointKind kind) {
  switch (kind) {
    case quant::CheckpointKind::codes:
      return "codes and scales";
    case quant::CheckpointKind::gguf:
      return "GGUF";
    default:
      return "HF folder";
  }
}

bool is_embedding(const quant::StoredTensor& t) {
  return t.desc.role == arch::TensorRole::embedding || t.desc.role == arch::TensorRole::head;
}

// Bits per weight of the tensors that `pick` takes.
template <class Pick>
double bits_per_weight(const quant::Checkpoint& checkpoint, const Pick& pick) {
  int64_t bytes = 0, weights = 0;
  for (const auto& t : checkpoint.tensors()) {
    if (!pick(t)) continue;
    bytes += t.stored_bytes;
    weights += t.desc.elements();
  }
  return weights > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(weights) : 0.0;
}

std::string dtypes_of(const quant::Checkpoint& checkpoint, arch::TensorRole role) {
  std::set<std::string> names;
  for (const auto& t : checkpoint.tensors()) {
    if (t.desc.role == role) names.insert(t.dtype);
  }
  return fmt::format("{}", fmt::join(names, "+"));
}

ModelFacts facts_of(const quant::Checkpoint& checkpoint) {
  ModelFacts facts;
  facts.path = checkpoint.path();
  facts.kind = kind_name(checkpoint.kind());
  facts.fingerprint = quant::weights_fingerprint(checkpoint.path());
  for (const auto& t : checkpoint.tensors()) facts.parameters += t.desc.elements();
  facts.file_bytes = checkpoint.file_bytes();
  facts.bits_per_weight = bits_per_weight(checkpoint, [](const auto&) { return true; });
  facts.bits_per_weight_without_embeddings =
      bits_per_weight(checkpoint, [](const auto& t) { return !is_embedding(t); });
  facts.linear_dtypes = dtypes_of(checkpoint, arch::TensorRole::linear);
  facts.embedding_dtypes = dtypes_of(checkpoint, arch::TensorRole::embedding);
  facts.head_dtypes = dtypes_of(checkpoint, arch::TensorRole::head);
  return facts;
}

}  // namespace

Judged load_judged(const Path& path, const runtime::Precision& precision, const std::shared_ptr<ThreadPool>& pool) {
  const auto checkpoint = quant::open_checkpoint(path, *pool);
  Judged judged{facts_of(*checkpoint), checkpoint->load_tokenizer(), nullptr};
  quant::check_vocabulary(*checkpoint, *judged.tokenizer);
  judged.scorer = std::make_unique<RuntimeScorer>(runtime::load_decoder(*checkpoint, pool, precision));
  return judged;
}

}  // namespace crumb::eval
