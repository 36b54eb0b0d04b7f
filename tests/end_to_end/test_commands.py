#!/usr/bin/env python3
"""The commands as a user runs them, on the embedded model: good calls, then hostile ones."""
import tempfile
import unittest
from pathlib import Path

from octavo_process import MODEL, BrokenModel, join_safetensors, read_png, run, split_safetensors

FAST = ["--steps", "2", "--width", "128", "--height", "128"]


class Generate(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def generate(self, *arguments, out="picture.png"):
        return run("generate", "--prompt", "a red apple", *FAST, *arguments, "--out", str(self.folder / out))

    def test_writes_a_png_with_its_parameters(self):
        done = self.generate("--seed", "7", "--negative", "a cat")
        self.assertEqual(done.returncode, 0, done.stderr)
        width, height, rows, texts = read_png((self.folder / "picture.png").read_bytes())
        self.assertEqual((width, height), (128, 128))
        self.assertGreater(len(set(rows)), 1)
        for part in ("a red apple", "Negative prompt: a cat", "Steps: 2", "Seed: 7", "Size: 128x128"):
            self.assertIn(part, texts["parameters"])

    def test_seed_decides_the_picture(self):
        for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
            self.assertEqual(self.generate("--seed", seed, out=name).returncode, 0)
        pixels = {name: read_png((self.folder / name).read_bytes())[2] for name in ("a.png", "b.png", "c.png")}
        self.assertEqual(pixels["a.png"], pixels["b.png"])
        self.assertNotEqual(pixels["a.png"], pixels["c.png"])

    def test_a_batch_holds_the_single_pictures(self):
        self.assertEqual(self.generate("--seed", "5", "--batch", "2", out="batch.png").returncode, 0)
        self.assertEqual(self.generate("--seed", "6", out="single.png").returncode, 0)
        written = sorted(path.name for path in self.folder.glob("batch*.png"))
        self.assertEqual(len(written), 2, written)
        second = read_png((self.folder / written[1]).read_bytes())[2]
        self.assertEqual(second, read_png((self.folder / "single.png").read_bytes())[2])

    def test_threads_do_not_change_the_picture(self):
        self.assertEqual(self.generate("--seed", "3", "--threads", "1", out="one.png").returncode, 0)
        self.assertEqual(self.generate("--seed", "3", "--threads", "2", out="two.png").returncode, 0)
        one, two = (read_png((self.folder / name).read_bytes())[2] for name in ("one.png", "two.png"))
        self.assertEqual(one, two)

    def test_refuses_what_it_cannot_draw_and_names_the_flag(self):
        for flag, value, word in (("--width", "0", "width"), ("--width", "7", "width"), ("--width", "-16", "width"),
                                  ("--height", "1000000000", "height"), ("--steps", "0", "steps"),
                                  ("--steps", "many", "steps"), ("--guidance", "nan", "guidance"),
                                  ("--batch", "0", "batch"), ("--sampler", "nope", "sampler"),
                                  ("--schedule", "nope", "schedule"),
                                  ("--eta", "2", "eta"), ("--shift", "0", "shift"), ("--noise", "dice", "noise"),
                                  ("--subseed-strength", "-1", "subseed"),
                                  ("--precision", "f8", "precision"), ("--dtype", "f8", "precision"), ("--t5-length", "100000", "t5"),
                                  ("--clip-skip", "99", "clip-skip"), ("--prompt-syntax", "latex", "prompt-syntax"),
                                  ("--kernel", "attention=nope", "nope"), ("--threads", "-3", "threads"),
                                  ("--device", "gpu", "device"), ("--device", "cuda:-1", "device"),
                                  ("--force-arch", "70", "force-arch")):
            with self.subTest(flag=flag, value=value):
                done = run("generate", "--prompt", "a cat", flag, value, "--out", str(self.folder / "no.png"))
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(word, done.stderr.lower())
                self.assertFalse((self.folder / "no.png").exists())

    def test_lists_what_device_can_name(self):
        done = run("devices")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        self.assertTrue(lines[0].startswith("cpu "), lines)
        self.assertTrue(lines[1].startswith(("cuda    none: ", "cuda:0 ")), lines)

    def test_refuses_text_that_is_not_utf8(self):
        done = run("generate", "--prompt", b"caf\xe9", "--out", str(self.folder / "no.png"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("UTF-8", done.stderr)

    def test_names_the_place_it_cannot_write(self):
        done = run("generate", "--prompt", "a cat", *FAST, "--out", str(self.folder / "missing" / "picture.png"))
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("missing", done.stderr)

    def test_a_drawn_picture_is_drawn_over(self):
        first = self.folder / "first.png"
        self.assertEqual(run("generate", "--prompt", "a cat", *FAST, "--out", str(first)).returncode, 0)
        second = self.folder / "second.png"
        done = run("generate", "--prompt", "a dog", *FAST, "--init", str(first), "--strength", "0.5", "--mask",
                   str(first), "--mask-blur", "2", "--only-masked", "--padding", "8", "--out", str(second))
        if "decoder only" in done.stderr:
            self.skipTest("this model has no encoder")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(b"Denoising strength: 0.5, Mask blur: 2, Inpaint area: Only masked", second.read_bytes())

    def test_pictures_that_cannot_be_input_are_named_with_their_flag(self):
        bad = self.folder / "bad.png"
        bad.write_bytes(b"not a picture")
        for flags, word in ((("--init", str(bad)), "--init"), (("--init", "/nonexistent.png"), "/nonexistent.png"),
                            (("--mask", str(bad)), "--init"), (("--strength", "0.5"), "--init"),
                            (("--resize-mode", "bend"), "--resize-mode"),
                            (("--masked-content", "gold"), "--masked-content")):
            with self.subTest(flags=flags):
                done = run("generate", "--prompt", "a cat", *FAST, *flags, "--out", str(self.folder / "no.png"))
                self.assertEqual(done.returncode, 1)
                self.assertIn(word, done.stderr)

    def test_help_lists_the_flags(self):
        done = run("generate", "--help")
        self.assertEqual(done.returncode, 0)
        for flag in ("--prompt", "--negative", "--seed", "--steps", "--guidance", "--width", "--height", "--batch",
                     "--sampler", "--t5-length", "--prompt-2", "--prompt-3", "--negative-2", "--negative-3",
                     "--prompt-syntax", "--clip-skip", "--model", "--out", "--precision", "--dtype", "--init", "--mask",
                     "--strength", "--mask-blur", "--only-masked", "--padding", "--resize-mode", "--vae-memory", "--schedule", "--shift",
                     "--eta", "--s-noise", "--noise", "--subseed", "--subseed-strength"):
            self.assertIn(flag, done.stdout)
        for name in ("dpmpp_2m_sde", "UniPC", "kl_optimal"):  # from the tables
            self.assertIn(name, done.stdout)


def change_header(change):
    def apply(data: bytes) -> bytes:
        header, tensors = split_safetensors(data)
        change(header)
        return join_safetensors(header, tensors)
    return apply


def first_tensor(header: dict) -> str:
    return next(name for name in header if name != "__metadata__")


def rename(header):
    name = first_tensor(header)
    header["renamed.weight"] = header.pop(name)


def wrong_dtype(header):
    header[first_tensor(header)]["dtype"] = "I16"


def wrong_shape(header):
    entry = next(e for n, e in header.items() if n != "__metadata__" and len(e["shape"]) == 2)
    entry["shape"] = entry["shape"][::-1] if entry["shape"][0] != entry["shape"][1] else [
        entry["shape"][0] // 2, entry["shape"][1] * 2]


def overlap(header):
    names = [n for n in header if n != "__metadata__"]
    header[names[1]]["data_offsets"] = header[names[0]]["data_offsets"]


def with_nan(data: bytes) -> bytes:
    header, tensors = split_safetensors(data)
    entry = header[first_tensor(header)]
    begin = entry["data_offsets"][0]
    tensors = bytearray(tensors)
    tensors[begin:begin + 2] = b"\xff\x7f"  # a NaN in both 16-bit formats
    return join_safetensors(header, bytes(tensors))


class BadCheckpoints(unittest.TestCase):
    CASES = {
        "truncated": lambda data: data[:len(data) // 2],
        "empty": lambda data: b"",
        "padded": lambda data: data + b"\0" * 64,
        "oversized header": lambda data: b"\xff" * 7 + b"\x7f" + data[8:],
        "html page": lambda data: b"<!DOCTYPE html><html>404</html>",
        "lfs pointer": lambda data: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
        "overlapping": change_header(overlap),
        "missing and unused names": change_header(rename),
        "wrong dtype": change_header(wrong_dtype),
        "wrong shape": change_header(wrong_shape),
        "NaN weights": with_nan,
    }

    def test_each_is_named_by_generate_and_inspect(self):
        for part in ("transformer", "vae"):
            for name, change in self.CASES.items():
                with self.subTest(part=part, case=name), BrokenModel(part, change) as model:
                    drawn = run("generate", "--prompt", "a cat", *FAST, "--model", str(model), "--out",
                                str(model / "no.png"))
                    self.assertEqual(drawn.returncode, 1, drawn.stderr)
                    self.assertIn(part, drawn.stderr)
                    self.assertFalse((model / "no.png").exists())
                    seen = run("inspect", str(model))
                    self.assertNotEqual(seen.returncode, 0, name)
                    self.assertIn(part, seen.stdout + seen.stderr)

    def test_missing_things_are_named(self):
        missing = run("generate", "--prompt", "a cat", "--model", "/nonexistent/model")
        self.assertEqual(missing.returncode, 1)
        self.assertIn("/nonexistent/model", missing.stderr)
        with tempfile.TemporaryDirectory() as empty:
            done = run("generate", "--prompt", "a cat", "--model", empty)
            self.assertEqual(done.returncode, 1)
            self.assertIn("model_index.json", done.stderr)


class Inspect(unittest.TestCase):
    def test_says_what_the_embedded_model_is(self):
        done = run("inspect", str(MODEL))
        self.assertEqual(done.returncode, 0, done.stderr)
        for word in ("transformer", "vae", "text_encoder_3", "SD3Transformer2DModel"):
            self.assertIn(word, done.stdout)

    def test_names_a_path_that_does_not_exist(self):
        done = run("inspect", "/nonexistent")
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("/nonexistent", done.stderr)


class Bench(unittest.TestCase):
    def test_prints_stages_and_writes_json(self):
        import json
        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.json"
            done = run("bench", "--suite", "e2e", *FAST, "--repeat", "1", "--json", str(figures))
            self.assertEqual(done.returncode, 0, done.stderr)
            for word in ("denoise", "decode", "encode_text", "total"):
                self.assertIn(word, done.stdout)
            stages = json.loads(figures.read_text())["e2e"]["stages"]
            self.assertGreater(stages["total"]["median_seconds"], stages["denoise"]["median_seconds"])


    def test_a_step_op_by_op_of_a_model_that_is_made_up(self):
        import json
        with tempfile.TemporaryDirectory() as folder:
            figures = Path(folder) / "figures.json"
            done = run("bench", "--suite", "step", "--synthetic", "tiny", *FAST, "--device", "cpu", "--json", str(figures))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("random weights", done.stderr)
            step = json.loads(figures.read_text())["step"]
            attention = [row for row in step["step"] if row["op"] == "attention"]
            self.assertEqual(sum(row["calls"] for row in attention), 6)  # octavo-tiny's blocks
            self.assertTrue(any(row["op"] == "conv2d" for row in step["decode"]))
            self.assertTrue(all(row["ms"] > 0 for row in step["step"]))

    def test_several_pictures_and_what_cannot_be_measured(self):
        done = run("bench", "--suite", "e2e", *FAST, "--repeat", "1", "--batch", "2")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("2 pictures", done.stdout)
        for arguments, word in ((("--suite", "speed"), "--suite"), (("--suite", "vram", "--device", "cpu"), "vram"),
                                (("--synthetic", "huge"), "--synthetic"),
                                (("--synthetic", "tiny", "--model", "x"), "--synthetic")):
            with self.subTest(arguments=arguments):
                done = run("bench", *arguments, *FAST)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(word, done.stderr)


class TopLevel(unittest.TestCase):
    def test_help_version_and_unknown_commands(self):
        self.assertIn("generate", run("--help").stdout)
        self.assertRegex(run("--version").stdout, r"\d+\.\d+\.\d+")
        self.assertNotEqual(run("paint").returncode, 0)
        self.assertNotEqual(run().returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
