#!/usr/bin/env python3
"""`octavo quantize` with calibration: static scales, smoothing, split channels, interruption and resuming, prompt
files."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from octavo_process import MODEL, OCTAVO, read_png, run

ENVIRONMENT = dict(os.environ, OCTAVO_LOG="info")
PROMPTS = "a red apple\n\n  two cats in the snow\na ship\n"


class Calibration(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.addCleanup(self.folder.cleanup)
        (self.root / "prompts.txt").write_text(PROMPTS)

    def arguments(self, out, *more):
        return ("quantize", "--model", str(MODEL), "--activations", "static", "--prompts",
                str(self.root / "prompts.txt"), "--steps", "2", "--out", str(self.root / out), *more)

    def quantise(self, out, *more):
        done = run(*self.arguments(out, *more), env=ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done

    def refused(self, *arguments):
        done = run(*arguments, env=ENVIRONMENT)
        self.assertEqual(done.returncode, 1, done.stderr)
        return done.stderr.strip().splitlines()[-1]

    def read(self, out, name="transformer/quantization.json"):
        return json.loads((self.root / out / name).read_text())

    def weights(self, out):
        return (self.root / out / "transformer/diffusion_pytorch_model.safetensors").read_bytes()

    def test_static_scales_come_with_their_provenance(self):
        self.quantise("out", "--seed", "3")
        report = self.read("out")
        calibration = report["calibration"]
        self.assertEqual([calibration[key] for key in ("prompts", "steps", "seed")], [3, 2, 3])
        layers = {layer["layer"]: layer for layer in report["layers"]}
        layer = layers["transformer_blocks.0.ff.net.2"]
        self.assertGreater(layer["static_amax"], 0)
        self.assertGreater(layer["output_error"], 0)
        self.assertIn("over the steps", layer["reason"])
        self.assertFalse(list(self.root.glob("*.calibration*")), "statistics stay only when asked for")

    def test_interrupted_and_resumed_is_bit_for_bit_the_same(self):
        prompts = "".join(f"a picture of {count} apples\n" for count in range(40))
        (self.root / "prompts.txt").write_text(prompts)
        self.quantise("whole")
        statistics = self.root / "kept.safetensors"
        process = subprocess.Popen([OCTAVO, *self.arguments("out", "--calibration", str(statistics))],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
        while not statistics.exists() and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        error = process.communicate()[1]
        self.assertEqual(process.returncode, 1, error)
        self.assertRegex(error, r"calibration stopped after \d+ of 40 prompts; the same command goes on from there")
        self.assertFalse((self.root / "out").exists())
        done = self.quantise("out", "--calibration", str(statistics))
        self.assertIn("of 40 prompts are in", done.stderr + done.stdout)
        self.assertEqual(self.weights("out"), self.weights("whole"))
        self.assertTrue(statistics.exists())
        # Kept statistics serve other recipes without a run.
        self.quantise("other", "--calibration", str(statistics), "--smooth", "0.5")

    def test_statistics_of_another_calibration_are_refused(self):
        statistics = str(self.root / "kept.safetensors")
        self.quantise("out", "--calibration", statistics)
        self.assertIn("holds a calibration with seed 0 instead of 7: delete it",
                      self.refused(*self.arguments("other", "--calibration", statistics, "--seed", "7")))

    def test_statistics_of_another_model_are_refused(self):
        model = self.root / "model"
        shutil.copytree(MODEL, model)
        statistics = str(self.root / "kept.safetensors")
        self.quantise("out", "--calibration", statistics)
        weights = next((model / "transformer").glob("*.safetensors"))
        weights.chmod(0o644)
        data = bytearray(weights.read_bytes())
        data[-2] ^= 1  # the last bit of the last value
        weights.write_bytes(data)
        arguments = list(self.arguments("other", "--calibration", statistics))
        arguments[arguments.index("--model") + 1] = str(model)
        self.assertIn("kept.safetensors: holds a calibration with another model", self.refused(*arguments))

    def test_a_policys_static_rule_calibrates_or_is_refused_by_its_layer(self):
        policy = self.root / "policy.json"

        def write(pattern):
            rules = [{"pattern": "transformer_blocks.*.ff.net.*", "quantise": True},
                     {"pattern": pattern, "quantise": True, "activations": "static"}]
            policy.write_text(json.dumps({"rules": rules}))

        arguments = ("--model", str(MODEL), "--policy", str(policy), "--out", str(self.root / "out"))
        write("proj_out")
        self.assertIn("proj_out: cannot have static activations", self.refused("quantize", *arguments))
        write("transformer_blocks.1.ff.net.2")
        prompts = ("--prompts", str(self.root / "prompts.txt"), "--steps", "1")
        done = run("quantize", *arguments, *prompts, env=ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        layers = {layer["layer"]: layer for layer in self.read("out")["layers"]}
        self.assertGreater(layers["transformer_blocks.1.ff.net.2"]["static_amax"], 0)

    def test_prompt_files(self):
        (self.root / "prompts.txt").write_text("\n \n")
        self.assertIn("--prompts", self.refused(*self.arguments("out")))
        (self.root / "prompts.txt").write_text("one\n")
        done = self.quantise("out")
        self.assertIn("calibration on one prompt", done.stderr + done.stdout)

    def test_smoothing_and_splitting_of_planted_outliers_are_in_the_folder(self):
        run("checkpoint", "synth", "--family", "tiny", "--outliers", "2", "--out", str(self.root / "model"))
        done = run("quantize", "--model", str(self.root / "model"), "--format", "int8", "--prompts",
                   str(self.root / "prompts.txt"), "--steps", "1", "--outliers", "4", "--explain", "--out",
                   str(self.root / "out"))
        self.assertEqual(done.returncode, 0, done.stderr)
        split = [layer for layer in self.read("out")["layers"] if layer.get("outliers")]
        self.assertGreater(len(split), 20)
        self.assertIn("splitting of 2 channels (+", done.stdout)

    def test_planted_outliers_leave_the_picture_alone(self):
        planted = str(self.root / "planted")
        done = run("checkpoint", "plant-outliers", "--model", str(MODEL), "--factor", "4096", "--out", planted)
        self.assertEqual(done.returncode, 0, done.stderr)
        pictures = []
        for model in (str(MODEL), planted):
            out = self.root / "picture.png"
            done = run("generate", "--model", model, "--prompt", "a red fox", "--steps", "3", "--seed", "1", "--width",
                       "128", "--height", "128", "--dtype", "f32", "--out", str(out))
            self.assertEqual(done.returncode, 0, done.stderr)
            pictures.append([value for row in read_png(out.read_bytes())[2] for value in row])
        self.assertLessEqual(max(abs(a - b) for a, b in zip(*pictures)), 1)
        self.assertIn("--factor: must be from 4", self.refused("checkpoint", "plant-outliers", "--model", str(MODEL),
                                                               "--factor", "2", "--out", str(self.root / "no")))

    def test_planted_outliers_break_one_scale_a_tensor_and_neither_smoothing_nor_the_default(self):
        planted = str(self.root / "planted")
        run("checkpoint", "plant-outliers", "--model", str(MODEL), "--factor", "65536", "--out", planted)
        one_scale = ("--weights", "tensor", "--activations", "static", "--prompts", str(self.root / "prompts.txt"),
                     "--steps", "4")
        pictures = {}
        for name, flags in (("exact", None), ("one scale", one_scale), ("smoothed", one_scale + ("--smooth", "0.5")),
                            ("default", ())):
            model, out = planted, self.root / "picture.png"
            if flags is not None:
                model = str(self.root / name)
                done = run("quantize", "--model", planted, *flags, "--out", model)
                self.assertEqual(done.returncode, 0, done.stderr)
            done = run("generate", "--model", model, "--prompt", "a red fox in the snow", "--steps", "8", "--seed", "1",
                       "--guidance", "4", "--width", "128", "--height", "128", "--out", str(out))
            self.assertEqual(done.returncode, 0, done.stderr)
            pictures[name] = [value for row in read_png(out.read_bytes())[2] for value in row]
        errors = {name: sum((a - b) ** 2 for a, b in zip(values, pictures["exact"])) / len(values)
                  for name, values in pictures.items()}
        self.assertGreater(errors["one scale"], 10 * errors["smoothed"], errors)
        self.assertGreater(errors["one scale"], 5 * errors["default"], errors)

    def test_auto_policy_buys_back_what_costs_most(self):
        model = str(self.root / "model")
        run("checkpoint", "synth", "--family", "medium", "--blocks", "2", "--heads", "1", "--width-of-t5", "128",
            "--width-of-vae", "32", "--out", model)
        arguments = ["quantize", "--model", model, "--policy", "auto", "--prompts", str(self.root / "prompts.txt"),
                     "--steps", "1", "--seed", "1", "--out", str(self.root / "out")]
        # A default picture of Medium has 1024 pixels a side: too many for a test.
        config = self.root / "model/transformer/config.json"
        config.write_text(config.read_text().replace('"sample_size": 128', '"sample_size": 16'))
        self.assertIn("--budget: 'much' is neither", self.refused(*arguments, "--budget", "much"))
        done = run(*arguments, "--budget", "10%", "--explain", env=ENVIRONMENT)
        self.assertEqual(done.returncode, 0, done.stderr)
        report = self.read("out")
        layers = report["layers"]
        bought = [layer for layer in layers if layer["reason"].startswith("bought back for ")]
        self.assertTrue(bought)
        self.assertTrue(all(not layer["quantised"] and layer["velocity_error"] > 0 for layer in bought))
        self.assertEqual(report["recipe"]["policy"], "auto")
        # rank, velocity's dB, output's dB, bytes, ...
        rows = [line.split() for line in done.stdout.splitlines()
                if re.match(r"\s*\d+\s+-?\d+\.\d\s+-?\d+\.\d\s+\d+\s", line)]
        self.assertGreater(len(rows), 4)
        errors_a_byte = [10 ** (-float(row[1]) / 10) / int(row[3]) for row in rows]
        for before, after in zip(errors_a_byte, errors_a_byte[1:]):
            self.assertLess(after, before * 1.03)  # the table rounds to 0.1 dB
        self.assertLess(errors_a_byte[-1], errors_a_byte[0])
        self.assertEqual([path.name for path in self.root.glob("out*")], ["out"], "nothing stays beside it")
        self.assertIn("--budget: is for --policy auto",
                      self.refused("quantize", "--model", model, "--budget", "5%", "--out", str(self.root / "no")))

    def test_impossible_flags_are_named(self):
        self.assertIn("--smooth: must be from 0 to 1", self.refused(*self.arguments("out", "--smooth", "2")))
        self.assertIn("--outliers: must be from 0 to 256", self.refused(*self.arguments("out", "--outliers", "-1")))
        self.assertIn("--steps", self.refused("quantize", "--model", str(MODEL), "--steps", "100000",
                                             "--out", str(self.root / "out")))
        self.assertIn("--layout: comfyui", self.refused(*self.arguments("out", "--layout", "comfyui")))


if __name__ == "__main__":
    unittest.main()
