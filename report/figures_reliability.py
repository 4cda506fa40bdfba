"""Figures of the reliability study: inputs, bias, prompt shifts, models."""

from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lib.artifacts import ROOT, read_json

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
    number,
    panels,
    plt,
    shorten,
    sources,
    table,
    tall,
)

PUBLISHED = read_json(ROOT / "data" / "published.json")["reliability"]


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
                    **dict(zip(("anti_low", "anti_high"), record["intervals"]["anti_steerable"])),
                    "random_p95": record["random"]["p95"],
                    "steerable": record["steerable"],
                }
            )
    return rows, rows and caption(names, found, "05_reliability", each(rows, names, "behaviours", "inputs"))


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
                f"{100 * row['anti_steerable']:.0f} % [{100 * row['anti_low']:.0f}, {100 * row['anti_high']:.0f}]",
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
            Line2D([], [], linestyle="", label="right: share anti-steerable [95 % interval]"),
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
                    **dict(zip(("unexplained_low", "unexplained_high"), record["intervals"]["unexplained"])),
                    "swap_flips_sign": record["swap"]["flips_sign"] if record["swap"] else "",
                }
            )
    return rows, rows and caption(names, found, "05_reliability", each(rows, names, "behaviours", "inputs"))


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
        axis.hlines(
            y,
            [1 - row["unexplained_high"] for row in mine],
            [1 - row["unexplained_low"] for row in mine],
            color=GREY,
            linewidth=0.8,
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
            Line2D([], [], color=GREY, linewidth=0.8, label="95 % interval of what both explain"),
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


def published_rows(names, found):
    """Every behaviour of every model, here and published, in the order of its value: no behaviour is matched by name."""
    panels_of, rows = {}, []
    for name in names:
        records = table(found[name, "05_reliability"], "behaviours")
        panels_of[name, "here"] = {
            "steerability": [r["sum_raw"]["mean"] for r in records],
            "anti_steerable": [r["sum_raw"]["anti_steerable"] for r in records],
            "explained": [r["bias"]["letter"] + r["bias"]["yes_marginal"] for r in records],
        }
    for model, values in PUBLISHED["steerability"].items():
        inputs = PUBLISHED["per_input"].get(model, {}).values()
        panels_of[model, "published"] = {
            "steerability": list(values.values()),
            "anti_steerable": [r["anti_steerable"] for r in inputs],
            "explained": [r["letter"] + r["yes_marginal"] for r in inputs],
        }
    for (model, where), columns in panels_of.items():
        for what, values in columns.items():
            for rank, value in enumerate(sorted(values, reverse=True)):
                rows.append({"model": model, "from": where, "what": what, "rank": rank + 1, "of": len(values), "value": value})
    counts = f"{counted([r for r in rows if r['what'] == 'steerability'], names, 'behaviours')}"
    if not any(row["from"] == "here" for row in rows):
        return [], ""
    return rows, caption(names, found, "05_reliability", counts)


def published_draw(rows, names):
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.3), layout="constrained")
    titles = {
        "steerability": "mean slope (nats per raw multiplier)",
        "anti_steerable": "share of inputs anti-steerable",
        "explained": "variance by letter and Yes/No",
    }
    lines = dict.fromkeys((row["from"], row["model"]) for row in rows)
    styles = {}
    for where, colours, style in (("here", (BLUE, RED, GREEN, PINK), "-"), ("published", (BLACK, GREY, ORANGE), "--")):
        for i, key in enumerate(key for key in lines if key[0] == where):
            styles[key] = {"color": colours[i % len(colours)], "linestyle": style}
    for axis, (what, label) in zip(axes, titles.items()):
        for key, style in styles.items():
            mine = [row for row in rows if (row["from"], row["model"], row["what"]) == (*key, what)]
            if mine:
                x = [(row["rank"] - 0.5) / row["of"] for row in mine]
                axis.plot(x, [row["value"] for row in mine], label=f"{key[1]}, {key[0]}", linewidth=1.3, **style)
        axis.axhline(0, color=PALE, linewidth=0.8, zorder=0)
        axis.set(xlabel="behaviours, largest first (share)", xlim=(0, 1), ylabel=label)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
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
        "published_reliability",
        "Beside the published models",
        "Each line: one model's behaviours, sorted. Solid: here; broken: digitised from the figures of arXiv 2407.12404. "
        "Both are of the released definition and raw multipliers (the variance shares here: matched strength). Other "
        "models and, on the testbed, other statements: only the shapes can be compared.",
        published_rows,
        published_draw,
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
