"""The flags of pc_darts/search.py: the paper's settings, presets, and what is refused."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from common.errors import InputError
from common.networks.fits import check_candidates
from common.run.config import SearchConfig, SpaceFlags
from common.run.flags import Between

METHOD = "pc_darts"


@dataclass(frozen=True)
class PCDARTSConfig(SpaceFlags, SearchConfig):
    """Section 4.2: CIFAR-10, 8 cells, 16 channels, K = 4, 50 epochs of which 15 are warm-up."""

    preset: Literal["cifar10", "imagenet", "digits"] = "cifar10"
    """cifar10, imagenet: the paper's searches (4.2, 4.3); digits: one minute on two CPU
    cores."""
    K: Annotated[int, Between(1, 4096), tyro.conf.arg(aliases=["--k"])] = 4
    """Mix 1/K of the channels (3.2); 1: all."""
    edge_normalization: bool = True
    """Weight each edge by softmax(beta) (3.3)."""
    mask: Literal["first", "random"] = "first"
    """first: mix the first channels, then shuffle (4.1); random: sample the channels for each
    edge and step (3.2)."""
    derive_none: bool = False
    """Allow `none` in the derived cell; such an edge is zero."""
    warmup_epochs: Annotated[int, Between(0, 10**6)] = 15
    """Initial epochs without arch steps."""
    batch_size: int | None = None
    """Batch size, over all processes together; by default 64 K (ImageNet: 512 K)."""
    learning_rate: float | None = None
    """Initial learning rate of the weights (SGD); by default 0.025 K (ImageNet: 0.25 K)."""
    learning_rate_warmup: Annotated[int, Between(0, 10**6)] = 0
    """Learning-rate warm-up epochs (linear)."""

    def resolved(self) -> PCDARTSConfig:
        """Batch size and learning rate follow K: 256 and 0.1 at K = 4 (4.2).

        On ImageNet 1,024 and 0.5 at K = 2 (4.3).
        """
        each, rate = (512, 0.25) if self.preset == "imagenet" else (64, 0.025)
        batch_size = each * self.K if self.batch_size is None else self.batch_size
        rate = rate * self.K if self.learning_rate is None else self.learning_rate
        config = super().resolved()
        return dataclasses.replace(config, batch_size=batch_size, learning_rate=rate)

    def provenance(self) -> dict[str, Any]:
        return {
            **super().provenance(),
            "K": self.K, "edge_normalization": self.edge_normalization, "mask": self.mask,
            "derive_none": self.derive_none,
        }

    def least_size(self) -> tuple[float, float]:
        """See `SearchConfig.least_size`; 1/K of the channels enters the candidates."""
        maps, weights = super().least_size()
        return maps / self.K, weights / self.K**2

    def check(self) -> None:
        super().check()
        if self.channels % self.K:
            divisors = [k for k in range(1, self.channels + 1) if self.channels % k == 0]
            raise InputError(
                f"--K {self.K}: must divide --channels {self.channels}, so one of {divisors}"
            )
        check_candidates(self.candidates, self.channels // self.K, self.operations)


PRESETS = {
    "cifar10": PCDARTSConfig(),
    "imagenet": PCDARTSConfig(
        preset="imagenet", dataset="imagenet", train_share=0.1, valid_share=0.025, K=2,
        warmup_epochs=35, learning_rate_warmup=5,
        weight_decay=3e-5, arch_learning_rate=6e-3, arch_grad_clip=5.0,
    ),
    "digits": PCDARTSConfig(
        # 66 arch steps: alpha moves this fast or stays uniform.
        preset="digits", dataset="digits", epochs=8, warmup_epochs=2, batch_size=64,
        channels=16, cells=4, crop_padding=1, flip=False, arch_learning_rate=0.3,
        cut_accuracy="batch",
    ),
}
