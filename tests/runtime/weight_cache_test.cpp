#include "runtime/weight_cache.h"

#include <gmock/gmock.h>

#include "runtime/precision.h"
#include "tests/quant/codes_model.h"
#include "tests/runtime/block_model.h"
#include "tests/runtime/golden.h"

namespace crumb::runtime {
namespace {

using formats::TensorType;
using ::testing::HasSubstr;
using testing::two_threads;

const std::vector<TokenId> kIds = {1, 7, 3, 30, 12, 5, 9};

class WeightCacheTest : public ::testing::Test {
 protected:
  struct Loaded {
    bool is_read;
    std::vector<float> logits;
    int64_t held_bytes;
  };
  Loaded load(const Path& model, Activations activations = Activations::floats, const std::string& known_as = "model") {
    const WeightStores stores{nullptr, std::make_shared<WeightCache>(file_, known_as)};
    const auto checkpoint = quant::open_checkpoint(model, *two_threads(), stores.cache->formats());
    const auto decoder =
        load_decoder(*checkpoint, two_threads(), {.activations = resolved(activations, *checkpoint)}, stores);
    stores.cache->save(*checkpoint, *two_threads());
    return {stores.cache->is_read(), testing::all_logits(*decoder, kIds), decoder->weight_bytes().held};
  }
  std::string error_of_load(const Path& model) {
    return testing::error_of([&] { load(model); });
  }

  /// Matrices of many types: codes with and without minima, float16, float32.
  Path mixed_model() {
    const std::vector<TensorType> types = {TensorType::q4_1, TensorType::q2_k, TensorType::q8_0,
                                           TensorType::f32,  TensorType::q6_k, TensorType::iq4_nl};
    const auto slots = arch::tensor_table(testing::block_spec());
    testing::write_block_model(dir_ / "mixed.gguf", testing::block_spec(), [&](const arch::TensorDesc& desc) {
      return types[static_cast<size_t>(std::ranges::find(slots, desc.hf_name, &arch::TensorDesc::hf_name) -
                                       slots.begin()) %
                   types.size()];
    });
    return dir_ / "mixed.gguf";
  }
  Path codes_model() {
    const quant::CodesModel model;
    testing::fs::create_directories(dir_ / "codes");
    quant::CodesFolder folder(dir_ / "codes", *model.base, model.source().formats, {}, "", quant::Masters::left_out,
                              {});
    model.write(folder);
    return dir_ / "codes";
  }

  /// A GGUF of q4_0 whose scales are all 2^-6, so that its blocks are codes.
  Path coded_gguf() {
    Path path = dir_ / "coded.gguf";
    testing::write_block_model(path, testing::block_spec(), [](const auto&) { return TensorType::q4_0; });
    std::string file = testing::read_file(path);
    {
      const formats::GgufReader reader(path);
      for (const auto& tensor : reader.tensors()) {
        if (tensor.type != TensorType::q4_0) continue;
        const auto bytes = reader.bytes(tensor);
        const size_t begin = file.find({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
        for (size_t block = begin; block < begin + bytes.size(); block += 18) file.replace(block, 2, {'\0', '\x24'});
      }
    }
    testing::write_file(path, file);
    return path;
  }

  testing::TempDir dir_;
  Path file_ = dir_ / "weights";
};

TEST_F(WeightCacheTest, GivesTheSameModelToTheLastBit) {
  for (const Path& model : {mixed_model(), codes_model(), testing::golden_folder("qwen3")}) {
    const auto checkpoint = quant::open_checkpoint(model);
    for (const auto activations : {Activations::floats, Activations::int8, Activations::bf16}) {
      testing::fs::remove(file_);
      const auto decoder =
          load_decoder(*checkpoint, two_threads(), {.activations = resolved(activations, *checkpoint)});
      const auto expected = testing::all_logits(*decoder, kIds);
      const auto written = load(model, activations), read = load(model, activations);
      EXPECT_FALSE(written.is_read);
      EXPECT_TRUE(read.is_read);
      EXPECT_EQ(written.logits, expected) << model;
      EXPECT_EQ(read.logits, expected) << model;
      EXPECT_EQ(read.held_bytes, decoder->weight_bytes().held);
    }
    EXPECT_EQ(load(model, Activations::floats).logits,
              testing::all_logits(*load_decoder(*checkpoint, two_threads(), Precision{}), kIds))
        << "one that was written with other activations serves as well";
    testing::fs::remove(file_);
  }
}

TEST_F(WeightCacheTest, WeightsComeFromTheFile) {
  const Path model = codes_model();
  load(model);
  const auto checkpoint = quant::open_checkpoint(model);
  for (const auto& entry : testing::fs::directory_iterator(model)) {
    if (entry.path().extension() != ".safetensors") continue;
    std::string bytes = testing::read_file(entry.path());
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    testing::write_file(entry.path(), bytes);
  }
  const auto before = load(model), now = load(model, Activations::floats, "changed");
  EXPECT_TRUE(before.is_read);
  EXPECT_FALSE(now.is_read) << "of a model that is known by another name";
  EXPECT_TRUE(load(model, Activations::floats, "changed").is_read);
}

TEST_F(WeightCacheTest, KnowsWhichTensorsOfAGgufAreCodes) {
  const Path model = coded_gguf();
  load(model);
  const auto looked = quant::open_checkpoint(model);
  EXPECT_TRUE(std::ranges::any_of(looked->tensors(), [](const auto& tensor) { return tensor.format.has_value(); }));
  const WeightCache cache(file_, "model");
  ASSERT_NE(cache.formats(), nullptr);
  const auto known = quant::open_checkpoint(model, serial_executor(), cache.formats());
  for (size_t i = 0; i < looked->tensors().size(); ++i)
    EXPECT_EQ(known->tensors()[i].format, looked->tensors()[i].format) << known->tensors()[i].desc.hf_name;
}

TEST_F(WeightCacheTest, NothingThatIsDamagedIsTaken) {
  const Path model = mixed_model();
  load(model);
  const std::string whole = testing::read_file(file_);
  for (const size_t size : {size_t{0}, size_t{7}, size_t{100}, whole.size() - 1}) {
    testing::write_file(file_, whole.substr(0, size));
    EXPECT_THAT(error_of_load(model), HasSubstr(file_.string())) << size;
  }
  const auto header = static_cast<size_t>(static_cast<unsigned char>(whole[0])) +
                      256 * static_cast<size_t>(static_cast<unsigned char>(whole[1])) + 8;
  int harmless = 0;
  for (size_t at = 0; at < header; at += 7) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x04);
    testing::write_file(file_, bytes);
    const std::string error = error_of_load(model);
    harmless += error.empty() ? 1 : 0;  // another model's, or another version's: written anew, with a warning
    if (error.empty()) {
      EXPECT_EQ(testing::read_file(file_), whole) << at;
    } else {
      EXPECT_THAT(error, HasSubstr(file_.string())) << at;
    }
  }
  EXPECT_LT(harmless, 10);
  int damaged = 0;
  for (size_t at = header; at < whole.size(); at += whole.size() / 50 + 1, ++damaged) {
    std::string bytes = whole;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    testing::write_file(file_, bytes);
    EXPECT_THAT(error_of_load(model), HasSubstr(" is damaged; remove the weight cache")) << at;
  }
  EXPECT_GT(damaged, 40);
}

TEST_F(WeightCacheTest, WhatIsNoWeightCacheStaysAsItIs) {
  testing::fs::copy(testing::golden_folder("llama") / "model.safetensors", file_);
  const std::string bytes = testing::read_file(file_);
  EXPECT_EQ(error_of_load(testing::golden_folder("llama")),
            file_.string() + ": this is no weight cache; name another file");
  EXPECT_EQ(testing::read_file(file_), bytes);
  testing::write_file(file_, "GGUF and more");
  EXPECT_THAT(error_of_load(testing::golden_folder("llama")),
              HasSubstr("no weight cache, or a damaged one: remove it, or name another file"));
}

TEST_F(WeightCacheTest, OneOfOtherShapesIsRefused) {
  load(testing::golden_folder("llama"));
  EXPECT_THAT(error_of_load(mixed_model()), HasSubstr(file_.string() + ": "));
}

TEST_F(WeightCacheTest, AFileThatCannotBeMadeIsSaidBeforeTheModelIsRead) {
  testing::write_file(dir_ / "file", "");
  EXPECT_THAT(testing::error_of([&] { WeightCache(dir_ / "file" / "weights", "model"); }),
              HasSubstr((dir_ / "file").string()));
}

}  // namespace
}  // namespace crumb::runtime
