#!/usr/bin/env bash
# The whole job on the bundled model: sample a training text from it, train it to 2 bits on that text, export, evaluate the files, print
# what was lost. Needs nothing but the package registries; under ten minutes on two cores besides downloads and the build.
#   scripts/demo.sh [OUTPUT_FOLDER]        default runs/demo; a folder of an earlier demo is replaced
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/demo}
teacher=examples/teacher
mark=.crumb-demo

if [ -e "$out" ] && [ ! -e "$out/$mark" ] && [ -n "$(ls -A "$out")" ]; then
  echo "demo: $out holds something else; give another folder" >&2
  exit 2
fi
scripts/setup.sh
scripts/build.sh release --targets crumb
crumb=build/bin/crumb
if [ -e "$out/$mark" ]; then echo "demo: replacing the earlier demo in $out"; fi
rm -rf "$out"
mkdir -p "$out/reports"
touch "$out/$mark"
SECONDS=0

step() { printf '\n== %s\n' "$1"; shift; run "$@"; }
run() { echo "   $*"; "$@"; }

step "Text from the model itself: 256k tokens to train on, 24k other ones to judge by" \
  $crumb generate $teacher --corpus 256k --seed 0 --out "$out/train.jsonl"
run $crumb generate $teacher --corpus 24k --seed 1 --out "$out/heldout.jsonl"

step "Round-to-nearest, for comparison" \
  $crumb quantize $teacher --method rtn --grid seq --init absmax -o "$out/rtn-absmax"
run $crumb quantize $teacher --method rtn --grid seq --init mse -o "$out/rtn-mse"

step "Quantization-aware training" \
  $crumb train configs/qat/seq_w2.yaml model=$teacher "data.train=[$out/train.jsonl]" output="$out/qat"

step "Export: 2-bit GGUF for llama.cpp, GGUF with Tencent's 2-bit type, bf16 for transformers" \
  $crumb export "$out/qat/model" --to gguf-q2_k -o "$out/model-q2_k.gguf"
run $crumb export "$out/qat/model" --to gguf-q2_0c -o "$out/model-q2_0c.gguf"
run $crumb export "$out/qat/model" --to hf-bf16 -o "$out/model-bf16"

printf '\n== What was lost, on held-out samples and on this project'\''s own documentation\n'
rows=()
for model in rtn-absmax rtn-mse qat/model model-q2_k.gguf model-q2_0c.gguf model-bf16; do
  report="$out/reports/${model//\//-}.json"
  echo "   $crumb eval $out/$model --baseline $teacher --text $out/heldout.jsonl README.md docs/*.md"
  $crumb eval "$out/$model" --baseline $teacher --text "$out/heldout.jsonl" README.md docs/*.md --json > "$report"
  rows+=("$model=$report")
done
echo
python3 scripts/drop_table.py "${rows[@]}" --below rtn-mse qat/model model-q2_k.gguf model-q2_0c.gguf model-bf16

step "The 2-bit file at work" $crumb generate "$out/model-q2_k.gguf" --prompt "The server" --max-tokens 40 --temperature 0.8 --seed 1
printf '\nThe job took %d min %d s. Its files are in %s.\n' $((SECONDS / 60)) $((SECONDS % 60)) "$out"
