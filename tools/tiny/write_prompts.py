"""Writes the prompts of evaluate.py with the facts they assert, as `octavo compare --prompts` reads them.

    python tools/tiny/write_prompts.py --atlas WORK/atlas.npz --out tools/tiny/held_out.jsonl

Each line has the seed that evaluate.py draws it with. Facts name objects, tints and backgrounds by their rows in
catalogue.py, so that who reads them needs no catalogue; facts of a background list the labels that show it.
"""

import argparse
import json

import numpy as np

import scenes
from catalogue import LABELS
from evaluate import prompts
from facts import STUDIO, colour_of


def written(fact):
    kind, *rest = fact
    if kind == "background":
        return [kind, rest[0], [i for i, label in enumerate(LABELS) if colour_of(label) == rest[0]]]
    if kind == "style":
        return [kind, rest[0], [i for i, label in enumerate(LABELS) if label.startswith(STUDIO)]]
    return [kind, *rest]


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--prompts", type=int, default=300)
    p.add_argument("--out", required=True)
    args = p.parse_args()
    heights = scenes.heights_of(np.load(args.atlas)["atlas"])
    with open(args.out, "w", encoding="utf-8") as f:
        for seed, scene in enumerate(prompts(heights, args.prompts)):
            row = {"prompt": scene.caption, "seed": seed, "facts": [written(fact) for fact in scene.facts]}
            f.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
