#include "eval/documents.h"

#include <nlohmann/json.hpp>
#include <sstream>
#include <string_view>

#include "core/common/error.h"

namespace crumb::eval {
namespace {

std::vector<std::string> split(std::string_view text, std::string_view separator) {
  std::vector<std::string> documents;
  for (;;) {
    const size_t end = separator.empty() ? std::string_view::npos : text.find(separator);
    if (const auto document = text.substr(0, end); !document.empty()) documents.emplace_back(document);
    if (end == std::string_view::npos) return documents;
    text.remove_prefix(end + separator.size());
  }
}

std::string text_of_line(const std::string& line, const std::string& where) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  CRUMB_CHECK(json.is_object(), "{}: not a JSON object; each line of a .jsonl text is {{\"text\": \"...\"}}", where);
  CRUMB_CHECK(!json.contains("messages"),
              "{}: chat messages cannot be evaluated; give plain documents, {{\"text\": \"...\"}}", where);
  const auto text = json.find("text");
  CRUMB_CHECK(text != json.end() && text->is_string(),
              "{}: no \"text\"; each line of a .jsonl text is {{\"text\": \"...\"}}", where);
  return text->get<std::string>();
}

std::vector<std::string> read_json_lines(const Path& path, const std::string& text) {
  std::vector<std::string> documents;
  int64_t number = 0;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    auto document = text_of_line(line, fmt::format("{}:{}", path.string(), number));
    if (!document.empty()) documents.push_back(std::move(document));
  }
  return documents;
}

}  // namespace

std::vector<std::string> read_documents(const Path& path, const std::string& separator) {
  const std::string text = read_text(path);
  auto documents = path.extension() == ".jsonl" ? read_json_lines(path, text) : split(text, separator);
  CRUMB_CHECK(!documents.empty(), "{}: the text is empty", path.string());
  return documents;
}

}  // namespace crumb::eval
