#!/usr/bin/env python3
"""One Markdown table out of several `crumb eval --json` reports: what each file lost against the baseline they share.

  scripts/drop_table.py REPORT.json ... [--below REFERENCE NAME ...]

Rows in the order given; with NAME=REPORT.json the row is called NAME. Ends with exit code 1 if the KL of a NAME is not below that of
REFERENCE.
"""
import argparse
import json
import pathlib
import sys


def cell(estimate, digits):
    error = estimate["standard_error"]
    return f"{estimate['value']:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")


def percent(estimate, sign):
    error = estimate["standard_error"]
    return f"{100 * estimate['value']:{sign}.1f} %" + (f" ± {100 * error:.1f}" if error is not None else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+")
    parser.add_argument("--below", nargs="+", default=[])
    args = parser.parse_args()
    rows, first, kl = [], None, {}
    for argument in args.reports:
        name, _, path = argument.rpartition("=")
        report = json.loads(pathlib.Path(path).read_text())
        pooled, model = report["pooled"], report["model"]
        if first is None:
            first = report
        elif report["protocol"] != first["protocol"] or report["baseline"]["path"] != first["baseline"]["path"]:
            sys.exit(f"{path}: another protocol or baseline than {args.reports[0]}; such numbers do not belong in one table")
        name = name or pathlib.Path(model["path"]).name
        kl[name] = pooled["kl"]["value"]
        rows.append((name, f"{model['file_bytes'] / 1e6:.2f} MB",
                     f"{model['bits_per_weight']:.2f}", f"{model['bits_per_weight_without_embeddings']:.2f}",
                     cell(pooled["perplexity"], 2), percent(pooled["perplexity_change"], "+"), cell(pooled["kl"], 4), percent(pooled["top1"], "")))
    base, protocol = first["baseline"], first["protocol"]
    rows.insert(0, ("baseline " + pathlib.Path(base["path"]).name, f"{base['file_bytes'] / 1e6:.2f} MB", f"{base['bits_per_weight']:.2f}",
                    f"{base['bits_per_weight_without_embeddings']:.2f}", cell(first["pooled"]["baseline_perplexity"], 2), "", "", ""))
    head = ("model", "size", "bits/weight", "without embeddings", "perplexity", "change", "KL, nats/token", "top-1 agreement")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    line = lambda row: "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |"
    print(line(head))
    print("|" + "|".join("-" * (w + 2) for w in widths) + "|")
    for row in rows:
        print(line(row))
    print(f"\n{protocol['scored_tokens']} tokens in {protocol['windows']} windows of {protocol['context']}; ± one standard error, windows as clusters")
    missed = [f"{name}: KL {kl[name]:.4f}, not below the {kl[args.below[0]]:.4f} of {args.below[0]}"
              for name in args.below[1:] if not kl[name] < kl[args.below[0]]]
    sys.exit("\n".join(missed) or 0)


if __name__ == "__main__":
    main()
