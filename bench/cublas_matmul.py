#!/usr/bin/env python3
"""bfloat16 products of cuBLAS through torch at the shapes of bench/cuda_matmul.cpp, timed as there: 16 products as one CUDA graph over copies of the
weights that together are twice the cache, the median of 11 runs. Prints rows, columns, tokens, microseconds.

    python3 bench/cublas_matmul.py
"""
import statistics

import torch

SHAPES = [(2048, 2048), (12288, 2048), (2048, 6144), (4096, 4096), (28672, 4096), (4096, 14336), (8192, 8192)]
TOKENS = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
NODES, RUNS = 16, 11


def median_us(x, copies):
    multiply = lambda i: torch.mm(x, copies[i % len(copies)].t())
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for i in range(3):
            multiply(i)
    side.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(NODES):
            multiply(i)
    times = []
    for run in range(RUNS + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if run >= 2:
            times.append(begin.elapsed_time(end) * 1000 / NODES)
    return statistics.median(times)


def main():
    properties = torch.cuda.get_device_properties(0)
    print(f"# {properties.name}, torch {torch.__version__}")
    print("rows\tcols\ttokens\tus")
    for rows, cols in SHAPES:
        count = min(16, max(2, 2 * properties.L2_cache_size // (2 * rows * cols) + 1))
        copies = [torch.randn(rows, cols, device="cuda", dtype=torch.bfloat16) * 0.02 for _ in range(count)]
        for tokens in TOKENS:
            x = torch.randn(tokens, cols, device="cuda", dtype=torch.bfloat16)
            print(f"{rows}\t{cols}\t{tokens}\t{median_us(x, copies):.2f}", flush=True)


if __name__ == "__main__":
    main()
