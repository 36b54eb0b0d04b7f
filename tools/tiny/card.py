"""The figures of evaluate.py as a table, and the table in the model's card. Standard library only."""

import re

BEGIN = "<!-- figures: written by tools/tiny/evaluate.py --card -->"
END = "<!-- end of figures -->"

COLUMNS = [("object", "object"), ("count", "count"), ("background", "background"), ("place", "place"),
           ("size", "size"), ("tint", "tint"), ("style", "studio"), ("all_facts", "**all facts**"),
           ("pictures_right", "**every fact right**"), ("pictures_with_extra", "something extra")]


def _cell(value):
    return "–" if value is None else f"{value:.1f}"


def rows_of(result):
    """(name, figures) of every row: what was drawn, at each guidance, then what the measure itself can reach."""
    rows = [(f"guidance {g}", row) for g, row in result.get("drawn", {}).items()]
    rows += [(name, row) for name, row in result.get("parts", {}).items()]
    return rows + [(name, row) for name, row in result.get("ceiling", {}).items()]


def table(result):
    """Markdown: facts in percent, then the other measurements as sentences."""
    lines = ["| | " + " | ".join(title for _, title in COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(_cell(row[key]) for key, _ in COLUMNS) + " |" for name, row in rows_of(result)]
    first = rows_of(result)[0][1]
    lines += ["", f"Percent, over {first['pictures']} prompts with {first['facts']} asserted facts"
              + (f", {result['steps']} steps, drawn by {result['engine']}." if result.get("drawn") else ".")]
    if result.get("vae"):
        said = [f"{size}²: {v['mean']:.1f} dB (lowest tenth {v['p10']:.1f}, {v['pictures']} scenes)"
                for size, v in result["vae"].items()]
        lines += ["", "Autoencoder, PSNR of reconstructions of held-out scenes: " + "; ".join(said) + "."]
    if result.get("effects"):
        lines += [""] + [f"* {note}" for note in notes(result["effects"])]
    return "\n".join(lines)


def notes(effects):
    """What negative prompts and seeds did, in words."""
    n = effects["pictures"]
    return [
        f"Negative prompt: of {n} pictures whose prompt names no background, {effects['background_kept']} keep the one "
        "they have when the negative prompt names it.",
        f"Seeds: two seeds give pictures {effects['other_seed']:.1f} of 255 apart on average; the same seed again gives "
        + ("the same picture." if effects["same_seed"] == 0 else f"one {effects['same_seed']:.2f} apart."),
    ]


def fill(card, result):
    """The card's text with the table between its marks."""
    if card.count(BEGIN) != 1 or card.count(END) != 1 or card.index(BEGIN) > card.index(END):
        raise SystemExit(f"the card needs one line {BEGIN!r} and, after it, one line {END!r}")
    return re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: f"{BEGIN}\n{table(result)}\n{END}", card,
                  flags=re.DOTALL)
