"""GDAS' supernet: draws and runs one operation per edge, differentiably (Eq. 3 to 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from common.networks.genotype import Cell, FixedCell
from common.networks.macro import Place
from common.networks.network import FixedReductionCell
from common.supernet.gumbel import gumbel
from common.supernet.sampled import Sample, SampledSuperNet
from common.supernet.to_cpu import read

FIXED = FixedCell("gdas_frc")


class GDASSuperNet(SampledSuperNet):
    """A supernet that runs one sub-graph per pass, drawn from softmax(A).

    Args:
        reduction: "searched": both kinds of cell; "fixed": GDAS (FRC), only the normal cell,
            with the reduction cell of Fig. 3.
        draw: "cell": every cell draws for itself (3.2); "kind": cells of a kind share one draw.
        **shape: see `SuperNet`.
    """

    def __init__(self, reduction: str = "searched", draw: str = "cell", **shape: int):
        self.fixed, self.draw = reduction == "fixed", draw
        if self.fixed:
            self.kinds = ("normal",)
        super().__init__(**shape)

    def concatenated(self) -> dict[str, int]:
        """The fixed cell concatenates four branches, whatever the number of nodes."""
        return {**super().concatenated(), **({"reduction": 4} if self.fixed else {})}

    def make_cell(self, place: Place) -> nn.Module:
        """A sampled cell or the fixed reduction cell (3.3), whose extra input ReLU is harmless."""
        if self.fixed and place.reduction:
            return FixedReductionCell(place)
        return super().make_cell(place)

    def mixes(
        self, generator: torch.Generator | None = None, tau: float = 10.0
    ) -> list[Sample | None]:
        """Draw one operation per edge, h of Eq. 6; only it runs in Eq. 5.

        The noise and h are drawn on the CPU. Copying log Pr there is the pass' only wait for the
        device.

        Args:
            generator: of the noise; None: torch's own.
            tau: the softmax temperature of Eq. 7, above 0.

        Returns:
            One sample per cell; None for fixed cells.
        """
        log_pr = {kind: self.arch[f"alpha_{kind}"].log_softmax(-1) for kind in self.kinds}  # Eq. 4
        known = read(torch.stack(list(log_pr.values())))
        on_cpu = dict(zip(log_pr, known.double(), strict=True))

        def draw(kind: str) -> Sample:
            o = gumbel(*on_cpu[kind].shape, generator=generator)
            h = (on_cpu[kind] + o).argmax(-1)  # Eq. 6; A and log Pr differ by a constant
            return Sample(h[:, None].tolist(), straight_through(log_pr[kind], o, h, tau))

        samples: list[Sample | None] = []
        by_kind: dict[str, Sample] = {}
        for place in self.places:
            kind = place.kind
            if kind in self.kinds and (self.draw == "cell" or kind not in by_kind):
                by_kind[kind] = draw(kind)
            samples.append(by_kind.get(kind))
        return samples

    def derive(self) -> dict[str, Cell | FixedCell]:
        """A node's T = 2 edges with the largest Pr, and their operations (3.2).

        Deviation: Omega excludes `none` unless `derive_none`, as in the authors' CNN code; the
        paper's Omega contains all candidates.
        """
        return {**super().derive(), **({"reduction": FIXED} if self.fixed else {})}

    def metrics(self, tau: float) -> dict[str, float]:
        return {"tau": tau}


def straight_through(
    log_pr: Tensor, o: Tensor, h: Tensor, tau: float
) -> tuple[Tensor, ...] | None:
    """The weight of each edge's drawn operation: 1 in the forward pass, Eq. 7 in the backward.

    Only the drawn operation s runs, so only its term of Eq. 5 has a gradient (3.2, "acceleration"):
    dL/dA^m = <dL/dI, F_s(I)> h~^s (delta_sm - h~^m) / tau.

    Args:
        log_pr: log Pr(f = F_k) of Eq. 4, [edges, candidates].
        o: Gumbel noise, on the CPU.
        h: the drawn column of each edge, on the CPU.
        tau: temperature.

    Returns:
        One weight [1] per edge; None if A needs no gradient.
    """
    if not log_pr.requires_grad:
        return None
    o, h = (t.to(log_pr.device, non_blocking=True) for t in (o.to(log_pr.dtype), h))
    relaxed = ((log_pr + o) / tau).softmax(-1).gather(1, h[:, None])  # h~^s, Eq. 7
    return (1 + (relaxed - relaxed.detach())).unbind()
