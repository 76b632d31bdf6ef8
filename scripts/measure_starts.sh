#!/usr/bin/env bash
# What the start of quantization-aware training is worth: one job from several starts, judged by `crumb eval` on two texts.
#
#   scripts/measure_starts.sh MODEL OUT TRAIN TEXT_A TEXT_B [ROW ...]
#
# TRAIN: comma-separated texts. A ROW is START:TOKENS, such as rounded:100k or rotated-gptq:100k; START is one of
#   rounded                                                   first scales by least squares
#   gptq, heads-gptq, rotated-gptq                            64k tokens looked at once before; heads: R2, rotated: R1 and R2
#   blockwise, heads-blockwise, rotated-blockwise             32k tokens, three times
# TOKENS 0: the start itself. Finished parts of OUT are not made again; rows may be made by several processes at once.
# Environment: CRUMB (the program), CONFIGS, CALIBRATION (tokens looked at, instead of those above), SEPARATOR, BATCH (tokens a step, 512), LENGTH (512), WINDOWS (10), DEVICE (auto), THREADS, QUICK=1
# (tokens looked at divided by 32: to see whether everything runs), STAGE: make (no judging), judge (what has been made), or both (default).
set -euo pipefail
model=$1 out=$2 train=$3 text_a=$4 text_b=$5
rows=("${@:6}")
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
crumb=${CRUMB:-$home/build/bin/crumb}
separator=${SEPARATOR:-'\n\x1e\n'}
threads=(--threads "${THREADS:-$(nproc)}")
share=$((${QUICK:-0} == 1 ? 32 : 1))
stage=${STAGE:-both}
[ ${#rows[@]} -gt 0 ] || rows=(rounded:100k rounded:200k gptq:0 gptq:100k rotated-gptq:0 rotated-gptq:100k rotated-blockwise:0 rotated-blockwise:100k)
mkdir -p "$out/reports"

start_of() {  # START: makes OUT/START
  local rotation=()
  case "$1" in
    heads-*) rotation=(rotation.heads=true) ;;
    rotated-*) rotation=(rotation.heads=true rotation.residual=true) ;;
  esac
  local method=${1##*-} tokens=64
  [ "$method" = gptq ] || tokens=32
  [ -d "$out/$1" ] || "$crumb" "${threads[@]}" quantize "$model" --method "$method" -o "$out/$1" masters=true "${rotation[@]}" \
    "calibration.text=[$train]" "calibration.separator=\"$separator\"" "calibration.tokens=${CALIBRATION:-$((tokens * 1024 / share))}" "calibration.sequence_length=512" \
    > "$out/$1.txt" 2> "$out/$1.log" || { tail -n 1 "$out/$1.log" >&2; return 1; }
}

row_of() {  # START:TOKENS: makes OUT/START and OUT/START-TOKENS, sets `judged`
  local start=${1%:*} tokens=${1#*:} init=mse
  if [ "$start" != rounded ]; then
    [ "$stage" = judge ] || start_of "$start"
    init=$out/$start judged=$out/$start
  fi
  if [ "$tokens" = 0 ]; then return; fi
  judged=$out/$start-$tokens/last
  [ -d "$judged" ] || [ "$stage" = judge ] || "$crumb" train "${CONFIGS:-$home/configs}/qat/seq_w2.yaml" "model=$model" "method.init=$init" "data.train=[$train]" \
    "data.separator=\"$separator\"" "data.sequence_length=${LENGTH:-512}" "schedule.tokens=$tokens" "schedule.batch_tokens=${BATCH:-512}" validate.every=1000 \
    validate.windows=4 "device=${DEVICE:-auto}" "threads=${threads[1]}" "output=$out/$start-$tokens" --quiet \
    > "$out/$start-$tokens.txt" 2> "$out/$start-$tokens.log" || { tail -n 1 "$out/$start-$tokens.log" >&2; return 1; }
}

judge() {  # NAME FOLDER TEXT LETTER
  local report=$out/reports/$1-$4.json
  [ -e "$report" ] || { "$crumb" "${threads[@]}" eval "$2" --baseline "$model" --text "$3" --separator "$separator" --context 512 \
    --max-windows "${WINDOWS:-10}" --json > "$report.part" 2> "$report.log" && mv "$report.part" "$report"; }
}

a=() b=()
for row in "${rows[@]}"; do
  judged=""
  row_of "$row" || continue
  [ -n "$judged" ] || { echo "$row: rounding alone is not a row; see docs/results.md" >&2; exit 2; }
  name=${row/:/-}
  [ "$stage" != make ] && [ -d "$judged" ] || continue
  judge "$name" "$judged" "$text_a" a && a+=("$name=$out/reports/$name-a.json")
  judge "$name" "$judged" "$text_b" b && b+=("$name=$out/reports/$name-b.json")
done
[ ${#a[@]} -gt 0 ] || exit 0
for text in a b; do
  list="$text[@]"
  path=$text_a
  [ $text = a ] || path=$text_b
  echo "$(basename "$path"), ${WINDOWS:-10} windows of 512:"
  python3 "$home/scripts/drop_table.py" "${!list}"
done
