"""Records what torch's float8 casts give, for the conversions of src/tensor/float8.h.

    python tools/reference/record_float8.py            # writes tests/parity/fixtures/tensor/float8.safetensors

bf16.<format> holds torch's code for every one of the 2^16 bf16 values, in the order of their bits; boundary.x holds
f32 values at and beside the middle between neighbouring codes, boundary.<format> torch's codes for them; values.<format>
is every code widened to f32.

Where torch differs from CUDA's saturating conversion, which float8.h follows (seen with torch 2.15): E5M2 above the
largest finite value becomes infinity in torch; NaN keeps its sign. Older versions of torch made NaN of an E4M3
overflow; 2.15 saturates it.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "tensor" / "float8.safetensors"
FORMATS = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}


def boundaries(dtype: torch.dtype) -> torch.Tensor:
    """Middles of neighbouring finite codes with the floats on both sides of each, of both signs."""
    values = torch.arange(128, dtype=torch.uint8).view(dtype).to(torch.float64)
    values = values[torch.isfinite(values)]
    middles = ((values[1:] + values[:-1]) / 2).to(torch.float32)
    sides = [middles, torch.nextafter(middles, torch.tensor(0.0)), torch.nextafter(middles, torch.tensor(torch.inf))]
    positive = torch.cat(sides)
    return torch.cat([positive, -positive])


def main() -> None:
    every_bf16 = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16).view(torch.bfloat16)
    around = torch.cat([boundaries(dtype) for dtype in FORMATS.values()])
    tensors = {"boundary.x": around}
    for name, dtype in FORMATS.items():
        tensors[f"bf16.{name}"] = every_bf16.to(torch.float32).to(dtype)
        tensors[f"boundary.{name}"] = around.to(dtype)
        tensors[f"values.{name}"] = torch.arange(256, dtype=torch.int32).to(torch.uint8).view(dtype).to(torch.float32)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT, {"recorded_with": f"torch {torch.__version__}"})
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    main()
