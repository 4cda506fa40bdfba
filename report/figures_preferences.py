"""Figures of the preference study: expression of single traits, and transfer to other tasks."""
from report.draw import (BLACK, BLUE, Figure, GREY, ORANGE, PINK, below, by_model, caption, col, counted, each,
                         estimate, least, listing, mark, panels, parts, pick, records, series, spread)

EXPRESSED, COHERENT = 60, 75          # the quadrants of Subbiah et al. 2026, figure of experiment 2
SCOPES = {"global": (BLUE, "o"), "local": (ORANGE, "s")}


# --- single traits on held-out questions --------------------------------------------------------------------
def expression_rows(names, found):
    rows = [{"model": name, **pick(record, "trait", "scope", "n"),
             **pick(record["expression"], "unsteered", "steered", "prompted", "random"),
             "coherence": record["coherence"]["steered"]}
            for name, record in records(names, found, "03_transfer", "traits", task="question")]
    return rows, rows and caption(names, found, "03_transfer", each(rows, names, "traits", "held-out questions"))


def expression_draw(rows, names):
    figure, shown = listing(rows, names, "trait", 7, lambda row: row["steered"], xlim=(-3, 103),
                            xlabel="points of 100")
    for axis, mine in shown:
        for y, row in enumerate(mine):
            color = SCOPES[row["scope"]][0]
            axis.plot([row["unsteered"], row["steered"]], [y, y], color=color, linewidth=1.2, alpha=0.6)
            axis.plot(row["unsteered"], y, "|", color=GREY, markersize=7)
            axis.plot(row["steered"], y, "o", color=color)
            axis.plot(row["prompted"], y, "D", color="none", markeredgecolor=BLACK, markersize=4)
            axis.plot(row["coherence"], y, ".", color=PINK, markersize=4)
    below(figure, [*(mark(f"steered, {scope} trait", marker="o", color=color)
                     for scope, (color, _) in SCOPES.items()),
                   mark("unsteered", marker="|", linestyle="", color=GREY, markersize=8),
                   mark("prompted", marker="D", linestyle="", color="none", markeredgecolor=BLACK),
                   mark("coherence, steered", marker=".", linestyle="", color=PINK)], 5)
    return figure


def quadrants_rows(names, found):
    rows = []
    for name, record in records(names, found, "03_transfer", "traits", task="question"):
        rows.append({"model": name, **pick(record, "trait", "scope", "n")})
        for what in ("expression", "coherence"):
            low, high = record[f"{what}_interval"]["steered"]
            rows[-1] |= parts(what, {"value": record[what]["steered"], "low": low, "high": high})
    return rows, rows and caption(names, found, "03_transfer", each(rows, names, "traits", "held-out questions"))


def quadrants_draw(rows, names):
    figure, axes = panels(names, 4.2, sharey=True)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        axis.axvline(EXPRESSED, color=GREY, linewidth=0.8, linestyle=":")
        axis.axhline(COHERENT, color=GREY, linewidth=0.8, linestyle=":")
        for scope, (color, marker) in SCOPES.items():
            some = series(mine, scope=scope)
            x, y = col(some, "expression"), col(some, "coherence")
            axis.errorbar(x, y, xerr=spread(some, "expression"), yerr=spread(some, "coherence"), fmt="none",
                          ecolor=color, alpha=0.25, linewidth=0.8)
            axis.plot(x, y, marker, color=color, label=f"{scope} trait", alpha=0.85)
        for right in (0, 1):
            for upper in (0, 1):
                n = sum((r["expression"] >= EXPRESSED) == right and (r["coherence"] >= COHERENT) == upper
                        for r in mine)
                axis.text(98 if right else 2, COHERENT + 3 if upper else 5, f"{n} trait{'s' * (n != 1)}", color=GREY,
                          fontsize=8, ha="right" if right else "left")
        for row in mine:
            if row["expression"] > 0 and (row["expression"] < EXPRESSED or row["coherence"] < COHERENT):
                axis.annotate(row["trait"], (row["expression"], row["coherence"]), fontsize=6, color=GREY,
                              xytext=(3, 3), textcoords="offset points")
        axis.set(title=name, xlim=(-3, 108), ylim=(-3, 108), xlabel="expression under the vector (points of 100)")
    axes[0][0].set_ylabel("coherence (points of 100)")
    below(figure, axes[0][0], 2)
    return figure


# --- other tasks --------------------------------------------------------------------------------------------
def transfer_rows(names, found):
    rows = []
    for name in names:
        rows += [{"model": name, **pick(record, "trait", "scope", "task"), **estimate(record["gain"])}
                 for _, record in records([name], found, "03_transfer", "traits")]
        rows += [{"model": name, "trait": "mean", "scope": "", "task": task, **estimate(gain)}
                 for task, gain in found[name, "03_transfer"].results.get("traits", {}).get("gain", {}).items()]
    single = [row for row in rows if row["trait"] != "mean"]
    n = rows and (f"{counted(series(single, task='question'), names, 'traits')}, {least(single)} prompts per trait "
                  "and task")
    return rows, rows and caption(names, found, "03_transfer", n)


def transfer_draw(rows, names):
    tasks = [task for task in ("question", "summary", "email") if task in col(rows, "task")]
    figure, axes = panels(names, 3.4, sharey=True)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for trait in dict.fromkeys([*col(mine, "trait"), "mean"]):
            line = sorted(series(mine, trait=trait), key=lambda row: tasks.index(row["task"]))
            x, y = [tasks.index(row["task"]) for row in line], col(line, "value")
            if trait == "mean":
                axis.errorbar(x, y, yerr=spread(line), color=BLACK, marker="o", capsize=3, linewidth=2)
            else:
                axis.plot(x, y, color=SCOPES[line[0]["scope"]][0], linewidth=0.8, alpha=0.45)
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=name, xlim=(-0.2, len(tasks) - 0.8))
        axis.set_xticks(range(len(tasks)), tasks)
    axes[0][0].set_ylabel("gain in expression, points")
    below(figure, [*(mark(f"{scope} trait", color=color) for scope, (color, _) in SCOPES.items()),
                   mark("mean, 95 % interval", color=BLACK, marker="o")], 3)
    return figure


FIGURES = (
    Figure("expression", "Expression and coherence of single traits",
           "Expression of a trait on held-out questions: unsteered, under its tuned vector, and when the system "
           "message asks for it.", expression_rows, expression_draw),
    Figure("quadrants", "Expressed and coherent at once",
           "Each trait under its tuned vector on held-out questions, with 95 % intervals over prompts; dotted: the "
           "limits of arXiv 2607.01802.", quadrants_rows, quadrants_draw),
    Figure("transfer", "From questions to summaries and emails",
           "Gain in expression of the steered over the unsteered text on the same prompt; vectors were made and "
           "tuned on questions.", transfer_rows, transfer_draw),
)
