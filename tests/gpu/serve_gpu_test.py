"""`octavo serve` on a GPU, as a user runs it: octavo-tiny, full-size random weights (--large), and a card that another
process holds. Exit status 77 (skipped) without a GPU. Python's standard library alone.

    python3 tests/gpu/serve_gpu_test.py [--large]
"""
import base64
import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "end_to_end"))
from octavo_process import MODEL, Server, read_png, run  # noqa: E402

SKIPPED = 77
GIB = 1 << 30


def draw(server, **fields):
    """(status, seconds, answer)."""
    body = {"prompt": "three red apples on a blue background", "seed": 7, "cfg_scale": 4, "steps": 20, **fields}
    started = time.monotonic()
    status, _, answer = server.call("POST", "/sdapi/v1/txt2img", body, timeout=300)
    return status, time.monotonic() - started, json.loads(answer)


class Holder:
    """A process of its own that holds what is free of the first GPU, but for crumbs, until the block ends."""

    SCRIPT = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
def check(result):
    if result: sys.exit(f"CUDA error {result}")
context, device, pointer = ctypes.c_void_p(), ctypes.c_int(), ctypes.c_uint64()
check(cuda.cuInit(0)); check(cuda.cuDeviceGet(ctypes.byref(device), 0))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)); check(cuda.cuCtxSetCurrent(context))
free, total = ctypes.c_size_t(), ctypes.c_size_t()
check(cuda.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total)))
size = free.value
while size >= 2 << 20:
    if cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)): size //= 2
print("held", flush=True); sys.stdin.read()
"""

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", self.SCRIPT], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "held", "the card could not be held"
        return self

    def __exit__(self, *exception):
        self.process.stdin.close()
        self.process.wait()


def serve_tiny():
    with Server("--device", "cuda", "--precision", "fp8", "-m", str(MODEL)) as server:
        first = draw(server, width=256, height=256)
        second = draw(server, width=256, height=256)
        assert first[0] == second[0] == 200, (first, second)
        assert first[2]["images"] == second[2]["images"], "the same request gave two pictures"
        width, height, _, texts = read_png(base64.b64decode(second[2]["images"][0]))
        assert (width, height) == (256, 256) and "parameters" in texts
        print(f"octavo-tiny 256x256, 20 steps: first request {first[1]:.3f} s, second {second[1]:.3f} s")
        # Another process takes the card: a picture that needs more memory fails with a clear error, and the server lives.
        with Holder():
            status, _, answer = draw(server, width=384, height=384, batch_size=8)
            print(f"the card is held: {status} {json.dumps(answer)[:300]}")
            assert status >= 400 and "memory" in json.dumps(answer).lower(), (status, list(answer))
        after = draw(server, width=256, height=256)
        assert after[0] == 200 and after[2]["images"] == first[2]["images"], after[0]
        batch = draw(server, width=256, height=256, batch_size=8)
        assert batch[0] == 200 and len(batch[2]["images"]) >= 8, batch[0]
        assert batch[2]["images"][0] == first[2]["images"][0], "a picture of a batch is not the one drawn alone"
        print(f"octavo-tiny, 8 pictures in one request: {batch[1]:.3f} s")
        status, _, answer = draw(server, width=4096, height=4096)
        assert status in (400, 422) and "width" in json.dumps(answer), (status, answer)
        assert draw(server, width=256, height=256)[0] == 200
        assert server.terminate() == 0


def serve_large():
    started = time.monotonic()
    with Server("--device", "cuda", "--precision", "fp8", "--synthetic", "large") as server:
        ready = time.monotonic() - started
        first = draw(server, width=1024, height=1024, steps=28)
        second = draw(server, width=1024, height=1024, steps=28, seed=8)
        assert first[0] == second[0] == 200, (first[0], second[0])
        print(f"synthetic Large 1024x1024, 28 steps: ready after {ready:.1f} s, first request {first[1]:.2f} s, "
              f"second {second[1]:.2f} s")
        status, _, answer = draw(server, width=4096, height=4096)
        assert status >= 400, status
        print(f"4096x4096: {status} {json.dumps(answer)[:200]}")
        assert draw(server, width=1024, height=1024, steps=2)[0] == 200
        assert server.terminate() == 0


def main() -> int:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        print("no GPU: libcuda.so.1 is not there")
        return SKIPPED
    if "cuda:0" not in run("devices").stdout:
        print(run("devices").stdout)
        return SKIPPED
    os.environ.pop("OCTAVO_LOG", None)  # the server's address is in its log
    serve_tiny()
    if "--large" in sys.argv[1:]:
        serve_large()
    print("serve on a GPU: passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
