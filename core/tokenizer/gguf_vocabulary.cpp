#include "core/tokenizer/gguf_vocabulary.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <initializer_list>
#include <set>
#include <unordered_map>
#include <unordered_set>
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

// Tokens that llama.cpp knows by their text, whatever their type. Source: llama-vocab.cpp, of the version in
// llama-cpp-python 0.3.36.
constexpr std::array kEndOfTurn = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",         "<|endoftext|>",     "<|end_of_text|>",
    "<EOT>",      "_<EOT>",     "[EOT]",   "<｜end▁of▁sentence｜>", "<end_of_utterance>"};
constexpr std::array kEndOfMessage = {"<|eom_id|>"};
constexpr std::array kOtherEnds = {"<|return|>", "<|call|>", "<|flush|>", "<|calls|>",        "</s>",
                                   "[EOS]",      "<eos>",    "<turn|>",   "<|tool_response>", "[e~["};
constexpr std::array kFillPad = {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"};
constexpr std::array kFillRepository = {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"};
constexpr std::array kFillSeparator = {"<|file_sep|>"};
constexpr std::array kFillOther = {
    "<|fim_prefix|>",  "<fim-prefix>",  "<fim_prefix>",    "<｜fim▁begin｜>", "<PRE>",           "▁<PRE>",
    "<|code_prefix|>", "<|prefix|>",    "<|fim_suffix|>",  "<fim-suffix>",    "<fim_suffix>",    "<｜fim▁hole｜>",
    "<SUF>",           "▁<SUF>",        "<|code_suffix|>", "<|suffix|>",      "<|fim_middle|>",  "<fim-middle>",
    "<fim_middle>",    "<｜fim▁end｜>", "<MID>",           "▁<MID>",          "<|code_middle|>", "<|middle|>"};
constexpr std::array kPlainText = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};

template <class Texts>
bool is_one_of(const Texts& texts, std::string_view piece) {
  return std::find(texts.begin(), texts.end(), piece) != texts.end();
}

bool is_known_end(std::string_view piece) {
  return is_one_of(kEndOfTurn, piece) || is_one_of(kEndOfMessage, piece) || is_one_of(kOtherEnds, piece);
}

class Reader {
 public:
  explicit Reader(const GgufReader& gguf) : gguf_(gguf), name_(gguf.path().string()) {}

  Description read() {
    out_.source = name_;
    out_.rules = Description::Rules::llamacpp;
    const std::string model = gguf_.get_string(kModel);
    CRUMB_CHECK(model == "gpt2" || model == "llama",
                "{}: {} is \"{}\"; supported: gpt2 (byte-level BPE), llama (SentencePiece BPE)", name_, kModel, model);
    read_tokens();
    if (model == "gpt2")
      read_byte_level();
    else
      read_sentencepiece();
    read_special(model == "llama");
    read_ends();
    override_types();
    list_added_tokens();
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
      out_.tokens.push_back({piece, static_cast<TokenType>(type), scores.empty() ? 0 : scores[i], true});
    }
  }

  void list_added_tokens() {
    for (size_t i = 0; i < out_.tokens.size(); ++i) {
      const Token& token = out_.tokens[i];
      if (!is_added(token.type)) continue;
      const bool special = token.type != TokenType::user_defined;
      out_.added.push_back({token.piece, static_cast<TokenId>(i), special, false, false, false, false});
      take_spaces(out_.added.back());
    }
  }

  /// llama.cpp knows by the name of the model or of its split which tokens take the white space beside them.
  void take_spaces(AddedToken& token) const {
    std::string name = gguf_.get_string_or("general.name", "");
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    const auto has = [](std::string_view text, std::string_view part) { return text.find(part) != text.npos; };
    if (has(out_.split_name, "jina-v2-de") || has(out_.split_name, "jina-v2-es") ||
        has(out_.split_name, "jina-v2-code"))
      token.lstrip = token.content == "<mask>";
    else if (has(name, "phi-3") || has(name, "phi3"))
      token.rstrip = token.content != "<unk>" && token.content != "<s>" && token.content != "<|endoftext|>";
    else if (has(name, "modern-bert"))
      token.lstrip = token.content == "[MASK]";
  }

  static bool is_added(TokenType type) {
    return type == TokenType::control || type == TokenType::user_defined || type == TokenType::unknown;
  }

  void read_byte_level() {
    out_.kind = Description::Kind::byte_level;
    out_.split_name = gguf_.get_string_or(kPre, "default");
    const NamedSplit* split = find_named_split(out_.split_name);
    if (split == nullptr) refuse_split();
    if (gguf_.find(kPre) == nullptr)
      log_warning("{}: no split is named ({}); using llama.cpp's default one", name_, kPre);
    for (const std::string& pattern : split->as_llamacpp())
      out_.split.steps.push_back({pattern, SplitBehavior::isolated, false});
    out_.split.tables = UnicodeTables::llamacpp;
    out_.ignore_merges = split->ignore_merges;
    if (split->nfc) out_.normalizer.steps.push_back({NormalizerStep::Kind::nfc, "", "", {}});
    out_.special.add_bos = split->add_bos;
    read_merges();
  }

  [[noreturn]] void refuse_split() const {
    const std::string reason = reason_against_split(out_.split_name);
    if (!reason.empty()) user_error("{}: {} is \"{}\": {}", name_, kPre, out_.split_name, reason);
    std::string known;
    for (const NamedSplit& named : named_splits()) known += (known.empty() ? "" : ", ") + named.name;
    user_error("{}: {} is \"{}\"; supported: {}", name_, kPre, out_.split_name, known);
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

  std::optional<TokenId> id_of_key(const char* key) const {
    if (gguf_.find(key) == nullptr) return std::nullopt;
    const int64_t value = gguf_.get_int(key);
    const auto size = static_cast<int64_t>(out_.tokens.size());
    CRUMB_CHECK(value >= 0 && value < size, "{}: {} is {}, the vocabulary has {} tokens", name_, key, value, size);
    return static_cast<TokenId>(value);
  }

  void read_special(bool is_sentencepiece) {
    // The ids that llama.cpp takes for a SentencePiece vocabulary where the file names none.
    const auto id_or = [&](const char* key, TokenId usual) {
      const auto id = id_of_key(key);
      const bool is_usual = !id && is_sentencepiece && static_cast<size_t>(usual) < out_.tokens.size();
      return is_usual ? std::optional(usual) : id;
    };
    out_.special.bos = id_or("tokenizer.ggml.bos_token_id", 1);
    out_.special.eos = id_or("tokenizer.ggml.eos_token_id", 2);
    out_.special.unk = id_or("tokenizer.ggml.unknown_token_id", 0);
    out_.special.pad = id_of_key("tokenizer.ggml.padding_token_id");
    if (is_sentencepiece) out_.unknown = out_.special.unk;
    out_.special.add_bos = gguf_.get_bool_or("tokenizer.ggml.add_bos_token", out_.special.add_bos) && out_.special.bos;
    out_.special.add_eos = gguf_.get_bool_or("tokenizer.ggml.add_eos_token", false) && out_.special.eos;
    if (out_.special.add_bos) out_.prefix = {*out_.special.bos};
    if (out_.special.add_eos) out_.suffix = {*out_.special.eos};
  }

  /// The token of a key, else the first one that has one of the texts.
  template <class Texts>
  std::optional<TokenId> id_of_key_or_text(const char* key, const Texts& texts) const {
    if (const auto id = id_of_key(key)) return id;
    for (size_t i = 0; i < out_.tokens.size(); ++i) {
      if (is_one_of(texts, out_.tokens[i].piece)) return static_cast<TokenId>(i);
    }
    return std::nullopt;
  }

  void read_ends() {
    std::set<TokenId> ends;
    const auto add = [&](std::optional<TokenId> id) {
      if (id) ends.insert(*id);
    };
    add(out_.special.eos);
    add(id_of_key_or_text("tokenizer.ggml.eot_token_id", kEndOfTurn));
    add(id_of_key_or_text("tokenizer.ggml.eom_token_id", kEndOfMessage));
    add(id_of_key_or_text("tokenizer.ggml.fim_pad_token_id", kFillPad));
    add(id_of_key_or_text("tokenizer.ggml.fim_rep_token_id", kFillRepository));
    add(id_of_key_or_text("tokenizer.ggml.fim_sep_token_id", kFillSeparator));
    for (size_t i = 0; i < out_.tokens.size(); ++i) {
      if (is_known_end(out_.tokens[i].piece)) add(static_cast<TokenId>(i));
    }
    remove_false_ends(ends);
    out_.special.end.assign(ends.begin(), ends.end());
  }

  /// Vocabularies in which "<|end|>" ends a part of a message only, and those in which "</s>" is any text.
  void remove_false_ends(std::set<TokenId>& ends) {
    const auto find = [&](std::string_view piece) -> std::optional<TokenId> {
      for (const TokenId id : ends) {
        if (out_.tokens[static_cast<size_t>(id)].piece == piece) return id;
      }
      return std::nullopt;
    };
    const bool calls = find("<|call|>") || find("<|calls|>");
    if (const auto end = find("<|end|>"); end && calls && (find("<|return|>") || find("<|flush|>"))) {
      ends.erase(*end);
      plain_ = end;
    }
    if (const auto s = find("</s>"); s && (find("<|tool_response>") || find("<|plamo:eos|>"))) {
      ends.erase(*s);
      normal_ = s;
    }
  }

  /// What looks like a control token is one for llama.cpp.
  void override_types() {
    for (Token& token : out_.tokens) {
      const std::string& piece = token.piece;
      if (is_one_of(kPlainText, piece))
        token.type = TokenType::user_defined;
      else if (is_known_end(piece) || is_one_of(kFillPad, piece) || is_one_of(kFillRepository, piece) ||
               is_one_of(kFillSeparator, piece) || is_one_of(kFillOther, piece))
        token.type = TokenType::control;
    }
    if (plain_) out_.tokens[static_cast<size_t>(*plain_)].type = TokenType::user_defined;
    if (normal_) out_.tokens[static_cast<size_t>(*normal_)].type = TokenType::normal;
  }

  std::optional<TokenId> plain_, normal_;  // tokens that only look like the end of a generation
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

/// Rows without a token get a name that no token has.
std::string name_of_gap(int64_t id, const std::unordered_set<std::string_view>& taken) {
  std::string name = fmt::format("[PAD{}]", id);
  while (taken.contains(name)) name.insert(name.size() - 1, "_");
  return name;
}

void set_token_list(const Description& description, int64_t rows, GgufWriter& writer) {
  std::unordered_set<std::string_view> taken;
  for (const Token& token : description.tokens) taken.insert(token.piece);
  std::vector<std::string> pieces;
  std::vector<int32_t> types;
  for (int64_t id = 0; id < rows; ++id) {
    const bool exists = id < static_cast<int64_t>(description.tokens.size()) &&
                        !description.tokens[static_cast<size_t>(id)].piece.empty();
    const Token token = exists ? description.tokens[static_cast<size_t>(id)]
                               : Token{name_of_gap(id, taken), TokenType::unused, 0, false};
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
  if (split != nullptr && split->approximated) {
    log_warning(
        "{}: under the name \"{}\" llama.cpp splits text by a simpler expression than this tokenizer; words outside "
        "plain English may give other ids there",
        description.source, name);
  }
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

/// llama.cpp ends at EOS, one end of turn, one end of message, and at what it knows by its text.
void set_ends(const Description& description, GgufWriter& writer) {
  const auto piece = [&](TokenId id) -> const std::string& {
    return description.tokens[static_cast<size_t>(id)].piece;
  };
  std::optional<TokenId> turn, message;
  std::vector<TokenId> others;  // that llama.cpp does not know by their text
  for (const TokenId id : description.special.end) {
    if (id == description.special.eos) continue;
    if (is_one_of(kEndOfTurn, piece(id))) {
      if (!turn) turn = id;
    } else if (is_one_of(kEndOfMessage, piece(id))) {
      message = id;
    } else if (!is_known_end(piece(id))) {
      others.push_back(id);
    }
  }
  std::string left_out;
  for (const TokenId id : others) {
    if (!turn)
      turn = id;
    else if (!message)
      message = id;
    else
      left_out += fmt::format("{}{} \"{}\"", left_out.empty() ? "" : ", ", id, piece(id));
  }
  if (turn) writer.set_u32("tokenizer.ggml.eot_token_id", static_cast<uint32_t>(*turn));
  if (message) writer.set_u32("tokenizer.ggml.eom_token_id", static_cast<uint32_t>(*message));
  if (!left_out.empty()) {
    log_warning("{}: GGUF has no key for more tokens that end a generation; llama.cpp will not stop at {}",
                description.source, left_out);
  }
}

void set_special(const Description& description, GgufWriter& writer) {
  const SpecialIds& special = description.special;
  const auto set = [&](const char* key, std::optional<TokenId> id) {
    if (id) writer.set_u32(key, static_cast<uint32_t>(*id));
  };
  set("tokenizer.ggml.bos_token_id", special.bos);
  set("tokenizer.ggml.eos_token_id", special.eos);
  set("tokenizer.ggml.unknown_token_id", special.unk);
  set("tokenizer.ggml.padding_token_id", special.pad);
  set_ends(description, writer);
  writer.set_bool("tokenizer.ggml.add_bos_token", special.add_bos);
  writer.set_bool("tokenizer.ggml.add_eos_token", special.add_eos);
  const bool says_prefix = description.prefix.empty() || (special.add_bos && description.prefix.size() == 1);
  const bool says_suffix = description.suffix.empty() || (special.add_eos && description.suffix.size() == 1);
  if (!says_prefix || !says_suffix) {
    log_warning("{}: this tokenizer puts tokens {} before and {} after a text; GGUF can say BOS and EOS only",
                description.source, fmt::join(description.prefix, " "), fmt::join(description.suffix, " "));
  }
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
  set_special(description, writer);
  if (!description.chat_template.empty()) writer.set_string("tokenizer.chat_template", description.chat_template);
}

}  // namespace crumb::tokenizer
