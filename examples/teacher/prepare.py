#!/usr/bin/env python3
"""Makes what the bundled teacher was trained from: the permissive part of a technical corpus, and a byte-level BPE of 2,048 tokens.

  python examples/teacher/prepare.py --corpus tech-train.txt tech-valid.txt --out DIR

The corpus files hold documents separated by a line with U+001E. Documents of the book Pro Git (CC BY-NC-SA) are left out, so that the
weights carry no such terms; they are recognised by their AsciiDoc markup: lines beginning with "=== ",
with "[[", with "(((", with "[source," or with "[preface]".
Writes DIR/train.txt, DIR/valid.txt and DIR/model/{config.json,generation_config.json,tokenizer.json,tokenizer_config.json}.
"""
import argparse
import json
import pathlib
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SEPARATOR = "\n\x1e\n"
ASCIIDOC = re.compile(r"^(=== |\[\[|\(\(\(|\[source,|\[preface\])", re.MULTILINE)
# The Llama-3 split.
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
END = "<|endoftext|>"


def permissive(path):
    documents = path.read_text(encoding="utf-8").split(SEPARATOR)
    kept = [d for d in documents if d.strip() and not ASCIIDOC.search(d)]
    print(f"{path.name}: kept {len(kept)} of {len(documents)} documents, {sum(map(len, kept))} characters")
    return kept


def train_tokenizer(documents, vocab_size):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(documents, trainer)
    assert tokenizer.get_vocab_size() == vocab_size
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs=2, type=pathlib.Path, required=True, metavar=("TRAIN", "VALID"))
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--vocab-size", type=int, default=2048)
    args = parser.parse_args()
    model = args.out / "model"
    model.mkdir(parents=True, exist_ok=True)
    train, valid = (permissive(p) for p in args.corpus)
    (args.out / "train.txt").write_text(SEPARATOR.join(train), encoding="utf-8")
    (args.out / "valid.txt").write_text(SEPARATOR.join(valid), encoding="utf-8")
    train_tokenizer(train, args.vocab_size).save(str(model / "tokenizer.json"))
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": args.vocab_size, "hidden_size": 512,
        "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": False,
        "mlp_bias": False, "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"}
    (model / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (model / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0}, indent=2) + "\n")
    (model / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END, "model_max_length": 512,
        "clean_up_tokenization_spaces": False, "add_bos_token": False}, indent=2) + "\n")


if __name__ == "__main__":
    main()
