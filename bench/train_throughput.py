#!/usr/bin/env python3
"""Training speed and peak memory of `crumb train` beside a PyTorch script doing the same work, in turns, medians.

  python bench/train_throughput.py --model DIR --train TEXT ... --peer PYTHON SCRIPT [--windows 8] [--steps 10] [--rounds 3]

Same objective (KL from the model itself), float32, windows a step, threads, and the same trained tensors (weights, scales, norms,
embedding). SCRIPT takes the options of the ParetoQ peer (--model --train --steps --batch --seq --loss --init --eval-windows) and prints a
JSON line with tokens_per_s and peak_rss_mb at the end. Both rates are tokens by seconds over all steps; both memories are the peak
resident size of the process. Ends with exit code 1 if crumb is slower or larger in the median of the rounds.
"""
import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def peak_mb(command):
    """Runs a command, returns its peak resident megabytes: measured by a child that waits for it alone."""
    code = ("import resource, subprocess, sys\n"
            "status = subprocess.run(sys.argv[1:]).returncode\n"
            "print('peak', resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)\nsys.exit(status)")
    done = subprocess.run(["python3", "-c", code, *map(str, command)], check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]), done.stdout


def run_crumb(args, folder):
    tokens = args.steps * args.windows * args.seq
    peak, _ = peak_mb([ROOT / "build/bin/crumb", "train", ROOT / "configs/qat/seq_w2.yaml", f"model={args.model}",
                       f"data.train=[{','.join(args.train)}]", f'data.separator="{args.separator}"', f"data.sequence_length={args.seq}",
                       f"output={folder}", f"schedule.tokens={tokens}", f"schedule.batch_tokens={args.windows * args.seq}",
                       f"schedule.micro_batch={args.micro_batch or args.windows}", "train.embeddings=true", "objective={kl: 1.0}", "compute=fp32",
                       "validate.every=1000000", "validate.windows=1", f"threads={args.threads}"])
    rates = [line["tokens_per_second"] for line in map(json.loads, (folder / "log.jsonl").open()) if "tokens_per_second" in line]
    return len(rates) / sum(1 / rate for rate in rates), peak  # steps of equal size


def run_peer(args):
    python, script = args.peer
    peak, out = peak_mb([python, script, "--model", args.model, "--train", *args.train, "--eval", args.train[0], "--separator", args.separator.encode().decode("unicode_escape"),
                         "--steps", args.steps, "--batch", args.windows, "--seq", args.seq, "--loss", "kl", "--init", "mse",
                         "--eval-windows", 1, "--threads", args.threads])
    return json.loads(out.strip().splitlines()[-2])["tokens_per_s"], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--peer", nargs=2, required=True, metavar=("PYTHON", "SCRIPT"))
    parser.add_argument("--separator", default=r"\n\x1e\n")
    parser.add_argument("--windows", type=int, default=8)
    parser.add_argument("--micro-batch", type=int, default=0, help="windows crumb computes at once; 0: all")
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    results = {"crumb": [], "peer": []}
    for _ in range(args.rounds):
        work = pathlib.Path(tempfile.mkdtemp())
        results["crumb"].append(run_crumb(args, work / "run"))
        shutil.rmtree(work)
        results["peer"].append(run_peer(args))
    print("| program | tokens/s | peak memory, MB |\n|---|---|---|")
    for name, runs in results.items():
        print(f"| {name} | {statistics.median(r[0] for r in runs):.0f} | {statistics.median(r[1] for r in runs):.0f} |")
    ratios = {what: [c[i] / p[i] for c, p in zip(results["crumb"], results["peer"])] for i, what in enumerate(("speed", "peak memory"))}
    for what, rounds in ratios.items():
        print(f"\n{what}, crumb / peer: {statistics.median(rounds):.2f} (rounds: {', '.join(f'{r:.2f}' for r in rounds)})")
    sys.exit(statistics.median(ratios["speed"]) < 1 or statistics.median(ratios["peak memory"]) > 1)


if __name__ == "__main__":
    main()
