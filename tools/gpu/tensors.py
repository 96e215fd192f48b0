"""safetensors files by PyTorch alone: the machine with the GPU may have nothing else.

Format: 8 bytes of length, little-endian; that much JSON, {name: {dtype, shape, data_offsets}}; the data.
"""

import ctypes
import json
import struct
from pathlib import Path

import torch

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
          "I64": torch.int64, "I32": torch.int32, "U8": torch.uint8}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}


def save_file(tensors: dict[str, torch.Tensor], path: Path | str) -> None:
    header, pieces, at = {}, [], 0
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        data = ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size())
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        pieces.append(data)
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for piece in pieces:
            file.write(piece)


def load_file(path: Path | str) -> dict[str, torch.Tensor]:
    data = bytearray(Path(path).read_bytes())
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        if begin == end:
            tensors[name] = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
            continue
        # Of a copy: the data need not be aligned in the file.
        tensors[name] = torch.frombuffer(data[begin:end], dtype=DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
