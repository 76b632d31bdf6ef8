// The read-back notices what it is there for.
#include "export/tensor_rows.h"

#include <gmock/gmock.h>

#include "tests/export/test_models.h"
#include "tests/testing/testing.h"

namespace crumb::exporting {
namespace {

using quant::Grid;
using ::testing::AllOf;
using testing::error_of;
using ::testing::HasSubstr;

class TensorRowsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TensorRowsTest, CheckNoticesOneFlippedBitInAnyTensor) {
  const testing::TempDir dir;
  const auto spec = testing::small_spec(arch::Architecture::qwen2, 512);
  const auto checkpoint = quant::open_checkpoint(testing::quantized_model(dir.path(), spec, {Grid::seq, 2, true, 0}));
  const auto plan = plan_export(spec, testing::all_linears(spec, {Grid::seq, 2, true, 0}), {GetParam(), "", ""});
  ThreadPool pool(2);
  for (const auto& planned : plan.tensors) {
    if (planned.desc.id.layer > 0) continue;
    TensorRows rows(*checkpoint, planned, RowOrder::gguf, pool);
    const auto encoded = rows.encode(0, rows.rows());
    std::vector<uint8_t> bytes(encoded.begin(), encoded.end());
    rows.check(0, rows.rows(), bytes);
    bytes[bytes.size() * 2 / 3] ^= 0x40;
    EXPECT_THAT(error_of([&] { rows.check(0, rows.rows(), bytes); }),
                AllOf(HasSubstr("read-back of " + planned.desc.hf_name), HasSubstr("nothing was kept")));
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, TensorRowsTest,
                         ::testing::Values("gguf-q2_0c", "gguf-q2_k", "gguf-q4_0", "gguf-q8_0", "gguf-bf16"),
                         [](const auto& test) { return test.param.substr(5); });

TEST(TensorRows, CheckNoticesTwoRowsThatChangedPlaces) {
  const testing::TempDir dir;
  const auto spec = testing::small_spec(arch::Architecture::llama, 64);
  testing::write_model(dir.path(), spec);
  const auto checkpoint = quant::open_checkpoint(dir.path());
  const auto plan = plan_export(spec, {}, {"gguf-q8_0", "", ""});
  ThreadPool pool(1);
  for (const auto& planned : plan.tensors) {
    if (planned.desc.permuted_head_dim == 0) continue;
    TensorRows permuted(*checkpoint, planned, RowOrder::gguf, pool), plain(*checkpoint, planned, RowOrder::hf, pool);
    const auto bytes = plain.encode(0, plain.rows());
    EXPECT_THAT(error_of([&] { permuted.check(0, permuted.rows(), bytes); }), HasSubstr("read-back"));
  }
}

}  // namespace
}  // namespace crumb::exporting
