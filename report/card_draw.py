"""Card, drawn: the effect beside its controls, what strength does, and every single input."""
from report import draw as draw_module
from report.card_read import clear
from report.draw import BLACK, BLUE, GREY, ORANGE, RED, SKY, plt


def forest(axis, rows, unit):
    """One line per estimate, in order from the top; 0 is no effect. A bare number is a mark without an interval."""
    rows = [(label, found) for label, found in rows if found is not None]
    for y, (label, found) in zip(range(len(rows) - 1, -1, -1), rows):
        if isinstance(found, dict):
            side = clear(found)
            color = BLACK if "minus" in label else (GREY, BLUE, RED)[side]
            axis.plot([found["low"], found["high"]], [y, y], color=color, linewidth=2.2, solid_capstyle="butt")
            axis.plot(found["value"], y, "Dos"[side], color=color)
        else:
            axis.plot(found, y, "|", color="black", markersize=11, markeredgewidth=1.8)
    axis.axvline(0, color="black", linewidth=0.8)
    axis.set(title="Effect and controls", xlabel=unit, ylim=(-0.7, len(rows) - 0.3))
    axis.set_yticks(range(len(rows) - 1, -1, -1), [label for label, _ in rows])
    axis.grid(axis="y", visible=False)


def strength(axis, shown):
    """What is measured against strength; the window in which it works, and the strength that was picked."""
    if shown["window"]:
        axis.axvspan(*shown["window"], color=SKY, alpha=0.25, linewidth=0, label="works on tuning inputs")
    right = axis.twinx() if any(other for *_, other in shown["lines"]) else None
    for (label, y, other), color, marker in zip(shown["lines"], (BLUE, ORANGE), ("o", "s")):
        (right if other else axis).plot(shown["x"], y, "-", marker=marker, color=color, label=label)
    axis.axvline(shown["chosen"], color="black", linestyle=":", linewidth=1.2, label="picked")
    axis.set(title="Strength", xlabel=shown["xlabel"], ylabel=shown["ylabel"])
    if right:
        right.set(ylim=(-0.02, 1.05), ylabel=next(label for label, _, other in shown["lines"] if other))
        right.spines["right"].set_visible(True)
        right.grid(False)
    elif shown["ylabel"] == "of 100":
        axis.set_ylim(-3, 103)
    handles = [h for one in (axis, right) if one for h in one.get_legend_handles_labels()[0]]
    axis.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)


def inputs(axis, values, unit):
    """Effect on every input, in order."""
    for color, marker, some, label in ((RED, "v", [v < 0 for v in values], "the other way"),
                                       (GREY, "o", [v == 0 for v in values], "unmoved"),
                                       (BLUE, "^", [v > 0 for v in values], "as intended")):
        x = [i for i, mine in enumerate(some) if mine]
        if x:
            axis.plot(x, [values[i] for i in x], marker, color=color, markersize=3.6, label=f"{label}: {len(x)}")
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set(title="Every input", xlabel="inputs, in order of effect", ylabel=unit)
    axis.legend(loc="upper left")


def draw_card(card):
    """The figure of a card (report/card.py)."""
    shown = card["picture"]
    figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.6), width_ratios=(1.25, 1, 1))
    forest(axes[0], shown["forest"], shown["unit"])
    strength(axes[1], shown)
    inputs(axes[2], shown["inputs"], shown["unit"])
    mark = {"works": "\u2713", "nothing": "\u2717", "backwards": "\u2717"}.get(card["word"], "?")
    told = f"{mark} {card['concept']} on {card['model']}" + (f", vector {card['vector']}" if card["vector"] else "")
    figure.suptitle(told, x=0.01, ha="left", fontsize=11, weight="bold")
    return figure


def draw(card, path):
    draw_module.save(draw_card(card), path, card["profile"] == "smoke")
