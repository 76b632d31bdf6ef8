#include "core/common/error.h"
#include "jobs/server.h"

namespace crumb::jobs {

struct Server::Data {};

bool has_server() { return false; }

Server::Server(Completions& /*completions*/, const ServerOptions& /*options*/) {
  user_error("serve: this build has no server: install cpp-httplib (libcpp-httplib-dev) and build again");
}

Server::~Server() = default;
int64_t Server::port() const { return 0; }
void Server::run() {}
void Server::stop() {}

}  // namespace crumb::jobs
