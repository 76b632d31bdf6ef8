// crumb tokenize, as a user sees it.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/testing/testing.h"

namespace crumb {
namespace {

#define NEED_PROGRAM()                          \
  if (!testing::fs::exists(testing::program())) \
  GTEST_SKIP() << "needs the program " << testing::program() << " (build the target crumb)"

TEST(TokenizeVerb, PrintsIdsAndPiecesAsJson) {
  NEED_PROGRAM();
  CRUMB_NEED_DATA(model, "tokenizers/ggml-vocabs/ggml-vocab-llama-spm.gguf");
  const auto result = testing::run_crumb("tokenize " + model.string() + " 'Hello World' --pieces");
  EXPECT_EQ(result.exit_code, 0) << result.err;
  EXPECT_EQ(result.out, "{\"ids\":[1,15043,2787],\"pieces\":[\"<s>\",\"\u2581Hello\",\"\u2581World\"]}\n");
}

TEST(TokenizeVerb, ReadsFilesStandardInputAndLines) {
  NEED_PROGRAM();
  CRUMB_NEED_DATA(model, "tokenizers/gpt2-hf-json");
  const testing::TempDir dir;
  testing::write_file(dir / "t.txt", "Hello\nHello World");
  const std::string file = (dir / "t.txt").string();
  EXPECT_EQ(testing::run_crumb("tokenize " + model.string() + " --file " + file).out,
            "{\"ids\":[15496,198,15496,2159]}\n");
  EXPECT_EQ(testing::run_command(testing::program().string() + " tokenize " + model.string() + " < " + file).out,
            "{\"ids\":[15496,198,15496,2159]}\n");
  EXPECT_EQ(testing::run_crumb("tokenize " + model.string() + " --lines --file " + file).out,
            "{\"ids\":[15496]}\n{\"ids\":[15496,2159]}\n");
}

TEST(TokenizeVerb, LeavesOutSpecialTokensWhenAskedTo) {
  NEED_PROGRAM();
  CRUMB_NEED_DATA(model, "models/stories260K/tok512.bin");
  EXPECT_EQ(testing::run_crumb("tokenize " + model.string() + " Once").out, "{\"ids\":[1,403]}\n");
  EXPECT_EQ(testing::run_crumb("tokenize " + model.string() + " Once --no-special").out, "{\"ids\":[403]}\n");
}

TEST(TokenizeVerb, AResultThatCannotBeWrittenIsAFailure) {
  NEED_PROGRAM();
  CRUMB_NEED_DATA(model, "models/stories260K/tok512.bin");
  const auto result =
      testing::run_command(testing::program().string() + " tokenize " + model.string() + " Once > /dev/full");
  EXPECT_EQ(result.exit_code, kExitRun);
  EXPECT_EQ(result.err, "crumb: cannot write to standard output: No space left on device\n");
}

TEST(TokenizeVerb, TheNumberOfThreadsHasALimit) {
  NEED_PROGRAM();
  const auto result = testing::run_crumb("tokenize nothing --threads 3000");
  EXPECT_EQ(result.exit_code, kExitUser);
  EXPECT_NE(result.err.find("3000 not in range"), std::string::npos) << result.err;
}

TEST(TokenizeVerb, AMissingModelIsTheUsersMistake) {
  NEED_PROGRAM();
  const auto result = testing::run_crumb("tokenize /nonexistent text");
  EXPECT_EQ(result.exit_code, kExitUser);
  EXPECT_EQ(result.err, "crumb: /nonexistent: no such file or folder\n");
}

}  // namespace
}  // namespace crumb
