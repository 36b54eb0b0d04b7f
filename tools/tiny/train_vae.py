"""Trains the autoencoder on scenes drawn as it goes.

    python tools/tiny/train_vae.py --atlas WORK/atlas.npz --scenes WORK/scenes --out WORK/out --seconds 240

Leaves vae.safetensors (the EMA), vae.json (shift, scale, PSNR over 512 held-out scenes) and vae.jsonl (the curve).
"""

import argparse
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

import modules as m
import scenes
from render import Renderer
from training import Clock, Flat, Graphed, Log, save_atomic

# What the rate's decay and the average still add to the PSNR, by the share of the time that is over.
GAIN = [(0.30, 2.6), (0.40, 2.1), (0.50, 1.7), (0.60, 1.3), (0.70, 1.0), (0.80, 0.6), (0.88, 0.35)]


def held_out(atlas, n, seed=99, aspect=(1.0, 1.0)):
    """Records of scenes that training never samples (their combinations are kept from it, or their seed is)."""
    rng, heights = scenes.sampler(seed), scenes.heights_of(atlas)
    records = [scenes.sample(rng, heights, aspect, training=False).record() for _ in range(n)]
    return np.stack([r[0] for r in records]), np.stack([r[1] for r in records])


def psnr(a, b):
    """Per picture, in decibels, for pictures in [0, 1]."""
    return -10 * torch.log10((a - b).square().mean((1, 2, 3)).clamp(min=1e-10))


@torch.no_grad()
def measure(vae, draw, records, size, device, chunk=32):
    """Mean PSNR of reconstructions from the posterior's mean, the lowest tenth, and the latents' mean and deviation."""
    values, latents = [], []
    dtype = next(vae.parameters()).dtype
    for i in range(0, len(records[0]), chunk):
        x = draw(records[0][i : i + chunk], records[1][i : i + chunk], *size)
        mean, _ = vae.encode((x * 2 - 1).to(dtype).contiguous(memory_format=torch.channels_last))
        y = vae.decoder(mean).float()
        values.append(psnr((y / 2 + 0.5).clamp(0, 1), x))
        latents.append(mean.float().cpu())
    v, z = torch.cat(values), torch.cat(latents)
    return v.mean().item(), v.quantile(0.1).item(), z.mean().item(), z.std().item(), z.std((0, 2, 3))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--scenes", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--seconds", type=float, default=240)
    p.add_argument("--batch", type=int, default=48)
    p.add_argument("--size", type=int, default=192)
    p.add_argument("--lr", type=float, default=1.6e-3)
    p.add_argument("--kl", type=float, default=3e-3, help="weight of the KL term at the start")
    p.add_argument("--target", type=float, default=33.9, help="the PSNR that the KL weight is steered to")
    p.add_argument("--coarse", type=float, default=0.2, help="weight of decoding halved latents to halved pictures")
    p.add_argument("--plain", action="store_true", help="without torch.compile and graphs")
    p.add_argument("--held-out", type=int, default=512)
    args = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    os.makedirs(args.out, exist_ok=True)
    log = Log(os.path.join(args.out, "vae.jsonl"))
    atlas = np.load(args.atlas)["atlas"]
    data = np.load(os.path.join(args.scenes, "1x1.npz"))
    objects = torch.from_numpy(data["objects"]).to(device)
    backgrounds = torch.from_numpy(data["backgrounds"]).to(device)
    draw = Renderer(atlas, device, compiled=not args.plain)
    check = Renderer(atlas, device)
    vae = m.initialise(m.Vae()).to(device)
    flat = Flat(vae, device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    run = Trainable(vae) if args.plain else torch.compile(Trainable(vae), dynamic=False)

    chunk = args.batch * 4
    x_all = torch.zeros(chunk, 3, args.size, args.size, device=device).contiguous(memory_format=torch.channels_last)
    turn = torch.zeros((), dtype=torch.long, device=device)
    kl_weight = torch.tensor(args.kl, device=device)
    sums = torch.zeros(5, device=device)

    def step():
        at = (turn % 4) * args.batch + torch.arange(args.batch, device=device)
        x = x_all.index_select(0, at)
        turn.add_(1)
        flat.grad.zero_()
        noise = torch.randn(args.batch, 16, args.size // 8, args.size // 8, device=device)
        loss, parts = run(x, noise, kl_weight, args.coarse)
        loss.backward()
        flat.step(betas=(0.9, 0.99))
        sums.add_(torch.stack([loss.detach(), *parts, flat.norm]))

    def fill(i):
        rows = torch.arange(i * chunk, (i + 1) * chunk, device=device) % len(objects)
        x = draw(objects[rows], backgrounds[rows], args.size, args.size, chunk=chunk)
        x_all.copy_(x * 2 - 1)

    fill(0)
    flat.lr.fill_(0.0)
    graph = Graphed(step, enabled=not args.plain)
    log(event="ready", captured=graph.graph is not None)
    flat.count.zero_()
    flat.first.zero_()
    flat.second.zero_()
    sums.zero_()
    clock, n, gains = Clock(args.seconds), 0, list(GAIN)
    records = held_out(atlas, args.held_out)
    while (share := clock.share()) < 1:
        fill(n // 4)
        rate = min(1.0, (n + 1) / 200) * (1.0 if share < 0.3 else max(0.01, (1 - share) / 0.7))
        flat.lr.fill_(args.lr * rate)
        flat.keep.fill_(min(0.998, n / (n + 50)))
        for _ in range(4):
            graph()
        n += 4
        if n % 400 == 0:
            s = (sums / 400).tolist()
            sums.zero_()
            log(step=n, share=share, loss=s[0], mse_psnr=-10 * float(np.log10(s[1] / 4 + 1e-9)), kl=s[2], coarse=s[3],
                grad=s[4], kl_weight=kl_weight.item())
        if gains and share > gains[0][0]:
            gain = gains.pop(0)[1]
            now, low, _, std, _ = measure(vae, check, (records[0][:64], records[1][:64]), (256, 256), device)
            expected = now + gain
            if expected > args.target + 0.3:
                kl_weight.mul_(1.5).clamp_(max=2e-2)
            elif expected < args.target - 0.3:
                kl_weight.mul_(0.6).clamp_(min=3e-4)
            log(event="steer", psnr=now, expected=expected, kl_weight=kl_weight.item(), std=std)

    state = flat.state(vae)
    final = m.Vae()
    final.load_state_dict({k: v.half().float() for k, v in state.items()})
    final = final.to(device).to(memory_format=torch.channels_last)
    result = {}
    for size in ((256, 256), (128, 128), (384, 384)):
        n_records = len(records[0]) if size == (256, 256) else len(records[0]) // 4
        mean, low, shift, std, channels = measure(final, check, (records[0][:n_records], records[1][:n_records]), size,
                                                  device)
        result[f"psnr_{size[0]}"], result[f"psnr_{size[0]}_p10"] = round(mean, 3), round(low, 3)
        if size == (256, 256):
            result.update(shift=round(shift, 5), scale=round(1 / std, 5), channel_std=[round(float(c), 3) for c in channels])
    result.update(steps=n, pictures=n * args.batch, seconds=args.seconds, kl_weight=kl_weight.item(),
                  held_out=len(records[0]))
    log(event="done", **{k: v for k, v in result.items() if not isinstance(v, list)})
    with open(os.path.join(args.out, "vae.json"), "w", encoding="utf-8") as f:
        json.dump(result, f, indent=1)
    save_atomic(lambda path: save_file({k: v.half() for k, v in state.items()}, path),
                os.path.join(args.out, "vae.safetensors"))


class Trainable(torch.nn.Module):
    """The autoencoder with its loss."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, x, noise, kl_weight, coarse_weight):
        dtype = self.vae.encoder.conv_in.weight.dtype
        mean, logvar = self.vae.encode(x.to(dtype))
        mean, logvar = mean.float(), logvar.float()
        z = mean + (0.5 * logvar).exp() * noise
        y = self.vae.decoder(z.to(dtype)).float()
        d = y - x
        mse = d.square().mean()
        edges = (d[..., 1:] - d[..., :-1]).abs().mean() + (d[..., 1:, :] - d[..., :-1, :]).abs().mean()
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        half = self.vae.decoder(F.avg_pool2d(z, 2).to(dtype)).float()
        coarse = (half - F.avg_pool2d(x, 2)).abs().mean()
        loss = d.abs().mean() + 0.5 * edges + 2 * mse + kl_weight * kl + coarse_weight * coarse
        return loss, (mse.detach(), kl.detach(), coarse.detach())


if __name__ == "__main__":
    main()
