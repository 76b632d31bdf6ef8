// Items of a task: JSON lines, or CSV as RFC 4180 has it, one at a time.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/common/file.h"

namespace crumb::eval {

struct Item {
  int64_t index = 0, line = 0;  // from 0; from 1
  nlohmann::ordered_json fields;
};

/// Reads a file from its beginning. Memory: an item, and 16 bytes for each with a field "id", which no two may share.
class ItemReader {
 public:
  /// `columns`: of a CSV without a header. UserError: missing, compressed, Parquet, a JSON list.
  explicit ItemReader(const Path& path, std::vector<std::string> columns = {});

  const Path& path() const { return file_.path(); }
  /// The next item; nothing at the end. UserError "FILE:LINE: ..." for a broken one, or an id that was there before.
  std::optional<Item> next();
  /// "FILE:LINE".
  std::string place(const Item& item) const;
  /// Where the next item begins, for seek(): bytes and line.
  struct Place {
    size_t at = 0;
    int64_t line = 1, index = 0;
  };
  Place tell();
  void seek(const Place& place);

 private:
  void skip_blank_lines();
  nlohmann::ordered_json next_json();
  std::vector<std::string> next_row();
  void check_id(const Item& item);

  MappedFile file_;
  std::string_view text_;  // all of it
  size_t at_ = 0;
  int64_t line_ = 1, index_ = 0;
  bool is_csv_;
  std::vector<std::string> columns_;
  std::unordered_map<uint64_t, int64_t> lines_of_ids_;  // by the hash of the id
};

/// The first of `names` that is a file in `folder`. UserError that says what was looked for and `how` to get it.
Path find_data(const std::vector<std::string>& names, const Path& folder, const std::string& task,
               const std::string& how);

/// The labels of a file, a line each.
std::vector<std::string> read_labels(const Path& path);

}  // namespace crumb::eval
