#!/usr/bin/env python3
"""Checks what the exporter, weights/pytorch/export.py, refuses: each with a message that names it, and no file written.

    pip install torch timm safetensors && python3 tests/compare/exporter.py
"""

import contextlib
import io
import json
import sys
import tempfile
from pathlib import Path

import torch

from realistic import CPVT, Config, randomise

import export  # beside cpvt.py, whose folder realistic.py puts into the path

CONFIG = Config(
    embed_dim=64, depth=3, num_heads=2, num_classes=4, img_size=32, patch_size=8, peg={"after": [0, 2], "kernel": 3}
)
FLAGS = ["--num-heads", "2", "--peg-after", "0,2"]

# What is told: flags, or a config.json, or a file of labels; and what the message must hold.
REFUSED_FLAGS = [
    (["--num-heads", "0"], "num_heads: expected an integer from 1 to 65536, found 0"),
    (["--num-heads", "5"], "embed_dim 64 is no multiple of num_heads 5"),
    (["--img-size", "4"], "img_size: expected a patch of 8 at least, found 4"),
    (["--layer-norm-eps", "nan"], "layer_norm_eps: expected a number from 1e-12 to 0.1, found nan"),
    (["--peg-after", "-1,0,1"], "expected a PEG after each of blocks [-1, 0, 1], found 2"),
    (["--peg-after", "2,0"], "PEG places: expected strictly rising blocks from -1 to 2, found [2, 0]"),
    (["--crop-pct", "7"], "crop_pct: expected 0.01 to 1, found 7.0"),
    (["--std", "-1"], "std: expected numbers from 1e-06 to 1e+06, found [-1.0]"),
]
REFUSED_CONFIGS = [
    ({"pretrained_cfg": 3}, "config.json: pretrained_cfg: expected an object, found 3"),
    ({"pretrained_cfg": {"bogus": 1}}, "pretrained_cfg: unknown keys ['bogus']; read are mean, std"),
    ({"pretrained_cfg": {"mean": [0, "a", 0]}}, "mean: expected numbers from -1e+06 to 1e+06, found [0, 'a', 0]"),
    ({"pretrained_cfg": {"crop_pct": 7}}, "crop_pct: expected 0.01 to 1, found 7"),
    ({"pretrained_cfg": {"interpolation": "x"}}, "interpolation: expected one of nearest, box"),
    ({"pretrained_cfg": {"input_size": 32}}, "input_size: expected [channels, height, width], found 32"),
    ({"pretrained_cfg": {"input_size": [1, 32, 32]}}, "input_size: expected 3 channels, found [1, 32, 32]"),
    ({"img_size": 4}, "img_size: expected a patch of 8 at least, found 4"),
    ({"embed_dim": -1}, "embed_dim: expected an integer from 1 to 65536, found -1"),
    ({"depth": True}, "depth: expected an integer from 1 to 1024, found True"),
    ({"peg": {"after": "x"}}, "peg.after: expected a list of blocks from -1, found 'x'"),
    ({"peg": {"after": [0, "x"]}}, "peg.after: expected a list of blocks from -1, found [0, 'x']"),
    ({"peg": {"aftr": [0, 2]}}, "peg: unknown keys ['aftr']; known are after, kernel"),
    ({"peg": [0]}, "peg: expected a value like"),
    ({"global_pool": "max"}, "global_pool: expected one of token, avg, found 'max'"),
    ({"label_names": "abcd"}, "config.json: label names: expected a list of strings, found 'abcd'"),
    ({"label_names": []}, "label names: expected 4 strings, found 0"),
    ({"bogus": 1}, "config.json: unknown keys ['bogus']"),
    ('{"depth": 3, "depth": 3}', "config.json: the name 'depth' is used twice in one object"),
    ('{"mlp_ratio": NaN}', "config.json: expected JSON, found NaN"),
    ("[1]", "config.json: expected a JSON object, found list"),
]
REFUSED_LABELS = [
    ("labels.txt", b"\xff\xfe\x00", "labels.txt: cannot be read as a text with a label per line"),
    ("labels.txt", b"a\nb\n", "label names: expected 4 strings, found 2"),
    ("labels.json", b"{", "labels.json: cannot be read"),
    ("labels.json", b'["a", 1, "b", "c"]', "labels.json: label names: expected a list of strings"),
]


def run(words: list[str]) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            code = export.main(words)
        except SystemExit as e:  # argparse's way
            code = e.code
    return code, said.getvalue()


def main() -> int:
    wrong = 0

    def expect(what: object, good: bool, found: object) -> None:
        nonlocal wrong
        if not good:
            wrong += 1
            print(f"{what}: {found}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        state = randomise(CPVT(CONFIG), torch.Generator().manual_seed(0)).state_dict()
        torch.save(state, folder / "good.pth")
        gap = {name.replace("pos_block.1.", "pos_block.2."): value for name, value in state.items()}
        torch.save(gap, folder / "gap.pth")
        out = folder / "out"

        def refused(what: object, words: list[str], message: str) -> None:
            code, said = run([str(folder / "good.pth"), str(out), *words])
            expect(what, code == 2 and message in said and not out.exists(), (code, said))

        for flags, message in REFUSED_FLAGS:
            refused(flags, FLAGS + flags, message)
        for config, message in REFUSED_CONFIGS:
            (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
            refused(config, FLAGS[:2] + ["--config", str(folder / "config.json")], message)
        for file, content, message in REFUSED_LABELS:
            (folder / file).write_bytes(content)
            refused(content, FLAGS + ["--label-names", str(folder / file)], message)
        code, said = run([str(folder / "gap.pth"), str(out), *FLAGS])
        expect("gap", code == 2 and "expected pos_block.0 to pos_block.1, found [0, 2]" in said, (code, said))

        # And what is good passes, with every assumption said.
        code, said = run([str(folder / "good.pth"), str(out), *FLAGS])
        assumed = ("layer_norm_eps 1e-06 assumed", "img_size 224 assumed", "pictures assumed: input_size [3, 224, 224]")
        expect("assumptions", code == 0 and all(text in said for text in assumed), (code, said))
        described = json.loads((out / "config.json").read_text())
        code, said = run([str(folder / "good.pth"), str(out), "--config", str(out / "config.json")])
        expect("its own config.json", code == 0 and "assumed" not in said, (code, said))
        expect("its own config.json", described == json.loads((out / "config.json").read_text()), described)
        (folder / "labels.txt").write_text("a\nb\nc\nd\n")
        code, said = run([str(folder / "good.pth"), str(out), "--num-heads", "2", "--peg-after", "-1,0",
                          "--label-names", str(folder / "labels.txt"), "--mean", "-1,0,1"])  # fmt: skip
        expect("-1,0", code == 0 and json.loads((out / "config.json").read_text())["peg"]["after"] == [-1, 0], (code, said))
    cases = len(REFUSED_FLAGS) + len(REFUSED_CONFIGS) + len(REFUSED_LABELS) + 5
    print(f"{cases - wrong} of {cases} as expected")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
