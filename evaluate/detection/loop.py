"""The training loop of a detector: SSD's loss, clipped SGD, COCO's average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torchvision.models.detection.ssd import SSD

from common.distributed import average
from common.draw import pictures
from common.run.config import RunConfig
from common.run.folder import Run
from common.run.start import workers
from common.training.images import ImageLoop
from common.training.loop import prepare
from common.training.schedules import LearningRate
from common.training.steps import descend
from detection.average_precision import METRICS, Found, average_precision
from detection.coco import Coco, read_image
from detection.coco_batches import Target, TrainBatches, plain_batches, received
from detection.draw import Scene, detections

SHOWN = 4  # validation images in the picture


class DetectorTrainer(ImageLoop):
    """The loop of a detector.

    Args:
        config: a `train_detector.DetectConfig`.
        network: on the CPU.
        run: its folder.
        batches: of training images.
        valid: images to score on; nothing is chosen by them.
    """

    quantities = ("loss",)

    def __init__(
        self, config: RunConfig, network: SSD, run: Run, batches: TrainBatches, valid: Coco
    ):
        accelerator = run.accelerator
        network = prepare(accelerator, network.to(memory_format=torch.channels_last))
        self.weights, self.valid, self.stream = list(network.parameters()), valid, None
        optimizer = torch.optim.SGD(
            self.weights, config.learning_rate, config.momentum,
            weight_decay=config.weight_decay, fused=accelerator.device.type in ("cpu", "cuda"),
        )
        rate = LearningRate("cosine", optimizer, config.epochs, config.learning_rate_min)
        super().__init__(config, run, network, optimizer, rate, batches)

    def batches(self) -> Iterator[tuple[Tensor, list[Target]]]:
        """The epoch's batches: images [B, 3, S, S], 0 to 1, and what is on each."""
        for step in self.steps():
            if self.stream is None:  # one for the whole run: its workers outlive the epochs
                end = self.config.epochs * len(self.train_batches)
                self.stream = self.train_batches.from_step(step, end)
            images, targets = received(next(self.stream))
            yield self._send(images), [
                {name: value.to(self.accelerator.device) for name, value in target.items()}
                for target in targets
            ]

    def weight_step(self, images: Tensor, targets: list[Target]) -> None:
        """One clipped step of SGD on SSD's loss (Liu et al. 2016, Eq. 1 to 3).

        Several processes each divide their loss by their own number of matched boxes.
        """
        losses = self.network(list(images), targets)
        loss = losses["classification"] + losses["bbox_regression"]
        # A written cell need not use all its inputs; what it leaves out has gradient zero.
        gradients = torch.autograd.grad(loss, self.weights, materialize_grads=True)
        gradients = average(self.accelerator, gradients)
        descend(self.optimizer, self.weights, gradients, self.config.grad_clip)
        self.meters["loss"].update(loss.detach(), len(images))
        self.watch(loss)

    def next_items(self) -> int:
        """See `Loop.next_items`: an epoch is all whole batches."""
        return self.config.batch_size if self.step < len(self.train_batches) else 0

    def held_out_metrics(self) -> dict[str, Any]:
        """Average precisions in percent; None in epochs that are not scored."""
        done = self.epoch + 1
        scored = done % self.config.score_epochs == 0 or done == self.config.epochs
        values = self.score() if scored else dict.fromkeys(METRICS)
        return {f"valid_{name}": value for name, value in values.items()}

    def in_words(self, split: str, metrics: dict[str, Any]) -> str:
        text, found = f"loss {metrics[f'{split}_loss']:.3f}", metrics.get("valid_AP")
        return text if found is None else f"{text}   AP {found:.2f} %"

    def score(self) -> dict[str, float | None]:
        """COCO's metrics of all validation images; of the main process only."""
        processes = self.accelerator.num_processes
        mine = range(len(self.valid))[self.accelerator.process_index :: processes]
        found = gather_object(list(self.find(mine)))
        if not self.accelerator.is_main_process:
            return dict.fromkeys(METRICS)
        return average_precision(self.valid, sorted(found, key=lambda one: one.image))

    @torch.no_grad()
    def find(self, numbers: Iterable[int]) -> Iterator[Found]:
        """What the detector finds in these validation images."""
        self.network.eval()
        size, batch_size = self.config.image_size, self.config.batch_size
        batches = plain_batches(
            self.valid, numbers, size, batch_size // self.accelerator.num_processes,
            workers(self.config),
        )
        for images, files in map(received, batches):
            for one, file in zip(self.network(list(self._send(images))), files, strict=True):
                scale = file["size"].flip(0).repeat(2) / size  # of x, y, x, y
                yield Found(
                    int(file["number"]), one["boxes"].cpu() * scale, one["labels"].cpu(),
                    one["scores"].cpu(),
                )

    def finish(self, description: dict[str, Any]) -> None:
        """Draw the run, write its result and say it."""
        folder, epochs = self.run.folder, self.run.lines("metrics.jsonl")
        if self.accelerator.is_main_process:
            pictures.run(folder)
            shown = (self.valid.first.diff() > 0).nonzero().flatten()[:SHOWN].tolist()
            scenes = [
                Scene(read_image(self.valid.files[k]), self.valid.boxes_of(k), found)
                for k, found in zip(shown, self.find(shown), strict=True)
            ]
            detections(scenes, list(self.valid.categories.values()), folder / "pictures")
        last = epochs[-1]
        result = {name: last[f"valid_{name}"] for name in METRICS}
        self.run.write("result.json", {
            **description,
            "epochs": len(epochs),
            **result,
            "train_loss": last["train_loss"],
            "train_seconds": round(sum(line["seconds"] for line in epochs), 1),
            "peak_memory_mib": max(line["peak_memory_mib"] for line in epochs),
        })  # fmt: skip
        said = (f"{k} -" if v is None else f"{k} {v:.2f}" for k, v in result.items())
        self.run.say(
            f"\n{', '.join(said)} (percent) after {len(epochs)} epochs\nrun folder: {folder}"
        )

    def _send(self, images: Tensor) -> Tensor:
        return images.to(self.accelerator.device, non_blocking=True) / 255
