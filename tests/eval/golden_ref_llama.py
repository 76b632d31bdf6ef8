#!/usr/bin/env python3
"""Writes ref_llama_golden.json: perplexity of ref-llama-15m, and KL divergence and top-1 agreement of a second model against it, by
transformers in float32, on windows spread evenly over three texts in one stream (EOS after each document, no BOS).

The second model is the first with every linear weight rounded to a multiple of 1/64, which any program can repeat exactly.

  python tests/eval/golden_ref_llama.py DATA_FOLDER > tests/eval/ref_llama_golden.json      (torch 2.11, transformers 5.23)
"""
import copy
import json
import math
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

CONTEXT, WINDOWS, TEXTS = 256, 8, ["tech-test.txt", "prose-test.txt", "verse-test.txt"]


def main():
    data = sys.argv[1]
    torch.set_num_threads(2)
    path = f"{data}/models/ref-llama-15m"
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in rounded.named_modules():
            if isinstance(module, torch.nn.Linear) and "lm_head" not in name:
                module.weight.copy_(torch.round(module.weight * 64) / 64)
    ids = []
    for text in TEXTS:
        for document in open(f"{data}/text/corpus/{text}", encoding="utf-8").read().split("\n\x1e\n"):
            ids += tokenizer(document, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    total = (len(ids) - 1) // CONTEXT
    windows = []
    for i in np.unique(np.linspace(0, total - 1, WINDOWS).astype(int)):
        x = torch.tensor(ids[i * CONTEXT:(i + 1) * CONTEXT + 1])[None]
        with torch.no_grad():
            a = torch.log_softmax(model(x[:, :-1]).logits[0].double(), -1)
            b = torch.log_softmax(rounded(x[:, :-1]).logits[0].double(), -1)
        y = x[0, 1:, None]
        windows.append({"begin": int(i) * CONTEXT, "baseline_nll": -a.gather(1, y).mean().item(), "nll": -b.gather(1, y).mean().item(),
                        "kl": (a.exp() * (a - b)).sum(-1).mean().item(), "top1": (a.argmax(-1) == b.argmax(-1)).double().mean().item()})
    mean = {key: float(np.mean([w[key] for w in windows])) for key in ("baseline_nll", "nll", "kl", "top1")}
    error = {key: float(np.std([w[key] for w in windows], ddof=1) / math.sqrt(len(windows))) for key in mean}
    print(json.dumps({"tokens": len(ids), "context": CONTEXT, "windows": windows, "mean": mean, "standard_error": error}, indent=1))


if __name__ == "__main__":
    main()
