"""Prints, as JSON, what transformers makes of each folder's config.json: shapes of all weights and rotary frequencies."""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM


def describe(folder):
    with torch.device("cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    shapes = {name: list(parameter.shape) for name, parameter in model.named_parameters()}
    return {"shapes": shapes, "inv_freq": model.model.rotary_emb.inv_freq.double().tolist()}


print(json.dumps([describe(folder) for folder in sys.argv[1:]]))
