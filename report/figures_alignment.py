"""Figures of the alignment study: antonyms across templates and contexts, values, facts and text."""
from functools import partial

from report.draw import (BLACK, BLUE, COLORS, Figure, GREEN, GREY, ORANGE, PINK, RED, SKY, band, below, by_model,
                         caption, col, estimate, least, panels, pick, records, series, spread)

WAYS = {"centred": (BLUE, "o"), "mean": (GREEN, "s"), "contrast": (ORANGE, "D"), "heads": (PINK, "^"),
        "mixed": (SKY, "P"), "patch": (RED, "v")}
MARKS = "osD^vPX"


# --- antonyms: by template, and by what stands before the question ------------------------------------------
def facet_rows(names, found, facet):
    """Records of one facet: the centred vector's gain with its interval, then the accuracy of every way."""
    rows = []
    for name in names:
        for _, record in records([name], found, "03_transfer", "relations", facet=facet):
            rows.append({"model": name, **pick(record, "x", "own"), "what": "gain", "way": "centred",
                         **estimate(record["gain"])})
            rows.append(rows[-1] | {"what": "synonym", "value": record["synonym_vector"], "low": "", "high": ""})
        for _, record in records([name], found, "03_transfer", "ways", facet=facet):
            rows.append({"model": name, **pick(record, "x", "own"), "what": "top1", "way": record["way"],
                         "value": record["top1"], "low": "", "high": "", "n": record["gain"]["n"]})
            if record["way"] == "centred":
                rows.append(rows[-1] | {"way": "unsteered", "value": record["top1_unsteered"]})
    return rows, rows and caption(names, found, "03_transfer", f"{least(series(rows, what='gain'))} word components")


def facet_panels(rows, names, height, **ticks):
    """Two panels per model: figure, [(upper axis, for the caller to draw the gains in; the model's rows)].

    The lower one has the top-1 accuracy of every way, and without a vector."""
    figure, axes = panels(names, height, rows=2, sharex="col")       # gains of models differ tenfold: a scale for each
    for (upper, lower), (name, mine) in zip(axes.T, by_model(rows, names)):
        order = col(series(mine, what="gain"), "x")
        for i, (way, (color, marker)) in enumerate(WAYS.items()):
            accuracy(lower, mine, order, way, 0.11 * (i - 2), color=color, marker=marker, linestyle="", label=way)
        accuracy(lower, mine, order, "unsteered", 0, color=GREY, marker="", linestyle="--", label="no vector")
        upper.set(title=name)
        lower.set(ylim=(-0.04, 1.04))
        lower.set_xticks(range(len(order)), order, ha="right", **ticks)
    axes[0][0].set_ylabel("gain of the antonym, nats")
    axes[1][0].set_ylabel("antonym is the top token")
    below(figure, axes[1][0], 6)
    return figure, [(axis, mine) for axis, (_, mine) in zip(axes[0], by_model(rows, names))]


def accuracy(axis, rows, order, way, aside, **look):
    line = [row for row in series(rows, what="top1", way=way) if row["x"] in order]
    axis.plot([order.index(row["x"]) + aside for row in line], col(line, "value"), markersize=4, **look)


def antonym_draw(rows, names):
    figure, upper = facet_panels(rows, names, 5.8, rotation=40, fontsize=7)
    for axis, mine in upper:
        templates = series(mine, what="gain")
        x, y = range(len(templates)), col(templates, "value")
        axis.bar(x, y, color=[BLUE if row["own"] else SKY for row in templates], width=0.7)
        axis.errorbar(x, y, yerr=spread(templates), linestyle="", color=BLACK, capsize=2, linewidth=1)
        axis.axhline(0, color=GREY, linewidth=0.8)
    return figure


def complexity_draw(rows, names):
    figure, upper = facet_panels(rows, names, 5.2, rotation=30, fontsize=8)
    for axis, mine in upper:
        for what, color, marker, label in (("gain", BLUE, "o", "antonym vector"),
                                           ("synonym", RED, "D", "synonym vector")):
            line = series(mine, what=what)
            axis.errorbar(range(len(line)), col(line, "value"), yerr=spread(line) if what == "gain" else None,
                          color=color, marker=marker, linestyle="", capsize=2, label=label)
        axis.axhline(0, color=GREY, linewidth=0.8)           # last: it widens the axis that the gains have set
    axis.legend(loc="best")
    return figure


# --- values -------------------------------------------------------------------------------------------------
def values_rows(names, found):
    rows = [{"model": name, **pick(record, "value_name", "strength", "kind", "inside"), **estimate(record["bias"]),
             **pick(record, "bias_against", "bias_random", "fact_accuracy_random"),
             "fact_accuracy": record["fact_accuracy_both"],
             **{key: record.get(key, "") for key in ("perplexity", "perplexity_random")}}
            for name, record in records(names, found, "03_transfer", "values")]
    return rows, rows and caption(names, found, "03_transfer", f"{least(rows)} subjects per value")


def values_draw(rows, names):
    figure, axes = panels(names, 6.6, rows=3, sharex=True, sharey="row")
    for (bias, facts, text), (name, mine) in zip(axes.T, by_model(rows, names)):
        for i, concept in enumerate(dict.fromkeys(col(rows, "value_name"))):
            color, marker = COLORS[i % 7], MARKS[i % 7]
            line = series(mine, "strength", value_name=concept, kind="grid")
            x = col(line, "strength")
            band(bias, x, line, color, concept, marker)
            bias.plot(x, col(line, "bias_against"), color=color, linestyle="--", linewidth=1)
            within = col(series(line, inside=True), "strength")
            bias.plot(within, [-0.25 - 0.3 * i] * len(within), color=color, linewidth=4, marker="|")
            for axis, key in ((bias, "bias_random"), (facts, "fact_accuracy_random"), (text, "perplexity_random")):
                if line and line[-1][key] != "":     # models can have other values
                    axis.plot(x, col(line, key), color=color, linestyle=":", linewidth=1)
            facts.plot(x, col(line, "fact_accuracy"), color=color, marker=marker)
            if line and line[-1]["perplexity"] != "":
                text.plot(x, col(line, "perplexity"), color=color, marker=marker)
        bias.set(title=name)
        facts.set(ylim=(-0.03, 1.03))
        text.set(xlabel="strength (units)", yscale="log")
    for axis, label in zip(axes[:, 0], ("bias left, nats", "facts right, share",
                                        "perplexity of neutral\ntext, times unsteered")):
        axis.set_ylabel(label)
    below(figure, axes[0][0], 4)
    return figure


FIGURES = (
    Figure("antonym", "The antonym vector across templates",
           "Above: gain in the log-probability of the antonym over norm-matched random vectors, 95 % intervals, every "
           "model on its own scale; dark: the template the vector was made on. Below: how often the antonym's first token "
           "is the top one under each way to make the vector, and without a vector.",
           partial(facet_rows, facet="template"), antonym_draw),
    Figure("complexity", "The antonym vector in longer and in contrary contexts",
           "Above: gain over norm-matched random vectors behind none to many neutral sentences, behind pairs of "
           "synonyms, and behind a conflicting instruction, in all templates, 95 % intervals, and the gain under the "
           "synonym's vector; every model on its own scale. Below: how often the antonym's first token is the top one, in the "
           "template the vector was made on.", partial(facet_rows, facet="context"), complexity_draw),
    Figure("values", "Bias, facts and text against strength",
           "Mean size of the log-odds under the one sign of the vector that the tuning split picks, with 95 % "
           "intervals (dashed: each probe steered against its own lean); share of unrelated facts still right, mean of both "
           "signs (A5 takes the vector's own); "
           "perplexity of neutral text. Dotted: random vectors of the same norm. Bars below zero: strengths at which the "
           "one sign lowers the bias and the facts hold.", values_rows, values_draw),
)
