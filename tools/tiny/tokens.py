"""The three tokenizers as one, without transformers: captions to the ids that diffusers would make.

check_modules.py compares them with the classes that diffusers loads.
"""

import json
import os

import numpy as np
import sentencepiece
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

LONGEST = 77


class Tokens:
    def __init__(self, model):
        """model: the diffusers folder."""
        with open(os.path.join(model, "tokenizer", "vocab.json"), encoding="utf-8") as f:
            vocab = json.load(f)
        with open(os.path.join(model, "tokenizer", "merges.txt"), encoding="utf-8") as f:
            merges = [tuple(line.split()) for line in f.read().splitlines()[1:]]
        t = Tokenizer(models.BPE(vocab=vocab, merges=merges, end_of_word_suffix="</w>", continuing_subword_prefix="",
                                 unk_token="<|endoftext|>"))
        t.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
        pattern = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        t.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
             pre_tokenizers.ByteLevel(add_prefix_space=False)])
        self.clip = t
        self.t5 = sentencepiece.SentencePieceProcessor(os.path.join(model, "tokenizer_3", "spiece.model"))
        self.clip_size, self.t5_size = len(vocab), self.t5.get_piece_size()
        self.start, self.end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]

    def __call__(self, captions, t5_length=LONGEST):
        """Ids of CLIP-L, CLIP-G and T5: three int16 arrays of 77, 77 and t5_length columns."""
        n = len(captions)
        left = np.full((n, LONGEST), self.end, np.int16)
        right = np.zeros((n, LONGEST), np.int16)
        third = np.zeros((n, t5_length), np.int16)
        for i, (c, t) in enumerate(zip(self.clip.encode_batch(captions), self.t5.encode(list(captions)))):
            ids = [self.start] + c.ids[: LONGEST - 2] + [self.end]
            left[i, : len(ids)] = right[i, : len(ids)] = ids
            ids = t[: t5_length - 1] + [1]
            third[i, : len(ids)] = ids
        return left, right, third
