"""The training loop of a detector: SSD's loss, clipped SGD, COCO's average precision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import BatchSampler
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import resize_boxes
from torchvision.transforms.v2.functional import pil_to_tensor

from common.data.image_folder import open_image
from common.distributed import average
from common.draw import pictures
from common.run.config import RunConfig
from common.run.folder import Run
from common.run.start import workers
from common.training.images import ImageLoop
from common.training.loop import prepare
from common.training.schedules import LearningRate
from common.training.steps import descend
from detection.average_precision import METRICS, average_precision
from detection.batches import Batch, TrainBatches, plain, read
from detection.coco import Coco, Target
from detection.draw import detections

SHOWN = 4  # validation images in the picture


class DetectorTrainer(ImageLoop):
    """The loop of a detector.

    Args:
        config: a `config.DetectConfig`.
        network: on the CPU.
        run: its folder.
        batches: of training images.
        valid: images to score on; they decide nothing.
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

    def batches(self) -> Iterator[Batch]:
        """The epoch's batches: images [B, 3, S, S] in 0 to 1, and what is on each."""
        for step in self.steps():
            if self.stream is None:  # one for the run: its workers outlive the epochs
                end = self.config.epochs * len(self.train_batches)
                self.stream = self.train_batches.from_step(step, end)
            images, targets = next(self.stream)
            yield self._send(images) / 255, [
                {name: self._send(value) for name, value in target.items()} for target in targets
            ]

    def weight_step(self, images: Tensor, targets: list[Target]) -> None:
        """One clipped step of SGD on SSD's loss (Liu et al. 2016, Eq. 1 to 3).

        Several processes each divide their loss by their own number of matched boxes.
        """
        losses = self.network(list(images), targets)
        loss = losses["classification"] + losses["bbox_regression"]
        # A hand-written genotype may leave an input unused; its gradient is zero.
        gradients = torch.autograd.grad(loss, self.weights, materialize_grads=True)
        gradients = average(self.accelerator, gradients)
        descend(self.optimizer, self.weights, gradients, self.config.grad_clip)
        self.meters["loss"].update(loss.detach(), len(images))
        self.watch(loss)

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
        """COCO's metrics of all validation images; None on processes other than the main one."""
        processes = self.accelerator.num_processes
        mine = range(len(self.valid))[self.accelerator.process_index :: processes]
        found = gather_object(list(self.find(mine)))
        if not self.accelerator.is_main_process:
            return dict.fromkeys(METRICS)
        return average_precision(self.valid, dict(sorted(found, key=lambda one: one[0])))

    @torch.no_grad()
    def find(self, numbers: Iterable[int]) -> Iterator[tuple[int, Target]]:
        """Validation images by position, and what the detector finds, in pixels of the file."""
        self.network.eval()
        size, processes = self.config.image_size, self.accelerator.num_processes
        plan = BatchSampler(
            [(number, 0) for number in numbers], self.config.batch_size // processes, False
        )
        for images, targets in read(self.valid, plain(size), plan, workers(self.config)):
            outputs = self.network(list(self._send(images) / 255))
            for output, target in zip(outputs, targets, strict=True):
                found = {name: value.cpu() for name, value in output.items()}
                boxes = resize_boxes(found["boxes"], (size, size), target["size"].tolist())
                yield int(target["number"]), {**found, "boxes": boxes}

    def finish(self, description: dict[str, Any]) -> None:
        """Draw the run, write and print its result."""
        folder, epochs = self.run.folder, self.run.lines("metrics.jsonl")
        if self.accelerator.is_main_process:
            pictures.run(folder)
            shown = self.valid.trainable()[:SHOWN].tolist()
            scenes = [
                (pil_to_tensor(open_image(self.valid.files[number], 3)),
                 self.valid.target(number), found)
                for number, found in self.find(shown)
            ]  # fmt: skip
            if scenes:
                detections(scenes, self.valid.classes, folder / "pictures")
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

    def _send(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.accelerator.device, non_blocking=True)
