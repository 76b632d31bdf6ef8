#include "ptq/calibration.h"

#include <algorithm>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/common/quantity.h"
#include "core/text/token_cache.h"
#include "core/text/windows.h"

namespace crumb::ptq {
namespace {

constexpr int64_t kUsualLength = 512;

int64_t window_length(const CalibrationOptions& options, const quant::Checkpoint& model) {
  const int64_t context = model.spec().context_length;
  return options.sequence_length.value_or(context > 0 ? std::min(kUsualLength, context) : kUsualLength);
}

}  // namespace

void check_calibration(const CalibrationOptions& options, const quant::Checkpoint& model) {
  CRUMB_CHECK(!options.text.empty(),
              "calibration.text: this method looks at activations; give a text, such as "
              "calibration.text=[corpus.txt]");
  const int64_t context = model.spec().context_length, length = window_length(options, model);
  CRUMB_CHECK(context <= 0 || length <= context, "calibration.sequence_length: {} is more than the {} of the model",
              length, context);
  CRUMB_CHECK(options.tokens.is_auto() || *options.tokens.value >= length,
              "calibration.tokens: {} are less than one window of {} (calibration.sequence_length)",
              options.tokens.value_or(0), length);
  for (const Path& text : options.text) {
    CRUMB_CHECK(is_there(text), "calibration.text: {} does not exist", text.string());
    CRUMB_CHECK(!is_folder(text), "calibration.text: {} is a folder; name the files in it", text.string());
  }
  CRUMB_CHECK(model.has_tokenizer(), "{}: has no tokenizer, which the calibration text needs", model.path().string());
}

CalibrationTokens read_calibration(const CalibrationOptions& options, const quant::Checkpoint& model,
                                   ThreadPool& pool) {
  check_calibration(options, model);
  const int64_t length = window_length(options, model);
  const auto tokenizer = model.load_tokenizer();
  const text::TextEncoder encoder{tokenizer.get(), text::tokenizer_identity(model.path())};
  const text::TokenFile file =
      text::open_token_file(options.text, options.separator, encoder,
                            text::token_cache_folder(temporary_folder() / "crumb-tokens"), pool.as_parallel_for());
  const int64_t there = file.num_tokens() / length;
  CRUMB_CHECK(there > 0, "calibration.text: {} tokens are less than one window of {}", file.num_tokens(), length);
  int64_t wanted = std::min(there, std::max<int64_t>(1, kUsualTokens / length));
  if (!options.tokens.is_auto()) {
    wanted = *options.tokens.value / length;
    CRUMB_CHECK(wanted <= there,
                "calibration.tokens: {} asked for, the texts have {} in windows of {}; give more text, or ask for less",
                *options.tokens.value, there * length, length);
  }
  CalibrationTokens out{.windows = wanted, .length = length, .ids = {}};
  for (const int64_t window : text::spread_evenly(there, wanted, text::Spread::parts)) {
    for (int64_t i = 0; i < length; ++i) out.ids.push_back(file.id(window * length + i));
  }
  log_info("calibration: {} windows of {} tokens, of {} tokens of text", out.windows, length,
           format_count(file.num_tokens()));
  return out;
}

}  // namespace crumb::ptq
