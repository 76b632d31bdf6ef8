#!/usr/bin/env bash
# Feeds made-up inputs to everything that reads a file of others (tests/fuzz), under the address and undefined-behaviour sanitizers; as many
# targets at once as there are processors. An input that ends otherwise than in a clear error is a finding: it is kept, and the exit code is 1.
#   scripts/fuzz.sh [--fixed] [SECONDS] [TARGET ...]    default: 60 seconds each of all targets: safetensors gguf tokenizer config
#                                                       quantization_config yaml text jinja token_file imatrix
# Goes on from the inputs that earlier runs found worth keeping (build-asan/fuzz/corpus); --fixed: a fixed seed, and the small files alone.
set -euo pipefail
cd "$(dirname "$0")/.."
fixed=0 seconds=60
if [ "${1:-}" = --fixed ]; then fixed=1; shift; fi
if [[ "${1:-}" =~ ^[0-9]+$ ]]; then seconds=$1; shift; fi
targets=("$@")
[ $# -gt 0 ] || targets=(safetensors gguf tokenizer config quantization_config yaml text jinja token_file imatrix)

scripts/build.sh asan --targets fuzz_targets
work=build-asan/fuzz
rm -rf "$work/seeds"
mkdir -p "$work/findings"
build-asan/bin/fuzz_seeds "$work/seeds"

# run_target NAME   One line when all is well, the end of the log otherwise.
run_target() {
  local name=$1 corpus=$work/corpus/$1 log=$work/$1.log seed=0
  if [ "$fixed" = 1 ]; then corpus=$work/corpus-fixed/$1 seed=1; rm -rf "$corpus"; fi
  mkdir -p "$corpus"
  local scratch
  scratch=$(mktemp -d)
  local ok=1
  TMPDIR=$scratch UBSAN_OPTIONS=print_stacktrace=1 "build-asan/bin/fuzz_$name" -seed="$seed" -max_total_time="$seconds" -timeout=25 \
    -rss_limit_mb=2048 -malloc_limit_mb=512 -max_len=65536 -print_final_stats=1 -artifact_prefix="$work/findings/$name-" \
    "$corpus" "$work/seeds/$name" > "$log" 2>&1 || ok=0
  rm -rf "$scratch"
  if [ "$ok" = 0 ]; then
    echo "fuzz: $name: a finding; its input is in $work/findings, the log in $log" >&2
    tail -n 60 "$log" >&2
    return 1
  fi
  echo "fuzz: $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, $(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1) branches, no finding"
}
export -f run_target
export work fixed seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I '{}' bash -euo pipefail -c 'run_target {}'
