#!/usr/bin/env python3
"""`octavo checkpoint`: what it writes can be drawn with, is the same in every layout, and is all or nothing."""
import json
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from octavo_process import OCTAVO, join_safetensors, read_png, run, split_safetensors

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


class Convert(Folder):
    def convert(self, model, name, *arguments):
        done = run("checkpoint", "convert", "--model", str(model), *arguments, "--out", str(self.root / name))
        self.assertEqual(done.returncode, 0, done.stderr)
        return self.root / name

    def test_once_around_all_layouts_the_same_bytes_come_back(self):
        for dtype in ("bf16", "fp8"):
            with self.subTest(dtype=dtype):
                first = self.synth(f"first-{dtype}", *SMALL, "--dtype", dtype, "--seed", "11")
                # Plain FP8 has no scales; where it would get them, the comfyui layout, it is only moved.
                original = self.convert(first, f"{dtype}.safetensors", "--layout", "original")
                parts = self.convert(original, f"parts-{dtype}", "--layout", "parts", "--tokenizers", str(first))
                comfyui = self.convert(parts, f"comfy-{dtype}.safetensors", "--layout", "comfyui")
                last = self.convert(comfyui, f"last-{dtype}", "--layout", "diffusers", "--tokenizers", str(parts))
                self.assertEqual(tensors_of(first), tensors_of(last))
                self.assertEqual(tensors_of(original), tensors_of(comfyui))
                for path in first.rglob("*"):
                    if path.is_file() and path.suffix != ".safetensors":
                        self.assertEqual(path.read_bytes(), (last / path.relative_to(first)).read_bytes(), path)

    def test_files_of_others_without_configurations_become_a_folder(self):
        first = self.synth("first", *SMALL, "--dtype", "f16")
        parts = self.convert(first, "parts", "--layout", "parts")
        for path in parts.glob("*.safetensors"):
            header, data = split_safetensors(path.read_bytes())
            header.pop("__metadata__")
            if path.name == "clip_l.safetensors":  # as published: the projection is left out
                begin, end = header.pop("text_projection.weight")["data_offsets"]
                data = data[:begin] + data[end:]
                for entry in header.values():
                    entry["data_offsets"] = [at - (end - begin) if at >= end else at for at in entry["data_offsets"]]
            path.write_bytes(join_safetensors(header, data))
        # Small encoders cannot be told apart by their layers: their flags say what they are.
        for name in ("clip_l", "clip_g", "t5xxl"):
            (parts / f"{name}.safetensors").rename(self.root / f"{name}.safetensors")
        elsewhere = [word for flag, name in (("--clip-l", "clip_l"), ("--clip-g", "clip_g"), ("--t5", "t5xxl"))
                     for word in (flag, str(self.root / f"{name}.safetensors"))]
        last = self.convert(parts, "last", "--layout", "diffusers", *elsewhere)
        before, after = tensors_of(first), tensors_of(last)
        projection = after.pop("text_encoder/text_projection.weight")
        before.pop("text_encoder/text_projection.weight")
        self.assertEqual(before, after)
        width = projection[1][0]
        values = struct.unpack(f"<{width * width}e", projection[2])
        self.assertEqual(list(values), [float(i % (width + 1) == 0) for i in range(width * width)])
        for part in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
            config = json.loads((first / part / "config.json").read_text())
            told = json.loads((last / part / "config.json").read_text())
            config.pop("torch_dtype", None), told.pop("torch_dtype", None)
            self.assertEqual(config, told)

    def test_a_type_is_changed_only_when_asked(self):
        first = self.synth("first", "--dtype", "f32")
        half = tensors_of(self.convert(first, "half.safetensors", "--layout", "original", "--dtype", "f16"))
        self.assertEqual({tensor[0] for tensor in half.values()}, {"F16"})
        name = "transformer/pos_embed.proj.bias"
        before = struct.unpack("<192f", tensors_of(first)[name][2])
        after = struct.unpack("<192e", half["model.diffusion_model.x_embedder.proj.bias"][2])
        self.assertEqual(list(after), [struct.unpack("<e", struct.pack("<e", value))[0] for value in before])

    def test_without_t5_a_folder_says_so(self):
        first = self.synth("first")
        shutil.rmtree(first / "text_encoder_3")
        index = json.loads((first / "model_index.json").read_text())
        index["text_encoder_3"] = index["tokenizer_3"] = [None, None]
        (first / "model_index.json").write_text(json.dumps(index))
        single = self.convert(first, "single.safetensors", "--layout", "original")
        last = self.convert(single, "last", "--layout", "diffusers", "--tokenizers", str(first))
        self.assertEqual(json.loads((last / "model_index.json").read_text())["text_encoder_3"], [None, None])
        self.assertFalse((last / "tokenizer_3").exists())

    def test_what_cannot_be_converted_is_named_in_one_line(self):
        first = self.synth("first")
        alone = self.convert(first, "alone.safetensors", "--layout", "original", "--without-text-encoders")
        whole = self.convert(first, "whole.safetensors", "--layout", "original")
        stranger = self.root / "stranger.safetensors"
        stranger.write_bytes(join_safetensors({"double_blocks.0.weight": {"dtype": "F32", "shape": [1],
                                                                          "data_offsets": [0, 4]}}, b"1234"))
        for arguments, words in ((("--model", str(alone), "--layout", "diffusers"), ("--clip-l", "CLIP-L")),
                                 (("--model", str(whole), "--layout", "diffusers"), ("--tokenizers",)),
                                 (("--model", str(stranger), "--layout", "diffusers"),
                                  ("stranger.safetensors", "double_blocks.0.weight")),
                                 (("--model", str(self.root / "none"), "--layout", "original"), ("none",)),
                                 (("--model", str(first), "--layout", "comfyui", "--dtype", "fp8"),
                                  ("octavo quantize",))):
            done = run("checkpoint", "convert", *arguments, "--out", str(self.root / "out"))
            self.assertEqual(done.returncode, 1, arguments)
            for word in words:
                self.assertIn(word, done.stderr)
            self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
            self.assertFalse((self.root / "out").exists())


class Quantize(Folder):
    def test_scaled_fp8_is_named_by_inspect_widens_again_and_is_refused_twice(self):
        first = self.synth("first", *SMALL)
        for form, scale in (("new", "weight_scale"), ("old", "scale_weight")):
            with self.subTest(form=form):
                file = self.root / f"{form}.safetensors"
                done = run("quantize", "--model", str(first), "--layout", "comfyui", "--scaled", form, "--out", str(file))
                self.assertEqual(done.returncode, 0, done.stderr)
                # Large has 384 linear layers by the same count: 10 a block, 7 in the last, 7 outside; 2 more for each
                # second attention. T5: 7 a layer.
                self.assertIn(f"{10 * 2 + 7 + 7 + 2 + 7 * 2} weights in scaled FP8", done.stdout)
                report = run("inspect", str(file)).stdout
                self.assertEqual(report.count("scaled FP8 (ComfyUI)"), 2, report)
                layer = "model.diffusion_model.joint_blocks.0.x_block.mlp.fc1"
                stored = tensors_of(file)
                self.assertEqual(stored[f"{layer}.weight"][0], "F8_E4M3")
                dequant_scale = struct.unpack("<f", stored[f"{layer}.{scale}"][2])[0]

                again = run("quantize", "--model", str(file), "--out", str(self.root / "again.safetensors"))
                self.assertEqual(again.returncode, 1)
                self.assertIn("is quantised already", again.stderr)
                moved = run("checkpoint", "convert", "--model", str(file), "--layout", "original", "--out",
                            str(self.root / "moved.safetensors"))
                self.assertEqual(moved.returncode, 1)
                self.assertIn("--dtype", moved.stderr)

                wide = run("checkpoint", "convert", "--model", str(file), "--layout", "original", "--dtype", "f32",
                           "--out", str(self.root / f"{form}-wide.safetensors"))
                self.assertEqual(wide.returncode, 0, wide.stderr)
                data = tensors_of(self.root / f"{form}-wide.safetensors")[f"{layer}.weight"][2]
                values = struct.unpack(f"<{len(data) // 4}f", data)
                self.assertAlmostEqual(max(map(abs, values)) / (448 * dequant_scale), 1, places=5)
                before = tensors_of(first)["transformer/transformer_blocks.0.ff.net.0.proj.weight"][2]
                exact = [struct.unpack("<f", b"\0\0" + before[i:i + 2])[0] for i in range(0, len(before), 2)]
                error = sum((a - b) ** 2 for a, b in zip(exact, values)) / sum(a ** 2 for a in exact)
                self.assertLess(error, 10 ** -3)  # E4M3 of bell-shaped values: 31 dB
        self.assertEqual(len([path for path in self.root.iterdir() if ".partial" in path.name]), 0)

    def test_other_forms_are_refused(self):
        first = self.synth("first")
        for arguments, word in ((("--layout", "original"), "--layout"), (("--scaled", "new"), "--scaled"),
                                (("--layout", "comfyui", "--scaled", "newest"), "--scaled"),
                                (("--layout", "comfyui", "--weights", "block"), "--layout")):
            done = run("quantize", "--model", str(first), *arguments, "--out", str(self.root / "out"))
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr)


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
