"""Writes trained weights as the diffusers folder of octavo-tiny.

    python tools/tiny/export.py --weights WORK/out --out models/octavo-tiny

--weights holds generator-1-of-N.safetensors and so on, vae.safetensors and its vae.json (shift and scale), as the
training stages leave them. With --random the folder gets fresh weights of the final shapes, for those who write loaders.
"""

import argparse
import json
import os

import torch
from safetensors.torch import load_file, save_file

import modules as m
from tokens import Tokens
from training import load_parts

PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer")


def configs(clip_vocab, t5_vocab, shift, scale, dtype):
    """The config of every part, by folder."""

    def clip(c, act):
        return {
            "architectures": ["CLIPTextModelWithProjection"], "model_type": "clip_text_model",
            "attention_dropout": 0.0, "bos_token_id": 0, "dropout": 0.0, "eos_token_id": 2, "pad_token_id": 1,
            "hidden_act": act, "hidden_size": c["width"], "initializer_factor": 1.0, "initializer_range": 0.02,
            "intermediate_size": c["ff"], "layer_norm_eps": 1e-05, "max_position_embeddings": m.TOKENS,
            "num_attention_heads": c["heads"], "num_hidden_layers": c["layers"], "projection_dim": c["width"],
            "torch_dtype": dtype, "vocab_size": clip_vocab}

    t5 = {
        "architectures": ["T5EncoderModel"], "model_type": "t5", "d_ff": m.T5["ff"],
        "d_kv": m.T5["width"] // m.T5["heads"], "d_model": m.T5["width"], "decoder_start_token_id": 0,
        "dense_act_fn": "gelu_new", "dropout_rate": 0.1, "eos_token_id": 1, "feed_forward_proj": "gated-gelu",
        "initializer_factor": 1.0, "is_encoder_decoder": True, "is_gated_act": True, "layer_norm_epsilon": 1e-06,
        "num_decoder_layers": m.T5["layers"], "num_heads": m.T5["heads"], "num_layers": m.T5["layers"],
        "output_past": True, "pad_token_id": 0, "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32, "tie_word_embeddings": False, "torch_dtype": dtype, "use_cache": True,
        "vocab_size": t5_vocab}
    return {
        "text_encoder": clip(m.CLIP_L, "quick_gelu"),
        "text_encoder_2": clip(m.CLIP_G, "gelu"),
        "text_encoder_3": t5,
        "transformer": {
            "_class_name": "SD3Transformer2DModel", "_diffusers_version": "0.32.0", "attention_head_dim": m.HEAD,
            "caption_projection_dim": m.D, "dual_attention_layers": [], "in_channels": 16,
            "joint_attention_dim": m.T5_WIDTH, "num_attention_heads": m.D // m.HEAD,
            "num_layers": m.MMDIT["layers"], "out_channels": 16, "patch_size": 2,
            "pooled_projection_dim": m.CLIP_L["width"] + m.CLIP_G["width"], "pos_embed_max_size": m.MMDIT["table"],
            "qk_norm": "rms_norm", "sample_size": 2 * m.MMDIT["base"]},
        "vae": {
            "_class_name": "AutoencoderKL", "_diffusers_version": "0.32.0", "act_fn": "silu",
            "block_out_channels": list(m.VAE["channels"]), "down_block_types": ["DownEncoderBlock2D"] * 4,
            "force_upcast": True, "in_channels": 3, "latent_channels": m.VAE["latent"], "latents_mean": None,
            "latents_std": None, "layers_per_block": 1, "mid_block_add_attention": True,
            "norm_num_groups": m.VAE["groups"], "out_channels": 3, "sample_size": 256, "scaling_factor": scale,
            "shift_factor": shift, "up_block_types": ["UpDecoderBlock2D"] * 4, "use_post_quant_conv": False,
            "use_quant_conv": False},
        "scheduler": {
            "_class_name": "FlowMatchEulerDiscreteScheduler", "_diffusers_version": "0.32.0",
            "num_train_timesteps": 1000, "shift": 3.0}}


INDEX = {
    "_class_name": "StableDiffusion3Pipeline", "_diffusers_version": "0.32.0",
    "feature_extractor": [None, None], "image_encoder": [None, None],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
    "text_encoder_3": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "tokenizer_3": ["transformers", "T5TokenizerFast"],
    "transformer": ["diffusers", "SD3Transformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"]}


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def export(out, generator, vae, shift, scale, vocabs, dtype=torch.float16):
    """Writes the folder from state dicts of modules.Generator and modules.Vae."""
    name = {torch.float16: "float16", torch.bfloat16: "bfloat16"}[dtype]
    write_json(os.path.join(out, "model_index.json"), INDEX)
    for folder, config in configs(*vocabs, shift, scale, name).items():
        file = "scheduler_config.json" if folder == "scheduler" else "config.json"
        write_json(os.path.join(out, folder, file), config)
        if folder == "scheduler":
            continue
        if folder == "vae":
            state = vae
        else:
            state = {k[len(folder) + 1 :]: v for k, v in generator.items() if k.startswith(folder + ".")}
        weights = "model" if folder.startswith("text") else "diffusion_pytorch_model"
        state = {k: v.to(dtype).contiguous() for k, v in state.items()}
        save_file(state, os.path.join(out, folder, weights + ".safetensors"), metadata={"format": "pt"})


def size_of(folder):
    return sum(os.path.getsize(os.path.join(d, f)) for d, _, files in os.walk(folder) for f in files)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--weights", help="folder with the generator's parts, vae.safetensors and vae.json")
    p.add_argument("--out", required=True, help="the model's folder; its tokenizers are there already")
    p.add_argument("--dtype", choices=("float16", "bfloat16"), default="float16")
    p.add_argument("--random", action="store_true", help="fresh weights instead of trained ones")
    args = p.parse_args()
    tokens = Tokens(args.out)
    vocabs = tokens.clip_size, tokens.t5_size
    if args.random:
        g = m.initialise(m.Generator(*vocabs))
        torch.manual_seed(1)
        for k, v in g.named_parameters():  # modulations and the last projection are not zero in a trained model
            if not v.any():
                v.data.normal_(0, 0.02)
        generator, vae, shift, scale = g.state_dict(), m.initialise(m.Vae()).state_dict(), 0.0, 1.0
    else:
        generator, _ = load_parts(os.path.join(args.weights, "generator"))
        vae = load_file(os.path.join(args.weights, "vae.safetensors"))
        with open(os.path.join(args.weights, "vae.json"), encoding="utf-8") as f:
            stats = json.load(f)
        shift, scale = stats["shift"], stats["scale"]
    export(args.out, generator, vae, shift, scale, vocabs, getattr(torch, args.dtype))
    total = size_of(args.out)
    print(f"{args.out}: {total} bytes, {total / 2**20:.2f} MiB")
    if total > 24 * 2**20:
        raise SystemExit("more than 24 MiB")


if __name__ == "__main__":
    main()
