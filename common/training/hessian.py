"""The dominant eigenvalue of the Hessian of the validation loss with respect to alpha.

It rises before a search finds cells that generalise badly (Zela et al., *Understanding and
Robustifying Differentiable Architecture Search*, ICLR 2020, section 4).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from common.distributed import generator_of

Average = Callable[[Sequence[Tensor]], Sequence[Tensor]]
ITERATIONS, TOLERANCE = 50, 1e-3


@torch.enable_grad()
def dominant_eigenvalue(
    loss: Tensor, parameters: Sequence[nn.Parameter], seed: int, average: Average = list
) -> float:
    """The eigenvalue of largest magnitude of d^2 loss / d parameters^2, with its sign.

    Power iteration on Hessian-vector products H v = grad (grad loss . v). The magnitude is |H v| of
    a unit vector v; v' H v gives only the sign, as it lies anywhere between two eigenvalues of
    equal magnitude and opposite sign.

    Args:
        loss: a scalar, on this process' images.
        parameters: alpha; rows and columns of unused parameters are zero.
        seed: of the first v.
        average: averages over the processes.
    """
    gradients = torch.autograd.grad(
        loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True
    )
    curved = [k for k, gradient in enumerate(gradients) if gradient.requires_grad]
    if not curved:  # linear in alpha, or independent of it
        return 0.0
    generator = generator_of(seed, "eigenvector")
    v = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    eigenvalue, norm = 0.0, _norm(v)
    for _ in range(ITERATIONS):
        v = [part / norm for part in v]
        Hv = average(torch.autograd.grad(
            [gradients[k] for k in curved], parameters, [v[k] for k in curved],
            retain_graph=True, allow_unused=True, materialize_grads=True,
        ))  # fmt: skip
        sign = sum((a * b).sum() for a, b in zip(v, Hv, strict=True)).item()  # of v' H v
        v, norm = Hv, _norm(Hv)
        if not norm > 0:
            return 0.0
        last, eigenvalue = eigenvalue, math.copysign(norm, sign)
        if abs(eigenvalue - last) <= TOLERANCE * norm:
            break
    return eigenvalue


def _norm(parts: Sequence[Tensor]) -> float:
    return torch.stack([part.norm() for part in parts]).norm().item()
