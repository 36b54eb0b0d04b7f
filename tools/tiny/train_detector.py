"""Trains the detector on scenes drawn as it goes, apart from the generator.

    python tools/tiny/train_detector.py --atlas WORK/atlas.npz --scenes WORK/scenes --out WORK/out --seconds 90

Renders are kept in a pool and renewed a little every step; each use is shifted, softened, coloured and made noisy anew,
and a share goes through the autoencoder (--vae) with a little noise on its latents, so that a generator's softness is
nothing new. Every minute detector.pt (everything, for --resume) is written, at the end detector.safetensors (the
average of the weights' last third, 16 bit) and detector.json (what it gets right on renders it has not seen).
"""

import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import detector as d
import modules as m
import scenes
from facts import score
from render import Renderer
from training import Clock, Log, save_atomic

SHIFT = 4  # pixels of 128 by which a use of a picture may be moved
WEIGHTS = dict(peak=1.0, kind=1.0, tint=0.5, box=2.0, background=0.7)


class Pool:
    """Pictures of scenes at the detector's size, 8 bit, with their objects and labels."""

    def __init__(self, data, draw, size, count, device, vae=None, vae_share=0.0):
        self.objects = torch.from_numpy(data["objects"])
        self.backgrounds = torch.from_numpy(data["backgrounds"])
        self.labels = torch.from_numpy(data["labels"]).long()
        self.draw, self.size, self.count, self.device = draw, size, count, device
        self.vae, self.vae_share = vae, vae_share
        self.pictures = torch.zeros(count, 3, d.SIDE, d.SIDE, dtype=torch.uint8, device=device)
        self.drawn = torch.zeros(count, *self.objects.shape[1:])
        self.rows = torch.zeros(count, dtype=torch.long)
        self.next, self.fill_at, self.filled = 0, 0, 0

    @torch.no_grad()
    def renew(self, n):
        """Draws the next n scenes over the oldest ones."""
        rows = (self.next + torch.arange(n)) % len(self.objects)
        at = (self.fill_at + torch.arange(n)) % self.count
        soft = self.vae is not None and torch.rand(()) < self.vae_share
        size = 256 if soft else self.size  # softness at the size of the generator's pictures
        objects = varied(self.objects[rows])
        x = self.draw(objects, self.backgrounds[rows], size, size, chunk=n)
        if soft:
            dtype = next(self.vae.parameters()).dtype
            mean, _ = self.vae.encode((x * 2 - 1).to(dtype))
            noise = torch.rand(n, 1, 1, 1, device=x.device) * 0.25 * mean.std()
            x = (self.vae.decoder((mean + noise * torch.randn_like(mean)).to(dtype)).float() / 2 + 0.5).clamp(0, 1)
        self.pictures[at.to(self.device)] = (d.fit(x) * 255 + 0.5).byte()
        self.drawn[at], self.rows[at] = objects, rows
        self.next, self.fill_at = (self.next + n) % len(self.objects), (self.fill_at + n) % self.count
        self.filled = min(self.count, self.filled + n)

    def batch(self, n):
        """n jittered pictures with their objects [n, 4, 8] (moved along) and labels."""
        at = torch.randint(0, self.filled, (n,))
        x = self.pictures[at.to(self.device)].float() / 255
        dx, dy = torch.randint(-SHIFT, SHIFT + 1, (2,)).tolist()
        x = F.pad(x, (SHIFT,) * 4, mode="replicate")[..., SHIFT - dy : SHIFT - dy + d.SIDE,
                                                     SHIFT - dx : SHIFT - dx + d.SIDE]
        objects = self.drawn[at].clone()
        objects[..., 1] += dx / d.SIDE
        objects[..., 2] += dy / d.SIDE
        return jitter(x), objects.to(self.device), self.labels[self.rows[at]].to(self.device)


def varied(objects):
    """Objects [n, 4, 8] with what captions ask for seldom made frequent: paint, and sizes of things that stand alone.
    The captions need not fit: the detector never sees them."""
    out = objects.clone()
    dice = torch.rand(out.shape[:2])
    out[..., 5] = torch.where(dice < 0.35, torch.randint(0, d.PARTS[2] - 1, dice.shape).float(), out[..., 5])
    alone = (out[..., 7].sum(1) == 1) & (torch.rand(len(out)) < 0.5)
    size = torch.rand(len(out)) * 0.6 + 0.3
    out[:, 0, 3] = torch.where(alone, size, out[:, 0, 3])
    room = (size / 2).clamp(max=0.45)  # it stays on the picture
    for axis in (1, 2):
        out[:, 0, axis] = torch.where(alone, out[:, 0, axis].clamp(room, 1 - room), out[:, 0, axis])
    return out


def jitter(x):
    """Softer or sharper, other colours, noise: each picture by its own amounts."""
    def amount(low, high, channels=1):
        return low + (high - low) * torch.rand(len(x), channels, 1, 1, device=x.device)

    soft = F.avg_pool2d(F.pad(x, (1,) * 4, mode="replicate"), 3, 1)
    x = x + (soft - x) * amount(-0.3, 1.0)
    if torch.rand(()) < 0.2:  # much softer, the whole batch
        x = F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    x = x * amount(0.94, 1.06, 3) + amount(-0.03, 0.03, 3)
    return (x + torch.randn_like(x) * amount(0, 0.04)).clamp(0, 1)


def targets(objects, rows, columns):
    """The grid that is right for objects [B, 4, 8]: peaks [B, rows, columns], and for every object its batch, cell
    row and cell column with class, tint and box."""
    alive = objects[..., 7] > 0
    b = torch.arange(len(objects), device=objects.device)[:, None].expand_as(alive)[alive]
    o = objects[alive]
    x, y = o[:, 1] * d.SIDE / d.CELL, o[:, 2] * d.SIDE / d.CELL
    cx, cy = x.floor().clamp(0, columns - 1), y.floor().clamp(0, rows - 1)
    gx = torch.arange(columns, device=o.device) + 0.5
    gy = torch.arange(rows, device=o.device) + 0.5
    away = (gx[None, None] - x[:, None, None]) ** 2 + (gy[None, :, None] - y[:, None, None]) ** 2
    bump = torch.exp(-away / (2 * 0.5**2))
    peaks = torch.zeros(len(objects), rows, columns, device=o.device)
    peaks.scatter_reduce_(0, b[:, None, None].expand_as(bump), bump, "amax")
    peaks[b, cy.long(), cx.long()] = 1.0
    box = torch.stack([x - cx - 0.5, y - cy - 0.5, o[:, 3].log()], 1)
    return peaks, (b, cy.long(), cx.long()), o[:, 0].long(), o[:, 5].long() + 1, box


def loss_of(grid, background, objects, labels):
    """The sum of all parts, and the parts."""
    peaks, (b, y, x), kind, tint, box = targets(objects, *grid.shape[-2:])
    at = grid.float().permute(0, 2, 3, 1)
    guess = at[..., 0]
    p = guess.sigmoid()
    # Law and Deng's penalty-reduced focal loss: near a peak, being high costs little (CornerNet, eq. 1).
    hit = (1 - p) ** 2 * F.softplus(-guess)
    miss = (1 - peaks) ** 4 * p**2 * F.softplus(guess)
    cells = at[b, y, x]
    _, k, t, where = cells.split(d.PARTS, 1)
    parts = dict(peak=torch.where(peaks == 1, hit, miss).sum() / len(b), kind=F.cross_entropy(k, kind),
                 tint=F.cross_entropy(t, tint), box=F.smooth_l1_loss(where, box, beta=0.05),
                 background=F.cross_entropy(background.float(), labels))
    return sum(WEIGHTS[name] * v for name, v in parts.items()), parts


def held_out(draw, heights, n, size=256, seed=4321):
    """Scenes that training never saw, and their pictures."""
    rng = scenes.sampler(seed)
    batch = [scenes.sample(rng, heights, training=False) for _ in range(n)]
    records = [s.record() for s in batch]
    x = draw(np.stack([r[0] for r in records]), np.stack([r[1] for r in records]), size, size, chunk=16)
    return batch, x


class Mean:
    """The mean of state dicts: weights and running averages, not the norms' counters."""

    def __init__(self):
        self.values, self.count = {}, 0

    @torch.no_grad()
    def add(self, state):
        self.count += 1
        for name, value in state.items():
            if value.is_floating_point():
                self.values.setdefault(name, torch.zeros_like(value)).lerp_(value, 1 / self.count)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--scenes", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--vae", help="folder with vae.safetensors")
    p.add_argument("--seconds", type=float, default=90)
    p.add_argument("--batch", type=int, help="default: 256 on a GPU, 32 on a CPU")
    p.add_argument("--pool", type=int, help="pictures kept; default: 60000 on a GPU, 12000 on a CPU")
    p.add_argument("--renew", type=int, help="pictures drawn anew every step; default: 64 on a GPU, 8 on a CPU")
    p.add_argument("--render", type=int, help="pixels a side of the renders; default: 256 on a GPU, 128 on a CPU")
    p.add_argument("--vae-share", type=float, help="share of the renewals that go through it; default: 0.3 on a GPU, 0.05 on a CPU")
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--held-out", type=int, default=400, help="pictures that it is measured on in the end")
    p.add_argument("--threads", type=int, help="of the CPU")
    p.add_argument("--plain", action="store_true", help="without torch.compile of the renderer")
    p.add_argument("--resume", action="store_true", help="go on from detector.pt")
    args = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    big = device == "cuda"
    if args.threads:
        torch.set_num_threads(args.threads)

    def either(value, gpu, cpu):
        return value if value is not None else gpu if big else cpu

    batch, renew = either(args.batch, 256, 32), either(args.renew, 64, 8)
    half = big or torch.ops.mkldnn._is_mkldnn_bf16_supported()  # a third faster where the processor multiplies bf16
    torch.manual_seed(3)
    os.makedirs(args.out, exist_ok=True)
    log = Log(os.path.join(args.out, "detector.jsonl"))
    atlas = np.load(args.atlas)["atlas"]
    compiled = not args.plain and not big  # on a CPU the renderer gains three times; on a GPU it is quick as it is
    vae = None
    if args.vae:
        vae = m.Vae()
        vae.load_state_dict({k: v.float() for k, v in load_file(os.path.join(args.vae, "vae.safetensors")).items()})
        vae = vae.to(device, torch.bfloat16 if big else torch.float32).eval().requires_grad_(False)
    pool = Pool(np.load(os.path.join(args.scenes, "1x1.npz")), Renderer(atlas, device, compiled=compiled),
                either(args.render, 256, d.SIDE), either(args.pool, 60000, 12000), device, vae,
                either(args.vae_share, 0.3, 0.05))
    net = d.Detector().to(device).to(memory_format=torch.channels_last)
    average = Mean()
    optimiser = torch.optim.AdamW(net.parameters(), lr=args.lr, weight_decay=0.02, fused=True)
    n = 0
    saved_path = os.path.join(args.out, "detector.pt")
    if args.resume:
        saved = torch.load(saved_path, map_location=device)
        net.load_state_dict(saved["net"])
        optimiser.load_state_dict(saved["optimiser"])
        n, pool.next = saved["steps"], saved["next"]
    for _ in range(max(1, min(pool.count, 16 * batch) // renew)):
        pool.renew(renew)
    log(event="ready", pool=pool.filled)

    def save():
        save_atomic(lambda path: torch.save({"net": net.state_dict(), "optimiser": optimiser.state_dict(),
                                             "steps": n, "next": pool.next}, path), saved_path)

    def step():
        x, objects, labels = pool.batch(batch)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            grid, background = net(x.contiguous(memory_format=torch.channels_last))
        loss, parts = loss_of(grid, background, objects, labels)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()
        return loss, parts

    clock, started, saved_at = Clock(args.seconds), n, 0.0
    while (share := clock.share()) < 1:
        rate = min(1.0, (n - started + 1) / 100) * (1.0 if share < 0.4 else max(0.0, (1 - share) / 0.6))
        for group in optimiser.param_groups:
            group["lr"] = args.lr * rate
        loss, parts = step()
        n += 1
        if share > 0.66 and n % 10 == 0:
            average.add(net.state_dict())
        pool.renew(renew)
        if n % (50 if not big else 200) == 0:
            log(step=n, share=share, loss=loss.item(), rate=rate, **{k: v.item() for k, v in parts.items()})
        if share * args.seconds - saved_at > 60:
            saved_at = share * args.seconds
            save()
    save()
    if average.count:
        net.load_state_dict(average.values, strict=False)  # without the norms' counters
    net.eval()
    save_atomic(lambda path: d.save(net.state_dict(), path), os.path.join(args.out, "detector.safetensors"))
    final = d.load(os.path.join(args.out, "detector.safetensors"), device)
    some, pictures = held_out(Renderer(atlas, device), scenes.heights_of(atlas), args.held_out)
    result = score(some, d.read(final, pictures)) | {"steps": n}
    log(event="done", **result)
    with open(os.path.join(args.out, "detector.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)


if __name__ == "__main__":
    main()
