#!/usr/bin/env python3
"""Trains the demo models on Fashion-MNIST: the same one-million-parameter network with five position encodings.

    apt-get install dataset-fashion-mnist && pip install torch timm safetensors
    python3 weights/demo/train.py cpvt-gap cpvt learned sincos none

Each model becomes a folder beside this script. A model trains on one core, as many at once as there are cores, so that
fixed seeds mean fixed sums. The test images are looked at once, after the last epoch: nothing is selected on them.
Images are mirrored but not shifted in training: how each encoding bears shifts is for `cpvt sweep` to show.
"""

import argparse
import gzip
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "pytorch"))
from cpvt import CPVT, Config  # noqa: E402

DATASET = Path("/usr/share/datasets/fashion-mnist")
LABELS = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
MEAN, STD = 0.2860, 0.3530
BATCH, PEAK_RATE, SMOOTHING, SEED = 128, 2e-3, 0.05, 7
# The baselines had the shorter schedule: their accuracies do not compare with CPVT's, what sizes do to them does.
EPOCHS = {"cpvt-gap": 12, "cpvt": 12, "learned": 7, "sincos": 7, "none": 7}

SIZE = {"embed_dim": 128, "depth": 5, "num_heads": 4, "patch_size": 4, "img_size": 28, "num_classes": 10}
PEG = {"after": [0, 1, 2, 3], "kernel": 3}
MODELS = {
    "cpvt-gap": Config(**SIZE, pos_embed="peg", peg=PEG, global_pool="avg"),
    "cpvt": Config(**SIZE, pos_embed="peg", peg=PEG, global_pool="token"),
    "learned": Config(**SIZE, pos_embed="learned", global_pool="token"),
    "sincos": Config(**SIZE, pos_embed="sincos", global_pool="token"),
    "none": Config(**SIZE, pos_embed="none", global_pool="token"),
}


def read_idx(path: Path) -> torch.Tensor:
    """An IDX file: magic whose last byte is the rank, big-endian extents, bytes."""
    data = gzip.decompress(path.read_bytes())
    extents = np.frombuffer(data, ">u4", data[3], 4)
    return torch.from_numpy(np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(extents).copy())


def read_split(split: str) -> tuple[torch.Tensor, torch.Tensor]:
    images = read_idx(DATASET / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(DATASET / f"{split}-labels-idx1-ubyte.gz").long()
    normalised = (images.float() / 255 - MEAN) / STD
    return normalised[:, None].expand(-1, 3, -1, -1), labels


def mirror_half(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    flip = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flip[:, None, None, None], images.flip(3), images)


def accuracy(model: CPVT, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    with torch.inference_mode():
        hits = sum((model(x).argmax(1) == y).sum().item() for x, y in zip(images.split(500), labels.split(500)))
    model.train()
    return hits / len(labels)


def train(config: Config, epochs: int, say) -> CPVT:
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    images, labels = read_split("train")
    model = CPVT(config).initialise()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK_RATE)
    per_epoch = len(images) // BATCH
    steps = epochs * per_epoch
    warm = per_epoch // 2
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * max(0, s - warm) / (steps - warm)))
    )
    start = time.time()
    for epoch in range(epochs):
        order = torch.randperm(len(images), generator=generator)
        total = 0.0
        for step in range(per_epoch):
            pick = order[step * BATCH : (step + 1) * BATCH]
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(mirror_half(images[pick], generator))
            loss = F.cross_entropy(logits.float(), labels[pick], label_smoothing=SMOOTHING)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        say(f"epoch {epoch + 1}/{epochs} loss {total / per_epoch:.4f} after {time.time() - start:.0f} s")
    return model


def make(name: str) -> None:
    torch.set_num_threads(1)

    def say(line: str) -> None:
        print(f"{name}: {line}", flush=True)

    model = train(MODELS[name], EPOCHS[name], say)
    say(f"top-1 on the 10,000 test images {100 * accuracy(model, *read_split('t10k')):.2f} %")
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    # Half precision on disk keeps the repository small; the engine and PyTorch both compute with its float32 values.
    tensors = {k: v.detach().half().contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    preprocessing = {
        "input_size": [3, 28, 28],
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
    }
    description = {**MODELS[name].to_json(), "label_names": LABELS, "pretrained_cfg": preprocessing}
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", choices=MODELS)
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(make, parser.parse_args().models))


if __name__ == "__main__":
    main()
