#!/usr/bin/env python3
"""Peers of the format tests: the gguf and safetensors packages, and ggml's own encoders.

  peer.py dequantize TYPE IN OUT        raw blocks -> float32, by gguf
  peer.py quantize TYPE COLS IN OUT     float32 rows -> raw blocks, by gguf
  peer.py ggml-quantize TYPE COLS IN OUT   the same by ggml_quantize_chunk, reached through xllamacpp's extension module
  peer.py gguf-sizes                    prints {type id: [block size, block bytes]}
  peer.py gguf-read FILE                prints keys, values and tensors as gguf sees them
  peer.py gguf-write FILE               a file with every kind of metadata and several tensor types; prints the values of its tensors
  peer.py gguf-split FOLDER             five tensors as whole.gguf and as split-0000K-of-00003.gguf
  peer.py safetensors-read FILE         prints {name: [dtype, shape, bytes in hexadecimal]} as torch loads them
  peer.py safetensors-write FILE        every dtype; prints the same
  peer.py float-tables FOLDER           all bit patterns of the 8- and 16-bit float types as float32, by torch, one file a type
"""
import json
import sys

import numpy as np


def gguf_type(name):
    import gguf
    return gguf.GGMLQuantizationType[name.upper()]


def dequantize(name, source, target):
    import gguf
    with np.errstate(all="ignore"):
        gguf.dequantize(np.fromfile(source, np.uint8), gguf_type(name)).astype(np.float32).tofile(target)


def quantize(name, cols, source, target):
    import gguf
    rows = np.fromfile(source, np.float32).reshape(-1, int(cols))
    with np.errstate(all="ignore"):
        gguf.quantize(rows, gguf_type(name)).tofile(target)


def ggml_quantize(name, cols, source, target):
    import ctypes
    import gguf
    import xllamacpp.xllamacpp as extension
    library = ctypes.CDLL(extension.__file__)
    chunk = library.ggml_quantize_chunk
    chunk.restype = ctypes.c_size_t
    chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    rows = np.fromfile(source, np.float32).reshape(-1, int(cols))
    block, size = gguf.GGML_QUANT_SIZES[gguf_type(name)]
    out = np.zeros(rows.size // block * size, np.uint8)
    written = chunk(int(gguf_type(name)), rows.ctypes.data, out.ctypes.data, 0, rows.shape[0], rows.shape[1], None)
    assert written == out.size, (written, out.size)
    out.tofile(target)


def gguf_sizes():
    import gguf
    print(json.dumps({int(t): list(sizes) for t, sizes in gguf.GGML_QUANT_SIZES.items()}))


def gguf_read(path):
    import gguf
    reader = gguf.GGUFReader(path)
    keys = {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            value = field.contents()
            keys[name] = [[int(t) for t in field.types], value]
    tensors = [[t.name, [int(n) for n in reversed(t.shape)], int(t.tensor_type), int(t.n_bytes), t.data.tobytes().hex()] for t in reader.tensors]
    print(json.dumps({"keys": keys, "tensors": tensors}))


def gguf_write(path):
    import gguf
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_custom_alignment(64)
    writer.add_uint8("k.u8", 200)
    writer.add_int8("k.i8", -100)
    writer.add_uint16("k.u16", 60000)
    writer.add_int16("k.i16", -30000)
    writer.add_uint32("k.u32", 4000000000)
    writer.add_int32("k.i32", -2000000000)
    writer.add_uint64("k.u64", 2**63 + 5)
    writer.add_int64("k.i64", -(2**62))
    writer.add_float32("k.f32", 0.1)
    writer.add_float64("k.f64", 0.1)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "gr\u00fc\u00df \U0001f600")
    writer.add_array("k.strings", ["a", "", "\u2581b"])
    writer.add_array("k.ints", [1, -2, 3])
    writer.add_array("k.floats", [0.5, -1.25])
    writer.add_array("k.bools", [True, False])
    rng = np.random.default_rng(1)
    values = {}
    for name in ["F32", "F16", "BF16", "Q8_0", "Q4_0"]:
        x = rng.standard_normal((3, 64), np.float32)
        blocks = gguf.quantize(x, gguf_type(name))
        values["t." + name.lower()] = gguf.dequantize(blocks, gguf_type(name)).astype(np.float32).tobytes().hex()
        writer.add_tensor("t." + name.lower(), blocks, raw_dtype=gguf_type(name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    print(json.dumps(values))


def gguf_split(folder):
    import gguf
    for name, most in [("whole", 0), ("split", 2)]:
        writer = gguf.GGUFWriter(f"{folder}/{name}.gguf", "llama", split_max_tensors=most)
        writer.add_string("general.name", "five tensors")
        writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
        rng = np.random.default_rng(2)
        for i, kind in enumerate(["F32", "Q4_1", "Q8_0", "F16", "Q5_0"]):
            blocks = gguf.quantize(rng.standard_normal((3 + i, 96), np.float32), gguf_type(kind))
            writer.add_tensor(f"t{i}", blocks, raw_dtype=gguf_type(kind) if blocks.dtype == np.uint8 else None)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def safetensors_read(path):
    import torch
    from safetensors import safe_open
    out = {}
    with safe_open(path, framework="pt") as f:
        for name in f.keys():
            tensor = f.get_tensor(name)
            data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes().hex() if tensor.numel() else ""
            out[name] = [f.get_slice(name).get_dtype(), list(tensor.shape), data]
    print(json.dumps(out))


def safetensors_write(path):
    import torch
    from safetensors.torch import save_file
    names = "bool uint8 int8 float8_e5m2 float8_e4m3fn int16 uint16 float16 bfloat16 int32 uint32 float32 int64 uint64 float64".split()
    tensors = {}
    for i, name in enumerate(names):
        dtype = getattr(torch, name)
        data = torch.arange(15 * dtype.itemsize, dtype=torch.int64) * 7 + i
        data = data % 2 if name == "bool" else data % 251
        tensors["t." + name] = data.to(torch.uint8).view(dtype).reshape(3, 5)
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(4, 0)
    save_file(tensors, path, metadata={"format": "pt", "note": "gr\u00fc\u00df"})
    safetensors_read(path)


def float_tables(folder):
    import torch
    for name in ["float8_e4m3fn", "float8_e5m2", "float16", "bfloat16"]:
        dtype = getattr(torch, name)
        bits = torch.arange(1 << 8 * dtype.itemsize).to(torch.uint16 if dtype.itemsize == 2 else torch.uint8)
        bits.view(dtype).to(torch.float32).numpy().tofile(f"{folder}/{name}")


if __name__ == "__main__":
    globals()[sys.argv[1].replace("-", "_")](*sys.argv[2:])
