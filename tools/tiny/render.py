"""Draws scenes: records of scenes.py in, pictures in [0, 1] out, on the GPU or the CPU, a batch at a time.

Everything is a formula of the pixel's place, so that torch.compile makes one kernel of it.

    python tools/tiny/render.py --atlas WORK/atlas.npz --out WORK/scenes.png     (a look at the data)
"""

import argparse
import math

import numpy as np
import torch
import torch.nn.functional as F

from catalogue import TINTS
from scenes import BG_LAYOUT, MAX_OBJECTS

LEVELS = (256, 128, 64, 32)  # sides of the atlas's copies; each scene samples the smallest that is large enough


class Renderer:
    """Holds the atlas on a device and draws batches of records."""

    def __init__(self, atlas, device, compiled=False):
        """atlas: uint8 [n, 128, 128, 4], colours weighted by opacity."""
        a = torch.from_numpy(np.asarray(atlas)).to(device).float().permute(0, 3, 1, 2) / 255
        big = F.interpolate(a, size=LEVELS[0], mode="bicubic", align_corners=False, antialias=False)
        blurred = F.avg_pool2d(F.pad(big, (2, 2, 2, 2), mode="replicate"), 5, 1)
        big = (big + 0.6 * (big - blurred)).clamp(0, 1)  # what enlarging softened
        big[:, :3] = torch.minimum(big[:, :3], big[:, 3:])
        pyramid, at, offsets = [], 0, []
        for side in LEVELS:
            level = big if side == LEVELS[0] else F.interpolate(big, size=side, mode="area")
            pyramid.append(level.permute(0, 2, 3, 1).reshape(-1, 4))
            offsets.append(at)
            at += len(pyramid[-1])
        self.texels = torch.cat(pyramid).half().contiguous() if device != "cpu" else torch.cat(pyramid).contiguous()
        self.offsets = torch.tensor(offsets, device=device)
        self.sides = torch.tensor(LEVELS, device=device)
        self.device = device
        ramps = torch.tensor([[[c / 255 for c in rgb] for rgb in ramp] for ramp in TINTS.values()], device=device)
        self.ramps = ramps  # [tints, 3 steps, 3 channels]
        g = torch.Generator().manual_seed(11)
        stars = torch.zeros(256, 256)
        yy, xx = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        for _ in range(46):
            x, y, s, b = torch.rand(4, generator=g)
            dx = torch.remainder(xx - x * 256 + 128, 256) - 128
            dy = torch.remainder(yy - y * 256 + 128, 256) - 128
            stars += (0.5 + 0.5 * b) * torch.exp(-(dx**2 + dy**2) / (2 * (0.9 + 0.7 * s) ** 2))
        self.stars = stars.clamp(max=1).to(device).reshape(-1)
        self.draw = torch.compile(self._draw, dynamic=False) if compiled else self._draw

    def __call__(self, objects, backgrounds, height, width, chunk=256):
        """objects [B, 4, 8] and backgrounds [B, n] (float32 arrays or tensors): pictures [B, 3, height, width]."""
        objects = torch.as_tensor(objects, device=self.device)
        backgrounds = torch.as_tensor(backgrounds, device=self.device)
        out = [self.draw(o, b, height, width)
               for o, b in zip(objects.split(chunk), backgrounds.split(chunk))]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _draw(self, objects, backgrounds, height, width):
        side = min(height, width)
        dev = objects.device
        y = ((torch.arange(height, device=dev, dtype=torch.float32) + 0.5) / side)[None, :, None]
        x = ((torch.arange(width, device=dev, dtype=torch.float32) + 0.5) / side)[None, None, :]
        v, u = y * (side / height), x * (side / width)

        def get(name):
            a, b = BG_LAYOUT[name]
            part = backgrounds[:, a:b]
            return [part[:, i, None, None] for i in range(b - a)] if b - a > 1 else part[:, 0, None, None]

        def mix(a, b, t):
            return [p + (q - p) * t for p, q in zip(a, b)]

        # Sky, or backdrop.
        c = mix(get("top"), get("bottom"), (v / get("fade")).clamp(0, 1))
        spot = get("spot") * torch.exp(-((u - 0.5) ** 2 + (v - 0.42) ** 2) / 0.09)
        c = mix(c, [1.0, 1.0, 1.0], spot)
        px = (torch.floor(x * 256 + get("star_x") * 256) % 256).long()
        py = (torch.floor(y * 256 + get("star_y") * 256) % 256).long()
        star = self.stars[py * 256 + px] * get("stars") * (1 - v).clamp(0, 1)
        c = mix(c, [1.0, 1.0, 0.95], star)
        radius = get("disc_r")
        away = torch.sqrt((x - get("disc_x") * (width / side)) ** 2 + (y - get("disc_y") * (height / side)) ** 2)
        disc = torch.sigmoid((radius - away) / 0.003)
        halo = get("glow") * torch.exp(-((away / (radius.abs() * 3.0)) ** 2)) * (radius > 0)
        c = mix(c, get("disc"), torch.maximum(disc, halo))
        # The far layer: waves or peaks, with snow on top where far_cap says so.
        w = u * get("far_f") + get("far_p")
        tri = (torch.remainder(w, 1.0) - 0.5).abs() * 4 - 1
        tri2 = (torch.remainder(w * 1.7 + 0.3, 1.0) - 0.5).abs() * 4 - 1
        peaks = torch.minimum(tri, tri2 * 0.8 + 0.3)
        wave = torch.where(get("far_tri") > 0, peaks, torch.sin(w * 2 * math.pi))
        top = get("far_y") + get("far_h") * wave
        far = mix(get("far_a"), get("far_b"), ((v - top) / 0.3).clamp(0, 1))
        cap = get("far_cap") * torch.sigmoid((0.07 + 0.5 * (get("far_y") - top) - (v - top)) / 0.006)
        far = mix(far, [0.96, 0.97, 1.0], cap)
        c = mix(c, far, torch.sigmoid((v - top) / 0.004))
        # The ground.
        top = get("near_y") + get("near_h") * torch.sin((u * get("near_f") + get("near_p")) * 2 * math.pi)
        depth = ((v - top) / (1.0 - top)).clamp(0, 1)
        near = mix(get("near_a"), get("near_b"), depth)
        seam = torch.exp(-(((torch.remainder(depth * 4.0, 1.0) - 0.5).abs() - 0.5) / 0.035) ** 2)
        near = [n * (1 - get("planks") * seam) for n in near]
        c = mix(c, near, torch.sigmoid((v - top) / get("near_soft")))
        dim = 1 - get("vignette") * ((u - 0.5) ** 2 + (v - 0.5) ** 2) * 1.6
        c = [q * dim for q in c]

        for k in range(MAX_OBJECTS):
            o = objects[:, k, :, None, None]
            cls, ox, oy, size, angle, tint, shadow, alive = (o[:, i] for i in range(8))
            cls, size = cls.long(), size.clamp(min=1e-3)
            # The smallest copy of the atlas at least as large as the glyph will be.
            pixels = size * side
            level = ((pixels <= 150).long() + (pixels <= 75).long() + (pixels <= 38).long()).clamp(max=3)
            s = self.sides[level]
            dx, dy = x - ox, y - oy
            cos, sin = torch.cos(angle), torch.sin(angle)
            tx = ((dx * cos + dy * sin) / size + 0.5) * s - 0.5
            ty = ((-dx * sin + dy * cos) / size + 0.5) * s - 0.5
            x0, y0 = torch.floor(tx), torch.floor(ty)
            fx, fy = tx - x0, ty - y0
            base = self.offsets[level] + cls * s * s
            rgba = [0.0, 0.0, 0.0, 0.0]
            for j in (0, 1):
                for i in (0, 1):
                    xi, yj = x0 + i, y0 + j
                    inside = (xi >= 0) & (xi < s) & (yj >= 0) & (yj < s)
                    weight = (fx if i else 1 - fx) * (fy if j else 1 - fy) * inside * alive
                    index = base + (yj.clamp(min=0).long().minimum(s - 1)) * s + xi.clamp(min=0).long().minimum(s - 1)
                    t = self.texels[index]
                    rgba = [a + t[..., q].float() * weight for q, a in enumerate(rgba)]
            alpha = rgba[3]
            # Painted: brightness picks the colour of a ramp.
            light = (0.299 * rgba[0] + 0.587 * rgba[1] + 0.114 * rgba[2]) / alpha.clamp(min=1e-3)
            light = ((light - 0.08) / 0.86).clamp(0, 1) ** 1.4
            ramp = self.ramps[tint.long().clamp(min=0)[:, 0, 0]]
            low, high = (light * 2).clamp(max=1), (light * 2 - 1).clamp(min=0)
            painted = [(ramp[:, 0, q, None, None] * (1 - low) + ramp[:, 1, q, None, None] * low * (1 - high)
                        + ramp[:, 2, q, None, None] * high) * alpha for q in range(3)]
            rgb = [torch.where(tint >= 0, p, r) for p, r in zip(painted, rgba[:3])]
            # A soft shadow on the floor, then the thing itself.
            sy = oy + size * 0.47
            dark = shadow * alive * torch.exp(-((dx / (size * 0.36)) ** 2 + ((y - sy) / (size * 0.06)) ** 2))
            c = [q * (1 - dark) * (1 - alpha) + r for q, r in zip(c, rgb)]
        return torch.stack([q.expand(objects.shape[0], height, width) for q in c], 1).clamp(0, 1)


def main():
    from PIL import Image, ImageDraw

    import scenes

    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--out", required=True, help="a PNG sheet of scenes under their captions")
    p.add_argument("--seed", type=int, default=1)
    args = p.parse_args()
    atlas = np.load(args.atlas)["atlas"]
    rng = scenes.sampler(args.seed)
    batch = [scenes.sample(rng, scenes.heights_of(atlas)) for _ in range(48)]
    records = [s.record() for s in batch]
    pictures = Renderer(atlas, "cpu")(np.stack([r[0] for r in records]), np.stack([r[1] for r in records]), 256, 256,
                                      chunk=8)
    sheet = Image.new("RGB", (8 * 200, 6 * 216), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (s, pic) in enumerate(zip(batch, pictures)):
        tile = Image.fromarray((pic.permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8)).resize((196, 196))
        sheet.paste(tile, (i % 8 * 200, i // 8 * 216))
        draw.text((i % 8 * 200, i // 8 * 216 + 198), s.caption[:34], fill="black")
    sheet.save(args.out)


if __name__ == "__main__":
    main()
