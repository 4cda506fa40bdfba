"""Declared: the files beside the results that the page is made from, held to a schema before anything is decided.

    report/claims.json      the claims, in the order of the page (report/claims.py)
    report/null.json        null and planted runs of their rules, by `make null`; may be absent
    data/published.json     values of the papers
    report/template.md      the text of the page, and other Markdown of the project

An object has no keys but those that are named here: a misspelt gate would leave its claim open in silence.
"""
import re

from lib.artifacts import NUMBER, ROOT, UserError, check, read_json
from lib.fields import unique
from lib.studies import reliability

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
ACROSS = "05_across"
VERDICTS = ("reproduced", "undecided", "contradicted", "not testable here")
SIDES, KINDS = ("above", "below"), ("untrained", "random", "shuffled", "permuted")
PAPERS = {"preferences": "arXiv 2607.01802", "reliability": "arXiv 2407.12404", "alignment": "arXiv 2505.01162",
          "beyond": "beyond the papers"}
# What each command runs, for its cost.
COMMANDS = {"make tune": STAGES[:2], "make transfer": STAGES[:3], "make compose": (*STAGES[:2], "04_compose"),
            "make reliability": (*STAGES[:3], "05_reliability", ACROSS)}

# Shapes, see `strict`. A gate on another stage is read from the model's own: the comparison of models may be absent.
RULE = {"side": SIDES, "threshold": NUMBER, "why": str}
GATE = {"key": str, "side": SIDES, "threshold": NUMBER, "what": str, "stage?": STAGES}
CLAIM = {"id": str, "paper": tuple(PAPERS), "title": str, "statement": str, "published": str, "source": str,
         "stage": (*STAGES, ACROSS), "key": str, "rule": RULE, "reads": dict.fromkeys(VERDICTS[:3], str),
         "null": [KINDS], "unit": str, "command": tuple(COMMANDS), "digits": tuple(range(7)),
         "needs?": ("steerable",), "gates?": [GATE], "changed?": {"from": str, "to": str, "why": str, "seen": bool}}
COUNT = {"n": int, "rate": [NUMBER], **{f"{word}?": int for word in VERDICTS}}
RUNS = {"chains": {str: COUNT}, "what?": str, "false?": COUNT, "planted?": COUNT}
ROW = {"model": str, "method": str, "layer?": int, "alpha?": NUMBER,
       **dict.fromkeys(("drop", "drop_sem", "coherence", "coherence_sem"), NUMBER)}
PUBLISHED = {"reliability": {"source": str, **reliability.PUBLISHED},
             "composition": {"source": str, "unit": str, "rows": [ROW]},
             "trait1_minus_trait2": {"source": str, "largest": NUMBER},
             "models": {"source": str, "unit": str, "smallest": NUMBER, "largest": NUMBER}}
KEY = re.compile(r"\w+(\.\w+)*(\.\*)?")
MOST, LEVELS = 1e9, 20            # size of a number, and of a nesting


def strict(where, value, shape):
    """`lib.artifacts.check` for a file that people write: an object of named keys has no others, one whose name ends
    in ? may be absent; a tuple of values stands for one of them; a text is one line and not blank; no number is
    beyond MOST. UserError names the place."""
    if isinstance(shape, dict) and isinstance(value, dict):
        names = {key.removesuffix("?"): key for key in shape} if str not in shape else dict.fromkeys(value, str)
        for key in value:
            if key not in names:
                raise UserError(f"{where}: unknown key {key!r:.60}")
        for name, key in names.items():
            if name in value:
                strict(f"{where}, {name:.60}", value[name], shape[key])
            elif name == key:
                raise UserError(f"{where}: no key {key!r}")
    elif isinstance(shape, list) and isinstance(value, list):
        for i, item in enumerate(value):
            strict(f"{where}[{i}]", item, shape[0])
    elif isinstance(shape, tuple) and not isinstance(shape[0], type):
        if not any(type(value) is type(one) and value == one for one in shape):
            raise UserError(f"{where}: is {str(value)!r:.60}, expected one of {', '.join(map(str, shape))}")
    elif shape is str and isinstance(value, str) and not (value.strip() and value.isprintable()):
        raise UserError(f"{where}: is {value!r:.60}, expected text on one line")
    elif check(where, value, shape) is value and shape is NUMBER and abs(value) > MOST:
        raise UserError(f"{where}: is {value:g}, expected a number of {MOST:g} at most")
    return value


def _file(path, shape):
    """(its name from the project's root, content)."""
    name, value = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path, read_json(path)
    if _deep(value, LEVELS):                               # Python reads 900 levels and cannot say them again
        raise UserError(f"{name}: nested too deeply")
    return name, check(name, value, shape)


def _deep(value, left):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return left == 0 or any(_deep(part, left - 1) for part in parts)


def listed(path=ROOT / "report" / "claims.json"):
    """The claims of report/claims.json, in the order of the page. UserError names file, claim and key."""
    name, claims = _file(path, [dict])
    for i, claim in enumerate(claims):
        where = f"{name}, {claim['id']:.40}" if isinstance(claim.get("id"), str) else f"{name}[{i}]"
        strict(where, claim, CLAIM)
        if not claim["id"].isalnum():
            raise UserError(f"{where}: the id is no word")
        for one in (claim, *claim.get("gates", ())):
            if not KEY.fullmatch(one["key"]) or one is not claim and "*" in one["key"]:
                raise UserError(f"{where}: key {one['key']!r:.60}, expected names with dots between them")
    unique(name, "id", claims)
    if not claims:
        raise UserError(f"{name}: no claim")
    return claims


def measured(path=ROOT / "report" / "null.json"):
    """{claim: its null and planted runs} of report/null.json; empty before the first `make null`."""
    name, told = _file(path, {"claims": dict}) if path.is_file() else ("", {"claims": {}})
    for claim, runs in strict(f"{name}, claims", told["claims"], {str: RUNS}).items():
        where, counts = f"{name}, claims, {claim}", [*runs["chains"].values(), runs.get("false"), runs.get("planted")]
        if any(count and len(count["rate"]) != 3 for count in counts):
            raise UserError(f"{where}: a rate is a share and the two ends of its interval")
        if "planted" in runs and "what" not in runs:
            raise UserError(f"{where}: no key 'what'")
    return told["claims"]


def published(path=ROOT / "data" / "published.json"):
    """What data/published.json holds. UserError names the key."""
    name, told = _file(path, dict)
    for i, row in enumerate(strict(name, told, PUBLISHED)["composition"]["rows"]):
        if ("layer" in row) != ("alpha" in row) or min(row["drop_sem"], row["coherence_sem"]) < 0:
            raise UserError(f"{name}, composition, rows[{i}]: expected layer and alpha or neither, errors above 0")
    return told


def text(path):
    """Text of a Markdown file of the project. UserError if it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
