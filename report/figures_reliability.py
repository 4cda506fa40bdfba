"""Figures of the reliability study: inputs, bias, prompt shifts, models."""

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

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
    by_model,
    caption,
    counted,
    least,
    number,
    panels,
    plt,
    shorten,
    sources,
    table,
    tall,
)


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
                [-row["random_p95"], row["random_p95"]], [y, y], color=PALE, linewidth=5.5, solid_capstyle="butt"
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


def bias_rows(names, found):
    rows = []
    for name in names:
        for record in table(found[name, "05_reliability"], "behaviours"):
            rows.append(
                {
                    "model": name,
                    "behaviour": record["name"],
                    "n": record["n"],
                    **{key: record["bias"][key] for key in ("letter", "yes_marginal", "unexplained", "permuted")},
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
            y, [row["yes_marginal"] for row in mine], left=[row["letter"] for row in mine], color=ORANGE, height=0.8
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
        axis.set(title=name, xlim=(0, 1), ylim=(-0.8, len(mine) - 0.2), xlabel="share of the variance of slopes")
        axis.set_yticks(y, [shorten(row["behaviour"]) for row in mine], fontsize=6.5)
    figure.legend(
        handles=[
            Patch(color=BLUE, label="option letter"),
            Patch(color=ORANGE, label="Yes/No on top"),
            Patch(color="#F0F0F0", label="unexplained"),
            Line2D([], [], marker="|", linestyle="", color=BLACK, label="permuted labels"),
            Line2D([], [], marker="x", linestyle="", color=RED, label="pairs whose slope changes sign on swap"),
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
    return rows, rows and caption(names, found, "03_transfer", f"{len({row['behaviour'] for row in rows})} behaviours")


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
                axis.text(
                    x,
                    y,
                    number(value, 2),
                    ha="center",
                    va="center",
                    fontsize=8,
                    color="white" if abs(value) > 0.6 * limit else BLACK,
                )
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
    return rows, rows and sources(found, [("+", "05_across")], f"{len({row['behaviour'] for row in rows})} behaviours")


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


FIGURES = (
    Figure(
        "steerability",
        "Steerability of single inputs",
        "Least-squares slope of the propensity against the multiplier, matched relative " "strength, held-out inputs.",
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
        "Mean steerability per behaviour under the prompt the vector was made on, and " "under a shifted prompt.",
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
)
