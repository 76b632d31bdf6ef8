#include "runtime/computed_text.h"

#include <algorithm>

#include "core/common/error.h"
#include "runtime/prompt_cache.h"

namespace crumb::runtime {
namespace {

constexpr size_t kTokensPerStep = 512;  // of a long text, between two looks at `stop`

}  // namespace

size_t ComputedText::go_on(std::span<const TokenId> text, const std::atomic<bool>* stop) {
  CRUMB_ASSERT(!text.empty());
  const auto apart = std::mismatch(text.begin(), text.end() - 1, tokens_.begin(), tokens_.end()).first;
  const auto known = static_cast<size_t>(apart - text.begin());
  truncate(known);
  state_->reserve(static_cast<int64_t>(text.size()));  // what there is no memory for is said before hours of work
  while (size() < text.size() && (stop == nullptr || !*stop)) {
    const auto step = text.subspan(size(), std::min(text.size() - size(), kTokensPerStep));
    const SequenceInput input{state_.get(), step};
    decoder_.forward({&input, 1}, LogitsFor::last,
                     [this](int64_t, int64_t, std::span<const float> row) { logits_.assign(row.begin(), row.end()); });
    tokens_.insert(tokens_.end(), step.begin(), step.end());
  }
  return known;
}

void ComputedText::append(std::span<const TokenId> tokens,
                          const std::function<void(size_t, std::span<const float>)>& logits) {
  const auto before = static_cast<int64_t>(size());
  const SequenceInput input{state_.get(), tokens};
  decoder_.forward({&input, 1}, LogitsFor::all, [&](int64_t, int64_t position, std::span<const float> row) {
    logits(static_cast<size_t>(position - before), row);
  });
  tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void ComputedText::truncate(size_t size) {
  state_->truncate(static_cast<int64_t>(size));
  tokens_.resize(size);
}

void ComputedText::save(const Path& path, const std::string& model, int64_t length) const {
  const auto count = std::min(size(), static_cast<size_t>(length));
  save_prompt_cache(path, *state_, std::span(tokens_).first(count), model);
}

void ComputedText::load(const Path& path, const std::string& model) {
  auto state = decoder_.new_state();
  tokens_ = load_prompt_cache(path, decoder_, *state, model);
  state_ = std::move(state);
}

}  // namespace crumb::runtime
