#!/usr/bin/env python3
"""Octavo against diffusers on this CPU, in one run: the same model, prompts, seeds, steps and threads.

Rounds alternate between the contestants, so that a noisy machine hits all of them; medians are compared.
diffusers runs in every dtype named by --torch-dtypes and the best one counts. The pictures are compared too:
a fast wrong answer is no answer.

    python3 -m venv .venv && .venv/bin/pip install -r tools/reference/requirements.txt
    make build
    .venv/bin/python bench/peers/cpu_diffusers.py --json out/cpu_diffusers.json
"""
import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "three red apples on a blue background"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octavo", type=Path, default=ROOT / "build/release/octavo", help="the octavo binary")
    parser.add_argument("--model", type=Path, default=ROOT / "models/octavo-tiny", help="a diffusers folder")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=7.0)
    parser.add_argument("--size", type=int, default=256, help="pixels a side")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each contestant, after one warm-up")
    parser.add_argument("--torch-dtypes", default="float32,bfloat16")
    parser.add_argument("--octavo-dtypes", default="f32,auto")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


class Diffusers:
    """StableDiffusion3Pipeline on the CPU in one dtype, picture returned as a numpy array."""

    def __init__(self, args: argparse.Namespace, dtype_name: str):
        import torch
        from diffusers import StableDiffusion3Pipeline

        torch.set_num_threads(args.threads)
        self.torch, self.args, self.name = torch, args, f"diffusers {dtype_name}"
        self.pipe = StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=getattr(torch, dtype_name))
        self.pipe.set_progress_bar_config(disable=True)
        limit = self.pipe.tokenizer_3.model_max_length if self.pipe.tokenizer_3 is not None else 256
        self.t5_length = min(256, limit)

    def draw(self, seed: int):
        args = self.args
        started = time.perf_counter()
        image = self.pipe(prompt=args.prompt, num_inference_steps=args.steps, guidance_scale=args.guidance,
                          width=args.size, height=args.size, max_sequence_length=self.t5_length,
                          generator=self.torch.Generator("cpu").manual_seed(seed)).images[0]
        return time.perf_counter() - started, image


class Octavo:
    """`octavo bench --suite e2e` in its own process; it reports the median of its own timed rounds."""

    def __init__(self, args: argparse.Namespace, dtype_name: str):
        self.args, self.dtype, self.name = args, dtype_name, f"octavo {dtype_name}"

    def _base(self) -> list:
        args = self.args
        return ["--prompt", args.prompt, "--steps", str(args.steps), "--guidance", str(args.guidance), "--width",
                str(args.size), "--height", str(args.size), "--model", str(args.model), "--precision", self.dtype,
                "--threads", str(args.threads)]

    def draw(self, seed: int):
        from PIL import Image

        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.json"
            subprocess.run([str(self.args.octavo), "bench", "--suite", "e2e", "--repeat", "1", "--seed", str(seed),
                            "--json", str(figures), *self._base()], check=True, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL)
            report = json.loads(figures.read_text())
            picture = Path(folder) / "picture.png"
            subprocess.run([str(self.args.octavo), "generate", "--seed", str(seed), "--out", str(picture),
                            *self._base()], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.arithmetic = report["e2e"]["dtype"]
            return report["e2e"]["stages"]["total"]["median_seconds"], Image.open(picture).convert("RGB").copy()


def distance(a, b) -> dict:
    """How far two pictures are apart: PSNR, largest difference, share of channel values within 1/255."""
    import numpy

    difference = numpy.abs(numpy.asarray(a, dtype=numpy.int32) - numpy.asarray(b, dtype=numpy.int32))
    mean_square = float((difference**2).mean())
    psnr = math.inf if mean_square == 0 else 10 * math.log10(255**2 / mean_square)
    return {"psnr_db": psnr, "largest": int(difference.max()), "within_1": float((difference <= 1).mean())}


def main() -> int:
    args = arguments()
    contestants = [Diffusers(args, name) for name in args.torch_dtypes.split(",")]
    contestants += [Octavo(args, name) for name in args.octavo_dtypes.split(",")]
    times, pictures = {c.name: [] for c in contestants}, {}
    for contestant in contestants:  # warm-up, and the pictures to compare
        _, pictures[contestant.name] = contestant.draw(seed=0)
    for number in range(args.rounds):
        for contestant in contestants:
            elapsed, _ = contestant.draw(seed=number)
            times[contestant.name].append(elapsed)
            print(f"round {number + 1}/{args.rounds}  {contestant.name:22} {elapsed:6.3f} s", file=sys.stderr)

    import diffusers
    import torch

    medians = {name: statistics.median(values) for name, values in times.items()}
    peer = min((n for n in medians if n.startswith("diffusers")), key=medians.get)
    reference = pictures["diffusers float32"] if "diffusers float32" in pictures else pictures[peer]
    report = {"cpu": cpu_name(), "threads": args.threads, "steps": args.steps, "guidance": args.guidance,
              "size": args.size, "torch": torch.__version__, "diffusers": diffusers.__version__,
              "median_seconds": medians, "all_seconds": times,
              "picture_against_diffusers_f32": {n: distance(p, reference) for n, p in pictures.items()}}
    print(f"\n{report['cpu']}, {args.threads} threads, {args.size}x{args.size}, {args.steps} steps, guidance "
          f"{args.guidance}, torch {torch.__version__}, diffusers {diffusers.__version__}")
    print(f"{'':24}{'median s':>10}{'against ' + peer:>30}{'PSNR to diffusers f32':>24}")
    for name, value in medians.items():
        psnr = report["picture_against_diffusers_f32"][name]["psnr_db"]
        print(f"{name:24}{value:10.3f}{medians[peer] / value:29.2f}x{psnr:21.1f} dB")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
