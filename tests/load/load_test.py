#!/usr/bin/env python3
"""Many clients against one server: every request is answered, and every answer is its own.

    load_test.py --url http://127.0.0.1:7860 --clients 8 --requests 200 --width 128 --height 128 --steps 4
    load_test.py --start "build/release/octavo serve --port 0" --clients 8 --requests 200
    load_test.py --start "build/release/tests/load/octavo_fake_server 0" --clients 8 --requests 200

Each request has a prompt and a seed of its own; the answer must name both in `parameters`, in `info` and in the text
inside the PNG, and no two pictures may be equal. A 503 with Retry-After is obeyed and counted, not a loss. Prints
throughput and latency percentiles, --json FILE writes them. Exit status 0 only when nothing was lost or mixed up.
"""
import argparse
import base64
import hashlib
import http.client
import json
import re
import shlex
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import zlib


def png_parameters(data: bytes):
    """(width, height, the `parameters` text) of a PNG, checking every chunk's CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", "not a PNG"
    at, size, text = 8, None, None
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], "bad CRC"
        if kind == b"IHDR":
            size = struct.unpack(">II", body[:8])
        elif kind == b"tEXt" and body.startswith(b"parameters\0"):
            text = body[11:].decode("latin-1")
        elif kind == b"iTXt" and body.startswith(b"parameters\0"):
            text = body[11:][2:].split(b"\0", 2)[2].decode("utf-8")
        at += 12 + length
    assert size is not None and text is not None, "no size or no parameters text"
    return *size, text


def check(answer: dict, prompt: str, seed: int, width: int, height: int) -> str:
    """Fails unless `answer` belongs to the request; returns a digest of the picture."""
    assert len(answer["images"]) == 1, "one picture was asked for"
    info = json.loads(answer["info"])
    assert info["prompt"] == prompt, f"info is of another prompt: {info['prompt']!r}"
    assert info["seed"] == seed and info["all_seeds"] == [seed], f"info is of another seed: {info['seed']}"
    assert answer["parameters"]["prompt"] == prompt and answer["parameters"]["seed"] == seed, "another's parameters"
    picture = base64.b64decode(answer["images"][0], validate=True)
    drawn_width, drawn_height, text = png_parameters(picture)
    assert (drawn_width, drawn_height) == (width, height), "another size"
    assert text == info["infotexts"][0], "the text in the PNG is not the one in info"
    assert text.startswith(prompt + "\n"), f"the PNG is of another prompt: {text!r}"
    assert re.search(rf"\bSeed: {seed}\b", text), f"the PNG is of another seed: {text!r}"
    return hashlib.sha256(picture).hexdigest()


class Load:
    def __init__(self, arguments, url):
        self.arguments = arguments
        self.where = urllib.parse.urlsplit(url)
        self.lock = threading.Lock()
        self.next = 0
        self.latencies, self.failures, self.digests, self.refused = [], [], {}, 0

    def take(self):
        with self.lock:
            if self.next == self.arguments.requests:
                return None
            self.next += 1
            return self.next - 1

    def call(self, connection, body):
        while True:
            connection.request("POST", "/sdapi/v1/txt2img", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read()
            if response.status == 503 and response.getheader("Retry-After"):
                with self.lock:
                    self.refused += 1
                time.sleep(float(response.getheader("Retry-After")))
                continue
            assert response.status == 200, f"status {response.status}: {data[:200]!r}"
            return json.loads(data)

    def client(self, number):
        options = self.arguments
        connection = http.client.HTTPConnection(self.where.hostname, self.where.port, timeout=options.timeout)
        while (index := self.take()) is not None:
            # Every third prompt is not Latin-1, so both kinds of PNG text are seen.
            prompt = f"picture {index} of client {number}, a red apple" + (" \N{CAT FACE}" if index % 3 == 0 else "")
            seed = 1000 + index
            body = json.dumps({"prompt": prompt, "seed": seed, "width": options.width, "height": options.height,
                               "steps": options.steps, "cfg_scale": options.cfg_scale})
            started = time.monotonic()
            try:
                digest = check(self.call(connection, body), prompt, seed, options.width, options.height)
            except Exception as error:  # every kind of loss is a failure of this request
                connection.close()
                with self.lock:
                    self.failures.append(f"request {index}: {type(error).__name__}: {error}")
                continue
            with self.lock:
                self.latencies.append(time.monotonic() - started)
                self.digests.setdefault(digest, []).append(index)
        connection.close()

    def run(self):
        threads = [threading.Thread(target=self.client, args=(number,)) for number in range(self.arguments.clients)]
        started = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return time.monotonic() - started


def start_server(command):
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                               errors="replace")
    for line in process.stdout:
        match = re.search(r"http://[^\s:/]+:\d+", line)
        if match:
            threading.Thread(target=process.stdout.read, daemon=True).start()  # keeps the pipe empty
            return process, match.group(0)
    raise SystemExit(f"{command} did not say its address")


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:7860")
    parser.add_argument("--start", metavar="COMMAND", help="start this server and drive it instead of --url")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--requests", type=int, default=200, help="in all")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--height", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--cfg-scale", type=float, default=7.0)
    parser.add_argument("--timeout", type=float, default=600)
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()

    process, url = start_server(arguments.start) if arguments.start else (None, arguments.url)
    try:
        load = Load(arguments, url)
        elapsed = load.run()
    finally:
        if process:
            process.terminate()
            process.wait(60)

    answered = len(load.latencies)
    for digest, indices in load.digests.items():
        if len(indices) > 1:
            load.failures.append(f"requests {indices} got the same picture")
    figures = {"clients": arguments.clients, "requests": arguments.requests, "answered": answered,
               "refused_then_retried": load.refused, "seconds": round(elapsed, 3),
               "pictures_per_second": round(answered / elapsed, 2)}
    if answered:
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
            figures[f"latency_{name}_seconds"] = round(percentile(load.latencies, share), 3)
    print(json.dumps(figures, indent=2))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(figures, file, indent=2)
    for failure in load.failures[:20]:
        print(failure, file=sys.stderr)
    if load.failures or answered != arguments.requests or (process and process.returncode != 0):
        print(f"FAILED: {arguments.requests - answered} lost, {len(load.failures)} failures", file=sys.stderr)
        return 1
    print("none lost, none mixed up")
    return 0


if __name__ == "__main__":
    sys.exit(main())
