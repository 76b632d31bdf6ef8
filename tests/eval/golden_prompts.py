#!/usr/bin/env python3
"""Writes lm_eval_prompts.json: items made up for the purpose, and the pairs of prompt and answer that lm-evaluation-harness makes of
them by its own task files. No model is run.

  python tests/eval/golden_prompts.py > tests/eval/lm_eval_prompts.json      (in an environment with lm-eval 0.4.13)
  python tests/eval/golden_prompts.py MODEL > tests/eval/lm_eval_chats.json  (the same with the chat template of this folder, and transformers)
"""
import json
import os
import sys
import tempfile

os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import lm_eval
import yaml
from lm_eval.tasks import TaskManager

ROOT = os.path.join(os.path.dirname(lm_eval.__file__), "tasks")


def arc(i, n=4):
    return {"id": f"arc{i}", "question": f"Which number is {i}? ", "answerKey": "ABCDE"[i % n],
            "choices": {"text": [f"number {j} of {i}" for j in range(n)], "label": list("ABCDE"[:n])}}


def mmlu(i, subject):
    return {"question": f" What is {i} plus {i}?\n", "choices": [str(i), str(2 * i), "none", f"{i}{i}"], "answer": i % 4, "subject": subject}


def gsm8k(i):
    return {"question": f"Al has {i} cups and buys {i}. How many has he?", "answer": f"He has {i}+{i}=<<{i}+{i}={2 * i}>>{2 * i} cups.\n#### {2 * i}"}


def ceval(i, subject):
    return {"id": i, "question": f" {i}加{i}是____。", "A": str(i), "B": str(2 * i), "C": "无", "D": f"{i}{i}", "answer": "ABCD"[i % 4], "subject": subject}


def cmmlu(i, subject):
    item = ceval(i, subject)
    return {"Question": item["question"], "A": item["A"], "B": item["B"], "C": item["C"], "D": item["D"], "Answer": item["answer"], "subject": subject}


# ours -> the harness's file, items, solved examples, how many of them
TASKS = {
    "arc_easy": ("arc/arc_easy.yaml", [arc(0), arc(1, 3), {**arc(2), "answerKey": "2", "choices": {"text": ["a", "b"], "label": ["1", "2"]}}], None, 0),
    "arc_challenge": ("arc/arc_challenge.yaml", [arc(i) for i in range(6)], [arc(i) for i in range(100, 130)], 3),
    "piqa": ("piqa/piqa.yaml", [{"goal": "Open a jar.", "sol1": "Turn the lid ", "sol2": "Hit the \"lid\".", "label": 1}], None, 0),
    "hellaswag": ("hellaswag/hellaswag.yaml", [
        {"ind": 4, "activity_label": "Removing ice", "ctx_a": "A man  sits.", "ctx_b": "then He", "endings": ["goes [on] up.", " [title] stays", "x", "y  z"],
         "label": "2"},
        {"ind": 5, "activity_label": "Food", "ctx_a": "[header] How to cook [title] Heat it. [step] Wait [substeps] long.", "ctx_b": "",
         "endings": ["[title] Eat. [step] Now", "b", "c", "d"], "label": "0"}], None, 0),
    "winogrande": ("winogrande/default.yaml", [{"sentence": "Ann thanked Sue because _ had helped.", "option1": "Ann", "option2": "Sue", "answer": "2"}],
                   [{"sentence": f"The cup {i} hit the plate, so _ broke.", "option1": "the cup", "option2": "the plate", "answer": str(1 + i % 2)}
                    for i in range(25)], 2),
    "boolq": ("super_glue/boolq/default.yaml", [{"passage": "Snow is cold.", "question": "is snow cold", "label": 1}, {"passage": "P", "question": "q", "label": 0}],
              None, 0),
    "openbookqa": ("openbookqa/openbookqa.yaml", [{"id": "7", "question_stem": "The sun is", "answerKey": " B",
                                                    "choices": {"text": ["cold", "a star", "far", "new"], "label": ["A", "B", "C", "D"]}}], None, 0),
    "social_iqa": ("siqa/siqa.yaml", [{"context": "Al fell.", "question": "How does Al feel?", "answerA": "hurt", "answerB": "glad", "answerC": "tall",
                                       "label": "1"}], None, 0),
    "lambada_openai": ("lambada/lambada_openai.yaml", [{"text": "She looked at the  moon and then at the sea"}, {"text": "One\n\n\"two\" three"}], None, 0),
    "mmlu": ("mmlu/default/mmlu_high_school_physics.yaml", [mmlu(i, "high_school_physics") for i in (3, 4)],
             [mmlu(i, "high_school_physics") for i in range(20, 26)], 5),
    "gsm8k": ("gsm8k/gsm8k.yaml", [gsm8k(i) for i in (3, 4)], [gsm8k(i) for i in range(20, 40)], 5),
    "ceval": ("ceval/ceval-valid_accountant.yaml", [ceval(i, "accountant") for i in (3, 4)], [ceval(i, "accountant") for i in range(20, 26)], 5),
    "cmmlu": ("cmmlu/cmmlu_anatomy.yaml", [cmmlu(i, "anatomy") for i in (3, 4)], [cmmlu(i, "anatomy") for i in range(20, 26)], 5),
    "bbh_boolean_expressions": ("bbh/cot_fewshot/boolean_expressions.yaml", [{"input": "not True is", "target": "False"}],
                                [{"input": "True or False is", "target": "One of the two is true. So the answer is True."}, {"input": "not not False is", "target": "Two negations cancel. So the answer is False."},
                                  {"input": "False and True is", "target": "One of the two is false. So the answer is False."}], 3),
    "bbh_object_counting": ("bbh/cot_fewshot/object_counting.yaml", [{"input": "I have a cup. How many cups do I have?", "target": "1"}],
                                [{"input": "I have a fork and two spoons. How many things do I have?", "target": "One and two are three. So the answer is 3."},
                              {"input": "I have a hat. How many hats do I have?", "target": "There is one. So the answer is 1."},
                              {"input": "I have two cats and a dog. How many animals do I have?", "target": "Two and one are three. So the answer is 3."}], 3),
    "bbh_sports_understanding": ("bbh/cot_fewshot/sports_understanding.yaml", [{"input": "Is it plausible? \"Al ran.\"", "target": "yes"}],
                                [{"input": "Is it plausible? \"Sue swam the marathon.\"", "target": "A marathon is run. So the answer is no."},
                                   {"input": "Is it plausible? \"Ann hit a home run.\"", "target": "That is baseball. So the answer is yes."},
                                   {"input": "Is it plausible? \"Bob served an ace.\"", "target": "That is tennis. So the answer is yes."}], 3),
}
# With a chat template: solved examples in one message, or as turns of their own.
CHATS = {"mmlu": [False, True], "winogrande": [True], "gsm8k": [False, True], "lambada_openai": [False], "ceval": [True]}
SYSTEM = "You are careful."


def write(path, docs):
    with open(path, "w", encoding="utf-8") as out:
        for doc in docs:
            out.write(json.dumps(doc) + "\n")


def pairs_of(found, name):
    """Of each item prompts and answers; of one that is generated the right answer."""
    samples = {s["doc_id"]: s for s in found["samples"]["local_" + name]}
    out = []
    for _, s in sorted(samples.items()):
        arguments = list(s["arguments"].values()) if isinstance(s["arguments"], dict) else s["arguments"]
        pairs = [[a["arg_0"], a["arg_1"]] if isinstance(a, dict) else list(a) for a in arguments]
        out.append([[context, s["target"] if isinstance(answer, dict) else answer] for context, answer in pairs])
    return out


def chats(path, manager):
    from lm_eval.models.dummy import DummyLM
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)

    class ChatLM(DummyLM):
        tokenizer_name = "chat"

        def apply_chat_template(self, chat_history, add_generation_prompt=True):
            return tokenizer.apply_chat_template(chat_history, tokenize=False, add_generation_prompt=add_generation_prompt)

        def chat_template(self, chat_template=False):
            return tokenizer.chat_template

    out = []
    for name, kinds in CHATS.items():
        for multiturn in kinds:
            for system in ("", SYSTEM):
                found = lm_eval.simple_evaluate(ChatLM(), tasks=["local_" + name], task_manager=manager, log_samples=True, bootstrap_iters=0,
                                                apply_chat_template=True, fewshot_as_multiturn=multiturn, system_instruction=system or None)
                out.append({"task": name, "multiturn": multiturn, "system": system, "pairs": pairs_of(found, name)})
    return out


def main():
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, items, examples, shots) in TASKS.items():
            write(f"{folder}/{name}.jsonl", items)
            config = {"include": os.path.join(ROOT, file), "task": "local_" + name, "tag": "local", "dataset_path": "json", "dataset_name": None,
                      "training_split": None, "validation_split": None, "test_split": "test", "num_fewshot": shots, "fewshot_split": None,
                      "dataset_kwargs": {"data_files": {"test": f"{folder}/{name}.jsonl"}}}
            if examples:
                write(f"{folder}/{name}_examples.jsonl", examples)
                config["dataset_kwargs"]["data_files"]["train"] = f"{folder}/{name}_examples.jsonl"
                config["training_split"] = config["fewshot_split"] = "train"
            if name.startswith("bbh"):  # whose solved examples stand in the harness's own files
                config["fewshot_config"] = {"sampler": "first_n", "samples": examples}
            with open(f"{folder}/local_{name}.yaml", "w", encoding="utf-8") as out:
                yaml.safe_dump(config, out)
        manager = TaskManager(include_path=folder)
        if len(sys.argv) > 1:
            golden = chats(sys.argv[1], manager)
        else:
            for name, (_, items, examples, shots) in TASKS.items():
                found = lm_eval.simple_evaluate("dummy", tasks=["local_" + name], task_manager=manager, log_samples=True, bootstrap_iters=0)
                golden[name] = {"shots": shots, "items": items, "examples": examples or [], "pairs": pairs_of(found, name)}
    json.dump(golden, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
