#include "runtime/prompt_cache.h"

#include <gmock/gmock.h>

#include "runtime/session.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using testing::error_of;
using ::testing::HasSubstr;

std::unique_ptr<Decoder> load(const std::string& golden) {
  return load_decoder(*quant::open_checkpoint(testing::golden_folder(golden)), testing::two_threads());
}

const std::vector<TokenId> kPrompt = {4, 9, 33, 7, 8, 21};

class PromptCache : public ::testing::Test {
 protected:
  /// What a session has seen of kPrompt and six tokens more.
  void SetUp() override {
    Session session(*decoder_);
    expected_ = session.go_on({kPrompt, 6, {}, 0}, {}, nullptr).tokens;
    session.save(file_, "model", 1000);
  }
  std::string error_of_load(const std::string& model = "model") {
    return error_of([&] { Session(*decoder_).load(file_, model); });
  }

  std::unique_ptr<Decoder> decoder_ = load("qwen3");
  testing::TempDir dir_;
  Path file_ = dir_ / "prompt.cache";
  std::vector<TokenId> expected_;
};

TEST_F(PromptCache, GoesOnAsIfTheTextHadJustBeenComputed) {
  for (const double temperature : {0.0, 0.8}) {
    Session session(*decoder_), fresh(*decoder_);
    session.load(file_, "model");
    EXPECT_EQ(session.seen().size(), kPrompt.size() + 5);
    const SamplingOptions options{.temperature = temperature, .seed = 1};
    const ContinueRequest request{{4, 9, 33, 7, 8, 21, 5, 6}, 9, {}, 3};
    const auto result = session.go_on(request, options, nullptr);
    EXPECT_GE(result.known_tokens, 6);
    EXPECT_EQ(result.tokens, fresh.go_on(request, options, nullptr).tokens);
  }
}

TEST_F(PromptCache, KeepsAsMuchAsItIsToldTo) {
  Session session(*decoder_);
  session.load(file_, "model");
  session.save(file_, "model", 3);
  session.load(file_, "model");
  EXPECT_THAT(session.seen(), ::testing::ElementsAre(4, 9, 33));
  EXPECT_EQ(session.go_on({kPrompt, 6, {}, 0}, {}, nullptr).tokens, expected_);
}

TEST_F(PromptCache, OfAnotherModelIsRefused) {
  EXPECT_EQ(error_of_load("other"), file_.string() +
                                        ": a prompt cache of another model, or computed in another way; remove it, or "
                                        "name another file");
  const auto llama = load("llama");
  EXPECT_THAT(error_of([&] { Session(*llama).load(file_, "model"); }), HasSubstr(file_.string() + ": "));
}

TEST_F(PromptCache, NothingThatIsDamagedIsTaken) {
  const std::string whole = testing::read_file(file_);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, whole.size() - 1}) {
    testing::write_file(file_, whole.substr(0, size));
    EXPECT_THAT(error_of_load(), HasSubstr(file_.string())) << size;
  }
  for (size_t at = 0; at < whole.size(); at += 97) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    testing::write_file(file_, damaged);
    EXPECT_THAT(error_of_load(), HasSubstr(file_.string())) << at;
  }
  std::string damaged = whole;
  damaged.back() = static_cast<char>(damaged.back() ^ 1);
  testing::write_file(file_, damaged);
  EXPECT_EQ(error_of_load(), file_.string() + ": the prompt cache is damaged; remove it");
  testing::write_file(file_, testing::read_file(testing::golden_folder("llama") / "model.safetensors"));
  EXPECT_EQ(error_of_load(), file_.string() + ": this is no prompt cache that crumb has written");
}

TEST_F(PromptCache, DamageThatRoundingWouldHideIsSeen) {
  const auto checkpoint = quant::open_checkpoint(testing::golden_folder("qwen3"));
  for (const auto type : {CacheType::f16, CacheType::q8}) {
    const auto decoder = load_decoder(*checkpoint, testing::two_threads(), nullptr, type);
    Session session(*decoder);
    const auto tokens = session.go_on({kPrompt, 6, {}, 0}, {}, nullptr).tokens;
    session.save(file_, "model", 1000);
    session.load(file_, "model");
    EXPECT_EQ(session.go_on({kPrompt, 6, {}, 0}, {}, nullptr).tokens, tokens);
    std::string damaged = testing::read_file(file_);
    damaged[damaged.size() - 4] = static_cast<char>(damaged[damaged.size() - 4] ^ 1);  // the least bit of a float
    testing::write_file(file_, damaged);
    EXPECT_EQ(error_of([&] { Session(*decoder).load(file_, "model"); }),
              file_.string() + ": the prompt cache is damaged; remove it");
  }
}

TEST_F(PromptCache, AFailedLoadLeavesTheSessionAsItWas) {
  Session session(*decoder_);
  session.go_on({{1, 2, 3}, 4, {}, 0}, {}, nullptr);
  const auto seen = session.seen();
  EXPECT_NE(error_of([&] { session.load(file_, "other"); }), "");
  EXPECT_EQ(session.seen(), seen);
  EXPECT_EQ(session.go_on({{1, 2, 3, 4}, 4, {}, 0}, {}, nullptr).tokens,
            Session(*decoder_).go_on({{1, 2, 3, 4}, 4, {}, 0}, {}, nullptr).tokens);
}

}  // namespace
}  // namespace crumb::runtime
