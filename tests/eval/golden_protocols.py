#!/usr/bin/env python3
"""Writes protocols_golden.json: perplexities of ref-llama-15m on the first 120,000 bytes of wiki.test.raw by the programs whose protocols
`crumb eval --protocol` follows: the loop of GPTQ's authors with transformers in float32, and llama-perplexity on the bf16 GGUF.

  python tests/eval/golden_protocols.py DATA LLAMA_PERPLEXITY REF_LLAMA.gguf > tests/eval/protocols_golden.json
      (torch 2.11, transformers 5.23; the GGUF by `crumb export DATA/models/ref-llama-15m --to gguf-bf16`)
"""
import json
import re
import subprocess
import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

BYTES, CONTEXT, WINDOWS = 120000, 128, 12


def gptq(path, text):
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    rows = [line if line.strip() else "" for line in text.splitlines(keepends=True)]  # as the Hugging Face set has them
    ids = tokenizer("\n\n".join(rows), return_tensors="pt").input_ids
    nlls = []
    for i in range(WINDOWS):
        window = ids[:, i * CONTEXT:(i + 1) * CONTEXT]
        with torch.no_grad():
            logits = model(window).logits
        loss = torch.nn.functional.cross_entropy(logits[0, :-1].float(), window[0, 1:])
        nlls.append(loss.float() * CONTEXT)
    return {"tokens": ids.shape[1], "perplexity": torch.exp(torch.stack(nlls).sum() / (WINDOWS * CONTEXT)).item()}


def llamacpp(program, gguf, text):
    with tempfile.NamedTemporaryFile("w", suffix=".raw") as file:
        file.write(text)
        file.flush()
        run = subprocess.run([program, "-m", gguf, "-f", file.name, "-c", str(CONTEXT), "--chunks", str(WINDOWS)], capture_output=True, text=True)
    found = re.search(r"Final estimate: PPL = ([0-9.]+)", run.stdout + run.stderr)
    return {"perplexity": float(found.group(1))}


def main():
    data, program, gguf = sys.argv[1:]
    text = open(data + "/text/wikitext-2-raw/wiki.test.raw", "rb").read()[:BYTES].decode()
    golden = {"bytes": BYTES, "context": CONTEXT, "windows": WINDOWS, "gptq": gptq(data + "/models/ref-llama-15m", text),
              "llama.cpp": llamacpp(program, gguf, text)}
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
