// Vocabularies of GGUF files written as tokenizer.json: the same ids, by Crumb and by the `tokenizers` package.
#include "core/tokenizer/hf_writer.h"

#include <fmt/ranges.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "core/formats/gguf.h"
#include "core/tokenizer/gguf_vocabulary.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

using ::testing::HasSubstr;

const char* const kVocabularies[] = {"gpt-2", "llama-spm", "phi-3", "deepseek-llm"};

/// The texts of llama.cpp's tokenizer tests, and random mixtures.
std::vector<std::string> texts_of(const testing::fs::path& samples) {
  std::vector<std::string> texts = parity_texts(samples);
  for (uint64_t seed = 0; seed < 300; ++seed) texts.push_back(random_text(seed, 12));
  return texts;
}

class HfWriter : public ::testing::TestWithParam<const char*> {};

TEST_P(HfWriter, GivesTheIdsOfTheGguf) {
  CRUMB_NEED_DATA(gguf, std::string("tokenizers/ggml-vocabs/ggml-vocab-") + GetParam() + ".gguf");
  const testing::TempDir dir;
  const auto ours = load_tokenizer(gguf);
  ours->write_hf_files(dir.path());
  const auto again = load_tokenizer(dir.path());
  EXPECT_EQ(again->vocab_size(), ours->vocab_size());
  EXPECT_EQ(again->special().bos, ours->special().bos);
  EXPECT_EQ(again->special().eos, ours->special().eos);
  const auto texts = texts_of(gguf.string() + ".inp");
  for (const auto& text : texts) {
    const auto ids = ours->encode(text, true);
    ASSERT_EQ(again->encode(text, true), ids) << text;
    ASSERT_EQ(again->decode(ids), ours->decode(ids)) << text;
  }

  CRUMB_NEED_PEERS(python);
  nlohmann::json hex = nlohmann::json::array();
  for (const auto& text : texts) hex.push_back(to_hex(text));
  testing::write_file(dir / "texts.json", hex.dump());
  const auto peer = testing::source_dir() / "tests/tokenizer/tokenizers_peer.py";
  const auto result =
      testing::run_command(fmt::format("{} {} encode {} {}", python.string(), peer.string(),
                                       (dir / "tokenizer.json").string(), (dir / "texts.json").string()));
  ASSERT_EQ(result.exit_code, 0) << result.err;
  std::istringstream lines(result.out);
  for (const auto& text : texts) {
    std::string expected;
    std::getline(lines, expected);
    ASSERT_EQ(fmt::format("{}", fmt::join(ours->encode(text), " ")), expected) << text;
  }
}

/// A copy of the vocabulary with other types of its tokens, or with none.
void write_with_types(const formats::GgufReader& from, std::optional<int32_t> type, const Path& to) {
  formats::GgufWriter writer;
  for (const auto& [key, value] : from.metadata()) {
    if (key != "tokenizer.ggml.token_type") writer.set(key, value);
  }
  const size_t size = from.get_strings("tokenizer.ggml.tokens").size();
  if (type) writer.set_i32s("tokenizer.ggml.token_type", std::vector<int32_t>(size, *type));
  writer.begin(to);
  writer.finish();
  writer.commit();
}

TEST_P(HfWriter, GivesTheIdsOfAGgufWithoutTypesOfItsTokens) {
  CRUMB_NEED_DATA(gguf, std::string("tokenizers/ggml-vocabs/ggml-vocab-") + GetParam() + ".gguf");
  const testing::TempDir dir;
  write_with_types(formats::GgufReader(gguf), std::nullopt, dir / "vocabulary.gguf");
  const auto ours = load_tokenizer(dir / "vocabulary.gguf");
  ours->write_hf_files(dir.path());
  const auto again = load_tokenizer(dir.path());
  for (const auto& text : texts_of(gguf.string() + ".inp")) {
    const std::string spelled = "<s>" + text + "<unk>" + text + "</s><|endoftext|>";
    ASSERT_EQ(again->encode(spelled, true), ours->encode(spelled, true)) << spelled;
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, HfWriter, ::testing::ValuesIn(kVocabularies), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

/// Ids 0 a, 1 b, 2 ab, 3 nothing, 4 <|end|>, 5 [PAD5].
Description small_vocabulary() {
  Description description;
  description.source = "vocabulary";
  description.tokens = {{"a", TokenType::normal, 0, true},  {"b", TokenType::normal, 0, true},
                        {"ab", TokenType::normal, 0, true}, {},
                        {"<|end|>", TokenType::control},    {"[PAD5]", TokenType::unused}};
  description.merges = {{0, 1}};
  description.added = {{"<|end|>", 4, true, false, false, false, false}};
  return description;
}

TEST(HfWriter, KeepsIdsInTheirPlacesAroundHoles) {
  const auto json = nlohmann::json::parse(to_tokenizer_json(small_vocabulary()));
  const nlohmann::json vocabulary = {{"a", 0}, {"b", 1}, {"ab", 2}, {"<|end|>", 4}};
  EXPECT_EQ(json.at("model").at("vocab"), vocabulary);
  EXPECT_EQ(json.at("model").at("merges"), nlohmann::json::array({{"a", "b"}}));
  EXPECT_EQ(json.at("added_tokens").at(0).at("id"), 4);
}

TEST(HfWriter, TurnsScoresIntoMergesHighestFirst) {
  Description description = small_vocabulary();
  description.kind = Description::Kind::sentencepiece;
  description.priority = Description::Priority::scores;
  description.tokens[3] = {"aba", TokenType::normal, 5, true};
  description.tokens[2].score = 2;
  const auto json = nlohmann::json::parse(to_tokenizer_json(description));
  EXPECT_EQ(json.at("model").at("merges"), nlohmann::json::array({{"ab", "a"}, {"a", "b"}}));  // "ba" is no piece
}

/// A SentencePiece vocabulary that can spell its own BOS letter by letter. The scores fall, so that "s>" is merged
/// first.
Path write_small_gguf(const testing::TempDir& dir, const std::vector<int32_t>& types) {
  const std::vector<std::string> pieces = {"<unk>", "<s>", "[E]", "\u2581", "<", "s", ">", "a", "s>", "a<"};
  std::vector<float> scores(pieces.size());
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = -static_cast<float>(i);
  formats::GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  writer.set_string("tokenizer.ggml.model", "llama");
  writer.set_strings("tokenizer.ggml.tokens", pieces);
  writer.set_f32s("tokenizer.ggml.scores", scores);
  if (!types.empty()) writer.set_i32s("tokenizer.ggml.token_type", types);
  writer.begin(dir / "small.gguf");
  writer.finish();
  writer.commit();
  return dir / "small.gguf";
}

TEST(HfWriter, NamesNoSpecialTokenThatTextsCannotSpell) {
  const std::vector<int32_t> user_defined = {1, 4, 4, 1, 1, 1, 1, 1, 1, 1};
  for (const auto& types : {std::vector<int32_t>(), user_defined}) {
    const testing::TempDir dir;
    const auto ours = load_tokenizer(write_small_gguf(dir, types));
    ::testing::internal::CaptureStderr();
    ours->write_hf_files(dir.path());
    const std::string said = ::testing::internal::GetCapturedStderr();
    const auto again = load_tokenizer(dir.path());
    for (const char* text : {"a<s>a", "<s>", "[E]a", "a<unk>s>"}) {
      for (const bool parse_special : {true, false}) {
        EXPECT_EQ(again->encode(text, true, parse_special), ours->encode(text, true, parse_special)) << text;
      }
    }
    EXPECT_EQ(again->special().bos, 1);
    EXPECT_EQ(again->special().eos, 2);
    const auto config = nlohmann::json::parse(testing::read_file(dir / "tokenizer_config.json"));
    for (const char* key : {"bos_token", "eos_token", "unk_token"}) EXPECT_FALSE(config.contains(key)) << key;
    EXPECT_THAT(said, HasSubstr("its bos_token, \"<s>\" (id 1), is no control token here"));
  }
}

TEST(HfWriter, WarnsWhereEveryTokenIsOneThatTextsSpell) {
  for (const int32_t type : {3, 4}) {
    const testing::TempDir dir;
    const auto ours = load_tokenizer(write_small_gguf(dir, std::vector<int32_t>(10, type)));
    EXPECT_EQ(ours->encode("a<s>"), (std::vector<TokenId>{7, 1})) << "the longest first";
    ::testing::internal::CaptureStderr();
    ours->write_hf_files(dir.path());
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("may overlap in a text, where llama.cpp takes"));
    EXPECT_EQ(load_tokenizer(dir.path())->encode("a<s>"), (std::vector<TokenId>{9, 8})) << "the leftmost first";
  }
}

TEST(HfWriter, WarnsOfWhatTokenizerJsonCannotSay) {
  Description description = small_vocabulary();
  description.kind = Description::Kind::sentencepiece;
  description.priority = Description::Priority::scores;
  description.rules = Description::Rules::llamacpp;
  description.tokens[3] = {"ba", TokenType::normal, 0, true};
  description.added = {{"xy", 4, true, false, false, false, false}, {"yzz", 4, true, false, false, false, false}};
  const testing::TempDir dir;
  ::testing::internal::CaptureStderr();
  write_hf_tokenizer(description, dir.path());
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(said, HasSubstr("\"xy\" and \"yzz\" may overlap in a text"));
  EXPECT_THAT(said, HasSubstr("\"ab\" and \"ba\" have the same score"));
}

TEST(HfWriter, RefusesTwoTokensOfOneText) {
  Description description = small_vocabulary();
  description.tokens[3] = {"ab", TokenType::normal, 0, true};
  EXPECT_THAT(testing::error_of([&] { to_tokenizer_json(description); }), HasSubstr("tokens 2 and 3 are both \"ab\""));
}

}  // namespace
}  // namespace crumb::tokenizer
