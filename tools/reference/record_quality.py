#!/usr/bin/env python3
"""Records pictures and what the picture metrics of src/quantize/compare must say of them.

Writes tests/parity/fixtures/quality/: a picture, changed ones, and figures.json with a row each: PSNR by its formula,
SSIM by scikit-image as its authors computed it, and the perceptual distance by its definition (docs/quality.md), here
in numpy and scipy; also three pairs of vectors with their SQNR, cosine and relative L2.
"""
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import correlate1d, gaussian_filter
from skimage.metrics import structural_similarity

OUT = Path(__file__).resolve().parents[2] / "tests/parity/fixtures/quality"
WIDTH, HEIGHT = 57, 43


def scene(rng) -> np.ndarray:
    """Slopes, edges, a disc and a striped part, in colours; float [H, W, 3] of 0 to 255."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)
    a, b, c = rng.uniform(0.5, 2, 3)
    picture = np.stack([x / WIDTH * a, y / HEIGHT * b, (x + y) / (WIDTH + HEIGHT) * c], -1) % 1 * 200 + 20
    cx, cy = rng.uniform(15, 40), rng.uniform(12, 30)
    picture[(x - cx) ** 2 + (y - cy) ** 2 < 90] = rng.uniform(0, 255, 3)
    stripes = (np.sin(x * 1.3 + rng.uniform(0, 3)) > 0) & (y > HEIGHT - 12)
    picture[stripes] = rng.uniform(0, 255, 3)
    return picture


def stored(picture) -> np.ndarray:
    return picture.clip(0, 255).round().astype(np.uint8)


def psnr(a, b) -> float:
    return float(10 * np.log10(255.0**2 / np.mean((a.astype(np.float64) - b) ** 2)))


def ssim(a, b) -> float:
    grey = [p.astype(np.float64) @ [0.299, 0.587, 0.114] for p in (a, b)]
    return float(structural_similarity(*grey, data_range=255, gaussian_weights=True, sigma=1.5,
                                       use_sample_covariance=False))


def window(plane):
    taps = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    taps /= taps.sum()
    return correlate1d(correlate1d(plane, taps, 1, mode="reflect"), taps, 0, mode="reflect")


def oklab(picture):
    value = picture / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = np.cbrt(linear @ np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                                       [0.2119034982, 0.6806995451, 0.1073969566],
                                       [0.0883024619, 0.2817188376, 0.6299787005]]).T)
    lab = cones @ np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                            [1.9779984951, -2.4285922050, 0.4505937099],
                            [0.0259040371, 0.7827717662, -0.8086757660]]).T
    return [lab[..., i] for i in range(3)]


def perceptual(first, second) -> float:
    a, b = oklab(first), oklab(second)
    levels = []
    while True:
        low_a, low_b = [window(p) for p in a], [window(p) for p in b]
        za, zb = [p - q for p, q in zip(a, low_a)], [p - q for p, q in zip(b, low_b)]
        e = [np.mean(window(np.abs(p - q)) / (c + window(np.abs(p)) + window(np.abs(q))))
             for p, q, c in zip(za, zb, (0.02, 0.01, 0.01))]
        p, q, c = za[0], zb[0], 0.02**2
        s = np.mean((1 - (window(p * q) + c) / (np.sqrt(window(p * p) * window(q * q)) + c)) / 2)
        levels.append(0.4 * e[0] + 0.3 * s + 0.15 * e[1] + 0.15 * e[2])
        a, b = [p[::2, ::2] for p in low_a], [p[::2, ::2] for p in low_b]
        if len(levels) == 5 or min(a[0].shape) < 16:
            break
    d = np.sqrt(sum((p - q) ** 2 for p, q in zip(a, b)))
    return float((sum(levels) + np.mean(d / (0.1 + d))) / (len(levels) + 1))


def vectors(rng):
    """What vector_error() is tested on: exact in binary, so that JSON keeps them."""
    rows = []
    for size, noise in ((5, 0.25), (64, 0.03125), (64, 2.0)):
        r = np.round(rng.normal(0, 1, size) * 64) / 64
        t = r + np.round(rng.normal(0, noise, size) * 1024) / 1024
        rows.append({"reference": r.tolist(), "test": t.tolist(),
                     "sqnr_db": float(10 * np.log10((r**2).sum() / ((r - t) ** 2).sum())),
                     "cosine": float(r @ t / np.linalg.norm(r) / np.linalg.norm(t)),
                     "relative_l2": float(np.linalg.norm(r - t) / np.linalg.norm(r))})
    return rows


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    plain = scene(rng)
    noise = rng.normal(0, 1, plain.shape)
    variants = {"blur": gaussian_filter(plain, (1, 1, 0)), "noise": plain + 6 * noise,
                "shift": np.roll(plain, 2, 1), "tint": plain * [1.1, 0.95, 0.9] + 4, "other": scene(rng)}
    reference = stored(plain)
    Image.fromarray(reference).save(OUT / "reference.png", optimize=True)
    rows = []
    for name, values in variants.items():
        picture = stored(values)
        Image.fromarray(picture).save(OUT / f"{name}.png", optimize=True)
        rows.append({"file": f"{name}.png", "psnr_db": psnr(reference, picture), "ssim": ssim(reference, picture),
                     "perceptual": perceptual(reference, picture)})
    with open(OUT / "figures.json", "w", encoding="utf-8") as f:
        json.dump({"pictures": rows, "vectors": vectors(rng)}, f)
        f.write("\n")


if __name__ == "__main__":
    main()
