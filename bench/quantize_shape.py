#!/usr/bin/env python3
"""What `crumb quantize` takes on a model of a given shape: anonymous memory at its fullest, seconds, seconds a block.

  python3 bench/quantize_shape.py CRUMB CONFIG.json TOKENIZER_FOLDER WORK [--layers N] [--values zeros|random] [--text TEXT] -- OPTION ...

Makes in WORK/model a bf16 checkpoint of the shape of CONFIG.json: zeros are a sparse file, which takes no disk whatever its size; random values (normal,
0.02) are written. --layers N keeps N of the blocks. OPTIONs go to `crumb quantize`; with --text, the text to calibrate on. Prints one JSON object.
"""
import argparse
import json
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import time


def shapes(config):
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    out = {"model.embed_tokens.weight": (config["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not config.get("tie_word_embeddings"):
        out["lm_head.weight"] = (config["vocab_size"], hidden)
    for i in range(config["num_hidden_layers"]):
        block = f"model.layers.{i}."
        out |= {block + "input_layernorm.weight": (hidden,), block + "post_attention_layernorm.weight": (hidden,),
                block + "self_attn.q_proj.weight": (queries, hidden), block + "self_attn.k_proj.weight": (keys, hidden),
                block + "self_attn.v_proj.weight": (keys, hidden), block + "self_attn.o_proj.weight": (hidden, queries),
                block + "mlp.gate_proj.weight": (inner, hidden), block + "mlp.up_proj.weight": (inner, hidden),
                block + "mlp.down_proj.weight": (hidden, inner)}
    return out


def write_model(folder, config, tokenizer, values):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        if (pathlib.Path(tokenizer) / name).exists():
            shutil.copy(pathlib.Path(tokenizer) / name, folder)
    header, offset = {}, 0
    table = shapes(config)
    for name, shape in table.items():
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [offset, offset + 2 * count]}
        offset += 2 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        begin = file.tell()
        file.truncate(begin + offset)
        if values == "random":
            import numpy as np
            random = np.random.default_rng(0)
            for name, shape in table.items():
                file.seek(begin + header[name]["data_offsets"][0])
                count = int(np.prod(shape))
                for first in range(0, count, 1 << 24):
                    n = min(1 << 24, count - first)
                    x = np.ones(n, np.float32) if len(shape) == 1 else random.standard_normal(n, np.float32) * np.float32(0.02)
                    file.write((x.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    return offset


def main():
    own, options = (sys.argv[1:], []) if "--" not in sys.argv else (sys.argv[1:sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1:])
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("crumb")
    p.add_argument("config")
    p.add_argument("tokenizer")
    p.add_argument("work", type=pathlib.Path)
    p.add_argument("--layers", type=int)
    p.add_argument("--values", choices=["zeros", "random"], default="zeros")
    p.add_argument("--text")
    a = p.parse_args(own)
    config = json.load(open(a.config))
    if a.layers:
        config["num_hidden_layers"] = a.layers
    model, out = a.work / "model", a.work / "out"
    for folder in (model, out, a.work / "out.partial"):
        shutil.rmtree(folder, ignore_errors=True)
    size = write_model(model, config, a.tokenizer, a.values)
    command = [a.crumb, "quantize", str(model), "-o", str(out), *options] + ([f"calibration.text=[{a.text}]"] if a.text else [])
    begin, most, blocks = time.time(), 0, {}
    log = open(a.work / "log", "w+")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
    while process.poll() is None:
        try:
            found = re.search(r"RssAnon:\s+(\d+) kB", open(f"/proc/{process.pid}/status").read())
            most = max(most, int(found[1]) if found else 0)
        except OSError:
            pass
        for done in re.findall(r"quantize: (\d+)/\d+ blocks", open(a.work / "log").read()):
            blocks.setdefault(int(done), time.time() - begin)
        time.sleep(0.02)
    if process.returncode != 0:
        sys.exit(open(a.work / "log").read()[-500:])
    print(json.dumps({"checkpoint_bytes": size, "layers": config["num_hidden_layers"], "anonymous_bytes": most * 1024, "seconds": round(time.time() - begin, 1),
                      "seconds_at_block": {k: round(v, 1) for k, v in blocks.items()}, "cpus": os.cpu_count(), "options": options}))


if __name__ == "__main__":
    main()
