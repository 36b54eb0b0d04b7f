#!/usr/bin/env python3
"""Picture files: what `octavo generate` writes and what `octavo inspect` reads back from them."""
import json
import struct
import tempfile
import unittest
import zlib
from pathlib import Path

from octavo_process import run

FAST = ["--steps", "1", "--width", "128", "--height", "128"]
MARKS = {"a.png": ("PNG", b"\x89PNG"), "a.PNG": ("PNG", b"\x89PNG"), "a.jpg": ("JPEG", b"\xff\xd8\xff"),
         "a.jpeg": ("JPEG", b"\xff\xd8\xff"), "a.webp": ("WebP", b"RIFF")}


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


class PictureFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def generate(self, out, *arguments, prompt="caf\u00e9 \U0001f431, red"):
        return run("generate", "--prompt", prompt, "--negative", "blur", "--seed", "7", *FAST, *arguments, "--out",
                   str(self.folder / out))

    def test_the_extension_chooses_the_format_and_inspect_tells_how_the_picture_was_made(self):
        for name, (kind, mark) in MARKS.items():
            with self.subTest(name=name):
                done = self.generate(name)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertTrue((self.folder / name).read_bytes().startswith(mark))
                report = json.loads(run("inspect", "--json", str(self.folder / name)).stdout)
                self.assertEqual((report["format"], report["width"], report["height"]), (kind, 128, 128))
                self.assertEqual((report["prompt"], report["negative_prompt"]), ("caf\u00e9 \U0001f431, red", "blur"))
                self.assertEqual((report["items"]["Seed"], report["items"]["Steps"]), ("7", "1"))
                text = run("inspect", str(self.folder / name)).stdout
                self.assertIn(f"{kind}, 128x128\ncaf\u00e9 \U0001f431, red\nNegative prompt: blur\nSteps: 1", text)

    def test_quality_decides_the_size(self):
        for extension in ("jpg", "webp"):
            sizes = []
            for arguments in (["--quality", "5"], ["--quality", "100"]):
                self.assertEqual(self.generate(f"a.{extension}", *arguments).returncode, 0)
                sizes.append((self.folder / f"a.{extension}").stat().st_size)
            self.assertLess(2 * sizes[0], sizes[1], extension)
        self.assertEqual(self.generate("a.webp", "--lossless").returncode, 0)
        self.assertEqual((self.folder / "a.webp").read_bytes().count(b"VP8L"), 1)

    def test_refuses_what_the_file_cannot_hold_before_drawing(self):
        for out, arguments, words in (
                ("a.gif", [], ("--out", ".webp")), ("a", [], ("--out", ".png")), ("a.png", ["--quality", "90"], ("--quality",)),
                ("a.jpg", ["--quality", "0"], ("--quality", "1 to 100")), ("a.jpg", ["--lossless"], ("--lossless",)),
                ("a.webp", ["--lossless", "--quality", "3"], ("--quality",)),
                ("a.jpg", ["--quality", "high"], ("--quality",))):
            with self.subTest(out=out, arguments=arguments):
                done = self.generate(out, *arguments)
                self.assertNotEqual(done.returncode, 0)
                for word in words:
                    self.assertIn(word, done.stderr)
                self.assertEqual(list(self.folder.iterdir()), [])
        done = self.generate("a.jpg", prompt="x" * 40000)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--out", done.stderr)
        self.assertIn("take PNG or WebP", done.stderr)

    def test_inspect_survives_odd_pictures(self):
        path = self.folder / "odd.png"
        header = struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
        text = png_chunk(b"tEXt", b"parameters\0a\x1b[31m cat\nline")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + text)
        done = run("inspect", str(path))
        self.assertEqual(done.returncode, 0)
        self.assertEqual(done.stdout, f"{path}: PNG, 3x2\na?[31m cat\nline\n")
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header))
        self.assertIn("no generation parameters", run("inspect", str(path)).stdout)
        path.write_bytes(b"\x89PNG\r\n\x1a\n")
        done = run("inspect", str(path))
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr.count("\n"), 1)
        self.assertIn(str(path), done.stderr)


if __name__ == "__main__":
    unittest.main()
