#!/usr/bin/env python3
"""General English for training, from corpora of NLTK: news, reviews, essays, fiction, speeches, web text; about 20 MB.

    scripts/general_text.py REPOSITORY OUT.txt

REPOSITORY: a clone of nltk/nltk_data (a bare one, too). Documents are separated by the lines "", U+001E. Words of Brown's corpus, which is stored as
WORD/TAG, are put together again, quotes and blanks before punctuation as text has them.
"""
import io
import re
import subprocess
import sys
import zipfile

CORPORA = ["brown", "movie_reviews", "abc", "state_union", "webtext", "inaugural", "treebank", "genesis"]
SEPARATOR = "\n\x1e\n"


def detokenized(text):
    text = re.sub(r" ?`` ?", ' "', text)
    text = re.sub(r" ?'' ?", '" ', text)
    text = re.sub(r" ([,.;:?!)])", r"\1", text)
    return re.sub(r"([(]) ", r"\1", text)


def untagged(text):
    lines = (detokenized(" ".join(word.rsplit("/", 1)[0] for word in line.split())) for line in text.splitlines())
    return "\n".join(line for line in lines if line)


def documents(name, archive):
    for path in sorted(archive.namelist()):
        file = path.rsplit("/", 1)[-1]
        if path.endswith("/") or file.startswith((".", "README", "CONTENTS", "cats", "CATEGORIES")):
            continue
        is_text = {"brown": re.fullmatch(r"c[a-r]\d\d", file), "treebank": "/raw/" in path, "genesis": file.startswith("english")}
        if not is_text.get(name, file.endswith(".txt")):
            continue
        text = archive.read(path).decode("utf-8", "replace").replace("\r", "").replace("\x1e", "")
        if name == "brown":
            text = untagged(text)
        if name == "treebank":
            text = text.replace(".START", "").strip()
        if name == "movie_reviews":
            text = detokenized(text)
        # Long files are many texts: articles of abc and webtext stand in paragraphs.
        size = 20000
        while text.strip():
            end = len(text) if len(text) <= 2 * size else (text.find("\n\n", size) + 1 or text.find("\n", size) + 1 or len(text))
            yield text[:end].strip()
            text = text[end:]


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    count = 0
    with open(sys.argv[2], "w", encoding="utf-8") as out:
        for name in CORPORA:
            data = subprocess.run(["git", "-C", sys.argv[1], "show", f"HEAD:packages/corpora/{name}.zip"], capture_output=True, check=True).stdout
            size = 0
            for text in documents(name, zipfile.ZipFile(io.BytesIO(data))):
                out.write((SEPARATOR if count else "") + text)
                count += 1
                size += len(text)
            print(f"{name}: {size:,} characters", file=sys.stderr)


main()
