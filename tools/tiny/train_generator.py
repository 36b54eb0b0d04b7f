"""Trains the MMDiT and the three text encoders together, on latents of scenes that the autoencoder encodes as it goes.

    python tools/tiny/train_generator.py --atlas WORK/atlas.npz --scenes WORK/scenes --vae WORK/out --out WORK/out \
        --seconds 1000

Rectified flow: x = (1 - sigma) latent + sigma noise, the model predicts noise - latent; sigma from a logit-normal
shifted by 3 (a tenth uniform); a tenth of the captions is empty. The learning rate follows the clock and is zero when
the time is over. Every minute generator-1-of-N.safetensors and so on (the EMA, 16 bit), generator-state-1-of-N (the
weights and the squares of Adam, 16 bit, for --resume) are written; generator.jsonl is the curve.

On several GPUs: `torchrun --nproc-per-node N tools/tiny/train_generator.py ...`; each has --batch pictures a step and a
pool of its own, and the gradients are averaged.
"""

import argparse
import json
import os

import numpy as np
import torch
from safetensors.torch import load_file

import modules as m
from render import Renderer
from training import Clock, Flat, Graphed, Log, Ranks, load_parts, save_parts

BATCH = 512  # pictures of 256x256 a step
# Other sizes: aspect of the scenes, width, height, pictures a step where 256x256 has BATCH, share of the steps.
OTHER_SIZES = [("1x1", 128, 128, 512, 0.03), ("1x1", 192, 192, 512, 0.05), ("1x1", 384, 384, 224, 0.05),
               ("3x2", 384, 256, 320, 0.03), ("2x3", 256, 384, 320, 0.03), ("5x3", 320, 192, 512, 0.03),
               ("3x5", 192, 320, 512, 0.03), ("4x3", 256, 192, 512, 0.02), ("3x4", 192, 256, 512, 0.02)]
SHIFT = 3.0
DROPPED = 0.1  # captions replaced by the empty one


def muon_shape(name, p):
    """The matrices that Muon updates, as the blocks it sees: modulations and joint projections are stacks of squares."""
    if p.dim() != 2 or "embedding" in name or "shared" in name or "relative" in name:
        return None
    if not name.startswith("transformer.transformer_blocks") and ".encoder." not in name:
        return None
    rows, columns = p.shape
    if "norm1" in name or "norm1_context" in name:
        return columns, columns
    if (rows * columns) % 64:
        return None
    return rows, columns


class Pool:
    """Latents of one size with the captions of their scenes, renewed a little at a time."""

    def __init__(self, scenes, width, height, count, encode, device, begin):
        """`begin`: the share of the scenes that lies before the first one taken."""
        self.scenes, self.width, self.height, self.encode, self.device = scenes, width, height, encode, device
        self.count, self.next, self.fill_at = count, int(begin * len(scenes["objects"])), 0
        self.latents = torch.zeros(count, 16, height // 8, width // 8, device=device, dtype=torch.float16)
        self.rows = torch.zeros(count, dtype=torch.long, device=device)

    def renew(self, n):
        """Encodes the next n scenes over the oldest latents."""
        total = len(self.scenes["objects"])
        rows = (self.next + torch.arange(n, device=self.device)) % total
        at = (self.fill_at + torch.arange(n, device=self.device)) % self.count
        self.latents[at] = self.encode(self.scenes["objects"][rows], self.scenes["backgrounds"][rows], self.height,
                                       self.width).half()
        self.rows[at] = rows
        self.next, self.fill_at = (self.next + n) % total, (self.fill_at + n) % self.count

    def fill(self, chunk):
        for _ in range(-(-self.count // chunk)):
            self.renew(chunk)


def sample_sigma(n, device):
    """Logit-normal with nine tenths, uniform with one, both shifted towards noise."""
    normal = torch.sigmoid(torch.randn(n, device=device))
    uniform = torch.rand(n, device=device)
    s = torch.where(torch.rand(n, device=device) < 0.9, normal, uniform)
    return SHIFT * s / (1 + (SHIFT - 1) * s)


class Trainable(torch.nn.Module):
    """The generator with its loss."""

    def __init__(self, generator):
        super().__init__()
        self.generator = generator

    def forward(self, latent, noise, sigma, ids_l, ids_g, ids_t5):
        s = sigma[:, None, None, None]
        x = (1 - s) * latent + s * noise
        v = self.generator(x, sigma * 1000, ids_l, ids_g, ids_t5).float()
        return (v - (noise - latent)).square().mean()


def clip_g_ids(ids, end):
    """CLIP-G's ids from CLIP-L's: the same up to the first end token, then zeros."""
    ended = (ids == end).cumsum(-1)
    return torch.where((ended > 1) | ((ended == 1) & (ids != end)), 0, ids)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--atlas", required=True)
    p.add_argument("--scenes", required=True)
    p.add_argument("--vae", required=True, help="folder with vae.safetensors and vae.json")
    p.add_argument("--out", required=True)
    p.add_argument("--seconds", type=float, default=1000)
    p.add_argument("--end-file", help="a file with the end as seconds since the epoch, which may change while it runs")
    p.add_argument("--batch", type=int, default=BATCH)
    p.add_argument("--pool", type=int, default=120000, help="latents of 256x256 kept at a time")
    p.add_argument("--other-pool", type=int, default=3000)
    p.add_argument("--renew", type=int, default=256, help="pictures encoded anew every --every steps")
    p.add_argument("--every", type=int, default=4)
    p.add_argument("--lr", type=float, default=1.5e-3, help="Adam, for what is not a matrix of a block")
    p.add_argument("--lr-muon", type=float, default=2.5e-3)
    p.add_argument("--constant", type=float, default=0.5, help="share of the time before the rate falls to zero")
    p.add_argument("--plain", action="store_true", help="without torch.compile and graphs")
    p.add_argument("--resume", action="store_true", help="go on from what an earlier run left in --out")
    args = p.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    ranks = Ranks()
    torch.manual_seed(1 + ranks.rank)
    os.makedirs(args.out, exist_ok=True)
    log = Log(os.path.join(args.out, "generator.jsonl") if ranks.rank == 0 else None)
    with open(os.path.join(args.scenes, "tokens.json"), encoding="utf-8") as f:
        tokens = json.load(f)
    with open(os.path.join(args.vae, "vae.json"), encoding="utf-8") as f:
        stats = json.load(f)
    clock = Clock(args.seconds, args.end_file)

    vae = m.Vae()
    vae.load_state_dict({k: v.float() for k, v in load_file(os.path.join(args.vae, "vae.safetensors")).items()})
    vae = vae.to(device, dtype).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    # Compiling the renderer takes half a minute for each size: worth it for one.
    renderers = {(256, 256): Renderer(np.load(args.atlas)["atlas"], device, compiled=not args.plain)}
    plain_renderer = Renderer(np.load(args.atlas)["atlas"], device)

    @torch.no_grad()
    def encode(objects, backgrounds, height, width):
        draw = renderers.get((height, width), plain_renderer)
        x = draw(objects, backgrounds, height, width, chunk=len(objects)) * 2 - 1
        mean, logvar = vae.encode(x.to(dtype).contiguous(memory_format=torch.channels_last))
        z = mean.float() + (0.5 * logvar.float()).exp() * torch.randn_like(mean, dtype=torch.float32)
        return (z - stats["shift"]) * stats["scale"]

    scenes = {}
    for aspect in {"1x1"} | {a for a, *_ in OTHER_SIZES}:
        path = os.path.join(args.scenes, aspect + ".npz")
        if os.path.exists(path):
            data = np.load(path)
            scenes[aspect] = {k: torch.from_numpy(data[k]).to(device) for k in
                              ("objects", "backgrounds", "clip", "t5")}
    main_pool = Pool(scenes["1x1"], 256, 256, args.pool, encode, device, ranks.rank / ranks.count)
    main_pool.fill(min(256, args.pool))
    log(event="pool filled", latents=args.pool, mean=main_pool.latents[:2000].float().mean().item(),
        std=main_pool.latents[:2000].float().std().item())

    generator = m.initialise(m.Generator(tokens["clip"], tokens["t5"], onehot=device == "cuda")).to(device)
    flat = Flat(generator, device, muon=muon_shape, dtype=dtype)
    for buffer in (flat.master, flat.shadow, flat.ema):
        ranks.agree(buffer)
    trainable = Trainable(generator)
    compiled = trainable if args.plain else torch.compile(trainable, dynamic=False)
    empty_clip = torch.tensor(tokens["empty_clip"], device=device)
    empty_t5 = torch.tensor(tokens["empty_t5"], device=device)
    losses = torch.zeros(2, device=device)  # sum and count, 256x256 only

    def make_gradients(pool, batch, run, counted):
        def gradients():
            at = torch.randint(0, pool.count, (batch,), device=device)
            rows = pool.rows[at]
            latent = pool.latents[at].float()
            dropped = torch.rand(batch, 1, device=device) < DROPPED
            ids_l = torch.where(dropped, empty_clip, pool.scenes["clip"][rows].long())
            ids_t5 = torch.where(dropped, empty_t5, pool.scenes["t5"][rows].long())
            noise = torch.randn_like(latent)
            loss = run(latent, noise, sample_sigma(batch, device), ids_l, clip_g_ids(ids_l, tokens["end"]), ids_t5)
            flat.grad.zero_()
            loss.backward()
            if counted:
                losses.add_(torch.stack([loss.detach(), torch.ones_like(loss)]))
        return gradients

    flat.lr.fill_(0.0)
    flat.lr_muon.fill_(0.0)
    main_gradients = Graphed(make_gradients(main_pool, args.batch, compiled, True), enabled=not args.plain)
    update = Graphed(flat.step, enabled=not args.plain)
    log(event="ready at 256x256", captured=main_gradients.graph is not None and update.graph is not None,
        processes=ranks.count)
    others, shares = [], []
    for aspect, width, height, batch, share in OTHER_SIZES if args.other_pool else []:
        if aspect in scenes:
            others.append([Pool(scenes[aspect], width, height, args.other_pool, encode, device,
                                ranks.rank / ranks.count),
                           max(1, batch * args.batch // BATCH), None])
            shares.append(share)
    # The averages start over: warming up the graph has already taken steps, at rate zero.
    for buffer in (flat.first, flat.second, flat.count, losses):
        buffer.zero_()
    n, seen = 0, 0
    if args.resume:
        saved, values = load_parts(os.path.join(args.out, "generator-state"))
        flat.restore(saved, load_parts(os.path.join(args.out, "generator"))[0])
        n, seen = values["steps"], values["seen"]
        log(event="resumed", step=n, seen=seen)
    began = n
    picks = np.random.default_rng(2)
    saved_at = clock.share()

    def save():
        state = {k: v.half() for k, v in flat.state(generator).items()}
        save_parts(state, os.path.join(args.out, "generator"), steps=n, seen=seen)
        save_parts(flat.checkpoint(), os.path.join(args.out, "generator-state"), steps=n, seen=seen)

    at_once = 1 if args.plain else 20  # steps between two looks at the clock, on which all processes must agree
    while (share := ranks.agree(torch.tensor(clock.share(), device=device)).item()) < 1:
        for _ in range(at_once):
            warm = min(1.0, (n - began + 1) / 300)
            rate = warm * (1.0 if share < args.constant else max(0.0, (1 - share) / (1 - args.constant)))
            flat.lr.fill_(args.lr * rate)
            flat.lr_muon.fill_(args.lr_muon * rate)
            flat.keep.fill_(min(0.9995, n / (n + 100)))
            pick = picks.random()
            if others and share > 0.04 and pick < sum(shares):
                k = int(np.searchsorted(np.cumsum(shares), pick))
                pool, batch, gradients = others[k]
                if gradients is None:  # made when first needed: nothing waits for sizes at the start
                    pool.fill(min(150, args.other_pool))
                    gradients = others[k][2] = Graphed(make_gradients(pool, batch, trainable, False),
                                                       enabled=not args.plain, warm=2)
                    log(event=f"ready at {pool.width}x{pool.height}", captured=gradients.graph is not None)
                gradients()
                seen += batch * ranks.count
            else:
                main_gradients()
                seen += args.batch * ranks.count
            ranks.average(flat.grad)
            update()
            n += 1
            if n % args.every == 0:
                main_pool.renew(min(args.renew, args.pool))
        if n % (50 if args.plain else 200) == 0:
            total, count = losses.tolist()
            losses.zero_()
            log(step=n, seen=seen, share=share, loss=total / max(count, 1), norm=flat.norm.item(), rate=rate)
            if ranks.rank == 0 and (clock.share() - saved_at) * args.seconds > 60:
                saved_at = clock.share()
                save()
    if ranks.rank == 0:
        save()
    ranks.close()
    log(event="done", step=n, seen=seen)


if __name__ == "__main__":
    main()
