#include "core/tokenizer/hf_writer.h"

#include <algorithm>
#include <tuple>
#include <unordered_map>
#include <utility>

#include "core/common/error.h"
#include "core/common/json.h"
#include "core/common/log.h"
#include "core/tokenizer/added_tokens.h"
#include "core/tokenizer/unicode.h"

namespace crumb::tokenizer {
namespace {

using Json = nlohmann::ordered_json;

bool is_padding(const Token& token, size_t id) {
  return token.piece.empty() || (token.type == TokenType::unused && token.piece == fmt::format("[PAD{}]", id));
}

/// The one object, or a Sequence of several; null for none.
Json in_sequence(std::vector<Json> steps, const char* list_key) {
  if (steps.empty()) return nullptr;
  if (steps.size() == 1) return steps.front();
  return {{"type", "Sequence"}, {list_key, std::move(steps)}};
}

Json normalizer_step(const NormalizerStep& step) {
  using Kind = NormalizerStep::Kind;
  switch (step.kind) {
    case Kind::nfc:
      return {{"type", "NFC"}};
    case Kind::nfd:
      return {{"type", "NFD"}};
    case Kind::nfkc:
      return {{"type", "NFKC"}};
    case Kind::nfkd:
      return {{"type", "NFKD"}};
    case Kind::lowercase:
      return {{"type", "Lowercase"}};
    case Kind::prepend:
      return {{"type", "Prepend"}, {"prepend", step.content}};
    case Kind::replace:
      CRUMB_ASSERT(!step.regex.has_value());  // no vocabulary outside tokenizer.json has one
      return {{"type", "Replace"}, {"pattern", {{"String", step.pattern}}}, {"content", step.content}};
  }
  CRUMB_ASSERT(false);
}

Json normalizer(const Description& description) {
  std::vector<Json> steps;
  for (const auto& step : description.normalizer.steps) steps.push_back(normalizer_step(step));
  return in_sequence(std::move(steps), "normalizers");
}

const char* behavior_name(SplitBehavior behavior) {
  switch (behavior) {
    case SplitBehavior::isolated:
      return "Isolated";
    case SplitBehavior::removed:
      return "Removed";
    case SplitBehavior::merged_with_previous:
      return "MergedWithPrevious";
    case SplitBehavior::merged_with_next:
      return "MergedWithNext";
    case SplitBehavior::contiguous:
      return "Contiguous";
  }
  CRUMB_ASSERT(false);
}

Json metaspace_step(const Metaspace& metaspace) {
  using Prepend = Metaspace::Prepend;
  const char* scheme = metaspace.prepend == Prepend::always  ? "always"
                       : metaspace.prepend == Prepend::first ? "first"
                                                             : "never";
  return {{"type", "Metaspace"},
          {"replacement", metaspace.replacement},
          {"prepend_scheme", scheme},
          {"split", metaspace.split}};
}

Json byte_level_step(bool prefix_space) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", false}};
}

/// For a vocabulary of a GGUF file those of the family's own tokenizer.json, which llama.cpp may read more simply.
std::vector<SplitStep> family_steps(const Description& description) {
  const NamedSplit* named = find_named_split(description.split_name);
  if (named == nullptr) return description.split.steps;
  std::vector<SplitStep> steps;
  for (const std::string& pattern : named->patterns) steps.push_back({pattern, SplitBehavior::isolated, false});
  return steps;
}

Json pre_tokenizer(const Description& description) {
  std::vector<Json> steps;
  if (description.split.metaspace) steps.push_back(metaspace_step(*description.split.metaspace));
  for (const auto& step : family_steps(description)) {
    steps.push_back({{"type", "Split"},
                     {"pattern", {{"Regex", step.pattern}}},
                     {"behavior", behavior_name(step.behavior)},
                     {"invert", step.invert}});
  }
  if (description.kind == Description::Kind::byte_level)
    steps.push_back(byte_level_step(description.split.prefix_space));
  return in_sequence(std::move(steps), "pretokenizers");
}

Json decoder(const Description& description) {
  if (description.kind == Description::Kind::byte_level) return byte_level_step(true);
  std::vector<Json> steps = {{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                             {{"type", "ByteFallback"}},
                             {{"type", "Fuse"}}};
  if (description.strip_leading_space)
    steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  return in_sequence(std::move(steps), "decoders");
}

Json added_tokens(const Description& description) {
  Json list = Json::array();
  for (const auto& token : description.added) {
    list.push_back({{"id", token.id},
                    {"content", token.content},
                    {"single_word", token.single_word},
                    {"lstrip", token.lstrip},
                    {"rstrip", token.rstrip},
                    {"normalized", token.normalized},
                    {"special", token.special}});
  }
  return list;
}

const std::string& piece_of(const Description& description, TokenId id) {
  return description.tokens[static_cast<size_t>(id)].piece;
}

/// What stands before and after every text.
Json post_processor(const Description& description) {
  if (description.prefix.empty() && description.suffix.empty()) return nullptr;
  Json single = Json::array(), special = Json::object();
  const auto add = [&](TokenId id) {
    const std::string& piece = piece_of(description, id);
    single.push_back({{"SpecialToken", {{"id", piece}, {"type_id", 0}}}});
    special[piece] = {{"id", piece}, {"ids", {id}}, {"tokens", {piece}}};
  };
  for (const TokenId id : description.prefix) add(id);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  for (const TokenId id : description.suffix) add(id);
  Json pair = single;
  for (Json part : single) {
    if (part.contains("Sequence")) part["Sequence"]["id"] = "B";
    part.front()["type_id"] = 1;
    pair.push_back(part);
  }
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

using PieceIds = std::unordered_map<std::string_view, TokenId>;

PieceIds ids_of_pieces(const Description& description) {
  PieceIds ids;
  for (size_t id = 0; id < description.tokens.size(); ++id) {
    const Token& token = description.tokens[id];
    if (is_padding(token, id)) continue;
    const auto [at, is_new] = ids.emplace(token.piece, static_cast<TokenId>(id));
    CRUMB_CHECK(is_new, "{}: tokens {} and {} are both \"{}\"; tokenizer.json holds one id for a text",
                description.source, at->second, id, token.piece);
  }
  return ids;
}

/// Cuts of one piece into two pieces of the vocabulary, by their ids.
std::vector<Merge> cuts_of(std::string_view piece, const PieceIds& ids) {
  std::vector<Merge> cuts;
  for (size_t at = 1; at < piece.size(); ++at) {
    if (is_continuation(piece[at])) continue;
    const auto left = ids.find(piece.substr(0, at)), right = ids.find(piece.substr(at));
    if (left != ids.end() && right != ids.end()) cuts.push_back({left->second, right->second});
  }
  std::sort(cuts.begin(), cuts.end(),
            [](const Merge& a, const Merge& b) { return std::tie(a.left, a.right) < std::tie(b.left, b.right); });
  return cuts;
}

/// One character again and again, as the runs of spaces that many vocabularies give one score.
bool is_run(std::string_view piece) {
  size_t size = 1;
  while (size < piece.size() && is_continuation(piece[size])) ++size;
  return piece.substr(size) == piece.substr(0, piece.size() - size);
}

/// Whether a pair of the one and a pair of the other can stand side by side and share a piece: there it matters which
/// is merged first.
bool may_compete(const std::vector<Merge>& cuts, const std::vector<Merge>& others) {
  const auto follows = [](const Merge& a, const Merge& b) { return a.right == b.left || b.right == a.left; };
  return std::any_of(cuts.begin(), cuts.end(), [&](const Merge& cut) {
    return std::any_of(others.begin(), others.end(), [&](const Merge& other) { return follows(cut, other); });
  });
}

/// Of every piece that the vocabulary can merge, whatever its type: a control token whose text is merged is one, too.
std::vector<Merge> merges_of_scores(const Description& description, const PieceIds& ids) {
  std::vector<TokenId> order;
  for (size_t id = 0; id < description.tokens.size(); ++id) {
    if (description.tokens[id].in_model && !is_padding(description.tokens[id], id))
      order.push_back(static_cast<TokenId>(id));
  }
  const auto score = [&](TokenId id) { return description.tokens[static_cast<size_t>(id)].score; };
  std::stable_sort(order.begin(), order.end(), [&](TokenId a, TokenId b) { return score(a) > score(b); });
  std::vector<Merge> merges, before_cuts;
  std::optional<TokenId> before;  // the last one that is merged from others, with its cuts
  bool has_told = false;
  for (const TokenId id : order) {
    auto cuts = cuts_of(piece_of(description, id), ids);
    if (cuts.empty()) continue;
    merges.insert(merges.end(), cuts.begin(), cuts.end());
    const bool is_tie = before && score(*before) == score(id) && !is_run(piece_of(description, id));
    if (is_tie && may_compete(cuts, before_cuts) && !std::exchange(has_told, true)) {
      log_warning(
          "{}: \"{}\" and \"{}\" have the same score, so the leftmost is merged first; tokenizer.json puts the one "
          "before the other: texts where both can be merged may give other ids with the folder",
          description.source, piece_of(description, *before), piece_of(description, id));
    }
    before = id;
    before_cuts = std::move(cuts);
  }
  return merges;
}

/// The vocabulary by ids and the merges, line by line: far too many for a tree of values.
std::string model_text(const Description& description) {
  const PieceIds ids = ids_of_pieces(description);
  const bool has_scores = description.priority == Description::Priority::scores;
  const auto merges = has_scores ? merges_of_scores(description, ids) : description.merges;
  const Json head = {{"type", "BPE"},
                     {"dropout", nullptr},
                     {"unk_token", description.unknown ? Json(piece_of(description, *description.unknown)) : Json()},
                     {"continuing_subword_prefix", nullptr},
                     {"end_of_word_suffix", nullptr},
                     {"fuse_unk", description.fuse_unknown},
                     {"byte_fallback", description.byte_fallback},
                     {"ignore_merges", description.ignore_merges}};
  std::string text = dump_json(head);
  text.pop_back();  // the closing brace
  text += ",\n\"vocab\":{";
  const char* comma = "";
  for (size_t id = 0; id < description.tokens.size(); ++id) {
    if (is_padding(description.tokens[id], id)) continue;
    text += fmt::format("{}\n{}:{}", comma, dump_json(Json(description.tokens[id].piece)), id);
    comma = ",";
  }
  text += "},\n\"merges\":[";
  comma = "";
  for (const auto& [left, right] : merges) {
    text += fmt::format("{}\n[{},{}]", comma, dump_json(Json(piece_of(description, left))),
                        dump_json(Json(piece_of(description, right))));
    comma = ",";
  }
  return text + "]}";
}

/// Whether texts that spell the token become its id, as they do for every token that tokenizer_config.json names.
bool is_special_in_text(const Description& description, TokenId id) {
  return std::any_of(description.added.begin(), description.added.end(),
                     [&](const AddedToken& token) { return token.id == id && token.special; });
}

Json tokenizer_config(const Description& description) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  const auto name = [&](const char* key, std::optional<TokenId> id) {
    if (!id) return;
    if (is_special_in_text(description, *id)) {
      config[key] = piece_of(description, *id);
      return;
    }
    log_warning(
        "{}: its {}, \"{}\" (id {}), is no control token here, so texts that spell it do not become it; "
        "tokenizer_config.json does not name it, which would make them",
        description.source, key, piece_of(description, *id), *id);
  };
  name("bos_token", description.special.bos);
  name("eos_token", description.special.eos);
  name("unk_token", description.special.unk);
  name("pad_token", description.special.pad);
  if (!description.chat_template.empty()) config["chat_template"] = description.chat_template;
  return config;
}

Json generation_config(const SpecialIds& special) {
  Json config = Json::object();
  const auto set = [&](const char* key, std::optional<TokenId> id) {
    if (id) config[key] = *id;
  };
  set("bos_token_id", special.bos);
  set("eos_token_id", special.eos);
  if (special.end.size() > 1) config["eos_token_id"] = special.end;
  set("pad_token_id", special.pad);
  return config;
}

}  // namespace

std::string to_tokenizer_json(const Description& description) {
  std::string text = "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null";
  const auto add = [&text](const char* key, const Json& value) {
    text += fmt::format(",\n\"{}\":{}", key, dump_json(value));
  };
  add("added_tokens", added_tokens(description));
  add("normalizer", normalizer(description));
  add("pre_tokenizer", pre_tokenizer(description));
  add("post_processor", post_processor(description));
  add("decoder", decoder(description));
  return text + ",\n\"model\":" + model_text(description) + "}\n";
}

void write_hf_tokenizer(const Description& description, const Path& folder) {
  const auto overlap = find_overlap(description.added);
  if (overlap && description.rules == Description::Rules::llamacpp) {
    log_warning(
        "{}: \"{}\" and \"{}\" may overlap in a text, where llama.cpp takes the longer one and `tokenizers` the one "
        "that begins first: such texts may give other ids with the folder",
        description.source, overlap->first, overlap->second);
  }
  write_text(folder / "tokenizer.json", to_tokenizer_json(description));
  write_text(folder / "tokenizer_config.json", dump_json(tokenizer_config(description), 2) + "\n");
  write_text(folder / "generation_config.json", dump_json(generation_config(description.special), 2) + "\n");
}

}  // namespace crumb::tokenizer
