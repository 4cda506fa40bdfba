"""Samples: a suite at the smoke and at the quick profile."""
from collections import Counter
from dataclasses import replace

from lib import sizes, splits
from lib.fields import SPLITS

# --- settings that change the numbers -----------------------------------------------------------------------
# What the smoke profile keeps: the first of each, in file order.
SMOKE = {"traits_per_task": 3, "items": 6, "behaviours_per_format": 2, "contents": 10, "words": 15,
         "templates": 3, "values": 3, "pairs": 8, "probes": 12, "max_new_tokens": 48}
# What quick keeps: study, least, most (None: all); of traits per task. A vector converges slowly where its statements are
# diverse: of myopic-reward on SmolLM2-135M those of 32, 64 and 128 items have cosines of .67, .82 and .93 with that of 200.
QUICK = {"traits": ("preferences", 3, None), "items": ("preferences", 24, None),
         "max_new_tokens": ("preferences", 96, 96), "behaviours": ("reliability", 8, None),
         "extract": ("reliability", 16, 128), "tune": ("reliability", 8, 32), "evaluate": ("reliability", 16, None),
         "words": ("relations", 12, None), "templates": ("relations", 2, None), "values": ("values", 3, None),
         "pairs": ("values", 24, None), "probes": ("values", 8, None), "facts": ("values", 32, None)}
SEED = 8                                                      # of the quick samples
# ------------------------------------------------------------------------------------------------------------


def smoke(suite):
    """The smoke profile: the first few of everything; of the tasks, the first few items for each trait kept."""
    def first(records, key, n):
        return [r for i, r in enumerate(records) if sum(r[key] == before[key] for before in records[:i]) < n]

    def items(records):
        kept, counts = [], Counter()
        for item in records:
            mine = [name for name in item.get("traits", names) if name in names]
            if any(counts[name] < SMOKE["items"] for name in mine):
                kept.append(item)
                counts.update(mine)
        return kept

    traits = first(suite.traits, "task", SMOKE["traits_per_task"])
    names = [trait["name"] for trait in traits] or [None]
    return replace(
        suite, traits=traits, max_new_tokens=min(suite.max_new_tokens, SMOKE["max_new_tokens"]),
        tasks={task: {name: items(records) for name, records in splits.items()}
               for task, splits in suite.tasks.items()},
        behaviours=[b | {"items": sum(splits.contents(b["items"])[:SMOKE["contents"]], [])}
                    for b in first(suite.behaviours, "format", SMOKE["behaviours_per_format"])],
        relations=[relation | {"pairs": relation["pairs"][:SMOKE["words"]]} for relation in suite.relations],
        templates=suite.templates[:SMOKE["templates"]], facts=suite.facts[:SMOKE["probes"]],
        values=[v | {"pairs": v["pairs"][:SMOKE["pairs"]], "probes": v["probes"][:SMOKE["probes"]]}
                for v in suite.values[:SMOKE["values"]]])


def quick(suite, levels):
    """A full suite at the quick profile: nested samples, sizes by QUICK and the levels {study: level}, and of sizes.APART
    where it has one. What has splits is drawn inside those of the full suite and keeps them; of traits, tasks, templates
    and values it is the first."""
    suite = replace(suite, **{sizes.PARTS[study]: [] for study, level in levels.items() if level is None})

    def n(part, there):
        study, least, most = QUICK[part]
        return sizes.between(least, min(most or there, there), levels.get(part, levels[study]) or 0.0)

    def items(records):
        seen, mine = Counter(), [[name for name in item.get("traits", names) if name in names] for item in records]
        return [item for item, its in zip(records, mine) if its and seen.update(its) is None
                and min(seen[name] for name in its) <= n("items", len(records))]

    def pick(part, things, *address):
        kinds = [thing.get("level") if isinstance(thing, dict) else None for thing in things]
        return [things[i] for i in sizes.drawn(n(part, len(things)), kinds, [SEED, *address])]

    def choices(behaviour, number):
        parts = {name: splits.contents(splits.split(behaviour["items"], name)) for name in SPLITS}
        return behaviour | {"items": [
            item | {"split": name} for s, (name, mine) in enumerate(parts.items())
            for group in sizes.balanced(mine, n(name, sum(map(len, mine))), [SEED, 1, number, s]) for item in group]}

    def pairs(relation, number):
        homes = splits.homes(relation)
        found = sum((pick("words", [i for i, home in enumerate(homes) if home == name], 2, number, s)
                     for s, name in enumerate(SPLITS)), [])
        return relation | {"pairs": [relation["pairs"][i] for i in found], "splits": [homes[i] for i in found]}

    def facts(records):
        parts = {name: splits.probe_split(records, name) for name in SPLITS[1:]} if records else {}
        return [fact | {"split": name} for s, (name, mine) in enumerate(parts.items())
                for fact in pick("facts", mine, 3, 1000, s)]

    def sides(value, number):
        found = {name: [record | {"split": name, "subject": label} for record, label in zip(
            *(splits.value_split(value, name, labels) for labels in (False, True)))] for name in SPLITS}
        return value | {"pairs": pick("pairs", found["extract"], 4, number),
                        "probes": sum((pick("probes", found[name], 3, number, s) for s, name in enumerate(SPLITS[1:])), [])}

    tasks = [trait["task"] for trait in suite.traits]
    traits = [t for i, t in enumerate(suite.traits)
              if tasks[:i].count(t["task"]) < n("traits", max(map(tasks.count, tasks)))]
    kept = sizes.drawn(n("behaviours", len(suite.behaviours)), [b["format"] for b in suite.behaviours], [SEED, 5])
    names, length = [trait["name"] for trait in traits], n("max_new_tokens", suite.max_new_tokens)
    return replace(
        suite, profile="quick", levels=levels, traits=traits, max_new_tokens=length,
        tasks={task: {name: items(found) for name, found in splits.items()} for task, splits in suite.tasks.items()},
        behaviours=[choices(suite.behaviours[i], i) for i in kept],
        relations=[pairs(relation, i) for i, relation in enumerate(suite.relations)],
        templates=suite.templates[:n("templates", len(suite.templates))], facts=facts(suite.facts),
        values=[sides(value, i) for i, value in enumerate(suite.values[:n("values", len(suite.values))])])
