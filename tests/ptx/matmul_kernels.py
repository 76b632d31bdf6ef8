#!/usr/bin/env python3
"""Executes the compiled PTX of the products with packed weights (kernels/cuda) on the CPU and compares with the formulas. Needs nvcc and numpy, no GPU.

    tests/ptx/matmul_kernels.py [SEED ...]

SEED (default 0, 5 and 11) is that of training_kernels.py. The layout is written down here once more, from its description, so that kernels,
packer and this file have to agree. Results are compared exactly wherever arithmetic is: codes, integer sums, products of small integers and powers of
two; elsewhere with an error in units of the sum of |terms|. Compiled PTX executed on a CPU says nothing of a GPU's speed, nor of what ptxas makes of it.
"""
import pathlib
import struct
import sys
import tempfile

import numpy as np

from bf16 import from_bf16, to_bf16
from compiled_kernels import CompiledKernels, blocks, by_value

F, I, W, U = np.float32, np.int64, np.int32, np.uint32
NULL = np.uint64(0)
# Grids: bits -> step, zero
LEVELS = {2: (2, 3), 4: (1, 8), 8: (1, 128)}
FLOAT_FORMS = [(2, 0), (2, 128), (4, 0), (4, 128), (4, 32), (8, 0)]
INT8_FORMS = [(2, 0), (2, 128), (4, 0), (8, 0)]


def exact_bf16(x):
    return from_bf16(to_bf16(x))


# ---- the layout, from its description ----


def packed_codes(codes, bits):
    rows, cols = codes.shape
    full = np.zeros((blocks(rows, 16) * 16, blocks(cols, 128) * 128), np.uint64)
    full[:rows, :cols] = codes
    width = 256 // bits
    # [row tile, half of the rows, r % 8, tile, slice, t, e, h, i]
    parts = full.reshape(-1, 2, 8, full.shape[1] // width, width // 32, 4, 2, 2, 2)
    words = np.zeros(parts.shape[:4] + (4, 2), np.uint64)  # [row tile, half of the rows, r, tile, t, h]
    for s in range(width // 32):
        for e in range(2):
            for i in range(2):
                words |= parts[:, :, :, :, s, :, e, :, i] << np.uint64(8 * (2 * i + e) + bits * s)
    return np.ascontiguousarray(words.transpose(0, 3, 2, 4, 5, 1)).astype(U).reshape(-1)  # [row tile, tile, r, t, h, half of the rows]


def packed_scales(scales, group, cols):
    """scales [rows, groups] of groups as packed; group 0: one a row."""
    groups = 1 if group == 0 else blocks(cols, 128) * (128 // group)
    full = np.zeros((blocks(len(scales), 16) * 16, groups), np.uint16)
    full[:len(scales), :scales.shape[1]] = to_bf16(scales)
    tiles = full.reshape(-1, 2, 8, groups).astype(U)
    return np.ascontiguousarray((tiles[:, 0] | tiles[:, 1] << U(16)).transpose(0, 2, 1)).reshape(-1)


def int8_order(codes):
    return np.ascontiguousarray(codes.reshape(len(codes), -1, 2, 4).swapaxes(2, 3).reshape(len(codes), -1))


class Matrix:
    def __init__(self, random, bits, group, rows, cols, powers=False):
        self.bits, self.group, self.rows, self.cols = bits, group, rows, cols
        self.step, self.zero = LEVELS[bits]
        self.codes = random.integers(0, 1 << bits, (rows, cols)).astype(np.uint8)
        shape = (rows, 1 if group == 0 else cols // group)
        self.scales = (2.0 ** random.integers(-3, 3, shape)).astype(F) if powers else exact_bf16(np.abs(random.normal(size=shape)) * 0.05 + 0.01)
        self.levels = self.step * self.codes.astype(np.int64) - self.zero
        self.by_column = np.repeat(self.scales, cols // shape[1], 1).astype(float)
        self.weights = self.levels * self.by_column
        self.blocks = blocks(cols, 128)
        self.groups = 1 if group == 0 else self.blocks * (128 // group)
        self.tiles, self.pairs = packed_codes(self.codes, bits), packed_scales(self.scales, group, cols)


class Product:
    """The struct MatmulArgs and the arrays it points to."""

    def __init__(self, matrix, x, x_stride, tokens, aligned, out_bf16=False, bias=None, int8=None, splits=1, tiles_a_warp=0, int_sums=False):
        self.matrix, self.tokens, self.splits, self.out_bf16 = matrix, tokens, splits, out_bf16
        self.y = np.full((tokens, matrix.rows), 9, np.uint16 if out_bf16 else F)
        self.workspace = np.full((splits, tokens, matrix.rows), 7, W if int_sums else F) if splits > 1 else None
        scales, sums, block_sums = int8 or (None, None, None)
        pointers = [matrix.tiles, matrix.pairs, x, scales, sums, block_sums, bias, self.y, self.workspace]
        self.reached = [a for a in pointers if a is not None]
        self.data = struct.pack("9Qq9i2?2x", *[0 if a is None else a.ctypes.data for a in pointers], x_stride, matrix.rows, matrix.cols, matrix.blocks,
                                matrix.groups, tokens, matrix.step, matrix.zero, splits, tiles_a_warp, aligned, out_bf16)

    def arguments(self):
        return by_value(self.data)

    def result(self):
        return from_bf16(self.y) if self.out_bf16 else self.y


def skinny_bytes(bits, group, tokens, int8, warps, tiles):
    n, of_tile = blocks(tokens, 8), 0 if group == 0 else max(1, 256 // bits // group)
    return (4 * warps * 512 + (2048 if group == 0 else 0) + warps * 3 * 2 * (512 + of_tile * 128) + warps * tiles * tokens * 128 * (1 if int8 else 2) +
            warps * tiles * (128 // group if group else 0) * n * 32)


def tile_rows(bits, group, tokens):
    return 256 if bits == 2 and group and tokens == 32 else 128


def tile_bytes(bits, group, tokens, int8):
    return (3 if bits == 8 else 4) * (tile_rows(bits, group, tokens) // 16 * (bits // 2) * 512 + tokens * 128 * (1 if int8 else 2))


def run_skinny(kernels, adder, product, int8, warps, tiles_a_warp, grid, int_sums):
    m, n = product.matrix, 1 if product.tokens <= 8 else 2
    assert warps * tiles_a_warp * product.splits >= m.blocks
    kernels.launch([f"skinny_kernelILi{m.bits}ELi{m.group}ELi{n}ELb{int(int8)}E"], (grid, product.splits, 1), 32 * warps, product.arguments(),
                   smem=skinny_bytes(m.bits, m.group, product.tokens, int8, warps, tiles_a_warp), reached=product.reached)
    add_splits(adder, product, int_sums)


def run_tile(kernels, product, int8, tokens_a_block, int_sums):
    m = product.matrix
    kernels.launch([f"tile_matmul_kernelILi{m.bits}ELi{m.group}ELi{tokens_a_block}ELb{int(int8)}E"],
                   (blocks(m.rows, tile_rows(m.bits, m.group, tokens_a_block)), blocks(product.tokens, tokens_a_block), product.splits), 128, product.arguments(),
                   smem=tile_bytes(m.bits, m.group, tokens_a_block, int8), reached=product.reached)
    add_splits(kernels, product, int_sums)


def add_splits(kernels, product, int_sums):
    if product.splits > 1:
        kernels.launch([f"add_splits_kernelI{'i' if int_sums else 'f'}Lb{int(product.matrix.group == 0)}E"], (blocks(product.matrix.rows, 256), min(product.tokens, 3)), 256, product.arguments(),
                       reached=product.reached)


# ---- layout and packing ----


def check_maps():
    """The order that is described is one: every code has a place of its own, in a row's own tile."""
    for bits in (2, 4, 8):
        places = packed_codes(np.zeros((16, 128), np.uint8), bits)
        owners = np.zeros((len(places), 32 // bits), int)
        for row in range(16):
            for col in range(128):
                codes = np.zeros((16, 128), np.uint8)
                codes[row, col] = (1 << bits) - 1
                words = packed_codes(codes, bits)
                fields = words[:, None] >> (np.arange(32 // bits, dtype=U) * U(bits)) & U((1 << bits) - 1)
                assert (fields != 0).sum() == 1
                owners += fields != 0
        assert (owners == 1).all()


def check_packing(kernels, random):
    for bits, group in FLOAT_FORMS:
        for rows, cols in ((16, 128), (40, 576 if group in (0, 32) else 640), (7, 172 if group == 0 else 384), (33, 1 if group == 0 else 256)):
            m = Matrix(random, bits, group, rows, cols)
            words, pairs = np.full(m.tiles.shape, 77, U), np.full(m.pairs.shape, 77, U)
            kernels.launch([f"pack_codes_kernelILi{bits}E"], blocks(words.size, 256), 256, m.codes, I(rows), I(cols), I(m.blocks), I(words.size), words)
            assert (words == m.tiles).all()
            kernels.launch(["pack_scales_kernel"], blocks(pairs.size, 256), 256, m.scales, I(rows), I(cols), I(m.groups), I(cols // m.scales.shape[1]),
                           I(group or cols), I(pairs.size), pairs)
            assert (pairs == m.pairs).all()
            if group == 32 and cols % 64 == 0:  # groups of 64 become twice as many of 32
                wide = np.ascontiguousarray(m.scales[:, ::2])
                kernels.launch(["pack_scales_kernel"], blocks(pairs.size, 256), 256, wide, I(rows), I(cols), I(m.groups), I(64), I(32), I(pairs.size), pairs)
                assert (pairs == packed_scales(np.repeat(wide, 2, 1), 32, cols)).all()
            out = np.full((rows, cols), 9, np.uint16)
            tiles = words.size // 128
            kernels.launch([f"dequantize_kernelILi{bits}E"], blocks(tiles * 32, 256), 256, words, m.pairs, I(rows), I(cols), I(m.blocks), I(m.groups), I(tiles),
                           W(m.step), W(m.zero), np.uint8(cols % 8 == 0), out)
            assert (out == to_bf16((m.levels * m.by_column).astype(F))).all()


def rounded(x):
    """[tokens, cols] of bfloat16 values as quant/activations.h rounds them: codes, scales."""
    x = x.astype(F)
    finite = np.isfinite(x).all(1)
    scales = np.where(finite, np.abs(x).max(1) / F(127), F(np.nan)).astype(F)
    safe = np.where(scales > 0, scales, F(1))[:, None]
    codes = np.where((scales > 0)[:, None], np.rint(np.where(finite[:, None], x, 0) / safe), 0).astype(np.int8)
    return codes, scales


def check_rounding(kernels, random):
    for tokens, cols, stride in ((3, 576, 576), (5, 172, 176), (2, 130, 130), (1, 5000, 5000)):
        x = exact_bf16(random.normal(size=(tokens, stride)) * 3)
        x[0, 0] = 0.0
        if tokens > 2:
            x[1] = 0
            x[2, cols - 1] = np.inf if tokens == 3 else np.nan
        of = blocks(cols, 128)
        codes, scales, sums, block_sums = np.full((tokens, of * 128), 9, np.int8), np.full(tokens, 9, F), np.full(tokens, 9, W), np.full((tokens, of), 9, W)
        threads = 32
        while threads < 256 and threads * 8 < cols:
            threads *= 2
        kernels.launch(["round_to_int8_kernel"], tokens, threads, to_bf16(x), I(cols), I(stride), I(of), codes, scales, sums, block_sums)
        expected, expected_scales = rounded(x[:, :cols])
        full = np.zeros_like(codes)
        full[:, :cols] = expected
        np.testing.assert_array_equal(scales, expected_scales)
        assert (codes == int8_order(full)).all()
        assert (sums == full.astype(int).sum(1)).all() and (block_sums == full.reshape(tokens, of, 128).astype(int).sum(2)).all()


# ---- products ----


def float_tokens(random, tokens, cols, stride, integers):
    x = random.integers(-8, 9, (tokens, stride)).astype(F) * (2.0 ** random.integers(-20, 20, (tokens, 1))).astype(F) if integers else \
        exact_bf16((random.normal(size=(tokens, stride)) + 0.5) * 2.0 ** random.integers(-8, 8, (tokens, 1)))
    bits = to_bf16(x)
    bits[:, cols:] = 0x7FFF  # NaN between rows: must not be read, or must not matter
    return bits, x[:, :cols].astype(float)


def compare(product, x, exact, bias, raw_codes):
    """raw_codes: the kernel sums codes and takes the zero away afterwards, so that terms are as large as that."""
    m = product.matrix
    expected = x @ m.weights.T + (0 if bias is None else bias)
    if exact:
        assert (product.result() == (exact_bf16(expected.astype(F)) if product.out_bf16 else expected.astype(F))).all()
        return
    terms = (m.step * m.codes + m.zero if raw_codes else np.abs(m.levels)) * m.by_column
    magnitude = np.abs(x) @ terms.T + (0 if bias is None else np.abs(bias))
    # A sum of k16 on tensor cores: up to 16 units of 2^-24 of its |terms| (measured: 14); chains of some of them, and sums of those, in float32.
    error = np.abs(product.result() - expected)
    allowed = 64 * 2.0**-24 * magnitude + (2.0**-8 * np.abs(expected) if product.out_bf16 else 0)
    assert (error <= allowed).all(), (error / magnitude).max() * 2**24


# rows, cols without groups, cols with; tokens; elements by which a row of x is longer; splits; warps; blocks a warp; blocks that share row tiles
SKINNY_SHAPES = [(48, 576, 640, 1, 0, 1, 3, 2, 2), (40, 172, 384, 5, 4, 1, 2, 1, 1), (100, 173, 128, 8, 0, 1, 1, 2, 3), (33, 640, 768, 9, 0, 2, 2, 2, 2),
                 (16, 1100, 1152, 16, 4, 3, 3, 1, 1), (96, 1300, 1152, 3, 4, 2, 2, 0, 1),
                 (70, 1300, 1408, 12, 4, 1, 3, 0, 1), (32, 256, 256, 5, 0, 1, 1, 2, 1),
                 (16, 4000, 4096, 2, 0, 1, 16, 2, 1), (24, 1300, 1408, 13, 0, 1, 6, 2, 1), (24, 1304, 1408, 7, 0, 1, 6, 2, 1)]
TILE_SHAPES = [(48, 576, 640, 17, 0, 1), (200, 172, 384, 33, 4, 1), (130, 173, 256, 40, 0, 1), (16, 700, 640, 70, 4, 2), (64, 1100, 1152, 20, 0, 3), (64, 300, 256, 66, 4, 1), (20, 640, 640, 35, 0, 1), (48, 648, 640, 41, 0, 1)]


def check_skinny(kernels, random, adder):
    for bits, group in FLOAT_FORMS:
        for rows, plain, grouped, tokens, longer, splits, warps, tiles, grid in SKINNY_SHAPES:
            cols, tiles = grouped if group else plain, tiles or 4
            warps = blocks(blocks(cols, 128), splits * tiles) if warps * tiles * splits < blocks(cols, 128) else warps
            for exact in (True, False):
                m = Matrix(random, bits, group, rows, cols, powers=exact)
                x, values = float_tokens(random, tokens, cols, cols + longer, exact)
                bias = None if exact else random.normal(size=rows).astype(F)
                product = Product(m, x, cols + longer, tokens, (cols + longer) % 8 == 0, out_bf16=tokens == 5, bias=bias, splits=splits, tiles_a_warp=tiles)
                run_skinny(kernels, adder, product, False, warps, tiles, grid, False)
                compare(product, values, exact, bias, True)
    check_not_finite(lambda product: run_skinny(kernels, adder, product, False, 2, 2, 1, False), random, 3)


def check_not_finite(run, random, tokens):
    """A value that is not finite, in one token: nothing finite of it, and the others as without it."""
    m = Matrix(random, 2, 0, 32, 256)
    for value in (np.nan, np.inf, -np.inf):
        x, values = float_tokens(random, tokens, 256, 256, False)
        x[1, 200] = to_bf16(np.array([value], F))[0]
        product = Product(m, x, 256, tokens, True, tiles_a_warp=2)
        run(product)
        y = product.result()
        assert not np.isfinite(y[1]).any()
        others = [i for i in range(tokens) if i != 1]
        expected = values[others] @ m.weights.T
        np.testing.assert_allclose(y[others], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    for largest in (2.0**55, 2.0**-50):  # tokens of any size that activations have
        x, values = float_tokens(random, tokens, 256, 256, True)
        values = np.rint(values / np.abs(values).max(1, keepdims=True) * 8) / 8 * largest
        product = Product(m, to_bf16(values), 256, tokens, True, tiles_a_warp=2)
        run(product)
        np.testing.assert_allclose(product.result(), values @ m.weights.T, rtol=1e-5, atol=1e-5 * largest)


def check_tile(kernels, random):
    for bits, group in FLOAT_FORMS:
        for rows, plain, grouped, tokens, longer, splits in TILE_SHAPES:
            cols, of_block = grouped if group else plain, 32 if tokens in (17, 20, 40, 35) else 64
            for exact in (True, False):
                m = Matrix(random, bits, group, rows, cols, powers=exact)
                x, values = float_tokens(random, tokens, cols, cols + longer, exact)
                bias = None if exact else random.normal(size=rows).astype(F)
                product = Product(m, x, cols + longer, tokens, (cols + longer) % 8 == 0, out_bf16=tokens == 33, bias=bias, splits=splits)
                run_tile(kernels, product, False, of_block, False)
                compare(product, values, exact, bias, False)
    check_not_finite(lambda product: run_tile(kernels, product, False, 32, False), random, 18)


def int8_case(random, bits, group, rows, cols, tokens, **more):
    m = Matrix(random, bits, group, rows, cols, powers=group != 0)
    values = exact_bf16(random.normal(size=(tokens, cols)))
    codes, scales = rounded(values)
    full = np.zeros((tokens, m.blocks * 128), np.int8)
    full[:, :cols] = codes
    sums, block_sums = full.astype(int).sum(1).astype(W), full.reshape(tokens, -1, 128).astype(int).sum(2).astype(W)
    bias = random.normal(size=rows).astype(F) if tokens % 2 == 0 else None
    product = Product(m, int8_order(full), full.shape[1], tokens, True, out_bf16=tokens in (5, 35, 33), bias=bias, int8=(scales, sums, np.ascontiguousarray(block_sums)),
                      int_sums=group == 0, **more)
    if group == 0:  # integers, a rounding to float, one of the factor, one of the product
        expected = (codes.astype(np.int64) @ m.levels.T).astype(F).astype(float) * (m.scales[:, 0] * scales[:, None]).astype(float)
    else:  # scales of groups are powers of two here: nothing is rounded before the token's scale
        expected = (codes.astype(float) @ m.weights.T).astype(F).astype(float) * scales[:, None].astype(float)
    return product, (expected + (0 if bias is None else bias)).astype(F), bias is None


def compare_int8(product, expected, exact):
    """A bias is added by a fused multiply-add, which double cannot always do: with one, a unit in the last place."""
    if product.out_bf16:
        assert (product.result() == exact_bf16(expected)).all()
    else:
        assert (np.abs(product.result() - expected) <= (0 if exact else np.spacing(np.abs(expected)))).all()


def check_skinny_int8(kernels, random, adder):
    for bits, group in INT8_FORMS:
        for rows, plain, grouped, tokens, _, splits, warps, tiles, grid in SKINNY_SHAPES:
            cols, tiles = grouped if group else plain, tiles or 4
            warps = blocks(blocks(cols, 128), splits * tiles) if warps * tiles * splits < blocks(cols, 128) else warps
            product, expected, exact = int8_case(random, bits, group, rows, cols, tokens, splits=splits, tiles_a_warp=tiles)
            run_skinny(kernels, adder, product, True, warps, tiles, grid, group == 0)
            compare_int8(product, expected, exact)


def check_tile_int8(kernels, random):
    for bits, group in INT8_FORMS:
        for rows, plain, grouped, tokens, _, splits in TILE_SHAPES:
            product, expected, exact = int8_case(random, bits, group, rows, grouped if group else plain, tokens, splits=splits)
            run_tile(kernels, product, True, 32 if tokens in (17, 20, 40, 35) else 64, group == 0)
            compare_int8(product, expected, exact)


# ---- codes as operands, exhaustively ----


def check_decoding():
    """The formulas of kernels/cuda/tiles.cuh on every code in every field beside every neighbour, here in numpy."""
    fma = lambda a, b, c: exact_bf16((a.astype(float) * b + c).astype(F))
    bf16 = lambda bits: from_bf16(bits.astype(np.uint16))
    halves = np.arange(1 << 16, dtype=U)
    for bits in (2, 4, 8):
        mask = (1 << bits) - 1
        for word in (halves, halves | U(0xFFFF0000), halves << U(16), halves << U(16) | U(0xFFFF)):
            for low in (0, 16):
                for field in range(16 // bits):
                    code = (word >> U(low + bits * field) & U(mask)).astype(int)
                    # subnormal bfloat16, and the normal numbers of the same spacing
                    e, height = field * bits // 8, field * bits % 8
                    half = bf16((word >> U(8 * e) & U((mask * 0x00010001) << height)) >> U(low) & U(0xFFFF))
                    assert (half.astype(float) == code * 2.0**(height - 133)).all()
                    # levels in bfloat16
                    at = bits * field
                    for step, zero in {2: [(1, 0), (1, 1), (1, 2), (2, 3), (2, 0), (2, 6)], 4: [(1, z) for z in range(16)], 8: [(1, 128)]}[bits]:
                        if bits == 2:
                            to = 2 if at == 0 or at % 4 == 2 else 4
                            moved = word << U(to - at) if at < to else word >> U(at - to)
                            value = bf16((moved & U(0x00030003 << to) | U(0x43004300)) >> U(low) & U(0xFFFF))
                            bias = -32 * step - zero if to == 2 else -8 * step - zero
                            assert exact_bf16(np.array([bias]))[0] == bias
                            level = fma(value, step / (4 if to == 2 else 16), bias)
                        elif bits == 4:
                            assert exact_bf16(np.array([-128 - zero]))[0] == -128 - zero
                            level = fma(bf16((word >> U(at) & U(0x000F000F) | U(0x43004300)) >> U(low) & U(0xFFFF)), 1, -128 - zero)
                        else:
                            moved = word >> U(at)
                            value = bf16((moved & U(0x007F007F) | U(0x43004300)) >> U(low) & U(0xFFFF))
                            level = fma(value, 1, bf16(((moved & U(0x00800080)) ^ U(0xC380C380)) >> U(low) & U(0xFFFF)))
                        assert (level == step * code - zero).all()


def main():
    check_maps()
    check_decoding()
    print("layout and decoding: every place and every code: ok", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for seed in map(int, sys.argv[1:] or ["0", "5", "11"]):
            packing, skinny, tile = (CompiledKernels(folder, file, seed) for file in ("packed_tiles", "skinny_matmul", "tile_matmul"))
            random = np.random.default_rng(1)
            check_packing(packing, random)
            check_rounding(packing, random)
            check_skinny(skinny, random, tile)
            check_skinny_int8(skinny, random, tile)
            check_tile(tile, random)
            check_tile_int8(tile, random)
            for kernels in (packing, skinny, tile):
                kernels.require_all_executed()
            print(f"products: {sum(len(k.names) for k in (packing, skinny, tile))} kernels, compiled PTX executed on the CPU, order {seed}: ok", flush=True)


main()
