"""Figures of the preference study: expression, transfer, composition."""

from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from report.draw import (
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
    by_model,
    caption,
    counted,
    each,
    least,
    number,
    panels,
    plt,
    table,
    tall,
)
from lib.artifacts import ROOT, read_json

NORMAL = 1.96  # standard errors on either side in a 95 % interval

EXPRESSED, COHERENT = 60, 75          # the quadrants of Subbiah et al. 2026, figure of experiment 2


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
    return rows, rows and caption(names, found, "03_transfer", each(rows, names, "traits", "held-out questions"))


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


def quadrants_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "03_transfer"], "traits"):
            if record["task"] == "question":
                row = {"model": name, "trait": record["trait"], "scope": record["scope"], "n": record["n"]}
                for what in ("expression", "coherence"):
                    low, high = record[f"{what}_interval"]["steered"]
                    row |= {what: record[what]["steered"], f"{what}_low": low, f"{what}_high": high}
                rows.append(row)
    return rows, rows and caption(names, found, "03_transfer", each(rows, names, "traits", "held-out questions"))


def quadrants_draw(rows, names):
    figure, axes = panels(names, 4.2, sharey=True)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        axis.axvline(EXPRESSED, color=GREY, linewidth=0.8, linestyle=":")
        axis.axhline(COHERENT, color=GREY, linewidth=0.8, linestyle=":")
        for scope, color, marker in (("global", BLUE, "o"), ("local", ORANGE, "s")):
            some = [row for row in mine if row["scope"] == scope]
            x, y = ([row[what] for row in some] for what in ("expression", "coherence"))
            ends = [[[abs(row[what] - row[f"{what}_{end}"]) for row in some] for end in ("low", "high")]
                    for what in ("expression", "coherence")]
            axis.errorbar(x, y, xerr=ends[0], yerr=ends[1], fmt="none", ecolor=color, alpha=0.25, linewidth=0.8)
            axis.plot(x, y, marker, color=color, label=f"{scope} trait", alpha=0.85)
        for right in (0, 1):
            for upper in (0, 1):
                n = sum((r["expression"] >= EXPRESSED) == right and (r["coherence"] >= COHERENT) == upper for r in mine)
                axis.text(98 if right else 2, 5 if not upper else COHERENT + 3, f"{n} trait{'s' * (n != 1)}", color=GREY, fontsize=8,
                          ha="right" if right else "left")
        for row in mine:
            if row["expression"] > 0 and (row["expression"] < EXPRESSED or row["coherence"] < COHERENT):
                axis.annotate(row["trait"], (row["expression"], row["coherence"]), fontsize=6, color=GREY,
                              xytext=(3, 3), textcoords="offset points")
        axis.set(title=name, xlim=(-3, 108), ylim=(-3, 108), xlabel="expression under the vector (points of 100)")
    axes[0][0].set_ylabel("coherence (points of 100)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
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


# Colour, marker and line of every way to make a text; unit norm is one method at two layers.
METHODS = {
    "different_layers": (BLUE, "o", "-"),
    "orthogonalised": (RED, "s", "-"),
    "tuned_mean": (GREEN, "D", "-"),
    "unit_norm_mid": (PINK, "^", "-"),
    "unit_norm_late": (PINK, "v", "--"),
    "plain_sum": (SKY, "P", "-"),
    "solved": (BLACK, "*", "-"),
    "prompting": (ORANGE, "X", "-"),
    "unsteered": (GREY, ".", ":"),
}
SCALED = ("different_layers_scaled", "orthogonalised_scaled", "tuned_mean_scaled", "plain_sum_scaled")


def composition_rows(names, found):
    rows = [
        {
            "model": name,
            "method": record["method"],
            "task": record["task"],
            "k": record["k"],
            **{key: record["expression"][key] for key in ("value", "low", "high", "n")},
            **{
                f"{what}{end}": record[what][key]
                for what in ("coherence", "usable")
                for end, key in (("", "value"), ("_low", "low"), ("_high", "high"))
            },
        }
        for name in names
        for record in table(found[name, "04_compose"], "curves")
        if record["method"] in METHODS
    ]
    return rows, rows and caption(names, found, "04_compose", f"{least([row['n'] for row in rows])} sets of traits")


def composition_draw(rows, names):
    figure, axes = panels(names, 7.0, rows=3, sharex=True, sharey="row")
    for column, (name, mine) in enumerate(by_model(rows, names)):
        for index, (method, (color, marker, style)) in enumerate(METHODS.items()):
            line = sorted((row for row in mine if row["method"] == method), key=lambda row: row["k"])
            k = [row["k"] + 0.04 * (index - 4) for row in line]
            look = {"color": color, "marker": marker, "linestyle": style}
            spread = [[r["value"] - r["low"] for r in line], [r["high"] - r["value"] for r in line]]
            axes[0][column].errorbar(k, [r["value"] for r in line], yerr=spread, elinewidth=0.7, label=method, **look)
            for axis, what in ((axes[1][column], "usable"), (axes[2][column], "coherence")):
                ends = [[abs(r[what] - r[f"{what}_{end}"]) for r in line] for end in ("low", "high")]
                axis.errorbar(k, [r[what] for r in line], yerr=ends, elinewidth=0.7, **look)
        axes[0][column].set(title=name)
        axes[1][column].set_yscale("function", functions=(lambda y: y**0.5, lambda y: y**2))
        axes[1][column].set(ylim=(0, 103), yticks=(0, 1, 5, 10, 20, 40, 70, 100))
        axes[2][column].set(xlabel="traits at once, k", xticks=sorted({row["k"] for row in rows}), ylim=(-3, 103))
    for axis, label in zip(axes[:, 0], ("expression per trait", "usable expression", "coherence")):
        axis.set_ylabel(label)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def fronts_rows(names, found):
    keys = ("k", "method", "setting", "expression", "coherence", "usable", "limit", "n", "chosen")
    rows = [
        {"model": name, **{key: record[key] for key in keys}}
        for name in names
        for record in table(found[name, "04_compose"], "fronts")
    ]
    return rows, rows and caption(
        names, found, "04_compose", f"{least([row['n'] for row in rows])} sets of traits per point, tuning split"
    )


def fronts_draw(rows, names):
    sizes = sorted({row["k"] for row in rows})
    shape = {"figsize": (2.6 * len(sizes), 2.5 * len(names) + 0.6), "squeeze": False}
    figure, axes = plt.subplots(len(names), len(sizes), sharex=True, sharey="row", **shape)
    for line, (name, mine) in zip(axes, by_model(rows, names)):
        for axis, k in zip(line, sizes):
            for method, (color, marker, style) in METHODS.items():
                points = sorted(
                    (row for row in mine if row["k"] == k and row["method"] == method), key=lambda row: row["setting"]
                )
                x, y = ([row[what] for row in points] for what in ("coherence", "expression"))
                axis.plot(x, y, color=color, linestyle=style, marker=marker, markersize=3, linewidth=1.1, label=method)
                best = [row for row in points if row["chosen"]]
                axis.plot(
                    [row["coherence"] for row in best],
                    [row["expression"] for row in best],
                    marker=marker,
                    color="none",
                    markeredgecolor=color,
                    markersize=9,
                )
            axis.axvline(mine[0]["limit"], color=GREY, linewidth=0.8, linestyle=":")
            axis.set(title=f"{name}, k = {k}", xlim=(-3, 103))
    for axis in axes[-1]:
        axis.set_xlabel("coherence")
    for axis in axes[:, 0]:
        axis.set_ylabel("expression per trait")
    shown = {row["method"] for row in rows}
    handles, labels = axes[0][0].get_legend_handles_labels()
    kept = [(handle, label) for handle, label in zip(handles, labels) if label in shown]
    figure.legend(*zip(*kept), loc="outside lower center", ncols=7)
    return figure


def winners_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "04_compose"], "winners"):
            if record["score"] == "usable":
                for method, value in (record["means"] | record["references"]).items():
                    rows.append(
                        {
                            "model": name,
                            **{key: record[key] for key in ("task", "own", "k", "n")},
                            "method": method,
                            "value": value,
                            "wins": method in record["winners"],
                        }
                    )
    return rows, rows and caption(
        names, found, "04_compose", f"{least([row['n'] for row in rows])} sets of traits per cell"
    )


def winners_draw(rows, names):
    figure, axes = panels(names, 3.6, width=5.2)
    shown = [method for method in (*METHODS, *SCALED) if any(row["method"] == method for row in rows)]
    places = sorted({(not row["own"], row["task"], row["k"]) for row in rows})
    top = max(row["value"] for row in rows)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for row in mine:
            x, y = places.index((not row["own"], row["task"], row["k"])), shown.index(row["method"])
            shade = 0.75 * row["value"] / (top or 1)
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=BLUE, alpha=shade, linewidth=0))
            axis.text(x, y, number(row["value"], 0), ha="center", va="center")
            if row["wins"]:
                axis.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=RED, linewidth=1.4))
        for x in range(1, len(places)):
            if places[x][:2] != places[x - 1][:2]:
                axis.axvline(x - 0.5, color=BLACK, linewidth=0.8)
        for other, task in dict.fromkeys(place[:2] for place in places):
            at = [x for x, place in enumerate(places) if place[:2] == (other, task)]
            label = f"{task}\n{'other' if other else 'own'} task"
            axis.text(sum(at) / len(at), -0.65, label, ha="center", va="bottom", fontsize=7)
        axis.set(xlim=(-0.5, len(places) - 0.5), ylim=(len(shown) - 0.5, -0.5))
        axis.set_xticks(range(len(places)), [place[2] for place in places])
        axis.set_yticks(range(len(shown)), shown)
        axis.set_title(name, pad=26)
        axis.set_xlabel("traits at once, k")
        axis.tick_params(length=0)
        axis.grid(False)
    return figure


def order_rows(names, found):
    rows = []
    for name in names:
        gaps = found[name, "04_compose"].results.get("order", {}).get("alphabetical", {})
        for method in [method for method in METHODS if method in gaps]:
            for part, estimate in gaps[method].items():
                rows.append(
                    {
                        "model": name,
                        "method": method,
                        "part": part,
                        **{key: estimate[key] for key in ("value", "low", "high", "n")},
                    }
                )
    return rows, rows and caption(names, found, "04_compose", f"{least([row['n'] for row in rows])} pairs of traits")


def order_draw(rows, names):
    figure, axes = panels(names, 3.4, sharey=True)
    shown = list(dict.fromkeys(row["method"] for row in rows))
    parts = {"difference": (BLACK, "o", 0.0), "place": (RED, "s", 0.22), "traits": (BLUE, "D", -0.22)}
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for row in mine:
            color, marker, shift = parts[row["part"]]
            y, spread = shown.index(row["method"]) + shift, [[row["value"] - row["low"]], [row["high"] - row["value"]]]
            axis.errorbar(row["value"], y, xerr=spread, color=color, marker=marker, linestyle="", elinewidth=1)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set(title=name, xlabel="points of 100", ylim=(len(shown) - 0.5, -0.5))
        axis.set_yticks(range(len(shown)), shown)
    labels = ("Trait 1 minus Trait 2, alphabetical", "by the place in the order", "by the traits")
    marks = [
        Line2D([], [], color=color, marker=marker, linestyle="", label=label)
        for (color, marker, _), label in zip(parts.values(), labels)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    return figure


# The two published layers are two methods here, at their relative depths.
UNIT_NORMS = {16: "unit_norm_mid", 20: "unit_norm_late"}


def published_rows(names, found):
    rows = [
        {
            "who": f"{r['model']}, published",
            "model": r["model"],
            "method": UNIT_NORMS.get(r.get("layer"), r["method"]),
            "setting": f"layer {r['layer']}, alpha {r['alpha']}" if "layer" in r else "",
            **{
                f"{what}{part}": r[what] + sign * NORMAL * r[f"{what}_sem"]
                for what in ("drop", "coherence")
                for part, sign in (("", 0), ("_low", -1), ("_high", 1))
            },
            "n": "",
        }
        for r in read_json(ROOT / "data" / "published.json")["composition"]["rows"]
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
        "quadrants",
        "Expressed and coherent at once",
        "Each trait under its tuned vector on held-out questions, with 95 % intervals over prompts; dotted: the limits "
        "of arXiv 2607.01802.",
        quadrants_rows,
        quadrants_draw,
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
        "Mean expression per trait, usable expression (that of an incoherent text counts as none; square-root scale) and "
        "coherence when k vectors act together, by method; bars are 95 % intervals.",
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
    Figure(
        "fronts",
        "What expression costs in coherence",
        "One point per setting of a method: a scale on all its coefficients, the relative strength of unit norm, or "
        "the bound of the joint solution. Large mark: the setting that the rule of `02_tune` picks; dotted: its limit.",
        fronts_rows,
        fronts_draw,
    ),
    Figure(
        "winners",
        "Which method wins where",
        "Usable expression per trait, by method, task and k; framed: the best of the published methods and the plain "
        "sum.",
        winners_rows,
        winners_draw,
    ),
    Figure(
        "order",
        "What the alphabetical order leaks into the first and the second trait",
        "Expression of the first minus the second trait of a pair in alphabetical order. Running the other order, "
        "too, splits it into what the place does and what the two traits differ by; a method without an order has the "
        "latter only.",
        order_rows,
        order_draw,
    ),
)
