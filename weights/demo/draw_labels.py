#!/usr/bin/env python3
"""Draws the bundled pictures with the labels that cpvt gives them: weights/demo/labels.svg, which README.md shows.

    python3 weights/demo/draw_labels.py [--cpvt build/release/bin/cpvt] [--model weights/demo/cpvt-gap]

Needs nothing but Python and a built cpvt. A label that is not the picture's class is red, with the class under it.
"""

import argparse
import base64
import json
import subprocess
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COLUMNS, SIDE, GAP, TEXT = 10, 84, 14, 40  # pixels
INK, RED, GREY = "#1f2328", "#b3261e", "#6e7781"


def class_of(picture: Path) -> str:
    """"04-coat-5261.png" -> "coat"; as extract_images.py names them."""
    return picture.stem[3:].rsplit("-", 1)[0].replace("ankle-boot", "ankle boot")


def cell(answer: dict, x: int, y: int) -> str:
    picture = Path(answer["image"])
    best = answer["topk"][0]
    right = best["label"] == class_of(picture)
    middle = x + SIDE / 2
    data = base64.b64encode(picture.read_bytes()).decode()
    label = f"{escape(best['label'])} {100 * best['probability']:.0f} %"
    parts = [
        f'<image x="{x}" y="{y}" width="{SIDE}" height="{SIDE}" href="data:image/png;base64,{data}"/>',
        f'<text x="{middle}" y="{y + SIDE + 14}" fill="{INK if right else RED}">{label}</text>',
    ]
    if not right:
        parts.append(f'<text x="{middle}" y="{y + SIDE + 28}" fill="{GREY}">is: {escape(class_of(picture))}</text>')
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpvt", default=str(ROOT / "build/release/bin/cpvt"))
    parser.add_argument("--model", default=str(HERE / "cpvt-gap"))
    args = parser.parse_args()
    pictures = sorted(map(str, (HERE / "images").glob("*.png")))
    command = [args.cpvt, "classify", args.model, *pictures, "--topk", "1", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()

    rows = -(-len(lines) // COLUMNS)
    width, height = COLUMNS * (SIDE + GAP) + GAP, rows * (SIDE + TEXT) + 2 * GAP
    # A class per column: the pictures come sorted by class, `rows` of each.
    cells = [
        cell(json.loads(line), GAP + (i // rows) * (SIDE + GAP), GAP + (i % rows) * (SIDE + TEXT))
        for i, line in enumerate(lines)
    ]
    (HERE / "labels.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11" text-anchor="middle" style="image-rendering: pixelated">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n' + "\n".join(cells) + "\n</svg>\n"
    )


if __name__ == "__main__":
    main()
