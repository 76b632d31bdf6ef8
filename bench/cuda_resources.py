#!/usr/bin/env python3
"""What the compiled kernels of kernels/cuda take of a GPU, beside what they took when bench/cuda_resources.json was written. Needs nvcc, no GPU.

    bench/cuda_resources.py            compares; exit code 1 for a kernel that takes other registers or shared memory, is not there, has a stack, or spills
    bench/cuda_resources.py --update   writes the baseline

Registers, shared memory and stack are those of ptxas for each architecture; they depend on the compiler, and with another version than the
baseline's only spills and stacks are judged.
"""
import concurrent.futures
import json
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASELINE = pathlib.Path(__file__).with_name("cuda_resources.json")
ARCHITECTURES = re.findall(r"\d+", re.search(r'crumb_cuda_kernels "([^"]*)"', (ROOT / "kernels/cuda/CMakeLists.txt").read_text())[1])


def compiled(source, architecture):
    done = subprocess.run(["nvcc", "-std=c++20", "-O3", "-Werror=all-warnings", "--expt-relaxed-constexpr", f"-arch=sm_{architecture}", "-I", ROOT, "-Xptxas", "-v", "-cubin", "-o", "/dev/null", source],
                          capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"cuda_resources: {source.name} does not compile for sm_{architecture}:\n{done.stderr}")
    kernels = {}
    for block in done.stderr.split("Compiling entry function")[1:]:
        name = subprocess.run(["c++filt", re.search(r"'(\w+)'", block)[1]], capture_output=True, text=True, check=True).stdout.strip()
        name = re.sub(r"crumb::kernels::|\(anonymous namespace\)::|^void |\(.*$", "", name)
        number = lambda pattern: int((re.search(pattern, block) or [0, "0"])[1])
        kernels[f"{name} sm_{architecture}"] = {"registers": number(r"Used (\d+) registers"), "shared": number(r"(\d+) bytes smem"),
                                                "stack": number(r"(\d+) bytes stack frame"), "spilled": number(r"(\d+) bytes spill stores")}
    return kernels


if not shutil.which("nvcc"):
    sys.exit("cuda_resources: no nvcc")
version = re.search(r"V[\d.]+", subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout)[0]
now = {}
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    for kernels in pool.map(lambda job: compiled(*job), [(s, a) for s in sorted((ROOT / "kernels/cuda").glob("*.cu")) for a in ARCHITECTURES]):
        now.update(kernels)
if sys.argv[1:] == ["--update"]:
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(facts)}" for name, facts in sorted(now.items()))
    BASELINE.write_text(f'{{"nvcc": "{version}", "kernels": {{\n{lines}\n}}}}\n')
    print(f"{BASELINE}: {len(now)} kernels")
    sys.exit(0)

before = json.loads(BASELINE.read_text())
problems = [f"{name}: {facts['spilled']} bytes spilled, {facts['stack']} of stack" for name, facts in now.items() if facts["spilled"] or facts["stack"]]
if before["nvcc"] == version:
    if now.keys() != before["kernels"].keys():
        problems.append(f"not the kernels of the baseline: {', '.join(sorted(now.keys() ^ before['kernels'].keys()))}")
    for name in now.keys() & before["kernels"].keys():
        for what in ("registers", "shared"):
            old, new = before["kernels"][name][what], now[name][what]
            if new != old:
                problems.append(f"{name}: {new} {what} instead of {old}")
else:
    print(f"cuda_resources: nvcc {version}, the baseline is of {before['nvcc']}: only spills are judged")
if problems:
    sys.exit("\n".join(problems) + "\ncuda_resources: if this is meant, --update")
print(f"cuda_resources: {len(now)} kernels, no spills, no stack" + (", as before" if before["nvcc"] == version else ""))
