#!/usr/bin/env python3
"""The tables of docs/quality.md: every row is one `octavo quantize` and one `octavo compare` against the 16-bit model.

    python3 bench/quality/table.py --work WORK                 # measure what WORK does not hold yet, print the tables
    python3 bench/quality/table.py --work WORK --write         # and put them into docs/quality.md
    python3 bench/quality/table.py --work WORK --list          # the commands, nothing run

WORK keeps calibrations, reports and logs, so that a run that was broken off goes on; delete it after a change of the
model or of the program. Standard library alone.
"""
import argparse
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "models/octavo-tiny"
STATIC = ("--weights", "tensor", "--activations", "static")

# The default policy's products of the blocks, with and without more.
EVERYTHING = {"rules": [{"pattern": "*", "quantise": True, "reason": "every linear layer"}]}
BLOCKS = [{"pattern": f"transformer_blocks.*.{name}", "quantise": True}
          for name in ("attn.*", "attn2.*", "ff.net.*", "ff_context.net.*")]
NO_MODULATIONS = {"rules": BLOCKS}
STORED_MODULATIONS = {"rules": BLOCKS + [{"pattern": "transformer_blocks.*.norm1*.linear", "quantise": True,
                                          "weights": "channel", "activations": "none"}]}
FEED_FORWARD = {"rules": [rule for rule in BLOCKS if ".ff" in rule["pattern"]]}
IMAGE = {"rules": BLOCKS + [{"pattern": "*.add_*", "quantise": False}, {"pattern": "*.to_add_out", "quantise": False},
                            {"pattern": "*.ff_context.*", "quantise": False}]}
POLICIES = {"everything": EVERYTHING, "no-modulations": NO_MODULATIONS, "stored-modulations": STORED_MODULATIONS,
            "feed-forward": FEED_FORWARD, "image-stream": IMAGE}


@dataclass
class Row:
    name: str  # what the table calls it
    flags: tuple
    model: str = "plain"
    calibrated: bool = False


@dataclass
class Table:
    key: str
    title: str
    rows: list


def policy(name):
    return ("--policy", f"{{work}}/{name}.json")


FORMATS = Table("formats", "Formats and grains", [
    Row("E4M3, channel, token", ()),
    Row("E4M3, channel, static", ("--activations", "static"), calibrated=True),
    Row("E4M3, tensor, token", ("--weights", "tensor")),
    Row("E4M3, tensor, static", STATIC, calibrated=True),
    Row("E4M3, block, block", ("--weights", "block", "--activations", "block")),
    Row("E4M3, channel, inputs in 16 bits", ("--activations", "none")),
    Row("E5M2, channel, token", ("--format", "e5m2")),
    Row("E4M3 weights, E5M2 inputs", ("--activation-format", "e5m2")),
    Row("E5M2 weights, E4M3 inputs", ("--format", "e5m2", "--activation-format", "e4m3")),
    Row("E5M2, tensor, static", ("--format", "e5m2") + STATIC, calibrated=True),
    Row("int8, channel, token", ("--format", "int8")),
    Row("int8, channel, static", ("--format", "int8", "--activations", "static"), calibrated=True),
    Row("int8, tensor, static", ("--format", "int8") + STATIC, calibrated=True),
    Row("int8, block, block", ("--format", "int8", "--weights", "block", "--activations", "block")),
])
POLICY = Table("policies", "Policies (E4M3, a scale a channel and token)", [
    Row("default", ()),
    Row("every linear layer", policy("everything")),
    Row("default, modulations in 16 bits", policy("no-modulations")),
    Row("default, modulations stored in E4M3, not int8", policy("stored-modulations")),
    Row("feed-forward products alone", policy("feed-forward")),
    Row("image stream alone", policy("image-stream")),
    Row("auto, 5 %", ("--policy", "auto", "--budget", "5%"), calibrated=True),
    Row("auto, 20 %", ("--policy", "auto", "--budget", "20%"), calibrated=True),
    Row("default, smoothing 0.5", ("--smooth", "0.5"), calibrated=True),
    Row("default, smoothing 0.8", ("--smooth", "0.8"), calibrated=True),
    Row("default, 4 channels split", ("--outliers", "4"), calibrated=True),
    Row("int8, smoothing 0.5", ("--format", "int8", "--smooth", "0.5"), calibrated=True),
    Row("int8, smoothing 0.8", ("--format", "int8", "--smooth", "0.8"), calibrated=True),
    Row("int8, 4 channels split", ("--format", "int8", "--outliers", "4"), calibrated=True),
])


def planted_rows(model):
    rows = []
    for name, flags in (("E4M3, tensor, static", STATIC), ("E4M3, channel, token", ()),
                        ("int8, channel, token", ("--format", "int8"))):
        rows.append(Row(name, flags, model, calibrated="static" in flags))
        rows.append(Row(name + ", smoothing 0.5", flags + ("--smooth", "0.5"), model, True))
        rows.append(Row(name + ", 8 channels split", flags + ("--outliers", "8"), model, True))
    return rows


PLANTED = {"planted-1024": 1024, "planted-65536": 65536}
TABLES = [FORMATS, POLICY] + [
    Table(key, f"Planted outliers: 4 channels an input, {factor // 4} to {factor} times their neighbours",
          planted_rows(key)) for key, factor in PLANTED.items()]


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.work = Path(arguments.work)
        self.octavo = arguments.octavo

    def model(self, name):
        return Path(self.arguments.model) if name == "plain" else self.work / name

    def commands(self, row):
        """(quantize, compare, folder of the 8-bit model, folder of the report)."""
        a = self.arguments
        told = [row.model, row.flags, a.count, a.seeds, a.steps, a.guidance]
        key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
        out, report = self.work / f"{key}.model", self.work / f"{key}.report"
        flags = [flag.format(work=self.work) for flag in row.flags]
        if row.calibrated:
            flags += ["--calibration", str(self.statistics(row.model))]
        model = str(self.model(row.model))
        baseline = self.work / f"{row.model}-{a.count}-{a.seeds}-{a.steps}-{a.guidance:g}.baseline"
        quantize = [self.octavo, "quantize", "--model", model, "--t5-precision", "keep", *flags, "--out", str(out)]
        compare = [self.octavo, "compare", "--a", model, "--precision-a", "f32", "--b", str(out), "--prompts",
                   str(self.work / "prompts.jsonl"), "--seeds", str(a.seeds), "--steps", str(a.steps), "--guidance",
                   str(a.guidance), "--report", str(report), "--threads", str(a.threads), "--baseline", str(baseline),
                   *([] if a.html else ["--json-only"])]
        return quantize, compare, out, report

    def figures(self, row):
        return self.work / (self.commands(row)[3].name + ".json")

    def prepare(self):
        self.work.mkdir(parents=True, exist_ok=True)
        for name, rules in POLICIES.items():
            (self.work / f"{name}.json").write_text(json.dumps(rules, indent=2) + "\n")
        lines = Path(self.arguments.prompts).read_text().splitlines()[:self.arguments.count]
        (self.work / "prompts.jsonl").write_text("\n".join(lines) + "\n")

    def statistics(self, model):
        return self.work / f"{model}.calibration.safetensors"

    def prepare_model(self, rows):
        """Plants and calibrates what the rows need, before they run beside each other."""
        for row in rows:
            if self.figures(row).exists():
                continue
            if row.model != "plain" and not self.model(row.model).exists():
                self.plant(row.model)
            if row.calibrated and not self.statistics(row.model).exists():
                self.run([self.octavo, "quantize", "--model", str(self.model(row.model)), "--activations", "static",
                          "--calibration", str(self.statistics(row.model)), "--explain"])

    def plant(self, name):
        self.run([self.octavo, "checkpoint", "plant-outliers", "--model", str(self.arguments.model), "--factor",
                  str(PLANTED[name]), "--out", str(self.model(name))])

    def run(self, command):
        done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ, OCTAVO_LOG="warn"))
        if done.returncode != 0:
            raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")

    def measure(self, row):
        quantize, compare, out, report = self.commands(row)
        figures = self.figures(row)
        if not figures.exists():
            shutil.rmtree(out, ignore_errors=True)
            self.run(quantize)
            size = sum(path.stat().st_size for path in (out / "transformer").glob("*.safetensors"))
            quantization = json.loads((out / "transformer/quantization.json").read_text())
            self.run(compare)
            found = json.loads((report / "report.json").read_text())
            kept = {"summary": found["summary"], "accuracy": found.get("accuracy"), "transformer_bytes": size,
                    "layers_in_8_bits": sum(layer["quantised"] for layer in quantization["layers"]),
                    "smoothed": sum("smooth" in layer for layer in quantization["layers"]),
                    "split": sum("outliers" in layer for layer in quantization["layers"])}
            figures.write_text(json.dumps(kept))
            velocity = kept["summary"]["ab"]["velocity_sqnr_db"]["mean"]
            print(f"{row.model}: {row.name}: {number(velocity, 2)} dB", file=sys.stderr, flush=True)
            shutil.rmtree(out, ignore_errors=True)
            if not self.arguments.html:
                shutil.rmtree(report, ignore_errors=True)
        return json.loads(figures.read_text())


def number(value, digits):
    return "∞" if value is None else f"{value:.{digits}f}"


def line(name, flags, summary, figures):
    cells = [name, f"`{shlex.join(flags)}`" if flags else "", f"{figures['transformer_bytes'] / 1e6:.2f}"
             if figures else "", number(summary["velocity_sqnr_db"]["mean"], 1),
             number(summary["velocity_sqnr_db"]["worst"], 1), number(summary["latent_sqnr_db"]["mean"], 1),
             number(summary["psnr_db"]["mean"], 1), number(summary["ssim"]["mean"], 3),
             number(summary["perceptual"]["mean"], 3)]
    if figures:
        cells[2] += f" ({figures['layers_in_8_bits']})"
    return "| " + " | ".join(cells) + " |"


def render(table, results):
    lines = ["| | flags of `octavo quantize` | MB (layers in 8 bits) | velocity SQNR, dB | worst | latents, dB "
             "| PSNR, dB | SSIM | perceptual |", "|---|---|---|---|---|---|---|---|---|"]
    first = next(iter(results.values()))
    lines.append(line("*noise floor: bf16*", (), first["summary"]["floor"], None))
    for row in table.rows:
        figures = results[row.name]
        shown = [Path(flag.format(work="")).name if "{work}" in flag else flag for flag in row.flags]
        lines.append(line(row.name, shown, figures["summary"]["ab"], figures))
    return "\n".join(lines)


def write(path, texts):
    """Replaces what stands between <!-- table KEY --> and <!-- end -->."""
    page = path.read_text()
    for key, text in texts.items():
        begin, end = f"<!-- table {key} -->", "<!-- end -->"
        at = page.index(begin) + len(begin)
        page = page[:at] + "\n" + text + "\n" + page[page.index(end, at):]
    path.write_text(page)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", required=True, help="folder for what is measured")
    parser.add_argument("--octavo", default=os.environ.get("OCTAVO_BINARY", str(ROOT / "build/release/octavo")))
    parser.add_argument("--model", default=str(TINY))
    parser.add_argument("--prompts", default=str(ROOT / "tools/tiny/held_out.jsonl"))
    parser.add_argument("--count", type=int, default=8, help="prompts, from the first")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4)
    parser.add_argument("--threads", type=int, default=0, help="of one comparison; 0 = every core")
    parser.add_argument("--jobs", type=int, default=1, help="rows at a time")
    parser.add_argument("--only", nargs="*", help="tables: " + ", ".join(table.key for table in TABLES))
    parser.add_argument("--html", action="store_true", help="keep report.html of every row")
    parser.add_argument("--write", action="store_true", help="into docs/quality.md")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    bench = Bench(parser.parse_args())
    texts = {}
    if not bench.arguments.list:
        bench.prepare()
    for table in TABLES:
        if bench.arguments.only and table.key not in bench.arguments.only:
            continue
        if bench.arguments.list:
            for row in table.rows:
                print("\n".join(shlex.join(command) for command in bench.commands(row)[:2]))
            continue
        bench.prepare_model(table.rows)
        bench.measure(table.rows[0])  # it fills the baseline that the others share
        with ThreadPoolExecutor(bench.arguments.jobs) as pool:
            results = dict(zip([row.name for row in table.rows], pool.map(bench.measure, table.rows)))
        texts[table.key] = render(table, results)
        print(f"\n{table.title}\n\n{texts[table.key]}", flush=True)
    if bench.arguments.write:
        write(ROOT / "docs/quality.md", texts)


if __name__ == "__main__":
    main()
