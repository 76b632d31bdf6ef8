#!/usr/bin/env bash
# Builds and runs bench/cuda_facts.cu: what this GPU's memory, issue ports and libraries do, in at most two minutes.
#
#   bench/cuda_facts.sh OUTDIR [SECTION ...]     sections: ceilings cublas facts skinny fake_quant
#   bench/cuda_facts.sh --build                  only builds build-cuda/cuda_facts, for a machine without nvcc
#
# Needs nvcc, or build-cuda/cuda_facts from an earlier --build of the same sources. cuBLASLt is looked for in the Python environment of
# PYTHON (default python3) and by the loader. Writes cuda_facts.md, .json, .tsv, .log and clocks.csv to OUTDIR.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
binary=$root/build-cuda/cuda_facts
sources=("$here/cuda_facts.cu" "$here/cuda_facts_kernels.cuh")
[ $# -ge 1 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }

digest() { cat "${sources[@]}" | sha256sum | cut -d' ' -f1; }
is_current() { [ -x "$binary" ] && [ "$(cat "$binary.sha256" 2> /dev/null)" = "$(digest)" ]; }

build() {
  local nvcc
  nvcc=$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc) || { echo "cuda_facts: no nvcc, and $binary was not built from these sources; run --build where nvcc is"; exit 1; }
  mkdir -p "$root/build-cuda"
  rm -f "$binary.sha256"
  if ! "$nvcc" -std=c++17 -O2 -gencode arch=compute_90a,code=sm_90a -I "$root" -o "$binary" "$here/cuda_facts.cu" -ldl > "$binary.log" 2>&1; then
    tail -20 "$binary.log"
    echo "cuda_facts: nvcc failed; see $binary.log"
    exit 1
  fi
  digest > "$binary.sha256"
}

is_current || build
[ "$1" != --build ] || { echo "cuda_facts: built $binary"; exit 0; }

out=$1
shift
mkdir -p "$out"
# The library lies in the wheel of torch's CUDA; asking the package's path imports nothing.
CUDA_FACTS_CUBLASLT=$("${PYTHON:-python3}" -c '
import glob, nvidia
print(next((f for p in nvidia.__path__ for f in sorted(glob.glob(p + "/*/lib/libcublasLt.so.13"))), ""))' 2> /dev/null || true)
export CUDA_FACTS_CUBLASLT

watcher=
if command -v nvidia-smi > /dev/null; then  # reads the clocks, changes nothing
  nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv -lms 1000 > "$out/clocks.csv" 2>&1 &
  watcher=$!
  trap 'kill "$watcher" 2> /dev/null || true' EXIT
fi
code=0
timeout 150 "$binary" "$out" "$@" 2>&1 | tee "$out/cuda_facts.log" || code=$?
exit "$code"
