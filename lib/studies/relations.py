"""Relations: in-context lists, the ways to make a vector of them, and what the vectors do to other prompts.

    centred    mean state at the end of clean lists, less the mean of that over relations (arXiv 2312.03813)
    mean       mean state at the end of clean lists (the layer average of Todd et al. 2024, arXiv 2310.15213)
    contrast   the same, less the mean state at the end of the same lists with shuffled answers
    heads      sum of the mean outputs of the heads with the largest effects (lib.studies.mediation; Todd et al. 2024)
    mixed      "mean", of as many lists and the same words, in every second template in turn instead of in one
    patch      "mean", put in place of the state instead of added (Hendel et al. 2023, arXiv 2310.15916)

All here takes a model; lib.studies.relation_gains concludes from what was measured.
"""
import re

import numpy as np

from lib import directions, engine, metrics, suite as suites
from lib.studies import mediation
from lib.artifacts import UserError
from lib.hooks import Place

WAYS = ("centred", "mean", "contrast", "heads", "mixed", "patch")
MADE = ("mean", "contrast", "heads", "mixed")    # what stage 01 keeps beside the centred vectors, if it can
ARMS = ("vector", "flipped", "synonym", "other")          # then random ones; rows of one way
LISTS = ("clean list", "shuffled list")
STYLES = ("symbols", "labels", "sentence")
TOP = (1, 2, 3)


# --- lists and vectors (stage 01) ---------------------------------------------------------------------------
def in_context(pairs, template, shots, address, query=None, shuffled=False):
    """(text, query): `shots` examples and an open query, drawn from pairs by address; shuffled: no example has its own
    answer. A query that is given is not among the examples, nor is any pair that shares a word with it."""
    rng = np.random.default_rng(address)
    free = pairs if query is None else [pair for pair in pairs if not set(pair) & set(query)]
    chosen = [free[c] for c in rng.permutation(len(free))[:shots + (query is None)]]
    if len(chosen) < shots + (query is None):
        raise UserError(f"{len(free)} pairs to draw {shots} examples from, and a query")
    if query is None:
        *chosen, query = chosen
    answers = [y for _, y in chosen]
    if shuffled:
        turn = int(rng.integers(1, max(2, shots)))
        answers = answers[turn:] + answers[:turn]
    return "".join(suites.fill(template["pair"], x, y) for (x, _), y in zip(chosen, answers)) \
        + suites.fill(template["query"], query[0]), query


def in_turn(suite):
    """Templates of the lists of "mixed": every second one, the first among them; the others stay unseen."""
    return suite.templates[::2]


def extract(lm, pairs, template, shots, addresses, n_mediation, n_heads, turn=()):
    """What one relation's lists give, one per address: {"states" (list, layer, d) at the end of clean lists; "mean",
    "contrast" (layer, d); "list_right" (list, [clean, shuffled]) is the answer the top token?; "list_chance" (list,)
    share of the other clean lists whose answer it would be as well; with templates `turn`, "mixed" (layer, d); and,
    where the heads can be reached, "heads" (d,), "effects" (layer, head), "chosen" [(layer, head)]}.

    The effects are measured on the first n_mediation shuffled lists; n_heads of them are summed."""
    both = [[in_context(pairs, template, shots, address, shuffled=shuffled) for address in addresses]
            for shuffled in (False, True)]
    clean, shuffled = ([lm.encode(text) for text, _ in made] for made in both)
    tokens = np.array([lm.answer_token(text, " " + y) for text, (_, y) in both[0]])
    states, corrupt = engine.read(lm, clean), engine.read(lm, shuffled)
    top = engine.sweep(lm, clean + shuffled, [()], np.tile(tokens, 2)[:, None])["argmax"][:, 0].reshape(2, -1)
    found = {"states": states, "mean": states.mean(axis=0), "contrast": states.mean(axis=0) - corrupt.mean(axis=0),
             "list_right": (top == tokens).T.astype(np.uint8)}
    if turn:
        lists = [in_context(pairs, turn[i % len(turn)], shots, address)[0] for i, address in enumerate(addresses)]
        found["mixed"] = engine.read(lm, [lm.encode(text) for text in lists]).mean(axis=0)
    others = (top[0][:, None] == tokens) & ~np.eye(len(tokens), dtype=bool)
    found["list_chance"] = others.sum(axis=1) / max(1, len(tokens) - 1)
    place = heads_of(lm)[0]
    if place is None:
        return found
    means = engine.read(lm, clean, place=place).mean(axis=0)
    effects = mediation.effects(lm, place, means, shuffled[:n_mediation], tokens[:n_mediation])
    chosen = mediation.strongest(effects, n_heads)
    return found | {"effects": effects, "chosen": chosen, "heads": mediation.head_sum(lm, place, means, chosen)}


def heads_of(lm):
    """(place, None), or (None, reason) for a model whose heads cannot be reached."""
    try:
        return mediation.projections(lm), None
    except UserError as error:
        return None, str(error)


def centre(lists, address):
    """Descriptions of all relations from their states [(list, layer, d)], less the mean of their means."""
    middle = np.mean([states.mean(axis=0) for states in lists], axis=0) if len(lists) > 1 else np.float32(0)
    found = []
    for i, states in enumerate(lists):
        others = np.concatenate(lists[:i] + lists[i + 1:]) if len(lists) > 1 else np.zeros_like(states)
        found.append(directions.describe(states - middle, states, others, [*address, i]))
    return found


# --- measuring (stages 02 and 03) ---------------------------------------------------------------------------
def measure(lm, texts, words, rows, patches=()):
    """The first token of each word after its text: {"logp" (text, row) nats, "rank" (text, row) 0 for the top token}.

    rows are added to block outputs; patches, behind them in the result, are put in the place of block outputs."""
    prompts = [lm.encode(text) for text in texts]
    tokens = np.array([[lm.answer_token(text, " " + word)] for text, word in zip(texts, words)])
    found = [engine.sweep(lm, prompts, some, tokens, ranks=True, place=place)
             for some, place in ((rows, None), (patches, Place(lm.layers, lm.d_model, False))) if some]
    logp = [one["logits"][..., 0].astype(np.float64) - one["logsumexp"] for one in found]
    return {"logp": np.concatenate(logp, axis=1).astype(np.float32),
            "rank": np.concatenate([one["rank"] for one in found], axis=1).astype(np.int32)}


def vectors_of(vectors, made, order, name, ways):
    """{way: (layer, d)} of one relation. vectors {key: centred}; made (those of MADE that there are,
    relation, layer, d); order: relations in the order of `made`."""
    number, kept = order.index(name), [way for way in MADE if way in ways]
    found = {"centred": vectors[f"relation/{name}"], **{way: made[i, number] for i, way in enumerate(kept)}}
    return {way: found["mean" if way == "patch" else way] for way in ways}


def sweep_layers(lm, relation_pairs, template, points, vector, by_way):
    """Gains of the answer, zero-shot in `template`: {"gains" (point, pair), "ways" (way, layer, pair)}, nats.

    points (lib.studies.tuning) of `vector`; by_way {way: (layer, d)} at coefficient 1"""
    rows = [(), *(((l, c * vector[l]),) for l, _, c, _ in points)]
    added = [((l, v),) for way, found in by_way.items() if way != "patch" for l, v in enumerate(found)]
    patches = [((l, v),) for l, v in enumerate(by_way.get("patch", ()))]
    logp = measure(lm, [suites.fill(template["query"], x) for x, _ in relation_pairs], [y for _, y in relation_pairs],
                   rows + added, patches)["logp"]
    gains = (logp[:, 1:] - logp[:, :1]).T
    return {"gains": gains[:len(points)], "ways": gains[len(points):].reshape(len(by_way), len(vector), -1)}


def surroundings(suite, sentences, distractors, conflict):
    """([(name, level, what stands in front)], {dotted key: reason}): the contexts of a query that the suite can make.

    The more neutral sentences, the higher the level; pairs of another relation and a conflicting instruction share
    the highest. What stands in front: number of sentences, number of pairs, instruction."""
    found, missing = [], {}
    for level, count in enumerate(sentences):
        name = {0: "bare", 1: "1 sentence"}.get(count, f"{count} sentences")
        if count and not suite.neutral:
            missing[f"relations.context.{name}"] = "the suite has no neutral sentences"
        else:
            found.append((name, level, (count, 0, "")))
    return found + [("other pairs", len(sentences), (0, distractors, "")),
                    ("instruction", len(sentences), (0, 0, conflict))], missing


def in_front(suite, context, template, pair, others, address):
    """Text of one context before a query: neutral sentences, pairs of another relation, an instruction."""
    count, distractors, conflict = context
    rng, text = np.random.default_rng(address), conflict
    if count:
        order = rng.permutation(len(suite.neutral))
        text += "".join(suite.neutral[i] + "\n" for i in np.resize(order, count))     # a short list repeats itself
    free = [other for other in others if not set(other) & set(pair)]
    drawn = (free[i] for i in rng.permutation(len(free))[:distractors])
    return text + "".join(suites.fill(template["pair"], x, y) for x, y in drawn)


def _item(suite, template, pair, component, context, level):
    return {"x": pair[0], "y": pair[1], "template": template["name"], "style": style(template),
            "own": template["name"] == suite.templates[0]["name"],
            "mixed": template["name"] in [one["name"] for one in in_turn(suite)], "context": context, "level": level,
            "component": component}


def queries(suite, pairs, labels, templates, contexts, others, address):
    """(items, texts): every pair in every template and context. others: pairs of the relation that distracts.

    A context of (level, pair) is drawn once, by address, and used in all templates."""
    items, texts = [], []
    for c, (name, level, context) in enumerate(contexts):
        for template in templates:
            for p, pair in enumerate(pairs):
                drawn = [*address, level, p] + ([c] if context[1] else [])
                texts.append(in_front(suite, context, template, pair, others, drawn)
                             + suites.fill(template["query"], pair[0]))
                items.append(_item(suite, template, pair, labels[p], name, level))
    return items, texts


def lists(suite, pairs, labels, examples, shots, address):
    """(items, texts): every pair as the query of a clean list and of one with shuffled answers, in template 0, with
    `examples` of another split."""
    template, made = suite.templates[0], [(context, p) for context in LISTS for p in range(len(pairs))]
    return ([_item(suite, template, pairs[p], labels[p], context, -1) for context, p in made],
            [in_context(examples, template, shots, [*address, p], pairs[p], context == "shuffled list")[0]
             for context, p in made])


def style(template):
    """How much language a template has around the word: symbols, labels, or the words of a sentence."""
    around = template["query"].replace("{x}", "")
    if not re.search(r"[^\W\d_]", around):
        return "symbols"
    return "labels" if around.rstrip().endswith(":") and len(around.split()) <= 2 else "sentence"


def arms(vectors, other_vectors, layer, n_random, address):
    """Rows of one way: the vector, its opposite, the synonym's and another relation's with its norm, random ones."""
    vector = vectors[layer]
    size = np.linalg.norm(vector)
    controls = [found[layer] * np.float32(size / np.linalg.norm(found[layer])) for found in other_vectors]
    drawn = metrics.norm_matched_random(vector, n_random, address)
    return [((layer, v),) for v in (vector, -vector, *controls, *drawn)]


def unrelated(suite, name, near="synonym"):
    """The first relation that shares no word with `name`, or the last one beside it and `near`."""
    words = {r["name"]: {word for pair in r["pairs"] for word in pair} for r in suite.relations}
    others = [other for other in words if other not in (name, near)]
    apart = [other for other in others if not words[name] & words[other]]
    return (apart or others[::-1] or [near])[0]


def _subjects(suite, config):
    """What both measurements of stage 03 begin with: held-out pairs of the relation that is studied (antonyms, unless
    the suite says another), their components, contexts, the pairs that distract, reasons for missing contexts, and the
    names of it, of the distracting one (synonyms) and of an unrelated relation."""
    antonym, synonym = (suites.relation(suite, name) for name in suite.studied)
    pairs, labels = (suites.relation_split(antonym, "evaluate", labels=labels) for labels in (False, True))
    contexts, missing = surroundings(suite, config["sentences"], config["distractors"], config["conflict"])
    return pairs, labels, contexts, synonym["pairs"], missing, (*suite.studied, unrelated(suite, *suite.studied))


def measure_contexts(lm, suite, vectors, tuned, config, seed):
    """The centred antonym vector as tuned, on every held-out pair, template and context: {"items", "missing", "logp",
    "rank"}. config: sentences, distractors, conflict, n_random."""
    pairs, labels, contexts, others, missing, names = _subjects(suite, config)
    items, texts = queries(suite, pairs, labels, suite.templates, contexts, others, [seed, 2])
    found, at = [vectors[f"relation/{name}"] for name in names], tuned[f"relation/{names[0]}"]
    rows = arms(np.float32(at["coefficient"]) * found[0], found[1:], at["layer"], config["n_random"], [seed, 3])
    return {"items": items, "missing": missing, **measure(lm, texts, [item["y"] for item in items], [(), *rows])}


def measure_ways(lm, suite, vectors, made, tuned, config, seed):
    """All of config["ways"], each at its own layer, on bare queries in all templates, on template 0 in all contexts,
    and at the end of lists: {"items", "logp", "rank"}. made: way_vectors of stage 01; config: as `measure_contexts`,
    n_random_ways, shots."""
    pairs, labels, contexts, others, _, names = _subjects(suite, config)
    own, rest = suite.templates[:1], suite.templates[1:]
    asked = [queries(suite, pairs, labels, templates, some, others, [seed, 2])
             for templates, some in ((own, contexts), (rest, contexts[:1]))]
    examples = suites.relation_split(suites.relation(suite, names[0]), "extract")
    asked.append(lists(suite, pairs, labels, examples, config["shots"], [seed, 5]))
    items, texts = (sum((part[i] for part in asked), []) for i in (0, 1))
    order, ways = [relation["name"] for relation in suite.relations], config["ways"]
    found = [vectors_of(vectors, made, order, name, ways) for name in names]
    rows = {way: arms(found[0][way], [one[way] for one in found[1:]], tuned[f"relation/{names[0]}"]["ways"][way]["layer"],
                      config["n_random_ways"], [seed, 6, w]) for w, way in enumerate(ways)}
    added = [row for way in ways if way != "patch" for row in rows[way]]
    return {"items": items, **measure(lm, texts, [item["y"] for item in items], [(), *added], rows["patch"])}
