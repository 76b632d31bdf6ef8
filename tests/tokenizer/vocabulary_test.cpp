// Vocabularies of tokenizer.json and of llama2.c: loading, decoding, special tokens, and what is refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <sstream>
#include <thread>

#include "tests/tokenizer/vocabularies.h"

namespace crumb::tokenizer {
namespace {

using ::testing::HasSubstr;

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

TEST(Tokenizer, ModelAndGenerationThatDisagreeOnBeginAndEndAreTold) {
  const json names = {{"bos_token", "<|end|>"}, {"eos_token", "<|end|>"}};
  const auto warnings = [&](const json& model, const json& generation) {
    return warnings_of([&] {
      load_folder(json::object(),
                  {{"tokenizer_config.json", names}, {"config.json", model}, {"generation_config.json", generation}});
    });
  };
  const std::string both =
      warnings({{"bos_token_id", 3}, {"eos_token_id", 5}}, {{"bos_token_id", 4}, {"eos_token_id", {7, 8}}});
  EXPECT_THAT(both, HasSubstr("config.json: bos_token_id is 3, but 4 in generation_config.json; what begins a text is "
                              "258 (\"<|end|>\")\n"));
  EXPECT_THAT(both,
              HasSubstr("config.json: eos_token_id is 5, but 7, 8 in generation_config.json; a generation ends at "
                        "each of them, and what ends a document is 258 (\"<|end|>\")\n"));
  EXPECT_EQ(warnings({{"bos_token_id", 3}, {"eos_token_id", 5}}, {{"eos_token_id", {5, 8}}}), "") << "one end more";
  EXPECT_EQ(warnings({{"eos_token_id", nullptr}}, {{"bos_token_id", 4}, {"eos_token_id", 5}}), "");
}

TEST(Tokenizer, ChatTemplatesWithoutADefaultOneAreTold) {
  const auto warnings = [](const json& templates) {
    return warnings_of([&] {
      load_folder(json::object(), {{"tokenizer_config.json", {{"chat_template", templates}}}});
    });
  };
  const json tool = {{"name", "tool_use"}, {"template", "t"}}, rag = {{"name", "rag"}, {"template", "r"}},
             usual = {{"name", "default"}, {"template", "d"}};
  EXPECT_THAT(warnings(json::array({tool, rag})),
              HasSubstr("tokenizer_config.json: chat_template is a list without an entry \"default\", so none is used; "
                        "it has tool_use, rag\n"));
  EXPECT_EQ(warnings(json::array({tool, usual})), "");
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

/// The message after the file's name.
std::string json_error(const json& content) {
  const std::string message = testing::error_of([&] { load_json(content); });
  const size_t name = message.find("tokenizer.json: ");
  return name == std::string::npos ? message : message.substr(name + 16);
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
