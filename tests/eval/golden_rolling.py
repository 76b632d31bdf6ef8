#!/usr/bin/env python3
"""Writes rolling_golden.json: word and byte perplexity and bits per byte of ref-llama-15m on some documents, by the rolling log-likelihoods
of lm-evaluation-harness, with the words, bytes and sums of its wikitext task (without that task's detokenizer).

  python tests/eval/golden_rolling.py DATA > tests/eval/rolling_golden.json      (lm_eval 0.4.13, torch 2.11, transformers 5.23)
"""
import json
import sys
import tempfile

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

CONTEXT = 64
RULES = '''
import re


def process_results(doc, results):
    (loglikelihood,) = results
    words, size = len(re.split(r"\\s+", doc["text"])), len(doc["text"].encode("utf-8"))
    return {"word_perplexity": (loglikelihood, words), "byte_perplexity": (loglikelihood, size), "bits_per_byte": (loglikelihood, size)}
'''


def documents(data):
    text = open(data + "/text/wikitext-2-raw/wiki.test.raw", encoding="utf-8").read()
    # Shorter than a window, many windows, words between odd spaces, and some more, each ending where it happens to.
    return [text[:90], text[90:2400], "Ein  Wort \u00e4\u00f6\u3000und\u00a0noch\teines.\n\n", text[2400:2700], text[2700:4300]]


def main():
    data = sys.argv[1]
    torch.set_num_threads(2)
    docs = documents(data)
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/docs.jsonl", "w", encoding="utf-8") as out:
            for doc in docs:
                out.write(json.dumps({"text": doc}) + "\n")
        with open(folder + "/rules.py", "w", encoding="utf-8") as out:
            out.write(RULES)
        config = {"task": "rolling", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": folder + "/docs.jsonl"}}, "test_split": "test",
                  "output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "{{text}}",
                  "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")]}
        with open(folder + "/rolling.yaml", "w", encoding="utf-8") as out:
            out.write(yaml.safe_dump(config) + "process_results: !function rules.process_results\n")
        model = HFLM(pretrained=data + "/models/ref-llama-15m", dtype="float32", device="cpu", batch_size=1, max_length=CONTEXT)
        found = lm_eval.simple_evaluate(model, tasks=["rolling"], task_manager=TaskManager(include_path=folder), log_samples=True, bootstrap_iters=0)
    results = {k.split(",")[0]: v for k, v in found["results"]["rolling"].items() if isinstance(v, float)}
    rows = [s["word_perplexity"] for s in sorted(found["samples"]["rolling"], key=lambda s: s["doc_id"])]
    print(json.dumps({"context": CONTEXT, "documents": docs, "log_likelihoods": [r[0] for r in rows], "words": [r[1] for r in rows],
                      "results": results}, indent=1))


if __name__ == "__main__":
    main()
