#!/usr/bin/env python3
"""The embedded model as one file, as ComfyUI saves models: the same picture, and one line for what is missing."""
import json
import tempfile
import unittest
from pathlib import Path

from octavo_process import MODEL, join_safetensors, read_png, run, split_safetensors

PREFIXES = {"transformer": "model.diffusion_model.", "vae": "first_stage_model.",
            "text_encoder": "text_encoders.clip_l.transformer.", "text_encoder_2": "text_encoders.clip_g.transformer.",
            "text_encoder_3": "text_encoders.t5xxl.transformer."}


def write_one_file(path: Path, parts) -> None:
    """The parts behind their prefixes; what shapes do not tell goes into the metadata."""
    configs = {part: json.loads((MODEL / part / "config.json").read_text()) for part in parts}
    header, data = {"__metadata__": {"octavo.configs": json.dumps(configs)}}, b""
    for part in parts:
        stored, tensors = split_safetensors(next((MODEL / part).glob("*.safetensors")).read_bytes())
        stored.pop("__metadata__", None)
        for name, entry in stored.items():
            begin, end = entry["data_offsets"]
            header[PREFIXES[part] + name] = {**entry, "data_offsets": [len(data) + begin, len(data) + end]}
        data += tensors
    path.write_bytes(join_safetensors(header, data))


class OneFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def draw(self, out, *arguments):
        return run("generate", "--prompt", "a red apple", "--steps", "2", "--width", "128", "--height", "128", "--seed",
                   "3", "--out", str(self.folder / out), *map(str, arguments))

    def pixels(self, out):
        return read_png((self.folder / out).read_bytes())[:3]

    def test_the_same_picture_as_the_folder_and_says_what_it_found(self):
        file = self.folder / "tiny_turbo.safetensors"
        write_one_file(file, list(PREFIXES))
        self.assertEqual(self.draw("folder.png").returncode, 0)
        done = self.draw("file.png", "--model", file, "--tokenizers", MODEL, "--family", "large", "--guidance", "7")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.pixels("file.png"), self.pixels("folder.png"))
        self.assertIn("--family says so", done.stdout + done.stderr)
        done = run("inspect", str(file))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("--tokenizers DIR", done.stdout)

    def test_parts_from_elsewhere_and_without_t5(self):
        file = self.folder / "model.safetensors"
        write_one_file(file, ["transformer"])
        done = self.draw("no.png", "--model", file)
        self.assertEqual((done.returncode, done.stderr.count("--vae FILE")), (1, 1), done.stderr)
        elsewhere = ["--model", file, "--vae", MODEL, "--clip-l", MODEL / "text_encoder", "--clip-g", MODEL]
        done = self.draw("no.png", *elsewhere)
        self.assertIn("or --t5 none", done.stderr)
        done = self.draw("no.png", *elsewhere, "--t5", "none")
        self.assertIn("--tokenizers", done.stderr)
        done = self.draw("zeros.png", *elsewhere, "--t5", "none", "--tokenizers", MODEL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("zeros", done.stdout + done.stderr)
        self.assertEqual(self.draw("all.png", *elsewhere, "--t5", MODEL, "--tokenizers", MODEL).returncode, 0)
        self.assertEqual(self.draw("folder.png").returncode, 0)
        self.assertEqual(self.pixels("all.png"), self.pixels("folder.png"))
        self.assertNotEqual(self.pixels("zeros.png"), self.pixels("folder.png"))
        self.assertIn("--family", self.draw("no.png", "--family", "xl").stderr)


if __name__ == "__main__":
    unittest.main()
