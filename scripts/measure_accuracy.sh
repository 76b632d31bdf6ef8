#!/usr/bin/env bash
# The accuracy tables of docs/results.md: what a model loses by round-to-nearest, by quantization-aware training at two budgets, and in the
# files exported from it, beside a PyTorch script that trains on the same texts; everything judged by `crumb eval`.
#
#   scripts/measure_accuracy.sh MODEL OUT TRAIN_TEXTS TEST_TEXTS SEPARATOR WIKITEXT [PEER_PYTHON PEER_SCRIPT]
#
# TRAIN_TEXTS, TEST_TEXTS: comma-separated files. Budgets: 100k and 500k tokens in windows of 512, everything else as configs/qat/seq_w2.yaml
# has it. PEER_SCRIPT takes the options of a script that follows ParetoQ's released code (--model --train --steps --batch --lr --loss --init
# --save): it runs as released (absmax start, cross-entropy) and in its strongest variant (least-squares start, KL to itself), 8 windows a
# step, learning rate 3e-4. Finished parts of OUT are not made again.
set -euo pipefail
model=$1 out=$2 train=$3 test=$4 separator=$5 wikitext=$6 python=${7:-} peer=${8:-}
crumb=$(dirname "$0")/../build/bin/crumb
config=$(dirname "$0")/../configs/qat/seq_w2.yaml
mkdir -p "$out/reports"

rows=()
for init in absmax mse; do
  [ -d "$out/rtn-$init" ] || $crumb quantize "$model" --method rtn --grid seq --init $init -o "$out/rtn-$init" > "$out/rtn-$init.txt"
  rows+=("round to nearest, $init=$out/rtn-$init")
done
for budget in 100k:102400:25 500k:499712:122; do
  IFS=: read -r name tokens steps <<< "$budget"
  $crumb train "$config" model="$model" "data.train=[$train]" "data.separator=\"$separator\"" data.sequence_length=512 schedule.tokens="$tokens" \
    output="$out/qat-$name" > "$out/qat-$name.txt"
  rows+=("crumb train, $name tokens=$out/qat-$name/model")
  if [ -n "$peer" ]; then
    for variant in "released recipe:absmax:ce" "strongest variant:mse:kl"; do
      IFS=: read -r label init loss <<< "$variant"
      folder=$out/peer-$init-$loss-$name
      [ -d "$folder" ] || "$python" "$peer" --model "$model" --train ${train//,/ } --eval "${train%%,*}" --eval-windows 1 --steps "$steps" --batch 8 \
        --seq 512 --lr 3e-4 --init $init --loss $loss --save "$folder" > "$folder.txt"
      rows+=("PyTorch, $label, $name tokens=$folder")
    done
  fi
done
for target in gguf-q2_k gguf-q2_0c hf-bf16; do
  file=$out/qat-500k-$target
  [ "${target#gguf}" = "$target" ] || file=$file.gguf
  [ -e "$file" ] || $crumb export "$out/qat-500k/model" --to $target -o "$file" > "$out/export-$target.txt"
  rows+=("crumb train, 500k tokens, as $target=$file")
done

# judge SUFFIX EVAL-OPTION ...   One report a row; prints the table.
judge() {
  local suffix=$1 reports=()
  shift
  for row in "${rows[@]}"; do
    local report="$out/reports/$(echo "${row%%=*}" | tr ' ,' '--')$suffix.json"
    [ -e "$report" ] || { $crumb eval "${row##*=}" --baseline "$model" --context 512 --json "$@" > "$report.part"; mv "$report.part" "$report"; }
    reports+=("${row%%=*}=$report")
  done
  python3 "$(dirname "$0")/drop_table.py" "${reports[@]}"
}
printf '\nTest texts, 96 windows spread evenly:\n\n'
judge "" --text ${test//,/ } --separator "$separator" --max-windows 96
printf '\nWikitext-2 test, 100 windows spread evenly:\n\n'
judge -wikitext --text "$wikitext" --max-windows 100
