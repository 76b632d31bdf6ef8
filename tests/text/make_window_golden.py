#!/usr/bin/env python3
"""Writes window_golden.txt: which windows numpy picks. One line: total, wanted, then the indices.

  python tests/text/make_window_golden.py > tests/text/window_golden.txt      (numpy 2)
"""
import numpy as np

CASES = [(1, 1), (1, 5), (2, 1), (2, 2), (3, 2), (5, 4), (7, 7), (7, 100), (10, 3), (10, 9), (96, 96), (97, 96), (100, 7), (191, 96),
         (1000, 8), (1023, 10), (1297, 96), (1343, 96), (4999, 50), (65537, 12), (1000003, 9)]
for total, wanted in CASES:
    picks = np.unique(np.linspace(0, total - 1, min(wanted, total)).astype(int))
    print(total, wanted, *picks)
