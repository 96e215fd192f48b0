"""Random weights under which a network behaves like a trained one: activations of order one at every depth, attention
that looks at some tokens much more than at others, biases, gammas, betas and position encodings that all matter."""

import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "weights" / "pytorch"))
from cpvt import CPVT, Config  # noqa: E402, F401

STORAGE = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
ATTENTION_SPREAD = 2.0  # standard deviation of the attention logits at the first block


def randomise(model: CPVT, generator: torch.Generator, storage: str = "f32") -> CPVT:
    """Fills every parameter, rounded to what the storage type can hold: a file of that type keeps the exact values."""
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if name.endswith("attn.qkv.weight"):
            # q.k / sqrt(head_dim) of rows with unit variance spreads by D * std^2.
            rows = p.shape[1]
            noise *= math.sqrt(ATTENTION_SPREAD / rows)
            noise[2 * rows :] *= 1 / math.sqrt(ATTENTION_SPREAD)
        elif "pos_block" in name and name.endswith("weight"):
            noise *= 0.7 / p.shape[-1]
        elif name == "pos_embed":
            noise *= 0.7
        elif "norm" in name and name.endswith("weight"):
            noise = 1 + 0.2 * noise
        elif name.endswith("bias"):
            noise *= 0.2
        elif p.dim() in (2, 4):
            noise /= math.sqrt(p[0].numel())
        p.data.copy_(noise.to(STORAGE[storage]).float())
    return model.eval()


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """max|got - expected| / max|expected|; NaN where anything is not finite."""
    if got.shape != expected.shape:
        return math.nan
    got, expected = got.double(), expected.double()
    if not (got.isfinite().all() and expected.isfinite().all()):
        return math.nan
    return ((got - expected).abs().max() / expected.abs().max()).item()
