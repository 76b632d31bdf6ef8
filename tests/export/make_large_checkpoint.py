#!/usr/bin/env python3
"""Writes a codes-and-scales checkpoint of 1.8 billion parameters (the shape of HY-1.8B) that takes little room: sparse codes.

  python make_large_checkpoint.py FOLDER [--layers 32]

Embedding 120818 x 2048 in bf16 (random, 0.5 GB), 7 linears a layer as 2-bit codes (holes: code 0) with valid scales, norms, and a byte-level
tokenizer of as many tokens. Needs numpy.
"""
import argparse
import json
import pathlib

import numpy as np

HIDDEN, FFN, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 2048, 6144, 16, 4, 128, 120818


def linears():
    q, kv = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
    return {"self_attn.q_proj": (q, HIDDEN), "self_attn.k_proj": (kv, HIDDEN), "self_attn.v_proj": (kv, HIDDEN), "self_attn.o_proj": (HIDDEN, q),
            "mlp.gate_proj": (FFN, HIDDEN), "mlp.up_proj": (FFN, HIDDEN), "mlp.down_proj": (HIDDEN, FFN)}


def tensors(layers):
    """(name, dtype, shape, bytes or None for a hole) in file order."""
    random = np.random.default_rng(0)
    block = (random.standard_normal(1 << 20, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
    count = VOCAB * HIDDEN
    yield "model.embed_tokens.weight", "BF16", [VOCAB, HIDDEN], (block[: min(len(block), count - at)] for at in range(0, count, len(block)))
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for norm, size in (("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN),
                           ("self_attn.query_layernorm", HEAD_DIM), ("self_attn.key_layernorm", HEAD_DIM)):
            yield f"{prefix}{norm}.weight", "F32", [size], [np.ones(size, np.float32)]
        for name, (rows, cols) in linears().items():
            name = f"{prefix}{name}.weight"
            yield name + "_codes", "U8", [rows, cols // 4], None
            yield name + "_scale", "F32", [rows, 1], [np.exp2(random.integers(-8, -4, rows)).astype(np.float32)]
            yield name + "_shape", "I64", [2], [np.array([rows, cols], np.int64)]
    yield "model.norm.weight", "F32", [HIDDEN], [np.ones(HIDDEN, np.float32)]


def write_weights(path, layers):
    sizes = {"BF16": 2, "F32": 4, "U8": 1, "I64": 8}
    entries, offset, parts = {}, 0, list(tensors(layers))
    for name, dtype, shape, _ in parts:
        size = int(np.prod(shape)) * sizes[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        begin = file.tell()
        for name, _, _, data in parts:
            file.seek(begin + entries[name]["data_offsets"][0])
            for piece in data or ():
                file.write(piece.tobytes())
        file.truncate(begin + offset)


def byte_alphabet():
    printable = set(range(33, 127)) | set(range(161, 173)) | set(range(174, 256))
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def write_tokenizer(path):
    random = np.random.default_rng(1)
    pieces = byte_alphabet()
    known, merges = set(pieces), []
    while len(pieces) < VOCAB - 1:
        left, right = pieces[random.integers(min(len(pieces), 20000))], pieces[random.integers(256)]
        if left + right not in known and len(left) < 12:
            known.add(left + right)
            pieces.append(left + right)
            merges.append(f"{left} {right}")
    end = {"id": len(pieces), "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "vocab": {piece: i for i, piece in enumerate(pieces)}, "merges": merges}
    path.write_text(json.dumps({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [end], "normalizer": None,
                                "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level, "model": model}))


def write_config(path, layers):
    path.write_text(json.dumps({
        "architectures": ["HunYuanDenseV1ForCausalLM"], "model_type": "hunyuan_v1_dense", "hidden_act": "silu", "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": layers, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "vocab_size": VOCAB, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 262144,
        "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0}, "tie_word_embeddings": True, "attention_bias": False,
        "quantization_config": {"quant_method": "crumb", "version": 1, "grid": "seq", "bits": 2, "symmetric": True, "group_size": 0,
                                "activations": "none", "ignore": ["lm_head", "embed_tokens"], "modules": {}}}, indent=2))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--layers", type=int, default=32)
    args = parser.parse_args()
    args.folder.mkdir(parents=True)
    write_config(args.folder / "config.json", args.layers)
    write_tokenizer(args.folder / "tokenizer.json")
    write_weights(args.folder / "model.safetensors", args.layers)


if __name__ == "__main__":
    main()
