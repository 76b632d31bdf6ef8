// The splits that GGUF knows by name. Sources: llama.cpp's llama-vocab.cpp (names, expressions, defaults) and
// unicode.cpp (how they are read there: \p{Lu}, \p{Ll} ... all mean \p{L}; \d is 0-9; some are written out by hand), of
// the version in llama-cpp-python 0.3.36; the tokenizer.json files of the families.
#include <array>
#include <utility>

#include "core/tokenizer/pre_split.h"

namespace crumb::tokenizer {
namespace {

using Patterns = std::vector<std::string>;

// What most expressions end with.
const std::string kSpaces = R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
const std::string kSymbols = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*)";
const std::string kSymbolsAndSlashes = R"(| ?[^\s\p{L}\p{N}]+[\r\n/]*)";
const std::string kContractions = R"((?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]))";
const std::string kContractionsAnyCase = R"((?i:'s|'t|'re|'ve|'m|'ll|'d))";
const std::string kWord = R"([^\r\n\p{L}\p{N}]?\p{L}+)";
const std::string kDigit = R"(\p{N})";
const std::string kThreeDigits = R"(\p{N}{1,3})";
const std::string kDigitsFromTheEnd = R"(\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N})))";
const std::string kHan = "[一-龥ࠀ-一가-퟿]+";
const std::string kHanWithoutSpaces = R"([一-龥ࠀ-一가-퟿&&[^\s]]+)";
const std::string kKanaAndHan = "[一-龥぀-ゟ゠-ヿ]+";

/// Words with a capital run before the small letters, as GPT-4o cuts them: by case in tokenizer.json; by A-Z and a-z
/// alone in llama.cpp, where `letters` is what may stand in a word.
std::string cased_words(const std::string& suffix) {
  const std::string lead = R"([^\r\n\p{L}\p{N}]?)", upper = R"([\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])",
                    lower = R"([\p{Ll}\p{Lm}\p{Lo}\p{M}])";
  return lead + upper + "*" + lower + "+" + suffix + "|" + lead + upper + "+" + lower + "*" + suffix;
}
std::string ascii_cased_words(const std::string& letters, const std::string& suffix) {
  const std::string lead = R"([^\r\n\p{L}\p{N}]?)", upper = "[" + letters + "&&[^a-z]]",
                    lower = "[" + letters + "&&[^A-Z]]";
  return lead + upper + "*" + lower + "+" + suffix + "|" + lead + upper + "+" + lower + "*" + suffix;
}
/// The same where llama.cpp reads every class of letters as \p{L}.
std::string caseless_words(const std::string& suffix) { return R"([^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+)" + suffix; }

const std::string kPunctuationWords =
    R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+)";

/// llama.cpp reads white space outside ASCII as a vertical tab, so no range holds it.
Patterns deepseek_llm(bool ranges_hold_spaces) {
  const std::string letters =
      R"(\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+)";
  const std::string symbols =
      ranges_hold_spaces ? R"(\s?[!-/:-~！-／：-～‘-‟　-。]+)" : R"(\s?[!-/:-~！-／：-～‘-‟、-。]+)";
  return {R"([\r\n])", letters, symbols, R"(\s+$)", ranges_hold_spaces ? kHan : kHanWithoutSpaces, R"(\p{N}+)"};
}

Patterns deepseek_v3() {
  return {kThreeDigits, kKanaAndHan, kPunctuationWords + R"(| ?[\p{P}\p{S}]+[\r\n]*)" + kSpaces};
}

Patterns afmoe(const std::string& digits) {
  return {
      digits,
      "[一-鿿㐀-䶿豈-﫿぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-๿຀-໿ក-៿က-႟ꩠ-ꩿꧠ-꧿가-힯ᄀ-ᇿ]+",
      kPunctuationWords + R"(| ?[\p{P}\p{S}]+[\r\n]*)" + kSpaces};
}

Patterns chameleon() {
  return {"<sentinel:[0-9]+>", "(?:IMGIMG)[A-I]{1,4}Z", R"([\t\n]|    |  )", kDigit, R"([\p{P}!-/:-@\[-`{-~])",
          kGpt2Pattern};
}

std::string jais2() {
  std::string out = kContractions + "|" + kWord + "|" + kThreeDigits + kSymbols + R"(|\s*[\r\n]+)";
  for (const int count : {512, 256, 128, 64, 32, 16, 8, 4}) out += R"(|\s{)" + std::to_string(count) + R"(}(?!\S))";
  return out + R"(|\s{1,2}(?!\S)|\s)";
}

/// Han as llama.cpp counts it: by blocks.
std::string kimi_k2() {
  const std::string han =
      R"(\x{4e00}-\x{9fff}\x{3400}-\x{4dbf}\x{20000}-\x{2a6df}\x{2a700}-\x{2b73f}\x{2b740}-\x{2ebef}\x{f900}-\x{faff}\x{2f800}-\x{2fa1f})";
  return "[" + han + R"(]+|[^\r\n\p{L}\p{N}]?[\p{L}&&[^)" + han + "]]+" + kContractions + "?|" + kThreeDigits +
         kSymbols + kSpaces;
}

const std::string kYoutuScripts =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+";

/// Splits of the same expressions, the name to write first in front.
struct Family {
  std::vector<const char*> names;
  NamedSplit split;
};

std::vector<Family> families() {
  const std::string gpt4o_tail = "|" + kThreeDigits + kSymbolsAndSlashes + kSpaces;
  const std::string tekken_tail = "|" + kDigit + kSymbolsAndSlashes + kSpaces;
  const std::string cased = cased_words(kContractionsAnyCase + "?") + gpt4o_tail;
  const std::string bailing_tail = "|" + kWord + "|" + kDigit + kSymbols + R"(|\s*[\r\n]|\s+(?!\S)|\s+)";
  const std::string bloom = R"( ?[^(\s|.,!?…。，、।۔،)]+)";
  return {
      {{"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4", "gigachat", "a.x-4.0",
        "mellum", "modern-bert", "roberta-bpe", "jina-es", "jina-de", "jina-v1-en", "jina-v2-es", "jina-v2-de",
        "jina-v2-code"},
       {"", {kGpt2Pattern}}},
      {{"llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"},
       {"", {kLlama3Pattern}, true, false, true}},
      {{"dbrx", "smaug-bpe", "chatglm-bpe"}, {"", {kLlama3Pattern}}},
      {{"glm4", "glm5"}, {"", {kLlama3Pattern}, true}},
      {{"qwen2", "deepseek-r1-qwen"}, {"", {kQwen2Pattern}, false, true}},
      {{"hunyuan", "stablelm2", "megrez", "kormo", "f2llmv2", "solar-open", "grok-2"}, {"", {kQwen2Pattern}}},
      {{"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"},
       {"", {kDigit, kGpt2Pattern}}},
      {{"deepseek-llm"}, {"", deepseek_llm(true), false, false, false, deepseek_llm(false)}},
      {{"hunyuan-dense", "deepseek-v3", "joyai-llm", "hy_v4"}, {"", deepseek_v3()}},
      {{"tekken"},
       {"",
        {cased_words("") + tekken_tail},
        true,
        false,
        true,
        {ascii_cased_words(R"(\p{L})", "") + tekken_tail},
        true}},
      {{"gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"},
       {"", {cased}, false, false, false, {ascii_cased_words(R"(\p{L})", kContractions + "?") + gpt4o_tail}, true}},
      {{"granite-embed-multi-97m"},
       {"", {cased}, true, false, false, {ascii_cased_words(R"(\p{L}\p{M})", kContractions + "?") + gpt4o_tail}, true}},
      {{"tiny_aya", "cohere2moe"},
       {"",
        {R"(\d{1,3}(?=(?:\d{3})*\b))", cased},
        false,
        false,
        false,
        {kDigitGroups, caseless_words(kContractions + "?") + gpt4o_tail},
        true}},
      {{"youtu"},
       {"",
        {kYoutuScripts, cased_words(kContractions + "?") + tekken_tail},
        true,
        false,
        false,
        {kYoutuScripts, caseless_words(kContractions + "?") + tekken_tail},
        true}},
      {{"qwen35"},
       {"",
        {kContractionsAnyCase + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + kSpaces},
        false,
        false,
        false,
        {kContractions + R"(|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*)" + kSpaces}}},
      {{"bailingmoe", "bailingmoe2", "llada-moe"},
       {"",
        {R"('(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+)"},
        false,
        false,
        false,
        {"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])" + bailing_tail}}},
      {{"seed-coder"},
       {"",
        {kContractionsAnyCase + "|" + kWord + R"(|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+)" + kSpaces},
        false,
        false,
        false,
        {kContractions + "|" + kWord + R"(|\p{N}| ?[^\s\p{L}\p{N}\r\n]+)" + kSpaces}}},
      {{"minicpm5"},
       {"",
        {kThreeDigits, kContractionsAnyCase + "|" + kWord + R"(|\p{N}+)" + kSymbols + kSpaces},
        true,
        false,
        false,
        {kThreeDigits, kContractions + "|" + kWord + R"(|\p{N}+)" + kSymbols + kSpaces}}},
      {{"exaone-moe"},
       {"",
        {kContractionsAnyCase +
         R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"},
        false,
        false,
        false,
        {kContractions +
         R"(|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+)"}}},
      {{"jais-2"}, {"", {jais2()}}},
      {{"spark2_5"},
       {"", {kThreeDigits, kKanaAndHan, kPunctuationWords + R"(| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+)", kDigit}}},
      {{"afmoe"}, {"", afmoe(kDigitsFromTheEnd), false, false, false, afmoe(kDigitGroups), true}},
      {{"kimi-k2"}, {"", {kimi_k2()}}},
      {{"superbpe"}, {"", {R"(\p{N}+)", "(?=([0-9]{3})+(?![0-9]))"}}},
      {{"deepseek-coder"},
       {"",
        {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHan, kDigit},
        false,
        false,
        false,
        {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", kHanWithoutSpaces, kDigit}}},
      {{"falcon"}, {"", {R"([\p{P}\$\+<=>\^~\|`]+)", kGpt2Pattern, "[0-9][0-9][0-9]"}}},
      {{"bloom", "poro-chat", "gpt3-finnish"}, {"", {bloom}}},
      {{"viking"}, {"", {bloom, kDigit}}},
      {{"chameleon"}, {"", chameleon(), false, false, true}},
      {{"laguna"}, {"", {R"([^\n]+|[\n]+)", kQwen2Pattern}}},
      {{"ufakzeka"}, {"", {kWord + "|" + kDigit + kSymbols + kSpaces}}},
      {{"default"}, {"", {R"([\p{P}\$\+<=>\^~\|]+)", kGpt2Pattern, R"(\p{N}+)", R"([0-9][0-9][0-9])"}}},
  };
}

}  // namespace

const std::vector<NamedSplit>& named_splits() {
  static const std::vector<NamedSplit> splits = [] {
    std::vector<NamedSplit> out;
    for (const Family& family : families()) {
      for (const char* name : family.names) {
        out.push_back(family.split);
        out.back().name = name;
      }
    }
    return out;
  }();
  return splits;
}

std::string reason_against_split(std::string_view name) {
  constexpr std::array<std::string_view, 3> kSpaceMarks = {"gemma4", "granite-embed-multi-311m", "sarvam-moe"};
  for (const std::string_view known : kSpaceMarks) {
    if (name == known) return "its merges run over whole lines with marked spaces, which is not supported";
  }
  if (name == "whitespace") return "its words are not spelled in bytes, which is not supported";
  return "";
}

const NamedSplit* find_named_split(std::string_view name) {
  for (const NamedSplit& split : named_splits()) {
    if (split.name == name) return &split;
  }
  return nullptr;
}

const NamedSplit* name_of_split(const PreSplit& split, bool ignore_merges, bool nfc) {
  if (split.metaspace || split.prefix_space) return nullptr;
  std::vector<std::string> patterns;
  for (const SplitStep& step : split.steps) {
    if (step.behavior != SplitBehavior::isolated || step.invert) return nullptr;
    patterns.push_back(canonical_pattern(step.pattern));
  }
  const NamedSplit* found = nullptr;
  for (const NamedSplit& named : named_splits()) {
    if (named.patterns != patterns || named.ignore_merges != ignore_merges) continue;
    if (found == nullptr || (found->nfc != nfc && named.nfc == nfc)) found = &named;
  }
  return found;
}

}  // namespace crumb::tokenizer
