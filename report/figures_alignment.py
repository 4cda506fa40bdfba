"""Figures of the alignment study: antonyms across templates and contexts, values, facts and text."""

from report.draw import (
    BLACK,
    BLUE,
    Figure,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    RED,
    SKY,
    band,
    by_model,
    caption,
    least,
    panels,
    table,
)

WAYS = (
    ("centred", BLUE, "o"),
    ("mean", GREEN, "s"),
    ("contrast", ORANGE, "D"),
    ("heads", PINK, "^"),
    ("patch", RED, "v"),
)


def facet_rows(names, found, facet):
    """Records of one facet: the centred vector's gain with its interval, then the accuracy of every way."""
    rows = []
    for name in names:
        for record in table(found[name, "03_transfer"], "relations"):
            if record["facet"] == facet:
                rows.append(
                    {"model": name, "x": record["x"], "own": record["own"], "what": "gain", "way": "centred"}
                    | {key: record["gain"][key] for key in ("value", "low", "high", "n")}
                )
                rows.append(rows[-1] | {"what": "synonym", "value": record["synonym_vector"], "low": "", "high": ""})
        for record in table(found[name, "03_transfer"], "ways"):
            if record["facet"] == facet:
                new = {"model": name, "x": record["x"], "own": record["own"], "what": "top1", "way": record["way"]}
                new |= {"value": record["top1"], "low": "", "high": "", "n": record["gain"]["n"]}
                rows.append(new)
                if record["way"] == "centred":
                    rows.append(new | {"way": "unsteered", "value": record["top1_unsteered"]})
    return rows, rows and caption(
        names, found, "03_transfer", f"{least([r['n'] for r in rows if r['what'] == 'gain'])} word components"
    )


def accuracy(axis, rows, order):
    """Top-1 accuracy of every way, and without a vector, at the places `order`."""
    for i, (way, color, marker) in enumerate((*WAYS, ("unsteered", GREY, ""))):
        aside = 0 if way == "unsteered" else 0.11 * (i - 2)
        line = [row for row in rows if row["what"] == "top1" and row["way"] == way and row["x"] in order]
        axis.plot(
            [order.index(row["x"]) + aside for row in line],
            [row["value"] for row in line],
            color=color,
            marker=marker,
            markersize=4,
            linestyle="--" if way == "unsteered" else "",
            label="no vector" if way == "unsteered" else way,
        )
    axis.set(ylim=(-0.04, 1.04))


def below(figure, axis):
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)


def antonym_rows(names, found):
    return facet_rows(names, found, "template")


def antonym_draw(rows, names):
    figure, axes = panels(names, 5.8, rows=2, sharex="col", sharey="row")
    for column, (name, mine) in enumerate(by_model(rows, names)):
        templates = [row for row in mine if row["what"] == "gain"]
        axis, x = axes[0][column], range(len(templates))
        axis.bar(
            x, [row["value"] for row in templates], color=[BLUE if row["own"] else SKY for row in templates], width=0.7
        )
        axis.errorbar(
            x,
            [row["value"] for row in templates],
            linestyle="",
            color=BLACK,
            capsize=2,
            linewidth=1,
            yerr=[[row["value"] - row["low"] for row in templates], [row["high"] - row["value"] for row in templates]],
        )
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=name)
        accuracy(axes[1][column], mine, [row["x"] for row in templates])
        axes[1][column].set_xticks(x, [row["x"] for row in templates], rotation=40, ha="right", fontsize=7)
    axes[0][0].set_ylabel("gain of the antonym, nats")
    axes[1][0].set_ylabel("antonym is the top token")
    below(figure, axes[1][0])
    return figure


def complexity_rows(names, found):
    return facet_rows(names, found, "context")


def complexity_draw(rows, names):
    figure, axes = panels(names, 5.2, rows=2, sharex="col", sharey="row")
    for column, (name, mine) in enumerate(by_model(rows, names)):
        contexts = [row for row in mine if row["what"] == "gain"]
        order, axis = [row["x"] for row in contexts], axes[0][column]
        for what, color, marker in (("gain", BLUE, "o"), ("synonym", RED, "D")):
            line = [row for row in mine if row["what"] == what]
            ends = [(row["value"] - row["low"], row["high"] - row["value"]) for row in line if row["low"] != ""]
            axis.errorbar(
                range(len(line)),
                [row["value"] for row in line],
                yerr=list(zip(*ends)) or None,
                color=color,
                marker=marker,
                linestyle="",
                capsize=2,
                label={"gain": "antonym vector", "synonym": "synonym vector"}[what],
            )
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.set(title=name)
        accuracy(axes[1][column], mine, order)
        axes[1][column].set_xticks(range(len(order)), order, rotation=30, ha="right", fontsize=8)
    axes[0][0].set_ylabel("gain of the antonym, nats")
    axes[1][0].set_ylabel("antonym is the top token")
    axes[0][-1].legend(loc="upper left")
    below(figure, axes[1][0])
    return figure


def values_rows(names, found):
    rows = [
        {
            "model": name,
            "value_name": record["value_name"],
            "strength": record["strength"],
            "kind": record["kind"],
            "inside": record["inside"],
            **{key: record["bias"][key] for key in ("value", "low", "high", "n")},
            "bias_random": record["bias_random"],
            "fact_accuracy": record["fact_accuracy_both"],
            "fact_accuracy_random": record["fact_accuracy_random"],
            "perplexity": record.get("perplexity", ""),
            "perplexity_random": record.get("perplexity_random", ""),
        }
        for name in names
        for record in table(found[name, "03_transfer"], "values")
    ]
    return rows, rows and caption(names, found, "03_transfer", f"{least([row['n'] for row in rows])} probes per value")


def values_draw(rows, names):
    concepts = list(dict.fromkeys(row["value_name"] for row in rows))
    figure, axes = panels(names, 6.6, rows=3, sharex=True, sharey="row")
    colors, marks = (BLUE, RED, GREEN, PINK, ORANGE, SKY, BLACK), "osD^vPX"
    for column, (name, mine) in enumerate(by_model(rows, names)):
        for index, concept in enumerate(concepts):
            color, marker = colors[index % 7], marks[index % 7]
            line = sorted(
                (row for row in mine if row["value_name"] == concept and row["kind"] == "grid"),
                key=lambda row: row["strength"],
            )
            x = [row["strength"] for row in line]
            band(axes[0][column], x, line, color, concept, marker)
            within = [row["strength"] for row in line if row["inside"]]
            axes[0][column].plot(within, [-0.25 - 0.3 * index] * len(within), color=color, linewidth=4, marker="|")
            for row, key in ((0, "bias_random"), (1, "fact_accuracy_random"), (2, "perplexity_random")):
                if line[-1][key] != "":
                    values = [record[key] for record in line]
                    axes[row][column].plot(x, values, color=color, linestyle=":", linewidth=1)
            axes[1][column].plot(x, [row["fact_accuracy"] for row in line], color=color, marker=marker)
            if line[-1]["perplexity"] != "":
                axes[2][column].plot(x, [row["perplexity"] for row in line], color=color, marker=marker)
        axes[0][column].set(title=name)
        axes[1][column].set(ylim=(-0.03, 1.03))
        axes[2][column].set(xlabel="relative strength", yscale="log")
    axes[0][0].set_ylabel("bias left, nats")
    axes[1][0].set_ylabel("facts right, share")
    axes[2][0].set_ylabel("perplexity of neutral\ntext, times unsteered")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


FIGURES = (
    Figure(
        "antonym",
        "The antonym vector across templates",
        "Above: gain in the log-probability of the antonym over norm-matched random vectors, 95 % intervals; dark: "
        "the template the vector was made on. Below: how often the antonym's first token is the top one under each "
        "way to make the vector, and without a vector.",
        antonym_rows,
        antonym_draw,
    ),
    Figure(
        "complexity",
        "The antonym vector in longer and in contrary contexts",
        "Above: gain over norm-matched random vectors behind none to many neutral sentences, behind pairs of synonyms, and "
        "behind a conflicting instruction, in all templates, 95 % intervals, and the gain under the synonym's vector. "
        "Below: how often the antonym's first token is the top one, in the template the vector was made on.",
        complexity_rows,
        complexity_draw,
    ),
    Figure(
        "values",
        "Bias, facts and text against strength",
        "Mean size of the log-odds when each probe is steered against its lean, with 95 % intervals; share of "
        "unrelated facts still right; perplexity of neutral text. Dotted: random vectors of the same norm. Bars below zero: "
        "strengths at which the bias falls and the facts hold.",
        values_rows,
        values_draw,
    ),
)
