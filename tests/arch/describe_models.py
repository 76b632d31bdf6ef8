"""Prints, as JSON, what transformers makes of each folder's config.json: shapes of all weights, rotary
frequencies, and the window of each layer (0: none)."""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def describe(folder):
    with torch.device("cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return {"shapes": shapes, "inv_freq": model.model.rotary_emb.inv_freq.double().tolist(), "windows": windows(model.config)}


def windows(config):
    # Classes that know no types of layers have one window for all of them, or none.
    window = getattr(config, "sliding_window", None) or 0
    types = getattr(config, "layer_types", None) or ["sliding_attention"] * config.num_hidden_layers
    return [window if t == "sliding_attention" else 0 for t in types]


print(json.dumps([describe(folder) for folder in sys.argv[1:]]))
