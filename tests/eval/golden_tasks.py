#!/usr/bin/env python3
"""Writes lm_eval_golden.json: what lm-evaluation-harness finds of local files with SmolLM2-135M-Instruct in float32 on the CPU, item by item.

The tasks are the harness's own files; only where they read their data from is changed: JSON lines in the shape of the Hugging Face
sets, made here of the files in DATA/bench.

  python tests/eval/golden_tasks.py DATA MODEL ITEMS TASK... > tests/eval/lm_eval_golden.json
      (in an environment with lm-eval 0.4.13, torch 2.11, transformers 5.23 and accelerate; an item takes a second or two)

The file that is there: 200 items of arc_easy, 50 of the others, 10 of arc_easy_5_shot.
"""
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
import yaml
import lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

import hellaswag_jsonl

ROOT = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
BENCH = sys.argv[1] + "/bench/"
ITEMS, NAMES = int(sys.argv[3]), sys.argv[4:]


def lines(name):
    return [json.loads(line) for line in open(BENCH + name, encoding="utf-8") if line.strip()]


def arc(name):
    for doc in lines(f"arc/{name}.jsonl"):
        question, choices = doc["question"]["stem"], doc["question"]["choices"]
        yield {"id": doc["id"], "question": question, "answerKey": doc["answerKey"],
               "choices": {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}}


def piqa():
    labels = open(BENCH + "piqa/valid-labels.lst").read().split()
    for doc, label in zip(lines("piqa/valid.jsonl"), labels):
        yield {**doc, "label": int(label)}


def boolq():
    for doc in lines("boolq/val.jsonl"):
        yield {"question": doc["question"], "passage": doc["passage"], "idx": doc["idx"], "label": int(doc["label"] == "true")}


# name -> file of the harness, the shape of the data, the split with solved examples, and how many of them
TASKS = {
    "arc_easy": ("arc/arc_easy.yaml", lambda: arc("ARC-Easy-Test"), None, 0),
    "arc_challenge": ("arc/arc_challenge.yaml", lambda: arc("ARC-Challenge-Test"), None, 0),
    "piqa": ("piqa/piqa.yaml", piqa, None, 0),
    "lambada_openai": ("lambada/lambada_openai.yaml", lambda: lines("lambada/lambada_test.jsonl"), None, 0),
    # Five examples drawn for each item from another file.
    "arc_easy_5_shot": ("arc/arc_easy.yaml", lambda: arc("ARC-Easy-Test"), lambda: arc("ARC-Easy-Dev"), 5),
    "boolq": ("super_glue/boolq/default.yaml", boolq, None, 0),
    "hellaswag": ("hellaswag/hellaswag.yaml", lambda: hellaswag_jsonl.items(BENCH + "hellaswag/hellaswag_val_full.txt.bz2"), None, 0),
}


def write(path, docs):
    with open(path, "w", encoding="utf-8") as out:
        for doc in docs:
            out.write(json.dumps(doc) + "\n")


def make_task(name, folder):
    file, items, examples, shots = TASKS[name]
    config = {"include": os.path.join(ROOT, file), "task": "local_" + name, "tag": "local", "dataset_path": "json", "dataset_name": None,
              "training_split": "train" if examples else None, "validation_split": None, "test_split": "test", "num_fewshot": shots,
              "dataset_kwargs": {"data_files": {"test": f"{folder}/{name}.jsonl"}}}
    write(f"{folder}/{name}.jsonl", items())
    if examples:
        write(f"{folder}/{name}_train.jsonl", examples())
        config["dataset_kwargs"]["data_files"]["train"] = f"{folder}/{name}_train.jsonl"
    with open(f"{folder}/local_{name}.yaml", "w", encoding="utf-8") as out:
        yaml.safe_dump(config, out)


def main():
    torch.set_num_threads(2)
    model = HFLM(pretrained=sys.argv[2], dtype="float32", device="cpu", batch_size=16)
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            make_task(name, folder)
        manager = TaskManager(include_path=folder)
        print('{"lm_eval": "0.4.13", "tasks": {', end="")
        for i, name in enumerate(NAMES):
            found = lm_eval.simple_evaluate(model, tasks=["local_" + name], task_manager=manager, limit=ITEMS, log_samples=True,
                                            bootstrap_iters=0)
            results = {k.split(",")[0]: v for k, v in found["results"]["local_" + name].items() if isinstance(v, float)}
            print((",\n" if i else "\n") + f'"{name}": {{"results": {json.dumps(results)}, "items": [')
            rows = []
            for s in sorted(found["samples"]["local_" + name], key=lambda s: s["doc_id"]):
                row = {"log_likelihoods": [round(float(r[0][0]), 5) for r in s["resps"]]}
                rows.append(json.dumps(row | {k: int(s[k]) for k in ("acc", "acc_norm") if k in s}))
            print(",\n".join(rows) + "]}", end="", flush=True)
            print(name, results, file=sys.stderr, flush=True)
        print("\n}}")


if __name__ == "__main__":
    main()
