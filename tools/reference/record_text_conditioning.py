"""Records the text conditioning of Stable Diffusion 3 on random weights: diffusers' own for literal prompts, and the
documented formulas of AUTOMATIC1111 and ComfyUI, written out in plain PyTorch, for weights, BREAK and long prompts.

    python tools/reference/record_text_conditioning.py   # writes tests/parity/fixtures/text/conditioning.safetensors

The text encoders have the recipe weights of record_models.py and octavo-tiny's tokenizers (T5's limit raised to 512).
tests/parity/text_conditioning_parity_test.cc replays the file. Each case holds a request's fields; the results are
`<case>.context`, `<case>.pooled` and the same with `negative_`.
"""

import json
import re
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
from transformers import (CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer, T5Config, T5EncoderModel,
                          T5TokenizerFast)

import record_models

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "octavo-tiny"
WIDTH_L, WIDTH_G, WIDTH = 8, 16, 24
LONG = ("a very detailed painting of three red apples, two green pears and a small blue bowl on a wooden table, "
        "soft light from the left, (warm colours:1.2), a window behind it, clouds, birds, a house on a hill, trees, "
        "[low contrast], bokeh, masterpiece, 8k uhd, a cat sleeping under the table near a striped cushion")


# --- the grammars -----------------------------------------------------------------------------------------------

def parse_a1111(text: str) -> list:
    """[(text, weight)] with None for BREAK: every character carries its weight until the end."""
    cells, opened = [], {"(": [], "[": []}

    def scale(start: int, factor: float) -> None:
        for cell in cells[start:]:
            if cell is not None:
                cell[1] *= factor

    at = 0
    while at < len(text):
        char = text[at]
        number = re.match(r":\s*([+-]?[.\d]+)\s*\)", text[at:]) if opened["("] else None
        pause = re.match(r"\s*\bBREAK\b\s*", text[at:])
        touches = at > 0 and re.match(r"\w", text[at - 1]) and not text[at].isspace()
        if char == "\\":
            at += 1
            if at < len(text) and text[at] in "()[]\\":
                cells.append([text[at], 1.0])
                at += 1
        elif char in "([":
            opened[char].append(len(cells))
            at += 1
        elif number:
            scale(opened["("].pop(), float(number.group(1)))
            at += number.end()
        elif char == ")" and opened["("]:
            scale(opened["("].pop(), 1.1)
            at += 1
        elif char == "]" and opened["["]:
            scale(opened["["].pop(), 1 / 1.1)
            at += 1
        elif pause and not touches:
            cells.append(None)
            at += pause.end()
        else:
            cells.append([char, 1.0])
            at += 1
    for start in opened["("]:
        scale(start, 1.1)
    for start in opened["["]:
        scale(start, 1 / 1.1)
    segments = []
    for cell in cells:
        if cell is None:
            segments.append(None)
        elif segments and segments[-1] is not None and segments[-1][1] == cell[1]:
            segments[-1][0] += cell[0]
        else:
            segments.append(list(cell))
    return segments or [["", 1.0]]


def parse_comfyui(text: str, weight: float = 1.0) -> list:
    """Outermost brackets at this level are found by counting; what is inside is read again with its own weight."""
    hidden = {"\\(": "\x00", "\\)": "\x01"}
    for escape, mark in hidden.items():
        text = text.replace(escape, mark)
    items, level, start = [], 0, 0
    for at, char in enumerate(text):
        if char == "(":
            if level == 0:
                items.append(text[start:at])
                start = at
            level += 1
        elif char == ")":
            level -= 1
            if level == 0:
                items.append(text[start:at + 1])
                start = at + 1
    items.append(text[start:])
    segments = []
    for item in filter(None, items):
        if len(item) >= 2 and item[0] == "(" and item[-1] == ")":
            inner, inner_weight = item[1:-1], weight * 1.1
            head, colon, tail = inner.rpartition(":")
            if colon and head:
                try:
                    inner, inner_weight = head, float(tail)
                except ValueError:
                    pass
            segments += parse_comfyui(inner, inner_weight)
        else:
            segments.append([item.replace("\x00", "(").replace("\x01", ")"), weight])
    return segments


# --- chunks of (id, weight) -------------------------------------------------------------------------------------

def plain_ids(tokenizer, text: str) -> list:
    return tokenizer(text, add_special_tokens=False).input_ids


def closed(tokenizer, pairs: list) -> list:
    full = [(tokenizer.bos_token_id, 1.0)] + pairs + [(tokenizer.eos_token_id, 1.0)]
    return full + [(tokenizer.pad_token_id, 1.0)] * (77 - len(full))


def chunks_a1111(tokenizer, segments: list) -> list:
    comma = plain_ids(tokenizer, ",")[0]
    chunks, chunk = [], []
    for segment in segments:
        if segment is None:
            chunks.append(chunk)
            chunk = []
            continue
        for token in plain_ids(tokenizer, segment[0]):
            if len(chunk) == 75:
                commas = [i for i, (each, _) in enumerate(chunk) if each == comma]
                cut = commas[-1] + 1 if commas and token != comma and 75 - commas[-1] <= 20 else 75
                chunks.append(chunk[:cut])
                chunk = chunk[cut:]
            chunk.append((token, segment[1]))
    if chunk or not chunks:
        chunks.append(chunk)
    return [closed(tokenizer, each) for each in chunks]


def chunks_comfyui(tokenizer, segments: list) -> list:
    chunks = [[]]
    for text, weight in segments:
        group = [(token, weight) for token in plain_ids(tokenizer, text)]
        if len(group) < 8 and len(chunks[-1]) + len(group) > 75:
            chunks.append([])
        while group:
            room = 75 - len(chunks[-1])
            if room == 0:
                chunks.append([])
                continue
            chunks[-1] += group[:room]
            group = group[room:]
    return [closed(tokenizer, each) for each in chunks]


# --- the encoders -----------------------------------------------------------------------------------------------

class Models:
    def __init__(self, recorder: record_models.Recorder):
        def config(name: str) -> dict:
            return json.loads((MODEL / name / "config.json").read_text())

        def clip(part: str, **sizes):
            made = CLIPTextConfig(vocab_size=config(part)["vocab_size"], max_position_embeddings=77, eos_token_id=2,
                                  bos_token_id=0, **sizes)
            model = CLIPTextModelWithProjection(made)
            recorder.part(part, model, {key: getattr(made, key) for key in (
                "num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size", "vocab_size",
                "max_position_embeddings", "projection_dim", "hidden_act", "layer_norm_eps", "eos_token_id")})
            return model

        self.clip = [clip("text_encoder", hidden_size=WIDTH_L, num_attention_heads=1, num_hidden_layers=4,
                          intermediate_size=32, projection_dim=16, hidden_act="quick_gelu"),
                     clip("text_encoder_2", hidden_size=WIDTH_G, num_attention_heads=1, num_hidden_layers=5,
                          intermediate_size=48, projection_dim=24, hidden_act="gelu")]
        made = T5Config(vocab_size=config("text_encoder_3")["vocab_size"], feed_forward_proj="gated-gelu",
                        dropout_rate=0.0, d_model=WIDTH, num_heads=2, d_kv=16, d_ff=64, num_layers=2)
        self.t5 = T5EncoderModel(made)
        recorder.part("text_encoder_3", self.t5, {key: getattr(made, key) for key in (
            "num_layers", "d_model", "num_heads", "d_kv", "d_ff", "vocab_size", "relative_attention_num_buckets",
            "relative_attention_max_distance", "feed_forward_proj", "layer_norm_epsilon")})
        # The smallest that a folder needs to be a model; nothing of them is recorded.
        sizes = dict(sample_size=16, patch_size=2, in_channels=16, out_channels=16, attention_head_dim=64,
                     caption_projection_dim=64, dual_attention_layers=[], qk_norm="rms_norm", num_layers=1,
                     num_attention_heads=1, joint_attention_dim=WIDTH, pooled_projection_dim=40, pos_embed_max_size=12)
        recorder.part("transformer", SD3Transformer2DModel(**sizes), sizes)
        sizes = dict(in_channels=3, out_channels=3, latent_channels=16, act_fn="silu", sample_size=64,
                     down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2,
                     use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
                     block_out_channels=[16, 16], layers_per_block=1, norm_num_groups=8)
        recorder.part("vae", AutoencoderKL(**sizes), sizes)
        self.tokenizers = [CLIPTokenizer.from_pretrained(MODEL / "tokenizer"),
                           CLIPTokenizer.from_pretrained(MODEL / "tokenizer_2")]
        self.tokenizer_t5 = T5TokenizerFast.from_pretrained(MODEL / "tokenizer_3", model_max_length=512)
        self.pipeline = StableDiffusion3Pipeline(
            transformer=None, scheduler=FlowMatchEulerDiscreteScheduler(), vae=None,
            text_encoder=self.clip[0], tokenizer=self.tokenizers[0], text_encoder_2=self.clip[1],
            tokenizer_2=self.tokenizers[1], text_encoder_3=self.t5, tokenizer_3=self.tokenizer_t5)

    def encode_clip(self, index: int, chunk: list, clip_layer: int) -> tuple:
        out = self.clip[index](torch.tensor([[token for token, _ in chunk]]), output_hidden_states=True)
        return out.hidden_states[-clip_layer][0], out.text_embeds[0]

    def encode_t5(self, pairs: list) -> torch.Tensor:
        return self.t5(torch.tensor([[token for token, _ in pairs]])).last_hidden_state[0]


def weights_of(pairs: list) -> torch.Tensor:
    return torch.tensor([weight for _, weight in pairs], dtype=torch.float32)[:, None]


def conditioning(models: Models, case: dict, negative: bool, chunk_count: int, t5_rows: int) -> tuple:
    """Context and pooled of one branch, padded to the chunks and T5 rows that both branches share."""
    comfyui = case["prompt_syntax"] == "comfyui"
    clip_layer = max(2, case.get("clip_skip", 0))
    chunks, t5 = tokenized(models, case, negative)
    chunks = [own + [closed(tokenizer, [])] * (chunk_count - len(own))
              for own, tokenizer in zip(chunks, models.tokenizers)]
    t5 = t5 if len(t5) <= t5_rows else t5[:t5_rows - 1] + [(1, 1.0)]
    t5 = t5 + [(0, 1.0)] * (t5_rows - len(t5))
    rows, pooled = [], None
    for pair in zip(*chunks):
        hidden, vectors = zip(*[models.encode_clip(i, chunk, clip_layer) for i, chunk in enumerate(pair)])
        if comfyui:
            empty = [models.encode_clip(i, closed(models.tokenizers[i], []), clip_layer)[0] for i in range(2)]
            both = torch.cat([torch.where(weights_of(chunk) == 1, z, e + (z - e) * weights_of(chunk))
                              for z, e, chunk in zip(hidden, empty, pair)], -1)
        else:
            both = torch.cat([z * weights_of(chunk) for z, chunk in zip(hidden, pair)], -1)
            if any(weight != 1 for chunk in pair for _, weight in chunk):
                both = both * (torch.cat(hidden, -1).double().mean() / both.double().mean()).float()
        rows.append(torch.nn.functional.pad(both, (0, WIDTH - both.shape[-1])))
        pooled = torch.cat(vectors) if pooled is None else pooled
    z = models.encode_t5(t5)
    if comfyui:
        empty = models.encode_t5([(1, 1.0)] + [(0, 1.0)] * (t5_rows - 1))
        z = torch.where(weights_of(t5) == 1, z, empty + (z - empty) * weights_of(t5))
    return torch.cat(rows + [z]), pooled


def tokenized(models: Models, case: dict, negative: bool) -> tuple:
    word = "negative_prompt" if negative else "prompt"
    texts = [case.get(word, "")] + [case.get(f"{word}_{i}") or case.get(word, "") for i in (2, 3)]
    parse, pack = ((parse_comfyui, chunks_comfyui) if case["prompt_syntax"] == "comfyui"
                   else (parse_a1111, chunks_a1111))
    clip = [pack(tokenizer, parse(text)) for tokenizer, text in zip(models.tokenizers, texts)]
    t5 = [(token, segment[1]) for segment in parse(texts[2]) if segment is not None
          for token in plain_ids(models.tokenizer_t5, segment[0])]
    return clip, t5 + [(1, 1.0)]


CASES = {
    "plain_77": dict(prompt_syntax="plain", t5_length=77, prompt="a red apple, (literal:1.3) [x] BREAK \\(y\\)"),
    "plain_256_per_encoder": dict(
        prompt_syntax="plain", t5_length=256, prompt="a red apple", prompt_2="a blue car", prompt_3="two cats in the sun",
        negative_prompt="blurry", negative_prompt_2="dark", negative_prompt_3="ugly, low quality"),
    "plain_512_cut": dict(prompt_syntax="plain", t5_length=512, prompt=LONG + ", " + LONG),
    "plain_clip_skip": dict(prompt_syntax="plain", t5_length=77, prompt="a red apple", negative_prompt="a car",
                            clip_skip=3),
    "a1111_weights": dict(prompt_syntax="a1111", t5_length=77, negative_prompt="(ugly:1.5), [dark",
                          prompt="a (red:1.3) apple, [blue] ((sky)) \\(x\\) (a (small:0.5) cat"),
    "a1111_break": dict(prompt_syntax="a1111", t5_length=77, prompt="a cat BREAK a (dog:0.7), BREAKFAST BREAK"),
    "a1111_long": dict(prompt_syntax="a1111", t5_length=77, prompt=LONG, negative_prompt="blurry"),
    "a1111_per_encoder": dict(prompt_syntax="a1111", t5_length=77, prompt="a (red:0) apple", prompt_2="a (car:1.2)",
                              prompt_3="two (cats:1.4)", clip_skip=4),
    "comfyui_weights": dict(prompt_syntax="comfyui", t5_length=77, negative_prompt="(bad:0.5) hands) (x)",
                            prompt="a (red apple:1.4) on ((blue)) \\(sky\\) [x] (a (b:0.3) c:1.2)", clip_skip=3),
    "comfyui_long": dict(prompt_syntax="comfyui", t5_length=77, prompt=LONG + ", (last words:0.8)"),
}


@torch.no_grad()
def main():
    record_models.OUT = ROOT / "tests" / "parity" / "fixtures" / "text"
    torch.manual_seed(21)
    recorder = record_models.Recorder("conditioning", torch.float16)
    models = Models(recorder)
    for name, case in CASES.items():
        if case["prompt_syntax"] == "plain":
            skip = case.get("clip_skip", 0) - 2 if case.get("clip_skip") else None
            context, negative, pooled, negative_pooled = models.pipeline.encode_prompt(
                prompt=case["prompt"], prompt_2=case.get("prompt_2"), prompt_3=case.get("prompt_3"),
                negative_prompt=case.get("negative_prompt", ""), negative_prompt_2=case.get("negative_prompt_2"),
                negative_prompt_3=case.get("negative_prompt_3"), clip_skip=skip, device="cpu",
                max_sequence_length=case["t5_length"])
            results = {"context": context[0], "pooled": pooled[0], "negative_context": negative[0],
                       "negative_pooled": negative_pooled[0]}
        else:
            branches = [tokenized(models, case, negative) for negative in (False, True)]
            chunks = max(len(own) for clip, _ in branches for own in clip)
            t5_rows = case["t5_length"]
            if case["prompt_syntax"] == "comfyui":
                t5_rows = max([t5_rows] + [len(t5) for _, t5 in branches])
            results = {}
            for prefix, negative in (("", False), ("negative_", True)):
                context, pooled = conditioning(models, case, negative, chunks, t5_rows)
                results |= {f"{prefix}context": context, f"{prefix}pooled": pooled}
        for key, value in results.items():
            recorder.keep(f"{name}.{key}", value)
        print(name, tuple(results["context"].shape))
    # The case table travels in a tensor of bytes: safetensors writes several metadata entries in changing order.
    recorder.keep("cases", torch.tensor(list(json.dumps(CASES).encode()), dtype=torch.uint8).view(torch.int8))
    recorder.save()


if __name__ == "__main__":
    main()
