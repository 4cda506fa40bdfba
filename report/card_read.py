"""Card, reading: the concept of a suite, numbers of finished stages with their places, and how they are written."""
from lib.artifacts import UserError
from report import draw
from report.claims import widened


def concept_of(suite):
    """Key of the concept that a card's suite is about."""
    if suite.relations:
        return f"relation/{suite.studied[0]}"
    keys = [f"{kind}/{c['name']}" for kind in ("trait", "behaviour", "value") for c in getattr(suite, kind + "s")]
    if len(keys) != 1:
        raise UserError(f"{suite.folder}: {len(keys)} concepts, expected one; CONCEPT= says which")
    return keys[0]


class Read:
    """found {stage: Artifact}. numbers {name: {"at": [stage, table, step, ...], "found": value}} of all that was
    read; a step is a key, an index, or the equal fields of a row. "counted" names the trait, where the value is what
    report/card_along.py counts in the texts of that table; "computed" says what is made here from its rows."""

    def __init__(self, found):
        self.found, self.numbers = found, {}

    def __call__(self, name, stage, table, *steps):
        value = look(self.found[stage], table, steps)
        if value is not None:
            self.numbers[name] = {"at": [stage, table, *steps], "found": value}
        return deciding(value)


def deciding(value):
    """A value in which estimates, alone or in an object, have the intervals that decide (report/claims.py); None in
    place of one from a single unit."""
    if isinstance(value, dict) and {"value", "low", "high", "n"} <= set(value):
        wide = widened({"": value})[""]
        return wide if wide["low"] is not None else None
    return {key: deciding(part) for key, part in value.items()} if isinstance(value, dict) else value


def look(artifact, table, steps):
    """What stands at a place of an artifact, or None."""
    value = artifact.results if table == "results" else artifact.config if table == "config" else draw.table(
        artifact, table)
    for step in steps:
        if isinstance(step, dict):
            value = next((row for row in value if step.items() <= row.items()), None)
        elif isinstance(step, int):
            value = value[step] if value and len(value) > step else None
        else:
            value = (value or {}).get(step)
    return value


# --- words --------------------------------------------------------------------------------------------------
def est(found, digits=1, scale=1):
    """`12.3 [8.1, 16.0]`; of a bare number the number; of what `deciding` left out words."""
    if found is None:
        return "(one unit, no interval)"
    if not isinstance(found, dict):
        return draw.number(scale * found, digits)
    low, high = (draw.number(scale * found[end], digits) for end in ("low", "high"))
    return f"{draw.number(scale * found['value'], digits)} [{low}, {high}]"


def percent(found):
    return f"{est(found, 0, 100)} %"


def share(found):
    """`percent` of what counts inputs: a widened interval ends at none and at all of them."""
    return percent({**found, **{end: min(max(found[end], 0.0), 1.0) for end in ("low", "high")}} if isinstance(
        found, dict) else found)


def span(value, interval, n):
    """An estimate of a value and a bootstrap interval over n units that stand apart; see `deciding`."""
    return deciding({"value": value, "low": interval[0], "high": interval[1], "n": n, "method": "bootstrap"})


def clear(found):
    """+1, -1: the whole interval lies above, below 0; 0: neither."""
    return (found["low"] > 0) - (found["high"] < 0) if found else 0
