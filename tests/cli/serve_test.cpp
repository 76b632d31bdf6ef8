// The server and the answers behind it, over a loopback socket.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "eval/judged.h"
#include "eval/score.h"
#include "jobs/server.h"
#include "runtime/generate.h"
#include "tests/testing/testing.h"

namespace crumb::jobs {
namespace {

using crumb::testing::error_of;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using tokenizer::TokenId;
using Json = nlohmann::json;
using nlohmann::literals::json_literals::operator""_json_pointer;

/// One model for all tests of the file.
struct Served {
  explicit Served(const Path& path)
      : completions({"tiny", path}, {}, 1, {.prompts = 4, .tokens = 600, .top_tokens = 5, .scores = 1200, .stops = 2}),
        judged(eval::load_judged(path, {}, std::make_shared<ThreadPool>(1))) {}
  Completions completions;
  eval::Judged judged;
};

class Serve : public ::testing::Test {
 protected:
  void SetUp() override {
    CRUMB_NEED_DATA(path, "models/stories260K-hf");
    static Served served(path);
    served_ = &served;
  }
  Json complete(const Json& request) { return Json::parse(served_->completions.complete(request).dump()); }
  int status_of(const Json& request) {
    try {
      complete(request);
      return 200;
    } catch (const RequestError& error) {
      return error.status();
    }
  }
  Served* served_ = nullptr;
};

TEST_F(Serve, LogProbabilitiesAreThoseOfTheScorer) {
  const std::string text = "Once upon a time there was a little cat.";
  const auto ids = served_->judged.tokenizer->encode(text, true);
  const std::span all(ids);
  const eval::ScoreRequest request{all.first(1), all.subspan(1)};
  eval::Scorer* const scorers[] = {served_->judged.scorer.get()};
  const auto scores = eval::score_requests(scorers, nullptr, {&request, 1}, serial_for)[0][0];
  for (const Json& prompt : {Json(text), Json(ids)}) {
    const auto choice = complete(
        {{"prompt", prompt}, {"max_tokens", 1}, {"temperature", 0}, {"logprobs", 1}, {"echo", true}})["choices"][0];
    const auto& own = choice["logprobs"]["token_logprobs"];
    const auto& top = choice["logprobs"]["top_logprobs"];
    ASSERT_EQ(own.size(), ids.size() + 1);
    EXPECT_TRUE(own[0].is_null());
    for (size_t i = 1; i < ids.size(); ++i) {
      EXPECT_EQ(own[i].get<double>(), -scores[i - 1].nll) << i;
      double best = -INFINITY;
      for (const auto& [token, value] : top[i].items()) best = std::max(best, value.get<double>());
      EXPECT_EQ(own[i].get<double>() == best, scores[i - 1].is_top) << i;
    }
    if (prompt.is_string()) {
      EXPECT_THAT(choice["text"].get<std::string>(), StartsWith(text));
    }
  }
}

TEST_F(Serve, WritesWhatGenerateWrites) {
  const Json prompts = {"Tom had a red ball", "Lily"};
  runtime::Decoder& decoder = *served_->judged.scorer->decoder();
  const auto& tokenizer = *served_->judged.tokenizer;
  std::vector<runtime::GenerateRequest> requests;
  for (const auto& prompt : prompts)
    requests.push_back({tokenizer.encode(prompt.get<std::string>(), true), 20, requests.size()});
  for (const double temperature : {0.0, 0.9}) {
    const runtime::SamplingOptions options{.temperature = temperature, .seed = 7, .vocab_size = tokenizer.vocab_size()};
    const auto expected = runtime::generate(decoder, requests, options, tokenizer.special().end, 2, nullptr);
    const auto got = complete({{"prompt", prompts}, {"max_tokens", 20}, {"temperature", temperature}, {"seed", 7}});
    for (size_t i = 0; i < 2; ++i) {
      std::string text;
      for (const TokenId id : expected[i].tokens) text += tokenizer.token_bytes(id);
      EXPECT_EQ(got["choices"][i]["text"], text);
      EXPECT_EQ(got["choices"][i]["finish_reason"], expected[i].stopped ? "stop" : "length");
    }
  }
  const std::string whole =
      complete({{"prompt", prompts[0]}, {"max_tokens", 20}, {"temperature", 0}})["choices"][0]["text"];
  const std::string stop = whole.substr(whole.size() / 2, 3);
  const auto cut =
      complete({{"prompt", prompts[0]}, {"max_tokens", 20}, {"temperature", 0}, {"stop", stop}})["choices"][0];
  EXPECT_EQ(cut["text"], whole.substr(0, whole.find(stop)));
  EXPECT_EQ(cut["finish_reason"], "stop");
  EXPECT_EQ(complete({{"prompt", prompts[0]}, {"max_tokens", 0}, {"echo", true}})["choices"][0]["text"], prompts[0]);
}

std::vector<std::string> characters_of(const std::string& text) {
  std::vector<std::string> out;
  for (const char c : text) {
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) out.emplace_back();
    out.back() += c;
  }
  return out;
}

TEST_F(Serve, TextOffsetsPointAtTheTextOfTokens) {
  const auto& tokenizer = *served_->judged.tokenizer;
  const auto offsets_of = [](const Json& choice) {
    return choice["logprobs"]["text_offset"].get<std::vector<size_t>>();
  };
  const auto rest_at = [](const Json& choice, size_t offset) {
    std::string rest;
    const auto characters = characters_of(choice["text"].get<std::string>());
    for (size_t i = offset; i < characters.size(); ++i) rest += characters[i];
    return rest;
  };
  for (const bool echo : {true, false}) {
    for (const std::string text : {"Once upon a caf\u00e9, a cat", " Once Once", "\u732b a", ""}) {
      const auto prompt = tokenizer.encode(text, true);
      const Json request = {{"prompt", text}, {"max_tokens", 12}, {"temperature", 0}, {"logprobs", 0}, {"echo", echo}};
      const auto choice = complete(request)["choices"][0];
      const auto offsets = offsets_of(choice);
      const auto& tokens = choice["logprobs"]["tokens"];
      ASSERT_EQ(offsets.size(), tokens.size());
      if (echo && !text.empty()) {  // BOS and the first word begin where the text does
        EXPECT_EQ(offsets[0], 0);
        EXPECT_EQ(offsets[1], 0);
      }
      size_t checked = 0;
      for (size_t i = 0; i < tokens.size(); ++i) {
        std::string token = tokens[i];
        if (token.starts_with("bytes:") || token == "<s>" || token == "</s>") continue;  // parts of one, no text
        if (echo && i == 1 && !text.empty()) token.erase(0, 1);
        EXPECT_THAT(rest_at(choice, offsets[i]), StartsWith(token)) << text << ": token " << i;
        ++checked;
      }
      EXPECT_GE(checked, 10) << text;
      if (echo) {
        EXPECT_EQ(offsets[prompt.size()], characters_of(text).size()) << text;
      }
    }
  }
  // Token ids are echoed as they are, special ones among them.
  const auto ids = tokenizer.encode("Lily ran", true);
  const auto choice =
      complete({{"prompt", ids}, {"max_tokens", 1}, {"logprobs", 0}, {"echo", true}, {"temperature", 0}})["choices"][0];
  const auto offsets = offsets_of(choice);
  for (size_t i = 0; i < ids.size(); ++i)
    EXPECT_THAT(rest_at(choice, offsets[i]), StartsWith(tokenizer.token_bytes(ids[i]))) << i;
}

TEST_F(Serve, TopLogProbabilitiesAreThoseOfTheSoftmax) {
  const auto ids = served_->judged.tokenizer->encode("Once upon a time", true);
  const auto choice = complete({{"prompt", ids}, {"max_tokens", 1}, {"temperature", 0}, {"logprobs", 5}})["choices"][0];
  runtime::Decoder& decoder = *served_->judged.scorer->decoder();
  const auto state = decoder.new_state();
  const runtime::SequenceInput input{state.get(), ids};
  std::map<std::string, double> expected;
  decoder.forward({&input, 1}, runtime::LogitsFor::last, [&](int64_t, int64_t, std::span<const float> logits) {
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    for (size_t i = 0; i < logits.size(); ++i) {
      const auto text = served_->judged.tokenizer->token_bytes(static_cast<TokenId>(i));
      const double value = static_cast<double>(logits[i]) - std::log(sum);
      const auto [place, is_new] = expected.emplace(text, value);
      if (!is_new) place->second = std::max(place->second, value);
    }
  });
  const auto& top = choice["logprobs"]["top_logprobs"][0];
  ASSERT_EQ(top.size(), 5);
  double least = INFINITY;
  for (const auto& [token, value] : top.items()) {
    ASSERT_TRUE(expected.contains(token)) << token;
    EXPECT_NEAR(value.get<double>(), expected[token], 1e-9) << token;
    least = std::min(least, value.get<double>());
    expected.erase(token);
  }
  for (const auto& [token, value] : expected) EXPECT_LE(value, least + 1e-9) << token;
}

TEST_F(Serve, RefusesWhatItCannotAnswer) {
  EXPECT_EQ(status_of(Json::array()), 400);
  EXPECT_EQ(status_of({{"max_tokens", 1}}), 400);
  EXPECT_EQ(status_of({{"prompt", 5}}), 400);
  EXPECT_EQ(status_of({{"prompt", {1, 512}}}), 400) << "the vocabulary has 512 tokens";
  EXPECT_EQ(status_of({{"prompt", {1, -1}}}), 400);
  EXPECT_EQ(status_of({{"prompt", {1, 2.5}}}), 400);
  EXPECT_EQ(status_of({{"prompt", Json::array()}}), 400);
  EXPECT_EQ(status_of({{"prompt", {"a", "b", "c", "d", "e"}}}), 400);
  EXPECT_EQ(status_of({{"prompt", std::vector<int>(601, 1)}}), 400);
  EXPECT_EQ(status_of({{"prompt", {"a", "b", "c", "d"}}, {"max_tokens", 200}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"model", "other"}}), 404);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"temperature", -1}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"temperature", NAN}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"top_p", 1.5}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"logprobs", 6}}), 400);
  for (const char* key : {"logprobs", "max_tokens", "temperature", "top_p", "seed", "echo", "stop"}) {
    EXPECT_EQ(status_of({{"prompt", "a"}, {key, {{"a", 1}}}}), 400) << key;
    if (std::string(key) != "stop") {
      EXPECT_EQ(status_of({{"prompt", "a"}, {key, "1"}}), 400) << key;
    }
    if (std::string(key) != "echo") {
      EXPECT_EQ(status_of({{"prompt", "a"}, {key, true}}), 400) << key;
    }
  }
  EXPECT_EQ(status_of({{"prompt", "a"}, {"logprobs", 1.5}}), 400);
  const std::vector<int> long_prompt(299, 1);
  Json many = {{"prompt", long_prompt}, {"max_tokens", 1}, {"echo", true}, {"logprobs", 4}};
  EXPECT_THAT(error_of([&] { complete(many); }), HasSubstr("1500 log-probabilities, at most 1200 are given"));
  many["logprobs"] = 3;
  EXPECT_EQ(status_of(many), 200) << "1200";
  many["logprobs"] = 5;
  many["echo"] = false;
  EXPECT_EQ(status_of(many), 200) << "6";
  EXPECT_EQ(status_of({{"prompt", "a"}, {"stop", {"a", "b", "c"}}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"stop", ""}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"n", 2}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"tools", 2}}), 400);
  EXPECT_EQ(status_of({{"prompt", "a"}, {"n", 1}, {"stream", false}, {"model", "tiny"}, {"max_tokens", 1}}), 200);
  const std::atomic<bool> stop = true;
  EXPECT_THAT(error_of([&] { served_->completions.complete({{"prompt", "a"}}, &stop); }), HasSubstr("ending"));
}

/// What the server at `port` sends back.
std::string exchange(int64_t port, const std::string& request) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(socket);
    return "no connection";
  }
  size_t sent = 0;
  while (sent < request.size()) {
    const auto some = ::send(socket, request.data() + sent, request.size() - sent, MSG_NOSIGNAL);
    if (some <= 0) break;
    sent += static_cast<size_t>(some);
  }
  std::string answer;
  char part[4096];
  for (ssize_t got = 0; (got = ::recv(socket, part, sizeof part, 0)) > 0;)
    answer.append(part, static_cast<size_t>(got));
  ::close(socket);
  return answer;
}

std::string post(const std::string& body, const std::string& headers = "") {
  return "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n" + headers +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

struct Running {
  explicit Running(Server& of) : server(of), thread([&of] { of.run(); }) {}
  ~Running() {
    server.stop();
    thread.join();
  }
  Server& server;
  std::thread thread;
};

TEST_F(Serve, StopsWheneverItIsAskedTo) {
  if (!has_server()) GTEST_SKIP() << "this build has no cpp-httplib";
  for (const int microseconds : {-1, 0, 10, 50, 100, 500, 2000}) {  // -1: before it runs
    Server server(served_->completions, {.port = 0});
    if (microseconds < 0) server.stop();
    auto ran = std::async(std::launch::async, [&] { server.run(); });
    if (microseconds > 0) std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
    if (microseconds >= 0) server.stop();
    if (ran.wait_for(std::chrono::seconds(20)) != std::future_status::ready) {
      ADD_FAILURE() << "stopped after " << microseconds << " microseconds, it runs on";
      std::_Exit(1);  // nothing would end the thread
    }
    ran.get();
    server.stop();
    server.run();
  }
}

TEST_F(Serve, ASignalWhileTheModelLoadsEndsTheProgram) {
  if (!has_server()) GTEST_SKIP() << "this build has no cpp-httplib";
  const auto model = crumb::testing::data("models/stories260K-hf");
  const crumb::testing::TempDir dir;
  const std::string out = (dir / "out").string();
  const pid_t child = fork();
  if (child == 0) {
    // A signal that is held back and waits stays so in the program, which meets it as one that came while it loads.
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigprocmask(SIG_BLOCK, &signals, nullptr);
    kill(getpid(), SIGTERM);
    alarm(30);
    if (freopen(out.c_str(), "w", stdout) == nullptr) _exit(127);
    execl(crumb::testing::program().c_str(), "crumb", "serve", model.c_str(), "--port", "0", "-q", nullptr);
    _exit(127);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_THAT(crumb::testing::read_file(out), HasSubstr(" at http://127.0.0.1:"));
}

TEST_F(Serve, MoreRequestsThanTheQueueHoldsAreSentAway) {
  if (!has_server()) GTEST_SKIP() << "this build has no cpp-httplib";
  Server server(served_->completions, {.port = 0, .max_queue = 1});
  const Running running(server);
  const Json request = {{"prompt", {"a", "b", "c", "d"}}, {"max_tokens", 140}, {"temperature", 1}, {"seed", 1}};
  int64_t answered = 0, sent_away = 0;
  for (int round = 0; round < 20 && sent_away == 0; ++round) {  // the first may end before the others are there
    std::vector<std::future<std::string>> answers;
    for (int i = 0; i < 4; ++i)
      answers.push_back(std::async(std::launch::async, [&] { return exchange(server.port(), post(request.dump())); }));
    for (auto& future : answers) {
      const std::string answer = future.get();
      if (answer.starts_with("HTTP/1.1 200")) {
        ++answered;
      } else {
        EXPECT_THAT(answer, StartsWith("HTTP/1.1 503"));
        EXPECT_THAT(answer, HasSubstr("Retry-After: 1"));
        EXPECT_THAT(answer, HasSubstr("1 requests wait already"));
        ++sent_away;
      }
    }
  }
  EXPECT_GT(answered, 0);
  EXPECT_GT(sent_away, 0);
}

TEST_F(Serve, AnswersOverASocketWhateverComes) {
  if (!has_server()) GTEST_SKIP() << "this build has no cpp-httplib";
  Server server(served_->completions, {.port = 0, .max_body = 2000});
  const Running running(server);
  const auto body_of = [](const std::string& answer) {
    const size_t end = answer.find("\r\n\r\n");
    return Json::parse(end == std::string::npos ? "" : answer.substr(end + 4), nullptr, false);
  };
  const auto expect = [&](int status, const std::string& request) {
    const std::string answer = exchange(server.port(), request);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 " + std::to_string(status))) << request.substr(0, 200);
    if (status != 200) {
      EXPECT_EQ(body_of(answer).value("/error/code"_json_pointer, 0), status) << answer;
    }
    return answer;
  };
  EXPECT_EQ(body_of(expect(200, "GET /health HTTP/1.1\r\n\r\n"))["status"], "ok");
  EXPECT_EQ(body_of(expect(200, "GET /v1/models HTTP/1.1\r\n\r\n"))["data"][0]["id"], "tiny");
  const Json request = {
      {"prompt", "Once upon"}, {"max_tokens", 3}, {"temperature", 0}, {"logprobs", 1}, {"echo", true}};
  EXPECT_EQ(body_of(expect(200, post(request.dump())))["choices"], complete(request)["choices"]);
  expect(404, "GET /other HTTP/1.1\r\n\r\n");
  expect(404, post(R"({"prompt": "a", "model": "other"})"));
  expect(400, post("{"));
  expect(400, post("{\"prompt\": \"\xff\xfe\"}"));
  expect(400, post(R"({"prompt": "a", "temperature": NaN})"));
  expect(400, post(R"({"prompt": "a", "temperature": 1e999})"));
  expect(400, post("{\"prompt\": " + std::string(900, '[') + std::string(900, ']') + "}"));
  expect(413, post("{\"prompt\": \"" + std::string(3000, 'a') + "\"}"));
  expect(411, "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n\r\n{}");
  expect(411, post("{}", "Transfer-Encoding: chunked\r\n"));
  expect(415, post("{}", "Content-Encoding: gzip\r\n"));
  expect(415, "POST /v1/completions HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}");
  exchange(server.port(), "\x01\x02 no HTTP\r\n\r\n");
  expect(200, "GET /health HTTP/1.1\r\n\r\n");
  Completions& completions = served_->completions;
  EXPECT_THAT(error_of([&] { Server(completions, {.host = "192.0.2.1", .port = 1}); }),
              HasSubstr("cannot listen there"));
}

}  // namespace
}  // namespace crumb::jobs
