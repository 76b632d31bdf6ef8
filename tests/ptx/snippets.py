"""Short PTX run over arrays, and what it must give: numbers rounded exactly by fractions."""
import math
from fractions import Fraction

import numpy as np

import ptx

HEADER = ".version 9.0\n.target sm_90\n.address_size 64\n"
NAN = "nan"


def kernel(body, parameters, declarations=""):
    """A kernel k whose parameters are pointers, in %p_NAME."""
    return (HEADER + declarations + ".visible .entry k(" + ", ".join(f".param .u64 {name}" for name in parameters) + ")\n{\n"
            ".reg .b16 %h<40>; .reg .b32 %r<60>; .reg .b64 %rd<40>; .reg .f32 %f<40>; .reg .f64 %fd<20>; .reg .pred %p<20>;\n"
            ".reg .b32 %i, %lane; .reg .b64 %at; " + " ".join(f".reg .b64 %p_{name};" for name in parameters) +
            "\nmov.u32 %lane, %laneid;\n" + "".join(f"ld.param.u64 %p_{name}, [{name}];\n" for name in parameters) + body + "\nret;\n}\n")


def over_arrays(body, inputs, dtype=np.uint32):
    """For each element: inputs in %a, %b, ..., of their sizes; the result, of the dtype, from %d."""
    n, bits = len(inputs[0]), 8 * np.dtype(dtype).itemsize
    names = "abcefgh"[:len(inputs)]
    code = "mov.u32 %r50, %ctaid.x; mov.u32 %r51, %ntid.x; mov.u32 %r52, %tid.x; mad.lo.s32 %i, %r50, %r51, %r52;\n"
    for name, array in zip(names, inputs):
        size = array.dtype.itemsize
        code += f".reg .b{max(8 * size, 16)} %{name}; mad.wide.u32 %at, %i, {size}, %p_{name}; ld.global.b{8 * size} %{name}, [%at];\n"
    code += f".reg .b{max(bits, 16)} %d;\n{body}\nmad.wide.u32 %at, %i, {bits // 8}, %p_out; st.global.b{bits} [%at], %d;"
    out, padded = np.zeros(-(-n // 64) * 64, dtype), []
    for array in inputs:
        padded.append(np.concatenate([array, np.resize(array, len(out) - n)]))
    ptx.Module(kernel(code, [*names, "out"])).launch("k", len(out) // 64, 64, *padded, out)
    return out[:n]


# --- numbers as fractions -----------------------------------------------------------------------------------------------

FORMATS = {"f16": (10, 5), "bf16": (7, 8), "f32": (23, 8), "f64": (52, 11)}
UNSIGNED = {"f16": np.uint16, "bf16": np.uint16, "f32": np.uint32, "f64": np.uint64}


def decode(bits, kind):
    """A Fraction, math.inf, -math.inf, NAN, or "-0"."""
    mantissa, exponent = FORMATS[kind]
    sign, e, m = bits >> (mantissa + exponent), bits >> mantissa & ((1 << exponent) - 1), bits & ((1 << mantissa) - 1)
    bias = (1 << (exponent - 1)) - 1
    if e == (1 << exponent) - 1:
        return NAN if m else -math.inf if sign else math.inf
    value = Fraction(m, 1 << mantissa) * Fraction(2)**(1 - bias) if e == 0 else (1 + Fraction(m, 1 << mantissa)) * Fraction(2)**(e - bias)
    return "-0" if sign and value == 0 else -value if sign else value


def round_integer(x, mode):
    """A Fraction to an integer: n(earest even), z(ero), m(inus infinity), p(lus infinity), a (nearest, ties away)."""
    low = x.numerator // x.denominator
    rest = x - low
    if rest == 0:
        return low
    if mode == "a":
        return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and x > 0))
    up = {"n": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1), "z": x < 0, "m": False, "p": True}[mode]
    return low + up


def encode(x, kind, mode="n", zero_sign=0):
    """The bits of a number rounded once. `zero_sign`: of an exact zero."""
    mantissa, exponent = FORMATS[kind]
    bias, infinity = (1 << (exponent - 1)) - 1, ((1 << exponent) - 1) << mantissa
    top = 1 << (mantissa + exponent)
    if x == NAN:
        return NAN
    if x == "-0":
        return top
    if x in (math.inf, -math.inf):
        return infinity | (top if x < 0 else 0)
    if x == 0:
        return top * zero_sign
    sign, size = (top, -x) if x < 0 else (0, x)
    e = size.numerator.bit_length() - size.denominator.bit_length()
    e -= size < Fraction(2)**e
    quantum = Fraction(2)**(max(e, 1 - bias) - mantissa)
    n = round_integer(size / quantum, {"m": "p", "p": "m"}.get(mode, mode) if sign else mode)
    code = n + ((max(e, 1 - bias) + bias - 1) << mantissa)
    if code >= infinity:
        code = infinity if mode in "na" or mode == ("m" if sign else "p") else infinity - 1
    return sign | code


def check(name, actual, expected):
    """Bits; an expected NAN is the canonical one of 16 or 32 bits, any of 64."""
    canonical = {2: 0x7fff, 4: 0x7fffffff}.get(actual.dtype.itemsize)
    wrong = []
    for i, (a, e) in enumerate(zip(actual, expected)):
        a = int(a)
        ok = (a == canonical if canonical else decode(a, "f64") == NAN) if isinstance(e, str) and e == NAN else a == int(e)
        if not ok:
            wrong.append(f"element {i}: {a:#x} instead of {e if isinstance(e, str) else hex(int(e))}")
    assert not wrong, f"{name}: {len(wrong)} of {len(actual)} wrong, {wrong[:3]}"
