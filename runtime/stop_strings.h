// Texts that end a generation, wherever the borders of tokens fall in them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace crumb::runtime {

/// Holds back what may become a stop string, so that no part of one is ever shown.
class StopStrings {
 public:
  /// None of them empty: UserError.
  explicit StopStrings(std::vector<std::string> stops);

  /// The next piece of the text; what may be shown of it and of what was held back. Behind a stop string nothing is.
  std::string push(std::string_view piece);
  /// The text ended: what is still held back, up to a stop string in it that a longer one had hidden.
  std::string finish();
  /// The stop string that came: the one that began first, of those the longest.
  const std::optional<std::string>& found() const { return found_; }

 private:
  /// Of those that `text` begins with.
  std::optional<std::string> longest_at(std::string_view text) const;

  std::vector<std::string> stops_;
  std::string held_;
  std::optional<std::string> found_;
};

}  // namespace crumb::runtime
