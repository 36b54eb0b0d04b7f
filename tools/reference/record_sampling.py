"""Records schedules, noise and sampler trajectories of diffusers, torch, scipy and published formulas.

    python tools/reference/record_sampling.py            # writes tests/parity/fixtures/sampling/

Needs torch (CPU), diffusers and scipy; versions are written into the files. tests/parity/sampling_parity_test.cc replays the
recordings without Python: equality bit for bit where the arithmetic is defined, a rounding's width elsewhere.

Formulas of k-diffusion and ComfyUI are written down here anew, in double precision, as their papers state them.
"""

import math
from pathlib import Path

import diffusers
import numpy as np
import scipy.stats
import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
    FlowMatchLCMScheduler,
    UniPCMultistepScheduler,
)
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "sampling"
# One entry: safetensors writes several in an order that changes from run to run.
VERSIONS = {"recorded_with": f"torch {torch.__version__}, diffusers {diffusers.__version__}"}
MAX_STEPS = 200
SEEDS = [0, 1, 42, 2**32 - 1, 2**32 + 7, 0x123456789ABCDEF, 2**63 - 1]
FULL_SIZES = [1, 2, 5, 15, 16, 17, 31, 100, 1000]
HASHED_SIZES = [16 * 16 * 16, 16 * 32 * 32, 16 * 48 * 24, 16 * 128 * 128, 16 * 32 * 32 + 5]


def record_schedules() -> None:
    """All runs of 1 to 200 steps one after the other: n + 1 sigmas and n timesteps each."""
    tensors = {}
    for shift in (3.0, 1.0, 5.0):
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
        sigmas, timesteps = [], []
        for steps in range(1, MAX_STEPS + 1) if shift == 3.0 else (1, 2, 7, 28):
            scheduler.set_timesteps(steps)
            sigmas.append(scheduler.sigmas.clone())
            timesteps.append(scheduler.timesteps.clone())
        tensors[f"shift_{shift:g}.sigmas"] = torch.cat(sigmas)
        tensors[f"shift_{shift:g}.timesteps"] = torch.cat(timesteps)
    save_file(tensors, OUT / "schedules.safetensors", VERSIONS)


def record_noise() -> None:
    """Small draws whole; large ones as first and last eight values and a hash."""
    tensors, hashes = {}, {}
    for seed in SEEDS:
        for size in FULL_SIZES:
            generator = torch.Generator("cpu").manual_seed(seed)
            tensors[f"seed_{seed}.size_{size}"] = torch.randn(size, generator=generator)
        for size in HASHED_SIZES:
            generator = torch.Generator("cpu").manual_seed(seed)
            values = torch.randn(size, generator=generator)
            tensors[f"seed_{seed}.ends_{size}"] = torch.cat([values[:8], values[-8:]])
            hashes[f"seed_{seed}.size_{size}"] = fnv1a(values)
        # One generator drawn from many times: the double-precision path keeps half a pair between calls.
        generator = torch.Generator("cpu").manual_seed(seed)
        tensors[f"seed_{seed}.sequence"] = torch.cat(
            [torch.randn(size, generator=generator) for size in (3, 16, 4, 33, 1, 2)]
        )
    hash_names = sorted(hashes)
    for name in hash_names:
        tensors[f"hash.{name}"] = torch.from_numpy(np.array([hashes[name]], dtype=np.uint64).view(np.int32).copy())
    save_file(tensors, OUT / "noise.safetensors", VERSIONS)


def fnv1a(values: torch.Tensor) -> int:
    """64-bit FNV-1a over the 32-bit patterns (one round a value)."""
    result = 0xCBF29CE484222325
    for word in values.numpy().view(np.uint32).tolist():
        result = ((result ^ word) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return result


def record_trajectories() -> None:
    """Euler through diffusers' scheduler on velocity(x, sigma) = (0.75 x - 0.25) * sigma: every step's latents."""
    tensors = {}
    for steps in (1, 2, 5, 20):
        scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
        scheduler.set_timesteps(steps)
        latents = torch.randn(1, 16, 4, 6, generator=torch.Generator("cpu").manual_seed(1234))
        trajectory = [latents]
        for index, timestep in enumerate(scheduler.timesteps):
            velocity = (latents * 0.75 - 0.25) * scheduler.sigmas[index]
            latents = scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            trajectory.append(latents)
        tensors[f"steps_{steps}"] = torch.cat(trajectory)
    save_file(tensors, OUT / "euler.safetensors", VERSIONS)


def training_table(shift: float) -> np.ndarray:
    """Noise levels 1 .. 1000 of a flow, ascending, in float32 as every implementation stores them."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift)
    return scheduler.sigmas[:1000].flip(0).numpy()


def record_other_schedules() -> None:
    """What ComfyUI and A1111 make of the training table; at shift 1 diffusers' own karras and exponential agree."""
    tensors = {}
    for shift in (3.0, 1.0):
        table = training_table(shift)
        low, high = float(table[0]), float(table[-1])
        for steps in (2, 4, 9, 20, 28, 50, 200):
            ramp = np.linspace(0, 1, steps)
            levels = np.rint(scipy.stats.beta.ppf(1 - np.arange(steps) / steps, 0.6, 0.6) * 999).astype(int)
            levels = [level for i, level in enumerate(levels) if i == 0 or level != levels[i - 1]]
            schedules = {
                "karras": (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7,
                "exponential": np.exp(math.log(high) + ramp * (math.log(low) - math.log(high))),
                "kl_optimal": np.tan(ramp * math.atan(low) + (1 - ramp) * math.atan(high)),
                "beta": table[levels],
                "ddim_uniform": table[1 :: max(1000 // steps, 1)][::-1],
            }
            for name, sigmas in schedules.items():
                tensors[f"shift_{shift:g}.{name}.{steps}"] = torch.from_numpy(np.array(sigmas, dtype=np.float32))
    for steps in (2, 9, 28):
        for name in ("karras", "exponential"):
            scheduler = FlowMatchEulerDiscreteScheduler(1000, shift=1.0, **{f"use_{name}_sigmas": True})
            scheduler.set_timesteps(steps)
            tensors[f"diffusers.{name}.{steps}"] = scheduler.sigmas[:-1].clone()
    save_file(tensors, OUT / "other_schedules.safetensors", VERSIONS)


def philox_normal(seed: int, call: int, count: int) -> np.ndarray:
    """A1111's NV stream: Philox4x32-10 words, the first value of the first Box-Muller pair, in double."""
    counter = [np.full(count, call, np.uint64), np.zeros(count, np.uint64), np.arange(count, dtype=np.uint64)]
    counter.append(np.zeros(count, np.uint64))
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    word = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        a, b = counter[0] * np.uint64(0xD2511F53), counter[2] * np.uint64(0xCD9E8D57)
        shift = np.uint64(32)
        counter = [(b >> shift) ^ counter[1] ^ np.uint64(key[0]), b & word,
                   (a >> shift) ^ counter[3] ^ np.uint64(key[1]), a & word]  # fmt: skip
        key = [(key[0] + 0x9E3779B9) & 0xFFFFFFFF, (key[1] + 0xBB67AE85) & 0xFFFFFFFF]
    turn = float(np.float32(2.0**-32 * 6.2831855))
    u, angle = counter[0] * 2.0**-32 + 2.0**-33, counter[1] * turn + turn / 2
    return (np.sqrt(-2 * np.log(u)) * np.sin(angle)).astype(np.float32)


def record_philox_and_variations() -> None:
    tensors = {}
    for seed in (0, 42, 2**32 + 7, 2**63 - 1):
        for call in (0, 1):
            tensors[f"philox.{seed}.{call}"] = torch.from_numpy(philox_normal(seed, call, 1000))
    # A1111's variation: columns turn from one noise to the other.
    shape = (16, 16, 12)
    low = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(11)).double()
    high = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(12)).double()
    cosine = (low * high).sum(1) / (low.norm(dim=1) * high.norm(dim=1))
    angle = torch.acos(cosine)
    for strength in (0.1, 0.5, 0.9):
        first = torch.sin((1 - strength) * angle) / torch.sin(angle)
        second = torch.sin(strength * angle) / torch.sin(angle)
        tensors[f"variation.{strength:g}"] = (first[:, None] * low + second[:, None] * high).float()
    save_file(tensors, OUT / "variations.safetensors", VERSIONS)


WEIGHTS, MEANS, DEVIATIONS = (0.3, 0.7), (-1.2, 0.8), (0.5, 0.3)


def mixture_velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[noise - picture | x] when pictures are a mixture of two normal distributions, element by element."""
    x = x.double()
    share, total, velocity = 1 - sigma, 0, 0
    for weight, mean, deviation in zip(WEIGHTS, MEANS, DEVIATIONS):
        variance = share**2 * deviation**2 + sigma**2
        distance = x - share * mean
        density = weight * torch.exp(-0.5 * distance**2 / variance) / math.sqrt(variance)
        total = total + density
        velocity = velocity + density * (sigma / variance * distance - mean - share * deviation**2 / variance * distance)
    return velocity / total


def half_log_snr(sigma: float) -> float:
    return math.log((1 - sigma) / sigma)


def euler_ancestral(x, sigmas, eta, noise):
    """ComfyUI's form for flows ("RF")."""
    for now, then in zip(sigmas, sigmas[1:]):
        picture = x - now * mixture_velocity(x, now)
        if then == 0:
            x = picture
        else:
            down = then * (1 + (then / now - 1) * eta)
            x = down / now * x + (1 - down / now) * picture
            if eta > 0:
                back = math.sqrt(then**2 - down**2 * (1 - then) ** 2 / (1 - down) ** 2)
                x = (1 - then) / (1 - down) * x + back * noise()
        yield x


def dpmpp_2m(x, sigmas, eta, noise):
    """k-diffusion's, in t = -log sigma."""
    previous = None
    for i, (now, then) in enumerate(zip(sigmas, sigmas[1:])):
        picture = x - now * mixture_velocity(x, now)
        if then == 0:
            x = picture
        else:
            h = math.log(now) - math.log(then)
            mixed = picture
            if previous is not None:
                r = (math.log(sigmas[i - 1]) - math.log(now)) / h
                mixed = (1 + 1 / (2 * r)) * picture - 1 / (2 * r) * previous
            x = then / now * x - math.expm1(-h) * mixed
        previous = picture
        yield x


def dpmpp_sde(x, sigmas, eta, noise, order, midpoint):
    """k-diffusion's 2M and 3M SDE in a flow's half log-SNR, as ComfyUI runs them; independent noise."""
    pictures, lengths = [], []
    for now, then in zip(sigmas, sigmas[1:]):
        picture = x - now * mixture_velocity(x, now)
        if then == 0:
            yield picture
            return
        h = half_log_snr(then) - half_log_snr(now)
        grown = h * (1 + eta)
        alpha = 1 - then
        x = then / now * math.exp(-h * eta) * x - alpha * math.expm1(-grown) * picture
        phi_2 = math.expm1(-grown) / grown + 1
        if len(pictures) >= 2 and order == 3:
            r0, r1 = lengths[-1] / h, lengths[-2] / h
            d0, d1 = (picture - pictures[-1]) / r0, (pictures[-1] - pictures[-2]) / r1
            slope, bend = d0 + (d0 - d1) * r0 / (r0 + r1), (d0 - d1) / (r0 + r1)
            x = x + alpha * phi_2 * slope - alpha * (phi_2 / grown - 0.5) * bend
        elif pictures:
            slope = (picture - pictures[-1]) / (lengths[-1] / h)
            x = x + alpha * (-0.5 * math.expm1(-grown) if midpoint else phi_2) * slope
        if eta > 0:
            x = x + noise() * then * math.sqrt(-math.expm1(-2 * h * eta))
        pictures.append(picture)
        lengths.append(h)
        yield x


SHAPE = (1, 16, 2, 3)
FORMULAS = {
    "euler_ancestral": (euler_ancestral, {}, False),
    "dpmpp_2m": (dpmpp_2m, {}, False),
    "dpmpp_2m_sde": (dpmpp_sde, {"order": 2, "midpoint": True}, True),
    "dpmpp_2m_sde_heun": (dpmpp_sde, {"order": 2, "midpoint": False}, True),
    "dpmpp_3m_sde": (dpmpp_sde, {"order": 3, "midpoint": False}, True),
}


def flow_sigmas(steps: int, below_one: bool) -> list[float]:
    """diffusers' own levels, as doubles of their float32 values; ComfyUI's first level where 1 has no log-SNR."""
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(steps)
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    if below_one:
        sigmas[0] = float(np.float32(3 * (1 - 1e-4) / (1 + 2 * (1 - 1e-4))))
    return sigmas


def record_formulas() -> None:
    tensors = {}
    for name, (formula, arguments, below_one) in FORMULAS.items():
        for eta in (1.0,) if name == "dpmpp_2m" else (0.0, 0.5, 1.0):
            for steps in (1, 2, 12):
                generator = torch.Generator("cpu").manual_seed(1234)
                x = torch.randn(SHAPE, generator=generator)
                noise = lambda: torch.randn(SHAPE, generator=generator).double()  # noqa: E731
                steps_taken = list(formula(x.double(), flow_sigmas(steps, below_one), eta, noise, **arguments))
                tensors[f"{name}.eta_{eta:g}.steps_{steps}"] = torch.cat(steps_taken).float()
    save_file(tensors, OUT / "formulas.safetensors", VERSIONS)


def record_diffusers_samplers() -> None:
    """Trajectories of diffusers' schedulers: the latents after each whole step."""
    tensors = {}

    def start():
        generator = torch.Generator("cpu").manual_seed(1234)
        return torch.randn(SHAPE, generator=generator), generator

    def velocity(x, sigma):
        return mixture_velocity(x, float(sigma)).float()

    for steps in (1, 2, 12):
        scheduler = FlowMatchHeunDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
        scheduler.set_timesteps(steps)
        x, _ = start()
        trajectory = []
        for i, timestep in enumerate(scheduler.timesteps):
            whole_step = not scheduler.state_in_first_order or i + 1 == len(scheduler.timesteps)
            x = scheduler.step(velocity(x, timestep / 1000), timestep, x, return_dict=False)[0]
            if whole_step:
                trajectory.append(x)
        tensors[f"heun.steps_{steps}"] = torch.cat(trajectory)

        scheduler = FlowMatchLCMScheduler(num_train_timesteps=1000, shift=3.0)
        scheduler.set_timesteps(steps)
        x, generator = start()
        trajectory = []
        for i, timestep in enumerate(scheduler.timesteps):
            sigma = scheduler.sigmas[i]
            x = scheduler.step(velocity(x, sigma), timestep, x, generator=generator, return_dict=False)[0]
            trajectory.append(x)
        tensors[f"lcm.steps_{steps}"] = torch.cat(trajectory)

        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_order=2, solver_type="bh2"
        )
        scheduler.set_timesteps(steps)
        scheduler.sigmas = torch.tensor(flow_sigmas(steps, True), dtype=torch.float32)
        x, _ = start()
        trajectory = []
        for i, timestep in enumerate(scheduler.timesteps):
            x = scheduler.step(velocity(x, scheduler.sigmas[i]), timestep, x, return_dict=False)[0]
            trajectory.append(x)
        tensors[f"uni_pc.steps_{steps}"] = torch.cat(trajectory)
    save_file(tensors, OUT / "diffusers_samplers.safetensors", VERSIONS)


def main() -> None:
    torch.set_num_threads(2)
    OUT.mkdir(parents=True, exist_ok=True)
    record_schedules()
    record_noise()
    record_trajectories()
    record_other_schedules()
    record_philox_and_variations()
    record_formulas()
    record_diffusers_samplers()
    for path in sorted(OUT.glob("*.safetensors")):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
