"""Figures of the alignment study: antonyms across templates and contexts, values and facts."""

from draw import (
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
    return rows, rows and caption(names, found, "03_transfer", f"{least([row['n'] for row in rows])} word pairs")


def antonym_draw(rows, names):
    figure, axes = panels(names, 5.6, rows=2, sharey="row")
    for column, (name, mine) in enumerate(by_model(rows, names)):
        templates = [row for row in mine if row["facet"] == "template"]
        axis = axes[0][column]
        x = range(len(templates))
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
    return rows, rows and caption(names, found, "03_transfer", f"{least([row['n'] for row in rows])} probes per value")


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


FIGURES = (
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
)
