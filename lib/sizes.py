"""Sizes: how much a run measures. Full and smoke are what the constants say; quick lies between them, at one level
per study, which a time budget sets (report/plan.py) or --sizes. A study of level None is left out.

    a number at level u    round(L ** (1 - u) * F ** u)     F the full size, L the least: "quick" of the constant, or
                                                            smoke's where it has none
    a tuple at level u     as many of the full one as such a number says: L's first, then always the one that stands
                           farthest from those there are, in their order

What a lower level has, a higher one has too, so a run with more time extends the sample of one with less. How many
traits, how many behaviours, and how many of their inputs are evaluated may have levels apart from their study's: many
with few inputs each answer another question than few with many.
"""
from collections import defaultdict

import numpy as np

from lib.artifacts import UserError

PARTS = {"preferences": "traits", "reliability": "behaviours", "relations": "relations", "values": "values"}  # of a suite
STUDIES = tuple(PARTS)
BOTH = {"alignment": ("relations", "values")}             # the third paper has two, of very different cost
APART = {"traits": "preferences", "behaviours": "reliability", "evaluate": "reliability"}    # study of a size with a level apart
LEFT_OUT = "none"                                         # how a command line says None


def between(least, full, level):
    """The size at a level in [0, 1]; never more than full."""
    return full if least >= full else round(least ** (1 - level) * full ** level)


def at(constant, profile, level=None):
    """A constant {"full", "smoke"[, "quick"]} at a profile; level: of quick, None as 0."""
    if profile != "quick":
        return constant[profile]
    level = level or 0.0
    full, least = constant["full"], constant.get("quick", constant["smoke"])
    if not isinstance(full, tuple):
        return between(least, full, level)
    kept = [i for i, value in enumerate(full) if value in least] or [0]
    n = between(len(kept), len(full), level)
    while len(kept) < n:
        kept.append(max(range(len(full)), key=lambda i: min(abs(i - k) for k in kept)))      # the first of equals
    return tuple(full[i] for i in sorted(kept))


# --- levels on a command line ---------------------------------------------------------------------------------
def parse(text):
    """{study: level or None} of "preferences=0.41 reliability=0.55 relations=1 values=none"; "alignment=0.5" stands for
    relations and values. "behaviours=1" and others of APART may follow, where their study is not left out. UserError for
    anything else, and if no study is left."""
    pairs = [word.partition("=") for word in str(text).replace(",", " ").split()]
    pairs = [(study, level) for name, _, level in pairs for study in BOTH.get(name, [name])]
    try:
        levels = {study: None if level == LEFT_OUT else float(level) for study, level in pairs}
    except ValueError:
        levels = {}
    kept = [level for level in levels.values() if level is not None]
    apart = {part: levels[part] for part in APART if part in levels}
    if ({*levels} != {*STUDIES, *apart} or len(pairs) > len(levels) or not kept or not all(0 <= u <= 1 for u in kept)
            or None in apart.values() or None in [levels[APART[part]] for part in apart]):
        raise UserError(f"sizes {text!r}: expected {'=LEVEL '.join(STUDIES)}=LEVEL, levels from 0 to 1, or {LEFT_OUT} for "
                        f"a study that is left out; {', '.join(f'{part}=LEVEL' for part in APART)} may follow")
    return {study: levels[study] for study in STUDIES} | apart


def told(levels):
    """The text that `parse` reads; of equal levels of relations and values one word."""
    shown = {study: LEFT_OUT if level is None else format(level, "g") for study, level in levels.items()}
    for name, (one, other) in BOTH.items():
        if one in shown and shown[one] == shown[other]:
            shown = {study: level for study, level in shown.items() if study not in (one, other)} | {name: shown[one]}
    return " ".join(f"{study}={level}" for study, level in shown.items())


# --- nested samples -------------------------------------------------------------------------------------------
def drawn(n, labels, address):
    """Indices, in order, of n of the things that have these labels, every label in its share. The draw is by address;
    a larger n has all of a smaller one."""
    places = defaultdict(list)
    for i in np.random.default_rng(address).permutation(len(labels)).tolist():
        places[labels[i]].append(i)
    rank = {i: (r + 0.5) / len(mine) for mine in places.values() for r, i in enumerate(mine)}
    return sorted(sorted(rank, key=rank.get)[:n])


def balanced(contents, n, address):
    """At least n items of a behaviour, as contents [[item] or [item, its swap], ...] in order; fewer if there are not
    so many.

    Whatever n is, as many have the positive option A as B; and as many are Yes as No, as long as there are both.
    Contents go in blocks that have this balance, those with a swap and those without in their shares, in an order
    drawn by address; a larger n has all of a smaller one. Items whose letter has no partner are left out."""
    order, blocks = np.random.default_rng(address).permutation(len(contents)).tolist(), []
    cells = defaultdict(list)                              # (has a swap, is it Yes, letter): contents
    for i in order:
        first = contents[i][0]
        swapped = len(contents[i]) > 1
        cells[swapped, first["yes"] == first["positive"], "AB" if swapped else first["positive"]].append(i)
    for swapped in (True, False):
        yes, no = ([[i] for i in cells[True, side, "AB"]] if swapped else _together(
            cells[False, side, "A"], cells[False, side, "B"]) for side in (True, False))
        whole = [[*a, *b] for a, b in zip(yes, no)]
        used = {i for block in whole for i in block}
        left = [i for i in order if i not in used and (len(contents[i]) > 1) == swapped]
        late = [[i] for i in left] if swapped else _together(
            *([i for i in left if contents[i][0]["positive"] == letter] for letter in "AB"))
        blocks += [(is_late, (rank + 0.5) / len(found), block) for is_late, found in enumerate((whole, late))
                   for rank, block in enumerate(found)]
    kept, total = [], 0
    for _, _, block in sorted(blocks):
        if total < n:
            kept += block
            total += sum(len(contents[i]) for i in block)
    return [contents[i] for i in sorted(kept)]


def _together(first, second):
    """[[one, another], ...]: two lists side by side, as far as the shorter one goes."""
    return [[a, b] for a, b in zip(first, second)]
