// The decoder of a GPU without one: its host code as it is shipped, its kernels as compiled PTX executed on the CPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "quant/checkpoint.h"
#include "runtime/cuda/decoder.h"
#include "runtime/generate.h"
#include "runtime/precision.h"
#include "tests/export/test_models.h"
#include "tests/ptx/cuda_runtime.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using ::testing::HasSubstr;
using testing::two_threads;
namespace fs = testing::fs;

const quant::QuantFormat kSeq2{quant::Grid::seq, 2, true, 0};

class CudaDecoderOverPtx : public ::testing::Test {
 protected:
  void SetUp() override { ptx::stand_in_device() = {}; }
  void TearDown() override { EXPECT_EQ(ptx::stand_in_device().used_bytes, 0u) << "memory that was not given back"; }
};

std::unique_ptr<Decoder> on_device(const quant::Checkpoint& checkpoint, CacheType cache = CacheType::f16) {
  return load_cuda_decoder(checkpoint, *two_threads(), cache);
}
/// The CPU with the same roundings: bfloat16 activations, and keys and values in float16.
std::unique_ptr<Decoder> on_cpu(const quant::Checkpoint& checkpoint, CacheType cache = CacheType::f16) {
  return load_decoder(checkpoint, two_threads(), {.activations = Activations::bf16, .cache_type = cache});
}

std::vector<TokenId> some_ids(const Decoder& decoder, int64_t count) {
  std::vector<TokenId> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<TokenId>((i * 37 + 5) % decoder.spec().vocab_size));
  return ids;
}

/// Sums differ by their order: by a millionth, until one decides how an activation is rounded to bfloat16. Logits then
/// differ about as much as they do by rounding activations at all.
constexpr double kRounding = 5e-3;

/// Logits of a text in one pass, and greedy tokens one by one (0: none; of models that were not trained two tokens may
/// be as likely).
void expect_like_cpu(const quant::Checkpoint& checkpoint, int64_t prompt, int64_t more,
                     CacheType cache = CacheType::f16) {
  const auto device = on_device(checkpoint, cache), cpu = on_cpu(checkpoint, cache);
  const auto ids = some_ids(*cpu, prompt);
  EXPECT_LT(testing::relative_difference(testing::all_logits(*device, ids), testing::all_logits(*cpu, ids)), kRounding);
  if (more == 0) return;
  const std::vector<GenerateRequest> requests{{ids, more, 0}};
  const auto tokens = [&](Decoder& decoder) {
    return generate(decoder, requests, {.temperature = 0}, {}, 1, nullptr).front().tokens;
  };
  EXPECT_EQ(tokens(*device), tokens(*cpu));
}

/// 4 query and 2 key/value heads of 32 values.
fs::path small_model(const testing::TempDir& dir, const quant::QuantFormat& format,
                     arch::Architecture architecture = arch::Architecture::qwen3, int64_t hidden = 128) {
  return testing::quantized_model(dir.path(), testing::small_spec(architecture, hidden), format);
}

TEST_F(CudaDecoderOverPtx, RunsStories260K) {
  const auto model = testing::data("models/stories260K-hf");
  if (model.empty()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs models/stories260K-hf of the shared data");
  const testing::TempDir dir;
  testing::quantize_model(model, dir / "codes", kSeq2);
  expect_like_cpu(*quant::open_checkpoint(dir / "codes"), 5, 8);
  EXPECT_GT(ptx::stand_in_device().graph_launches, 0u);
}

// A head of its own, and groups: 4 bits by 32 columns.
TEST_F(CudaDecoderOverPtx, RunsTiny1M) {
  const auto model = testing::data("models/tiny1m-hf");
  if (model.empty()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs models/tiny1m-hf of the shared data");
  const testing::TempDir dir;
  testing::quantize_model(model, dir / "codes", {quant::Grid::intn, 4, true, 32});
  expect_like_cpu(*quant::open_checkpoint(dir / "codes"), 4, 6);
}

// Every architecture and option of the runtime, as floats: what transformers says of them.
class GoldensOverPtx : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, GoldensOverPtx, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& info) { return info.param; });

TEST_P(GoldensOverPtx, HaveTheLogitsOfTheCpu) {
  ptx::stand_in_device() = {};
  const auto checkpoint = quant::open_checkpoint(testing::golden_folder(GetParam()));
  const auto ids = testing::read_golden(GetParam()).ids;
  const auto device = on_device(*checkpoint, CacheType::f32), cpu = on_cpu(*checkpoint, CacheType::f32);
  // Weights of bfloat16 read activations rounded to it, where the last bit of a sum may decide; others read floats.
  const double within = checkpoint->tensor({arch::Slot::embedding}).dtype == "BF16" ? kRounding : 1e-5;
  EXPECT_LT(testing::relative_difference(testing::all_logits(*device, ids), testing::all_logits(*cpu, ids)), within);
}

TEST_F(CudaDecoderOverPtx, HasKernelsForTheGridsThatTilesHold) {
  using quant::Grid;
  for (const quant::QuantFormat& format :
       {kSeq2, quant::QuantFormat{Grid::seq, 2, true, 128}, quant::QuantFormat{Grid::ternary, 2, true, 0},
        quant::QuantFormat{Grid::intn, 3, true, 32}, quant::QuantFormat{Grid::intn, 4, true, 128},
        quant::QuantFormat{Grid::intn, 6, true, 0}, quant::QuantFormat{Grid::intn, 8, true, 0}}) {
    const testing::TempDir dir;
    ::testing::internal::CaptureStderr();
    expect_like_cpu(*quant::open_checkpoint(small_model(dir, format)), 3, 0);
    EXPECT_THAT(::testing::internal::GetCapturedStderr(), ::testing::Not(HasSubstr("floats"))) << format.title();
  }
}

TEST_F(CudaDecoderOverPtx, SaysOnceWhatItHoldsAsFloats) {
  using quant::Grid;
  for (const auto& [format, why] :
       {std::pair(quant::QuantFormat{Grid::seq, 2, true, 32}, "codes of 2 bits have groups of multiples of 128"),
        std::pair(quant::QuantFormat{Grid::intn, 4, false, 32}, "symmetric grids only"),
        std::pair(quant::QuantFormat{Grid::fp8, 8, true, 0}, "not evenly spaced")}) {
    const testing::TempDir dir;
    ::testing::internal::CaptureStderr();
    const auto checkpoint = quant::open_checkpoint(small_model(dir, format));
    const auto device = on_device(*checkpoint), cpu = load_decoder(*checkpoint, two_threads(), nullptr, CacheType::f16);
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(said, HasSubstr("14 quantized linears are held as floats on the GPU, model.layers.0.self_attn.q_proj"));
    EXPECT_THAT(said, HasSubstr(why));
    EXPECT_EQ(said.find("as floats"), said.rfind("as floats"));
    const auto ids = some_ids(*cpu, 3);
    EXPECT_LT(testing::relative_difference(testing::all_logits(*device, ids), testing::all_logits(*cpu, ids)), 2e-2);
  }
}

TEST_F(CudaDecoderOverPtx, HoldsFloatsWhereADeviceHasTooLittleForTheKernels) {
  const testing::TempDir dir;
  ptx::stand_in_device().shared_bytes = 48 << 10;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  ::testing::internal::CaptureStderr();
  const auto device = on_device(*checkpoint);
  EXPECT_THAT(::testing::internal::GetCapturedStderr(),
              HasSubstr("14 quantized linears are held as floats on the GPU, model.layers.0.self_attn.q_proj for "
                        "example: a block may have too little shared memory on this device"));
  const auto ids = some_ids(*device, 3);
  EXPECT_LT(
      testing::relative_difference(testing::all_logits(*device, ids), testing::all_logits(*on_cpu(*checkpoint), ids)),
      kRounding);
}

// More than 16 tokens at once go through other products, few at a time through graphs: the same within rounding.
TEST_F(CudaDecoderOverPtx, AgreesWithItselfHoweverATextIsCut) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto device = on_device(*checkpoint);
  const auto ids = some_ids(*device, 40);
  const auto whole = testing::all_logits(*device, ids);
  std::vector<float> parts;
  const auto state = device->new_state();
  for (size_t begin = 0, count = 1; begin < ids.size(); begin += count, ++count) {
    count = std::min(count, ids.size() - begin);
    const SequenceInput input{state.get(), std::span(ids).subspan(begin, count)};
    device->forward({&input, 1}, LogitsFor::all, [&](int64_t sequence, int64_t position, std::span<const float> row) {
      EXPECT_EQ(sequence, 0);
      EXPECT_EQ(position * device->spec().vocab_size, std::ssize(parts));
      parts.insert(parts.end(), row.begin(), row.end());
    });
  }
  EXPECT_LT(testing::relative_difference(parts, whole), kRounding);
  const auto cpu = on_cpu(*checkpoint);
  EXPECT_LT(testing::relative_difference(whole, testing::all_logits(*cpu, ids)), kRounding);
}

// Beyond 256 tokens a prompt takes several passes, tables and cache grow, and the keys of one token more turns.
TEST_F(CudaDecoderOverPtx, GoesOnBehindALongText) {
  const testing::TempDir dir;
  auto spec = testing::small_spec(arch::Architecture::qwen3, 32);
  spec.context_length = 300;
  const auto checkpoint = quant::open_checkpoint(testing::quantized_model(dir.path(), spec, kSeq2));
  const auto last_logits = [&](Decoder& decoder) {
    const auto ids = some_ids(decoder, 266);
    std::vector<float> found;
    const auto state = decoder.new_state();
    // A few single tokens first, so that steps recorded with the old tables have to go.
    for (size_t begin = 0, count = 1; begin < ids.size(); begin += count) {
      count = begin < 3 || begin >= 262 ? 1 : 259;
      const SequenceInput input{state.get(), std::span(ids).subspan(begin, count)};
      decoder.forward({&input, 1}, LogitsFor::last, [&](int64_t, int64_t, std::span<const float> row) {
        found.insert(found.end(), row.begin(), row.end());
      });
    }
    return found;
  };
  EXPECT_LT(testing::relative_difference(last_logits(*on_device(*checkpoint)), last_logits(*on_cpu(*checkpoint))),
            kRounding);
}

// The order of warps changes nothing, not one bit; nor does a graph in place of launches.
TEST_F(CudaDecoderOverPtx, GivesTheSameBitsEveryTime) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  std::vector<std::vector<float>> found;
  for (const uint64_t seed : {0, 5, 11}) {
    ptx::stand_in_device() = {};
    ptx::stand_in_device().options.seed = seed;
    const auto device = on_device(*checkpoint);
    const auto ids = some_ids(*device, 3);
    for (int i = 0; i < 3; ++i) found.push_back(testing::all_logits(*device, ids));
    EXPECT_EQ(ptx::stand_in_device().graph_launches, 2u);
  }
  for (const auto& logits : found) EXPECT_EQ(logits, found.front());
}

TEST_F(CudaDecoderOverPtx, DecodesSeveralSequencesAtOnce) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto device = on_device(*checkpoint);
  const std::vector<GenerateRequest> requests{{{1, 2, 3}, 4, 0}, {{7}, 6, 1}, {{9, 8, 7, 6, 5}, 2, 2}};
  const auto alone = generate(*device, requests, {.temperature = 0}, {}, 1, nullptr);
  const auto together = generate(*device, requests, {.temperature = 0}, {}, 3, nullptr);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(std::ssize(alone[i].tokens), requests[i].max_tokens);
    EXPECT_EQ(together[i].tokens, alone[i].tokens) << "rows this short are summed in one order";
  }
}

TEST_F(CudaDecoderOverPtx, StatesGrowForkAndForget) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto device = on_device(*checkpoint);
  const auto ids = some_ids(*device, 6);
  const auto go_on = [&](SequenceState& state, std::span<const TokenId> tokens) {
    std::vector<float> last;
    const SequenceInput input{&state, tokens};
    device->forward({&input, 1}, LogitsFor::last,
                    [&](int64_t, int64_t, std::span<const float> row) { last.assign(row.begin(), row.end()); });
    return last;
  };
  const auto first = device->new_state(), other = device->new_state();
  go_on(*first, std::span(ids).first(5));
  EXPECT_EQ(first->length(), 5);
  const int64_t before = first->bytes();
  const auto forked = first->fork();
  const auto expected = go_on(*first, std::span(ids).last(1));
  EXPECT_EQ(go_on(*forked, std::span(ids).last(1)), expected);
  first->truncate(5);
  forked->truncate(5);
  forked->reserve(2 * before / (2 * 2 * 2 * 32 * 2));  // twice the positions: 2 layers, 2 heads of 32, keys and values
  EXPECT_GT(forked->bytes(), before);
  EXPECT_EQ(go_on(*forked, std::span(ids).last(1)), expected) << "what was held moved along";
  go_on(*other, std::span(ids).first(2));
  EXPECT_EQ(go_on(*first, std::span(ids).last(1)), expected);
  EXPECT_NEAR(static_cast<double>(device->weight_bytes().held), 240e3, 60e3);
}

TEST_F(CudaDecoderOverPtx, SaysWhyThereIsNoDevice) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto why = [&] { return testing::error_of([&] { on_device(*checkpoint); }); };
  auto& device = ptx::stand_in_device();
  device.count = 0;
  EXPECT_EQ(why(), "--device cuda: there is no GPU to use: no CUDA-capable device is detected; use --device cpu");
  device.count = 1;
  device.has_code = false;
  device.name = "GeForce GTX 1080";
  device.major = 6, device.minor = 1;
  EXPECT_EQ(why(),
            "--device cuda: GeForce GTX 1080 has compute capability 6.1; this program has code for an executor of PTX; "
            "use --device cpu");
}

TEST_F(CudaDecoderOverPtx, SaysHowMuchMemoryItNeeds) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto why = [&] { return testing::error_of([&] { on_device(*checkpoint); }); };
  auto& device = ptx::stand_in_device();
  device.memory_bytes = 1 << 20;
  EXPECT_THAT(why(), ::testing::MatchesRegex("no room on .* for the model: at least .* MB needed, 1.05 MB of its 1.05 "
                                             "MB are free; use --device cpu"));
  EXPECT_EQ(device.allocations, 0u) << "it is said before anything is taken";
  device.memory_bytes = 1 << 30;
  for (const uint64_t allowed : {0, 3, 20, 40}) {
    device.allocations = 0;
    device.fails_after = allowed;
    EXPECT_THAT(why(), ::testing::MatchesRegex("no room on .* for .*: .* needed, 1.07 GB of its 1.07 GB are free|"
                                               "no room on .* for .*: .* needed, .* of its 1.07 GB are free"));
    EXPECT_EQ(device.used_bytes, 0u);
  }
}

TEST_F(CudaDecoderOverPtx, SaysHowMuchATextNeeds) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  auto& device = ptx::stand_in_device();
  const auto decoder = on_device(*checkpoint, CacheType::f32);
  const auto state = decoder->new_state();
  device.memory_bytes = device.used_bytes + 1000;
  EXPECT_THAT(testing::error_of([&] { state->reserve(100); }),
              ::testing::MatchesRegex("no room on .* for keys and values of 128 positions: at least 131.1 kB needed, "
                                      "1.0 kB of its .* are free; use --cache-type f16 or a shorter text"));
  EXPECT_EQ(state->bytes(), 0);
}

TEST_F(CudaDecoderOverPtx, RefusesByNameWhatHasNoKernels) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  EXPECT_THAT(testing::error_of([&] { on_device(*checkpoint, CacheType::q8); }), HasSubstr("--cache-type q8"));
  auto spec = testing::small_spec(arch::Architecture::llama, 48);
  testing::write_model(dir / "odd", spec);
  const int64_t dim = spec.layers.front().gqa().head_dim;
  const auto odd = quant::open_checkpoint(dir / "odd");
  if (dim % 8 != 0) {
    EXPECT_THAT(testing::error_of([&] { on_device(*odd); }), HasSubstr("multiples of 8 up to 256; use --device cpu"));
  } else {
    ADD_FAILURE() << "heads of " << dim << " values are a multiple of 8: the test needs others";
  }
  for (const char* activations : {"float", "int8"})
    EXPECT_EQ(testing::error_of([&] { precision_from_names(activations, "f16", "cuda"); }),
              std::string("--activations ") + activations + ": --device cuda has kernels for bf16 alone");
  EXPECT_THAT(testing::error_of([&] { precision_from_names("auto", "q8", "cuda"); }), HasSubstr("--cache-type q8"));
  EXPECT_EQ(testing::error_of([&] { precision_from_names("auto", "f16", "tpu"); }),
            "--device: unknown \"tpu\"; known: cpu, cuda");
}

// A kernel that the executor finds fault with ends the work that asked for it.
TEST_F(CudaDecoderOverPtx, AFailedKernelIsAnError) {
  const testing::TempDir dir;
  const auto checkpoint = quant::open_checkpoint(small_model(dir, kSeq2));
  const auto device = on_device(*checkpoint);
  ptx::stand_in_device().options.max_steps = 10;
  ::testing::internal::CaptureStderr();
  EXPECT_THAT(testing::error_of([&] { testing::all_logits(*device, {1}); }), HasSubstr("the CUDA kernel embed"));
  ::testing::internal::GetCapturedStderr();
}

// The program as a user has it, over the same stand-in.
class CrumbOverPtx : public ::testing::Test {
 protected:
  static testing::CommandResult run(const std::string& arguments) {
    return testing::run_command((testing::binary_dir() / "bin" / "crumb_on_ptx").string() + " " + arguments);
  }
  testing::TempDir dir_;
};

TEST_F(CrumbOverPtx, GeneratesTheTextOfTheCpu) {
  const auto model = testing::data("models/stories260K-hf");
  if (model.empty()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_DATA", "needs models/stories260K-hf of the shared data");
  testing::quantize_model(model, dir_ / "codes", {quant::Grid::intn, 4, true, 0});
  const std::string job = "generate " + (dir_ / "codes").string() + " --prompt 'Once upon a time' --max-tokens 12 ";
  const auto device = run(job + "--device cuda"), cpu = run(job + "--activations bf16");
  EXPECT_EQ(device.exit_code, 0) << device.err;
  EXPECT_EQ(device.out, cpu.out);
  EXPECT_THAT(device.err, HasSubstr("of weights, "));
  const auto cached = run(job + "--device cuda --prompt-cache " + (dir_ / "cache").string());
  EXPECT_EQ(cached.exit_code, 2);
  EXPECT_THAT(cached.err, HasSubstr("--prompt-cache"));
}

TEST_F(CrumbOverPtx, EvaluatesAndMeasures) {
  const std::string model = small_model(dir_, kSeq2).string();
  std::string text;
  for (int i = 0; i < 60; ++i) text += "the " + std::to_string(i * i) + " ";
  testing::write_file(dir_ / "text", text);
  const std::string job =
      "--json eval " + model + " --text " + (dir_ / "text").string() + " --context 32 --max-windows 2 ";
  const auto device = run(job + "--device cuda"), cpu = run(job);
  ASSERT_EQ(device.exit_code, 0) << device.err;
  const auto value = [](const std::string& json) {
    return nlohmann::json::parse(json)["pooled"]["perplexity"]["value"].get<double>();
  };
  EXPECT_NEAR(value(device.out) / value(cpu.out), 1, 0.01);
  EXPECT_THAT(device.out, HasSubstr("bfloat16 activations of codes and of bfloat16 linears, on a GPU"));
  const auto bench = run("bench " + model + " --device cuda --prompt 4 --context 0 --new 2 --rounds 1");
  EXPECT_EQ(bench.exit_code, 0) << bench.err;
  EXPECT_THAT(bench.out, HasSubstr("compiled PTX executed on the CPU; "));
  EXPECT_THAT(bench.out, ::testing::Not(HasSubstr("reading alone")));
}

}  // namespace
}  // namespace crumb::runtime
