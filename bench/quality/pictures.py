#!/usr/bin/env python3
"""A sheet of small pictures: a row a prompt, a column a model, as `octavo generate` draws them with one seed.

    python3 bench/quality/pictures.py --out docs/planted-outliers.png --model A --model B --prompt "a red fox" ...

Every model runs as its checkpoint says (16 bits, or its own 8). Standard library alone.
"""
import argparse
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/end_to_end"))
from octavo_process import read_png  # noqa: E402

GAP = 4  # white pixels between pictures


def draw(arguments, model, prompt):
    """Rows of RGB bytes, at half the size: the mean of 2 x 2 pixels."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "picture.png"
        subprocess.run([arguments.octavo, "generate", "--model", model, "--prompt", prompt, "--seed",
                        str(arguments.seed), "--steps", str(arguments.steps), "--guidance", str(arguments.guidance),
                        "--out", str(out)], check=True, stdout=subprocess.DEVNULL,
                       env=dict(os.environ, OCTAVO_LOG="error"))
        width, height, rows = read_png(out.read_bytes())[:3]
    small = []
    for y in range(0, height - 1, 2):
        line = bytearray()
        for x in range(0, width - 1, 2):
            for channel in range(3):
                at = 3 * x + channel
                line.append((rows[y][at] + rows[y][at + 3] + rows[y + 1][at] + rows[y + 1][at + 3] + 2) // 4)
        small.append(bytes(line))
    return small


def write_png(path, rows):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    header = struct.pack(">IIBBBBB", len(rows[0]) // 3, len(rows), 8, 2, 0, 0, 0)
    # Filter 1 throughout: each byte as its difference from the pixel to the left.
    lines = b"".join(b"\1" + bytes((line[i] - (line[i - 3] if i >= 3 else 0)) & 255 for i in range(len(line)))
                     for line in rows)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) +
                     chunk(b"IEND", b""))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octavo", default=os.environ.get("OCTAVO_BINARY", str(ROOT / "build/release/octavo")))
    parser.add_argument("--model", action="append", required=True)
    parser.add_argument("--prompt", action="append", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4)
    parser.add_argument("--out", required=True, type=Path)
    arguments = parser.parse_args()
    rows = []
    for prompt in arguments.prompt:
        pictures = [draw(arguments, model, prompt) for model in arguments.model]
        if rows:
            rows += [b"\xff" * len(rows[0])] * GAP
        rows += [(b"\xff" * 3 * GAP).join(lines) for lines in zip(*pictures)]
    write_png(arguments.out, rows)


if __name__ == "__main__":
    main()
