"""Compiled PTX executed on the CPU, with numpy arrays as its memory: executor.h for Python.

    module = ptx.Module(text, seed=5)
    module.launch("kernel", grid, block, x, y, np.int32(n), shared=1024)

An array is a pointer to it, and the kernel may access it while it runs: all of it, and write it if numpy may. Arrays that are only pointed to
from elsewhere are named by `also`. A scalar of numpy is an argument of its size.
"""
import ctypes
import os
import pathlib

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Error(RuntimeError):
    pass


def _load_library():
    path = os.environ.get("CRUMB_PTX_LIBRARY", ROOT / "build/tests/ptx/libcrumb_ptx.so")
    if not os.path.exists(path):
        raise SystemExit(f"no library in {path}: build the target crumb_ptx, or set CRUMB_PTX_LIBRARY")
    library = ctypes.CDLL(path)
    pointer, text, size, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64
    for name, result, arguments in (("error", text, []), ("load", pointer, [text]), ("free", None, [pointer]),
                                    ("options", None, [pointer, number, ctypes.c_int, ctypes.c_int, ctypes.c_int, number]),
                                    ("add", ctypes.c_int, [pointer, pointer, size, ctypes.c_int]), ("remove", ctypes.c_int, [pointer, pointer]),
                                    ("launch", ctypes.c_int, [pointer, text, pointer, pointer, size, size, pointer, pointer]),
                                    ("kernels", text, [pointer]), ("coverage", text, [pointer, text]),
                                    ("variable", pointer, [pointer, text, pointer]), ("thread_steps", number, [pointer])):
        function = getattr(library, "crumb_ptx_" + name)
        function.restype, function.argtypes = result, arguments
    return library


_library = _load_library()


def _check(ok):
    if not ok:
        raise Error(_library.crumb_ptx_error().decode())


def _dim(value):
    value = tuple(value) if isinstance(value, (tuple, list)) else (value,)
    return (ctypes.c_uint * 3)(*(value + (1, 1, 1))[:3])


class Module:
    def __init__(self, text, seed=0, shared_races=True, global_races=True, uninitialised=True, max_steps=1 << 34):
        self._handle = None
        self._handle = _library.crumb_ptx_load(text.encode())
        _check(self._handle)
        _library.crumb_ptx_options(self._handle, seed, shared_races, global_races, uninitialised, max_steps)

    def __del__(self):
        if self._handle:
            _library.crumb_ptx_free(self._handle)

    def kernels(self):
        return _library.crumb_ptx_kernels(self._handle).decode().split()

    def launch(self, kernel, grid, block, *arguments, shared=0, also=()):
        arrays = [a for a in (*arguments, *also) if isinstance(a, np.ndarray) and a.nbytes]
        for array in arrays:
            assert array.flags.c_contiguous, "an array must be contiguous"
        values = [np.array(a.ctypes.data, np.uint64) if isinstance(a, np.ndarray) else np.array(a) for a in arguments]
        count = len(values)
        added = []
        try:
            for array in sorted(arrays, key=lambda a: -a.nbytes):  # views after what they are views of
                _check(_library.crumb_ptx_add(self._handle, array.ctypes.data, array.nbytes, array.flags.writeable) == 0)
                added.append(array)
            _check(_library.crumb_ptx_launch(self._handle, kernel.encode(), _dim(grid), _dim(block), shared, count,
                                             (ctypes.c_void_p * count)(*[v.ctypes.data for v in values]),
                                             (ctypes.c_size_t * count)(*[v.nbytes for v in values])) == 0)
        finally:
            for array in added:
                _library.crumb_ptx_remove(self._handle, array.ctypes.data)

    def coverage(self, kernel):
        """[(line, times executed, text)]"""
        lines = _library.crumb_ptx_coverage(self._handle, kernel.encode())
        _check(lines is not None)
        return [(int(line), int(times), text) for line, times, text in (one.split(" ", 2) for one in lines.decode().splitlines())]

    def variable(self, name):
        """The bytes of a .global or .const variable, to read and to write."""
        size = ctypes.c_size_t()
        address = _library.crumb_ptx_variable(self._handle, name.encode(), ctypes.byref(size))
        _check(address)
        return np.frombuffer((ctypes.c_byte * size.value).from_address(address), np.uint8)

    def thread_steps(self):
        return _library.crumb_ptx_thread_steps(self._handle)
