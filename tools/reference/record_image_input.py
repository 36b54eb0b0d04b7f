"""Records pictures as input: the autoencoder's encoder tap by tap, and diffusers' img2img and inpaint pipelines end to
end on a small random model, in float32 on the CPU.

    python tools/reference/record_image_input.py     # writes tests/parity/fixtures/image_input/

Weights come from the recipe of record_models.py. The inpaint pipeline of diffusers 0.42 decodes without adding the
autoencoder's shift_factor; its picture is recorded as it draws it and with the shift, which is what we draw.
tests/parity/encoder_parity_test.cc and image_input_parity_test.cc replay it.
"""

from pathlib import Path

import numpy as np
import PIL.Image
import record_models
import torch
from diffusers import (AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel,
                       StableDiffusion3Img2ImgPipeline, StableDiffusion3InpaintPipeline)
from record_models import Recorder
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOKENS = ROOT / "models" / "octavo-tiny"
record_models.OUT = ROOT / "tests" / "parity" / "fixtures" / "image_input"


def channels_last(value):
    return value.permute(0, 2, 3, 1)


def autoencoder(r: Recorder, **sizes) -> AutoencoderKL:
    levels = len(sizes["block_out_channels"])
    config = dict(in_channels=3, out_channels=3, latent_channels=16, act_fn="silu", sample_size=64,
                  down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
                  use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609, **sizes)
    model = AutoencoderKL(**config)
    r.part("vae", model, config)
    return model


def record_encoder(name: str, dtype: torch.dtype, batch: int, height: int, width: int, taps: bool, **sizes):
    r = Recorder(name, dtype)
    model = autoencoder(r, **sizes)
    picture = torch.rand(batch, 3, height, width) * 2 - 1
    if taps:
        encoder = model.encoder
        for part, module in [("conv_in", encoder.conv_in), ("mid_block", encoder.mid_block)] + [
                (f"down_blocks.{i}", block) for i, block in enumerate(encoder.down_blocks)]:
            module.register_forward_hook(
                lambda _m, _i, out, part=part: r.keep(f"vae.encoder.{part}", channels_last(out)))
    distribution = model.encode(picture).latent_dist
    r.keep("vae.picture", channels_last(picture))
    r.keep("vae.encoder.conv_out", channels_last(distribution.parameters))
    r.save()


def clip(r: Recorder, part: str, width: int, heads: int, projection: int, act: str) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(vocab_size=1154, max_position_embeddings=77, bos_token_id=1152, eos_token_id=1153,
                            hidden_size=width, num_attention_heads=heads, num_hidden_layers=2,
                            intermediate_size=2 * width, projection_dim=projection, hidden_act=act)
    model = CLIPTextModelWithProjection(config)
    r.part(part, model, {key: getattr(config, key) for key in (
        "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
        "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps", "eos_token_id")})
    return model


def record_pipelines():
    r = Recorder("pipeline", torch.float16)
    transformer_config = dict(sample_size=16, patch_size=2, in_channels=16, out_channels=16, attention_head_dim=64,
                              caption_projection_dim=64, dual_attention_layers=[], qk_norm="rms_norm", num_layers=2,
                              num_attention_heads=1, joint_attention_dim=96, pooled_projection_dim=80,
                              pos_embed_max_size=12)
    transformer = SD3Transformer2DModel(**transformer_config)
    r.part("transformer", transformer, transformer_config)
    vae = autoencoder(r, block_out_channels=[16, 16, 32, 32], layers_per_block=1, norm_num_groups=8)
    parts = dict(transformer=transformer, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
                 text_encoder=clip(r, "text_encoder", 32, 1, 32, "quick_gelu"),
                 text_encoder_2=clip(r, "text_encoder_2", 48, 1, 48, "gelu"), text_encoder_3=None,
                 tokenizer=CLIPTokenizer.from_pretrained(TOKENS / "tokenizer"),
                 tokenizer_2=CLIPTokenizer.from_pretrained(TOKENS / "tokenizer_2"), tokenizer_3=None)

    def keep_pixels(name, value):
        r.keep(name, value.view(torch.int8))  # the dtype that holds bytes over there

    height, width = 144, 128
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x * 2) % 256, (y * 3) % 256, (x * y // 16) % 256], axis=2).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    mask[24:96, 40:104] = 255  # on the grid of the latents, where every way of shrinking a mask agrees
    keep_pixels("init", torch.from_numpy(pixels))
    keep_pixels("mask", torch.from_numpy(mask))
    common = dict(prompt="a red apple", negative_prompt="cat", num_inference_steps=6, guidance_scale=4.5,
                  image=PIL.Image.fromarray(pixels), height=height, width=width, output_type="latent")

    def seeded():
        return torch.Generator("cpu").manual_seed(11)

    def pixels_of(latents, shift):
        picture = vae.decode(latents / vae.config.scaling_factor + shift).sample
        return (channels_last(picture / 2 + 0.5).clamp(0, 1) * 255).round().to(torch.uint8)[0]

    img2img = StableDiffusion3Img2ImgPipeline(**parts)
    img2img.set_progress_bar_config(disable=True)
    for strength in (0.3, 0.6, 1.0):
        latents = img2img(**common, strength=strength, generator=seeded()).images
        r.keep(f"img2img.{strength}.latents", latents)
    inpaint = StableDiffusion3InpaintPipeline(**parts)
    inpaint.set_progress_bar_config(disable=True)
    for strength in (0.5, 1.0):
        latents = inpaint(**common, mask_image=PIL.Image.fromarray(mask), strength=strength,
                          generator=seeded()).images
        r.keep(f"inpaint.{strength}.latents", latents)
    keep_pixels("inpaint.1.0.pixels", pixels_of(latents, vae.config.shift_factor))
    drawn = inpaint(**{**common, "output_type": "np"}, mask_image=PIL.Image.fromarray(mask), strength=1.0,
                    generator=seeded()).images
    unshifted = torch.from_numpy((drawn[0] * 255).round().astype(np.uint8))
    assert torch.equal(unshifted, pixels_of(latents, 0.0)), "diffusers adds the shift now: record its own pixels"
    keep_pixels("inpaint.1.0.pixels_as_diffusers", unshifted)
    r.save()


@torch.no_grad()
def main():
    record_models.OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(22)
    torch.set_num_threads(2)
    record_encoder("encoder_taps", torch.float16, 1, 24, 16, True, block_out_channels=[16, 32, 48],
                   layers_per_block=1, norm_num_groups=8)
    record_encoder("encoder_two_rows", torch.bfloat16, 2, 10, 6, False, block_out_channels=[32, 32],
                   layers_per_block=2, norm_num_groups=16)
    record_encoder("encoder_deep", torch.float16, 1, 48, 64, False, block_out_channels=[16, 16, 32, 64],
                   layers_per_block=2, norm_num_groups=4)
    record_pipelines()


if __name__ == "__main__":
    main()
