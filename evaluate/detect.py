"""Trains a detector, SSD on the ImageNet network of any genotype, and reports COCO's AP.

    python evaluate/detect.py --data-root COCO                    PC-DARTS 4.5
    python evaluate/detect.py --data-root COCO --weights RUN      from a run of evaluate/train.py
    python evaluate/detect.py --count                             multiply-adds of Table 5
"""

from __future__ import annotations

import sys

from common.errors import errors_are_messages
from common.run.cli import parse
from detection.config import METHOD, DetectConfig

if __name__ == "__main__":
    with errors_are_messages():
        config = parse({"coco": DetectConfig()}, METHOD, sys.argv[1:], __doc__)
        from detection.train_detector import detect

        detect(config)
