#!/usr/bin/env python3
"""Every instruction of the executor against values computed by other means: Python's integers, fractions rounded once, numpy's layouts."""
import itertools
import math
import sys
from fractions import Fraction

import numpy as np

import ptx
from snippets import FORMATS, NAN, UNSIGNED, check, decode, encode, kernel, over_arrays, round_integer

random = np.random.default_rng(3)
M32, M64 = (1 << 32) - 1, (1 << 64) - 1


def signed(x, bits):
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def edges(bits, n=96):
    top = 1 << (bits - 1)
    special = [0, 1, 2, 3, top - 1, top, top + 1, 2 * top - 1, 2 * top - 2, 5, 31, 32, 33, 63, 64, 255, 256]
    values = [int(x) & (2 * top - 1) for x in random.integers(0, 1 << 63, n - len(special))] + [x & (2 * top - 1) for x in special]
    return np.array(random.permutation(np.array(values, np.uint64)), f"u{bits // 8}")


def cross(*arrays):
    """Every combination of their elements."""
    return [np.array(x, a.dtype) for x, a in zip(zip(*itertools.product(*arrays)), arrays)]


def test_integers():
    for bits in (16, 32, 64):
        a, b = cross(edges(bits, 40), edges(bits, 40))
        c = np.resize(edges(bits), len(a))
        mask = (1 << bits) - 1
        dtype = a.dtype
        for sign in "us":
            v = (lambda x: signed(int(x), bits)) if sign == "s" else int
            t = f"{sign}{bits}"
            rows = [(v(x), v(y), v(z)) for x, y, z in zip(a, b, c)]

            def run(operation, f, sources="%a, %b"):
                check(f"{operation}.{t}", over_arrays(f"{operation}.{t} %d, {sources};", [a, b, c], dtype), [f(*row) & mask for row in rows])
            run("add", lambda x, y, z: x + y)
            run("sub", lambda x, y, z: x - y)
            run("mul.lo", lambda x, y, z: x * y)
            run("mul.hi", lambda x, y, z: x * y >> bits)
            run("mad.lo", lambda x, y, z: x * y + z, "%a, %b, %c")
            run("mad.hi", lambda x, y, z: (x * y >> bits) + z, "%a, %b, %c")
            run("min", lambda x, y, z: min(x, y))
            run("max", lambda x, y, z: max(x, y))
            run("sad", lambda x, y, z: abs(x - y) + z, "%a, %b, %c")
            run("div", lambda x, y, z: mask if y == 0 else abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1))
            run("rem", lambda x, y, z: x if y == 0 else abs(x) % abs(y) * (-1 if x < 0 else 1))
            if sign == "s":
                run("abs", lambda x, y, z: abs(x), "%a")
                run("neg", lambda x, y, z: -x, "%a")
            if bits < 64:
                wide = np.dtype(f"u{bits // 4}")
                check(f"mul.wide.{t}", over_arrays(f"mul.wide.{t} %d, %a, %b;", [a, b], wide), [x * y & ((1 << 2 * bits) - 1) for x, y, _ in rows])
                w = np.resize(edges(2 * bits), len(a))
                check(f"mad.wide.{t}", over_arrays(f"mad.wide.{t} %d, %a, %b, %c;", [a, b, w], wide),
                      [x * y + int(z) & ((1 << 2 * bits) - 1) for (x, y, _), z in zip(rows, w)])
    a, b = cross(edges(32, 40), edges(32, 40))
    rows = [(signed(int(x), 32), signed(int(y), 32)) for x, y in zip(a, b)]
    clamp = lambda x: max(-1 << 31, min((1 << 31) - 1, x))
    check("add.sat", over_arrays("add.sat.s32 %d, %a, %b;", [a, b]), [clamp(x + y) & M32 for x, y in rows])
    check("sub.sat", over_arrays("sub.sat.s32 %d, %a, %b;", [a, b]), [clamp(x - y) & M32 for x, y in rows])
    check("mad.hi.sat", over_arrays("mad.hi.sat.s32 %d, %a, %b, %b;", [a, b]), [clamp((x * y >> 32) + y) & M32 for x, y in rows])
    low = lambda x: signed(x & 0xffffff, 24)
    check("mul24.lo.s32", over_arrays("mul24.lo.s32 %d, %a, %b;", [a, b]), [low(x) * low(y) & M32 for x, y in rows])
    check("mul24.lo.u32", over_arrays("mul24.lo.u32 %d, %a, %b;", [a, b]), [(x & 0xffffff) * (y & 0xffffff) & M32 for x, y in rows])
    # 64-bit sums of 32-bit halves, by carries.
    a, b = cross(edges(64, 30), edges(64, 30))
    split = "mov.b64 {%r1, %r2}, %a; mov.b64 {%r3, %r4}, %b;"
    check("addc", over_arrays(split + "add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4; mov.b64 %d, {%r5, %r6};", [a, b], np.uint64),
          [int(x) + int(y) & M64 for x, y in zip(a, b)])
    check("subc", over_arrays(split + "sub.cc.u32 %r5, %r1, %r3; subc.cc.u32 %r6, %r2, %r4; mov.b64 %d, {%r5, %r6};", [a, b], np.uint64),
          [int(x) - int(y) & M64 for x, y in zip(a, b)])
    check("carry out", over_arrays("add.cc.u64 %rd1, %a, %b; addc.u64 %d, 0, 0;", [a, b], np.uint64), [int(x) + int(y) >> 64 for x, y in zip(a, b)])


def test_bits():
    for bits in (16, 32, 64):
        a, b = cross(edges(bits, 30), edges(bits, 30))
        mask = (1 << bits) - 1
        run = lambda name, f, sources="%a, %b": check(name, over_arrays(f"{name}.b{bits} %d, {sources};", [a, b], a.dtype),
                                                      [f(int(x), int(y)) & mask for x, y in zip(a, b)])
        run("and", lambda x, y: x & y)
        run("or", lambda x, y: x | y)
        run("xor", lambda x, y: x ^ y)
        run("not", lambda x, y: ~x, "%a")
        run("cnot", lambda x, y: int(x == 0), "%a")
        a, by = cross(edges(bits, 30), np.array([0, 1, 7, bits - 1, bits, bits + 1, 64, 255, 1 << 31, M32], np.uint32))
        run = lambda name, f: check(name, over_arrays(f"{name} %d, %a, %b;", [a, by], a.dtype), [f(int(x), int(y)) & mask for x, y in zip(a, by)])
        run(f"shl.b{bits}", lambda x, y: x << min(y, bits))
        run(f"shr.u{bits}", lambda x, y: x >> min(y, bits))
        run(f"shr.s{bits}", lambda x, y: signed(x, bits) >> min(y, bits))
        if bits < 32:
            continue
        for sign in "us":
            x, at, length = cross(edges(bits, 20), np.array([0, 1, 5, 31, 32, 40, 63, 64, 255, 256], np.uint32), np.array([0, 1, 8, 31, 32, 33, 64, 255, 257], np.uint32))

            def extract(x, p, n):  # as the manual says, bit by bit
                p, n = p & 255, n & 255
                sbit = 0 if sign == "u" or n == 0 else x >> min(p + n - 1, bits - 1) & 1
                return sum((x >> p + i & 1 if i < n and p + i < bits else sbit) << i for i in range(bits))
            check(f"bfe.{sign}{bits}", over_arrays(f"bfe.{sign}{bits} %d, %a, %b, %c;", [x, at, length], x.dtype), [extract(int(x), int(p), int(n)) for x, p, n in zip(x, at, length)])
        y = np.resize(edges(bits), len(x))

        def insert(x, into, p, n):
            p, n = p & 255, n & 255
            for i in range(n):
                if p + i < bits:
                    into = into & ~(1 << p + i) | (x >> i & 1 if i < bits else 0) << p + i
            return into
        check("bfi", over_arrays(f"bfi.b{bits} %d, %a, %b, %c, %e;", [x, y, at, length], x.dtype),
              [insert(int(q), int(r), int(p), int(n)) for q, r, p, n in zip(x, y, at, length)])
        a = edges(bits)
        count = lambda f: [f(int(x)) & M32 for x in a]
        check("popc", over_arrays(f"popc.b{bits} %d, %a;", [a]), count(lambda x: bin(x).count("1")))
        check("clz", over_arrays(f"clz.b{bits} %d, %a;", [a]), count(lambda x: bits - x.bit_length()))
        check("brev", over_arrays(f"brev.b{bits} %d, %a;", [a], a.dtype), [int(f"{int(x):0{bits}b}"[::-1], 2) for x in a])
        check("bfind.u", over_arrays(f"bfind.u{bits} %d, %a;", [a]), count(lambda x: x.bit_length() - 1))
        flipped = lambda x: ~x & ((1 << bits) - 1) if x >> bits - 1 else x
        check("bfind.s", over_arrays(f"bfind.s{bits} %d, %a;", [a]), count(lambda x: flipped(x).bit_length() - 1))
        check("bfind.shiftamt", over_arrays(f"bfind.shiftamt.u{bits} %d, %a;", [a]), count(lambda x: bits - x.bit_length() if x else M32))
    a, b, c = (edges(32) for _ in range(3))
    rows = [(int(x), int(y), int(z)) for x, y, z in zip(a, b, c)]
    for table in (0, 255, 0xea, 0x96, 0xca, 0x6a, 0x80, 0xfe, 0x01, 0x1b):
        check(f"lop3 {table:#x}", over_arrays(f"lop3.b32 %d, %a, %b, %c, {table};", [a, b, c]),
              [sum((table >> ((x >> i & 1) << 2 | (y >> i & 1) << 1 | z >> i & 1) & 1) << i for i in range(32)) for x, y, z in rows])
    shift = np.resize(np.array([0, 1, 8, 31, 32, 33, 63, M32], np.uint32), len(a))
    for mode, amount in (("wrap", lambda n: n & 31), ("clamp", lambda n: min(n, 32))):
        wide = [((y << 32 | x), amount(int(n))) for (x, y, _), n in zip(rows, shift)]
        check(f"shf.l.{mode}", over_arrays(f"shf.l.{mode}.b32 %d, %a, %b, %c;", [a, b, shift]), [(x << n >> 32) & M32 for x, n in wide])
        check(f"shf.r.{mode}", over_arrays(f"shf.r.{mode}.b32 %d, %a, %b, %c;", [a, b, shift]), [x >> n & M32 for x, n in wide])

    def permute(x, y, selectors):
        out = 0
        for i, s in enumerate(selectors):
            byte = (y << 32 | x) >> 8 * (s & 7) & 255
            out |= (byte if s < 8 else 255 * (byte >> 7)) << 8 * i
        return out
    check("prmt", over_arrays("prmt.b32 %d, %a, %b, %c;", [a, b, c]), [permute(x, y, [z >> 4 * i & 15 for i in range(4)]) for x, y, z in rows])
    modes = {"f4e": lambda n: [n, n + 1, n + 2, n + 3], "b4e": lambda n: [n, n - 1 & 7, n - 2 & 7, n - 3 & 7], "rc8": lambda n: [n] * 4,
             "ecl": lambda n: [max(i, n) for i in range(4)], "ecr": lambda n: [min(i, n) for i in range(4)], "rc16": lambda n: [n % 2 * 2, n % 2 * 2 + 1] * 2}
    for mode, selectors in modes.items():
        check(f"prmt.{mode}", over_arrays(f"prmt.b32.{mode} %d, %a, %b, %c;", [a, b, c]), [permute(x, y, selectors(z & 3)) for x, y, z in rows])
    for s, t in itertools.product("us", "us"):
        element = lambda x, i, bits, sign: signed(x >> bits * i, bits) if sign == "s" else x >> bits * i & ((1 << bits) - 1)
        check(f"dp4a.{s}32.{t}32", over_arrays(f"dp4a.{s}32.{t}32 %d, %a, %b, %c;", [a, b, c]),
              [sum(element(x, i, 8, s) * element(y, i, 8, t) for i in range(4)) + z & M32 for x, y, z in rows])
        for half in ("lo", "hi"):
            check(f"dp2a.{half}", over_arrays(f"dp2a.{half}.{s}32.{t}32 %d, %a, %b, %c;", [a, b, c]),
                  [sum(element(x, i, 16, s) * element(y, i + 2 * (half == "hi"), 8, t) for i in range(2)) + z & M32 for x, y, z in rows])
    # Predicates are lanes of one word.
    check("mov.pred", over_arrays("mov.pred %p1, -1; mov.pred %p2, 0; selp.u32 %r1, 4, 1, %p1; selp.u32 %r2, 2, 5, %p2; add.u32 %d, %r1, %r2;", [np.zeros(40, np.uint32)]), [9] * 40)
    test = "setp.ne.u32 %p1, %a, 0; setp.ne.u32 %p2, %b, 0; {} selp.u32 %d, 7, 9, %p3;"
    x, y = cross(np.array([0, 1], np.uint32), np.array([0, 1], np.uint32))
    for name, f in (("and", lambda x, y: x & y), ("or", lambda x, y: x | y), ("xor", lambda x, y: x ^ y), ("not", lambda x, y: 1 - x)):
        operands = "%p1" if name == "not" else "%p1, %p2"
        check(name + ".pred", over_arrays(test.format(f"{name}.pred %p3, {operands};"), [x, y]), [7 if f(int(p), int(q)) else 9 for p, q in zip(x, y)])


# --- floats -------------------------------------------------------------------------------------------------------------

def floats(kind, n=24):
    """Bits of numbers, special ones among them: zeros, infinities, NaN, subnormals, neighbours of 1."""
    mantissa, exponent = FORMATS[kind]
    top, one = 1 << (mantissa + exponent), ((1 << (exponent - 1)) - 1) << mantissa
    infinity = ((1 << exponent) - 1) << mantissa
    special = [0, top, 1, top | 1, (1 << mantissa) - 1, 1 << mantissa, infinity, top | infinity, infinity | 1, infinity | 1 << mantissa - 1, infinity - 1,
               top | infinity - 1, one, top | one, one + 1, one - 1, one | 1 << mantissa - 1, one + (1 << mantissa)]
    near = [one + int(x) for x in random.integers(-6 << mantissa, 6 << mantissa, n // 2)]
    anywhere = [int(x) & (2 * top - 1) for x in random.integers(0, 1 << 63, n - len(near))]
    return np.array(special + near + anywhere, UNSIGNED[kind])


def value(x):
    return Fraction(0) if x == "-0" else x


def is_negative(x):
    return x == "-0" or (x != NAN and not isinstance(x, str) and x < 0)


def exact_sum(x, y):
    """(number, sign of a zero that is exact: None where it depends on the rounding)."""
    if NAN in (x, y) or (x in (math.inf, -math.inf) and y in (math.inf, -math.inf) and x != y):
        return NAN, 0
    for z in (x, y):
        if z in (math.inf, -math.inf):
            return z, 0
    if value(x) == 0 and value(y) == 0 and is_negative(x) == is_negative(y):
        return Fraction(0), int(is_negative(x))
    return value(x) + value(y), None


def exact_product(x, y):
    if NAN in (x, y):
        return NAN
    negative = is_negative(x) != is_negative(y)
    if math.inf in (x, y) or -math.inf in (x, y):
        return NAN if value(x) == 0 or value(y) == 0 else -math.inf if negative else math.inf
    product = value(x) * value(y)
    return "-0" if product == 0 and negative else product


def exact_quotient(x, y):
    if NAN in (x, y) or (value(x) == 0 and value(y) == 0) or (abs(value(x)) == math.inf and abs(value(y)) == math.inf):
        return NAN
    negative = is_negative(x) != is_negative(y)
    if value(y) == 0 or abs(value(x)) == math.inf:
        return -math.inf if negative else math.inf
    if abs(value(y)) == math.inf or value(x) == 0:
        return "-0" if negative else Fraction(0)
    return value(x) / value(y)


def rounded_sum(x, y, kind, mode):
    total, sign = exact_sum(x, y)
    return encode(total, kind, mode, int(mode == "m") if sign is None else sign)


def rounded_root(x, kind, mode):
    if x == NAN or (is_negative(x) and x != "-0"):
        return NAN
    if x in ("-0", math.inf) or x == 0:
        return encode(x, kind, mode)
    scale = 1 << 800  # enough bits below the last place, and an odd one that says the rest is not 0
    root = math.isqrt(x.numerator * scale * scale // x.denominator)
    exact = root * root * x.denominator == x.numerator * scale * scale
    return encode(Fraction(2 * root + (not exact), 2 * scale), kind, mode)


def flushed(x):
    tiny = Fraction(2)**-126
    return x if isinstance(x, str) or abs(x) >= tiny or x == 0 else "-0" if x < 0 else Fraction(0)


def flush_bits(bits):
    return bits if bits == NAN or bits & 0x7f800000 else bits & 0x80000000


def saturated(bits, kind):
    x = decode(bits, kind) if bits != NAN else NAN
    return 0 if x == NAN or is_negative(x) or x == 0 else encode(min(x, Fraction(1)), kind)


def test_float_arithmetic():
    for kind in ("f32", "f64"):
        a, b = cross(floats(kind, 14), floats(kind, 14))
        x, y = ([decode(int(v), kind) for v in array] for array in (a, b))
        c = np.resize(floats(kind, 30), len(a)).copy()
        for i in range(0, len(c), 2):  # cancellations
            product = encode(exact_product(x[i], y[i]), kind)
            if product != NAN:
                c[i] = product ^ 1 << sum(FORMATS[kind])
        z = [decode(int(v), kind) for v in c]
        for mode in "nzmp":
            run = lambda name, expected, sources="%a, %b": check(f"{name}.r{mode}.{kind}", over_arrays(f"{name}.r{mode}.{kind} %d, {sources};", [a, b, c], a.dtype), expected)
            run("add", [rounded_sum(p, q, kind, mode) for p, q in zip(x, y)])
            negated = lambda q: NAN if q == NAN else Fraction(0) if q == "-0" else "-0" if q == 0 else -q
            run("sub", [rounded_sum(p, negated(q), kind, mode) for p, q in zip(x, y)])
            run("mul", [encode(exact_product(p, q), kind, mode) for p, q in zip(x, y)])
            run("fma", [rounded_sum(exact_product(p, q), r, kind, mode) for p, q, r in zip(x, y, z)], "%a, %b, %c")
            run("div", [encode(exact_quotient(p, q), kind, mode) for p, q in zip(x, y)])
            run("rcp", [encode(exact_quotient(Fraction(1), p), kind, mode) for p in x], "%a")
            run("sqrt", [rounded_root(p, kind, mode) for p in x], "%a")
    a, b = cross(floats("f32", 20), floats("f32", 20))
    x, y = ([decode(int(v), "f32") for v in array] for array in (a, b))
    for name, f in (("add", lambda p, q: rounded_sum(p, q, "f32", "n")), ("mul", lambda p, q: encode(exact_product(p, q), "f32"))):
        check(name + ".ftz", over_arrays(f"{name}.ftz.f32 %d, %a, %b;", [a, b]), [flush_bits(f(flushed(p), flushed(q))) for p, q in zip(x, y)])
        check(name + ".sat", over_arrays(f"{name}.sat.f32 %d, %a, %b;", [a, b]), [saturated(f(p, q), "f32") for p, q in zip(x, y)])


def test_flushed_subnormals():
    a, b = cross(floats("f32", 10), floats("f32", 10))
    exact = [(decode(int(p), "f32"), decode(int(q), "f32")) for p, q in zip(a, b)]
    x = [flushed(p) for p, _ in exact]
    pairs = list(zip(x, [flushed(q) for _, q in exact]))
    run = lambda name, expected, sources="%a, %b": check(name, over_arrays(f"{name}.f32 %d, {sources};", [a, b]), expected)
    run("fma.rn.ftz", [flush_bits(rounded_sum(exact_product(p, q), q, "f32", "n")) for p, q in pairs], "%a, %b, %b")
    run("div.rn.ftz", [flush_bits(encode(exact_quotient(p, q), "f32")) for p, q in pairs])
    run("min.ftz", [encode(extremum(p, q, False, False), "f32") for p, q in pairs])
    run("neg.ftz", [flush_bits(int(v)) ^ 1 << 31 for v in a], "%a")
    run("abs.ftz", [flush_bits(int(v)) & ~(1 << 31) for v in a], "%a")
    for name, f in ORDERED.items():
        expected = [int(NAN not in (p, q) and f(value(p), value(q))) for p, q in pairs]
        check(f"setp.{name}.ftz", over_arrays(f"setp.{name}.ftz.f32 %p1, %a, %b; selp.u32 %d, 1, 0, %p1;", [a, b]), expected)
        check(f"set.{name}.ftz", over_arrays(f"set.{name}.ftz.u32.f32 %d, %a, %b;", [a, b]), [M32 * e for e in expected])
    check("cvt.rpi.ftz", over_arrays("cvt.rpi.ftz.s32.f32 %d, %a;", [a]), [0 if p == NAN else max(-1 << 31, min((1 << 31) - 1, round_integer(value(p), "p"))) & M32 if abs(value(p)) != math.inf else
                                                                       (1 << 31) - (p > 0) for p in x])
    check("cvt.rp.ftz.f16", over_arrays("cvt.rp.ftz.f16.f32 %d, %a;", [a], np.uint16), [encode(p, "f16", "p") for p in x])
    tiny = np.array([1, 0x80000001], np.uint32)
    check("slct.ftz", over_arrays("slct.ftz.b32.f32 %d, 5, 6, %a;", [tiny]), [5, 5])
    check("slct", over_arrays("slct.b32.f32 %d, 5, 6, %a;", [tiny]), [5, 6])
    check("ex2.ftz", over_arrays("ex2.approx.ftz.f32 %d, %a;", [np.array([0xc3000000], np.uint32)]), [0])  # 2^-128 is subnormal
    check("ex2", over_arrays("ex2.approx.f32 %d, %a;", [np.array([0xc3000000], np.uint32)]), [1 << 21])


def test_half_arithmetic():
    for kind in ("f16", "bf16"):
        a, b = cross(floats(kind, 20), floats(kind, 20))
        x, y = ([decode(int(v), kind) for v in array] for array in (a, b))
        c = np.resize(floats(kind, 40), len(a)).copy()
        for i in range(0, len(c), 2):
            product = encode(exact_product(x[i], y[i]), kind)
            if product != NAN:
                c[i] = product ^ 0x8000
        z = [decode(int(v), kind) for v in c]
        negated = lambda q: NAN if q == NAN else Fraction(0) if q == "-0" else "-0" if q == 0 else -q
        relu = lambda bits: 0 if bits != NAN and bits & 0x8000 else bits
        expected = {"add.rn": [rounded_sum(p, q, kind, "n") for p, q in zip(x, y)], "sub.rn": [rounded_sum(p, negated(q), kind, "n") for p, q in zip(x, y)],
                    "mul.rn": [encode(exact_product(p, q), kind) for p, q in zip(x, y)],
                    "fma.rn": [rounded_sum(exact_product(p, q), r, kind, "n") for p, q, r in zip(x, y, z)]}
        expected["fma.rn.relu"] = [relu(bits) for bits in expected["fma.rn"]]
        if kind == "f16":
            expected["add.sat"] = [saturated(bits, kind) for bits in expected["add.rn"]]
            expected["fma.rn.sat"] = [saturated(bits, kind) for bits in expected["fma.rn"]]
        for name, results in expected.items():
            sources = "%a, %b, %c" if name[:3] == "fma" else "%a, %b"
            check(f"{name}.{kind}", over_arrays(f"{name}.{kind} %d, {sources};", [a, b, c], np.uint16), results)
            # As the upper half of a pair, beside a one that must stay what its own half gives.
            pairs = "mov.b32 %r1, {%a, %a}; mov.b32 %r2, {%a, %b}; mov.b32 %r3, {%a, %c};" + f"{name}.{kind}x2 %r4, " + sources.replace("%a", "%r1").replace("%b", "%r2").replace("%c", "%r3")
            check(f"{name}.{kind}x2", over_arrays(pairs + "; mov.b32 {%h1, %d}, %r4;", [a, b, c], np.uint16), results)
            lower = pairs.replace("{%a, %b}", "{%b, %a}").replace("{%a, %c}", "{%c, %a}")
            check(f"{name}.{kind}x2 low", over_arrays(lower + "; mov.b32 {%d, %h1}, %r4;", [a, b, c], np.uint16), results)


def extremum(p, q, propagates, largest):
    if NAN in (p, q):
        return NAN if propagates or p == q else q if p == NAN else p
    if value(p) == value(q) == 0:
        signs = is_negative(p), is_negative(q)
        return ("-0" if all(signs) else Fraction(0)) if largest else "-0" if any(signs) else Fraction(0)
    return p if (value(p) > value(q)) == largest and value(p) != value(q) else q


def test_extrema_and_signs():
    for kind in FORMATS:
        a, b = cross(floats(kind, 20), floats(kind, 20))
        x, y = ([decode(int(v), kind) for v in array] for array in (a, b))
        for name, propagates in itertools.product(("min", "max"), ("", ".NaN") if kind != "f64" else ("",)):
            expected = [encode(extremum(p, q, propagates != "", name == "max"), kind) for p, q in zip(x, y)]
            check(f"{name}{propagates}.{kind}", over_arrays(f"{name}{propagates}.{kind} %d, %a, %b;", [a, b], a.dtype), expected)
            if a.dtype.itemsize == 2:
                check(f"{name}{propagates}.{kind}x2", over_arrays(f"mov.b32 %r1, {{%a, %b}}; mov.b32 %r2, {{%b, %a}}; {name}{propagates}.{kind}x2 %d, %r1, %r2;", [a, b]),
                      [0x10001 * (e if e != NAN else 0x7fff) for e in expected])
        top = 1 << sum(FORMATS[kind])
        check(f"neg.{kind}", over_arrays(f"neg.{kind} %d, %a;", [a], a.dtype), [int(v) ^ top for v in a])
        check(f"abs.{kind}", over_arrays(f"abs.{kind} %d, %a;", [a], a.dtype), [int(v) & ~top for v in a])
        if kind in ("f32", "f64"):
            check("copysign", over_arrays(f"copysign.{kind} %d, %a, %b;", [a, b], a.dtype), 
                  [int(v) & (top - 1) | int(s) & top for s, v in zip(a, b)])
            mantissa, exponent = FORMATS[kind]
            e, m = [int(v) >> mantissa & ((1 << exponent) - 1) for v in a], [int(v) & ((1 << mantissa) - 1) for v in a]
            full = (1 << exponent) - 1
            kinds = {"finite": lambda e, m: e < full, "infinite": lambda e, m: e == full and m == 0, "number": lambda e, m: e < full or m == 0,
                     "notanumber": lambda e, m: e == full and m != 0, "normal": lambda e, m: 0 < e < full or e == m == 0, "subnormal": lambda e, m: e == 0 and m != 0}
            for name, f in kinds.items():
                check("testp." + name, over_arrays(f"testp.{name}.{kind} %p1, %a; selp.u32 %d, 1, 0, %p1;", [a]), [int(f(*one)) for one in zip(e, m)])


ORDERED = {"eq": lambda x, y: x == y, "ne": lambda x, y: x != y, "lt": lambda x, y: x < y, "le": lambda x, y: x <= y, "gt": lambda x, y: x > y, "ge": lambda x, y: x >= y}


def test_comparisons():
    for bits in (16, 32, 64):
        a, b = cross(edges(bits, 30), np.concatenate([edges(bits, 20), edges(bits, 20)]))
        b[::7] = a[::7]
        for sign in "us":
            v = (lambda x: signed(int(x), bits)) if sign == "s" else int
            names = dict(ORDERED) if sign == "s" else dict(ORDERED, lo=ORDERED["lt"], ls=ORDERED["le"], hi=ORDERED["gt"], hs=ORDERED["ge"])
            for name, f in names.items():
                expected = [int(f(v(x), v(y))) for x, y in zip(a, b)]
                check(f"setp.{name}.{sign}{bits}", over_arrays(f"setp.{name}.{sign}{bits} %p1|%p2, %a, %b; selp.u32 %r1, 1, 0, %p1; selp.u32 %d, %r1, 3, %p1; @%p2 add.u32 %d, %d, 4;", [a, b]),
                      [1 if e else 7 for e in expected])
    for kind in FORMATS:
        a, b = cross(floats(kind, 20), floats(kind, 20))
        b[::5] = a[::5]
        x, y = ([decode(int(v), kind) for v in array] for array in (a, b))
        functions = {}
        for name, f in ORDERED.items():
            functions[name] = lambda p, q, f=f: NAN not in (p, q) and f(value(p), value(q))
            functions[name + "u"] = lambda p, q, f=f: NAN in (p, q) or f(value(p), value(q))
        functions["num"] = lambda p, q: NAN not in (p, q)
        functions["nan"] = lambda p, q: NAN in (p, q)
        one, low = {"f16": (0x3c00, np.uint16), "bf16": (0x3f80, np.uint16), "f32": (0x3f800000, np.uint32), "f64": (None, None)}[kind]
        for name, f in functions.items():
            expected = [int(f(p, q)) for p, q in zip(x, y)]
            check(f"setp.{name}.{kind}", over_arrays(f"setp.{name}.{kind} %p1, %a, %b; selp.u32 %d, 1, 0, %p1;", [a, b]), expected)
            check(f"set.{name}.u32.{kind}", over_arrays(f"set.{name}.u32.{kind} %d, %a, %b;", [a, b]), [M32 * e for e in expected])
            if one:
                check(f"set.{name}.{kind}.{kind}", over_arrays(f"set.{name}.{kind}.{kind} %d, %a, %b;", [a, b], low), [one * e for e in expected])
            if low == np.uint16:
                pack = "mov.b32 %r1, {%a, %b}; mov.b32 %r2, {%b, %b};"
                same = [int(f(q, q)) for q in y]
                check(f"set.{name}.x2", over_arrays(pack + f"set.{name}.{kind}x2.{kind}x2 %d, %r1, %r2;", [a, b]), [one * e | one * s << 16 for e, s in zip(expected, same)])
                check(f"setp.{name}.x2", over_arrays(pack + f"setp.{name}.{kind}x2 %p1|%p2, %r1, %r2; selp.u32 %d, 1, 0, %p1; @%p2 add.u32 %d, %d, 2;", [a, b]),
                      [e | 2 * s for e, s in zip(expected, same)])
    a, b = cross(np.array([0, 1, 5], np.uint32), np.array([0, 1, 5], np.uint32))
    for name, f in (("and", lambda x, y: x and y), ("or", lambda x, y: x or y), ("xor", lambda x, y: x != y)):
        check("setp." + name, over_arrays(f"setp.ne.u32 %p3, %b, 0; setp.lt.{name}.u32 %p1|%p2, %a, %b, !%p3; selp.u32 %d, 1, 0, %p1; @%p2 add.u32 %d, %d, 2;", [a, b]),
              [int(f(x < y, y == 0)) + 2 * int(f(not x < y, y == 0)) for x, y in zip(a, b)])
    c = floats("f32")
    check("slct.f32", over_arrays("slct.b32.f32 %d, 5, 6, %a;", [c]), [5 if decode(int(v), "f32") != NAN and value(decode(int(v), "f32")) >= 0 else 6 for v in c])
    check("slct.s32", over_arrays("slct.b32.s32 %d, 5, 6, %a;", [c]), [6 if int(v) >> 31 else 5 for v in c])


# --- conversions --------------------------------------------------------------------------------------------------------

def test_conversions():
    for kind in FORMATS:
        mantissa, exponent = FORMATS[kind]
        a = floats(kind, 120)
        integers = [encode(Fraction(n, 2), kind) for n in (*range(-9, 10), 255, 256, 257, 511, 512, -256, -257, 1 << 16, (1 << 16) - 1, 1 << 32, (1 << 32) - 1, -1 << 32, 1 << 33, 1 << 64, -1 << 64, 1 << 65)]
        a = np.concatenate([a, np.array(integers, a.dtype)])
        x = [decode(int(v), kind) for v in a]
        for mode, sign, bits in itertools.product("nzmp", "us", (8, 16, 32, 64)):
            least, most = (-1 << bits - 1, (1 << bits - 1) - 1) if sign == "s" else (0, (1 << bits) - 1)

            def convert(p):
                if p == NAN:
                    return 1 << bits - 1 if kind == "f64" or bits == 64 else 0
                n = round_integer(value(p), mode) if abs(value(p)) != math.inf else (most if p > 0 else least)
                return max(least, min(most, n)) & ((1 << bits) - 1)
            target = np.dtype(f"u{max(bits // 8, 1)}")
            check(f"cvt.r{mode}i.{sign}{bits}.{kind}", over_arrays(f"cvt.r{mode}i.{sign}{bits}.{kind} %d, %a;", [a], target), [convert(p) for p in x])
        for other in FORMATS:
            wider = FORMATS[other][0] >= mantissa and FORMATS[other][1] >= exponent
            if other == kind and kind in ("f32", "f64"):
                for mode in "nzmp":
                    integral = lambda p: p if p == NAN or abs(value(p)) == math.inf else ("-0" if is_negative(p) else Fraction(0)) if round_integer(value(p), mode) == 0 else Fraction(round_integer(value(p), mode))
                    check(f"cvt.r{mode}i.{kind}.{kind}", over_arrays(f"cvt.r{mode}i.{kind}.{kind} %d, %a;", [a], a.dtype), [encode(integral(p), kind) for p in x])
                check("cvt.sat", over_arrays(f"cvt.sat.{kind}.{kind} %d, %a;", [a], a.dtype), [saturated(encode(p, kind), kind) for p in x])
            elif wider and other != kind:
                check(f"cvt.{other}.{kind}", over_arrays(f"cvt.{other}.{kind} %d, %a;", [a], UNSIGNED[other]), [encode(p, other) for p in x])
            elif kind in ("f32", "f64") and other != kind:
                for mode in "nzmp" if other == "f32" else "nz" if other == "bf16" else "nzmp":
                    check(f"cvt.r{mode}.{other}.{kind}", over_arrays(f"cvt.r{mode}.{other}.{kind} %d, %a;", [a], UNSIGNED[other]), [encode(p, other, mode) for p in x])
    a = floats("f32", 200)
    a[::3] = (a[::3] & ~np.uint32(0x1fff)) | 0x1000  # ties
    b = a[::-1].copy()
    x, y = ([decode(int(v), "f32") for v in array] for array in (a, b))
    for kind, mode, relu in itertools.product(("f16", "bf16"), "nz", ("", ".relu")):
        half = lambda p: (lambda bits: 0x7fff if bits == NAN else 0 if relu and is_negative(p) else bits)(encode(p, kind, mode))
        check(f"cvt.{kind}x2", over_arrays(f"cvt.r{mode}{relu}.{kind}x2.f32 %d, %a, %b;", [a, b]), [half(p) << 16 | half(q) for p, q in zip(x, y)])
        check(f"cvt.{kind}{relu}", over_arrays(f"cvt.r{mode}{relu}.{kind}.f32 %d, %a;", [a], np.uint16), [half(p) for p in x])

    def tf32(p, bits):
        if p == NAN or abs(value(p)) == math.inf or value(p) == 0:
            return encode(p, "f32") if p != NAN else NAN
        quantum = Fraction(2)**(max((bits >> 23 & 255) - 127, -126) - 10)
        return encode(Fraction(round_integer(p / quantum, "a")) * quantum, "f32", "n", int(p < 0))
    check("cvt.rna.tf32", over_arrays("cvt.rna.tf32.f32 %d, %a;", [a]), [tf32(p, int(v)) for p, v in zip(x, a)])
    check("cvt.ftz", over_arrays("cvt.ftz.f64.f32 %d, %a;", [a], np.uint64), [encode(flushed(p), "f64") for p in x])
    # Integers.
    for (s, from_bits), (t, to_bits) in itertools.product(itertools.product("us", (8, 16, 32, 64)), repeat=2):
        a = edges(from_bits) if from_bits > 8 else np.arange(256, dtype=np.uint8)
        v = [signed(int(q), from_bits) if s == "s" else int(q) for q in a]
        least, most = (-1 << to_bits - 1, (1 << to_bits - 1) - 1) if t == "s" else (0, (1 << to_bits) - 1)
        mask = (1 << to_bits) - 1
        name = f"{t}{to_bits}.{s}{from_bits}"
        if (s, from_bits) != (t, to_bits):
            check("cvt." + name, over_arrays(f"cvt.{name} %d, %a;", [a], f"u{to_bits // 8}"), [q & mask for q in v])
            check("cvt.sat." + name, over_arrays(f"cvt.sat.{name} %d, %a;", [a], f"u{to_bits // 8}"), [max(least, min(most, q)) & mask for q in v])
        if to_bits < 32:  # into a wider register
            check("cvt wide " + name, over_arrays(f"cvt.{name} %d, %a;", [a], np.uint64), [(signed(q, to_bits) if t == "s" else q & mask) & M64 for q in v])
    a = edges(32)
    for t in "us":  # a register of 16 bits holds no more than that
        check("cvt in a half", over_arrays(f"cvt.{t}8.s32 %h1, %a; mov.b32 %d, {{%h1, 0}};", [a]), [(signed(int(q), 8) if t == "s" else int(q) & 255) & 0xffff for q in a])
    check("ld in a half", over_arrays("mad.wide.u32 %at, %i, 4, %p_a; ld.global.s8 %h1, [%at]; mov.b32 %d, {%h1, 0};", [a]), [signed(int(q), 8) & 0xffff for q in a])
    for s, bits in itertools.product("us", (8, 16, 32, 64)):
        a = edges(bits) if bits > 8 else np.arange(256, dtype=np.uint8)
        v = [Fraction(signed(int(q), bits) if s == "s" else int(q)) for q in a]
        for kind, mode in itertools.product(FORMATS, "nzmp"):
            if kind == "bf16" and (bits == 64 or mode in "mp"):
                continue
            check(f"cvt.r{mode}.{kind}.{s}{bits}", over_arrays(f"cvt.r{mode}.{kind}.{s}{bits} %d, %a;", [a], UNSIGNED[kind]), [encode(q, kind, mode) for q in v])
    a, b, c = (edges(32) for _ in range(3))
    a[::2], b[::3] = random.integers(-300, 300, len(a[::2])).astype(np.int32).view(np.uint32), random.integers(-70000, 70000, len(b[::3])).astype(np.int32).view(np.uint32)
    clamp = lambda x, t, bits: max(-1 << bits - 1 if t == "s" else 0, min((1 << bits - (t == "s")) - 1, signed(int(x), 32))) & ((1 << bits) - 1)
    for t in "us":
        check("cvt.pack 8", over_arrays(f"cvt.pack.sat.{t}8.s32.b32 %d, %a, %b, %c;", [a, b, c]), [(int(z) << 16 | clamp(x, t, 8) << 8 | clamp(y, t, 8)) & M32 for x, y, z in zip(a, b, c)])
        check("cvt.pack 16", over_arrays(f"cvt.pack.sat.{t}16.s32 %d, %a, %b;", [a, b]), [clamp(x, t, 16) << 16 | clamp(y, t, 16) for x, y in zip(a, b)])


def test_approximations():
    a = np.concatenate([random.normal(size=200) * 10, [0, -0.0, np.inf, -np.inf, np.nan, 1, 2, -1]]).astype(np.float32)
    x = a.astype(float)
    with np.errstate(all="ignore"):
        for name, f in (("ex2.approx", np.exp2), ("lg2.approx", np.log2), ("rcp.approx", lambda x: 1 / x), ("sqrt.approx", np.sqrt), ("rsqrt.approx", lambda x: 1 / np.sqrt(x)),
                        ("sin.approx", np.sin), ("cos.approx", np.cos), ("tanh.approx", np.tanh)):
            np.testing.assert_allclose(over_arrays(f"{name}.f32 %d, %a;", [a.view(np.uint32)]).view(np.float32), f(x), rtol=2e-7, err_msg=name)
        np.testing.assert_allclose(over_arrays("div.approx.f32 %d, %a, 0f40400000;", [a.view(np.uint32)]).view(np.float32), x / 3, rtol=2e-7)
        half = np.clip(a, -8, 8).astype(np.float16)
        np.testing.assert_allclose(over_arrays("ex2.approx.f16 %d, %a;", [half.view(np.uint16)], np.uint16).view(np.float16), np.exp2(half.astype(float)), rtol=1e-3)
        pairs = over_arrays("mov.b32 %r1, {%a, 0}; tanh.approx.f16x2 %d, %r1;", [half.view(np.uint16)])
        np.testing.assert_allclose((pairs & 0xffff).astype(np.uint16).view(np.float16), np.tanh(half.astype(float)), rtol=1e-3)


# --- memory -------------------------------------------------------------------------------------------------------------

def test_memory():
    raw = random.integers(0, 256, 32 * 32, dtype=np.uint8)
    for bits, vector, sign in itertools.product((8, 16, 32, 64), (1, 2, 4), "us"):
        size = bits // 8 * vector
        if size > 16:
            continue
        wide = "%rd" if bits == 64 else "%r"
        registers = "{" + ", ".join(f"{wide}{k + 1}" for k in range(vector)) + "}" if vector > 1 else wide + "1"
        v = f".v{vector}" if vector > 1 else ""
        # Through shared memory, as loaded: extended in a register of 32 bits, and cut again.
        body = (f".shared .align 16 .b8 there[1024]; mad.wide.u32 %at, %lane, {size}, %p_a; ld.global{v}.{sign}{bits} {registers}, [%at]; mov.u32 %r20, there; mad.lo.u32 %r20, %lane, {size}, %r20;"
                f"st.shared{v}.{sign}{bits} [%r20], {registers}; bar.sync 0; ld.shared{v}.{sign}{bits} {registers}, [%r20]; mad.wide.u32 %at, %lane, {size}, %p_b; st.global{v}.{sign}{bits} [%at], {registers};"
                f"{'mov.b64 %rd9, %rd1' if bits == 64 else 'cvt.s64.s32 %rd9, %r1'}; mad.wide.u32 %at, %lane, 8, %p_c; st.global.u64 [%at], %rd9;")
        b, c = np.zeros(32 * size, np.uint8), np.zeros(32, np.int64)
        ptx.Module(kernel(body, "abc")).launch("k", 1, 32, raw, b, c)
        first = raw[:32 * size].view(f"{'i' if sign == 's' else 'u'}{bits // 8}").reshape(32, vector)[:, 0]
        assert (b == raw[:32 * size]).all() and (c == (first.view(np.int32) if bits == 32 else first).astype(np.int64)).all(), (bits, vector, sign)
    # Variables, generic addresses of every space, local arrays, parameters as structures.
    text = kernel("""
        .local .align 8 .b8 depot[32]; .shared .align 4 .b32 there[32];
        mov.u64 %rd1, table; mul.wide.u32 %rd2, %lane, 4; add.s64 %rd3, %rd1, %rd2; ld.const.u32 %r1, [%rd3];
        mov.u64 %rd4, pointer; ld.global.u64 %rd4, [%rd4]; add.s64 %rd4, %rd4, %rd2; ld.u32 %r2, [%rd4];
        mov.u64 %rd5, depot; cvta.local.u64 %rd6, %rd5; st.u32 [%rd6+4], %r1; ld.local.u32 %r3, [depot+4];
        mov.u64 %rd7, there; cvta.shared.u64 %rd8, %rd7; add.s64 %rd8, %rd8, %rd2; st.u32 [%rd8], %r2; bar.sync 0; cvta.to.shared.u64 %rd9, %rd8; cvt.u32.u64 %r9, %rd9; ld.shared.u32 %r4, [%r9];
        isspacep.shared %p1, %rd8; isspacep.local %p2, %rd6; isspacep.global %p3, %p_out; isspacep.global %p4, %rd8;
        selp.u32 %r5, 1, 0, %p1; @%p2 add.u32 %r5, %r5, 2; @%p3 add.u32 %r5, %r5, 4; @%p4 add.u32 %r5, %r5, 8;
        mad.lo.u32 %r6, %r3, 1000, %r4; mad.lo.u32 %r6, %r5, 1000000, %r6; mad.wide.u32 %at, %lane, 4, %p_out; cvta.global.u64 %at, %at; st.u32 [%at], %r6;""", ["out"],
                  ".const .align 4 .u32 table[32] = {" + ", ".join(map(str, range(32))) + "};\n.global .align 4 .u32 other[32] = {" + ", ".join(str(7 * k) for k in range(32)) +
                  "};\n.global .align 8 .u64 pointer = generic(other);\n")
    out = np.zeros(32, np.uint32)
    module = ptx.Module(text)
    module.launch("k", 1, 32, out)
    assert (out == 7000000 + np.arange(32) * 1007).all(), out
    module.variable("table")[:4] = 5, 0, 0, 0
    module.launch("k", 1, 32, out)
    assert out[0] == 7005000
    # Special registers in three dimensions, dynamic shared memory.
    names = ["%tid.x", "%tid.y", "%tid.z", "%ntid.x", "%ntid.y", "%ntid.z", "%ctaid.x", "%ctaid.y", "%ctaid.z", "%nctaid.x", "%nctaid.y", "%nctaid.z", "%laneid", "%warpid",
             "%lanemask_lt", "%lanemask_ge", "%dynamic_smem_size"]
    index = "mov.u32 %r1, %ctaid.z; mov.u32 %r2, %nctaid.y; mov.u32 %r3, %ctaid.y; mad.lo.u32 %r1, %r1, %r2, %r3; mov.u32 %r2, %nctaid.x; mov.u32 %r3, %ctaid.x; mad.lo.u32 %r1, %r1, %r2, %r3;" \
            "mov.u32 %r2, %tid.z; mov.u32 %r3, %tid.y; mad.lo.u32 %r2, %r2, 5, %r3; mov.u32 %r3, %tid.x; mad.lo.u32 %r2, %r2, 7, %r3; mad.lo.u32 %r1, %r1, 105, %r2;"
    body = index + f"mad.wide.u32 %at, %r1, {4 * len(names)}, %p_out;" + "".join(f"mov.u32 %r5, {name}; st.global.u32 [%at+{4 * k}], %r5;" for k, name in enumerate(names))
    out = np.zeros((2, 3, 4, 3, 5, 7, len(names)), np.uint32)
    ptx.Module(kernel(body, ["out"])).launch("k", (4, 3, 2), (7, 5, 3), out, shared=96)
    for cz, cy, cx, z, y, x in np.ndindex(out.shape[:-1]):
        thread = (z * 5 + y) * 7 + x
        lane = thread % 32
        assert out[cz, cy, cx, z, y, x].tolist() == [x, y, z, 7, 5, 3, cx, cy, cz, 4, 3, 2, lane, thread // 32, (1 << lane) - 1, M32 & ~((1 << lane) - 1), 96]


def test_modifiers():
    """What changes nothing here: hints, fences, orders of memory."""
    body = """createpolicy.fractional.L2::evict_last.b64 %rd1, 1.0; prefetch.global.L2 [%p_a]; mad.wide.u32 %at, %lane, 4, %p_a; ld.global.nc.L1::no_allocate.L2::128B.u32 %r1, [%at];
        ld.global.L1::evict_last.L2::cache_hint.u32 %r2, [%at], %rd1; ld.volatile.global.u32 %r3, [%at]; ld.relaxed.gpu.global.u32 %r4, [%at]; ld.acquire.sys.global.u32 %r5, [%at]; ldu.global.u32 %r6, [%at];
        add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r3; add.u32 %r1, %r1, %r4; add.u32 %r1, %r1, %r5; add.u32 %r1, %r1, %r6; membar.gl; fence.acq_rel.gpu; griddepcontrol.wait; nanosleep.u32 20;
        mad.wide.u32 %at, %lane, 4, %p_b; st.global.cs.L2::cache_hint.u32 [%at], %r1, %rd1; st.release.gpu.global.u32 [%at], %r1; griddepcontrol.launch_dependents; exit;"""
    a, b = np.arange(32, dtype=np.uint32), np.zeros(32, np.uint32)
    ptx.Module(kernel(body, "ab")).launch("k", 1, 32, a, b)
    assert (b == 6 * a).all()


def test_atomics():
    b = edges(32, 32)
    operations = (("u32", "add", lambda o, b: o + b), ("s32", "min", lambda o, b: min(signed(o, 32), signed(b, 32))), ("u32", "min", min),
                  ("s32", "max", lambda o, b: max(signed(o, 32), signed(b, 32))), ("u32", "max", max), ("b32", "and", lambda o, b: o & b), ("b32", "or", lambda o, b: o | b),
                  ("b32", "xor", lambda o, b: o ^ b), ("b32", "exch", lambda o, b: b), ("u32", "inc", lambda o, b: 0 if o >= b else o + 1),
                  ("u32", "dec", lambda o, b: b if o == 0 or o > b else o - 1))
    of_lane = "mad.wide.u32 %at, %lane, 4, {}; "
    for t, name, f in operations:
        in_global = of_lane.format("%p_b") + f"ld.global.u32 %r3, [%at]; atom.global.{name}.{t} %r4, [%p_a], %r3;" + of_lane.format("%p_c") + "st.global.u32 [%at], %r4;"
        in_shared = (".shared .align 4 .b32 there; setp.eq.u32 %p1, %lane, 0; @%p1 ld.global.u32 %r2, [%p_a]; @%p1 st.shared.u32 [there], %r2; bar.sync 0;" +
                     in_global.replace("atom.global", "atom.shared").replace("[%p_a]", "[there]") + "bar.sync 0; ld.shared.u32 %r2, [there]; @%p1 st.global.u32 [%p_a], %r2;")
        for body in (in_global, in_shared):
            a, c = np.array([0x12345678], np.uint32), np.zeros(32, np.uint32)
            ptx.Module(kernel(body, "abc")).launch("k", 1, 32, a, b, c)
            old = 0x12345678
            for k in range(32):  # lanes in their order
                assert int(c[k]) == old, (name, t, k)
                old = f(old, int(b[k])) & M32
            assert int(a[0]) == old, (name, t)
    # Compare and swap, floats, pairs, 64 bits; red.
    a = np.zeros(8, np.uint64)
    a.view(np.float32)[0], a.view(np.float32)[2], a.view(np.float16)[8:10] = 1.5, np.float32(1e-40), (1, 2)
    body = """atom.global.cas.b32 %r1, [%p_a+16], %r9, 5; red.global.add.f32 [%p_a], 0f3F000000; red.global.add.f32 [%p_a+8], 0f00000000; mov.b32 %r2, 0x3C003800; red.global.add.noftz.f16x2 [%p_a+16], %r2;
        red.global.add.u64 [%p_a+24], 3; red.global.add.f64 [%p_a+32], 0d3FD0000000000000; mov.u32 %r3, %laneid; atom.global.cas.b32 %r4, [%p_a+40], %r3, 100;"""
    ptx.Module(kernel("mov.u32 %r9, 77;" + body, "a")).launch("k", 1, 32, a)
    assert a.view(np.float32)[0] == 17.5 and a.view(np.float32)[2] == 0 and a.view(np.float16)[8:10].tolist() == [17, 34] and a[3] == 96 and a.view(float)[4] == 8 and a[5] == 100


def test_copies():
    source = random.integers(0, 256, 32 * 16, dtype=np.uint8)
    for size, cache, tail in itertools.product((4, 8, 16), ("ca", "cg"), ("", ", %r5", ", !%p1")):
        if cache == "cg" and size != 16:
            continue
        body = f""".shared .align 16 .b8 there[512]; and.b32 %r5, %lane, 3; min.u32 %r5, %r5, {size}; setp.ne.u32 %p1, %r5, 0; mad.wide.u32 %at, %lane, {size}, %p_a; mov.u32 %r1, there; mad.lo.u32 %r1, %lane, {size}, %r1;
            cp.async.{cache}.shared.global [%r1], [%at], {size}{tail}; cp.async.commit_group; cp.async.wait_group 0; bar.sync 0; mad.lo.u32 %r6, %lane, -{size}, {31 * size}; mov.u32 %r1, there; add.u32 %r6, %r6, %r1;
            mad.wide.u32 %at, %lane, {size}, %p_b;""" + "".join(f"ld.shared.b32 %r7, [%r6+{4 * k}]; st.global.b32 [%at+{4 * k}], %r7;" for k in range(size // 4))
        out = np.zeros(32 * size, np.uint8)
        ptx.Module(kernel(body, "ab")).launch("k", 1, 32, source, out)
        expected = source[:32 * size].reshape(32, size).copy()
        for lane in range(32):
            kept = {"": size, ", %r5": lane % 4, ", !%p1": size if lane % 4 else 0}[tail]
            expected[lane, kept:] = 0
        assert (out.reshape(32, size) == expected[::-1]).all(), (size, cache, tail)
    # Groups: after wait_group 1 the older is there.
    body = """.shared .align 16 .b8 there[32]; mov.u32 %r1, there; setp.eq.u32 %p1, %lane, 0; @%p1 cp.async.ca.shared.global [%r1], [%p_a], 4; cp.async.commit_group; @%p1 cp.async.ca.shared.global [%r1+4], [%p_a+4], 4; cp.async.commit_group;
        cp.async.wait_group 1; bar.sync 0; ld.shared.b32 %r2, [%r1]; cp.async.wait_all; bar.sync 0; ld.shared.b32 %r3, [%r1+4]; @%p1 st.global.v2.b32 [%p_b], {%r2, %r3};"""
    out = np.zeros(8, np.uint8)
    ptx.Module(kernel(body, "ab")).launch("k", 1, 32, source, out)
    assert (out == source[:8]).all()


# --- what lanes do together ---------------------------------------------------------------------------------------------

def lanes(body, *inputs, dtype=np.uint32, threads=32):
    """The result in %d of each lane; inputs in %a, %b."""
    return over_lanes(body, inputs, dtype, threads)


def over_lanes(body, inputs, dtype, threads):
    out = np.zeros(threads, dtype)
    names = "abc"[:len(inputs)]
    code = "mov.u32 %r50, %tid.x;" + "".join(f".reg .b{8 * x.itemsize} %{n}; mad.wide.u32 %at, %r50, {x.itemsize}, %p_{n}; ld.global.b{8 * x.itemsize} %{n}, [%at];" for n, x in zip(names, inputs))
    ptx.Module(kernel(code + f".reg .b32 %d; {body} mad.wide.u32 %at, %r50, 4, %p_out; st.global.b32 [%at], %d;", [*names, "out"])).launch("k", 1, threads, *inputs, out)
    return out


def test_collectives():
    a = random.integers(0, 1 << 32, 32, dtype=np.uint32)
    by = random.integers(0, 32, 32, dtype=np.uint32)
    for width, mode in itertools.product((32, 16, 8, 4, 2, 1), ("up", "down", "bfly", "idx")):
        segment = 32 - width
        clamp = 0 if mode == "up" else 31
        for amounts in (by, np.full(32, 1, np.uint32), np.full(32, 3, np.uint32)):
            actual = lanes(f"shfl.sync.{mode}.b32 %d|%p1, %a, %b, {segment << 8 | clamp}, -1; @!%p1 xor.b32 %d, %d, 1;", a, amounts)
            for lane in range(32):
                first, n = lane // width * width, int(amounts[lane])
                source = {"up": lane - n, "down": lane + n, "bfly": lane ^ n, "idx": first + n % width}[mode]
                # A butterfly may reach into earlier segments, not into later ones.
                inside = source < first + width if mode == "bfly" else first <= source < first + width
                assert actual[lane] == (a[source] if inside else a[lane] ^ 1), (mode, width, lane)
    flag = random.integers(0, 2, 32, dtype=np.uint32)
    for flags in (flag, np.ones(32, np.uint32), np.zeros(32, np.uint32)):
        bits = sum(int(x) << i for i, x in enumerate(flags))
        setp = "setp.ne.u32 %p1, %a, 0;"
        assert (lanes(setp + "vote.sync.ballot.b32 %d, %p1, -1;", flags) == bits).all()
        assert (lanes(setp + "vote.sync.ballot.b32 %d, !%p1, -1;", flags) == bits ^ M32).all()
        for mode, expected in (("all", bits == M32), ("any", bits != 0), ("uni", bits in (0, M32))):
            assert (lanes(setp + f"vote.sync.{mode}.pred %p2, %p1, -1; selp.u32 %d, 1, 0, %p2;", flags) == expected).all()
    # Two halves with masks of their own; a mask with lanes that have ended.
    halves = "setp.ne.u32 %p1, %a, 0; setp.lt.u32 %p3, %lane, 16; selp.b32 %r1, 0xffff, 0xffff0000, %p3;"
    bits = sum(int(x) << i for i, x in enumerate(flag))
    assert (lanes(halves + "vote.sync.ballot.b32 %d, %p1, %r1;", flag) == [bits & 0xffff] * 16 + [bits & 0xffff0000] * 16).all()
    assert (lanes("mov.u32 %d, 9; setp.ge.u32 %p2, %lane, 20; @%p2 ret; activemask.b32 %d; vote.sync.ballot.b32 %r1, 1, -1; setp.ne.u32 %p1, %r1, %d; @%p1 mov.u32 %d, 1;".replace(" 1, -1", " %p4, -1")
                  .replace("vote.", "setp.eq.u32 %p4, 0, 0; vote."), a)[:20] == 0xfffff).all()
    # Lanes that go straight to the end of the kernel have ended, too.
    out = np.zeros(32, np.uint32)
    ptx.Module(kernel("setp.ge.u32 %p2, %lane, 20; @%p2 bra OUT; setp.lt.u32 %p1, %lane, 8; vote.sync.ballot.b32 %r1, %p1, -1; mad.wide.u32 %at, %lane, 4, %p_out; st.global.b32 [%at], %r1; OUT:",
                      ["out"])).launch("k", 1, 32, out)
    assert (out == [255] * 20 + [0] * 12).all()
    values = random.integers(0, 4, 32, dtype=np.uint32)
    expected = [sum(int(v == w) << i for i, w in enumerate(values)) for v in values]
    assert (lanes("match.any.sync.b32 %d, %a, -1;", values) == expected).all()
    for v in (values, np.full(32, 3, np.uint32)):
        assert (lanes("match.all.sync.b32 %d|%p1, %a, -1; @%p1 xor.b32 %d, %d, 1;", v) == (0 if len(set(v.tolist())) > 1 else M32 ^ 1)).all()
    for t, name, f in (("u32", "add", sum), ("s32", "add", sum), ("u32", "min", min), ("u32", "max", max), ("s32", "min", min), ("s32", "max", max)):
        v = a.astype(np.int64) if t == "u32" else a.view(np.int32).astype(np.int64)
        assert (lanes(f"redux.sync.{name}.{t} %d, %a, -1;", a) == f(v.tolist()) & M32).all(), (t, name)
    for name, f in (("and", np.bitwise_and), ("or", np.bitwise_or), ("xor", np.bitwise_xor)):
        assert (lanes(f"redux.sync.{name}.b32 %d, %a, -1;", a) == f.reduce(a)).all()
    assert (lanes("elect.sync %d|%p1, -1; @%p1 add.u32 %d, %d, 5;", a) == [5] + [0] * 31).all()
    # Over the block: bar.red, and named barriers for some of the warps.
    flags = random.integers(0, 2, 128, dtype=np.uint32)
    assert (lanes("setp.ne.u32 %p1, %a, 0; barrier.sync 0; bar.red.popc.u32 %d, 0, %p1;", flags, threads=128) == flags.sum()).all()
    for name, expected in (("and", 0), ("or", 1)):
        assert (lanes(f"setp.ne.u32 %p1, %a, 0; bar.red.{name}.pred %p2, 1, %p1; selp.u32 %d, 1, 0, %p2;", flags, threads=128) == expected).all()
    # Warp 0 produces, warp 1 consumes: one arrives, the other waits.
    body = """.shared .align 4 .b32 there[32]; mov.u32 %r1, there; mad.lo.u32 %r1, %lane, 4, %r1; setp.lt.u32 %p1, %r50, 32; mov.u32 %d, 0; @%p1 bra PRODUCE; bar.sync 3, 64; ld.shared.b32 %d, [%r1]; bra.uni DONE;
        PRODUCE: st.shared.b32 [%r1], %a; bar.arrive 3, 64; DONE:"""
    v = random.integers(0, 1 << 32, 64, dtype=np.uint32)
    assert (lanes(body, v, threads=64)[32:] == v[:32]).all()


def test_matrices():
    # ldmatrix, from rows that lie anywhere.
    for count, trans in itertools.product((1, 2, 4), ("", ".trans")):
        data = random.integers(0, 1 << 16, (32, 8), dtype=np.uint16)
        order = random.permutation(32).astype(np.uint32)
        registers = "{" + ", ".join(f"%r{k + 10}" for k in range(count)) + "}"
        body = f""".shared .align 16 .b8 there[512]; mad.wide.u32 %at, %lane, 16, %p_a; ld.global.v4.b32 {{%r1, %r2, %r3, %r4}}, [%at]; mov.u32 %r5, there; mad.lo.u32 %r6, %lane, 16, %r5; st.shared.v4.b32 [%r6], {{%r1, %r2, %r3, %r4}}; bar.sync 0;
            mad.wide.u32 %at, %lane, 4, %p_b; ld.global.u32 %r7, [%at]; mad.lo.u32 %r7, %r7, 16, %r5; ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {registers}, [%r7]; mad.wide.u32 %at, %lane, {4 * count}, %p_c;"""
        body += "".join(f"st.global.b32 [%at+{4 * k}], %r{k + 10};" for k in range(count))
        out = np.zeros((32, count), np.uint32)
        ptx.Module(kernel(body, "abc")).launch("k", 1, 32, data, order, out)
        for m in range(count):
            matrix = data[order[8 * m:8 * m + 8]]
            matrix = matrix.T if trans else matrix
            assert (np.ascontiguousarray(matrix).view(np.uint32).reshape(32) == out[:, m]).all()

    def pack(elements, bits):  # along the last axis
        per = 32 // bits
        words = elements.astype(np.int64).reshape(*elements.shape[:-1], -1, per) & ((1 << bits) - 1)
        return (words << (np.arange(per) * bits)).sum(-1).astype(np.uint32)

    def multiply(shape, types, a, b, c, bits, options=""):
        """As the manual's figures place them: lanes in groups of four along K, groups along M or N."""
        k = a.shape[1]
        per, registers = 32 // bits, k * bits // 128
        words_a, words_b = pack(a, bits), pack(np.ascontiguousarray(b.T), bits)  # [16, words], [8, words]
        of_a = np.zeros((32, 2 * registers), np.uint32)
        of_b = np.zeros((32, registers), np.uint32)
        for lane in range(32):
            group, inner = divmod(lane, 4)
            for r in range(registers):
                of_a[lane, 2 * r], of_a[lane, 2 * r + 1] = words_a[group, inner + 4 * r], words_a[group + 8, inner + 4 * r]
                of_b[lane, r] = words_b[group, inner + 4 * r]
        of_c = c.reshape(2, 8, 4, 2).transpose(1, 2, 0, 3).reshape(32, 4)
        if types.startswith("f16"):
            of_c = np.ascontiguousarray(of_c).view(np.uint32)
        of_c = np.ascontiguousarray(of_c).view(np.uint32)
        sums = of_c.shape[1]
        vector = lambda base, n: "{" + ", ".join(f"%r{base + i}" for i in range(n)) + "}"
        body = "".join(f"mad.wide.u32 %at, %lane, {4 * n}, %p_{name};" + "".join(f"ld.global.b32 %r{base + i}, [%at+{4 * i}];" for i in range(n))
                       for name, base, n in (("a", 10, 2 * registers), ("b", 20, registers), ("c", 30, sums)))
        body = body.replace("%r3", "%x").replace("%x0", "%r30").replace("%x", "%r3")
        f32 = types.startswith("f32")
        if f32:
            body += "".join(f"mov.b32 %f{i}, %r{30 + i};" for i in range(4))
        d = "{" + ", ".join(f"%f{i + 4}" for i in range(4)) + "}" if f32 else vector(40, sums)
        source = "{" + ", ".join(f"%f{i}" for i in range(4)) + "}" if f32 else vector(30, sums)
        body += f"mma.sync.aligned.{shape}.row.col{options}.{types} {d}, {vector(10, 2 * registers)}, {vector(20, registers)}, {source};"
        body += f"mad.wide.u32 %at, %lane, {4 * sums}, %p_out;" + "".join(f"st.global.b32 [%at+{4 * i}], {'%f' + str(i + 4) if f32 else '%r' + str(40 + i)};" for i in range(sums))
        out = np.zeros((32, sums), np.uint32)
        ptx.Module(kernel(body, ["a", "b", "c", "out"])).launch("k", 1, 32, of_a, of_b, of_c, out)
        return out.view(c.dtype).reshape(8, 4, 2, 2).transpose(2, 0, 1, 3).reshape(16, 8)

    bits_of = {"f16": lambda x: x.astype(np.float16).view(np.uint16), "bf16": lambda x: (x.astype(np.float32).view(np.uint32) >> 16), "tf32": lambda x: x.astype(np.float32).view(np.uint32)}
    for kind, shapes in (("f16", (8, 16)), ("bf16", (8, 16)), ("tf32", (4, 8))):
        for k in shapes:
            a, b = random.integers(-31, 32, (16, k)).astype(float) / 4, random.integers(-31, 32, (k, 8)).astype(float) / 8
            c = random.normal(size=(16, 8)).astype(np.float32)
            actual = multiply(f"m16n8k{k}", f"f32.{kind}.{kind}.f32", bits_of[kind](a), bits_of[kind](b), c, 32 if kind == "tf32" else 16)
            assert (actual == (a @ b + c).astype(np.float32)).all(), (kind, k)
            if kind == "f16":
                h = c.astype(np.float16)
                actual = multiply(f"m16n8k{k}", "f16.f16.f16.f16", bits_of[kind](a), bits_of[kind](b), h, 16)
                assert (actual == (a @ b + h).astype(np.float16)).all()
    for bits, shapes in ((8, (16, 32)), (4, (32, 64))):
        for k, s, t, options in itertools.product(shapes, "us", "us", ("", ".satfinite")):
            range_of = lambda sign: (-1 << bits - 1, 1 << bits - 1) if sign == "s" else (0, 1 << bits)
            a, b = random.integers(*range_of(s), (16, k)), random.integers(*range_of(t), (k, 8))
            c = random.integers(-1 << 31, 1 << 31, (16, 8)).astype(np.int32)
            exact = a @ b + c.astype(np.int64)
            expected = np.clip(exact, -1 << 31, (1 << 31) - 1) if options else exact
            actual = multiply(f"m16n8k{k}", f"s32.{s}{bits}.{t}{bits}.s32", a, b, c, bits, options)
            assert (actual == expected.astype(np.int32)).all(), (bits, k, s, t, options)


def test_control():
    # Lanes part and meet: nested branches, loops of different lengths, a table of targets; what they did is in order.
    body = """.reg .b32 %n; and.b32 %n, %lane, 7; mov.u32 %d, 0; mov.u32 %r1, 0;
        LOOP: setp.ge.u32 %p1, %r1, %n; @%p1 bra AFTER; and.b32 %r2, %r1, 1; setp.eq.u32 %p2, %r2, 0; @%p2 bra EVEN; mad.lo.u32 %d, %d, 3, %r1; bra.uni NEXT; EVEN: add.u32 %d, %d, 100; NEXT: add.u32 %r1, %r1, 1; bra.uni LOOP;
        AFTER: activemask.b32 %r3; setp.ne.u32 %p3, %r3, -1; @%p3 trap; and.b32 %r4, %lane, 3; TARGETS: .branchtargets T0, T1, T2, T1; brx.idx %r4, TARGETS; T0: add.u32 %d, %d, 1000; bra.uni MEET; T1: add.u32 %d, %d, 2000; bra.uni MEET;
        T2: add.u32 %d, %d, 3000; MEET: activemask.b32 %r3; setp.ne.u32 %p3, %r3, -1; @%p3 trap;"""
    expected = []
    for lane in range(32):
        d = 0
        for i in range(lane % 8):
            d = d + 100 if i % 2 == 0 else d * 3 + i
        expected.append(d + [1000, 2000, 3000, 2000][lane % 4])
    assert (lanes(body) == expected).all()
    # Calls, one within the other, of lanes that differ; results and arguments in .param.
    functions = """.func (.param .b32 result) twice(.param .b32 x) { .reg .b32 %r<4>; ld.param.u32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret; }
        .func (.param .b32 result) scaled(.param .b32 x, .param .align 8 .b8 by[16]) { .reg .b32 %r<4>; .reg .pred %p<2>; ld.param.u32 %r1, [x]; ld.param.u32 %r2, [by+8]; setp.eq.u32 %p1, %r2, 0; @%p1 bra ZERO;
          { .param .b32 a; st.param.b32 [a], %r1; .param .b32 b; call.uni (b), twice, (a); ld.param.b32 %r1, [b]; } mul.lo.u32 %r1, %r1, %r2; ZERO: st.param.b32 [result], %r1; ret; }
        """
    body = "{ .param .b32 p; .param .align 8 .b8 q[16]; .param .b32 r; st.param.b32 [p], %lane; and.b32 %r1, %lane, 3; st.param.b32 [q+8], %r1; call.uni (r), scaled, (p, q); ld.param.b32 %r2, [r]; } mad.wide.u32 %at, %lane, 4, %p_out; st.global.u32 [%at], %r2;"
    out = np.zeros(32, np.uint32)
    ptx.Module(kernel(body, ["out"], functions)).launch("k", 1, 32, out)
    assert (out == [lane * 2 * (lane % 4) if lane % 4 else lane for lane in range(32)]).all()


def main():
    wanted = sys.argv[1:]
    for name, test in list(globals().items()):
        if name.startswith("test_") and (not wanted or name in wanted):
            test()
            print(f"{name}: ok", flush=True)


main()
