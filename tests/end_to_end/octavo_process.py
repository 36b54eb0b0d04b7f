"""What the end-to-end tests share: running the binary, starting a server, reading PNGs, breaking checkpoints."""
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OCTAVO = os.environ.get("OCTAVO_BINARY", str(ROOT / "build/release/octavo"))
MODEL = ROOT / "models/octavo-tiny"


def run(*arguments, timeout=300, **options) -> subprocess.CompletedProcess:
    """Runs octavo to its end; output as text, undecodable bytes replaced."""
    return subprocess.run([OCTAVO, *arguments], capture_output=True, timeout=timeout, encoding="utf-8",
                          errors="replace", **options)


def read_png(data: bytes):
    """(width, height, rows of RGB bytes, {keyword: text}) of an 8-bit RGB PNG, checking every chunk's CRC."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n", data[:16]
    at, texts, packed, header = 8, {}, b"", None
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length:at + 12 + length])[0], kind
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", body)
        elif kind == b"IDAT":
            packed += body
        elif kind == b"tEXt":
            keyword, text = body.split(b"\0", 1)
            texts[keyword.decode("latin-1")] = text.decode("latin-1")
        elif kind == b"iTXt":
            keyword, rest = body.split(b"\0", 1)
            texts[keyword.decode("latin-1")] = rest[2:].split(b"\0", 2)[2].decode("utf-8")
        at += 12 + length
    width, height, depth, colour = header[:4]
    assert (depth, colour) == (8, 2), header
    raw, stride, rows = zlib.decompress(packed), width * 3, []
    previous = bytearray(stride)
    for y in range(height):
        method, line = raw[y * (stride + 1)], bytearray(raw[y * (stride + 1) + 1:(y + 1) * (stride + 1)])
        for i in range(stride):
            left = line[i - 3] if i >= 3 else 0
            corner = previous[i - 3] if i >= 3 else 0
            if method == 1:
                line[i] = (line[i] + left) & 255
            elif method == 2:
                line[i] = (line[i] + previous[i]) & 255
            elif method == 3:
                line[i] = (line[i] + (left + previous[i]) // 2) & 255
            elif method == 4:
                estimate = left + previous[i] - corner
                near = [abs(estimate - left), abs(estimate - previous[i]), abs(estimate - corner)]
                line[i] = (line[i] + (left, previous[i], corner)[near.index(min(near))]) & 255
        rows.append(bytes(line))
        previous = line
    return width, height, rows, texts


class Server:
    """`octavo serve` on a free port; use as a context manager."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __enter__(self):
        self.process = subprocess.Popen([OCTAVO, "serve", "--port", "0", *self.arguments], stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, encoding="utf-8", errors="replace")
        self.lines, self.port = [], None
        found = threading.Event()

        def read():
            for line in self.process.stdout:
                self.lines.append(line)
                match = re.search(r"http://[^\s:/]+:(\d+)", line)
                if match and self.port is None:
                    self.port = int(match.group(1))
                    found.set()
            found.set()

        self.reader = threading.Thread(target=read, daemon=True)
        self.reader.start()
        found.wait(60)
        if self.port is None:
            raise AssertionError("the server did not say its address:\n" + "".join(self.lines))
        deadline = time.monotonic() + 60
        while self.call("GET", "/v2/health/ready")[0] != 200:
            if time.monotonic() > deadline:
                raise AssertionError("the server did not become ready:\n" + "".join(self.lines))
            time.sleep(0.05)
        return self

    def __exit__(self, *exception):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()

    def call(self, method, path, body=None, headers=None, timeout=120):
        """(status, headers, body bytes); a dict body is sent as JSON."""
        data = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method,
                                         headers={"Content-Type": "application/json", **(headers or {})})
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, dict(answer.headers), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers), error.read()

    def terminate(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class BrokenModel:
    """A copy of the embedded model (other files linked) with one safetensors file rewritten by `change`."""

    def __init__(self, part: str, change):
        self.part, self.change = part, change

    def __enter__(self) -> Path:
        self.folder = tempfile.TemporaryDirectory()
        root = Path(self.folder.name) / "model"
        shutil.copytree(MODEL, root, copy_function=os.link if os.stat(MODEL).st_dev == os.stat(
            self.folder.name).st_dev else shutil.copy)
        path = next((root / self.part).glob("*.safetensors"))
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(self.change(data))
        return root

    def __exit__(self, *exception):
        self.folder.cleanup()


def split_safetensors(data: bytes):
    """(header dict, tensor bytes) of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + length]), data[8 + length:]


def join_safetensors(header: dict, tensors: bytes) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + tensors


def tensors_of(folder: Path):
    """{name: (dtype, shape, bytes)} and the metadata of the one file of a part."""
    (path,) = folder.glob("*.safetensors")
    header, data = split_safetensors(path.read_bytes())
    metadata = header.pop("__metadata__", {})
    return {name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])])
            for name, entry in header.items()}, metadata


def bf16(data: bytes):
    """The values of stored bf16."""
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]
