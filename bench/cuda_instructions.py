#!/usr/bin/env python3
"""How many machine instructions the products with packed weights take for a weight, beside what they took when bench/cuda_instructions.json was written. Needs nvcc and nvdisasm, no GPU.

    bench/cuda_instructions.py            compares; exit code 1 where a kernel takes more (or fewer: a new baseline is due)
    bench/cuda_instructions.py --update   writes the baseline
    bench/cuda_instructions.py --table    prints it as a table

Of each kernel the loop with all products of tensor cores (mma), without the loops inside it (in tile_matmul the copies of activations): instructions of a warp over the weights that a lane decodes in a turn. "alu": those of the pipe for integers and logic (LOP3,
SHF, PRMT, IADD3, VIADD, ISETP, LEA, SEL, IMNMX, SHL, SHR), which decoding fills first; "mma": products of tensor cores. In the skinny kernel that is the
loop over a warp's blocks of columns, not what follows for each two row tiles. The counts depend on the compiler: another version than the baseline's is said, and nothing is compared.

nvdisasm: on the PATH, or that of the package triton of the Python that runs this.
"""
import concurrent.futures
import importlib.util
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASELINE = pathlib.Path(__file__).with_name("cuda_instructions.json")
ARCHITECTURES = ["80", "90"]
SOURCES = ["skinny_matmul", "tile_matmul"]
TOLERANCE = 0.02
MMA, ALU = r"[HI]MMA", r"(LOP3|SHF|PRMT|IADD3|VIADD|ISETP|LEA|SEL|IMNMX|SHL|SHR)\b"


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"cuda_instructions: {' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def disassembler():
    found = shutil.which("nvdisasm")
    package = importlib.util.find_spec("triton")
    if found is None and package is not None:
        inside = pathlib.Path(package.origin).parent / "backends/nvidia/bin/nvdisasm"
        found = inside if inside.exists() else None
    return found


def functions(text):
    """(mangled name, [(address, instruction)], {label: address}) of each."""
    for part in text.split("\n.text.")[1:]:
        name, body, labels, waiting = part.split(":", 1)[0], [], {}, []
        for line in part.splitlines():
            if label := re.match(r"^\.?(L_x_\d+|L_\d+):", line):
                waiting.append(label[1])
            elif one := re.match(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?)\s*;", line):
                address = int(one[1], 16)
                labels.update({label: address for label in waiting})
                waiting = []
                body.append((address, one[2]))
        yield name, body, labels


def hot_loop(body, labels):
    loops = []
    for address, instruction in body:
        target = re.search(r"\bBRA\b.*?(L_x_\d+|L_\d+)", instruction)
        if target and labels.get(target[1], address + 1) <= address:
            loops.append((labels[target[1]], address))
    inside = lambda loop: [text for address, text in body if loop[0] <= address <= loop[1]]
    mma = lambda loop: sum(bool(re.search(MMA, text)) for text in inside(loop))
    most = max(map(mma, loops), default=0)
    if most == 0:
        return None
    loop = min((l for l in loops if mma(l) == most), key=lambda l: l[1] - l[0])
    inner = [l for l in loops if l != loop and loop[0] <= l[0] and l[1] <= loop[1]]
    return [text for address, text in body if loop[0] <= address <= loop[1] and not any(f <= address <= l for f, l in inner)]


def weights_a_lane(name):
    """Of a turn of the loop: of skinny_kernel<bits, group, n, int8> two row tiles of a block; of tile_matmul_kernel<bits, group, tokens, int8> the row tiles
    of a warp of a block, with groups of 32 of a tile (kernels/cuda/matmul_shapes.h)."""
    bits, group, tokens = map(int, re.search(r"<(\d+), (\d+), (\d+)", name).groups())
    row_tiles = 4 if name.startswith("tile_matmul") and bits == 2 and group != 0 and tokens == 32 else 2
    return row_tiles * (128 // bits if name.startswith("tile_matmul") and group == 32 else 64)


def counted(source, architecture, folder, tool):
    cubin = folder / f"{source}_{architecture}.cubin"
    run(["nvcc", "-std=c++20", "-O3", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-I", ROOT, "-cubin", "-o", cubin, ROOT / f"kernels/cuda/{source}.cu"])
    result = {}
    for mangled, body, labels in functions(run([tool, "-c", cubin])):
        name = re.sub(r"crumb::kernels::|\(anonymous namespace\)::|^void |\(.*$", "", run(["c++filt", mangled]).strip())
        loop = hot_loop(body, labels)
        if loop is None:
            continue
        weights = weights_a_lane(name)
        number = lambda pattern: sum(bool(re.search(pattern, text)) for text in loop)
        if number(r"\b(LDL|STL)\b"):
            sys.exit(f"cuda_instructions: {name} sm_{architecture}: local memory in the loop")
        result[f"{name} sm_{architecture}"] = {"instructions": round(len(loop) / weights, 3), "alu": round(number(ALU) / weights, 3), "mma": round(number(MMA) / weights, 4)}
    return result


def main():
    if not shutil.which("nvcc"):
        sys.exit("cuda_instructions: no nvcc")
    compiler = re.search(r"V[\d.]+", run(["nvcc", "--version"]))[0]
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {"nvcc": None, "kernels": {}}
    if sys.argv[1:] == [] and baseline["nvcc"] != compiler:
        print(f"cuda_instructions: NOT compared: nvcc {compiler}, the baseline is of {baseline['nvcc']}")
        return
    tool, now = disassembler(), {}
    if tool is None:
        print("cuda_instructions: NOT compared: no nvdisasm on the PATH, nor in the package triton of this Python")
        sys.exit(1 if sys.argv[1:] else 0)
    with tempfile.TemporaryDirectory() as name, concurrent.futures.ThreadPoolExecutor(2) as pool:
        for kernels in pool.map(lambda job: counted(*job, pathlib.Path(name), tool), [(s, a) for s in SOURCES for a in ARCHITECTURES]):
            now.update(kernels)
    if sys.argv[1:] == ["--update"]:
        lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in sorted(now.items()))
        BASELINE.write_text(f'{{"nvcc": "{compiler}", "kernels": {{\n{lines}\n}}}}\n')
        print(f"{BASELINE}: {len(now)} kernels")
        return
    if sys.argv[1:] == ["--table"]:
        print("| kernel | instructions | alu | mma |\n|---|---|---|---|")
        for name, facts in sorted(now.items()):
            print(f"| {name} | {facts['instructions']:.2f} | {facts['alu']:.2f} | {facts['mma']:.3f} |")
        return
    before, problems = baseline["kernels"], []
    if now.keys() != before.keys():
        problems.append(f"not the kernels of the baseline: {', '.join(sorted(now.keys() ^ before.keys()))}")
    for name in sorted(now.keys() & before.keys()):
        for what, old in before[name].items():
            if abs(now[name][what] - old) > TOLERANCE * old:
                problems.append(f"{name}: {now[name][what]:g} {what} a weight, the baseline has {old:g}")
    if problems:
        sys.exit("\n".join(problems) + "\ncuda_instructions: if this is meant, --update")
    print(f"cuda_instructions: {len(now)} kernels, instructions a weight as before")


main()
