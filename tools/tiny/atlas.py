"""Renders the glyph atlas: every object of the catalogue, 128 x 128 RGBA, from Debian's fonts-noto-color-emoji.

    python tools/tiny/atlas.py --out WORK/atlas.npz --sheet WORK/atlas.png
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from catalogue import OBJECTS

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
STRIKE = 109  # the one bitmap size that the font holds
SIDE = 128


def glyph_picture(font, glyph):
    """One glyph, cropped to what it covers, its longer side 124 of 128 pixels, centred."""
    canvas = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((12, 12), glyph, font=font, embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise SystemExit(f"the font draws nothing for {glyph!r}")
    canvas = canvas.crop(box)
    scale = 124 / max(canvas.size)
    size = tuple(max(1, round(s * scale)) for s in canvas.size)
    # Resampled with colours weighted by their opacity, so that no dark rim appears.
    a = np.asarray(canvas, np.float32) / 255
    a[..., :3] *= a[..., 3:]
    planes = [Image.fromarray(a[..., c]).resize(size, Image.LANCZOS) for c in range(4)]
    a = np.stack([np.asarray(p) for p in planes], -1).clip(0, 1)
    a[..., :3] = np.minimum(a[..., :3], a[..., 3:])
    out = np.zeros((SIDE, SIDE, 4), np.float32)
    y, x = (SIDE - size[1]) // 2, (SIDE - size[0]) // 2
    out[y : y + size[1], x : x + size[0]] = a
    return out


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--font", default=FONT)
    p.add_argument("--out", required=True, help="the atlas, an .npz: premultiplied RGBA, uint8 [objects, 128, 128, 4]")
    p.add_argument("--sheet", help="a PNG that shows the atlas with its names")
    args = p.parse_args()
    font = ImageFont.truetype(args.font, STRIKE)
    pictures = np.stack([glyph_picture(font, o.glyph) for o in OBJECTS])
    np.savez_compressed(args.out, atlas=(pictures * 255 + 0.5).astype(np.uint8), names=[o.name for o in OBJECTS])
    if args.sheet:
        columns, cell = 16, 100
        rows = -(-len(OBJECTS) // columns)
        sheet = Image.new("RGB", (columns * cell, rows * (cell + 14)), "white")
        draw = ImageDraw.Draw(sheet)
        for i, (o, a) in enumerate(zip(OBJECTS, pictures)):
            rgb = a[..., :3] + 1 - a[..., 3:]
            tile = Image.fromarray((rgb * 255).astype(np.uint8)).resize((96, 96))
            x, y = i % columns * cell, i // columns * (cell + 14)
            sheet.paste(tile, (x + 2, y + 2))
            draw.text((x + 2, y + cell), o.name, fill="black")
        sheet.save(args.sheet)
    print(f"{len(OBJECTS)} objects")


if __name__ == "__main__":
    main()
