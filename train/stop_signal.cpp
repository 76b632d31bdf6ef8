#include "train/stop_signal.h"

#include <csignal>

namespace crumb::train {
namespace {

volatile std::sig_atomic_t stop_asked = 0;

struct sigaction interrupt_before, terminate_before;

/// The second signal acts as always.
void remember(int signal) {
  stop_asked = 1;
  sigaction(signal, signal == SIGINT ? &interrupt_before : &terminate_before, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  stop_asked = 0;
  struct sigaction action {};
  action.sa_handler = remember;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &interrupt_before);
  sigaction(SIGTERM, &action, &terminate_before);
}

StopSignal::~StopSignal() {
  sigaction(SIGINT, &interrupt_before, nullptr);
  sigaction(SIGTERM, &terminate_before, nullptr);
}

bool StopSignal::is_set() { return stop_asked != 0; }

}  // namespace crumb::train
