#!/usr/bin/env python3
"""Random straight-line PTX executed here and by ptxvm, another executor: the same bits in every register.

    tests/ptx/fuzz_test.py FOLDER_OF_PTXVM [PROGRAMS]
"""
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import ptx
from snippets import HEADER

random = np.random.default_rng(11)

# Types of the destination and the sources: w(ord), d(ouble word), h(alf), p(redicate). A NaN has more than one pattern: what may be one is made
# canonical, by the name behind the bar.
INSTRUCTIONS = [line.split(":") for line in """
ww:not.b32 clz.b32 popc.b32 brev.b32 bfind.u32 bfind.s32 neg.s32 abs.s32 cnot.b32
www:add.u32 sub.u32 add.sat.s32 sub.sat.s32 mul.lo.u32 mul.hi.u32 mul.hi.s32 min.s32 min.u32 max.s32 max.u32 and.b32 or.b32 xor.b32 shl.b32 shr.u32 shr.s32
wwww:mad.lo.u32 mad.hi.s32 mad.hi.u32 sad.u32 sad.s32 prmt.b32 shf.l.wrap.b32 shf.r.wrap.b32 shf.l.clamp.b32 shf.r.clamp.b32 bfe.u32 bfe.s32 dp4a.s32.s32 dp4a.u32.s32 dp4a.u32.u32
wwwww:bfi.b32
dd:not.b64 brev.b64 neg.s64 abs.s64
ddd:add.u64 sub.u64 mul.lo.u64 mul.hi.u64 mul.hi.s64 min.s64 max.u64 xor.b64 and.b64 or.b64
ddw:shl.b64 shr.u64 shr.s64
dww:mul.wide.u32 mul.wide.s32
dwwd:mad.wide.u32 mad.wide.s32
hh:not.b16 neg.s16 abs.s16
hhh:add.u16 sub.u16 mul.lo.u16 mul.hi.s16 min.s16 max.u16 xor.b16
whh:mul.wide.u16 mul.wide.s16
wd:cvt.u32.u64 cvt.sat.s32.s64 clz.b64 popc.b64
dw:cvt.u64.u32 cvt.s64.s32
wh:cvt.u32.u16 cvt.s32.s16
hw:cvt.u16.u32 cvt.sat.s16.s32 cvt.sat.u16.s32
pww:setp.lt.s32 setp.ge.u32 setp.eq.u32 setp.lt.f32 setp.geu.f32 setp.neu.f32 setp.num.f32
pdd:setp.lt.s64 setp.hi.u64
ppp:and.pred or.pred xor.pred
wwwp:selp.b32
dddp:selp.b64
www:add.rn.f32|f32 sub.rn.f32|f32 mul.rn.f32|f32 add.rz.f32|f32 add.rm.f32|f32 add.rp.f32|f32 mul.rz.f32|f32 mul.rp.f32|f32 div.rn.f32|f32 add.ftz.f32|f32 mul.ftz.f32|f32
wwww:fma.rn.f32|f32 fma.rz.f32|f32 fma.rm.f32|f32 fma.rp.f32|f32 fma.rn.ftz.f32|f32 fma.rn.sat.f32|f32
ww:rcp.rn.f32|f32 sqrt.rn.f32|f32 cvt.rn.f32.s32 cvt.rz.f32.u32 cvt.rni.s32.f32 cvt.rzi.u32.f32 cvt.rni.f32.f32|f32 cvt.sat.f32.f32 neg.f32 abs.f32
dw:cvt.f64.f32|f64
ddd:add.rn.f64|f64 mul.rn.f64|f64 sub.rn.f64|f64
dddd:fma.rn.f64|f64
wd:cvt.rn.f32.f64|f32 cvt.rz.f32.f64|f32
wh:cvt.f32.f16|f32 cvt.f32.bf16|f32
hw:cvt.rn.f16.f32 cvt.rz.f16.f32 cvt.rn.bf16.f32 cvt.rz.bf16.f32
www:add.rn.f16x2 mul.rn.f16x2 sub.rn.f16x2 add.rn.bf16x2 mul.rn.bf16x2 sub.rn.bf16x2 min.f16x2 max.bf16x2 cvt.rn.bf16x2.f32 cvt.rn.f16x2.f32
wwww:fma.rn.f16x2 fma.rn.bf16x2
hhh:add.rn.f16 mul.rn.bf16
""".strip().splitlines()]
PREFIX = {"w": "%r", "d": "%d", "h": "%h", "p": "%q"}
SPECIAL = np.array([0, 1, 0x80000000, 0x7f800000, 0xff800000, 0x7fffffff, 0x3f800000, 0xbf800000, 0x00800000, 0x007fffff, 0x3c003c00, 0x7c00fc00, 0x80000001, 0xffffffff, 31, 32], np.uint32)


def program(length):
    """The text of a kernel that reads four words a lane and writes every register, and how many words those are."""
    registers = {"w": [], "d": [], "h": [], "p": []}
    code = []

    def new(kind):
        registers[kind].append(f"{PREFIX[kind]}{len(registers[kind])}")
        return registers[kind][-1]
    for k in range(4):
        code.append(f"ld.global.u32 {new('w')}, [%in+{4 * k}];")
    code.append("mov.b64 %d0, {%r0, %r1}; mov.b64 %d1, {%r2, %r3}; mov.b32 {%h0, %h1}, %r0; mov.b32 {%h2, %h3}, %r2; setp.lt.s32 %q0, %r0, %r1; setp.ne.u32 %q1, %r2, 5;")
    registers.update(d=["%d0", "%d1"], h=["%h0", "%h1", "%h2", "%h3"], p=["%q0", "%q1"])
    for _ in range(length):
        kinds, names = INSTRUCTIONS[random.integers(len(INSTRUCTIONS))]
        name, _, canonical = str(random.choice(names.split())).partition("|")
        sources = [str(random.choice(registers[k])) for k in kinds[1:]]
        d = new(kinds[0])
        code.append(f"{name} {d}, {', '.join(sources)};")
        if canonical:
            bits = {"f32": ("b32", "0x7fffffff"), "f64": ("b64", "0x7ff8000000000000")}[canonical]
            code.append(f"setp.nan.{canonical} %nan, {d}, {d}; selp.{bits[0]} {d}, {bits[1]}, {d}, %nan;")
            if ".rm." in name:  # a zero that is the sum of +0 and -0 is -0 then, but not there
                code.append(f"add.f32 {d}, {d}, 0f00000000;")
        if random.random() < 0.1:
            table, (a, b, c) = random.integers(256), (str(random.choice(registers["w"])) for _ in range(3))
            code.append(f"lop3.b32 {new('w')}, {a}, {b}, {c}, {table};")
        if random.random() < 0.05:
            mode = str(random.choice(["bfly", "idx"]))
            code.append(f"shfl.sync.{mode}.b32 {new('w')}, {random.choice(registers['w'][:-1])}, {random.integers(32)}, 31, -1;")
    stores, words, place = [], 0, {}
    for kind in "wdhp":
        for register in registers[kind]:
            place[register] = words
            if kind == "p":
                stores.append(f"selp.u32 %last, 1, 0, {register}; st.global.u32 [%out+{4 * words}], %last;")
            elif kind == "h":
                stores.append(f"cvt.u32.u16 %last, {register}; st.global.u32 [%out+{4 * words}], %last;")
            elif kind == "d":
                stores.append(f"mov.b64 {{%last, %other}}, {register}; st.global.u32 [%out+{4 * words}], %last; st.global.u32 [%out+{4 * words + 4}], %other;")
                words += 1
            else:
                stores.append(f"st.global.u32 [%out+{4 * words}], {register};")
            words += 1
    declared = "".join(f".reg .{t} {PREFIX[k]}<{len(registers[k]) + 1}>; " for k, t in (("w", "b32"), ("d", "b64"), ("h", "b16"), ("p", "pred")))
    text = (HEADER + ".visible .entry k(.param .u64 from, .param .u64 to) {\n" + declared + ".reg .b64 %in, %out; .reg .b32 %lane, %last, %other; .reg .pred %nan;\n"
            f"mov.u32 %lane, %tid.x; ld.param.u64 %in, [from]; ld.param.u64 %out, [to]; mad.wide.u32 %in, %lane, 16, %in; mad.wide.u32 %out, %lane, {4 * words}, %out;\n" +
            "\n".join(code + stores) + "\nret;\n}\n")
    return text, words, code, place


def first_difference(ours, theirs, code, place):
    """The first statement after which a register differs."""
    for statement in code:
        register = statement.split()[1].rstrip(",")
        if register in place:
            k = place[register]
            wrong = np.argwhere((ours != theirs)[:, k:k + (2 if register[1] == "d" else 1)].any(1))
            if len(wrong):
                lane = wrong[0, 0]
                values = {name: [hex(ours[lane, place[name] + i]) for i in range(2 if name[1] == "d" else 1)] for name in statement.replace(",", "").replace(";", "").split() if name in place}
                return f"{statement} lane {lane}: {values}, theirs {[hex(v) for v in theirs[lane, k:k + 2]]}"
    return "in an unpacked register"


def main():
    folder = pathlib.Path(sys.argv[1])
    programs = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    with tempfile.TemporaryDirectory() as name:
        subprocess.run(["g++", "-std=c++17", "-O1", "-shared", "-fPIC", "-o", name + "/libptxvm.so", folder / "capi.cpp"], check=True)
        pathlib.Path(name, "ptxvm.py").write_text((folder / "ptxvm.py").read_text())
        sys.path.insert(0, name)
        import ptxvm
        compared = 0
        for index in range(programs):
            text, words, code, place = program(60)
            given = random.integers(0, 1 << 32, (64, 4), dtype=np.uint32)
            given[::3, index % 4] = random.choice(SPECIAL, len(given[::3]))
            given[1::3, (index + 1) % 4] = (random.normal(size=len(given[1::3])) * 8).astype(np.float32).view(np.uint32)
            ours, theirs = (np.zeros((64, words), np.uint32) for _ in range(2))
            ptx.Module(text, seed=index).launch("k", 1, 64, given, ours)
            ptxvm.Module(text, seed=index).launch("k", 1, 64, given, theirs)
            compared += ours.size
            assert (ours == theirs).all(), f"program {index}: {first_difference(ours, theirs, code, place)}"
        print(f"{programs} programs, {compared} words the same as ptxvm's: ok")


main()
