"""Measures a model: what share of what prompts assert is in its pictures, and how well its autoencoder keeps pictures.

    python tools/tiny/evaluate.py --atlas WORK/atlas.npz --guidance 2,4,7 --json WORK/evaluation.json \
        --card models/octavo-tiny/README.md

The prompts are captions that training never saw: half of them name a combination (object and background, or two
objects) that was kept from it. The detector that judges was trained apart; its own ceiling, on true renders of the same
prompts and on their reconstructions, is measured beside. Pictures are 256 x 256.
"""

import argparse
import json
import os
import sys
import time

import numpy as np
import torch
from safetensors.torch import load_file

import card
import detector as d
import drawing
import modules as m
import scenes
from catalogue import BACKGROUND_NAMES
from facts import colour_of, holds, in_words, score
from render import Renderer

SEED = 20261  # of the prompts; picture i is drawn from seed i
SIZE = 256


def prompts(heights, n):
    """Half with a combination kept from training, half without, alternating; every one asserts at least two facts."""
    rng = scenes.sampler(SEED)
    kinds = {True: [], False: []}
    while min(len(k) for k in kinds.values()) < (n + 1) // 2:
        scene = scenes.sample(rng, heights, training=False)
        kinds[scene.held_out].append(scene)
    return [s for pair in zip(kinds[True], kinds[False]) for s in pair][:n]


def render(draw, batch, size):
    records = [s.record() for s in batch]
    return draw(np.stack([r[0] for r in records]), np.stack([r[1] for r in records]), size, size, chunk=16)


@torch.no_grad()
def through(vae, pictures, chunk=8):
    """Reconstructions from the posterior's mean, rounded to 8 bit as pictures are."""
    out = []
    for x in pictures.split(chunk):
        y = vae.decoder(vae.encode((x * 2 - 1).contiguous(memory_format=torch.channels_last))[0])
        out.append(((y / 2 + 0.5).clamp(0, 1) * 255).round() / 255)
    return torch.cat(out)


def measure_vae(vae, draw, heights, counts):
    """Mean and lowest tenth of the PSNR by size, over held-out scenes."""
    result, rng = {}, scenes.sampler(SEED + 1)
    batch = [scenes.sample(rng, heights, training=False) for _ in range(max(counts.values(), default=0))]
    for size, n in counts.items():
        if not n:
            continue
        values = []
        for i in range(0, n, 32):
            x = render(draw, batch[i : min(n, i + 32)], size)
            values += (-10 * torch.log10((through(vae, x) - x).square().mean((1, 2, 3)).clamp(min=1e-10))).tolist()
        result[size] = {"mean": round(float(np.mean(values)), 2), "p10": round(float(np.quantile(values, 0.1)), 2),
                        "pictures": n}
        print(f"autoencoder at {size}: {result[size]}", file=sys.stderr, flush=True)
    return result


def as_tensor(picture):
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255


def measure_effects(engine, judge, n, guidance, steps):
    """What a negative prompt and a seed change, over n prompts that name an object and no background: how many pictures
    keep their background when the negative prompt names it, and how far apart seeds are."""
    names = [o.name for o in scenes.OBJECTS][:: max(1, len(scenes.OBJECTS) // n)][:n]
    kept, other, same = 0, [], []
    for i, name in enumerate(names):
        prompt = ("an " if name[0] in "aeio" else "a ") + name
        picture = engine.draw(prompt, i, "", steps, guidance)
        background = colour_of(d.read(judge, as_tensor(picture))[0].label)
        negative = background + (" background" if background in BACKGROUND_NAMES else "")
        without = engine.draw(prompt, i, negative, steps, guidance)
        kept += colour_of(d.read(judge, as_tensor(without))[0].label) == background
        plain = picture.astype(float)
        other.append(np.abs(engine.draw(prompt, i + 1000, "", steps, guidance) - plain).mean())
        if i < 4:
            same.append(np.abs(engine.draw(prompt, i, "", steps, guidance) - plain).mean())
    return {"pictures": len(names), "background_kept": kept, "other_seed": round(float(np.mean(other)), 2),
            "same_seed": round(float(np.mean(same)), 3)}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    drawing.add_flags(p)
    p.add_argument("--atlas", required=True)
    p.add_argument("--detector", default=str(drawing.ROOT / "tools/tiny/detector.safetensors"),
                   help="of train_detector.py; default: the committed one")
    p.add_argument("--guidance", default="4", help="one or several values, with commas; notes are taken at the best")
    p.add_argument("--prompts", type=int, default=300)
    p.add_argument("--vae-scenes", type=int, default=512, help="at 256 pixels; a quarter as many at 128 and at 384")
    p.add_argument("--effects", type=int, default=24, help="prompts to measure negative prompts and seeds on; 0: none")
    p.add_argument("--ceiling-only", action="store_true", help="draw nothing: only the measure itself and the autoencoder")
    p.add_argument("--threads", type=int, help="of PyTorch")
    p.add_argument("--misses", help="a file for the facts that do not hold, picture by picture")
    p.add_argument("--json", help="a file for the figures")
    p.add_argument("--card", help="the model's README.md: the table is written between its marks")
    args = p.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    guidances = args.guidance.split(",")
    atlas = np.load(args.atlas)["atlas"]
    heights, draw = scenes.heights_of(atlas), Renderer(atlas, "cpu")
    judge = d.load(args.detector)
    vae = m.Vae()
    weights = load_file(os.path.join(args.model, "vae/diffusion_pytorch_model.safetensors"))
    vae.load_state_dict({k: v.float() for k, v in weights.items()})
    vae = vae.to(memory_format=torch.channels_last).eval()
    batch = prompts(heights, args.prompts)
    result = {"engine": args.engine, "steps": args.steps, "drawn": {}, "parts": {}, "ceiling": {}}

    true = render(draw, batch, SIZE)
    result["ceiling"]["true renders"] = score(batch, d.read(judge, true))
    result["ceiling"]["through the autoencoder"] = score(batch, d.read(judge, through(vae, true)))
    for name, row in result["ceiling"].items():
        print(f"{name}: all facts {row['all_facts']}, every fact {row['pictures_right']}", file=sys.stderr, flush=True)
    result["vae"] = measure_vae(vae, draw, heights,
                                {SIZE: args.vae_scenes, 128: args.vae_scenes // 4, 384: args.vae_scenes // 4})
    if not args.ceiling_only:
        misses = []
        with drawing.engine_of(args) as engine:
            for g in guidances:
                begin, readings = time.time(), []
                for i, scene in enumerate(batch):
                    picture = engine.draw(scene.caption, i, steps=args.steps, guidance=float(g))
                    readings += d.read(judge, as_tensor(picture))
                    wrong = [in_words(f) for f in scene.facts if not holds(f, readings[-1])]
                    if wrong:
                        misses.append({"guidance": g, "seed": i, "prompt": scene.caption, "wrong": wrong})
                row = result["drawn"][g] = score(batch, readings)
                by = {flag: [(s, r) for s, r in zip(batch, readings) if s.held_out == flag] for flag in (True, False)}
                row["combinations"] = {flag: score(*zip(*pairs)) for flag, pairs in by.items() if pairs}
                print(f"guidance {g}: all facts {row['all_facts']}, every fact {row['pictures_right']}, "
                      f"{(time.time() - begin) / len(batch):.2f} s a picture", file=sys.stderr, flush=True)
            best = max(guidances, key=lambda g: result["drawn"][g]["all_facts"] or 0)
            for flag, row in result["drawn"][best].pop("combinations").items():
                words = "never seen together" if flag else "seen together"
                result["parts"][f"guidance {best}, {words}"] = row
            for row in result["drawn"].values():
                row.pop("combinations", None)
            if args.effects:
                result["effects"] = measure_effects(engine, judge, args.effects, float(best), args.steps)
        if args.misses:
            with open(args.misses, "w", encoding="utf-8") as f:
                f.writelines(json.dumps(miss, ensure_ascii=False) + "\n" for miss in misses)
    print(card.table(result))
    if args.json:
        os.makedirs(os.path.dirname(os.path.abspath(args.json)), exist_ok=True)
        with open(args.json, "w", encoding="utf-8") as f:
            json.dump(result, f, indent=1)
    if args.card:
        with open(args.card, encoding="utf-8") as f:
            text = card.fill(f.read(), result)
        with open(args.card, "w", encoding="utf-8") as f:
            f.write(text)


if __name__ == "__main__":
    main()
