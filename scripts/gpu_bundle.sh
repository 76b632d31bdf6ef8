#!/usr/bin/env bash
# Packs what a bare machine with an NVIDIA GPU needs to run Crumb at once, without building and without a network: the programs and tests built
# here against the full LibTorch wheel, their shared libraries, small models, texts. That machine has Linux on x86-64 with AVX2, the driver, and
# a Python with torch of the version that scripts/setup.sh installs.
#
#   scripts/gpu_bundle.sh [GGUF]      GGUF: the model to train there; default models/SmolLM2-135M-Instruct.Q4_1.gguf
# EXTRA_TEXTS: more files for data/text, such as a corpus of `crumb generate --corpus`.
#
# Makes gpu-bundle/part-1, part-2, ... (ignored by git), each small enough to travel with a checkout in PART_LIMIT bytes (default 60 MB). Copy
# them over beside each other, all at once or one at a time, and run there after each copy (every part carries the script)
#
#   gpu-bundle/part-1/gpu_check.sh receive        joins what has arrived, checks it by its sha256, unpacks it once it is whole
#
# then gpu_check.sh tests and gpu_check.sh train, as that file says. Data come from ../shared/data or CRUMB_DATA.
set -euo pipefail
cd "$(dirname "$0")/.."
gguf=${1:-models/SmolLM2-135M-Instruct.Q4_1.gguf}
data=${CRUMB_DATA:-../shared/data}
bundle=gpu-bundle
stage=$bundle/stage
tests=(kernels_tests model_tests qat_tests train_tests distill_tests cli_train_tests)

die() { echo "gpu_bundle: $*" >&2; exit 1; }
[ -f "$gguf" ] || die "$gguf is not there: scripts/models.sh fetches it, or name another GGUF"
[ -d "$data" ] || die "no data in $data: set CRUMB_DATA"

scripts/setup.sh --cuda
scripts/build.sh cuda --targets crumb crumb_ops_shared example_seq_linears "${tests[@]}"

rm -rf "$bundle"
mkdir -p "$stage/bin" "$stage/lib" "$stage/lib-if-old" "$stage/data/models" "$stage/data/text"
for program in crumb example_seq_linears "${tests[@]}"; do strip -o "$stage/bin/$program" "build-cuda/bin/$program"; done
strip -o "$stage/lib/libcrumb_ops.so" build-cuda/lib/libcrumb_ops.so

# Not of the C library, LibTorch or CUDA. libstdc++ goes apart: a newer one that is there already serves LibTorch, too.
environment=$(readlink -f .venv)
for file in "$stage"/bin/* "$stage/lib/libcrumb_ops.so"; do ldd "$file"; done | awk '$2 == "=>" {print $3}' | sort -u | while read -r library; do
  case "$(basename "$library"):$(readlink -f "$library")" in
    not:*) die "a program of build-cuda/bin lacks a library here: run ldd on it" ;;
    *:"$environment"/*) ;;
    libc.so*|libm.so*|libdl.so*|librt.so*|libpthread.so*|libresolv.so*|libutil.so*|ld-linux*) ;;
    libstdc++.so*|libgcc_s.so*) cp -L "$library" "$stage/lib-if-old/" ;;
    *) cp -L "$library" "$stage/lib/" ;;
  esac
done

for model in stories260K-hf tiny1m-hf ref-llama-15m; do cp -r "$data/models/$model" "$stage/data/models/"; done
mkdir -p "$stage/data/vectors"
cp -r "$data/vectors/golden" "$stage/data/vectors/"
cp "$data/text/wikitext-2-raw/wiki.test.raw" "$data/text/wikitext-2-raw/wiki.valid.raw" "$stage/data/text/"
for text in ${EXTRA_TEXTS:-}; do cp "$text" "$stage/data/text/"; done
head_of() { python3 - "$@" << 'PYTHON'
import sys
source, target, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
text = open(source, "rb").read(size + 1)
end = len(text) if len(text) <= size else text.rindex(b"\n\x1e\n")      # whole documents
open(target, "wb").write(text[:end])
PYTHON
}
head_of "$data/text/corpus/prose-train.txt" "$stage/data/text/prose-train.txt" 12400000
head_of "$data/text/corpus/tech-train.txt" "$stage/data/text/tech-train.txt" 24000000
head_of "$data/text/corpus/verse-train.txt" "$stage/data/text/verse-train.txt" 8000000
head_of "$data/text/corpus/tech-test.txt" "$stage/data/text/tech-test.txt" 1000000
git ls-files -z configs examples tests scripts | xargs -0 cp --parents -t "$stage" 2> /dev/null || die "a tracked file is missing: commit or restore it"

newest() { objdump -T "$stage"/bin/* | grep -o "$1_[0-9.]*" | sort -Vu | tail -n 1; }
echo "gpu_bundle: needs $(newest GLIBC) there; $(newest GLIBCXX) is carried"
chmod -R u+w "$stage"
tar --sort=name --owner=0 --group=0 --mtime=@0 -C "$stage" -c . | xz -T0 -3 > "$bundle/base.tar.xz"
rm -rf "$stage"
ln -f "$gguf" "$bundle/model.gguf" 2> /dev/null || cp "$gguf" "$bundle/model.gguf"
basename "$gguf" > "$bundle/model.name"

# Each part: a piece, the list of all pieces and whole files with their sha256, and the script.
python3 - "$bundle" "${PART_LIMIT:-60000000}" "$(git ls-files -z | xargs -0 du -cb | tail -1 | cut -f1)" << 'PYTHON'
import hashlib, os, shutil, sys
bundle, limit, checkout = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
room = limit - checkout - 200_000            # the script, the list, and what an archive adds to each file of the checkout
if room < 1_000_000:
    sys.exit(f"gpu_bundle: the checkout of {checkout} bytes leaves no room for parts in {limit}")
sha = lambda data: hashlib.sha256(data).hexdigest()
model = open(f"{bundle}/model.name").read().strip()
pieces, lines = [], []
for file, name in (("base.tar.xz", "base.tar.xz"), ("model.gguf", model)):
    data = open(f"{bundle}/{file}", "rb").read()
    count = -(-len(data) // room)
    size = -(-len(data) // count)
    lines.append(f"whole {sha(data)} {count} {name}")
    for i in range(count):
        piece = data[i * size:(i + 1) * size]
        pieces.append((f"{name}.{i + 1}", piece))
        lines.append(f"piece {sha(piece)} {len(piece)} {name}.{i + 1}")
    os.remove(f"{bundle}/{file}")
os.remove(f"{bundle}/model.name")
for number, (name, piece) in enumerate(pieces, 1):
    folder = f"{bundle}/part-{number}"
    os.mkdir(folder)
    open(f"{folder}/{name}", "wb").write(piece)
    open(f"{folder}/list.txt", "w").write("\n".join(lines) + "\n")
    shutil.copy("scripts/gpu_check.sh", folder)
    print(f"{folder}: {name}, {len(piece):,} bytes; with the checkout {len(piece) + checkout:,}")
PYTHON
