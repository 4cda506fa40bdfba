"""The figures in the order of the page: verdicts, the three studies, layers."""
from matplotlib.patches import Patch, Rectangle

from report import figures_alignment, figures_composition, figures_preferences, figures_reliability
from report.claims import LEFT_OUT, no_time
from report.draw import (BLUE, Figure, GREEN, GREY, PINK, RED, VERDICT, below, by_model, col, estimate, number,
                         panels, pick, plt, records, series, sources, table)


# --- verdicts -----------------------------------------------------------------------------------------------
def verdict_rows(names, found, claims, cells):
    rows = []
    for claim in claims:
        for name in names:
            cell = cells[claim["id"], name]
            rows.append({"claim": claim["id"], "title": claim["title"], "model": name, "verdict": cell["verdict"],
                         **estimate(cell["estimate"] or dict.fromkeys(("value", "low", "high", "n"), "")),
                         **pick(claim, "unit", "digits"), "part": cell["part"], **pick(claim, "stage", "key"),
                         "digest": cell["digest"], "left_out": no_time(cell)})
    stages = set(col(claims, "stage"))
    keys = [key for key in found if key[1] in stages]
    return rows, sources(found, keys, f"{len(claims)} claims on {len(names)} model" + "s" * (len(names) > 1))


def style(verdict):
    """Fill of a cell: told apart in grey too, where green and red are one shade."""
    color, _ = VERDICT[verdict]
    if verdict == "contradicted":
        return {"facecolor": "white", "edgecolor": color, "linewidth": 1.4}
    return {"facecolor": color, "linewidth": 0, "alpha": 0.8 if verdict == "reproduced" else 0.6}


def verdict_draw(rows, names):
    cells = {(row["claim"], row["model"]): row for row in rows}

    def said(claim, name):
        row = cells[claim, name]
        text = LEFT_OUT if row["left_out"] else VERDICT[row["verdict"]][1]
        if row["value"] != "":
            value, low, high = (number(row[key], row["digits"]) for key in ("value", "low", "high"))
            text += f"  {value}  [{low}, {high}]"
        return row["verdict"], text

    claims = list(dict.fromkeys((row["claim"], row["title"]) for row in rows))
    figure, axis = plt.subplots(figsize=(4.4 + 2.4 * len(names), 0.6 + 0.29 * len(claims)))
    ledger(axis, claims, names, said)
    axis.set_xticklabels(names, weight="bold")
    return figure


def ledger(axis, claims, columns, said):
    """A row per claim (id, title), a column per model; said(id, column) gives verdict and text of a cell. Labels of the
    columns are the caller's."""
    for y, (claim, title) in enumerate(claims):
        axis.text(-0.04, y, f"{claim}  {title}", ha="right", va="center")
        for x, column in enumerate(columns):
            verdict, text = said(claim, column)
            axis.add_patch(Rectangle((x + 0.02, y - 0.43), 0.96, 0.86, **style(verdict)))
            axis.text(x + 0.5, y, text, ha="center", va="center", color="black")
        if y and claim[0] != claims[y - 1][0][0]:                                # the next paper's
            axis.axhline(y - 0.5, color="#444444", linewidth=0.8)
    axis.set(xlim=(0, len(columns)), ylim=(len(claims) - 0.5, -0.5), yticks=[],
             xticks=[x + 0.5 for x in range(len(columns))])
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    marks = [Patch(**style(word), label=f"{sign} {word}") for word, (_, sign) in VERDICT.items()]
    axis.legend(handles=marks, loc="upper center", bbox_to_anchor=(0.2, -0.01), ncols=4, handlelength=1,
                columnspacing=1.2)


# --- layers -------------------------------------------------------------------------------------------------
def layers_rows(names, found):
    rows = []
    for name in names:
        rows += [{"model": name, **pick(record, "kind", "what", "layer", "value"), "chosen": ""}
                 for _, record in records([name], found, "01_extract", "layers")]
        settings = table(found[name, "02_tune"], "settings")
        rows += [{"model": name, "kind": "behaviour", "what": "steerability", **pick(record, "layer", "value"),
                  "chosen": record["layer"] == settings["behaviour"]["layer"]}
                 for _, record in records([name], found, "02_tune", "layers", what="steerability", scale="matched")]
    keys = [(name, stage) for name in names for stage in ("01_extract", "02_tune")]
    n = "all concepts above, the tuning items of the behaviours that vote on the layer below"
    return rows, rows and sources(found, keys, n)


def layers_draw(rows, names):
    figure, axes = panels(names, 5.0, rows=2, sharey="row")
    styles = {"trait": (BLUE, "o"), "behaviour": (RED, "s"), "relation": (GREEN, "D"), "value": (PINK, "^")}
    least = min(col(series(rows, what="split_half_cosine"), "value"), default=0)       # halves can disagree
    for (upper, lower), (name, mine) in zip(axes.T, by_model(rows, names)):
        for kind in [kind for kind in styles if kind in col(rows, "kind")]:
            (color, marker), line = styles[kind], series(mine, "layer", kind=kind, what="split_half_cosine")
            upper.plot(col(line, "layer"), col(line, "value"), color=color, marker=marker, label=kind)
        line = series(mine, "layer", what="steerability")
        lower.plot(col(line, "layer"), col(line, "value"), color=styles["behaviour"][0], marker=styles["behaviour"][1])
        for row in series(line, chosen=True):
            lower.axvline(row["layer"], color=GREY, linestyle="--", linewidth=1)
        if not line:
            lower.text(0.5, 0.5, "no behaviours", transform=lower.transAxes, ha="center", color=GREY)
        upper.set(title=name, ylim=(min(0, least) - 0.05, 1.05))
        lower.set(xlabel="layer (0 = first block)")
    axes[0][0].set_ylabel("split-half cosine, mean")
    axes[1][0].set_ylabel("steerability of behaviours,\ntuning split")
    below(figure, axes[0][0], 4)
    return figure


VERDICTS = Figure("verdicts", "Verdicts",
                  "Each cell: the estimate that decides, with its 95 % interval; the rules are listed with the "
                  "claims.", verdict_rows, verdict_draw)
LAYERS = Figure("layers", "Layers",
                "Agreement of vectors made from two halves of the pairs, and mean steerability per layer; dashed: "
                "the layer that was chosen.", layers_rows, layers_draw)
ALL = (VERDICTS, *figures_preferences.FIGURES, *figures_composition.FIGURES, *figures_reliability.FIGURES,
       *figures_alignment.FIGURES, LAYERS)
