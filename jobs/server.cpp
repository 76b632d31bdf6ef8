#include "jobs/server.h"

#include <httplib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <mutex>

#include "core/common/json.h"
#include "core/common/log.h"

namespace crumb::jobs {
namespace {

constexpr const char* kJson = "application/json";
/// Threads that read requests beyond those in the queue, to send others away.
constexpr size_t kSpareThreads = 4;
constexpr time_t kReadSeconds = 30, kWriteSeconds = 30;
constexpr int kMostLevels = 16;

void set_error(httplib::Response& response, int status, const std::string& message) {
  response.status = status;
  const char* type = status < 500 ? "invalid_request_error" : "server_error";
  const nlohmann::ordered_json error = {{"message", message}, {"type", type}, {"code", status}};
  response.set_content(dump_json(nlohmann::ordered_json{{"error", error}}), kJson);
}

/// What must hold before a body is read: its length is known, and it is what it seems to be.
std::optional<std::pair<int, const char*>> refusal_of(const httplib::Request& request) {
  if (request.method != "POST") return std::nullopt;
  if (request.has_header("Transfer-Encoding") || !request.has_header("Content-Length"))
    return {{411, "a request needs Content-Length"}};
  if (request.has_header("Content-Encoding")) return {{415, "a request must not be compressed"}};
  // Also keeps out pages of browsers, which may send other types to any address unasked.
  if (!request.get_header_value("Content-Type").starts_with(kJson))
    return {{415, "a request must have Content-Type: application/json"}};
  return std::nullopt;
}

const char* text_of_status(int status) {
  switch (status) {
    case 404:
      return "there are POST /v1/completions, GET /v1/models and GET /health";
    case 413:
      return "the request is too large";
    case 414:
      return "the address is too long";
    default:
      return "the request cannot be read";
  }
}

/// httplib's stop() does nothing before it listens; end() holds whenever it comes: who listens later returns at once.
class Listener : public httplib::Server {
 public:
  void end() {
    const socket_t socket = svr_sock_.exchange(INVALID_SOCKET);
    if (socket == INVALID_SOCKET) return;
    ::shutdown(socket, SHUT_RDWR);
    ::close(socket);
  }
};

}  // namespace

struct Server::Data {
  Data(Completions& answers, const ServerOptions& given) : completions(answers), options(given) {}

  void complete(const httplib::Request& request, httplib::Response& response) {
    struct Waiting {
      explicit Waiting(std::atomic<int64_t>& of) : count(of), place(++of) {}
      ~Waiting() { --count; }
      std::atomic<int64_t>& count;
      int64_t place;
    };
    const Waiting waiting(in_queue);
    if (waiting.place > options.max_queue) {
      response.set_header("Retry-After", "1");
      return set_error(response, 503, fmt::format("{} requests wait already", options.max_queue));
    }
    try {
      const auto json = parse_json(request.body, "the request", {.most_levels = kMostLevels});
      const std::lock_guard lock(one_at_a_time);
      response.set_content(dump_json(completions.complete(json, &is_ending)), kJson);
    } catch (const RequestError& error) {
      set_error(response, error.status(), error.what());
    } catch (const UserError& error) {
      set_error(response, 400, error.what());
    } catch (const std::bad_alloc&) {
      set_error(response, 500, "there is not enough memory for this request");
    } catch (const std::exception& error) {
      set_error(response, 500, error.what());
    }
  }

  void set_up() {
    http.new_task_queue = [this] {
      return new httplib::ThreadPool(static_cast<size_t>(options.max_queue) + kSpareThreads);
    };
    http.set_payload_max_length(static_cast<size_t>(options.max_body));
    http.set_read_timeout(kReadSeconds);
    http.set_write_timeout(kWriteSeconds);
    http.set_keep_alive_max_count(1);  // what is left of a body that was refused is no request
    http.set_pre_routing_handler([](const httplib::Request& request, httplib::Response& response) {
      const auto refusal = refusal_of(request);
      if (!refusal) return httplib::Server::HandlerResponse::Unhandled;
      set_error(response, refusal->first, refusal->second);
      return httplib::Server::HandlerResponse::Handled;
    });
    http.set_error_handler([](const httplib::Request&, httplib::Response& response) {
      if (response.body.empty()) set_error(response, response.status, text_of_status(response.status));
    });
    http.set_exception_handler([](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
      set_error(response, 500, "the request failed");
    });
    http.Get("/health", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("{\"status\":\"ok\"}", kJson);
    });
    http.Get("/v1/models", [this](const httplib::Request&, httplib::Response& response) {
      const nlohmann::ordered_json model = {{"id", completions.name()},
                                            {"object", "model"},
                                            {"owned_by", "crumb"},
                                            {"max_model_len", completions.context_length()}};
      response.set_content(dump_json(nlohmann::ordered_json{{"object", "list"}, {"data", {model}}}), kJson);
    });
    http.Post("/v1/completions",
              [this](const httplib::Request& request, httplib::Response& response) { complete(request, response); });
  }

  Completions& completions;
  ServerOptions options;
  Listener http;
  std::mutex one_at_a_time;
  std::atomic<int64_t> in_queue = 0;
  std::atomic<bool> is_ending = false;
  int64_t port = 0;
};

bool has_server() { return true; }

Server::Server(Completions& completions, const ServerOptions& options)
    : data_(std::make_unique<Data>(completions, options)) {
  data_->set_up();
  const auto port = static_cast<int>(options.port);
  data_->port = port;
  const bool is_bound = port == 0 ? (data_->port = data_->http.bind_to_any_port(options.host)) > 0
                                  : data_->http.bind_to_port(options.host, port);
  CRUMB_CHECK(is_bound, "{}:{}: cannot listen there: is the address one of this machine, and the port free?",
              options.host, options.port);
}

Server::~Server() { stop(); }

int64_t Server::port() const { return data_->port; }

void Server::run() {
  const bool is_whole = data_->http.listen_after_bind();
  if (!is_whole && !data_->is_ending) run_error("{}:{}: listening failed", data_->options.host, data_->port);
}

void Server::stop() {
  data_->is_ending = true;
  data_->http.end();
}

}  // namespace crumb::jobs
