"""Figures of the preference study: expression, transfer, composition."""

from pathlib import Path

from matplotlib.lines import Line2D

from draw import (
    BLACK,
    BLUE,
    Figure,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PINK,
    RED,
    SKY,
    band,
    by_model,
    caption,
    counted,
    least,
    panels,
    plt,
    table,
    tall,
)
from lib.artifacts import read_json

NORMAL = 1.96  # standard errors on either side in a 95 % interval


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
                        **{arm: record["expression"][arm] for arm in ("unsteered", "steered", "prompted", "random")},
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
            line = sorted((row for row in mine if row["trait"] == trait), key=lambda row: tasks.index(row["task"]))
            axis.plot(
                [tasks.index(row["task"]) for row in line],
                [row["value"] for row in line],
                color=BLUE if line[0]["scope"] == "global" else ORANGE,
                linewidth=0.8,
                alpha=0.45,
            )
        mean = sorted((row for row in mine if row["trait"] == "mean"), key=lambda row: tasks.index(row["task"]))
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
    return rows, rows and caption(names, found, "04_compose", f"{least([row['n'] for row in rows])} sets of traits")


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
        axes[1][column].set(xlabel="traits at once, k", xticks=sorted({row["k"] for row in rows}), ylim=(-3, 103))
    axes[0][0].set_ylabel("expression per trait")
    axes[1][0].set_ylabel("coherence")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def published_rows(names, found):
    rows = [
        {
            "who": f"{r['model']}, published",
            "model": r["model"],
            "method": r["method"],
            "setting": f"layer {r['layer']}, alpha {r['alpha']}" if "layer" in r else "",
            **{
                f"{what}{part}": r[what] + sign * NORMAL * r[f"{what}_sem"]
                for what in ("drop", "coherence")
                for part, sign in (("", 0), ("_low", -1), ("_high", 1))
            },
            "n": "",
        }
        for r in read_json(Path(__file__).with_name("published.json"))["composition"]["rows"]
    ]
    ours = []
    for name in names:
        artifact = found[name, "04_compose"]
        coherence = {r["method"]: r["coherence"] for r in table(artifact, "curves") if r["k"] == 2}
        for method, by_k in artifact.results.get("drop", {}).items():
            if "2" in by_k and method in {row["method"] for row in rows}:
                ours.append(
                    {
                        "who": name,
                        "model": name,
                        "method": method,
                        "setting": "",
                        **{
                            f"{what}{part}": estimate[key]
                            for what, estimate in (("drop", by_k["2"]), ("coherence", coherence[method]))
                            for part, key in (("", "value"), ("_low", "low"), ("_high", "high"))
                        },
                        "n": by_k["2"]["n"],
                    }
                )
    return ours and rows + ours, ours and caption(
        names, found, "04_compose", f"{least([row['n'] for row in ours])} pairs of traits"
    )


def published_draw(rows, names):
    methods = list(dict.fromkeys(row["method"] for row in rows))
    who = list(dict.fromkeys(row["who"] for row in rows))
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 0.9 + 0.2 * len(methods) * (len(who) + 1)), sharey=True)
    colors = (GREY, BLACK, BLUE, RED, GREEN, PINK, ORANGE, SKY)
    for axis, what, label in (
        (axes[0], "drop", "two traits minus one, points"),
        (axes[1], "coherence", "coherence, points"),
    ):
        for row in rows:
            index = who.index(row["who"])
            y = methods.index(row["method"]) + (index - (len(who) - 1) / 2) / (len(who) + 1)
            ends = [[row[what] - row[f"{what}_low"]], [row[f"{what}_high"] - row[what]]]
            axis.errorbar(
                row[what],
                y,
                xerr=ends,
                color=colors[index % 8],
                fmt="DsovP^X*"[index % 8],
                capsize=2,
                linewidth=1.1,
                markerfacecolor="white" if row["setting"] or "published" in row["who"] else colors[index % 8],
            )
        axis.set(xlabel=label, ylim=(len(methods) - 0.5, -0.5))
        for y in range(1, len(methods)):
            axis.axhline(y - 0.5, color=PALE, linewidth=0.8)
    axes[0].axvline(0, color=GREY, linewidth=0.8)
    axes[0].set_yticks(range(len(methods)), methods)
    marks = [
        Line2D(
            [],
            [],
            linestyle="",
            marker="DsovP^X*"[i % 8],
            color=colors[i % 8],
            label=name,
            markerfacecolor="white" if "published" in name else colors[i % 8],
        )
        for i, name in enumerate(who)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    return figure


FIGURES = (
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
        "Mean expression per trait and coherence when k vectors act together, by method; bands are 95 % intervals.",
        composition_rows,
        composition_draw,
    ),
    Figure(
        "published_composition",
        "Two traits at once beside the published values",
        "Expression of a trait in company of another minus the same trait alone, and coherence, per method, with 95 % "
        "intervals (published: normal, from the standard errors of Table 2 of arXiv 2607.01802; unit norm stands there "
        "at two layers). The models, the prompts and the judge differ: published models have billions of parameters and "
        "answered natural questions, so signs and order may be compared, sizes not.",
        published_rows,
        published_draw,
    ),
)
