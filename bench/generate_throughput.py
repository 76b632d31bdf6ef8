#!/usr/bin/env python3
"""Tokens a second of `crumb generate` and of stock llama.cpp (the `xllamacpp` wheel), in turns, medians.

  .venv-peers/bin/python bench/generate_throughput.py --crumb NAME=MODEL[,int8] ... --peer NAME=FILE.gguf ... [--threads 1] [--rounds 5]

Two jobs each: decoding (--new tokens after a short prompt) and time to first token (a prompt of the first --prompt-characters of --text).
MODEL is what `crumb generate` takes; CRUMB_ISA holds for crumb alone. Loading is not counted. Prints a Markdown table with the spread of
the rounds and what the peer was built for. Greedy; the peer keeps keys and values in float32, as crumb does.
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHORT = "Once upon a time"


def run_crumb(args, model, prompt, tokens):
    path, *activations = model.split(",")
    command = [args.program, "generate", path, "--json", "-q", "--threads", args.threads, "--prompt", prompt, "--max-tokens", tokens]
    command += ["--cache-type", "f32", "--activations", activations[0] if activations else "float"]
    out = json.loads(subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout)
    return len(out["prompt_tokens"]), len(out["tokens"]), out["seconds"]


def measure_crumb(args, model):
    _, new, seconds = run_crumb(args, model, SHORT, args.new)
    tokens, _, first = run_crumb(args, model, args.prompt, 1)
    return {"decode": new / seconds, "prefill": tokens / first}


def peer_child(gguf, threads, new):
    """In a process of its own: a server's memory and threads end with it. The prompt comes on stdin."""
    import xllamacpp as xl
    params = xl.CommonParams()
    params.model.path = gguf
    params.n_ctx, params.n_parallel, params.n_gpu_layers = 2048, 1, 0
    params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.cache_type_k = params.cache_type_v = xl.ggml_type.GGML_TYPE_F32
    server = xl.Server(params)

    def timings(prompt, tokens):
        body = {"prompt": prompt, "max_tokens": tokens, "n_predict": tokens, "temperature": 0.0, "cache_prompt": False, "ignore_eos": True}
        return server.handle_completions(body)["timings"]
    decode, prefill = timings(SHORT, new), timings(sys.stdin.read(), 1)
    print("RESULT" + json.dumps({"decode": decode["predicted_per_second"], "prefill": prefill["prompt_per_second"], "built": xl.get_system_info()}))


def measure_peer(args, gguf):
    command = [sys.executable, __file__, "--child", gguf, "--threads", str(args.threads), "--new", str(args.new)]
    out = subprocess.run(command, check=True, capture_output=True, text=True, input=args.prompt).stdout
    return json.loads(out[out.index("RESULT") + len("RESULT"):].splitlines()[0])


def cell(runs):
    return f"{statistics.median(runs):.0f} ({min(runs):.0f}-{max(runs):.0f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crumb", nargs="*", default=[], metavar="NAME=MODEL[,int8]")
    parser.add_argument("--peer", nargs="*", default=[], metavar="NAME=FILE.gguf")
    parser.add_argument("--program", default=ROOT / "build-no-torch/bin/crumb")
    parser.add_argument("--text", help="of the long prompt")
    parser.add_argument("--prompt-characters", type=int, default=2000)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return peer_child(args.child, args.threads, args.new)
    args.prompt = pathlib.Path(args.text).read_text(encoding="utf-8")[:args.prompt_characters] if args.text else SHORT * 100
    entries = [(measure, *entry.split("=", 1)) for measure, group in ((measure_crumb, args.crumb), (measure_peer, args.peer)) for entry in group]
    results = {name: [] for _, name, _ in entries}
    for _ in range(args.rounds):
        for measure, name, model in entries:
            results[name].append(measure(args, model))
    print(f"{args.threads} threads, {args.rounds} rounds, CRUMB_ISA={os.environ.get('CRUMB_ISA', '')}\n\n| | decode, tokens/s | prefill, tokens/s |\n|---|---|---|")
    for name, runs in results.items():
        print(f"| {name} | {cell([run['decode'] for run in runs])} | {cell([run['prefill'] for run in runs])} |")
    for built in {run["built"] for runs in results.values() for run in runs if "built" in run}:
        print(f"\nllama.cpp: {built}")


if __name__ == "__main__":
    main()
