// Id for id what the `tokenizers` package gives.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

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

std::string to_hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
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

/// The texts of llama.cpp's parity sets.
std::vector<std::string> parity_texts(const path& file) {
  const std::string all = testing::read_file(file), separator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  for (size_t begin = 0; begin < all.size();) {
    const size_t end = std::min(all.find(separator, begin), all.size());
    texts.push_back(all.substr(begin, end - begin));
    begin = end + separator.size();
  }
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
  auto texts = random_texts(0, 800);
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
  auto texts = random_texts(5000, 600);
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
  EXPECT_EQ(families, 10);
  for (const char* family : {"llama3", "qwen2", "hunyuan-dense"})
    expect_equal_hashes(python, dir / family / "tokenizer.json", all_texts());
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
