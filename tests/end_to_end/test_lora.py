#!/usr/bin/env python3
"""`octavo lora merge`: into 16 bits, straight into 8, and what it refuses."""
import json
import struct
import tempfile
import unittest
from pathlib import Path

from octavo_process import bf16, join_safetensors, run, tensors_of

SMALL = ("--family", "medium", "--blocks", "3", "--heads", "2", "--width-of-t5", "128", "--width-of-vae", "32")
WIDTH, RANK = 128, 2
LAYER = "transformer_blocks.1.attn.to_k"


def f32_file(path: Path, tensors: dict, metadata=None):
    """A safetensors file of f32 tensors: {name: (shape, values)}."""
    header, data = {"__metadata__": metadata} if metadata else {}, b""
    for name, (shape, values) in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    path.write_bytes(join_safetensors(header, data))
    return path


def pattern(count: int, scale: float):
    return [((i * 37) % 16 - 7.5) * scale for i in range(count)]


class Merge(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.root = Path(folder.name)
        self.addCleanup(folder.cleanup)
        self.model, self.out = self.root / "model", self.root / "out"
        self.assertEqual(run("checkpoint", "synth", *SMALL, "--out", str(self.model)).returncode, 0)
        self.down, self.up = pattern(RANK * WIDTH, 1 / 64), pattern(WIDTH * RANK, 1 / 64)

    def lora(self, name="lora.safetensors", module=f"transformer.{LAYER}", metadata=None, **more):
        return f32_file(self.root / name, {f"{module}.lora_A.weight": ([RANK, WIDTH], self.down),
                                           f"{module}.lora_B.weight": ([WIDTH, RANK], self.up), **more}, metadata)

    def merge(self, *arguments, model=None, out=None):
        return run("lora", "merge", "--model", str(model or self.model), *arguments, "--out", str(out or self.out))

    def merged(self, *arguments, **places):
        done = self.merge(*arguments, **places)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def refused(self, *arguments, **places):
        done = self.merge(*arguments, **places)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertFalse(Path(places.get("out", self.out)).exists())
        return done.stderr

    def expected(self, strength):
        """W + strength * up * down of the layer."""
        weight = bf16(tensors_of(self.model / "transformer")[0][f"{LAYER}.weight"][2])
        return [weight[row * WIDTH + column] +
                strength * sum(self.up[row * RANK + k] * self.down[k * WIDTH + column] for k in range(RANK))
                for row in range(WIDTH) for column in range(WIDTH)]

    def test_the_layer_is_the_sum_and_all_else_is_as_it_was(self):
        output = self.merged("--lora", f"{self.lora()}:0.5")
        self.assertIn("1 weights changed by 1 LoRA", output)
        before, _ = tensors_of(self.model / "transformer")
        after, metadata = tensors_of(self.out / "transformer")
        values = bf16(after[f"{LAYER}.weight"][2])
        for value, wanted in zip(values, self.expected(0.5)):
            self.assertLessEqual(abs(value - wanted), abs(wanted) / 256 + 1e-6)  # bf16: eight bits, rounded
        self.assertNotEqual(before.pop(f"{LAYER}.weight"), after.pop(f"{LAYER}.weight"))
        self.assertEqual(before, after)
        self.assertRegex(metadata["octavo.merged"], r"lora\.safetensors 0\.5 [0-9a-f]{64}")
        for part in ("vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
            self.assertEqual(tensors_of(self.model / part)[0], tensors_of(self.out / part)[0])
        self.assertEqual(run("inspect", str(self.out)).returncode, 0)

    def test_two_loras_add_up_and_the_default_strength_is_one(self):
        one, other = self.lora("a.safetensors"), self.lora("b:1.safetensors")
        self.merged("--lora", f"{one}:0.75", "--lora", f"{other}:0.25")
        self.merged("--lora", str(self.lora()), out=self.root / "once")
        self.assertEqual(tensors_of(self.out / "transformer")[0], tensors_of(self.root / "once/transformer")[0])

    def test_straight_into_8_bits_is_the_merge_in_f32_rounded_once(self):
        lora = self.lora()
        output = self.merged("--lora", f"{lora}:0.8", "--quantize", "--weights", "tensor")
        self.assertRegex(output, r"total +[0-9.]+ MB")
        tensors, metadata = tensors_of(self.out / "transformer")
        wanted = self.expected(0.8)
        (scale,) = struct.unpack("<f", tensors[f"{LAYER}.weight_scale"][2])
        self.assertAlmostEqual(scale * 448, max(map(abs, wanted)), delta=1e-6)
        told = json.loads(metadata["octavo.quantization"])
        self.assertRegex(told["source"]["loras"][0], r"^lora\.safetensors 0\.8 [0-9a-f]{64}$")
        self.assertEqual(told["recipe"]["weights"], "tensor")
        # The source is the model before the LoRA.
        done = run("quantize", "--model", str(self.model), "--out", str(self.root / "plain"))
        self.assertEqual(done.returncode, 0, done.stderr)
        plain = json.loads(tensors_of(self.root / "plain/transformer")[1]["octavo.quantization"])
        self.assertEqual(told["source"]["hash"], plain["source"]["hash"])

    def test_kohya_and_original_layouts_meet(self):
        qkv = f32_file(self.root / "kohya.safetensors", {
            "lora_unet_joint_blocks_1_x_block_attn_qkv.lora_down.weight": ([RANK, WIDTH], self.down),
            "lora_unet_joint_blocks_1_x_block_attn_qkv.lora_up.weight":
                ([3 * WIDTH, RANK], [0.0] * (WIDTH * RANK) + self.up + [0.0] * (WIDTH * RANK)),
            "lora_unet_joint_blocks_1_x_block_attn_qkv.alpha": ([], [1.0])})
        single = self.root / "single.safetensors"
        done = run("checkpoint", "convert", "--model", str(self.model), "--layout", "original", "--out", str(single))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.merged("--lora", str(qkv), "--tokenizers", str(self.model), model=single)
        self.merged("--lora", f"{self.lora()}:0.5", out=self.root / "peft")  # alpha 1 of rank 2 is a half
        self.assertEqual(tensors_of(self.out / "transformer")[0], tensors_of(self.root / "peft/transformer")[0])

    def test_into_8_bits_is_refused_with_what_to_do(self):
        lora = self.lora()
        for arguments, name in ((("--out", str(self.root / "fp8")), "fp8"),
                                (("--layout", "comfyui", "--out", str(self.root / "fp8.safetensors")),
                                 "fp8.safetensors")):
            done = run("quantize", "--model", str(self.model), *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
            error = self.refused("--lora", str(lora), "--tokenizers", str(self.model), model=self.root / name)
            self.assertIn("is quantised already", error)
            self.assertIn("--quantize", error)

    def test_of_another_model_and_unknown_keys_are_named(self):
        sdxl = self.lora(module="lora_unet_down_blocks_1_attentions_0_proj_in")
        self.assertIn("lora_unet_down_blocks_1_attentions_0_proj_in", self.refused("--lora", str(sdxl)))
        self.up = pattern(2 * WIDTH * RANK, 1 / 64)
        wide = f32_file(self.root / "wide.safetensors", {f"transformer.{LAYER}.lora_A.weight": ([RANK, WIDTH], self.down),
                                                         f"transformer.{LAYER}.lora_B.weight": ([256, RANK], self.up)})
        error = self.refused("--lora", str(wide))
        self.assertIn(f"transformer.{LAYER} is [256, 128]", error)
        self.up = pattern(WIDTH * RANK, 1 / 64)
        odd = self.lora("odd.safetensors", **{"transformer.odd.thing": ([1], [0.0])})
        self.assertIn("transformer.odd.thing", self.refused("--lora", str(odd)))
        dora = self.lora("dora.safetensors", **{f"transformer.{LAYER}.lora_magnitude_vector": ([WIDTH], [1.0] * WIDTH)})
        self.assertIn("DoRA", self.refused("--lora", str(dora)))

    def test_flags_are_named(self):
        lora = str(self.lora())
        for arguments, word in ((("--weights", "tensor"), "--quantize"), (("--dtype", "fp8"), "--quantize"),
                                (("--quantize", "--dtype", "bf16"), "--dtype"),
                                (("--quantize", "--activations", "static"), "calibration"),
                                (("--quantize", "--policy", "auto"), "calibration")):
            self.assertIn(word, self.refused("--lora", lora, *arguments))
        policy = self.root / "policy.json"
        policy.write_text('{"rules": [{"pattern": "transformer_blocks.0.ff.net.2", "quantise": true, '
                          '"activations": "static"}]}')
        self.assertIn("transformer_blocks.0.ff.net.2: has static activations",
                      self.refused("--lora", lora, "--quantize", "--policy", str(policy)))
        self.assertIn("none.safetensors", self.refused("--lora", str(self.root / "none.safetensors:0.5")))
        self.assertIn("not a finite number", self.refused("--lora", f"{lora}:inf"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
