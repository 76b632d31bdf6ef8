// The text that methods with activations look at.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/common/config.h"
#include "core/common/thread_pool.h"
#include "core/tokenizer/tokenizer.h"
#include "quant/checkpoint.h"

namespace crumb::ptq {

inline constexpr int64_t kUsualTokens = 64 * 1024;  // looked at where nothing is said

/// The section `calibration:` of a job.
struct CalibrationOptions {
  std::vector<Path> text = {};
  std::string separator = "\n\n\n";
  Auto<int64_t> tokens = {};
  Auto<int64_t> sequence_length = {};
  WordOr<double, "unlimited"> memory = {};
  std::optional<Path> imatrix = std::nullopt;

  template <class V>
  void visit(V& v) {
    v.field("text", text,
            "texts whose activations are measured: plain text cut at the separator, or JSON with {\"text\": ...}");
    v.field("separator", separator, "what stands between documents of a .txt; the model's EOS follows each document");
    v.field("tokens", tokens, "tokens of it, in windows spread evenly; auto: 64k, or all there are", {.min = 2});
    v.field("sequence_length", sequence_length, "tokens of a window; auto: 512, or what the model declares if less",
            {.min = 2});
    v.field("memory", memory,
            "gigabytes of activations held in memory; what is more lies in files beside the output while it works",
            {.min = 0});
    v.field("imatrix", imatrix,
            "also write what the quantized linears read, as an importance matrix of llama.cpp: the name of a .gguf");
  }
};

/// Windows of tokens, all of one length.
struct CalibrationTokens {
  int64_t windows = 0, length = 0;
  std::vector<tokenizer::TokenId> ids;  // [windows, length]
};

/// UserError: no text, a text that is missing, less than one window asked for, a sequence_length beyond the model's
/// context, a model without a tokenizer.
void check_calibration(const CalibrationOptions& options, const quant::Checkpoint& model);

/// UserError also for texts of fewer tokens than `tokens` asks for, saying how many there are, or than one window.
CalibrationTokens read_calibration(const CalibrationOptions& options, const quant::Checkpoint& model, ThreadPool& pool);

}  // namespace crumb::ptq
