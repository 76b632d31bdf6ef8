#include "train/stop_signal.h"

#include <csignal>

namespace crumb::train {
namespace {

volatile std::sig_atomic_t stop_asked = 0;

void remember(int /*signal*/) { stop_asked = 1; }

}  // namespace

StopSignal::StopSignal() {
  stop_asked = 0;
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = static_cast<int>(SA_RESETHAND | SA_RESTART);  // the second signal acts as always
  sigaction(SIGINT, &action, &interrupt_before_);
  sigaction(SIGTERM, &action, &terminate_before_);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &interrupt_before_, nullptr);
  sigaction(SIGTERM, &terminate_before_, nullptr);
}

bool StopSignal::is_set() { return stop_asked != 0; }

}  // namespace crumb::train
