"""Loads libcrumb_ops.so into Python's Torch and checks torch.ops.crumb.* against automatic differentiation of the definition.

  python ops_from_python.py LIBRARY
"""
import sys

import torch

torch.ops.load_library(sys.argv[1])
torch.manual_seed(0)
ops = torch.ops.crumb
w = torch.randn(6, 64, requires_grad=True)
t = (0.3 * torch.randn(6, 4)).requires_grad_()
g = torch.randn(6, 64)

y = ops.seq_fake_quantize(w, t, 16, "zero")
y.backward(g)

codes = ops.seq_codes(w.detach(), t.detach().exp(), 16)
assert codes.dtype == torch.uint8 and codes.shape == w.shape
levels = y.detach().reshape(6, 4, 16) / (codes.float().reshape(6, 4, 16) - 1.5)
scale = levels[:, :, :1]
assert torch.equal(levels, scale.expand_as(levels)), "one scale a group"
assert ((scale.squeeze(2) / t.detach().exp() - 1).abs() <= 1 / 63).all(), "s is exp(t) rounded to 6 bits"

w2 = w.detach().double().requires_grad_()
t2 = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
s = scale.double() * t2.exp().unsqueeze(2)
v = (w2.reshape(6, 4, 16) / s).clamp(-1.98, 1.98)
q = v + ((v * 1 - 0.5).round().clamp(-2, 1) + 0.5 - v).detach()
(q * s).reshape(6, 64).backward(g.double())
assert torch.allclose(w.grad.double(), w2.grad, atol=1e-12)
assert torch.allclose(t.grad.double(), t2.grad, atol=1e-4)

compiled = torch.library.opcheck(ops.seq_forward.default, (w.detach(), t.detach().exp(), 16), test_utils=("test_schema", "test_faketensor"))
print("ok", compiled)
