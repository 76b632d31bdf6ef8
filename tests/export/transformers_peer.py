#!/usr/bin/env python3
"""Logits of transformers for an HF folder, computed in float32.

  python transformers_peer.py FOLDER "1,2,3" OUT.f32      # OUT: float32 [tokens, vocabulary]
"""
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def main():
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], torch_dtype=torch.float32).eval()
    ids = torch.tensor([[int(i) for i in sys.argv[2].split(",")]])
    with torch.no_grad():
        logits = model(ids).logits[0]
    logits.numpy().astype(np.float32).tofile(sys.argv[3])


if __name__ == "__main__":
    main()
