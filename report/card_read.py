"""Card, reading: the concept of a suite, numbers of finished stages with their places, and how they are written."""
from lib import metrics
from lib.artifacts import UserError
from report import draw
from report.claims import widened

# --- what decides -------------------------------------------------------------------------------------------
ALIKE = 10                   # units that are all alike show a sign (2 / 2 ** 10 by luck); fewer, and no difference, nothing
# ------------------------------------------------------------------------------------------------------------


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
    report/card_along.py counts in the texts of that table; "computed" says what is made here from its rows. "shown" is
    there where the page has another interval: the one that decides."""

    def __init__(self, found):
        self.found, self.numbers = found, {}

    def __call__(self, name, stage, table, *steps):
        value = look(self.found[stage], table, steps)
        shown = deciding(value)
        if value is not None:
            self.numbers[name] = {"at": [stage, table, *steps], "found": value}
            self.numbers[name] |= {"shown": shown} if shown != value else {}
        return shown

    def computed(self, name, what, at, found):
        """An estimate that the card makes of a table's rows, kept, with the interval that decides."""
        self.numbers[name] = {"at": at, "computed": what, "found": found, "shown": deciding(found)}
        return self.numbers[name]["shown"]

    def span(self, name, value, interval, n):
        """An estimate of a value and a bootstrap interval over n units that stand apart, as what is shown of `name`."""
        made = {"value": value, "low": interval[0], "high": interval[1], "n": n, "method": "bootstrap"}
        return self.numbers[name].setdefault("shown", deciding(made))

    def share(self, name, n=None):
        """In words, a number that counts units, or a share of n: Wilson's interval is not empty where all are alike."""
        number = self.numbers[name]
        found = number.get("shown", number["found"]) if n is None else {"value": number["found"], "n": n}
        if found:
            low, high = metrics.wilson(found["value"] * found["n"], found["n"])
            found = number["shown"] = {**found, "low": low, "high": high, "method": "Wilson interval"}
        return percent(found)


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
def est(found, digits=1, scale=1, unit=""):
    """`12.3 [8.1, 16.0]`; of a bare number the number; of what has no interval words in its place."""
    if found is None:
        return "(one unit, no interval)"
    if not isinstance(found, dict):
        return draw.number(scale * found, digits) + unit
    value, low, high = (draw.number(scale * found[end], digits) for end in ("value", "low", "high"))
    return f"{value}{unit} (all {found['n']} alike)" if alike(found) else f"{value} [{low}, {high}]{unit}"


def percent(found):
    return est(found, 0, 100, " %")


def alike(found):
    """Whether all units of an estimate were: its interval has no width."""
    return found["high"] - found["low"] <= 1e-9 * abs(found["value"])


def clear(found, limit=0):
    """+1, -1: the whole interval lies above, below the limit; 0: neither."""
    if not found or alike(found) and found["n"] < ALIKE:
        return 0
    return (found["low"] > limit) - (found["high"] < limit)
