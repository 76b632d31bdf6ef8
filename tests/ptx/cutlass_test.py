#!/usr/bin/env python3
"""CUTLASS's matrix products for sm_80, right on GPUs, executed from their PTX and compared with numpy: an independent check of mma, ldmatrix,
cp.async and of what the executor reports. Needs nvcc, numpy and the headers.

    tests/ptx/cutlass_test.py INCLUDE_FOLDER
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import ptx
from bf16 import from_bf16, to_bf16

random = np.random.default_rng(7)


def nibbles(x):
    pairs = x.reshape(x.shape[0], -1, 2).astype(np.uint8) & 15
    return pairs[..., 0] | pairs[..., 1] << 4


def pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def multiply(module, library, kind, a, b, c, k):
    m, n = c.shape
    argument, launch, d = (ctypes.c_char * 1024)(), (ctypes.c_int * 5)(), np.zeros_like(c)
    size = getattr(library, "prepare_" + kind)(m, n, k, pointer(a), pointer(b), pointer(c), pointer(d), argument, launch)
    for array in (a, b, c):
        array.flags.writeable = False
    module.launch(kind, launch[:3], launch[3], np.frombuffer(argument.raw[:size], f"V{size}")[0], shared=launch[4], also=(a, b, c, d))
    return d


def integers(shape, low=-8, high=8):
    return random.integers(low, high, shape)


def check(module, library):
    # Small integers: every product and sum is exact in float32, and nearly in float16. Sizes do not fill the tiles.
    for kind, m, n, k in (("bf16", 136, 264, 200), ("bf16", 128, 128, 128), ("f16", 72, 136, 40), ("tf32", 68, 72, 44), ("s8", 144, 80, 208), ("s4", 64, 96, 192)):
        a, b = integers((m, k)), integers((k, n))
        if kind == "bf16":
            c = random.integers(-9, 9, (m, n)).astype(np.float32)
            d = multiply(module, library, kind, to_bf16(a), to_bf16(b), c, k)
            assert (d == a @ b + c).all(), kind
            x, y = from_bf16(to_bf16(random.normal(size=(m, k)))), from_bf16(to_bf16(random.normal(size=(k, n))))
            d = multiply(module, library, kind, to_bf16(x), to_bf16(y), c, k)
            np.testing.assert_allclose(d, x.astype(float) @ y.astype(float) + c, rtol=1e-5, atol=1e-4)
        elif kind == "f16":
            c = integers((m, n)).astype(np.float16)
            d = multiply(module, library, kind, a.astype(np.float16), np.ascontiguousarray(b.T).astype(np.float16), c, k)
            np.testing.assert_allclose(d, a @ b + c, rtol=2e-3)  # sums above 2048 are rounded at every step
        elif kind == "tf32":
            c = integers((m, n)).astype(np.float32)
            assert (multiply(module, library, kind, a.astype(np.float32), np.ascontiguousarray(b.T).astype(np.float32), c, k) == a @ b + c).all(), kind
        else:
            low = -8 if kind == "s4" else -128
            a, b, c = integers((m, k), low, -low), integers((k, n), low, -low), integers((m, n), -1000, 1000).astype(np.int32)
            pack = nibbles if kind == "s4" else lambda x: x.astype(np.int8)
            assert (multiply(module, library, kind, pack(a), pack(np.ascontiguousarray(b.T)), c, k) == a @ b + c).all(), kind


def main():
    here = pathlib.Path(__file__).resolve().parent
    with tempfile.TemporaryDirectory() as folder:
        library = folder + "/gemms.so"
        subprocess.run(["nvcc", "-std=c++17", "-gencode", "arch=compute_80,code=compute_80", "-shared", "-Xcompiler", "-fPIC", "-w", "-I", sys.argv[1], "--keep", "--keep-dir", folder,
                        here / "cutlass_gemms.cu", "-o", library], check=True)
        text = pathlib.Path(folder, "cutlass_gemms.ptx").read_text()
        for seed in (0, 3):
            # At the edges they multiply what nobody wrote, for outputs that they do not store.
            module = ptx.Module(text, seed=seed, uninitialised=False)
            check(module, ctypes.CDLL(library))
            for kernel in module.kernels():
                lines = module.coverage(kernel)
                executed = sum(times > 0 for _, times, _ in lines)
                print(f"CUTLASS {kernel}: {executed} of {len(lines)} lines of PTX executed on the CPU, order {seed}: ok", flush=True)


main()
