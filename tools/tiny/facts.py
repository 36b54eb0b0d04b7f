"""Whether a picture shows what its caption asserts: facts of scenes.py against what the detector reads.

Needs nothing but the standard library; test_facts.py tests it.
"""

from dataclasses import dataclass, field

from catalogue import OBJECTS, TINT_NAMES

STUDIO, PLAIN = "studio ", "plain "
APART = 0.08  # how much further left, or higher, a thing must be for a relation to hold (shorter sides)
# Single things are 0.35 to 0.41 wide when small, 0.40 to 0.68 when nothing is said and 0.76 to 0.88 when big.
SMALL, BIG = 0.45, 0.72
# Corners and sides put a thing's centre at 0.30 or less of the picture, or 0.70 or more; the centre is 0.45 to 0.55.
SIDE, CENTRE = 0.08, 0.12


@dataclass
class Seen:
    """A thing as read from a picture. Lengths in units of the shorter side; tint -1: in its own colours."""

    index: int
    x: float
    y: float
    size: float
    tint: int = -1


@dataclass
class Reading:
    """What a picture shows; label is one of catalogue.LABELS."""

    things: list = field(default_factory=list)
    label: str = ""


def colour_of(label):
    """The colour or place of a background, as facts name it."""
    return label.removeprefix(STUDIO).removeprefix(PLAIN)


def _relation(a, b, word):
    return {"left": a.x < b.x - APART, "right": a.x > b.x + APART, "above": a.y < b.y - APART,
            "below": a.y > b.y + APART}[word]


def _spot(thing, words, aspect):
    """Whether a thing is in a corner, at a side or in the centre ("top left", "left", "center")."""
    x, y = thing.x / aspect[0] - 0.5, thing.y / aspect[1] - 0.5
    tests = {"left": x < -SIDE, "right": x > SIDE, "top": y < -SIDE, "bottom": y > SIDE,
             "center": abs(x) < CENTRE and abs(y) < CENTRE}
    return all(tests[w] for w in words.split())


def holds(fact, reading, aspect=(1.0, 1.0)):
    """Whether one fact is true of a picture of this aspect (width and height in units of the shorter side)."""
    kind, subject, *rest = fact
    if kind == "background":
        return colour_of(reading.label) == subject
    if kind == "style":
        return reading.label.startswith(STUDIO)
    those = [t for t in reading.things if t.index == subject]
    if kind == "count":
        return len(those) == rest[0]
    if not those:
        return False
    if kind == "object":
        return True
    if kind == "tint":
        return all(t.tint == rest[0] for t in those)
    if kind == "spot":
        return any(_spot(t, rest[0], aspect) for t in those)
    if kind == "relation":
        return any(_relation(a, b, rest[1]) for a in those for b in reading.things if b.index == rest[0])
    if kind == "size":
        word, other = rest
        if other is None:
            return any(t.size < SMALL if word == "small" else t.size > BIG for t in those)
        return any(a.size < b.size if word == "small" else a.size > b.size
                   for a in those for b in reading.things if b.index == other)
    raise ValueError(f"no such fact: {fact}")


# The columns of the table: kinds of facts under the names people know. "place" is where a thing is, "background" is
# what it stands before.
COLUMNS = {"object": ("object",), "count": ("count",), "background": ("background",), "place": ("relation", "spot"),
           "size": ("size",), "tint": ("tint",), "style": ("style",)}


def score(scenes, readings):
    """Figures in percent over pictures: by column, all facts, pictures with every fact right, and pictures that show
    a thing nobody asked for. None where nothing was asserted."""
    right, asked = dict.fromkeys(COLUMNS, 0), dict.fromkeys(COLUMNS, 0)
    column = {kind: name for name, kinds in COLUMNS.items() for kind in kinds}
    whole = extra = 0
    for scene, reading in zip(scenes, readings, strict=True):
        results = [(f, holds(f, reading, scene.aspect)) for f in scene.facts]
        for fact, good in results:
            asked[column[fact[0]]] += 1
            right[column[fact[0]]] += good
        whole += all(good for _, good in results)
        extra += any(t.index not in [f[1] for f in scene.facts if f[0] == "object"] for t in reading.things)

    def percent(part, of):
        return round(100 * part / of, 2) if of else None

    out = {name: percent(right[name], asked[name]) for name in COLUMNS}
    out.update(all_facts=percent(sum(right.values()), sum(asked.values())),
               pictures_right=percent(whole, len(scenes)), pictures_with_extra=percent(extra, len(scenes)),
               facts=sum(asked.values()), pictures=len(scenes))
    return out


def in_words(fact):
    """A fact for people: "object cat", "relation cat left dog"."""
    kind, *rest = fact
    names = [OBJECTS[v].name if isinstance(v, int) and kind in ("object", "relation") else v for v in rest]
    if kind in ("count", "tint", "spot", "size"):
        names[0] = OBJECTS[rest[0]].name
    if kind == "tint":
        names[1] = TINT_NAMES[rest[1]]
    if kind == "size" and rest[2] is not None:
        names[2] = "beside " + OBJECTS[rest[2]].name
    if kind == "relation":
        names = [names[0], names[2], names[1]]
    return " ".join([kind, *(str(n) for n in names if n is not None)])
