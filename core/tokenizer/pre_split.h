// The "pre_tokenizer" of tokenizer.json, and the splits that GGUF knows by name (tokenizer.ggml.pre): cuts a text into
// the pieces that merges never cross.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/regex.h"
#include "core/tokenizer/split_scanner.h"

namespace crumb::tokenizer {

/// What becomes of the matches of a pattern, as the `tokenizers` package names it.
enum class SplitBehavior { isolated, removed, merged_with_previous, merged_with_next, contiguous };

/// A pattern that matches the literal text.
std::string escape_pattern(std::string_view literal);

/// One cut; applied only to the pieces that the steps before it left.
struct SplitStep {
  std::string pattern;  // Oniguruma
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;  // the stretches between the matches count as the matches
};

/// SentencePiece's marks for spaces.
struct Metaspace {
  enum class Prepend { never, first, always };
  std::string replacement = "\xe2\x96\x81";  // U+2581
  Prepend prepend = Prepend::always;         // before a text that does not begin with it; first: at the very start only
  bool split = true;                         // a piece begins at every mark
};

struct PreSplit {
  UnicodeTables tables = UnicodeTables::newest;
  bool prefix_space = false;  // ByteLevel's add_prefix_space
  std::optional<Metaspace> metaspace;
  std::vector<SplitStep> steps;
};

class PreSplitter {
 public:
  /// use_scanners = false: regular expressions only, the oracle of the scanners.
  explicit PreSplitter(PreSplit description, bool use_scanners = true);

  const PreSplit& description() const { return description_; }

  /// Gives the pieces of `text` (valid UTF-8, not empty) out in order, some at a time. They are positions in the text
  /// given with them: `text` itself, or a copy where a space was added or replaced. at_start: `text` is the beginning
  /// of what the user gave.
  using Consumer = std::function<void(std::string_view text, std::span<const Span> pieces)>;
  void split(std::string_view text, bool at_start, const Consumer& consume) const;

 private:
  struct Step {
    SplitStep description;
    Scanner scanner;
    std::optional<Regex> regex;
  };
  void apply(const Step& step, std::string_view text, const std::vector<Span>& pieces, std::vector<Span>& out) const;

  PreSplit description_;
  std::vector<Step> steps_;
};

/// A split that llama.cpp has a name for.
struct NamedSplit {
  std::string name;
  std::vector<std::string> patterns;  // of the family's tokenizer.json: isolated, one after the other
  bool ignore_merges = false;
  bool nfc = false;      // the tokenizers of this family normalize; llama.cpp does not
  bool add_bos = false;  // llama.cpp's default where the file does not say
  std::vector<std::string> llamacpp =
      {};                     // what llama.cpp does under this name, if it is not the same; in Oniguruma's words
  bool approximated = false;  // and that cuts more than a few rare texts elsewhere
  /// What a GGUF of this name is split by.
  const std::vector<std::string>& as_llamacpp() const { return llamacpp.empty() ? patterns : llamacpp; }
};
/// The names understood in tokenizer.ggml.pre, the one to write first among equals.
const std::vector<NamedSplit>& named_splits();
const NamedSplit* find_named_split(std::string_view name);
/// Why a name that llama.cpp knows is not supported; "" for other names.
std::string reason_against_split(std::string_view name);
/// The name that stands for these steps, or nullptr. Where several do, one whose family normalizes as this tokenizer.
const NamedSplit* name_of_split(const PreSplit& split, bool ignore_merges, bool nfc);

}  // namespace crumb::tokenizer
