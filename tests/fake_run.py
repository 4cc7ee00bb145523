"""A fake search or retraining: the same flags and run folder, no training.

The tests of evaluate/compare.py start it as a script. `FAKE` in the environment names the run that
goes wrong: {"fail": folder, "full": folder, "slow": end of names}
(slow: only at its first start).
"""

import json
import os
import sys
import time
from pathlib import Path

CELLS = json.loads(
    (Path(__file__).parents[1] / "common" / "networks" / "genotypes" / "darts_v1.json").read_text()
)["cells"]
SIZE = {"epochs": 3, "batch_size": 8, "channels": 4, "cells": 3, "dataset": "digits"}


def genotype(name, skips=0):
    cells = json.loads(json.dumps(CELLS))
    for n, edge in enumerate(cells["normal"]["edges"]):
        edge["op"] = "skip_connect" if n < skips else "sep_conv_3x3"
    return {"format": "nas-genotype", "version": 1, "name": name, "cells": cells,
            "provenance": {"method": name}}


def write(folder, name, content):
    (folder / name).write_text(json.dumps(content))


def begin(folder, method, seed, **config):
    folder.mkdir(parents=True, exist_ok=True)
    write(folder, "config.json", {
        "method": method, "seed": seed, **SIZE, "image_size": None, "data_root": "data",
        "commit": "c", "device": "cpu", "machine": "m", "threads": 1, "mixed_precision": "no",
        "order": 1, "reduction": "searched", **config,
    })


def epoch(folder, number, skips=0, name="found"):
    with open(folder / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"epoch": number + 1, "valid_top1": 50 + number}) + "\n")
    with open(folder / "genotypes.jsonl", "a") as file:
        file.write(json.dumps({"epoch": number + 1, "genotype": genotype(name, skips)}) + "\n")


def search(folder, method="darts", seed=0, skips=(0, 1, 1), split="halves", **config):
    """A finished search of three epochs."""
    begin(folder, method, seed, **config)
    write(folder, "split.json", {"sha256": split, "images_sha256": "images"})
    for number, count in enumerate(skips):
        epoch(folder, number, count, f"{method}{seed}")
    write(folder, "genotype.json", genotype(f"{method}{seed}", skips[-1]))
    write(folder, "result.json", {"search_seconds": 6.0, "peak_memory_mib": 100.0 + seed})


def training(
    folder, of, top1, seed=0, train="images", test="test", shape=(1, 8, 8), **config
):
    """A finished retraining of the cells in a search's folder or a genotype file."""
    config = {"genotype": str(of), "held_out": "test", **config}
    begin(folder, "retrain", seed, **config)
    write(folder, "images.json", {
        "train_sha256": train, "test_sha256": test, "shape": shape, "classes": [*"0123456789"],
    })
    own = of / "genotype.json" if of.is_dir() else of
    (folder / "genotype.json").write_text(own.read_text())
    lines = [{"epoch": n + 1, "test_top1": top1 - 2 + n} for n in range(3)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    write(folder, "result.json", {
        "test_top1": top1, "train_seconds": 3.0, "params": 1000, "peak_memory_mib": 50.0,
    })


def accuracy(name):
    """Of a retraining, by the name of its folder: PC-DARTS 90 + seed, DARTS 80 + seed, ..."""
    base = {"pc_darts": 90, "darts": 80, "random-cell": 70}
    known = [value for start, value in base.items() if name.startswith(start)]
    return (known or [60])[0] + int(name.removesuffix(".train").split("-")[-1])


def main(argv):
    given = {flag: argv[n + 1] for n, flag in enumerate(argv[:-1]) if flag.startswith("--")}
    folder = Path(given.get("--resume") or given["--output"])
    wrong = json.loads(os.environ.get("FAKE", "{}"))
    with open(folder.parent / "starts", "a") as file:
        file.write(f"{folder.name} {'resumed' if '--resume' in given else 'new'}\n")
    if "--resume" not in given:
        seed = int(given["--seed"])
        begin(folder, "retrain" if "--genotype" in given else "darts", seed)
        write(folder, "asked", argv)
    seed = json.loads((folder / "config.json").read_text())["seed"]
    asked = json.loads((folder / "asked").read_text())
    if folder.name.endswith(wrong.get("slow", "none")) and "--resume" not in given:
        time.sleep(60)  # where Ctrl-C is ignored (a job of a shell), it is terminated later
    if wrong.get("fail") == folder.name:
        print("first line\nerror: the loss was not finite at step 7")
        raise SystemExit(1)
    if wrong.get("full") == folder.name:
        raise OSError(28, "No space left on device")
    if folder.name.endswith(".train"):
        of = Path(asked[asked.index("--genotype") + 1])
        training(folder, of, accuracy(folder.name), seed)
    else:
        search(folder, "darts", seed)


if __name__ == "__main__":
    main(sys.argv[1:])
