#include "core/tokenizer/gguf_vocabulary.h"

#include <algorithm>
#include <initializer_list>
#include <unordered_map>
#include <utility>

#include "core/common/error.h"
#include "core/common/log.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

using formats::GgufArray;
using formats::GgufReader;
using formats::GgufWriter;

constexpr const char* kModel = "tokenizer.ggml.model";
constexpr const char* kPre = "tokenizer.ggml.pre";
constexpr const char* kTokens = "tokenizer.ggml.tokens";
constexpr const char* kTypes = "tokenizer.ggml.token_type";
constexpr const char* kScores = "tokenizer.ggml.scores";
constexpr const char* kMerges = "tokenizer.ggml.merges";

/// Whole numbers must fit, and be whole.
template <class Out, class In>
bool can_hold(In value) {
  if constexpr (std::is_same_v<In, bool>)
    return false;
  else if constexpr (std::is_floating_point_v<Out>)
    return true;
  else if constexpr (std::is_integral_v<In>)
    return std::in_range<Out>(value);
  else
    return false;
}

/// An array of numbers, as `Out`; empty if the key is absent.
template <class Out>
std::vector<Out> read_numbers(const GgufReader& gguf, const char* key) {
  const formats::GgufValue* value = gguf.find(key);
  if (value == nullptr) return {};
  const auto* array = std::get_if<GgufArray>(&value->value);
  CRUMB_CHECK(array != nullptr, "{}: {} is not an array", gguf.path().string(), key);
  return std::visit(
      [&](const auto& values) -> std::vector<Out> {
        if constexpr (std::is_same_v<std::decay_t<decltype(values)>, std::vector<std::string>>) {
          user_error("{}: {} holds strings, expected numbers", gguf.path().string(), key);
        } else {
          std::vector<Out> out;
          for (const auto v : values) {
            CRUMB_CHECK(can_hold<Out>(v), "{}: {}: entry {} is {}, expected {}", gguf.path().string(), key, out.size(),
                        v, std::is_integral_v<Out> ? "a whole number of 32 bits" : "a number");
            out.push_back(static_cast<Out>(v));
          }
          return out;
        }
      },
      array->values);
}

class Reader {
 public:
  explicit Reader(const GgufReader& gguf) : gguf_(gguf), name_(gguf.path().string()) {}

  Description read() {
    out_.source = name_;
    const std::string model = gguf_.get_string(kModel);
    CRUMB_CHECK(model == "gpt2" || model == "llama",
                "{}: {} is \"{}\"; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)", name_, kModel, model);
    read_tokens();
    if (model == "gpt2")
      read_byte_level();
    else
      read_sentencepiece();
    read_special(model == "llama");
    out_.chat_template = gguf_.get_string_or("tokenizer.chat_template", "");
    return std::move(out_);
  }

 private:
  void read_tokens() {
    const auto& pieces = gguf_.get_strings(kTokens);
    const auto types = read_numbers<int32_t>(gguf_, kTypes);
    const auto scores = read_numbers<float>(gguf_, kScores);
    const auto check_size = [&](size_t size, const char* key) {
      CRUMB_CHECK(size == 0 || size == pieces.size(), "{}: {} has {} entries for {} tokens", name_, key, size,
                  pieces.size());
    };
    check_size(types.size(), kTypes);
    check_size(scores.size(), kScores);
    for (size_t i = 0; i < pieces.size(); ++i) {
      const int32_t type = types.empty() ? 1 : types[i];
      CRUMB_CHECK(type >= 1 && type <= 6, "{}: token {} has type {}, expected 1..6", name_, i, type);
      std::string storage;
      const std::string piece(valid_utf8(pieces[i], storage));
      Token token{piece, static_cast<TokenType>(type), scores.empty() ? 0 : scores[i], true};
      token.in_model = token.type != TokenType::control && token.type != TokenType::unused;
      if (is_added(token.type)) {
        const bool special = token.type != TokenType::user_defined;
        out_.added.push_back({token.piece, static_cast<TokenId>(i), special, false, false, false, false});
      }
      out_.tokens.push_back(std::move(token));
    }
  }

  static bool is_added(TokenType type) {
    return type == TokenType::control || type == TokenType::user_defined || type == TokenType::unknown;
  }

  void read_byte_level() {
    out_.kind = Description::Kind::byte_level;
    out_.split_name = gguf_.get_string_or(kPre, "default");
    const NamedSplit* split = find_named_split(out_.split_name);
    if (split == nullptr) {
      std::string known;
      for (const NamedSplit& named : named_splits()) known += (known.empty() ? "" : ", ") + named.name;
      user_error("{}: {} is \"{}\"; supported: {}", name_, kPre, out_.split_name, known);
    }
    if (out_.split_name == "default")
      log_warning("{}: no split is named ({}); using llama.cpp's default one", name_, kPre);
    for (const std::string& pattern : split->patterns)
      out_.split.steps.push_back({pattern, SplitBehavior::isolated, false});
    out_.ignore_merges = split->ignore_merges;
    if (split->nfc) out_.normalizer.steps.push_back({NormalizerStep::Kind::nfc, "", "", {}});
    out_.special.add_bos = split->add_bos;
    read_merges();
  }

  void read_merges() {
    std::unordered_map<std::string_view, TokenId> ids;
    for (size_t i = 0; i < out_.tokens.size(); ++i) ids.emplace(out_.tokens[i].piece, static_cast<TokenId>(i));
    for (const std::string& merge : gguf_.get_strings(kMerges)) {
      const size_t space = merge.find(' ', 1);
      CRUMB_CHECK(space != std::string::npos, "{}: merge {} (\"{}\") is not two pieces", name_, out_.merges.size(),
                  merge);
      const auto left = ids.find(std::string_view(merge).substr(0, space)),
                 right = ids.find(std::string_view(merge).substr(space + 1));
      CRUMB_CHECK(left != ids.end() && right != ids.end(),
                  "{}: merge {} (\"{}\") names a token that is not in the vocabulary", name_, out_.merges.size(),
                  merge);
      out_.merges.push_back({left->second, right->second});
    }
  }

  void read_sentencepiece() {
    out_.kind = Description::Kind::sentencepiece;
    out_.priority = Description::Priority::scores;
    out_.byte_fallback = true;
    out_.fuse_unknown = true;
    CRUMB_CHECK(gguf_.find(kScores) != nullptr, "{}: {} is missing", name_, kScores);
    if (gguf_.get_bool_or("tokenizer.ggml.add_space_prefix", true)) {
      out_.normalizer.steps.push_back({NormalizerStep::Kind::prepend, "", std::string(kSpaceMark), {}});
      out_.strip_leading_space = true;
    }
    out_.normalizer.steps.push_back({NormalizerStep::Kind::replace, " ", std::string(kSpaceMark), {}});
    out_.special.add_bos = true;
  }

  void read_special(bool is_sentencepiece) {
    const auto id = [&](const char* key) -> std::optional<TokenId> {
      if (gguf_.find(key) == nullptr) return std::nullopt;
      const int64_t value = gguf_.get_int(key);
      const auto size = static_cast<int64_t>(out_.tokens.size());
      CRUMB_CHECK(value >= 0 && value < size, "{}: {} is {}, the vocabulary has {} tokens", name_, key, value, size);
      return static_cast<TokenId>(value);
    };
    out_.special.bos = id("tokenizer.ggml.bos_token_id");
    out_.special.eos = id("tokenizer.ggml.eos_token_id");
    out_.special.unk = id("tokenizer.ggml.unknown_token_id");
    out_.special.pad = id("tokenizer.ggml.padding_token_id");
    if (is_sentencepiece) out_.unknown = out_.special.unk;
    out_.special.add_bos = gguf_.get_bool_or("tokenizer.ggml.add_bos_token", out_.special.add_bos) && out_.special.bos;
    out_.special.add_eos = gguf_.get_bool_or("tokenizer.ggml.add_eos_token", false) && out_.special.eos;
    if (out_.special.add_bos) out_.prefix = {*out_.special.bos};
    if (out_.special.add_eos) out_.suffix = {*out_.special.eos};
  }

  const GgufReader& gguf_;
  std::string name_;
  Description out_;
};

// ---- writing ----

/// Scores that put the merges in the order of their ranks: the earlier a token can be made, the higher.
std::vector<float> scores_of_ranks(const Description& description) {
  std::unordered_map<std::string, TokenId> ids;
  for (size_t i = 0; i < description.tokens.size(); ++i)
    ids.emplace(description.tokens[i].piece, static_cast<TokenId>(i));
  constexpr float kNever = -1e9F;  // tokens that no merge makes come last
  std::vector<float> scores(description.tokens.size(), kNever);
  float next = -1;
  for (const auto& [left, right] : description.merges) {
    const auto& tokens = description.tokens;
    const auto it = ids.find(tokens[static_cast<size_t>(left)].piece + tokens[static_cast<size_t>(right)].piece);
    if (it == ids.end() || scores[static_cast<size_t>(it->second)] != kNever) continue;
    scores[static_cast<size_t>(it->second)] = next--;
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (description.tokens[i].type != TokenType::normal) scores[i] = 0;
  }
  return scores;
}

std::vector<float> scores_of(const Description& description) {
  if (description.priority == Description::Priority::merges) return scores_of_ranks(description);
  std::vector<float> scores;
  for (const Token& token : description.tokens) scores.push_back(token.score);
  return scores;
}

bool prepends_space(const Description& description) {
  if (description.split.metaspace) return description.split.metaspace->prepend != Metaspace::Prepend::never;
  return std::any_of(description.normalizer.steps.begin(), description.normalizer.steps.end(),
                     [](const NormalizerStep& step) { return step.kind == NormalizerStep::Kind::prepend; });
}

bool normalizes(const Description& description, std::initializer_list<NormalizerStep::Kind> kinds) {
  return std::any_of(
      description.normalizer.steps.begin(), description.normalizer.steps.end(),
      [&](const NormalizerStep& step) { return std::find(kinds.begin(), kinds.end(), step.kind) != kinds.end(); });
}

void warn_about_differences(const Description& description) {
  using Kind = NormalizerStep::Kind;
  if (normalizes(description, {Kind::nfkc, Kind::nfkd, Kind::nfd, Kind::lowercase})) {
    log_warning("{}: llama.cpp does not apply the tokenizer's normalizer; texts that it changes give other ids there",
                description.source);
  } else if (normalizes(description, {Kind::nfc})) {
    log_warning(
        "{}: llama.cpp does not apply the tokenizer's normalizer (NFC); decomposed characters give other ids there",
        description.source);
  }
  const auto takes_more = [](const AddedToken& token) { return token.lstrip || token.rstrip || token.single_word; };
  if (std::any_of(description.added.begin(), description.added.end(), takes_more)) {
    log_warning("{}: llama.cpp does not know the options lstrip, rstrip, single_word of added tokens",
                description.source);
  }
  if (description.split.metaspace && prepends_space(description)) {
    log_warning("{}: llama.cpp puts a space before every text, also where it begins with one; this tokenizer does not",
                description.source);
  }
}

void set_token_list(const Description& description, int64_t rows, GgufWriter& writer) {
  std::vector<std::string> pieces;
  std::vector<int32_t> types;
  for (int64_t id = 0; id < rows; ++id) {
    const bool exists = id < static_cast<int64_t>(description.tokens.size()) &&
                        !description.tokens[static_cast<size_t>(id)].piece.empty();
    const Token token = exists ? description.tokens[static_cast<size_t>(id)]
                               : Token{fmt::format("[PAD{}]", id), TokenType::unused, 0, false};
    pieces.push_back(token.piece);
    types.push_back(static_cast<int32_t>(token.type));
  }
  writer.set_strings(kTokens, std::move(pieces));
  writer.set_i32s(kTypes, std::move(types));
}

/// The file says nothing of normalizers: who reads it with Crumb gets what the name stands for.
void warn_about_nfc(const Description& description, const NamedSplit* split, bool nfc) {
  if (split == nullptr || split->nfc == nfc) return;
  log_warning(
      "{}: this tokenizer {} texts (NFC), those that GGUF calls \"{}\" {}; decomposed characters give other ids "
      "with the GGUF file",
      description.source, nfc ? "normalizes" : "does not normalize", split->name, nfc ? "do not" : "do");
}

void set_byte_level(const Description& description, GgufWriter& writer) {
  const bool nfc = normalizes(description, {NormalizerStep::Kind::nfc});
  const NamedSplit* split = name_of_split(description.split, description.ignore_merges, nfc);
  const std::string name = !description.split_name.empty() ? description.split_name
                           : split != nullptr              ? split->name
                                                           : "";
  CRUMB_CHECK(!name.empty(),
              "{}: llama.cpp has no name for this tokenizer's pre_tokenizer, so it cannot be written to GGUF{}",
              description.source, description.split.prefix_space ? " (add_prefix_space)" : "");
  warn_about_nfc(description, find_named_split(name), nfc);
  std::vector<std::string> merges;
  for (const auto& [left, right] : description.merges) {
    merges.push_back(description.tokens[static_cast<size_t>(left)].piece + " " +
                     description.tokens[static_cast<size_t>(right)].piece);
  }
  writer.set_string(kModel, "gpt2");
  writer.set_string(kPre, name);
  writer.set_strings(kMerges, std::move(merges));
}

void set_sentencepiece(const Description& description, int64_t rows, GgufWriter& writer) {
  const auto is_byte = [](const Token& token) { return token.type == TokenType::byte; };
  const auto num_bytes = std::count_if(description.tokens.begin(), description.tokens.end(), is_byte);
  CRUMB_CHECK(num_bytes == 256,
              "{}: llama.cpp needs 256 byte tokens (<0x00> to <0xFF>) in a SentencePiece vocabulary, this one has {}",
              description.source, num_bytes);
  // After spaces have become marks, a split at spaces (Gemma) cuts nothing.
  const bool splits = std::any_of(description.split.steps.begin(), description.split.steps.end(),
                                  [](const SplitStep& step) { return step.pattern != escape_pattern(" "); });
  CRUMB_CHECK(!splits && !description.ignore_merges,
              "{}: llama.cpp cannot split text for a SentencePiece vocabulary as this pre_tokenizer does",
              description.source);
  std::vector<float> scores = scores_of(description);
  scores.resize(static_cast<size_t>(rows), 0);
  writer.set_string(kModel, "llama");
  writer.set_string(kPre, "default");
  writer.set_f32s(kScores, std::move(scores));
  writer.set_bool("tokenizer.ggml.add_space_prefix", prepends_space(description));
}

void set_special(const SpecialIds& special, GgufWriter& writer) {
  const auto set = [&](const char* key, std::optional<TokenId> id) {
    if (id) writer.set_u32(key, static_cast<uint32_t>(*id));
  };
  set("tokenizer.ggml.bos_token_id", special.bos);
  set("tokenizer.ggml.eos_token_id", special.eos);
  set("tokenizer.ggml.unknown_token_id", special.unk);
  set("tokenizer.ggml.padding_token_id", special.pad);
  writer.set_bool("tokenizer.ggml.add_bos_token", special.add_bos);
  writer.set_bool("tokenizer.ggml.add_eos_token", special.add_eos);
}

}  // namespace

Description read_gguf_vocabulary(const GgufReader& gguf) { return Reader(gguf).read(); }

void write_gguf_vocabulary(const Description& description, int64_t rows, GgufWriter& writer) {
  const auto size = static_cast<int64_t>(description.tokens.size());
  CRUMB_CHECK(size <= rows, "{}: the tokenizer has {} tokens, the embedding only {} rows", description.source, size,
              rows);
  warn_about_differences(description);
  if (description.kind == Description::Kind::byte_level)
    set_byte_level(description, writer);
  else
    set_sentencepiece(description, rows, writer);
  set_token_list(description, rows, writer);
  set_special(description.special, writer);
  if (!description.chat_template.empty()) writer.set_string("tokenizer.chat_template", description.chat_template);
}

}  // namespace crumb::tokenizer
