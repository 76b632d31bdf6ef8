#!/usr/bin/env bash
# Configures and builds one preset of CMakePresets.json: release (default, into build/), debug, no-torch, clang, asan, tsan,
# arm, cuda.
#   scripts/build.sh [PRESET] [CMAKE-OPTION ...] [--targets TARGET ...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -gt 0 ] && shift
options=() targets=()
while [ $# -gt 0 ]; do
  if [ "$1" = --targets ]; then shift; targets=(--target "$@"); break; fi
  options+=("$1")
  shift
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT
cmake --preset "$preset" "${options[@]}" > "$log" 2>&1 || { cat "$log" >&2; exit 1; }
cmake --build --preset "$preset" "${targets[@]}"
