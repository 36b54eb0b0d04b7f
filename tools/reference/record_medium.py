"""Records Stable Diffusion 3.5 Medium's shapes in small, on random weights: dual attention blocks (MMDiT-X), a crop
out of the middle of a larger position table, forwards with skipped layers, and a whole run with skip-layer guidance.

    python tools/reference/record_medium.py         # writes tests/parity/fixtures/models/medium*.safetensors

Recipes as in record_models.py. tests/parity/model_parity_test.cc and medium_parity_test.cc replay them.
"""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline
from record_models import (OUT, Recorder, clip_model, record_transformer, t5_model, transformer_model, vae_model)
from transformers import CLIPTokenizer, T5Tokenizer

TOKENIZERS = OUT.parents[3] / "models" / "octavo-tiny"
REQUEST = {"prompt": "a red apple on a blue background", "negative_prompt": "two cats", "width": 160, "height": 128,
           "steps": 10, "guidance_scale": 5.0, "seed": 21}
SKIP = {"skip_layers": [1, 3], "skip_layer_scale": 2.8, "skip_layer_start": 0.1, "skip_layer_stop": 0.6}


def record_pipeline(r: Recorder) -> None:
    """The whole of diffusers' pipeline with octavo-tiny's tokenizers: final latents with and without skipped layers."""
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer")
    tokenizer_2 = CLIPTokenizer.from_pretrained(TOKENIZERS / "tokenizer_2")
    tokenizer_3 = T5Tokenizer.from_pretrained(TOKENIZERS / "tokenizer_3")
    pipe = StableDiffusion3Pipeline(
        tokenizer=tokenizer, tokenizer_2=tokenizer_2, tokenizer_3=tokenizer_3,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0),
        text_encoder=clip_model(r, "text_encoder", len(tokenizer), hidden_size=64, num_attention_heads=1,
                                num_hidden_layers=2, intermediate_size=96, projection_dim=64, hidden_act="quick_gelu"),
        text_encoder_2=clip_model(r, "text_encoder_2", len(tokenizer_2), hidden_size=64, num_attention_heads=2,
                                  num_hidden_layers=2, intermediate_size=96, projection_dim=48, hidden_act="gelu"),
        text_encoder_3=t5_model(r, len(tokenizer_3), d_model=128, num_heads=2, d_kv=32, d_ff=96, num_layers=2),
        transformer=transformer_model(r, dual_attention_layers=(0, 1, 2), num_layers=5, num_attention_heads=2,
                                      joint_attention_dim=128, pooled_projection_dim=112, pos_embed_max_size=24),
        vae=vae_model(r, block_out_channels=[16, 16, 16, 16], layers_per_block=1, norm_num_groups=4))
    pipe.set_progress_bar_config(disable=True)

    def latents(**more) -> torch.Tensor:
        return pipe(REQUEST["prompt"], negative_prompt=REQUEST["negative_prompt"], width=REQUEST["width"],
                    height=REQUEST["height"], num_inference_steps=REQUEST["steps"],
                    guidance_scale=REQUEST["guidance_scale"], max_sequence_length=tokenizer_3.model_max_length,
                    generator=torch.Generator("cpu").manual_seed(REQUEST["seed"]), output_type="latent",
                    **more).images

    r.keep("latents", latents())
    r.keep("latents_with_skipped_layers", latents(
        skip_guidance_layers=SKIP["skip_layers"], skip_layer_guidance_scale=SKIP["skip_layer_scale"],
        skip_layer_guidance_start=SKIP["skip_layer_start"], skip_layer_guidance_stop=SKIP["skip_layer_stop"]))
    r.save(request=REQUEST | SKIP)


@torch.no_grad()
def main():
    torch.manual_seed(35)
    torch.set_num_threads(1)

    r = Recorder("medium", torch.bfloat16)  # the first half dual, as in Medium
    record_transformer(r, 2, 77 + 20, 10, 14, 583.5, skip_layers=(1, 3), dual_attention_layers=(0, 1, 2), num_layers=5,
                       num_attention_heads=2, joint_attention_dim=96, pooled_projection_dim=64, pos_embed_max_size=24)
    r.save()

    r = Recorder("medium_mixed", torch.float16)  # into and out of dual blocks, the last one dual; first and last skipped
    record_transformer(r, 1, 40, 16, 6, 120.25, skip_layers=(0, 4), dual_attention_layers=(1, 4), num_layers=5,
                       num_attention_heads=3, joint_attention_dim=48, pooled_projection_dim=80, pos_embed_max_size=13)
    r.save()

    record_pipeline(Recorder("medium_pipeline", torch.bfloat16))


if __name__ == "__main__":
    main()
