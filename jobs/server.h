// An HTTP server in front of Completions: POST /v1/completions, GET /v1/models, GET /health. For programs of the same
// machine or a network that is trusted: it speaks no TLS and knows no users.
#pragma once

#include <memory>
#include <string>

#include "jobs/completions.h"

namespace crumb::jobs {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int64_t port = 8080;                  // 0: one that is free
  int64_t max_body = int64_t{8} << 20;  // bytes of a request
  int64_t max_queue = 16;               // requests that are answered or wait; more are sent away with 503
};

/// Whether this build has one: it needs cpp-httplib.
bool has_server();

class Server {
 public:
  /// `completions` must outlive it. UserError: a build without cpp-httplib; an address that cannot be bound.
  Server(Completions& completions, const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int64_t port() const;
  /// Answers until stop(); returns at once where that came before. Every error is an answer {"error": {"message",
  /// "type", "code"}}: 400 for what is wrong with a request, 404 another path or model, 411 without a length, 413 too
  /// large, 415 not JSON, 503 too many at once, 500 for the rest.
  void run();
  /// From any thread, at any time, once or more often; requests that are being answered end with 503.
  void stop();

 private:
  struct Data;
  std::unique_ptr<Data> data_;
};

}  // namespace crumb::jobs
