"""GDAS' supernet: one operation an edge is drawn and run, differentiably (Eq. 3 to 7)."""

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
    """A DAG of which each pass runs one sub-graph, drawn by a learned distribution.

    Args:
        reduction: "searched": both kinds of cell; "fixed": GDAS (FRC), normal cells only, between
            the reduction cells of Fig. 3.
        draw: "cell": every cell draws for itself (3.2); "kind": cells of a kind share one draw.
        **shape: see `SuperNet`.
    """

    def __init__(self, reduction: str = "searched", draw: str = "cell", **shape):
        self.fixed, self.draw = reduction == "fixed", draw
        if self.fixed:
            self.kinds = ("normal",)
        super().__init__(**shape)

    def concatenated(self) -> dict[str, int]:
        """The fixed cell concatenates four branches, whatever the number of nodes."""
        return {**super().concatenated(), **({"reduction": 4} if self.fixed else {})}

    def make_cell(self, place: Place) -> nn.Module:
        """A cell of which drawn operations run, or the fixed reduction cell (3.3).

        The fixed one takes the ReLU of its inputs again, which changes nothing.
        """
        if self.fixed and place.reduction:
            return FixedReductionCell(place)
        return super().make_cell(place)

    def mixes(
        self, generator: torch.Generator | None = None, tau: float = 10.0
    ) -> list[Sample | None]:
        """Eq. 5: h picks the operation of each edge that runs, and Eq. 7 takes its gradient.

        Noise is drawn on the CPU and so is h, for all cells at once: the one copy of log Pr there
        is all that a pass reads from the device.

        Args:
            generator: see `SuperNet.mixes`.
            tau: the softmax temperature of Eq. 7, above 0.
        """
        log_pr = {kind: self.arch[f"alpha_{kind}"].log_softmax(-1) for kind in self.kinds}  # Eq. 4
        known = read(torch.stack(list(log_pr.values())))
        on_cpu = dict(zip(log_pr, known.double(), strict=True))

        samples: list[Sample | None] = []
        shared: dict[str, Sample] = {}
        for place in self.places:
            kind = place.kind
            if kind not in self.kinds:
                samples.append(None)
            elif self.draw == "kind" and kind in shared:
                samples.append(shared[kind])
            else:
                o = gumbel(*on_cpu[kind].shape, generator=generator)
                h = (on_cpu[kind] + o).argmax(-1)  # Eq. 6; A and log Pr differ by a constant
                weight = straight_through(log_pr[kind], o, h, tau)
                shared[kind] = Sample(h[:, None].tolist(), weight)
                samples.append(shared[kind])
        return samples

    def derive(self) -> dict[str, Cell | FixedCell]:
        """T = 2 connections a node by the largest Pr, and their operations (3.2).

        Deviation: Omega leaves out `none` unless `derive_none`, as the authors' code does for CNNs;
        the paper's Omega is all candidates.
        """
        return {**super().derive(), **({"reduction": FIXED} if self.fixed else {})}

    def metrics(self, tau: float) -> dict[str, float]:
        """The temperature."""
        return {"tau": tau}


def straight_through(
    log_pr: Tensor, o: Tensor, h: Tensor, tau: float
) -> tuple[Tensor, ...] | None:
    """The weight of each edge's drawn operation: 1 forward, h~ of Eq. 7 backward.

    Only the drawn operation has run, so of Eq. 5's gradient only its term is there:
    dL/dA^m = <dL/dI, F_s(I)> h~^s (delta_sm - h~^m) / tau for the drawn s (3.2, "acceleration").

    Args:
        log_pr: log Pr(f = F_k) of Eq. 4, [edges, candidates].
        o: Gumbel noise, on the CPU.
        h: the drawn column of each edge, on the CPU.
        tau: temperature.

    Returns:
        For each edge one weight, [1]; None where nobody asks for its gradient.
    """
    if not log_pr.requires_grad:
        return None
    o, h = (t.to(log_pr.device, non_blocking=True) for t in (o.to(log_pr.dtype), h))
    relaxed = ((log_pr + o) / tau).softmax(-1).gather(1, h[:, None])  # h~^s
    return (1 + (relaxed - relaxed.detach())).unbind()
