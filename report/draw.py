"""Drawing: one style for all figures, and the helpers that they share.

A figure is a pair of functions: rows(names, found) reads records from stage tables, draw(rows, names) draws exactly
these records. The builder writes the same records as CSV beside the picture. names: model names in column order;
found {(model, stage): Artifact}. Nothing is computed here but positions on paper.
"""

from collections import namedtuple
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

plt.style.use(Path(__file__).with_name("style.mplstyle"))

Figure = namedtuple("Figure", "name title caption rows draw")

BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = plt.rcParams["axes.prop_cycle"].by_key()["color"]
GREY, PALE = "#8C8C8C", "#D9D9D9"
VERDICT = {
    "reproduced": (GREEN, "\u2713"),
    "partly": (ORANGE, "~"),
    "not reproduced": (RED, "\u2717"),
    "not testable here": (PALE, "\u2013"),
}


def save(figure, path, smoke):
    """PNG whose bytes depend on the drawing alone; a smoke run's figures say so across the picture."""
    if smoke:
        figure.text(
            0.5,
            0.5,
            "SMOKE",
            fontsize=64,
            color=RED,
            alpha=0.25,
            rotation=25,
            weight="bold",
            ha="center",
            va="center",
            zorder=100,
        )
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def sources(found, keys, n):
    """Last sentence of a caption: stages, digests and n."""
    read = [(name, stage) for name, stage in keys if (name, stage) in found]
    parts = []
    for stage in sorted({stage for _, stage in read}):
        digests = ", ".join(
            f"{'model set' if name == '+' else name} {found[name, stage].digest[:12]}"
            for name, at in read
            if at == stage
        )
        parts.append(f"stage {stage}, digest {digests}")
    return f"S{'; '.join(parts)[1:]}; n = {n}."


def number(value, digits):
    """Fixed decimals with a proper minus sign, and no negative zero."""
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\u2212")


def table(artifact, name):
    """A table of a stage, or an empty list where the suite gave the stage nothing to put in it."""
    listed = artifact.manifest["outputs"]
    return artifact.table(name) if f"{name}.json" in listed or f"{name}.jsonl" in listed else []


def counted(rows, names, what):
    """How many rows each model has, said once where they agree."""
    counts = [sum(row["model"] == name for row in rows) for name in names]
    return f"{counts[0]} {what}" if len(set(counts)) == 1 else f"{' and '.join(map(str, counts))} {what}"


def least(counts):
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def each(rows, names, what, of):
    """`40 behaviours, 36 inputs each`: how many rows each model has, and the least n among them."""
    return f"{counted(rows, names, what)}, {least([row['n'] for row in rows])} {of} each"


def caption(names, found, stage, n):
    """`sources` of one stage of every model."""
    return sources(found, [(name, stage) for name in names], n)


def by_model(rows, names):
    return [(name, [row for row in rows if row["model"] == name]) for name in names]


def panels(names, height, width=4.6, rows=1, **options):
    """One column per model; returns figure and axes[row][column]."""
    return plt.subplots(rows, len(names), figsize=(width * len(names), height), squeeze=False, **options)


def tall(rows, names):
    """Height in inches of a panel with one line per row."""
    return 1.4 + 0.155 * max(len(mine) for _, mine in by_model(rows, names))


def band(axis, x, rows, color, label=None, marker="o", line="-", keys=("value", "low", "high")):
    """A line with its interval as a band."""
    value, low, high = keys
    axis.fill_between(x, [r[low] for r in rows], [r[high] for r in rows], color=color, alpha=0.15, linewidth=0)
    axis.plot(x, [r[value] for r in rows], line, marker=marker, color=color, label=label)


def shorten(text, limit=34):
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"
