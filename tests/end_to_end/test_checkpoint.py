#!/usr/bin/env python3
"""`octavo checkpoint`: what it writes can be drawn with, is the same in every layout, and is all or nothing."""
import resource
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from octavo_process import OCTAVO, read_png, run, split_safetensors

SMALL = ("--family", "medium", "--blocks", "3", "--heads", "2", "--width-of-t5", "128", "--width-of-vae", "32")
LAYOUTS = ("diffusers", "original", "parts", "comfyui")


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def synth(self, name, *arguments):
        done = run("checkpoint", "synth", *arguments, "--out", str(self.root / name))
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.root / name


def tensors_of(path: Path) -> dict:
    """{name: (dtype, shape, bytes)} of a safetensors file, or of all of a folder by '<folder>/<name>'."""
    if path.is_dir():
        found = {}
        for file in sorted(path.rglob("*.safetensors")):
            for name, value in tensors_of(file).items():
                found[f"{file.parent.relative_to(path)}/{name}"] = value
        return found
    header, data = split_safetensors(path.read_bytes())
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


class Synth(Folder):
    def test_reduced_models_draw_a_picture(self):
        for family in ("large", "tiny"):
            with self.subTest(family=family):
                sizes = ("--family", family, *SMALL[2:]) if family != "tiny" else ("--family", "tiny")
                model = self.synth(family, *sizes, "--seed", "4", "--outliers", "2")
                self.assertEqual(run("inspect", str(model)).returncode, 0)
                picture = self.root / f"{family}.png"
                done = run("generate", "--model", str(model), "--prompt", "a red apple", "--steps", "2", "--seed", "1",
                           "--width", "128", "--height", "128", "--out", str(picture))
                self.assertEqual(done.returncode, 0, done.stderr)
                _, _, rows, _ = read_png(picture.read_bytes())
                # Neither flat nor saturated: activations stayed sane through all of the model.
                values = sorted(b"".join(rows))
                self.assertGreater(values[len(values) * 9 // 10] - values[len(values) // 10], 20)
                self.assertLess(sum(value in (0, 255) for value in values), len(values) // 2)

    def test_the_same_seed_gives_the_same_values_in_every_layout(self):
        written = {layout: tensors_of(self.synth(f"{layout}.model", *SMALL, "--seed", "7", "--layout", layout))
                   for layout in LAYOUTS}
        folder, single = written["diffusers"], written["original"]
        self.assertEqual(single, written["comfyui"])
        at, to = "transformer/transformer_blocks.2.", "model.diffusion_model.joint_blocks.2."
        joined = b"".join(folder[f"{at}attn.to_{name}.weight"][2] for name in "qkv")
        self.assertEqual(joined, single[f"{to}x_block.attn.qkv.weight"][2])
        self.assertEqual(single[f"{to}x_block.attn.qkv.weight"][1], [384, 128])
        last = folder[f"{at}norm1_context.linear.weight"][2]
        self.assertEqual(last[len(last) // 2:] + last[:len(last) // 2],
                         single[f"{to}context_block.adaLN_modulation.1.weight"][2])
        self.assertEqual(folder["text_encoder_3/shared.weight"],
                         single["text_encoders.t5xxl.transformer.shared.weight"])
        parts = written["parts"]
        self.assertEqual(parts["./encoder.embed_tokens.weight"], folder["text_encoder_3/shared.weight"])
        self.assertEqual(sum(name.startswith("./model.diffusion_model.") for name in parts),
                         sum(name.startswith("model.diffusion_model.") for name in single))
        # Medium's second attention in the first block of three: 13 of 24 in proportion.
        dual = {name.split(".")[3] for name in single if ".attn2." in name}
        self.assertEqual(dual, {"0"})

    def test_dtypes_are_as_asked(self):
        for dtype, word in (("f32", "F32"), ("f16", "F16"), ("fp8", "F8_E4M3")):
            model = tensors_of(self.synth(f"{dtype}.safetensors", "--layout", "original", "--dtype", dtype))
            self.assertEqual({tensor[0] for tensor in model.values()}, {word})
        scaled = tensors_of(self.synth("scaled.safetensors", "--layout", "comfyui", "--dtype", "fp8"))
        self.assertEqual(scaled["model.diffusion_model.context_embedder.weight"][0], "F8_E4M3")
        self.assertEqual(scaled["model.diffusion_model.context_embedder.weight_scale"][0], "F32")
        self.assertEqual(scaled["model.diffusion_model.context_embedder.bias"][0], "BF16")

    def test_wrong_words_are_named_in_one_line(self):
        for arguments, flag in ((("--family", "xl"), "--family"), (("--layout", "gguf"), "--layout"),
                                (("--dtype", "int4"), "--dtype"), (("--family", "large", "--width-of-t5", "100"),
                                                                   "--width-of-t5"),
                                (("--tokenizers", "/nowhere"), "/nowhere")):
            done = run("checkpoint", "synth", *arguments, "--out", str(self.root / "model"))
            self.assertEqual(done.returncode, 1, arguments)
            self.assertIn(flag, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertEqual(list(self.root.iterdir()), [])

    def test_what_exists_is_not_overwritten(self):
        kept = self.root / "model"
        kept.write_text("mine")
        done = run("checkpoint", "synth", "--out", str(kept))
        self.assertEqual(done.returncode, 1)
        self.assertIn("exists already", done.stderr)
        self.assertEqual(kept.read_text(), "mine")


class Failures(Folder):
    def test_ctrl_c_leaves_nothing(self):
        for layout in ("diffusers", "original"):
            process = subprocess.Popen([OCTAVO, "checkpoint", "synth", "--family", "medium", "--layout", layout,
                                        "--out", str(self.root / "model")], stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while not list(self.root.glob("model.*.partial")) and time.monotonic() < deadline:
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 1)
            self.assertIn("interrupted", stderr)
            self.assertEqual(list(self.root.iterdir()), [])

    def test_a_disk_that_fills_up_leaves_nothing(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        for layout in ("diffusers", "original"):
            done = run("checkpoint", "synth", "--layout", layout, "--out", str(self.root / "model"), preexec_fn=limit)
            self.assertEqual(done.returncode, 1)
            self.assertIn("cannot be written: File too large", done.stderr)
            self.assertEqual(list(self.root.iterdir()), [])

    def test_more_than_the_disk_holds_is_refused_first(self):
        if shutil.disk_usage(self.root).free > 2_000_000_000_000:
            self.skipTest("the disk would hold it")
        done = run("checkpoint", "synth", "--family", "large", "--blocks", "1000", "--heads", "100", "--out",
                   str(self.root / "model"))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"needs [0-9.]+ GB, the disk has [0-9.]+ GB free")
        self.assertEqual(list(self.root.iterdir()), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
