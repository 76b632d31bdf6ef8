#include "core/tokenizer/hf_json.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <map>
#include <set>
#include <unordered_map>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"

namespace crumb::tokenizer {
namespace {

using Json = nlohmann::json;

class Reader {
 public:
  explicit Reader(const Path& file) : file_(file) { out_.source = file.string(); }

  Description read() {
    const Json root = read_json(file_);
    CRUMB_CHECK(root.is_object() && root.contains("model"), "{}: no \"model\": not a tokenizer.json", file_.string());
    count_tokens(root);
    read_pre_tokenizer(child(root, "pre_tokenizer"));
    read_model(root.at("model"));
    read_normalizer(child(root, "normalizer"));
    read_added_tokens(child(root, "added_tokens"));
    read_decoder(child(root, "decoder"));
    read_config_files();
    add_tokens_of_config();
    read_special_ids();
    read_post_processor(child(root, "post_processor"));
    return std::move(out_);
  }

 private:
  [[noreturn]] void unsupported(const char* what, const std::string& which, const char* known) const {
    user_error("{}: {} \"{}\" is not supported; supported: {}", file_.string(), what, which, known);
  }

  /// A value that is absent or null reads as the fallback.
  template <class T>
  T get_or(const Json& json, const char* key, T fallback) const {
    return JsonObject(json, file_.string()).get<T>(key, fallback);
  }
  std::string text_at(const Json& json, const char* key) const {
    return JsonObject(json, file_.string()).get<std::string>(key);
  }
  Json child(const Json& json, const char* key) const {
    const Json* found = JsonObject(json, file_.string()).find(key);
    return found == nullptr ? Json() : *found;
  }
  std::string type_of(const Json& json) const { return get_or<std::string>(json, "type", "(none)"); }

  /// The elements of a Sequence (nested ones included), or the one object itself; nothing for null.
  void flatten(const Json& json, const char* list_key, std::vector<Json>& out) const {
    if (json.is_null()) return;
    if (type_of(json) != "Sequence") return out.push_back(json);
    for (const Json& element : json.at(list_key)) flatten(element, list_key, out);
  }

  Path sibling(const char* name) const { return file_.parent_path() / name; }

  Json parse_sibling(const char* name) const {
    const Path path = sibling(name);
    return is_there(path) ? read_json(path) : Json::object();
  }

  void count_tokens(const Json& root) {
    const auto count = [](const Json& json, const char* key) {
      const auto it = json.find(key);
      return it == json.end() ? 0 : static_cast<int64_t>(it->size());
    };
    num_in_model_ = count(root.at("model"), "vocab");
    num_listed_ = num_in_model_ + count(root, "added_tokens");
  }

  /// Ids may leave gaps, but one far beyond the number of tokens would only make a table of nothing.
  TokenId token_id(const Json& json) const {
    const auto id = json_as<int64_t>(json, file_.string(), "a token id");
    CRUMB_CHECK(id >= 0 && id < 2 * num_listed_ + 65'536, "{}: token id {} is out of range for {} tokens",
                file_.string(), id, num_listed_);
    return static_cast<TokenId>(id);
  }

  Token& token_at(TokenId id) {
    if (out_.tokens.size() <= static_cast<size_t>(id)) out_.tokens.resize(static_cast<size_t>(id) + 1);
    return out_.tokens[static_cast<size_t>(id)];
  }

  std::optional<TokenId> id_of(const std::string& piece) const {
    const auto it = ids_.find(piece);
    if (it == ids_.end()) return std::nullopt;
    return it->second;
  }

  void read_model(const Json& model) {
    const std::string type = get_or<std::string>(model, "type", model.contains("merges") ? "BPE" : "(none)");
    if (type != "BPE") unsupported("model type", type, "BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!get_or<std::string>(model, key, "").empty()) unsupported("model option", key, "none");
    }
    if (get_or(model, "dropout", 0.0) > 0) unsupported("model option", "dropout", "none");
    out_.ignore_merges = get_or(model, "ignore_merges", false);
    out_.byte_fallback = get_or(model, "byte_fallback", false);
    out_.fuse_unknown = get_or(model, "fuse_unk", false);
    read_vocabulary(model.at("vocab"));
    read_merges(model.at("merges"));
    const auto unknown = get_or<std::string>(model, "unk_token", "");
    if (unknown.empty()) return;
    out_.unknown = id_of(unknown);
    CRUMB_CHECK(out_.unknown, "{}: unk_token \"{}\" is not in the vocabulary", file_.string(), unknown);
    if (out_.kind == Description::Kind::sentencepiece) token_at(*out_.unknown).type = TokenType::unknown;
  }

  void read_vocabulary(const Json& vocab) {
    ids_.reserve(vocab.size());
    for (const auto& [piece, value] : vocab.items()) {
      const TokenId id = token_id(value);
      const bool is_byte =
          out_.byte_fallback && out_.kind == Description::Kind::sentencepiece && byte_of_piece(piece) >= 0;
      Token& token = token_at(id);
      CRUMB_CHECK(token.piece.empty(), "{}: id {} stands for both \"{}\" and \"{}\"", file_.string(), id, token.piece,
                  piece);
      token = {piece, is_byte ? TokenType::byte : TokenType::normal, 0, true};
      ids_.emplace(piece, id);
    }
  }

  void read_merges(const Json& merges) {
    out_.merges.reserve(merges.size());
    for (const Json& merge : merges) {
      const auto [left, right] = merge_parts(merge);
      const auto left_id = id_of(left), right_id = id_of(right);
      CRUMB_CHECK(left_id && right_id, "{}: merge {} (\"{}\" and \"{}\") names a token that is not in the vocabulary",
                  file_.string(), out_.merges.size(), left, right);
      out_.merges.push_back({*left_id, *right_id});
    }
  }

  std::pair<std::string, std::string> merge_parts(const Json& merge) const {
    if (merge.is_array() && merge.size() == 2) return {merge[0].get<std::string>(), merge[1].get<std::string>()};
    const auto text = merge.get<std::string>();
    const size_t space = text.find(' ');
    CRUMB_CHECK(space != std::string::npos && text.find(' ', space + 1) == std::string::npos,
                "{}: merge {} (\"{}\") is not two pieces", file_.string(), out_.merges.size(), text);
    return {text.substr(0, space), text.substr(space + 1)};
  }

  void read_normalizer(const Json& json) {
    using Kind = NormalizerStep::Kind;
    static const std::unordered_map<std::string, Kind> plain = {{"NFC", Kind::nfc},
                                                                {"NFD", Kind::nfd},
                                                                {"NFKC", Kind::nfkc},
                                                                {"NFKD", Kind::nfkd},
                                                                {"Lowercase", Kind::lowercase}};
    std::vector<Json> steps;
    flatten(json, "normalizers", steps);
    for (const Json& step : steps) {
      const std::string type = type_of(step);
      if (const auto it = plain.find(type); it != plain.end())
        out_.normalizer.steps.push_back({it->second, "", "", {}});
      else if (type == "Prepend")
        out_.normalizer.steps.push_back({Kind::prepend, "", text_at(step, "prepend"), {}});
      else if (type == "Replace")
        out_.normalizer.steps.push_back(replace_step(step));
      else
        unsupported("normalizer", type, "NFC, NFD, NFKC, NFKD, Lowercase, Prepend, Replace, Sequence");
    }
  }

  NormalizerStep replace_step(const Json& step) const {
    const Json& pattern = step.at("pattern");
    const auto content = text_at(step, "content");
    const bool literal = pattern.contains("String");
    const auto text = text_at(pattern, literal ? "String" : "Regex");
    if (literal && !text.empty()) return {NormalizerStep::Kind::replace, text, content, {}};
    return {NormalizerStep::Kind::replace, "", content, Regex(text)};  // the empty text is found between all characters
  }

  void read_pre_tokenizer(const Json& json) {
    std::vector<Json> steps;
    flatten(json, "pretokenizers", steps);
    out_.kind = Description::Kind::sentencepiece;
    for (size_t i = 0; i < steps.size(); ++i) {
      const std::string type = type_of(steps[i]);
      if (type == "ByteLevel") {
        CRUMB_CHECK(i + 1 == steps.size(), "{}: pre_tokenizer ByteLevel must be the last of its sequence",
                    file_.string());
        read_byte_level(steps[i]);
      } else if (type == "Split") {
        read_split(steps[i]);
      } else if (type == "Digits") {
        const bool individual = get_or(steps[i], "individual_digits", false);
        out_.split.steps.push_back({individual ? R"(\p{N})" : R"(\p{N}+)", SplitBehavior::isolated, false});
      } else if (type == "Punctuation") {
        out_.split.steps.push_back(
            {R"([\p{P}$+<=>^`|~])", behavior(get_or<std::string>(steps[i], "behavior", "Isolated")), false});
      } else if (type == "Metaspace") {
        read_metaspace(steps[i], i);
      } else {
        unsupported("pre_tokenizer", type, "ByteLevel, Digits, Metaspace, Punctuation, Split, Sequence");
      }
    }
  }

  void read_byte_level(const Json& step) {
    out_.kind = Description::Kind::byte_level;
    const bool uses_regex = get_or(step, "use_regex", true);
    out_.split.prefix_space = get_or(step, "add_prefix_space", true);
    CRUMB_CHECK(!out_.split.prefix_space || out_.split.steps.empty(),
                "{}: pre_tokenizer ByteLevel with add_prefix_space after another split is not supported",
                file_.string());
    if (uses_regex) out_.split.steps.push_back({kGpt2Pattern, SplitBehavior::isolated, false});
  }

  void read_split(const Json& step) {
    const Json& pattern = step.at("pattern");
    const bool literal = pattern.contains("String");
    const auto text = text_at(pattern, literal ? "String" : "Regex");
    out_.split.steps.push_back({literal ? escape_pattern(text) : canonical_pattern(text),
                                behavior(text_at(step, "behavior")), get_or(step, "invert", false)});
  }

  void read_metaspace(const Json& step, size_t index) {
    CRUMB_CHECK(index == 0, "{}: pre_tokenizer Metaspace must be the first of its sequence", file_.string());
    using Prepend = Metaspace::Prepend;
    const bool old_prefix = get_or(step, "add_prefix_space", true);
    const auto scheme = get_or<std::string>(step, "prepend_scheme", old_prefix ? "always" : "never");
    if (scheme != "always" && scheme != "first" && scheme != "never")
      unsupported("prepend_scheme", scheme, "always, first, never");
    const Prepend prepend = scheme == "always" ? Prepend::always : scheme == "first" ? Prepend::first : Prepend::never;
    out_.split.metaspace = Metaspace{get_or<std::string>(step, "replacement", std::string(kSpaceMark)), prepend,
                                     get_or(step, "split", true)};
  }

  SplitBehavior behavior(const std::string& name) const {
    if (name == "Isolated") return SplitBehavior::isolated;
    if (name == "Removed") return SplitBehavior::removed;
    if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
    if (name == "Contiguous") return SplitBehavior::contiguous;
    unsupported("split behavior", name, "Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous");
  }

  void read_added_tokens(const Json& list) {
    for (const Json& json : list.is_null() ? Json::array() : list)
      add_token(added_token(json), token_id(json.at("id")));
  }

  AddedToken added_token(const Json& json) const {
    AddedToken added;
    added.content = text_at(json, "content");
    added.special = get_or(json, "special", false);
    added.normalized = get_or(json, "normalized", !added.special);
    added.single_word = get_or(json, "single_word", false);
    added.lstrip = get_or(json, "lstrip", false);
    added.rstrip = get_or(json, "rstrip", false);
    return added;
  }

  /// The id that the `tokenizers` package gives the next token that is in no vocabulary.
  TokenId next_id() const { return static_cast<TokenId>(std::max<int64_t>(num_in_model_, behind_added_)); }

  AddedToken* find_added(const std::string& content) {
    const auto at = added_at_.find(content);
    return at == added_at_.end() ? nullptr : &out_.added[at->second];
  }

  /// Adds a token, or changes the options of one that was added before. Without an id it gets the next one.
  void add_token(AddedToken added, std::optional<TokenId> listed_id) {
    const auto known = id_of(added.content);
    const TokenId next = next_id();
    if (known && listed_id && *known != *listed_id) {
      log_warning("{}: \"{}\" has id {} in the vocabulary, {} among the added tokens; taking {}", file_.string(),
                  added.content, *known, *listed_id, *known);
    }
    if (!known && listed_id && *listed_id != next && !has_told_of_gap_) {
      has_told_of_gap_ = true;  // the ids of all behind it differ, too
      log_warning("{}: the added token \"{}\" has id {}; the `tokenizers` package would give it {}, the next free one",
                  file_.string(), added.content, *listed_id, next);
    }
    added.id = known ? *known : listed_id ? *listed_id : next;
    Token& token = token_at(added.id);
    CRUMB_CHECK(token.piece.empty() || token.piece == added.content, "{}: id {} stands for both \"{}\" and \"{}\"",
                file_.string(), added.id, token.piece, added.content);
    token.piece = added.content;
    ids_.emplace(added.content, added.id);
    if (token.type != TokenType::unknown && token.type != TokenType::byte)
      token.type = added.special ? TokenType::control : TokenType::user_defined;
    behind_added_ = std::max(behind_added_, added.id + 1);
    if (AddedToken* same = find_added(added.content)) {
      *same = std::move(added);
    } else {
      added_at_.emplace(added.content, out_.added.size());
      out_.added.push_back(std::move(added));
    }
  }

  void read_decoder(const Json& json) {
    std::vector<Json> steps;
    flatten(json, "decoders", steps);
    for (const Json& step : steps) {
      const std::string type = type_of(step);
      if (type == "Strip")
        out_.strip_leading_space = get_or(step, "start", 0) > 0 && get_or<std::string>(step, "content", " ") == " ";
      else if (type == "Metaspace")
        out_.strip_leading_space = get_or<std::string>(step, "prepend_scheme", "always") != "never";
      else if (type == "Replace")
        check_decoder_replace(step);
      else if (type != "ByteLevel" && type != "ByteFallback" && type != "Fuse")
        unsupported("decoder", type, "ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip, Sequence");
    }
  }

  /// Decoding knows one replacement: marks become spaces.
  void check_decoder_replace(const Json& step) const {
    const Json& pattern = step.at("pattern");
    const bool is_mark = pattern.contains("String") && pattern.at("String") == kSpaceMark && step.at("content") == " ";
    if (!is_mark) unsupported("decoder", "Replace " + step.dump(), "Replace \"\u2581\" by a space");
  }

  void read_config_files() {
    config_ = parse_sibling("tokenizer_config.json");
    special_map_ = parse_sibling("special_tokens_map.json");
    generation_ = parse_sibling("generation_config.json");
    model_config_ = parse_sibling("config.json");
    read_chat_template();
  }

  /// Tokens that stand beside tokenizer.json only. Source: transformers 5, TokenizersBackend.
  void add_tokens_of_config() {
    const Json decoder = child(config_, "added_tokens_decoder");
    if (!decoder.is_null()) {
      std::map<TokenId, AddedToken> by_id;
      num_listed_ += static_cast<int64_t>(decoder.size());
      for (const auto& [id, json] : decoder.items()) by_id.emplace(id_of_text(id), added_token(json));
      for (auto& [id, added] : by_id) add_token(std::move(added), id);
    } else {
      const Json more = parse_sibling("added_tokens.json");
      std::map<TokenId, std::string> by_id;
      num_listed_ += static_cast<int64_t>(more.size());
      for (const auto& [content, id] : more.items()) by_id.emplace(token_id(id), content);
      for (const auto& [id, content] : by_id) {
        if (find_added(content) == nullptr) add_token({content, 0, false, true, false, false, false}, id);
      }
    }
    for (const char* name :
         {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"})
      add_special(setting(name));
    for (const char* name : {"additional_special_tokens", "extra_special_tokens"}) {
      const Json tokens = setting(name);  // outlives what items() gives
      for (const auto& [key, json] : tokens.items()) add_special(json);
    }
  }

  /// "512"
  TokenId id_of_text(const std::string& text) const {
    int64_t id = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), id);
    CRUMB_CHECK(error == std::errc() && end == text.data() + text.size(),
                "{}: added_tokens_decoder: \"{}\" is no token id",
                (file_.parent_path() / "tokenizer_config.json").string(), text);
    return token_id(id);
  }

  /// Of tokenizer_config.json, else of special_tokens_map.json; null where neither has it.
  Json setting(const char* name) const {
    const Json json = child(config_, name);
    return json.is_null() ? child(special_map_, name) : json;
  }

  /// A token that is named in the configuration is a special one. One that no vocabulary has gets the next id, if the
  /// model has a row for it.
  void add_special(const Json& json) {
    if (!json.is_string() && !json.is_object()) return;
    AddedToken added;
    if (json.is_object())
      added = added_token(json);
    else
      added.content = json.get<std::string>();
    added.special = true;
    if (added.content.empty()) return;
    AddedToken* same = find_added(added.content);
    if (same != nullptr && (same->special || json.is_string())) {
      same->special = true;
      Token& token = token_at(same->id);
      if (token.type == TokenType::user_defined) token.type = TokenType::control;
      return;
    }
    const int64_t rows = get_or<int64_t>(model_config_, "vocab_size", INT32_MAX);
    if (!id_of(added.content) && next_id() >= rows) {
      log_warning(
          "{}: the special token \"{}\" of the configuration is in no vocabulary, and the model has no row for "
          "it: left out",
          file_.string(), added.content);
      return;
    }
    add_token(std::move(added), std::nullopt);
  }

  void read_special_ids() {
    const auto special = [&](const char* name) -> std::optional<TokenId> {
      for (const Json* json : std::initializer_list<const Json*>{&config_, &special_map_}) {
        if (const auto id = token_named(child(*json, name))) return id;
      }
      const std::string id_key = std::string(name) + "_id";
      for (const Json* json : std::initializer_list<const Json*>{&generation_, &model_config_}) {
        const auto ids = ids_in(child(*json, id_key.c_str()));
        if (!ids.empty()) return ids[0];
      }
      return std::nullopt;
    };
    out_.special.bos = special("bos_token");
    out_.special.eos = special("eos_token");
    out_.special.unk = special("unk_token");
    if (!out_.special.unk) out_.special.unk = out_.unknown;
    out_.special.pad = special("pad_token");
  }

  void read_ends() {
    std::set<TokenId> ends;
    if (out_.special.eos) ends.insert(*out_.special.eos);
    for (const Json* json : std::initializer_list<const Json*>{&generation_, &model_config_}) {
      for (const TokenId id : ids_in(child(*json, "eos_token_id"))) ends.insert(id);
    }
    out_.special.end.assign(ends.begin(), ends.end());
    warn_about_ids("bos_token_id", "what begins a text", out_.special.bos);
    warn_about_ids("eos_token_id", "a generation ends at each of them, and what ends a document", out_.special.eos);
  }

  /// Of config.json and generation_config.json. That the latter names further ends of a generation is its purpose.
  void warn_about_ids(const char* key, const char* use, std::optional<TokenId> taken) const {
    const auto of_model = ids_in(child(model_config_, key)), of_generation = ids_in(child(generation_, key));
    const auto is_known = [&](TokenId id) {
      return std::find(of_generation.begin(), of_generation.end(), id) != of_generation.end();
    };
    if (of_generation.empty() || std::all_of(of_model.begin(), of_model.end(), is_known)) return;
    log_warning_once(
        "{}: {} is {}, but {} in generation_config.json; {} is {}", sibling("config.json").string(), key,
        fmt::join(of_model, ", "), fmt::join(of_generation, ", "), use,
        taken ? fmt::format("{} (\"{}\")", *taken, out_.tokens[static_cast<size_t>(*taken)].piece) : "not known");
  }

  /// "<s>" or {"content": "<s>", ...}
  std::optional<TokenId> token_named(const Json& json) const {
    if (json.is_string()) return id_of(json.get<std::string>());
    if (json.is_object()) return id_of(get_or<std::string>(json, "content", ""));
    return std::nullopt;
  }

  /// A number, or a list; ids outside the vocabulary (a padded embedding's) do not count.
  std::vector<TokenId> ids_in(const Json& json) const {
    std::vector<TokenId> ids;
    for (const Json& value : json.is_array() ? json : Json::array({json})) {
      if (!value.is_number_integer()) continue;
      const auto id = value.get<int64_t>();
      if (id >= 0 && id < static_cast<int64_t>(out_.tokens.size())) ids.push_back(static_cast<TokenId>(id));
    }
    return ids;
  }

  void read_chat_template() {
    const Path jinja = file_.parent_path() / "chat_template.jinja";
    const Json json = child(config_, "chat_template");
    if (is_there(jinja))
      out_.chat_template = read_text(jinja);
    else if (json.is_string())
      out_.chat_template = json.get<std::string>();
    else if (json.is_array()) {
      std::vector<std::string> names;
      for (const Json& named : json) {
        names.push_back(text_at(named, "name"));
        if (names.back() == "default") out_.chat_template = text_at(named, "template");
      }
      if (!names.empty() && out_.chat_template.empty())
        log_warning_once("{}: chat_template is a list without an entry \"default\", so none is used; it has {}",
                         sibling("tokenizer_config.json").string(), fmt::join(names, ", "));
    }
  }

  /// The ids put around a text are those of tokenizer.json, as in transformers 5; earlier versions let add_bos_token
  /// and add_eos_token of tokenizer_config.json win for some classes.
  void read_post_processor(const Json& json) {
    std::vector<Json> steps;
    flatten(json, "processors", steps);
    for (const Json& step : steps) {
      if (type_of(step) == "TemplateProcessing")
        read_template(step);
      else if (type_of(step) != "ByteLevel")
        unsupported("post_processor", type_of(step), "ByteLevel, TemplateProcessing, Sequence");
    }
    if (!out_.special.bos && out_.prefix.size() == 1) out_.special.bos = out_.prefix[0];
    if (!out_.special.eos && out_.suffix.size() == 1) out_.special.eos = out_.suffix[0];
    out_.special.add_bos = out_.special.bos && !out_.prefix.empty() && out_.prefix[0] == *out_.special.bos;
    out_.special.add_eos = out_.special.eos && !out_.suffix.empty() && out_.suffix.back() == *out_.special.eos;
    warn_about_key("add_bos_token", "BOS", out_.special.bos, out_.special.add_bos);
    warn_about_key("add_eos_token", "EOS", out_.special.eos, out_.special.add_eos);
    read_ends();
  }

  /// Only a token that is known can be added.
  void warn_about_key(const char* key, const char* name, std::optional<TokenId> id, bool adds) const {
    const Json value = child(config_, key);
    if (!value.is_boolean() || !id || value.get<bool>() == adds) return;
    log_warning(
        "{}: {} {} a text, though tokenizer_config.json says {}: {}; transformers 5 reads it so, earlier versions may "
        "follow the key",
        file_.string(), adds ? "adds" : "does not add", fmt::format("{} to", name), key, value.get<bool>());
  }

  void read_template(const Json& step) {
    bool after_text = false;
    for (const Json& element : step.at("single")) {
      if (element.contains("Sequence")) {
        after_text = true;
        continue;
      }
      const auto name = text_at(element.at("SpecialToken"), "id");
      for (const Json& id : step.at("special_tokens").at(name).at("ids")) {
        (after_text ? out_.suffix : out_.prefix).push_back(token_id(id));
      }
    }
  }

  Path file_;
  Description out_;
  Json config_, special_map_, generation_, model_config_;  // the files beside tokenizer.json; {} where absent
  std::unordered_map<std::string, size_t> added_at_;       // places in out_.added by content
  TokenId behind_added_ = 0;                               // the highest id of an added token + 1
  bool has_told_of_gap_ = false;
  int64_t num_in_model_ = 0, num_listed_ = 0;  // tokens of the vocabulary; with the added ones
  std::unordered_map<std::string, TokenId> ids_;
};

}  // namespace

Description read_hf_json(const Path& file) {
  try {
    return Reader(file).read();
  } catch (const Json::exception& e) {
    user_error("{}: not a tokenizer.json that can be read: {}", file.string(), e.what());
  }
}

}  // namespace crumb::tokenizer
