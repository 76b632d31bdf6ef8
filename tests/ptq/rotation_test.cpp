// Rotations change the weights and not what the model computes.
#include "ptq/rotation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/formats/safetensors.h"
#include "export/export.h"
#include "ptq/quantize.h"
#include "quant/scale_search.h"
#include "tests/ptq/random_model.h"
#include "tests/ptq/spec_cases.h"
#include "tests/quant/hand_gguf.h"
#include "tests/runtime/golden.h"
#include "tests/testing/testing.h"

namespace crumb::ptq {
namespace {

using arch::Architecture;
using arch::DecoderSpec;
using arch::QkNorm;
using arch::Slot;
using arch::TensorId;
using arch::TensorRole;
using quant::Checkpoint;
using testing::error_of;
using testing::random_layer;
using testing::RandomModel;
using testing::relative_difference;
using testing::spec_cases;
using testing::spec_of;
using testing::SpecCase;

const RotationOptions kResidual{.residual = true}, kHeads{.heads = true}, kBoth{.residual = true, .heads = true};

/// Of the range of the logits: ten times what sums of float32 in another order make of these models.
constexpr double kTolerance = 1e-5;

std::vector<float> logits_of(const Checkpoint& model, const std::vector<runtime::TokenId>& ids) {
  return testing::all_logits(*runtime::load_decoder(model, testing::two_threads()), ids);
}

std::vector<runtime::TokenId> some_ids(const DecoderSpec& spec) {
  std::vector<runtime::TokenId> ids;
  for (int64_t i = 0; i < 24; ++i) ids.push_back(static_cast<runtime::TokenId>((i * i + 3) % spec.vocab_size));
  return ids;
}

std::vector<float> all_values(const Checkpoint& model) {
  std::vector<float> values;
  for (const auto& tensor : model.tensors()) {
    const auto of_tensor = quant::read_all(model, tensor);
    values.insert(values.end(), of_tensor.begin(), of_tensor.end());
  }
  return values;
}

// --- the model computes the same
// -------------------------------------------------------------------------------------------

class RotatedGoldens : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Rotation, RotatedGoldens, ::testing::ValuesIn(testing::golden_names()),
                         [](const auto& info) { return info.param; });

TEST_P(RotatedGoldens, HaveTheLogitsOfTransformersFromAFolderAndFromAGguf) {
  const testing::TempDir dir;
  const auto golden = testing::read_golden(GetParam());
  const auto folder = quant::open_checkpoint(testing::golden_folder(GetParam()));
  testing::write_f32_gguf(*folder, dir / "model.gguf");
  const auto gguf = quant::open_checkpoint(dir / "model.gguf");
  for (const auto& options : {kResidual, kHeads, kBoth}) {
    const auto rotated = rotate(*folder, options), from_gguf = rotate(*gguf, options);
    EXPECT_LE(relative_difference(logits_of(*rotated, golden.ids), golden.logits), kTolerance);
    EXPECT_LE(relative_difference(logits_of(*from_gguf, golden.ids), golden.logits), kTolerance);
    EXPECT_EQ(all_values(*from_gguf), all_values(*rotated));
  }
}

class RotatedSpecs : public ::testing::TestWithParam<SpecCase> {};
INSTANTIATE_TEST_SUITE_P(Rotation, RotatedSpecs, ::testing::ValuesIn(spec_cases()),
                         [](const auto& info) { return info.param.name; });

TEST_P(RotatedSpecs, HaveTheLogitsOfTheModel) {
  const RandomModel model(GetParam().spec);
  const auto ids = some_ids(model.spec());
  const auto expected = logits_of(model, ids);
  for (const auto& options : {kResidual, kHeads, kBoth, RotationOptions{true, true, -3}})
    EXPECT_LE(relative_difference(logits_of(*rotate(model, options), ids), expected), kTolerance);
}

TEST_P(RotatedSpecs, HaveTheTensorsOfTheirSpec) {
  const RandomModel model(GetParam().spec);
  const auto rotated = rotate(model, kBoth);
  EXPECT_FALSE(rotated->spec().tied_head);
  const auto table = arch::tensor_table(rotated->spec());
  ASSERT_EQ(rotated->tensors().size(), table.size());
  for (size_t i = 0; i < table.size(); ++i) {
    const auto& tensor = rotated->tensors()[i];
    EXPECT_EQ(tensor.desc.hf_name, table[i].hf_name);
    EXPECT_EQ(tensor.desc.shape, table[i].shape);
    EXPECT_EQ(tensor.dtype, "F32");
    EXPECT_EQ(tensor.stored_bytes, 4 * table[i].elements());
  }
  EXPECT_EQ(rotate(model, kHeads)->tensors().size(), model.tensors().size());
}

TEST_P(RotatedSpecs, RowsAreTheSameHoweverTheyAreRead) {
  const RandomModel model(GetParam().spec);
  const auto rotated = rotate(model, kBoth), again = rotate(model, kBoth);
  for (const auto& tensor : rotated->tensors()) {
    const auto whole = quant::read_all(*rotated, tensor);
    const int64_t cols = tensor.desc.cols();
    std::vector<float> row(static_cast<size_t>(cols));
    for (int64_t i = tensor.desc.rows() - 1; i >= 0; --i) {
      again->read_rows(tensor, i, i + 1, row.data());
      ASSERT_TRUE(std::equal(row.begin(), row.end(), whole.begin() + i * cols)) << tensor.desc.hf_name << " " << i;
    }
  }
}

TEST(Rotation, OfALargeEntryOfTheStreamLeavesTheLogits) {
  RandomModel model(spec_cases()[0].spec);
  model.values({Slot::embedding})[3 * 72 + 50] = 3000;  // of token 3, the first; ordinary ones are 0.3
  const auto ids = some_ids(model.spec());
  ASSERT_EQ(ids[0], 3);
  const auto rotated = rotate(model, kBoth);
  EXPECT_LE(relative_difference(logits_of(*rotated, ids), logits_of(model, ids)), kTolerance);
  std::vector<float> row(72);
  rotated->read_rows(rotated->tensor(TensorId{Slot::embedding}), 3, 4, row.data());
  for (const float value : row) EXPECT_NEAR(std::abs(value), 3000 / std::sqrt(72.0), 2);
}

// --- which tensors change, and how
// -----------------------------------------------------------------------------------------

bool is_kept(Slot slot, const RotationOptions& options) {
  switch (slot) {
    case Slot::q_norm:
    case Slot::k_norm:
    case Slot::q_bias:
    case Slot::k_bias:
    case Slot::gate_bias:
    case Slot::up_bias:
      return true;
    case Slot::v_bias:
      return !options.heads;
    case Slot::v:
    case Slot::o:
      return false;
    default:
      return !options.residual;
  }
}

TEST_P(RotatedSpecs, GainsBecomeOneAndWhatIsNotRotatedKeepsItsBytes) {
  const RandomModel model(GetParam().spec);
  for (const auto& options : {kResidual, kHeads}) {
    const auto rotated = rotate(model, options);
    for (const auto& tensor : rotated->tensors()) {
      const Slot slot = tensor.desc.id.slot;
      const auto values = quant::read_all(*rotated, tensor);
      const bool is_gain = slot == Slot::attention_norm || slot == Slot::ffn_norm || slot == Slot::final_norm;
      if (options.residual && is_gain) {
        EXPECT_EQ(values, std::vector<float>(values.size(), 1.0f)) << tensor.desc.hf_name;
      } else if (const auto* stored = model.find(tensor.desc.id); stored != nullptr) {
        EXPECT_EQ(values == quant::read_all(model, *stored), is_kept(slot, options)) << tensor.desc.hf_name;
      }
    }
  }
}

TEST(Rotation, IsThatOfItsSeed) {
  const RandomModel model(spec_cases()[0].spec);
  for (RotationOptions options : {kResidual, kHeads}) {
    const auto values = all_values(*rotate(model, options));
    EXPECT_EQ(values, all_values(*rotate(model, options)));
    options.seed = 1;
    EXPECT_NE(values, all_values(*rotate(model, options)));
  }
}

TEST(Rotation, EveryHeadHasItsOwn) {
  RandomModel model(spec_cases()[0].spec);  // head_dim 12
  for (const int layer : {0, 1}) {
    auto& v = model.values({Slot::v, layer});
    for (size_t i = 0; i < v.size(); ++i) v[i] = v[i % (static_cast<size_t>(layer == 0 ? 12 : 10) * 72)];
  }
  const auto rotated = rotate(model, kHeads);
  const auto of_head = [&](int layer, int64_t head) {
    std::vector<float> rows(static_cast<size_t>(10 * 72));
    const int64_t head_dim = layer == 0 ? 12 : 10;
    rotated->read_rows(rotated->tensor(TensorId{Slot::v, layer}), head * head_dim, head * head_dim + 10, rows.data());
    return rows;
  };
  EXPECT_NE(of_head(0, 0), of_head(0, 1));
  EXPECT_NE(of_head(1, 0), of_head(1, 1));
  EXPECT_NE(of_head(1, 2), of_head(1, 3));
}

TEST(Rotation, CanBeReadBySeveralThreads) {
  const RandomModel model(spec_cases()[0].spec);
  const auto expected = all_values(*rotate(model, kBoth));
  const auto rotated = rotate(model, kBoth);
  std::vector<std::vector<float>> values(4);
  std::vector<std::thread> threads;
  for (auto& of_thread : values) threads.emplace_back([&] { of_thread = all_values(*rotated); });
  for (auto& thread : threads) thread.join();
  for (const auto& of_thread : values) EXPECT_EQ(of_thread, expected);
}

TEST(Rotation, RoundsOnceToTheNearestFloat) {
  // n = 2: Q = diag(signs) [[a, a], [a, -a]], a = 1 / sqrt(2). A gain times a weight is no float.
  RandomModel model(spec_of(Architecture::llama, 2, true, {random_layer({1, 1, 2}, {2})}));
  const std::vector<float> gain = {1.0f / 3, 0.7f};
  model.values({Slot::final_norm}) = gain;
  const auto rotated = rotate(model, kResidual);
  const auto from = quant::read_all(model, model.tensor(TensorId{Slot::embedding})),
             head = quant::read_all(*rotated, rotated->tensor(TensorId{Slot::head}));
  const auto expected = [&](double first_sign, double second_sign) {
    std::vector<float> values;
    for (size_t i = 0; i < from.size(); i += 2) {
      const double x = static_cast<double>(from[i]) * gain[0] * (first_sign / std::sqrt(2.0)),
                   y = static_cast<double>(from[i + 1]) * gain[1] * (second_sign / std::sqrt(2.0));
      values.push_back(static_cast<float>(x + y));
      values.push_back(static_cast<float>(x - y));
    }
    return values;
  };
  EXPECT_THAT(head, ::testing::AnyOf(expected(1, 1), expected(1, -1), expected(-1, 1), expected(-1, -1)));
}

// --- config.json
// -----------------------------------------------------------------------------------------------------------

TEST(RotationConfig, SaysWhatWasDoneAndIsReadBack) {
  RandomModel model(spec_cases()[0].spec);
  model.config() = {{"tie_word_embeddings", true}, {"hidden_size", 72}};
  EXPECT_EQ(rotation_of(model.hf_config(), "config.json"), std::nullopt);
  for (const auto& options : {kResidual, kHeads, RotationOptions{true, true, -5}}) {
    const auto config = rotate(model, options)->hf_config();
    EXPECT_EQ(config.at("tie_word_embeddings"), !options.residual);
    EXPECT_EQ(config.at("hidden_size"), 72);
    EXPECT_EQ(config.at("crumb_rotation").size(), 3u);
    EXPECT_EQ(rotation_of(config, "config.json"), options);
  }
}

TEST(RotationConfig, WhatIsNoRotationIsRefusedInOneLine) {
  const std::pair<const char*, const char*> cases[] = {
      {R"(null)", "m/config.json: crumb_rotation: not a JSON object"},
      {R"([true])", "m/config.json: crumb_rotation: not a JSON object"},
      {R"({"heads": true, "seed": 0})", "m/config.json: crumb_rotation: residual is missing"},
      {R"({"residual": 1, "heads": true, "seed": 0})",
       "m/config.json: crumb_rotation: residual must be true or false, not 1"},
      {R"({"residual": true, "heads": true, "seed": 0.5})",
       "m/config.json: crumb_rotation: seed must be an integer, not 0.5"},
      {R"({"residual": true, "heads": true, "seed": 0, "down": true})",
       "m/config.json: crumb_rotation: unknown key down; known: heads, residual, seed"},
      {R"({"residual": false, "heads": false, "seed": 0})",
       "m/config.json: crumb_rotation: residual and heads are both false: nothing was rotated"},
  };
  for (const auto& [said, message] : cases) {
    const nlohmann::json config{{"crumb_rotation", nlohmann::json::parse(said)}};
    EXPECT_EQ(error_of([&] { rotation_of(config, "m/config.json"); }), message);
  }
}

TEST(RotationErrors, AModelThatIsRotatedAlreadyIsRefused) {
  RandomModel model(spec_cases()[0].spec);
  model.config() = rotate(model, kHeads)->hf_config();
  EXPECT_EQ(error_of([&] { rotate(model, kResidual); }),
            "random-model: is rotated already (config.json: crumb_rotation); rotate the model it was made from");
}

TEST(RotationErrors, ATensorThatItKnowsNothingOfIsNamed) {
  RandomModel model(spec_cases()[0].spec);
  quant::StoredTensor foreign = model.tensor(TensorId{Slot::final_norm});
  foreign.desc.id = {Slot::rope_freqs};  // stands for that of an architecture to come
  foreign.desc.hf_name = "model.mixer.weight";
  model.stored().push_back(foreign);
  EXPECT_EQ(error_of([&] { rotate(model, kHeads); }),
            "random-model: rotation: it is not known how one changes model.mixer.weight");
}

// --- crumb quantize
// --------------------------------------------------------------------------------------------------------

QuantizeReport run(const testing::fs::path& model, const testing::fs::path& output, const RotationOptions& rotation) {
  QuantizeJob job;
  job.model = model;
  job.output = output;
  job.rotation = rotation;
  job.method = RtnMethod{.linears = {.grid = "int", .bits = 8}};
  ThreadPool pool(2);
  return quantize(job, false, pool);
}

TEST(RotatedQuantize, WritesAFolderThatOpensComputesAndIsExported) {
  CRUMB_NEED_DATA(folder, "models/ref-llama-15m");  // its head is tied
  const testing::TempDir dir;
  run(folder, dir / "out", kBoth);
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir / "out");
  ASSERT_TRUE(source->spec().tied_head);
  EXPECT_FALSE(saved->spec().tied_head);
  EXPECT_EQ(rotation_of(saved->hf_config(), "out"), kBoth);
  const auto rotated = rotate(*source, kBoth);
  for (const auto& tensor : saved->tensors()) {
    const auto w = quant::read_all(*rotated, rotated->tensor(tensor.desc.id));
    if (tensor.desc.role == TensorRole::linear) {
      const auto codes = saved->read_codes(tensor, 0, tensor.desc.rows());
      EXPECT_EQ(codes.codes,
                quant::round_to_nearest(w.data(), codes.rows, codes.cols, codes.format, quant::ScaleInit::mse).codes);
    } else if (tensor.desc.role == TensorRole::norm) {
      EXPECT_EQ(quant::read_all(*saved, tensor), w) << tensor.desc.hf_name;
    }
  }
  const auto ids = some_ids(source->spec());
  const auto logits = logits_of(*saved, ids);
  EXPECT_LT(relative_difference(logits, logits_of(*source, ids)), 0.01);  // eight bits

  exporting::export_checkpoint(*saved, dir / "out.gguf", {"gguf-q8_0", "f32", "f32", false, 2});
  const auto gguf = quant::open_checkpoint(dir / "out.gguf");
  EXPECT_FALSE(gguf->spec().tied_head);
  EXPECT_EQ(logits_of(*gguf, ids), logits);
  exporting::export_checkpoint(*gguf, dir / "back", {"hf-bf16", "", "", false, 2});
  EXPECT_FALSE(quant::open_checkpoint(dir / "back")->spec().tied_head);
  EXPECT_LT(relative_difference(logits_of(*quant::open_checkpoint(dir / "back"), ids), logits), 0.01);
}

/// The model with its weights as they are read, in float32.
void write_float_folder(const Checkpoint& model, const testing::fs::path& folder) {
  testing::fs::create_directories(folder);
  testing::write_file(folder / "config.json", model.hf_config().dump());
  model.write_companions(folder);
  formats::SafetensorsWriter writer;
  for (const auto& tensor : model.tensors())
    writer.declare(tensor.desc.hf_name, formats::DType::f32, tensor.desc.shape);
  writer.begin_folder(folder, int64_t{1} << 40);
  for (const auto& tensor : model.tensors()) {
    const auto values = quant::read_all(model, tensor);
    writer.write(values.data(), static_cast<int64_t>(values.size() * sizeof(float)));
  }
  writer.finish();
}

TEST(RotatedQuantize, EveryMethodWorksOnTheRotatedModel) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  write_float_folder(*rotate(*quant::open_checkpoint(folder), kBoth), dir / "rotated");
  std::string text;
  for (int i = 0; i < 200; ++i) text += fmt::format("Lily had {} red balls and {} big dogs. ", i % 17, i * i % 23);
  testing::write_file(dir / "text.txt", text);
  const auto quantized = [&](const testing::fs::path& model, const RotationOptions& rotation, const auto& method) {
    QuantizeJob job;
    job.model = model;
    job.output = dir / "out";
    job.rotation = rotation;
    job.method = method;
    job.calibration.text = {dir / "text.txt"};
    job.calibration.tokens = 1024;
    job.calibration.sequence_length = 64;
    ThreadPool pool(2);
    quantize(job, /*force=*/true, pool);
    EXPECT_EQ(rotation_of(quant::open_checkpoint(dir / "out")->hf_config(), "out"), kBoth);
    return testing::read_file(dir / "out/model.safetensors");
  };
  EXPECT_TRUE(quantized(folder, kBoth, RtnMethod{}) == quantized(dir / "rotated", {}, RtnMethod{}));
  EXPECT_TRUE(quantized(folder, kBoth, GptqMethod{}) == quantized(dir / "rotated", {}, GptqMethod{}));
}

TEST(RotatedQuantize, OfHeadsAloneKeepsTheTiedHead) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  run(folder, dir / "out", kHeads);
  const auto source = quant::open_checkpoint(folder), saved = quant::open_checkpoint(dir / "out");
  EXPECT_EQ(saved->spec().tied_head, source->spec().tied_head);
  EXPECT_EQ(rotation_of(saved->hf_config(), "out"), kHeads);
  EXPECT_EQ(saved->tensors().size(), source->tensors().size());
}

TEST(RotatedQuantize, AnotherRotationIsAnotherJob) {
  CRUMB_NEED_DATA(folder, "models/stories260K-hf");
  const testing::TempDir dir;
  run(folder, dir / "plain", {});
  run(folder, dir / "heads", kHeads);
  run(folder, dir / "seed", {.heads = true, .seed = 4});
  const auto bytes = [&](const char* name) { return testing::read_file(dir / name / "model.safetensors"); };
  EXPECT_FALSE(bytes("plain") == bytes("heads"));
  EXPECT_FALSE(bytes("heads") == bytes("seed"));
}

// --- a real model, with an entry of 23,864 in its stream
// -----------------------------------------------------------------------------------------

TEST(RotatedSmolLM2, HasTheLogitsOfTheModel) {
  CRUMB_NEED_MODEL(folder, "SmolLM2-135M-Instruct");
  const auto model = quant::open_checkpoint(folder);
  const auto ids = model->load_tokenizer()->encode("The capital of France is Paris, and that of Italy is Rome.");
  const auto expected = logits_of(*model, ids);
  EXPECT_LE(relative_difference(logits_of(*rotate(*model, kBoth), ids), expected), kTolerance);
}

}  // namespace
}  // namespace crumb::ptq
