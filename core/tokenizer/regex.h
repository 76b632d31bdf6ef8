// Regular expressions of tokenizer.json, run by Oniguruma as the `tokenizers` package does.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {

/// Bytes [begin, end) of a text.
struct Span {
  size_t begin = 0, end = 0;
  bool operator==(const Span&) const = default;
};

/// ruby: Oniguruma's own, which tokenizer.json is written in. python: of Python's `re`.
enum class RegexSyntax { ruby, python };

class Regex {
 public:
  /// Throws UserError for a pattern that does not compile, or is longer than 64 KiB.
  explicit Regex(const std::string& pattern, UnicodeTables tables = UnicodeTables::newest,
                 RegexSyntax syntax = RegexSyntax::ruby);

  /// Appends the matches from left to right without overlap, empty ones too, except where the last match ended. `text`
  /// must be valid UTF-8. Anchors and lookarounds see `text` only. RunError where a match takes more steps than
  /// Oniguruma allows, or more memory than fits the text. Thread-safe.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

  /// The matches of Python's re.finditer, each with its groups, the whole match first; a group that took no part is
  /// empty. An empty match may stand where the last one ended. Errors as of find_all().
  std::vector<std::vector<Span>> find_groups(std::string_view text) const;

  /// find_all() for many short texts, with one match buffer; for one thread. The Regex must outlive it.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;
    void find_all(std::string_view text, std::vector<Span>& matches);

   private:
    friend class Regex;
    struct Data;
    std::unique_ptr<Data> data_;
  };

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace crumb::tokenizer
