#!/usr/bin/env python3
"""Executes the compiled PTX of kernels/cuda on the CPU and compares with the formulas in double precision. Needs nvcc and numpy, no GPU.

    tests/ptx/training_kernels.py [SEED ...]

Each SEED (default 0 and 5) is an order in which warps take turns. The executor (executor.h) also checks bounds, races, barriers and what is
uninitialised. Compiled PTX executed on a CPU says nothing of a GPU's speed, nor of what ptxas makes of it.
"""
import pathlib
import sys
import tempfile

import numpy as np

from bf16 import from_bf16, to_bf16
from compiled_kernels import ROOT, CompiledKernels, blocks, by_value

F, I, W = np.float32, np.int64, np.int32
NULL = np.uint64(0)


class Type:
    def __init__(self, mangled, storage, tolerance, store, load):
        self.mangled, self.storage, self.tolerance, self.store, self.load = mangled, storage, tolerance, store, load

    def pair(self, x):
        """As stored, and its value in double."""
        stored = self.store(x)
        return stored, self.load(stored).astype(float)

    def close(self, stored, expected, least=1e-5):
        actual = self.load(stored)
        np.testing.assert_allclose(actual, expected, rtol=self.tolerance, atol=least)


FLOAT = Type("f", F, 2e-5, lambda x: np.ascontiguousarray(x, F), lambda x: x)
BF16 = Type("NS0_4Bf16E", np.uint16, 1e-2, to_bf16, from_bf16)


def block_threads(n, values, most):
    threads = 32
    while threads < most and threads * values < n:
        threads *= 2
    return threads


def round_scale(scale):
    bits = np.clip(scale, 2.0**-17, 2.0**14).astype(F).view(np.uint32)
    return ((bits + (1 << 17)) & ~np.uint32((1 << 18) - 1)).view(F)


def check_seq(kernels, random):
    for rows, cols, group in ((3, 576, 576), (5, 172, 172), (2, 256, 64), (3, 10, 5), (4, 32, 16)):
        w = random.normal(size=(rows, cols)).astype(F)
        w[0, :3] = 0, -0.0, np.nan
        scale = (np.abs(random.normal(size=(rows, cols // group))) * 0.5 + 0.05).astype(F)
        s = np.repeat(round_scale(scale), group, 1)
        codes = (w > -s).astype(int) + (w >= 0) + (w > s)
        level = np.where(np.isnan(w), w, (codes - 1.5).astype(F) * s)
        per_thread = 4 if group % 4 == 0 else 1
        grid = blocks(rows * cols // per_thread, 256)
        for kind in (FLOAT, BF16):
            y, found = np.full(w.shape, 9, kind.storage), np.full(w.shape, 9, np.uint8)
            kernels.launch(["seq_forward_kernelI" + kind.mangled + f"Li{per_thread}"], grid, 256, w, scale, I(w.size), I(group), y, found)
            assert np.array_equal(kind.load(y), level, equal_nan=True) and (found == codes).all()
            kernels.launch(["seq_forward_kernelI" + kind.mangled + f"Li{per_thread}"], grid, 256, w, scale, I(w.size), I(group), NULL, found)
            w[0, 2] = 0.5
            codes[0, 2], level[0, 2] = (2, F(0.5) * s[0, 2]) if 0.5 <= s[0, 2] else (3, F(1.5) * s[0, 2])
            gradient, g = kind.pair(random.normal(size=w.shape))
            inside = np.abs(w) <= s * F(1.98)
            for passes in (0, 1):
                by_w, by_scale = np.full(w.shape, 7, F), np.full(scale.shape, 7, F)
                kernels.launch(["seq_backward_kernelI" + kind.mangled], scale.size, block_threads(group, 8, 256), w, scale, gradient, I(group),
                               np.uint8(passes), by_w, by_scale)
                assert (by_w == (g if passes else np.where(inside, g, 0))).all()
                expected = (g * np.where(inside, level - w, level)).reshape(rows, -1, group).sum(2)
                np.testing.assert_allclose(by_scale, expected, rtol=1e-5, atol=1e-4)
            w[0, 2] = np.nan
            codes[0, 2], level[0, 2] = 0, np.nan


def check_rms_norm(kernels, random):
    eps = 1e-5
    for before, after, mangled in ((FLOAT, FLOAT, "Iff"), (FLOAT, BF16, "IfNS0_4Bf16E"), (BF16, BF16, "INS0_4Bf16ES3_")):
        for rows, cols in ((3, 576), (20, 40), (2, 1)):
            x, value = before.pair(random.normal(size=(rows, cols)))
            gradient, g = after.pair(random.normal(size=(rows, cols)))
            weight = random.normal(size=cols).astype(F)
            threads = block_threads(cols, 4, 256)
            inverse = 1 / np.sqrt((value**2).mean(1, keepdims=True) + eps)
            y = np.zeros((rows, cols), after.storage)
            kernels.launch(["rms_norm_forward_kernel" + mangled], rows, threads, x, weight, F(eps), W(cols), y)
            after.close(y, value * inverse * weight)
            by_x, parts = np.zeros((rows, cols), before.storage), np.full((min(rows, 7), cols), 3, F)
            expected = (g * weight - value * (value * g * weight).mean(1, keepdims=True) * inverse**2) * inverse
            for grid, sums in ((len(parts), parts), (rows, NULL)):
                kernels.launch(["rms_norm_backward_kernel" + mangled], grid, threads, x, weight, gradient, F(eps), I(rows), W(cols), by_x, sums,
                               smem=0 if sums is NULL else cols * 4)
                before.close(by_x, expected, 2e-4 if before is FLOAT else 1e-2)
            np.testing.assert_allclose(parts.sum(0), (g * value * inverse).sum(0), rtol=1e-4, atol=1e-3)


def check_rope(kernels, random):
    for kind in (FLOAT, BF16):
        for batch, tokens, heads, size, half in ((2, 5, 3, 64, 32), (1, 7, 2, 10, 3)):
            x, value = kind.pair(random.normal(size=(batch, tokens, heads, size)))
            cos, sin = (random.normal(size=(tokens, half)).astype(F) for _ in range(2))
            for sign in (1, -1):
                y = np.zeros(x.shape, kind.storage)
                kernels.launch(["rope_kernelI" + kind.mangled], blocks(batch * tokens * heads * (size - half), 256), 256, x, cos, sin,
                               I(batch * tokens * heads), W(tokens), W(heads), W(size), W(half), F(sign), y)
                a, b, c, s = value[..., :half], value[..., half:2 * half], cos[None, :, None], sin[None, :, None] * sign
                kind.close(y, np.concatenate([a * c - b * s, b * c + a * s, value[..., 2 * half:]], -1), 1e-5 if kind is FLOAT else 2e-2)


def check_swiglu(kernels, random):
    for kind in (FLOAT, BF16):
        for per_thread, n in ((4, 2052), (1, 1027)):
            (gate, g), (up, u), (gradient, d) = (kind.pair(random.normal(size=n) * 3) for _ in range(3))
            y, by_gate, by_up = (np.zeros(n, kind.storage) for _ in range(3))
            grid, tail = blocks(n // per_thread, 256), "I" + kind.mangled + f"Li{per_thread}"
            kernels.launch(["swiglu_forward_kernel" + tail], grid, 256, gate, up, I(n), y)
            kernels.launch(["swiglu_backward_kernel" + tail], grid, 256, gate, up, gradient, I(n), by_gate, by_up)
            s = 1 / (1 + np.exp(-g))
            kind.close(y, g * s * u)
            kind.close(by_gate, d * u * s * (1 + g * (1 - s)))
            kind.close(by_up, d * g * s)


def check_adamw(kernels, random):
    for has_factors in (False, True):
        w, gradient, m, v = (random.normal(size=(17, 33)).astype(F) for _ in range(4))
        v = np.abs(v)
        factors = np.abs(random.normal(size=17)).astype(F)
        step = dict(gradient_factor=0.5, beta1=0.9, beta2=0.95, eps=1e-8, decay=1e-3, step_size=0.01, root_correction=1.2)
        new_w, new_m, new_v = w.copy(), m.copy(), v.copy()
        kernels.launch(["adamw_kernel"], blocks(w.size, 256), 256, by_value(list(step.values())), I(w.size), I(33), factors if has_factors else NULL, gradient, new_w, new_m,
                       new_v)
        f = factors[:, None].astype(float) if has_factors else 1.0
        g = 0.5 * gradient.astype(float)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        np.testing.assert_allclose(new_m, m, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new_v, v, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new_w, w * (1 - 1e-3 * f) - 0.01 * f * m / (np.sqrt(v) * 1.2 + 1e-8), rtol=1e-4, atol=1e-6)


def log_softmax(x):
    x = x - x.max(1, keepdims=True)
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def check_logit_loss(kernels, random):
    # kl, reverse_kl, jsd, cakld, cross_entropy; temperature, beta
    # The compiler unrolls loops over a row by four strides of 512: rows on both sides of that.
    for vocab, weights, temperature, beta in ((1000, (1, 0, 0, 0, 0), 1, 0.5), (777, (1, 0, 0, 0, 0.5), 2, 0.5), (513, (0, 1, 0, 0, 0), 1, 0.5),
                                              (600, (0.3, 0.2, 0.4, 0.5, 0.6), 1.5, 0.3), (100, (0, 0, 0, 0, 1), 1, 0.5), (300, (0, 0, 1, 0, 0), 1, 0.9),
                                              (2600, (1, 0, 0, 0, 0.5), 2, 0.5), (2311, (0.3, 0.2, 0.4, 0.5, 0.6), 1, 0.3), (2049, (0, 0, 1, 0, 0), 1, 0.9), (2100, (0, 1, 0, 0, 0), 1, 0.5)):
        student = (random.normal(size=(3, vocab)) * 4 + (1e4 if vocab == 1000 else 0)).astype(F)
        teacher = (student + random.normal(size=student.shape)).astype(F)
        targets, row_weights = random.integers(0, vocab, 3), np.array([0.5, 0, 2], F)
        has_divergence, needs_values = any(weights[:4]), any(weights[1:4])
        gradient, terms = student.copy(), np.full((3, 5), 9.0)
        spec = by_value([*weights, temperature, beta, np.log(beta), np.log1p(-beta)], bytes([has_divergence, needs_values, 0, 0]))
        kernels.launch(["logit_loss_kernel"], 3, 512, gradient, teacher if has_divergence else NULL, targets, row_weights, I(vocab), spec, terms)
        log_p, log_q = log_softmax(teacher.astype(float) / temperature), log_softmax(student.astype(float) / temperature)
        p, q = np.exp(log_p), np.exp(log_q)
        log_m = np.logaddexp(log_p + np.log(beta), log_q + np.log1p(-beta))
        mean = lambda weight, x: (weight * x).sum(1, keepdims=True)
        sure, forward, reverse = p[range(3), targets][:, None], mean(p, log_p - log_q), mean(q, log_q - log_p)
        to_teacher, to_student = mean(p, log_p - log_m), mean(q, log_q - log_m)
        log_z, here = log_softmax(student.astype(float)), np.zeros_like(p)
        here[range(3), targets] = 1
        kl, rkl, jsd, cakld, ce = weights
        expected = ((q - p) * (kl + cakld * (1 - sure)) + q * (log_q - log_p - reverse) * (rkl + cakld * sure) +
                    q * (log_q - log_m - to_student) * jsd * (1 - beta)) * temperature + (np.exp(log_z) - here) * ce
        square = temperature**2
        values = np.concatenate([forward * square, reverse * square, (beta * to_teacher + (1 - beta) * to_student) * square,
                                 (reverse * sure + forward * (1 - sure)) * square, -log_z[range(3), targets][:, None]], 1) * (np.array(weights) != 0)
        values[1] = 0
        np.testing.assert_allclose(terms, values, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradient, expected * row_weights[:, None], rtol=1e-3, atol=2e-6)


ELSEWHERE = {"decoder", "packed_tiles", "skinny_matmul", "tile_matmul"}  # decoder_kernels.py, matmul_kernels.py
CHECKS = {"seq": [check_seq], "elementwise": [check_rms_norm, check_rope, check_swiglu, check_adamw], "logit_loss": [check_logit_loss]}


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        assert {path.stem for path in (ROOT / "kernels/cuda").glob("*.cu")} == CHECKS.keys() | ELSEWHERE, "a file of kernels has no check"
        for seed in map(int, sys.argv[1:] or ["0", "5"]):
            for file, checks in CHECKS.items():
                kernels = CompiledKernels(folder, file, seed)
                for check in checks:
                    check(kernels, np.random.default_rng(1))
                kernels.report(file, seed)


main()
