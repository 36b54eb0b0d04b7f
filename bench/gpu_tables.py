#!/usr/bin/env python3
"""Markdown for docs/performance.md from what `octavo bench --json` and bench/peers/gpu_diffusers.py --json wrote.

    python3 bench/gpu_tables.py step.json vram.json peers.json ...

Each file gives the tables of what it holds: stages of a picture, a step by kinds of op beside the floor, the residency
modes, the peers and how far each is from f32.
"""
import argparse
import json
from pathlib import Path


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def kind_of(row, tokens):
    """What a row of the step's profile is part of."""
    op, shape = row["op"], row["shape"]
    if op == "attention":
        return "attention"
    stream = "image" if f" {tokens}," in shape or shape.startswith(f"{2 * tokens} x") else "text"
    if op in ("matmul", "scaled_matmul"):
        _, wide, inner = [int(number) for number in shape.split(" ")[:5:2]]
        if min(wide, inner) < 128:
            return "patches in and out"
        if stream == "text":
            return "text products"
        return "image product: " + ({3: "qkv", 1: "out", 4: "first of the feed-forward, GELU"}.get(wide // inner)
                                    or "second of the feed-forward")
    kinds = {"gate_residual_norm": "gate, residual, norm", "layer_norm": "gate, residual, norm",
             "qkv_split_norm": "q, k, v: norm and layout", "quantize": "quantise"}
    return f"{stream}: {kinds[op]}" if op in kinds else "everything else"


def step(report):
    print(f"{report['model']}, {report['width']}x{report['height']}, {report['arithmetic']}, on {report['device']}\n")
    tokens = report["width"] // 16 * (report["height"] // 16)
    kinds = {}
    for row in report["step"]:
        kind = kinds.setdefault(kind_of(row, tokens), dict(calls=0, ms=0.0, floor=0.0, flops=0.0, bytes=0.0))
        kind["calls"] += row["calls"]
        kind["ms"] += row["ms"]
        kind["floor"] += row["floor_ms"]
        kind["flops"] += row["flops"] * row["calls"]
        kind["bytes"] += row["bytes"] * row["calls"]
    total = {key: sum(kind[key] for kind in kinds.values()) for key in ("calls", "ms", "floor", "flops", "bytes")}
    rows = []
    for name, kind in sorted(kinds.items(), key=lambda item: item[1]["floor"] - item[1]["ms"]):
        rate = (f"{kind['flops'] / kind['ms'] * 1e-9:.0f} TFLOP/s" if kind["flops"]
                else f"{kind['bytes'] / kind['ms'] * 1e-9:.2f} TB/s")
        rows.append([name, f"{kind['calls']:.0f}", f"{kind['ms']:.2f}", f"{kind['floor']:.2f}",
                     f"{kind['ms'] - kind['floor']:.2f}", rate])
    work = f"{total['flops'] * 1e-12:.1f} TFLOP, {total['bytes'] * 1e-9:.1f} GB"
    rows.append(["sum, one op after another", f"{total['calls']:.0f}", f"{total['ms']:.2f}", f"{total['floor']:.2f}",
                 f"{total['ms'] - total['floor']:.2f}", work])
    replayed = f"{report['replayed_step_ms']:.2f}"
    rows.append(["as pictures are drawn", "", replayed, "", "", "one graph, text beside image"])
    table(["part of a step", "ops", "ms", "floor", "above it", "rate"], rows)


def picture(report):
    rows = [[name, f"{stage['median_seconds'] * 1e3:.1f}", f"{stage['best_seconds'] * 1e3:.1f}"]
            for name, stage in report["stages"].items()]
    rows.append(["step", f"{report['step_ms']:.2f}", f"{report['best_step_ms']:.2f}"])
    print(f"{report['model']}, {report['width']}x{report['height']}, {report['steps']} steps, {report['arithmetic']}, "
          f"on {report['device']}; load {report['load_seconds']:.2f} s, first picture "
          f"{report['first_picture_seconds']:.2f} s, {report['start_to_first_picture_seconds']:.2f} s after the process's start; GPU "
          f"{report.get('device_peak_used_mib', 0) / 1024:.2f} GiB at most\n")
    table(["stage", "median ms", "best ms"], rows)


def residency(modes):
    table(["--vram", "peak GiB", "load s", "text ms", "step ms", "decode ms", "picture s"],
          [[one["vram"], f"{one['device_peak_used_mib'] / 1024:.2f}", f"{one['load_seconds']:.1f}",
            f"{one['encode_text_seconds'] * 1e3:.0f}", f"{one['step_ms']:.1f}", f"{one['decode_seconds'] * 1e3:.1f}",
            f"{one['total_seconds']:.2f}"] for one in modes])


def peers(report):
    print(f"{report['card']}, {report['versions']}, {report['size']}x{report['size']}, {report['steps']} steps, "
          f"guidance {report['guidance']:g}, {report['date']}\n")

    def cell(value, form):
        return "" if value is None else format(value, form)

    table(["engine", "step ms", "picture s", "text ms", "decode ms", "peak GiB", "start to first picture s"],
          [[row["engine"], f"{row['step_ms']:.1f}", f"{row['image_s']:.2f}", f"{row['text_ms']:.0f}",
            f"{row['vae_ms']:.1f}", cell(row["peak_gib"], ".1f"), cell(row["start_s"], ".1f")]
           for row in report["rows"] if "error" not in row])
    if "parity" in report:
        parity = report["parity"]
        table(["velocity, relative error to f32"] + [f"t = {t:.0f}" for t in parity["timesteps"]],
              [[name] + [f"{100 * value:.2f} %" for value in values]
               for name, values in parity["relative_error"].items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="files that --json wrote")
    for path in parser.parse_args().reports:
        try:
            report = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            parser.error(f"{path}: {error}")
        for key, show in (("e2e", picture), ("step", step), ("vram", residency)):
            if key in report:
                show(report[key])
        if "rows" in report:
            peers(report)


if __name__ == "__main__":
    main()
