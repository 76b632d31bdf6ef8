#!/usr/bin/env bash
# Installs what building Crumb needs; does nothing where it is there already.
#
#   scripts/setup.sh            Debian packages, and .venv with the LibTorch wheel (CPU; 530 MB to download, 1.3 GB on disk)
#   scripts/setup.sh --peers    also .venv-peers: what the tests compare with (transformers, tokenizers, gguf, llama.cpp; 5 GB on disk),
#                               .venv-cutlass (headers of CUDA kernels), clang with its sanitizers and libFuzzer, valgrind, and a cross compiler and emulator of 64-bit Arm
#   scripts/setup.sh --cuda     .venv with the full torch wheel and its CUDA libraries instead
#   scripts/setup.sh --no-torch packages only: enough to convert, evaluate and run models
set -euo pipefail
cd "$(dirname "$0")/.."

peers=0 cuda=0 torch=1
for argument in "$@"; do
  case "$argument" in
    --peers) peers=1 ;;
    --cuda) cuda=1 ;;
    --no-torch) torch=0 ;;
    *) sed -n '2,9p' "$0" >&2; exit 2 ;;
  esac
done

packages=(g++ cmake ninja-build ccache mold pkg-config git python3 python3-venv clang-format
  libyaml-cpp-dev nlohmann-json3-dev libeigen3-dev libcli11-dev libfmt-dev libonig-dev libutf8proc-dev libcpp-httplib-dev
  libgtest-dev libgmock-dev libbenchmark-dev)
[ "$peers" = 0 ] || packages+=(clang libclang-rt-dev valgrind googletest g++-aarch64-linux-gnu qemu-user)

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query -W -f '${Status}' "$package" 2>/dev/null || true)" = "install ok installed" ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  install="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  echo "setup: installing ${missing[*]}"
  if [ "$(id -u)" = 0 ]; then
    DEBIAN_FRONTEND=noninteractive bash -c "$install" > /dev/null
  elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then
    sudo DEBIAN_FRONTEND=noninteractive bash -c "$install" > /dev/null
  else
    printf 'setup: not root and no sudo without a password; run this once, then start again:\n\n  sudo bash -c "%s"\n\n' "$install" >&2
    exit 1
  fi
fi

# make_environment FOLDER STAMP PIP-ARGUMENTS...   The stamp names what was installed, so that a changed list is installed again.
make_environment() {
  local folder=$1 stamp=$2
  shift 2
  if [ "$(cat "$folder/.crumb-stamp" 2> /dev/null || true)" = "$stamp" ]; then return; fi
  echo "setup: making $folder ($stamp)"
  [ -x "$folder/bin/pip" ] || python3 -m venv "$folder"
  "$folder/bin/pip" install --quiet --disable-pip-version-check "$@"
  echo "$stamp" > "$folder/.crumb-stamp"
}

torch_version=2.11.0
if [ "$cuda" = 1 ]; then
  make_environment .venv "torch $torch_version with CUDA" "torch==$torch_version"
elif [ "$torch" = 1 ] && [ "$(cat .venv/.crumb-stamp 2> /dev/null || true)" != "torch $torch_version with CUDA" ]; then
  # Without its dependencies: the CPU libraries of the wheel load only the CUDA runtime and its profiler, both small.
  make_environment .venv "torch $torch_version for the CPU" --no-deps "torch==$torch_version" "nvidia-cuda-runtime==13.0.*" "nvidia-cuda-cupti==13.0.*"
fi
if [ "$peers" = 1 ]; then
  make_environment .venv-peers "peers $(cksum < scripts/peers.txt | cut -d' ' -f1)" -r scripts/peers.txt
  # Headers alone, without what its Python part depends on.
  make_environment .venv-cutlass "cutlass 4.2.0.0" --no-deps --target .venv-cutlass "nvidia-cutlass==4.2.0.0"
fi
