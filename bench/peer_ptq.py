#!/usr/bin/env python3
"""A peer's post-training quantization of an HF folder on this CPU, on the windows that `crumb quantize` looks at; the result is a float32 HF
folder for `crumb eval`.

  python bench/peer_ptq.py llmcompressor|autoround MODEL OUT --calibration TEXT [--method gptq|rtn] [--bits 4] [--group-size 32] [--asymmetric]
                           [--tokens 16384] [--threads 2] [--iterations 200]

Needs a virtual environment of its own with torch 2.11 and llmcompressor, or auto-round. Windows of 512 tokens, documents (cut at --separator) followed
by EOS, spread evenly over the text as `crumb quantize` spreads them. Prints one JSON object: seconds of the quantization itself (the
model is loaded before), versions, peak memory.
"""
import argparse
import importlib.metadata
import json
import resource
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

LENGTH = 512


def windows(tokenizer, path, separator, tokens):
    ids = []
    for document in open(path, encoding="utf-8").read().split(separator):
        ids += tokenizer(document, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    there, wanted = len(ids) // LENGTH, tokens // LENGTH
    return [ids[w * LENGTH:(w + 1) * LENGTH] for w in (there * i // wanted for i in range(wanted))]


def llmcompressor(model, tokenizer, data, a):
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier
    weights = QuantizationArgs(num_bits=a.bits, type="int", symmetric=not a.asymmetric, strategy="group" if a.group_size else "channel",
                               group_size=a.group_size or None, **({"observer": "mse"} if a.method == "rtn" else {}))
    make = GPTQModifier if a.method == "gptq" else QuantizationModifier
    recipe = make(config_groups={"all": QuantizationScheme(targets=a.targets, weights=weights)}, ignore=["lm_head"])
    dataset = Dataset.from_dict({"input_ids": data, "attention_mask": [[1] * LENGTH] * len(data)})
    begin = time.time()
    oneshot(model=model, dataset=dataset, recipe=recipe, max_seq_length=LENGTH, num_calibration_samples=len(data))
    seconds = time.time() - begin
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    for _, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None and scheme.weights is not None:
            module.weight.data = fake_quantize(module.weight.data, module.weight_scale, getattr(module, "weight_zero_point", None), scheme.weights,
                                               getattr(module, "weight_g_idx", None))
            module.quantization_scheme = None
    return model, seconds


def autoround(model, tokenizer, data, a):
    from auto_round import AutoRound
    rounding = AutoRound(model, tokenizer, bits=a.bits, group_size=a.group_size or -1, sym=not a.asymmetric, iters=a.iterations, seqlen=LENGTH,
                         nsamples=len(data), dataset=[{"input_ids": torch.tensor([w])} for w in data], device_map="cpu", batch_size=8,
                         amp=False, enable_torch_compile=False)
    begin = time.time()
    quantized, _ = rounding.quantize()
    return quantized, time.time() - begin


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("peer", choices=["llmcompressor", "autoround"])
    p.add_argument("model")
    p.add_argument("out")
    p.add_argument("--calibration", required=True)
    p.add_argument("--separator", default="\n\x1e\n")
    p.add_argument("--method", choices=["gptq", "rtn"], default="gptq")
    p.add_argument("--bits", type=int, default=4)
    p.add_argument("--group-size", type=int, default=32)
    p.add_argument("--asymmetric", action="store_true")
    p.add_argument("--targets", nargs="+", default=["Linear"], help="llmcompressor: names (re:.*down_proj) or classes of what is quantized")
    p.add_argument("--tokens", type=int, default=16384)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--iterations", type=int, default=200)
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    tokenizer = AutoTokenizer.from_pretrained(a.model)
    model = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    data = windows(tokenizer, a.calibration, a.separator, a.tokens)
    model, seconds = {"llmcompressor": llmcompressor, "autoround": autoround}[a.peer](model, tokenizer, data, a)
    state = {name: value.contiguous() for name, value in model.state_dict().items() if not name.split(".")[-1].startswith(("weight_", "input_", "output_"))}
    plain = AutoModelForCausalLM.from_pretrained(a.model, dtype=torch.float32)
    missing = set(plain.load_state_dict(state, strict=False).missing_keys) - {"lm_head.weight"}
    if missing:
        raise SystemExit(f"the quantized model lacks {sorted(missing)[:3]}")
    plain.save_pretrained(a.out)
    tokenizer.save_pretrained(a.out)
    package = {"llmcompressor": "llmcompressor", "autoround": "auto-round"}[a.peer]
    print(json.dumps({"peer": package, "version": importlib.metadata.version(package), "torch": torch.__version__, "method": a.method, "seconds": round(seconds, 1),
                      "threads": a.threads, "tokens": len(data) * LENGTH, "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}))


if __name__ == "__main__":
    main()
