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

def check(op, *args):
    """Schema, shapes alone, and that autograd is registered where it belongs."""
    torch.library.opcheck(op.default, args, test_utils=("test_schema", "test_faketensor", "test_autograd_registration"))


def same_gradients(op, plain, inputs, *rest):
    """Value and gradients in float32 beside automatic differentiation in float64."""
    fused, exact = [x.clone().requires_grad_() for x in inputs], [x.double().requires_grad_() for x in inputs]
    outs = op(*fused, *rest), plain(*exact)
    g = torch.randn(outs[0].shape)
    outs[0].backward(g)
    outs[1].backward(g.double())
    for a, b in zip([outs[0]] + [x.grad for x in fused], [outs[1]] + [x.grad for x in exact]):
        assert torch.allclose(a.double(), b, rtol=1e-4, atol=1e-5), op


x, other, weight = torch.randn(2, 5, 3, 9), torch.randn(2, 5, 3, 9), torch.randn(9)
angles = torch.randn(5, 4)
cos, sin = angles.cos(), angles.sin()
same_gradients(lambda a, b: ops.rms_norm(a, b, 1e-5, torch.float32), lambda a, b: a * (a.square().mean(-1, True) + 1e-5).rsqrt() * b, [x, weight])
same_gradients(ops.swiglu, lambda a, b: torch.nn.functional.silu(a) * b, [x, other])
turn = lambda a: torch.cat([a[..., :4] * cos[:, None] - a[..., 4:8] * sin[:, None], a[..., 4:8] * cos[:, None] + a[..., :4] * sin[:, None], a[..., 8:]], -1)
same_gradients(lambda a: ops.rope(a, cos, sin), turn, [x])
leaf = lambda t: t.clone().requires_grad_()
for dtype in (torch.float32, torch.bfloat16):
    check(ops.rms_norm, leaf(x), leaf(weight), 1e-5, dtype)
    check(ops.swiglu, leaf(x.to(dtype)), leaf(other.to(dtype)))
    check(ops.rope, leaf(x.to(dtype)), cos, sin)
check(ops.rms_norm_backward, other, x, weight, 1e-5, True)
check(ops.swiglu_backward, other, x, other)

hidden, head, teacher = torch.randn(11, 6), torch.randn(13, 6), (torch.randn(11, 4), torch.randn(13, 4))
targets, shares = torch.arange(11), torch.full((11,), 1 / 11)


def cross_entropy_and_kl(h, w):
    q = (h @ w.t()).log_softmax(-1)
    p = (teacher[0] @ teacher[1].t()).double().log_softmax(-1)
    return (0.3 * (p.exp() * (p - q)).sum(-1) - 0.7 * q.gather(1, targets[:, None]).squeeze(1)).mean()


weights = [0.3, 0.0, 0.0, 0.0, 0.7]
same_gradients(lambda h, w: ops.head_loss(h, w, *teacher, targets, shares, weights)[0], cross_entropy_and_kl, [hidden, head])
check(ops.head_loss, leaf(hidden), leaf(head), *teacher, targets, shares, [0.3, 0.2, 0.2, 0.1, 0.7], 1.5, 0.4, 4)
check(ops.head_scores, hidden, head, *teacher, targets)
check(ops.logit_scores, hidden @ head.t(), teacher[0] @ teacher[1].t(), targets)
check(ops.logit_loss_, hidden @ head.t(), teacher[0] @ teacher[1].t(), targets, shares, weights)

compiled = torch.library.opcheck(ops.seq_forward.default, (w.detach(), t.detach().exp(), 16), test_utils=("test_schema", "test_faketensor"))
print("ok", compiled)
