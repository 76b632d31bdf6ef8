#include "train/stop_signal.h"

#include <csignal>

namespace crumb::train {
namespace {

volatile std::sig_atomic_t stop_asked = 0;

void remember(int /*signal*/) { stop_asked = 1; }

void install(void (*handler)(int), int flags) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = flags;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  stop_asked = 0;
  install(remember, static_cast<int>(SA_RESETHAND | SA_RESTART));  // the second signal acts as always
}

StopSignal::~StopSignal() { install(SIG_DFL, 0); }

bool StopSignal::is_set() { return stop_asked != 0; }

}  // namespace crumb::train
