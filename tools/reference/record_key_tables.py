"""Records the complete tables of tensor names and shapes, and what the conversion between layouts gives.

    python tools/reference/record_key_tables.py          # writes tests/parity/fixtures/key_tables.json

Needs torch (CPU), diffusers and transformers; versions are written into the file. No weights are needed: models are
built on the meta device. The tables of the original layout are written down here from the published files' names and
are checked by giving them to diffusers' own converters, whose result must be exactly the diffusers table.

A table is recorded as its counts and as the sha256 of its lines "name [a, b]", ended by newlines, in the order of
their bytes. The tests of src/weights/layouts/ replay the recording without Python.
"""

import hashlib
import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, SD3Transformer2DModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_vae_checkpoint,
    convert_sd3_transformer_checkpoint_to_diffusers,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "key_tables.json"


def transformer_config(blocks, side, dual, heads=None, context=4096, pooled=2048):
    heads = heads or blocks
    return dict(sample_size=128, patch_size=2, in_channels=16, num_layers=blocks, attention_head_dim=64,
                num_attention_heads=heads, joint_attention_dim=context, caption_projection_dim=64 * heads,
                pooled_projection_dim=pooled, out_channels=16, pos_embed_max_size=side,
                dual_attention_layers=tuple(range(dual)), qk_norm="rms_norm")


def vae_config(channels, layers, groups):
    return dict(in_channels=3, out_channels=3, down_block_types=["DownEncoderBlock2D"] * len(channels),
                up_block_types=["UpDecoderBlock2D"] * len(channels), block_out_channels=channels,
                layers_per_block=layers, latent_channels=16, norm_num_groups=groups, use_quant_conv=False,
                use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609)


def shapes_of(model) -> dict:
    return {name: list(tensor.shape) for name, tensor in model.state_dict().items()}


def original_transformer(config) -> dict:
    blocks, h = config["num_layers"], 64 * config["num_attention_heads"]
    side, table = config["pos_embed_max_size"], {}

    def linear(name, out, inner):
        table[name + ".weight"], table[name + ".bias"] = [out, inner], [out]

    table["pos_embed"] = [1, side * side, h]
    table["x_embedder.proj.weight"], table["x_embedder.proj.bias"] = [h, 16, 2, 2], [h]
    linear("t_embedder.mlp.0", h, 256)
    linear("t_embedder.mlp.2", h, h)
    linear("y_embedder.mlp.0", h, config["pooled_projection_dim"])
    linear("y_embedder.mlp.2", h, h)
    linear("context_embedder", h, config["joint_attention_dim"])
    linear("final_layer.adaLN_modulation.1", 2 * h, h)
    linear("final_layer.linear", 64, h)
    for i in range(blocks):
        last, dual = i == blocks - 1, i in config["dual_attention_layers"]
        for stream in ("x_block", "context_block"):
            at = f"joint_blocks.{i}.{stream}."
            whole = stream == "x_block" or not last
            chunks = 2 if not whole else 9 if dual and stream == "x_block" else 6
            linear(at + "adaLN_modulation.1", chunks * h, h)
            for attention in ("attn", "attn2") if dual and stream == "x_block" else ("attn",):
                linear(at + attention + ".qkv", 3 * h, h)
                table[at + attention + ".ln_q.weight"] = table[at + attention + ".ln_k.weight"] = [64]
                if whole:
                    linear(at + attention + ".proj", h, h)
            if whole:
                linear(at + "mlp.fc1", 4 * h, h)
                linear(at + "mlp.fc2", h, 4 * h)
    return table


def original_vae(config) -> dict:
    channels, layers, table = config["block_out_channels"], config["layers_per_block"], {}

    def conv(name, out, inner, kernel):
        table[name + ".weight"], table[name + ".bias"] = [out, inner, kernel, kernel], [out]

    def norm(name, width):
        table[name + ".weight"] = table[name + ".bias"] = [width]

    def residual(name, inner, out):
        norm(name + ".norm1", inner)
        conv(name + ".conv1", out, inner, 3)
        norm(name + ".norm2", out)
        conv(name + ".conv2", out, out, 3)
        if inner != out:
            conv(name + ".nin_shortcut", out, inner, 1)

    def middle(name, width):
        residual(name + ".block_1", width, width)
        residual(name + ".block_2", width, width)
        norm(name + ".attn_1.norm", width)
        for projection in ("q", "k", "v", "proj_out"):
            conv(f"{name}.attn_1.{projection}", width, width, 1)

    conv("encoder.conv_in", channels[0], 3, 3)
    inner = channels[0]
    for level, out in enumerate(channels):
        for i in range(layers):
            residual(f"encoder.down.{level}.block.{i}", inner, out)
            inner = out
        if level + 1 < len(channels):
            conv(f"encoder.down.{level}.downsample.conv", inner, inner, 3)
    middle("encoder.mid", channels[-1])
    norm("encoder.norm_out", channels[-1])
    conv("encoder.conv_out", 32, channels[-1], 3)
    conv("decoder.conv_in", channels[-1], 16, 3)
    middle("decoder.mid", channels[-1])
    inner = channels[-1]
    for level in reversed(range(len(channels))):
        for i in range(layers + 1):
            residual(f"decoder.up.{level}.block.{i}", inner, channels[level])
            inner = channels[level]
        if level > 0:
            conv(f"decoder.up.{level}.upsample.conv", inner, inner, 3)
    norm("decoder.norm_out", channels[0])
    conv("decoder.conv_out", 3, channels[0], 3)
    return table


def fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) % 2**64
    return value


def recipe(name: str, shape: list) -> torch.Tensor:
    """Values that any language makes alike: bits 8 to 23 of a counter that the name starts."""
    count = int(np.prod(shape))
    words = (np.uint64(fnv1a(name)) + np.arange(count, dtype=np.uint64) * np.uint64(2654435761)) >> np.uint64(8)
    return torch.from_numpy(((words & np.uint64(0xFFFF)).astype(np.float32) / np.float32(65536)).reshape(shape))


def summary(table: dict) -> dict:
    lines = sorted(f"{name} [{', '.join(map(str, shape))}]\n".encode() for name, shape in table.items())
    return {"tensors": len(table), "parameters": sum(int(np.prod(shape)) for shape in table.values()),
            "sha256": hashlib.sha256(b"".join(lines)).hexdigest()}


def convert_transformer(tensors: dict) -> dict:
    return convert_sd3_transformer_checkpoint_to_diffusers(dict(tensors))


def convert_vae(config):
    return lambda tensors: convert_ldm_vae_checkpoint(dict(tensors), config)


def check_conversion(original: dict, expected: dict, convert) -> None:
    converted = convert({name: torch.empty(shape, device="meta") for name, shape in original.items()})
    got = {name: list(tensor.shape) for name, tensor in converted.items()}
    assert got == expected, sorted(set(map(str, got.items())) ^ set(map(str, expected.items())))


def converted_hashes(original: dict, convert) -> dict:
    converted = convert({name: recipe(name, shape) for name, shape in original.items()})
    return {name: hashlib.sha256(converted[name].contiguous().numpy().tobytes()).hexdigest()[:16]
            for name in sorted(converted)}


def main() -> None:
    tables, conversions = {}, {}
    with torch.device("meta"):
        for name, config in (("large", transformer_config(38, 192, 0)), ("medium", transformer_config(24, 384, 13))):
            table = shapes_of(SD3Transformer2DModel(**config))
            original = original_transformer(config)
            check_conversion(original, table, convert_transformer)
            tables[f"transformer.{name}.diffusers"] = summary(table)
            tables[f"transformer.{name}.original"] = summary(original)
        config = vae_config([128, 256, 512, 512], 2, 32)
        table, original = shapes_of(AutoencoderKL(**config)), original_vae(config)
        check_conversion(original, table, convert_vae(config))
        tables["vae.diffusers"], tables["vae.original"] = summary(table), summary(original)
        for name, layers, width in (("clip_l", 12, 768), ("clip_g", 32, 1280)):
            model = CLIPTextModelWithProjection(CLIPTextConfig(
                hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
                num_attention_heads=width // 64, projection_dim=width, vocab_size=49408))
            # Not parameters: absent from files that transformers writes.
            tables[name] = summary({n: s for n, s in shapes_of(model).items() if not n.endswith("position_ids")})
        model = T5EncoderModel(T5Config(vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24,
                                        num_heads=64, feed_forward_proj="gated-gelu", is_encoder_decoder=False))
        # Tied to shared.weight: a folder holds the table once.
        tables["t5"] = summary({n: s for n, s in shapes_of(model).items() if n != "encoder.embed_tokens.weight"})

    config = transformer_config(3, 4, 2, heads=1, context=16, pooled=8)
    conversions["transformer"] = converted_hashes(original_transformer(config), convert_transformer)
    config = vae_config([4, 8, 8], 1, 2)
    conversions["vae"] = converted_hashes(original_vae(config), convert_vae(config))
    versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}, transformers {transformers.__version__}"
    OUT.write_text(json.dumps({"recorded_with": versions, "tables": tables, "conversions": conversions}, indent=1) + "\n")


if __name__ == "__main__":
    main()
