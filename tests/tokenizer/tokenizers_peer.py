#!/usr/bin/env python3
"""Peer: what the `tokenizers` package makes of texts.

  tokenizers_peer.py encode TOKENIZER.json TEXTS.json     TEXTS.json: a list of texts as hex strings. Prints one line of ids for each.
  tokenizers_peer.py regex - PATTERNS.json                a list of {"pattern", "texts"} (texts as hex). For each pattern a line "ok" or "refused",
                                                          then, if ok, for each text a line: as hex, with every match replaced by U+0001.
  tokenizers_peer.py decode TOKENIZER.json IDS.json       a list of lists of ids. Prints the text of each as hex.
  tokenizers_peer.py hash TOKENIZER.json FILE...          for each file: number of ids and their hash, over the first 1,000,000 bytes.
  tokenizers_peer.py train OUT_DIR FILE...                trains a small BPE for each split below; OUT_DIR/NAME/tokenizer.json.
  tokenizers_peer.py golden DATA_DIR                      writes goldens/texts.txt: `hash` of every text for every vocabulary.

Bytes that are not valid UTF-8 become U+FFFD (errors="replace"). The hash is FNV-1a over ids, not bytes. No special tokens are added.
"""
import json, os, sys
from tokenizers import Regex, Tokenizer, __version__, decoders, models, normalizers, pre_tokenizers, trainers

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
          r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK_V3 = [r"\p{N}{1,3}", "[一-龥\u3040-ゟ゠-ヿ]+",
               r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""]
MARK = "\u2581"


def split(*patterns):
    return [pre_tokenizers.Split(Regex(p), "isolated") for p in patterns] + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def byte_level(steps, normalizer=None, ignore_merges=False):
    t = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    t.pre_tokenizer = pre_tokenizers.Sequence(steps)
    t.decoder = decoders.ByteLevel()
    if normalizer: t.normalizer = normalizer
    return t, pre_tokenizers.ByteLevel.alphabet()


def sentencepiece(normalizer, pre_tokenizer, decoder, **options):
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, **options))
    if normalizer: t.normalizer = normalizer
    if pre_tokenizer: t.pre_tokenizer = pre_tokenizer
    t.decoder = decoder
    return t, [MARK]


def families():
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False)
    metaspace_decoder = decoders.Sequence([decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    yield "llama3", byte_level(split(LLAMA3), ignore_merges=True)
    yield "qwen2", byte_level(split(QWEN2), normalizers.NFC())
    yield "hunyuan-dense", byte_level(split(*DEEPSEEK_V3))
    yield "smollm", byte_level([pre_tokenizers.Digits(individual_digits=True), gpt2])
    yield "cl100k", byte_level(split(CL100K), normalizers.NFKC())
    yield "prefix-space", byte_level([pre_tokenizers.ByteLevel(add_prefix_space=True)], normalizers.Lowercase())
    yield "mixed-splits", byte_level([pre_tokenizers.Punctuation("contiguous"), pre_tokenizers.Digits(individual_digits=False),
                                      pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.Split("e", "merged_with_previous"),
                                      pre_tokenizers.Split(Regex(r"\w+"), "removed", invert=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    yield "tekken", byte_level(split(TEKKEN), ignore_merges=True)
    yield "digits-from-the-end", byte_level(split(r"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)", r"\A\p{Nd}{3}", GPT2), normalizers.NFKD())
    yield "empty-matches", byte_level(split("(?=[aeiou])", r"\b"))
    yield "metaspace-first", sentencepiece(None, pre_tokenizers.Metaspace(MARK, "first", True), metaspace_decoder, byte_fallback=True)
    yield "metaspace-whole", sentencepiece(None, pre_tokenizers.Metaspace(MARK, "always", False), metaspace_decoder, byte_fallback=True)
    yield "unknown", sentencepiece(normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]), None, metaspace_decoder)


def train(out, files):
    texts = [read(f) for f in files]
    for name, (t, alphabet) in families():
        reserved = ["<unk>", "<s>", "</s>"]
        if name.startswith("metaspace"): reserved += [f"<0x{b:02X}>" for b in range(256)]
        # A split that leaves no spaces between words would make training of whole lines slow.
        pieces = [line for text in texts for line in text.splitlines(True)]
        kept = t.pre_tokenizer
        if name == "metaspace-whole": t.pre_tokenizer = pre_tokenizers.Metaspace(MARK, "always", True)
        if name == "unknown": t.pre_tokenizer = pre_tokenizers.Split(MARK, "merged_with_next")
        t.train_from_iterator(pieces, trainers.BpeTrainer(vocab_size=len(alphabet) + len(reserved) + 1000, initial_alphabet=alphabet, special_tokens=reserved,
                                                         limit_alphabet=len(alphabet) + 60, show_progress=False))
        config = json.loads(t.to_str())
        if name == "metaspace-whole": config["pre_tokenizer"] = json.loads(state_of(kept))
        if name == "unknown": config["pre_tokenizer"] = None
        # Bytes are part of the model, not added tokens.
        config["added_tokens"] = [a for a in config["added_tokens"] if not a["content"].startswith("<0x")]
        vocab = config["model"]["vocab"]
        for token in ADDED:  # the package numbers those outside the model's vocabulary in order
            vocab_id = vocab.get(token["content"], len(vocab) + sum(a["id"] >= len(vocab) for a in config["added_tokens"]))
            config["added_tokens"].append(added(vocab_id, **token))
        os.makedirs(os.path.join(out, name))
        with open(os.path.join(out, name, "tokenizer.json"), "w") as f: json.dump(config, f)
    print(__version__)


def state_of(pre_tokenizer):
    return pre_tokenizer.__getstate__().decode()


ADDED = [{"content": "<|im_start|>", "special": True}, {"content": "<|im_start|>x", "special": False}, {"content": " <mask>", "special": True, "lstrip": True},
         {"content": "[R]", "special": False, "rstrip": True}, {"content": "word", "special": False, "single_word": True},
         {"content": "Caf\u00e9", "special": False, "normalized": True}, {"content": "\u4f60\u597d", "special": False, "lstrip": True, "rstrip": True}]


def added(index, content, special, normalized=False, single_word=False, lstrip=False, rstrip=False):
    return {"id": index, "content": content, "special": special, "normalized": normalized, "single_word": single_word, "lstrip": lstrip, "rstrip": rstrip}


def regex(items):
    for item in items:
        try: replace = normalizers.Replace(Regex(item["pattern"]), "\x01")
        except Exception: print("refused"); continue
        print("ok")
        for text in item["texts"]: print(replace.normalize_str(bytes.fromhex(text).decode()).encode().hex())


def read(path, limit=-1):
    with open(path, "rb") as f: return f.read(limit).decode("utf-8", "replace")


def hash_of(ids):
    h = 0xcbf29ce484222325
    for i in ids: h = ((h ^ i) * 0x100000001b3) & 0xffffffffffffffff
    return f"{len(ids)} {h:016x}"


def hash_file(t, path):
    return hash_of(t.encode(read(path, 1_000_000), add_special_tokens=False).ids)


TEXTS = ["text/corpus/prose-test.txt", "text/corpus/prose-train.txt", "text/corpus/prose-valid.txt", "text/corpus/tech-test.txt",
         "text/corpus/tech-train.txt", "text/corpus/tech-valid.txt", "text/corpus/verse-test.txt", "text/corpus/verse-train.txt",
         "text/corpus/verse-valid.txt", "text/tinyshakespeare/input.txt", "text/tinystories-valid-sample/tinystories_valid_1911.txt",
         "text/wikitext-2-raw/wiki.test.raw", "text/wikitext-2-raw/wiki.valid.raw"]
VOCABULARIES = ["models/ref-llama-15m", "models/stories260K-hf", "models/tiny1m-hf", "tokenizers/gpt2-hf-json", "tokenizers/llama2-hf-json"]


def golden(data):
    lines = [f"# tokenizers_peer.py golden, tokenizers {__version__}: vocabulary, text (first 1,000,000 bytes), number of ids, hash"]
    for v in VOCABULARIES:
        t = Tokenizer.from_file(os.path.join(data, v, "tokenizer.json"))
        lines += [f"{v} {x} {hash_file(t, os.path.join(data, x))}" for x in TEXTS]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "goldens", "texts.txt"), "w") as f: f.write("\n".join(lines) + "\n")


def main():
    command, arguments = sys.argv[1], sys.argv[2:]
    if command == "train": return train(arguments[0], arguments[1:])
    if command == "golden": return golden(arguments[0])
    if command == "regex": return regex(json.load(open(arguments[1])))
    t = Tokenizer.from_file(arguments[0])
    if command == "hash": print("\n".join(hash_file(t, f) for f in arguments[1:]))
    if command == "encode":
        for text in json.load(open(arguments[1])):
            print(*t.encode(bytes.fromhex(text).decode("utf-8", "replace"), add_special_tokens=False).ids)
    if command == "decode":
        for ids in json.load(open(arguments[1])): print(t.decode(ids, skip_special_tokens=True).encode().hex())


if __name__ == "__main__":
    main()
