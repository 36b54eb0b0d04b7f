#!/usr/bin/env python3
"""octavo compare on the embedded model at toy size: what the report holds, that it is whole or not there, and what is
refused."""
import html.parser
import json
import os
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

from octavo_process import MODEL, OCTAVO, ROOT, BrokenModel, run

FAST = {"--steps": "2", "--width": "128", "--height": "128"}
HOSTILE = "</h3><script>alert('x')</script> & \"a dog\" <img src=http://example.org/x.png>"
FIGURES = ("velocity_sqnr_db", "velocity_cosine", "velocity_relative_l2", "latent_sqnr_db", "latent_cosine",
           "latent_relative_l2", "psnr_db", "ssim", "perceptual")
VOID = {"meta", "img", "br", "path", "line", "circle"}


class Page(html.parser.HTMLParser):
    """Counts tags, checks that they close in order, and lists what a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.links, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "srcset", "xlink:href")]
        if tag not in VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, (self.open, tag)
        self.open.pop()

    def handle_data(self, data):
        self.text += data


class Compare(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.prompts = self.folder / "prompts.txt"
        self.prompts.write_text("a red apple\n\n" + HOSTILE + "\n")
        self.report = self.folder / "report"

    def compare(self, *arguments, report=None, prompts=None):
        fast = [word for flag, value in FAST.items() if flag not in arguments for word in (flag, value)]
        return run("compare", "--prompts", str(prompts or self.prompts), *fast, *arguments, "--report",
                   str(report or self.report))

    def left_behind(self):
        return [path.name for path in self.folder.iterdir() if path != self.prompts]

    def figures(self, *arguments):
        done = self.compare(*arguments, "--json-only")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads((self.report / "report.json").read_text())

    def test_reports_bf16_against_f32(self):
        done = self.compare("--precision-a", "f32", "--precision-b", "bf16", "--seeds", "2", "--seed", "7")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("Velocity, SQNR", done.stdout)
        self.assertEqual(self.left_behind(), ["report"])
        self.assertEqual(sorted(os.listdir(self.report)), ["report.html", "report.json"])
        report = json.loads((self.report / "report.json").read_text())
        self.assertEqual(report["format_version"], 1)
        self.assertEqual((report["a"]["arithmetic"], report["b"]["arithmetic"]), ("f32", "bf16"))
        self.assertEqual([(p["prompt"], p["seed"]) for p in report["pictures"]],
                         [("a red apple", 7), ("a red apple", 8), (HOSTILE, 7), (HOSTILE, 8)])
        self.assertEqual([row["step"] for row in report["steps"]], [0, 1])
        for name in FIGURES:
            for side in ("ab", "floor"):
                figure = report["summary"][side][name]
                self.assertEqual(figure["identical"], 0, name)
                self.assertIsNotNone(figure["mean"], name)
        for row in report["pictures"]:
            self.assertEqual(row["ab"], row["floor"])  # these two are the floor
            self.assertEqual(len(row["ab"]["velocity"]), 2)
            self.assertGreater(row["ab"]["velocity"][0]["sqnr_db"], 20)
            self.assertGreater(row["ab"]["psnr_db"], 20)
        page = Page((self.report / "report.html").read_text())
        self.assertNotIn("script", page.tags)
        self.assertEqual(page.tags.count("img"), 12)
        self.assertTrue(all(link.startswith("data:image/webp;base64,") for link in page.links))
        self.assertIn(HOSTILE, page.text)

    def test_from_bf16_the_floor_is_measured_at_bf16s_latents(self):
        forth = self.figures("--precision-a", "f32", "--precision-b", "bf16")
        back = self.figures("--precision-a", "bf16", "--precision-b", "f32")
        for side in ("ab", "floor"):
            for name in ("latent_cosine", "psnr_db", "perceptual"):
                self.assertAlmostEqual(forth["summary"][side][name]["mean"], back["summary"][side][name]["mean"], 9)
        first = [report["pictures"][0]["floor"]["velocity"] for report in (forth, back)]
        self.assertEqual(first[0][0], first[1][0])      # both begin at the same noise
        self.assertNotEqual(first[0][1], first[1][1])   # and go on from their own latents

    def test_a_model_against_itself_differs_nowhere_and_twice_gives_the_same_bytes(self):
        report = self.figures("--precision-a", "bf16", "--precision-b", "bf16")
        before = (self.report / "report.json").read_bytes()
        for name in FIGURES:
            figure = report["summary"]["ab"][name]
            self.assertIn(figure["mean"], (None, 1.0, 0.0), name)
        self.assertEqual(report["summary"]["ab"]["psnr_db"]["identical"], 2)
        self.assertGreater(report["summary"]["floor"]["velocity_sqnr_db"]["mean"], 20)
        self.figures("--precision-a", "bf16", "--precision-b", "bf16", "--threads", "1")
        after = (self.report / "report.json").read_bytes()
        self.assertEqual(json.loads(before)["pictures"], json.loads(after)["pictures"])
        self.figures("--precision-a", "bf16", "--precision-b", "bf16")
        self.assertEqual((self.report / "report.json").read_bytes(), before)

    def test_a_baseline_spares_a_and_the_floor_and_changes_nothing(self):
        for a, b in (("f32", "fp8"), ("f32", "bf16"), ("bf16", "fp8"), ("fp8", "w8a16")):
            with self.subTest(a=a, b=b):
                precisions = ("--precision-a", a, "--precision-b", b)
                self.figures(*precisions)
                plain = (self.report / "report.json").read_bytes()
                kept = self.folder / f"baseline-{a}"
                for _ in range(2):
                    self.figures(*precisions, "--baseline", str(kept))
                    self.assertEqual((self.report / "report.json").read_bytes(), plain)
                self.assertEqual(len(list(kept.glob("a/*.end"))), 2)
        done = self.compare("--precision-a", "f32", "--baseline", str(self.folder / "baseline-f32"), "--steps", "3")
        self.assertEqual(done.returncode, 1)
        self.assertIn("--baseline", done.stderr.splitlines()[-1])
        self.assertIn("another steps (2 there, 3 here)", done.stderr.splitlines()[-1])
        (self.folder / "baseline-f32/baseline.json").write_text("{}")
        done = self.compare("--precision-a", "f32", "--baseline", str(self.folder / "baseline-f32"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("is not a baseline", done.stderr)

    def test_samplers_with_two_calls_a_step_are_compared_call_by_call(self):
        report = self.figures("--precision-a", "f32", "--precision-b", "bf16", "--sampler", "heun")
        self.assertEqual([row["step"] for row in report["steps"]], [0, 0, 1])

    def test_models_of_other_weights_are_compared(self):
        other = self.folder / "other"
        done = run("checkpoint", "synth", "--family", "tiny", "--seed", "99", "--out", str(other))
        self.assertEqual(done.returncode, 0, done.stderr)
        report = self.figures("--a", str(MODEL), "--b", str(other), "--precision-a", "f32", "--precision-b", "f32")
        self.assertNotEqual(report["a"]["hash"], report["b"]["hash"])
        ab, floor = report["summary"]["ab"], report["summary"]["floor"]
        self.assertLess(ab["velocity_sqnr_db"]["mean"], floor["velocity_sqnr_db"]["mean"] - 10)
        self.assertGreater(ab["perceptual"]["mean"], 10 * floor["perceptual"]["mean"])

    def test_json_lines_bring_negative_prompts(self):
        self.prompts.write_text(json.dumps({"prompt": "a cat", "negative_prompt": "a dog"}) + "\n")
        report = self.figures("--precision-a", "f32", "--precision-b", "bf16")
        self.assertEqual(report["pictures"][0]["negative_prompt"], "a dog")

    def test_facts_of_prompts_are_checked_in_every_runs_pictures(self):
        lines = (ROOT / "tools/tiny/held_out.jsonl").read_text().splitlines()[:3]
        self.prompts.write_text("\n".join([*lines, json.dumps({"prompt": "without facts"})]))
        asked = [fact for line in lines for fact in json.loads(line)["facts"]]
        done = self.compare("--precision-a", "f32", "--precision-b", "bf16", "--seeds", "2", "--seed", "40")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("pictures with every fact right", done.stdout)
        report = json.loads((self.report / "report.json").read_text())
        self.assertEqual([p["seed"] for p in report["pictures"]], [0, 1, 1, 2, 2, 3, 40, 41])  # the prompts' own
        accuracy = report["accuracy"]
        self.assertEqual(accuracy["pictures"], 6)
        self.assertEqual(accuracy["asked"]["all_facts"], 2 * len(asked))
        self.assertEqual(accuracy["asked"]["object"], 2 * sum(fact[0] == "object" for fact in asked))
        for run_of in ("a", "b", "floor_f32", "floor_bf16"):
            self.assertTrue(0 <= accuracy[run_of]["all_facts"] <= 100)
        self.assertEqual(accuracy["a"], accuracy["floor_f32"])
        self.assertIn("What the pictures show", Page((self.report / "report.html").read_text()).text)
        self.assertIsNone(self.figures("--detector", "none")["accuracy"])

    def test_facts_and_detectors_that_are_none_are_refused(self):
        for arguments, words in ((("--detector", str(MODEL)), "--detector"),
                                 (("--detector", str(self.folder / "missing")), "--detector")):
            self.prompts.write_text(json.dumps({"prompt": "a cat", "facts": [["object", 1]]}))
            done = self.compare(*arguments)
            self.assertEqual(done.returncode, 1)
            self.assertIn(words, done.stderr)
        self.prompts.write_text(json.dumps({"prompt": "a cat", "facts": [["ghost", 1]]}))
        done = self.compare()
        self.assertEqual(done.returncode, 1)
        self.assertIn("--prompts", done.stderr)
        self.assertIn("ghost", done.stderr)
        self.prompts.write_text("a cat\n")
        done = self.compare("--detector", str(ROOT / "tools/tiny/detector.safetensors"))
        self.assertEqual(done.returncode, 1)
        self.assertIn("--detector", done.stderr)
        self.assertEqual(self.left_behind(), [])

    def test_refuses_what_it_cannot_compare_and_names_the_flag(self):
        missing = str(self.folder / "missing")
        empty = self.folder / "prompts.txt.empty"
        empty.write_text("\n")
        for arguments, words in (
                (("--a", missing), ("--a", missing)), (("--b", missing), ("--b", missing)),
                (("--precision-a", "f7"), ("--precision-a", "f7")), (("--precision-b", "f7"), ("--precision-b", "f7")),
                (("--width", "7"), ("--width",)), (("--width", "0"), ("--width",)), (("--steps", "9999"), ("--steps",)),
                (("--guidance", "nan"), ("--guidance",)), (("--sampler", "dice"), ("--sampler",)),
                (("--seeds", "0"), ("--seeds",)), (("--seed", "-1"), ("--seed",)),
                (("--kernel", "attention=nope"), ("nope",))):
            with self.subTest(arguments=arguments):
                done = self.compare(*arguments)
                self.assertEqual(done.returncode, 1, done.stderr)
                for word in words:
                    self.assertIn(word, done.stderr.splitlines()[-1])
                self.assertFalse(self.report.exists())
        for prompts, word in ((empty, "no prompt"), (missing, missing), (self.folder, "folder")):
            done = self.compare(prompts=prompts)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--prompts", done.stderr)
            self.assertIn(str(word), done.stderr)
        for report in (self.prompts, Path(missing) / "report"):
            done = self.compare(report=report)
            self.assertEqual(done.returncode, 1)
            self.assertIn("--report", done.stderr)
        self.assertEqual(self.left_behind(), [empty.name])

    def test_a_model_that_breaks_half_way_leaves_no_report(self):
        with BrokenModel("transformer", lambda data: data[:len(data) // 2]) as model:
            done = self.compare("--b", str(model))
        self.assertEqual(done.returncode, 1)
        self.assertIn("--b", done.stderr.splitlines()[-1])
        self.assertEqual(self.left_behind(), [])

    def test_an_interrupt_leaves_nothing_and_keeps_the_report_of_before(self):
        self.report.mkdir()
        (self.report / "report.json").write_text("before")
        process = subprocess.Popen([OCTAVO, "compare", "--prompts", str(self.prompts), "--seeds", "500", "--report",
                                    str(self.report)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while not list(self.folder.glob("report.partial-*/a/*.calls")) and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
        self.assertEqual(process.returncode, 1)
        self.assertIn(b"interrupted", said)
        self.assertEqual(self.left_behind(), ["report"])
        self.assertEqual((self.report / "report.json").read_text(), "before")
        self.assertEqual(os.listdir(self.report), ["report.json"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
