// The job of `crumb quantize`: quantization without training.
#pragma once

#include <variant>

#include "core/common/config.h"
#include "core/common/file.h"
#include "core/common/thread_pool.h"
#include "ptq/autoround.h"
#include "ptq/awq.h"
#include "ptq/blockwise.h"
#include "ptq/budget.h"
#include "ptq/calibration.h"
#include "ptq/gptq.h"
#include "ptq/hqq.h"
#include "ptq/pruning.h"
#include "ptq/quantize_plan.h"
#include "ptq/report.h"
#include "ptq/rotation.h"
#include "ptq/rtn.h"
#include "ptq/smoothquant.h"
#include "quant/activations.h"

namespace crumb::ptq {

struct QuantizeJob {
  Path model, output;
  RotationOptions rotation;
  PruningOptions pruning;
  std::variant<RtnMethod, HqqMethod, GptqMethod, AwqMethod, SmoothQuantMethod, AutoRoundMethod, BlockwiseMethod> method;
  quant::ActivationOptions activations;
  BudgetOptions budget;
  CalibrationOptions calibration;
  bool masters = false;

  template <class V>
  void visit(V& v) {
    v.field("model", model, "the HF folder or GGUF to quantize", {.required = true});
    v.field("output", output, "the folder to write: codes and scales", {.required = true});
    v.section("rotation", rotation, "Before the method: rotations that do not change what the model computes");
    v.section("pruning", pruning, "Weights that become zero, while the others are rounded by the method");
    v.section("method", method,
              "What becomes of the linears: rtn rounds them to nearest, hqq with scales that give up outliers, gptq "
              "with error feedback, awq and smoothquant after scaling channels by their inputs, autoround learns which "
              "way to round, "
              "blockwise trains each block after gptq");
    v.section(
        "activations", activations,
        "What becomes of the inputs of the quantized linears while the model runs: `crumb eval` and `generate` do "
        "it; files of other programs do not say it");
    v.section("budget", budget,
              "Bits of each linear chosen so that all take no more than this; measured on the calibration text before "
              "the method begins");
    v.section("calibration", calibration,
              "What the methods that look at activations see, and what a budget is chosen by");
    v.field("masters", masters,
            "also keep the weights that were rounded to the codes, in OUTPUT/masters: four bytes a weight, for `crumb "
            "train` to go on from");
  }
};

/// "rtn"
const char* method_name(const QuantizeJob& job);

/// Writes the codes-and-scales folder atomically, by way of OUTPUT.partial: a run that is killed, or whose disk is
/// full, leaves there what is done, and the same job goes on from it with the same result, bit for bit
/// (with as many threads, where a method looks at activations). UserError
/// before any work: a model that is quantized already, an output that exists (without `force`) or whose unfinished work
/// is another job's (with `force` that is thrown away), a group_size that does not divide a row (names the tensor);
/// while reading: NaN weights.
///
/// `calibration`: what methods that look at activations see in place of the job's text.
QuantizeReport quantize(const QuantizeJob& job, bool force, ThreadPool& pool,
                        const CalibrationTokens* calibration = nullptr);

/// What quantize() would make of the job; writes nothing. Its errors, so far as they show without reading weights and
/// texts.
QuantizePlan plan_quantize(const QuantizeJob& job, bool force);

}  // namespace crumb::ptq
