#!/usr/bin/env python3
"""Executes the compiled PTX of kernels/cuda/decoder.cu on the CPU and compares with the formulas in double precision. Needs nvcc and numpy, no GPU.

    tests/ptx/decoder_kernels.py [SEED ...]

SEED (default 0, 5 and 11) is that of training_kernels.py. Where arithmetic is exact (rows of an embedding, products of small integers, where keys
and values are put) results are compared exactly. Compiled PTX executed on a CPU says nothing of a GPU's speed, nor of what ptxas makes of it.
"""
import pathlib
import struct
import sys
import tempfile

import numpy as np

from bf16 import from_bf16, to_bf16
from compiled_kernels import CompiledKernels, blocks, by_value

F, I, W = np.float32, np.int64, np.int32
NULL = np.uint64(0)
PANEL, MOST = 32, 256


class Type:
    def __init__(self, mangled, storage, store, load, tolerance):
        self.mangled, self.storage, self.store, self.load, self.tolerance = mangled, storage, store, load, tolerance

    def close(self, stored, expected, least=1e-5):
        np.testing.assert_allclose(self.load(stored), expected, rtol=self.tolerance, atol=least)


FLOAT = Type("f", F, lambda x: np.ascontiguousarray(x, F), lambda x: x, 2e-5)
BF16 = Type("NS0_4Bf16E", np.uint16, to_bf16, from_bf16, 1e-2)
HALF = Type("NS_4HalfE", np.uint16, lambda x: np.ascontiguousarray(x, np.float16).view(np.uint16), lambda x: x.view(np.float16).astype(F), 1e-3)


def mangled(*types):
    """Template arguments; a struct that comes again is told by a number."""
    return "I" + types[0].mangled + ("S3_" if types[1:] == (BF16,) and types[0] is BF16 else "".join(t.mangled for t in types[1:]))


def block_threads(n, values, most):
    threads = 32
    while threads < most and threads * values < n:
        threads *= 2
    return threads


def check_embed(kernels, random):
    for kind in (FLOAT, BF16, HALF):
        for tokens, cols in ((3, 64), (1, 172), (2, 1)):
            weights = kind.store(random.normal(size=(11, cols)))
            ids, out = random.integers(0, 11, tokens).astype(W), np.full((tokens, cols), 9, F)
            kernels.launch(["embed_kernelI" + kind.mangled], tokens, block_threads(cols, 4, 256), weights, ids, W(cols), out)
            assert (out == kind.load(weights)[ids]).all()


def check_add_rms_norm(kernels, random):
    for kind in (FLOAT, BF16):
        for rows, cols, adds in ((3, 576, True), (2, 172, False), (4, 2050, True), (1, 1, True)):
            total, addend = (random.normal(size=(rows, cols)).astype(F) for _ in range(2))
            weight, y = random.normal(size=cols).astype(F), np.zeros((rows, cols), kind.storage)
            expected = total + addend if adds else total.copy()
            kernels.launch(["add_rms_norm_kernelI" + kind.mangled], rows, block_threads(cols, 4, 256), total, addend if adds else NULL, weight, F(1e-5), W(cols), y)
            assert (total == expected).all()
            value = expected.astype(float)
            kind.close(y, value / np.sqrt((value**2).mean(1, keepdims=True) + 1e-5) * weight)


class Cache:
    """Of several sequences: `layers` layers of which the kernels see one, filled with NaN."""

    def __init__(self, kind, sequences, capacity, kv_heads, dim, layers=2, layer=1):
        self.kind, self.kv_heads, self.dim = kind, kv_heads, dim
        of_layer = kv_heads * 2 * PANEL * dim
        self.stride, self.offset = layers * of_layer, layer * of_layer
        self.data = [kind.store(np.full(blocks(capacity, PANEL) * self.stride, np.nan)) for _ in range(sequences)]

    def at(self, position, head):
        return position // PANEL * self.stride + self.offset + head * 2 * PANEL * self.dim

    def key_places(self, position, head):
        i = np.arange(self.dim)
        return self.at(position, head) + i // 8 * PANEL * 8 + position % PANEL * 8 + i % 8

    def value_places(self, position, head):
        return self.at(position, head) + PANEL * self.dim + position % PANEL * self.dim + np.arange(self.dim)

    def view(self, positions, of_token):
        """The struct, and the arrays it points to."""
        pointers = np.array([self.data[s].ctypes.data for s in of_token], np.uint64)
        return struct.pack("2Q2q", positions.ctypes.data, pointers.ctypes.data, self.stride, self.offset), [positions, pointers, *self.data]


def check_prepare_heads(kernels, random):
    for kind in (FLOAT, HALF):
        for heads, kv_heads, dim, half, norm, before in ((4, 2, 8, 4, False, False), (3, 1, 48, 20, True, True), (2, 2, 256, 128, True, False), (5, 5, 64, 0, False, False)):
            positions, of_token = np.array([0, 45, 31, 32], W), [0, 1, 0, 1]
            cache = Cache(kind, 2, 64, kv_heads, dim)
            rows = random.normal(size=(4, (heads + 2 * kv_heads) * dim + 3)).astype(F)  # one product; a stride of its own
            before_it = rows.copy()
            norms = [random.normal(size=dim).astype(F) for _ in range(2)]
            cos, sin = (random.normal(size=(46, max(1, half))).astype(F) for _ in range(2))
            stride, at = rows.shape[1], [0, heads * dim, (heads + kv_heads) * dim]
            view, reached = cache.view(positions, of_token)
            args = struct.pack("Qq" * 3 + "4q2Q?3xf2Qq", *[x for a in at for x in (rows.ctypes.data + 4 * a, stride)], 4, heads, kv_heads, dim,
                               *[n.ctypes.data if norm else 0 for n in norms], before, 1e-6, cos.ctypes.data, sin.ctypes.data, half)
            kernels.launch(["prepare_heads_kernelI" + kind.mangled], (blocks(heads + 2 * kv_heads, 4), 4, 1), 128, by_value(args), by_value(view),
                           reached=[rows, cos, sin, *norms, *reached])

            def prepared(x, weight):
                x = x.astype(float)
                normed = lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight if norm else x
                if before:
                    x = normed(x)
                c, s = (t[positions, :half][:, None].astype(float) for t in (cos, sin))
                a, b = x[..., :half], x[..., half:2 * half]
                x = np.concatenate([a * c - b * s, b * c + a * s, x[..., 2 * half:]], -1)
                return x if before else normed(x)

            q, k, v = (before_it[:, a:a + n * dim].reshape(4, n, dim) for a, n in zip(at, (heads, kv_heads, kv_heads)))
            np.testing.assert_allclose(rows[:, :heads * dim].reshape(q.shape), prepared(q, norms[0]), rtol=1e-5, atol=1e-5)
            assert (rows[:, heads * dim:] == before_it[:, heads * dim:]).all()
            k, written = prepared(k, norms[1]), [np.zeros(d.size, bool) for d in cache.data]
            for t, (position, s) in enumerate(zip(positions, of_token)):
                for head in range(kv_heads):
                    keys, values = cache.key_places(position, head), cache.value_places(position, head)
                    kind.close(cache.data[s][keys], k[t, head])
                    assert (cache.data[s][values] == kind.store(v[t, head])).all()
                    written[s][keys] = written[s][values] = True
            for data, places in zip(cache.data, written):
                assert np.isnan(kind.load(data)[~places]).all()


def check_attention(y, q, keys, values, positions, of_token, window, group, out):
    heads, dim = group * keys.shape[2], keys.shape[3]
    for t, p in enumerate(positions):
        first = max(0, p - window + 1) if window else 0
        k, v = (np.repeat(x[of_token[t], first:p + 1].astype(float), group, 1) for x in (keys, values))
        scores = np.einsum("hd,khd->hk", q[t, :heads * dim].reshape(heads, dim).astype(float), k) / np.sqrt(dim)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        expected = np.einsum("hk,khd->hd", weights / weights.sum(1, keepdims=True), v)
        out.close(y[t].reshape(heads, dim), expected, 1e-4 if out is FLOAT else 1e-2)


def check_attend(kernels, random):
    for kind in (FLOAT, HALF):
        for out in (FLOAT, BF16):
            for group, kv_heads, dim, window, positions in ((2, 2, 8, 0, (0, 31, 40)), (8, 1, 8, 0, (1100,)), (1, 3, 48, 0, (700, 5)), (9, 1, 64, 7, (300, 3)), (4, 1, 256, 300, (600,)), (3, 2, 128, 256, (511, 255))):
                positions = np.array(positions, W)
                tokens, of_token = len(positions), [t % 2 for t in range(len(positions))]
                cache = Cache(kind, 2, int(positions.max()) + 1, kv_heads, dim)
                keys, values = (kind.load(kind.store(random.normal(size=(2, int(positions.max()) + 1, kv_heads, dim)))) for _ in range(2))
                for s in range(2):
                    for p in range(max(positions[t] for t in range(tokens) if of_token[t] == s) + 1 if s in of_token else 0):
                        for head in range(kv_heads):
                            cache.data[s][cache.key_places(p, head)] = kind.store(keys[s, p, head])
                            cache.data[s][cache.value_places(p, head)] = kind.store(values[s, p, head])
                heads = group * kv_heads
                q = (random.normal(size=(tokens, heads * dim + 5)) * 2).astype(F)
                view, reached = cache.view(positions, of_token)
                for splits in (1, 3):
                    y = np.zeros((tokens, heads * dim), out.storage)
                    workspace = np.full((tokens, heads, splits, dim + 2), np.nan, F)
                    args = struct.pack("Qq3ifQQ", q.ctypes.data, q.shape[1], group, dim, window, F(1 / np.sqrt(F(dim))), y.ctypes.data, workspace.ctypes.data) + view
                    kernels.launch(["attend_kernel" + mangled(kind, out)], (kv_heads, tokens, splits), 256, by_value(args), reached=[q, y, workspace, *reached])
                    if splits > 1:
                        kernels.launch(["add_attention_kernelI" + out.mangled], tokens * heads, block_threads(dim, 1, 256), workspace, W(splits), W(dim), y)
                    check_attention(y, q, keys, values, positions, of_token, window, group, out)


def check_swiglu_rows(kernels, random):
    for kind in (FLOAT, BF16):
        for tokens, cols in ((3, 172), (1, 300), (2, 1)):
            both = (random.normal(size=(tokens, 2 * cols)) * 3).astype(F)
            y = np.zeros((tokens, cols), kind.storage)
            rows = [by_value(struct.pack("Qq", both.ctypes.data + 4 * cols * i, 2 * cols)) for i in range(2)]
            kernels.launch(["swiglu_rows_kernelI" + kind.mangled], (blocks(cols, 256), tokens, 1), 256, *rows, I(cols), y, reached=[both])
            gate, up = both[:, :cols].astype(float), both[:, cols:].astype(float)
            kind.close(y, gate / (1 + np.exp(-gate)) * up)


def check_dense_matmul(kernels, random):
    for weight, input in ((BF16, BF16), (HALF, BF16), (FLOAT, BF16), (HALF, FLOAT), (FLOAT, FLOAT)):
        for tokens, rows, cols, has_bias, exact in ((1, 7, 64, True, False), (1, 5, 1301, False, True), (1, 2, 1544, True, False), (8, 9, 520, False, True), (11, 4, 300, True, False), (3, 6, 1, True, True)):
            if exact:  # sums of integers below 2^24
                w, x, bias = random.integers(-8, 9, (rows, cols)), random.integers(-8, 9, (tokens, cols)), random.integers(-9, 9, rows)
            else:
                w, x, bias = random.normal(size=(rows, cols)), random.normal(size=(tokens, cols)), random.normal(size=rows)
            w, x, bias = weight.store(w), input.store(x), bias.astype(F)
            y = np.full((tokens, rows), 9, F)
            at_once = 1 if tokens == 1 else 8
            takes_eight = cols % 8 == 0 and w.ctypes.data % 16 == 0 and x.ctypes.data % 16 == 0
            kernels.launch(["dense_matmul_kernel" + mangled(weight, input) + f"Li{at_once}E"], (blocks(rows, 4), blocks(tokens, at_once), 1), 128, x, w, bias if has_bias else NULL,
                           W(tokens), W(rows), W(cols), np.uint8(takes_eight), y)
            a, b = input.load(x).astype(float), weight.load(w).astype(float)
            expected, terms = a @ b.T + (bias if has_bias else 0), np.abs(a) @ np.abs(b).T + np.abs(bias)
            assert (y == expected).all() if exact else (np.abs(y - expected) <= 64 * 2.0**-24 * terms).all()


CHECKS = [check_embed, check_add_rms_norm, check_prepare_heads, check_attend, check_swiglu_rows, check_dense_matmul]


def main():
    with tempfile.TemporaryDirectory() as name:
        for seed in map(int, sys.argv[1:] or ["0", "5", "11"]):
            kernels = CompiledKernels(pathlib.Path(name), "decoder", seed)
            for check in CHECKS:
                check(kernels, np.random.default_rng(1))
            kernels.report("decoder", seed)


main()
