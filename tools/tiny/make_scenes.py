"""Samples the scenes of all stages ahead: records and caption ids, one .npz per aspect.

    python tools/tiny/make_scenes.py --atlas WORK/atlas.npz --model models/octavo-tiny --out WORK/scenes
"""

import argparse
import json
import multiprocessing
import os
import time

import numpy as np

import scenes
from tokens import Tokens

# Aspects as width x height in units of the shorter side, and their share of the square set.
ASPECTS = {"1x1": (1.0, 1.0), "3x2": (1.5, 1.0), "2x3": (1.0, 1.5), "5x3": (5 / 3, 1.0), "3x5": (1.0, 5 / 3),
           "4x3": (4 / 3, 1.0), "3x4": (1.0, 4 / 3)}


def block(job):
    """One block of scenes: arrays, ready to be joined."""
    seed, n, aspect, atlas, model = job
    heights = scenes.heights_of(np.load(atlas)["atlas"])
    rng = scenes.sampler(seed)
    batch = [scenes.sample(rng, heights, aspect) for _ in range(n)]
    records = [s.record() for s in batch]
    left, _, third = Tokens(model)([s.caption for s in batch])
    return {
        "objects": np.stack([r[0] for r in records]), "backgrounds": np.stack([r[1] for r in records]),
        "labels": np.array([s.label for s in batch], np.int16), "clip": left, "t5": third}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--model", required=True, help="the folder with the tokenizers")
    p.add_argument("--out", required=True)
    p.add_argument("--square", type=int, default=600000, help="scenes of 1:1")
    p.add_argument("--other", type=int, default=40000, help="scenes of each other aspect")
    p.add_argument("--workers", type=int, default=os.cpu_count())
    p.add_argument("--seed", type=int, default=1000)
    args = p.parse_args()
    os.makedirs(args.out, exist_ok=True)
    begin = time.time()
    with multiprocessing.Pool(args.workers) as pool:
        for a, (name, aspect) in enumerate(ASPECTS.items()):
            total = args.square if name == "1x1" else args.other
            size = min(10000, max(1, total // args.workers))
            jobs = [(args.seed + a * 100003 + i, min(size, total - i * size), aspect, args.atlas, args.model)
                    for i in range(-(-total // size))]
            parts = pool.map(block, jobs, chunksize=1)
            arrays = {k: np.concatenate([q[k] for q in parts]) for k in parts[0]}
            path = os.path.join(args.out, name + ".npz")
            with open(path + ".part", "wb") as f:
                np.savez(f, **arrays)
            os.replace(path + ".part", path)
            print(f"{name}: {total} scenes after {time.time() - begin:.0f} s", flush=True)
    tokens = Tokens(args.model)
    with open(os.path.join(args.out, "tokens.json"), "w", encoding="utf-8") as f:
        empty = tokens([""])
        json.dump({"clip": tokens.clip_size, "t5": tokens.t5_size, "end": tokens.end, "start": tokens.start,
                   "empty_clip": empty[0][0].tolist(), "empty_t5": empty[2][0].tolist()}, f)


if __name__ == "__main__":
    main()
