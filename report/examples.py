"""Single cases: prompt, output and scores of steered texts, a best, a median and a worst per trait and task; and words
whose antonym the vector should bring.

Chosen by a rule, not by eye: the texts of one trait are ordered by expression, then coherence, then item, the words of
one context by what the vector adds to the log-probability of the antonym, and the last, the middle and the first are
shown. All others are in 03_transfer: cases.jsonl, and relation_items.jsonl with relation_logp.npy.
"""
import re

from report.draw import number, series, table

ARMS = {"steered": "vector", "prompted": "instruction", "steered_prompted": "vector and instruction",
        "random": "random vector"}
STEERED, RANDOM = 1, slice(5, None)      # rows of relation_logp and relation_rank, as outputs/README.md lists them


def _score(value):
    return "no score" if value is None else number(value, 0)


def ordered(cases, trait, arm, tasks):
    """Cases of one trait and arm with a score, worst first."""
    mine = [c for c in cases if c["trait"] == trait and c["arm"] == arm and c["task"] in tasks
            and None not in (c["expression"][trait], c["coherence"])]
    return sorted(mine, key=lambda c: (c["expression"][trait], c["coherence"], c["task"], c["item"]))


def picked(mine):
    """[(label, case)] of at most three different cases."""
    places = {"best": len(mine) - 1, "median": len(mine) // 2, "worst": 0}
    shown = {}
    for label, place in places.items():
        shown.setdefault(place, []).append(label)
    return [(" and ".join(labels), mine[place]) for place, labels in shown.items()] if mine else []


def entry(label, case, trait, prompts):
    """One case as Markdown: what was asked, where that is known, what came, and its scores."""
    asked = f"> **asked** {plain(prompts[case['item']])}\n>\n" if case["item"] in prompts else ""
    return (f"**{harmless(label)}**, {case['task']} `{harmless(case['item'])}`, {ARMS[case['arm']]}: expression "
            f"{_score(case['expression'][trait])}, coherence {_score(case['coherence'])}\n\n"
            f"{asked}> **answer** {plain(case['output'] or '(empty)')}")


def plain(text):
    """A model's text as Markdown that shows it as it is, on one line; what cannot be shown by its code point."""
    return re.sub(r"([\\`*_|#<>\[\]~{}])", r"\\\1", _visible(text.strip())).replace("\n", "<br>")


def harmless(text):
    """A word or a reason from a manifest, for a cell or a sentence of Markdown: on one line, and escaped where it would
    mean something; the underscores inside a key and the brackets of an interval do not."""
    return re.sub(r"[\\`*|#<~{}]|(?<!\w)_|_(?!\w)|\](?=[(\[:])", r"\\\g<0>", _visible(" ".join(str(text).split())))


def _visible(text):
    return "".join(c if c.isprintable() or c == "\n" else f"[U+{ord(c):04X}]" for c in text)


def opened(artifact, limit):
    """(cases, {item: prompt, cut at `limit` letters}, records of the traits in the first task) of stage 03; no prompts
    where they are not ours to pass on (report.audit)."""
    cases, prompts = table(artifact, "cases"), {}
    for item in table(artifact, "prompts") if (artifact.path / "prompts.jsonl").exists() else ():
        prompts[item["id"]] = item["prompt"] if len(item["prompt"]) <= limit else item["prompt"][:limit] + " ..."
    return cases, prompts, series(table(artifact, "traits"), task=artifact.config["tasks"][0])


def words(artifact, contexts=None):
    """Markdown table: three words of every context, or of the first few, with their antonyms' log-probabilities and
    ranks, unsteered, under the vector, and under random ones (means). Empty where no relation was measured."""
    items = table(artifact, "relation_items")
    if not items:
        return ""
    logp, rank = artifact.array("relation_logp"), artifact.array("relation_rank")
    lines = ["| context | case | word, antonym | template | log-probability, unsteered | vector | random | "
             "tokens above it, unsteered | vector | random |", "|---" * 10 + "|"]
    for context in list(dict.fromkeys(item["context"] for item in items))[:contexts]:
        mine = sorted((float(logp[i, STEERED] - logp[i, 0]), i) for i, item in enumerate(items) if item["context"] == context)
        for label, (_, i) in picked(mine):
            told = [*(number(logp[i, row].mean(), 1) for row in (0, STEERED, RANDOM)),
                    *(number(rank[i, row].mean(), 0) for row in (0, STEERED, RANDOM))]
            lines.append(f"| {harmless(context)} | {label} | {plain(items[i]['x'])}, {plain(items[i]['y'])} | "
                         f"{harmless(items[i]['template'])} | " + " | ".join(told) + " |")
    return "\n".join(lines)


def page(name, artifact):
    """Every trait of one model: three steered cases, and one under the instruction beside them; then words."""
    (cases, prompts, traits), tasks = opened(artifact, 600), artifact.config["tasks"]
    blocks = [f"# Single cases: {harmless(name)}\n\n" + __doc__.split("\n\n", 1)[1].strip().replace("\n", " ")
              + f"\n\nStage 03_transfer, digest {artifact.digest[:12]}."]
    for record in traits:
        trait = record["trait"]
        mine, asked = (ordered(cases, trait, arm, tasks) for arm in ("steered", "prompted"))
        blocks.append(f"## {harmless(trait)}\n\n{record['scope']}, {len(mine)} steered texts")
        blocks += [entry(label, case, trait, prompts) for label, case in picked(mine)]
        blocks += [entry("for comparison, median", asked[len(asked) // 2], trait, prompts)] if asked else []
    if antonyms := words(artifact):
        blocks += ["## Antonyms", antonyms]
    return "\n\n".join(blocks) + "\n"


def digest(names, found):
    """Cases per model for the report itself: of the trait that its vector expresses best, of the middle one and of the
    last, the median text; and three words without a context."""
    blocks = []
    for name in names:
        artifact = found[name, "03_transfer"]
        cases, prompts, traits = opened(artifact, 300)
        rows = sorted(traits, key=lambda r: (r["expression"]["steered"], r["trait"]))
        for record in (rows[-1], rows[len(rows) // 2], rows[0]) if cases else ():
            mine = ordered(cases, record["trait"], "steered", artifact.config["tasks"][:1])
            if mine:
                blocks.append(entry(f"{name}, {record['trait']}", mine[len(mine) // 2], record["trait"], prompts))
        if antonyms := words(artifact, contexts=1):
            blocks.append(f"{harmless(name)}, antonyms:\n\n{antonyms}")
    return "\n\n".join(blocks) or "*No trait and no relation has a vector here.*"
