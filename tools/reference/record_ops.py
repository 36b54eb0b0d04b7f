"""Records small inputs and outputs of the operations the engine implements, computed by torch, diffusers, transformers.

    python tools/reference/record_ops.py            # writes tests/parity/fixtures/ops/

Tensors are named <case>.<argument>; parameters that are not tensors (epsilons, strides, scales) are written down here
and in tests/parity/op_parity_test.cc, which replays the cases on every kernel row. Everything is float32 on the CPU.
Pictures inside the autoencoder are channels last, as the engine keeps them.
"""

from pathlib import Path

import diffusers
import torch
import torch.nn.functional as F
import transformers
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import PatchEmbed, get_timestep_embedding
from diffusers.models.normalization import RMSNorm
from diffusers.models.upsampling import Upsample2D
from diffusers import FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from transformers.activations import NewGELUActivation, QuickGELUActivation
from transformers.models.t5.modeling_t5 import T5Attention, T5LayerNorm

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "ops"
# One entry: safetensors writes several in an order that changes from run to run.
VERSIONS = {
    "recorded_with": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
                     f"transformers {transformers.__version__}"
}


class Recorder:
    """Collects the tensors of one file."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.tensors: dict[str, torch.Tensor] = {}

    def case(self, name: str, **tensors: torch.Tensor) -> None:
        for argument, tensor in tensors.items():
            self.tensors[f"{name}.{argument}"] = tensor.detach().contiguous().clone()

    def save(self) -> None:
        path = OUT / f"{self.name}.safetensors"
        save_file(self.tensors, path, VERSIONS)
        print(path.name, path.stat().st_size)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.permute(0, 2, 3, 1)


def modulate(x: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


def record_norms() -> None:
    r = Recorder("norm")
    # Rows with an offset and with very different sizes: what statistics in f32 must survive.
    x = torch.randn(2, 5, 192) * torch.tensor([0.1, 1.0, 30.0, 1.0, 5.0])[None, :, None] + 3.0
    weight, bias = torch.randn(192), torch.randn(192)
    r.case("layer_norm_affine", x=x, weight=weight, bias=bias, out=F.layer_norm(x, (192,), weight, bias, eps=1e-5))
    r.case("layer_norm_plain", x=x, out=F.layer_norm(x, (192,), eps=1e-6))
    shift, scale = torch.randn(2, 192), torch.randn(2, 192)
    r.case("layer_norm_modulated", x=x, shift=shift, scale=scale, out=modulate(x, shift, scale))
    y, gate = torch.randn(2, 5, 192), torch.randn(2, 192)
    updated = x + gate[:, None] * y
    r.case("gate_residual_norm", x=x, y=y, gate=gate, shift=shift, scale=scale, x_out=updated,
           out=modulate(updated, shift, scale))

    t5 = T5LayerNorm(128, eps=1e-6)
    t5.weight.data = torch.randn(128)
    x = torch.randn(2, 6, 128) * 100
    r.case("rms_norm", x=x, weight=t5.weight, out=t5(x))

    heads, width = 3, 64
    q_norm, k_norm = RMSNorm(width, eps=1e-6), RMSNorm(width, eps=1e-6)
    q_norm.weight.data, k_norm.weight.data = torch.randn(width), torch.randn(width)
    qkv = torch.randn(2, 7, 3 * heads * width) * 4
    q, k, v = (part.view(2, 7, heads, width).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    r.case("qkv_split_norm", qkv=qkv, q_weight=q_norm.weight, k_weight=k_norm.weight, q=q_norm(q), k=k_norm(k), v=v)

    group_norm = torch.nn.GroupNorm(8, 32, eps=1e-6)
    group_norm.weight.data, group_norm.bias.data = torch.randn(32), torch.randn(32)
    x = torch.randn(2, 32, 5, 7) * 3 + 1
    out = group_norm(x)
    r.case("group_norm", x=channels_last(x), weight=group_norm.weight, bias=group_norm.bias, out=channels_last(out),
           out_silu=channels_last(F.silu(out)))
    r.save()


def record_activations() -> None:
    r = Recorder("activation")
    x = torch.cat([torch.linspace(-12, 12, 512), torch.randn(256) * 2, torch.randn(256) * 1e-3]).view(4, 256)
    multiplier = torch.randn(4, 256)
    r.case("activation", x=x, multiplier=multiplier, silu=F.silu(x), gelu_tanh=F.gelu(x, approximate="tanh"),
           gelu_erf=F.gelu(x), quick_gelu=QuickGELUActivation()(x), gated=NewGELUActivation()(x) * multiplier)
    r.save()


def record_embeddings() -> None:
    r = Recorder("embedding")
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(28)
    timesteps = scheduler.timesteps
    r.case("timestep", timesteps=timesteps,
           out=get_timestep_embedding(timesteps, 256, flip_sin_to_cos=True, downscale_freq_shift=0))

    config = transformers.T5Config(d_model=64, d_kv=32, num_heads=2)
    attention = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    r.case("relative_bias", table=attention.relative_attention_bias.weight, out=attention.compute_bias(40, 40)[0])
    distances = torch.arange(-600, 601)
    r.case("relative_bucket", distances=distances.int(),
           out=T5Attention._relative_position_bucket(distances, bidirectional=True, num_buckets=32,
                                                     max_distance=128).int())

    table, positions = torch.randn(50, 48), torch.randn(9, 48)
    ids = torch.randint(0, 50, (2, 7))
    out = F.embedding(ids, table) + positions[:7]
    r.case("embedding", ids=ids.int(), table=table, positions=positions, out=out)
    r.save()


def record_patches() -> None:
    r = Recorder("patch")
    # The whole PatchEmbed: convolution as rows and product, then the centre crop of the position table.
    embed = PatchEmbed(height=8, width=8, patch_size=2, in_channels=16, embed_dim=24, pos_embed_max_size=9)
    latents = torch.randn(2, 16, 6, 10)
    r.case("patch_embed", latents=latents, weight=embed.proj.weight.reshape(24, 64), bias=embed.proj.bias,
           table=embed.pos_embed.reshape(9, 9, 24).float(), out=embed(latents))
    tokens = torch.randn(2, 15, 64)
    picture = tokens.reshape(2, 3, 5, 2, 2, 16)
    picture = torch.einsum("nhwpqc->nchpwq", picture).reshape(2, 16, 6, 10)
    r.case("unpatchify", tokens=tokens, out=picture)
    r.save()


def record_products() -> None:
    r = Recorder("product")
    x, weight, bias = torch.randn(2, 9, 96), torch.randn(70, 96) / 10, torch.randn(70)
    residual, gate = torch.randn(2, 9, 70), torch.randn(2, 70)
    product = F.linear(x, weight, bias)
    r.case("matmul", x=x, weight=weight, bias=bias, residual=residual, gate=gate, plain=F.linear(x, weight),
           biased=product, gelu_tanh=F.gelu(product, approximate="tanh"), gated=residual + gate[:, None] * product)
    half = weight.bfloat16()
    r.case("matmul_bf16_weight", x=x, weight=half, out=F.linear(x, half.float()))

    q, k, v = torch.randn(2, 3, 11, 64), torch.randn(2, 3, 13, 64), torch.randn(2, 3, 13, 64)
    r.case("attention", q=q, k=k, v=v, out=heads_joined(F.scaled_dot_product_attention(q, k, v)))
    q, k, v = (torch.randn(1, 2, 9, 32) for _ in range(3))
    r.case("attention_causal", q=q, k=k, v=v,
           out=heads_joined(F.scaled_dot_product_attention(q, k, v, is_causal=True)))
    bias = torch.randn(2, 9, 9)
    r.case("attention_bias", q=q, k=k, v=v, bias=bias,
           out=heads_joined(F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None], scale=1.0)))
    r.save()


def heads_joined(out: torch.Tensor) -> torch.Tensor:
    return out.transpose(1, 2).flatten(2)


def record_convolutions() -> None:
    r = Recorder("conv2d")
    x = torch.randn(2, 16, 7, 9)
    weight, bias = torch.randn(24, 16, 3, 3) / 12, torch.randn(24)
    out = F.conv2d(x, weight, bias, padding=1)
    residual = torch.randn_like(out)
    r.case("conv_3x3", x=channels_last(x), weight=weight, bias=bias, out=channels_last(out),
           residual=channels_last(residual), with_residual=channels_last(out + residual))
    weight = torch.randn(8, 16, 1, 1) / 4
    r.case("conv_1x1", x=channels_last(x), weight=weight, bias=bias[:8],
           out=channels_last(F.conv2d(x, weight, bias[:8])))
    up = Upsample2D(16, use_conv=True, out_channels=16)
    r.case("conv_upsample", x=channels_last(x), weight=up.conv.weight, bias=up.conv.bias, out=channels_last(up(x)))
    down = Downsample2D(16, use_conv=True, out_channels=16, padding=0)
    r.case("conv_downsample", x=channels_last(x), weight=down.conv.weight, bias=down.conv.bias,
           out=channels_last(down(x)))
    r.save()


def record_sample() -> None:
    r = Recorder("sample")
    x, v = torch.randn(1, 16, 4, 6), torch.randn(1, 16, 4, 6)
    dt = torch.tensor(0.857692, dtype=torch.float32) - torch.tensor(0.912345, dtype=torch.float32)
    r.case("lincomb", x=x, v=v, dt=dt[None], out=x + dt * v)
    uncond, cond = torch.randn(1, 16, 4, 6), torch.randn(1, 16, 4, 6)
    r.case("guidance", uncond=uncond, cond=cond, out=uncond + 4.5 * (cond - uncond))
    r.case("latents_to_decoder", latents=x, out=channels_last(x / 1.5305 + 0.0609))
    picture = torch.cat([torch.randn(1, 3, 6, 11), (torch.arange(198) / 255 * 2 - 1 + 1 / 255).view(1, 3, 6, 11)])
    processor = VaeImageProcessor()
    pixels = processor.numpy_to_pil(processor.postprocess(picture, output_type="np"))
    pixels = torch.stack([torch.frombuffer(bytearray(image.tobytes()), dtype=torch.int8).view(6, 11, 3)
                          for image in pixels])
    r.case("to_pixels", x=channels_last(picture), out=pixels)
    values = torch.cat([torch.randn(500), torch.randn(500) * 1e30, torch.randn(20) * 1e-40,
                        torch.tensor([float("inf"), float("-inf"), 0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8])])
    r.case("cast", x=values, bf16=values.bfloat16(), f16=values.half())
    r.save()


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(2)
    torch.manual_seed(20240613)
    OUT.mkdir(parents=True, exist_ok=True)
    record_norms()
    record_activations()
    record_embeddings()
    record_patches()
    record_products()
    record_convolutions()
    record_sample()


if __name__ == "__main__":
    main()
