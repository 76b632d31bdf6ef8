#!/usr/bin/env bash
# Builds the kernels for 64-bit Arm by Debian's cross compiler and runs their tests under qemu-user: on a processor with every extension,
# then what depends on the choice of instructions on one that has none.
#   scripts/test_arm.sh        after scripts/setup.sh --peers
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/build.sh arm --targets kernels_tests
ctest --test-dir build-arm --output-on-failure
qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu build-arm/bin/kernels_tests --gtest_also_run_disabled_tests --gtest_filter='*PrintsTheChoice' | grep 'chosen: neon_i8mm'
qemu-aarch64 -cpu cortex-a53 -L /usr/aarch64-linux-gnu build-arm/bin/kernels_tests --gtest_brief=1 --gtest_filter='*CodeMatmul*:IsaObjects.*'
