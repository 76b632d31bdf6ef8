// Vocabularies of GGUF files: read, written, damaged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <sstream>

#include "core/tokenizer/split_scanner.h"
#include "tests/tokenizer/vocabularies.h"

namespace crumb::tokenizer {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using testing::fs::path;

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

}  // namespace
}  // namespace crumb::tokenizer
