"""The report's figures. Each is a pair of functions: rows(names, found) reads records from stage tables,
draw(rows, names) draws exactly these records. The builder writes the same records as CSV beside the picture.

names  model names in column order; found {(model, stage): Artifact}. Nothing is computed here but positions
on paper.
"""

from collections import namedtuple
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.lines import Line2D  # noqa: E402
from matplotlib.patches import Patch, Rectangle  # noqa: E402

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
    stages = sorted({stage for _, stage in read})
    digests = ", ".join(
        f"{'model set' if name == '+' else name} {found[name, stage].digest[:12]}"
        + (f" ({stage})" if len(stages) > 1 else "")
        for name, stage in read
    )
    return f"Stage {' and '.join(stages)}, digest {digests}; n = {n}."


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
    axis.fill_between(
        x, [r[low] for r in rows], [r[high] for r in rows], color=color, alpha=0.15, linewidth=0
    )
    axis.plot(x, [r[value] for r in rows], line, marker=marker, color=color, label=label)


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
                }
            )
    stages = sorted({claim["stage"] for claim in claims} & {stage for _, stage in found})
    return rows, f"Stages {', '.join(stages)}; digests and n of every cell are listed below."


def verdict_draw(rows, names):
    claims = list(dict.fromkeys((row["claim"], row["title"]) for row in rows))
    figure, axis = plt.subplots(figsize=(4.4 + 2.4 * len(names), 0.6 + 0.29 * len(claims)))
    cells = {(row["claim"], row["model"]): row for row in rows}
    for y, (claim, title) in enumerate(claims):
        axis.text(-0.04, y, f"{claim}  {title}", ha="right", va="center")
        for x, name in enumerate(names):
            row = cells[claim, name]
            color, sign = VERDICT[row["verdict"]]
            axis.add_patch(
                Rectangle(
                    (x + 0.02, y - 0.43),
                    0.96,
                    0.86,
                    color=color,
                    linewidth=0,
                    alpha=0.9 if row["value"] != "" else 0.6,
                )
            )
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
        xlim=(0, len(names)),
        ylim=(len(claims) - 0.5, -0.5),
        yticks=[],
        xticks=[x + 0.5 for x in range(len(names))],
    )
    axis.set_xticklabels(names, weight="bold")
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    marks = [Patch(color=color, label=f"{sign} {word}") for word, (color, sign) in VERDICT.items()]
    axis.legend(
        handles=marks,
        loc="upper center",
        bbox_to_anchor=(0.2, -0.01),
        ncols=4,
        handlelength=1,
        columnspacing=1.2,
    )
    return figure


# --- preferences ---
def expression_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "03_transfer"], "traits"):
            if record["task"] == "question":
                rows.append(
                    {
                        "model": name,
                        "trait": record["trait"],
                        "scope": record["scope"],
                        "n": record["n"],
                        **{
                            arm: record["expression"][arm]
                            for arm in ("unsteered", "steered", "prompted", "random")
                        },
                        "coherence": record["coherence"]["steered"],
                    }
                )
    return rows, rows and caption(
        names,
        found,
        "03_transfer",
        f"{counted(rows, names, 'traits')}, {least([r['n'] for r in rows])} held-out questions each",
    )


def expression_draw(rows, names):
    figure, axes = panels(names, tall(rows, names))
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        mine = sorted(mine, key=lambda row: row["steered"])
        for y, row in enumerate(mine):
            color = BLUE if row["scope"] == "global" else ORANGE
            axis.plot([row["unsteered"], row["steered"]], [y, y], color=color, linewidth=1.2, alpha=0.6)
            axis.plot(row["unsteered"], y, "|", color=GREY, markersize=7)
            axis.plot(row["steered"], y, "o", color=color)
            axis.plot(row["prompted"], y, "D", color="none", markeredgecolor=BLACK, markersize=4)
            axis.plot(row["coherence"], y, ".", color=PINK, markersize=4)
        axis.set(title=name, xlim=(-3, 103), ylim=(-0.8, len(mine) - 0.2), xlabel="points of 100")
        axis.set_yticks(range(len(mine)), [row["trait"] for row in mine], fontsize=7)
    marks = [
        Line2D([], [], marker="o", color=BLUE, label="steered, global trait"),
        Line2D([], [], marker="o", color=ORANGE, label="steered, local trait"),
        Line2D([], [], marker="|", linestyle="", color=GREY, label="unsteered", markersize=8),
        Line2D([], [], marker="D", linestyle="", color="none", markeredgecolor=BLACK, label="prompted"),
        Line2D([], [], marker=".", linestyle="", color=PINK, label="coherence, steered"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=5)
    return figure


def transfer_rows(names, found):
    rows = []
    for name in names:
        artifact = found[name, "03_transfer"]
        if "traits" not in artifact.results:
            continue
        for record in artifact.table("traits"):
            rows.append(
                {
                    "model": name,
                    "trait": record["trait"],
                    "scope": record["scope"],
                    "task": record["task"],
                    **{key: record["gain"][key] for key in ("value", "low", "high", "n")},
                }
            )
        for task, gain in artifact.results["traits"]["gain"].items():
            rows.append(
                {
                    "model": name,
                    "trait": "mean",
                    "scope": "",
                    "task": task,
                    **{key: gain[key] for key in ("value", "low", "high", "n")},
                }
            )
    return rows, rows and caption(
        names,
        found,
        "03_transfer",
        f"{counted([r for r in rows if r['trait'] != 'mean' and r['task'] == 'question'], names, 'traits')}, "
        f"{least([r['n'] for r in rows if r['trait'] != 'mean'])} prompts per trait and task",
    )


def transfer_draw(rows, names):
    tasks = [t for t in ("question", "summary", "email") if any(row["task"] == t for row in rows)]
    figure, axes = panels(names, 3.4, sharey=True)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for trait in dict.fromkeys(row["trait"] for row in mine if row["trait"] != "mean"):
            line = sorted(
                (row for row in mine if row["trait"] == trait), key=lambda row: tasks.index(row["task"])
            )
            axis.plot(
                [tasks.index(row["task"]) for row in line],
                [row["value"] for row in line],
                color=BLUE if line[0]["scope"] == "global" else ORANGE,
                linewidth=0.8,
                alpha=0.45,
            )
        mean = sorted(
            (row for row in mine if row["trait"] == "mean"), key=lambda row: tasks.index(row["task"])
        )
        x = [tasks.index(row["task"]) for row in mean]
        axis.errorbar(
            x,
            [row["value"] for row in mean],
            yerr=[[row["value"] - row["low"] for row in mean], [row["high"] - row["value"] for row in mean]],
            color=BLACK,
            marker="o",
            capsize=3,
            linewidth=2,
        )
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=name, xlim=(-0.2, len(tasks) - 0.8))
        axis.set_xticks(range(len(tasks)), tasks)
    axes[0][0].set_ylabel("gain in expression, points")
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, label="global trait"),
            Line2D([], [], color=ORANGE, label="local trait"),
            Line2D([], [], color=BLACK, marker="o", label="mean, 95 % interval"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def composition_rows(names, found):
    rows = [
        {
            "model": name,
            "method": record["method"],
            "task": record["task"],
            "k": record["k"],
            **{key: record["expression"][key] for key in ("value", "low", "high", "n")},
            "coherence": record["coherence"]["value"],
        }
        for name in names
        for record in table(found[name, "04_compose"], "curves")
    ]
    return rows, rows and caption(
        names, found, "04_compose", f"{least([row['n'] for row in rows])} sets of traits"
    )


def composition_draw(rows, names):
    methods = list(dict.fromkeys(row["method"] for row in rows))
    figure, axes = panels(names, 5.0, rows=2, sharex=True, sharey="row")
    colors = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK, GREY)
    for column, (name, mine) in enumerate(by_model(rows, names)):
        for index, method in enumerate(methods):
            line = sorted((row for row in mine if row["method"] == method), key=lambda row: row["k"])
            k = [row["k"] for row in line]
            band(axes[0][column], k, line, colors[index % 8], method, marker="osD^vP*X"[index % 8])
            axes[1][column].plot(
                k, [row["coherence"] for row in line], color=colors[index % 8], marker="osD^vP*X"[index % 8]
            )
        axes[0][column].set(title=name)
        axes[1][column].set(
            xlabel="traits at once, k", xticks=sorted({row["k"] for row in rows}), ylim=(-3, 103)
        )
    axes[0][0].set_ylabel("expression per trait")
    axes[1][0].set_ylabel("coherence")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


# --- reliability ---
def steerability_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "05_reliability"], "behaviours"):
            rows.append(
                {
                    "model": name,
                    "behaviour": record["name"],
                    "n": record["n"],
                    "mean": record["slope"]["value"],
                    "low": record["slope"]["low"],
                    "high": record["slope"]["high"],
                    **{key: record["quantiles"][key] for key in ("p05", "p25", "p50", "p75", "p95")},
                    "anti_steerable": record["anti_steerable"],
                    "random_p95": record["random"]["p95"],
                    "steerable": record["steerable"],
                }
            )
    return rows, rows and caption(
        names,
        found,
        "05_reliability",
        f"{counted(rows, names, 'behaviours')}, {least([r['n'] for r in rows])} inputs each",
    )


def steerability_draw(rows, names):
    figure, axes = panels(names, tall(rows, names))
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        mine = sorted(mine, key=lambda row: row["mean"])
        for y, row in enumerate(mine):
            color = BLUE if row["steerable"] else GREY
            axis.plot(
                [-row["random_p95"], row["random_p95"]],
                [y, y],
                color=PALE,
                linewidth=5.5,
                solid_capstyle="butt",
            )
            axis.plot([row["p05"], row["p95"]], [y, y], color=color, linewidth=0.8)
            axis.plot([row["p25"], row["p75"]], [y, y], color=color, linewidth=3, solid_capstyle="butt")
            axis.plot(row["mean"], y, "o", color="white", markeredgecolor=BLACK, markersize=4)
            axis.text(
                1.005,
                y,
                f"{100 * row['anti_steerable']:.0f} %",
                transform=axis.get_yaxis_transform(),
                fontsize=6.5,
                va="center",
                color=RED if row["anti_steerable"] > 0.1 else GREY,
            )
        axis.axvline(0, color=BLACK, linewidth=0.8)
        axis.set(title=name, ylim=(-0.8, len(mine) - 0.2), xlabel="slope, nats per unit of strength")
        axis.set_yticks(range(len(mine)), [shorten(row["behaviour"]) for row in mine], fontsize=6.5)
    figure.legend(
        handles=[
            Line2D([], [], color=BLUE, linewidth=3, label="middle half of inputs (thin: 5 to 95 %)"),
            Line2D([], [], color=GREY, linewidth=3, label="not above random"),
            Line2D([], [], color=PALE, linewidth=5, label="random vectors' means, 5 to 95 %"),
            Line2D([], [], marker="o", color="white", markeredgecolor=BLACK, linestyle="", label="mean"),
            Line2D([], [], linestyle="", label="right: share anti-steerable"),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def shorten(text, limit=34):
    return text if len(text) <= limit else text[: limit - 1] + "\u2026"


def bias_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "05_reliability"], "behaviours"):
            rows.append(
                {
                    "model": name,
                    "behaviour": record["name"],
                    "n": record["n"],
                    **{
                        key: record["bias"][key]
                        for key in ("letter", "yes_marginal", "unexplained", "permuted")
                    },
                    "swap_flips_sign": record["swap"]["flips_sign"] if record["swap"] else "",
                }
            )
    return rows, rows and caption(
        names,
        found,
        "05_reliability",
        f"{counted(rows, names, 'behaviours')}, {least([r['n'] for r in rows])} inputs each",
    )


def bias_draw(rows, names):
    figure, axes = panels(names, tall(rows, names))
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        mine = sorted(mine, key=lambda row: row["letter"] + row["yes_marginal"])
        y = range(len(mine))
        axis.barh(y, [row["letter"] for row in mine], color=BLUE, height=0.8)
        axis.barh(
            y,
            [row["yes_marginal"] for row in mine],
            left=[row["letter"] for row in mine],
            color=ORANGE,
            height=0.8,
        )
        axis.barh(
            y,
            [row["unexplained"] for row in mine],
            left=[row["letter"] + row["yes_marginal"] for row in mine],
            color="#F0F0F0",
            height=0.8,
        )
        axis.plot([row["permuted"] for row in mine], y, "|", color=BLACK, markersize=6)
        axis.plot(
            *zip(
                *[(row["swap_flips_sign"], i) for i, row in enumerate(mine) if row["swap_flips_sign"] != ""]
                or [(float("nan"), 0)]
            ),
            "x",
            color=RED,
            markersize=4,
        )
        axis.set(
            title=name, xlim=(0, 1), ylim=(-0.8, len(mine) - 0.2), xlabel="share of the variance of slopes"
        )
        axis.set_yticks(y, [shorten(row["behaviour"]) for row in mine], fontsize=6.5)
    figure.legend(
        handles=[
            Patch(color=BLUE, label="option letter"),
            Patch(color=ORANGE, label="Yes/No on top"),
            Patch(color="#F0F0F0", label="unexplained"),
            Line2D([], [], marker="|", linestyle="", color=BLACK, label="permuted labels"),
            Line2D(
                [], [], marker="x", linestyle="", color=RED, label="pairs whose slope changes sign on swap"
            ),
        ],
        loc="outside lower center",
        ncols=3,
    )
    return figure


def id_ood_rows(names, found):
    rows = [
        {
            "model": name,
            "behaviour": record["behaviour"],
            "shift": record["shift"].replace("->", " to "),
            "id": record["id"],
            "ood": record["ood"],
            "distance": record["distance"],
            "relative": "" if record["relative"] is None else record["relative"],
        }
        for name in names
        for record in table(found[name, "03_transfer"], "shifts")
        if record["plotted"]
    ]
    return rows, rows and caption(
        names, found, "03_transfer", f"{len({row['behaviour'] for row in rows})} behaviours"
    )


def id_ood_draw(rows, names):
    shifts = list(dict.fromkeys(row["shift"] for row in rows))
    figure, axes = panels(names, 4.2, sharex=True, sharey=True)
    colors, marks = (BLUE, RED, GREEN, PINK, ORANGE, SKY), "osD^vP"
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for index, shift in enumerate(shifts):
            dots = [row for row in mine if row["shift"] == shift]
            axis.plot(
                [row["id"] for row in dots],
                [row["ood"] for row in dots],
                marks[index % 6],
                linestyle="",
                color=colors[index % 6],
                alpha=0.75,
                label=shift,
            )
        ends = [min(min(r["id"], r["ood"]) for r in rows), max(max(r["id"], r["ood"]) for r in rows)]
        axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.axvline(0, color=GREY, linewidth=0.6)
        axis.set(title=name, xlabel="steerability, same prompt (nats per unit)")
    axes[0][0].set_ylabel("steerability, shifted prompt")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3)
    return figure


def grid_rows(names, found):
    rows = []
    for name in names:
        stage = found[name, "03_transfer"]
        means = stage.results.get("behaviours", {}).get("mean_steerability", {})
        for vector, inputs in stage.config["pairs"] if means else []:
            rows.append({"model": name, "vector": vector, "inputs": inputs, "value": means[f"{vector}->{inputs}"]})
    behaviours = {r["behaviour"] for name in names for r in table(found[name, "03_transfer"], "shifts")}
    return rows, rows and caption(names, found, "03_transfer", f"{len(behaviours)} behaviours")


def grid_draw(rows, names):
    settings = list(dict.fromkeys(row["vector"] for row in rows))
    figure, axes = panels(names, 3.9, sharey=True)
    limit = max(abs(row["value"]) for row in rows) or 1
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        cells = {(row["vector"], row["inputs"]): row["value"] for row in mine}
        values = [[cells.get((v, i), float("nan")) for i in settings] for v in settings]
        axis.imshow(values, cmap="RdBu", vmin=-limit, vmax=limit)
        for y, line in enumerate(values):
            for x, value in enumerate(line):
                axis.text(x, y, number(value, 2), ha="center", va="center", fontsize=8,
                          color="white" if abs(value) > 0.6 * limit else BLACK)
        axis.set(title=name, xlabel="inputs", xticks=range(len(settings)), yticks=range(len(settings)))
        axis.set_xticklabels(settings, rotation=30, ha="right")
        axis.set_yticklabels(settings)
        axis.grid(False)
    axes[0][0].set_ylabel("vector")
    return figure


def across_rows(names, found):
    if ("+", "05_across") not in found:
        return [], ""
    rows = [
        {
            "pair": record["pair"],
            "behaviour": record["name"],
            "x": record["mean"][0],
            "y": record["mean"][1],
            "x_sd": record["sd"][0],
            "y_sd": record["sd"][1],
        }
        for record in table(found["+", "05_across"], "pairs")
    ]
    return rows, rows and sources(
        found, [("+", "05_across")], f"{len({row['behaviour'] for row in rows})} behaviours"
    )


def across_draw(rows, names):
    pairs = list(dict.fromkeys(row["pair"] for row in rows))
    figure, axes = plt.subplots(len(pairs), 2, figsize=(8.4, 3.6 * len(pairs)), squeeze=False)
    for line, pair in zip(axes, pairs):
        mine = [row for row in rows if row["pair"] == pair]
        for axis, (x, y, what) in zip(line, (("x", "y", "mean slope"), ("x_sd", "y_sd", "SD of slopes"))):
            axis.plot([row[x] for row in mine], [row[y] for row in mine], "o", color=BLUE, alpha=0.75)
            first, second = pair.split(" / ")
            axis.set(title=f"{what}, one dot per behaviour", xlabel=first, ylabel=second)
    return figure


# --- alignment ---
def antonym_rows(names, found):
    rows = [
        {
            "model": name,
            "facet": record["facet"],
            "x": record["x"],
            "own": record["own"],
            **{key: record["gain"][key] for key in ("value", "low", "high", "n")},
            "synonym_vector": record["synonym_vector"],
        }
        for name in names
        for record in table(found[name, "03_transfer"], "relations")
    ]
    return rows, rows and caption(
        names, found, "03_transfer", f"{least([row['n'] for row in rows])} word pairs"
    )


def antonym_draw(rows, names):
    figure, axes = panels(names, 5.6, rows=2, sharey="row")
    for column, (name, mine) in enumerate(by_model(rows, names)):
        templates = [row for row in mine if row["facet"] == "template"]
        axis = axes[0][column]
        x = range(len(templates))
        axis.bar(
            x,
            [row["value"] for row in templates],
            color=[BLUE if row["own"] else SKY for row in templates],
            width=0.7,
        )
        axis.errorbar(
            x,
            [row["value"] for row in templates],
            linestyle="",
            color=BLACK,
            capsize=2,
            linewidth=1,
            yerr=[
                [row["value"] - row["low"] for row in templates],
                [row["high"] - row["value"] for row in templates],
            ],
        )
        axis.set_xticks(x, [row["x"] for row in templates], rotation=40, ha="right", fontsize=7)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=name)
        levels = sorted((row for row in mine if row["facet"] == "level"), key=lambda row: row["x"])
        axis = axes[1][column]
        band(axis, [row["x"] for row in levels], levels, BLUE)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(xlabel="complexity of the context (level)", xticks=[row["x"] for row in levels])
    axes[0][0].set_ylabel("gain of the antonym, nats\nby template")
    axes[1][0].set_ylabel("gain of the antonym, nats\nby level")
    return figure


def values_rows(names, found):
    rows = [
        {
            "model": name,
            "value_name": record["value_name"],
            "strength": record["strength"],
            "tuned": record["tuned"],
            **{key: record["shift"][key] for key in ("value", "low", "high", "n")},
            "fact_accuracy": record["fact_accuracy"],
            "fact_accuracy_random": record["fact_accuracy_random"],
        }
        for name in names
        for record in table(found[name, "03_transfer"], "values")
    ]
    return rows, rows and caption(
        names, found, "03_transfer", f"{least([row['n'] for row in rows])} probes per value"
    )


def values_draw(rows, names):
    concepts = list(dict.fromkeys(row["value_name"] for row in rows))
    figure, axes = panels(names, 5.0, rows=2, sharex=True, sharey="row")
    colors, marks = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK), "osD^vPX"
    for column, (name, mine) in enumerate(by_model(rows, names)):
        for index, concept in enumerate(concepts):
            line = sorted(
                (row for row in mine if row["value_name"] == concept and not row["tuned"]),
                key=lambda row: row["strength"],
            )
            x = [row["strength"] for row in line]
            band(axes[0][column], x, line, colors[index % 7], concept, marks[index % 7])
            axes[1][column].plot(
                x, [row["fact_accuracy"] for row in line], color=colors[index % 7], marker=marks[index % 7]
            )
        axes[0][column].axhline(0, color=GREY, linewidth=0.8)
        axes[0][column].set(title=name)
        axes[1][column].set(xlabel="relative strength", ylim=(-0.03, 1.03))
    axes[0][0].set_ylabel("shift of the log-odds, nats")
    axes[1][0].set_ylabel("facts right, share")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


# --- layers ---
def layers_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "01_extract"], "layers"):
            rows.append(
                {
                    "model": name,
                    **{key: record[key] for key in ("kind", "what", "layer", "value")},
                    "chosen": "",
                }
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
                [row["layer"] for row in line],
                [row["value"] for row in line],
                color=color,
                marker=marker,
                label=kind,
            )
        line = sorted((row for row in mine if row["what"] == "steerability"), key=lambda row: row["layer"])
        axes[1][column].plot(
            [row["layer"] for row in line], [row["value"] for row in line], color=RED, marker="s"
        )
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
ALL = (
    VERDICTS,
    Figure(
        "expression",
        "Expression and coherence of single traits",
        "Expression of a trait on held-out questions: unsteered, under its tuned vector, "
        "and when the system message asks for it.",
        expression_rows,
        expression_draw,
    ),
    Figure(
        "transfer",
        "From questions to summaries and emails",
        "Gain in expression of the steered over the unsteered text on the same prompt; "
        "vectors were made and tuned on questions.",
        transfer_rows,
        transfer_draw,
    ),
    Figure(
        "composition",
        "Several traits at once",
        "Mean expression per trait and coherence when k vectors act together, by method; "
        "bands are 95 % intervals.",
        composition_rows,
        composition_draw,
    ),
    Figure(
        "steerability",
        "Steerability of single inputs",
        "Least-squares slope of the propensity against the multiplier, matched relative "
        "strength, held-out inputs.",
        steerability_rows,
        steerability_draw,
    ),
    Figure(
        "bias",
        "What explains the spread within a behaviour",
        "Share of the variance of slopes that the letter of the positive option explains, and Yes/No on top.",
        bias_rows,
        bias_draw,
    ),
    Figure(
        "id_ood",
        "Steerability under shifted prompts",
        "Mean steerability per behaviour under the prompt the vector was made on, and "
        "under a shifted prompt.",
        id_ood_rows,
        id_ood_draw,
    ),
    Figure(
        "grid",
        "Every vector under every prompt",
        "Mean steerability (nats per unit) of vectors made under one prompt setting on inputs under another; "
        "all vectors have the norm of the BASE vector.",
        grid_rows,
        grid_draw,
    ),
    Figure(
        "across",
        "The same behaviours on two models",
        "Mean and SD of steerability per behaviour, one model against the other.",
        across_rows,
        across_draw,
    ),
    Figure(
        "antonym",
        "The antonym vector across templates and contexts",
        "Gain in the log-probability of the antonym over norm-matched random vectors, 95 "
        "% intervals; dark: the template "
        "the vector was made on.",
        antonym_rows,
        antonym_draw,
    ),
    Figure(
        "values",
        "Bias and facts against strength",
        "Shift of the log-odds over norm-matched random vectors, with 95 % intervals, "
        "and share of unrelated facts still right.",
        values_rows,
        values_draw,
    ),
    Figure(
        "layers",
        "Layers",
        "Agreement of vectors made from two halves of the pairs, and mean steerability "
        "per layer; dashed: the layer that was chosen.",
        layers_rows,
        layers_draw,
    ),
)
