#!/usr/bin/env python3
"""Logits of transformers for HF folders, computed in float32.

  python transformers_peer.py "1,2,3" FOLDER OUT.f32 [FOLDER OUT.f32 ...]      # OUT: float32 [tokens, vocabulary]
"""
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main():
    ids = torch.tensor([[int(i) for i in sys.argv[1].split(",")]])
    for folder, out in zip(sys.argv[2::2], sys.argv[3::2]):
        model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], f"{folder}: {info}"
        with torch.no_grad():
            logits = model.eval()(ids).logits[0]
        logits.numpy().astype(np.float32).tofile(out)


if __name__ == "__main__":
    main()
