#!/usr/bin/env python3
"""Records small odd pictures and the pixels Pillow reads from them, and what Pillow and OpenCV make of some of them.

Writes tests/parity/fixtures/images/: the files, expected.txt (a line each: name, width, height, channels) and
expected.raw (the pixels one after the other, upright, RGB or RGBA). What Pillow cannot write (16-bit colour, Adam7) is
written here, byte by byte; what it reads with less than the file holds (16 bits) is taken from the source instead.
operations.txt and operations.raw are the same for resizing, blurring and the like: the line begins with the operation
and its arguments. parameters_* carry PARAMETERS as A1111 stores them.
"""
import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

OUT = Path(__file__).resolve().parents[2] / "tests/parity/fixtures/images"
WIDTH, HEIGHT = 21, 13
EXIF_ORIENTATION, EXIF_FOLDER, EXIF_USER_COMMENT = 0x0112, 0x8769, 0x9286
PARAMETERS = "a caf\u00e9 \u2615 and a \U0001f431\nNegative prompt: blurry\nSteps: 28, Sampler: Euler, Seed: 1"
FILTERS = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC,
           "lanczos": Image.Resampling.LANCZOS}
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def scene(channels: int, depth: int = 8) -> np.ndarray:
    """Gradients with a hard corner and some noise; no two rows or columns are alike."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    planes = [x / WIDTH, y / HEIGHT, 0.5 + 0.5 * np.sin(x * 0.7 + y), (x + 2 * y) / (WIDTH + 2 * HEIGHT)]
    values = np.stack(planes[:channels], axis=-1)
    values[:5, :7] = 1 - values[:5, :7]
    values += np.random.default_rng(channels).normal(0, 0.02, values.shape)
    top = 2**depth - 1
    return (values.clip(0, 1) * top).round().astype(np.uint16 if depth > 8 else np.uint8)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(pixels: np.ndarray, colour: int, depth: int, extra: list = (), interlaced: bool = False) -> bytes:
    """pixels [H, W, C]; depth 8 or 16, or 1, 2 and 4 for one channel."""
    def rows(part):
        if depth == 16:
            packed = [row.astype(">u2").tobytes() for row in part]
        elif depth == 8:
            packed = [row.astype(np.uint8).tobytes() for row in part]
        else:
            bits = [[(int(v) >> b) & 1 for v in row.reshape(-1) for b in reversed(range(depth))] for row in part]
            packed = [np.packbits(row).tobytes() for row in bits]
        return b"".join(b"\0" + row for row in packed)

    passes = [pixels[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [pixels]
    data = b"".join(rows(part) for part in passes if part.size)
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, colour, 0, 0, int(interlaced))
    chunks = [chunk(b"IHDR", header), *(chunk(*each) for each in extra), chunk(b"IDAT", zlib.compress(data, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def to_8_bits(pixels: np.ndarray) -> np.ndarray:
    return ((pixels.astype(np.int64) * 255 + 32767) // 65535).astype(np.uint8)


def exif_of(orientation: int, utf16: bytes = None, little_endian: bool = False) -> bytes:
    exif = Image.Exif()
    exif.endian = "<" if little_endian else ">"
    exif[EXIF_ORIENTATION] = orientation
    if utf16:
        exif.get_ifd(EXIF_FOLDER)[EXIF_USER_COMMENT] = b"UNICODE\0" + utf16
    return exif.tobytes()


def png_text(text: str, packed: bool) -> PngInfo:
    """tEXt, or zTXt when packed, for Latin-1; else iTXt."""
    info = PngInfo()
    info.add_text("parameters", text, zip=packed)
    return info


def mask() -> np.ndarray:
    """White shapes on black, one of which touches an edge, and some noise in between."""
    picture = np.zeros((32, 48), np.uint8)
    picture[5:14, 7:30] = 255
    picture[20:32, 36:44] = 255
    picture[16:20, 10:40] = np.random.default_rng(3).integers(0, 256, (4, 30))
    return picture


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_pictures() -> dict:
    """name: bytes, or (bytes, expected pixels) where Pillow would lose something."""
    grey, grey_alpha, rgb, rgba = (scene(c) for c in (1, 2, 3, 4))
    deep = {c: scene(c, 16) for c in (1, 2, 3, 4)}
    palette = Image.fromarray(rgb).quantize(13)
    made = {
        "grey": saved(Image.fromarray(grey[..., 0]), "PNG"),
        "grey_alpha": png(grey_alpha, 4, 8),
        "rgb": saved(Image.fromarray(rgb), "PNG"),
        "rgb_gamma": png(rgb, 2, 8, [(b"gAMA", struct.pack(">I", 100000))]),
        "rgba": saved(Image.fromarray(rgba), "PNG"),
        "palette": saved(palette, "PNG"),
        "palette_2_bits": saved(Image.fromarray(rgb).quantize(4), "PNG", bits=2),
        "palette_transparent": saved(palette, "PNG", transparency=bytes(range(0, 13 * 19, 19))),
        "one_bit": png(grey > 128, 0, 1),
        "two_bits": png(grey >> 6, 0, 2),
        "four_bits": png(grey >> 4, 0, 4),
        "grey_transparent": png(grey, 0, 8, [(b"tRNS", struct.pack(">H", int(grey[3, 4, 0])))]),
        "rgb_transparent": png(rgb, 2, 8, [(b"tRNS", struct.pack(">HHH", *rgb[3, 4].tolist()))]),
        "interlaced_rgb": png(rgb, 2, 8, interlaced=True),
        "interlaced_one_bit": png(grey > 128, 0, 1, interlaced=True),
        "orientation_6": saved(Image.fromarray(rgb), "PNG", exif=exif_of(6)),
        "mask": saved(Image.fromarray(mask()), "PNG"),
        "parameters_text": saved(Image.fromarray(rgb), "PNG", pnginfo=png_text(PARAMETERS, False)),
        "parameters_packed": saved(Image.fromarray(rgb), "PNG", pnginfo=png_text(PARAMETERS, True)),
        "parameters_latin1": saved(Image.fromarray(rgb), "PNG", pnginfo=png_text(PARAMETERS[:6], False)),
    }
    # The value of a 16-bit tRNS is met by one pixel alone, though others share its upper byte.
    key = deep[3][3, 4]
    alpha = np.where((deep[3] == key).all(axis=-1, keepdims=True), 0, 255).astype(np.uint8)
    grey_as_rgb = np.repeat(to_8_bits(deep[1]), 3, axis=-1)
    made |= {
        "grey_16": (png(deep[1], 0, 16), grey_as_rgb),
        "grey_alpha_16": (png(deep[2], 4, 16), to_8_bits(deep[2][..., [0, 0, 0, 1]])),
        "rgb_16": (png(deep[3], 2, 16), to_8_bits(deep[3])),
        "rgba_16": (png(deep[4], 6, 16), to_8_bits(deep[4])),
        "interlaced_rgba_16": (png(deep[4], 6, 16, interlaced=True), to_8_bits(deep[4])),
        "rgb_transparent_16": (png(deep[3], 2, 16, [(b"tRNS", struct.pack(">HHH", *key.tolist()))]),
                               np.concatenate([to_8_bits(deep[3]), alpha], axis=-1)),
    }
    return {f"{name}.png": value for name, value in made.items()}


def jpeg_pictures() -> dict:
    rgb = Image.fromarray(scene(3))
    cmyk = saved(Image.fromarray(scene(4), "CMYK"), "JPEG", quality=90)
    adobe = cmyk.index(b"Adobe")
    assert cmyk[adobe + 11] == 0, "the transform byte of Adobe's marker"
    made = {
        "grey": saved(Image.fromarray(scene(1)[..., 0]), "JPEG", quality=90),
        "full_colour": saved(rgb, "JPEG", quality=90, subsampling="4:4:4"),
        "half_colour": saved(rgb, "JPEG", quality=90, subsampling="4:2:2"),
        "quarter_colour": saved(rgb, "JPEG", quality=90, subsampling="4:2:0"),
        "untransformed_rgb": saved(rgb, "JPEG", quality=90, keep_rgb=True),
        "progressive": saved(rgb, "JPEG", quality=80, progressive=True),
        "restart_markers": saved(rgb, "JPEG", quality=80, restart_marker_blocks=1),
        "cmyk": cmyk,
        "cmyk_no_adobe": cmyk[:adobe - 4] + cmyk[adobe + 12:],
        "ycck": cmyk[:adobe + 11] + b"\x02" + cmyk[adobe + 12:],
    }
    made["parameters"] = saved(rgb, "JPEG", exif=exif_of(1, PARAMETERS.encode("utf-16-be")))
    made["parameters_little_endian"] = saved(rgb, "JPEG", exif=exif_of(6, PARAMETERS.encode("utf-16-le"), True))
    made["parameters_mixed"] = saved(rgb, "JPEG", exif=exif_of(1, PARAMETERS.encode("utf-16-be"), True))
    made |= {f"orientation_{i}": saved(rgb, "JPEG", quality=80, exif=exif_of(i)) for i in range(1, 9)}
    return {f"{name}.jpg": value for name, value in made.items()}


def webp_pictures() -> dict:
    rgb, rgba = Image.fromarray(scene(3)), Image.fromarray(scene(4))
    made = {
        "lossy": saved(rgb, "WEBP", quality=80),
        "lossless": saved(rgb, "WEBP", lossless=True),
        "lossy_alpha": saved(rgba, "WEBP", quality=80),
        "lossless_alpha": saved(rgba, "WEBP", lossless=True, exact=True),
        "orientation_8": saved(rgb, "WEBP", lossless=True, exif=exif_of(8)),
        "parameters": saved(rgb, "WEBP", exif=exif_of(1, PARAMETERS.encode("utf-16-be"))),
    }
    return {f"{name}.webp": value for name, value in made.items()}


def pillow_pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def resize(image: Image.Image, width: int, height: int, method) -> Image.Image:
    """Rows first: what Image.resize does. Pillow 13 alone begins with the columns when these shrink much more."""
    stored = image.convert("RGBa") if image.mode == "RGBA" else image
    return stored.resize((width, image.height), method).resize((width, height), method).convert(image.mode)


def operations(pictures: dict) -> dict:
    """"operation arguments": pixels [H, W, C]"""
    def load(name):
        return Image.open(io.BytesIO(pictures[name]))

    made = {}
    for kind, method in FILTERS.items():
        for name, sizes in (("rgb.png", [(7, 5), (31, 23), (21, 6), (1, 1)]), ("rgba.png", [(9, 8), (33, 20)]),
                            ("mask.png", [(12, 8), (50, 20)])):
            for width, height in sizes:
                made[f"resize_{kind} {name} {width} {height}"] = resize(load(name), width, height, method)
    for width, height in ((16, 16), (30, 10), (21, 13), (31, 20)):
        image = load("rgb.png")
        covers, fits = [(f(width, image.width * height // image.height), f(height, image.height * width // image.width))
                        for f in (max, min)]
        large = Image.new("RGB", (width, height))
        large.paste(resize(image, *covers, FILTERS["lanczos"]), (width // 2 - covers[0] // 2, height // 2 - covers[1] // 2))
        made[f"fit_crop rgb.png {width} {height}"] = large
        left, top = width // 2 - fits[0] // 2, height // 2 - fits[1] // 2
        padding = ((top, height - top - fits[1]), (left, width - left - fits[0]), (0, 0))
        made[f"fit_fill rgb.png {width} {height}"] = np.pad(resize(image, *fits, FILTERS["lanczos"]), padding, "edge")
    for sigma_x, sigma_y in ((4, 4), (1, 0), (0, 2.5), (9, 3), (16, 16)):
        blurred = np.asarray(load("mask.png"))
        for sigma, across in ((sigma_x, True), (sigma_y, False)):
            if sigma > 0:
                size = 2 * int(2.5 * sigma + 0.5) + 1
                blurred = cv2.GaussianBlur(blurred, (size, 1) if across else (1, size), sigma)
        made[f"blur mask.png {sigma_x} {sigma_y}"] = blurred
    made["luminance rgb.png 0 0"] = load("rgb.png").convert("L")
    made["flatten rgba.png 0 0"] = Image.new("RGB", load("rgba.png").size, (10, 128, 250))
    made["flatten rgba.png 0 0"].paste(load("rgba.png"), mask=load("rgba.png"))
    # One picture is drawn over another through the alpha of a third.
    made["paste rgb.png 20 10"] = load("mask.png").convert("RGB")
    made["paste rgb.png 20 10"].paste(load("rgb.png"), (20, 10), load("rgba.png").getchannel("A"))
    return {name: np.asarray(pixels).reshape(*np.asarray(pixels).shape[:2], -1) for name, pixels in made.items()}


def write_table(name: str, rows: dict) -> None:
    sizes = {key: (pixels.shape[1], pixels.shape[0], pixels.shape[2]) for key, pixels in rows.items()}
    (OUT / f"{name}.txt").write_text("".join("{} {} {} {}\n".format(key, *sizes[key]) for key in rows))
    (OUT / f"{name}.raw").write_bytes(b"".join(pixels.tobytes() for pixels in rows.values()))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    pictures, expected = {}, {}
    for name, value in sorted({**png_pictures(), **jpeg_pictures(), **webp_pictures()}.items()):
        pictures[name], expected[name] = value if isinstance(value, tuple) else (value, pillow_pixels(value))
        (OUT / name).write_bytes(pictures[name])
    write_table("expected", expected)
    write_table("operations", operations(pictures))
    moving = [Image.fromarray(np.roll(scene(3), i, axis=1)) for i in range(2)]
    (OUT / "animated.webp").write_bytes(saved(moving[0], "WEBP", save_all=True, append_images=moving[1:]))
    print(len(pictures), "pictures,", sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
