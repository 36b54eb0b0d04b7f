"""Draws docs/tiny-contact-sheet.png: 24 fixed prompts with fixed seeds, six in a row, the prompts below.

    python tools/tiny/contact_sheet.py
    python tools/tiny/contact_sheet.py --vae out/vae-sheet.png --atlas WORK/atlas.npz
                                          (twelve held-out scenes above what the autoencoder makes of them)
"""

import argparse
import os

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import drawing

PROMPTS = [
    "a cat", "a red apple on a wooden table", "a rocket at night", "two dogs on the grass",
    "a castle in front of mountains", "a penguin in the snow",
    "three bananas on a blue background", "a fox next to an owl", "a butterfly above a tulip",
    "a studio photo of a sneaker on a pink background", "a whale under the sea", "a sailboat at sunset",
    "a big elephant", "a cat to the left of a dog", "four strawberries on a white background",
    "a blue teddy bear", "a cactus in the desert", "an ice cream on the beach",
    "product photo of an alarm clock, turquoise background", "a house in the forest",
    "a burger, fries and a cup of coffee", "a balloon in the top left corner", "a green heart on a black background",
    "a photo of a robot on a yellow background, studio lighting",
]
COLUMNS = 6
CAPTION = 34  # pixels below a tile: two lines
SPACE = 6


def lines_of(text, font, width):
    """The text in lines that fit."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def sheet_of(pictures, captions, tile, columns=COLUMNS):
    """Pictures (uint8 arrays) in rows, each with its caption."""
    font = ImageFont.load_default(13)
    caption = CAPTION if any(captions) else 0
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (tile + SPACE) + SPACE, rows * (tile + caption + SPACE) + SPACE), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (picture, text) in enumerate(zip(pictures, captions)):
        x = SPACE + i % columns * (tile + SPACE)
        y = SPACE + i // columns * (tile + caption + SPACE)
        picture = Image.fromarray(picture)
        sheet.paste(picture if picture.size == (tile, tile) else picture.resize((tile, tile), Image.LANCZOS), (x, y))
        for k, line in enumerate(lines_of(text, font, tile)[:2]):
            draw.text((x, y + tile + 1 + 15 * k), line, fill=(40, 40, 40), font=font)
    return sheet


def vae_sheet(args):
    """Originals in one row, their reconstructions below, twice six."""
    import torch
    from safetensors.torch import load_file

    import evaluate
    import modules as m
    import scenes
    from render import Renderer

    atlas = np.load(args.atlas)["atlas"]
    batch = evaluate.prompts(scenes.heights_of(atlas), 2 * COLUMNS)
    vae = m.Vae()
    weights = load_file(os.path.join(args.model, "vae/diffusion_pytorch_model.safetensors"))
    vae.load_state_dict({k: v.float() for k, v in weights.items()})
    x = evaluate.render(Renderer(atlas, "cpu"), batch, 256)
    y = evaluate.through(vae.to(memory_format=torch.channels_last).eval(), x)
    x, y = ((p.permute(0, 2, 3, 1) * 255 + 0.5).byte().numpy() for p in (x, y))
    tiles = [t for i in range(0, len(x), COLUMNS) for half in (x, y) for t in half[i : i + COLUMNS]]
    return sheet_of(tiles, [""] * len(tiles), 256)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    drawing.add_flags(p)
    p.add_argument("--guidance", type=float, default=4.0)
    p.add_argument("--seed", type=int, default=1, help="of the first picture; the next has the next")
    p.add_argument("--out", default=str(drawing.ROOT / "docs/tiny-contact-sheet.png"))
    p.add_argument("--tile", type=int, default=208, help="pixels a side of a picture on the sheet")
    p.add_argument("--vae", help="draw originals above reconstructions into this file instead; needs --atlas")
    p.add_argument("--atlas")
    args = p.parse_args()
    if args.vae:
        if not args.atlas:
            p.error("--vae needs --atlas")
        sheet, out = vae_sheet(args), args.vae
    else:
        with drawing.engine_of(args) as engine:
            pictures = [engine.draw(prompt, args.seed + i, steps=args.steps, guidance=args.guidance)
                        for i, prompt in enumerate(PROMPTS)]
        sheet, out = sheet_of(pictures, PROMPTS, args.tile), args.out
    os.makedirs(os.path.dirname(os.path.abspath(out)), exist_ok=True)
    sheet.save(out, optimize=True)
    size = os.path.getsize(out) / 2**20
    print(f"{out}: {size:.2f} MiB" + (", too large for the repository: take a smaller --tile" if size > 2 else ""))


if __name__ == "__main__":
    main()
