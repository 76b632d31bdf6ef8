#!/usr/bin/env python3
"""Writes lm_eval_answers.json: what the filters of lm-evaluation-harness take of written texts, and whether exact_match calls it right.

  python tests/eval/golden_answers.py > tests/eval/lm_eval_answers.json      (in an environment with lm-eval 0.4.13)
"""
import json
import os
import sys

import lm_eval
import yaml
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

ROOT = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")
TEXTS = [
    " He has 3+3=<<3+3=6>>6 cups.\n#### 6", "#### 1,234", "#### -5.", "So $12.50 it is", "the answer is 6. Or 7", "none", "", "#### 6\n#### 7", "12 - -3",
    " So the answer is True.", "the answer is yes", "the answer is (B). And the answer is no.\nthe answer is x.", "So the answer is .", "É 6 €7",
    "$", "..", "#### \\$6,", "6\n", "#### ６", "the answer is a\nb.",
]
ANSWERS = ["He has 3+3=<<3+3=6>>6 cups.\n#### 6", "#### 1,234", "x\ny #### $12.50", "True", "yes", "", "6\n", "É"]


def main():
    cases = []
    tasks = {"gsm8k": "gsm8k/gsm8k.yaml", "bbh_boolean_expressions": "bbh/cot_fewshot/_cot_fewshot_template_yaml"}
    for name, file in tasks.items():
        config = yaml.safe_load(open(os.path.join(ROOT, file), encoding="utf-8"))
        metric = {k: v for k, v in config["metric_list"][0].items() if k not in ("metric", "aggregation", "higher_is_better")}
        for number, entry in enumerate(config["filter_list"]):
            kwargs = {k: v for k, v in entry["filter"][0].items() if k != "function"}
            taken = [row[0] for row in RegexFilter(**kwargs).apply([[t] for t in TEXTS], [{}] * len(TEXTS))]
            for text, got in zip(TEXTS, taken):
                right = [bool(exact_match_hf_evaluate(predictions=[got], references=[a], **metric)["exact_match"]) for a in ANSWERS]
                cases.append({"task": name, "measure": number, "text": text, "taken": got, "right": right})
    plain = {"ignore_case": True, "ignore_punctuation": True, "ignore_numbers": True, "regexes_to_ignore": ["a*", "(?s)#.*", "b$"]}
    pairs = [["Hello, World 7", "hello world"], ["aab", "AB"], ["b\n", "\n"], ["x#\ny", "x"], ["ÉA!", "é"], ["a", ""], ["cb", "c"]]
    matches = [bool(exact_match_hf_evaluate(predictions=[a], references=[b], **plain)["exact_match"]) for a, b in pairs]
    json.dump({"answers": ANSWERS, "cases": cases, "options": plain, "pairs": pairs, "matches": matches}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
