#!/usr/bin/env bash
# The accuracy tables of docs/results.md: what a model loses by round-to-nearest and by quantization-aware training, and what a peer's
# checkpoints lose, all judged by `crumb eval`.
#
#   scripts/measure_accuracy.sh MODEL OUT TRAIN_TEXTS TEST_TEXTS SEPARATOR WIKITEXT [NAME=PEER_CHECKPOINT ...]
#
# TRAIN_TEXTS, TEST_TEXTS: comma-separated files. Budgets: 100k and 500k tokens, everything else as configs/qat/seq_w2.yaml has it.
set -euo pipefail
model=$1 out=$2 train=$3 test=$4 separator=$5 wikitext=$6
shift 6
crumb=$(dirname "$0")/../build/bin/crumb
config=$(dirname "$0")/../configs/qat/seq_w2.yaml
mkdir -p "$out/reports"

for init in absmax mse; do
  [ -d "$out/rtn-$init" ] || $crumb quantize "$model" --method rtn --grid seq --init $init -o "$out/rtn-$init" > "$out/rtn-$init.txt"
done
for tokens in 102400 499712; do
  $crumb train "$config" model="$model" "data.train=[$train]" "data.separator=\"$separator\"" schedule.tokens=$tokens output="$out/qat-$tokens" > "$out/qat-$tokens.txt"
done

names=(rtn-absmax="$out/rtn-absmax" rtn-mse="$out/rtn-mse" qat-100k="$out/qat-102400/model" qat-500k="$out/qat-499712/model" "$@")
pooled=() wiki=()
for entry in "${names[@]}"; do
  name=${entry%%=*} checkpoint=${entry#*=}
  $crumb eval "$checkpoint" --baseline "$model" --text ${test//,/ } --separator "$separator" --max-windows 96 --json > "$out/reports/$name.json"
  $crumb eval "$checkpoint" --baseline "$model" --text "$wikitext" --json > "$out/reports/$name-wikitext.json"
  pooled+=("$name=$out/reports/$name.json") wiki+=("$name=$out/reports/$name-wikitext.json")
done
printf '\nTest texts, 96 windows spread evenly:\n\n'
python3 "$(dirname "$0")/drop_table.py" "${pooled[@]}"
printf '\nWikitext-2 test, all windows:\n\n'
python3 "$(dirname "$0")/drop_table.py" "${wiki[@]}"
