#!/usr/bin/env python3
"""What a kernel must not do is found and told with its line, block and thread; the same kernel without the mistake runs."""
import re
from collections import namedtuple

import numpy as np

import ptx
from snippets import kernel

SHARED = ".shared .align 16 .b8 there[1024]; mov.u32 %r40, %tid.x; mov.u32 %r41, there; mad.lo.u32 %r42, %r40, 4, %r41; mad.wide.u32 %at, %r40, 4, %p_a;"
COPY = SHARED + "mad.lo.u32 %r42, %r40, 16, %r41; mad.wide.u32 %at, %r40, 16, %p_a;"

# {} in the body is the place of the mistake; what is wrong there, what is right; the message, a regular expression.
Case = namedtuple("Case", "body wrong right message threads blocks", defaults=(64, 1))
CASES = {
    "out of bounds": Case("mov.u32 %r1, %tid.x; mad.wide.u32 %at, %r1, 4, %p_a; {} ld.global.u32 %r2, [%at];", "add.u64 %at, %at, 3844;", "add.u64 %at, %at, 3840;",
                      r"thread \(63,0,0\): 4 bytes at 0x\w+ are out of bounds: byte 4096 of a buffer of 4096"),
    "before the buffer": Case("{} ld.global.u32 %r2, [%p_a+{}];".replace("{}", "", 1), "-4", "0", "out of bounds"),
    "null": Case("{} ld.global.u32 %r2, [%rd1];", "mov.u64 %rd1, 0;", "mov.u64 %rd1, %p_a;", "4 bytes at 0x0 are out of bounds"),
    "misaligned": Case("ld.global.v2.u32 {{%r2, %r3}}, [%p_a+{}];", "4", "8", "misaligned: no multiple of 8"),
    "shared out of bounds": Case(SHARED + "st.shared.u32 [%r42+{}], %r40;", "772", "768", "4 bytes at byte 1024 of shared memory are out of bounds: it has 1024"),
    "local out of bounds": Case(".local .align 4 .b8 depot[16]; st.local.u32 [depot+{}], 5;", "16", "12", "of local memory are out of bounds"),
    "read-only buffer": Case("st.global.u32 [{}], 5;", "%p_b", "%p_a", "read-only", 1),
    "constant memory": Case("mov.u64 %rd1, {}; st.global.u32 [%rd1], 5;", "table", "%p_a", "read-only", 1),
    "another space": Case("cvta.to.shared.u64 %rd1, {};", "%p_a", "%rd2", "lies in another space"),
    "uninitialised register": Case("{} add.u32 %r1, %r2, 1;", "", "mov.u32 %r2, 5;", "reads a register that was not written"),
    "uninitialised predicate": Case("{} @%p5 mov.u32 %r1, 5;", "", "setp.eq.u32 %p5, 0, 0;", "reads a register that was not written"),
    "register of some lanes": Case("setp.lt.u32 %p1, %lane, 7; {} mov.u32 %r2, 5; add.u32 %r1, %r2, 1;", "@%p1", "", r"thread \((7|39),0,0\): reads a register that was not written"),
    "register that an earlier block wrote": Case("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; {} mov.u32 %r2, 5; add.u32 %r3, %r2, 1;", "@%p1", "",
                                                 r"block \(1,0,0\).*reads a register that was not written", 32, 2),
    "copy of an unwritten register": Case("{} mov.u32 %r3, %r2; add.u32 %r1, %r3, 1;", "", "mov.u32 %r2, 5;", "reads a register that was not written"),
    "uninitialised shared memory": Case(SHARED + "{} bar.sync 0; ld.shared.u32 %r1, [%r42];", "", "st.shared.u32 [%r42], %r40;", r"reads shared memory at byte \d+ that the block has not written"),
    "what an earlier block left": Case(SHARED + "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; {} st.shared.u32 [%r42], %r40; bar.sync 0; ld.shared.u32 %r1, [%r42];", "@%p1", "",
                                   r"block \(1,0,0\).*that the block has not written", 64, 2),
    "read after write": Case(SHARED + "st.shared.u32 [%r42], 0; bar.sync 0; st.shared.u32 [%r42], %r40; {} xor.b32 %r1, %r42, 128; ld.shared.u32 %r2, [%r1];", "", "bar.sync 0;", "race in shared memory with a (read|write) by warp"),
    "write after read": Case(SHARED + "st.shared.u32 [%r42], %r40; bar.sync 0; xor.b32 %r1, %r42, 128; ld.shared.u32 %r2, [%r1]; {} st.shared.u32 [%r42], %r2;", "", "bar.sync 0;",
                         "race in shared memory with a (read|write) by warp"),
    "write after write": Case(SHARED + "st.shared.u32 [%r42], %r40; {} xor.b32 %r1, %r42, 128; st.shared.u32 [%r1], 5;", "", "bar.sync 0;", "race in shared memory with a write by warp"),
    "between lanes": Case(SHARED + "st.shared.u32 [%r42], %r40; {} xor.b32 %r1, %r42, 4; ld.shared.u32 %r2, [%r1];", "", "bar.warp.sync -1;", "race in shared memory with a write by warp 0 lane 1", 32),
    "write after reads of lanes": Case(SHARED + "st.shared.u32 [%r42], %r40; bar.warp.sync -1; ld.shared.u32 %r2, [%r41]; {} setp.eq.u32 %p1, %r40, 31; @%p1 st.shared.u32 [%r41], 5;", "", "bar.warp.sync -1;",
                                   "race in shared memory with a read by warp 0", 32),
    "two values at once": Case(SHARED + "st.shared.u32 [%r41], {};", "%r40", "5", "race in shared memory with a write by warp 0 lane 0", 32),
    "atomic and plain": Case(SHARED + "setp.eq.u32 %p1, %r40, 0; @%p1 st.shared.u32 [%r41], 0; bar.sync 0; atom.shared.add.u32 %r1, [%r41], 1; {} ld.shared.u32 %r2, [%r41];", "", "bar.sync 0;",
                         "race in shared memory with a write"),
    "barrier of others": Case(SHARED + "setp.lt.u32 %p1, %r40, 64; st.shared.u32 [%r42], %r40; @%p1 bra FIRST; bar.sync 2, {}; xor.b32 %r1, %r42, 256; ld.shared.u32 %r2, [%r1]; bra.uni END; FIRST: bar.sync {}; END:",
                          ("64", "1, 64"), ("128", "2, 128"), "race in shared memory with a write by warp|has not written", 128),
    "between blocks": Case("mov.u32 %r1, %ctaid.x; mad.wide.u32 %at, %r1, {}, %p_a; setp.eq.u32 %p1, %lane, 0; @%p1 st.global.u32 [%at], %r1;", "0", "4",
                       "race in global memory: writes over a write of block 0 by warp 0 lane 0 at byte 0", 32, 2),
    "read by another block": Case("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, {}; @%p1 st.global.u32 [%p_a], 5; @!%p1 ld.global.u32 %r2, [%p_a+{}];", ("1", "0"), ("1", "4"),
                              "race in global memory: writes over a read of block 0", 1, 2),
    "read by another block, too": Case("mov.u32 %r1, %ctaid.x; ld.global.u32 %r2, [%p_a]; setp.eq.u32 %p1, %r1, 1; @%p1 st.global.u32 [%p_a+{}], 5;", "0", "4",
                                       "race in global memory: writes over a read of block 0", 1, 2),
    "in global memory between warps": Case("mov.u32 %r1, %tid.x; mad.wide.u32 %at, %r1, 4, %p_a; st.global.u32 [%at], %r1; {} xor.b32 %r1, %r1, 32; mad.wide.u32 %at, %r1, 4, %p_a; ld.global.u32 %r2, [%at];", "",
                                       "bar.sync 0;", "race in global memory: (reads a write|writes over a read) by warp"),
    "write after reads in global memory": Case("ld.global.u32 %r2, [%p_a]; {} setp.eq.u32 %p1, %lane, 0; @%p1 st.global.u32 [%p_a], 5;", "", "bar.warp.sync -1;",
                                               "race in global memory: writes over a read by warp 0 lane 31", 32),
    "a flag without an atomic": Case("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; @%p1 st.global.u32 [%p_a], 5; {} @!%p1 ld.global.u32 %r2, [%p_a];", "", "atom.global.add.u32 %r3, [%p_a+64], 1;",
                                 "race in global memory: reads a write of block 0", 1, 2),
    "an atomic of another block": Case("mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 0; setp.eq.u32 %p2, %r1, 1; setp.eq.u32 %p3, %r1, 2; @%p1 st.global.u32 [%p_a], 5; @%p2 atom.global.add.u32 %r3, [%p_a+64], 1; {} "
                                       "@%p3 ld.global.u32 %r2, [%p_a];", "", "@%p3 atom.global.add.u32 %r3, [%p_a+64], 1;", "race in global memory: reads a write of block 0", 1, 3),
    "read-only load of what was written": Case("mov.u32 %r1, %tid.x; mad.wide.u32 %at, %r1, 4, %p_a; st.global.u32 [%at], %r1; ld.global{}.u32 %r2, [%at];", ".nc", "", r"a read-only load \(.nc\) of what this launch wrote"),
    "copy not waited for": Case(COPY + "cp.async.cg.shared.global [%r42], [%at], 16; cp.async.commit_group; {} ld.shared.u32 %r1, [%r42]; cp.async.wait_all;", "", "cp.async.wait_group 0;", "cp.async in flight fills"),
    "copy in the newest group": Case(COPY + "cp.async.cg.shared.global [%r42], [%at], 16; cp.async.commit_group; cp.async.wait_group {}; ld.shared.u32 %r1, [%r42]; cp.async.wait_all;", "1", "0", "cp.async in flight fills"),
    "copy without a barrier": Case(COPY + "st.shared.u32 [%r42], 0; bar.sync 0; cp.async.cg.shared.global [%r42], [%at], 16; cp.async.wait_all; {} xor.b32 %r1, %r42, 512; ld.shared.u32 %r2, [%r1];", "", "bar.sync 0;", "race in shared memory with a (read|write)|cp.async in flight"),
    "source overwritten": Case(COPY + "cp.async.cg.shared.global [%r42], [%at], 16; {} st.global.u32 [%at], 5; cp.async.wait_all;", "", "cp.async.wait_all;", "source of a cp.async was written before"),
    "destination overwritten": Case(COPY + "cp.async.cg.shared.global [%r42], [%at], 16; {} st.shared.u32 [%r42], 5; cp.async.wait_all;", "", "cp.async.wait_all;", "cp.async in flight fills"),
    "end with a copy": Case(COPY + "cp.async.cg.shared.global [%r42], [%at], 16; {}", "", "cp.async.wait_all;", "ends without having waited"),
    "copy misaligned": Case(COPY + "cp.async.cg.shared.global [%r42], [%at+{}], 16; cp.async.wait_all;", "8", "16", "source of a cp.async is misaligned"),
    "divergent barrier": Case("setp.lt.u32 %p1, %lane, 5; {} bra MEET; bar.sync 0; MEET: mov.u32 %r2, 1;", "@%p1", "bra.uni MEET; @%p1", "lanes 0xffffffe0 come to a barrier while lanes 0x1f of their warp do not"),
    "warps that have ended": Case("mov.u32 %r1, %tid.x; setp.ge.u32 %p1, %r1, 32; @%p1 ret; setp.lt.u32 %p1, %lane, 4; @%p1 ret; bar.sync 0{};", ", 64", "", "waits forever: 1 warps have come to the barrier for 2, 1 of 2 have ended"),
    "different barriers": Case("bar.sync {}; bar.sync 1;", "%lane", "0", "lanes of a warp come to different barriers", 32),
    "different counts": Case("mov.u32 %r1, %tid.x; and.b32 %r1, %r1, 32; add.u32 %r2, %r1, 64; bar.sync 0, {};", "%r2", "64", "comes to barrier 0 for (96|64) threads, others came for (96|64)"),
    "shuffle from an inactive lane": Case("setp.lt.u32 %p1, %lane, 16; @!%p1 bra END; {} shfl.sync.down.b32 %r2, %lane, {}, 31, 0xffff; END:", ("", "8"), ("", "0"), "a shuffle reads lane 16, which is inactive", 32),
    "lane not in its mask": Case("vote.sync.ballot.b32 %r1, %p1, {};", "0x7fffffff", "-1", "lane is not in its own mask 0x7fffffff", 32),
    "absent from a vote": Case("setp.lt.u32 %p2, %lane, 16; @!%p2 bra OTHER; vote.sync.ballot.b32 %r1, %p1, {}; OTHER: mov.u32 %r2, 1;", "-1", "0xffff", "lanes 0xffff0000 of mask 0xffffffff are inactive", 32),
    "absent from bar.warp.sync": Case("setp.lt.u32 %p2, %lane, 16; @{}%p2 bra OTHER; bar.warp.sync 0xffff; OTHER: mov.u32 %r2, 1;", "", "!", "lane is not in its own mask", 32),
    "mma without all lanes": Case("setp.eq.u32 %p2, %lane, {}; @%p2 bra END; mov.u32 %r1, 0; mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {{%r4, %r5, %r6, %r7}}, {{%r1, %r1}}, {{%r1}}, {{%r1, %r1, %r1, %r1}}; END: mov.u32 %r2, 1;",
                              "3", "99", "not all lanes of the warp execute mma", 32),
    "not uniform": Case("setp.lt.u32 %p1, %lane, {}; @%p1 bra.uni END; mov.u32 %r1, 1; END: mov.u32 %r2, 1;", "5", "32", "lanes part at a branch that was declared uniform"),
    "no such target": Case("and.b32 %r1, %lane, {}; LIST: .branchtargets A, B; brx.idx %r1, LIST; A: mov.u32 %r2, 1; B: mov.u32 %r3, 1;", "3", "1", "index 2 of 2 targets"),
    "endless loop": Case("mov.u32 %r1, 0; LOOP: add.u32 %r1, %r1, 1; setp.{}.u32 %p1, %r1, 0; @%p1 bra LOOP;", "ne", "eq", "more than 100000 steps"),
    "trap": Case("setp.eq.u32 %p1, %lane, {}; @%p1 trap;", "3", "99", "trap"),
    "a function that is not there": Case("setp.eq.u32 %p1, %lane, {}; @%p1 call.uni nothing;", "3", "99", "calls a function that the PTX does not hold"),
}

# What cannot be read, and what is said of it.
UNREADABLE = {"add.u32 %r1, %r2, %rd1;": "another size", "add.s128 %r1, %r2, %r3;": "type is missing", "wgmma.fence.sync;": "does not know", "add.u32.wonder %r1, %r2, %r3;": "does not know .wonder",
              "add.u32 %r1, %r2;": "another number of operands", "shl.b32 %r1, %r2, 3, 4;": "another number of operands", "mul.s32 %r1, %r2, %r3;": "a modifier is missing, such as .lo",
              "add.u32 %r1, !%r2, %r3;": "only predicates can be negated", "bra NOWHERE;": "no label is called NOWHERE", "mov.u32 %r1, %nothing.x;": "does not know %nothing.x",
              "ld.global.u32 %r1, [nowhere];": "nothing is called nowhere", "add.f32 %f1, %f2, 1;": "does not suit", "mma.sync.aligned.m8n8k4.row.col.f32.f16.f16.f32 %f1, %f1, %f1, %f1;": "only shapes"}


def launch(body, seed, threads, blocks):
    a, b = np.zeros(1024, np.uint32), np.zeros(16, np.uint32)
    b.flags.writeable = False
    text = kernel("setp.eq.u32 %p1, 0, 1; mov.u64 %rd2, 0; cvta.shared.u64 %rd2, %rd2;" + body, "ab", ".const .align 4 .u32 table[4];\n.func nothing();\n")
    ptx.Module(text, seed=seed, max_steps=100_000).launch("k", blocks, threads, a, b)


def error_of(function, *arguments):
    try:
        function(*arguments)
    except ptx.Error as e:
        return str(e)
    return ""


def main():
    wrong = []
    for seed in (0, 1, 2):
        for name, case in CASES.items():
            fill = lambda part: case.body.format(*(part if isinstance(part, tuple) else (part,)))
            found = error_of(launch, fill(case.wrong), seed, case.threads, case.blocks)
            if not re.match(r"k, PTX line \d+ \(.+\), block \(.*: .*", found) or not re.search(case.message, found):
                wrong.append(f"{name}, order {seed}: {found or 'not found'}")
            mended = error_of(launch, fill(case.right), seed, case.threads, case.blocks)
            if mended:
                wrong.append(f"{name}, order {seed}, mended: {mended}")
    assert not wrong, "\n".join(wrong)
    print(f"{len(CASES)} mistakes found, and none in the kernels without them: ok")
    for statement, message in UNREADABLE.items():
        found = error_of(launch, statement, 0, 32, 1)
        assert message in found and statement[:-1] in found and "line" in found, f"{statement}: {found or 'accepted'}"
    print(f"{len(UNREADABLE)} statements refused: ok")
    declarations = (".extern .func __assertfail(.param .b64 message, .param .b64 file, .param .b32 line, .param .b64 function, .param .b64 size);\n"
                    ".global .align 1 .b8 text[6] = {" + ", ".join(str(ord(c)) for c in "n > 0") + ", 0};\n")
    body = """setp.ne.u32 %p1, %lane, {}; @%p1 bra FINE; { .param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4; mov.u64 %rd1, text; cvta.global.u64 %rd1, %rd1;
        st.param.b64 [p0], %rd1; st.param.b64 [p1], %rd1; st.param.b32 [p2], 7; st.param.b64 [p3], %rd1; st.param.b64 [p4], 1; call.uni __assertfail, (p0, p1, p2, p3, p4); } FINE: mov.u32 %r1, 0;"""
    a = np.zeros(8, np.uint32)
    for lane, message in ((3, "thread (3,0,0): assertion failed: n > 0"), (40, "")):
        assert message in (found := error_of(ptx.Module(kernel(body.replace("{}", str(lane)), "a", declarations)).launch, "k", 1, 32, a)) and bool(message) == bool(found), found
    for arguments, message in (((a,), "takes 2 arguments, not 1"), ((a, np.uint32(5)), "argument 1 has 4 bytes instead of 8")):
        assert message in error_of(ptx.Module(kernel("", "ab")).launch, "k", 1, 32, *arguments)
    for block, shared, message in ((0, 0, "there may be 1 to 1024 threads"), (1056, 0, "there may be 1 to 1024 threads"), (32, 300_000, "300000 bytes of shared memory, more than 232448")):
        assert message in error_of(lambda: ptx.Module(kernel("", "a")).launch("k", 1, block, a, shared=shared))
    assert "1 to 64 threads" in error_of(ptx.Module(kernel("", "a").replace("(.param .u64 a)", "(.param .u64 a) .maxntid 32, 2, 1")).launch, "k", 1, 96, a)


main()
