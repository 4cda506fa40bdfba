"""Drawing: one style for all figures, and the helpers that they share.

A figure is a pair of functions: rows(names, found) reads records from stage tables, draw(rows, names) draws exactly
these records. The builder writes the same records as CSV beside the picture. names: model names in column order;
found {(model, stage): Artifact}. Nothing is computed here but positions on paper.
"""
from collections import namedtuple
from operator import itemgetter
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D

from lib.artifacts import UserError
from report import declared

plt.style.use(Path(__file__).with_name("style.mplstyle"))

Figure = namedtuple("Figure", "name title caption rows draw")

BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK = COLORS = plt.rcParams["axes.prop_cycle"].by_key()["color"]
GREY, PALE = "#8C8C8C", "#D9D9D9"
VERDICT = {"reproduced": (GREEN, "\u2713"), "undecided": (ORANGE, "?"), "contradicted": (RED, "\u2717"),
           "not testable here": (PALE, "\u2013")}


# --- records ------------------------------------------------------------------------------------------------
def table(artifact, name):
    """A table of a stage, or an empty list where the suite gave the stage nothing to put in it."""
    listed = artifact.manifest["outputs"]
    return artifact.table(name) if f"{name}.json" in listed or f"{name}.jsonl" in listed else []


def records(names, found, stage, name, **equal):
    """(model, record) of a table of every model, where the record's keys equal those given."""
    return [(model, record) for model in names for record in series(table(found[model, stage], name), **equal)]


def series(rows, by=None, **equal):
    """Rows whose keys equal those given, in the order of the key `by`."""
    mine = [row for row in rows if all(row[key] == value for key, value in equal.items())]
    return sorted(mine, key=itemgetter(by)) if by else mine


def by_model(rows, names):
    return [(name, series(rows, model=name)) for name in names]


def pick(record, *keys):
    return {key: record[key] for key in keys}


def estimate(record):
    return pick(record, "value", "low", "high", "n")


def parts(what, found):
    """An estimate as the columns <what>, <what>_low and <what>_high."""
    return {f"{what}{end}": found[key] for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))}


def published(study):
    """What data/published.json has of one study."""
    return declared.published()[study]


# --- captions -----------------------------------------------------------------------------------------------
def sources(found, keys, n):
    """Last sentence of a caption: stages, digests and n."""
    read, said = [key for key in keys if key in found], []
    for stage in sorted({stage for _, stage in read}):
        digests = [f"{'model set' if name == '+' else name} {found[name, stage].digest[:12]}"
                   for name, at in read if at == stage]
        said.append(f"stage {stage}, digest {', '.join(digests)}")
    return f"S{'; '.join(said)[1:]}; n = {n}."


def caption(names, found, stage, n):
    """`sources` of one stage of every model."""
    return sources(found, [(name, stage) for name in names], n)


def counted(rows, names, what):
    """How many rows each model has, said once where they agree."""
    counts = [len(mine) for _, mine in by_model(rows, names)]
    return f"{counts[0]} {what}" if len(set(counts)) == 1 else f"{' and '.join(map(str, counts))} {what}"


def least(rows):
    counts = col(rows, "n")
    return str(counts[0]) if len(set(counts)) == 1 else f"{min(counts)} to {max(counts)}"


def each(rows, names, what, of):
    """`40 behaviours, 36 inputs each`: how many rows each model has, and the least n among them."""
    return f"{counted(rows, names, what)}, {least(rows)} {of} each"


# --- text ---------------------------------------------------------------------------------------------------
def number(value, digits):
    """Fixed decimals with a proper minus sign, and no negative zero."""
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "\u2212")


def shorten(text, limit=34):
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


# --- pictures -----------------------------------------------------------------------------------------------
def panels(names, height, width=4.6, rows=1, **options):
    """One column per model; returns figure and axes[row][column]."""
    return plt.subplots(rows, len(names), figsize=(width * len(names), height), squeeze=False, **options)


def listing(rows, names, key, size, by, **options):
    """A panel per model with one line per row, in the order of by(row), named by `key`: figure, [(axis, rows)]."""
    shown = [(name, sorted(mine, key=by)) for name, mine in by_model(rows, names)]
    figure, axes = panels(names, max(2.6, 1.4 + 0.155 * max(len(mine) for _, mine in shown)))      # room for a legend
    for axis, (name, mine) in zip(axes[0], shown):
        axis.set(title=name, ylim=(-0.8, len(mine) - 0.2), **options)
        axis.set_yticks(range(len(mine)), map(shorten, col(mine, key)), fontsize=size)
    return figure, [(axis, mine) for axis, (_, mine) in zip(axes[0], shown)]


def col(rows, key):
    return [row[key] for row in rows]


def spread(rows, what=None):
    """[below, above]: how far an interval reaches from `value`, or from `what`, as errorbar wants it."""
    value, *ends = ("value", "low", "high") if what is None else (what, f"{what}_low", f"{what}_high")
    return [[abs(row[value] - row[end]) for row in rows] for end in ends]


def band(axis, x, rows, color, label=None, marker="o"):
    """A line with its interval as a band."""
    axis.fill_between(x, col(rows, "low"), col(rows, "high"), color=color, alpha=0.15, linewidth=0)
    axis.plot(x, col(rows, "value"), "-", marker=marker, color=color, label=label)


def mark(label, **look):
    """Entry of a legend."""
    return Line2D([], [], label=label, **look)


def below(figure, shown, ncols):
    """Legend under all panels: of entries, or of what is labelled on an axis; of at most so many columns, and of fewer
    where the figure is too narrow, as with one model."""
    handles = shown if isinstance(shown, list) else shown.get_legend_handles_labels()[0]
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=ncols)
    if ncols > 1 and legend.get_tightbbox(figure.canvas.get_renderer()).width > figure.bbox.width:
        legend.remove()
        below(figure, handles, ncols - 1)


def save(figure, path, smoke):
    """PNG whose bytes depend on the drawing alone; a smoke run's figures say so across the picture."""
    if smoke:
        figure.text(0.5, 0.5, "SMOKE", fontsize=64, color=RED, alpha=0.25, rotation=25, weight="bold", ha="center",
                    va="center", zorder=100)
    try:
        figure.savefig(path, metadata={"Software": None})
    except ValueError as error:                            # a name between two $ that is no formula
        raise UserError(f"{path}: cannot be drawn ({' '.join(str(error).split())[:160]})") from None
    finally:
        plt.close(figure)
