"""Records what the conversions of CUDA's cuda_fp8.h give, for src/tensor/float8.h.

    python tools/reference/record_cuda_fp8.py          # writes tests/parity/fixtures/tensor/cuda_fp8.safetensors

The header comes from NVIDIA's wheels on PyPI, fetched into a temporary folder; its host code needs a C++ compiler and
nothing else. record_cuda_fp8.cc says what is recorded, and compares all 2^32 floats with src/tensor/float8.h on the
way (under a minute). Tensors as there; 64-bit hashes are text in the file's metadata.
"""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "tests" / "parity" / "fixtures" / "tensor" / "cuda_fp8.safetensors"
WHEELS = ["nvidia-cuda-runtime==13.0.96", "nvidia-cuda-crt==13.0.88", "nvidia-cuda-cccl==13.0.85"]


def recorded_lines(folder: Path) -> list[str]:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    subprocess.run([*pip, *WHEELS], check=True)
    for wheel in folder.glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder)
    program = folder / "record"
    source = Path(__file__).with_suffix(".cc")
    cuda = folder / "nvidia" / "cu13" / "include"
    include = ["-I", ROOT / "src", "-isystem", cuda, "-isystem", cuda / "cccl"]
    subprocess.run(["g++", "-std=c++20", "-O2", *include, source, ROOT / "src/tensor/float8.cc", "-o", program],
                   check=True)
    return subprocess.run([program], check=True, text=True, stdout=subprocess.PIPE).stdout.splitlines()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = recorded_lines(Path(folder))
    tensors = {}
    metadata = {"recorded_with": " ".join(WHEELS)}
    for line in lines:
        name, *numbers = line.split()
        if name.endswith(".bf16"):
            metadata[name] = numbers[0]
        else:
            tensors[name] = torch.tensor([int(number) for number in numbers], dtype=torch.int32)
    save_file(tensors, OUT, metadata)
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    main()
