"""DARTS' second-order architecture gradient (Liu et al., ICLR 2019, section 2.3, Eq. 6 to 8).

It evaluates the architecture one weight step ahead, w'(alpha) = w - xi grad_w L_train(w, alpha):

    d/d alpha L_val(w'(alpha), alpha)  =  grad_alpha L_val(w', alpha)
                                        - xi  d^2 L_train / (d alpha d w)  v,   v = grad_w' L_val

A finite difference of two gradients gives the product with the second derivative (Eq. 8).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# parameters -> the gradients of a loss, averaged over the processes
Gradients = Callable[[Sequence[nn.Parameter]], Sequence[Tensor]]

PERTURBATION = 0.01  # epsilon = 0.01 / ||v||, so the weights move by 0.01 in norm


@torch.no_grad()
def second_order(
    train: Gradients,
    valid: Gradients,
    weights: Sequence[nn.Parameter],
    arch: Sequence[nn.Parameter],
    sgd: torch.optim.SGD,
) -> list[Tensor]:
    """d/d alpha L_val(w'(alpha), alpha); restores the weights exactly.

    Args:
        train: gradients of L_train, of the step to w'.
        valid: gradients of L_val, which evaluates w'.
        weights: w.
        arch: alpha.
        sgd: the weights' optimizer; its learning rate is xi. As in the authors' code, the step to
            w' includes momentum and decay, which do not depend on alpha, but no clipping.
    """
    group = sgd.param_groups[0]
    xi, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
    kept = [w.clone() for w in weights]

    for w, gradient in zip(weights, train(weights), strict=True):
        velocity = sgd.state[w]["momentum_buffer"]
        w.sub_(momentum * velocity + gradient + decay * w, alpha=xi)  # w'
    both = valid([*weights, *arch])
    v, direct = both[: len(weights)], both[len(weights) :]  # grad_w' L_val, grad_alpha L_val

    epsilon = PERTURBATION / torch.stack([part.norm() for part in v]).norm()

    def alpha_gradient(sign: int) -> Sequence[Tensor]:
        """grad_alpha L_train(w + sign epsilon v, alpha)."""
        for w, was, part in zip(weights, kept, v, strict=True):
            w.copy_(was + sign * epsilon * part)
        return train(arch)

    up, down = alpha_gradient(+1), alpha_gradient(-1)
    for w, was in zip(weights, kept, strict=True):
        w.copy_(was)
    return [d - xi * (p - m) / (2 * epsilon) for d, p, m in zip(direct, up, down, strict=True)]
