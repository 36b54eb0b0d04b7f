"""Trains the three small tokenizers on our captions and writes their folders as diffusers wants them.

    python tools/tiny/make_tokenizers.py --out models/octavo-tiny
"""

import argparse
import io
import json
import os
import shutil
from collections import Counter

import sentencepiece

import scenes
from catalogue import BACKGROUND_WORDS, OBJECTS, PLACES

WORDS = """a an the and of on in at to with left right top bottom middle no not without any very up down near far behind
front light dark bright white black grey red background woman man person face sky water cloud rain fire city street
room window door wall floor blurry ugly bad low quality text watermark deformed cropped worst extra many several some
five six seven eight nine ten big old new young wearing holding eating sitting standing running flying looking""".split()


def captions(n, seed=5):
    """Captions of scenes as training sees them, and the odd words people add."""
    rng = scenes.sampler(seed)
    out = [scenes.sample(rng, [0.9] * len(OBJECTS), noise=i % 16 == 0).caption for i in range(n)]
    for words in [o.names() for o in OBJECTS] + list(PLACES.values()) + list(BACKGROUND_WORDS.values()):
        out += list(words) * 30
    return out + WORDS * 20


def byte_symbols():
    """GPT-2's printable stand-ins for the 256 bytes, in the order of CLIP's vocabulary."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table = {b: chr(b) for b in keep}
    for b in (b for b in range(256) if b not in keep):
        table[b] = chr(256 + len(table) - len(keep))
    return [table[b] for b in keep] + [table[b] for b in range(256) if b not in keep]


def learn_merges(texts, limit, least):
    """Byte-pair merges of lower-case words that end in </w>; stops at limit or below least occurrences."""
    import re

    counts = Counter()
    for t in texts:
        counts.update(re.findall(r"'s|'t|'re|'ve|'m|'ll|'d|[a-z]+|[0-9]|[^\sa-z0-9]+", t.lower()))
    words = [([*w[:-1], w[-1] + "</w>"], n) for w, n in counts.items() if w.isascii()]
    merges = []
    while len(merges) < limit:
        pairs = Counter()
        for symbols, n in words:
            for p in zip(symbols, symbols[1:]):
                pairs[p] += n
        if not pairs:
            break
        best, n = max(pairs.items(), key=lambda kv: (kv[1], kv[0]))
        if n < least:
            break
        merges.append(best)
        for symbols, _ in words:
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
                i += 1
    return merges


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def special(content):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}


def clip(out, texts, limit):
    merges = learn_merges(texts, limit, 8)
    base = byte_symbols()
    tokens = base + [b + "</w>" for b in base] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    tokens = list(dict.fromkeys(tokens))
    vocab = json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False)
    lines = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    for folder, pad in (("tokenizer", "<|endoftext|>"), ("tokenizer_2", "!")):
        path = os.path.join(out, folder)
        shutil.rmtree(path, ignore_errors=True)
        write(os.path.join(path, "vocab.json"), vocab)
        write(os.path.join(path, "merges.txt"), lines)
        marks = {"bos_token": special("<|startoftext|>"), "eos_token": special("<|endoftext|>"),
                 "unk_token": special("<|endoftext|>"), "pad_token": pad}
        write(os.path.join(path, "special_tokens_map.json"), json.dumps(marks, indent=2))
        config = {"add_prefix_space": False, "bos_token": "<|startoftext|>", "clean_up_tokenization_spaces": True,
                  "do_lower_case": True, "eos_token": "<|endoftext|>", "errors": "replace", "model_max_length": 77,
                  "pad_token": pad, "tokenizer_class": "CLIPTokenizer", "unk_token": "<|endoftext|>"}
        write(os.path.join(path, "tokenizer_config.json"), json.dumps(config, indent=2))
    return len(tokens)


def t5(out, texts, size):
    blob = io.BytesIO()
    # Half as written, half in other cases, so that capitals are pieces too.
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts), model_writer=blob, vocab_size=size, model_type="unigram",
        normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>",
        eos_piece="</s>", unk_piece="<unk>", character_coverage=1.0, num_threads=1, hard_vocab_limit=False,
        required_chars="".join(chr(c) for c in range(33, 127)), minloglevel=2)
    path = os.path.join(out, "tokenizer_3")
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    with open(os.path.join(path, "spiece.model"), "wb") as f:
        f.write(blob.getvalue())
    marks = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write(os.path.join(path, "special_tokens_map.json"), json.dumps(marks, indent=2))
    config = {**marks, "additional_special_tokens": [], "clean_up_tokenization_spaces": True, "extra_ids": 0,
              "legacy": True, "model_max_length": 77, "tokenizer_class": "T5Tokenizer"}
    write(os.path.join(path, "tokenizer_config.json"), json.dumps(config, indent=2))
    return sentencepiece.SentencePieceProcessor(model_proto=blob.getvalue()).get_piece_size()


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--out", required=True, help="the model's folder")
    p.add_argument("--captions", type=int, default=60000)
    p.add_argument("--merges", type=int, default=640)
    p.add_argument("--pieces", type=int, default=1000)
    args = p.parse_args()
    texts = captions(args.captions)
    print("CLIP vocabulary", clip(args.out, texts, args.merges))
    print("T5 vocabulary", t5(args.out, texts, args.pieces))


if __name__ == "__main__":
    main()
