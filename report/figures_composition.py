"""Figures of the preference study: several traits at once."""
import textwrap

from matplotlib.patches import Rectangle

from report.draw import (BLACK, BLUE, Figure, GREEN, GREY, ORANGE, PALE, PINK, RED, SKY, below, by_model, caption,
                         col, estimate, least, mark, number, panels, parts, pick, plt, published, records, series,
                         spread, table)

# Colour, marker and line of every way to make a text; unit norm is one method at two layers.
METHODS = {"different_layers": (BLUE, "o", "-"), "orthogonalised": (RED, "s", "-"), "tuned_mean": (GREEN, "D", "-"),
           "unit_norm_mid": (PINK, "^", "-"), "unit_norm_late": (PINK, "v", "--"), "plain_sum": (SKY, "P", "-"),
           "solved": (BLACK, "*", "-"), "prompting": (ORANGE, "X", "-"), "unsteered": (GREY, ".", ":")}
SCALED = ("different_layers_scaled", "orthogonalised_scaled", "tuned_mean_scaled", "plain_sum_scaled")
# The two published layers are two methods here, at their relative depths.
UNIT_NORMS = {16: "unit_norm_mid", 20: "unit_norm_late"}
NORMAL = 1.96                         # standard errors on either side in a 95 % interval


# --- by the number of traits --------------------------------------------------------------------------------
def composition_rows(names, found):
    rows = [{"model": name, **pick(record, "method", "task", "k"), **estimate(record["expression"]),
             **parts("coherence", record["coherence"]), **parts("usable", record["usable"])}
            for name, record in records(names, found, "04_compose", "curves") if record["method"] in METHODS]
    return rows, rows and caption(names, found, "04_compose", f"{least(rows)} groups of traits")


def composition_draw(rows, names):
    figure, axes = panels(names, 7.0, rows=3, sharex=True, sharey="row")
    for column, (name, mine) in zip(axes.T, by_model(rows, names)):
        for i, (method, (color, marker, style)) in enumerate(METHODS.items()):
            line = series(mine, "k", method=method)
            for axis, what in zip(column, (None, "usable", "coherence")):
                axis.errorbar([row["k"] + 0.04 * (i - 4) for row in line], col(line, what or "value"),
                              yerr=spread(line, what), elinewidth=0.7, label=method, color=color, marker=marker,
                              linestyle=style)
        column[0].set(title=name)
        column[1].set_yscale("function", functions=(lambda y: y**0.5, lambda y: y**2))
        column[1].set(ylim=(0, 103), yticks=(0, 1, 5, 10, 20, 40, 70, 100))
        column[2].set(xlabel="traits at once, k", xticks=sorted({row["k"] for row in rows}), ylim=(-3, 103))
    for axis, label in zip(axes[:, 0], ("expression per trait", "usable expression", "coherence")):
        axis.set_ylabel(label)
    below(figure, axes[0][0], 5)
    return figure


# --- beside the published values ----------------------------------------------------------------------------
def published_rows(names, found):
    rows, ours = [], []
    for r in published("composition")["rows"]:
        rows.append({"who": f"{r['model']}, published", "model": r["model"],
                     "method": UNIT_NORMS.get(r.get("layer"), r["method"]),
                     "setting": f"layer {r['layer']}, alpha {r['alpha']}" if "layer" in r else ""})
        for what in ("drop", "coherence"):
            half = NORMAL * r[f"{what}_sem"]
            rows[-1] |= parts(what, {"value": r[what], "low": r[what] - half, "high": r[what] + half})
        rows[-1]["n"] = ""
    for name in names:
        artifact = found[name, "04_compose"]
        coherence = {r["method"]: r["coherence"] for r in series(table(artifact, "curves"), k=2)}
        for method, by_k in artifact.results.get("drop", {}).items():
            if "2" in by_k and method in col(rows, "method"):
                ours.append({"who": name, "model": name, "method": method, "setting": "", **parts("drop", by_k["2"]),
                             **parts("coherence", coherence[method]), "n": by_k["2"]["n"]})
    return ours and rows + ours, ours and caption(names, found, "04_compose", f"{least(ours)} groups of traits")


def published_draw(rows, names):
    methods, who = (list(dict.fromkeys(col(rows, key))) for key in ("method", "who"))
    looks = {name: {"color": (GREY, BLACK, BLUE, RED, GREEN, PINK, ORANGE, SKY)[i % 8], "marker": "DsovP^X*"[i % 8],
                    "linestyle": ""} for i, name in enumerate(who)}
    for name, look in looks.items():
        look["markerfacecolor"] = "white" if "published" in name else look["color"]
    figure, axes = plt.subplots(1, 2, figsize=(9.2, 0.9 + 0.2 * len(methods) * (len(who) + 1)), sharey=True)
    for axis, what, label in zip(axes, ("drop", "coherence"), ("two traits minus one, points", "coherence, points")):
        for row in rows:
            y = methods.index(row["method"]) + (who.index(row["who"]) - (len(who) - 1) / 2) / (len(who) + 1)
            axis.errorbar(row[what], y, xerr=spread([row], what), capsize=2, linewidth=1.1, **looks[row["who"]])
        axis.set(xlabel=label, ylim=(len(methods) - 0.5, -0.5))
        for y in range(1, len(methods)):
            axis.axhline(y - 0.5, color=PALE, linewidth=0.8)
    axes[0].axvline(0, color=GREY, linewidth=0.8)
    axes[0].set_yticks(range(len(methods)), methods)
    below(figure, [mark(name, **look) for name, look in looks.items()], 4)
    return figure


# --- the tuning split: what expression costs ----------------------------------------------------------------
def fronts_rows(names, found):
    keys = ("k", "method", "setting", "expression", "coherence", "usable", "limit", "n", "chosen")
    rows = [{"model": name, **pick(record, *keys)} for name, record in records(names, found, "04_compose", "fronts")]
    return rows, rows and caption(names, found, "04_compose", f"{least(rows)} sets of traits per point, tuning split")


def fronts_draw(rows, names):
    sizes, shown = sorted(set(col(rows, "k"))), set(col(rows, "method"))
    figure, axes = plt.subplots(len(names), len(sizes), sharex=True, sharey="row", squeeze=False,
                                figsize=(2.6 * len(sizes), 2.5 * len(names) + 0.6))
    for line, (name, mine) in zip(axes, by_model(rows, names)):
        for axis, k in zip(line, sizes):
            for method, (color, marker, style) in METHODS.items():
                points = series(mine, "setting", k=k, method=method)
                best = series(points, chosen=True)
                axis.plot(col(points, "coherence"), col(points, "expression"), color=color, linestyle=style,
                          marker=marker, markersize=3, linewidth=1.1, label=method)
                axis.plot(col(best, "coherence"), col(best, "expression"), marker=marker, color="none",
                          markeredgecolor=color, markersize=9)
            axis.axvline(mine[0]["limit"], color=GREY, linewidth=0.8, linestyle=":")
            axis.set(title="\n".join(textwrap.wrap(f"{name}, k = {k}", 24)), xlim=(-3, 103))
    for axis in axes[-1]:
        axis.set_xlabel("coherence")
    for axis in axes[:, 0]:
        axis.set_ylabel("expression per trait")
    below(figure, [h for h in axes[0][0].get_legend_handles_labels()[0] if h.get_label() in shown], 7)
    return figure


# --- which method wins --------------------------------------------------------------------------------------
def winners_rows(names, found):
    rows = [{"model": name, **pick(record, "task", "own", "k", "n"), "method": method, "value": value,
             "wins": method in record["winners"]}
            for name, record in records(names, found, "04_compose", "winners", score="usable")
            for method, value in (record["means"] | record["references"]).items()]
    return rows, rows and caption(names, found, "04_compose", f"{least(rows)} sets of traits per cell")


def winners_draw(rows, names):
    figure, axes = panels(names, 3.6, width=5.2)
    shown = [method for method in (*METHODS, *SCALED) if method in col(rows, "method")]
    places = sorted({(not row["own"], row["task"], row["k"]) for row in rows})
    top = max(col(rows, "value"))
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for row in mine:
            x, y = places.index((not row["own"], row["task"], row["k"])), shown.index(row["method"])
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, color=BLUE, alpha=0.75 * row["value"] / (top or 1),
                                     linewidth=0))
            axis.text(x, y, number(row["value"], 0), ha="center", va="center")
            if row["wins"]:
                axis.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=RED, linewidth=1.4))
        for x in range(1, len(places)):
            if places[x][:2] != places[x - 1][:2]:
                axis.axvline(x - 0.5, color=BLACK, linewidth=0.8)
        for other, task in dict.fromkeys(place[:2] for place in places):
            at = [x for x, place in enumerate(places) if place[:2] == (other, task)]
            axis.text(sum(at) / len(at), -0.65, f"{task}\n{'other' if other else 'own'} task", ha="center",
                      va="bottom", fontsize=7)
        axis.set(xlim=(-0.5, len(places) - 0.5), ylim=(len(shown) - 0.5, -0.5))
        axis.set_xticks(range(len(places)), [place[2] for place in places])
        axis.set_yticks(range(len(shown)), shown)
        axis.set_title(name, pad=26)
        axis.set_xlabel("traits at once, k")
        axis.tick_params(length=0)
        axis.grid(False)
    return figure


# --- what the order leaks -----------------------------------------------------------------------------------
def order_rows(names, found):
    rows = []
    for name in names:
        gaps = found[name, "04_compose"].results.get("order", {}).get("alphabetical", {})
        rows += [{"model": name, "method": method, "part": part, **estimate(gap)}
                 for method in METHODS if method in gaps for part, gap in gaps[method].items()]
    return rows, rows and caption(names, found, "04_compose", f"{least(rows)} groups of traits")


def order_draw(rows, names):
    figure, axes = panels(names, 3.4, sharey=True)
    shown = list(dict.fromkeys(col(rows, "method")))
    looks = {"difference": (BLACK, "o", 0.0, "Trait 1 minus Trait 2, alphabetical"),
             "place": (RED, "s", 0.22, "by the place in the order"), "traits": (BLUE, "D", -0.22, "by the traits")}
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for row in mine:
            color, marker, shift, _ = looks[row["part"]]
            axis.errorbar(row["value"], shown.index(row["method"]) + shift, xerr=spread([row]), color=color,
                          marker=marker, linestyle="", elinewidth=1)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set(title=name, xlabel="points of 100", ylim=(len(shown) - 0.5, -0.5))
        axis.set_yticks(range(len(shown)), shown)
    below(figure, [mark(label, color=color, marker=marker, linestyle="")
                   for color, marker, _, label in looks.values()], 3)
    return figure


FIGURES = (
    Figure("composition", "Several traits at once",
           "Mean expression per trait, usable expression (that of an incoherent text counts as none; square-root "
           "scale) and coherence when k vectors act together, by method; bars are 95 % intervals.",
           composition_rows, composition_draw),
    Figure("published_composition", "Two traits at once beside the published values",
           "Expression of a trait in company of another minus the same trait alone, and coherence, per method, with "
           "95 % intervals (published: normal, from the standard errors of Table 2 of arXiv 2607.01802; unit norm "
           "stands there at two layers). The models, the prompts and the judge differ: published models have "
           "billions of parameters and answered natural questions, so signs and order may be compared, sizes not.",
           published_rows, published_draw),
    Figure("fronts", "What expression costs in coherence",
           "One point per setting of a method: a scale on all its coefficients, the strength of unit norm, "
           "or the bound of the joint solution. Large mark: the setting that the rule of `02_tune` picks; dotted: "
           "its limit.", fronts_rows, fronts_draw),
    Figure("winners", "Which method wins where",
           "Usable expression per trait, by method, task and k; framed: the best of the published methods and the "
           "plain sum.", winners_rows, winners_draw),
    Figure("order", "What the alphabetical order leaks into the first and the second trait",
           "Expression of the first minus the second trait of a pair in alphabetical order. Running the other order, "
           "too, splits it into what the place does and what the two traits differ by; a method without an order has "
           "the latter only.", order_rows, order_draw),
)
