#include "cli/line_reader.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "core/common/error.h"

namespace crumb::cli {
namespace {

constexpr size_t kMostLineBytes = size_t{16} << 20;

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // a signal handler sets it

}  // namespace

InterruptFlag::InterruptFlag() {
  interrupted = false;
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  // Without SA_RESTART, so that waiting for a line ends.
  sigaction(SIGINT, &action, &before_);
}

InterruptFlag::~InterruptFlag() { sigaction(SIGINT, &before_, nullptr); }

std::atomic<bool>& InterruptFlag::flag() const { return interrupted; }

void InterruptFlag::act_as_before() const {
  sigaction(SIGINT, &before_, nullptr);
  std::raise(SIGINT);
}

LineReader::End LineReader::read(std::string& line) {
  while (true) {
    if (const size_t end = buffer_.find('\n'); end != std::string::npos) {
      line = buffer_.substr(0, end);
      if (line.ends_with('\r')) line.pop_back();
      buffer_.erase(0, end + 1);
      return End::line;
    }
    if (is_at_end_ && buffer_.empty()) return End::input;
    if (is_at_end_) {
      line = std::exchange(buffer_, "");
      return End::line;
    }
    CRUMB_CHECK(buffer_.size() <= kMostLineBytes, "standard input: a line of more than {} MB", kMostLineBytes >> 20);
    std::array<char, 65536> piece;
    const ssize_t size = ::read(STDIN_FILENO, piece.data(), piece.size());
    if (size < 0 && errno == EINTR) {
      if (interrupted) return End::interrupt;
      continue;
    }
    if (size < 0) run_error("standard input: {}", system_error_text(errno));
    is_at_end_ = size == 0;
    buffer_.append(piece.data(), static_cast<size_t>(size));
  }
}

}  // namespace crumb::cli
