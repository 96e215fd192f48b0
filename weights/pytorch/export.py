#!/usr/bin/env python3
"""Makes a model folder (config.json, model.safetensors) of a PyTorch checkpoint: CPVT, or a plain timm ViT/DeiT.

    export.py checkpoint.pth OUT                            everything is inferred from the tensors, and said
    export.py checkpoint.pth OUT --num-heads 6 --peg-after 0,1,2 --label-names labels.txt
    export.py checkpoint.pth OUT --config config.json       the architecture as config.json describes it
    export.py deit_tiny.pth OUT --timm deit_tiny_patch16_224    heads, eps and preprocessing as timm's model has them

CHECKPOINT is a .pth/.pt/.bin of tensors and plain containers (nothing in it is ever executed) or a .safetensors. The
result is loaded into the reference model (cpvt.py), strictly, and run once; with --timm its logits are also compared
with timm's own model. Needs torch, timm and safetensors.
"""

import argparse
import json
import math
import os
import pickle
import re
import sys
from pathlib import Path

import safetensors.torch
import timm
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from cpvt import CPVT, Config  # noqa: E402

HEAD_DIM = 64  # of every published ViT, DeiT and CPVT; the engine assumes the same (weights/infer.cc)
TRAINING_ONLY = {"mask_token", "n_averaged"}  # as weights/schema.cc has them
CONTAINERS = ("state_dict_ema", "model_ema", "state_dict", "model")  # in timm's order: timm/models/_helpers.py
PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")  # of torch.compile and DDP, nested either way
PREPARATION = ("mean", "std", "interpolation", "crop_pct", "input_size")  # what evaluation reads of pretrained_cfg
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
LIMITS = {  # as weights/config.cc has them
    "embed_dim": (1, 1 << 16),
    "depth": (1, 1024),
    "num_heads": (1, 1 << 16),
    "mlp_ratio": (0, 1 << 20),
    "patch_size": (1, 1024),
    "in_chans": (1, 1024),
    "num_classes": (1, 1 << 24),
    "layer_norm_eps": (1e-12, 1e-1),
    "img_size": (1, 1 << 16),
}
SHOWN = 8  # differences of each kind that a message spells out


class ExportError(Exception):
    """For the user: names the file or tensor, what was expected, what was found."""


def say(text: str) -> None:
    print(f"export: {text}", file=sys.stderr)


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors by name, out of whichever container holds them and without the wrappers' prefixes."""
    if not path.is_file():
        raise ExportError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            loaded = safetensors.torch.load_file(path)
        else:
            # Training scripts like to save their options beside the weights: a Namespace is a plain container too.
            with torch.serialization.safe_globals([argparse.Namespace]):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as e:
        needs = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        raise ExportError(f"{path}: expected tensors and plain containers only, found {', '.join(needs) or e}") from e
    except Exception as e:  # what is no pickle raises anything: KeyError, IndexError, EOFError without a word
        raise ExportError(f"{path}: cannot be read as a checkpoint: {type(e).__name__}: {e}") from e
    if not isinstance(loaded, dict):
        raise ExportError(f"{path}: expected a dictionary of tensors, found {type(loaded).__name__}")
    key = next((k for k in CONTAINERS if isinstance(loaded.get(k), dict)), None)
    if key is not None:
        loaded = loaded[key]
        say(f"weights taken from '{key}' of {path}")
    state: dict[str, Tensor] = {}
    for name, value in loaded.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ExportError(f"{path}: expected tensors by name, found {name!r}: {type(value).__name__}")
        short = name
        for prefix in PREFIXES:
            short = short.removeprefix(prefix)
        if short in state:
            raise ExportError(f"{path}: tensor '{short}' is there twice, with and without a wrapper's prefix")
        if short in TRAINING_ONLY:
            say(f"tensor '{name}' left out: only training reads it")
            continue
        state[short] = value
    return state


def shape_of(state: dict[str, Tensor], name: str, rank: int) -> list[int]:
    if name not in state:
        raise ExportError(f"no tensor '{name}': expected the tensors of a CPVT or a plain ViT, timm's names")
    shape = list(state[name].shape)
    if len(shape) != rank or 0 in shape:
        raise ExportError(f"tensor '{name}': expected {rank} extents, none of them 0, found {shape}")
    return shape


def peg_modules(state: dict[str, Tensor], blocks_of_list: list[int] | None) -> dict[int, str]:
    """The module that holds each PEG's convolution, by the block that it follows, in the order of blocks.

    `blocks_of_list` says which blocks the PEGs of pos_block.J (or the only one, peg) follow; without it, the J-th
    follows block J, as in the original code.
    """
    listed: dict[int, str] = {}
    following: dict[int, str] = {}
    for name in state:
        if match := re.fullmatch(r"((?:pos_block\.(\d+)\.proj|peg|peg\.proj)(?:\.0)?)\.weight", name):
            listed[int(match[2] or 0)] = match[1]
        elif match := re.fullmatch(r"(blocks\.(\d+)\.peg(?:\.proj)?(?:\.0)?)\.weight", name):
            following[int(match[2])] = match[1]
    if listed and following:
        raise ExportError(f"PEGs are named in two ways, like '{min(listed.values())}' and '{min(following.values())}'")
    if following:
        if blocks_of_list not in (None, sorted(following)):
            raise ExportError(f"expected PEGs after blocks {blocks_of_list}, found them in {sorted(following)}")
        return dict(sorted(following.items()))
    if sorted(listed) != list(range(len(listed))):
        raise ExportError(f"PEGs: expected pos_block.0 to pos_block.{len(listed) - 1}, found {sorted(listed)}")
    blocks = list(range(len(listed))) if blocks_of_list is None else blocks_of_list
    if listed and blocks_of_list is None:
        say(f"PEG assumed to follow block {', '.join(map(str, blocks))} (say otherwise with --peg-after)")
    if len(blocks) != len(listed):
        raise ExportError(f"expected a PEG after each of blocks {blocks}, found {len(listed)} in the checkpoint")
    return dict(zip(blocks, (listed[j] for j in sorted(listed)), strict=True))


def infer(state: dict[str, Tensor], told: dict) -> tuple[Config, dict[int, str]]:
    """The configuration that the shapes imply, what was told going first, and where the PEGs are."""
    dim, in_chans, patch, _ = shape_of(state, "patch_embed.proj.weight", 4)
    hidden = shape_of(state, "blocks.0.mlp.fc1.weight", 2)[0]
    token = "cls_token" in state
    found = {
        "embed_dim": dim,
        "depth": 1 + max(int(m[1]) for m in (re.match(r"blocks\.(\d+)\.", name) for name in state) if m),
        "mlp_ratio": hidden / dim if hidden % dim else hidden // dim,
        "patch_size": patch,
        "in_chans": in_chans,
        "num_classes": shape_of(state, "head.weight", 2)[0],
        "global_pool": "token" if token else "avg",
    }
    if int(dim * found["mlp_ratio"]) < hidden:  # the quotient was rounded down, and int() rounds down once more
        found["mlp_ratio"] = math.nextafter(found["mlp_ratio"], math.inf)
    if "num_heads" not in told:
        if dim % HEAD_DIM:
            raise ExportError(f"embed_dim {dim} is no multiple of {HEAD_DIM}: say the heads with --num-heads")
        found["num_heads"] = dim // HEAD_DIM
        say(f"{found['num_heads']} heads assumed: of {HEAD_DIM} channels each (say otherwise with --num-heads)")

    pegs = peg_modules(state, told.get("peg", {}).get("after"))
    if pegs:
        weight = f"{next(iter(pegs.values()))}.weight"
        found |= {"pos_embed": "peg", "peg": {"after": list(pegs), "kernel": shape_of(state, weight, 4)[2]}}
    elif "pos_embed" in state:
        rows = shape_of(state, "pos_embed", 3)[1] - token
        if math.isqrt(rows) ** 2 != rows:
            raise ExportError(
                f"tensor 'pos_embed': expected the rows of a square grid{' and one for the class token' if token else ''}, "
                f"found {list(state['pos_embed'].shape)}"
            )
        found |= {"pos_embed": "learned", "img_size": math.isqrt(rows) * patch}
    elif "pos_embed" not in told:
        raise ExportError("neither a PEG nor 'pos_embed' in the checkpoint: say --pos-embed sincos or none")
    config = Config(**{**found, **told, **({"peg": found["peg"]} if "peg" in found else {})})
    for key in ("layer_norm_eps", "img_size"):
        if key not in told and key not in found:
            say(f"{key} {getattr(config, key)} assumed (say otherwise with --{key.replace('_', '-')})")
    if config.img_size < config.patch_size:
        raise ExportError(f"img_size: expected a patch of {config.patch_size} at least, found {config.img_size}")
    if config.embed_dim % config.num_heads:
        raise ExportError(f"embed_dim {config.embed_dim} is no multiple of num_heads {config.num_heads}")
    if config.pos_embed == "peg":
        if told.get("peg", {}).get("kernel", config.peg["kernel"]) != config.peg["kernel"]:
            raise ExportError(f"peg.kernel: expected {told['peg']['kernel']}, found {config.peg['kernel']} in the tensors")
        check_pegs(config)
    return config, pegs


def check_pegs(config: Config) -> None:
    after, kernel = config.peg["after"], config.peg["kernel"]
    if kernel % 2 == 0 or not 3 <= kernel <= 27:
        raise ExportError(f"PEG kernel: expected an odd size from 3 to 27, found {kernel}")
    if not after or after != sorted(set(after)) or not -1 <= after[0] <= after[-1] < config.depth:
        raise ExportError(f"PEG places: expected strictly rising blocks from -1 to {config.depth - 1}, found {after}")


def canonical(state: dict[str, Tensor], config: Config, pegs: dict[int, str]) -> dict[str, Tensor]:
    """The same tensors under the schema's names."""
    renamed = {
        f"{module}.{part}": f"pos_block.{j}.proj.0.{part}"
        for j, module in enumerate(pegs.values())
        for part in ("weight", "bias")
    }
    tensors = {renamed.get(name, name): value for name, value in state.items()}
    biases = [f"blocks.{i}.attn.qkv.bias" for i in range(config.depth)]
    if not any(name in tensors for name in biases):
        say("no attn.qkv.bias in any block: zeros written, which are the same network")
        tensors |= {name: torch.zeros(3 * config.embed_dim) for name in biases}
    return tensors


def check_tensors(tensors: dict[str, Tensor], model: CPVT) -> None:
    """Every difference from the reference model's tensors, in one message."""
    expected = {name: list(value.shape) for name, value in model.state_dict().items()}
    wrong = [
        f"tensor '{name}': expected {expected[name]}, found {list(value.shape)}"
        for name, value in tensors.items()
        if name in expected and list(value.shape) != expected[name]
    ]
    wrong += [
        f"tensor '{name}': expected floating point, found {value.dtype}"
        for name, value in tensors.items()
        if name in expected and value.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    ]
    missing = [f"missing tensor '{name}' {shape}" for name, shape in expected.items() if name not in tensors]
    unknown = [f"unknown tensor '{n}': {v.dtype} {list(v.shape)}" for n, v in tensors.items() if n not in expected]
    if wrong or missing or unknown:
        lines = []
        for kind, some in (("mismatches", wrong), ("missing", missing), ("unknown", unknown)):
            lines += some[:SHOWN] + ([f"and {len(some) - SHOWN} more {kind}"] if len(some) > SHOWN else [])
        raise ExportError("the tensors are not those of this model:\n  " + "\n  ".join(lines))
    for name, value in tensors.items():
        # As the engine will have it: in float32.
        if not torch.isfinite(value.float()).all():
            raise ExportError(f"tensor '{name}': expected finite float32 values, found others")


def timm_model(name: str, num_classes: int):
    try:
        model = timm.create_model(name, num_classes=num_classes).eval()
    except (RuntimeError, ValueError, TypeError) as e:
        raise ExportError(f"--timm {name}: {e}") from e
    if not isinstance(model, timm.models.VisionTransformer):
        raise ExportError(f"--timm {name}: expected a VisionTransformer, found {type(model).__name__}")
    return model


def check_forward(model: CPVT, like) -> None:
    """Runs the reference model, and where timm's own model is at hand, that too."""
    config = model.config
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(2, config.in_chans, config.img_size, config.img_size, generator=generator)
    with torch.inference_mode():
        logits = model(image)
        if not torch.isfinite(logits).all():
            raise ExportError("the exported model's logits are not finite")
        if like is not None:
            expected = like(image)
            error = ((logits - expected).abs().max() / expected.abs().max()).item()
            say(f"logits equal timm's within {error:.1e} of the largest")
            if not error <= 1e-4:
                raise ExportError(f"the logits differ from timm's by {error:.1e} of the largest: not the same network")


def pretrained_cfg(config: Config, told: dict) -> dict:
    """The keys of timm's pretrained_cfg that evaluation reads; defaults are those of CPVT and DeiT."""
    if told.get("crop_mode", "center") != "center":
        raise ExportError(f"crop_mode: expected 'center', the only one supported, found {told['crop_mode']!r}")
    size = [config.in_chans, config.img_size, config.img_size]
    result = {"input_size": size, "interpolation": "bicubic", "crop_pct": 0.9}
    if config.in_chans == 3:
        result |= {"mean": timm.data.IMAGENET_DEFAULT_MEAN, "std": timm.data.IMAGENET_DEFAULT_STD}
    told = {key: told[key] for key in PREPARATION if told.get(key) is not None}
    if assumed := [f"{key} {value}" for key, value in result.items() if key not in told]:
        say(f"preparation of pictures assumed: {', '.join(assumed)}")
    result |= told
    for key in ("mean", "std"):
        if key in result and len(result[key]) not in (1, config.in_chans):
            raise ExportError(f"{key}: expected {config.in_chans} values or one, found {len(result[key])}")
    if result["input_size"][0] != config.in_chans:
        raise ExportError(f"input_size: expected {config.in_chans} channels, found {list(result['input_size'])}")
    return result


def read_json(path: Path):
    """As strict as the engine's reader: no name twice, no NaN."""

    def unique(pairs: list) -> dict:
        names = [name for name, _ in pairs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ExportError(f"{path}: the name {twice!r} is used twice in one object")
        return dict(pairs)

    def refuse(constant: str):
        raise ExportError(f"{path}: expected JSON, found {constant}")

    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique, parse_constant=refuse)
    except (OSError, ValueError) as e:
        raise ExportError(f"{path}: cannot be read: {e}") from e


def read_labels(path: Path) -> list[str]:
    if path.suffix == ".json":
        return check_labels(read_json(path), path)
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as e:
        raise ExportError(f"{path}: cannot be read as a text with a label per line: {e}") from e


def check_labels(labels, origin: Path) -> list[str]:
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ExportError(f"{origin}: label names: expected a list of strings, found {labels!r:.80}")
    return labels


def is_number(value, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high


def is_integer(value, low: int, high: int) -> bool:
    return is_number(value, low, high) and isinstance(value, int)


def check_peg_told(peg: dict) -> None:
    if unknown := sorted(set(peg) - {"after", "kernel"}):
        raise ExportError(f"peg: unknown keys {unknown}; known are after, kernel")
    after = peg.get("after", [])
    if not isinstance(after, list) or not all(is_integer(block, -1, 1023) for block in after):
        raise ExportError(f"peg.after: expected a list of blocks from -1, found {after!r:.80}")
    if "kernel" in peg and not is_integer(peg["kernel"], 3, 27):
        raise ExportError(f"peg.kernel: expected an integer from 3 to 27, found {peg['kernel']!r:.80}")


def check_architecture_told(told: dict) -> None:
    """What config file and flags say of the network, before anything is made of it."""
    defaults = vars(Config())
    for key, value in told.items():
        if key in LIMITS:
            low, high = LIMITS[key]
            whole = isinstance(defaults[key], int) and key != "mlp_ratio"
            if not (is_integer if whole else is_number)(value, low, high):
                raise ExportError(f"{key}: expected {'an integer' if whole else 'a number'} from {low} to {high}, found {value!r:.80}")
        elif not isinstance(value, type(defaults[key])):
            raise ExportError(f"{key}: expected a value like {defaults[key]!r}, found {value!r:.80}")
    check_peg_told(told.get("peg", {}))
    for key, known in (("global_pool", ("token", "avg")), ("pos_embed", ("peg", "learned", "sincos", "none"))):
        if told.get(key, known[0]) not in known:
            raise ExportError(f"{key}: expected one of {', '.join(known)}, found {told[key]!r:.80}")


def check_preparation_told(told: dict) -> None:
    """What config file and flags say of pictures; the keys of timm's that only describe are read over."""
    known = set(timm.models.PretrainedCfg.__dataclass_fields__) | {"architecture"}
    if unknown := sorted(set(told) - known):
        raise ExportError(f"pretrained_cfg: unknown keys {unknown}; read are {', '.join(PREPARATION)}, crop_mode")
    for key, low in (("mean", -1e6), ("std", 1e-6)):
        values = told.get(key, [0.5])
        if not isinstance(values, (list, tuple)) or not all(is_number(value, low, 1e6) for value in values):
            raise ExportError(f"{key}: expected numbers from {low:g} to 1e+06, found {values!r:.80}")
    if not is_number(told.get("crop_pct", 1), 0.01, 1):
        raise ExportError(f"crop_pct: expected 0.01 to 1, found {told['crop_pct']!r:.80}")
    if told.get("interpolation", "bicubic") not in INTERPOLATIONS:
        raise ExportError(f"interpolation: expected one of {', '.join(INTERPOLATIONS)}, found {told['interpolation']!r:.80}")
    size = told.get("input_size", [1, 1, 1])
    if not isinstance(size, (list, tuple)) or len(size) != 3 or not all(is_integer(side, 1, 1 << 16) for side in size):
        raise ExportError(f"input_size: expected [channels, height, width], found {size!r:.80}")


def told_by(args: argparse.Namespace) -> tuple[dict, dict, list[str] | None]:
    """What config file and flags say, flags going first: of the architecture, of the preprocessing, the labels."""
    architecture: dict = {}
    images: dict = {}
    labels = None
    if args.config is not None:
        document = read_json(args.config)
        if not isinstance(document, dict):
            raise ExportError(f"{args.config}: expected a JSON object, found {type(document).__name__}")
        if document.pop("architecture", "cpvt") not in ("cpvt", "vit", "deit"):
            raise ExportError(f"{args.config}: expected architecture cpvt, vit or deit (timm's names go to --timm)")
        images = document.pop("pretrained_cfg", {})
        if not isinstance(images, dict):
            raise ExportError(f"{args.config}: pretrained_cfg: expected an object, found {images!r:.80}")
        if "label_names" in document:
            labels = check_labels(document.pop("label_names"), args.config)
        for key in ("_comment", "model_name", "label_descriptions"):  # these only describe
            document.pop(key, None)
        if unknown := set(document) - set(Config.__dataclass_fields__):
            raise ExportError(f"{args.config}: unknown keys {sorted(unknown)}")
        architecture = document
    flags = ("num_heads", "pos_embed", "layer_norm_eps", "img_size")
    architecture |= {k: v for k in flags if (v := getattr(args, k)) is not None}
    if args.peg_after is not None:
        architecture["peg"] = {"after": args.peg_after}
    images |= {k: v for k in ("mean", "std", "interpolation", "crop_pct") if (v := getattr(args, k)) is not None}
    if args.label_names is not None:
        labels = read_labels(args.label_names)
    check_architecture_told(architecture)
    check_preparation_told(images)
    return architecture, images, labels


def write_folder(folder: Path, tensors: dict[str, Tensor], description: dict) -> None:
    """Each file is written beside its place and renamed: a reader never sees half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{os.getpid()}.partial"
    try:
        # Cloned: tensors of a checkpoint may be views of one storage, which the format cannot say.
        plain = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
        safetensors.torch.save_file(plain, partial, {"format": "pt"})
        partial.chmod(0o644)
        partial.replace(folder / "model.safetensors")
        partial.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        partial.replace(folder / "config.json")
    finally:
        partial.unlink(missing_ok=True)


def export(args: argparse.Namespace) -> None:
    state = read_checkpoint(args.checkpoint)
    told, images, labels = told_by(args)
    like = None
    if args.timm is not None:
        like = timm_model(args.timm, shape_of(state, "head.weight", 2)[0])
        told = {"num_heads": like.blocks[0].attn.num_heads, "layer_norm_eps": like.norm.eps} | told
        images = {k: v for k, v in like.pretrained_cfg.items() if k != "input_size"} | images
    config, pegs = infer(state, told)
    tensors = canonical(state, config, pegs)
    model = CPVT(config).eval()
    check_tensors(tensors, model)
    model.load_state_dict(tensors, strict=True)
    if like is not None:
        # The same tensors have the same names there; img_size, and with it pos_embed, may differ.
        if like.patch_embed.img_size != (config.img_size, config.img_size):
            like.set_input_size(img_size=config.img_size)
        like.load_state_dict(tensors, strict=True)
    check_forward(model, like)
    description = config.to_json()
    if labels is not None:
        if len(labels) != config.num_classes:
            raise ExportError(f"label names: expected {config.num_classes} strings, found {len(labels)}")
        description["label_names"] = labels
    description["pretrained_cfg"] = pretrained_cfg(config, images)
    write_folder(args.out, tensors, description)
    say(f"{args.out}: {sum(v.numel() for v in tensors.values()):,} parameters in {len(tensors)} tensors")


def numbers(kind):
    return lambda text: [kind(part) for part in text.split(",")]


def joined(words: list[str]) -> list[str]:
    """argparse takes the value of "--peg-after -1,0" for a flag; not that of "--peg-after=-1,0"."""
    result: list[str] = []
    for word in words:
        if result and result[-1] in ("--peg-after", "--mean", "--std") and re.match(r"-[\d.]", word):
            result[-1] += f"={word}"
        else:
            result.append(word)
    return result


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path, help="the model folder to make")
    parser.add_argument("--config", type=Path, help="architecture, labels and preprocessing as in a config.json")
    parser.add_argument("--timm", metavar="NAME", help="the timm model that the checkpoint belongs to")
    parser.add_argument("--num-heads", type=int)
    parser.add_argument("--peg-after", type=numbers(int), metavar="I,I…", help="blocks that PEGs follow; -1: before the first")
    parser.add_argument("--pos-embed", choices=("sincos", "none"), help="where the tensors do not tell it")
    parser.add_argument("--layer-norm-eps", type=float)
    parser.add_argument("--img-size", type=int, help="side of the images that the model was trained at")
    parser.add_argument("--label-names", type=Path, help="a text file with a name per line, or a .json list")
    parser.add_argument("--mean", type=numbers(float), metavar="R,G,B")
    parser.add_argument("--std", type=numbers(float), metavar="R,G,B")
    parser.add_argument("--interpolation", choices=INTERPOLATIONS)
    parser.add_argument("--crop-pct", type=float)
    try:
        export(parser.parse_args(joined(words)))
    except (ExportError, OSError) as e:
        say(str(e))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
