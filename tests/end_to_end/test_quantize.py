#!/usr/bin/env python3
"""`octavo quantize` to a diffusers folder: what it writes, what it explains, what it refuses, and that it is all or
nothing."""
import json
import math
import re
import resource
import signal
import struct
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from octavo_process import MODEL, OCTAVO, bf16, join_safetensors, run, split_safetensors, tensors_of

SMALL = ("--family", "medium", "--blocks", "3", "--heads", "2", "--width-of-t5", "128", "--width-of-vae", "32")
LAYER = "transformer_blocks.0.ff.net.0.proj"


def decode(code: int, mantissa: int, bias: int) -> float:
    sign, exponent, fraction = code >> 7, (code & 127) >> mantissa, code & ((1 << mantissa) - 1)
    unit = 2.0 ** -mantissa
    value = fraction * unit * 2.0 ** (1 - bias) if exponent == 0 else (1 + fraction * unit) * 2.0 ** (exponent - bias)
    return -value if sign else value


CODES = {"F8_E4M3": [decode(code, 3, 7) for code in range(256)],
         "F8_E5M2": [decode(code, 2, 15) for code in range(256)],
         "I8": [code - 256 if code > 127 else code for code in range(256)]}


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)

    def done(self, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def synth(self, name="model", *arguments):
        self.done("checkpoint", "synth", *SMALL, *arguments, "--out", str(self.root / name))
        return self.root / name

    def refused(self, *arguments):
        done = run(*arguments)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        return done.stderr


def dequantised(tensors, layer):
    """The values of a layer's codes, whatever their scales share."""
    dtype, (rows, inner), codes = tensors[f"{layer}.weight"]
    _, shape, scales = tensors[f"{layer}.weight_scale"]
    scales = struct.unpack(f"<{len(scales) // 4}f", scales)
    blocks = shape[1] if len(shape) == 2 else 1
    table = CODES[dtype]
    return [table[codes[row * inner + column]] *
            (scales[0] if shape == [1] else scales[row * blocks + (column // 128 if blocks > 1 else 0)])
            for row in range(rows) for column in range(inner)]


class Written(Folder):
    def test_every_form_comes_back_within_its_rounding(self):
        model = self.synth()
        before = bf16(tensors_of(model / "transformer")[0][f"{LAYER}.weight"][2])
        power = sum(value * value for value in before)
        # Signal over noise of bell-shaped values: 31 dB in E4M3, 25 dB in E5M2; int8 has a fixed step, 4.5 sigma / 127.
        for form, least in (("e4m3", 30), ("e5m2", 24), ("int8", 35)):
            for weights in ("channel", "tensor", "block"):
                with self.subTest(form=form, weights=weights):
                    out = self.root / f"{form}-{weights}"
                    self.done("quantize", "--model", str(model), "--out", str(out), "--format", form, "--weights",
                              weights)
                    after = dequantised(tensors_of(out / "transformer")[0], LAYER)
                    error = sum((a - b) ** 2 for a, b in zip(before, after))
                    self.assertGreater(10 * math.log10(power / error), least)

    def test_only_the_products_of_blocks_and_t5_change_and_all_files_say_how(self):
        model, out = self.synth(), self.root / "out"
        output = self.done("quantize", "--model", str(model), "--out", str(out))
        for part in ("vae", "text_encoder", "text_encoder_2"):
            self.assertEqual(tensors_of(model / part)[0], tensors_of(out / part)[0])
        before, _ = tensors_of(model / "transformer")
        after, metadata = tensors_of(out / "transformer")
        scales = {name for name in after if name.endswith(".weight_scale")}
        self.assertEqual(set(after) - scales, set(before))
        for name, tensor in before.items():
            layer = name.removesuffix(".weight")
            if f"{layer}.weight_scale" not in scales:
                self.assertEqual(tensor, after[name])
                continue
            kind = re.fullmatch(r"transformer_blocks\.\d+\.(attn|attn2|ff|ff_context|norm1|norm1_context)\..+", layer)
            self.assertTrue(kind, layer)
            modulation = kind[1].startswith("norm1")
            self.assertEqual(after[name][:2], ("I8" if modulation else "F8_E4M3", tensor[1]))
        told = json.loads(metadata["octavo.quantization"])
        self.assertEqual(told["activation_exceptions"],
                         {f"transformer_blocks.{i}.{name}.linear": "none" for i in range(3)
                          for name in ("norm1", "norm1_context")})
        self.assertEqual(told["format_version"], 1)
        self.assertRegex(told["source"]["hash"], "^[0-9a-f]{64}$")
        self.assertEqual(told["source"]["model"], "model")
        self.assertIsNone(told["calibration"])
        report = json.loads((out / "transformer/quantization.json").read_text())
        self.assertEqual({key: report[key] for key in told}, told)
        self.assertEqual(sum(layer["quantised"] for layer in report["layers"]), len(scales))
        _, t5 = tensors_of(out / "text_encoder_3")
        self.assertEqual(json.loads(t5["octavo.quantization"])["activations_default"], "none")
        self.assertNotIn("octavo.quantization", tensors_of(out / "vae")[1])
        self.assertRegex(output, r"transformer +[0-9.]+ MB +[0-9.]+ MB +\d+ %")
        self.assertRegex(output, r"total +[0-9.]+ MB +[0-9.]+ MB +\d+ %")

    def test_the_same_model_gives_the_same_bytes_from_every_layout(self):
        model = self.synth()
        single = self.root / "single.safetensors"
        self.done("checkpoint", "convert", "--model", str(model), "--layout", "original", "--out", str(single))
        self.done("quantize", "--model", str(model), "--out", str(self.root / "a"))
        self.done("quantize", "--model", str(single), "--tokenizers", str(model), "--out", str(self.root / "b"))
        for part in ("transformer", "text_encoder_3"):
            one, told = tensors_of(self.root / "a" / part)
            other, also_told = tensors_of(self.root / "b" / part)
            self.assertEqual(one, other)
            told, also_told = json.loads(told["octavo.quantization"]), json.loads(also_told["octavo.quantization"])
            self.assertEqual(told["source"]["hash"], also_told["source"]["hash"])

    def test_t5_can_stay(self):
        model, out = self.synth(), self.root / "out"
        self.done("quantize", "--model", str(model), "--t5-precision", "keep", "--out", str(out))
        self.assertEqual(tensors_of(model / "text_encoder_3")[0], tensors_of(out / "text_encoder_3")[0])

    def test_zero_rows_and_denormals_are_no_trouble(self):
        model = self.synth("model", "--dtype", "f32")
        path = next((model / "transformer").glob("*.safetensors"))
        header, data = split_safetensors(path.read_bytes())
        begin, end = header[f"{LAYER}.weight"]["data_offsets"]
        inner = header[f"{LAYER}.weight"]["shape"][1]
        row = struct.pack("<f", 1e-42) * inner
        path.write_bytes(join_safetensors(header, data[:begin] + bytes(4 * inner) + row + data[begin + 8 * inner:]))
        for weights in ("channel", "tensor", "block"):
            out = self.root / weights
            self.done("quantize", "--model", str(model), "--weights", weights, "--out", str(out))
            values = dequantised(tensors_of(out / "transformer")[0], LAYER)
            self.assertEqual(values[:inner], [0.0] * inner)
            self.assertLess(max(map(abs, values[inner:2 * inner])), 1e-36)
            self.assertTrue(all(map(math.isfinite, values)))


def pixels_of(png: bytes) -> bytes:
    """Its compressed rows, without the text that names the model."""
    rows, at = b"", 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at:at + 4])
        if png[at + 4:at + 8] == b"IDAT":
            rows += png[at + 8:at + 8 + length]
        at += 12 + length
    return rows


class Drawn(Folder):
    def picture(self, name, *arguments):
        out = self.root / name
        done = run("generate", "--prompt", "two bikes", "--steps", "2", "--seed", "3", "--width", "128", "--height",
                   "128", *arguments, "--out", str(out))
        self.assertEqual(done.returncode, 0, done.stderr)
        return pixels_of(out.read_bytes()), done.stderr

    def test_quantising_at_load_draws_what_a_quantised_folder_draws(self):
        model, out = self.synth(), self.root / "quantised"
        self.done("quantize", "--model", str(model), "--t5-precision", "keep", "--out", str(out))
        at_load, log = self.picture("load.png", "--model", str(model), "--precision", "fp8")
        self.assertRegex(log, r"\d+ layers of the transformer quantised at load in \d+ ms: products E4M3, modulations int8")
        folder, log = self.picture("folder.png", "--model", str(out))
        self.assertRegex(log, r"w8a8 in \d+ layers, w8a16 in \d+, else")
        self.assertEqual(at_load, folder)
        plain, log = self.picture("plain.png", "--model", str(model))
        self.assertNotIn("w8a8", log)
        self.assertNotEqual(at_load, plain)
        weights_at_load, log = self.picture("w8a16.png", "--model", str(model), "--precision", "w8a16")
        self.assertRegex(log, r"w8a16 in \d+ layers, quantised at load")
        weights_of_folder, log = self.picture("w8a16f.png", "--model", str(out), "--precision", "w8a16")
        self.assertRegex(log, r"w8a16 in \d+ layers, else")
        self.assertEqual(weights_at_load, weights_of_folder)
        self.assertNotEqual(weights_at_load, at_load)

    def test_codes_widen_when_16_bits_are_asked_for(self):
        model, out = self.synth(), self.root / "quantised"
        self.done("quantize", "--model", str(model), "--out", str(out))
        by_new_name, log = self.picture("a.png", "--model", str(out), "--precision", "f32")
        self.assertNotIn("w8a", log)
        by_old_name, _ = self.picture("b.png", "--model", str(out), "--dtype", "f32")
        self.assertEqual(by_new_name, by_old_name)


class Loaded(Folder):
    def setUp(self):
        super().setUp()
        self.model, self.out = self.synth(), self.root / "out"
        self.done("quantize", "--model", str(self.model), "--out", str(self.out))

    def change(self, change):
        """Rewrites the transformer's file by change(header, metadata)."""
        (path,) = (self.out / "transformer").glob("*.safetensors")
        header, data = split_safetensors(path.read_bytes())
        change(header, header["__metadata__"])
        path.write_bytes(join_safetensors(header, data))

    def generate(self):
        return run("generate", "--model", str(self.out), "--prompt", "a red apple", "--steps", "1", "--seed", "1",
                   "--width", "128", "--height", "128", "--out", str(self.root / "picture.png"))

    def test_it_draws_and_inspect_says_what_it_is(self):
        done = self.generate()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout + done.stderr, "w8a8 in [0-9]+ layers")
        report = self.done("inspect", str(self.out))
        self.assertRegex(report, r"quantised: 43 layers in 8 bits, e4m3 weights, one scale a channel, .* from model")
        parts = {part["name"]: part for part in json.loads(self.done("inspect", "--json", str(self.out)))["parts"]}
        self.assertEqual(parts["transformer"]["quantization"]["layer_count"], 43)
        self.assertEqual(parts["transformer"]["quantization"]["recipe"]["format"], "e4m3")
        self.assertNotIn("quantization", parts["vae"])

    def test_half_of_a_layer_is_refused_by_name(self):
        def rename(header, _):
            header[f"{LAYER}.spare"] = header.pop(f"{LAYER}.weight_scale")

        self.change(rename)
        for done in (self.generate(), run("inspect", str(self.out))):
            self.assertNotEqual(done.returncode, 0)
            self.assertIn(f"{LAYER}.weight has no weight_scale", done.stdout + done.stderr)

    def test_a_file_of_a_newer_format_is_refused(self):
        def newer(_, metadata):
            metadata["octavo.quantization"] = metadata["octavo.quantization"].replace('"format_version":1',
                                                                                     '"format_version":7')

        self.change(newer)
        done = self.generate()
        self.assertEqual(done.returncode, 1)
        self.assertIn("format_version 7", done.stderr)

    def test_files_of_two_runs_are_refused(self):
        # The second half of a part whose first half is another quantisation's.
        self.done("quantize", "--model", str(self.model), "--weights", "tensor", "--out", str(self.root / "other"))
        (one,), (other,) = ((folder / "transformer").glob("*.safetensors") for folder in (self.out, self.root / "other"))
        stem, names = "diffusion_pytorch_model", {}
        for number, (path, take) in enumerate(((one, True), (other, False)), 1):
            header, data = split_safetensors(path.read_bytes())
            kept, tensors = {"__metadata__": header.pop("__metadata__")}, b""
            for name, entry in header.items():
                if name.startswith("transformer_blocks.0.") != take:
                    continue
                begin, end = entry["data_offsets"]
                kept[name] = {**entry, "data_offsets": [len(tensors), len(tensors) + end - begin]}
                tensors += data[begin:end]
                names[name] = f"{stem}-{number:05}-of-00002.safetensors"
            (self.root / f"{number}").write_bytes(join_safetensors(kept, tensors))
        one.unlink()
        for number in (1, 2):
            (self.root / f"{number}").rename(one.parent / f"{stem}-{number:05}-of-00002.safetensors")
        (one.parent / f"{stem}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
        for done in (self.generate(), run("inspect", str(self.out))):
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("comes from another quantisation than diffusion_pytorch_model-00001", done.stdout + done.stderr)

    def test_a_report_of_another_run_is_a_problem(self):
        self.done("quantize", "--model", str(self.model), "--weights", "tensor", "--out", str(self.root / "other"))
        (self.root / "other/transformer/quantization.json").replace(self.out / "transformer/quantization.json")
        done = run("inspect", str(self.out))
        self.assertEqual(done.returncode, 1)
        self.assertIn("quantization.json: is of another quantisation", done.stdout)


class Policy(Folder):
    def policy(self, rules):
        path = self.root / "policy.json"
        path.write_text(json.dumps({"rules": rules}))
        return str(path)

    def test_explain_names_every_layer_and_writes_nothing(self):
        model = self.synth()
        output = self.done("quantize", "--model", str(model), "--explain")
        self.assertRegex(output, r"transformer_blocks\.1\.attn\.to_q +e4m3 channel token +\S")
        self.assertRegex(output, r"transformer_blocks\.1\.norm1\.linear +int8 channel none +\S")
        self.assertRegex(output, r"context_embedder +16 bits +\S")
        layers = {name.removesuffix(".weight") for name, tensor in tensors_of(model / "transformer")[0].items()
                  if name.endswith(".weight") and len(tensor[1]) == 2}
        self.assertEqual({line.split()[0] for line in output.splitlines()[:-1]}, layers)
        self.assertEqual([path.name for path in self.root.iterdir()], ["model"])

    def test_the_last_rule_that_matches_wins(self):
        model, out = self.synth(), self.root / "out"
        rules = [{"pattern": "*", "quantise": False, "reason": "all stay"},
                 {"pattern": "transformer_blocks.*.ff.net.*", "quantise": True, "reason": "products of size"},
                 {"pattern": "transformer_blocks.1.*", "quantise": False, "reason": "the second block stays"}]
        output = self.done("quantize", "--model", str(model), "--policy", self.policy(rules), "--explain", "--out",
                           str(out))
        self.assertRegex(output, r"transformer_blocks\.1\.ff\.net\.2 +16 bits +the second block stays")
        tensors, metadata = tensors_of(out / "transformer")
        self.assertEqual({name for name, tensor in tensors.items() if tensor[0] == "F8_E4M3"},
                         {f"transformer_blocks.{i}.ff.net.{j}.weight" for i in (0, 2) for j in ("0.proj", "2")})
        self.assertEqual(json.loads(metadata["octavo.quantization"])["recipe"]["policy"], "policy.json")

    def test_a_rule_can_choose_the_form_of_its_layers(self):
        model, out = self.synth(), self.root / "out"
        rules = [{"pattern": "*", "quantise": False},
                 {"pattern": "transformer_blocks.*.ff.*", "quantise": True},
                 {"pattern": "*.norm1.linear", "quantise": True, "weights": "block", "activations": "none"},
                 {"pattern": "no.such.layer", "quantise": True}]
        done = run("quantize", "--model", str(model), "--policy", self.policy(rules), "--out", str(out))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("rules[3] matches no layer", done.stdout + done.stderr)
        tensors, metadata = tensors_of(out / "transformer")
        self.assertEqual(tensors["transformer_blocks.0.norm1.linear.weight_scale"][1], [128 * 9, 1])
        self.assertEqual(json.loads(metadata["octavo.quantization"])["activation_exceptions"],
                         {f"transformer_blocks.{i}.norm1.linear": "none" for i in range(3)})

    def test_a_rule_that_is_none_is_named(self):
        model = self.synth()
        good = {"pattern": "*", "quantise": True}
        for rules, word in (([good, {"pattern": "*"}], "rules[1]"), ([good, good, {"patern": "*"}], "rules[2]"),
                            ([{"pattern": "*", "quantise": False}], "--policy"), ("*", "rules")):
            self.assertIn(word, self.refused("quantize", "--model", str(model), "--policy", self.policy(rules),
                                             "--out", str(self.root / "out")))
        self.assertFalse((self.root / "out").exists())


class Explained(Folder):
    def test_auto_policy_explains_without_writing(self):
        prompts = self.root / "prompts.txt"
        prompts.write_text("a cat\n")
        before = sorted(self.root.iterdir())
        done = run("quantize", "--model", str(MODEL), "--policy", "auto", "--explain", "--prompts", str(prompts),
                   "--steps", "1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("bought back", done.stdout)
        self.assertEqual(sorted(self.root.iterdir()), before)


class Refused(Folder):
    def test_what_is_quantised_is_not_a_source(self):
        model, out = self.synth(), self.root / "out"
        self.done("quantize", "--model", str(model), "--out", str(out))
        for arguments in (("quantize",), ("checkpoint", "convert", "--layout", "original")):
            error = self.refused(*arguments, "--model", str(out), "--out", str(self.root / "again"))
            self.assertIn("is quantised already", error)
            self.assertIn("16-bit", error)
        file = self.root / "comfy.safetensors"
        self.done("quantize", "--model", str(model), "--layout", "comfyui", "--out", str(file))
        self.assertIn("is quantised already", self.refused("quantize", "--model", str(file), "--tokenizers",
                                                           str(model), "--out", str(self.root / "again")))
        self.assertFalse((self.root / "again").exists())

    def test_nan_and_infinity_are_named_by_tensor_and_place(self):
        for value in (math.nan, math.inf):
            for weights in ("channel", "tensor"):
                with self.subTest(value=value, weights=weights):
                    model = self.synth(f"{value}-{weights}", "--dtype", "f32")
                    path = next((model / "transformer").glob("*.safetensors"))
                    header, data = split_safetensors(path.read_bytes())
                    begin, _ = header[f"{LAYER}.weight"]["data_offsets"]
                    at = begin + 4 * (3 * header[f"{LAYER}.weight"]["shape"][1] + 5)
                    path.write_bytes(join_safetensors(header, data[:at] + struct.pack("<f", value) + data[at + 4:]))
                    error = self.refused("quantize", "--model", str(model), "--weights", weights, "--out",
                                         str(self.root / "out"))
                    self.assertIn(f"{LAYER}.weight: is {value} in row 3, column 5", error)
                    self.assertFalse((self.root / "out").exists())

    def test_flags_are_named(self):
        model = self.synth()
        for flag, word in (("--format", "fp4"), ("--weights", "row"), ("--activations", "channel"),
                           ("--activation-format", "int8"), ("--t5-precision", "int4"), ("--policy", "/no/file")):
            error = self.refused("quantize", "--model", str(model), flag, word, "--out", str(self.root / "out"))
            self.assertIn("/no/file" if flag == "--policy" else flag, error)
        self.assertIn("--out", self.refused("quantize", "--model", str(model)))
        (self.root / "out").write_text("mine")
        self.assertIn("exists already", self.refused("quantize", "--model", str(model), "--out",
                                                     str(self.root / "out")))
        self.assertEqual((self.root / "out").read_text(), "mine")


class Failures(Folder):
    def test_a_disk_that_fills_up_leaves_nothing(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

        model = self.synth()
        done = run("quantize", "--model", str(model), "--out", str(self.root / "out"), preexec_fn=limit)
        self.assertEqual(done.returncode, 1)
        self.assertIn("cannot be written: File too large", done.stderr)
        self.assertEqual([path.name for path in self.root.iterdir()], ["model"])

    def test_ctrl_c_leaves_nothing(self):
        model = self.root / "model"
        self.done("checkpoint", "synth", "--family", "medium", "--blocks", "4", "--heads", "24", "--width-of-t5",
                  "128", "--width-of-vae", "32", "--out", str(model))
        for wait_for in ("", "out.*.partial"):  # while reading, while writing
            process = subprocess.Popen([OCTAVO, "quantize", "--model", str(model), "--out", str(self.root / "out")],
                                       stderr=subprocess.PIPE, text=True)
            deadline = time.monotonic() + 60
            while wait_for and not list(self.root.glob(wait_for)) and process.poll() is None:
                self.assertLess(time.monotonic(), deadline)
            if not wait_for:
                # The signal is caught as soon as the model is being read: its files are mapped by then.
                maps = Path(f"/proc/{process.pid}/maps")
                while "safetensors" not in maps.read_text() and process.poll() is None:
                    self.assertLess(time.monotonic(), deadline)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=60)
            self.assertNotEqual(process.returncode, 0)
            if wait_for:
                self.assertIn("interrupted", stderr)
            self.assertEqual([path.name for path in self.root.iterdir()], ["model"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
