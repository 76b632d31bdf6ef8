#!/usr/bin/env python3
"""How many instructions the matrix products take, beside what they took when bench/instructions.json was written.

    bench/instructions.py BUILD            compares; exit code 1 where a kernel takes more (or fewer: a new baseline is due)
    bench/instructions.py BUILD --update   writes the baseline

BUILD: a folder built with -DCRUMB_BENCH=ON. Two measures, which neither the load of a machine nor its speed changes:

* instructions of one call, counted by valgrind's callgrind, of the reference and of AVX2 (which is what valgrind knows): the difference
  between runs of one and of three calls, so that starting does not count;
* of the wider instruction sets, from the disassembly of their object files: in each function the innermost loop with the most
  instructions of its key (vpdpbusd of products of codes with int8, vdpbf16ps of bfloat16, fused multiply-adds of floats), as instructions for each of these; of AMX, whose tiles are multiplied around the loops that fill
  them, the whole function.

Both depend on the compiler: another version than the baseline's is said, and nothing is compared.
"""
import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys

BASELINE = pathlib.Path(__file__).with_name("instructions.json")
TOLERANCE = 0.03
COUNTED = ["reference", "avx2"]
DISASSEMBLED = {
    "avx_vnni.cpp.o": r"vpdpbusd",
    "avx512.cpp.o": r"vpmaddubsw|vfmadd\w*ps",
    "avx512_vnni.cpp.o": r"vpdpbusd|vfmadd\w*ps",
    "avx512_bf16.cpp.o": r"vdpbf16ps",
    "amx.cpp.o": r"tdpb",
}


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"instructions: {' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout, done.stderr


def compiler_of(build):
    cache = (build / "CMakeCache.txt").read_text()
    compiler = re.search(r"^CMAKE_CXX_COMPILER:\w+=(.*)$", cache, re.M).group(1)
    return run([compiler, "--version"])[0].splitlines()[0]


def collected(program, isa, kernel, calls):
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", program, isa, kernel, str(calls)]
    return int(re.search(r"Collected : (\d+)", run(command)[1]).group(1))


def counts(build):
    program = build / "bin" / "kernel_calls"
    result = {}
    for kernel in run([program])[0].split():
        for isa in COUNTED:
            result[f"{isa} {kernel}"] = (collected(program, isa, kernel, 3) - collected(program, isa, kernel, 1)) / 2
    return result


def functions(object_file):
    """(name, [(address, mnemonic, operands)]) of each."""
    text, _ = run(["objdump", "-d", "-C", "--no-show-raw-insn", object_file])
    name, body = None, []
    for line in text.splitlines():
        head = re.match(r"^[0-9a-f]+ <(.*)>:$", line)
        if head:
            if body:
                yield name, body
            name, body = head.group(1), []
            continue
        one = re.match(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$", line)
        if one:
            body.append((int(one.group(1), 16), one.group(2), one.group(3)))
    if body:
        yield name, body


def innermost_loops(body):
    """Bodies of backward jumps that hold no other backward jump."""
    loops = []
    for address, mnemonic, operands in body:
        target = re.match(r"^([0-9a-f]+)\b", operands)
        if mnemonic.startswith("j") and target and int(target.group(1), 16) <= address:
            loops.append((int(target.group(1), 16), address))
    for first, last in loops:
        if any((f, l) != (first, last) and first <= f and l <= last for f, l in loops):
            continue
        yield [f"{mnemonic} {operands}" for address, mnemonic, operands in body if first <= address <= last]


def keys_in(loop, key):
    return sum(bool(re.search(key, line)) for line in loop)


def short(name):
    return re.sub(r"crumb::kernels::|\(anonymous namespace\)::| \[clone [^]]*\]", "", name)


def loops(build):
    result = {}
    for file, key in DISASSEMBLED.items():
        object_file = build / "kernels" / "CMakeFiles" / "crumb_kernels.dir" / "isa" / file
        if not object_file.exists():
            continue
        for name, body in functions(object_file):
            if "multiply" not in name and "matmul_bf16" not in name:
                continue
            whole = [f"{mnemonic} {operands}" for _, mnemonic, operands in body]
            found = [whole] if file.startswith("amx") else list(innermost_loops(body))
            best = max(found, key=lambda loop: keys_in(loop, key), default=[])
            if keys_in(best, key) >= 4:
                result[f"{file.split('.')[0]} {short(name)}"] = round(len(best) / keys_in(best, key), 4)
    return result


def differences(kind, old, new):
    for name in sorted(old.keys() | new.keys()):
        if name not in new:
            yield f"{kind}: {name} is gone"
        elif name not in old:
            yield f"{kind}: {name} is new"
        elif abs(new[name] / old[name] - 1) > TOLERANCE:
            yield f"{kind}: {name}: {new[name]:g}, the baseline has {old[name]:g} ({100 * (new[name] / old[name] - 1):+.1f} %)"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--update", action="store_true")
    arguments = parser.parse_args()
    for tool in ("valgrind", "objdump"):
        if not shutil.which(tool):
            sys.exit(f"instructions: {tool} is not there; scripts/setup.sh --peers installs it")
    compiler = compiler_of(arguments.build)
    if not arguments.update:
        baseline = json.loads(BASELINE.read_text())
        if baseline["compiler"] != compiler:
            print(f"instructions: NOT compared: {compiler}, the baseline is of {baseline['compiler']}")
            return
    new = {"compiler": compiler, "calls": counts(arguments.build), "loops": loops(arguments.build)}
    if arguments.update:
        BASELINE.write_text(json.dumps(new, indent=1, sort_keys=True) + "\n")
        print(f"instructions: {len(new['calls'])} calls and {len(new['loops'])} loops written to {BASELINE}")
        return
    found = [*differences("instructions of a call", baseline["calls"], new["calls"]),
             *differences("instructions for one key instruction of the loop", baseline["loops"], new["loops"])]
    for line in found:
        print(line)
    if found:
        sys.exit(f"instructions: {len(found)} differ by more than {100 * TOLERANCE:g} %; where that is meant, run bench/instructions.py BUILD --update")
    print(f"instructions: {len(new['calls'])} calls and {len(new['loops'])} loops as in the baseline, within {100 * TOLERANCE:g} %")


if __name__ == "__main__":
    main()
