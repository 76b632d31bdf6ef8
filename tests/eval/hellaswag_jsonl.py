#!/usr/bin/env python3
"""HellaSwag as JSON lines, in the shape of the Hugging Face set, from the file for llama.cpp's `perplexity --hellaswag` (bzip2, six lines an item).

  python tests/eval/hellaswag_jsonl.py hellaswag_val_full.txt.bz2 > hellaswag_val.jsonl
"""
import bz2
import json
import sys


def items(path):
    text = bz2.open(path, "rt", encoding="utf-8").read().split("\n")
    for i in range(0, len(text) - 5, 6):
        label, _, context = text[i].partition(": ")
        yield {"ind": i // 6, "activity_label": label, "ctx_a": context, "ctx_b": "", "endings": text[i + 2:i + 6], "label": text[i + 1]}


if __name__ == "__main__":
    for item in items(sys.argv[1]):
        print(json.dumps(item))
