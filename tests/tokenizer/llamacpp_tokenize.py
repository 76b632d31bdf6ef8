#!/usr/bin/env python3
"""Peer: the ids that stock llama.cpp (the `xllamacpp` wheel) gives texts for a GGUF file (with weights).

  llamacpp_tokenize.py MODEL.gguf... TEXTS.json [--add-special] [--no-parse-special]

TEXTS.json: a list of texts as hex strings of UTF-8. Prints, for each model, one line of ids for each text. Exit code 1 where a file is refused.
"""
import argparse, json, sys, urllib.request
import xllamacpp as xl


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("models", nargs="+"); p.add_argument("texts")
    p.add_argument("--add-special", action="store_true"); p.add_argument("--no-parse-special", action="store_true")
    a = p.parse_args()
    for model in a.models: tokenize(model, a)


def tokenize(model, a):
    c = xl.CommonParams()
    c.model.path = model; c.n_ctx = 64; c.n_parallel = 1; c.n_gpu_layers = 0; c.cpuparams.n_threads = 1; c.warmup = False
    try:
        server = xl.Server(c)
    except Exception as e:  # the reason is on stderr
        print(e, file=sys.stderr)
        sys.exit(1)
    for text in json.load(open(a.texts)):
        body = {"content": bytes.fromhex(text).decode(), "add_special": a.add_special, "parse_special": not a.no_parse_special}
        request = urllib.request.Request(server.listening_address + "/tokenize", json.dumps(body).encode(), {"Content-Type": "application/json"})
        print(*json.load(urllib.request.urlopen(request))["tokens"])


if __name__ == "__main__":
    main()
