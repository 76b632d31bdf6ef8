#include "eval/journal.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "core/common/error.h"
#include "core/common/json.h"

namespace crumb::eval {
namespace {

constexpr int64_t kBlock = 1 << 16;
constexpr std::string_view kBegin = "{\"crumb_eval_journal\":1,";  // of a first line, whose keys are sorted

}  // namespace

Journal::Journal(const Path& path, const Json& facts) : path_(path) {
  CRUMB_CHECK(!is_folder(path), "{}: a folder; the journal of a run is a file", path.string());
  file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
  if (file_ < 0) user_error("{}: {}", path.string(), system_error_text(errno));
  try {
    open_whole_lines();
    const auto line = next_line();
    if (!line) {
      write_line(Json{{"crumb_eval_journal", 1}, {"facts", facts}});
      return;
    }
    const std::string none = path.string() + ": not a journal of crumb eval; give another name";
    Json first;
    try {
      first = parse_json(*line, path.string());
    } catch (const UserError&) {
      user_error("{}", none);
    }
    CRUMB_CHECK(first.is_object() && first.value("crumb_eval_journal", Json()) == 1 && first.contains("facts") &&
                    first["facts"].is_object(),
                "{}", none);
    const bool has_records = at_ < end_ || !buffer_.empty();
    if (!has_records && first["facts"] != facts) {  // of a run that ended before it found anything
      end_ = 0;
      line_ = 0;
      write_line(Json{{"crumb_eval_journal", 1}, {"facts", facts}});
      return;
    }
    const auto differ = [&](const std::string& name, const std::string& there, const std::string& here) {
      user_error("{}: of another run: {} was {}, now {}; remove it, or give another name", path.string(), name, there,
                 here);
    };
    for (const auto& [name, value] : facts.items()) {
      const auto there = first["facts"].find(name);
      if (there == first["facts"].end()) differ(name, "nothing", dump_json(value));
      if (*there != value) differ(name, dump_json(*there), dump_json(value));
    }
    for (const auto& [name, value] : first["facts"].items()) {
      if (!facts.contains(name)) differ(name, dump_json(value), "nothing");
    }
  } catch (...) {
    ::close(file_);
    throw;
  }
}

Journal::~Journal() { ::close(file_); }

void Journal::open_whole_lines() {
  CRUMB_CHECK(flock(file_, LOCK_EX | LOCK_NB) == 0, "{}: another process works with it", path_.string());
  end_ = ::lseek(file_, 0, SEEK_END);
  CRUMB_CHECK(end_ >= 0, "{}: {}", path_.string(), system_error_text(errno));
  const int64_t size = end_;
  char last = '\n';
  while (end_ > 0) {
    CRUMB_CHECK(::pread(file_, &last, 1, end_ - 1) == 1, "{}: {}", path_.string(), system_error_text(errno));
    if (last == '\n') break;
    --end_;
  }
  // A file of one line without an end may be somebody's; what it holds is looked at before anything goes.
  if (end_ == 0 && size > 0) {
    std::string begin(std::min(kBegin.size(), static_cast<size_t>(size)), '\0');
    const bool is_cut = ::pread(file_, begin.data(), begin.size(), 0) == std::ssize(begin) && kBegin.starts_with(begin);
    CRUMB_CHECK(is_cut, "{}: not a journal of crumb eval; give another name", path_.string());
  }
}

std::optional<std::string> Journal::next_line() {
  while (true) {
    const size_t newline = buffer_.find('\n');
    if (newline != std::string::npos) {
      std::string line = buffer_.substr(0, newline);
      buffer_.erase(0, newline + 1);
      ++line_;
      return line;
    }
    const auto wanted = static_cast<size_t>(std::min(kBlock, end_ - at_));
    if (wanted == 0) return std::nullopt;
    const size_t had = buffer_.size();
    buffer_.resize(had + wanted);
    const auto got = ::pread(file_, buffer_.data() + had, wanted, at_);
    if (got <= 0) run_error("{}: {}", path_.string(), got == 0 ? "became shorter" : system_error_text(errno));
    buffer_.resize(had + static_cast<size_t>(got));
    at_ += got;
  }
}

std::optional<Journal::Json> Journal::next(std::string_view key, const Json& value) {
  const auto line = next_line();
  if (!line) return std::nullopt;
  const std::string where = path_.string() + ":" + std::to_string(line_);
  auto record = parse_json(*line, path_.string(), {.first_line = line_});
  const auto found = record.is_object() ? record.find(std::string(key)) : record.end();
  CRUMB_CHECK(found != record.end() && *found == value,
              "{}: the record is not that of {} {}; remove the file to begin anew", where, key, dump_json(value));
  ++known_;
  return record;
}

void Journal::refuse_record() const {
  user_error("{}:{}: the record is damaged; remove the file to begin anew", path_.string(), line_);
}

void Journal::append(const Json& record) { write_line(record); }

void Journal::write_line(const Json& record) {
  if (::ftruncate(file_, end_) != 0) run_error("{}: {}", path_.string(), system_error_text(errno));
  const std::string text = dump_json(record) + "\n";
  size_t done = 0;
  while (done < text.size()) {
    const auto written = ::write(file_, text.data() + done, text.size() - done);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) run_error("{}: {}", path_.string(), system_error_text(errno));
    done += static_cast<size_t>(written);
  }
  end_ += static_cast<int64_t>(text.size());
  at_ = end_;
}

}  // namespace crumb::eval
