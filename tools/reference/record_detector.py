#!/usr/bin/env python3
"""Records what the Python detector and facts of tools/tiny say, for src/quantize/judge.

    python tools/reference/record_detector.py --atlas WORK/atlas.npz      (tools/tiny/atlas.py makes it)

Writes into tests/parity/fixtures/quality/: detector.safetensors, a narrow network of random weights; readings.json, what
detector.py reads with it from the pictures there; scenes-N.png and scenes.json, true renders with what is on them, which
the real detector must find; facts.json, random readings and facts with facts.py's verdict.
"""
import argparse
import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests/parity/fixtures/quality"
sys.path.insert(0, str(ROOT / "tools/tiny"))

import detector as d  # noqa: E402
import scenes  # noqa: E402
from catalogue import LABELS  # noqa: E402
from evaluate import prompts, render  # noqa: E402
from facts import holds  # noqa: E402
from render import Renderer  # noqa: E402
from write_prompts import written  # noqa: E402

PICTURES = ("reference.png", "other.png", "noise.png")
SCENES = (0, 1, 3, 5)


def narrow_detector():
    """Every layer there, few channels, norms that do something, cells that are full."""
    torch.manual_seed(7)
    d.CHANNELS = (6, 8, 10)
    network = d.Detector()
    for name, buffer in network.named_buffers():
        if "running_mean" in name:
            buffer.normal_(0, 0.3)
        elif "running_var" in name:
            buffer.uniform_(0.5, 2)
    for name, parameter in network.named_parameters():
        if parameter.dim() == 1:
            parameter.data.normal_(0.5, 0.3)
    network.head.weight.data *= 3
    path = OUT / "detector.safetensors"
    d.save(network.state_dict(), str(path))
    return d.load(str(path))


def picture(name):
    return torch.from_numpy(np.array(Image.open(OUT / name).convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def in_json(reading):
    return {"things": [[t.index, t.x, t.y, t.size, t.tint] for t in reading.things],
            "background": LABELS.index(reading.label)}


def random_facts(count):
    """Readings with few kinds of things, so that facts are often about them, and half of them true."""
    rng, rows = random.Random(3), []
    while len(rows) < count:
        things = [d.Seen(rng.randrange(3), rng.uniform(0.1, 1.2), rng.uniform(0.1, 0.9), rng.uniform(0.3, 0.9),
                         rng.randrange(-1, 2)) for _ in range(rng.randrange(4))]
        reading = d.Reading(things, rng.choice(LABELS))
        a, b = rng.randrange(3), rng.randrange(3)
        fact = rng.choice([
            ("object", a), ("count", a, rng.randrange(3)), ("tint", a, rng.randrange(2)),
            ("background", d.LABELS[rng.randrange(len(LABELS))].split()[-1]), ("style", "studio"),
            ("spot", a, rng.choice(("left", "right", "top", "bottom", "center", "top left", "bottom right"))),
            ("relation", a, b, rng.choice(("left", "right", "above", "below"))),
            ("size", a, rng.choice(("small", "big")), rng.choice((None, b)))])
        aspect = rng.choice(((1.0, 1.0), (1.5, 1.0), (1.0, 1.25)))
        truth = bool(holds(fact, reading, aspect))
        if truth == (len(rows) % 2 == 0):
            rows.append({"reading": in_json(reading), "fact": written(fact), "aspect": aspect, "holds": truth})
    return rows


def save(name, value):
    with open(OUT / name, "w", encoding="utf-8") as f:
        json.dump(value, f)
        f.write("\n")


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    args = p.parse_args()
    atlas = np.load(args.atlas)["atlas"]
    draw, heights = Renderer(atlas, "cpu"), scenes.heights_of(atlas)
    batch = prompts(heights, max(SCENES) + 1)
    shown = []
    for n, index in enumerate(SCENES):
        scene = batch[index]
        x = render(draw, [scene], 256)[0]
        Image.fromarray((x * 255).round().byte().permute(1, 2, 0).numpy()).save(OUT / f"scene-{n}.png", optimize=True)
        shown.append({"file": f"scene-{n}.png", "background": scene.label,
                      "things": [[t.index, t.x, t.y, t.size, t.tint] for t in scene.things],
                      "facts": [written(fact) for fact in scene.facts]})
    save("scenes.json", shown)
    network = narrow_detector()
    save("readings.json", [{"file": name, **in_json(d.read(network, picture(name))[0])}
                           for name in (*PICTURES, "scene-0.png")])
    save("facts.json", random_facts(160))


if __name__ == "__main__":
    main()
