#!/usr/bin/env bash
# Configures and builds one preset of CMakePresets.json: release (default, into build/), debug, asan, no-torch, cuda.
#   scripts/build.sh [PRESET] [CMAKE-OPTION ...]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -gt 0 ] && shift
cmake --preset "$preset" "$@" > "/tmp/crumb-configure-$$.log" 2>&1 || { cat "/tmp/crumb-configure-$$.log" >&2; rm -f "/tmp/crumb-configure-$$.log"; exit 1; }
rm -f "/tmp/crumb-configure-$$.log"
cmake --build --preset "$preset"
