"""Taps on reference models: the values between their parts, under the names that the engine's taps have.

Each function hooks a model of diffusers or transformers and calls keep(name, tensor) whenever a tapped part has run,
until the returned handles are removed. Comparing them in order names the first part that computes something else.
"""

from typing import Callable

import torch

Keep = Callable[[str, torch.Tensor], None]
Handles = list[torch.utils.hooks.RemovableHandle]

# A thinned tap keeps every 61st value of the flattened tensor: a prime, so that it wanders over rows and columns.
# tests/parity/divergence_finder.h knows the same number.
STRIDE = 61


def thinned(value: torch.Tensor) -> torch.Tensor:
    return value.detach().contiguous().flatten()[::STRIDE].clone()


def on_output(module: torch.nn.Module, seen: Callable) -> torch.utils.hooks.RemovableHandle:
    def hook(_module, _inputs, out) -> None:  # what a hook returns would replace the output
        seen(out)

    return module.register_forward_hook(hook)


def tap_clip(model: torch.nn.Module, part: str, keep: Keep) -> Handles:
    """The model must be called with output_hidden_states=True."""

    def seen(out) -> None:
        keep(f"{part}.embeddings", out.hidden_states[0])
        for i, hidden in enumerate(out.hidden_states[1:]):
            keep(f"{part}.layers.{i}", hidden)
        keep(f"{part}.pooled", out.text_embeds)

    return [on_output(model, seen)]


def tap_t5(model: torch.nn.Module, part: str, keep: Keep) -> Handles:
    def first(out) -> torch.Tensor:
        return out if isinstance(out, torch.Tensor) else out[0]

    handles = [on_output(block, lambda out, i=i: keep(f"{part}.blocks.{i}", first(out)))
               for i, block in enumerate(model.encoder.block)]
    return handles + [on_output(model, lambda out: keep(f"{part}.last_hidden_state", out[0]))]


def tap_transformer(model: torch.nn.Module, part: str, keep: Keep) -> Handles:
    handles = [on_output(getattr(model, name), lambda out, name=name: keep(f"{part}.{name}", out))
               for name in ("pos_embed", "context_embedder", "time_text_embed")]

    def block_seen(out, i: int) -> None:
        text, image = out
        keep(f"{part}.transformer_blocks.{i}.image", image)
        if text is not None:  # the last block drops it
            keep(f"{part}.transformer_blocks.{i}.text", text)

    handles += [on_output(block, lambda out, i=i: block_seen(out, i))
                for i, block in enumerate(model.transformer_blocks)]
    return handles + [on_output(model, lambda out: keep(f"{part}.velocity", out[0]))]


def tap_decoder(decoder: torch.nn.Module, part: str, keep: Keep) -> Handles:
    """The engine's pictures are channels last."""
    parts = [("conv_in", decoder.conv_in), ("mid_block", decoder.mid_block)]
    parts += [(f"up_blocks.{i}", block) for i, block in enumerate(decoder.up_blocks)]
    parts += [("conv_out", decoder.conv_out)]
    return [on_output(module, lambda out, name=name: keep(f"{part}.{name}", out.permute(0, 2, 3, 1)))
            for name, module in parts]


def remove(handles: Handles) -> None:
    for handle in handles:
        handle.remove()
