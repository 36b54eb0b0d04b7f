#!/usr/bin/env python3
"""Records LoRA files of a tiny Stable Diffusion 3 transformer, and what diffusers makes of its weights with them.

    python tools/reference/record_lora.py          # writes tests/parity/fixtures/lora/

Needs torch (CPU), diffusers and peft; versions are written into the recording. Three files hold the same update:
diffusers.safetensors as StableDiffusion3Pipeline.save_lora_weights writes it (alphas in the header), kohya.safetensors
as kohya's trainer names it (original layout, q, k and v in one block-diagonal pair, halves of modulations exchanged,
alphas as tensors), peft.safetensors with raw peft names and no alpha, for which the scale is 1. The base weights are a
formula of tensor number and element (values()), so that the tests can make them without a file.
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import peft
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "lora"
RANK, ALPHA, STRENGTH = 4, 6, 0.8
PATTERN = {"transformer_blocks.0.ff.net.0.proj": 2}  # this layer's own alpha
LAYERS = ["transformer_blocks.0.attn.to_q", "transformer_blocks.0.attn.to_k", "transformer_blocks.0.attn.to_v",
          "transformer_blocks.0.attn.to_add_out", "transformer_blocks.0.ff.net.0.proj",
          "transformer_blocks.1.norm1_context.linear", "norm_out.linear", "context_embedder", "pos_embed.proj"]
KOHYA = {"transformer_blocks.0.attn.to_add_out": "joint_blocks_0_context_block_attn_proj",
         "transformer_blocks.0.ff.net.0.proj": "joint_blocks_0_x_block_mlp_fc1",
         "transformer_blocks.1.norm1_context.linear": "joint_blocks_1_context_block_adaLN_modulation_1",
         "norm_out.linear": "final_layer_adaLN_modulation_1", "context_embedder": "context_embedder",
         "pos_embed.proj": "x_embedder_proj"}
SWAPPED = ("transformer_blocks.1.norm1_context.linear", "norm_out.linear")


def values(number: int, shape, scale: float) -> torch.Tensor:
    """Exact in f32: multiples of scale / 2^24, within +-scale / 2."""
    count = int(np.prod(shape))
    mixed = (np.arange(count, dtype=np.uint64) * 2654435761 + np.uint64(number * 40503)) % (1 << 32)
    unit = (mixed >> np.uint64(8)).astype(np.float64) / (1 << 24) - 0.5
    return torch.from_numpy((unit * scale).astype(np.float32)).reshape(shape)


def model() -> SD3Transformer2DModel:
    transformer = SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=16, num_layers=2,
                                        attention_head_dim=64, num_attention_heads=1, joint_attention_dim=32,
                                        caption_projection_dim=64, pooled_projection_dim=16, out_channels=16,
                                        pos_embed_max_size=4, qk_norm="rms_norm")
    state = transformer.state_dict()
    for number, name in enumerate(sorted(state)):
        state[name] = values(number, state[name].shape, 0.25)
    transformer.load_state_dict(state)
    return transformer


def with_adapter(config):
    transformer = model()
    transformer.add_adapter(config)
    pairs = {}
    for number, layer in enumerate(LAYERS):
        module = transformer.get_submodule(layer)
        for half, scale in ((module.lora_A, 0.5), (module.lora_B, 0.25)):
            weight = half["default"].weight
            weight.data = values(1000 + 2 * number + (scale == 0.25), weight.shape, scale)
        pairs[layer] = (module.lora_A["default"].weight.data, module.lora_B["default"].weight.data)
    return transformer, pairs


def samples(transformer, layer):
    weight = transformer.get_submodule(layer)
    weight = getattr(weight, "base_layer", weight).weight.detach().flatten()
    return [[index, float(weight[index])] for index in range(0, weight.numel(), max(1, weight.numel() // 24 - 1))]


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LAYERS, alpha_pattern=PATTERN, init_lora_weights=False)
    transformer, pairs = with_adapter(config)
    from diffusers.training_utils import _collate_lora_metadata
    StableDiffusion3Pipeline.save_lora_weights(OUT, transformer_lora_layers=get_peft_model_state_dict(transformer),
                                               weight_name="diffusers.safetensors",
                                               **_collate_lora_metadata({"transformer": transformer}))
    save_file({f"base_model.model.{name}": tensor.contiguous()
               for name, tensor in get_peft_model_state_dict(transformer).items()}, OUT / "peft.safetensors")

    scale = {layer: PATTERN.get(layer, ALPHA) / RANK for layer in LAYERS}
    kohya = {}
    qkv = [pairs[layer] for layer in LAYERS[:3]]
    kohya["lora_unet_joint_blocks_0_x_block_attn_qkv"] = (
        torch.cat([down for down, _ in qkv]), torch.block_diag(*[up for _, up in qkv]), 3 * RANK * scale[LAYERS[0]])
    for layer in LAYERS[3:]:
        down, up = pairs[layer]
        if layer in SWAPPED:
            up = torch.cat(up.chunk(2)[::-1])
        kohya[f"lora_unet_{KOHYA[layer]}"] = (down, up, RANK * scale[layer])
    tensors = {}
    for name, (down, up, alpha) in kohya.items():
        tensors[f"{name}.lora_down.weight"] = down.contiguous()
        tensors[f"{name}.lora_up.weight"] = up.contiguous()
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, OUT / "kohya.safetensors")

    transformer.fuse_lora(lora_scale=STRENGTH)
    fused = {layer: samples(transformer, layer) for layer in LAYERS}
    plain, _ = with_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS, init_lora_weights=False))
    plain.fuse_lora(lora_scale=STRENGTH)
    recording = {"versions": {"diffusers": diffusers.__version__, "peft": peft.__version__,
                              "torch": torch.__version__},
                 "strength": STRENGTH, "names": sorted(model().state_dict()), "fused": fused,
                 "fused_without_alpha": {layer: samples(plain, layer) for layer in LAYERS}}
    (OUT / "fused.json").write_text(json.dumps(recording, indent=1) + "\n")


if __name__ == "__main__":
    main()
