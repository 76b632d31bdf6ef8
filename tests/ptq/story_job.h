// A whole job of `crumb quantize` that takes a second, for the tests of each method.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "ptq/quantize.h"
#include "tests/runtime/golden.h"
#include "tests/testing/testing.h"

namespace crumb::testing {

/// Of stories260K-hf, calibrated on the first stories of a text: `tokens` in windows of 128.
inline ptq::QuantizeJob story_job(const Path& output, int64_t tokens) {
  ptq::QuantizeJob job;
  job.model = data("models/stories260K-hf");
  job.output = output;
  job.calibration.text = {data("text/tinystories-valid-sample/tinystories_valid_1911.txt")};
  job.calibration.separator = "<|endoftext|>";
  job.calibration.tokens = tokens;
  job.calibration.sequence_length = 128;
  return job;
}

/// The same by `method`, all linears in `format`.
template <class MethodOptions>
ptq::QuantizeJob story_job(const Path& output, int64_t tokens, MethodOptions method, const quant::QuantFormat& format) {
  ptq::QuantizeJob job = story_job(output, tokens);
  method.linears.grid = format.grid.facts().name;
  method.linears.bits = format.bits;
  method.linears.symmetric = format.symmetric;
  method.linears.group_size = format.group_size;
  if (format.has_minima) method.linears.zero_point = "float";
  job.method = std::move(method);
  return job;
}

/// Of any model, for some tokens.
inline std::vector<float> logits_of(const quant::Checkpoint& model) {
  std::vector<runtime::TokenId> ids;
  for (int64_t i = 0; i < 24; ++i) ids.push_back(static_cast<runtime::TokenId>((i * i + 3) % model.spec().vocab_size));
  return all_logits(*runtime::load_decoder(model, two_threads()), ids);
}

}  // namespace crumb::testing
