#!/usr/bin/env python3
"""What stock llama.cpp (the `xllamacpp` wheel) makes of GGUF files.

  python llama_cpp_peer.py JOBS.json RESULTS.json

JOBS: a list of {"model": FILE, "prompt": [ids], "tokens": n, "top": k, "texts": [strings], "ignore_eos": false}; RESULTS, one for each:
{"error": text} when the file is refused, else {"steps": [{"id", "top": [[id, log-probability], ...]}], "tokens": [[ids], ...]}.
Greedy; float32 keys and values.
"""
import json
import sys
import urllib.request

import xllamacpp as xl


def start(path, context):
    params = xl.CommonParams()
    params.model.path = path
    params.n_ctx, params.n_parallel, params.n_gpu_layers, params.warmup = context, 1, 0, False
    params.cpuparams.n_threads = 1  # more of them spin while they wait, which starves other work
    params.cache_type_k = params.cache_type_v = xl.ggml_type.GGML_TYPE_F32
    return xl.Server(params)


def post(server, route, body):
    request = urllib.request.Request(f"{server.listening_address}{route}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:  # a server that was seen to hang fails, and is started again
        return json.loads(response.read())


def run(job):
    try:
        server = start(job["model"], job.get("context", 128))
    except Exception as error:  # the reason is on stderr
        return {"error": str(error)}
    result = {"steps": [], "tokens": []}
    if job.get("prompt"):
        answer = server.handle_completions({"prompt": job["prompt"], "max_tokens": job["tokens"], "n_predict": job["tokens"],
                                            "temperature": 0.0, "n_probs": job["top"], "cache_prompt": False, "ignore_eos": job.get("ignore_eos", False)})
        for step in answer["choices"][0]["logprobs"]["content"]:
            result["steps"].append({"id": step["id"], "top": [[t["id"], t["logprob"]] for t in step["top_logprobs"]]})
    for text in job.get("texts", []):
        result["tokens"].append(post(server, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"])
    return result


def run_again(job):
    try:
        return run(job)
    except OSError:  # the time was up
        return run(job)


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        jobs = json.load(file)
    results = [run_again(job) for job in jobs]
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
