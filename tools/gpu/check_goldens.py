#!/usr/bin/env python3
"""Runs every committed golden through `cpvt run` on a device and compares with what PyTorch made of it.

    python3 tools/gpu/check_goldens.py --device cuda [--dtypes fp32,fp16,bf16] [--cpvt build/release/bin/cpvt]

Prints a line of markdown per dtype. Exit code 1 if any error is over its bound, any run failed, or any was not reached.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from tensors import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
BOUNDS = {"fp32": 5e-5, "fp16": 5e-3, "bf16": 2e-2}  # of max|got - expected| / max|expected|


def check(program: str, folder: Path, device: str, dtype: str, end: float) -> tuple[float, str]:
    """The worst error of a model's images, and what went wrong."""
    golden = load_file(folder / "golden.safetensors")
    images = {name: golden[name] for name in golden if name.startswith("input.")}
    with tempfile.TemporaryDirectory() as scratch:
        source, result = Path(scratch) / "in.safetensors", Path(scratch) / "out.safetensors"
        save_file({k: v.float() for k, v in images.items()}, source)
        command = [program, "run", str(folder), str(source), "-o", str(result), "--features"]
        command += ["--device", device, "--dtype", dtype]
        left = end - time.monotonic()
        if left <= 0:
            return 0, "not reached"
        try:
            run = subprocess.run(command, capture_output=True, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return 0, "not reached"
        if run.returncode != 0:
            return 0, f"exit code {run.returncode}: {run.stderr.strip()[-300:]}"
        got = load_file(result)
    worst = 0.0
    for i in range(len(images)):
        for name in (f"logits.{i}", f"features.{i}"):
            if name not in golden:
                continue
            expected = golden[name].double().flatten()
            actual = got[name].double().flatten()
            if actual.shape != expected.shape or not actual.isfinite().all():
                return float("inf"), f"{name} has another shape or is not finite"
            worst = max(worst, float((actual - expected).abs().max() / expected.abs().max()))
    return worst, "" if worst <= BOUNDS[dtype] else f"error {worst:.1e}, expected at most {BOUNDS[dtype]:.0e}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpvt", default=str(ROOT / "build/release/bin/cpvt"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtypes", default="fp32,fp16,bf16")
    parser.add_argument("--models", help="some of the folders in tests/data/models; default: all")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count()))
    parser.add_argument("--deadline", type=float, default=3600, help="seconds")
    args = parser.parse_args()
    end = time.monotonic() + args.deadline
    folders = sorted(p.parent for p in (ROOT / "tests/data/models").glob("*/golden.safetensors"))
    if args.models:
        folders = [f for f in folders if f.name in args.models.split(",")]
    print("| dtype | models | within the bound | bound | worst error | of |\n|---|---|---|---|---|---|")
    failures = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for dtype in args.dtypes.split(","):
            outcomes = list(pool.map(lambda folder: check(args.cpvt, folder, args.device, dtype, end), folders))
            good = sum(not text for _, text in outcomes)
            worst, name = max(((error, folder.name) for (error, _), folder in zip(outcomes, folders)), default=(0, ""))
            print(f"| {dtype} | {len(folders)} | {good} | {BOUNDS[dtype]:.0e} | {worst:.1e} | {name} |", flush=True)
            failures += [f"{f.name} {dtype}: {text}" for (_, text), f in zip(outcomes, folders) if text]
    if failures:
        print("\n" + "\n".join(f"* FAILED {line}" for line in failures))
    return 1 if failures or not folders else 0


if __name__ == "__main__":
    sys.exit(main())
