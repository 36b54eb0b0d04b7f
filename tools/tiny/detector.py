"""Reads pictures: which objects stand where, how large, painted in which colour, before which background.

A small convolutional network looks at the picture at 128 pixels a side and answers for every cell of a grid of 16 x 16
pixels; a thing is a cell whose objectness is a peak. It is trained apart from the generator, on renders alone
(train_detector.py), and is the measure of evaluate.py.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from catalogue import LABELS, OBJECTS, TINT_NAMES
from facts import Reading, Seen

SIDE = 128  # pixels of the shorter side that the network sees
CELL = 16
CHANNELS = (40, 80, 144)
PARTS = (1, len(OBJECTS), 1 + len(TINT_NAMES), 3)  # objectness, class, tint (0: unpainted), x, y and log of the size
ROWS = 8  # the background is told from what each eighth of the height holds
# A thing is a peak of at least this objectness, and further than this from a surer one (shorter sides). Things of
# scenes are 0.29 apart or more.
LEAST, APART = 0.4, 0.14


def convolution(cin, cout, kernel=3, stride=1):
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2 if kernel % 2 else 0, bias=False),
                         nn.BatchNorm2d(cout))


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.first, self.second = convolution(channels, channels), convolution(channels, channels)

    def forward(self, x):
        return F.relu(x + self.second(F.relu(self.first(x))))


class Detector(nn.Module):
    """Pictures [B, 3, h, w] in [0, 1], the shorter side 128: grid [B, 127, h/16, w/16] and background [B, labels]."""

    def __init__(self):
        super().__init__()
        a, b, c = CHANNELS
        self.stem = nn.ModuleList([convolution(3, a, 4, 4), convolution(a, a), convolution(a, b, 3, 2)])
        self.middle = Residual(b)
        self.down = convolution(b, c, 3, 2)
        self.deep = Residual(c)
        self.head = nn.Conv2d(c, sum(PARTS), 1)
        self.wide = nn.Conv2d(c, 32, 1)
        self.background = nn.Linear(32 * ROWS, len(LABELS))
        nn.init.constant_(self.head.bias[:1], -3.0)  # most cells are empty

    def forward(self, x):
        x = x * 2 - 1
        for layer in self.stem:
            x = F.relu(layer(x))
        x = self.deep(F.relu(self.down(self.middle(x))))
        rows = F.adaptive_avg_pool2d(F.relu(self.wide(x)), (ROWS, 1))
        return self.head(x), self.background(rows.flatten(1))


def fit(pictures):
    """Pictures of any size at the size that the network sees: shorter side 128, both sides multiples of a cell."""
    h, w = pictures.shape[-2:]
    short = min(h, w)
    size = tuple(max(CELL, round(s * SIDE / short / CELL) * CELL) for s in (h, w))
    return pictures if size == (h, w) else F.interpolate(pictures, size=size, mode="bilinear", antialias=True)


def decode(grid, background):
    """The network's answers as one Reading a picture."""
    at = grid.float().cpu()
    peak, kind, tint, box = at.split(PARTS, 1)
    peak = peak.sigmoid()[:, 0]
    kind, tint = kind.argmax(1), tint.argmax(1) - 1
    labels = background.float().argmax(1).tolist()
    out = []
    for b, label in enumerate(labels):
        found = []
        order = peak[b].flatten().argsort(descending=True).tolist()
        columns = peak.shape[-1]
        for cell in order:
            y, x = divmod(cell, columns)
            if peak[b, y, x] < LEAST:
                break
            px = (x + 0.5 + box[b, 0, y, x].item()) * CELL / SIDE
            py = (y + 0.5 + box[b, 1, y, x].item()) * CELL / SIDE
            if all(abs(px - s.x) > APART or abs(py - s.y) > APART for s in found):
                found.append(Seen(kind[b, y, x].item(), px, py, box[b, 2, y, x].exp().item(), tint[b, y, x].item()))
        out.append(Reading(found, LABELS[label]))
    return out


@torch.no_grad()
def read(detector, pictures, chunk=50):
    """pictures float [B, 3, h, w] in [0, 1]: a list of Readings. Places are in units of the shorter side."""
    out = []
    for part in pictures.split(chunk):
        out += decode(*detector(fit(part)))
    return out


def save(state, path):
    """16 bit, but for the running averages of the norms, which may be out of its range."""
    save_file({k: v.float().contiguous() if "running" in k else v.half().contiguous() for k, v in state.items()
               if "num_batches" not in k}, path)


def load(path, device="cpu"):
    detector = Detector()
    missing, unknown = detector.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
    if unknown or any("num_batches" not in k for k in missing):
        raise SystemExit(f"{path}: not a detector of this catalogue: train it anew with train_detector.py")
    return detector.to(device).eval()
