// The executor of PTX, and by it the kernels of kernels/cuda, which need no GPU then: the Python scripts beside this
// file.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/ptx/executor.h"
#include "tests/testing/testing.h"

namespace crumb::ptx {
namespace {

using ::testing::HasSubstr;

testing::CommandResult run_script(const testing::fs::path& python, const std::string& script_and_arguments) {
  const char* built = std::getenv("CRUMB_PTX_LIBRARY");
  return testing::run_command("CRUMB_PTX_LIBRARY=" + std::string(built != nullptr ? built : CRUMB_PTX_LIBRARY) + " " +
                              python.string() + " " +
                              (testing::source_dir() / "tests/ptx" / script_and_arguments).string());
}

bool has_nvcc() { return testing::run_command("nvcc --version").exit_code == 0; }

/// Python with numpy. Its process has no sanitizers, so a library with them would not load.
#ifdef CRUMB_SANITIZED
#define NEED_PYTHON(variable)                   \
  const auto variable = testing::peer_python(); \
  GTEST_SKIP() << "Python does not load a library with sanitizers"
#else
#define NEED_PYTHON(variable) CRUMB_NEED_PEERS(variable)
#endif

#define NEED_NVCC() \
  if (!has_nvcc()) CRUMB_CANNOT_RUN("CRUMB_REQUIRE_CUDA", "needs nvcc (of CUDA 12 or later) on the PATH to make PTX")

#define EXPECT_PASSES(result)                                    \
  const auto outcome = result;                                   \
  EXPECT_EQ(outcome.exit_code, 0) << outcome.out << outcome.err; \
  std::printf("%s", outcome.out.c_str())

constexpr char kDoubles[] = R"(.version 9.0
.target sm_80
.address_size 64
.visible .entry doubles(.param .u64 to, .param .u32 n) {
  .reg .pred %p<2>; .reg .b32 %r<8>; .reg .b64 %rd<4>;
  ld.param.u64 %rd1, [to]; ld.param.u32 %r1, [n];
  mov.u32 %r2, %tid.x; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ntid.x; mad.lo.s32 %r2, %r3, %r4, %r2;
  setp.ge.u32 %p1, %r2, %r1;
  @%p1 bra END;
  mul.wide.u32 %rd2, %r2, 4; add.s64 %rd2, %rd1, %rd2;
  ld.global.u32 %r5, [%rd2]; add.u32 %r5, %r5, %r5; st.global.u32 [%rd2], %r5;
END:
  ret;
})";

TEST(PtxExecutor, IsALibraryOfCpp) {
  Module module(kDoubles);
  Memory memory;
  std::vector<uint32_t> values(100);
  for (uint32_t i = 0; i < values.size(); ++i) values[i] = i;
  memory.add(values.data(), values.size() * sizeof(uint32_t));
  module.launch("doubles", {2}, {64}, 0, memory, Options(), values.data(), uint32_t{100});
  // Who accessed what is of one launch: another one may cut the work in another way.
  module.launch("doubles", {4}, {32}, 0, memory, Options(), values.data(), uint32_t{100});
  for (uint32_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], 4 * i);
  EXPECT_EQ(module.kernels(), std::vector<std::string>{"doubles"});
  EXPECT_EQ(module.parameters("doubles"), (std::vector<size_t>{8, 4}));
  for (const LineCount& line : module.coverage("doubles")) EXPECT_GT(line.executed, 0u) << line.text;

  const auto error = [&](auto body) -> std::string {
    try {
      body();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(
      error([&] { module.launch("doubles", {2}, {64}, 0, memory, Options(), values.data(), uint32_t{101}); }),
      HasSubstr("doubles, PTX line 11 (ld.global.u32 %r5, [%rd2];), block (1,0,0), thread (36,0,0): 4 bytes at"));
  EXPECT_THAT(error([&] { memory.add(values.data() + 50, 400); }), HasSubstr("overlaps"));
  memory.add(values.data() + 50, 4);  // within the buffer: one more use of it
  memory.remove(values.data());
  memory.remove(values.data() + 50);
  EXPECT_THAT(error([&] { module.launch("doubles", {1}, {64}, 0, memory, Options(), values.data(), uint32_t{1}); }),
              HasSubstr("out of bounds"));
  EXPECT_THAT(error([&] { Module("nonsense"); }),
              HasSubstr("PTX line 1: \"nonsense\" where a variable or a function was expected"));
  EXPECT_THAT(error([&] { Module("/* no end"); }), HasSubstr("PTX line 1: a comment without an end"));
  EXPECT_THAT(error([&] { Module(".visible .entry k() { add.u32"); }), HasSubstr("the text ends in the middle"));
}

TEST(PtxExecutor, InstructionsGiveWhatTheIsaSays) {
  NEED_PYTHON(python);
  EXPECT_PASSES(run_script(python, "instructions_test.py"));
}

TEST(PtxExecutor, FindsMistakes) {
  NEED_PYTHON(python);
  EXPECT_PASSES(run_script(python, "errors_test.py"));
}

TEST(PtxExecutor, AgreesWithAnotherExecutor) {
  NEED_PYTHON(python);
  const auto peer = testing::data("../tools/ptxvm");
  if (peer.empty())
    GTEST_SKIP() << "needs another executor of PTX, ptxvm, in ../tools of the shared data; set CRUMB_DATA";
  EXPECT_PASSES(run_script(python, "fuzz_test.py " + peer.string()));
}

TEST(PtxExecutor, MultipliesAsCutlassDoes) {
  NEED_PYTHON(python);
  NEED_NVCC();
  const auto headers = testing::source_dir() / ".venv-cutlass/cutlass_library/source/include";
  if (!testing::fs::exists(headers))
    CRUMB_CANNOT_RUN("CRUMB_REQUIRE_PEERS", "needs the headers of CUTLASS in .venv-cutlass (scripts/setup.sh --peers)");
  EXPECT_PASSES(run_script(python, "cutlass_test.py " + headers.string()));
}

class CudaKernels : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Checks, CudaKernels,
                         ::testing::Values("training_kernels", "matmul_kernels", "decoder_kernels"),
                         [](const auto& info) { return std::string(info.param); });

TEST_P(CudaKernels, GiveWhatTheFormulasSay) {
  if (testing::peer_python().empty() && std::getenv("CRUMB_REQUIRE_CUDA") != nullptr)
    FAIL() << "needs numpy in .venv-peers (scripts/setup.sh --peers) (CRUMB_REQUIRE_CUDA)";
  NEED_PYTHON(python);
  NEED_NVCC();
  EXPECT_PASSES(run_script(python, GetParam() + std::string(".py")));
}

}  // namespace
}  // namespace crumb::ptx
