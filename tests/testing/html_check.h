// Whether a page is well-formed: a parser of the XML that core/common/html.h says pages are.
#pragma once

#include <regex>
#include <string>
#include <vector>

namespace crumb::testing {

/// "" for a page whose every element is closed in order, whose attributes are quoted and whose references are known;
/// else what is wrong.
inline std::string html_fault(const std::string& page) {
  static const std::regex open(R"(^<([a-z][a-z0-9]*)((?:\s+[a-zA-Z][a-zA-Z0-9-]*=(?:'[^'<]*'|"[^"<]*"))*)\s*(/?)>)");
  static const std::regex close(R"(^</([a-z][a-z0-9]*)>)");
  static const std::regex reference(R"(^&(?:lt|gt|amp|quot|#[0-9]+);)");
  std::vector<std::string> inside;
  size_t at = page.starts_with("<!DOCTYPE html>") ? 15 : 0;
  while (at < page.size()) {
    const size_t next = page.find_first_of("<&", at);
    if (next == std::string::npos) break;
    if (!inside.empty() && inside.back() == "style" && page.compare(next, 8, "</style>") != 0) {
      at = next + 1;
      continue;
    }
    const std::string rest = page.substr(next, 20000);
    std::smatch match;
    if (std::regex_search(rest, match, reference)) {
    } else if (std::regex_search(rest, match, close)) {
      if (inside.empty() || inside.back() != match[1]) return "closes what is not open: " + rest.substr(0, 60);
      inside.pop_back();
    } else if (std::regex_search(rest, match, open)) {
      static const std::regex stray("&(?!(?:lt|gt|amp|quot|#[0-9]+);)");
      const std::string attributes = match[2];
      if (std::regex_search(attributes, stray)) return "a stray & in " + attributes.substr(0, 60);
      if (match[3] == "") inside.push_back(match[1]);
    } else {
      return "neither a tag nor a reference: " + rest.substr(0, 60);
    }
    at = next + static_cast<size_t>(match.length());
  }
  return inside.empty() ? "" : "not closed: " + inside.back();
}

}  // namespace crumb::testing
