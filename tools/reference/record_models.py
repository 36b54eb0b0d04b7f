"""Records text encoders, the transformer and the autoencoder's decoder on random weights, computed by diffusers and
transformers in float32 on the CPU.

    python tools/reference/record_models.py         # writes tests/parity/fixtures/models/

Weights are not stored: both sides make them from a recipe (tensor name and element index through splitmix64, rounded
to 16 bits), so a fixture holds the configurations, the inputs, the outputs and the values at the taps on the way.
tests/parity/model_parity_test.cc replays it.
"""

import json
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from diffusers import AutoencoderKL, SD3Transformer2DModel
import taps
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, T5Config, T5EncoderModel

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "models"
MASK = (1 << 64) - 1


def fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def recipe_values(name: str, count: int) -> np.ndarray:
    """Uniform in [-1, 1): 24 bits of splitmix64 seeded by the name."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + (np.arange(1, count + 1, dtype=np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)


def offset_and_spread(name: str, shape: tuple) -> tuple:
    """Values that keep activations near one: norms about 1, biases small, matrices scaled by their fan-in."""
    is_norm = any(part in name for part in ("norm", "ln_")) and "linear" not in name
    if len(shape) == 1:
        return (1.0, 0.25) if is_norm and name.endswith("weight") else (0.0, 0.125)
    if "embed" in name and len(shape) == 2 and "time_text" not in name and "context_embedder" not in name:
        return (0.0, 1.0)
    if name == "shared.weight" or "relative_attention_bias" in name:
        return (0.0, 1.0)
    if name.endswith("pos_embed.pos_embed"):
        return (0.0, 0.5)
    return (0.0, float(np.float32((3.0 / np.prod(shape[1:])) ** 0.5)))


def fill(model: torch.nn.Module, dtype: torch.dtype) -> dict:
    """Gives the model its recipe weights; returns what the replay needs to make them."""
    tensors = {}
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("position_ids") or name == "encoder.embed_tokens.weight":
            continue
        offset, spread = offset_and_spread(name, tuple(tensor.shape))
        values = np.float32(offset) + np.float32(spread) * recipe_values(name, tensor.numel())
        tensor.copy_(torch.from_numpy(values).reshape(tensor.shape).to(dtype).float())
        tensors[name] = [list(tensor.shape), offset, spread]
    model.load_state_dict(state)
    model.eval().requires_grad_(False)
    return tensors


class Recorder:
    """Collects one file. `whole_taps` keeps every value between the parts; without, the taps are thinned."""

    def __init__(self, name: str, dtype: torch.dtype, whole_taps: bool = False):
        self.name, self.dtype, self.whole_taps, self.tensors, self.parts = name, dtype, whole_taps, {}, {}

    def part(self, name: str, model: torch.nn.Module, config: dict):
        self.parts[name] = {"config": config, "tensors": fill(model, self.dtype)}

    def keep(self, name: str, value: torch.Tensor):
        self.tensors[name] = value.detach().contiguous().clone()

    def keep_tap(self, name: str, value: torch.Tensor):
        self.keep(name, value if self.whole_taps else taps.thinned(value))

    def save(self, **metadata):
        word = {torch.float16: "F16", torch.bfloat16: "BF16"}[self.dtype]
        versions = (f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
                    f"transformers {transformers.__version__}")
        path = OUT / f"{self.name}.safetensors"
        save_file(self.tensors, path,
                  {"model": json.dumps({"dtype": word, "parts": self.parts, "recorded_with": versions, **metadata})})
        print(path.name, path.stat().st_size)


def clip_model(r: Recorder, part: str, vocab_size: int, **sizes) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(vocab_size=vocab_size, max_position_embeddings=77, eos_token_id=2, bos_token_id=0, **sizes)
    model = CLIPTextModelWithProjection(config)
    r.part(part, model, {key: getattr(config, key) for key in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
        "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps", "eos_token_id")})
    return model


def record_clip(r: Recorder, part: str, batch: int, **sizes):
    model = clip_model(r, part, 200, **sizes)
    ids = torch.randint(0, 198, (batch, 77))
    for row in range(batch):
        end = 5 + 20 * row
        ids[row, 0], ids[row, end:] = 198, 199  # the end token also pads, as in CLIP-L
    handles = taps.tap_clip(model, part, r.keep_tap)
    out = model(ids, output_hidden_states=True)
    taps.remove(handles)
    r.keep(f"{part}.ids", ids.int())
    r.keep(f"{part}.hidden", out.hidden_states[-2])
    r.keep(f"{part}.pooled", out.text_embeds)


def t5_model(r: Recorder, vocab_size: int, **sizes) -> T5EncoderModel:
    config = T5Config(vocab_size=vocab_size, feed_forward_proj="gated-gelu", dropout_rate=0.0, **sizes)
    model = T5EncoderModel(config)
    r.part("text_encoder_3", model, {key: getattr(config, key) for key in (
        "num_layers", "d_model", "num_heads", "d_kv", "d_ff", "vocab_size", "relative_attention_num_buckets",
        "relative_attention_max_distance", "feed_forward_proj", "layer_norm_epsilon")})
    return model


def record_t5(r: Recorder, batch: int, length: int, **sizes):
    model = t5_model(r, 150, **sizes)
    ids = torch.randint(3, 150, (batch, length))
    for row in range(batch):
        ids[row, length // (row + 2)], ids[row, length // (row + 2) + 1:] = 1, 0
    handles = taps.tap_t5(model, "text_encoder_3", r.keep_tap)
    out = model(ids)
    taps.remove(handles)
    r.keep("text_encoder_3.ids", ids.int())
    r.keep("text_encoder_3.last_hidden_state", out.last_hidden_state)


def transformer_model(r: Recorder, dual_attention_layers: tuple = (), **sizes) -> SD3Transformer2DModel:
    config = dict(sample_size=16, patch_size=2, in_channels=16, out_channels=16, attention_head_dim=64,
                  caption_projection_dim=64 * sizes["num_attention_heads"],
                  dual_attention_layers=list(dual_attention_layers), qk_norm="rms_norm", **sizes)
    model = SD3Transformer2DModel(**config)
    r.part("transformer", model, config)
    return model


def record_transformer(r: Recorder, batch: int, tokens: int, height: int, width: int, timestep: float,
                       skip_layers: tuple = (), **sizes):
    model = transformer_model(r, **sizes)
    latents = torch.randn(batch, 16, height, width)
    text = torch.randn(batch, tokens, sizes["joint_attention_dim"])
    pooled = torch.randn(batch, sizes["pooled_projection_dim"])
    inputs = dict(hidden_states=latents, encoder_hidden_states=text, pooled_projections=pooled,
                  timestep=torch.full((batch,), timestep), return_dict=False)
    handles = taps.tap_transformer(model, "transformer", r.keep_tap)
    velocity = model(**inputs)[0]
    taps.remove(handles)
    if skip_layers:
        r.keep("transformer.skip_layers", torch.tensor(skip_layers, dtype=torch.int32))
        r.keep("transformer.skipped_velocity", model(**inputs, skip_layers=list(skip_layers))[0])
    r.keep("transformer.latents", latents)
    r.keep("transformer.text", text)
    r.keep("transformer.pooled", pooled)
    r.keep("transformer.timesteps", torch.tensor([timestep]))
    r.keep("transformer.velocity", velocity)


def vae_model(r: Recorder, **sizes) -> AutoencoderKL:
    levels = len(sizes["block_out_channels"])
    config = dict(in_channels=3, out_channels=3, latent_channels=16, act_fn="silu", sample_size=64,
                  down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
                  use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609, **sizes)
    model = AutoencoderKL(**config)
    r.part("vae", model, config)
    return model


def record_decoder(r: Recorder, batch: int, height: int, width: int, **sizes):
    model = vae_model(r, **sizes)
    config = model.config
    latents = torch.randn(batch, 16, height, width)
    handles = taps.tap_decoder(model.decoder, "vae.decoder", r.keep_tap)
    picture = model.decode(latents / config.scaling_factor + config.shift_factor, return_dict=False)[0]
    taps.remove(handles)
    r.keep("vae.latents", latents)
    r.keep("vae.decoder.conv_out", picture.permute(0, 2, 3, 1))


@torch.no_grad()
def main():
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(20)
    torch.set_num_threads(1)

    r = Recorder("small", torch.float16, whole_taps=True)  # every tap; one head, two rows, T5 as long as CLIP
    record_clip(r, "text_encoder", 2, hidden_size=64, num_attention_heads=1, num_hidden_layers=3,
                intermediate_size=96, projection_dim=64, hidden_act="quick_gelu")
    record_clip(r, "text_encoder_2", 2, hidden_size=64, num_attention_heads=2, num_hidden_layers=2,
                intermediate_size=128, projection_dim=48, hidden_act="gelu")
    record_t5(r, 2, 77, d_model=96, num_heads=3, d_kv=32, d_ff=160, num_layers=3)
    record_transformer(r, 2, 20, 8, 12, 731.25, num_layers=3, num_attention_heads=1, joint_attention_dim=96,
                       pooled_projection_dim=48, pos_embed_max_size=12)
    record_decoder(r, 1, 4, 6, block_out_channels=[16, 32, 48], layers_per_block=1, norm_num_groups=8)
    r.save()

    r = Recorder("two_heads", torch.bfloat16)  # four rows, 256 T5 tokens, heads narrower than the model
    record_clip(r, "text_encoder", 4, hidden_size=48, num_attention_heads=3, num_hidden_layers=4,
                intermediate_size=80, projection_dim=32, hidden_act="quick_gelu")
    record_t5(r, 1, 256, d_model=64, num_heads=2, d_kv=48, d_ff=96, num_layers=2)
    record_transformer(r, 4, 333 - 256, 6, 10, 1000.0, num_layers=4, num_attention_heads=2,
                       joint_attention_dim=64, pooled_projection_dim=64, pos_embed_max_size=9)
    record_decoder(r, 2, 5, 3, block_out_channels=[32, 32], layers_per_block=2, norm_num_groups=16)
    r.save()

    r = Recorder("three_heads", torch.float16)  # one row, 512 T5 tokens, a tall latent, the deepest
    record_clip(r, "text_encoder_2", 1, hidden_size=128, num_attention_heads=2, num_hidden_layers=2,
                intermediate_size=160, projection_dim=80, hidden_act="gelu")
    record_t5(r, 1, 512, d_model=48, num_heads=3, d_kv=16, d_ff=64, num_layers=2)
    record_transformer(r, 1, 77 + 256, 20, 6, 8.929, num_layers=6, num_attention_heads=3,
                       joint_attention_dim=80, pooled_projection_dim=96, pos_embed_max_size=16)
    record_decoder(r, 1, 6, 8, block_out_channels=[16, 16, 32, 64], layers_per_block=2, norm_num_groups=4)
    r.save()


if __name__ == "__main__":
    main()
