// The "normalizer" of tokenizer.json: Unicode normal forms, prepended and replaced strings, lower case.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/regex.h"

namespace crumb::tokenizer {

struct NormalizerStep {
  enum class Kind { nfc, nfd, nfkc, nfkd, lowercase, prepend, replace };
  Kind kind = Kind::nfc;
  std::string pattern;         // replace: a literal string, unless `regex` is set
  std::string content;         // prepend, replace
  std::optional<Regex> regex;  // replace
};

struct Normalizer {
  std::vector<NormalizerStep> steps;

  /// `text` itself where no step applies, else the result in `storage`. An empty text stays empty.
  std::string_view apply(std::string_view text, std::string& storage) const;
};

}  // namespace crumb::tokenizer
