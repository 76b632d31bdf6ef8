#include "runtime/speculation.h"

#include <gmock/gmock.h>

#include <map>
#include <numeric>

#include "runtime/precision.h"
#include "runtime/session.h"
#include "tests/runtime/block_model.h"
#include "tests/runtime/golden.h"
#include "tests/runtime/table_decoder.h"

namespace crumb::runtime {
namespace {

using End = Continuation::End;
using testing::TableDecoder;

/// Weights of 0 are left out, as filters do.
std::vector<Candidate> choices_of(const std::vector<double>& weights) {
  std::vector<Candidate> out;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] > 0) out.push_back({static_cast<TokenId>(i), weights[i]});
  }
  return out;
}

/// How often each token comes if the proposal, acceptance and replacement are drawn with numbers of a grid.
std::vector<double> spread_over_grid(const std::vector<double>& wanted, const std::vector<double>& drafted) {
  constexpr int kSteps = 60;
  const auto middle = [](int i) { return (i + 0.5) / kSteps; };
  const auto from = choices_of(drafted);
  std::vector<double> counts(wanted.size());
  for (int a = 0; a < kSteps; ++a) {
    const Proposal proposal{draw(from, middle(a)), from};
    for (int b = 0; b < kSteps; ++b) {
      for (int c = 0; c < kSteps; ++c)
        counts[static_cast<size_t>(accept_or_replace(choices_of(wanted), proposal, middle(b), middle(c)))] += 1;
    }
  }
  for (double& count : counts) count /= double{kSteps} * kSteps * kSteps;
  return counts;
}

TEST(AcceptOrReplace, GivesTheWantedDistributionWhateverWasDrafted) {
  const std::vector<double> wanted[] = {{4, 3, 2, 1}, {0, 1, 0, 1}, {7, 0, 0, 0}, {1, 1, 1, 1}, {0.1, 0, 0.3, 0}},
                            drafted[] = {{1, 2, 3, 4}, {1, 0, 1, 0}, {0, 5, 0, 0}, {4, 3, 2, 1}, {1, 1, 1, 9}};
  for (const auto& p : wanted) {
    const double total = std::accumulate(p.begin(), p.end(), 0.0);
    for (const auto& q : drafted) {
      const auto shares = spread_over_grid(p, q);
      for (size_t i = 0; i < p.size(); ++i)
        EXPECT_NEAR(shares[i], p[i] / total, 0.03) << i << " of " << ::testing::PrintToString(p) << " from "
                                                   << ::testing::PrintToString(q) << "; the grid is 1/60";
    }
  }
}

TEST(AcceptOrReplace, AcceptsAllThatIsDraftedFromTheWantedDistribution) {
  const auto choices = choices_of({0.3, 0, 0.45, 0.25});
  for (const double u : {0.0, 0.3, 0.99999999}) EXPECT_EQ(accept_or_replace(choices, {2, choices}, u, 0.5), 2);
}

constexpr int64_t kVocab = 4, kLength = 4;

/// The probability of every text of kLength tokens behind the prompt: the product of what sample() draws from.
std::map<std::vector<TokenId>, double> exact_distribution(const TableDecoder& decoder,
                                                          const std::vector<TokenId>& prompt,
                                                          const SamplingOptions& options) {
  std::map<std::vector<TokenId>, double> texts{{{}, 1.0}};
  for (int64_t length = 0; length < kLength; ++length) {
    std::map<std::vector<TokenId>, double> longer;
    for (const auto& [text, probability] : texts) {
      auto whole = prompt;
      whole.insert(whole.end(), text.begin(), text.end());
      const auto choices = candidates(decoder.logits(whole), options, whole);
      for (const auto& choice : choices) {
        auto next = text;
        next.push_back(choice.id);
        longer[next] = probability * choice.weight / total_weight(choices);
      }
    }
    texts = std::move(longer);
  }
  return texts;
}

struct ChiSquare {
  double sum = 0;
  int64_t degrees = 0;
  /// How far above its mean, in standard deviations.
  double excess() const { return (sum - static_cast<double>(degrees)) / std::sqrt(2.0 * static_cast<double>(degrees)); }
};
/// Of texts drafted by another table, against the model's own distribution.
ChiSquare distance_of_samples(SamplingOptions options) {
  constexpr int64_t kSamples = 20000;
  const std::vector<TokenId> prompt = {1, 3};
  TableDecoder decoder(kVocab, 64, 1), drafter(kVocab, 64, 2);
  const auto expected = exact_distribution(decoder, prompt, options);
  Draft draft(drafter);
  Session session(decoder, &draft);
  std::map<std::vector<TokenId>, int64_t> seen;
  options.seed = 17;
  for (int64_t i = 0; i < kSamples; ++i)
    ++seen[session.go_on({prompt, kLength, {}, static_cast<uint64_t>(i)}, options, nullptr).tokens];
  for (const auto& [text, count] : seen) EXPECT_TRUE(expected.contains(text)) << count << " texts that cannot come";
  ChiSquare out;
  const auto add = [&out](double mean, double count) {
    out.sum += (count - mean) * (count - mean) / mean;
    ++out.degrees;
  };
  double rare_mean = 0, rare_count = 0;  // texts too rare to be counted alone
  for (const auto& [text, probability] : expected) {
    const double mean = probability * kSamples, count = static_cast<double>(seen[text]);
    if (mean >= 10) {
      add(mean, count);
    } else {
      rare_mean += mean;
      rare_count += count;
    }
  }
  if (rare_mean > 0) add(rare_mean, rare_count);
  --out.degrees;
  return out;
}

TEST(Speculation, SamplesAreDistributedAsTheModelsOwn) {
  // Without the correction, replacing by the model's distribution as it is, these are above 100.
  EXPECT_LT(distance_of_samples({.temperature = 1.0}).excess(), 4);
  EXPECT_LT(distance_of_samples({.temperature = 0.8, .top_k = 3, .repetition_penalty = 1.3}).excess(), 4);
  EXPECT_LT(distance_of_samples({.temperature = 1.5, .top_p = 0.9}).excess(), 4);
  EXPECT_LT(distance_of_samples({.temperature = 1.0, .min_p = 0.2}).excess(), 4);
}

/// A decoder and what is needed for it.
struct Loaded {
  std::unique_ptr<quant::Checkpoint> checkpoint;
  std::unique_ptr<Decoder> decoder;
};
Loaded load(const Path& path, const Precision& precision = {}) {
  Loaded out{quant::open_checkpoint(path), nullptr};
  out.decoder = load_decoder(*out.checkpoint, testing::two_threads(), precision);
  return out;
}

std::vector<TokenId> random_prompt(uint64_t stream, int64_t length, int64_t vocab_size) {
  std::vector<TokenId> prompt;
  for (int64_t i = 0; i < length; ++i)
    prompt.push_back(
        static_cast<TokenId>(Rng(5, stream).below(static_cast<uint64_t>(i), static_cast<uint64_t>(vocab_size))));
  return prompt;
}

/// Greedy texts of random prompts, with and without the draft. Returns what was accepted and what was not.
SpeculationCounts expect_same_greedy(Decoder& decoder, Decoder& drafter, const std::string& name) {
  SpeculationCounts counts;
  const int64_t vocab_size = decoder.spec().vocab_size;
  for (const int64_t most : {1, 3, 8, 20}) {
    Draft draft(drafter, most);
    Session session(decoder, &draft);
    for (uint64_t stream = 0; stream < 5; ++stream) {
      const SamplingOptions options{.repetition_penalty = stream % 2 == 0 ? 1.0 : 1.3};
      const ContinueRequest request{random_prompt(stream, 1 + static_cast<int64_t>(stream * 7), vocab_size), 24, {}, 0};
      const auto expected = Session(decoder).go_on(request, options, nullptr);
      const auto result = session.go_on(request, options, nullptr);
      EXPECT_EQ(result.tokens, expected.tokens) << name << ", at most " << most << " drafted, prompt " << stream;
      EXPECT_EQ(result.end, expected.end);
      counts.proposed += result.speculation.proposed;
      counts.accepted += result.speculation.accepted;
    }
  }
  return counts;
}

TEST(Speculation, GreedyTokensAreTheModelsOwnForEveryArchitecture) {
  int64_t rejected = 0;
  const auto drafter = load(testing::golden_folder("llama"));
  for (const auto& name : testing::golden_names()) {
    for (const auto& precision :
         {Precision{}, Precision{.cache_type = CacheType::f16}, Precision{.cache_type = CacheType::q8}}) {
      const auto model = load(testing::golden_folder(name), precision);
      const auto counts = expect_same_greedy(*model.decoder, *drafter.decoder, name);
      rejected += counts.proposed - counts.accepted;
      const auto itself = expect_same_greedy(*model.decoder, *model.decoder, name);
      EXPECT_GT(itself.proposed, 0);
      EXPECT_EQ(itself.accepted, itself.proposed) << name << ": a token alone has the logits that it has in a batch";
    }
  }
  EXPECT_GT(rejected, 1000) << "keys and values were never rolled back";
}

TEST(Speculation, GreedyTokensAreTheModelsOwnForPackedCodesAndInt8) {
  for (const auto type : {formats::TensorType::q8_0, formats::TensorType::q4_k, formats::TensorType::q2_k}) {
    const testing::TempDir dir;
    for (const bool tied_head : {false, true}) {
      const auto path = dir / (tied_head ? "tied.gguf" : "untied.gguf");
      testing::write_block_model(path, testing::block_spec(tied_head), [&](const auto&) { return type; });
      const auto floats = load(path), int8 = load(path, {.activations = Activations::int8});
      const std::string name(formats::type_name(type));
      const auto near = expect_same_greedy(*floats.decoder, *int8.decoder, name + " by int8");
      EXPECT_GT(near.accepted, near.proposed / 2);
      expect_same_greedy(*int8.decoder, *floats.decoder, name + " in int8");
      const auto itself = expect_same_greedy(*int8.decoder, *int8.decoder, name + " in int8 by itself");
      EXPECT_EQ(itself.accepted, itself.proposed) << name;
    }
  }
}

TEST(Speculation, EndsWhereItEndsWithoutADraft) {
  TableDecoder decoder(kVocab, 64, 1, 6.0);
  const std::vector<TokenId> prompt = {1, 3, 2};
  for (const uint64_t drafted_by : {1, 2}) {  // all is accepted; little is
    TableDecoder drafter(kVocab, 64, drafted_by, 6.0);
    Draft draft(drafter);
    const auto free_run = Session(decoder).go_on({prompt, 40, {}, 0}, {}, nullptr).tokens;
    for (int64_t max_tokens = 0; max_tokens <= 20; ++max_tokens) {
      const auto result = Session(decoder, &draft).go_on({prompt, max_tokens, {}, 0}, {}, nullptr);
      EXPECT_EQ(result.tokens, std::vector(free_run.begin(), free_run.begin() + max_tokens));
      EXPECT_EQ(result.end, End::length);
    }
    for (TokenId end = 0; end < kVocab; ++end) {
      Session session(decoder, &draft);
      const auto expected = Session(decoder).go_on({prompt, 20, {end}, 0}, {}, nullptr);
      const auto result = session.go_on({prompt, 20, {end}, 0}, {}, nullptr);
      EXPECT_EQ(result.tokens, expected.tokens);
      EXPECT_EQ(result.end, expected.end);
      EXPECT_LE(session.seen().size(), prompt.size() + result.tokens.size()) << "nothing behind the end is kept";
    }
    for (size_t cut = 1; cut < 12; ++cut) {
      std::vector<TokenId> told;
      Session session(decoder, &draft);
      const auto result = session.go_on({prompt, 40, {}, 0}, {}, [&](TokenId token) {
        told.push_back(token);
        return told.size() < cut;
      });
      EXPECT_EQ(result.end, End::stopped);
      EXPECT_EQ(result.tokens, told);
      EXPECT_EQ(told, std::vector(free_run.begin(), free_run.begin() + static_cast<int64_t>(cut)));
      EXPECT_LE(session.seen().size(), prompt.size() + cut);
      auto longer = prompt;
      longer.insert(longer.end(), told.begin(), told.end());
      EXPECT_EQ(session.go_on({longer, 5, {}, 0}, {}, nullptr).tokens,
                Session(decoder).go_on({longer, 5, {}, 0}, {}, nullptr).tokens);
    }
    const auto full = Session(decoder, &draft).go_on({prompt, 1000, {}, 0}, {}, nullptr);
    EXPECT_EQ(full.end, End::context);
    EXPECT_EQ(full.tokens.size(), 62u);
    EXPECT_EQ(full.tokens, Session(decoder).go_on({prompt, 1000, {}, 0}, {}, nullptr).tokens);
    std::atomic<bool> stop = false;
    const auto stopped = Session(decoder, &draft)
                             .go_on(
                                 {prompt, 40, {}, 0}, {}, [&](TokenId) { return stop = true; }, &stop);
    EXPECT_EQ(stopped.end, End::stopped);
    EXPECT_LE(stopped.tokens.size(), 40u);
    EXPECT_TRUE(std::equal(stopped.tokens.begin(), stopped.tokens.end(), free_run.begin()));
  }
}

TEST(Speculation, ASeedGivesTheSameTokensAgainWhateverCameBefore) {
  TableDecoder decoder(kVocab, 64, 1), drafter(kVocab, 64, 2);
  const SamplingOptions options{.temperature = 1.0, .seed = 9};
  const auto fresh = [&](uint64_t stream) {
    Draft draft(drafter);
    return Session(decoder, &draft).go_on({{1, 2}, 40, {}, stream}, options, nullptr).tokens;
  };
  Draft draft(drafter);
  Session session(decoder, &draft);
  for (const uint64_t stream : {4, 7, 4, 1})
    EXPECT_EQ(session.go_on({{1, 2}, 40, {}, stream}, options, nullptr).tokens, fresh(stream));
  EXPECT_NE(fresh(4), fresh(7));
}

TEST(Speculation, SavesPassesAndDraftsFewerWhereFewAreAccepted) {
  TableDecoder decoder(kVocab, 256, 1, 6.0), same(kVocab, 256, 1, 6.0), other(64, 256, 3, 6.0);
  Draft good(same);
  const auto result = Session(decoder, &good).go_on({{1}, 100, {}, 0}, {}, nullptr);
  EXPECT_EQ(result.speculation.acceptance(), 1.0);
  EXPECT_EQ(result.speculation.passes, 12) << "4 + 1, 6 + 1, then 8 + 1 tokens a pass, behind the first";
  EXPECT_DOUBLE_EQ(result.speculation.tokens_per_pass(), 99.0 / 12.0);
  EXPECT_EQ(decoder.passes(), 1 + result.speculation.passes);
  EXPECT_EQ(decoder.tokens(), 100) << "the last token needs no pass";

  TableDecoder wide(64, 256, 1, 6.0);
  Draft bad(other);
  const auto slow = Session(wide, &bad).go_on({{1}, 100, {}, 0}, {}, nullptr).speculation;
  EXPECT_LT(slow.acceptance(), 0.1);
  EXPECT_LT(slow.proposed, 100 + 20) << "one a pass soon";
  EXPECT_NEAR(slow.tokens_per_pass(), 1.0, 0.1);
}

TEST(Speculation, DraftsNothingWhereTheDraftIsUnsure) {
  TableDecoder decoder(64, 256, 1), unsure(64, 256, 1, 0.1);
  Draft draft(unsure);
  for (const double temperature : {0.0, 1.0}) {
    const SamplingOptions options{.temperature = temperature};
    const auto result = Session(decoder, &draft).go_on({{1}, 50, {}, 0}, options, nullptr);
    EXPECT_EQ(result.speculation.proposed, 0);
    EXPECT_EQ(result.speculation.passes, 49);
    EXPECT_EQ(result.tokens, Session(decoder).go_on({{1}, 50, {}, 0}, options, nullptr).tokens);
  }
}

TEST(Speculation, GoesOnWithAPromptCacheAndMeasuresWithoutATrace) {
  const testing::TempDir dir;
  const auto model = load(testing::golden_folder("qwen3")), drafter = load(testing::golden_folder("llama"));
  const auto prompt = random_prompt(1, 30, 96);
  Draft draft(*drafter.decoder);
  Session session(*model.decoder, &draft);
  const auto expected = session.go_on({prompt, 20, {}, 0}, {}, nullptr).tokens;
  session.save(dir / "cache", "model", 30);
  const auto seen = session.seen();
  EXPECT_GT(session.token_seconds(), 0);
  EXPECT_EQ(session.seen(), seen);
  Session later(*model.decoder, &draft);
  later.load(dir / "cache", "model");
  const auto result = later.go_on({prompt, 20, {}, 0}, {}, nullptr);
  EXPECT_EQ(result.known_tokens, 29);
  EXPECT_EQ(result.tokens, expected);
  EXPECT_EQ(session.go_on({prompt, 20, {}, 0}, {}, nullptr).tokens, expected);
}

}  // namespace
}  // namespace crumb::runtime
