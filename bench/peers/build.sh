#!/usr/bin/env bash
# Builds stock llama.cpp for this very CPU, as the peer of bench/peers/compare.py: the sources come from the sdist of llama-cpp-python on PyPI
# (pinned, its sha256 checked), the tools end up in FOLDER/bin. No GPU, no download by the tools themselves, nothing changed in the sources.
#
#   bench/peers/build.sh [FOLDER] [TARGET ...]     FOLDER: build/peers (ignored by git); 77 MB to download, 700 MB on disk
#
# TARGETs: llama-bench llama-quantize llama-perplexity llama-completion (what `llama-cli` was before it became a client of the server; `llama-cli`
# builds too, but takes the whole server with it). JOBS=1 by default: the tools take a quarter of an hour of one core.
# Start again after an interruption: what is there is kept.
set -euo pipefail
cd "$(dirname "$0")/../.."

version=0.3.36
sha256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e

folder=${1:-build/peers}
[ $# = 0 ] || shift
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(llama-bench llama-quantize llama-perplexity llama-completion)

archive=$folder/llama_cpp_python-$version.tar.gz
source=$folder/llama.cpp-$version
mkdir -p "$folder"
has_archive() { [ -f "$archive" ] && echo "$sha256  $archive" | sha256sum --check --status; }

if ! has_archive; then
  echo "peers: fetching llama-cpp-python $version"
  for pip in .venv-peers/bin/pip .venv/bin/pip pip3 ''; do command -v "$pip" > /dev/null && break; done
  [ -n "$pip" ] || { echo "peers: no pip; run scripts/setup.sh" >&2; exit 1; }
  # Only this package from source: its build requirements may come as wheels. Pip reads its metadata, it builds nothing.
  "$pip" download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python --dest "$folder" "llama-cpp-python==$version"
  has_archive || { echo "peers: what was fetched has not the sha256 $sha256" >&2; exit 1; }
fi
if [ ! -d "$source" ]; then
  rm -rf "$source.part"
  mkdir "$source.part"
  tar xzf "$archive" -C "$source.part" --strip-components=3 --wildcards 'llama_cpp_python-*/vendor/llama.cpp'
  mv "$source.part" "$source"
fi

# The commit by hand: git would find that of the repository around it.
cmake -S "$source" -B "$folder/cmake" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF \
  -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_COMMIT="llama-cpp-python-$version" -DLLAMA_BUILD_NUMBER=0 > "$folder/configure.log"
grep -E 'ARM_ARCH|x86 detected|OpenMP|GGML_SYSTEM_ARCH' "$folder/configure.log" || true
cmake --build "$folder/cmake" --parallel "${JOBS:-1}" --target "${targets[@]}"
ln -sfn cmake/bin "$folder/bin"
ls "$folder/bin/"
