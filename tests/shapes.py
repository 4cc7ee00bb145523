"""A made-up data set in COCO's layout: coloured shapes on noise. `python tests/shapes.py FOLDER`.

What tells the classes apart is the shape, not the colour. Category ids have gaps, as COCO's have.
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CATEGORIES = {3: "rectangle", 7: "ellipse", 90: "triangle"}


def make_coco(folder, train=16, valid=8, size=96, seed=0):
    """Images of `size` pixels by three quarters of it or more, one to three shapes on each."""
    generator = np.random.default_rng(seed)
    folder = Path(folder)
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in (("train2017", train), ("val2017", valid)):
        (folder / split).mkdir(exist_ok=True)
        images, annotations = [], []
        for number in range(count):
            image, shapes = scene(generator, size)
            name = f"{number:06d}.png"
            image.save(folder / split / name)
            images.append({"id": 1000 + number, "file_name": name})
            for category, (left, top, right, bottom) in shapes:
                box = [left, top, right - left, bottom - top]
                annotations.append({
                    "id": len(annotations), "image_id": 1000 + number, "category_id": category,
                    "bbox": box, "area": box[2] * box[3], "iscrowd": 0,
                })  # fmt: skip
        categories = [{"id": key, "name": name} for key, name in CATEGORIES.items()]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def scene(generator, size):
    """An image and its shapes: category and corners; they do not touch."""
    width, height = (int(n) for n in generator.integers(3 * size // 4, size + 1, 2))
    noise = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    pen, shapes = ImageDraw.Draw(image), []
    for _ in range(generator.integers(1, 4)):
        w, h = (int(n) for n in generator.integers(size // 5, size // 2, 2))
        left, top = int(generator.integers(0, width - w)), int(generator.integers(0, height - h))
        box = (left, top, left + w, top + h)
        if any(meet(box, other) for _, other in shapes):
            continue
        category = int(generator.choice(list(CATEGORIES)))
        colour = tuple(int(n) for n in generator.integers(130, 256, 3))
        edges = (left, top, left + w - 1, top + h - 1)
        if category == 3:
            pen.rectangle(edges, fill=colour)
        elif category == 7:
            pen.ellipse(edges, fill=colour)
        else:
            pen.polygon([(left, edges[3]), (edges[2], edges[3]), (left + w / 2, top)], fill=colour)
        shapes.append((category, box))
    return image, shapes


def meet(one, other):
    return not (
        one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    )


if __name__ == "__main__":
    make_coco(sys.argv[1], train=600, valid=150, size=160)
