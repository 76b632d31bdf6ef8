#include "runtime/linear.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>
#include <set>
#include <thread>

#include "core/common/rng.h"
#include "core/common/thread_pool.h"
#include "tests/testing/testing.h"

namespace crumb::runtime {
namespace {

std::vector<float> random_values(int64_t count, uint64_t stream) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i)
    values.push_back(static_cast<float>(Rng(1, stream).normal(static_cast<uint64_t>(i))));
  return values;
}

void multiply(const LinearGroup& group, const std::vector<float>& x, int64_t tokens,
              const std::vector<std::vector<float>*>& outputs, Executor& executor) {
  std::vector<float*> pointers;
  for (auto* output : outputs) pointers.push_back(output->data());
  group.forward(x.data(), tokens, pointers, executor);
}

/// |y - reference| <= cols * eps * sum |x||w|, the bound of a float sum in any order.
void expect_product(int64_t tokens, int64_t rows, int64_t cols, bool has_bias, Executor& executor) {
  const auto weight = random_values(rows * cols, 1), x = random_values(tokens * cols, 2);
  const auto bias = has_bias ? random_values(rows, 3) : std::vector<float>();
  const auto linear = make_dense_linear({weight, rows, cols, bias});
  std::vector<float> y(static_cast<size_t>(tokens * rows), NAN);
  multiply(*linear, x, tokens, {&y}, executor);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t r = 0; r < rows; ++r) {
      double sum = has_bias ? bias[static_cast<size_t>(r)] : 0.0, magnitude = std::abs(sum);
      for (int64_t c = 0; c < cols; ++c) {
        const double product =
            static_cast<double>(x[static_cast<size_t>(t * cols + c)]) * weight[static_cast<size_t>(r * cols + c)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double bound = static_cast<double>(cols + 1) * 0x1.0p-24 * magnitude;
      ASSERT_NEAR(y[static_cast<size_t>(t * rows + r)], sum, bound) << "token " << t << ", row " << r;
    }
  }
}

TEST(DenseLinear, EqualsTheProductInDoublePrecision) {
  ThreadPool pool(3);
  for (const int64_t tokens : {1, 2, 7, 64, 130}) {
    for (const auto& [rows, cols] : {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {96, 32}, {129, 200}}) {
      expect_product(tokens, rows, cols, tokens % 2 == 0, pool);
    }
  }
}

/// An executor that notes which threads ran.
class Watched : public Executor {
 public:
  explicit Watched(Executor& inner) : inner_(inner) {}
  int num_threads() const override { return inner_.num_threads(); }
  void run(int64_t n, int64_t grain, const Body& body) override {
    // Each thread waits until all pieces have begun, so that none takes the piece of another.
    const int64_t pieces = std::min<int64_t>(n, inner_.num_threads());
    std::atomic<int64_t> begun{0};
    inner_.run(n, grain, [&](int64_t begin, int64_t end, int thread) {
      ++begun;
      while (begun < pieces) std::this_thread::yield();
      {
        const std::lock_guard lock(mutex_);
        ids_.insert(std::this_thread::get_id());
        EXPECT_LT(thread, inner_.num_threads());
      }
      body(begin, end, thread);
    });
  }
  size_t threads_that_ran() const { return ids_.size(); }

 private:
  Executor& inner_;
  std::mutex mutex_;
  std::set<std::thread::id> ids_;
};

TEST(DenseLinear, ThreadsShareTheRowsOfALargeMatrix) {
  ThreadPool pool(2);
  Watched watched(pool);
  expect_product(64, 512, 128, true, watched);
  EXPECT_EQ(watched.threads_that_ran(), 2u);
}

TEST(DenseLinear, ASmallMatrixWakesNoThread) {
  ThreadPool pool(2);
  Watched watched(pool);
  expect_product(1, 64, 16, false, watched);
  EXPECT_EQ(watched.threads_that_ran(), 1u);
}

TEST(DenseLinear, GivesItsRowsBack) {
  constexpr int64_t kRows = 70, kCols = 37;  // of no panel a multiple
  for (const bool is_bf16 : {true, false}) {
    std::vector<float> weight(kRows * kCols);
    for (size_t i = 0; i < weight.size(); ++i)
      weight[i] = is_bf16 ? static_cast<float>(i % 128) : 0.1f * static_cast<float>(i);
    const auto linear = make_dense_linear({weight, kRows, kCols, {}});
    std::vector<float> row(kCols);
    for (int64_t r = 0; r < kRows; ++r) {
      linear->read_row(r, row.data());
      ASSERT_TRUE(std::equal(row.begin(), row.end(), weight.begin() + r * kCols)) << r;
    }
  }
}

TEST(DenseLinear, Float16OfAFileStaysThat) {
  const auto model = quant::open_checkpoint(testing::source_dir() / "tests" / "runtime" / "goldens" / "llama");
  const LinearTensors q{&model->tensor({arch::Slot::q, 0}), nullptr};
  ASSERT_EQ(q.weight->dtype, "F16");
  const int64_t rows = q.weight->desc.rows(), cols = q.weight->desc.cols();
  const auto linear = make_linears(*model, {&q, 1});
  EXPECT_EQ(linear->weight_bytes().held, 2 * ((rows + 31) / 32 * 32 * cols));
  const auto weights = quant::read_all(*model, *q.weight);
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    linear->read_row(r, row.data());
    ASSERT_TRUE(std::equal(row.begin(), row.end(), weights.begin() + r * cols)) << r;
  }
}

/// Numbers that are called float16, as rotations of a checkpoint leave them.
class CalledFloat16 : public quant::Checkpoint {
 public:
  explicit CalledFloat16(std::vector<float> values) : values_(std::move(values)) {
    auto desc = base_->tensor({arch::Slot::q, 0}).desc;
    tensors_.push_back({desc, "F16", 2 * desc.elements(), std::nullopt});
    values_.resize(static_cast<size_t>(desc.elements()), 0.5f);
  }
  quant::CheckpointKind kind() const override { return quant::CheckpointKind::hf; }
  const Path& path() const override { return base_->path(); }
  const arch::DecoderSpec& spec() const override { return base_->spec(); }
  const std::vector<quant::StoredTensor>& tensors() const override { return tensors_; }
  void read_rows(const quant::StoredTensor& tensor, int64_t begin, int64_t end, float* out) const override {
    std::copy(values_.begin() + begin * tensor.desc.cols(), values_.begin() + end * tensor.desc.cols(), out);
  }
  quant::QuantizedTensor read_codes(const quant::StoredTensor&, int64_t, int64_t) const override {
    CRUMB_ASSERT(false);
  }
  quant::StoredRows stored_rows(const quant::StoredTensor&) const override { CRUMB_ASSERT(false); }
  void release_rows(const quant::StoredTensor&, int64_t, int64_t) const override {}
  nlohmann::json hf_config() const override { return base_->hf_config(); }
  std::unique_ptr<tokenizer::Tokenizer> load_tokenizer() const override { return base_->load_tokenizer(); }
  bool has_tokenizer() const override { return false; }
  void write_companions(const Path&) const override {}
  int64_t file_bytes() const override { return 0; }

 private:
  std::unique_ptr<quant::Checkpoint> base_ =
      quant::open_checkpoint(testing::source_dir() / "tests" / "runtime" / "goldens" / "llama");
  std::vector<float> values_;
  std::vector<quant::StoredTensor> tensors_;
};

TEST(DenseLinear, IsHeldInFloat16OnlyWhereThatLosesNothing) {
  const float least = 0x1p-24f, beside = 1 + 0x1p-10f;  // which is beyond bfloat16
  const auto bytes_a_weight = [&](float value) {
    const CalledFloat16 model({beside, value});
    const auto& tensor = model.tensors().front();
    const LinearTensors q{&tensor, nullptr};
    const auto linear = make_linears(model, {&q, 1});
    std::vector<float> row(static_cast<size_t>(tensor.desc.cols()));
    linear->read_row(0, row.data());
    EXPECT_EQ(row[1], value);
    return linear->weight_bytes().held / tensor.desc.elements();
  };
  for (const float held : {0.0f, -0.0f, 65504.0f, -65504.0f, 0x1p-14f, 1023 * least, -3 * least, least, 0x1.ffcp-3f})
    EXPECT_EQ(bytes_a_weight(held), 2) << held;
  for (const float not_held : {65536.0f, 65504.0f + 16, 0x1.ffep-3f, 1.5f * least, least / 2, 1023.5f * least, 1e-30f})
    EXPECT_EQ(bytes_a_weight(not_held), 4) << not_held;
}

TEST(DenseLinear, SaysWhatItHoldsAndReads) {
  const std::vector<float> weight(96 * 32, 0.5f), bias(96, 1.0f);
  std::vector<float> unround = weight;
  unround[5] = 0.1f;
  const auto bytes = [](const LinearGroup& linear) {
    return std::pair(linear.weight_bytes().held, linear.weight_bytes().read);
  };
  EXPECT_EQ(bytes(*make_dense_linear({weight, 96, 32, bias})),
            std::pair(int64_t{2 * 96 * 32 + 4 * 96}, int64_t{2 * 96 * 32 + 4 * 96}));
  EXPECT_EQ(bytes(*make_dense_linear({unround, 96, 32, {}})), std::pair(int64_t{4 * 96 * 32}, int64_t{4 * 96 * 32}));
}

}  // namespace
}  // namespace crumb::runtime
