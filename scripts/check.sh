#!/usr/bin/env bash
# Checks that need no build: format, include layers, rules of the tree.
set -euo pipefail
cd "$(dirname "$0")/.."
git ls-files -z '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run -Werror
python3 scripts/check_layers.py
python3 scripts/check_tree.py
echo "format, layers and tree: ok"
