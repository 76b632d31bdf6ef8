#!/usr/bin/env bash
# The tables of docs/ptq.md: methods of `crumb quantize` on one model, judged by `crumb eval` on two texts.
#
#   scripts/measure_ptq.sh MODEL OUT CALIBRATION TEXT_A TEXT_B [MAX_WINDOWS] [TOKENS] [SEPARATOR] [ROW ...]
#
# CALIBRATION: comma-separated texts. ROWs choose lines of the table below by name (default: all). Finished parts of OUT are not made again.
# Environment: CRUMB (the program), GROUP (group_size of the rows with wide groups, 64), THREADS, CONTEXT (512), STAGE: make (no judging) or both (default).
set -euo pipefail
model=$1 out=$2 calibration=$3 text_a=$4 text_b=$5 windows=${6:-20} tokens=${7:-64k} separator=${8:-'\n\n\n'}
[ $# -le 8 ] && rows=() || rows=("${@:9}")
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
crumb=(${CRUMB:-$home/build/bin/crumb} --threads "${THREADS:-$(nproc)}")
mkdir -p "$out/reports"

names=() known=""
# row NAME OPTION ...
row() {
  local name=$1
  shift
  known+=" $name"
  if [ ${#rows[@]} -gt 0 ] && [[ ! " ${rows[*]} " == *" $name "* ]]; then return; fi
  if [ ! -d "$out/$name" ]; then
    "${crumb[@]}" quantize "$model" -o "$out/$name" "calibration.text=[$calibration]" "calibration.separator=\"$separator\"" "calibration.tokens=$tokens" "$@" \
      > "$out/$name.txt" 2> "$out/$name.log" || { tail -n 1 "$out/$name.log"; return 0; }
  fi
  names+=("$name")
}
group=${GROUP:-64}
for grid in int4:g32:"--grid int --bits 4 --group-size 32" int4asym:g32:"--grid int --bits 4 --group-size 32 method.symmetric=false" int4min:g32:"--grid int --bits 4 --group-size 32 method.symmetric=false method.zero_point=float" "int4:g$group:--grid int --bits 4 --group-size $group" "int3:g$group:--grid int --bits 3 --group-size $group" \
  "int2:g$group:--grid int --bits 2 --group-size $group" "seq2:row:--grid seq"; do
  options=${grid#*:*:} label=$(echo "$grid" | cut -d: -f1,2 | tr : -)
  # shellcheck disable=SC2086
  {
    row "rtn-absmax-$label" --method rtn --init absmax $options
    row "rtn-mse-$label" --method rtn $options
    row "rtn-weighted-$label" --method rtn method.importance=activations $options
    row "hqq-$label" --method hqq $options
    row "gptq-$label" --method gptq $options
    row "awq-$label" --method awq $options
    row "autoround-$label" --method autoround $options
    row "blockwise-$label" --method blockwise $options
    row "rotated-rtn-$label" --method rtn $options rotation.residual=true rotation.heads=true
    row "rotated-gptq-$label" --method gptq $options rotation.residual=true rotation.heads=true
    row "heads-gptq-$label" --method gptq $options rotation.heads=true
    row "rotated-blockwise-$label" --method blockwise $options rotation.residual=true rotation.heads=true
  }
done
row "rtn-int8-row" --method rtn --grid int --bits 8
row "rtn-fp8-row" --method rtn --grid fp8 --bits 8
row "rtn-w8a8" --method rtn --grid int --bits 8 activations.grid=int
row "smoothquant-w8a8" --method smoothquant --grid int --bits 8 activations.grid=int
row "smoothquant-half-w8a8" --method smoothquant --grid int --bits 8 activations.grid=int method.alpha=0.5
row "fp8-dynamic" --method rtn --grid fp8 --bits 8 activations.grid=fp8
row "gptq-ternary-row" --method gptq --grid ternary
for amount in half:"pruning.sparsity=0.5" 2of4:"pruning.pattern=2:4"; do
  label=${amount%%:*} option=${amount#*:}
  row "magnitude-$label-int8" --method rtn --grid int --bits 8 method.importance=activations pruning.method=magnitude "$option"
  row "wanda-$label-int8" --method rtn --grid int --bits 8 method.importance=activations pruning.method=wanda "$option"
  row "wanda-gptq-$label-int8" --method gptq --grid int --bits 8 pruning.method=wanda "$option"
  row "sparsegpt-$label-int8" --method gptq --grid int --bits 8 pruning.method=sparsegpt "$option"
  row "sparsegpt-$label-int4-g32" --method gptq --grid int --bits 4 --group-size 32 pruning.method=sparsegpt "$option"
done
for name in ${rows[@]+"${rows[@]}"}; do
  [[ "$known " == *" $name "* ]] || { echo "no row is called $name; there are:$known" >&2; exit 2; }
done
[ ${#names[@]} -gt 0 ] && [ "${STAGE:-both}" != make ] || exit 0

judge() {  # TEXT NAME
  local report="$out/reports/$2-$3.json"
  [ -e "$report" ] || { "${crumb[@]}" eval "$out/$2" --baseline "$model" --text "$1" --separator "$separator" --context "${CONTEXT:-512}" --max-windows "$windows" --json > "$report.part" && mv "$report.part" "$report"; }
}
for text in a b; do
  path=$text_a
  [ $text = a ] || path=$text_b
  reports=()
  for name in "${names[@]}"; do
    judge "$path" "$name" $text
    reports+=("$name=$out/reports/$name-$text.json")
  done
  echo "$(basename "$path"), $windows windows of ${CONTEXT:-512}:"
  python3 "$home/scripts/drop_table.py" "${reports[@]}"
done
