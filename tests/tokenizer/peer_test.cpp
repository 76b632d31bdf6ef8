// Id for id what the `tokenizers` package gives.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "core/tokenizer/regex.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

using testing::fs::path;

const path kPeer = testing::source_dir() / "tests/tokenizer/tokenizers_peer.py";
const std::vector<std::string> kVocabularies = {"models/ref-llama-15m", "models/stories260K-hf", "models/tiny1m-hf",
                                                "tokenizers/gpt2-hf-json", "tokenizers/llama2-hf-json"};

std::string hash_of(const std::vector<TokenId>& ids) {
  uint64_t h = 0xcbf29ce484222325;
  for (const TokenId id : ids) h = (h ^ static_cast<uint64_t>(id)) * 0x100000001b3;
  return fmt::format("{} {:016x}", ids.size(), h);
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

std::vector<std::string> ask_peer(const path& python, const std::string& command, const path& tokenizer,
                                  const nlohmann::json& items) {
  const testing::TempDir dir;
  testing::write_file(dir / "items.json", items.dump());
  const auto result = testing::run_command(fmt::format("{} {} {} {} {}", python.string(), kPeer.string(), command,
                                                       tokenizer.string(), (dir / "items.json").string()));
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return lines_of(result.out);
}

std::string joined(const std::vector<TokenId>& ids) { return fmt::format("{}", fmt::join(ids, " ")); }

/// Compares encode on texts, and decode on the ids of the valid ones.
void expect_equal_to_peer(const path& python, const path& file, const std::vector<std::string>& texts) {
  const auto tokenizer = load_tokenizer(file);
  nlohmann::json hex_texts = nlohmann::json::array();
  for (const auto& text : texts) hex_texts.push_back(to_hex(text));
  const auto expected = ask_peer(python, "encode", file, hex_texts);
  ASSERT_EQ(expected.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    ASSERT_EQ(joined(tokenizer->encode(texts[i])), expected[i])
        << file << ", text " << i << ": " << nlohmann::json(hex_texts[i]).dump();
  }
}

std::vector<std::string> random_texts(uint64_t seed, uint64_t count) {
  std::vector<std::string> texts = {"", " ", "\n"};
  for (uint64_t i = 0; i < count; ++i) texts.push_back(random_text(seed + i, 40));
  for (uint64_t i = 0; i < count / 4; ++i) texts.push_back(random_bytes(seed + i, 100));
  return texts;
}

std::string first_megabyte(const path& text) { return testing::read_file(text).substr(0, 1'000'000); }

/// The texts of the golden hashes, all of the shared data.
std::vector<path> all_texts() {
  std::set<path> texts;
  const auto lines = lines_of(testing::read_file(testing::source_dir() / "tests/tokenizer/goldens/texts.txt"));
  for (size_t i = 1; i < lines.size(); ++i) {
    std::istringstream line(lines[i]);
    std::string vocabulary, text;
    line >> vocabulary >> text;
    texts.insert(testing::data(text));
  }
  return {texts.begin(), texts.end()};
}

/// Compares the ids of the first megabyte of each text by their hashes.
void expect_equal_hashes(const path& python, const path& file, const std::vector<path>& texts) {
  const auto tokenizer = load_tokenizer(file);
  std::string names;
  for (const auto& text : texts) names += " " + text.string();
  const auto result = testing::run_command(python.string() + " " + kPeer.string() + " hash " + file.string() + names);
  ASSERT_EQ(result.exit_code, 0) << result.err;
  const auto expected = lines_of(result.out);
  ASSERT_EQ(expected.size(), texts.size());
  for (size_t i = 0; i < texts.size(); ++i)
    EXPECT_EQ(hash_of(tokenizer->encode(first_megabyte(texts[i]))), expected[i]) << file << ", " << texts[i];
}

TEST(TokenizersPeer, TheFirstMegabyteOfEveryTextHasTheSameIds) {
  CRUMB_NEED_DATA(texts, "text");
  const auto lines = lines_of(testing::read_file(testing::source_dir() / "tests/tokenizer/goldens/texts.txt"));
  ASSERT_EQ(lines.size(), 1 + 5 * 13U);
  std::string loaded;
  std::unique_ptr<Tokenizer> tokenizer;
  for (size_t i = 1; i < lines.size(); ++i) {
    std::istringstream line(lines[i]);
    std::string vocabulary, text, count, hash;
    line >> vocabulary >> text >> count >> hash;
    if (vocabulary != loaded) tokenizer = load_tokenizer(testing::data(vocabulary));
    loaded = vocabulary;
    EXPECT_EQ(hash_of(tokenizer->encode(first_megabyte(testing::data(text)))), count + " " + hash)
        << vocabulary << ", " << text;
  }
}

TEST(TokenizersPeer, ParitySetsRandomTextsAndRandomBytesHaveTheSameIds) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(sets, "tokenizers/ggml-vocabs");
  auto texts = random_texts(0, runs_long() ? 30'000 : 800);
  for (auto& text : characters(runs_long() ? 1 : 41)) texts.push_back(std::move(text));
  for (const auto& text : parity_texts(sets / "ggml-vocab-gpt-2.gguf.inp")) texts.push_back(text);
  for (const auto& vocabulary : kVocabularies)
    expect_equal_to_peer(python, testing::data(vocabulary) / "tokenizer.json", texts);
}

TEST(TokenizersPeer, EverySplitWithATokenizerTrainedOnTheSpotHasTheSameIds) {
  CRUMB_NEED_PEERS(python);
  CRUMB_NEED_DATA(prose, "text/corpus/prose-test.txt");
  CRUMB_NEED_DATA(sets, "tokenizers/ggml-vocabs");
  const testing::TempDir dir;
  const path parity = sets / "ggml-vocab-qwen2.gguf.inp";
  const auto trained = testing::run_command(fmt::format("{} {} train {} {} {}", python.string(), kPeer.string(),
                                                        dir.path().string(), prose.string(), parity.string()));
  ASSERT_EQ(trained.exit_code, 0) << trained.err;
  auto texts = random_texts(5000, runs_long() ? 30'000 : 600);
  for (auto& text : characters(runs_long() ? 1 : 101)) texts.push_back(std::move(text));
  for (const auto& text : parity_texts(parity)) texts.push_back(text);
  for (const char* name : {"text/corpus/tech-test.txt", "text/wikitext-2-raw/wiki.test.raw"}) {
    CRUMB_NEED_DATA(file, name);
    texts.push_back(testing::read_file(file).substr(0, 100'000));
  }
  int families = 0;
  for (const auto& entry : testing::fs::directory_iterator(dir.path())) {
    expect_equal_to_peer(python, entry.path() / "tokenizer.json", texts);
    ++families;
  }
  EXPECT_EQ(families, 13);
  for (const char* family : {"llama3", "qwen2", "hunyuan-dense"})
    expect_equal_hashes(python, dir / family / "tokenizer.json", all_texts());
}

/// What differs between the dialects of regular expressions, one of a kind.
const std::vector<std::string> kDialect = {
    // repetitions
    R"(\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z))", "a{1,2}+", "a{2}+b", "a?+a", "a*+a", "a++b", "a{,2}", "a{2,}?", "a{2}?",
    "a{3,1}", "(?:ab){2}{3}", R"(\p{N}{1,3}{2})", "a{", "a{1", "a{,}", "{1}", "*a", "a**", "a+*", "a?*", "a{100000}",
    "a{100001}",
    // empty matches, anchors
    "", "x*", "(?=a)", "(?!a)", "|a", R"(\b)", R"(\B)", "^", "$", "^a", "a$", R"(\A)", R"(\Z)", R"(\z)", R"(\G\w)",
    R"(a\Kb)", R"((?=(\d{3})+(?!\d)))", R"((?<=\d)(?=(\d{3})+\b))", R"(\y)", R"(\Y)",
    // lookbehind
    "(?<=a)b", "(?<!a)b", "(?<=a|bc)d", "(?<=a+)b", R"((?<!\s)\d)", R"((?<=\b)a)", "(?<=(a))b",
    // escapes, classes, sets
    R"(\h+)", R"(\H)", R"(\R)", R"(\X)", R"(\N)", R"(\O)", R"(\v)", R"(\f)", R"(\e)", R"(\a)", R"(\cA)", R"(\012)",
    R"(\Q.*\E)", R"(\x{e9})", R"(\u00e9)", R"(\xC3\xA9)", R"(\o{101})", R"(\x{110000})", R"(\_)", R"(\<a)",
    "[a-c&&[^b]]+", "[^a&&b]", R"([\w&&[^\d]]+)", "[[a-c][x-z]]+", "[]a]", "[^]a]", "[a-]", R"([\s\S])", R"([^\W\d_]+)",
    "[z-a]", R"([a-\d])", "[[]", "[a&&]", "[[:foo:]]", "[[=a=]]", "[[:punct:]]+", "[[:^punct:]]+", "[^[:punct:]]",
    "[[:alpha:]]", "[[:alnum:]]+", "[[:space:]]", "[[:cntrl:]]", "[[:graph:]]+", "[[:print:]]", "[[:word:]]+",
    "[[:xdigit:]]+", "[[:upper:]]", "[[:lower:]]", "[[:blank:]]", R"(\p{L}+)", R"(\p{^L})", R"(\P{L}+)",
    R"(\p{Lu}\p{Ll}*)", R"(\p{Han}+)", R"(\p{Script=Greek})", R"(\p{Greek})", R"(\p{Alphabetic})", R"(\p{White_Space})",
    R"(\p{Punct})", R"(\p{Cn})", R"(\p{M})", R"(\p{Sc})", R"(\p{Cf})", R"(\p{Foo})", R"(\pL)", R"(\p{L&})",
    // case, options
    "(?i)stra\u00dfe", "(?i)SS", "(?i)\u017f", "(?i:k)", "(?i)\u01c6", "(?i)[a-z]+", "(?i)\ufb01", "(?m).+", ".+",
    "(?x) a b # c", "(?-i)a", R"((?a)\w+)", R"((?W)\w+)", R"((?D)\d+)", R"((?S)\s+)", "(?P)[[:alpha:]]+",
    R"((?y{g})\X)", R"((?y{w})\X)", "(?s).+", "(?:a(?i)b|c)", "(?^)",
    // groups
    R"((a)\1)", R"((?<n>a)\k<n>)", R"((?<n>\((?:[^()]|\g<n>)*\)))", "(?>a+)b", "(?>a*)a", "(a|ab)(c|bcd)", "(?~abc)",
    "(?<a>a)(?(<a>)b|c)", "(a)?(?(1)b|c)", "(?#comment)a", "(", ")", "[", "a||b", "(*FAIL)", "(?{x})a"};

std::string dialect_text(uint64_t seed) {
  static const std::vector<std::string> parts = {"a",
                                                 "b",
                                                 "c",
                                                 "d",
                                                 "ab",
                                                 "x",
                                                 "A",
                                                 "B",
                                                 "SS",
                                                 "ss",
                                                 "\u00df",
                                                 "\u017f",
                                                 "k",
                                                 "\u212a",
                                                 "\u01c6",
                                                 "\u01c5",
                                                 "\ufb01",
                                                 "fi",
                                                 "1",
                                                 "12",
                                                 "123",
                                                 "4567",
                                                 "\u0663",
                                                 "\u00bd",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\r\n",
                                                 "\r",
                                                 "\t",
                                                 "\x0b",
                                                 "\x0c",
                                                 "\u0085",
                                                 "\u2028",
                                                 "\u00a0",
                                                 "\u3000",
                                                 "\u180e",
                                                 ".",
                                                 ",",
                                                 "$",
                                                 "+",
                                                 "`",
                                                 "^",
                                                 "(",
                                                 ")",
                                                 "@",
                                                 "\u00e9",
                                                 "e\u0301",
                                                 "\u4e2d",
                                                 "\u3072",
                                                 "\u03b1",
                                                 "\U0001f468\u200d\U0001f469",
                                                 "\U0001f1e9\U0001f1ea",
                                                 "\uac00",
                                                 "\u1100\u1161",
                                                 "\x1b",
                                                 "\x07",
                                                 "_",
                                                 "'s",
                                                 "'S",
                                                 "\ufeff",
                                                 "\U00011f04",
                                                 "\U0001fae8",
                                                 "\u0897",
                                                 "\u20ac",
                                                 ".*"};
  const Rng rng(seed);
  std::string text;
  for (uint64_t i = 0; i <= rng.below(0, 14); ++i) text += parts[rng.below(i + 1, parts.size())];
  return text;
}

TEST(TokenizersPeer, RegularExpressionsMatchAlikeInEveryPartOfTheDialect) {
  CRUMB_NEED_PEERS(python);
  std::vector<std::string> texts = {"", "a", "1234567", "ab12", "\n", "a\n", "\na\n"};
  for (uint64_t seed = 0; seed < (runs_long() ? 2000 : 60); ++seed) texts.push_back(dialect_text(seed));
  nlohmann::json hex_texts = nlohmann::json::array(), items = nlohmann::json::array();
  for (const auto& text : texts) hex_texts.push_back(to_hex(text));
  for (const auto& pattern : kDialect) items.push_back({{"pattern", pattern}, {"texts", hex_texts}});
  const auto lines = ask_peer(python, "regex", "-", items);
  size_t line = 0;
  for (const auto& pattern : kDialect) {
    SCOPED_TRACE(pattern);
    ASSERT_LT(line, lines.size());
    const bool compiles = lines[line++] == "ok";
    ASSERT_EQ(testing::error_of([&] { Regex{pattern}; }).empty(), compiles);
    if (!compiles) continue;
    const Regex regex(pattern);
    for (const auto& text : texts) {
      std::vector<Span> matches;
      regex.find_all(text, matches);
      std::string replaced;
      size_t from = 0;
      for (const Span& match : matches) {
        replaced += text.substr(from, match.begin - from) + '\x01';
        from = match.end;
      }
      ASSERT_EQ(to_hex(replaced + text.substr(from)), lines.at(line++)) << to_hex(text);
    }
  }
}

TEST(TokenizersPeer, DecodeGivesTheSameText) {
  CRUMB_NEED_PEERS(python);
  for (const auto& vocabulary : kVocabularies) {
    CRUMB_NEED_DATA(folder, vocabulary);
    const auto tokenizer = load_tokenizer(folder);
    std::vector<std::vector<TokenId>> lists;
    for (uint64_t seed = 0; seed < 300; ++seed) lists.push_back(tokenizer->encode(random_text(seed, 20)));
    const auto expected = ask_peer(python, "decode", folder / "tokenizer.json", lists);
    ASSERT_EQ(expected.size(), lists.size());
    for (size_t i = 0; i < lists.size(); ++i) {
      EXPECT_EQ(to_hex(tokenizer->decode(lists[i])), expected[i]) << vocabulary << ", ids " << joined(lists[i]);
    }
  }
}

}  // namespace
}  // namespace crumb::tokenizer
