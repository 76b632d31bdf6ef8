// Regular expressions of tokenizer.json (Oniguruma, Ruby syntax), run by PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::tokenizer {

/// Bytes [begin, end) of a text.
struct Span {
  size_t begin = 0, end = 0;
  bool operator==(const Span&) const = default;
};

class Regex {
 public:
  /// Throws UserError for a pattern that does not compile or that uses what PCRE2 reads differently (set operations in
  /// brackets).
  explicit Regex(const std::string& oniguruma_pattern);

  /// Appends matches from left to right without overlap; empty matches are left out. `text` must be valid UTF-8.
  /// Thread-safe. Anchors and lookarounds see `text` only.
  void find_all(std::string_view text, std::vector<Span>& matches) const;

  /// The same for many short texts, with one match buffer; for one thread. The Regex must outlive it.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;
    void find_all(std::string_view text, std::vector<Span>& matches) const;

   private:
    struct Data;
    std::unique_ptr<Data> data_;
  };

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

/// The same expression for PCRE2: \s, \w and \h spelled out as Oniguruma's sets. Exposed for tests.
std::string to_pcre2(std::string_view oniguruma_pattern);

}  // namespace crumb::tokenizer
