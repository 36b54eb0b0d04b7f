"""Records schedules, noise and Euler trajectories of diffusers and torch.

    python tools/reference/record_sampling.py            # writes tests/parity/fixtures/sampling/

Needs torch (CPU) and diffusers; versions are written into the files. tests/parity/sampling_parity_test.cc replays the
recordings without Python and expects equality bit for bit.
"""

from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
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


def main() -> None:
    torch.set_num_threads(2)
    OUT.mkdir(parents=True, exist_ok=True)
    record_schedules()
    record_noise()
    record_trajectories()
    for path in sorted(OUT.glob("*.safetensors")):
        print(path.name, path.stat().st_size)


if __name__ == "__main__":
    main()
