"""Compares modules.py and tokens.py with diffusers and transformers, on the CPU in float32, over an exported folder.

    python tools/tiny/check_modules.py --model models/octavo-tiny
"""

import argparse

import numpy as np
import torch
from diffusers import StableDiffusion3Pipeline

import modules as m
import scenes
from catalogue import OBJECTS
from tokens import Tokens


def load(pipe, tokens):
    """Our modules with the pipeline's weights."""
    g, v = m.Generator(tokens.clip_size, tokens.t5_size), m.Vae()
    for part in ("text_encoder", "text_encoder_2", "transformer"):
        getattr(g, part).load_state_dict({k: w.float() for k, w in getattr(pipe, part).state_dict().items()
                                          if not k.endswith("position_ids")})
    t5 = pipe.text_encoder_3.state_dict()
    g.text_encoder_3.load_state_dict({k: w for k, w in t5.items() if k != "encoder.embed_tokens.weight"})
    v.load_state_dict(pipe.vae.state_dict())
    return g, v


def error(a, b):
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", required=True)
    args = p.parse_args()
    pipe = StableDiffusion3Pipeline.from_pretrained(args.model, torch_dtype=torch.float32)
    tokens = Tokens(args.model)
    g, v = load(pipe, tokens)
    rng = scenes.sampler(77)
    texts = ["", "cat", "A RED Apple!", "café, 日本; don't"] + [
        scenes.sample(rng, [0.9] * len(OBJECTS)).caption for _ in range(400)]
    ours = tokens(texts)
    worst = 0
    for name, tokenizer, mine in zip("LGT", (pipe.tokenizer, pipe.tokenizer_2, pipe.tokenizer_3), ours):
        theirs = tokenizer(texts, padding="max_length", max_length=77, truncation=True).input_ids
        rows = [t for t, a, b in zip(texts, np.array(theirs), mine)
                if (a != b).any() and not (name == "G" and "!" in t)]
        print(f"tokenizer {name}: {len(rows)} of {len(texts)} captions differ", rows[:3])
        worst = max(worst, len(rows))
    few = texts[1:4] + texts[10:15]
    ids = [torch.from_numpy(x.astype(np.int64)) for x in tokens(few)]
    ids[1] = pipe.tokenizer_2(few, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    context, pooled = g.encode(*ids)
    want, _, want_pooled, _ = pipe.encode_prompt(few, None, None, do_classifier_free_guidance=False,
                                                 max_sequence_length=77)
    x, t = torch.randn(len(few), 16, 24, 32), torch.rand(len(few)) * 1000
    y = g.transformer(x, context, pooled, t)
    want_y = pipe.transformer(x, want, want_pooled, t).sample
    picture = torch.rand(2, 3, 96, 128) * 2 - 1
    mean, logvar = v.encode(picture)
    want_posterior = pipe.vae.encode(picture).latent_dist
    z = torch.randn(2, 16, 12, 16)
    errors = {
        "context": error(context, want), "pooled": error(pooled, want_pooled), "velocity": error(y, want_y),
        "encode": error(mean, want_posterior.mean), "logvar": error(logvar, want_posterior.logvar),
        "decode": error(v.decoder(z), pipe.vae.decode(z).sample)}
    print(errors)
    if worst or max(errors.values()) > 1e-4:
        raise SystemExit("modules.py and diffusers differ")
    print("equal")


if __name__ == "__main__":
    main()
