#!/usr/bin/env python3
"""Checks the reference model, weights/pytorch/cpvt.py, against timm's VisionTransformer on the same random weights.

    pip install torch timm && python3 tests/compare/reference_against_timm.py

Learned, no and sine-cosine positions (added by hand to timm's network, whose plain ViT has none), class token and mean,
at the training size and away from it. Where timm has nothing (PEG), against the paper's formula, written as loops.
"""

import itertools
import sys

import torch
from timm.layers import build_sincos2d_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from realistic import CPVT, Config, error, randomise

BOUND = 2e-6  # both sides round in float32
SIZES = [(56, 56), (28, 42), (14, 14), (100, 61), (70, 140)]
GRIDS = [(5, 7), (1, 1), (1, 40), (33, 2)]


def timm_twin(model: CPVT) -> VisionTransformer:
    """timm's network with the same weights. With a mean, timm norms after it unless told not to (fc_norm)."""
    c = model.config
    twin = VisionTransformer(
        img_size=c.img_size, patch_size=c.patch_size, in_chans=c.in_chans, num_classes=c.num_classes,
        global_pool=c.global_pool, embed_dim=c.embed_dim, depth=c.depth, num_heads=c.num_heads, mlp_ratio=c.mlp_ratio,
        class_token=c.has_class_token, pos_embed="learn" if c.pos_embed == "learned" else "none", fc_norm=False,
        dynamic_img_size=True)
    twin.load_state_dict(model.state_dict())
    if c.pos_embed == "sincos":
        # timm's trunk, between whose embedding and blocks a timm table of positions is put.
        def position(x: torch.Tensor) -> torch.Tensor:
            grid = x.shape[1:3]
            x = x.flatten(1, 2) + build_sincos2d_pos_embed(list(grid), c.embed_dim)
            return x if twin.cls_token is None else torch.cat([twin.cls_token.expand(len(x), -1, -1), x], 1)

        twin._pos_embed = position
    return twin.eval()


def peg_by_loops(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    height, width = grid
    first, reach = x.shape[1] - height * width, weight.shape[-1] // 2
    y = x.clone()
    for row, column in itertools.product(range(height), range(width)):
        at = first + row * width + column
        y[:, at] += bias
        for dy, dx in itertools.product(range(-reach, reach + 1), repeat=2):
            if 0 <= row + dy < height and 0 <= column + dx < width:
                y[:, at] += weight[:, 0, reach + dy, reach + dx] * x[:, at + dy * width + dx]
    return y


def report(what: str, found: float) -> bool:
    good = found <= BOUND  # False for NaN
    print(f"{'ok  ' if good else 'FAIL'} {found:.1e} {what}")
    return good


@torch.inference_mode()
def main() -> int:
    generator = torch.Generator().manual_seed(0)
    good = True
    for positions, pool in itertools.product(("learned", "none", "sincos"), ("token", "avg")):
        config = Config(embed_dim=64, depth=3, num_heads=2, patch_size=14, num_classes=10, img_size=56,
                        mlp_ratio=3.5, pos_embed=positions, global_pool=pool)
        model = randomise(CPVT(config), generator)
        twin = timm_twin(model)
        for size in SIZES:
            image = torch.randn(2, 3, *size, generator=generator)
            stages = dict(model.stages(image))
            whole = image[..., : size[0] // 14 * 14, : size[1] // 14 * 14]  # timm refuses what our convolution floors
            text = f"{positions} {pool} {size[0]}x{size[1]}"
            good &= report(f"{text} features", error(stages["features"], twin.forward_features(whole)))
            good &= report(f"{text} logits", error(stages["logits"], twin(whole)))
    for kernel, pool, grid in itertools.product((3, 7, 27), ("token", "avg"), GRIDS):
        config = Config(embed_dim=12, depth=1, num_heads=1, patch_size=4, num_classes=3, global_pool=pool,
                        peg={"after": [-1, 0], "kernel": kernel})
        model = randomise(CPVT(config), generator)
        stages = dict(model.stages(torch.randn(1, 3, 4 * grid[0], 4 * grid[1], generator=generator)))
        for j, (before, after) in enumerate([("embedding", "peg.-1"), ("block.0", "peg.0")]):
            conv = model.pos_block[j].proj[0]
            expected = peg_by_loops(stages[before], conv.weight, conv.bias, grid)
            good &= report(f"PEG {kernel} {after} {pool} {grid[0]}x{grid[1]}", error(stages[after], expected))
        normed = F.layer_norm(stages["peg.0"], (12,), model.norm.weight, model.norm.bias, 1e-6)
        pooled = normed[:, 0] if pool == "token" else normed.mean(1)
        good &= report(f"head {pool}", error(stages["logits"], model.head(pooled)))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
