"""The reference model: CPVT and its position-encoding baselines in plain PyTorch, with timm's tensor names.

Trainer, exporter and golden maker all read this one file. Semantics: Chu et al., "Conditional Positional Encodings for
Vision Transformers" (ICLR 2023), sections 3.2 (PEG) and 3.3 (GAP); everything else as timm/models/vision_transformer.py.
"""

from dataclasses import asdict, dataclass, field

import torch
from timm.layers import build_sincos2d_pos_embed, resample_abs_pos_embed
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class Config:
    """The architecture keys of a model folder's config.json, by the same names; there each of them must be told."""

    embed_dim: int = 192
    depth: int = 12
    num_heads: int = 3
    mlp_ratio: float = 4
    patch_size: int = 16
    in_chans: int = 3
    num_classes: int = 1000
    global_pool: str = "token"  # or "avg"
    pos_embed: str = "peg"  # or "learned", "sincos", "none"
    peg: dict = field(default_factory=lambda: {"after": [0], "kernel": 3})
    layer_norm_eps: float = 1e-6
    img_size: int = 224

    @property
    def has_class_token(self) -> bool:
        return self.global_pool == "token"

    def to_json(self) -> dict:
        keys = asdict(self)
        if self.pos_embed != "peg":
            del keys["peg"]
        return {"architecture": "cpvt", **keys}


class PEG(nn.Module):
    """peg(x) = x + dwconv_k(x) + bias over the grid; the class token, when there is one, passes by."""

    def __init__(self, dim: int, kernel: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim))

    def forward(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        batch, rows, dim = x.shape
        height, width = grid
        first = rows - height * width
        tokens = x[:, first:].transpose(1, 2).reshape(batch, dim, height, width)
        tokens = (self.proj(tokens) + tokens).flatten(2).transpose(1, 2)
        return torch.cat([x[:, :first], tokens], 1)


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, rows, dim = x.shape
        q, k, v = self.qkv(x).view(batch, rows, 3, self.num_heads, dim // self.num_heads).permute(2, 0, 3, 1, 4)
        # Written out: PyTorch's fused bf16 kernel is ten times slower on CPUs at the demo's 49 tokens.
        x = ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(-1).to(v.dtype) @ v
        return self.proj(x.transpose(1, 2).reshape(batch, rows, dim))


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.norm1 = nn.LayerNorm(c.embed_dim, c.layer_norm_eps)
        self.attn = Attention(c.embed_dim, c.num_heads)
        self.norm2 = nn.LayerNorm(c.embed_dim, c.layer_norm_eps)
        self.mlp = Mlp(c.embed_dim, int(c.embed_dim * c.mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.proj = nn.Conv2d(c.in_chans, c.embed_dim, c.patch_size, c.patch_size)

    def forward(self, image: Tensor) -> tuple[Tensor, tuple[int, int]]:
        x = self.proj(image)
        return x.flatten(2).transpose(1, 2), tuple(x.shape[2:])


class CPVT(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.config = c
        self.patch_embed = PatchEmbed(c)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.embed_dim)) if c.has_class_token else None
        self.train_grid = (c.img_size // c.patch_size,) * 2
        if c.pos_embed == "learned":
            rows = self.train_grid[0] * self.train_grid[1] + c.has_class_token
            self.pos_embed = nn.Parameter(torch.zeros(1, rows, c.embed_dim))
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.depth))
        pegs = c.peg["after"] if c.pos_embed == "peg" else []
        self.pos_block = nn.ModuleList(PEG(c.embed_dim, c.peg["kernel"]) for _ in pegs)
        self.peg_after = {block: j for j, block in enumerate(pegs)}
        self.norm = nn.LayerNorm(c.embed_dim, c.layer_norm_eps)
        self.head = nn.Linear(c.embed_dim, c.num_classes)

    def initialise(self) -> "CPVT":
        """timm's ViT initialisation: truncated normal 0.02 for matrices and tables, zero biases."""
        for name, p in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(p)
            elif p.dim() == 2 or name in ("pos_embed", "cls_token"):
                nn.init.trunc_normal_(p, std=0.02)
        return self

    def position(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """x += pos_embed: a learned table resampled to the grid as timm does it, or sines and cosines made for it."""
        prefix = x.shape[1] - grid[0] * grid[1]
        if self.config.pos_embed == "learned":
            return x + resample_abs_pos_embed(self.pos_embed, list(grid), list(self.train_grid), prefix)
        if self.config.pos_embed == "sincos":
            return x + F.pad(build_sincos2d_pos_embed(list(grid), x.shape[2]).to(x.dtype), (0, 0, prefix, 0))
        return x

    def stages(self, image: Tensor):
        """Yields (name, value) for every intermediate that the goldens hold, the last being the logits."""
        x, grid = self.patch_embed(image)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        x = self.position(x, grid)
        yield "embedding", x
        if -1 in self.peg_after:
            x = self.pos_block[self.peg_after[-1]](x, grid)
            yield "peg.-1", x
        for i, block in enumerate(self.blocks):
            x = block(x)
            yield f"block.{i}", x
            if i in self.peg_after:
                x = self.pos_block[self.peg_after[i]](x, grid)
                yield f"peg.{i}", x
        x = self.norm(x)
        yield "features", x
        pooled = x[:, 0] if self.cls_token is not None else x.mean(1)
        yield "logits", self.head(pooled)

    def forward(self, image: Tensor) -> Tensor:
        for _, x in self.stages(image):
            pass
        return x
