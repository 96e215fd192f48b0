#!/usr/bin/env python3
"""Compares `cpvt run` with PyTorch on networks, weights, spellings and image sizes drawn at random.

    pip install torch timm safetensors
    python3 tests/compare/random_models.py --cpvt build/release/bin/cpvt --cases 50 --seed 1 [--device sim --dtype fp16]

A row per case: the largest of its images' errors max|got - PyTorch| / max|PyTorch|, of logits and of features; then, as
the floor that rounding leaves, how far the engine and PyTorch's float32 are from PyTorch's float64; in fp16 and bf16
also the errors of PyTorch's own logits and features in that dtype, on the CPU. Exits with 1 when
a case fails to run, PTXSIM_CHECK=1 finds something, or it is further from PyTorch's float32 than the device and dtype
may be. A case is made anew by its seed and number alone.
"""

import argparse
import copy
import json
import math
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from realistic import CPVT, STORAGE, Config, error, randomise

BOUNDS = {("cpu", "fp32"): 2e-5, ("cuda", "fp32"): 5e-5, ("cuda", "fp16"): 5e-3, ("cuda", "bf16"): 2e-2}
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
MOST_FLOPS = {"cpu": 2e10, "cuda": 2e10, "sim": 1e9}  # of a case, so that fifty take minutes
MOST_SCORES = 1e8  # attention weights that PyTorch keeps at a time


@dataclass
class Case:
    config: Config
    storage: str
    peg_names: list[str]
    sizes: list[tuple[int, int]]
    ragged: bool

    def grids(self) -> list[int]:
        patch = self.config.patch_size
        return [(h // patch) * (w // patch) + self.config.has_class_token for h, w in self.sizes]

    def affordable(self, most_flops: float) -> bool:
        c, tokens = self.config, self.grids()
        matrices = 2 * (4 + 2 * c.mlp_ratio) * c.embed_dim**2 * sum(tokens)
        scores = 4 * c.embed_dim * sum(n * n for n in tokens)
        pegs = 2 * c.peg["kernel"] ** 2 * c.embed_dim * sum(tokens) * len(self.peg_names)
        embed = 2 * c.in_chans * c.patch_size**2 * c.embed_dim * sum(tokens)
        return (c.depth * (matrices + scores) + pegs + embed <= most_flops
                and c.num_heads * max(tokens) ** 2 <= MOST_SCORES)

    def __str__(self) -> str:
        c = self.config
        positions = f"peg k={c.peg['kernel']} after {','.join(map(str, c.peg['after']))}"
        if c.pos_embed != "peg":
            positions = c.pos_embed
        sizes = " ".join(f"{h}x{w}" for h, w in self.sizes) if self.ragged else (
            f"{len(self.sizes)} of {self.sizes[0][0]}x{self.sizes[0][1]}")
        return (f"D={c.embed_dim} heads={c.num_heads} depth={c.depth} mlp={c.mlp_ratio} patch={c.patch_size} "
                f"C={c.in_chans} classes={c.num_classes} {c.global_pool} {positions} {self.storage}: {sizes}")


def peg_names(draw: random.Random, after: list[int]) -> list[str]:
    """A spelling that checkpoints use for each PEG's convolution."""
    names = []
    for j, block in enumerate(after):
        owners = [f"pos_block.{j}.proj.0", f"pos_block.{j}.proj"]
        if block >= 0:
            owners += [f"blocks.{block}.peg{suffix}" for suffix in ("", ".proj", ".proj.0")]
        if len(after) == 1:
            owners += [f"peg{suffix}" for suffix in ("", ".proj", ".proj.0")]
        names.append(draw.choice(owners))
    return names


def draw_size(draw: random.Random, patch: int) -> tuple[int, int]:
    """From a single patch over squares to long strips of 1000 by 40, either way up."""
    kind = draw.randrange(4)
    if kind == 0:
        sides = [draw.randint(16, 64), draw.randint(16, 64)]
    elif kind == 1:
        sides = [draw.randint(16, 320), draw.randint(16, 320)]
    elif kind == 2:
        sides = [draw.randint(200, 1000), draw.randint(16, 40)]
    else:
        sides = [draw.randint(patch, 2 * patch), draw.randint(patch, 8 * patch)]
    draw.shuffle(sides)
    return max(sides[0], patch), max(sides[1], patch)


def draw_case(draw: random.Random, most_flops: float) -> Case:
    while True:
        head_dim = draw.choice([8, 16, 20, 24, 32, 32, 40, 48, 64, 64, 64, 72, 80, 96, 31, 65])
        heads = [n for n in range(1, 49) if 64 <= n * head_dim <= 768]
        width = head_dim * draw.choice(heads)
        positions = draw.choice(["peg", "peg", "peg", "learned", "sincos", "none"])
        if positions == "sincos" and width % 4:
            continue
        depth = draw.randint(1, 12)
        places = draw.choice([[0], sorted(draw.sample(range(-1, depth), draw.randint(1, min(depth + 1, 7))))])
        patch = draw.choice([4, 6, 7, 8, 12, 14, 16, 16, 20, 24, 32])
        config = Config(
            embed_dim=width, depth=depth, num_heads=width // head_dim, mlp_ratio=draw.choice([1, 2, 3, 3.5, 4, 4]),
            patch_size=patch, in_chans=draw.choice([1, 3, 3]), num_classes=draw.choice([1, 2, 10, 100, 1000]),
            global_pool=draw.choice(["token", "avg"]), pos_embed=positions,
            peg={"after": places if positions == "peg" else [], "kernel": draw.choice([3, 3, 5, 7, 9, 13, 19, 25, 27])},
            layer_norm_eps=draw.choice([1e-6, 1e-5, 1e-12]),
            img_size=patch * draw.randint(1, 16) + draw.randrange(patch))
        ragged = draw.random() < 0.5
        if ragged:
            sizes = [draw_size(draw, patch) for _ in range(draw.randint(1, 8))]
        else:
            sizes = [draw_size(draw, patch)] * draw.randint(1, 4)
        case = Case(config, draw.choice(list(STORAGE)), peg_names(draw, config.peg["after"]), sizes, ragged)
        if case.affordable(most_flops):
            return case


def write_model(case: Case, model: CPVT, folder: Path) -> None:
    tensors = {}
    for name, value in model.state_dict().items():
        for j, spelling in enumerate(case.peg_names):
            name = name.replace(f"pos_block.{j}.proj.0.", f"{spelling}.")
        tensors[name] = value.to(STORAGE[case.storage]).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(case.config.to_json()))


def run_engine(args: argparse.Namespace, case: Case, images: list[torch.Tensor], folder: Path) -> list[dict]:
    """{"logits", "features"} of every image."""
    if case.ragged:
        save_file({f"input.{i}": image for i, image in enumerate(images)}, folder / "in.safetensors")
    else:
        save_file({"input": torch.stack(images)}, folder / "in.safetensors")
    command = [args.cpvt, "run", folder, folder / "in.safetensors", "-o", folder / "out.safetensors", "--features",
               "--threads", str(args.threads), "--device", args.device, "--dtype", args.dtype, "-q"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cpvt run ended with {done.returncode}: {done.stderr.strip()}")
    if "ptxsim: finding" in done.stderr:  # of PTXSIM_CHECK=1 in the environment
        raise RuntimeError(done.stderr.strip())
    made = load_file(folder / "out.safetensors")
    # `logits.i` a row, or `logits` with a row per image.
    def of(name: str, i: int) -> torch.Tensor:
        return made[f"{name}.{i}"] if f"{name}.{i}" in made else made[name][i]

    return [{name: of(name, i) for name in ("logits", "features")} for i in range(len(images))]


@torch.inference_mode()
def compare(args: argparse.Namespace, number: int) -> tuple[Case, dict[str, float]]:
    draw = random.Random(f"{args.seed} {number}")
    case = draw_case(draw, MOST_FLOPS[args.device])
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    model = randomise(CPVT(case.config), generator, case.storage)
    exact = copy.deepcopy(model).double()
    reduced = copy.deepcopy(model).to(DTYPES[args.dtype]) if args.dtype in DTYPES else None
    images = [torch.randn(case.config.in_chans, *size, generator=generator) for size in case.sizes]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(case, model, folder)
        try:
            got = run_engine(args, case, images, folder)
        except (RuntimeError, KeyError) as failure:
            raise RuntimeError(f"{case}\n{failure}") from failure
    errors = dict.fromkeys(("logits", "features", "engine - f64", "torch - f64"), 0.0)

    def note(what: str, found: float) -> None:
        errors[what] = math.inf if math.isnan(found) else max(errors.get(what, 0.0), found)

    for image, result in zip(images, got, strict=True):
        expected, truth = dict(model.stages(image[None])), dict(exact.stages(image[None].double()))
        for output in ("logits", "features"):
            wanted, true = expected[output][0], truth[output][0]
            ours = result[output].reshape(wanted.shape) if result[output].numel() == wanted.numel() else result[output]
            note(output, error(ours, wanted))
            note("engine - f64", error(ours, true))
            note("torch - f64", error(wanted, true))
        if reduced is not None:
            theirs = dict(reduced.stages(image[None].to(DTYPES[args.dtype])))
            for output in ("logits", "features"):
                note(f"torch's {output}", error(theirs[output][0].float(), expected[output][0]))
    return case, errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpvt", default="build/release/bin/cpvt", help="the program (default: %(default)s)")
    parser.add_argument("--cases", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case, to look at one again")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda", "sim"], default="cpu")
    parser.add_argument("--dtype", choices=["fp32", "fp16", "bf16"], default="fp32")
    args = parser.parse_args()
    bound = BOUNDS["cpu" if args.device == "cpu" else "cuda", args.dtype]
    torch.set_num_threads(args.threads)
    failures, worst = 0, {}
    reduced = f" {'torch in ' + args.dtype:>19}" if args.dtype in DTYPES else ""
    print(f"   #   logits features  cpvt-f64 torch-f64{reduced}  case")
    for number in range(args.first, args.first + args.cases):
        try:
            case, errors = compare(args, number)
        except RuntimeError as failure:
            failures += 1
            print(f"{number:4} FAILED {failure}", flush=True)
            continue
        good = errors["logits"] <= bound and errors["features"] <= bound
        failures += not good
        figures = " ".join(f"{value:9.1e}" for value in errors.values())
        print(f"{number:4}{figures}  {case}{'' if good else '   <-- FAILED'}", flush=True)
        for what, value in errors.items():
            worst[what] = max(worst.get(what, 0.0), value)
    print(f"{'max':>4}" + " ".join(f"{value:9.1e}" for value in worst.values()) + f"  {args.cases} cases")
    print(f"{failures} of {args.cases} failed; bound {bound:.0e}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
