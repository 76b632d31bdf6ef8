#!/usr/bin/env bash
# Runs Crumb on a machine with an NVIDIA GPU from what scripts/gpu_bundle.sh packed. Needs bash, and a Python with torch (PYTHON, default python3).
#
#   gpu_check.sh receive                  join the parts of gpu-bundle/ that have arrived; check and unpack what is whole
#   gpu_check.sh info                     the machine, its torch, and whether everything loads
#   gpu_check.sh tests [TEST ...]         the tests that touch Torch; those that need a GPU fail without one
#   gpu_check.sh generate                 `crumb generate`, `eval` and `bench --device cuda` of two small models quantized here, beside the CPU's
#   gpu_check.sh train [MINUTES] [OPTION ...] [KEY=VALUE ...]
#       trains to 2 bits for that long (default 5, evaluation not counted), a checkpoint a minute, then evaluates the best model so far.
#       --model PATH   default the GGUF of the bundle          --text A,B   default the bundle's prose and technical text
#       KEY=VALUE      settings of the job, such as schedule.micro_batch=4
#   gpu_check.sh run COMMAND ...          any command, with CRUMB the program and UNPACKED the folder of texts, models, configs and scripts, such as
#       gpu_check.sh run bash -c '$UNPACKED/scripts/measure_starts.sh $UNPACKED/models/*.gguf out $UNPACKED/data/text/tech-train.txt ...'
#
# --device cpu (tests, generate, train) rehearses without a GPU. Logs and numbers go to $OUT, default ./gpu-results, as a few flat files; what was
# trained stays in gpu-bundle/runs. The exit code is not 0 when anything failed.
#
# How long to train is measured: a first run of some steps gives tokens a second, from which follow schedule.tokens (so that the learning rate
# ends with the time), and the steps between checkpoints. A run that is late all the same is stopped by SIGTERM and judged as it is.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case "$here" in
  */part-[0-9]*) bundle=$(dirname "$here") ;;
  *) bundle=$(dirname "$here")/gpu-bundle ;;     # scripts/ of a checkout
esac
python=${PYTHON:-python3}
results=${OUT:-$PWD/gpu-results}
unpacked=$bundle/unpacked
mkdir -p "$results"

say() { echo "gpu_check: $*" | tee -a "$results/summary.txt"; }
die() { say "$*"; exit 1; }

receive() {
  "$python" - "$bundle" << 'PYTHON'
import glob, hashlib, os, shutil, sys, tarfile
bundle = sys.argv[1]
def sha(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
lists = sorted(glob.glob(f"{bundle}/part-*/list.txt"))
if not lists:
    sys.exit(f"gpu_check: no parts in {bundle}")
if len({open(path).read() for path in lists}) > 1:
    sys.exit(f"gpu_check: the parts in {bundle} are of different bundles; copy them again")
rows = [line.split(" ", 3) for line in open(lists[0]).read().splitlines()]
pieces = {name: digest for kind, digest, _, name in rows if kind == "piece"}
missing = []
for kind, digest, count, name in rows:
    if kind != "whole":
        continue
    stamp = f"{bundle}/unpacked/.{name}.sha256"
    if os.path.exists(stamp) and open(stamp).read() == digest:
        continue
    found = []
    for i in range(1, int(count) + 1):
        paths = glob.glob(f"{bundle}/part-*/{glob.escape(name)}.{i}")
        if not paths:
            missing.append(f"{name}.{i}")
        elif sha(paths[0]) != pieces[f"{name}.{i}"]:
            sys.exit(f"gpu_check: {paths[0]} is damaged (sha256): copy it again")
        else:
            found.append(paths[0])
    if len(found) < int(count):
        continue
    os.makedirs(f"{bundle}/unpacked/models", exist_ok=True)
    joined = f"{bundle}/unpacked/models/{name}"
    with open(joined, "wb") as out:
        for path in found:
            with open(path, "rb") as piece:
                shutil.copyfileobj(piece, out)
    if sha(joined) != digest:
        sys.exit(f"gpu_check: {name} is damaged when joined (sha256)")
    if name.endswith(".tar.xz"):
        with tarfile.open(joined, "r:xz") as archive:
            archive.extractall(f"{bundle}/unpacked", filter="tar")
        os.remove(joined)
    open(stamp, "w").write(digest)
    print(f"gpu_check: {name} is whole")
if missing:
    print(f"gpu_check: still to come: {', '.join(missing)}")
PYTHON
}

# Libraries of the torch that Python sees; those of the bundle; a newer libstdc++ where this machine's is too old.
prepare() {
  receive
  [ -x "$unpacked/bin/crumb" ] || die "the programs have not all arrived in $bundle"
  local torch_libraries
  torch_libraries=$("$python" -c '
import glob, os, torch
site = os.path.dirname(os.path.dirname(torch.__file__))
print(":".join([os.path.join(site, "torch", "lib")] + sorted(glob.glob(os.path.join(site, "nvidia", "*", "lib")))))') ||
    die "$python has no torch: set PYTHON"
  export LD_LIBRARY_PATH=$unpacked/lib:$torch_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  if ! "$unpacked/bin/crumb" --version > /dev/null 2>&1; then export LD_LIBRARY_PATH=$unpacked/lib-if-old:$LD_LIBRARY_PATH; fi
  "$unpacked/bin/crumb" --version > /dev/null || die "crumb does not start on this machine (above)"
  export CRUMB_DATA=$unpacked/data CRUMB_SOURCE_DIR=$unpacked CRUMB_BINARY_DIR=$unpacked CRUMB_CACHE=$bundle/cache
}

info() {
  { nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader 2> /dev/null || echo "no nvidia-smi"; } |
    while read -r line; do say "GPU: $line"; done
  say "$("$python" -c '
import sys, torch
print(f"python {sys.version.split()[0]}, torch {torch.__version__}, sees a GPU: {torch.cuda.is_available()}")')"
  say "crumb $("$unpacked/bin/crumb" --version), $(getconf GNU_LIBC_VERSION), $(nproc) processors"
}

run_tests() {
  [ $# -gt 0 ] || set -- kernels_tests model_tests qat_tests train_tests distill_tests cli_train_tests
  if [ "$device" = cuda ]; then export CRUMB_REQUIRE_CUDA=1; fi
  export CRUMB_REQUIRE_DATA=1
  local failed=0 raw
  raw=$(mktemp -d)
  for name in "$@"; do
    [ -x "$unpacked/bin/$name" ] || die "no test $name in the bundle"
    echo "== $name" >> "$results/tests.log"
    (cd "$unpacked" && timeout 300 "bin/$name" --gtest_output="json:$raw/$name.json") >> "$results/tests.log" 2>&1 || failed=1
    [ -e "$raw/$name.json" ] || { say "$name did not end: $(tail -n 1 "$results/tests.log")"; failed=1; }
  done
  "$python" - "$raw" "$results/tests.json" << 'PYTHON' | tee -a "$results/summary.txt"
import glob, json, os, sys
out = {}
for path in sorted(glob.glob(f"{sys.argv[1]}/*.json")):
    cases = [(f"{suite['name']}.{case['name']}", case) for suite in json.load(open(path))["testsuites"] for case in suite["testsuite"]]
    name = os.path.basename(path)[:-5]
    out[name] = {
        "passed": [n for n, c in cases if c["result"] == "COMPLETED" and "failures" not in c],
        "failed": {n: c["failures"][0]["failure"] for n, c in cases if "failures" in c},
        "skipped": {n: c.get("skipped", [{}])[0].get("message", "") for n, c in cases if c["result"] == "SKIPPED"},
    }
    print(f"gpu_check: {name}: {len(out[name]['passed'])} passed, {len(out[name]['failed'])} failed, {len(out[name]['skipped'])} skipped")
    for n, failure in out[name]["failed"].items():
        print(f"gpu_check:   failed: {n}: {' '.join(failure.split())[:200]}")
json.dump(out, open(sys.argv[2], "w"), indent=1)
PYTHON
  rm -r "$raw"
  return $failed
}

# A number of a JSON file: number FILE KEY
number() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$@"; }

# What the trained model lost on a text: judge NAME TEXT SEPARATOR, with `runs` and `model` of train.
judge() {
  "$unpacked/bin/crumb" eval "$runs/train/model" --baseline "$model" --text "$2" --separator "$3" --context 512 --max-windows 40 --json \
    > "$results/eval-$1.json" 2>> "$results/train.log" || { say "crumb eval failed: $(tail -n 1 "$results/train.log")"; return 1; }
  say "$1: $("$python" - "$results/eval-$1.json" << 'PYTHON'
import json, sys
all_texts = json.load(open(sys.argv[1]))["pooled"]
value = lambda name: all_texts[name]["value"]
print(f"perplexity {value('baseline_perplexity'):.2f} -> {value('perplexity'):.2f},",
      f"KL {value('kl'):.4f} nats/token, top-1 {100 * value('top1'):.1f} %")
PYTHON
)"
}

train() {
  local minutes=5 model="" text=$unpacked/data/text/prose-train.txt,$unpacked/data/text/tech-train.txt settings=()
  while [ $# -gt 0 ]; do
    case "$1" in
      --model) model=$2; shift ;;
      --text) text=$2; shift ;;
      *=*) settings+=("$1") ;;
      *) minutes=$1 ;;
    esac
    shift
  done
  if [ -z "$model" ]; then model=$(ls "$unpacked"/models/*.gguf 2> /dev/null) || die "the GGUF has not all arrived in $bundle; or give --model"; fi
  local job=("$unpacked/bin/crumb" train "$unpacked/configs/qat/seq_w2.yaml" "model=$model" "data.train=[$text]" 'data.separator="\n\x1e\n"'
    "device=$device" data.sequence_length=1024 schedule.batch_tokens=32768 validate.windows=16
    checkpoint.keep=1)
  local runs=$bundle/runs
  mkdir -p "$runs"
  rm -rf "$runs/probe" "$runs/train"

  say "measuring the speed of $(basename "$model") on $device"
  "${job[@]}" "${settings[@]}" output="$runs/probe" validate.windows=1 schedule.tokens="$(probe_tokens "${settings[@]}")" --json \
    > "$runs/probe.json" 2> "$results/train.log" || { tail -n 3 "$results/train.log"; die "the first steps failed: train.log"; }
  local plan
  plan=$("$python" - "$runs/probe/log.jsonl" "$minutes" << 'PYTHON'
import json, statistics, sys
steps = [line for line in map(json.loads, open(sys.argv[1])) if line["step"] > 0]
rate = statistics.median(s["tokens_per_second"] for s in steps[len(steps) // 2:])     # the first steps also start the GPU up
batch = steps[0]["tokens"]
seconds = 60 * float(sys.argv[2])
count = max(4, int(0.9 * seconds * rate / batch))        # a tenth of the time for reading, validating and writing
print(count * batch, max(1, min(count, int(60 * rate / batch))), f"{rate:.0f}")
PYTHON
)
  local tokens every rate
  read -r tokens every rate <<< "$plan"
  say "$rate tokens/s: training $tokens tokens, a checkpoint and a validation every $every steps"
  rm -rf "$runs/probe"
  local code=0
  timeout -s TERM "$(awk -v m="$minutes" 'BEGIN {print int(60 * m + 90)}')" \
    "${job[@]}" "${settings[@]}" output="$runs/train" schedule.tokens="$tokens" checkpoint.every="$every" validate.every="$every" --json \
    > "$results/train.json" 2>> "$results/train.log" || code=$?
  cp "$runs/train/log.jsonl" "$results/" 2> /dev/null || true
  [ $code = 0 ] || say "crumb train ended with $code: $(tail -n 1 "$results/train.log")"
  [ $code != 124 ] || code=0     # stopped in time: what it had is judged
  [ -d "$runs/train/model" ] || die "there is no model to evaluate"
  say "$("$python" - "$runs/train/log.jsonl" << 'PYTHON'
import json, sys
lines = [json.loads(line) for line in open(sys.argv[1])]
values = [line["valid_kl"] for line in lines if "valid_kl" in line]
rates = [line["tokens_per_second"] for line in lines if "tokens_per_second" in line]
print(f"{lines[-1]['step']} steps, {lines[-1]['tokens']} tokens, validation KL {values[0]:.4f} -> {min(values):.4f},",
      f"median {sorted(rates)[len(rates) // 2]:.0f} tokens/s")
if not min(values) < values[0]:
    print("it has not learned anything")
PYTHON
)"
  if tail -n 1 "$results/summary.txt" | grep -q "not learned"; then code=1; fi
  judge wikitext-2 "$unpacked/data/text/wiki.test.raw" '\n\n\n' || code=1
  judge technical "$unpacked/data/text/tech-test.txt" '\n\x1e\n' || code=1
  return $code
}

# Text, perplexity and speed of packed models on the device, beside the CPU with the same roundings. A text may part from the CPU's where two tokens
# are as likely to the last bits, so how far the texts agree is said; perplexities must agree within half a per cent.
generate() {
  local runs=$bundle/runs/generate failed=0 crumb=$unpacked/bin/crumb model form output
  rm -rf "$runs"
  mkdir -p "$runs"
  for form in "stories260K-hf --grid seq --bits 2 --init mse" "tiny1m-hf --grid int --bits 4 --group-size 32" "ref-llama-15m --grid seq --bits 2 --init mse"; do
    model=${form%% *}
    read -ra output <<< "${form#* }"
    "$crumb" quantize "$unpacked/data/models/$model" --method rtn "${output[@]}" -o "$runs/$model" >> "$results/generate.log" 2>&1 || die "crumb quantize failed: generate.log"
    for where in "cpu --activations bf16" "$device --activations bf16"; do
      local name=$model-${where%% *}
      # shellcheck disable=SC2086
      if ! { "$crumb" generate "$runs/$model" --prompt "Once upon a time" --max-tokens 64 --device $where --json > "$runs/$name.text.json" 2>> "$results/generate.log" &&
        "$crumb" eval "$runs/$model" --text "$unpacked/data/text/wiki.valid.raw" --context 128 --max-windows 32 --device $where --cache-type f16 --json > "$runs/$name.eval.json" 2>> "$results/generate.log"; }; then
        say "$name failed: $(tail -n 1 "$results/generate.log")"
        failed=1
        continue 2
      fi
    done
    "$python" - "$runs/$model" "$device" "$results/generate.json" << 'PYTHON' | tee -a "$results/summary.txt" || failed=1
import json, os, sys
start, device, out = sys.argv[1:]
load = lambda where, what: json.load(open(f"{start}-{where}.{what}.json"))
texts = [load(where, "text")["tokens"] for where in ("cpu", device)]
values = [load(where, "eval")["pooled"]["perplexity"]["value"] for where in ("cpu", device)]
same = next((i for i, (a, b) in enumerate(zip(*texts)) if a != b), min(map(len, texts)))
name = os.path.basename(start)
found = json.load(open(out)) if os.path.exists(out) else {}
found[name] = {"tokens": len(texts[0]), "same_tokens": same, "perplexity": dict(zip(("cpu", device), values))}
json.dump(found, open(out, "w"), indent=1)
agrees = abs(values[1] / values[0] - 1) < 5e-3 and same > 0
print(f"gpu_check: {name}: {same} of {len(texts[0])} tokens are the CPU's, perplexity {values[0]:.4f} on the CPU, {values[1]:.4f} on {device}" + ("" if agrees else ": DIFFERENT"))
sys.exit(not agrees)
PYTHON
  done
  "$crumb" bench "full=$unpacked/data/models/ref-llama-15m" "two_bits=$runs/ref-llama-15m" --device "$device" --activations bf16 --prompt 64,256 --context 0,256 -o "$results/generate-bench.md" --force >> "$results/generate.log" 2>&1 ||
    { say "crumb bench failed: $(tail -n 1 "$results/generate.log")"; failed=1; }
  return $failed
}

# Tokens of eight steps of the job with these settings.
probe_tokens() {
  local batch=32768
  for setting in "$@"; do case "$setting" in schedule.batch_tokens=*) batch=${setting#*=} ;; esac; done
  case "$batch" in *k) batch=$((${batch%k} * 1024)) ;; esac
  echo $((8 * batch))
}

verb=${1:-}
[ $# -eq 0 ] || shift
device=cuda rest=()
while [ $# -gt 0 ]; do
  if [ "$1" = --device ]; then device=${2:?--device needs cuda or cpu}; shift; else rest+=("$1"); fi
  shift
done
# In a subshell of its own, so that the first command that fails ends it.
checked() {
  local code=0
  set +e
  (set -e; "$@")
  code=$?
  set -e
  say "$verb: $([ $code = 0 ] && echo ok || echo "FAILED ($code)") after $SECONDS s; results in $results"
  exit $code
}
case "$verb" in
  receive) receive ;;
  info) prepare; info ;;
  tests) prepare; info; checked run_tests "${rest[@]}" ;;
  generate) prepare; info; checked generate ;;
  train) prepare; info; checked train "${rest[@]}" ;;
  run) prepare; export CRUMB=$unpacked/bin/crumb UNPACKED=$unpacked; exec "${rest[@]}" ;;
  *) sed -n '2,23p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
