#include <gmock/gmock.h>

#include "runtime/decoder.h"

#include <algorithm>
#include <fstream>

#include "core/common/progress.h"
#include "core/common/rng.h"
#include "quant/codes_folder.h"
#include "runtime/kv_cache.h"
#include "runtime/precision.h"
#include "tests/quant/hand_gguf.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using testing::all_logits;
using testing::Golden;
using testing::golden_folder;
using testing::read_golden;
using testing::relative_difference;

constexpr double kTolerance = 1e-4;  // of the range of the logits: float32 sums in another order

std::unique_ptr<Decoder> load(const Path& path, int threads = 2) {
  return load_decoder(*quant::open_checkpoint(path), std::make_shared<ThreadPool>(threads));
}

std::string name_of(const ::testing::TestParamInfo<std::string>& info) { return info.param; }

class DecoderGoldens : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Decoder, DecoderGoldens, ::testing::ValuesIn(testing::golden_names()), name_of);

TEST_P(DecoderGoldens, LogitsEqualThoseOfTransformers) {
  const auto golden = read_golden(GetParam());
  const auto decoder = load(golden_folder(GetParam()));
  EXPECT_LE(relative_difference(all_logits(*decoder, golden.ids), golden.logits), kTolerance);
}

TEST_P(DecoderGoldens, TheSameModelFromGgufGivesTheSameLogits) {
  const testing::TempDir dir;
  testing::write_f32_gguf(*quant::open_checkpoint(golden_folder(GetParam())), dir / "model.gguf");
  const auto golden = read_golden(GetParam());
  EXPECT_LE(relative_difference(all_logits(*load(dir / "model.gguf"), golden.ids), golden.logits), kTolerance);
}

TEST_P(DecoderGoldens, TokenByTokenEqualsOnePass) {
  const auto golden = read_golden(GetParam());
  const auto decoder = load(golden_folder(GetParam()));
  const auto state = decoder->new_state();
  std::vector<float> logits;
  for (const auto id : golden.ids) {
    const SequenceInput input{state.get(), {&id, 1}};
    decoder->forward({&input, 1}, LogitsFor::last, [&](int64_t sequence, int64_t position, auto row) {
      EXPECT_EQ(sequence, 0);
      EXPECT_EQ(position, state->length() - 1);
      logits.insert(logits.end(), row.begin(), row.end());
    });
  }
  EXPECT_EQ(state->length(), static_cast<int64_t>(golden.ids.size()));
  EXPECT_LE(relative_difference(logits, golden.logits), kTolerance);
}

TEST_P(DecoderGoldens, SequencesOfABatchDoNotSeeEachOther) {
  const auto golden = read_golden(GetParam());
  const auto vocab = golden.logits.size() / golden.ids.size();
  const auto decoder = load(golden_folder(GetParam()), 3);
  // The same text three times, cut at different places, and each cut appended in a second call.
  const std::vector<size_t> cuts{11, 1, 29};
  std::vector<std::unique_ptr<SequenceState>> states;
  std::vector<SequenceInput> first, second;
  const std::span<const TokenId> ids(golden.ids);
  for (const size_t cut : cuts) {
    states.push_back(decoder->new_state());
    first.push_back({states.back().get(), ids.first(cut)});
    second.push_back({states.back().get(), ids.subspan(cut)});
  }
  std::vector<std::vector<float>> logits(3);
  const auto gather = [&](int64_t sequence, int64_t position, std::span<const float> row) {
    auto& own = logits[static_cast<size_t>(sequence)];
    EXPECT_EQ(static_cast<size_t>(position), own.size() / vocab);  // in order
    own.insert(own.end(), row.begin(), row.end());
  };
  decoder->forward(first, LogitsFor::all, gather);
  decoder->forward(second, LogitsFor::all, gather);
  for (const auto& own : logits) EXPECT_LE(relative_difference(own, golden.logits), kTolerance);
}

void expect_reference_logits(const std::string& model, const std::string& vectors) {
  CRUMB_NEED_DATA(folder, "models/" + model);
  CRUMB_NEED_DATA(ids_file, "vectors/golden/" + vectors + ".ids.txt");
  std::vector<TokenId> ids;
  std::ifstream in(ids_file);
  for (TokenId id = 0; in >> id;) ids.push_back(id);
  const auto bytes = testing::read_file(testing::data("vectors/golden/" + vectors + ".logits.f32"));
  std::vector<float> expected(bytes.size() / sizeof(float));
  std::memcpy(expected.data(), bytes.data(), expected.size() * sizeof(float));
  const auto decoder = load(folder);
  EXPECT_LE(relative_difference(all_logits(*decoder, ids), expected), kTolerance);
}
TEST(Decoder, Stories260KEqualsTheDoublePrecisionLogits) { expect_reference_logits("stories260K-hf", "stories260K"); }
TEST(Decoder, Tiny1MEqualsTheDoublePrecisionLogits) { expect_reference_logits("tiny1m-hf", "tiny1m"); }

double negative_log_likelihood(std::span<const float> logits, TokenId token) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0.0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  return largest + std::log(sum) - logits[static_cast<size_t>(token)];
}

/// Sum over a text in windows of 511 tokens, each after a BOS.
double score_story(Decoder& decoder, const std::vector<TokenId>& tokens) {
  double sum = 0.0;
  for (size_t begin = 0; begin < tokens.size(); begin += 511) {
    const size_t count = std::min<size_t>(511, tokens.size() - begin);
    std::vector<TokenId> window{1};
    window.insert(window.end(), tokens.begin() + begin, tokens.begin() + begin + count);
    const auto state = decoder.new_state();
    const SequenceInput input{state.get(), {window.data(), count}};
    decoder.forward({&input, 1}, LogitsFor::all, [&](int64_t, int64_t position, std::span<const float> logits) {
      sum += negative_log_likelihood(logits, window[static_cast<size_t>(position) + 1]);
    });
  }
  return sum;
}

std::vector<std::string> split(const std::string& text, const std::string& separator) {
  std::vector<std::string> pieces;
  for (size_t begin = 0, end = 0; end != std::string::npos; begin = end + separator.size()) {
    end = text.find(separator, begin);
    pieces.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
  }
  return pieces;
}

TEST(Decoder, Stories260KHasTheKnownPerplexity) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  CRUMB_NEED_DATA(text, "text/tinystories-valid-sample/tinystories_valid_1911.txt");
  const auto stories = split(testing::read_file(text), "<|endoftext|>");
  ASSERT_GT(stories.size(), 41u);
  const auto tokenizer = tokenizer::load_tokenizer(folder);
  const auto decoder = load(folder);
  double sum = 0.0;
  size_t count = 0;
  for (size_t i = 1; i <= 40; ++i) {
    const auto first = stories[i].find_first_not_of(" \n\r\t"), last = stories[i].find_last_not_of(" \n\r\t");
    const auto tokens = tokenizer->encode(stories[i].substr(first, last - first + 1));
    sum += score_story(*decoder, tokens);
    count += tokens.size();
  }
  EXPECT_EQ(count, 15445u);
  EXPECT_NEAR(sum / static_cast<double>(count), 1.546921, 2e-6);
}

TEST(Decoder, ManyTokensAtOnceAreCutIntoPassesWithoutATrace) {
  const auto golden = read_golden("mistral");
  const auto decoder = load(golden_folder("mistral"));
  const std::vector<float> alone = all_logits(*decoder, golden.ids);
  // 40 sequences of 40 tokens: 1600 tokens, more than one pass takes, and some sequences lie across its border.
  std::vector<std::unique_ptr<SequenceState>> states;
  std::vector<SequenceInput> inputs;
  for (int i = 0; i < 40; ++i) {
    states.push_back(decoder->new_state());
    inputs.push_back({states.back().get(), golden.ids});
  }
  std::vector<std::vector<float>> logits(40);
  decoder->forward(inputs, LogitsFor::all, [&](int64_t sequence, int64_t, auto row) {
    auto& own = logits[static_cast<size_t>(sequence)];
    own.insert(own.end(), row.begin(), row.end());
  });
  for (const auto& own : logits) EXPECT_LE(relative_difference(own, alone), kTolerance);
}

/// Logits of every position when the text comes in pieces.
std::vector<float> logits_in_pieces(Decoder& decoder, const std::vector<TokenId>& ids, size_t piece) {
  std::vector<float> result;
  const auto state = decoder.new_state();
  for (size_t begin = 0; begin < ids.size(); begin += piece) {
    const SequenceInput input{state.get(), {ids.data() + begin, std::min(piece, ids.size() - begin)}};
    decoder.forward({&input, 1}, LogitsFor::all,
                    [&](int64_t, int64_t, auto row) { result.insert(result.end(), row.begin(), row.end()); });
  }
  return result;
}

TEST(Decoder, ARowInABatchEqualsTheRowAloneToTheLastBit) {
  for (const auto& name : testing::golden_names()) {
    const auto golden = read_golden(name);
    const auto decoder = load(golden_folder(name));
    const std::vector<float> together = all_logits(*decoder, golden.ids);
    EXPECT_EQ(logits_in_pieces(*decoder, golden.ids, 1), together) << name << ", token by token";
    EXPECT_EQ(logits_in_pieces(*decoder, golden.ids, 13), together) << name << ", in pieces of 13";
    // Beside other texts, in front and behind.
    const std::vector<TokenId> other(golden.ids.begin() + 3, golden.ids.begin() + 20);
    std::vector<std::unique_ptr<SequenceState>> states;
    for (int i = 0; i < 3; ++i) states.push_back(decoder->new_state());
    const SequenceInput inputs[] = {{states[0].get(), other}, {states[1].get(), golden.ids}, {states[2].get(), other}};
    std::vector<float> among_others;
    decoder->forward(inputs, LogitsFor::all, [&](int64_t sequence, int64_t, auto row) {
      if (sequence == 1) among_others.insert(among_others.end(), row.begin(), row.end());
    });
    EXPECT_EQ(among_others, together) << name << ", among others";
  }
}

TEST(Decoder, OnlyTheLastPositionIsAskedForWhenOnlyItIsWanted) {
  const auto golden = read_golden("qwen3");
  const auto decoder = load(golden_folder("qwen3"));
  const auto state = decoder->new_state();
  const SequenceInput input{state.get(), golden.ids};
  std::vector<int64_t> positions;
  decoder->forward({&input, 1}, LogitsFor::last,
                   [&](int64_t, int64_t position, auto) { positions.push_back(position); });
  EXPECT_EQ(positions, std::vector<int64_t>{static_cast<int64_t>(golden.ids.size()) - 1});
}

TEST(Decoder, AClearedStateStartsAnew) {
  const auto golden = read_golden("qwen2_window");
  const auto decoder = load(golden_folder("qwen2_window"));
  const auto state = decoder->new_state();
  for (int round = 0; round < 2; ++round) {
    std::vector<float> logits;
    const SequenceInput input{state.get(), golden.ids};
    decoder->forward({&input, 1}, LogitsFor::all,
                     [&](int64_t, int64_t, auto row) { logits.insert(logits.end(), row.begin(), row.end()); });
    EXPECT_LE(relative_difference(logits, golden.logits), kTolerance);
    state->clear();
    EXPECT_EQ(state->length(), 0);
  }
}

/// Appends tokens and adds the logits of each to `logits`.
void append(Decoder& decoder, SequenceState& state, std::span<const TokenId> ids, std::vector<float>& logits) {
  const SequenceInput input{&state, ids};
  decoder.forward({&input, 1}, LogitsFor::all,
                  [&](int64_t, int64_t, auto row) { logits.insert(logits.end(), row.begin(), row.end()); });
}

TEST(Decoder, AStateCutShortGoesOnAsIfItHadNeverGoneFurther) {
  for (const auto& name : testing::golden_names()) {  // with and without windows, of layers and of models
    const auto golden = read_golden(name);
    const auto decoder = load(golden_folder(name));
    const std::span<const TokenId> ids(golden.ids);
    const std::vector<TokenId> others(100, golden.ids.front());  // more than the first capacity of the cache
    for (const size_t kept : {size_t{0}, size_t{1}, size_t{17}, ids.size()}) {
      const auto state = decoder->new_state(), straight = decoder->new_state();
      std::vector<float> ignored, after_cut, expected;
      append(*decoder, *state, ids.first(kept), ignored);
      append(*decoder, *state, std::span(others).first(128 - ids.size()), ignored);
      state->truncate(static_cast<int64_t>(kept));
      EXPECT_EQ(state->length(), static_cast<int64_t>(kept));
      append(*decoder, *state, ids, after_cut);
      append(*decoder, *straight, ids.first(kept), ignored);
      append(*decoder, *straight, ids, expected);
      EXPECT_EQ(after_cut, expected) << name << ", " << kept << " kept";
    }
  }
}

/// A head of a position takes bytes(values of a head); how near the logits are.
void expect_rounded_cache(CacheType type, int64_t (*bytes)(int64_t), double near) {
  for (const auto& name : testing::golden_names()) {
    const auto golden = read_golden(name);
    const auto checkpoint = quant::open_checkpoint(golden_folder(name));
    const auto exact = load_decoder(*checkpoint, testing::two_threads(), Precision{}),
               rounded = load_decoder(*checkpoint, testing::two_threads(), Precision{.cache_type = type});
    const auto expected = testing::all_logits(*exact, golden.ids), logits = testing::all_logits(*rounded, golden.ids);
    EXPECT_NE(logits, expected) << name;
    EXPECT_LT(testing::relative_difference(logits, expected), near) << name;
    const std::span<const TokenId> ids(golden.ids);
    const auto wide = exact->new_state(), narrow = rounded->new_state(), one_by_one = rounded->new_state();
    std::vector<float> ignored, together, alone;
    append(*exact, *wide, ids, ignored);
    append(*rounded, *narrow, ids, together);
    for (size_t i = 0; i < ids.size(); ++i) append(*rounded, *one_by_one, ids.subspan(i, 1), alone);
    EXPECT_EQ(alone, together) << name;
    const int64_t dim = checkpoint->spec().layers.front().gqa().head_dim;
    EXPECT_EQ(narrow->bytes() * 4 * dim, wide->bytes() * bytes(dim)) << name;
    EXPECT_GT(narrow->bytes(), 0);
  }
}

TEST(Decoder, HoldsKeysAndValuesInHalfOfTheMemoryOnRequest) {
  expect_rounded_cache(
      CacheType::f16, [](int64_t dim) { return 2 * dim; }, 2e-3);
}

TEST(Decoder, HoldsKeysAndValuesInBytesOnRequest) {
  expect_rounded_cache(
      CacheType::q8, [](int64_t dim) { return dim + 4; }, 4e-2);
}

TEST(KvCache, ReturnsWhatWasPutWhateverItGrewTo) {
  const auto decoder = load(golden_folder("llama"));
  const auto& gqa = decoder->spec().layers.front().gqa();
  const auto value_at = [&](int64_t layer, int64_t head, int64_t position, int64_t i) {
    return static_cast<float>(((layer * 7 + head) * 200 + position) * gqa.head_dim + i) / 64;
  };
  for (const auto type : {CacheType::f32, CacheType::f16, CacheType::q8}) {
    KvCache cache(decoder->spec(), type);
    for (int64_t position = 0; position < 100; ++position) {
      cache.reserve(position + 1);
      for (int64_t layer = 0; layer < cache.num_layers(); ++layer) {
        for (int64_t head = 0; head < gqa.kv_heads; ++head) {
          std::vector<float> key, value;
          for (int64_t i = 0; i < gqa.head_dim; ++i) {
            key.push_back(value_at(layer, head, position, i));
            value.push_back(-key.back());
          }
          cache.put(layer, head, position, key.data(), value.data());
        }
      }
      cache.set_length(position + 1);
    }
    for (int64_t layer = 0; layer < cache.num_layers(); ++layer) {
      for (int64_t head = 0; head < gqa.kv_heads; ++head) {
        const auto keys = cache.keys(layer, head, 100), values = cache.values(layer, head, 100);
        for (int64_t n = 0; n < 100 * gqa.head_dim; ++n) {
          float expected = value_at(layer, head, n / gqa.head_dim, n % gqa.head_dim);
          if (type == CacheType::f16) expected = from_f16(to_f16(expected));
          // Of bytes: half a step of the largest value, and the last of the head is that.
          const double largest = value_at(layer, head, n / gqa.head_dim, gqa.head_dim - 1);
          const double off = type == CacheType::q8 ? largest / 127 / 2 * 1.001 : 0;
          ASSERT_NEAR(keys[static_cast<size_t>(n)], expected, off);
          ASSERT_NEAR(values[static_cast<size_t>(n)], -expected, off);
        }
      }
    }
  }
}

TEST(KvCache, RefusesWhatFloat16DoesNotHold) {
  const auto decoder = load(golden_folder("llama"));
  KvCache cache(decoder->spec(), CacheType::f16);
  cache.reserve(1);
  std::vector<float> large(static_cast<size_t>(cache.head_dim(0)), 70000), small(large.size(), 65504);
  EXPECT_EQ(testing::error_of([&] { cache.put(0, 0, 0, small.data(), large.data()); }),
            "a key or value of 70000 is beyond what float16 holds; use --cache-type f32");
  cache.put(0, 0, 0, small.data(), small.data());
  EXPECT_EQ(cache.keys(0, 0, 1), small);
}

TEST(KvCache, BytesThatArePutAgainAsFloatsAreTheSameBytes) {
  const auto decoder = load(golden_folder("llama"));
  KvCache cache(decoder->spec(), CacheType::q8);
  cache.reserve(500);
  const auto dim = static_cast<size_t>(cache.head_dim(0));
  const Rng rng(7);
  for (int64_t position = 0; position < 500; ++position) {
    std::vector<float> key, value(dim, 0.0f);
    for (size_t i = 0; i < dim; ++i)
      key.push_back(static_cast<float>(rng.normal(static_cast<uint64_t>(position) * dim + i) *
                                       std::exp2(static_cast<double>(position - 250) / 2)));
    if (position % 5 != 0) value[1] = key[1];
    cache.put(0, 0, position, key.data(), value.data());
  }
  const auto keys = cache.keys(0, 0, 500), values = cache.values(0, 0, 500);
  for (int64_t position = 0; position < 500; ++position) {
    const auto at = static_cast<ptrdiff_t>(position) * static_cast<ptrdiff_t>(dim);
    cache.put(0, 0, position, keys.data() + at, values.data() + at);
  }
  EXPECT_EQ(cache.keys(0, 0, 500), keys);
  EXPECT_EQ(cache.values(0, 0, 500), values);
}

TEST(KvCache, BytesOfWhatIsNotFiniteAreNaN) {
  const auto decoder = load(golden_folder("llama"));
  KvCache cache(decoder->spec(), CacheType::q8);
  cache.reserve(1);
  std::vector<float> key(static_cast<size_t>(cache.head_dim(0)), 1.0f), value = key;
  key[1] = INFINITY;
  cache.put(0, 0, 0, key.data(), value.data());
  for (const float x : cache.keys(0, 0, 1)) EXPECT_TRUE(std::isnan(x));
  for (const float x : cache.values(0, 0, 1)) EXPECT_NEAR(x, 1, 1e-4);
}

TEST(KvCache, SaysHowMuchMemoryItWouldTakeInsteadOfTakingIt) {
  const auto decoder = load(golden_folder("llama"));
  const int64_t positions = int64_t{1} << 40;
  constexpr std::pair<CacheType, const char*> kHints[] = {{CacheType::f32, "--cache-type f16, or a shorter text"},
                                                          {CacheType::f16, "--cache-type q8, or a shorter text"},
                                                          {CacheType::q8, "a shorter text"}};
  for (const auto& [type, hint] : kHints) {
    KvCache cache(decoder->spec(), type);
    cache.reserve(100);
    const int64_t held = cache.bytes();
    EXPECT_THAT(testing::error_of([&] { cache.reserve(positions); }),
                ::testing::MatchesRegex("keys and values of 1099511627776 positions take .*B more than is held now; "
                                        ".*B of memory are available; use " +
                                        std::string(hint)));
    EXPECT_EQ(cache.bytes(), held);
  }
}

TEST(Precision, IsNamedAndRefusesOtherNames) {
  EXPECT_EQ(to_text(precision_from_names("float", "f32")), "");
  EXPECT_EQ(to_text(precision_from_names("int8", "f16")),
            "int8 activations of quantized linears, bfloat16 of bfloat16 ones beside them, keys and values in f16");
  EXPECT_EQ(to_text(precision_from_names("bf16", "q8")),
            "bfloat16 activations of codes and of bfloat16 linears, keys and values in q8");
  EXPECT_EQ(testing::error_of([] { precision_from_names("float", "q4"); }),
            "--cache-type: unknown \"q4\"; known: f32, f16, q8");
}

TEST(Decoder, AForkAndItsOriginGoOnWithoutSeeingEachOther) {
  for (const auto& name : testing::golden_names()) {
    const auto golden = read_golden(name);
    const auto decoder = load(golden_folder(name));
    const std::span<const TokenId> ids(golden.ids);
    const std::vector<TokenId> others(golden.ids.rbegin(), golden.ids.rend());
    const auto origin = decoder->new_state();
    std::vector<float> by_origin, by_fork, prompt, straight_origin, straight_fork;
    append(*decoder, *origin, ids.first(20), prompt);
    const auto fork = origin->fork();
    EXPECT_EQ(fork->length(), 20);
    for (size_t begin = 0; begin < ids.size(); begin += 10) {  // in turns
      append(*decoder, *origin, ids.subspan(begin, std::min<size_t>(10, ids.size() - begin)), by_origin);
      append(*decoder, *fork, std::span(others).subspan(begin, std::min<size_t>(10, ids.size() - begin)), by_fork);
    }
    const auto first = decoder->new_state(), second = decoder->new_state();
    append(*decoder, *first, ids.first(20), prompt);
    append(*decoder, *first, ids, straight_origin);
    append(*decoder, *second, ids.first(20), prompt);
    append(*decoder, *second, others, straight_fork);
    EXPECT_EQ(by_origin, straight_origin) << name;
    EXPECT_EQ(by_fork, straight_fork) << name;
    EXPECT_NE(by_origin, by_fork) << name;
  }
}

TEST(Decoder, RefusesTokensThatTheModelDoesNotHave) {
  const auto decoder = load(golden_folder("llama"));
  const auto state = decoder->new_state();
  const std::vector<TokenId> ids{3, 96};
  const SequenceInput input{state.get(), ids};
  const auto message = testing::error_of([&] { decoder->forward({&input, 1}, LogitsFor::last, nullptr); });
  EXPECT_EQ(message, "token id 96 is outside the model's vocabulary of 96");
}

TEST(Decoder, RefusesATextLongerThanTheContext) {
  const auto decoder = load(golden_folder("llama"));
  const auto state = decoder->new_state();
  const std::vector<TokenId> ids(129, 5);
  const SequenceInput input{state.get(), ids};
  const auto message = testing::error_of([&] { decoder->forward({&input, 1}, LogitsFor::last, nullptr); });
  EXPECT_EQ(message, "a text of 129 tokens is longer than the model's context of 128");
}

TEST(Decoder, ALinearMakerIsAskedForLinearsThatShareAnInputTogetherThenForEachAlone) {
  const auto checkpoint = quant::open_checkpoint(golden_folder("llama_bias"));
  std::vector<std::string> asked;
  // Takes q, and the group of two; the others are made as without a maker.
  const LinearMaker maker = [&](const quant::Checkpoint& from, std::span<const LinearTensors> members) {
    std::string names;
    for (const auto& member : members) {
      EXPECT_EQ(member.bias != nullptr, member.weight->desc.role == arch::TensorRole::linear);
      names += (names.empty() ? "" : " ") + member.weight->desc.module_name();
    }
    asked.push_back(names);
    return members.size() == 2 || names.ends_with("q_proj") ? make_linears(from, members) : nullptr;
  };
  const auto decoder = load_decoder(*checkpoint, testing::two_threads(), maker);
  std::vector<std::string> expected;
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    const std::string attention = layer + "self_attn.", mlp = layer + "mlp.";
    expected.push_back(attention + "q_proj " + attention + "k_proj " + attention + "v_proj");
    for (const char* alone : {"q_proj", "k_proj", "v_proj"}) expected.push_back(attention + alone);
    expected.push_back(attention + "o_proj");
    expected.push_back(mlp + "gate_proj " + mlp + "up_proj");
    expected.push_back(mlp + "down_proj");
  }
  expected.insert(expected.end(), {"model.embed_tokens", "lm_head"});
  EXPECT_EQ(asked, expected);
  const auto golden = read_golden("llama_bias");
  EXPECT_EQ(all_logits(*decoder, golden.ids), all_logits(*load(golden_folder("llama_bias")), golden.ids));
}

TEST(Decoder, ATiedHeadIsAGroupOfItsOwnOverTheEmbedding) {
  const auto checkpoint = quant::open_checkpoint(golden_folder("llama_tied"));
  int heads = 0;
  const LinearMaker maker = [&](const quant::Checkpoint& from, std::span<const LinearTensors> members) {
    if (members.front().weight->desc.role != arch::TensorRole::embedding) return std::unique_ptr<LinearGroup>();
    ++heads;
    return make_linears(from, members);
  };
  const auto decoder = load_decoder(*checkpoint, testing::two_threads(), maker);
  EXPECT_EQ(heads, 1);
  const auto ids = read_golden("llama_tied").ids;
  EXPECT_EQ(all_logits(*decoder, ids), all_logits(*load(golden_folder("llama_tied")), ids));
}

TEST(Decoder, RunsACodesFolderAsItsDequantizedWeights) {
  const auto base = quant::open_checkpoint(golden_folder("qwen2"));
  quant::CodesSource source;
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  source.codes = [](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    quant::QuantizedTensor block{{}, end - begin, desc.cols(), {}, {}, {}};
    for (int64_t i = begin * desc.cols(); i < end * desc.cols(); ++i) block.codes.push_back((i * i / 7 + i) & 3);
    for (int64_t row = begin; row < end; ++row)
      block.scales.push_back(0.0625f + 0.015625f * static_cast<float>(row % 5));
    return block;
  };
  for (const auto& tensor : base->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear) source.formats[tensor.desc.hf_name] = {};
  }
  const testing::TempDir dir;
  quant::write_codes_folder(dir.path(), *base, source, {});
  const auto codes = quant::open_checkpoint(dir.path());
  ASSERT_EQ(codes->kind(), quant::CheckpointKind::codes);
  testing::write_f32_gguf(*codes, dir / "dequantized.gguf");
  const auto ids = read_golden("qwen2").ids;
  EXPECT_EQ(all_logits(*load(dir.path()), ids), all_logits(*load(dir / "dequantized.gguf"), ids));
}

TEST(Decoder, SaysWhatItHoldsAndReads) {
  // 2 layers of hidden 32, inner 48, 4 and 2 heads of 8, 96 tokens: linears, whose rows are held in panels of 32,
  // embedding and norms.
  const int64_t linears = 2 * (32 * (32 + 32 + 32 + 32) + 2 * 64 * 32 + 32 * 48), table = 96 * 32, norms = 5 * 32;
  const auto bytes = [](const std::string& name) { return load(golden_folder(name))->weight_bytes(); };
  EXPECT_EQ(bytes("llama").held, 2 * (linears + 2 * table) + 4 * norms) << "float16";
  EXPECT_EQ(bytes("llama").read, 2 * (linears + table + 32) + 4 * norms) << "one row of the embedding, and the head";
  EXPECT_EQ(bytes("llama_tied").held, 4 * (linears + table + norms)) << "the head is a view of the embedding";
  EXPECT_EQ(bytes("llama_tied").read, 4 * (linears + table + 32 + norms));
  EXPECT_EQ(bytes("llama_linear").held, 2 * (linears + 2 * table) + 4 * norms) << "bfloat16; norms stay floats";
}

TEST(Decoder, AStateSaysItsMemory) {
  const auto decoder = load(golden_folder("llama"));
  const auto state = decoder->new_state();
  EXPECT_EQ(state->bytes(), 0);
  std::vector<float> logits;
  append(*decoder, *state, std::vector<TokenId>{1, 2, 3}, logits);
  EXPECT_EQ(state->bytes(), 4 * 2 * 2 * 64 * 2 * 8) << "keys and values of 2 layers: room for 64 positions of 2 heads";
}

TEST(Decoder, CountsTheTimeOfItsLinearsAndOfAttention) {
  const auto decoder = load(golden_folder("llama"));
  EXPECT_EQ(decoder->seconds().linears, 0);
  EXPECT_EQ(decoder->seconds().attention, 0);
  const Stopwatch watch;
  all_logits(*decoder, {1, 2, 3});
  const PassSeconds first = decoder->seconds();
  EXPECT_GT(first.linears, 0);
  EXPECT_GT(first.attention, 0);
  all_logits(*decoder, {1, 2, 3});
  EXPECT_GT(decoder->seconds().linears, first.linears);
  EXPECT_GT(decoder->seconds().attention, first.attention);
  EXPECT_LT(decoder->seconds().linears + decoder->seconds().attention, watch.seconds());
}

}  // namespace
}  // namespace crumb::runtime
