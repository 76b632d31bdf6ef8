// crumb serve: a model behind an OpenAI-compatible address, for outside judges.
#include <pthread.h>

#include <csignal>
#include <thread>

#include "cli/numbers.h"
#include "cli/print_now.h"
#include "cli/sampling_options.h"
#include "cli/verbs.h"
#include "core/common/log.h"
#include "jobs/server.h"

namespace crumb::cli {
namespace {

struct Arguments {
  std::string model, name;
  PrecisionNames precision{"float", "f32"};
  jobs::ServerOptions server;
};

/// SIGINT and SIGTERM wait from now on, in this thread and those it starts, until an EndingThread takes them.
sigset_t hold_back_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  return signals;
}

/// Ends the server at the first of the signals that are held back, one that came before among them. The server must
/// outlive it.
class EndingThread {
 public:
  EndingThread(const sigset_t& signals, jobs::Server& server)
      : thread_([signals, &server] {
          int signal = 0;
          sigwait(&signals, &signal);
          server.stop();
        }) {}
  ~EndingThread() {
    pthread_kill(thread_.native_handle(), SIGTERM);  // where the server ended by itself
    thread_.join();
  }
  EndingThread(const EndingThread&) = delete;
  EndingThread& operator=(const EndingThread&) = delete;

 private:
  std::thread thread_;
};

int run(const Arguments& arguments, const Globals& globals) {
  CRUMB_CHECK(jobs::has_server(),
              "serve: this build has no server: install cpp-httplib (libcpp-httplib-dev) and build again");
  const sigset_t signals = hold_back_signals();  // before there are threads
  const Path path = arguments.model;
  const std::string name = arguments.name.empty() ? path.filename().string() : arguments.name;
  CRUMB_CHECK(!name.empty(), "--name: {} has no name of its own; give one", path.string());
  jobs::Completions completions({name, path}, arguments.precision.precision(), globals.threads);
  jobs::Server server(completions, arguments.server);
  print_now(fmt::format("{} at http://{}:{}/v1/completions\n", name, arguments.server.host, server.port()));
  const EndingThread ending(signals, server);
  server.run();
  return kExitOk;
}

}  // namespace

Verb add_serve(CLI::App& program, const Globals& globals) {
  auto* app =
      program.add_subcommand("serve", "Answer POST /v1/completions, as OpenAI's servers do, for outside judges");
  const auto a = std::make_shared<Arguments>();
  app->add_option("MODEL", a->model, "HF folder, codes-and-scales folder or GGUF")->required();
  app->add_option("--name", a->name, "what requests call the model; default: the name of the file or folder");
  app->add_option("--host", a->server.host,
                  "the address it listens at; others than this machine's own loopback reach it "
                  "only where another is given")
      ->capture_default_str();
  add_whole(*app, "--port", a->server.port, "0: one that is free", {.most = 65535});
  add_whole(*app, "--max-body", a->server.max_body, "bytes of a request", {.least = 1024, .most = int64_t{1} << 28});
  add_whole(*app, "--max-queue", a->server.max_queue, "requests that wait or are answered; more are sent away",
            {.least = 1, .most = 256});
  add_precision(*app, a->precision);
  add_device(*app, a->precision.device);
  return {app, [a, &globals] { return run(*a, globals); }};
}

}  // namespace crumb::cli
