"""The kernels of one .cu file, compiled to PTX and executed on the CPU; the one place that knows the executor."""
import pathlib
import re
import subprocess
import sys

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def build_executor(executor, folder):
    """ptxvm as a Python module, with its library beside a copy of it."""
    library = folder / "libptxvm.so"
    subprocess.run(["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-o", library, executor / "capi.cpp"], check=True)
    (folder / "ptxvm.py").write_text((executor / "ptxvm.py").read_text())
    sys.path.insert(0, str(folder))
    import ptxvm
    return ptxvm


class CompiledKernels:
    """A kernel is told by pieces of its mangled name."""

    def __init__(self, ptxvm, folder, name, seed):
        path = folder / f"{name}.ptx"
        if not path.exists():
            subprocess.run(["nvcc", "-std=c++20", "-arch=compute_80", "--expt-relaxed-constexpr", "-ptx", "-I", ROOT, ROOT / f"kernels/cuda/{name}.cu", "-o", path], check=True)
        text = path.read_text()
        self.names = re.findall(r"\.entry (\w+)\(", text)
        self.ptxvm, self.module = ptxvm, ptxvm.Module(text, seed=seed)
        self.executed = set()

    def launch(self, pieces, grid, block, *arguments, smem=0, reached=()):
        """reached: arrays whose addresses are in a struct among the arguments."""
        found = [name for name in self.names if all(piece in name for piece in pieces)]
        assert len(found) == 1, (pieces, found)
        self.executed.add(found[0])
        for array in reached:
            self.ptxvm._l.pv_map(self.module.h, array.ctypes.data, array.nbytes)
        self.module.launch(found[0], grid if isinstance(grid, tuple) else (grid,), (block,), *arguments, smem=smem)

    def require_all_executed(self):
        assert self.executed == set(self.names), f"never executed: {set(self.names) - self.executed}"


def by_value(data):
    return np.frombuffer(data, dtype=f"V{len(data)}")[0]
