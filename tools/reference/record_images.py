#!/usr/bin/env python3
"""Records small odd pictures and the pixels Pillow reads from them.

Writes tests/parity/fixtures/images/: the files, expected.txt (a line each: name, width, height, channels) and
expected.raw (the pixels one after the other, upright, RGB or RGBA). What Pillow cannot write (16-bit colour, Adam7) is
written here, byte by byte; what it reads with less than the file holds (16 bits) is taken from the source instead.
"""
import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OUT = Path(__file__).resolve().parents[2] / "tests/parity/fixtures/images"
WIDTH, HEIGHT = 21, 13
EXIF_ORIENTATION, EXIF_FOLDER, EXIF_USER_COMMENT = 0x0112, 0x8769, 0x9286
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


def exif_of(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    return exif.tobytes()


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
    }
    return {f"{name}.webp": value for name, value in made.items()}


def pillow_pixels(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.load()
    image = ImageOps.exif_transpose(image)
    return np.asarray(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    lines, raw = [], b""
    for name, value in sorted({**png_pictures(), **jpeg_pictures(), **webp_pictures()}.items()):
        data, pixels = value if isinstance(value, tuple) else (value, pillow_pixels(value))
        (OUT / name).write_bytes(data)
        height, width, channels = pixels.shape
        lines.append(f"{name} {width} {height} {channels}\n")
        raw += pixels.tobytes()
    (OUT / "expected.txt").write_text("".join(lines))
    (OUT / "expected.raw").write_bytes(raw)
    moving = [Image.fromarray(np.roll(scene(3), i, axis=1)) for i in range(2)]
    (OUT / "animated.webp").write_bytes(saved(moving[0], "WEBP", save_all=True, append_images=moving[1:]))
    print(len(lines), "pictures,", sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
