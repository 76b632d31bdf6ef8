#!/usr/bin/env bash
# The table of SmolLM2-135M-Instruct in docs/results.md: what round-to-nearest and ordinary GGUF types cost on a model with real outliers.
#
#   scripts/measure_smollm2.sh OUT WIKITEXT [MAX_WINDOWS]      default 40 windows of 512; the model comes from scripts/models.sh
#
# Finished parts of OUT are not made again.
set -euo pipefail
out=$1 wikitext=$2 windows=${3:-40}
cd "$(dirname "$0")/.."
crumb=build/bin/crumb
model=models/SmolLM2-135M-Instruct
mkdir -p "$out/reports"

rows=("the GGUF it comes in (Q4_1)=$model.Q4_1.gguf")
# quantized LABEL NAME OPTION ...
quantized() {
  local label=$1 name=$2
  shift 2
  [ -d "$out/$name" ] || $crumb quantize $model --method rtn "$@" -o "$out/$name" > "$out/$name.txt"
  rows+=("$label=$out/$name")
}
quantized "INT8 round to nearest, one scale a row" int8 --grid int --bits 8
quantized "INT4 round to nearest, one scale a row" int4 --grid int --bits 4
quantized "INT4 round to nearest, one scale per 32" int4-g32 --grid int --bits 4 --group-size 32
quantized "2-bit SEQ round to nearest, absmax" seq-absmax --grid seq --init absmax
quantized "2-bit SEQ round to nearest, mse" seq-mse --grid seq --init mse
for type in q8_0 q4_0; do
  [ -e "$out/$type.gguf" ] || $crumb export $model --to gguf-$type -o "$out/$type.gguf" > "$out/$type.txt"
  rows+=("gguf-$type=$out/$type.gguf")
done

reports=()
for row in "${rows[@]}"; do
  report="$out/reports/$(basename "${row##*=}").json"
  [ -e "$report" ] || { $crumb eval "${row##*=}" --baseline $model --text "$wikitext" --context 512 --max-windows "$windows" --json > "$report.part"; mv "$report.part" "$report"; }
  reports+=("${row%%=*}=$report")
done
python3 scripts/drop_table.py "${reports[@]}"
