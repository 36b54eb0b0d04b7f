"""Records what diffusers draws with octavo-tiny in float32 on the CPU.

    python tools/reference/record_tiny.py         # writes tests/parity/fixtures/tiny.safetensors

Needs models/octavo-tiny with its weights and nothing else. To be run again whenever the weights change: the fixture
holds a hash of them, and tests/parity/tiny_parity_test.cc, which replays it, refuses others.
"""

import dataclasses
import json
from pathlib import Path

import diffusers
import numpy as np
import taps
import torch
import transformers
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "octavo-tiny"
OUT = ROOT / "tests" / "parity" / "fixtures" / "tiny.safetensors"
PARTS = ("text_encoder", "text_encoder_2", "text_encoder_3", "transformer", "vae")
TAPPED_STEP = 10  # of the square picture: its latents before the step, and every tap of its forward
MASK = (1 << 64) - 1


@dataclasses.dataclass
class Case:
    name: str
    prompt: str
    width: int
    height: int
    seed: int
    negative_prompt: str = ""
    guidance_scale: float = 5.0
    steps: int = 20
    image_count: int = 1


CASES = [
    Case("square", "a red apple on a blue background", 256, 256, 1),
    Case("portrait", "two cats and a dog", 192, 256, 2**32 + 7),
    Case("unguided", "a yellow car", 144, 144, 3, guidance_scale=1.0),
    Case("negative", "a cat beside a tree", 176, 128, 4, negative_prompt="a dog on a green background", steps=28),
    Case("batch", "three stars", 128, 128, 5, guidance_scale=7.0, image_count=2),
]


def hash_of_weights() -> str:
    """FNV-1a over every weight file as little-endian 64-bit words, the last one padded with zeros, then its length."""
    value = 0xCBF29CE484222325
    for part in PARTS:
        stem = "diffusion_pytorch_model" if part in ("transformer", "vae") else "model"
        data = (MODEL / part / f"{stem}.safetensors").read_bytes()
        words = np.frombuffer(data + bytes(-len(data) % 8), dtype="<u8").tolist()
        for word in [*words, len(data)]:
            value = ((value ^ word) * 0x100000001B3) & MASK
    return f"{value:016x}"


class Recorder:
    def __init__(self, pipe: StableDiffusion3Pipeline):
        self.pipe, self.tensors = pipe, {}

    def keep(self, name: str, value: torch.Tensor) -> None:
        self.tensors[name] = value.detach().contiguous().clone()

    def keep_tap(self, case: Case):
        """Whole where a part of the model hands over to the next, thinned inside."""
        layers = {part: getattr(self.pipe, part).config.num_hidden_layers for part in PARTS[:2]}
        whole = {"transformer.velocity", "text_encoder_3.last_hidden_state"}
        whole |= {f"{part}.layers.{count - 2}" for part, count in layers.items()}
        whole |= {f"{part}.pooled" for part in layers}
        return lambda name, value: self.keep(f"{case.name}.{name}", value if name in whole else taps.thinned(value))

    def tap_encoders(self, case: Case) -> taps.Handles:
        keep = self.keep_tap(case)
        return [*taps.tap_clip(self.pipe.text_encoder, "text_encoder", keep),
                *taps.tap_clip(self.pipe.text_encoder_2, "text_encoder_2", keep),
                *taps.tap_t5(self.pipe.text_encoder_3, "text_encoder_3", keep)]

    def tap_transformer(self, case: Case) -> taps.Handles:
        keep = self.keep_tap(case)

        def keep_of_one_step(name: str, value: torch.Tensor) -> None:
            if not name.endswith("time_text_embed"):  # the engine embeds the timesteps of all steps at once
                keep(name, value)

        return taps.tap_transformer(self.pipe.transformer, "transformer", keep_of_one_step)

    def record(self, case: Case) -> None:
        # One prompt alone is encoded without guidance, so the taps fire once.
        handles = self.tap_encoders(case) if case.name == "unguided" else []

        def after_step(_pipe, step: int, _timestep, values: dict) -> dict:
            if case.name == "square" and step == TAPPED_STEP - 1:
                self.keep(f"{case.name}.latents_before_step", values["latents"])
                handles.extend(self.tap_transformer(case))
            elif handles:
                taps.remove(handles)
                handles.clear()
            if step == case.steps - 1:
                self.keep(f"{case.name}.latents", values["latents"])
            return values

        pictures = self.pipe(
            case.prompt, negative_prompt=case.negative_prompt, width=case.width, height=case.height,
            num_inference_steps=case.steps, guidance_scale=case.guidance_scale,
            num_images_per_prompt=case.image_count,
            generator=[torch.Generator("cpu").manual_seed(case.seed + i) for i in range(case.image_count)],
            max_sequence_length=min(256, self.pipe.tokenizer_3.model_max_length),
            callback_on_step_end=after_step).images
        self.keep(f"{case.name}.pixels", torch.stack([
            torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.int8).view(case.height, case.width, 3)
            for picture in pictures]))


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    pipe = StableDiffusion3Pipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    recorder = Recorder(pipe)
    for case in CASES:
        recorder.record(case)
    versions = (f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
                f"transformers {transformers.__version__}")
    description = {"weights": hash_of_weights(), "tapped_step": TAPPED_STEP, "recorded_with": versions,
                   "cases": [dataclasses.asdict(case) for case in CASES]}
    # One entry: safetensors writes several in an order that changes from run to run.
    save_file(recorder.tensors, OUT, {"tiny": json.dumps(description)})
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    main()
