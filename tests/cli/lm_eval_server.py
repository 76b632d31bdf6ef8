#!/usr/bin/env python3
"""lm-evaluation-harness scores a model through `crumb serve`; the hits must be those of `crumb eval`, item by item.

  python tests/cli/lm_eval_server.py CRUMB MODEL TOKENIZER DATA [ITEMS]      (in an environment with lm-eval 0.4.13 and its part "api")

TOKENIZER is a Hugging Face folder, DATA the folder with bench/arc. Items that `crumb eval` calls close may differ.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

CRUMB, MODEL, TOKENIZER, DATA = sys.argv[1:5]
ITEMS = int(sys.argv[5]) if len(sys.argv) > 5 else 50
ROOT = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")


def docs():
    for line in open(f"{DATA}/bench/arc/ARC-Easy-Test.jsonl", encoding="utf-8"):
        doc = json.loads(line)
        choices = doc["question"]["choices"]
        yield {"id": doc["id"], "question": doc["question"]["stem"], "answerKey": doc["answerKey"],
               "choices": {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}}


def main():
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([CRUMB, "eval", "-q", MODEL, "--tasks", "arc_easy", "--tasks-dir", f"{DATA}/bench", "--limit", str(ITEMS), "--items", f"{folder}/items.jsonl"],
                       check=True, stdout=subprocess.DEVNULL)
        ours = [json.loads(line) for line in open(f"{folder}/items.jsonl")]
        with open(f"{folder}/docs.jsonl", "w", encoding="utf-8") as out:
            out.writelines(json.dumps(doc) + "\n" for doc in docs())
        config = {"include": f"{ROOT}/arc/arc_easy.yaml", "task": "local_arc", "tag": "local", "dataset_path": "json", "dataset_name": None,
                  "training_split": None, "validation_split": None, "test_split": "test", "dataset_kwargs": {"data_files": {"test": f"{folder}/docs.jsonl"}}}
        with open(f"{folder}/local_arc.yaml", "w", encoding="utf-8") as out:
            yaml.safe_dump(config, out)
        server = subprocess.Popen([CRUMB, "serve", MODEL, "--name", "judged", "--port", "0"], stdout=subprocess.PIPE, text=True)
        try:
            address = server.stdout.readline().split(" at ")[1].strip()
            found = lm_eval.simple_evaluate(
                "local-completions", model_args={"model": "judged", "base_url": address, "tokenizer_backend": "huggingface", "tokenizer": TOKENIZER,
                                                 "num_concurrent": 1, "tokenized_requests": True},
                tasks=["local_arc"], task_manager=TaskManager(include_path=folder), limit=ITEMS, log_samples=True, bootstrap_iters=0, batch_size=8)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(timeout=60)
        theirs = sorted(found["samples"]["local_arc"], key=lambda s: s["doc_id"])
    assert code == 0, f"the server ended with {code}"
    assert len(ours) == len(theirs) == ITEMS
    worst, others = 0.0, []
    for i, (a, b) in enumerate(zip(ours, theirs)):
        for x, y in zip(a["log_likelihoods"], (r[0][0] for r in b["resps"])):
            worst = max(worst, abs(x - float(y)) / max(1, -x))
        if not a["close"] and any(int(a[m]) != int(b[m]) for m in ("acc", "acc_norm")):
            others.append(i)
    print(f"{ITEMS} items, acc {sum(a['acc'] for a in ours) / ITEMS:.3f}, log-likelihoods differ by {worst:.1e} of their size at most, other hits: {others}")
    return 1 if others or worst > 2e-5 else 0


if __name__ == "__main__":
    sys.exit(main())
