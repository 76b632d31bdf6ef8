"""The kernels of one .cu file, compiled to PTX and executed on the CPU."""
import pathlib
import subprocess

import numpy as np

import ptx

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class CompiledKernels:
    """A kernel is told by pieces of its mangled name."""

    def __init__(self, folder, name, seed):
        path = folder / f"{name}.ptx"
        if not path.exists():
            subprocess.run(["nvcc", "-std=c++20", "-arch=compute_80", "--expt-relaxed-constexpr", "-ptx", "-I", ROOT, ROOT / f"kernels/cuda/{name}.cu", "-o", path], check=True)
        self.module = ptx.Module(path.read_text(), seed=seed)
        self.names = self.module.kernels()
        self.executed = set()

    def launch(self, pieces, grid, block, *arguments, smem=0, reached=()):
        """reached: arrays whose addresses are in a struct among the arguments."""
        found = [name for name in self.names if all(piece in name for piece in pieces)]
        assert len(found) == 1, (pieces, found)
        self.executed.add(found[0])
        self.module.launch(found[0], grid, block, *arguments, shared=smem, also=reached)

    def coverage(self):
        """How many lines of PTX were executed, how many there are, and of each kernel the stretches that were not: (first, last)."""
        executed, total, missed = 0, 0, {}
        for name in self.names:
            stretch = False
            for line, times, _ in self.module.coverage(name):
                total += 1
                executed += times > 0
                if times == 0 and stretch:
                    missed[name][-1][1] = line
                elif times == 0:
                    missed.setdefault(name, []).append([line, line])
                stretch = times == 0
        return executed, total, missed

    def require_all_executed(self):
        assert self.executed == set(self.names), f"never executed: {set(self.names) - self.executed}"

    def report(self, file, seed):
        """Requires that all were executed and prints how much of them was."""
        self.require_all_executed()
        executed, total, missed = self.coverage()
        print(f"{file}: {len(self.names)} kernels, {executed} of {total} lines of PTX executed on the CPU, order {seed}: ok", flush=True)
        for name, stretches in missed.items():
            print(f"  not executed in {name}: lines " + ", ".join(f"{first}-{last}" for first, last in stretches))


def by_value(*parts):
    """A struct: bytes as they are, numbers as float32."""
    data = b"".join(part if isinstance(part, bytes) else np.asarray(part, np.float32).tobytes() for part in parts)
    return np.frombuffer(data, dtype=f"V{len(data)}")[0]


def blocks(n, of_each):
    return -(-n // of_each)
