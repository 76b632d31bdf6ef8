#!/usr/bin/env python3
"""Anonymous memory of `crumb export` on a checkpoint of 1.8 billion parameters (make_large_checkpoint.py): must stay below 300 MB.

  python tests/export/memory_test.py build/bin/crumb [--to gguf-q2_0c] [--layers 32]

Polls RssAnon in /proc (mapped files do not count) and prints one JSON object; exit code 1 when it is too large. Needs numpy and about 1.2 GB in
the temporary folder; takes a minute.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

LIMIT = 300_000_000


def rss_anon(pid):
    try:
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return 0


def watch(command):
    begin, peak = time.time(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    while process.poll() is None:
        peak = max(peak, rss_anon(process.pid))
        time.sleep(0.005)
    return process, peak, time.time() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("crumb")
    parser.add_argument("--to", default="gguf-q2_0c")
    parser.add_argument("--layers", default="32")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        maker = pathlib.Path(__file__).with_name("make_large_checkpoint.py")
        subprocess.run([sys.executable, maker, f"{folder}/model", "--layers", args.layers], check=True)
        process, peak, seconds = watch([args.crumb, "export", f"{folder}/model", "--to", args.to, "-o", f"{folder}/out", "--json"])
        if process.returncode != 0:
            sys.exit(f"crumb export failed with {process.returncode}")
        result = json.loads(process.stdout.read())
    print(json.dumps({"peak_rss_anon": peak, "seconds": round(seconds, 1), "data_bytes": result["data_bytes"],
                      "file_bytes": result["file_bytes"]}))
    sys.exit(peak > LIMIT)


if __name__ == "__main__":
    main()
