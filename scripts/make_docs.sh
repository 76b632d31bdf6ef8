#!/usr/bin/env bash
# Writes docs/config.md from the option structs of a build. --check: fails instead if the page is out of date.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "${1:-}" = --check ]; then
  build/bin/config_docs | diff -u docs/config.md - || { echo "docs/config.md is out of date: run scripts/make_docs.sh" >&2; exit 1; }
else
  build/bin/config_docs > docs/config.md
fi
