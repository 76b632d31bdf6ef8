#!/usr/bin/env python3
"""Compares GGUF files with the HF folders (plain, or codes and scales) they were exported from, by the `gguf` package.

  python gguf_peer.py FOLDER FILE.gguf [FOLDER FILE.gguf ...]

Quantized linears must decode to exactly codes x scales, norms and biases to the stored values; other matrices to the source rounded by the
package's own encoder (q6_k, which it lacks: a relative error of 0.1 to 2 %). Q2_0C is decoded here, from its definition:
130 bytes a block, half d, then 2-bit codes in order, value (2c - 3) d. Prints one JSON object for each file: tensors compared, by type.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
import safetensors.torch
import torch

GLOBAL = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
LAYER = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm",
}
HUNYUAN = {"attn_q_norm": "self_attn.query_layernorm", "attn_k_norm": "self_attn.key_layernorm"}
Q2_0C = 40  # which the package knows as NVFP4


def hf_name(name, model_type):
    stem, suffix = name.rsplit(".", 1)
    if stem in GLOBAL:
        return f"{GLOBAL[stem]}.{suffix}"
    _, layer, part = stem.split(".")
    names = LAYER | (HUNYUAN if model_type == "hunyuan_v1_dense" else {})
    return f"model.layers.{layer}.{names[part]}.{suffix}"


def unpack(packed, columns, bits):
    stream = np.unpackbits(packed, axis=1, bitorder="little")[:, :columns * bits].reshape(len(packed), columns, bits)
    return stream.astype(np.int32) @ (1 << np.arange(bits, dtype=np.int32))


def dequantize(tensors, name, config):
    """Codes x scales in float64 (docs/formats.md)."""
    rows, columns = tensors[name + "_shape"].tolist()
    quant = config["quantization_config"] | config["quantization_config"]["modules"].get(name.removesuffix(".weight"), {})
    codes = unpack(tensors[name + "_codes"].numpy(), columns, quant["bits"]).astype(np.float64)
    scales = tensors[name + "_scale"].numpy().astype(np.float64)
    group = columns // scales.shape[1]
    zero = 1.5 if quant["grid"] == "seq" else float(2 ** (quant["bits"] - 1))
    return (codes - zero) * np.repeat(scales, group, axis=1)


def permute(weight, heads):
    """convert_hf_to_gguf's row order for architecture llama: half-split pairs become adjacent ones."""
    shape = weight.shape
    return weight.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def decode(tensor):
    if tensor.tensor_type == Q2_0C:
        blocks = np.asarray(tensor.data).reshape(-1, 130)
        d = blocks[:, :2].copy().view(np.float16).astype(np.float64)
        codes = (blocks[:, 2:, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
        return ((2.0 * codes.reshape(len(blocks), 512) - 3.0) * d).reshape(tuple(reversed(tensor.shape.tolist())))
    if tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        return np.asarray(tensor.data).astype(np.float64)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def compare_encoded(tensor, expected):
    if tensor.tensor_type == gguf.GGMLQuantizationType.Q6_K:
        error = np.sqrt(((decode(tensor) - expected) ** 2).sum() / (expected ** 2).sum())
        assert 0.001 < error < 0.02, f"{tensor.name}: relative error {error}"
        return
    encoded = expected.astype(np.float32)
    if tensor.tensor_type not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
        encoded = gguf.quants.quantize(encoded, tensor.tensor_type)
        assert np.array_equal(np.asarray(tensor.data).view(np.uint8).ravel(), encoded.view(np.uint8).ravel()), tensor.name
    else:
        assert np.array_equal(np.asarray(tensor.data), encoded.astype(tensor.data.dtype)), tensor.name


def compare(folder, path):
    config = json.loads((folder / "config.json").read_text())
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= safetensors.torch.load_file(file)
    is_llama = config["model_type"] in ("llama", "mistral")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    counts, missing = {}, {n.removesuffix("_codes") for n in tensors if not n.endswith(("_scale", "_shape", "_zero_point"))}
    for tensor in gguf.GGUFReader(path).tensors:
        if tensor.name == "rope_freqs.weight":
            continue
        name = hf_name(tensor.name, config["model_type"])
        missing.remove(name)
        is_quantized = name + "_codes" in tensors
        expected = dequantize(tensors, name, config) if is_quantized else tensors[name].to(torch.float64).numpy()
        part = tensor.name.split(".")[-2]
        if is_llama and part in heads:
            expected = permute(expected, heads[part])
        if is_quantized or expected.ndim == 1:
            assert np.array_equal(decode(tensor).reshape(expected.shape), expected), f"{path}: {name} differs from codes x scales"
        else:
            compare_encoded(tensor, expected)
        counts[int(tensor.tensor_type)] = counts.get(int(tensor.tensor_type), 0) + 1
    assert not missing, f"{path}: not in the file: {sorted(missing)}"
    return {"tensors": sum(counts.values()), "by_type": counts}


def main():
    gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(Q2_0C)] = (512, 130)
    for folder, path in zip(sys.argv[1::2], sys.argv[2::2]):
        print(json.dumps(compare(pathlib.Path(folder), path)))


if __name__ == "__main__":
    main()
