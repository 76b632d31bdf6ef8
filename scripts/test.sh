#!/usr/bin/env bash
# Installs what is missing, builds, runs every test: first everything, then the parts that need no LibTorch alone, under the address and
# undefined-behaviour sanitizers.
#   scripts/test.sh [--quick]      --quick: without the second build
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --peers
scripts/build.sh release
ctest --test-dir build --output-on-failure
if [ "${1:-}" != "--quick" ]; then
  scripts/build.sh asan
  ctest --test-dir build-asan --output-on-failure
fi
