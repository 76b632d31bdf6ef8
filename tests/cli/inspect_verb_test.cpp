// `crumb inspect` as a user sees it.
#include <gmock/gmock.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "quant/codes_folder.h"
#include "tests/quant/hand_gguf.h"
#include "tests/testing/testing.h"

namespace crumb {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using testing::run_crumb;
using testing::TempDir;

Path tiny_model(const std::string& name) { return testing::source_dir() / "tests" / "runtime" / "goldens" / name; }

json inspect(const Path& path) {
  const auto result = run_crumb("inspect --json --tensors " + path.string());
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return json::parse(result.out, nullptr, false);
}

/// Every linear of a tiny model as SEQ: code = column % 4, scale 0.5.
void write_codes(const Path& folder) {
  const auto base = quant::open_checkpoint(tiny_model("qwen3"));
  quant::CodesSource source;
  source.rows = [&](const arch::TensorDesc& desc, int64_t begin, int64_t end, float* out) {
    base->read_rows(base->tensor(desc.hf_name), begin, end, out);
  };
  source.codes = [](const arch::TensorDesc& desc, int64_t begin, int64_t end) {
    quant::QuantizedTensor block{{}, end - begin, desc.cols(), {}, {}, {}};
    for (int64_t i = 0; i < block.rows * block.cols; ++i) block.codes.push_back(i % block.cols % 4 == 3 ? 3 : 1);
    block.scales.assign(static_cast<size_t>(block.rows), 0.5f);
    return block;
  };
  for (const auto& tensor : base->tensors()) {
    if (tensor.desc.role == arch::TensorRole::linear) source.formats[tensor.desc.hf_name] = {};
  }
  quant::write_codes_folder(folder, *base, source, {});
}

TEST(Inspect, CountsParametersBytesAndBitsOfAFolder) {
  const auto report = inspect(tiny_model("llama"));
  EXPECT_EQ(report.at("architecture"), "llama");
  EXPECT_EQ(report.at("parameters"), arch::parameter_count(quant::open_checkpoint(tiny_model("llama"))->spec()));
  EXPECT_EQ(report.at("bits_per_weight"), 16.0);
  EXPECT_EQ(report.at("tensors").size(), report.at("types").at("F16").at("tensors"));
  EXPECT_EQ(report.at("model").at("kv_heads"), 2);
  EXPECT_EQ(report.at("metadata").at("hidden_size"), "32");
}

TEST(Inspect, ShowsTheHistogramOfCodes) {
  const TempDir dir;
  write_codes(dir.path());
  const auto report = inspect(dir.path());
  EXPECT_EQ(report.at("kind"), "codes and scales");
  const auto counts = report.at("codes").at("seq2").get<std::vector<int64_t>>();
  ASSERT_EQ(counts.size(), 4u);
  EXPECT_EQ(counts[0] + counts[2], 0);
  EXPECT_EQ(counts[1], 3 * counts[3]);
  EXPECT_EQ(counts[1] + counts[3], report.at("types").at("seq2").at("parameters"));
  EXPECT_LT(report.at("bits_per_weight_without_embeddings"), report.at("bits_per_weight"));
  EXPECT_THAT(run_crumb("inspect " + dir.path().string()).out, HasSubstr("0: 0.0 %  1: 75.0 %  2: 0.0 %  3: 25.0 %"));
}

TEST(Inspect, ListsMetadataAndTensorsOfAGguf) {
  const TempDir dir;
  testing::write_f32_gguf(*quant::open_checkpoint(tiny_model("hunyuan")), dir / "model.gguf");
  const auto report = inspect(dir / "model.gguf");
  EXPECT_EQ(report.at("architecture"), "hunyuan-dense");
  EXPECT_EQ(report.at("metadata").at("hunyuan-dense.block_count"), "2");
  EXPECT_EQ(report.at("tensors").at(0).at("name"), "token_embd.weight");
  EXPECT_EQ(report.at("tensors").at(0).at("shape"), json({96, 32}));
}

TEST(Inspect, ListsAGgufOfAnUnknownArchitectureToo) {
  const TempDir dir;
  formats::GgufWriter writer;
  writer.set_string("general.architecture", "mamba");
  writer.declare("ssm.weight", formats::TensorType::f32, {2, 4});
  writer.begin(dir / "other.gguf");
  const float zeros[8] = {};
  writer.write(zeros, sizeof zeros);
  writer.finish();
  writer.commit();
  const auto result = run_crumb("inspect --tensors " + (dir / "other.gguf").string());
  EXPECT_EQ(result.exit_code, 0);
  EXPECT_THAT(result.out, HasSubstr("architecture 'mamba' is not supported"));
  EXPECT_THAT(result.out, HasSubstr("ssm.weight"));
}

TEST(Inspect, RefusesWhatIsNotThere) {
  const auto result = run_crumb("inspect no-such-model");
  EXPECT_EQ(result.exit_code, 2);
  EXPECT_EQ(result.err, "crumb: no-such-model: no such file or folder\n");
}

}  // namespace
}  // namespace crumb
