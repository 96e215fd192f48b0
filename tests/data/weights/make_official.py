"""Makes official.safetensors, what the format's own package writes; its values are spelled out in safetensors_test.cc.

Made with safetensors 0.8.0, torch 2.15.0.  python make_official.py
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

ramp = torch.arange(6, dtype=torch.float64).reshape(2, 3) * 0.5 - 1  # exact in every float type
save_file(
    {
        "f32": ramp.float(),
        "f16": ramp.half(),
        "bf16": ramp.bfloat16(),
        "f64": ramp,
        "scalar": torch.tensor(3.25),
        "empty": torch.zeros(0, 3),
        "bool": torch.tensor([True, False, True]),
        "u8": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "i64": torch.tensor([-1, 1]),
        "f8": ramp.to(torch.float8_e4m3fn),
        "c64": torch.tensor([1 + 2j]),
        "grün/ü\t\"quoted\"": torch.tensor([7.0]),
    },
    Path(__file__).with_name("official.safetensors"),
    {"format": "pt", "note": "ünï"},
)
