"""Stable Diffusion 3.5 Medium at full size on random weights: one step by diffusers and by the engine, compared.

    python tools/reference/medium_full_size.py FOLDER [--width 512 --height 512 --guidance 1]

FOLDER is made (5 GB) and removed at the end; with --keep it stays, and is used again when it is there. The transformer has Medium's 24 layers of width
1536 and its 384 x 384 position table in bfloat16, written tensor by tensor; text encoders and autoencoder are small,
the tokenizers are octavo-tiny's. diffusers computes in float32 with the weights of one block in memory at a time; the
engine maps the file. Prints errors, seconds and memory. Needs build/release/tests/parity/octavo_step_latents.
"""

import argparse
import json
import resource
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel,
                       StableDiffusion3Pipeline)
from record_models import fill, offset_and_spread
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models" / "octavo-tiny"
DRIVER = ROOT / "build" / "release" / "tests" / "parity" / "octavo_step_latents"
PROMPT = "a red apple on a blue background"
SEED = 7
POOL = 1 << 24  # random values, of which every tensor takes windows
MEDIUM = dict(sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=24, attention_head_dim=64,
              num_attention_heads=24, joint_attention_dim=4096, caption_projection_dim=1536,
              pooled_projection_dim=2048, pos_embed_max_size=384, dual_attention_layers=list(range(13)),
              qk_norm="rms_norm")


def empty_transformer() -> SD3Transformer2DModel:
    with torch.device("meta"):
        return SD3Transformer2DModel(**MEDIUM).eval().requires_grad_(False)


def write_transformer(folder: Path) -> int:
    """As safetensors, one window of random values after the other; returns the number of parameters."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"_class_name": "SD3Transformer2DModel", **MEDIUM}))
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_transformer().state_dict().items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(SEED)
    pool = torch.from_numpy(random.uniform(-1, 1, POOL).astype(np.float32))
    with open(folder / "diffusion_pytorch_model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, shape in shapes.items():
            offset, spread = offset_and_spread(name, shape)
            left = int(np.prod(shape))
            while left > 0:
                count = min(left, POOL // 2)
                start = int(random.integers(0, POOL - count))
                values = (offset + spread * pool[start:start + count]).bfloat16()
                file.write(values.view(torch.int16).numpy().tobytes())
                left -= count
    return sum(int(np.prod(shape)) for shape in shapes.values())


def small_parts() -> dict:
    """What surrounds the transformer: its interfaces at full width, little inside."""
    def clip(**sizes):
        return CLIPTextModelWithProjection(CLIPTextConfig(
            vocab_size=len(parts["tokenizer"]), max_position_embeddings=77, eos_token_id=2, bos_token_id=0,
            num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, **sizes))

    parts = {"tokenizer": CLIPTokenizer.from_pretrained(TINY / "tokenizer"),
             "tokenizer_2": CLIPTokenizer.from_pretrained(TINY / "tokenizer_2"),
             "tokenizer_3": T5Tokenizer.from_pretrained(TINY / "tokenizer_3"),
             "scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)}
    parts["text_encoder"] = clip(hidden_size=64, projection_dim=768, hidden_act="quick_gelu")
    parts["text_encoder_2"] = clip(hidden_size=128, projection_dim=1280, hidden_act="gelu")
    parts["text_encoder_3"] = T5EncoderModel(T5Config(
        vocab_size=len(parts["tokenizer_3"]), feed_forward_proj="gated-gelu", dropout_rate=0.0, d_model=4096,
        num_heads=2, d_kv=64, d_ff=256, num_layers=1))
    parts["vae"] = AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4, block_out_channels=[16] * 4, layers_per_block=1, norm_num_groups=4,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609)
    for part in parts.values():
        if isinstance(part, torch.nn.Module):
            fill(part, torch.bfloat16)
    return parts


def write_folder(folder: Path, parts: dict) -> int:
    parameters = write_transformer(folder / "transformer")
    index = {"_class_name": "StableDiffusion3Pipeline",
             "transformer": ["diffusers", "SD3Transformer2DModel"]}
    for name, part in parts.items():
        library = "diffusers" if name in ("vae", "scheduler") else "transformers"
        index[name] = [library, type(part).__name__]
        if name.startswith("tokenizer"):
            shutil.copytree(TINY / name, folder / name)
        else:
            part.save_pretrained(folder / name)
    (folder / "model_index.json").write_text(json.dumps(index))
    return parameters


def streamed_transformer(file) -> SD3Transformer2DModel:
    """In float32, where each part has weights only while it runs."""
    model = empty_transformer()
    units = {name: getattr(model, name) for name in
             ("pos_embed", "time_text_embed", "context_embedder", "norm_out", "proj_out")}
    units |= {f"transformer_blocks.{i}": block for i, block in enumerate(model.transformer_blocks)}

    def load(name):
        def hook(module, _inputs) -> None:
            module.load_state_dict({key: file.get_tensor(f"{name}.{key}").float() for key in module.state_dict()},
                                   assign=True)
        return hook

    def drop(module, _inputs, _out) -> None:
        module.to("meta")

    for name, unit in units.items():
        unit.register_forward_pre_hook(load(name))
        unit.register_forward_hook(drop)
    return model


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@torch.no_grad()
def by_diffusers(folder: Path, parts: dict, settings: argparse.Namespace) -> torch.Tensor:
    with safe_open(folder / "transformer" / "diffusion_pytorch_model.safetensors", "pt") as file:
        pipe = StableDiffusion3Pipeline(transformer=streamed_transformer(file), **parts)
        pipe.set_progress_bar_config(disable=True)
        begun = time.monotonic()
        latents = pipe(PROMPT, width=settings.width, height=settings.height, num_inference_steps=1,
                       guidance_scale=settings.guidance, max_sequence_length=parts["tokenizer_3"].model_max_length,
                       generator=torch.Generator("cpu").manual_seed(SEED), output_type="latent").images
    print(f"diffusers: {time.monotonic() - begun:.1f} s with reading, peak {peak_mib():.0f} MiB", flush=True)
    return latents


def by_engine(folder: Path, settings: argparse.Namespace) -> torch.Tensor:
    out = folder / "latents.safetensors"
    done = subprocess.run([str(x) for x in (DRIVER, folder, PROMPT, settings.width, settings.height, 1,
                                            settings.guidance, SEED, out)], check=True, capture_output=True, text=True)
    print("engine: " + ", ".join(line for line in done.stdout.splitlines() if "[" not in line), flush=True)
    return load_file(out)["latents"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--width", type=int, default=512)
    arguments.add_argument("--height", type=int, default=512)
    arguments.add_argument("--guidance", type=float, default=1.0, help="above 1: two rows, as in a guided step")
    arguments.add_argument("--keep", action="store_true")
    settings = arguments.parse_args()
    torch.manual_seed(SEED)
    parts = small_parts()
    try:
        if not (settings.folder / "model_index.json").exists():
            begun = time.monotonic()
            parameters = write_folder(settings.folder, parts)
            print(f"transformer of {parameters:,} parameters written in {time.monotonic() - begun:.1f} s", flush=True)
        engine = by_engine(settings.folder, settings)
        expected = by_diffusers(settings.folder, parts, settings)
    finally:
        if not settings.keep:
            shutil.rmtree(settings.folder, ignore_errors=True)
    # One step from sigma 1 to 0: latents = noise - velocity.
    noise = torch.randn(expected.shape, generator=torch.Generator("cpu").manual_seed(SEED))
    for name, a, b in (("latents", engine, expected), ("velocity", noise - engine, noise - expected)):
        error = ((a - b).norm() / b.norm()).item()
        worst = ((a - b).abs().max() / b.square().mean().sqrt()).item()
        print(f"{name} {list(b.shape)}: rms {b.square().mean().sqrt().item():.3f}, relative error {error:.2e}, "
              f"largest difference {worst:.2e} of the rms")
        if not error <= 1e-4:
            raise SystemExit("the relative error is above 1e-4")


if __name__ == "__main__":
    main()
