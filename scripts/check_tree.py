#!/usr/bin/env python3
"""Rules of the tree that no compiler checks: file sizes, header guards, includes from the root, leftovers, scripts that parse."""
import ast
import pathlib
import re
import subprocess
import sys

MAX_FILE, MAX_ALL = 20_000_000, 60_000_000
LEFTOVERS = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
SOURCE = {".h", ".cpp", ".cu", ".cuh"}
TEXT = SOURCE | {".py", ".sh", ".md", ".txt", ".cmake", ".yaml"}


def check(path, problems):
    size = path.stat().st_size
    if size > MAX_FILE:
        problems.append(f"{path}: {size} bytes, more than {MAX_FILE}")
    if path.suffix not in TEXT:
        return
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".h" and "#pragma once" not in text:
        problems.append(f"{path}: no #pragma once")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}:{number}"
        if path.name != "check_tree.py" and LEFTOVERS.search(line):
            problems.append(f"{where}: leftover note")
        if path.suffix in SOURCE and re.match(r'\s*#\s*include\s+"(\.|[^/]+\.h")', line):
            problems.append(f"{where}: include from the root of the tree")
        if path.suffix in SOURCE and "\t" in line:
            problems.append(f"{where}: tab")
    if path.suffix == ".py":
        ast.parse(text, str(path))
    if path.suffix == ".sh":
        subprocess.run(["bash", "-n", path], check=True)


def main():
    files = [pathlib.Path(f) for f in subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True).stdout.split("\n") if f]
    files = [f for f in files if f.is_file()]
    problems = []
    for path in files:
        check(path, problems)
    total = sum(f.stat().st_size for f in files)
    if total > MAX_ALL:
        problems.append(f"the tree holds {total} bytes, more than {MAX_ALL}")
    print("\n".join(problems) or f"tree: {len(files)} files, {total} bytes ok")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
