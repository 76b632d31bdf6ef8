#!/usr/bin/env python3
"""What drafts are worth: tokens a second of `crumb generate` without and with each draft, in turns, over several prompts.

  bench/speculation.py MODEL --draft NAME=DRAFT ... [--texts FILE] [--options=--temperature=0.8 ...] [--draft-max 8] [--new 128] [--rounds 3]

Prompts are paragraphs of the file. Prints a Markdown table: acceptance and tokens a pass over all prompts, tokens a second (median, least to
most, over prompts and rounds; loading and the prompt are not counted), and the median of the ratios to the run without a draft beside it.
Greedy texts are compared: a difference ends it.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROMPTS = ["The three main reasons for the fall of the Roman Empire are", "Once upon a time there was a fox who",
           "To sort a list of numbers in Python, first", "Photosynthesis is the process by which"]


def generate(args, prompt, draft):
    command = [args.program, "-q", "generate", args.model, "--json", "--threads", args.threads, "--prompt", prompt, "--max-tokens", args.new,
               *args.options]
    command += ["--draft", draft, "--draft-max", args.draft_max] if draft else []
    out = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    rate = (len(out["tokens"]) - 1) / out["decode_seconds"] if len(out["tokens"]) > 1 else None
    return rate, out["draft"], out["tokens"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--draft", nargs="+", required=True, metavar="NAME=DRAFT")
    parser.add_argument("--texts")
    parser.add_argument("--options", action="append", default=[])
    parser.add_argument("--draft-max", type=int, default=8)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--program", default=ROOT / "build" / "bin" / "crumb")
    args = parser.parse_args()
    prompts = PROMPTS
    if args.texts:
        prompts = [text.strip() for text in pathlib.Path(args.texts).read_text().split("\n\n") if text.strip()]
    drafts = {"none": "", **dict(draft.split("=", 1) for draft in args.draft)}
    is_greedy = not any("temperature" in option for option in args.options)
    rates, ratios, counts = ({name: [] for name in drafts} for _ in range(3))
    for _ in range(args.rounds):
        for prompt in prompts:
            plain = None
            for name, draft in drafts.items():
                rate, report, tokens = generate(args, prompt, draft)
                plain = plain or (rate, tokens)
                if is_greedy and tokens != plain[1]:
                    sys.exit(f"{name}: other tokens than without a draft: {prompt}")
                if rate is None:
                    continue
                rates[name].append(rate)
                ratios[name].append(rate / plain[0])
                if report:
                    counts[name].append(report)
    print("| draft | accepted | tokens a pass | tokens/s | speed-up |\n|---|---|---|---|---|")
    for name in drafts:
        low, mid, high = min(rates[name]), statistics.median(rates[name]), max(rates[name])
        total = {key: sum(report[key] for report in counts[name]) for key in ("accepted", "proposed", "passes")}
        share = f"{100 * total['accepted'] / total['proposed']:.0f} %" if total["proposed"] else "-"
        per_pass = f"{1 + total['accepted'] / total['passes']:.2f}" if total["passes"] else "1"
        print(f"| {name} | {share} | {per_pass} | {mid:.0f} ({low:.0f}-{high:.0f}) | {statistics.median(ratios[name]):.2f} |")


if __name__ == "__main__":
    main()
