"""Figures of the reliability study: inputs, bias, prompt shifts, models."""
from itertools import combinations

from matplotlib.patches import Patch

from lib.studies import reliability
from report.draw import (BLACK, BLUE, COLORS, Figure, GREEN, GREY, ORANGE, PALE, PINK, RED, below, by_model, caption,
                         col, counted, each, listing, mark, number, panels, pick, plt, published, records, series,
                         shorten, sources, table)

REST = "#F0F0F0"                      # what neither bias explains
PAPERS = "papers"                     # the suite of the published statements


# --- single inputs ------------------------------------------------------------------------------------------
def steerability_rows(names, found):
    rows = [{"model": name, "behaviour": record["name"], "n": record["n"],
             "mean": record["slope"]["value"], **pick(record["slope"], "low", "high"),
             **pick(record["quantiles"], "p05", "p25", "p50", "p75", "p95"),
             "anti_steerable": record["anti_steerable"],
             **dict(zip(("anti_low", "anti_high"), record["intervals"]["anti_steerable"])),
             "random_p95": record["random"]["p95"], "steerable": record["steerable"]}
            for name, record in records(names, found, "05_reliability", "behaviours")]
    return rows, rows and caption(names, found, "05_reliability", each(rows, names, "behaviours", "inputs"))


def steerability_draw(rows, names):
    figure, shown = listing(rows, names, "behaviour", 6.5, lambda row: row["mean"],
                            xlabel="slope, nats per unit of strength")
    for axis, mine in shown:
        for y, row in enumerate(mine):
            color, random = BLUE if row["steerable"] else GREY, row["random_p95"]
            axis.plot([-random, random], [y, y], color=PALE, linewidth=5.5, solid_capstyle="butt")
            axis.plot([row["p05"], row["p95"]], [y, y], color=color, linewidth=0.8)
            axis.plot([row["p25"], row["p75"]], [y, y], color=color, linewidth=3, solid_capstyle="butt")
            axis.plot(row["mean"], y, "o", color="white", markeredgecolor=BLACK, markersize=4)
            share, low, high = (100 * row[key] for key in ("anti_steerable", "anti_low", "anti_high"))
            axis.text(1.005, y, f"{share:.0f} % [{low:.0f}, {high:.0f}]", transform=axis.get_yaxis_transform(),
                      fontsize=6.5, va="center", color=RED if row["anti_steerable"] > 0.1 else GREY)
        axis.axvline(0, color=BLACK, linewidth=0.8)
    below(figure, [mark("middle half of inputs (thin: 5 to 95 %)", color=BLUE, linewidth=3),
                   mark("not above random", color=GREY, linewidth=3),
                   mark("random vectors' means, 5 to 95 %", color=PALE, linewidth=5),
                   mark("mean", marker="o", color="white", markeredgecolor=BLACK, linestyle=""),
                   mark("right: share anti-steerable [95 % interval]", linestyle="")], 3)
    return figure


def bias_rows(names, found):
    rows = [{"model": name, "behaviour": record["name"], "n": record["n"],
             **pick(record["bias"], "letter", "yes_marginal", "unexplained", "permuted"),
             **dict(zip(("unexplained_low", "unexplained_high"), record["intervals"]["unexplained"])),
             "swap_flips_sign": record["swap"]["flips_sign"] if record["swap"] else ""}
            for name, record in records(names, found, "05_reliability", "behaviours")]
    return rows, rows and caption(names, found, "05_reliability", each(rows, names, "behaviours", "inputs"))


def bias_draw(rows, names):
    figure, shown = listing(rows, names, "behaviour", 6.5, lambda row: row["letter"] + row["yes_marginal"],
                            xlim=(0, 1), xlabel="share of the variance of slopes")
    for axis, mine in shown:
        y, left = range(len(mine)), [0] * len(mine)
        for key, color in (("letter", BLUE), ("yes_marginal", ORANGE), ("unexplained", REST)):
            axis.barh(y, col(mine, key), left=left, color=color, height=0.8)
            left = [start + row[key] for start, row in zip(left, mine)]
        low, high = ([1 - row[f"unexplained_{end}"] for row in mine] for end in ("high", "low"))
        axis.hlines(y, low, high, color=GREY, linewidth=0.8)
        axis.plot(col(mine, "permuted"), y, "|", color=BLACK, markersize=6)
        swapped = [(row["swap_flips_sign"], i) for i, row in enumerate(mine) if row["swap_flips_sign"] != ""]
        axis.plot(*zip(*swapped or [(float("nan"), 0)]), "x", color=RED, markersize=4)
    below(figure, [Patch(color=BLUE, label="option letter"), Patch(color=ORANGE, label="Yes/No on top"),
                   Patch(color=REST, label="unexplained"),
                   mark("95 % interval of what both explain", color=GREY, linewidth=0.8),
                   mark("permuted labels", marker="|", linestyle="", color=BLACK),
                   mark("pairs whose slope changes sign on swap", marker="x", linestyle="", color=RED)], 3)
    return figure


# --- beside the published values ----------------------------------------------------------------------------
def published_rows(names, found):
    """Every behaviour of every model, here and published, by rank of its value: none is matched by name."""
    known, columns, rows = published("reliability"), {}, []
    for name in names:
        mine = table(found[name, "05_reliability"], "behaviours")
        columns[name, "here"] = {"steerability": [r["sum_raw"]["mean"] for r in mine],
                                 "anti_steerable": [r["sum_raw"]["anti_steerable"] for r in mine],
                                 "explained": [r["bias"]["letter"] + r["bias"]["yes_marginal"] for r in mine]}
    for model, values in known["steerability"].items():
        inputs = known["per_input"].get(model, {}).values()
        columns[model, "published"] = {"steerability": list(values.values()),
                                       "anti_steerable": col(inputs, "anti_steerable"),
                                       "explained": [r["letter"] + r["yes_marginal"] for r in inputs]}
    for (model, where), by_what in columns.items():
        for what, values in by_what.items():
            rows += [{"model": model, "from": where, "what": what, "rank": rank, "of": len(values), "value": value}
                     for rank, value in enumerate(sorted(values, reverse=True), 1)]
    if not series(rows, **{"from": "here"}):
        return [], ""
    n = counted(series(rows, what="steerability"), names, "behaviours")
    return rows, caption(names, found, "05_reliability", n)


def published_draw(rows, names):
    figure, axes = plt.subplots(1, 3, figsize=(9.2, 3.3), layout="constrained")
    titles = {"steerability": "mean slope (nats per raw multiplier)",
              "anti_steerable": "share of inputs anti-steerable",
              "explained": "variance by letter and Yes/No"}
    for where, colors, style in (("here", (BLUE, RED, GREEN, PINK), "-"), ("published", (BLACK, GREY, ORANGE), "--")):
        theirs = series(rows, **{"from": where})
        for i, model in enumerate(dict.fromkeys(col(theirs, "model"))):
            for axis, what in zip(axes, titles):
                mine = series(theirs, model=model, what=what)
                if mine:
                    axis.plot([(row["rank"] - 0.5) / row["of"] for row in mine], col(mine, "value"),
                              label=f"{model}, {where}", linewidth=1.3, color=colors[i % len(colors)],
                              linestyle=style)
    for axis, label in zip(axes, titles.values()):
        axis.axhline(0, color=PALE, linewidth=0.8, zorder=0)
        axis.set(xlabel="behaviours, largest first (share)", xlim=(0, 1), ylabel=label)
    below(figure, axes[0], 3)
    return figure


def ranks_rows(names, found):
    """Rank correlations over behaviours of mean slopes with those of the published models, and of these among
    themselves; here where more behaviours steer than luck explains."""
    known, here, formats, rows = published("reliability")["steerability"], {}, {}, []
    mine = [name for name in names if found[name, "05_reliability"].config.get("suite") == PAPERS
            and reliability.steers(found[name, "05_reliability"].results)]
    for name, record in records(mine, found, "05_reliability", "behaviours"):
        formats[record["name"]] = record["format"]
        for strength, key in (("raw", "sum_raw"), ("matched", "sum")):
            here.setdefault((name, strength), {})[record["name"]] = record[key]["mean"]
    pairs = [(one, values, other) for one, values in here.items() for other in known]
    pairs += [((one, "published"), known[one], other) for one, other in combinations(known, 2)]
    for k, ((one, strength), values, other) in enumerate(pairs):
        shared = sorted(set(values) & set(known[other]) & set(formats))
        for among, groups in (("all", [""] * len(shared)), ("within formats", [formats[b] for b in shared])):
            rho = reliability.correlate_within([values[b] for b in shared], [known[other][b] for b in shared], groups, [7, k])
            if isinstance(rho, dict):
                rows.append({"model": one, "published_model": other, "strength": strength, "among": among,
                             **pick(rho, "value", "low", "high", "n")})
    return rows, rows and caption(mine, found, "05_reliability", f"{max(col(rows, 'n'))} behaviours")


def ranks_draw(rows, names):
    lines = {(row["model"], row["published_model"]): None for row in rows}
    figure, axis = plt.subplots(figsize=(7.6, 1.5 + 0.42 * len(lines)), layout="constrained")
    looks = {"raw": (ORANGE, -0.15), "matched": (BLUE, 0.15), "published": (GREY, 0.0)}
    for y, (one, other) in enumerate(lines):
        for row in series(rows, model=one, published_model=other):
            color, shift = looks[row["strength"]]
            inside = row["among"] != "all"
            at = y + shift + (0.07 if inside else -0.07)
            axis.plot([row["low"], row["high"]], [at, at], color=color, linewidth=1.2, alpha=1 if inside else 0.5)
            axis.plot(row["value"], at, "o", color=color, markersize=5, markerfacecolor=color if inside else "white", label=(
                {"raw": "raw multipliers", "matched": "matched strength", "published": "published, raw"}[row["strength"]]
                + f", {row['among']}"))
    axis.set_yticks(range(len(lines)), [f"{one}  /  {other}" for one, other in lines])
    axis.invert_yaxis()
    axis.axvline(0, color=PALE, linewidth=0.8, zorder=0)
    axis.set(xlabel="Spearman over behaviours of mean slopes", xlim=(-0.75, 1.02))
    below(figure, list({handle.get_label(): handle for handle in axis.get_legend_handles_labels()[0]}.values()), 3)
    return figure


def matched_rows(names, found):
    """Every behaviour of the papers' own statements, here and published, by name; nothing on the testbed, whose
    statements are its own."""
    known = published("reliability")["steerability"]
    mine = [name for name in names if found[name, "05_reliability"].config.get("suite") == PAPERS]
    rows = [{"model": name, "behaviour": record["name"], "n": record["n"], "here": record["sum_raw"]["mean"],
             "published_model": model, "published": values[record["name"]]}
            for name, record in records(mine, found, "05_reliability", "behaviours")
            for model, values in known.items() if record["name"] in values]
    n = rows and each([row for row in rows if row["published_model"] == rows[0]["published_model"]],
                      list(dict.fromkeys(col(rows, "model"))), "behaviours", "inputs")
    return rows, rows and caption(mine, found, "05_reliability", n)


def matched_draw(rows, names):
    names = [name for name in names if name in col(rows, "model")]
    most = max(len(set(col(mine, "behaviour"))) for _, mine in by_model(rows, names))
    figure, axes = panels(names, 1.4 + 0.19 * most, width=6.2)
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        here = {row["behaviour"]: row["here"] for row in sorted(mine, key=lambda row: row["here"])}
        at = {behaviour: i for i, behaviour in enumerate(here)}
        for model, color, marker in zip(dict.fromkeys(col(rows, "published_model")), (BLACK, ORANGE, PINK), "os^"):
            dots = series(mine, published_model=model)
            axis.plot(col(dots, "published"), [at[row["behaviour"]] for row in dots], linestyle="", marker=marker,
                      color=color, label=model)
        axis.set_yticks(range(len(here)), [f"{shorten(b, 30)}  {number(value, 2)}" for b, value in here.items()], fontsize=7)
        axis.axvline(0, color=PALE, linewidth=0.8, zorder=0)
        axis.set(title=name, xlabel="published mean slope (nats per raw multiplier)", ylabel="mean slope here")
    below(figure, axes[0][0], 3)
    return figure


# --- prompt shifts ------------------------------------------------------------------------------------------
def id_ood_rows(names, found):
    rows = [{"model": name, "behaviour": record["behaviour"], "shift": record["shift"].replace("->", " to "),
             **pick(record, "id", "ood", "distance"),
             "relative": "" if record["relative"] is None else record["relative"]}
            for name, record in records(names, found, "03_transfer", "shifts", plotted=True)]
    return rows, rows and caption(names, found, "03_transfer", f"{len(set(col(rows, 'behaviour')))} behaviours")


def id_ood_draw(rows, names):
    figure, axes = panels(names, 4.2, sharex=True, sharey=True)
    both = [*col(rows, "id"), *col(rows, "ood")]
    ends = [min(both), max(both)]
    for axis, (name, mine) in zip(axes[0], by_model(rows, names)):
        for i, shift in enumerate(dict.fromkeys(col(rows, "shift"))):
            dots = series(mine, shift=shift)
            axis.plot(col(dots, "id"), col(dots, "ood"), "osD^vP"[i % 6], linestyle="", color=COLORS[i % 6],
                      alpha=0.75, label=shift)
        axis.plot(ends, ends, color=GREY, linewidth=0.8, linestyle="--")
        axis.axhline(0, color=GREY, linewidth=0.6)
        axis.axvline(0, color=GREY, linewidth=0.6)
        axis.set(title=name, xlabel="steerability, same prompt (nats per unit)")
    axes[0][0].set_ylabel("steerability, shifted prompt")
    below(figure, axes[0][0], 3)
    return figure


def grid_rows(names, found):
    rows = []
    for name in names:
        stage = found[name, "03_transfer"]
        means = stage.results.get("behaviours", {}).get("mean_steerability", {})
        rows += [{"model": name, "vector": vector, "inputs": inputs, "value": means[f"{vector}->{inputs}"]}
                 for vector, inputs in (stage.config["pairs"] if means else [])]
    behaviours = {record["behaviour"] for _, record in records(names, found, "03_transfer", "shifts")}
    return rows, rows and caption(names, found, "03_transfer", f"{len(behaviours)} behaviours")


def grid_draw(rows, names):
    settings = list(dict.fromkeys(col(rows, "vector")))
    figure, axes = panels(names, 3.9, sharey=True)
    limit = max(map(abs, col(rows, "value"))) or 1
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


# --- across models ------------------------------------------------------------------------------------------
def across_rows(names, found):
    if ("+", "05_across") not in found:
        return [], ""
    rows = [{"pair": record["pair"], "behaviour": record["name"], **dict(zip("xy", record["mean"])),
             **dict(zip(("x_sd", "y_sd"), record["sd"]))} for record in table(found["+", "05_across"], "pairs")]
    return rows, rows and sources(found, [("+", "05_across")], f"{len(set(col(rows, 'behaviour')))} behaviours")


def across_draw(rows, names):
    pairs = list(dict.fromkeys(col(rows, "pair")))
    figure, axes = plt.subplots(len(pairs), 2, figsize=(8.4, 3.6 * len(pairs)), squeeze=False)
    for line, pair in zip(axes, pairs):
        mine, (first, second) = series(rows, pair=pair), pair.split(" / ")
        for axis, x, y, what in zip(line, ("x", "x_sd"), ("y", "y_sd"), ("mean slope", "SD of slopes")):
            axis.plot(col(mine, x), col(mine, y), "o", color=BLUE, alpha=0.75)
            axis.set(title=f"{what}, one dot per behaviour", xlabel=first, ylabel=second)
    return figure


FIGURES = (
    Figure("steerability", "Steerability of single inputs",
           "Least-squares slope of the propensity against the multiplier, matched strength, held-out "
           "inputs.", steerability_rows, steerability_draw),
    Figure("published_reliability", "Beside the published models",
           "Each line: one model's behaviours, sorted. Solid: here; broken: digitised from the figures of arXiv "
           "2407.12404. Both are of the released definition and raw multipliers (the variance shares here: matched "
           "strength). Other models and, on the testbed, other statements: only the shapes can be compared.",
           published_rows, published_draw),
    Figure("published_by_name", "The same statements, here and published",
           "Mean slope of each behaviour here against what was digitised from the figures of arXiv 2407.12404, of the same "
           "statements, in the order of their slopes here; released definition and raw multipliers on both.", matched_rows, matched_draw),
    Figure("published_ranks", "Do the same behaviours steer well?",
           "Rank correlation over behaviours of mean slopes here with the published ones of the same statements (digitised from "
           "the figures of arXiv 2407.12404), and of these among themselves. Full dots: ranks within formats, so that a gap "
           "between statements and options does not count. Matched strength: a unit moves every model's next token alike.",
           ranks_rows, ranks_draw),
    Figure("bias", "What explains the spread within a behaviour",
           "Share of the variance of slopes that the letter of the positive option explains, and Yes/No on top.",
           bias_rows, bias_draw),
    Figure("id_ood", "Steerability under shifted prompts",
           "Mean steerability per behaviour under the prompt the vector was made on, and under a shifted prompt.",
           id_ood_rows, id_ood_draw),
    Figure("grid", "Every vector under every prompt",
           "Mean steerability (nats per unit) of vectors made under one prompt setting on inputs under another; all "
           "vectors have the norm of the BASE vector.", grid_rows, grid_draw),
    Figure("across", "The same behaviours on two models",
           "Mean and SD of steerability per behaviour, one model against the other.", across_rows, across_draw),
)
