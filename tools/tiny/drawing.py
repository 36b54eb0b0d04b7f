"""Pictures from prompts, for those who look at a model: by one `octavo serve` process, or by diffusers."""

import base64
import io
import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


class Octavo:
    """The server of this repository, started on a free port for as long as it is needed."""

    def __init__(self, model, binary, precision="auto"):
        if not os.path.exists(binary):
            raise SystemExit(f"{binary}: no such file; build it (cmake --build build/release --target octavo) or use "
                             "--engine diffusers")
        os.environ["OCTAVO_BINARY"] = str(binary)
        sys.path.insert(0, str(ROOT / "tests/end_to_end"))
        from octavo_process import Server

        self.server = Server("--model", str(model), "--precision", precision)

    def __enter__(self):
        self.server.__enter__()
        return self

    def __exit__(self, *exception):
        self.server.__exit__(*exception)

    def draw(self, prompt, seed, negative="", steps=20, guidance=4.0, width=256, height=256):
        """One picture: uint8 [height, width, 3]."""
        status, _, body = self.server.call("POST", "/sdapi/v1/txt2img", {
            "prompt": prompt, "negative_prompt": negative, "seed": seed, "steps": steps, "cfg_scale": guidance,
            "width": width, "height": height}, timeout=600)
        if status != 200:
            raise SystemExit(f"octavo answers {status} to {prompt!r}: {body.decode(errors='replace')}")
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(json.loads(body)["images"][0]))).convert("RGB"))


class Diffusers:
    """diffusers' pipeline on the CPU in float32."""

    def __init__(self, model):
        import torch
        from diffusers import StableDiffusion3Pipeline

        self.torch = torch
        self.pipe = StableDiffusion3Pipeline.from_pretrained(model, torch_dtype=torch.float32)
        self.pipe.set_progress_bar_config(disable=True)
        self.t5_length = min(256, self.pipe.tokenizer_3.model_max_length)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def draw(self, prompt, seed, negative="", steps=20, guidance=4.0, width=256, height=256):
        picture = self.pipe(prompt=prompt, negative_prompt=negative, num_inference_steps=steps,
                            guidance_scale=guidance, width=width, height=height, max_sequence_length=self.t5_length,
                            generator=self.torch.Generator("cpu").manual_seed(seed)).images[0]
        return np.asarray(picture)


def add_flags(parser):
    parser.add_argument("--model", default=str(ROOT / "models/octavo-tiny"), help="a model as octavo takes it; diffusers, and the autoencoder's own "
                        "figures, need a diffusers folder")
    parser.add_argument("--engine", choices=("octavo", "diffusers"), default="octavo")
    parser.add_argument("--octavo", default=str(ROOT / "build/release/octavo"), help="the binary")
    parser.add_argument("--precision", default="auto", help="octavo's arithmetic, as `octavo serve --help` lists it")
    parser.add_argument("--steps", type=int, default=20)


def engine_of(args):
    return Octavo(args.model, args.octavo, args.precision) if args.engine == "octavo" else Diffusers(args.model)
