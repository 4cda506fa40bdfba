"""Splits: which records of a suite make vectors, which select, which report. No record is in two of them, nor is a
word of a relation or the subject of a value.

A sample of the quick profile (lib.samples) was drawn inside the splits of the full suite; its records keep theirs.
"""
import re
from collections import Counter

from lib.artifacts import UserError
from lib.fields import SPLITS

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")          # where a raw text is cut into sentences


def split(items, name):
    """A behaviour's items in one split: the first 40 % of the contents, the next 10 %, the last 50 %."""
    first, last = {"extract": (0, 0.4), "tune": (0.4, 0.5), "evaluate": (0.5, 1)}[name]
    found = [item for item in items if item["split"] == name] if drawn(items) else _part(items, first, last)
    return filled(found, f"{items[0]['id']} ... {items[-1]['id']}", name)


def balanced(items, most=None):
    """Items of which every cell of letter and Yes/No of the positive option has as many, the first of each, in file
    order; `most` of them at most. Where one of four cells is empty the letters alone are balanced.

    A state at the letter holds the letter, and nearly nothing else: in a mean over 7 items with A and 5 with B it is
    what is left over."""
    def cells(of):
        found = {}
        for i, item in enumerate(items):
            found.setdefault(of(item), []).append(i)
        return found.values()
    found = cells(lambda item: (item["positive"], item["yes"] == item["positive"]))
    found = cells(lambda item: item["positive"]) if len(found) == 3 else found
    n = min(map(len, found)) if most is None else min(most // len(found), *map(len, found))
    return [items[i] for i in sorted(i for cell in found for i in cell[:n])]


def published_split(items):
    """(train, test) as in the released run of Tan et al. 2024: the first half of the contents, and all from 5 % on
    ("50:100%" was read as item 50 of 1,000), so that 47 % of the test items were trained on."""
    if drawn(items):
        half = split(items, "extract") + split(items, "tune")
        return half, _part(half, 0.1, 1) + split(items, "evaluate")
    return _part(items, 0, 0.5), _part(items, 0.05, 1)


def _part(items, first, last):
    """Items whose contents lie between two shares of all contents."""
    groups = contents(items)
    return sum(groups[round(len(groups) * first):round(len(groups) * last)], [])


def contents(items):
    """Items grouped by content: [[item, its swap], ...], or [[item], ...] where nothing is swapped."""
    groups = []
    for item in items:
        groups[-1].append(item) if item["swap_of"] is not None else groups.append([item])
    return groups


def components(relation):
    """One label per pair, from 0 in file order; pairs that a chain of shared words connects have the same."""
    return _linked(relation["pairs"])


def _linked(groups):
    """One label per group of words, from 0 in order; groups that a chain of shared words connects have the same."""
    parent = {}

    def root(word):
        while parent.setdefault(word, word) != word:
            word = parent[word]
        return word

    for first, *others in groups:
        for other in [first, *others]:
            parent[root(other)] = root(first)
    labels = {}
    return [labels.setdefault(root(first), len(labels)) for first, *_ in groups]


def relation_split(relation, name, labels=False):
    """Pairs of a relation in one split, in file order; labels=True: their component labels, the unit to resample."""
    found = components(relation)
    mine = [i for i, home in enumerate(homes(relation)) if home == name]
    return [found[i] if labels else relation["pairs"][i] for i in filled(mine, f"relation {relation['name']}", name)]


def homes(relation):
    """The split of every pair: components go, largest first, where most is lacking of 40/20/40 % of the pairs."""
    if "splits" in relation:
        return relation["splits"]
    found = components(relation)
    sizes_of = [found.count(label) for label in range(max(found) + 1)]
    lacking, home = [share * len(found) for share in (0.4, 0.2, 0.4)], {}
    for label in sorted(range(len(sizes_of)), key=lambda label: -sizes_of[label]):
        home[label] = lacking.index(max(lacking))
        lacking[home[label]] -= sizes_of[label]
    return [SPLITS[home[label]] for label in found]


def probe_split(records, name):
    """Facts: the first third for tuning, the rest for evaluation; extraction uses none."""
    cut = round(len(records) / 3)
    found = ([record for record in records if record["split"] == name] if drawn(records) else
             {"tune": records[:cut], "evaluate": records[cut:]}[name])
    return filled(found, "facts", name)


def subjects(value):
    """(labels of a value's pairs, labels of its probes): who or what each is about, numbers from 0 in file order.

    A prompt is about one word of its last sentence: the one that the fewest of the value's texts have in theirs, the
    first of equals (the occupation in "The nurse met the cook. The cook said that", where all share the rest). Both
    sides of a pair are; those that a chain of shared words connects have one label. A pair or a probe of whole
    sentences is a published item of its own, and so is its label."""
    pairs, probes = value["pairs"], value["probes"]
    if "prompt" not in probes[0]:
        return list(range(len(pairs))), list(range(len(pairs), len(pairs) + len(probes)))
    texts = [[pair["positive"], pair["negative"]] for pair in pairs] + [[probe["prompt"]] for probe in probes]
    last = [[re.findall(r"\w\S*\w|\w", SENTENCE.split(text.strip())[-1]) or [text] for text in some]
            for some in texts]
    common = Counter(word for some in last for words in some for word in set(words))
    labels = _linked([[min(words, key=common.get) for words in some] for some in last])
    return labels[:len(pairs)], labels[len(pairs):]


def value_split(value, name, labels=False):
    """Pairs of a value to extract from, or its probes to tune or to evaluate on, in file order; labels=True: their
    `subjects`, the unit to resample. No subject is in two splits.

    Of the subjects that pairs and probes share the first 40 % are for extraction, the next 20 % for tuning, the rest
    for evaluation; of those that only probes have, the first third for tuning; those that only pairs have, for
    extraction. Pairs and probes of a subject that went to another split are left out. A bystander, named in a
    sentence before the last, may be of any split."""
    records = value["pairs"] if name == "extract" else value["probes"]
    if drawn(value["probes"]):
        mine = [record for record in records if record["split"] == name]
        return [record["subject"] for record in mine] if labels else mine
    found = subjects(value)
    order = list(dict.fromkeys(found[0] + found[1]))
    alone = [label for label in order if label not in found[0]]
    both = [label for label in order if label in found[0] and label in found[1]]
    home = {label: 0 for label in order}
    for some, shares in ((alone, (0, 1 / 3)), (both, (0.4, 0.6))):
        first, last = (round(share * len(some)) for share in shares)
        home |= {label: (i >= first) + (i >= last) for i, label in enumerate(some)}
    mine = found[0] if name == "extract" else found[1]
    chosen = [i for i, label in enumerate(mine) if home[label] == SPLITS.index(name)]
    filled(chosen, f"value {value['name']}, {len(order)} subjects", name)
    return [mine[i] if labels else records[i] for i in chosen]


def drawn(records):
    """Whether records are a sample of the quick profile, which keep their splits."""
    return bool(records) and isinstance(records[0], dict) and "split" in records[0]


def filled(found, what, name):
    if not found:
        raise UserError(f"{what}: nothing for {name}")
    return found
