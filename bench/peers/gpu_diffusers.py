#!/usr/bin/env python3
"""Octavo against diffusers on one GPU, in one run: the same random weights, shape, steps and card.

A synthetic Stable Diffusion 3.5 folder is drawn on the GPU (weights of the spreads that `octavo checkpoint synth` has,
config.json as the released model's, tokenizers of octavo-tiny) and written to --work. Then, one after another:

  eager     diffusers, bf16, as `StableDiffusion3Pipeline` runs
  blocks    diffusers, bf16, its blocks compiled (torch.compile), cuDNN's attention, with --compile-vae the VAE, too
  compile   diffusers, bf16, the whole transformer compiled (minutes), cuDNN's attention
  fp8       as blocks, with products in FP8: inputs a scale a token, weights a scale a channel (torch._scaled_mm)
  octavo    `octavo bench --suite e2e` on the folder, in each of --octavo-precisions

in the order octavo, eager, parity, the compiled ones; one table is printed, JSON beside it, also when it is
interrupted. A picture is text encoders, denoising and decoding; each figure is the median of --rounds after a warm-up.
"start" is from the start of a process to its first picture: Octavo's own, and with --start that of a Python process that
loads the folder and draws one picture in bf16 eager.

--parity: velocities of the transformer at the same text, latents and noise levels, as relative error
|v - r| / |r| against diffusers in f32 (TF32 off): diffusers in bf16 (the floor), its fp8, Octavo in bf16 and fp8. Needs
octavo_velocities beside octavo.

    python3 bench/peers/gpu_diffusers.py --work /dev/shm/peers --json peers.json --parity
    python3 bench/peers/gpu_diffusers.py --device cpu --family toy --size 64 --steps 2 --parity   # tries the script out
"""
import argparse
import copy
import datetime
import gc
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "three red apples on a blue background"
NEGATIVE = "blurry"
SHARD_BYTES = 3 << 30
E4M3_LARGEST = 448.0
PEERS = ("eager", "blocks", "compile", "fp8")

FAMILIES = {
    "large": dict(blocks=38, heads=38, positions=192, context=4096, clip_l=(12, 768, 768), clip_g=(32, 1280, 1280),
                  t5=(24, 4096, 64, 10240), vae=(128, 256, 512, 512), groups=32, sample=128, clip_rows=49408,
                  t5_rows=32128),
    "toy": dict(blocks=3, heads=2, positions=32, context=128, clip_l=(2, 64, 64), clip_g=(2, 64, 64),
                t5=(2, 128, 2, 256), vae=(32, 32, 64, 64), groups=32, sample=32, clip_rows=2000, t5_rows=2000),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--octavo", type=Path, default=ROOT / "build/release/octavo", help="the octavo binary")
    parser.add_argument("--tokenizers", type=Path, default=ROOT / "models/octavo-tiny")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/octavo-peers"),
                        help="where the model is written (28 GB for Large); removed at the end")
    parser.add_argument("--keep", action="store_true", help="leave the model in --work, and use one that is there")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--family", default="large", choices=sorted(FAMILIES))
    parser.add_argument("--size", type=int, default=1024, help="pixels a side")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--guidance", type=float, default=4.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default="eager,blocks,fp8", help="of eager, blocks, compile, fp8; or none")
    parser.add_argument("--octavo-precisions", default="bf16,fp8", help="or none")
    parser.add_argument("--octavo-flags", default="", help="more flags for octavo bench, in one string")
    parser.add_argument("--compile-vae", action="store_true", help="in the compiled peers")
    parser.add_argument("--start", action="store_true", help="time a Python process from its start to a first picture")
    parser.add_argument("--parity", action="store_true")
    parser.add_argument("--parity-timesteps", default="1000,900,700,450,200,60")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--start-child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.peers = [] if args.peers == "none" else args.peers.split(",")
    args.octavo_precisions = [] if args.octavo_precisions == "none" else args.octavo_precisions.split(",")
    for peer in args.peers:
        if peer not in PEERS:
            parser.error(f"--peers: {peer} is none of {', '.join(PEERS)}")
    return args


def say(text: str) -> None:
    print(f"[{time.perf_counter() - STARTED:6.1f} s] {text}", flush=True)


STARTED = time.perf_counter()


# ---- the model ------------------------------------------------------------------------------------------------------

def spread_of(part: str, name: str, shape, t5_head_width: int):
    """Mean and deviation of a tensor, as src/weights/synthesis/synthetic_source.h has them."""
    fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
    unit = 1.0 / math.sqrt(fan_in)
    modulation = part == "transformer" and "norm" in name and ".linear." in name
    if name.endswith(".weight") and "norm" in name and ".linear." not in name:
        return 1.0, 0.1
    if name.endswith(".bias"):
        return 0.0, 0.1 if modulation else 0.02
    if name in ("shared.weight", "encoder.embed_tokens.weight"):
        return 0.0, 1.0
    if "token_embedding" in name or "relative_attention_bias" in name:
        return 0.0, 0.5
    if "position_embedding" in name:
        return 0.0, 0.1
    if modulation:
        return 0.0, 0.5 * unit
    if part == "vae" and (".conv2." in name or ".to_out.0." in name):
        unit *= 0.5
    if part in ("text_encoder", "text_encoder_2") and (".out_proj." in name or ".fc2." in name):
        unit *= 0.5
    if part == "text_encoder_3" and ("SelfAttention.o." in name or ".wo." in name):
        unit *= 0.5
    if part == "text_encoder_3" and "SelfAttention.q." in name:
        unit /= math.sqrt(t5_head_width)
    return 0.0, unit


def build_parts(args, torch):
    """The five parts as modules on the device in bf16, random weights."""
    from diffusers import AutoencoderKL, SD3Transformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

    f = FAMILIES[args.family]
    clip = [CLIPTextConfig(vocab_size=f["clip_rows"], hidden_size=width, intermediate_size=4 * width,
                           projection_dim=projection, num_hidden_layers=layers, num_attention_heads=width // 64,
                           max_position_embeddings=77, hidden_act=act, layer_norm_eps=1e-5, bos_token_id=0,
                           eos_token_id=2, pad_token_id=1)
            for (layers, width, projection), act in ((f["clip_l"], "quick_gelu"), (f["clip_g"], "gelu"))]
    layers, width, heads, feed = f["t5"]
    t5 = T5Config(vocab_size=f["t5_rows"], d_model=width, d_kv=64, d_ff=feed, num_layers=layers, num_heads=heads,
                  feed_forward_proj="gated-gelu", relative_attention_num_buckets=32,
                  relative_attention_max_distance=128, dropout_rate=0.1, is_encoder_decoder=True, use_cache=True,
                  tie_word_embeddings=False)
    old = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(args.device), no_initialisation(torch):
            parts = {
                "transformer": SD3Transformer2DModel(
                    sample_size=f["sample"], patch_size=2, in_channels=16, out_channels=16, num_layers=f["blocks"],
                    attention_head_dim=64, num_attention_heads=f["heads"], joint_attention_dim=f["context"],
                    caption_projection_dim=64 * f["heads"],
                    pooled_projection_dim=f["clip_l"][2] + f["clip_g"][2], pos_embed_max_size=f["positions"],
                    dual_attention_layers=(), qk_norm="rms_norm"),
                "vae": AutoencoderKL(
                    in_channels=3, out_channels=3, latent_channels=16, block_out_channels=f["vae"],
                    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
                    layers_per_block=2, norm_num_groups=f["groups"], sample_size=8 * f["sample"],
                    scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False,
                    force_upcast=True),
                "text_encoder": CLIPTextModelWithProjection(clip[0]),
                "text_encoder_2": CLIPTextModelWithProjection(clip[1]),
                "text_encoder_3": T5EncoderModel(t5),
            }
    finally:
        torch.set_default_dtype(old)
    generator = torch.Generator(args.device).manual_seed(0)
    for part, module in parts.items():
        module.to(args.device, torch.bfloat16).eval().requires_grad_(False)
        for name, tensor in module.named_parameters():
            mean, deviation = spread_of(part, name, tensor.shape, 64)
            tensor.normal_(mean, deviation, generator=generator)
    return parts


class no_initialisation:
    """Skips PyTorch's own random initialisation, which is drawn over anyway."""

    def __init__(self, torch):
        self.torch = torch
        self.names = ("kaiming_uniform_", "uniform_", "normal_", "trunc_normal_", "xavier_uniform_")

    def __enter__(self):
        init = self.torch.nn.init
        self.kept = {name: getattr(init, name) for name in self.names}
        for name in self.names:
            setattr(init, name, lambda tensor, *rest, **more: tensor)

    def __exit__(self, *problem):
        for name, function in self.kept.items():
            setattr(self.torch.nn.init, name, function)


def write_part(module, folder: Path, stem: str) -> list:
    """config.json and the jobs that write shards; names as save_pretrained has them."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (module.save_config if hasattr(module, "save_config") else module.config.save_pretrained)(folder)
    tensors, seen = {}, set()
    for name, tensor in module.state_dict().items():
        if name.endswith("position_ids") or tensor.data_ptr() in seen:
            continue  # a constant; a second name of the same weight
        seen.add(tensor.data_ptr())
        tensors[name] = tensor
    shards, bytes_of_last = [{}], 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and bytes_of_last + size > SHARD_BYTES:
            shards.append({})
            bytes_of_last = 0
        shards[-1][name] = tensor
        bytes_of_last += size
    if len(shards) == 1:
        names = [f"{stem}.safetensors"]
    else:
        names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        index = {"metadata": {"total_size": sum(t.numel() * t.element_size() for t in tensors.values())},
                 "weight_map": {key: names[i] for i, shard in enumerate(shards) for key in shard}}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index))

    def job(path, shard):
        save_file({key: value.detach().cpu().contiguous() for key, value in shard.items()}, path,
                  metadata={"format": "pt", "octavo.synthesised": "gpu_diffusers.py"})

    return [(job, folder / name, shard) for name, shard in zip(names, shards)]


def write_model(parts, args) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    if args.work.exists():
        shutil.rmtree(args.work)
    args.work.mkdir(parents=True)
    jobs = []
    for part, module in parts.items():
        stem = "diffusion_pytorch_model" if part in ("transformer", "vae") else "model"
        jobs += write_part(module, args.work / part, stem)
    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(job, path, shard) for job, path, shard in jobs]:
            done.result()
    for tokenizer in ("tokenizer", "tokenizer_2", "tokenizer_3"):
        shutil.copytree(args.tokenizers / tokenizer, args.work / tokenizer)
    settings = args.work / "tokenizer_3/tokenizer_config.json"  # octavo-tiny's says 77, the released models' 512
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"model_max_length": 512}))
    FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=1000).save_config(args.work / "scheduler")
    (args.work / "model_index.json").write_text(json.dumps({
        "_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.32.0",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "text_encoder_3": ["transformers", "T5EncoderModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
        "transformer": ["diffusers", "SD3Transformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}, indent=2))


# ---- diffusers ------------------------------------------------------------------------------------------------------

def make_fp8(torch, module):
    """Linear layers of the blocks, but for modulations, as products in FP8: a scale a token, a scale a channel."""

    class Fp8Linear(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            weight = linear.weight.detach().float()
            scale = (weight.abs().amax(dim=1, keepdim=True) / E4M3_LARGEST).clamp_min(1e-12)
            self.register_buffer("codes", (weight / scale).to(torch.float8_e4m3fn))
            self.register_buffer("scale", scale.reshape(1, -1).contiguous())
            self.bias = linear.bias
            self.out_features = linear.out_features

        def forward(self, x):
            rows = x.reshape(-1, x.shape[-1])
            scale = (rows.abs().amax(dim=1, keepdim=True).float() / E4M3_LARGEST).clamp_min(1e-12)
            codes = (rows.float() / scale).clamp(-E4M3_LARGEST, E4M3_LARGEST).to(torch.float8_e4m3fn)
            if x.is_cuda:
                out = torch._scaled_mm(codes, self.codes.t(), scale_a=scale, scale_b=self.scale, bias=self.bias,
                                       out_dtype=torch.bfloat16, use_fast_accum=True)
            else:  # the CPU, to try the script out: the same values
                out = (codes.float() @ self.codes.float().t() * scale * self.scale + self.bias).to(torch.bfloat16)
            return out.reshape(*x.shape[:-1], self.out_features)

    def replace(parent):
        for name, child in list(parent.named_children()):
            if isinstance(child, torch.nn.Linear):
                setattr(parent, name, Fp8Linear(child))
            elif not name.startswith("norm"):
                replace(child)

    replace(module.transformer_blocks)
    return module


class Clock:
    """Seconds on the host between points at which the device has done everything."""

    def __init__(self, torch, device):
        self.wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)

    def now(self) -> float:
        self.wait()
        return time.perf_counter()


def make_pipeline(parts, args):
    from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
    from transformers import AutoTokenizer, CLIPTokenizer

    try:
        tokenizer_3 = AutoTokenizer.from_pretrained(args.work / "tokenizer_3")
    except Exception as problem:  # what reads SentencePiece is missing: any tokens take as long
        say(f"T5 reads CLIP's tokens: {problem}")
        tokenizer_3 = CLIPTokenizer.from_pretrained(args.work / "tokenizer_2", model_max_length=512)
    pipe = StableDiffusion3Pipeline(
        **parts, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, num_train_timesteps=1000),
        tokenizer=CLIPTokenizer.from_pretrained(args.work / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(args.work / "tokenizer_2"),
        tokenizer_3=tokenizer_3)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def draw(pipe, args, torch, clock, steps=None):
    """One picture: seconds of each stage, and of each step."""
    begin = clock.now()
    embeds = pipe.encode_prompt(PROMPT, None, None, negative_prompt=NEGATIVE, do_classifier_free_guidance=True,
                                max_sequence_length=256, device=args.device)
    after_text = clock.now()
    ends = []

    def at_end(_pipe, _index, _timestep, kwargs):
        ends.append(clock.now())
        return kwargs

    latents = pipe(prompt_embeds=embeds[0], negative_prompt_embeds=embeds[1], pooled_prompt_embeds=embeds[2],
                   negative_pooled_prompt_embeds=embeds[3], num_inference_steps=steps or args.steps,
                   guidance_scale=args.guidance, width=args.size, height=args.size, output_type="latent",
                   generator=torch.Generator("cpu").manual_seed(0), callback_on_step_end=at_end).images
    before_decode = clock.now()
    with torch.no_grad():
        image = pipe.vae.decode(latents / pipe.vae.config.scaling_factor + pipe.vae.config.shift_factor,
                                return_dict=False)[0]
        pixels = pipe.image_processor.postprocess(image, output_type="np")
    end = clock.now()
    assert pixels.shape == (1, args.size, args.size, 3) and not (pixels != pixels).any(), "no picture"
    return {"text": after_text - begin, "denoise": before_decode - after_text, "vae": end - before_decode,
            "image": end - begin, "steps": [b - a for a, b in zip(ends, ends[1:])]}


def run_diffusers(peer: str, parts, args, torch):
    """A row of the table. `parts` is consumed by fp8 and the compiled peers, which come last."""
    clock = Clock(torch, args.device)
    if args.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    prepared = time.perf_counter()
    pipe = make_pipeline(parts, args)
    if peer == "fp8":
        make_fp8(torch, pipe.transformer)
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
    decode = pipe.vae.decode
    if args.device == "cuda" and peer != "eager":
        if peer == "compile":
            pipe.transformer.compile(fullgraph=True, mode="max-autotune-no-cudagraphs")
        else:
            for block in pipe.transformer.transformer_blocks:
                block.compile(fullgraph=True)
        if args.compile_vae:
            pipe.vae.to(memory_format=torch.channels_last)
            pipe.vae.decode = torch.compile(decode)
    from torch.nn.attention import SDPBackend, sdpa_kernel
    backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    try:
        with sdpa_kernel(backends, set_priority=True) if peer != "eager" else no_context():
            draw(pipe, args, torch, clock, steps=2)  # chooses kernels, compiles
            warm = time.perf_counter() - prepared
            rounds = [draw(pipe, args, torch, clock) for _ in range(args.rounds)]
    finally:
        pipe.vae.decode = decode
    peak = torch.cuda.max_memory_allocated() / 2**30 if args.device == "cuda" else None
    row = {"engine": f"diffusers {'bf16' if peer != 'fp8' else 'FP8, blocks compiled'}"
                     + {"eager": " eager", "blocks": ", blocks compiled", "compile": ", compiled", "fp8": ""}[peer],
           "step_ms": statistics.median([s for r in rounds for s in r["steps"]] or
                                        [r["denoise"] / args.steps for r in rounds]) * 1e3,
           "image_s": statistics.median([r["image"] for r in rounds]),
           "text_ms": statistics.median([r["text"] for r in rounds]) * 1e3,
           "vae_ms": statistics.median([r["vae"] for r in rounds]) * 1e3,
           "peak_gib": peak, "start_s": None, "warm_s": warm}
    if peak is not None:
        encoders = sum(t.numel() * t.element_size() for name in parts if name.startswith("text_encoder")
                       for t in parts[name].parameters())
        row["peak_without_text_encoders_gib"] = peak - encoders / 2**30
    say(f"{row['engine']}: step {row['step_ms']:.1f} ms, image {row['image_s']:.3f} s, warm after {warm:.0f} s")
    return row


class no_context:
    def __enter__(self):
        return self

    def __exit__(self, *problem):
        return None


def start_child(args) -> None:
    """A process of its own: everything from the start of Python to a picture."""
    import torch
    from diffusers import StableDiffusion3Pipeline

    pipe = StableDiffusion3Pipeline.from_pretrained(args.work, torch_dtype=torch.bfloat16).to(args.device)
    pipe.set_progress_bar_config(disable=True)
    draw(pipe, args, torch, Clock(torch, args.device))


# ---- Octavo ---------------------------------------------------------------------------------------------------------

def run_octavo(precision: str, args):
    figures = args.work / f"octavo-{precision}.json"
    command = [str(args.octavo), "bench", "--suite", "e2e", "--model", str(args.work), "--device", args.device,
               "--precision", precision, "--width", str(args.size), "--height", str(args.size), "--steps",
               str(args.steps), "--guidance", str(args.guidance), "--repeat", str(args.rounds), "--prompt", PROMPT,
               "--json", str(figures)] + args.octavo_flags.split()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        say(f"octavo {precision} failed: {done.stderr[-2000:]}")
        return {"engine": f"octavo {precision}", "error": done.stderr[-2000:]}
    print(done.stdout, flush=True)
    report = json.loads(figures.read_text())["e2e"]
    stages = report["stages"]
    row = {"engine": f"octavo {precision}", "step_ms": report["step_ms"],
           "image_s": stages["total"]["median_seconds"], "text_ms": stages["encode_text"]["median_seconds"] * 1e3,
           "vae_ms": stages["decode"]["median_seconds"] * 1e3,
           "peak_gib": report["device_peak_used_mib"] / 1024 if "device_peak_used_mib" in report else None,
           "start_s": report["start_to_first_picture_seconds"], "warm_s": None, "report": report}
    say(f"{row['engine']}: step {row['step_ms']:.1f} ms, image {row['image_s']:.3f} s")
    return row


# ---- parity ---------------------------------------------------------------------------------------------------------

def relative_errors(torch, found, reference):
    return [((f.double() - r.double()).norm() / r.double().norm()).item() for f, r in zip(found, reference)]


def run_parity(parts, args, torch):
    from safetensors.torch import load_file, save_file

    transformer = parts["transformer"]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad():
        embeds = make_pipeline(parts, args).encode_prompt(PROMPT, None, None, negative_prompt=NEGATIVE,
                                                          do_classifier_free_guidance=True, max_sequence_length=256,
                                                          device=args.device)
    text = torch.cat([embeds[1], embeds[0]]).float()
    pooled = torch.cat([embeds[3], embeds[2]]).float()
    timesteps = torch.tensor([float(t) for t in args.parity_timesteps.split(",")])
    side = args.size // 8
    noise = torch.randn((len(timesteps), 16, side, side), generator=torch.Generator("cpu").manual_seed(1))
    picture = torch.randn((1, 16, side // 8 or 1, side // 8 or 1), generator=torch.Generator("cpu").manual_seed(2))
    picture = torch.nn.functional.interpolate(picture, size=(side, side), mode="bicubic")
    sigmas = (timesteps / 1000).reshape(-1, 1, 1, 1)
    latents = sigmas * noise + (1 - sigmas) * picture  # bf16 in every engine but f32 rounds these alike

    def velocities(module, dtype):
        answers = []
        with torch.no_grad():
            for index, timestep in enumerate(timesteps):
                answers.append(module(
                    hidden_states=latents[index:index + 1].expand(2, -1, -1, -1).to(args.device, dtype),
                    timestep=timestep.expand(2).to(args.device), encoder_hidden_states=text.to(args.device, dtype),
                    pooled_projections=pooled.to(args.device, dtype), return_dict=False)[0].float().cpu())
        return answers

    found = {"diffusers bf16": velocities(transformer, torch.bfloat16)}
    say("parity: diffusers in f32")
    module = copy.deepcopy(transformer).float()
    reference = velocities(module, torch.float32)
    del module
    gc.collect()
    say("parity: diffusers in fp8")
    module = make_fp8(torch, copy.deepcopy(transformer))
    found["diffusers fp8"] = velocities(module, torch.bfloat16)
    del module
    gc.collect()
    asked, answered = args.work / "asked.safetensors", args.work / "answered.safetensors"
    save_file({"text": text.cpu().contiguous(), "pooled": pooled.cpu().contiguous(), "timesteps": timesteps,
               "latents": latents.contiguous()}, asked)
    if args.device == "cuda":
        torch.cuda.empty_cache()
    program = args.octavo.parent / "octavo_velocities"
    for precision in args.octavo_precisions + (["f32"] if args.device == "cpu" else []):
        done = subprocess.run([str(program), str(args.work), args.device, precision, str(asked), str(answered)],
                              capture_output=True, text=True)
        if done.returncode != 0:
            say(f"octavo_velocities {precision} failed: {done.stderr[-2000:]}")
            continue
        found[f"octavo {precision}"] = list(load_file(answered)["velocity"])
        say(f"parity: octavo {precision}")
    errors = {name: relative_errors(torch, answers, reference) for name, answers in found.items()}
    print("\nvelocity, relative error against diffusers in f32")
    print(f"{'timestep':16s}" + "".join(f"{t:9.0f}" for t in timesteps.tolist()))
    for name, values in errors.items():
        print(f"{name:16s}" + "".join(f"{100 * v:8.3f}%" for v in values))
    return {"timesteps": timesteps.tolist(), "relative_error": errors}


# ---- all of it ------------------------------------------------------------------------------------------------------

def shown(value, form: str) -> str:
    return "-" if value is None else format(value, form)


def print_table(rows) -> None:
    print(f"\n{'engine':34s} {'step ms':>8s} {'image s':>8s} {'text ms':>8s} {'vae ms':>8s} {'peak GiB':>9s} "
          f"{'start s':>8s} {'warm-up s':>10s}")
    for row in rows:
        if "error" in row:
            print(f"{row['engine']:34s} failed")
            continue
        print(f"{row['engine']:34s} {row['step_ms']:8.2f} {row['image_s']:8.3f} {row['text_ms']:8.1f} "
              f"{row['vae_ms']:8.1f} {shown(row['peak_gib'], '9.2f'):>9s} {shown(row['start_s'], '8.1f'):>8s} "
              f"{shown(row['warm_s'], '10.1f'):>10s}")


def main() -> int:
    args = arguments()
    if args.start_child:
        start_child(args)
        return 0
    import diffusers
    import torch
    import transformers

    card = torch.cuda.get_device_name() if args.device == "cuda" else "the CPU"
    versions = f"diffusers {diffusers.__version__}, torch {torch.__version__}, transformers {transformers.__version__}"
    say(f"{card}; {versions}")
    report = {"date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "card": card,
              "versions": versions, "family": args.family, "size": args.size, "steps": args.steps,
              "guidance": args.guidance, "rounds": args.rounds, "rows": []}
    rows = report["rows"]

    def save():
        if args.json:
            args.json.write_text(json.dumps(report, indent=1))

    try:
        parts = build_parts(args, torch)
        say("weights drawn")
        write_model(parts, args)
        size = sum(p.stat().st_size for p in args.work.rglob("*.safetensors"))
        say(f"{size / 1e9:.1f} GB written to {args.work}")
        for precision in args.octavo_precisions:
            rows.append(run_octavo(precision, args))
            save()
        peers = sorted(args.peers, key=PEERS.index)
        for peer in [p for p in peers if p == "eager"]:
            rows.append(run_diffusers(peer, parts, args, torch))
            save()
        if args.parity:
            report["parity"] = run_parity(parts, args, torch)
            save()
        for peer in [p for p in peers if p != "eager"]:
            rows.append(run_diffusers(peer, parts, args, torch))
            save()
        parts = None
        gc.collect()
        if args.device == "cuda":
            torch.cuda.empty_cache()
        if args.start:
            begin = time.perf_counter()
            own = [a for a in sys.argv[1:] if a not in ("--start", "--parity")]
            child = subprocess.run([sys.executable, __file__, "--start-child", *own], capture_output=True, text=True)
            taken = time.perf_counter() - begin
            if child.returncode == 0:
                for row in rows:
                    if row["engine"] == "diffusers bf16 eager":
                        row["start_s"] = taken
                report["start_diffusers_eager_s"] = taken
                say(f"diffusers bf16 eager: first picture {taken:.1f} s after its start")
            else:
                say(f"the start could not be timed: {child.stderr[-1500:]}")
            save()
    except KeyboardInterrupt:
        say("interrupted: what was measured until then follows")
        report["interrupted"] = True
    finally:
        save()
        print_table(rows)
        if not args.keep:
            shutil.rmtree(args.work, ignore_errors=True)
    return 1 if any("error" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
