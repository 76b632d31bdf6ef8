"""Forward and backward of the same model with PyTorch and transformers: what train_step_throughput is compared with.

throughput_peer.py MODEL [ce|kl] [steps] [windows] [tokens] [float32|bfloat16]
"""

import json
import resource
import sys
import time

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM


def step(student, teacher, windows, tokens):
    ids = torch.randint(student.config.vocab_size, (windows, tokens + 1))
    logits = student(ids[:, :-1]).logits.float()
    if teacher is None:
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1))
    else:
        with torch.no_grad():
            target = F.log_softmax(teacher(ids[:, :-1]).logits.float(), -1)
        loss = (target.exp() * (target - F.log_softmax(logits, -1))).sum(-1).mean()
    loss.backward()
    student.zero_grad(set_to_none=True)


def main():
    defaults = ["", "kl", "10", "8", "512", "float32"]
    arguments = sys.argv[1:] + defaults[len(sys.argv) - 1 :]
    model, loss, compute = arguments[0], arguments[1], arguments[5]
    steps, windows, tokens = map(int, arguments[2:5])
    load = lambda: AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, compute))
    student, teacher = load(), load() if loss == "kl" else None
    for _ in range(2):
        step(student, teacher, windows, tokens)
    start, cpu_start = time.time(), time.process_time()
    for _ in range(steps):
        step(student, teacher, windows, tokens)
    count = steps * windows * tokens
    rate, cpu = count / (time.time() - start), 1e3 * (time.process_time() - cpu_start) / count
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    result = dict(loss=loss, compute=compute, threads=torch.get_num_threads(), tokens_per_s=round(rate))
    print(json.dumps(dict(result, cpu_ms_per_token=round(cpu, 3), peak_rss_mb=memory)))


if __name__ == "__main__":
    main()
