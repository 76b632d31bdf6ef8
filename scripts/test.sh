#!/usr/bin/env bash
# Installs what is missing, builds, runs every test: first everything, and instruction counts of kernels beside their baseline, then the parts that need no LibTorch built and tested alone, then
# these again by the other compiler (clang) under the address and undefined-behaviour sanitizers, with 20 seconds of made-up inputs for each
# reader, what uses threads under the thread sanitizer, and the kernels for 64-bit Arm under qemu-user.
#   scripts/test.sh [--quick]      --quick: the first of these
# Tests that compare with other programs or need the data set in ../shared/data (CRUMB_DATA) are skipped, and counted, where that is absent.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --peers
export CRUMB_REQUIRE_PEERS=1                                                       # they were just installed: a skip would be a defect
if [ -d "${CRUMB_DATA:-../shared/data}" ]; then export CRUMB_REQUIRE_DATA=1; fi

# run_tests BUILD_FOLDER [CTEST-OPTION ...]
run_tests() {
  local folder=$1
  shift
  ctest --test-dir "$folder" --output-on-failure "$@"
  echo "$folder: $(grep -c '^\[       OK \]' "$folder/Testing/Temporary/LastTest.log") tests passed, $(grep -c '^\[  SKIPPED \] .*(' "$folder/Testing/Temporary/LastTest.log" || true) skipped"
}

scripts/build.sh release -DCRUMB_BENCH=ON
scripts/make_docs.sh --check
scripts/models.sh
export CRUMB_REQUIRE_MODELS=1
cmake --install build --prefix build/installed > /dev/null
build/installed/bin/crumb --version
run_tests build
if command -v nvcc > /dev/null; then
  python3 bench/cuda_resources.py
else
  echo "no nvcc: the CUDA kernels were neither compiled nor, as PTX, executed"
fi
if [ "${1:-}" != "--quick" ]; then
  python3 bench/instructions.py build
  scripts/build.sh no-torch
  run_tests build-no-torch
  checked=(common_tests formats_tests arch_tests tokenizer_tests jinja_tests text_tests kernels_tests quant_tests runtime_tests export_tests eval_tests)
  scripts/build.sh asan --targets "${checked[@]}" fuzz_targets
  run_tests build-asan -R "^($(IFS='|'; echo "${checked[*]}"))$"
  scripts/fuzz.sh --fixed 20
  scripts/build.sh tsan --targets common_tests
  build-tsan/bin/common_tests --gtest_brief=1 --gtest_filter='ThreadPool.*'
  scripts/test_arm.sh
fi
