#!/usr/bin/env python3
"""Peer: what transformers' generate() would draw from.

  sampling_peer.py ITEMS.json    a list of {"logits", "text", "temperature", "top_k", "top_p", "min_p", "repetition_penalty"}.
                                 For each a line: the probabilities of all tokens, those left out as 0.
"""
import json, sys
import torch
from transformers.generation import logits_process as lp


def main():
    for item in json.load(open(sys.argv[1])):
        scores, text = torch.tensor([item["logits"]], dtype=torch.float64), torch.tensor([item["text"]])
        steps = [lp.RepetitionPenaltyLogitsProcessor(item["repetition_penalty"]), lp.TemperatureLogitsWarper(item["temperature"])]
        if item["top_k"] > 0: steps.append(lp.TopKLogitsWarper(item["top_k"]))
        if item["top_p"] < 1: steps.append(lp.TopPLogitsWarper(item["top_p"]))
        if item["min_p"] > 0: steps.append(lp.MinPLogitsWarper(item["min_p"]))
        for step in steps: scores = step(text, scores)
        print(json.dumps(torch.softmax(scores, -1)[0].tolist()))


if __name__ == "__main__":
    main()
