// Exported files hold the network exactly, are replaced only when asked, and never appear half-written.
#include "export/export.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/common/thread_pool.h"
#include "core/formats/gguf.h"
#include "core/formats/safetensors.h"
#include "runtime/packed_linear.h"
#include "tests/export/test_models.h"
#include "tests/quant/toy_grid.h"
#include "tests/testing/fake_tokenizer.h"
#include "tests/testing/in_child.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

using arch::Architecture;
using arch::TensorRole;
using formats::DType;
using quant::Grid;
using quant::QuantFormat;
using ::testing::AllOf;
using ::testing::ElementsAre;
using testing::error_of;
namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::names_in;
using ::testing::Not;
using testing::quantized_model;
using testing::small_spec;
using testing::TempDir;
using testing::write_model;

const QuantFormat kSeqRow{Grid::seq, 2, true, 0};

ExportResult run(const fs::path& model, const fs::path& output, const std::string& target, bool force = false,
                 const std::string& embedding = "") {
  return export_checkpoint(*quant::open_checkpoint(model), output, {target, embedding, "", force, 2});
}

/// Every linear, norm and bias of the two models is the same, value for value.
void expect_same_network(const fs::path& expected, const fs::path& actual) {
  const auto a = quant::open_checkpoint(expected), b = quant::open_checkpoint(actual);
  for (const auto& tensor : a->tensors()) {
    if (tensor.desc.role == TensorRole::embedding || tensor.desc.role == TensorRole::head) continue;
    EXPECT_EQ(quant::read_all(*a, tensor), quant::read_all(*b, b->tensor(tensor.desc.hf_name))) << tensor.desc.hf_name;
  }
}

struct ExactCase {
  std::string name, target;
  Architecture architecture;
  int64_t hidden;
  QuantFormat format;
};
class Exact : public ::testing::TestWithParam<ExactCase> {};

TEST_P(Exact, ExportsHoldCodesTimesScales) {
  const auto& c = GetParam();
  const quant::AddedGrid added(testing::kToyGrid);
  const TempDir dir;
  const auto codes = quantized_model(dir.path(), small_spec(c.architecture, c.hidden), c.format);
  const auto result = run(codes, dir / "out", c.target);
  expect_same_network(codes, dir / "out");
  EXPECT_EQ(result.checked_tensors, static_cast<int64_t>(result.plan.tensors.size()));
  const bool falls_back = c.name.starts_with("Fallback");
  if (falls_back) {
    EXPECT_THAT(result.plan.warnings, ::testing::ElementsAre(HasSubstr("no linear is")));
  } else {
    EXPECT_THAT(result.plan.warnings, IsEmpty());
  }
  if (c.target != "hf-bf16") {
    EXPECT_EQ(result.file_bytes, static_cast<int64_t>(fs::file_size(dir / "out")));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Export, Exact,
    ::testing::Values(
        ExactCase{"Q2_0C", "gguf-q2_0c", Architecture::hunyuan_v1_dense, 512, kSeqRow},
        ExactCase{"Q2_0CPermuted", "gguf-q2_0c", Architecture::llama, 512, kSeqRow},
        ExactCase{"Q2_K", "gguf-q2_k", Architecture::llama, 256, kSeqRow},
        ExactCase{"Q2_KGroups", "gguf-q2_k", Architecture::mistral, 256, {Grid::seq, 2, true, 256}},
        ExactCase{"Q2_KBiases", "gguf-q2_k", Architecture::qwen2, 256, kSeqRow},
        ExactCase{"Q4_0Groups", "gguf-q4_0", Architecture::llama, 64, {Grid::seq, 2, true, 32}},
        ExactCase{"Q8_0Groups", "gguf-q8_0", Architecture::qwen3, 64, {Grid::seq, 2, true, 32}},
        ExactCase{"Bf16Groups", "gguf-bf16", Architecture::llama, 64, {Grid::seq, 2, true, 16}},
        ExactCase{"HfBf16", "hf-bf16", Architecture::llama, 64, {Grid::seq, 2, true, 16}},
        ExactCase{"FallbackToQ4_0", "gguf-q2_0c", Architecture::llama, 64, kSeqRow},
        ExactCase{"FallbackToBf16", "gguf-q2_k", Architecture::llama, 72, kSeqRow},
        ExactCase{"Int4", "gguf-q4_0", Architecture::llama, 64, {Grid::intn, 4, true, 32}},
        ExactCase{"Int4InQ8_0", "gguf-q8_0", Architecture::llama, 64, {Grid::intn, 4, true, 0}},
        ExactCase{"Int3InQ4_0", "gguf-q4_0", Architecture::qwen2, 64, {Grid::intn, 3, true, 0}},
        ExactCase{"Int8", "gguf-q8_0", Architecture::qwen3, 64, {Grid::intn, 8, true, 64}},
        ExactCase{
            "FloatZeroPointInQ4_1", "gguf-q4_1", Architecture::llama, 64, {Grid::intn, 4, false, 32, false, true}},
        ExactCase{
            "FloatZeroPointOfGroups", "gguf-q4_1", Architecture::qwen2, 128, {Grid::intn, 3, false, 64, false, true}},
        ExactCase{"IntegerZeroPointInQ4_1", "gguf-q4_1", Architecture::llama, 64, {Grid::intn, 4, false, 0}},
        ExactCase{"Int4InQ4_1", "gguf-q4_1", Architecture::qwen3, 64, {Grid::intn, 4, true, 32}},
        ExactCase{"SeqInQ4_1", "gguf-q4_1", Architecture::llama, 64, {Grid::seq, 2, true, 32}},
        ExactCase{"Int2Asymmetric", "hf-bf16", Architecture::llama, 64, {Grid::intn, 2, false, 32}},
        ExactCase{"TernaryInQ4_0", "gguf-q4_0", Architecture::llama, 64, {Grid::ternary, 2, true, 32}},
        ExactCase{"TernaryInBf16", "hf-bf16", Architecture::qwen3, 64, {Grid::ternary, 2, true, 16}},
        ExactCase{"ToyInQ4_0", "gguf-q4_0", Architecture::llama, 64, {testing::kToyGrid, 3, true, 32}},
        ExactCase{"ToyInQ8_0", "gguf-q8_0", Architecture::qwen3, 64, {testing::kToyGrid, 3, true, 0}},
        ExactCase{"ToyInBf16", "hf-bf16", Architecture::llama, 64, {testing::kToyGrid, 3, true, 16}}),
    [](const auto& test) { return test.param.name; });

/// One linear of layer 0 with int8 activations; asserts that its codes are taken as codes.
std::vector<float> packed_product(const fs::path& path, arch::Slot slot) {
  const auto model = quant::open_checkpoint(path);
  const runtime::LinearTensors member{&model->tensor({slot, 0}), nullptr};
  const auto executor = std::make_shared<ThreadPool>(1);
  const auto linear = runtime::packed_linears(runtime::Activations::int8, executor)(*model, {&member, 1});
  const int64_t rows = member.weight->desc.rows(), cols = member.weight->desc.cols();
  std::vector<float> x, y(static_cast<size_t>(rows), NAN);
  for (int64_t k = 0; k < cols; ++k) x.push_back(static_cast<float>(k % 7 - 3));
  float* const out = y.data();
  if (linear != nullptr) linear->forward(x.data(), 1, {&out, 1}, *executor);
  EXPECT_NE(linear, nullptr) << path;
  return y;
}

TEST(Export, CodesInAGgufRunPackedAsThoseOfTheFolderDo) {
  const TempDir dir;
  const struct {
    std::string target;
    int64_t hidden;
    QuantFormat format;
  } cases[] = {{"gguf-q2_k", 256, kSeqRow},
               {"gguf-q4_0", 64, {Grid::intn, 4, true, 32}},
               {"gguf-q4_1", 64, {Grid::intn, 4, false, 32, false, true}}};
  for (const auto& c : cases) {  // llama: rows of q and k are permuted in the file
    const fs::path place = dir / c.target;
    const auto codes = quantized_model(place, small_spec(Architecture::llama, c.hidden), c.format);
    run(codes, place / "out.gguf", c.target);
    for (const arch::Slot slot : {arch::Slot::q, arch::Slot::gate})
      EXPECT_EQ(packed_product(place / "out.gguf", slot), packed_product(codes, slot)) << c.target;
  }
}

TEST(Export, StreamsPermutedRowsInSeveralBlocks) {
  const TempDir dir;
  auto spec = small_spec(Architecture::llama, 32);
  for (auto& layer : spec.layers) {  // q: 5 heads of 32768 rows of 32, more than one block of 4M weights
    layer.attention = arch::GqaSpec{5, 5, 32768};
    layer.rope = {32768, 10000.0, std::vector<double>(16384, 1.0)};
  }
  spec.layers.resize(1);
  const auto codes = quantized_model(dir.path(), spec, kSeqRow);
  run(codes, dir / "out.gguf", "gguf-q4_0");
  expect_same_network(codes, dir / "out.gguf");
}

TEST(Export, OfAPlainModelInBf16IsThatModel) {
  const TempDir dir;
  auto spec = small_spec(Architecture::qwen2, 64);
  write_model(dir / "plain", spec);
  for (const std::string target : {"gguf-bf16", "hf-bf16"}) {
    const fs::path out = dir / target;
    run(dir / "plain", out, target);
    expect_same_network(dir / "plain", out);
    const auto a = quant::open_checkpoint(dir / "plain"), b = quant::open_checkpoint(out);
    EXPECT_EQ(quant::read_all(*a, a->tensors().front()), quant::read_all(*b, b->tensors().front()));
  }
}

TEST(Export, SaysWhenBf16RoundsTheSource) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64), DType::f32);
  const auto result = run(dir / "plain", dir / "out.gguf", "gguf-bf16");
  EXPECT_THAT(result.plan.warnings, ElementsAre(HasSubstr("weights rounded to bf16 in 15 tensors")));  // 14 linears
  EXPECT_THAT(run(dir / "plain", dir / "f32.gguf", "gguf-q8_0", false, "f32").plan.warnings, IsEmpty());
}

TEST(Export, SaysWhichRowsABlockTypeDoesNotHold) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64), DType::f32);
  const std::string name = "model.layers.1.mlp.up_proj.weight";
  {  // the file's bytes of this tensor, made too small for a scale of 16 bits
    const formats::SafetensorsReader reader(dir / "plain");
    const auto info = reader.at(name);
    std::string bytes = testing::read_file(dir / "plain/model.safetensors");
    uint64_t header = 0;
    std::memcpy(&header, bytes.data(), 8);
    for (int64_t i = 0; i < 64 * 64; ++i) {  // half of its 128 rows
      char* at = bytes.data() + 8 + header + info.offset + 4 * i;
      float value = 0;
      std::memcpy(&value, at, 4);
      value *= 1e-8f;
      std::memcpy(at, &value, 4);
    }
    testing::write_file(dir / "plain/model.safetensors", bytes);
  }
  ::testing::internal::CaptureStderr();
  const auto result = run(dir / "plain", dir / "out.gguf", "gguf-q8_0", false, "f32");
  const std::string words = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(result.plan.warnings, ElementsAre(AllOf(HasSubstr("64 of 128 rows of " + name), HasSubstr("q8_0"))));
  EXPECT_THAT(words, HasSubstr("warning: gguf-q8_0: 64 of 128 rows of " + name));
}

/// A tokenizer that writes another vocabulary than it has.
class LyingTokenizer : public testing::FakeTokenizer {
 public:
  explicit LyingTokenizer(std::unique_ptr<tokenizer::Tokenizer> truth) : truth_(std::move(truth)) {}
  void set_gguf_metadata(int64_t rows, formats::GgufWriter& writer) const override {
    truth_->set_gguf_metadata(rows, writer);
  }
  std::string token_bytes(tokenizer::TokenId id) const override { return truth_->token_bytes(id == 65 ? 66 : id); }
  int64_t vocab_size() const override { return truth_->vocab_size(); }

 private:
  std::unique_ptr<tokenizer::Tokenizer> truth_;
};

TEST(CheckVocabularyExports, RefusesBeforeTheWorkWhatTheReadBackWouldRefuse) {
  const TempDir dir;
  const auto spec = small_spec(Architecture::llama, 64);
  write_model(dir / "plain", spec);
  const auto tokenizer = quant::open_checkpoint(dir / "plain")->load_tokenizer();
  EXPECT_EQ(error_of([&] { check_vocabulary_exports(spec, *tokenizer, "gguf-bf16"); }), "");
  const LyingTokenizer lying(quant::open_checkpoint(dir / "plain")->load_tokenizer());
  EXPECT_THAT(error_of([&] { check_vocabulary_exports(spec, lying, "gguf-bf16"); }),
              HasSubstr("token 65 of the vocabulary differs from what was written"));
  EXPECT_EQ(error_of([&] { check_vocabulary_exports(spec, lying, "hf-bf16"); }), "");
  for (const auto& entry : fs::directory_iterator(fs::temp_directory_path()))
    EXPECT_FALSE(entry.path().filename().string().find("crumb-vocabulary-" + std::to_string(getpid())) !=
                 std::string::npos);
}

TEST(Export, StoresEmbeddingAndHeadAsAsked) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::qwen3, 256));
  for (const std::string type : {"q6_k", "q8_0", "bf16", "f16", "f32"}) {
    const fs::path out = dir / (type + ".gguf");
    run(dir / "plain", out, "gguf-q8_0", false, type);
    const formats::GgufReader file(out);
    EXPECT_EQ(formats::type_name(file.tensor("token_embd.weight").type), type);
    EXPECT_EQ(formats::type_name(file.tensor("output.weight").type), "q6_k");
  }
}

/// A checkpoint whose layers norm queries and keys behind the rotation, which a GGUF of a qwen3 model cannot say.
class NormsElsewhere : public quant::Checkpoint {
 public:
  explicit NormsElsewhere(const fs::path& path) : inner_(quant::open_checkpoint(path)), spec_(inner_->spec()) {
    for (auto& layer : spec_.layers) std::get<arch::GqaSpec>(layer.attention).qk_norm = arch::QkNorm::after_rope;
  }
  quant::CheckpointKind kind() const override { return inner_->kind(); }
  const Path& path() const override { return inner_->path(); }
  const arch::DecoderSpec& spec() const override { return spec_; }
  const std::vector<quant::StoredTensor>& tensors() const override { return inner_->tensors(); }
  void read_rows(const quant::StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    inner_->read_rows(tensor, begin, end, out);
  }
  quant::QuantizedTensor read_codes(const quant::StoredTensor& tensor, int64_t begin, int64_t end) const override {
    return inner_->read_codes(tensor, begin, end);
  }
  quant::StoredRows stored_rows(const quant::StoredTensor& tensor) const override {
    return inner_->stored_rows(tensor);
  }
  void release_rows(const quant::StoredTensor& tensor, int64_t begin, int64_t end) const override {
    inner_->release_rows(tensor, begin, end);
  }
  nlohmann::json hf_config() const override { return inner_->hf_config(); }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return inner_->load_tokenizer(); }
  bool has_tokenizer() const override { return inner_->has_tokenizer(); }
  void write_companions(const Path& folder) const override { inner_->write_companions(folder); }
  int64_t file_bytes() const override { return inner_->file_bytes(); }

 private:
  std::unique_ptr<quant::Checkpoint> inner_;
  arch::DecoderSpec spec_;
};

TEST(Export, MetadataThatDescribeAnotherModelAreAFailureAndLeaveNothingBehind) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::qwen3, 64));
  std::string message;
  try {
    export_checkpoint(NormsElsewhere(dir / "plain"), dir / "out.gguf", {"gguf-bf16", "", "", false, 2});
  } catch (const RunError& error) {
    message = error.what();
  }
  EXPECT_EQ(message,
            "read-back: layer 0: attention.qk_norm is before the rotation in the metadata that were written, after the "
            "rotation in the model");
  EXPECT_THAT(names_in(dir.path()), ElementsAre("plain"));
}

TEST(Export, OfRopeScalingIsReadBack) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  auto config = nlohmann::json::parse(testing::read_file(dir / "plain" / "config.json"));
  config.erase("rope_parameters");
  config["rope_theta"] = 10000.0;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 64}};
  testing::write_file(dir / "plain" / "config.json", config.dump());
  const auto result = run(dir / "plain", dir / "out.gguf", "gguf-bf16");
  const auto expected = quant::open_checkpoint(dir / "plain")->spec().layers.front().rope.divisors;
  EXPECT_EQ(result.plan.tensors.front().desc.gguf.name, "rope_freqs.weight");
  const auto actual = quant::open_checkpoint(dir / "out.gguf")->spec().layers.front().rope.divisors;
  EXPECT_GT(expected.back(), 1.0);
  EXPECT_THAT(actual, ::testing::Pointwise(::testing::FloatEq(), expected));
}

TEST(GgufExport, WritesTheFileTypeAndVersionOfItsTarget) {
  const TempDir dir;
  const auto codes = quantized_model(dir.path(), small_spec(Architecture::llama, 512), kSeqRow);
  const std::vector<std::pair<std::string, int64_t>> file_types = {
      {"gguf-q2_0c", 39}, {"gguf-q2_k", 10}, {"gguf-q4_0", 2}, {"gguf-q4_1", 3}, {"gguf-q8_0", 7}, {"gguf-bf16", 32}};
  for (const auto& [target, file_type] : file_types) {
    run(codes, dir / target, target);
    const formats::GgufReader file(dir / target);
    EXPECT_EQ(file.get_int("general.file_type"), file_type) << target;
    EXPECT_EQ(file.get_int_or("general.quantization_version", -1), target == "gguf-bf16" ? -1 : 2) << target;
    EXPECT_EQ(file.get_string("general.architecture"), "llama");
    EXPECT_EQ(file.get_string("general.name"), "codes");
    EXPECT_EQ(file.tensor("blk.0.attn_norm.weight").type, formats::TensorType::f32);
  }
  EXPECT_EQ(formats::GgufReader(dir / "gguf-q2_0c").tensor("blk.0.attn_q.weight").ggml_type, 40u);
}

TEST(GgufExport, CarriesTheChatTemplate) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  testing::write_file(dir / "plain" / "chat_template.jinja", "{{ messages }}");
  run(dir / "plain", dir / "out.gguf", "gguf-bf16");
  EXPECT_EQ(formats::GgufReader(dir / "out.gguf").get_string("tokenizer.chat_template"), "{{ messages }}");
}

TEST(HfExport, IsAnOrdinaryBf16Checkpoint) {
  const TempDir dir;
  const auto codes = quantized_model(dir.path(), small_spec(Architecture::llama, 64), kSeqRow);
  testing::write_file(codes / "LICENSE", "free");
  run(codes, dir / "out", "hf-bf16");
  const auto config = nlohmann::json::parse(testing::read_file(dir / "out" / "config.json"));
  EXPECT_FALSE(config.contains("quantization_config"));
  EXPECT_EQ(config.value("dtype", config.value("torch_dtype", "")), "bfloat16");
  EXPECT_EQ(quant::open_checkpoint(dir / "out")->kind(), quant::CheckpointKind::hf);
  const formats::SafetensorsReader weights(dir / "out");
  for (const auto& tensor : weights.tensors()) EXPECT_EQ(tensor.dtype, DType::bf16);
  EXPECT_THAT(names_in(dir / "out"),
              ElementsAre("LICENSE", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"));
}

TEST(Export, ReplacesAnOutputOnlyWhenForced) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  testing::write_file(dir / "out.gguf", "mine");
  EXPECT_THAT(error_of([&] { run(dir / "plain", dir / "out.gguf", "gguf-bf16"); }), HasSubstr("--force"));
  EXPECT_EQ(testing::read_file(dir / "out.gguf"), "mine");
  run(dir / "plain", dir / "out.gguf", "gguf-bf16", true);
  EXPECT_EQ(testing::read_file(dir / "out.gguf").substr(0, 4), "GGUF");
  run(dir / "plain", dir / "folder", "hf-bf16");
  EXPECT_THAT(error_of([&] { run(dir / "plain", dir / "folder", "hf-bf16"); }), HasSubstr("--force"));
  run(dir / "plain", dir / "folder", "hf-bf16", true);
}

TEST(Export, NeverReplacesItsOwnSourceOrAFolderThatIsNoModel) {
  const TempDir dir;
  const fs::path model = dir / "run" / "model";
  write_model(model, small_spec(Architecture::llama, 64));
  const auto message = [&](const fs::path& out, const std::string& target) {
    return error_of([&] { run(model, out, target, true); });
  };
  EXPECT_THAT(message(model, "hf-bf16"), HasSubstr("which is read; choose another output"));
  EXPECT_THAT(message(dir / "run", "hf-bf16"), HasSubstr("which is read; choose another output"));
  EXPECT_THAT(message(model / "model.safetensors", "gguf-bf16"), HasSubstr("belongs to the model"));
  fs::create_directories(dir / "photos");
  testing::write_file(dir / "photos" / "a.jpg", "jpg");
  EXPECT_THAT(message(dir / "photos", "hf-bf16"), HasSubstr("is no model folder"));
  EXPECT_THAT(message(dir / "photos", "gguf-bf16"), HasSubstr("is a folder; gguf-bf16 writes a file"));
  EXPECT_TRUE(fs::exists(model / "model.safetensors") && fs::exists(dir / "photos" / "a.jpg"));
}

/// While it lives, no file can grow beyond `bytes`: writing fails as on a full disk.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit limit{bytes, previous_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }

 private:
  rlimit previous_{};
  void (*previous_handler_)(int) = SIG_DFL;
};

TEST(Export, LeavesNothingBehindOnAFullDisk) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 256));
  fs::create_directories(dir / "out");
  for (const std::string target : {"gguf-q8_0", "hf-bf16"}) {
    const FileSizeLimit limit(100'000);
    EXPECT_THROW(run(dir / "plain", dir / "out" / "model", target), RunError) << target;
    EXPECT_THAT(names_in(dir / "out"), IsEmpty()) << target;
  }
}

TEST(Export, RefusesNanWeightsAndLeavesNothingBehind) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  const formats::SafetensorsReader reader(dir / "plain");
  const auto& tensor = reader.at("model.layers.1.mlp.up_proj.weight");
  const auto file = testing::read_file(dir / "plain" / "model.safetensors");
  auto broken = file;
  const auto at = file.size() - static_cast<size_t>(reader.total_bytes() - tensor.offset);
  broken[at] = broken[at + 1] = '\x7f';
  broken[at] = '\xff';
  testing::write_file(dir / "broken.safetensors", broken);
  fs::create_directories(dir / "out");
  write_model(dir / "bad", small_spec(Architecture::llama, 64));
  fs::rename(dir / "broken.safetensors", dir / "bad" / "model.safetensors");
  for (const std::string target : {"gguf-bf16", "hf-bf16"})
    EXPECT_THAT(error_of([&] { run(dir / "bad", dir / "out" / "m", target); }),
                AllOf(HasSubstr("model.layers.1.mlp.up_proj.weight"), HasSubstr("NaN")));
  EXPECT_THAT(names_in(dir / "out"), IsEmpty());
}

TEST(Export, OfAGgufToTwoBitsNeedsCodes) {
  const TempDir dir;
  write_model(dir / "model", small_spec(Architecture::llama, 256));
  run(dir / "model", dir / "plain.gguf", "gguf-q8_0");
  EXPECT_THAT(error_of([&] { run(dir / "plain.gguf", dir / "b.gguf", "gguf-q2_k"); }),
              HasSubstr("gguf-q2_k needs a quantized model, this one has no codes and scales"));
  const auto codes = quantized_model(dir.path(), small_spec(Architecture::llama, 256), kSeqRow);
  run(codes, dir / "a.gguf", "gguf-q8_0");
  run(dir / "a.gguf", dir / "b.gguf", "gguf-q2_k");
  expect_same_network(codes, dir / "b.gguf");
}

TEST(Export, RefusesATokenizerWithMoreTokensThanTheEmbeddingHasRows) {
  const TempDir dir;
  auto spec = small_spec(Architecture::llama, 64);
  spec.vocab_size = 200;  // the tokenizer has 259
  write_model(dir / "plain", spec);
  EXPECT_THAT(error_of([&] { run(dir / "plain", dir / "out.gguf", "gguf-bf16"); }),
              AllOf(HasSubstr("259"), HasSubstr("200")));
  EXPECT_THAT(names_in(dir.path()), ElementsAre("plain"));
}

TEST(Export, RefusesAFolderWithoutTokenizerForGguf) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  fs::remove(dir / "plain" / "tokenizer.json");
  EXPECT_THAT(error_of([&] { run(dir / "plain", dir / "out.gguf", "gguf-bf16"); }), HasSubstr("tokenizer.json"));
  EXPECT_FALSE(fs::exists(dir / "out.gguf"));
}

TEST(Export, RefusesValuesThatHalfPrecisionCannotHold) {
  const TempDir dir;
  auto spec = small_spec(Architecture::llama, 64);
  write_model(dir / "plain", spec, DType::f32);
  formats::SafetensorsWriter writer;
  const auto base = quant::open_checkpoint(dir / "plain");
  for (const auto& tensor : base->tensors()) writer.declare(tensor.desc.hf_name, DType::f32, tensor.desc.shape);
  fs::create_directories(dir / "large");
  writer.begin_folder(dir / "large", int64_t{1} << 40);
  for (const auto& tensor : base->tensors()) {
    auto values = quant::read_all(*base, tensor);
    values[0] = 70000.0f;
    writer.write(values.data(), static_cast<int64_t>(values.size() * 4));
  }
  writer.finish();
  for (const std::string name : {"config.json", "tokenizer.json", "tokenizer_config.json"})
    fs::copy_file(dir / "plain" / name, dir / "large" / name);
  EXPECT_THAT(error_of([&] { run(dir / "large", dir / "out.gguf", "gguf-bf16", false, "f16"); }),
              AllOf(HasSubstr("model.embed_tokens.weight"), HasSubstr("too large for f16")));
}

TEST(Export, RefusesAnOutputItCannotWrite) {
  const TempDir dir;
  write_model(dir / "plain", small_spec(Architecture::llama, 64));
  testing::write_file(dir / "file", "x");
  EXPECT_THAT(error_of([&] { run(dir / "plain", dir / "file" / "out.gguf", "gguf-bf16"); }), HasSubstr("cannot write"));
}

}  // namespace
}  // namespace crumb::exporting
