#!/usr/bin/env python3
"""Makes tests/data/images: small pictures of every kind that cpvt reads, and what Pillow and timm make of them.

Needs Pillow, numpy, torch, torchvision, timm, and cjpeg (Debian: libjpeg-turbo-progs) for the samplings that Pillow does
not write. The tests only read the results: cases.json lists them, with the versions that made them.

Expected pictures are PNG files of 8-bit RGB or grey; that our reader gets those right is shown by plain.png, whose pixels
also lie beside it as bytes.
"""

import io
import json
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import PIL
import timm
import torch
import torchvision
from PIL import Image, ImageOps, features
from timm.data.transforms_factory import transforms_imagenet_eval

ROOM = Path(__file__).parent / "images"
rng = np.random.default_rng(20261124)
cases = {"decode": [], "transform": [], "normalise": []}


def picture(height, width, channels=3):
    """Waves, a few hard edges and a noisy corner, as uint8 [height, width, channels]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 120 * np.sin(0.11 * (c + 1) * x + 0.07 * (3 - c) * y + c) for c in range(channels)]
    pixels = np.stack(waves, -1)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = rng.integers(0, 256, channels)
    corner = pixels[: height // 3, : width // 3]
    corner += rng.normal(0, 40, corner.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def expect(name, image):
    """Writes an expected picture and returns its file name."""
    (ROOM / f"{name}.expected.png").write_bytes(encoded(image, "PNG", optimize=True))
    return f"{name}.expected.png"


def decode_case(file, data, *, warns=False, orientation=False):
    """An input file, and its pixels; with `orientation`, also those after EXIF's orientation was applied."""
    (ROOM / file).write_bytes(data)
    image = Image.open(io.BytesIO(data))
    case = {"file": file, "warns": warns, "pixels": expect(file, image.convert("RGB"))}
    if orientation:
        case["upright"] = expect(file + ".upright", ImageOps.exif_transpose(image).convert("RGB"))
    cases["decode"].append(case)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(samples, depth, colour_type, chunks=b"", interlaced=False):
    """A PNG file with exactly these samples [height, width, channels]; Pillow cannot write all of them."""
    height, width = samples.shape[:2]
    rows = b""
    for x, y, dx, dy in ADAM7 if interlaced else ((0, 0, 1, 1),):
        for row in samples[y::dy, x::dx]:
            if row.size == 0:
                continue
            bits = row.astype(np.uint16).reshape(-1, 1) >> np.arange(depth - 1, -1, -1) & 1
            rows += b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes()
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    data = chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


def make_jpegs():
    rgb = Image.fromarray(picture(37, 53))
    for sampling, name in enumerate(("444", "422", "420")):
        decode_case(f"{name}.jpg", encoded(rgb, "JPEG", quality=90, subsampling=sampling))
        decode_case(f"{name}_progressive.jpg",
                    encoded(Image.fromarray(picture(19, 35)), "JPEG", quality=60, subsampling=sampling, progressive=True))
    decode_case("rgb_components.jpg", encoded(rgb, "JPEG", quality=75, keep_rgb=True))
    decode_case("restarts.jpg", encoded(rgb, "JPEG", quality=80, restart_marker_blocks=3))
    decode_case("one_pixel.jpg", encoded(Image.fromarray(picture(1, 1)), "JPEG"))
    decode_case("one_row.jpg", encoded(Image.fromarray(picture(1, 41)), "JPEG"))
    decode_case("grey.jpg", encoded(Image.fromarray(picture(37, 53)[:, :, 0]), "JPEG"))
    cmyk = encoded(Image.fromarray(picture(29, 31, 4), "CMYK"), "JPEG", quality=90)
    decode_case("cmyk_adobe.jpg", cmyk)
    # Adobe's marker ends in its colour transform: 0 is CMYK as it is, 2 makes the same samples YCCK.
    at = cmyk.index(b"Adobe")
    assert cmyk[at + 11] == 0
    decode_case("ycck_adobe.jpg", cmyk[: at + 11] + b"\2" + cmyk[at + 12 :])
    decode_case("cmyk_plain.jpg", cmyk[: at - 4] + cmyk[at + 12 :])
    netpbm = encoded(Image.fromarray(picture(37, 53)), "PPM")
    for name, options in {"411": "-sample 4x1", "440": "-sample 1x2", "410": "-sample 4x2", "441": "-sample 1x4",
                          "mixed_sampling": "-sample 2x2,1x2,2x1", "arithmetic": "-arithmetic"}.items():
        command = ["cjpeg", "-quality", "85", *options.split()]
        decode_case(f"{name}.jpg", subprocess.run(command, input=netpbm, capture_output=True, check=True).stdout)
    # Bytes that belong to nothing, before a marker: libjpeg complains and goes on, and so does Pillow.
    restarts = encoded(rgb, "JPEG", quality=80, restart_marker_blocks=5)
    at = restarts.index(b"\xff\xd1")
    decode_case("junk_between.jpg", restarts[:at] + b"junk" + restarts[at:], warns=True)
    # A file that says it is complete and is not. (A progressive one is smoothed differently by each libjpeg-turbo.)
    whole = encoded(rgb, "JPEG", quality=90)
    decode_case("early_end.jpg", whole[: len(whole) // 2] + b"\xff\xd9", warns=True)


def make_pngs():
    plain = picture(37, 53)
    (ROOM / "plain.rgb").write_bytes(plain.tobytes())
    decode_case("plain.png", encoded(Image.fromarray(plain), "PNG"))
    palette = chunk(b"PLTE", rng.integers(0, 256, 3 * 256).astype(np.uint8).tobytes())
    for interlaced in (False, True):
        tail = "_interlaced.png" if interlaced else ".png"
        for depth in (1, 2, 4, 8):
            height, width = (11, 21) if interlaced else (9, 29)
            decode_case(f"grey{depth}{tail}",
                        png(picture(height, width, 1) >> (8 - depth), depth, 0, interlaced=interlaced))
            used = palette if depth == 8 else chunk(b"PLTE", palette[8 : 8 + 3 * 2**depth])
            decode_case(f"palette{depth}{tail}",
                        png(picture(height, width, 1) >> (8 - depth), depth, 3, used, interlaced))
        for colour_type, channels, name in ((2, 3, "rgb"), (4, 2, "grey_alpha"), (6, 4, "rgba")):
            for depth in (8, 16):
                samples = picture(13, 22, channels).astype(np.uint16)
                if depth == 16:
                    samples = samples * 256 + rng.integers(0, 256, samples.shape).astype(np.uint16)
                decode_case(f"{name}{depth}{tail}", png(samples, depth, colour_type, interlaced=interlaced))
        wide = picture(13, 22, 1).astype(np.uint16) * 3
        decode_case(f"grey16{tail}", png(wide, 16, 0, interlaced=interlaced), warns=True)
    decode_case("grey16_small_values.png", png(picture(13, 22, 1).astype(np.uint16), 16, 0))
    decode_case("palette_alpha.png", png(picture(9, 29, 1), 8, 3, palette + chunk(b"tRNS", bytes(range(256)))))
    decode_case("palette_short.png", png(picture(9, 29, 1) >> 4, 8, 3, chunk(b"PLTE", palette[8 : 8 + 3 * 7])))
    decode_case("grey_key.png", png(picture(9, 29, 1), 8, 0, chunk(b"tRNS", b"\0\x7f")))
    decode_case("rgb_key.png", png(picture(9, 29, 3), 8, 2, chunk(b"tRNS", b"\0\x7f\0\x40\0\x20")))
    decode_case("gamma_profile.png", png(picture(9, 29, 3), 8, 2, chunk(b"gAMA", struct.pack(">I", 100000))
                                         + chunk(b"iCCP", b"profile\0\0" + zlib.compress(b"no profile"))))
    frames = [Image.fromarray(picture(15, 20, 4), "RGBA") for _ in range(2)]
    decode_case("animated.png", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    decode_case("animated_cover.png",
                encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True))


def make_webps():
    rgb, rgba = Image.fromarray(picture(37, 53)), Image.fromarray(picture(37, 53, 4), "RGBA")
    decode_case("lossy.webp", encoded(rgb, "WEBP", quality=70))
    decode_case("lossless.webp", encoded(rgb, "WEBP", lossless=True))
    decode_case("lossy_alpha.webp", encoded(rgba, "WEBP", quality=70))
    decode_case("lossless_alpha.webp", encoded(rgba, "WEBP", lossless=True, exact=True))
    decode_case("one_pixel.webp", encoded(Image.fromarray(picture(1, 1)), "WEBP"))
    # The first frame of the animation covers a part of the canvas only: its border is transparent.
    part = Image.new("RGBA", (40, 30))
    part.paste(Image.fromarray(picture(16, 20, 4), "RGBA"), (8, 6))
    other = Image.fromarray(picture(30, 40, 4), "RGBA")
    decode_case("animated.webp", encoded(part, "WEBP", save_all=True, append_images=[other], quality=70, minimize_size=True))


def make_oriented():
    image = Image.fromarray(picture(9, 14))
    for orientation in range(1, 10):  # 9 is no orientation and does nothing
        exif = Image.Exif()
        exif[0x0112] = orientation
        decode_case(f"orientation{orientation}.jpg", encoded(image, "JPEG", exif=exif), orientation=True)
    for big_endian in (False, True):
        exif = Image.Exif()
        exif.endian = ">" if big_endian else "<"
        exif[0x010F] = "camera"
        exif[0x0112] = 6
        tail = "_big_endian" if big_endian else ""
        for kind in ("png", "webp"):
            options = {"lossless": True} if kind == "webp" else {}
            decode_case(f"orientation6{tail}.{kind}", encoded(image, kind.upper(), exif=exif.tobytes(), **options),
                        orientation=True)
    tiff = b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"
    plain = encoded(image, "PNG")
    decode_case("orientation_behind_pixels.png", plain[:-12] + chunk(b"eXIf", tiff) + plain[-12:], orientation=True)


def directory(entries, order="<", magic=b"II*\0"):
    """A TIFF file of one directory, of entries (type, count, the four bytes of the value) for the orientation."""
    head = magic + struct.pack(order + "IH", 8, len(entries))
    tags = b"".join(struct.pack(order + "HHI", 0x0112, kind, count) + value for kind, count, value in entries)
    return head + tags + bytes(4)


def make_orientation_places():
    """Where else orientation 6 may be told, or seems to be: what Pillow makes of it is what is expected."""
    image = Image.open(ROOM / "orientation6.png").convert("RGB")
    prefix, short6 = b"Exif\0\0", struct.pack("<HH", 6, 0)
    six, one = directory([(3, 1, short6)]), directory([(3, 1, struct.pack("<HH", 1, 0))])
    other = directory([]) # no orientation
    xmp_name = b"http://ns.adobe.com/xap/1.0/\0"
    attribute = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    element = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
    profile = prefix + six
    profile = b"\nexif\n%8d\n%s\n" % (len(profile), profile.hex().encode())
    xmp_text = b"XML:com.adobe.xmp\0\0\0\0\0"

    jpeg, plain = encoded(image, "JPEG", quality=90), encoded(image, "PNG")
    for name, segments in {
        "xmp": [xmp_name + attribute], "xmp_element": [xmp_name + element],
        "xmp_beside_exif": [prefix + other, xmp_name + attribute], "exif_over_xmp": [prefix + one, xmp_name + attribute],
        "exif_two": [prefix + six, prefix + one], "exif_prefix_twice": [prefix + prefix + six],
        "exif_count_0": [prefix + directory([(3, 0, short6)])],
        "exif_count_2": [prefix + directory([(3, 2, struct.pack("<HH", 6, 6))])],
        "exif_signed": [prefix + directory([(8, 1, short6)])], "exif_long": [prefix + directory([(9, 1, short6)])],
        "exif_byte": [prefix + directory([(1, 1, b"\6\0\0\0")]), xmp_name + attribute],
        "exif_cut": [prefix + six[:-6]],
        "exif_magic": [prefix + directory([(3, 1, struct.pack(">HH", 6, 0))], ">", b"MM*\0")],
    }.items():
        data = b"".join(b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment for segment in segments)
        decode_case(f"{name}.jpg", jpeg[:2] + data + jpeg[2:], orientation=True)
    for name, chunks in {
        "exif_prefix": chunk(b"eXIf", prefix + six), "exif_last": chunk(b"eXIf", one) + chunk(b"eXIf", six),
        "exif_profile": chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)),
        "exif_profile_plain": chunk(b"tEXt", b"Raw profile type exif\0" + profile),
        "xmp": chunk(b"iTXt", xmp_text + attribute), "xmp_element": chunk(b"iTXt", xmp_text + element),
        "exif_over_xmp": chunk(b"eXIf", one) + chunk(b"iTXt", xmp_text + attribute),
    }.items():
        decode_case(f"{name}.png", plain[:33] + chunks + plain[33:], orientation=True)
    decode_case("xmp.webp", encoded(image, "WEBP", lossless=True, xmp=attribute), orientation=True)


def transform_case(source, size, crop_pct, interpolation, grey=False):
    name = f"{source}.{size[0]}x{size[1]}.{crop_pct}.{interpolation}{'.grey' if grey else ''}"
    image = Image.open(ROOM / source).convert("L" if grey else "RGB")
    mean, std = ((0.5,), (0.25,)) if grey else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    transform = transforms_imagenet_eval(size, crop_pct=crop_pct, interpolation=interpolation, mean=mean, std=std)
    for step in transform.transforms[:-2]:  # all but ToTensor and Normalize
        image = step(image)
    case = {"file": source, "size": size, "crop_pct": crop_pct, "interpolation": interpolation, "grey": grey}
    cases["transform"].append(case | {"pixels": expect(name, image)})


def make_transforms():
    sources = {"wide.png": (61, 97), "tall.png": (173, 38), "small.png": (7, 11), "square.png": (64, 64)}
    for name, (height, width) in sources.items():
        (ROOM / name).write_bytes(encoded(Image.fromarray(picture(height, width)), "PNG", optimize=True))
        for interpolation in ("bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"):
            transform_case(name, (32, 32), 0.875, interpolation)
        transform_case(name, (32, 32), 1.0, "bicubic")
        transform_case(name, (33, 33), 0.9, "bicubic")
        transform_case(name, (24, 40), 0.875, "bicubic")
        transform_case(name, (41, 23), 0.95, "bilinear")
        transform_case(name, (28, 28), 1.3, "bicubic")  # resized to less than the crop: a black border
        transform_case(name, (32, 32), 0.875, "bicubic", grey=True)


def make_normalised():
    """All 256 values through ToTensor and Normalize, float32 [channels, 256]."""
    values = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)
    for channels, mean, std in ((3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), (1, (0.2860,), (0.3530,))):
        image = Image.fromarray(values.repeat(3, 2) if channels == 3 else values[:, :, 0])
        transform = transforms_imagenet_eval((1, 256), interpolation="nearest", mean=mean, std=std)
        planes = image
        for step in transform.transforms[-2:]:
            planes = step(planes)
        file = f"normalised{channels}.f32"
        (ROOM / file).write_bytes(planes.numpy().astype("<f4").tobytes())
        cases["normalise"].append({"channels": channels, "mean": mean, "std": std, "planes": file})


def main():
    ROOM.mkdir(exist_ok=True)
    for old in ROOM.iterdir():
        old.unlink()
    make_jpegs()
    make_pngs()
    make_webps()
    make_oriented()
    make_transforms()
    make_normalised()
    make_orientation_places()
    versions = {"Pillow": PIL.__version__, "timm": timm.__version__, "torch": torch.__version__,
                "torchvision": torchvision.__version__, "numpy": np.__version__}
    versions |= {name: features.version(name) for name in ("libjpeg_turbo", "webp", "zlib")}
    (ROOM / "cases.json").write_text(json.dumps({"versions": versions} | cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
