// What an evaluation has found so far, in a file, so that one that was killed goes on where it stopped.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "core/common/file.h"

namespace crumb::eval {

/// JSON lines: the facts of the run, then a record for each piece of work in the order in which it is done. Numbers are
/// written so that reading gives the same bits. One process holds the file at a time.
class Journal {
 public:
  using Json = nlohmann::json;

  /// Begins a file, or opens the one that is there: its records are given first. A last line that a kill cut short is
  /// dropped. `facts`: texts and numbers by their names, all that the records depend on. UserError: a file that is no
  /// journal, or of a run with other facts (the first that differs is named) and records, or held by another
  /// process.
  Journal(const Path& path, const Json& facts);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  /// The next record of an earlier run, of which `key` must be `value`; nothing where they are used up, from where on
  /// records are appended. UserError "FILE:LINE: ..." for one that is damaged.
  std::optional<Json> next(std::string_view key, const Json& value);
  /// UserError: what the last record holds is not what was written.
  [[noreturn]] void refuse_record() const;
  /// Behind all that were read. It outlives a kill of the process. RunError: a full disk.
  void append(const Json& record);
  const Path& path() const { return path_; }
  /// How many next() has given.
  int64_t known() const { return known_; }

 private:
  std::optional<std::string> next_line();
  void open_whole_lines();
  void write_line(const Json& record);

  Path path_;
  int file_ = -1;
  int64_t end_ = 0;  // of what was there
  int64_t at_ = 0, line_ = 0, known_ = 0;
  std::string buffer_;  // read, not yet given; its end is at_
};

}  // namespace crumb::eval
