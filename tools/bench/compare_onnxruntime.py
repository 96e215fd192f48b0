#!/usr/bin/env python3
"""Times a forward pass of CPVT-GAP Ti, S and B beside ONNX Runtime and PyTorch, taking turns on the same machine.

    pip install torch timm safetensors onnx onnxscript onnxruntime
    python3 tools/bench/compare_onnxruntime.py [--cpvt build/release/bin/cpvt] [--size 224] [--threads 2] [--rounds 5]

Weights are random: they do not change the work. Each round runs each engine for a while, in turn, so that what else the
machine does hits all of them; the figures are the medians over rounds of each round's median, in milliseconds.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import onnxruntime
import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "weights" / "pytorch"))
from cpvt import CPVT, Config  # noqa: E402

MODELS = {"Ti": (192, 3), "S": (384, 6), "B": (768, 12)}  # width, heads; CPVT, table 7


def median_ms(run, seconds: float) -> float:
    run()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def cpvt_ms(program: str, folder: Path, size: int, threads: int) -> float:
    command = [program, "bench", str(folder), "--size", str(size), "--threads", str(threads), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["ms"]["median"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpvt", default=str(ROOT / "build/release/bin/cpvt"))
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2, help="for each engine, model and round")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    print(f"CPVT-GAP, {args.size} px, batch 1, fp32, {args.threads} threads, medians in ms of {args.rounds} rounds")
    print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}")
    print(f"{'':4}{'cpvt':>9}{'ONNX Runtime':>14}{'PyTorch':>9}{'ORT/cpvt':>10}{'torch/cpvt':>12}")
    with tempfile.TemporaryDirectory() as scratch, torch.inference_mode():
        for name, (width, heads) in MODELS.items():
            folder = Path(scratch) / name
            folder.mkdir()
            config = Config(embed_dim=width, num_heads=heads, global_pool="avg")
            model = CPVT(config).initialise().eval()
            (folder / "config.json").write_text(json.dumps(config.to_json()))
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
            image = torch.randn(1, 3, args.size, args.size)
            torch.onnx.export(model, (image,), str(folder / "model.onnx"), input_names=["x"], dynamo=True, verbose=False)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = args.threads
            session = onnxruntime.InferenceSession(folder / "model.onnx", options, ["CPUExecutionProvider"])
            array = image.numpy()

            rounds = []
            for _ in range(args.rounds):
                rounds.append(
                    (
                        cpvt_ms(args.cpvt, folder, args.size, args.threads),
                        median_ms(lambda: session.run(None, {"x": array}), args.seconds),
                        median_ms(lambda: model(image), args.seconds),
                    )
                )
            ours, ort, eager = (statistics.median(column) for column in zip(*rounds))
            ort_ratio = statistics.median(r[1] / r[0] for r in rounds)
            eager_ratio = statistics.median(r[2] / r[0] for r in rounds)
            print(f"{name:4}{ours:9.2f}{ort:14.2f}{eager:9.2f}{ort_ratio:10.2f}{eager_ratio:12.2f}", flush=True)


if __name__ == "__main__":
    main()
