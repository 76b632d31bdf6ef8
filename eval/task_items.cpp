#include "eval/task_items.h"

#include <algorithm>
#include <cctype>

#include "core/common/error.h"
#include "core/common/hash.h"
#include "core/common/json.h"
#include "core/text/text_file.h"
#include "core/tokenizer/unicode.h"

namespace crumb::eval {
namespace {

using Json = nlohmann::ordered_json;

std::string_view text_of(const MappedFile& file) {
  return text::checked_text({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()},
                            file.path().string());
}

bool is_csv(const Path& path) {
  std::string end = path.extension().string();
  std::ranges::transform(end, end.begin(), [](unsigned char c) { return std::tolower(c); });
  return end == ".csv";
}

bool is_blank(std::string_view line) { return line.find_first_not_of(" \t\r") == std::string_view::npos; }

}  // namespace

ItemReader::ItemReader(const Path& path, std::vector<std::string> columns)
    : file_(path), text_(text_of(file_)), is_csv_(is_csv(path)), columns_(std::move(columns)) {
  skip_blank_lines();
  if (is_csv_ && columns_.empty() && at_ < text_.size()) columns_ = next_row();
  for (auto column = columns_.begin(); column != columns_.end(); ++column) {
    CRUMB_CHECK(!column->empty() && std::find(columns_.begin(), column, *column) == column,
                "{}: the columns are called {}: each needs a name of its own", path.string(),
                fmt::join(columns_, ", "));
  }
  CRUMB_CHECK(is_csv_ || at_ >= text_.size() || text_[at_] != '[',
              "{}:{}: a JSON list; write its items as JSON lines, an object each", path.string(), line_);
}

void ItemReader::skip_blank_lines() {
  while (at_ < text_.size()) {
    const size_t end = std::min(text_.find('\n', at_), text_.size());
    if (!is_blank(text_.substr(at_, end - at_))) return;
    at_ = std::min(end + 1, text_.size());
    ++line_;
  }
}

Json ItemReader::next_json() {
  const size_t end = std::min(text_.find('\n', at_), text_.size());
  const std::string_view line = text_.substr(at_, end - at_);
  // Checked by the rules for all JSON, then read once more for the order of its keys.
  const auto checked = parse_json(line, path().string(), {.first_line = line_});
  CRUMB_CHECK(checked.is_object(), "{}:{}: not a JSON object but {}", path().string(), line_, json_excerpt(checked));
  at_ = std::min(end + 1, text_.size());
  ++line_;
  return Json::parse(line);
}

std::vector<std::string> ItemReader::next_row() {
  std::vector<std::string> cells(1);
  const int64_t first = line_;
  const size_t begin = at_;
  const auto take = [&] {
    CRUMB_CHECK(static_cast<int64_t>(at_ - begin) < kMostJsonBytes,
                "{}:{}: a row of more than {} bytes; is a quote open?", path().string(), first, kMostJsonBytes);
    return text_[at_++];
  };
  while (at_ < text_.size()) {
    const char c = take();
    if (c == '"' && cells.back().empty()) {
      while (true) {
        CRUMB_CHECK(at_ < text_.size(), "{}:{}: a quote of this row is not closed", path().string(), first);
        const char inner = take();
        if (inner == '\n') ++line_;
        if (inner != '"') {
          cells.back() += inner;
        } else if (at_ < text_.size() && text_[at_] == '"') {
          cells.back() += take();
        } else {
          break;
        }
      }
    } else if (c == ',') {
      cells.emplace_back();
    } else if (c == '\n') {
      ++line_;
      return cells;
    } else if (c != '\r') {
      cells.back() += c;
    }
  }
  return cells;
}

void ItemReader::check_id(const Item& item) {
  const auto id = item.fields.find("id");
  if (id == item.fields.end() || id->is_null()) return;
  const auto [known, is_new] = lines_of_ids_.emplace(hash_bytes(0, id->dump()), item.line);
  // A place that was sought is read again.
  CRUMB_CHECK(is_new || known->second == item.line, "{}: the id {} is that of line {}, too", place(item),
              json_excerpt(*id), known->second);
}

std::optional<Item> ItemReader::next() {
  skip_blank_lines();
  if (at_ >= text_.size()) return std::nullopt;
  Item item{index_++, line_, Json::object()};
  if (is_csv_) {
    auto cells = next_row();
    CRUMB_CHECK(cells.size() == columns_.size(), "{}: {} cells in a table of {} columns", place(item), cells.size(),
                columns_.size());
    std::string valid;
    for (size_t i = 0; i < cells.size(); ++i) item.fields[columns_[i]] = tokenizer::valid_utf8(cells[i], valid);
  } else {
    item.fields = next_json();
  }
  check_id(item);
  return item;
}

std::string ItemReader::place(const Item& item) const { return fmt::format("{}:{}", path().string(), item.line); }

ItemReader::Place ItemReader::tell() {
  skip_blank_lines();
  return {at_, line_, index_};
}

void ItemReader::seek(const Place& place) {
  at_ = place.at;
  line_ = place.line;
  index_ = place.index;
}

Path find_data(const std::vector<std::string>& names, const Path& folder, const std::string& task,
               const std::string& how) {
  for (const auto& name : names) {
    if (const Path path = folder / name; is_file(path)) return path;
  }
  user_error("the task {} needs {} in {}; {}", task, fmt::join(names, " or "), folder.string(), how);
}

std::vector<std::string> read_labels(const Path& path) {
  const std::string text = read_text(path);
  std::vector<std::string> labels;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    std::string label = text.substr(at, end - at);
    while (!label.empty() && is_blank(label.substr(label.size() - 1))) label.pop_back();
    labels.push_back(std::move(label));
    at = end + 1;
  }
  return labels;
}

}  // namespace crumb::eval
