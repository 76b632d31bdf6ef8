#!/usr/bin/env python3
"""Operators of a training step on a GPU: torch.ops.crumb beside the same in plain PyTorch, and a step's share of the memory's speed.

    bench/gpu_ops.py LIBCRUMB_OPS.SO [--out FOLDER]

Times are medians of events around 20 calls in a row, 15 rounds, both in turn; inputs of the small shapes lie in the
cache, whose speed may be above a copy's.
Bytes are what must move: each input read once, each output written once. Writes gpu_ops.md and gpu_ops.json to FOLDER.
"""
import argparse
import json
import statistics
import sys

import torch
import torch.nn.functional as F

parser = argparse.ArgumentParser()
parser.add_argument("library")
parser.add_argument("--out", default=".")
arguments = parser.parse_args()
torch.ops.load_library(arguments.library)
ops = torch.ops.crumb
device = torch.device("cuda")
bf16 = torch.bfloat16


def seconds(calls, rounds=15, repeats=20):
    """Medians of each call, in turn."""
    times = {name: [] for name in calls}
    for name, call in calls.items():
        for _ in range(3):
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
            begin.record()
            for _ in range(repeats):
                call()
            end.record()
            end.synchronize()
            times[name].append(begin.elapsed_time(end) / 1000 / repeats)
    return {name: statistics.median(values) for name, values in times.items()}


def peak(call):
    """Bytes allocated beyond what was there."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


rows = []


def row(name, calls, gigabytes=None, repeats=20):
    found = seconds(calls, repeats=repeats)
    memory = {key: peak(call) for key, call in calls.items()}
    line = {"operator": name, "crumb_us": found["crumb"] * 1e6, "torch_us": found["torch"] * 1e6,
            "crumb_bytes": memory["crumb"], "torch_bytes": memory["torch"]}
    if gigabytes is not None:
        line["share"] = gigabytes / found["crumb"] / copy_speed
    rows.append(line)
    print(line, flush=True)


source = torch.empty(1 << 28, device=device)
target = torch.empty_like(source)
copy_speed = 2 * source.nbytes / 1e9 / seconds({"copy": lambda: target.copy_(source)})["copy"]
del source, target
print(f"{torch.cuda.get_device_name()}: copies {copy_speed:.0f} GB/s read and written", flush=True)

# --- fake quantization of a matrix ------------------------------------------------------------------------------------
RANGE = 1.98


def rounded(scale):
    bits = scale.clamp(2.0**-17, 2.0**14).view(torch.int32)
    return ((bits + (1 << 17)) & ~((1 << 18) - 1)).view(torch.float32)


def torch_forward(w, s):
    s = rounded(s)
    return ((w > -s).float() + (w >= 0).float() + (w > s).float() - 1.5) * s


def torch_backward(w, s, g):
    s = rounded(s)
    level = torch_forward(w, s)
    inside = w.abs() <= RANGE * s
    return torch.where(inside, g, 0.0), (g * torch.where(inside, level - w, level)).sum(1, keepdim=True)


for n, k in ((1536, 576), (12288, 2048), (28672, 4096)):
    w, g = torch.randn(n, k, device=device), torch.randn(n, k, device=device)
    s = torch.full((n, 1), 0.7, device=device)
    assert torch.equal(ops.seq_forward(w, s, 0), torch_forward(w, s))
    ours, theirs = ops.seq_backward(w, s, g, 0, "zero"), torch_backward(w, s, g)
    assert torch.equal(ours[0], theirs[0]) and torch.allclose(ours[1], theirs[1], rtol=1e-4, atol=1e-2)
    row(f"SEQ fake quantization, forward, {n} x {k}",
        {"crumb": lambda: ops.seq_forward(w, s, 0), "torch": lambda: torch_forward(w, s)}, 2 * w.nbytes / 1e9)
    row(f"SEQ fake quantization, backward, {n} x {k}",
        {"crumb": lambda: ops.seq_backward(w, s, g, 0, "zero"), "torch": lambda: torch_backward(w, s, g)}, 3 * w.nbytes / 1e9)

# --- norm, rotation, gate of 16,384 tokens ------------------------------------------------------------------------------
tokens = 16384
for hidden, ffn, heads in ((576, 1536, 9), (2048, 6144, 16)):
    x, weight = torch.randn(tokens, hidden, device=device), torch.rand(hidden, device=device) + 0.5
    g = torch.randn(tokens, hidden, device=device, dtype=bf16)

    def torch_norm():
        return (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * weight).to(bf16)

    row(f"RMS norm to bf16, {tokens} x {hidden}",
        {"crumb": lambda: ops.rms_norm(x, weight, 1e-5, bf16), "torch": torch_norm}, (x.nbytes + g.nbytes) / 1e9)
    leaf, leaf_weight = x.clone().requires_grad_(), weight.clone().requires_grad_()
    taped = (leaf * torch.rsqrt(leaf.square().mean(-1, keepdim=True) + 1e-5) * leaf_weight).to(bf16)
    row(f"RMS norm backward, {tokens} x {hidden}",
        {"crumb": lambda: ops.rms_norm_backward(g, x, weight, 1e-5, True),
         "torch": lambda: torch.autograd.grad(taped, (leaf, leaf_weight), g, retain_graph=True)}, (2 * x.nbytes + g.nbytes) / 1e9)
    gate, up, d = (torch.randn(tokens, ffn, device=device, dtype=bf16) for _ in range(3))
    row(f"SwiGLU, {tokens} x {ffn}", {"crumb": lambda: ops.swiglu(gate, up), "torch": lambda: F.silu(gate) * up}, 3 * gate.nbytes / 1e9)
    leaves = [gate.clone().requires_grad_(), up.clone().requires_grad_()]
    product = F.silu(leaves[0]) * leaves[1]
    row(f"SwiGLU backward, {tokens} x {ffn}",
        {"crumb": lambda: ops.swiglu_backward(d, gate, up), "torch": lambda: torch.autograd.grad(product, leaves, d, retain_graph=True)},
        5 * gate.nbytes / 1e9)
    q = torch.randn(tokens // 512, 512, heads, hidden // heads, device=device, dtype=bf16)
    half = hidden // heads // 2
    cos, sin = torch.randn(512, half, device=device), torch.randn(512, half, device=device)

    def torch_rope():
        a, b = q[..., :half].float(), q[..., half:].float()
        c, s = cos[:, None], sin[:, None]
        return torch.cat((a * c - b * s, b * c + a * s), -1).to(bf16)

    row(f"RoPE, {tokens} x {heads} x {hidden // heads}", {"crumb": lambda: ops.rope(q, cos, sin, False), "torch": torch_rope}, 2 * q.nbytes / 1e9)

# --- optimizer ------------------------------------------------------------------------------------------------------------
w, g, m, v = (torch.rand(12288, 2048, device=device) for _ in range(4))
w.grad = g
adam = torch.optim.AdamW([torch.nn.Parameter(w.clone())], lr=1e-4, fused=True)
adam.param_groups[0]["params"][0].grad = g
row("AdamW, 12288 x 2048 (torch: its fused one)",
    {"crumb": lambda: ops.adamw_(w, g, m, v, None, 1.0, 0.9, 0.95, 1e-8, 0.0, 1e-4, 1.0), "torch": adam.step}, 7 * w.nbytes / 1e9)
del w, g, m, v, adam
torch.cuda.empty_cache()

# --- KL of hidden states through two heads, with gradient -------------------------------------------------------------------
for tokens, hidden, vocab in ((8192, 576, 49152), (8192, 2048, 128256)):
    h, taught = (torch.randn(tokens, hidden, device=device, dtype=bf16) for _ in range(2))
    head = torch.randn(vocab, hidden, device=device) * hidden**-0.5
    targets = torch.randint(vocab, (tokens,), device=device)
    h32 = h.float()

    def crumb_kl():
        leaf = h32.detach().requires_grad_()
        total, _ = ops.head_loss(leaf, head, taught.float(), head, targets, torch.ones(tokens, device=device), [1, 0, 0, 0, 0], 1.0, 0.5, 0, bf16)
        total.backward()
        return total.item() / tokens, leaf.grad

    def torch_kl():
        leaf = h.detach().requires_grad_()
        z = F.linear(leaf, head.to(bf16)).float()
        with torch.no_grad():
            t = F.linear(taught, head.to(bf16)).float()
        loss = F.kl_div(z.log_softmax(-1), t.log_softmax(-1), reduction="sum", log_target=True)
        loss.backward()
        return loss.item() / tokens, leaf.grad

    ours, theirs = crumb_kl(), torch_kl()
    cosine = F.cosine_similarity(ours[1].float().flatten(), theirs[1].float().flatten(), dim=0).item()
    print(f"KL {ours[0]:.5f} and {theirs[0]:.5f}, cosine of the gradients {cosine:.5f}", flush=True)
    assert abs(ours[0] - theirs[0]) < 0.01 * theirs[0] and cosine > 0.98
    row(f"KL of {tokens} tokens through a head of {vocab} x {hidden}, with gradient", {"crumb": crumb_kl, "torch": torch_kl}, repeats=2)

with open(f"{arguments.out}/gpu_ops.json", "w") as file:
    json.dump({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "copy_GB_s": copy_speed, "rows": rows}, file, indent=1)
with open(f"{arguments.out}/gpu_ops.md", "w") as file:
    file.write(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; a copy moves {copy_speed:.0f} GB/s, read and written.\n\n")
    file.write("| operator | Crumb, us | of the copy's speed | PyTorch, us | times as fast | extra memory, MB | PyTorch's |\n|---|---|---|---|---|---|---|\n")
    for r in rows:
        share = f"{100 * r['share']:.0f} %" if "share" in r else ""
        file.write(f"| {r['operator']} | {r['crumb_us']:.1f} | {share} | {r['torch_us']:.1f} | {r['torch_us'] / r['crumb_us']:.1f} | "
                   f"{r['crumb_bytes'] / 1e6:.0f} | {r['torch_bytes'] / 1e6:.0f} |\n")
sys.stdout.write(open(f"{arguments.out}/gpu_ops.md").read())
