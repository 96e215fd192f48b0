#!/usr/bin/env python3
"""Writes test images of Fashion-MNIST as PNG files, 28x28 grey pixels each.

    apt-get install dataset-fashion-mnist
    python3 weights/demo/extract_images.py                 # the bundled ones, into weights/demo/images
    python3 weights/demo/extract_images.py --all FOLDER    # all 10,000, a folder per class, for `cpvt eval`

Needs nothing but Python: a PNG is a few chunks around zlib's compression. The bundled pictures are the same ones at
every run; the training never saw any of them.
"""

import argparse
import gzip
import random
import struct
import zlib
from pathlib import Path

DATASET = Path("/usr/share/datasets/fashion-mnist")
LABELS = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
PER_CLASS, SEED = 5, 3
SIDE = 28


def read_idx(name: str) -> bytes:
    """The bytes of an IDX file, after its magic (whose last byte is the rank) and its extents."""
    data = gzip.decompress((DATASET / f"{name}-ubyte.gz").read_bytes())
    return data[4 + 4 * data[3] :]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(pixels: bytes) -> bytes:
    """An 8-bit grey picture; every row is preceded by its filter, which is none."""
    rows = b"".join(b"\0" + pixels[y * SIDE : (y + 1) * SIDE] for y in range(SIDE))
    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="all test images, a folder per class")
    arguments = parser.parse_args()
    pixels, labels = read_idx("t10k-images-idx3"), read_idx("t10k-labels-idx1")

    def picture(index: int) -> bytes:
        return png(pixels[index * SIDE * SIDE : (index + 1) * SIDE * SIDE])

    if arguments.all:
        for label, name in enumerate(LABELS):  # sorted by name, the folders are in the order of the classes
            (arguments.all / f"{label}-{name}").mkdir(parents=True, exist_ok=True)
        for index, label in enumerate(labels):
            (arguments.all / f"{label}-{LABELS[label]}" / f"{index:05}.png").write_bytes(picture(index))
        return

    folder = Path(__file__).resolve().parent / "images"
    folder.mkdir(exist_ok=True)
    choose = random.Random(SEED)
    for label, name in enumerate(LABELS):
        of_class = [index for index, other in enumerate(labels) if other == label]
        for index in sorted(choose.sample(of_class, PER_CLASS)):
            (folder / f"{label:02}-{name.replace(' ', '-')}-{index:04}.png").write_bytes(picture(index))


if __name__ == "__main__":
    main()
