#!/usr/bin/env python3
"""`octavo inspect`: what it says of good checkpoints, and that it names what is wrong with broken ones."""
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

from octavo_process import MODEL, BrokenModel, join_safetensors, run, split_safetensors


def inspect(path, *arguments):
    """(exit status, report)"""
    done = run("inspect", str(path), "--json", *arguments)
    return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr


def sd35_large_transformer() -> dict:
    """Names and shapes of SD3.5 Large's transformer in the diffusers layout, written down from the published model."""
    width, depth, shapes = 2432, 38, {}

    def linear(name, out, inner):
        shapes[name + ".weight"], shapes[name + ".bias"] = [out, inner], [out]

    shapes["pos_embed.pos_embed"] = [1, 192 * 192, width]
    shapes["pos_embed.proj.weight"], shapes["pos_embed.proj.bias"] = [width, 16, 2, 2], [width]
    linear("time_text_embed.timestep_embedder.linear_1", width, 256)
    linear("time_text_embed.timestep_embedder.linear_2", width, width)
    linear("time_text_embed.text_embedder.linear_1", width, 2048)
    linear("time_text_embed.text_embedder.linear_2", width, width)
    linear("context_embedder", width, 4096)
    linear("norm_out.linear", 2 * width, width)
    linear("proj_out", 64, width)
    for i in range(depth):
        at, last = f"transformer_blocks.{i}.", i == depth - 1
        linear(at + "norm1.linear", 6 * width, width)
        linear(at + "norm1_context.linear", (2 if last else 6) * width, width)
        for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"):
            linear(at + "attn." + name, width, width)
        for name in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            shapes[at + f"attn.{name}.weight"] = [64]
        for name in ("ff",) if last else ("ff", "ff_context"):
            linear(at + name + ".net.0.proj", 4 * width, width)
            linear(at + name + ".net.2", width, 4 * width)
        if not last:
            linear(at + "attn.to_add_out", width, width)
    return shapes


def write_sparse(path: Path, shapes: dict, dtype="BF16"):
    """A safetensors file of 16-bit zeros that takes no room on the disk."""
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name], at = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}, at + size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + at)


class EmbeddedModel(unittest.TestCase):
    def test_report_has_every_part_and_no_problem(self):
        status, report = inspect(MODEL)
        self.assertEqual(status, 0, report)
        self.assertEqual(report["problems"], [])
        parts = {part["name"]: part for part in report["parts"]}
        self.assertEqual(set(parts), {"transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3",
                                      "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler"})
        for name in ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"):
            path = next((MODEL / name).glob("*.safetensors"))
            header, tensors = split_safetensors(path.read_bytes())
            header.pop("__metadata__", None)
            self.assertEqual(parts[name]["tensor_count"], len(header))
            self.assertEqual(parts[name]["byte_count"], len(tensors))
            self.assertEqual(parts[name]["files"], [path.name])

    def test_tensors_are_listed_when_asked_for(self):
        listed = run("inspect", str(MODEL), "--tensors").stdout
        self.assertIn("transformer_blocks.0.attn.to_q.weight", listed)
        self.assertNotIn("transformer_blocks.0.attn.to_q.weight", run("inspect", str(MODEL)).stdout)

    def test_one_file_is_told_by_its_names(self):
        for part, kind in (("vae", "vae"), ("text_encoder", "clip_l"), ("text_encoder_3", "t5"),
                           ("transformer", "transformer")):
            status, report = inspect(next((MODEL / part).glob("*.safetensors")))
            self.assertEqual((status, report["parts"][0]["name"]), (0, kind))


class ReleasedModels(unittest.TestCase):
    def test_sd35_large_is_known_by_its_sizes_and_complete(self):
        config = json.loads((MODEL / "transformer/config.json").read_text())
        config.update(num_layers=38, num_attention_heads=38, attention_head_dim=64, caption_projection_dim=2432,
                      joint_attention_dim=4096, pooled_projection_dim=2048, pos_embed_max_size=192, sample_size=128)
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "transformer").mkdir()
            (root / "transformer/config.json").write_text(json.dumps(config))
            (root / "model_index.json").write_text(json.dumps(
                {"_class_name": "StableDiffusion3Pipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}))
            shapes = sd35_large_transformer()
            file = root / "transformer/diffusion_pytorch_model.safetensors"
            write_sparse(file, shapes)
            status, report = inspect(root, "--skip-values")
            self.assertEqual(status, 1)
            self.assertIn("Stable Diffusion 3.5 Large", report["model"])
            part = report["parts"][0]
            self.assertEqual((part["tensor_count"], part["parameter_count"]), (1227, 8_146_280_768))
            self.assertEqual([line for line in report["problems"] if "transformer" in line], [])

            del shapes["transformer_blocks.37.ff.net.2.bias"]
            shapes["transformer_blocks.20.attn.to_q.weight"] = [2432, 2431]
            shapes["transformer_blocks.38.attn.to_q.bias"] = [2432]
            write_sparse(file, shapes)
            problem, = [line for line in inspect(root, "--skip-values")[1]["problems"] if "transformer" in line]
            for words in ("1 missing: transformer_blocks.37.ff.net.2.bias [2432]",
                          "transformer_blocks.20.attn.to_q.weight is [2432, 2431], expected [2432, 2432]",
                          "1 not part of this model: transformer_blocks.38.attn.to_q.bias"):
                self.assertIn(words, problem)


class Problems(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name) / "model"
        shutil.copytree(MODEL, self.root)

    def assert_problem(self, *words):
        status, report = inspect(self.root)
        self.assertEqual(status, 1, report)
        self.assertTrue(any(all(word in line for word in words) for line in report["problems"]), report["problems"])

    def change(self, file, **keys):
        path = self.root / file
        path.write_text(json.dumps(json.loads(path.read_text()) | keys))

    def test_parts_that_do_not_fit_each_other(self):
        self.change("text_encoder_3/config.json", d_model=256)
        self.assert_problem("text_encoder_3 is 256 wide", "joint_attention_dim")

    def test_a_tokenizer_that_is_missing_a_file(self):
        (self.root / "tokenizer/merges.txt").unlink()
        self.assert_problem("tokenizer/merges.txt")
        shutil.rmtree(self.root / "tokenizer_3")
        self.assert_problem("tokenizer_3")

    def test_configurations(self):
        self.change("scheduler/scheduler_config.json", use_dynamic_shifting=True)
        self.assert_problem("scheduler", "use_dynamic_shifting")
        self.change("model_index.json", _class_name="StableDiffusionXLPipeline", vae=["diffusers", "AutoencoderTiny"])
        self.assert_problem("StableDiffusionXLPipeline")
        self.assert_problem("vae", "AutoencoderTiny", "AutoencoderKL")
        (self.root / "transformer/config.json").write_text("{")
        self.assert_problem("transformer/config.json", "JSON")

    def test_all_problems_are_told_at_once(self):
        for part in ("transformer", "vae", "text_encoder_2"):
            file = next((self.root / part).glob("*.safetensors"))
            file.write_bytes(file.read_bytes()[:-1])
        for part in ("transformer", "vae", "text_encoder_2"):
            self.assert_problem(part, "cut short")

    def test_nan_in_a_tensor_that_drawing_does_not_use(self):
        def poison(data):
            header, tensors = split_safetensors(data)
            begin = header["encoder.conv_in.bias"]["data_offsets"][0]
            return join_safetensors(header, tensors[:begin] + b"\xff\x7f" + tensors[begin + 2:])

        with BrokenModel("vae", poison) as model:
            status, report = inspect(model)
            self.assertEqual(status, 1)
            self.assertIn("encoder.conv_in.bias at element 0", report["problems"][0])
            self.assertEqual(inspect(model, "--skip-values")[0], 0)

    def test_a_path_without_a_checkpoint_has_its_own_exit_status(self):
        for path in (self.root / "absent", self.root / "tokenizer", self.root / "tokenizer/merges.txt"):
            status, message = inspect(path)
            self.assertEqual(status, 2)
            self.assertIn(str(path), message)


if __name__ == "__main__":
    unittest.main(verbosity=2)
