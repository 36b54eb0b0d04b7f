"""Samples scenes: what is where before which background, the caption that says so, and the facts it asserts.

A scene is a small record of numbers that render.py turns into a picture of any size with the scene's aspect. Lengths
are in units of the picture's shorter side, so that one record serves 128 to 384 pixels.
"""

import random
import zlib
from dataclasses import dataclass, field

import numpy as np

from catalogue import (BACKGROUND_NAMES, BACKGROUND_WORDS, BACKGROUNDS, COUNTS, LABELS, MASS, NO_ARTICLE,
                       OBJECTS, PLACE_NAMES, PLACES, TINT_NAMES)

MAX_OBJECTS = 4
OBJECT_FIELDS = 8  # class, x, y, size, angle, tint, shadow, alive
N_BG = len(BACKGROUND_NAMES)

# The layout of a background record (render.py reads it by these names).
BG_LAYOUT = {}
_at = 0
for _name, _width in [("top", 3), ("bottom", 3), ("fade", 1), ("spot", 1), ("disc", 3), ("disc_x", 1), ("disc_y", 1),
                      ("disc_r", 1), ("glow", 1), ("far_a", 3), ("far_b", 3), ("far_y", 1), ("far_h", 1),
                      ("far_f", 1), ("far_p", 1), ("far_tri", 1), ("far_cap", 1), ("near_a", 3), ("near_b", 3),
                      ("near_y", 1), ("near_h", 1), ("near_f", 1), ("near_p", 1), ("near_soft", 1), ("stars", 1),
                      ("star_x", 1), ("star_y", 1), ("planks", 1), ("vignette", 1)]:
    BG_LAYOUT[_name] = (_at, _at + _width)
    _at += _width
BG_FIELDS = _at

SIZE_WORDS = {"small": ("small", "little", "tiny"), "big": ("big", "large", "huge", "giant")}
PREFIXES = ("a photo of", "a picture of", "an image of", "photo of", "picture of", "an illustration of",
            "a drawing of", "a painting of", "an emoji of", "a cartoon of", "a render of", "image of", "drawing of",
            "a photograph of", "a cute picture of", "draw", "show me", "please draw", "i want", "there is")
STUDIO_PREFIXES = ("a studio photo of", "a product photo of", "a studio product shot of", "a product shot of",
                   "studio photo of", "product photo of", "a studio shot of", "a studio photograph of")
STUDIO_SUFFIXES = ("studio product shot", "product photo", "studio photo", "studio lighting", "product photography",
                   "studio shot", "product shot", "soft shadow", "studio backdrop")
FILLERS = ("high quality", "detailed", "highly detailed", "4k", "8k", "masterpiece", "best quality", "digital art",
           "beautiful", "sharp focus", "professional", "vector art", "clean", "minimalist", "illustration", "colorful",
           "cartoon style", "realistic", "photorealistic", "simple")
ADJECTIVES = ("cute", "beautiful", "lovely", "nice", "funny", "pretty", "happy", "shiny", "single", "cool")
SPOTS = {
    "left": ("on the left", "on the left side", "to the left", "at the left"),
    "right": ("on the right", "on the right side", "to the right", "at the right"),
    "top": ("at the top", "on the top", "near the top"),
    "bottom": ("at the bottom", "on the bottom", "near the bottom"),
    "center": ("in the center", "in the middle", "in the centre", "centered"),
    "top left": ("in the top left corner", "at the top left", "in the upper left corner", "top left"),
    "top right": ("in the top right corner", "at the top right", "in the upper right corner", "top right"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left corner", "bottom left"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right corner",
                     "bottom right"),
}
RELATIONS = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "on top of"),
    "below": ("below", "under", "beneath", "underneath"),
    "beside": ("next to", "beside", "and", "and", "with", "and"),
}


@dataclass
class Thing:
    """One object of a scene, with the words chosen for it."""

    index: int
    x: float = 0.0
    y: float = 0.0
    size: float = 0.5
    angle: float = 0.0
    tint: int = -1
    shadow: float = 0.0


@dataclass
class Scene:
    """A picture to be: its things, its background, its caption, and what the caption asserts."""

    aspect: tuple
    things: list = field(default_factory=list)
    label: int = 0
    background: np.ndarray = None
    caption: str = ""
    facts: list = field(default_factory=list)
    held_out: bool = False

    def record(self):
        """The scene's numbers: [MAX_OBJECTS, OBJECT_FIELDS] and [BG_FIELDS]."""
        out = np.zeros((MAX_OBJECTS, OBJECT_FIELDS), np.float32)
        for row, t in zip(out, self.things):
            row[:] = (t.index, t.x, t.y, t.size, t.angle, t.tint, t.shadow, 1)
        return out, self.background


def held_out(a, b):
    """Whether a combination of two names is kept from training: one in eleven is."""
    return zlib.crc32(f"{a}|{b}".encode()) % 11 == 0


def _shade(rng, rgb, spread=10):
    return [min(255, max(0, c + rng.uniform(-spread, spread))) / 255 for c in rgb]


def _mix(a, b, t):
    return [x + (y - x) * t for x, y in zip(a, b)]


def _background(rng, label):
    """The numbers of a background with this label."""
    v = np.zeros(BG_FIELDS, np.float32)

    def put(**values):
        for name, value in values.items():
            a, b = BG_LAYOUT[name]
            v[a:b] = value

    def shade(*rgb, spread=8):
        return _shade(rng, rgb, spread)

    u = rng.uniform
    put(fade=1.0, far_y=2.0, near_y=2.0, near_soft=0.004, disc_r=-1.0, far_f=1.0, near_f=1.0)
    if label < N_BG:
        c = _shade(rng, BACKGROUNDS[BACKGROUND_NAMES[label]], 5 if label < 2 else 10)
        lighter = _mix(c, [1, 1, 1], u(0.0, 0.25) if rng.random() < 0.3 and label > 1 else 0.0)
        put(top=lighter, bottom=c)
    elif label < 2 * N_BG:
        c = _shade(rng, BACKGROUNDS[BACKGROUND_NAMES[label - N_BG]], 6)
        wall = _mix(c, [0, 0, 0], u(0.04, 0.10))
        floor = _mix(c, [1, 1, 1], u(0.10, 0.22))
        put(top=_mix(wall, [0, 0, 0], 0.18), bottom=wall, spot=u(0.10, 0.22), near_a=wall, near_b=floor,
            near_y=u(0.58, 0.66), near_soft=u(0.02, 0.05), vignette=u(0.10, 0.22))
    else:
        place = PLACE_NAMES[label - 2 * N_BG]
        horizon = u(0.52, 0.64)
        wave = dict(near_y=horizon, near_h=u(0.0, 0.02), near_f=u(0.6, 1.4), near_p=u(0, 1))
        if place == "grass":
            put(top=shade(70, 150, 240), bottom=shade(200, 232, 255), fade=horizon, near_a=shade(116, 196, 70),
                near_b=shade(50, 140, 44), **wave)
        elif place == "snow":
            put(top=shade(150, 186, 226), bottom=shade(220, 234, 248), fade=horizon, far_a=shade(186, 208, 232),
                far_b=shade(206, 222, 240), far_y=horizon - 0.06, far_h=u(0.03, 0.06), far_f=u(1.2, 2.4),
                far_p=u(0, 1), near_a=shade(236, 243, 252), near_b=shade(252, 253, 255, spread=3), **wave)
        elif place == "night":
            put(top=shade(8, 10, 40), bottom=shade(36, 40, 96), fade=horizon, stars=1.0, star_x=u(0, 1),
                star_y=u(0, 1), disc=shade(250, 244, 210), disc_x=u(0.76, 0.90), disc_y=u(0.09, 0.16),
                disc_r=u(0.045, 0.065), glow=0.15, near_a=shade(22, 34, 52), near_b=shade(8, 14, 26), **wave)
        elif place == "sunset":
            put(top=shade(88, 44, 128), bottom=shade(255, 150, 60), fade=horizon, disc=shade(255, 226, 120),
                disc_x=u(0.2, 0.8), disc_y=horizon - u(0.0, 0.08), disc_r=u(0.08, 0.12), glow=0.5,
                near_a=shade(90, 38, 60), near_b=shade(38, 16, 36), **wave)
        elif place == "desert":
            put(top=shade(120, 190, 240), bottom=shade(250, 236, 206), fade=horizon, far_a=shade(222, 168, 98),
                far_b=shade(206, 148, 84), far_y=horizon - 0.05, far_h=u(0.02, 0.05), far_f=u(0.8, 1.6),
                far_p=u(0, 1), near_a=shade(246, 208, 138), near_b=shade(226, 176, 104), **wave)
        elif place == "underwater":
            put(top=shade(96, 208, 226), bottom=shade(10, 66, 150), fade=1.0, near_a=shade(30, 110, 150),
                near_b=shade(86, 150, 150), **{**wave, "near_y": u(0.80, 0.88)})
        elif place == "beach":
            put(top=shade(90, 180, 250), bottom=shade(214, 240, 255), fade=horizon, far_a=shade(20, 120, 200),
                far_b=shade(90, 206, 220), far_y=horizon - 0.12, far_h=0.0, near_a=shade(252, 232, 178),
                near_b=shade(240, 208, 144), **wave)
        elif place == "forest":
            put(top=shade(150, 200, 180), bottom=shade(206, 228, 196), fade=horizon, far_a=shade(22, 78, 46),
                far_b=shade(38, 100, 56), far_y=horizon - 0.20, far_h=u(0.12, 0.16), far_f=u(4.0, 6.5), far_p=u(0, 1),
                far_tri=1.0, near_a=shade(72, 120, 52), near_b=shade(48, 84, 38), **wave)
        elif place == "mountains":
            put(top=shade(110, 170, 236), bottom=shade(224, 238, 252), fade=horizon, far_a=shade(96, 112, 146),
                far_b=shade(140, 154, 184), far_y=horizon - 0.20, far_h=u(0.16, 0.20), far_f=u(1.2, 2.2),
                far_p=u(0, 1), far_tri=1.0, far_cap=1.0, near_a=shade(120, 170, 92), near_b=shade(92, 140, 72),
                **wave)
        elif place == "table":
            put(top=shade(236, 224, 204), bottom=shade(246, 238, 224), fade=horizon, near_a=shade(176, 116, 66),
                near_b=shade(146, 90, 48), near_y=horizon, planks=0.16)
    return v


def _label(rng):
    """A background label, drawn with the weights of training."""
    k = rng.random()
    if k < 0.42:
        return rng.choice((0, 0, 0) + tuple(range(1, N_BG)))
    if k < 0.62:
        return N_BG + rng.choice((0, 0, 0, 2, 2) + tuple(range(1, N_BG)))
    return 2 * N_BG + rng.randrange(len(PLACE_NAMES))


def _article(rng, phrase, plain):
    """The phrase with a, an, one, the or nothing before it."""
    k = rng.random()
    if k < 0.14:
        return phrase
    if plain:
        return phrase
    if k < 0.19:
        return "one " + phrase
    if k < 0.24:
        return "the " + phrase
    if phrase.startswith(("uni", "ufo")):
        return "a " + phrase
    return ("an " if phrase[0] in "aeiou8" else "a ") + phrase


def _noun(rng, thing, count, size_word, facts, exact):
    """Words for a thing, or for several alike; appends the tint it asserts to facts."""
    o = OBJECTS[thing.index]
    k = 0 if exact or rng.random() < 0.72 else rng.randrange(len(o.names()))
    word = o.names()[k] if count == 1 else o.plural(k)
    colour = ""
    if thing.tint >= 0:
        colour = TINT_NAMES[thing.tint]
        facts.append(("tint", thing.index, thing.tint))
    elif o.colour and rng.random() < 0.16:
        colour = o.colour
    if colour == "grey" and rng.random() < 0.5:
        colour = "gray"
    words = []
    if rng.random() < 0.05:
        words.append(rng.choice(ADJECTIVES))
    if size_word:
        words.append(rng.choice(SIZE_WORDS[size_word]))
    if colour:
        words.append(colour)
    phrase = " ".join(words + [word])
    if count == 1:
        return _article(rng, phrase, o.names()[k] in NO_ARTICLE and (o.names()[k] not in MASS or rng.random() < 0.7))
    return rng.choice(COUNTS[count]) + " " + phrase


def _places(rng, scene, kind, heights):
    """Puts the scene's things where its kind wants them; returns (size words, spot, relation)."""
    aw, ah = scene.aspect
    u = rng.uniform
    things, n = scene.things, len(scene.things)
    ground = scene.label >= N_BG  # a floor to stand on
    line = ah * u(0.80, 0.88) if ground else None
    sizes, spot, relation = [None] * n, None, None

    def stand(t, row_centre):
        t.y = line - t.size * heights[t.index] / 2 if ground else row_centre

    if kind == "one":
        t = things[0]
        k = rng.random()
        if k < 0.13:
            sizes[0], t.size = "small", u(0.35, 0.41)
        elif k < 0.26:
            sizes[0], t.size = "big", u(0.76, 0.88)
        else:
            t.size = u(0.52, 0.68)
        t.x, _ = aw / 2 + u(-0.05, 0.05), stand(t, ah / 2 + u(-0.04, 0.04))
        if sizes[0] != "big" and rng.random() < 0.17:
            spot = rng.choice(list(SPOTS))
            t.size = min(t.size, u(0.40, 0.46))
            if "left" in spot:
                t.x = t.size / 2 + aw * 0.04 + u(0, 0.03)
            elif "right" in spot:
                t.x = aw * 0.96 - t.size / 2 - u(0, 0.03)
            if "top" in spot:
                t.y = t.size / 2 + ah * 0.04 + u(0, 0.03)
            elif "bottom" in spot:
                t.y = ah * 0.96 - t.size / 2 - u(0, 0.03)
            elif not ground or spot == "center":
                t.y = ah / 2 + u(-0.03, 0.03)
    elif kind == "same":
        size = {2: u(0.37, 0.45), 3: u(0.29, 0.31), 4: u(0.36, 0.43)}[n]
        if n == 3 and rng.random() < 0.4:
            size = u(0.36, 0.42)
            spots = [(0.5, 0.27), (0.27, 0.73), (0.73, 0.73)]
        elif n == 4:
            spots = [(0.27, 0.27), (0.73, 0.27), (0.27, 0.73), (0.73, 0.73)]
        else:
            spots = [((0.27, 0.73) if n == 2 else (0.175, 0.5, 0.825))[i] for i in range(n)]
        if n == 3 and size < 0.32:
            size = min(size * min(aw, 1.3), 0.40)
        row = ah / 2 + u(-0.04, 0.04)
        for t, s in zip(things, spots):
            t.size = size * u(0.97, 1.03)
            if isinstance(s, tuple):
                t.x, t.y = aw * s[0] + u(-0.02, 0.02), ah * s[1] + u(-0.02, 0.02)
            else:
                t.x = aw * s + u(-0.015, 0.015)
                stand(t, row)
    elif kind == "pair":
        relation = rng.choice(("left", "right", "above", "below", "beside", "beside", "beside"))
        for t in things:
            t.size = u(0.38, 0.45)
        if relation in ("left", "right", "beside"):
            if rng.random() < 0.15:
                i = rng.randrange(2)
                sizes[i], things[i].size = "small", u(0.24, 0.28)
                sizes[1 - i], things[1 - i].size = "big", u(0.47, 0.51)
            row = ah / 2 + u(-0.04, 0.04)
            left, right = things if relation != "right" else things[::-1]
            left.x, right.x = aw * 0.265 + u(-0.015, 0.015), aw * 0.735 + u(-0.015, 0.015)
            stand(left, row)
            stand(right, row)
        else:
            column = aw / 2 + u(-0.04, 0.04)
            up, down = things if relation == "above" else things[::-1]
            up.x = down.x = column
            up.y, down.y = ah * 0.26 + u(-0.01, 0.01), ah * 0.74 + u(-0.01, 0.01)
            up.shadow = 0.0
    else:
        row = ah / 2 + u(-0.04, 0.04)
        for t, x in zip(things, (0.175, 0.5, 0.825)):
            t.size = min(u(0.29, 0.31) * min(aw, 1.3), 0.40)
            t.x = aw * x + u(-0.01, 0.01)
            stand(t, row)
    for t in things:
        t.angle = u(-0.07, 0.07) if rng.random() < 0.25 else 0.0
        standing = ground and abs(t.y + t.size * heights[t.index] / 2 - line) < 0.03
        t.shadow = u(0.30, 0.45) if standing and scene.label != LABELS.index("underwater") else 0.0
    return sizes, spot, relation


def _case(rng, text):
    k = rng.random()
    if k < 0.10:
        return text[:1].upper() + text[1:]
    if k < 0.13:
        return text.title()
    if k < 0.16:
        return text.upper()
    return text


def sample(rng, heights, aspect=(1.0, 1.0), training=True, noise=True):
    """One scene. heights: for each object, the share of the atlas's side that its glyph covers from top to bottom.

    In training no held-out combination is drawn. noise=False leaves out filler words, nonsense and odd case.
    """
    while True:
        scene = Scene(aspect)
        scene.label = _label(rng)
        k = rng.random()
        kind = "one" if k < 0.50 else "same" if k < 0.70 else "pair" if k < 0.92 else "three"
        n = {"one": 1, "same": rng.choice((2, 2, 3, 3, 4)), "pair": 2, "three": 3}[kind]
        indices = rng.sample(range(len(OBJECTS)), 1 if kind in ("one", "same") else n)
        names = [OBJECTS[i].name for i in indices]
        combos = [(m, LABELS[scene.label].replace("studio ", "plain ")) for m in names]
        combos += [tuple(sorted(p)) for p in zip(names, names[1:])]
        scene.held_out = any(held_out(*c) for c in combos)
        if training and scene.held_out:
            continue
        break
    for i in (indices * n if kind == "same" else indices):
        scene.things.append(Thing(i))
    label = LABELS[scene.label]
    for t in scene.things if kind != "same" else scene.things[:1]:
        o = OBJECTS[t.index]
        if rng.random() < 0.15:
            tint = rng.randrange(len(TINT_NAMES))
            clash = {"white": ("white", "snow"), "black": ("black", "night")}.get(TINT_NAMES[tint], (TINT_NAMES[tint],))
            if TINT_NAMES[tint] != o.colour and not label.endswith(clash):
                t.tint = tint
    for t in scene.things:
        t.tint = scene.things[0].tint if kind == "same" else t.tint
    sizes, spot, relation = _places(rng, scene, kind, heights)
    scene.background = _background(rng, scene.label)

    # The caption. Short ones ("cat") say only what there is.
    facts = scene.facts
    short = rng.random() < 0.12
    count = n if kind == "same" else 1
    lead = [_noun(rng, t, count, s, facts, False)
            for t, s in zip(scene.things if kind != "same" else scene.things[:1], sizes)]
    if kind in ("one", "same"):
        text = lead[0]
    elif kind == "pair":
        text = f"{lead[0]} {rng.choice(RELATIONS[relation])} {lead[1]}"
    else:
        text = rng.choice(("{}, {} and {}", "{}, {}, and {}", "{}, {}, {}", "{} and {} and {}")).format(*lead)
    for i in dict.fromkeys(indices):
        facts.append(("object", i))
        facts.append(("count", i, count))
    for i, word in zip(indices, sizes):  # things alike have no size word
        if word:  # of a pair, one is small beside the other
            facts.append(("size", i, word, indices[1 - indices.index(i)] if kind == "pair" else None))
    if kind == "pair":
        if relation != "beside":
            facts.append(("relation", indices[0], indices[1], relation))
    if spot:
        text += " " + rng.choice(SPOTS[spot])
        facts.append(("spot", indices[0], spot))
    tail = []
    studio = N_BG <= scene.label < 2 * N_BG
    if not short:
        said = rng.random() < (0.86 if not studio else 0.75)
        if scene.label >= 2 * N_BG:
            if said:
                phrase = rng.choice(PLACES[label])
                text += (" " if rng.random() < 0.9 else ", ") + phrase
                facts.append(("background", label))
        else:
            colour = BACKGROUND_NAMES[scene.label % N_BG]
            if said:
                word = rng.choice(BACKGROUND_WORDS.get(colour, (colour,)))
                an = "an" if word[0] in "aeiou" else "a"
                phrase = rng.choice((f"on {an} {word} background", f"on {an} {word} background",
                                     f"on {an} {word} background", f", {word} background", f", {word} background",
                                     f"against {an} {word} background", f"with {an} {word} background",
                                     f"on {word}", f"in front of {an} {word} background", f", {word} backdrop",
                                     f"before {an} {word} wall"))
                if phrase[0] == ",":
                    tail.append(phrase[2:])
                else:
                    text += " " + phrase
                facts.append(("background", colour))
            if studio and rng.random() < 0.9:
                facts.append(("style", "studio"))
                if rng.random() < 0.4:
                    text = rng.choice(STUDIO_PREFIXES) + " " + text
                else:
                    tail.insert(rng.randrange(len(tail) + 1), rng.choice(STUDIO_SUFFIXES))
        prefixed = text.startswith(STUDIO_PREFIXES)
        if not prefixed and rng.random() < 0.22:
            text = rng.choice(PREFIXES) + " " + text
    if noise:
        while rng.random() < 0.08:
            tail.append(rng.choice(FILLERS))
        if rng.random() < 0.02:
            tail.append("".join(rng.choice("abcdefghijklmnopqrstuvwxyz0123456789!?-'") for _ in range(rng.randint(2, 9))))
    text = ", ".join([text] + tail)
    if rng.random() < 0.07:
        text += "."
    if noise:
        text = _case(rng, text)
    scene.caption = text
    return scene


def sampler(seed):
    """A fresh random source for scenes."""
    return random.Random(seed)


def heights_of(atlas):
    """For each object of a uint8 atlas [n, s, s, 4], the share of the side its glyph covers from top to bottom."""
    rows = (atlas[..., 3] > 32).any(2)
    return [float(r.sum()) / len(r) for r in rows]


if __name__ == "__main__":
    rng = sampler(1)
    for _ in range(60):
        s = sample(rng, [0.9] * len(OBJECTS))
        print(s.caption, "|", LABELS[s.label], "|", s.facts)
