"""Tests of the recipe's parts that need the packages of tools/reference/requirements.txt; not run in CI.

    .venv/bin/python -m unittest discover -s tools/tiny -p 'test_recipe.py'
"""

import os
import sys
import tempfile
import unittest
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import detector as d  # noqa: E402
import scenes  # noqa: E402
import train_detector  # noqa: E402
import training  # noqa: E402
from catalogue import LABELS, OBJECTS  # noqa: E402
from facts import Reading, Seen, holds, in_words  # noqa: E402

HEIGHTS = [0.95] * len(OBJECTS)


def truth(scene):
    """What a perfect detector reads from a scene."""
    return Reading([Seen(t.index, t.x, t.y, t.size, t.tint) for t in scene.things], LABELS[scene.label])


class Scenes(unittest.TestCase):
    def test_what_a_caption_asserts_is_in_its_scene(self):
        for aspect in ((1.0, 1.0), (1.5, 1.0), (1.0, 5 / 3)):
            rng = scenes.sampler(8)
            for _ in range(4000):
                scene = scenes.sample(rng, HEIGHTS, aspect, training=False)
                for fact in scene.facts:
                    self.assertTrue(holds(fact, truth(scene), aspect), f"{scene.caption}: {in_words(fact)}")

    def test_training_never_sees_a_held_out_combination(self):
        rng = scenes.sampler(9)
        self.assertFalse(any(scenes.sample(rng, HEIGHTS).held_out for _ in range(3000)))
        self.assertTrue(any(scenes.sample(rng, HEIGHTS, training=False).held_out for _ in range(300)))


class Detector(unittest.TestCase):
    def test_the_grid_that_training_aims_at_reads_as_the_scene(self):
        rng = scenes.sampler(10)
        batch = [scenes.sample(rng, HEIGHTS) for _ in range(300)]
        objects = torch.stack([torch.from_numpy(s.record()[0]) for s in batch])
        peaks, (b, y, x), kind, tint, box = train_detector.targets(objects, 8, 8)
        grid = torch.zeros(len(batch), 8, 8, sum(d.PARTS))
        grid[..., 0] = torch.logit(peaks.clamp(1e-6, 1 - 1e-6))
        first, second = 1 + d.PARTS[1], 1 + d.PARTS[1] + d.PARTS[2]
        # Beside a peak the network answers as it does on it.
        for dy in (0, -1, 1):
            for dx in (0, -1, 1):
                yy, xx = (y + dy).clamp(0, 7), (x + dx).clamp(0, 7)
                empty = (dx, dy) == (0, 0) or (peaks[b, yy, xx] < 1)
                empty = torch.as_tensor(empty).expand(len(b))
                at = b[empty], yy[empty], xx[empty]
                grid[*at, 1:second] = 0
                grid[*at, 1 + kind[empty]] = 1
                grid[*at, first + tint[empty]] = 1
                moved = torch.tensor([dx, dy, 0]) * torch.ones(len(b), 1)
                grid[*at, second:] = (box - moved)[empty]
        background = torch.zeros(len(batch), len(LABELS))
        background[torch.arange(len(batch)), [s.label for s in batch]] = 1
        for scene, reading in zip(batch, d.decode(grid.permute(0, 3, 1, 2), background), strict=True):
            self.assertEqual(len(reading.things), len(scene.things), scene.caption)
            for fact in scene.facts:
                self.assertTrue(holds(fact, reading), f"{scene.caption}: {in_words(fact)}")

    def test_pictures_of_any_size_are_read_at_the_same_scale(self):
        for size, want in (((256, 256), (128, 128)), ((192, 320), (128, 208)), ((384, 128), (384, 128))):
            self.assertEqual(tuple(d.fit(torch.zeros(1, 3, *size)).shape[-2:]), want)


class Parts(unittest.TestCase):
    def test_tensors_come_back_from_several_files(self):
        tensors = {f"t{i}": torch.randn(1 << 20) for i in range(9)}
        with tempfile.TemporaryDirectory() as folder:
            prefix = os.path.join(folder, "weights")
            training.save_parts(tensors, prefix, steps=1)
            training.save_parts({"other": torch.zeros(3)}, prefix + "-state", steps=7)
            sizes = [os.path.getsize(os.path.join(folder, f)) for f in os.listdir(folder)]
            self.assertEqual(len(sizes), 4)
            self.assertLess(max(sizes), 16 << 20)
            back, values = training.load_parts(prefix)
            self.assertEqual(values, {"steps": 1})
            self.assertTrue(all(torch.equal(back[k], v) for k, v in tensors.items()) and len(back) == 9)
            os.remove(prefix + "-3-of-3.safetensors")
            with self.assertRaises(SystemExit):
                training.load_parts(prefix)

    def test_parts_of_different_saves_are_not_mixed(self):
        tensors = {f"t{i}": torch.randn(1 << 20) for i in range(5)}
        with tempfile.TemporaryDirectory() as folder:
            prefix = os.path.join(folder, "weights")
            training.save_parts(tensors, prefix, steps=1)
            old = Path(prefix + "-1-of-2.safetensors").read_bytes()
            training.save_parts(tensors, prefix, steps=2)
            Path(prefix + "-1-of-2.safetensors").write_bytes(old)
            with self.assertRaises(SystemExit):
                training.load_parts(prefix)

    def test_a_restored_optimiser_has_the_weights_and_the_average(self):
        model = torch.nn.Linear(8, 8)
        flat = training.Flat(model, "cpu", dtype=torch.float32)
        flat.ema.add_(1)
        saved, average = flat.checkpoint(), flat.state(model)
        other = training.Flat(torch.nn.Linear(8, 8), "cpu", dtype=torch.float32)
        other.restore(saved, average)
        self.assertLess((other.master - flat.master).abs().max().item(), 1e-3)  # 16 bit
        self.assertTrue(torch.equal(other.ema[other.ema != 0], flat.ema[other.ema != 0]))
        self.assertTrue(torch.equal(other.shadow, other.master))


if __name__ == "__main__":
    unittest.main()
