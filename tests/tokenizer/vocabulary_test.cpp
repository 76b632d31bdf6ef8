// Loading, decoding, GGUF metadata, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "core/tokenizer/split_scanner.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/testing/testing.h"
#include "tests/tokenizer/samples.h"

namespace crumb::tokenizer {
namespace {

using Ids = std::vector<TokenId>;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::fs::path;

const std::vector<std::string> kAllVocabularies = {"models/ref-llama-15m",
                                                   "models/stories260K-hf",
                                                   "models/stories260K/tok512.bin",
                                                   "models/tiny1m-hf",
                                                   "tokenizers/gpt2-hf-json",
                                                   "tokenizers/llama2-hf-json",
                                                   "tokenizers/llama2-spm/tokenizer.bin",
                                                   "tokenizers/ggml-vocabs/ggml-vocab-gpt-2.gguf",
                                                   "tokenizers/ggml-vocabs/ggml-vocab-llama-spm.gguf",
                                                   "tokenizers/ggml-vocabs/ggml-vocab-phi-3.gguf",
                                                   "tokenizers/ggml-vocabs/ggml-vocab-deepseek-llm.gguf"};

/// A byte-level tokenizer.json of the 256 bytes, a few merges and `patch` merged over it.
json small_json(const json& patch = json::object()) {
  json vocab = json::object();
  for (uint32_t c = 0, id = 0; id < 256; ++c) {
    const bool printable = (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c < 256);
    if (!printable && c < 256) continue;
    std::string piece;
    append_utf8(c, piece);
    vocab[piece] = id++;
  }
  vocab["he"] = 256;
  vocab["the"] = 257;
  json out = {{"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"h e", "t he"}}}},
              {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
              {"decoder", {{"type", "ByteLevel"}}},
              {"added_tokens", {{{"id", 258}, {"content", "<|end|>"}, {"special", true}}}}};
  out.merge_patch(patch);
  return out;
}

std::unique_ptr<Tokenizer> load_json(const json& content, const json& config = nullptr) {
  const testing::TempDir dir;
  testing::write_file(dir / "tokenizer.json", content.dump());
  if (!config.is_null()) testing::write_file(dir / "tokenizer_config.json", config.dump());
  return load_tokenizer(dir.path());
}

/// The message after the file's name.
std::string json_error(const json& content) {
  const std::string message = testing::error_of([&] { load_json(content); });
  const size_t name = message.find("tokenizer.json: ");
  return name == std::string::npos ? message : message.substr(name + 16);
}

void write_gguf(const Tokenizer& tokenizer, int64_t rows, const path& file) {
  formats::GgufWriter writer;
  writer.set_string("general.architecture", "llama");
  tokenizer.set_gguf_metadata(rows, writer);
  writer.begin(file);
  writer.finish();
  writer.commit();
}

TEST(GgufVocabulary, ParitySetsOfLlamaCppHaveTheirIds) {
  for (const char* name : {"deepseek-llm", "gpt-2", "llama-spm", "phi-3"}) {
    CRUMB_NEED_DATA(file, std::string("tokenizers/ggml-vocabs/ggml-vocab-") + name + ".gguf");
    const auto tokenizer = load_tokenizer(file);
    const std::string all = testing::read_file(file.string() + ".inp"), separator = "\n__ggml_vocab_test__\n";
    std::istringstream out(testing::read_file(file.string() + ".out"));
    size_t begin = 0, count = 0;
    for (std::string line; std::getline(out, line); ++count) {
      const size_t end = std::min(all.find(separator, begin), all.size());
      std::istringstream numbers(line);
      const Ids expected{std::istream_iterator<TokenId>(numbers), {}};
      EXPECT_EQ(tokenizer->encode(all.substr(begin, end - begin)), expected) << name << ", text " << count;
      begin = end + separator.size();
    }
    EXPECT_EQ(count, 46U);
  }
}

TEST(GgufVocabulary, GptTwoAndLlamaTwoEqualTheirTokenizerJson) {
  const std::pair<const char*, const char*> pairs[] = {
      {"tokenizers/ggml-vocabs/ggml-vocab-gpt-2.gguf", "tokenizers/gpt2-hf-json"},
      {"tokenizers/ggml-vocabs/ggml-vocab-llama-spm.gguf", "tokenizers/llama2-hf-json"},
      {"tokenizers/llama2-spm/tokenizer.bin", "tokenizers/llama2-hf-json"},
      {"models/stories260K/tok512.bin", "models/stories260K-hf"}};
  CRUMB_NEED_DATA(wiki, "text/wikitext-2-raw/wiki.test.raw");
  const std::string text = testing::read_file(wiki);
  for (const auto& [one, other] : pairs) {
    CRUMB_NEED_DATA(one_path, one);
    CRUMB_NEED_DATA(other_path, other);
    const auto a = load_tokenizer(one_path), b = load_tokenizer(other_path);
    EXPECT_EQ(a->encode(text), b->encode(text)) << one;
    for (uint64_t seed = 0; seed < 300; ++seed) {
      std::string sample = random_text(seed, 30);
      EXPECT_EQ(a->encode(sample, true, false), b->encode(sample, b->special().add_bos || a->special().add_bos, false))
          << one << ": " << sample;
    }
  }
}

TEST(GgufVocabulary, WrittenAndReadAgainGivesTheSameIds) {
  const testing::TempDir dir;
  for (const auto& name : kAllVocabularies) {
    CRUMB_NEED_DATA(file, name);
    CRUMB_NEED_DATA(text_file, "text/corpus/tech-test.txt");
    const auto tokenizer = load_tokenizer(file);
    const path gguf = dir / "vocabulary.gguf";
    write_gguf(*tokenizer, tokenizer->vocab_size() + 3, gguf);
    const auto again = load_tokenizer(gguf);
    EXPECT_EQ(again->vocab_size(), tokenizer->vocab_size() + 3);
    EXPECT_EQ(again->piece(static_cast<TokenId>(tokenizer->vocab_size())),
              fmt::format("[PAD{}]", tokenizer->vocab_size()));
    const std::string text = testing::read_file(text_file);
    EXPECT_EQ(again->encode(text, true), tokenizer->encode(text, true)) << name;
    for (uint64_t seed = 0; seed < 300; ++seed) {
      const std::string sample = random_text(seed, 30);
      ASSERT_EQ(again->encode(sample), tokenizer->encode(sample)) << name << ": " << sample;
    }
  }
}

TEST(GgufVocabulary, KeysSayWhatLlamaCppNeeds) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const testing::TempDir dir;
  write_gguf(*load_tokenizer(folder), 4096, dir / "v.gguf");
  const formats::GgufReader gguf(dir / "v.gguf");
  EXPECT_EQ(gguf.get_string("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(gguf.get_string("tokenizer.ggml.pre"), "llama-bpe");
  EXPECT_EQ(gguf.get_strings("tokenizer.ggml.tokens").size(), 4096U);
  EXPECT_EQ(gguf.get_strings("tokenizer.ggml.merges").size(), 3837U);
  EXPECT_EQ(gguf.get_strings("tokenizer.ggml.merges")[0], "\u0120 t");
  const auto& types = std::get<std::vector<int32_t>>(
      std::get<formats::GgufArray>(gguf.find("tokenizer.ggml.token_type")->value).values);
  EXPECT_EQ(types[0], 3);
  EXPECT_EQ(types[3], 1);
  EXPECT_FALSE(gguf.get_bool_or("tokenizer.ggml.add_bos_token", true));
  EXPECT_EQ(gguf.get_int("tokenizer.ggml.eos_token_id"), 0);
  EXPECT_NE(gguf.get_string("tokenizer.chat_template").find("<|im_start|>"), std::string::npos);
}

TEST(GgufVocabulary, RefusesAnEmbeddingThatIsTooSmallAndASplitWithoutAName) {
  formats::GgufWriter writer;
  const std::string rows = testing::error_of([&] { load_json(small_json())->set_gguf_metadata(100, writer); });
  EXPECT_NE(rows.find("the tokenizer has 259 tokens, the embedding only 100 rows"), std::string::npos) << rows;
  const json split = {{"pre_tokenizer",
                       {{"type", "Sequence"},
                        {"pretokenizers",
                         {{{"type", "Split"}, {"pattern", {{"Regex", "x+"}}}, {"behavior", "Isolated"}},
                          {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}}};
  const std::string name = testing::error_of([&] { load_json(small_json(split))->set_gguf_metadata(300, writer); });
  EXPECT_NE(name.find("llama.cpp has no name for this tokenizer's pre_tokenizer"), std::string::npos) << name;
}

/// small_json with the split and normalizer of Qwen2, or without the normalizer.
json qwen2_json(bool nfc) {
  json patch = {{"pre_tokenizer",
                 {{"type", "Sequence"},
                  {"pretokenizers",
                   {{{"type", "Split"}, {"pattern", {{"Regex", kQwen2Pattern}}}, {"behavior", "Isolated"}},
                    {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}}}};
  if (nfc) patch["normalizer"] = {{"type", "NFC"}};
  return small_json(patch);
}

TEST(GgufVocabulary, TheNameOfTheSplitSaysWhetherTextsAreNormalized) {
  const testing::TempDir dir;
  for (const bool nfc : {true, false}) {
    const auto tokenizer = load_json(qwen2_json(nfc));
    write_gguf(*tokenizer, tokenizer->vocab_size(), dir / "v.gguf");
    EXPECT_EQ(formats::GgufReader(dir / "v.gguf").get_string("tokenizer.ggml.pre"), nfc ? "qwen2" : "hunyuan");
    const auto again = load_tokenizer(dir / "v.gguf");
    for (const char* text : {"Cafe\u0301 the", "\u1100\u1161\u11a8"}) {
      EXPECT_EQ(again->encode(text), tokenizer->encode(text));
      EXPECT_EQ(again->decode(again->encode(text)) == text, !nfc);
    }
  }
}

TEST(GgufVocabulary, AHoleInTheIdsIsAnUnusedTokenOfItsOwnName) {
  json content = small_json();
  const auto hole = content["model"]["vocab"]["x"].get<int64_t>();
  content["model"]["vocab"].erase("x");
  content["model"]["vocab"][fmt::format("[PAD{}]", hole)] = 260;  // the name that the hole would get
  const auto tokenizer = load_json(content);
  const testing::TempDir dir;
  write_gguf(*tokenizer, tokenizer->vocab_size(), dir / "v.gguf");
  const formats::GgufReader gguf(dir / "v.gguf");
  EXPECT_EQ(gguf.get_strings("tokenizer.ggml.tokens")[static_cast<size_t>(hole)], fmt::format("[PAD{}_]", hole));
  EXPECT_EQ(std::get<std::vector<int32_t>>(std::get<formats::GgufArray>(gguf.find("tokenizer.ggml.token_type")->value)
                                               .values)[static_cast<size_t>(hole)],
            5);
  EXPECT_EQ(load_tokenizer(dir / "v.gguf")->encode("the the"), tokenizer->encode("the the"));
}

TEST(GgufVocabulary, EndTokensAreWrittenAsEndOfTurnAndOfMessage) {
  const testing::TempDir dir;
  const auto warnings_of_ends = [&](const json& ids) {
    testing::write_file(dir / "tokenizer.json", small_json().dump());
    testing::write_file(dir / "tokenizer_config.json", R"({"eos_token": "<|end|>"})");
    testing::write_file(dir / "generation_config.json", json({{"eos_token_id", ids}}).dump());
    ::testing::internal::CaptureStderr();
    write_gguf(*load_tokenizer(dir.path()), 259, dir / "v.gguf");
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(warnings_of_ends({258, 7}), "");
  EXPECT_EQ(formats::GgufReader(dir / "v.gguf").get_int("tokenizer.ggml.eot_token_id"), 7);
  EXPECT_EQ(load_tokenizer(dir / "v.gguf")->special().end, (Ids{7, 258}));
  EXPECT_EQ(warnings_of_ends({258, 7, 8}), "");
  EXPECT_EQ(load_tokenizer(dir / "v.gguf")->special().end, (Ids{7, 8, 258}));
  EXPECT_THAT(warnings_of_ends({258, 7, 8, 9}), HasSubstr("llama.cpp will not stop at 9 \""));
}

TEST(GgufVocabulary, WarnsWhereTheFileWillGiveOtherIds) {
  const auto warnings = [](const json& content) {
    const auto tokenizer = load_json(content);
    formats::GgufWriter writer;
    ::testing::internal::CaptureStderr();
    tokenizer->set_gguf_metadata(tokenizer->vocab_size(), writer);
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_EQ(warnings(qwen2_json(false)), "");
  EXPECT_THAT(warnings(qwen2_json(true)), HasSubstr("llama.cpp does not apply the tokenizer's normalizer (NFC)"));
  EXPECT_THAT(warnings(qwen2_json(true)), Not(HasSubstr("GGUF calls")));
  EXPECT_THAT(warnings(small_json({{"normalizer", {{"type", "NFC"}}}})),
              HasSubstr("this tokenizer normalizes texts (NFC), those that GGUF calls \"gpt-2\" do not"));
}

/// A SentencePiece vocabulary: <unk>, <s>, </s>, the 256 bytes, then these tokens, the last ones user-defined.
formats::GgufWriter small_spm(const std::vector<std::string>& pieces, size_t num_user_defined = 0) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(fmt::format("<0x{:02X}>", byte));
  types.resize(tokens.size(), 6);
  for (const auto& piece : pieces) tokens.push_back(piece);
  types.resize(tokens.size() - num_user_defined, 1);
  types.resize(tokens.size(), 4);
  formats::GgufWriter writer;
  writer.set_string("tokenizer.ggml.model", "llama");
  writer.set_strings("tokenizer.ggml.tokens", tokens);
  writer.set_i32s("tokenizer.ggml.token_type", types);
  return writer;
}

std::vector<float> descending_scores(size_t count) {
  std::vector<float> scores(count);
  for (size_t i = 0; i < count; ++i) scores[i] = -static_cast<float>(i);
  return scores;
}

std::unique_ptr<Tokenizer> load_gguf(formats::GgufWriter& writer);

TEST(GgufVocabulary, EveryTokenThatEndsAGenerationIsKnown) {
  const std::vector<std::string> pieces = {"<|im_end|>", "<|eot_id|>", "a", "<|file_sep|>", "<|message|>", "b"};
  const auto writer_of = [&] {
    auto writer = small_spm(pieces);
    writer.set_f32s("tokenizer.ggml.scores", descending_scores(259 + pieces.size()));
    return writer;
  };
  auto writer = writer_of();
  const auto by_text = load_gguf(writer);
  EXPECT_EQ(by_text->special().end, (Ids{2, 259, 260, 262}));
  EXPECT_TRUE(by_text->is_special(259)) << "what looks like a control token is one for llama.cpp";
  EXPECT_FALSE(by_text->is_special(263)) << "a part of messages that is shown";
  auto keys = writer_of();
  keys.set_u32("tokenizer.ggml.eos_token_id", 259);
  keys.set_u32("tokenizer.ggml.eot_token_id", 261);
  keys.set_u32("tokenizer.ggml.eom_token_id", 264);
  EXPECT_EQ(load_gguf(keys)->special().end, (Ids{2, 259, 260, 261, 262, 264}));
  auto bad = writer_of();
  bad.set_u32("tokenizer.ggml.eot_token_id", 1000);
  EXPECT_THAT(testing::error_of([&] { load_gguf(bad); }),
              HasSubstr("tokenizer.ggml.eot_token_id is 1000, the vocabulary has 265 tokens"));
}

TEST(GgufVocabulary, AnEndInsideAMessageEndsNoGeneration) {
  const std::vector<std::string> pieces = {"<|return|>", "<|call|>", "<|end|>", "<|tool_response>"};
  auto writer = small_spm(pieces);
  writer.set_f32s("tokenizer.ggml.scores", descending_scores(259 + pieces.size()));
  EXPECT_EQ(load_gguf(writer)->special().end, (Ids{259, 260, 262}));  // neither "<|end|>" nor "</s>" (2)
}

TEST(GgufVocabulary, AddedTokensThatOverlapAreTakenLongestFirst) {
  auto writer = small_spm({"a", "b", "c", "d", "ab", "bcd"}, 2);
  writer.set_f32s("tokenizer.ggml.scores", descending_scores(265));
  writer.set_bool("tokenizer.ggml.add_space_prefix", false);
  EXPECT_EQ(load_gguf(writer)->encode("abcd"), (Ids{259, 264})) << "the leftmost would be ab";
}

TEST(GgufVocabulary, EveryNameOfASplitThatLlamaCppKnowsIsKnownOrRefusedWithTheReason) {
  const auto error_of_name = [](const char* name) {
    formats::GgufWriter writer;
    writer.set_string("tokenizer.ggml.model", "gpt2");
    writer.set_string("tokenizer.ggml.pre", name);
    writer.set_strings("tokenizer.ggml.tokens", {"a"});
    writer.set_strings("tokenizer.ggml.merges", std::vector<std::string>{});
    const std::string message = testing::error_of([&] { load_gguf(writer); });
    return message.substr(std::min(message.find("v.gguf: "), message.size()));
  };
  EXPECT_EQ(error_of_name("tekken"), "");
  EXPECT_EQ(
      error_of_name("gemma4"),
      "v.gguf: tokenizer.ggml.pre is \"gemma4\": its merges run over whole lines with marked spaces, which is not "
      "supported");
  EXPECT_THAT(error_of_name("new"), HasSubstr("tokenizer.ggml.pre is \"new\"; supported: gpt-2, phi-2, mpt, "));
}

std::unique_ptr<Tokenizer> load_gguf(formats::GgufWriter& writer) {
  const testing::TempDir dir;
  writer.begin(dir / "v.gguf");
  writer.finish();
  writer.commit();
  return load_tokenizer(dir / "v.gguf");
}

TEST(DamagedVocabulary, TokensThatAreNoUtf8GetReplacementCharacters) {
  const std::string a(31, 'a');
  const std::vector<std::string> pieces = {a + "\xf0", "\xf0", "\xe2\x96", "b\x80", "a", "aa", "\u2581"};
  auto writer = small_spm(pieces);
  writer.set_f32s("tokenizer.ggml.scores", descending_scores(259 + pieces.size()));
  const auto tokenizer = load_gguf(writer);
  EXPECT_EQ(tokenizer->piece(259), a + "\ufffd");
  EXPECT_EQ(tokenizer->piece(261), "\ufffd");
  EXPECT_EQ(tokenizer->piece(262), "b\ufffd");
  for (const std::string& text : {a + "\xf0", std::string("\xf0"), std::string("b\x80 aa"), a + "b\ufffd"}) {
    std::string storage;
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false, false)), valid_utf8(text, storage));
  }
}

/// The message after the file's name, for a vocabulary of 260 tokens to which `change` was made.
std::string damage_error(const std::function<void(formats::GgufWriter&)>& change, bool with_scores = true) {
  auto writer = small_spm({"a"});
  if (with_scores) writer.set_f32s("tokenizer.ggml.scores", descending_scores(260));
  change(writer);
  const std::string message = testing::error_of([&] { load_gguf(writer); });
  const size_t name = message.find("v.gguf: ");
  return name == std::string::npos ? message : message.substr(name + 8);
}

TEST(DamagedVocabulary, IdsOutsideTheVocabularyAreRefused) {
  EXPECT_EQ(damage_error([](auto& w) { w.set_u32("tokenizer.ggml.bos_token_id", 260); }),
            "tokenizer.ggml.bos_token_id is 260, the vocabulary has 260 tokens");
  EXPECT_EQ(damage_error([](auto& w) { w.set("tokenizer.ggml.eos_token_id", {uint64_t{4294967297}}); }),
            "tokenizer.ggml.eos_token_id is 4294967297, the vocabulary has 260 tokens");
  EXPECT_EQ(damage_error([](auto& w) { w.set("tokenizer.ggml.padding_token_id", {int32_t{-1}}); }),
            "tokenizer.ggml.padding_token_id is -1, the vocabulary has 260 tokens");
}

TEST(DamagedVocabulary, ScoresAndTypesMustBeNumbersOfTheirKind) {
  auto scores = descending_scores(260);
  scores[7] = std::nanf("");
  EXPECT_EQ(damage_error([&](auto& w) { w.set_f32s("tokenizer.ggml.scores", scores); }, false),
            "the score of token 7 is nan");
  scores[7] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(damage_error([&](auto& w) { w.set_f32s("tokenizer.ggml.scores", scores); }, false),
            "the score of token 7 is inf");
  const auto type_error = [](formats::GgufArray array) {
    formats::GgufWriter writer;
    writer.set_string("tokenizer.ggml.model", "llama");
    writer.set_strings("tokenizer.ggml.tokens", {"a"});
    writer.set("tokenizer.ggml.token_type", {std::move(array)});
    const std::string message = testing::error_of([&] { load_gguf(writer); });
    return message.substr(message.find("v.gguf: ") + 8);
  };
  using formats::GgufType;
  EXPECT_EQ(type_error({GgufType::f32, std::vector<float>{1.0F}}),
            "tokenizer.ggml.token_type: entry 0 is 1, expected a whole number of 32 bits");
  EXPECT_EQ(type_error({GgufType::u64, std::vector<uint64_t>{4294967297}}),
            "tokenizer.ggml.token_type: entry 0 is 4294967297, expected a whole number of 32 bits");
  EXPECT_EQ(type_error({GgufType::boolean, std::vector<bool>{true}}),
            "tokenizer.ggml.token_type: entry 0 is true, expected a whole number of 32 bits");
}

TEST(LlamaTwoC, ScoresThatAreNoNumbersAreRefused) {
  CRUMB_NEED_DATA(file, "models/stories260K/tok512.bin");
  const testing::TempDir dir;
  std::string bytes = testing::read_file(file);
  const float nan = std::nanf("");
  std::memcpy(bytes.data() + 4, &nan, sizeof nan);  // of token 0, which is reserved
  testing::write_file(dir / "0.bin", bytes);
  EXPECT_NO_THROW(load_tokenizer(dir / "0.bin"));
  const size_t last = load_tokenizer(file)->piece(511).size() + 8;  // score, length, piece
  std::memcpy(bytes.data() + bytes.size() - last, &nan, sizeof nan);
  testing::write_file(dir / "511.bin", bytes);
  const std::string message = testing::error_of([&] { load_tokenizer(dir / "511.bin"); });
  EXPECT_THAT(message, HasSubstr("the score of token 511 is nan"));
}

TEST(LlamaTwoC, GoldenIdsOfStories260kComeBack) {
  CRUMB_NEED_DATA(file, "models/stories260K/tok512.bin");
  CRUMB_NEED_DATA(golden, "vectors/golden/stories260K.ids.txt");
  std::istringstream numbers(testing::read_file(golden));
  const Ids ids{std::istream_iterator<TokenId>(numbers), {}};
  const auto tokenizer = load_tokenizer(file);
  EXPECT_EQ(tokenizer->encode(tokenizer->decode(ids), true), ids);
  EXPECT_EQ(tokenizer->decode(ids), "Once upon a time, there was a little girl named");
}

TEST(LlamaTwoC, ATruncatedFileIsRefused) {
  CRUMB_NEED_DATA(file, "models/stories260K/tok512.bin");
  const testing::TempDir dir;
  testing::write_file(dir / "cut.bin", testing::read_file(file).substr(0, 5000));
  const std::string message = testing::error_of([&] { load_tokenizer(dir / "cut.bin"); });
  EXPECT_NE(message.find("not a tokenizer.bin of llama2.c, or truncated: wants"), std::string::npos) << message;
}

TEST(Tokenizer, DecodingWhatWasEncodedGivesTheTextBack) {
  for (const auto& name : kAllVocabularies) {
    CRUMB_NEED_DATA(file, name);
    const auto tokenizer = load_tokenizer(file);
    for (uint64_t seed = 0; seed < 200; ++seed) {
      std::string text = random_text(seed, 20);
      // A mark that was in the text is read as a space.
      if (text.find("\u2581") != std::string::npos) continue;
      const bool is_sentencepiece = tokenizer->find_piece("<0x0A>").has_value();
      if (is_sentencepiece) {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text, false, false), true), text) << name;
      } else {
        EXPECT_EQ(tokenizer->decode(tokenizer->encode(text), true), text) << name;
      }
    }
  }
}

TEST(Tokenizer, StreamingGivesTheDecodedTextInWholeCharacters) {
  for (const auto& name : kAllVocabularies) {
    CRUMB_NEED_DATA(file, name);
    const auto tokenizer = load_tokenizer(file);
    const Rng rng(3);
    for (uint64_t seed = 0; seed < 200; ++seed) {
      Ids ids = tokenizer->encode(random_text(seed, 20));
      if (seed % 2 == 1) {  // any ids at all: bytes that are no UTF-8
        for (uint64_t i = 0; i < 50; ++i)
          ids.push_back(static_cast<TokenId>(rng.below(50 * seed + i, static_cast<uint64_t>(tokenizer->vocab_size()))));
      }
      StreamingDecoder stream(*tokenizer);
      std::string joined, storage;
      for (const TokenId id : ids) {
        const std::string part = stream.push(id);
        EXPECT_EQ(valid_utf8(part, storage), part) << name;
        joined += part;
      }
      joined += stream.finish();
      std::string expected_storage;
      EXPECT_EQ(joined, valid_utf8(tokenizer->decode(ids), expected_storage)) << name;
    }
  }
}

TEST(Tokenizer, ACharacterOfSeveralTokensAppearsWhenItIsComplete) {
  const auto tokenizer = load_json(small_json());
  const Ids ids = tokenizer->encode("\u20ac!");
  ASSERT_EQ(ids.size(), 4U);
  StreamingDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.push(ids[1]), "");
  EXPECT_EQ(stream.push(ids[2]), "\u20ac");
  EXPECT_EQ(stream.push(ids[3]), "!");
  EXPECT_EQ(stream.push(ids[0]), "");
  EXPECT_EQ(stream.finish(), "\ufffd");
}

TEST(Tokenizer, SpecialTokensAreTextWhereTheyAreNotParsed) {
  const auto tokenizer = load_json(small_json());
  EXPECT_EQ(tokenizer->encode("the<|end|>"), (Ids{257, 258}));
  const Ids plain = tokenizer->encode("the<|end|>", false, false);
  EXPECT_EQ(plain.size(), 8U);
  EXPECT_EQ(tokenizer->decode(plain), "the<|end|>");
  EXPECT_EQ(tokenizer->decode({257, 258}), "the");
  EXPECT_EQ(tokenizer->decode({257, 258}, true), "the<|end|>");
  EXPECT_TRUE(tokenizer->is_special(258));
  EXPECT_EQ(tokenizer->find_piece("<|end|>"), 258);
}

/// Puts "<|end|>" before every text.
const json kBosTemplate = {
    {"post_processor",
     {{"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"special_tokens", {{"<|end|>", {{"id", "<|end|>"}, {"ids", {258}}}}}}}}};

/// A folder of small_json, this template or none, and other files.
std::unique_ptr<Tokenizer> load_folder(const json& patch, const std::map<std::string, json>& files) {
  const testing::TempDir dir;
  testing::write_file(dir / "tokenizer.json", small_json(patch).dump());
  for (const auto& [name, content] : files) testing::write_file(dir / name, content.dump());
  return load_tokenizer(dir.path());
}

/// The folder of a message is another each time.
std::string warnings_of(const std::function<void()>& body) {
  ::testing::internal::CaptureStderr();
  body();
  return ::testing::internal::GetCapturedStderr();
}

TEST(Tokenizer, BosAndEosFollowTheTemplateOfTokenizerJson) {
  const auto by_template = load_json(small_json(kBosTemplate));
  EXPECT_EQ(by_template->encode("the", true), (Ids{258, 257}));
  EXPECT_EQ(by_template->encode("the"), (Ids{257}));
  EXPECT_TRUE(by_template->special().add_bos);
  EXPECT_EQ(load_json(small_json())->encode("the", true), (Ids{257}));
}

TEST(Tokenizer, KeysThatSayOtherwiseThanTheTemplateOrNothingChangeNothing) {
  const json names = {{"bos_token", "<|end|>"}, {"eos_token", {{"content", "<|end|>"}}}};
  for (const char* key : {"add_bos_token", "add_eos_token"}) {
    for (const json& value : {json(false), json(true), json()}) {
      json config = names;
      config[key] = value;
      std::vector<Ids> ids;
      const std::string warnings =
          warnings_of([&] { ids = {load_json(small_json(kBosTemplate), config)->encode("the", true)}; });
      EXPECT_EQ(ids[0], (Ids{258, 257})) << config;
      const bool says_otherwise = value == (key == std::string("add_bos_token") ? json(false) : json(true));
      EXPECT_EQ(warnings.find(key) != std::string::npos, says_otherwise) << config << ": " << warnings;
    }
  }
  EXPECT_THAT(warnings_of([&] {
                load_json(small_json(kBosTemplate), {{"add_bos_token", false}});
              }),
              HasSubstr("adds BOS to a text, though tokenizer_config.json says add_bos_token: false; transformers 5 "
                        "reads it so, earlier versions may follow the key"));
}

TEST(Tokenizer, AddedTokensThatStandBesideTokenizerJsonOnlyAreOneIdEach) {
  const json no_list = {{"added_tokens", json::array()}};
  const json tool = {{"content", "<|tool|>"}, {"special", false}, {"normalized", false}};
  const json config = {{"added_tokens_decoder", {{"258", {{"content", "<|end|>"}, {"special", true}}}, {"259", tool}}}};
  const auto by_decoder = load_folder(no_list, {{"tokenizer_config.json", config}});
  EXPECT_EQ(by_decoder->encode("the<|tool|>the<|end|>"), (Ids{257, 259, 257, 258}));
  EXPECT_TRUE(by_decoder->is_special(258));
  EXPECT_FALSE(by_decoder->is_special(259));
  formats::GgufWriter writer;
  const testing::TempDir dir;
  write_gguf(*by_decoder, 260, dir / "v.gguf");
  const formats::GgufReader gguf(dir / "v.gguf");
  const auto& types = std::get<std::vector<int32_t>>(
      std::get<formats::GgufArray>(gguf.find("tokenizer.ggml.token_type")->value).values);
  EXPECT_EQ(types[258], 3) << "control";
  EXPECT_EQ(types[259], 4) << "user-defined";

  const json map = {{"eos_token", "<|end|>"}, {"additional_special_tokens", {"<|tool|>"}}};
  const auto by_map = load_folder(no_list, {{"special_tokens_map.json", map}});
  EXPECT_EQ(by_map->encode("the<|tool|>the<|end|>"), (Ids{257, 259, 257, 258}));
  EXPECT_EQ(by_map->special().eos, 258);

  const auto by_list = load_folder(no_list, {{"added_tokens.json", {{"<|end|>", 258}, {"<|tool|>", 259}}}});
  EXPECT_EQ(by_list->encode("the<|tool|>the<|end|>"), (Ids{257, 259, 257, 258}));
}

TEST(Tokenizer, ATokenThatTheConfigurationNamesIsSpecial) {
  const json plain = {{"added_tokens", {{{"id", 258}, {"content", "<|end|>"}, {"special", false}}}}};
  EXPECT_FALSE(load_folder(plain, {})->is_special(258));
  EXPECT_TRUE(load_folder(plain, {{"tokenizer_config.json", {{"eos_token", "<|end|>"}}}})->is_special(258));
  std::unique_ptr<Tokenizer> tokenizer;
  const std::string warnings = warnings_of([&] {
    tokenizer = load_folder(
        json::object(), {{"tokenizer_config.json", {{"pad_token", "<pad>"}}}, {"config.json", {{"vocab_size", 259}}}});
  });
  EXPECT_EQ(tokenizer->vocab_size(), 259);
  EXPECT_THAT(warnings, HasSubstr("the special token \"<pad>\" of the configuration is in no vocabulary, and the model "
                                  "has no row for it: left out"));
}

TEST(Tokenizer, EveryTokenThatEndsAGenerationIsKnown) {
  EXPECT_EQ(load_json(small_json())->special().end, Ids{});
  const auto folder = load_folder(json::object(), {{"tokenizer_config.json", {{"eos_token", "<|end|>"}}},
                                                   {"generation_config.json", {{"eos_token_id", {258, 7}}}},
                                                   {"config.json", {{"eos_token_id", 5}}}});
  EXPECT_EQ(folder->special().end, (Ids{5, 7, 258}));
  EXPECT_EQ(folder->special().eos, 258);
}

TEST(Tokenizer, WhatTheVocabularyCannotSpellIsDroppedBeforeMerging) {
  json content = small_json();
  content["model"]["vocab"].erase("x");
  EXPECT_EQ(load_json(content)->encode("thxe"), Ids{257}) << "h and e became neighbours, then t and he";
}

TEST(Tokenizer, BytesOvertakeAnUnknownTokenAsInTokenizers) {
  json vocab = {{"<unk>", 0}, {"a", 1}};
  for (int byte = 0; byte < 256; ++byte) {
    if (byte != 0x14) vocab[fmt::format("<0x{:02X}>", byte)] = 2 + byte;
  }
  const json content = {{"model",
                         {{"type", "BPE"},
                          {"vocab", vocab},
                          {"merges", json::array()},
                          {"unk_token", "<unk>"},
                          {"fuse_unk", true},
                          {"byte_fallback", true}}},
                        {"added_tokens", json::array()}};
  EXPECT_EQ(load_json(content)->encode("\x14\x15"
                                       "a"),
            (Ids{2 + 0x15, 0, 1}));
}

TEST(Tokenizer, ManyThreadsMayEncodeAtOnce) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");
  const auto tokenizer = load_tokenizer(folder);
  std::vector<std::string> texts;
  std::vector<Ids> expected;
  for (uint64_t seed = 0; seed < 100; ++seed) texts.push_back(random_text(seed, 50));
  for (const auto& text : texts) expected.push_back(tokenizer->encode(text));
  std::vector<Ids> got(4 * texts.size());
  std::vector<std::thread> threads;
  for (size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (size_t i = 0; i < texts.size(); ++i) got[t * texts.size() + i] = tokenizer->encode(texts[i]);
    });
  }
  for (auto& thread : threads) thread.join();
  for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(got[i], expected[i % texts.size()]);
}

TEST(Tokenizer, TheWordCacheMayOverflow) {
  const auto tokenizer = load_json(small_json());
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += fmt::format("w{} the ", i);
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->encode(text), tokenizer->encode(text));
}

TEST(TokenizerErrors, NameThePartThatIsNotSupported) {
  EXPECT_EQ(json_error(small_json({{"model", {{"type", "Unigram"}}}})),
            "model type \"Unigram\" is not supported; supported: BPE");
  EXPECT_EQ(json_error(small_json({{"normalizer", {{"type", "BertNormalizer"}}}})),
            "normalizer \"BertNormalizer\" is not supported; supported: NFC, NFD, NFKC, NFKD, Lowercase, Prepend, "
            "Replace, Sequence");
  EXPECT_EQ(json_error(small_json({{"pre_tokenizer", {{"type", "UnicodeScripts"}}}})),
            "pre_tokenizer \"UnicodeScripts\" is not supported; supported: ByteLevel, Digits, Metaspace, Punctuation, "
            "Split, Sequence");
  EXPECT_EQ(json_error(small_json({{"decoder", {{"type", "WordPiece"}}}})),
            "decoder \"WordPiece\" is not supported; supported: ByteLevel, ByteFallback, Fuse, Metaspace, Replace, "
            "Strip, Sequence");
  EXPECT_EQ(json_error(small_json({{"post_processor", {{"type", "BertProcessing"}}}})),
            "post_processor \"BertProcessing\" is not supported; supported: ByteLevel, TemplateProcessing, Sequence");
  EXPECT_EQ(json_error(small_json({{"model", {{"dropout", 0.1}}}})),
            "model option \"dropout\" is not supported; supported: none");
}

TEST(TokenizerErrors, IdsThatNoTokenHasAreRefused) {
  const auto with_template = [](const json& id) {
    return small_json(
        {{"post_processor",
          {{"type", "TemplateProcessing"},
           {"single",
            {{{"SpecialToken", {{"id", "<|end|>"}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
           {"special_tokens", {{"<|end|>", {{"id", "<|end|>"}, {"ids", {id, id}}}}}}}}});
  };
  EXPECT_EQ(json_error(with_template(258)), "");
  EXPECT_EQ(json_error(with_template(259)), "an id put before every text is 259, the vocabulary has 259 tokens");
  EXPECT_EQ(json_error(with_template(4294967297)), "token id 4294967297 is out of range for 259 tokens");
  EXPECT_EQ(json_error(with_template(1.5)), "a token id must be an integer, not 1.5");
  const auto with_added = [](const json& id) {
    return small_json({{"added_tokens", {{{"id", id}, {"content", "<|far|>"}, {"special", true}}}}});
  };
  EXPECT_EQ(json_error(with_added(16777215)), "token id 16777215 is out of range for 259 tokens");
  EXPECT_EQ(json_error(with_added(-1)), "token id -1 is out of range for 259 tokens");
  EXPECT_EQ(load_json(with_added(1000))->vocab_size(), 1001) << "gaps are no mistake";
  ::testing::internal::CaptureStderr();
  load_json(with_added(1000));
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("the added token \"<|far|>\" has id 1000; the `tokenizers` package would give it 258, the next "
                        "free one"));
  EXPECT_EQ(json_error(with_added(5)), "id 5 stands for both \"&\" and \"<|far|>\"");
}

TEST(TokenizerErrors, NameWhatIsBroken) {
  EXPECT_EQ(json_error(small_json({{"model", {{"merges", {"h e", "the"}}}}})), "merge 1 (\"the\") is not two pieces");
  EXPECT_EQ(json_error(small_json({{"model", {{"merges", {"h e", "t hx"}}}}})),
            "merge 1 (\"t\" and \"hx\") names a token that is not in the vocabulary");
  EXPECT_EQ(json_error(small_json({{"model", {{"merges", {"h t"}}}}})),
            "merge 0 makes \"ht\", which is not in the vocabulary");
  EXPECT_EQ(json_error(small_json({{"model", {{"vocab", {{"the", 256}}}}}})),
            "id 256 stands for both \"he\" and \"the\"");
  EXPECT_EQ(json_error(small_json({{"model", {{"unk_token", "<unk>"}}}})),
            "unk_token \"<unk>\" is not in the vocabulary");
  EXPECT_EQ(json_error({{"version", "1.0"}}), "no \"model\": not a tokenizer.json");
  const testing::TempDir dir;
  EXPECT_NE(testing::error_of([&] { load_tokenizer(dir.path()); }).find("no tokenizer.json"), std::string::npos);
  testing::write_file(dir / "tokenizer.json", "{\"model\": ");
  EXPECT_NE(testing::error_of([&] { load_tokenizer(dir.path()); }).find("not valid JSON"), std::string::npos);
  EXPECT_NE(testing::error_of([&] { load_tokenizer(dir / "absent"); }).find("no such file or folder"),
            std::string::npos);
  EXPECT_NE(testing::error_of([&] {
              load_json(small_json())->decode({1, 259});
            }).find("token id 259 is outside the vocabulary of 259"),
            std::string::npos);
}

}  // namespace
}  // namespace crumb::tokenizer
