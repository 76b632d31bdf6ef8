"""Writes tests/runtime/goldens/NAME/{config.json, model.safetensors, golden.safetensors}.

Tiny models with random weights, one for every architecture and option, and the logits transformers computes for them in
float32 ("ids" I64 [n], "logits" F32 [n, vocab]). Weights are stored as 16-bit floats, so that nothing is lost on the way.
Made with transformers 5.23.0:   .venv-peers/bin/python tests/runtime/make_goldens.py
"""

import pathlib
import shutil

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, HunYuanDenseV1Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config

FOLDER = pathlib.Path(__file__).parent / "goldens"
TOKENS = 40
SHAPE = dict(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=None,
)

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}

# Wavelengths of the four pairs of a head of 8: 6, 63, 628, 6283, so llama3 keeps, blends and divides.
MODELS = {
    "llama": (LlamaConfig, dict(), torch.float16),
    "llama_tied": (LlamaConfig, dict(tie_word_embeddings=True, rms_norm_eps=1e-5), torch.float32),
    "llama_bias": (LlamaConfig, dict(attention_bias=True, mlp_bias=True), torch.bfloat16),
    "llama3": (LlamaConfig, dict(rope_parameters=LLAMA3, head_dim=8), torch.bfloat16),
    "llama_linear": (LlamaConfig, dict(rope_parameters={"rope_type": "linear", "rope_theta": 500.0, "factor": 2.5}), torch.bfloat16),
    "mistral": (MistralConfig, dict(sliding_window=7, head_dim=16), torch.bfloat16),
    "qwen2": (Qwen2Config, dict(tie_word_embeddings=True), torch.bfloat16),
    "qwen2_window": (
        Qwen2Config,
        dict(num_hidden_layers=3, use_sliding_window=True, sliding_window=5, max_window_layers=1),
        torch.bfloat16,
    ),
    "qwen3": (Qwen3Config, dict(head_dim=16, tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1e6}), torch.bfloat16),
    "qwen3_bias": (Qwen3Config, dict(head_dim=8, attention_bias=True), torch.bfloat16),
    "qwen3_window": (
        Qwen3Config,
        dict(head_dim=8, num_hidden_layers=3, use_sliding_window=True, sliding_window=5, max_window_layers=1),
        torch.bfloat16,
    ),
    "hunyuan": (
        HunYuanDenseV1Config,
        dict(head_dim=8, tie_word_embeddings=True, rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0}),
        torch.bfloat16,
    ),
    "hunyuan_untied": (HunYuanDenseV1Config, dict(head_dim=16, rms_norm_eps=1e-6), torch.bfloat16),
    "hunyuan_bias": (HunYuanDenseV1Config, dict(head_dim=8, attention_bias=True), torch.bfloat16),
}


def randomize(model, dtype, generator):
    """Weights large enough that attention, norms and biases all show in the logits."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:
            values = 1.0 + 0.3 * noise
        elif name.endswith("bias"):
            values = 0.3 * noise
        else:
            values = noise * 1.5 / parameter.shape[-1] ** 0.5
        parameter.data = values.to(dtype).to(torch.float32)


def make(name, config_class, options, dtype):
    generator = torch.Generator().manual_seed(sum(name.encode()))
    config = config_class(**{**SHAPE, **options})
    config._attn_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    randomize(model, dtype, generator)
    ids = torch.randint(0, SHAPE["vocab_size"], (TOKENS,), generator=generator)
    with torch.no_grad():
        logits = model(ids[None]).logits[0]
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    save_file({"ids": ids, "logits": logits.contiguous()}, folder / "golden.safetensors")
    print(f"{name:16s} logits in [{logits.min():.3f}, {logits.max():.3f}]")


def main():
    assert transformers.__version__ == "5.23.0", "the goldens are made with transformers 5.23.0"
    for name, (config_class, options, dtype) in MODELS.items():
        make(name, config_class, options, dtype)


if __name__ == "__main__":
    main()
