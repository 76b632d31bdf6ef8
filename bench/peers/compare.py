#!/usr/bin/env python3
"""Crumb beside stock llama.cpp (bench/peers/build.sh), in turns: time to first token and generation, medians with spread, ratios to one row.

  python3 bench/peers/compare.py --crumb NAME=MODEL[,int8|bf16|float] ... --peer NAME=FILE.gguf ... [--reference NAME] [--prompt 64,128,256,512,1024]
                                 [--context 0,512] [--new 32] [--threads 1] [--rounds 5] [--cache-type f16] [--program CRUMB] [--peers build/peers/bin]
                                 [--json FILE]

Every round runs `crumb bench --rounds 1` for each model and `llama-bench -r 1` for each file, so that a busy moment of the machine meets all. Both are
given random tokens, and measure the seconds of a prompt and tokens a second behind a context; the peer's prompts end before the first token is picked.
Both hold keys and values in --cache-type. --reference: the row that ratios are to; default: the first peer.
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def run(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"compare: {' '.join(map(str, command))}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout)


def measure_crumb(a, model):
    path, *activations = model.rsplit(",", 1) if model.endswith((",int8", ",bf16", ",float")) else [model]
    out = run([a.program, "bench", "-q", "--json", "x=" + path, "--rounds", 1, "--prompt", a.prompt, "--context", a.context, "--new", a.new,
               "--threads", a.threads, "--cache-type", a.cache_type, "--activations", *(activations or ["auto"])])
    names = {"first_token_seconds": "prompt", "tokens_per_second": "context"}
    return {(names[m["name"]], m["tokens"]): m["median"] for m in out["rows"][0]["measures"] if m["name"] in names}


def measure_peer(a, file):
    """llama-bench: -p measures prompts, -n with -d (depth) generation behind a context; avg_ns is of one repetition."""
    cache = "q8_0" if a.cache_type == "q8" else a.cache_type
    attention = ["-fa", 1] if cache == "q8_0" else []  # without it llama.cpp has no values of 8 bits
    tool = [a.peers / "llama-bench", "-m", file, "-t", a.threads, "-r", 1, "-ngl", 0, "-ctk", cache, "-ctv", cache, *attention, "-o", "json"]
    prompts, contexts = run(tool + ["-p", a.prompt, "-n", 0]), run(tool + ["-p", 0, "-n", a.new, "-d", a.context])
    return {("prompt", r["n_prompt"]): r["avg_ns"] * 1e-9 for r in prompts} | {("context", r["n_depth"]): r["avg_ts"] for r in contexts}


def cell(a, samples, reference, key):
    values = samples[key]
    digits = 4 if key[0] == "prompt" else 1
    middle, other = statistics.median(values), statistics.median(reference[key])
    return f"{middle:.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f}), {other / middle if key[0] == 'prompt' else middle / other:.2f}x"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--crumb", nargs="*", default=[], metavar="NAME=MODEL[,int8]")
    p.add_argument("--peer", nargs="*", default=[], metavar="NAME=FILE.gguf")
    p.add_argument("--reference")
    p.add_argument("--prompt", default="64,128,256,512,1024")
    p.add_argument("--context", default="0,512")
    p.add_argument("--new", type=int, default=32)
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--cache-type", choices=["f16", "f32", "q8"], default="f16")
    p.add_argument("--program", type=pathlib.Path, default=ROOT / "build-no-torch/bin/crumb")
    p.add_argument("--peers", type=pathlib.Path, default=ROOT / "build/peers/bin")
    p.add_argument("--json", type=pathlib.Path, help="every sample")
    a = p.parse_args()
    entries = [(measure, *entry.split("=", 1)) for measure, group in ((measure_crumb, a.crumb), (measure_peer, a.peer)) for entry in group]
    names = [name for _, name, *_ in entries]
    if a.rounds < 1 or not entries or len(set(names)) < len(names) or any(len(entry) < 3 for entry in entries):
        p.error("give at least one round and one NAME=MODEL, each name once")
    reference = a.reference or next((name for measure, name, _ in entries if measure is measure_peer), names[0])
    if reference not in names:
        p.error(f"--reference: no row is called {reference}")
    keys = [("prompt", int(n)) for n in a.prompt.split(",")] + [("context", int(n)) for n in a.context.split(",")]
    samples = {name: {key: [] for key in keys} for name in names}
    for number in range(a.rounds):
        for measure, name, model in entries[number % len(entries):] + entries[:number % len(entries)]:
            for key, value in measure(a, model).items():
                samples[name][key].append(value)
    if a.json:
        a.json.write_text(json.dumps({name: [{"what": what, "tokens": n, "samples": values} for (what, n), values in of.items()] for name, of in samples.items()}))
    print(f"{a.threads} threads, {a.rounds} rounds in turns: median (least-most), times as fast as {reference}\n")
    print("| | " + " | ".join(f"first token after {n}, s" if what == "prompt" else f"tokens/s behind {n}" for what, n in keys) + " |")
    print("|---|" + "---|" * len(keys))
    for name in names:
        print(f"| {name} | " + " | ".join(cell(a, samples[name], samples[reference], key) for key in keys) + " |")


if __name__ == "__main__":
    main()
