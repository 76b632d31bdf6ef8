// The answers of an OpenAI-compatible server to POST /v1/completions, without the server: JSON in, JSON out.
#pragma once

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/common/error.h"
#include "jobs/running_model.h"

namespace crumb::jobs {

/// Of one request; beyond them it is refused.
struct CompletionLimits {
  int64_t prompts = 128;
  int64_t tokens = 262144;   // of all prompts, and those that may be written
  int64_t top_tokens = 20;   // logprobs
  int64_t scores = 1048576;  // log-probabilities: of tokens that are asked for, each with its top tokens
  int64_t stops = 16;
};

/// A request that is refused: an HTTP status beside the message.
class RequestError : public UserError {
 public:
  RequestError(int status, const std::string& message) : UserError(message), status_(status) {}
  int status() const { return status_; }

 private:
  int status_;
};

class Completions {
 public:
  /// UserError: no such model.
  Completions(const NamedModel& model, const runtime::Precision& precision, int64_t threads,
              const CompletionLimits& limits = {});

  const std::string& name() const { return name_; }
  int64_t context_length() const { return model_.decoder->spec().context_length; }

  /// {"prompt": a text, token ids, or a list of either, "max_tokens": 16, "temperature": 1, "top_p": 1, "logprobs":
  /// null, "echo": false, "stop": null, "seed": null, "model": name()}, and what only says how it is by default anyway.
  /// Log-probabilities are of the model's distribution, whatever the temperature. The token that ends a text is among
  /// the tokens of "logprobs", with an empty text of its own in "text". "text_offset" counts characters (code points)
  /// of "text" before what a token adds to it. RequestError: whatever is wrong with it; 503 once `stop` (null: never)
  /// is true. RunError: the model's values are not finite, or there is not enough memory. One request at a time.
  nlohmann::ordered_json complete(const nlohmann::json& request, const std::atomic<bool>* stop = nullptr);

 private:
  struct Request;
  struct Choice;
  Request read(const nlohmann::json& json) const;
  std::vector<tokenizer::TokenId> read_prompt(const nlohmann::json& prompt, const std::string& name) const;
  void run(const Request& request, std::vector<Choice>& choices, size_t first, size_t count,
           const std::atomic<bool>* stop);
  void next(const Request& request, Choice& choice, std::span<const float> logits, uint64_t stream) const;
  nlohmann::ordered_json logprobs_of(const Request& request, const Choice& choice, size_t index) const;
  std::string text_of(tokenizer::TokenId token) const;
  std::vector<size_t> places_of(const std::vector<tokenizer::TokenId>& tokens, const std::string& text) const;

  std::string name_;
  CompletionLimits limits_;
  RunningModel model_;
  uint64_t requests_ = 0;
};

}  // namespace crumb::jobs
