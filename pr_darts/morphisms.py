"""The six morphisms of a convolution (III-B) and their limits (Table II).

A convolution is an `Op("sep_conv", kernel, dilation, expansions)`: one separable unit more than
expansions, all with the same kernel and dilation. Its weights: `inherit.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from common.errors import InputError
from common.networks.genotype import OWN_OPS, Op
from common.networks.ops import POOLS, SEPARABLE

WITHOUT_PARAMETERS = (*POOLS, "skip_connect")


@dataclass(frozen=True)
class Space:
    """A row of Table II; None: no limit."""

    kernel_min: int
    kernel_max: int = 7
    dilation_max: int = 2
    depth_max: int | None = None  # number of expansions
    width_max: int | None = None  # of an expansion, as a multiple of the channels

    def holds(self, op: Op) -> bool:
        """Whether a convolution is within the limits; a 1x1 kernel cannot be dilated."""
        return (
            self.kernel_min <= op.kernel <= self.kernel_max
            and 1 <= op.dilation <= self.dilation_max
            and not (op.kernel == 1 and op.dilation > 1)
            and (self.depth_max is None or len(op.expansions) <= self.depth_max)
            and (self.width_max is None or max(op.expansions, default=0) <= self.width_max)
        )


SPACES = {
    "dl": Space(kernel_min=3, depth_max=1, width_max=1),  # DARTS-like
    "dr": Space(kernel_min=1, depth_max=1, width_max=5),  # depth-restricted
    "ur": Space(kernel_min=1),  # unrestricted
}


def is_convolution(op: Op) -> bool:
    """Whether an operation can be morphed; poolings, the identity and a user's cannot."""
    return op.kernel is not None


def morphisms(op: Op, space: Space) -> list[Op]:
    """All morphisms of a convolution within a space; none for other operations."""
    return [child for child in _six(op) if space.holds(child)] if is_convolution(op) else []


def _six(op: Op) -> Iterator[Op]:
    """III-B, numbered as there; all kernels of a candidate change together."""
    yield replace(op, kernel=op.kernel + 2)  # 1. increase the kernel size
    if op.expansions:  # 2. widen the smallest expansion, the first of equals
        at = op.expansions.index(min(op.expansions))
        wider = (*op.expansions[:at], op.expansions[at] + 1, *op.expansions[at + 1 :])
        yield replace(op, expansions=wider)
    yield replace(op, expansions=(*op.expansions, 1))  # 3. insert a layer at the back
    yield replace(op, kernel=op.kernel - 2)  # 4. decrease the kernel size
    yield replace(op, dilation=op.dilation + 1)  # 5. increase the dilation
    yield replace(op, dilation=op.dilation - 1)  # 6. decrease the dilation


def reachable(first: Sequence[Op], space: Space, steps: int) -> set[Op]:
    """The first operations and all within that many morphisms of them."""
    found = edge = set(first)
    for _ in range(steps):
        edge = {child for op in edge for child in morphisms(op, space)} - found
        found = found | edge
    return found


def candidate(name: str) -> Op:
    """Parse an operation of `--candidates`: as a genotype prints it, or by its name in DARTS.

    Raises:
        InputError: unknown operation.
    """
    printed = re.fullmatch(r"sep_conv_(\d+)x\1\(dilation (\d+), \[((?:\d+(?:,\d+)*)?)\]\)", name)
    if printed:
        widths = tuple(int(width) for width in printed[3].split(",") if width)
        op = Op("sep_conv", int(printed[1]), int(printed[2]), widths)
        if op.kernel % 2 and op.dilation and all(widths):
            return op
    if name in SEPARABLE:
        return Op("sep_conv", *SEPARABLE[name])
    if name in (*WITHOUT_PARAMETERS, *OWN_OPS):
        return Op(name)
    known = ", ".join((*WITHOUT_PARAMETERS, *SEPARABLE, *OWN_OPS))
    raise InputError(
        f"--candidates {name}: unknown operation; known: {known}, and any separable convolution "
        "of odd kernel as 'sep_conv_3x3(dilation 1, [2,1])', its inner widths in brackets"
    )
