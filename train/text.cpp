#include "train/text.h"

#include <nlohmann/json.hpp>
#include <string>

#include "core/common/error.h"
#include "core/common/log.h"

namespace crumb::train {
namespace {

using Json = nlohmann::json;

std::string text_of_line(std::string_view line, const Path& path, int64_t number) {
  const Json json = Json::parse(line, nullptr, false);
  CRUMB_CHECK(json.is_object(), "{}:{}: not a JSON object; expected {{\"text\": \"...\"}} on every line", path.string(),
              number);
  CRUMB_CHECK(
      !json.contains("messages"),
      "{}:{}: chat data (\"messages\") cannot be trained on yet; write each conversation as {{\"text\": \"...\"}}",
      path.string(), number);
  const auto text = json.find("text");
  CRUMB_CHECK(text != json.end() && text->is_string(),
              "{}:{}: no \"text\"; expected {{\"text\": \"...\"}} on every line", path.string(), number);
  return text->get<std::string>();
}

/// Calls `piece` for the parts of `text` between separators.
void split(std::string_view text, std::string_view separator, const std::function<void(std::string_view)>& piece) {
  size_t begin = 0;
  while (begin <= text.size()) {
    const size_t end = separator.empty() ? std::string_view::npos : text.find(separator, begin);
    piece(text.substr(begin, end == std::string_view::npos ? end : end - begin));
    if (end == std::string_view::npos) return;
    begin = end + separator.size();
  }
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

void for_each_document(const Path& path, std::string_view separator,
                       const std::function<void(std::string_view)>& document) {
  const MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  int64_t documents = 0, line_number = 0;
  const auto give = [&](std::string_view text) {
    if (text.empty()) return;
    ++documents;
    document(text);
  };
  if (path.extension() == ".jsonl") {
    split(bytes, "\n", [&](std::string_view line) {
      ++line_number;
      if (!is_blank(line)) give(text_of_line(line, path, line_number));
    });
  } else {
    split(bytes, separator, give);
    constexpr size_t kLong = size_t{1} << 20;
    if (documents == 1 && !separator.empty() && bytes.size() >= kLong)
      log_warning("{}: the separator of documents does not occur in it (data.separator): one document of {} bytes",
                  path.string(), bytes.size());
  }
  CRUMB_CHECK(documents > 0, "{}: the text is empty", path.string());
}

}  // namespace crumb::train
