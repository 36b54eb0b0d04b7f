"""Records token ids of octavo-tiny's three tokenizers for 2,000 strings of many scripts.

    python tools/reference/record_tokenizers.py     # writes tests/parity/fixtures/text/tokenizers.safetensors

Needs transformers; its version is written into the file. The tokenizers are called as diffusers' Stable Diffusion 3
pipeline calls them: padded and truncated, CLIP at 77, T5 at 77 and 256. The strings are made here from a seed.
tests/parity/tokenizer_parity_test.cc replays the recording without Python and expects every id to be equal.

Layout: `<list>.bytes` (text) or `<list>.ids` (16-bit ids as pairs of bytes, padding at the end left out) hold all
entries one after the other, `<list>.ends` [n] i32 where each ends.
"""

import random
import sys
import unicodedata
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import CLIPTokenizer, T5TokenizerFast

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "octavo-tiny"
OUT = ROOT / "tests" / "parity" / "fixtures" / "text" / "tokenizers.safetensors"
COUNT = 2000

SCRIPTS = {  # first and last code point of a stretch of each script
    "latin_supplement": (0xA1, 0xFF), "latin_extended": (0x100, 0x24F), "ipa": (0x250, 0x2AF), "greek": (0x370, 0x3FF),
    "cyrillic": (0x400, 0x4FF), "armenian": (0x531, 0x58A), "hebrew": (0x591, 0x5F4), "arabic": (0x600, 0x6FF),
    "syriac": (0x700, 0x74F), "devanagari": (0x900, 0x97F), "bengali": (0x980, 0x9FE), "tamil": (0xB82, 0xBFA),
    "thai": (0xE01, 0xE5B), "lao": (0xE81, 0xEDF), "tibetan": (0xF00, 0xFDA), "myanmar": (0x1000, 0x109F),
    "georgian": (0x10A0, 0x10FF), "hangul_jamo": (0x1100, 0x11FF), "ethiopic": (0x1200, 0x137C),
    "cherokee": (0x13A0, 0x13FD), "khmer": (0x1780, 0x17F9), "mongolian": (0x1800, 0x18AA),
    "greek_extended": (0x1F00, 0x1FFE), "punctuation": (0x2000, 0x206F), "scripts_above": (0x2070, 0x209C),
    "currency": (0x20A0, 0x20C0), "letterlike": (0x2100, 0x214F), "number_forms": (0x2150, 0x218B),
    "arrows": (0x2190, 0x21FF), "enclosed": (0x2460, 0x24FF), "boxes": (0x2500, 0x25FF), "dingbats": (0x2700, 0x27BF),
    "glagolitic": (0x2C00, 0x2C5F), "hiragana": (0x3041, 0x309F), "katakana": (0x30A0, 0x30FF),
    "squared": (0x3200, 0x33FF), "han": (0x4E00, 0x9FFC), "hangul": (0xAC00, 0xD7A3),
    "han_compatibility": (0xF900, 0xFAD9), "arabic_forms": (0xFB50, 0xFDFF), "half_and_full_width": (0xFF01, 0xFFEE),
    "gothic": (0x10330, 0x1034A), "deseret": (0x10400, 0x1044F), "cuneiform": (0x12000, 0x12399),
    "mathematical": (0x1D400, 0x1D7FF), "emoji": (0x1F300, 0x1F6FC), "faces": (0x1F900, 0x1F9FF),
    "han_extension": (0x20000, 0x2A6DD),
}
# Nothing newer than Unicode 12: the tokenizers library normalises by tables of that version, ours by a later one.
MARKS = [c for c in (*range(0x300, 0x370), *range(0x1AB0, 0x1ABF), *range(0x20D0, 0x20F0), *range(0xFE20, 0xFE30),
                     0x323, 0x307, 0x345, 0x3099, 0x309A, 0x94D, 0x1161, 0x11A8) if unicodedata.combining(chr(c)) or c > 0x1100]
SPACES = [chr(c) for c in (0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x1C, 0x1D, 0x1E, 0x1F, 0x20, 0x20, 0x20, 0x85, 0xA0, 0x1680,
                           0x180E, *range(0x2000, 0x2010), 0x2028, 0x2029, 0x202F, 0x205F, 0x2060, 0x3000, 0xFEFF)]
CONTROLS = [chr(c) for c in (*range(0x01, 0x20), *range(0x7F, 0xA0), 0xAD, 0x200E, 0x200F, 0x202A, 0x202E, 0x2066, 0x2069,
                             0xFFF9, 0xFFFC, 0xFFFD, 0xE0001)]
EMOJI = ["\U0001F468\u200D\U0001F469\u200D\U0001F467\u200D\U0001F466", "\U0001F3F3\uFE0F\u200D\U0001F308",
         "\U0001F469\U0001F3FD\u200D\U0001F680", "\u2764\uFE0F\u200D\U0001F525", "\U0001F1E9\U0001F1EA", "1\uFE0F\u20E3",
         "\U0001F431", "\u2615\uFE0E", "\U0001F44D\U0001F3FF", "\U0001F9D1\u200D\u2696\uFE0F", "\u263A\uFE0F"]
SPECIALS = ["<|startoftext|>", "<|endoftext|>", "<|EndOfText|>", "<|STARTOFTEXT|>", "</s>", "<pad>", "<unk>", "<s>", "</S>",
            "<extra_id_0>", "<|endoftext|", "<|", "|>", "!", "!!", "\u2581", "\u2581\u2581", "</w>", "<0x41>"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'RE", "'Ll", "'\u017F", "''s", "'sa", "\u2019s", "n't",
                "'", "'x", "' s", "'r", "'v", "'l", "don't", "I'LL", "they've", "'tis", "rock'n'roll"]
WORDS = ("a the three red green blue apple apples cat dog car house tree on background small large photo of painting "
         "in style detailed 8k bokeh smiling robot pizza rocket umbrella left right above below masterpiece café naïve "
         "STRASSE straße İstanbul ΣΊΣΥΦΟΣ fiancé Ångström").split()
PUNCTUATION = list(".,;:!?()[]{}<>|/\\\"'`~@#$%^&*-_=+") + ["...", "--", ", ", ": ", "(a:1.2)", "((b))", "[c]", "\\("]


def make_strings(seed: int) -> list:
    draw = random.Random(seed)

    def from_script(name: str, length: int) -> str:
        first, last = SCRIPTS[name]
        out = []
        while len(out) < length:
            point = draw.randint(first, last)
            if unicodedata.category(chr(point)) not in ("Cn", "Cs", "Co"):
                out.append(chr(point))
        return "".join(out)

    def words(most: int) -> str:
        return " ".join(draw.choice(WORDS) for _ in range(draw.randint(1, most)))

    def digits() -> str:
        kind = draw.choice(("ascii", "arabic", "devanagari", "full", "roman", "mixed"))
        zero = {"ascii": 0x30, "arabic": 0x660, "devanagari": 0x966, "full": 0xFF10, "mixed": 0x30}.get(kind)
        if zero is None:
            return from_script("number_forms", 2)
        text = "".join(chr(zero + draw.randint(0, 9)) for _ in range(draw.randint(1, 8)))
        return text + draw.choice(("", "px", ".5", ",000", "th", "²", "½")) if kind == "mixed" else text

    def marked() -> str:
        base = draw.choice("aeiouAEOUncsſKΩgᄀ가が한क")
        return base + "".join(chr(draw.choice(MARKS)) for _ in range(draw.randint(1, 4)))

    pieces = (
        lambda: words(4), lambda: words(2).upper(), lambda: words(2).title(), digits, marked,
        lambda: from_script(draw.choice(list(SCRIPTS)), draw.randint(1, 5)),
        lambda: draw.choice(EMOJI), lambda: draw.choice(SPECIALS), lambda: draw.choice(CONTRACTIONS),
        lambda: draw.choice(PUNCTUATION), lambda: draw.choice(CONTROLS),
        lambda: "".join(draw.choice(SPACES) for _ in range(draw.randint(1, 3))),
    )

    def mixed(most: int) -> str:
        return "".join(draw.choice(pieces)() + draw.choice(("", "", " ")) for _ in range(draw.randint(1, most)))

    strings = ["", " ", "  ", "\n", "!", "!!", "a", "\u2581", "\u200D", "</s>", "<pad>", "<unk>", "<|endoftext|>",
               "<|startoftext|>", "a\u0301\u0323", "\u1E9B\u0323", "\uFB01", "\u0130", "x" * 300, "!" * 200, " " * 300,
               "\u00E9" * 100, "1" * 100]
    strings += [" ".join(filter(None, (left, middle, right))) for left in ("", "a", "!") for middle in SPECIALS
                for right in ("", "b")][:120]
    strings += [left + middle + right for middle in SPECIALS for left, right in (("", "!!"), ("x", "y"), ("'", "'s"))]
    strings += [f"{left}{middle}{right}" for middle in CONTRACTIONS for left, right in (("it", ""), ("", "x"), ("'", "'"))]
    for name in SCRIPTS:
        strings += [from_script(name, 12), from_script(name, 4) + " " + from_script(name, 6).upper()]
    strings += [f"a{space}b" for space in SPACES + CONTROLS] + [f"{space}x{space}" for space in SPACES]
    strings += [f"e{chr(mark)}\u0301 {chr(mark)}" for mark in MARKS[::3]]
    for _ in range(6):  # prompts of 5,000 characters
        text = ""
        while len(text) < 5000:
            text += mixed(6) + " "
        strings.append(text[:5000])
    strings += [("three red apples, " * 300)[:5000], "\u4E00" * 5000, "z" * 5000]
    while len(strings) < COUNT:
        strings.append(mixed(7))
    return strings[:COUNT]


def joined(entries: list, dtype) -> np.ndarray:
    flat = np.concatenate([np.asarray(entry, dtype=dtype) for entry in entries]) if entries else np.zeros(0, dtype)
    return flat.astype(dtype).view(np.int8)


def add_list(tensors: dict, name: str, kind: str, entries: list, dtype) -> None:
    tensors[f"{name}.{kind}"] = torch.from_numpy(joined(entries, dtype).copy())
    tensors[f"{name}.ends"] = torch.from_numpy(np.cumsum([len(entry) for entry in entries]).astype(np.int32))


def without_padding(ids: list, pad: int) -> list:
    end = len(ids)
    while end > 0 and ids[end - 1] == pad:
        end -= 1
    return ids[:end]


def main() -> None:
    strings = make_strings(20)
    clip_l = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    clip_g = CLIPTokenizer.from_pretrained(MODEL / "tokenizer_2")
    t5 = T5TokenizerFast.from_pretrained(MODEL / "tokenizer_3")

    def ids(tokenizer, length: int) -> list:
        found = tokenizer(strings, padding="max_length", max_length=length, truncation=True, add_special_tokens=True)
        assert all(len(row) == length for row in found.input_ids)
        return [without_padding(row, tokenizer.pad_token_id) for row in found.input_ids]

    tensors = {}
    add_list(tensors, "strings", "bytes", [list(text.encode()) for text in strings], np.uint8)
    add_list(tensors, "clip_l", "ids", ids(clip_l, 77), np.uint16)
    add_list(tensors, "clip_g", "ids", ids(clip_g, 77), np.uint16)
    add_list(tensors, "t5_256", "ids", ids(t5, 256), np.uint16)
    # What fits 77 anyway is in t5_256 already.
    short, long = ids(t5, 77), ids(t5, 256)
    add_list(tensors, "t5_77", "ids", [a if a != b else [] for a, b in zip(short, long)], np.uint16)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    versions = f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}, Python {sys.version.split()[0]}"
    save_file(tensors, OUT, {"recorded_with": versions})
    print(OUT.name, OUT.stat().st_size)


if __name__ == "__main__":
    main()
