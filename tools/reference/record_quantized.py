"""Records quantised products and a quantised transformer computed with torch's own float8 types.

    python tools/reference/record_quantized.py   # writes tests/parity/fixtures/{tensor,models}/quantized.safetensors

tensor/quantized: for src/tensor/quantized.h and the ops.
x [M, K] and w [N, K] are f32 (bf16 numbers) with rows of very different sizes, a row of zeros and columns that stand
out. For each format (e4m3, e5m2, i8) and grain (tensor, row, block128):
    dequant_scale = amax / largest, 1 where amax is 0;  code = round(x * (1 / dequant_scale)), saturating
    x.<format>.<grain>.codes, .scale (w alike); the sums are over codes and scales in f64:
    product.<format>.<weights' grain>.<x's grain> [M, N] f32
Codes are rounded by torch (to(torch.float8_e4m3fn), torch.round for i8), not by anything of this project.

models/quantized: a small transformer with dual blocks and recipe weights (record_models.py), whose Linears in the blocks'
attention and feed-forward are replaced by the formula, E4M3, weights by row, and those of the modulations with int8
weights by row and inputs as they are: transformer.velocity as it is, .w8a8_velocity with inputs by row (token),
.w8a16_velocity with inputs as they are. Sums in f64.
"""

import copy
from pathlib import Path

import record_models
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parents[2] / "tests" / "parity" / "fixtures" / "tensor" / "quantized.safetensors"
FORMATS = {"e4m3": (torch.float8_e4m3fn, 448.0), "e5m2": (torch.float8_e5m2, 57344.0), "i8": (torch.int8, 127.0)}
BLOCK = 128
M, N, K = 5, 7, 300


def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(7)
    x = torch.randn(M, K) * torch.logspace(-3, 2, M).unsqueeze(1)
    x[:, 40] *= 300  # an outlier channel
    x[2] = 0
    w = torch.randn(N, K) * 0.05
    w[3] *= 1e-4
    w[5, 128:256] = 0  # a block of zeros
    return x.bfloat16().float(), w.bfloat16().float()


def amax(x: torch.Tensor, grain: str) -> torch.Tensor:
    """In the shape that broadcasts to x."""
    if grain == "tensor":
        return x.abs().max().reshape(1, 1)
    if grain == "row":
        return x.abs().amax(1, keepdim=True)
    blocks = [part.abs().amax(1, keepdim=True).expand_as(part) for part in x.split(BLOCK, 1)]
    return torch.cat(blocks, 1)


def quantize(x: torch.Tensor, fmt: str, grain: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes, and the scale of every element."""
    dtype, largest = FORMATS[fmt]
    most = amax(x, grain)
    scale = torch.where(most == 0, torch.ones_like(most), most / largest)
    scaled = (x * (1 / scale)).clamp(-largest, largest)
    codes = scaled.round().to(dtype) if dtype == torch.int8 else scaled.to(dtype)
    return codes, scale.expand_as(x).contiguous()


def stored_scale(scale: torch.Tensor, grain: str) -> torch.Tensor:
    if grain == "tensor":
        return scale[:1, 0].clone()
    return scale[:, 0].clone() if grain == "row" else scale[:, ::BLOCK].clone()


class QuantizedLinear(torch.nn.Module):
    """Weights by row; the input E4M3 by row too, or as it is."""

    def __init__(self, linear: torch.nn.Linear, fmt: str, quantise_input: bool):
        super().__init__()
        codes, scale = quantize(linear.weight, fmt, "row")
        self.weight, self.bias, self.quantise_input = codes.double() * scale.double(), linear.bias, quantise_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if self.quantise_input:
            codes, scale = quantize(rows, "e4m3", "row")
            rows = codes.double() * scale.double()
        product = (rows.double() @ self.weight.T).float() + self.bias
        return product.reshape(*x.shape[:-1], -1)


def replace_products(model: torch.nn.Module, quantise_input: bool) -> None:
    for block in model.transformer_blocks:
        for name in ("attn", "attn2", "ff", "ff_context"):
            part = getattr(block, name, None)
            if part is None:
                continue
            for path, module in list(part.named_modules()):
                if isinstance(module, torch.nn.Linear):
                    parent, _, leaf = path.rpartition(".")
                    setattr(part.get_submodule(parent), leaf, QuantizedLinear(module, "e4m3", quantise_input))
        for norm in (block.norm1, block.norm1_context):
            norm.linear = QuantizedLinear(norm.linear, "i8", False)


@torch.no_grad()
def record_model() -> None:
    torch.manual_seed(11)
    r = record_models.Recorder("quantized", torch.float16)
    model = record_models.transformer_model(r, dual_attention_layers=(0,), num_layers=3, num_attention_heads=2,
                                            joint_attention_dim=96, pooled_projection_dim=48, pos_embed_max_size=12)
    inputs = dict(hidden_states=torch.randn(2, 16, 8, 12), encoder_hidden_states=torch.randn(2, 20, 96),
                  pooled_projections=torch.randn(2, 48), timestep=torch.full((2,), 731.25), return_dict=False)
    r.keep("transformer.velocity", model(**inputs)[0])
    for name, quantise_input in (("w8a8", True), ("w8a16", False)):
        quantised = copy.deepcopy(model)
        replace_products(quantised, quantise_input)
        r.keep(f"transformer.{name}_velocity", quantised(**inputs)[0])
    r.keep("transformer.latents", inputs["hidden_states"])
    r.keep("transformer.text", inputs["encoder_hidden_states"])
    r.keep("transformer.pooled", inputs["pooled_projections"])
    r.keep("transformer.timesteps", torch.tensor([731.25]))
    r.save()


def main() -> None:
    record_model()
    x, w = inputs()
    tensors = {"x": x.bfloat16(), "w": w.bfloat16()}
    for fmt in FORMATS:
        values = {}
        for grain in ("tensor", "row", "block128"):
            for name, matrix in (("x", x), ("w", w)):
                codes, scale = quantize(matrix, fmt, grain)
                tensors[f"{name}.{fmt}.{grain}.codes"] = codes
                tensors[f"{name}.{fmt}.{grain}.scale"] = stored_scale(scale, grain)
                values[name, grain] = codes.double() * scale.double()
        for w_grain in ("tensor", "row", "block128"):
            for x_grain in ("tensor", "row", "block128"):
                product = values["x", x_grain] @ values["w", w_grain].T
                tensors[f"product.{fmt}.{w_grain}.{x_grain}"] = product.float()
    save_file(tensors, OUT, {"recorded_with": f"torch {torch.__version__}"})
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    main()
