#include "jobs/completions.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <numeric>
#include <optional>

#include "core/common/json.h"
#include "core/tokenizer/unicode.h"
#include "eval/score.h"
#include "eval/written_answers.h"
#include "runtime/sampling.h"

namespace crumb::jobs {
namespace {

using tokenizer::TokenId;
using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

/// Prompts are computed together up to so many tokens, prompts and what is written.
constexpr int64_t kTokensTogether = 8192;
/// Tokens of a prompt between two looks at `stop`.
constexpr int64_t kTokensOfAPass = 2048;
/// Bytes of a text that no token spells: a character that is unknown or was normalized, spaces around a special token.
constexpr size_t kMostBytesBetween = 16;

template <class... Args>
[[noreturn]] void refuse(int status, fmt::format_string<Args...> format, Args&&... args) {
  throw RequestError(status, fmt::format(format, std::forward<Args>(args)...));
}

/// The value of a key; nothing where it is absent or null.
template <class T>
std::optional<T> value_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return std::nullopt;
  try {
    return json_as<T>(*found, "the request", key);
  } catch (const UserError& error) {
    refuse(400, "{}", error.what());
  }
}

template <class T>
T value_in(const Json& object, const char* key, T fallback, T least, T most) {
  const T value = value_of<T>(object, key).value_or(fallback);
  if (!(value >= least && value <= most)) refuse(400, "{}: {} is not in [{}, {}]", key, value, least, most);
  return value;
}

/// Keys with a meaning this server does not have, and the value that asks for nothing.
const std::vector<std::pair<const char*, Json>>& idle_values() {
  static const std::vector<std::pair<const char*, Json>> values = {{"n", 1},
                                                                   {"best_of", 1},
                                                                   {"stream", false},
                                                                   {"frequency_penalty", 0},
                                                                   {"presence_penalty", 0},
                                                                   {"logit_bias", Json::object()},
                                                                   {"suffix", ""}};
  return values;
}

void check_keys(const Json& request) {
  static const std::vector<std::string> known = {"model",    "prompt", "max_tokens", "temperature", "top_p",
                                                 "logprobs", "echo",   "stop",       "seed",        "user"};
  for (const auto& item : request.items()) {
    const std::string& key = item.key();
    const Json& value = item.value();
    if (std::ranges::find(known, key) != known.end() || value.is_null()) continue;
    const auto idle = std::ranges::find_if(idle_values(), [&](const auto& entry) { return entry.first == key; });
    if (idle == idle_values().end()) refuse(400, "the request: {} is not known", json_excerpt(key));
    if (value != idle->second) refuse(400, "{}: only {} is supported", key, idle->second.dump());
  }
}

/// A text that JSON can hold; a token may be a part of a character.
std::string shown(const std::string& bytes) {
  std::string storage;
  if (tokenizer::valid_utf8(bytes, storage).data() == bytes.data()) return bytes;
  std::string out = "bytes:";
  for (const char c : bytes) out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  return out;
}

/// Code points that begin in `bytes`.
int64_t num_characters(std::string_view bytes) {
  return std::ranges::count_if(bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

std::vector<size_t> top_ids(std::span<const float> logits, int64_t count) {
  std::vector<size_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), size_t{0});
  const auto wanted = std::min<std::ptrdiff_t>(count, std::ssize(ids));
  std::partial_sort(ids.begin(), ids.begin() + wanted, ids.end(),
                    [&](size_t a, size_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  ids.resize(static_cast<size_t>(wanted));
  return ids;
}

}  // namespace

struct Completions::Request {
  std::vector<std::vector<TokenId>> prompts;
  std::vector<std::string> texts;           // of the prompts
  std::vector<std::vector<size_t>> places;  // where each token of a prompt begins in its text, in bytes
  int64_t max_tokens = 16;
  runtime::SamplingOptions sampling;
  std::optional<int64_t> logprobs;
  bool echo = false;
  std::vector<std::string> stops;
};

struct Completions::Choice {
  std::vector<TokenId> tokens;  // the prompt, then what is written, its end included
  size_t prompt = 0;
  std::string text;  // without the prompt
  const char* end = nullptr;
  /// Of a token: its own, and those of the likeliest.
  struct Score {
    double own = 0;
    std::vector<std::pair<TokenId, double>> top;
  };
  std::vector<std::optional<Score>> scores;  // of `tokens`, where they were asked for
};

Completions::Completions(const NamedModel& model, const runtime::Precision& precision, int64_t threads,
                         const CompletionLimits& limits)
    : name_(model.name), limits_(limits), model_(load_model(model.path, precision, loading_with(threads))) {}

std::vector<TokenId> Completions::read_prompt(const Json& prompt, const std::string& name) const {
  std::vector<TokenId> tokens;
  if (prompt.is_string()) {
    tokens = model_.tokenizer->encode(prompt.get<std::string>(), true);
    if (tokens.empty()) {  // a text from nothing
      const auto first = eval::first_token(*model_.tokenizer);
      if (!first) refuse(400, "{}: it has no tokens", name);
      tokens = {*first};
    }
  } else if (prompt.is_array()) {
    const int64_t vocab = model_.decoder->spec().vocab_size;
    for (const auto& id : prompt) {
      // A negative number becomes one that is too large.
      const bool is_token = id.is_number_integer() && id.get<uint64_t>() < static_cast<uint64_t>(vocab);
      if (!is_token) refuse(400, "{}: {} is no token: whole numbers below {} are", name, json_excerpt(id), vocab);
      tokens.push_back(id.get<TokenId>());
    }
    if (tokens.empty()) refuse(400, "{}: it has no tokens", name);
  } else {
    refuse(400, "{}: a text or a list of token ids, not {}", name, json_excerpt(prompt));
  }
  if (std::ssize(tokens) > context_length())
    refuse(400, "{}: {} tokens, more than the model's context of {}", name, tokens.size(), context_length());
  return tokens;
}

Completions::Request Completions::read(const Json& json) const {
  if (!json.is_object()) refuse(400, "the request is not a JSON object");
  if (const auto model = value_of<std::string>(json, "model"); model && *model != name_)
    refuse(404, "the model {} is not here; {} is", json_excerpt(*model), name_);
  check_keys(json);
  Request out;
  out.max_tokens = value_in<int64_t>(json, "max_tokens", 16, 0, context_length());
  out.sampling.temperature = value_in(json, "temperature", 1.0, 0.0, 100.0);
  out.sampling.top_p = value_in(json, "top_p", 1.0, 0.0, 1.0);
  if (out.sampling.top_p == 0) out.sampling.temperature = 0;  // the likeliest alone
  out.sampling.seed = value_of<uint64_t>(json, "seed").value_or(requests_);
  out.sampling.vocab_size = model_.tokenizer->vocab_size();
  out.echo = value_of<bool>(json, "echo").value_or(false);
  if (value_of<int64_t>(json, "logprobs")) out.logprobs = value_in<int64_t>(json, "logprobs", 0, 0, limits_.top_tokens);
  if (const auto stop = json.find("stop"); stop != json.end() && !stop->is_null()) {
    const Json stops = stop->is_string() ? Json::array({*stop}) : *stop;
    if (!stops.is_array()) refuse(400, "stop: a text or a list of texts, not {}", json_excerpt(stops));
    if (std::ssize(stops) > limits_.stops)
      refuse(400, "stop: {} texts, at most {} are taken", stops.size(), limits_.stops);
    for (const auto& text : stops) {
      if (!text.is_string() || text.get<std::string>().empty())
        refuse(400, "stop: {} is not a text that could end anything", json_excerpt(text));
      out.stops.push_back(text.get<std::string>());
    }
  }
  const auto prompt = json.find("prompt");
  if (prompt == json.end()) refuse(400, "the request: prompt is missing");
  const bool is_list =
      prompt->is_array() && !prompt->empty() && (prompt->front().is_string() || prompt->front().is_array());
  const Json prompts = is_list ? *prompt : Json::array({*prompt});
  if (std::ssize(prompts) > limits_.prompts)
    refuse(400, "prompt: {} prompts, at most {} are taken at once", prompts.size(), limits_.prompts);
  int64_t total = 0, scored = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string name = is_list ? fmt::format("prompt {}", i) : "prompt";
    out.prompts.push_back(read_prompt(prompts[i], name));
    out.texts.push_back(prompts[i].is_string() ? prompts[i].get<std::string>() : std::string());
    if (prompts[i].is_string()) {
      out.places.push_back(places_of(out.prompts.back(), out.texts.back()));
    } else {
      out.places.emplace_back();
      for (const TokenId id : out.prompts.back()) {
        out.places.back().push_back(out.texts.back().size());
        out.texts.back() += model_.tokenizer->token_bytes(id);
      }
    }
    total += std::ssize(out.prompts.back()) + out.max_tokens;
    scored += out.max_tokens + (out.echo ? std::ssize(out.prompts.back()) : 0);
  }
  if (total > limits_.tokens)
    refuse(400, "the request: {} tokens, prompts and max_tokens of each, at most {} are taken", total, limits_.tokens);
  if (out.logprobs && scored * (*out.logprobs + 1) > limits_.scores)
    refuse(400,
           "logprobs: {} for each of {} tokens are {} log-probabilities, at most {} are given: ask for fewer, or send "
           "fewer prompts",
           *out.logprobs + 1, scored, scored * (*out.logprobs + 1), limits_.scores);
  return out;
}

/// Where each token of a prompt begins in its text, in bytes. The text spells neither tokens that were added around it
/// nor a space that the tokenizer puts before a word; such a token is where the next one is.
std::vector<size_t> Completions::places_of(const std::vector<TokenId>& tokens, const std::string& text) const {
  std::vector<size_t> places;
  size_t place = 0;
  bool has_words = false;
  for (const TokenId id : tokens) {
    const auto& tokenizer = *model_.tokenizer;
    const bool is_first_word = !has_words && !tokenizer.is_special(id);
    has_words |= is_first_word;
    std::string bytes = is_first_word ? tokenizer.decode({id}) : tokenizer.token_bytes(id);
    const bool is_added = places.empty() && tokenizer.special().add_bos;
    const std::string_view rest = std::string_view(text).substr(place);
    // Some tokenizers put a space behind special tokens, too.
    if (bytes.starts_with(' ') && !rest.starts_with(bytes) && rest.starts_with(std::string_view(bytes).substr(1)))
      bytes.erase(0, 1);
    const size_t between = is_added ? std::string::npos : rest.substr(0, bytes.size() + kMostBytesBetween).find(bytes);
    if (between != std::string::npos) place += between;
    places.push_back(place);
    if (between != std::string::npos) place += bytes.size();
  }
  return places;
}

/// What a written token adds to the text.
std::string Completions::text_of(TokenId token) const {
  const bool is_text = token < model_.tokenizer->vocab_size() && !model_.tokenizer->is_special(token);
  return is_text ? model_.tokenizer->token_bytes(token) : std::string();
}

namespace {

/// Of `token`, and of the `count` likeliest among the first `vocab_size`: rows behind them only fill up the head.
template <class Score>
Score score_of(std::span<const float> logits, int64_t vocab_size, TokenId token, int64_t count) {
  Score score;
  const auto check = [](double value) {
    if (!std::isfinite(value)) run_error("the model computes values that are not finite; its weights are broken");
    return value;
  };
  score.own = check(-eval::score_row(logits, {}, token).nll);
  if (count == 0) return score;
  const double own_logit = logits[static_cast<size_t>(token)];
  for (const size_t id : top_ids(logits.first(std::min(logits.size(), static_cast<size_t>(vocab_size))),
                                 count))  // differences of logits are those of their log-probabilities
    score.top.emplace_back(static_cast<TokenId>(id), check(score.own + (static_cast<double>(logits[id]) - own_logit)));
  return score;
}

}  // namespace

/// Picks the token behind those that are there.
void Completions::next(const Request& request, Choice& choice, std::span<const float> logits, uint64_t stream) const {
  const int64_t written = std::ssize(choice.tokens) - static_cast<int64_t>(choice.prompt);
  if (written >= request.max_tokens) {
    choice.end = "length";
    return;
  }
  const TokenId token =
      runtime::sample(logits, request.sampling, stream, static_cast<uint64_t>(written), choice.tokens);
  choice.tokens.push_back(token);
  if (request.logprobs)
    choice.scores.push_back(score_of<Choice::Score>(logits, model_.tokenizer->vocab_size(), token, *request.logprobs));
  const auto& ends = model_.tokenizer->special().end;
  if (std::ranges::binary_search(ends, token)) {
    choice.end = "stop";
    return;
  }
  choice.text += text_of(token);
  size_t first = std::string::npos;
  for (const auto& stop : request.stops) first = std::min(first, choice.text.find(stop));
  if (first != std::string::npos) {
    choice.text.resize(first);
    choice.end = "stop";
  } else if (written + 1 >= request.max_tokens || std::ssize(choice.tokens) > context_length()) {
    choice.end = "length";
  }
}

void Completions::run(const Request& request, std::vector<Choice>& choices, size_t first, size_t count,
                      const std::atomic<bool>* stop) {
  const auto check_stop = [&] {
    if (stop != nullptr && *stop) refuse(503, "the server is ending");
  };
  std::vector<std::unique_ptr<runtime::SequenceState>> states;
  const bool scores_prompt = request.echo && request.logprobs.has_value();
  for (size_t i = first; i < first + count; ++i) {
    Choice& choice = choices[i];
    auto& state = states.emplace_back(model_.decoder->new_state());
    const std::vector<TokenId> prompt = choice.tokens;
    if (scores_prompt) choice.scores.emplace_back();  // nothing predicts the first
    const auto size = std::ssize(prompt);
    for (int64_t begin = 0; begin < size; begin += kTokensOfAPass) {
      check_stop();
      const int64_t part = std::min(kTokensOfAPass, size - begin);
      const runtime::SequenceInput input{
          state.get(), std::span(prompt).subspan(static_cast<size_t>(begin), static_cast<size_t>(part))};
      // Positions count within the pass or the sequence, so they are counted here.
      const auto which = scores_prompt ? runtime::LogitsFor::all : runtime::LogitsFor::last;
      int64_t place = scores_prompt ? begin : begin + part - 1;
      model_.decoder->forward({&input, 1}, which, [&](int64_t, int64_t, std::span<const float> logits) {
        const int64_t predicted = ++place;
        if (predicted == size)
          next(request, choice, logits, i);
        else if (scores_prompt)
          choice.scores.push_back(score_of<Choice::Score>(logits, model_.tokenizer->vocab_size(),
                                                          prompt[static_cast<size_t>(predicted)], *request.logprobs));
      });
    }
  }
  while (true) {
    check_stop();
    std::vector<runtime::SequenceInput> inputs;
    std::vector<size_t> whose;
    for (size_t i = first; i < first + count; ++i) {
      if (choices[i].end != nullptr) continue;
      inputs.push_back({states[i - first].get(), std::span(choices[i].tokens).last(1)});
      whose.push_back(i);
    }
    if (inputs.empty()) return;
    std::vector<std::vector<TokenId>> last;  // of each, apart from the tokens that grow in the pass
    last.reserve(inputs.size());
    for (auto& input : inputs) input.tokens = last.emplace_back(input.tokens.begin(), input.tokens.end());
    model_.decoder->forward(inputs, runtime::LogitsFor::last,
                            [&](int64_t sequence, int64_t, std::span<const float> logits) {
                              const size_t i = whose[static_cast<size_t>(sequence)];
                              next(request, choices[i], logits, i);
                            });
  }
}

/// `index`: which of the request's prompts.
OrderedJson Completions::logprobs_of(const Request& request, const Choice& choice, size_t index) const {
  auto tokens = OrderedJson::array(), own = OrderedJson::array(), top = OrderedJson::array(),
       offsets = OrderedJson::array();
  const size_t begin = request.echo ? 0 : choice.prompt;
  const std::string text = (request.echo ? request.texts[index] : "") + choice.text;
  size_t place = request.echo ? request.texts[index].size() : 0;  // of what is written
  size_t counted = 0;
  int64_t offset = 0;
  for (size_t i = begin; i < choice.tokens.size(); ++i) {
    tokens.push_back(shown(model_.tokenizer->token_bytes(choice.tokens[i])));
    const bool is_prompt = i < choice.prompt;
    const size_t start = std::min(is_prompt ? request.places[index][i] : place, text.size());  // `stop` cuts texts
    if (!is_prompt) place += text_of(choice.tokens[i]).size();
    offset += num_characters(std::string_view(text).substr(counted, start - counted));
    counted = start;
    offsets.push_back(offset);
    const auto& score = choice.scores[i - begin];
    own.push_back(score ? OrderedJson(score->own) : OrderedJson());
    if (!score || request.logprobs == 0) {
      top.push_back(nullptr);
      continue;
    }
    auto entry = OrderedJson::object();
    for (const auto& [id, value] : score->top) entry.emplace(shown(model_.tokenizer->token_bytes(id)), value);
    entry.emplace(tokens.back().get<std::string>(), score->own);  // the likelier of two with one text stays
    top.push_back(std::move(entry));
  }
  return {{"tokens", tokens}, {"token_logprobs", own}, {"top_logprobs", top}, {"text_offset", offsets}};
}

OrderedJson Completions::complete(const Json& json, const std::atomic<bool>* stop) {
  ++requests_;
  const Request request = read(json);
  std::vector<Choice> choices(request.prompts.size());
  int64_t prompt_tokens = 0, written = 0;
  for (size_t i = 0; i < choices.size(); ++i) {
    choices[i].tokens = request.prompts[i];
    choices[i].prompt = request.prompts[i].size();
    prompt_tokens += std::ssize(request.prompts[i]);
  }
  for (size_t first = 0; first < choices.size();) {
    size_t count = 0;
    int64_t tokens = 0;
    while (first + count < choices.size()) {
      tokens += std::ssize(choices[first + count].tokens) + request.max_tokens;
      if (count > 0 && tokens > kTokensTogether) break;
      ++count;
    }
    run(request, choices, first, count, stop);
    first += count;
  }
  auto list = OrderedJson::array();
  for (size_t i = 0; i < choices.size(); ++i) {
    const Choice& choice = choices[i];
    written += std::ssize(choice.tokens) - static_cast<int64_t>(choice.prompt);
    list.push_back({{"text", (request.echo ? request.texts[i] : "") + choice.text},
                    {"index", i},
                    {"logprobs", request.logprobs ? logprobs_of(request, choice, i) : OrderedJson()},
                    {"finish_reason", choice.end}});
  }
  return {
      {"id", fmt::format("cmpl-{}", requests_)},
      {"object", "text_completion"},
      {"created", static_cast<int64_t>(std::time(nullptr))},
      {"model", name_},
      {"choices", std::move(list)},
      {"usage",
       {{"prompt_tokens", prompt_tokens}, {"completion_tokens", written}, {"total_tokens", prompt_tokens + written}}}};
}

}  // namespace crumb::jobs
