#!/usr/bin/env python3
"""Fails if a file includes a folder that its own folder may not depend on.

  scripts/check_layers.py [ROOT]

Reads ROOT/cmake/layers.txt: lines "FOLDER: ALLOWED ..." where the longest folder that is a prefix of a file's path decides, an allowed
entry is a folder with all below it or a single header, and "torch" allows Torch's headers. Sources in a folder without a rule, and
quoted includes of one, are errors; tests/, bench/ and examples/ may use everything and be used by nothing.
"""
import pathlib
import re
import subprocess
import sys

TORCH = re.compile(r"^(torch|ATen|c10|caffe2)/")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
USERS = {"tests", "bench", "examples"}


def read_rules(path):
    rules = {}
    for line in path.read_text().splitlines():
        folder, _, allowed = line.split("#")[0].partition(":")
        if folder.strip():
            rules[folder.strip()] = allowed.split()
    return rules


def covers(entry, path):
    return path == entry or path.startswith(entry + "/")


def folder_of(path, rules):
    return max((f for f in rules if covers(f, path)), key=len, default=None)


def check_file(root, name, rules):
    folder = folder_of(name, rules)
    for number, line in enumerate((root / name).read_text().splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        included = match[2]
        if TORCH.match(included):
            if "torch" not in rules[folder]:
                yield f"{name}:{number}: {folder}/ may not include Torch (cmake/layers.txt)"
        else:
            target = folder_of(included, rules)
            if target is None and match[1] == '"':
                yield f"{name}:{number}: {included} lies in no folder of cmake/layers.txt"
            if target is None or target == folder:
                continue
            # kernels/torch is below kernels/ as a path, not as a layer: "kernels" alone does not allow it, save where Torch is allowed.
            allowed = any(covers(entry, included) for entry in rules[folder])
            if allowed and target == "kernels/torch" and "torch" not in rules[folder]:
                allowed = False
            if not allowed:
                yield f"{name}:{number}: {folder}/ may not include {included} (cmake/layers.txt)"


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    rules = read_rules(root / "cmake/layers.txt")
    files = [p.relative_to(root).as_posix() for suffix in ("h", "cpp", "cu", "cuh") for f in {r.split("/")[0] for r in rules}
             for p in sorted((root / f).rglob(f"*.{suffix}"))]
    problems = [problem for name in files for problem in check_file(root, name, rules)]
    tracked = subprocess.run(["git", "-C", root, "ls-files"], check=True, capture_output=True, text=True).stdout.splitlines()
    problems += [f"{name}: no rule for its folder in cmake/layers.txt" for name in tracked
                 if name.endswith((".h", ".cpp", ".cu", ".cuh")) and name.split("/")[0] not in USERS and folder_of(name, rules) is None]
    print("\n".join(problems) or f"layers: {len(files)} files ok")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
