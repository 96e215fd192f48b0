#!/usr/bin/env python3
"""Makes tests/data/models: small networks with random weights, and what PyTorch makes of a few images of each.

    pip install torch timm safetensors && python3 tests/data/make_models.py

A case is a folder with config.json, model.safetensors and golden.safetensors, which holds per image I: `input.I`
[C, H, W], and what CPVT.stages() yields, computed in float32 on the image alone: `embedding.I`, `block.0.I`, `peg.J.I`
(after block J), `features.I` [tokens, D] and `logits.I` [classes]. models.json tells the versions that made them, and
per case how far PyTorch's float32 logits and features are from its own float64.
positions.safetensors has timm's position rows: `learned.S.table` [1, S*S, D], resampled to `learned.S.HxW` [H*W, D], and
`sincos.D.HxW` [H*W, D].
"""

import copy
import json
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import safetensors
import timm
import torch
from safetensors.torch import save_file
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "compare"))
from realistic import CPVT, STORAGE, Config, error, randomise  # noqa: E402

Size = tuple[int, int]


@dataclass
class Case:
    sizes: list[Size]
    config: Config
    storage: str = "f16"
    intermediates: bool = True


def case(sizes: list[Size], width: int, heads: int, depth: int, patch: int, *, storage: str = "f16",
         intermediates: bool = True, after: list[int] | None = None, kernel: int = 3, **keys) -> Case:
    keys = {"num_classes": 10, "global_pool": "avg", "img_size": 8 * patch, "pos_embed": "peg", **keys}
    peg = {"after": after or [], "kernel": kernel}
    config = Config(embed_dim=width, num_heads=heads, depth=depth, patch_size=patch, peg=peg, **keys)
    return Case(sizes, config, storage, intermediates)


TOKEN = {"global_pool": "token"}
GREY = {"in_chans": 1}
# Sizes go from the training grid over wide, tall and no multiple of the patch down to one token.
CASES = {
    "gap": case([(48, 48), (16, 16), (50, 37), (32, 95)], 64, 2, 1, 16, after=[0], img_size=64, **GREY),
    "gap-narrow-heads": case([(28, 28), (4, 4), (8, 60)], 40, 5, 1, 4, after=[0], mlp_ratio=2.0),
    "gap-five-pegs": case([(20, 24), (5, 33), (4, 4)], 24, 1, 6, 4, after=[0, 1, 2, 3, 4], kernel=5, **GREY),
    "gap-before-k27": case([(28, 28), (4, 4), (120, 8), (9, 130)], 24, 2, 1, 4, after=[-1], kernel=27, **GREY),
    "gap-k7-last": case([(40, 24), (8, 8)], 32, 1, 2, 8, after=[1], kernel=7, mlp_ratio=3.5),
    "gap-odd-width": case([(20, 20), (4, 7)], 33, 1, 2, 4, after=[-1, 1], kernel=3, storage="f32", num_classes=7),
    "gap-odd-heads": case([(24, 20), (4, 4)], 63, 3, 1, 4, after=[0], kernel=5, num_classes=1, **GREY),
    "gap-deep": case([(20, 20), (8, 40)], 24, 1, 12, 4, after=[0], mlp_ratio=2.0, **GREY),
    "token": case([(32, 32), (8, 8), (8, 72), (45, 29)], 64, 1, 2, 8, after=[0], **TOKEN),
    "token-six-pegs": case([(28, 20), (16, 26), (4, 4)], 24, 1, 6, 4, after=[0, 1, 2, 3, 4, 5], **TOKEN, **GREY),
    "token-before-k27": case([(36, 28), (4, 4), (4, 124)], 24, 1, 1, 4, after=[-1], kernel=27, **TOKEN, **GREY),
    "token-everywhere-k7": case([(28, 20), (12, 4)], 24, 3, 3, 4, after=[-1, 0, 2], kernel=7, **TOKEN, **GREY),
    "token-head-24": case([(42, 56), (14, 14), (15, 70)], 48, 2, 2, 14, after=[0], **TOKEN, **GREY, mlp_ratio=3.5),
    "token-head-80": case([(20, 20), (4, 4)], 80, 1, 1, 4, after=[-1], **TOKEN, **GREY, num_classes=37),
    "token-197": case([(112, 112)], 64, 1, 1, 8, after=[0], **TOKEN, **GREY, intermediates=False),
    "token-bf16": case([(28, 28), (6, 5)], 32, 1, 1, 4, after=[-1], **TOKEN, **GREY, storage="bf16"),
    # The training grid, up, down, one axis each way, a single token.
    "learned": case([(28, 28), (40, 44), (12, 12), (13, 60), (4, 4)], 32, 2, 1, 4, **TOKEN, **GREY, img_size=28,
                    pos_embed="learned"),
    # (16, 64) has as many tokens as the training grid, in another shape.
    "learned-gap": case([(32, 32), (72, 80), (16, 64), (8, 8), (70, 15)], 24, 1, 1, 8, img_size=33, **GREY,
                        pos_embed="learned"),
    "learned-patch-14": case([(42, 42), (14, 14), (100, 60)], 32, 2, 1, 14, **TOKEN, **GREY, img_size=42,
                             pos_embed="learned"),
    "sincos": case([(28, 28), (4, 400), (4, 4), (50, 21)], 32, 1, 1, 4, **TOKEN, **GREY, pos_embed="sincos"),
    "sincos-gap": case([(32, 48), (120, 8)], 32, 1, 1, 8, pos_embed="sincos"),
    "none": case([(28, 28), (4, 4), (8, 45)], 32, 1, 1, 4, **TOKEN, **GREY, pos_embed="none"),
    # An epsilon that matters.
    "none-gap-eps": case([(24, 40), (8, 8)], 40, 2, 1, 8, pos_embed="none", layer_norm_eps=0.1, **GREY),
}


def make(name: str, made: Case) -> dict:
    """Writes the case's folder; returns how far PyTorch's own float32 is from float64."""
    generator = torch.Generator().manual_seed(sorted(CASES).index(name))
    model = randomise(CPVT(made.config), generator, made.storage)
    exact = copy.deepcopy(model).double()
    golden, noise = {}, {"logits": 0.0, "features": 0.0}
    for i, size in enumerate(made.sizes):
        # Of the kind that normalised photographs are, in 16 bits exact: the file is half as large.
        image = torch.randn(made.config.in_chans, *size, generator=generator).half()
        golden[f"input.{i}"] = image
        with torch.inference_mode():
            expected = dict(model.stages(image.float()[None]))
            truth = dict(exact.stages(image.double()[None]))
        for output in noise:
            noise[output] = max(noise[output], error(expected[output], truth[output]))
        for stage, value in expected.items():
            kept = stage in ("embedding", "block.0") or stage.startswith("peg.")
            if stage in ("logits", "features") or (made.intermediates and kept):
                golden[f"{stage}.{i}"] = value[0].contiguous()
    folder = HERE / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(made.config.to_json(), indent=2) + "\n")
    weights = {k: v.to(STORAGE[made.storage]).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    save_file(golden, folder / "golden.safetensors")
    return {output: float(f"{value:.1e}") for output, value in noise.items()}


def make_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = {}
    for side in (1, 2, 7, 14):
        table = torch.randn(1, side * side, 3, generator=generator)
        rows[f"learned.{side}.table"] = table
        for grid in [(1, 1), (7, 7), (14, 14), (2, 2), (1, 4), (13, 3), (3, 29), (37, 5)]:
            resampled = resample_abs_pos_embed(table, list(grid), [side, side], 0)
            rows[f"learned.{side}.{grid[0]}x{grid[1]}"] = resampled[0].clone()
    for width, grid in [(4, (1, 1)), (8, (3, 5)), (60, (2, 3)), (192, (4, 2)), (12, (1, 250)), (12, (90, 1))]:
        rows[f"sincos.{width}.{grid[0]}x{grid[1]}"] = build_sincos2d_pos_embed(list(grid), width)
    save_file(rows, HERE / "models" / "positions.safetensors")


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(HERE / "models", ignore_errors=True)
    noise = {name: make(name, made) for name, made in CASES.items()}
    make_positions()
    versions = {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__,
                "safetensors": safetensors.__version__}
    about = {"made by": "tests/data/make_models.py", "versions": versions, "float32 against float64": noise}
    (HERE / "models" / "models.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    main()
