"""The figures in the order of the page: verdicts, the three studies, layers."""

from matplotlib.patches import Patch, Rectangle

from report.draw import BLUE, Figure, GREEN, GREY, PINK, RED, VERDICT, by_model, number, panels, plt, sources, table
from report import figures_alignment
from report import figures_preferences
from report import figures_reliability


# --- verdicts ---
def verdict_rows(claims, names, cells, found):
    rows = []
    for claim in claims:
        for name in names:
            cell = cells[claim["id"], name]
            estimate = cell["estimate"] or dict.fromkeys(("value", "low", "high", "n"), "")
            rows.append(
                {
                    "claim": claim["id"],
                    "title": claim["title"],
                    "model": name,
                    "verdict": cell["verdict"],
                    **{key: estimate[key] for key in ("value", "low", "high", "n")},
                    "unit": claim["unit"],
                    "digits": claim["digits"],
                    "part": cell["part"],
                    "stage": claim["stage"],
                    "key": claim["key"],
                    "digest": cell["digest"],
                }
            )
    stages = {claim["stage"] for claim in claims}
    keys = [key for key in found if key[1] in stages]
    return rows, sources(found, keys, f"{len(claims)} claims on {len(names)} model" + "s" * (len(names) > 1))


def style(verdict):
    """Fill of a cell: told apart in grey too, where green and red are one shade."""
    color, _ = VERDICT[verdict]
    if verdict == "not reproduced":
        return {"facecolor": "white", "edgecolor": color, "linewidth": 1.4}
    return {"facecolor": color, "linewidth": 0, "alpha": {"reproduced": 0.8, "partly": 0.6}.get(verdict, 0.6)}


def verdict_draw(rows, names):
    claims = list(dict.fromkeys((row["claim"], row["title"]) for row in rows))
    figure, axis = plt.subplots(figsize=(4.4 + 2.4 * len(names), 0.6 + 0.29 * len(claims)))
    cells = {(row["claim"], row["model"]): row for row in rows}
    for y, (claim, title) in enumerate(claims):
        axis.text(-0.04, y, f"{claim}  {title}", ha="right", va="center")
        for x, name in enumerate(names):
            row = cells[claim, name]
            sign = VERDICT[row["verdict"]][1]
            axis.add_patch(Rectangle((x + 0.02, y - 0.43), 0.96, 0.86, **style(row["verdict"])))
            text = (
                sign
                if row["value"] == ""
                else "{}  {}  [{}, {}]".format(
                    sign, *(number(row[key], row["digits"]) for key in ("value", "low", "high"))
                )
            )
            axis.text(x + 0.5, y, text, ha="center", va="center", color="black")
    papers = [claim[0] for claim, _ in claims]
    for y in range(1, len(claims)):
        if papers[y] != papers[y - 1]:
            axis.axhline(y - 0.5, color="#444444", linewidth=0.8)
    axis.set(
        xlim=(0, len(names)), ylim=(len(claims) - 0.5, -0.5), yticks=[], xticks=[x + 0.5 for x in range(len(names))]
    )
    axis.set_xticklabels(names, weight="bold")
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    marks = [Patch(**style(word), label=f"{sign} {word}") for word, (_, sign) in VERDICT.items()]
    axis.legend(
        handles=marks, loc="upper center", bbox_to_anchor=(0.2, -0.01), ncols=4, handlelength=1, columnspacing=1.2
    )
    return figure


# --- layers ---
def layers_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "01_extract"], "layers"):
            rows.append(
                {"model": name, **{key: record[key] for key in ("kind", "what", "layer", "value")}, "chosen": ""}
            )
        settings = table(found[name, "02_tune"], "settings")
        for record in table(found[name, "02_tune"], "layers"):
            if record["what"] == "steerability" and record["scale"] == "matched":
                rows.append(
                    {
                        "model": name,
                        "kind": "behaviour",
                        "what": "steerability",
                        "layer": record["layer"],
                        "value": record["value"],
                        "chosen": record["layer"] == settings["behaviour"]["layer"],
                    }
                )
    return rows, rows and sources(
        found,
        [(name, stage) for name in names for stage in ("01_extract", "02_tune")],
        "all concepts above, the tuning items of the behaviours that vote on the layer below",
    )


def layers_draw(rows, names):
    figure, axes = panels(names, 5.0, rows=2, sharey="row")
    kinds = [k for k in ("trait", "behaviour", "relation", "value") if any(row["kind"] == k for row in rows)]
    for column, (name, mine) in enumerate(by_model(rows, names)):
        for kind, color, marker in zip(kinds, (BLUE, RED, GREEN, PINK), "osD^"):
            line = sorted(
                (row for row in mine if row["kind"] == kind and row["what"] == "split_half_cosine"),
                key=lambda row: row["layer"],
            )
            axes[0][column].plot(
                [row["layer"] for row in line], [row["value"] for row in line], color=color, marker=marker, label=kind
            )
        line = sorted((row for row in mine if row["what"] == "steerability"), key=lambda row: row["layer"])
        axes[1][column].plot([row["layer"] for row in line], [row["value"] for row in line], color=RED, marker="s")
        for row in line:
            if row["chosen"]:
                axes[1][column].axvline(row["layer"], color=GREY, linestyle="--", linewidth=1)
        axes[0][column].set(title=name, ylim=(-0.05, 1.05))
        axes[1][column].set(xlabel="layer (0 = first block)")
    axes[0][0].set_ylabel("split-half cosine, mean")
    axes[1][0].set_ylabel("steerability of behaviours,\ntuning split")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


VERDICTS = Figure(
    "verdicts",
    "Verdicts",
    "Each cell: the estimate that decides, with its 95 % interval; the rules are listed with the claims.",
    None,
    verdict_draw,
)
LAYERS = Figure(
    "layers",
    "Layers",
    "Agreement of vectors made from two halves of the pairs, and mean steerability "
    "per layer; dashed: the layer that was chosen.",
    layers_rows,
    layers_draw,
)
ALL = (VERDICTS, *figures_preferences.FIGURES, *figures_reliability.FIGURES, *figures_alignment.FIGURES, LAYERS)
