#!/usr/bin/env bash
# Installs what is missing, builds, runs every test: first everything, then the parts that need no LibTorch built and tested alone.
#   scripts/test.sh [--quick]      --quick: without the second build
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --peers
scripts/build.sh release
ctest --test-dir build --output-on-failure
if [ "${1:-}" != "--quick" ]; then
  scripts/build.sh no-torch
  ctest --test-dir build-no-torch --output-on-failure
fi
