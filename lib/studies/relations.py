"""Relations: in-context lists, the ways to make a vector of them, and what the vectors do to other prompts.

    centred    mean state at the end of clean lists, less the mean of that over relations (arXiv 2312.03813)
    mean       mean state at the end of clean lists (the layer average of Todd et al. 2024, arXiv 2310.15213)
    contrast   the same, less the mean state at the end of the same lists with shuffled answers
    heads      sum of the mean outputs of the heads with the largest effects (lib.studies.mediation; Todd et al. 2024)
    patch      "mean", put in place of the state instead of added (Hendel et al. 2023, arXiv 2310.15916)

What measures takes a model; `contexts` and `ways` are pure and return what the functions of lib.studies.transfer do.
"""
import re

import numpy as np

from lib import directions, engine, metrics, suite as suites
from lib.studies import mediation
from lib.artifacts import UserError
from lib.hooks import Place
from lib.metrics import Missing

WAYS = ("centred", "mean", "contrast", "heads", "patch")
MADE = ("mean", "contrast", "heads")             # what stage 01 keeps beside the centred vectors
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
    return "".join(template["pair"].format(x=x, y=y) for (x, _), y in zip(chosen, answers)) \
        + template["query"].format(x=query[0]), query


def extract(lm, pairs, template, shots, addresses, n_mediation, n_heads):
    """What one relation's lists give, one per address: {"states" (list, layer, d) at the end of clean lists; "mean",
    "contrast" (layer, d); "list_right" (list, [clean, shuffled]) is the answer the top token?; "list_chance" (list,)
    share of the other clean lists whose answer it would be as well; and, where the heads can be reached, "heads" (d,),
    "effects" (layer, head), "chosen" [(layer, head)]}.

    The effects are measured on the first n_mediation shuffled lists; n_heads of them are summed."""
    both = [[in_context(pairs, template, shots, address, shuffled=shuffled) for address in addresses]
            for shuffled in (False, True)]
    clean, shuffled = ([lm.encode(text) for text, _ in made] for made in both)
    tokens = np.array([lm.answer_token(text, " " + y) for text, (_, y) in both[0]])
    states, corrupt = engine.read(lm, clean), engine.read(lm, shuffled)
    top = engine.sweep(lm, clean + shuffled, [()], np.tile(tokens, 2)[:, None])["argmax"][:, 0].reshape(2, -1)
    found = {"states": states, "mean": states.mean(axis=0), "contrast": states.mean(axis=0) - corrupt.mean(axis=0),
             "list_right": (top == tokens).T.astype(np.uint8)}
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

    points [(layer, relative strength, coefficient)] of `vector`; by_way {way: (layer, d)} at coefficient 1"""
    rows = [(), *(((l, c * vector[l]),) for l, _, c in points)]
    added = [((l, v),) for way, found in by_way.items() if way != "patch" for l, v in enumerate(found)]
    patches = [((l, v),) for l, v in enumerate(by_way.get("patch", ()))]
    logp = measure(lm, [template["query"].format(x=x) for x, _ in relation_pairs], [y for _, y in relation_pairs],
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
    return text + "".join(template["pair"].format(x=x, y=y) for x, y in drawn)


def _item(suite, template, pair, component, context, level):
    return {"x": pair[0], "y": pair[1], "template": template["name"], "style": style(template),
            "own": template["name"] == suite.templates[0]["name"], "context": context, "level": level,
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
                             + template["query"].format(x=pair[0]))
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


def unrelated(suite, name):
    """The first relation that shares no word with `name`, or the last one beside it and the synonyms."""
    words = {r["name"]: {word for pair in r["pairs"] for word in pair} for r in suite.relations}
    others = [other for other in words if other not in (name, "synonym")]
    apart = [other for other in others if not words[name] & words[other]]
    return (apart or others[::-1] or ["synonym"])[0]


def _subjects(suite, config):
    """What both measurements of stage 03 begin with: held-out antonym pairs, their components, contexts, the pairs
    that distract, reasons for missing contexts, and the names of antonym, synonym and an unrelated relation."""
    antonym, synonym = (suites.relation(suite, name) for name in ("antonym", "synonym"))
    pairs, labels = (suites.relation_split(antonym, "evaluate", labels=labels) for labels in (False, True))
    contexts, missing = surroundings(suite, config["sentences"], config["distractors"], config["conflict"])
    return pairs, labels, contexts, synonym["pairs"], missing, ("antonym", "synonym", unrelated(suite, "antonym"))


def measure_contexts(lm, suite, vectors, tuned, config, seed):
    """The centred antonym vector as tuned, on every held-out pair, template and context: {"items", "missing", "logp",
    "rank"}. config: sentences, distractors, conflict, n_random."""
    pairs, labels, contexts, others, missing, names = _subjects(suite, config)
    items, texts = queries(suite, pairs, labels, suite.templates, contexts, others, [seed, 2])
    found, at = [vectors[f"relation/{name}"] for name in names], tuned["relation/antonym"]
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
    examples = suites.relation_split(suites.relation(suite, "antonym"), "extract")
    asked.append(lists(suite, pairs, labels, examples, config["shots"], [seed, 5]))
    items, texts = (sum((part[i] for part in asked), []) for i in (0, 1))
    order, ways = [relation["name"] for relation in suite.relations], config["ways"]
    found = [vectors_of(vectors, made, order, name, ways) for name in names]
    rows = {way: arms(found[0][way], [one[way] for one in found[1:]], tuned["relation/antonym"]["ways"][way]["layer"],
                      config["n_random_ways"], [seed, 6, w]) for w, way in enumerate(ways)}
    added = [row for way in ways if way != "patch" for row in rows[way]]
    return {"items": items, **measure(lm, texts, [item["y"] for item in items], [(), *added], rows["patch"])}


# --- conclusions (stage 03) ---------------------------------------------------------------------------------
def columns(items, *keys):
    return [np.array([item[key] for item in items]) for key in keys]


def distinct(values):
    """What occurs in values (n,), in order of first appearance."""
    return list(dict.fromkeys(values.tolist()))


def per_pair(items, address):
    """(over, gap, slope): estimates over pairs, of each the mean of its items where `keep` (prompt,) bool holds. Word
    components are resampled, so that pairs which share a word stay together.

        over(tag, values, keep)          of values (prompt,)
        gap(tag, values, keep, other)    of the difference between two kinds of items
        slope(tag, values, keep)         of the change per level, by least squares over means in contexts"""
    words, (context, level) = [(item["x"], item["y"]) for item in items], columns(items, "context", "level")
    component = {word: item["component"] for word, item in zip(words, items)}
    number, clusters = {word: i for i, word in enumerate(component)}, list(component.values())
    pair, estimate = np.array([number[word] for word in words]), metrics.estimator("word components", address)

    def mean(values, keep):                                                                            # (pair,)
        total = np.bincount(pair[keep], np.asarray(values, np.float64)[keep], len(number))
        return total / np.bincount(pair[keep], minlength=len(number))

    def over(tag, values, keep):
        return estimate(tag, mean(values, keep), clusters=clusters)

    def gap(tag, values, keep, other):
        return estimate(tag, mean(values, keep) - mean(values, other), clusters=clusters)

    def slope(tag, values, keep):
        at = [keep & (context == name) for name in distinct(context[keep])]
        curves = np.stack([mean(values, mine) for mine in at], axis=1)
        return estimate(tag, metrics.slopes([level[mine][0] for mine in at], curves), clusters=clusters)
    return over, gap, slope


def responses(logp):
    """What the rows of one way do, nats, from logp (prompt, row), unsteered and then those of `arms`: change (prompt,
    row); random (prompt,), its mean over the random rows; and, net of that, of each of ARMS, (arm, prompt)."""
    change = (logp[:, 1:] - logp[:, :1]).astype(np.float64)
    random = change[:, len(ARMS):].mean(axis=1)
    return change, random, (change[:, :len(ARMS)] - random[:, None]).T


def by_facet(items, among, means):
    """[(keep, record)] per template without a context, and per context of the items `among` (prompt,) bool: which
    items it is made of, and the means over them of {name: values (prompt, ...)}."""
    template, own, context, level = columns(items, "template", "own", "context", "level")
    facets = [("template", x, (level == 0) & (template == x)) for x in distinct(template)]
    facets += [("context", x, among & (context == x)) for x in distinct(context)]
    return [(keep, {"facet": facet, "x": x, "own": bool(own[keep].all()), "level": int(level[keep][0]),
                    **{name: values[keep].mean() for name, values in means.items()}}) for facet, x, keep in facets]


def contexts(items, logp, rank, address):
    """Gain of the antonym's log-probability by template and by context, over controls.

    items  (prompt,) records of `queries`
    logp   (prompt, row) nats; rows: unsteered, then those of `arms`; rank likewise, 0 for the top token
    Gains are net of the mean random vector. Word components are resampled."""
    change, random, (gain, flipped, synonym, other) = responses(logp)
    template, kind, own, context, level = columns(items, "template", "style", "own", "context", "level")
    over, gap, slope = per_pair(items, address)
    bare, everywhere, styles = level == 0, level >= 0, set(kind.tolist())
    neutral, top_random = everywhere & (level < level.max()), rank[:, 1 + len(ARMS):]
    results = {
        "n": {"pairs": len({(item["x"], item["y"]) for item in items}), "random": change.shape[1] - len(ARMS),
              "components": len({item["component"] for item in items}), "templates": len(distinct(template))},
        "antonym_gain": over(0, gain, bare), "own_template_gain": over(1, gain, bare & own),
        "flipped_gain": over(2, flipped, bare), "synonym_vector_gain": over(3, synonym, bare),
        "antonym_minus_synonym_vector": over(4, gain - synonym, bare), "random_gain": over(5, random, bare),
        "other_vector_gain": over(9, other, bare),
        **{f"top{k}": {"random": over(100 + 10 * k + 9, (top_random < k).mean(axis=1), bare),
                       **{name: over(100 + 10 * k + i, rank[:, i] < k, bare)
                          for i, name in enumerate(("unsteered", *ARMS))}} for k in TOP},
        "style": {name: over(40 + i, gain, bare & (kind == name)) if name in styles else
                  Missing(f"the suite has no template of the kind {name}") for i, name in enumerate(STYLES)},
        "context": {name: over(50 + i, gain, context == name) for i, name in enumerate(distinct(context))},
        "neutral_slope": slope(10, gain, neutral) if (level[neutral] > 0).any() else
        Missing("the suite has no neutral sentences"),
        "template_gap": Missing("the suite has one template") if own.all() else gap(8, gain, bare & own, bare & ~own),
        "sentence_minus_symbols": gap(11, gain, bare & (kind == "sentence"), bare & (kind == "symbols"))
        if {"symbols", "sentence"} <= styles else Missing("the suite's templates are of one kind")}
    if (level > 0).any():
        results |= {"complexity_slope": slope(6, gain, everywhere), "complexity_slope_own": slope(7, gain, own),
                    "logp_slope": {name: slope(12 + i, logp[:, i], everywhere)
                                   for i, name in enumerate(("unsteered", "vector"))},
                    "top1_slope": {name: slope(14 + i, rank[:, i] < 1, everywhere)
                                   for i, name in enumerate(("unsteered", "vector"))}}
    else:
        results |= dict.fromkeys(("complexity_slope", "complexity_slope_own", "logp_slope", "top1_slope"),
                                 Missing("the suite can make no context"))
    means = {"synonym_vector": synonym, "other_vector": other, "flipped": flipped, "random": random,
             "unsteered_logp": logp[:, 0], "top1_unsteered": rank[:, 0] < 1, "top1_random": top_random < 1}
    rows = [record | {"style": kind[keep][0], "gain": over(60 + i, gain, keep),
                      "top1": over(200 + i, rank[:, 1] < 1, keep)}
            for i, (keep, record) in enumerate(by_facet(items, everywhere, means))]
    return rows, *metrics.missing_apart(results, "relations.")


def ways(items, names, logp, rank, address):
    """The ways side by side: (rows, {"ways", "specific", "lists"}, missing).

    items  (prompt,) records of `queries`: all templates bare, the own one in all contexts, and lists (context in
           LISTS, level -1)
    logp   (prompt, row) nats; rows: unsteered, then for each of `names` those of `arms`; rank likewise"""
    own, context, level = columns(items, "own", "context", "level")
    over, gap, slope = per_pair(items, address)
    bare, listed = level == 0, {name: context == name for name in LISTS}
    prompts = {"zero_shot": bare & own, "shuffled_list": listed["shuffled list"]}
    alone = Missing("the suite has one template, or can make no context")

    def each(tag, values):
        return {where: over(tag + i, values, keep) for i, (where, keep) in enumerate(prompts.items())}

    results, rows = {"ways": {}, "specific": {}}, []
    results["lists"] = {name: {f"top{k}": over(10 * i + k, rank[:, 0] < k, keep) for k in TOP}
                        for i, (name, keep) in enumerate({**prompts, "clean_list": listed["clean list"]}.items())}
    for w, (name, mine) in enumerate(zip(names, np.split(np.arange(1, logp.shape[1]), len(names)))):
        change, random, (gain, flipped, synonym, other) = responses(logp[:, [0, *mine]])
        tag, place = 1000 * (w + 1), rank[:, mine[0]]
        results["ways"][name] = {
            "all_templates": over(tag, gain, bare), "flipped": over(tag + 1, flipped, bare),
            "synonym": over(tag + 2, synonym, bare), "other": over(tag + 3, other, bare),
            "random": over(tag + 4, random, bare), "gain": each(tag + 5, gain),
            "change": each(tag + 50, change[:, 0]), **{f"top{k}": each(tag + 10 * k, place < k) for k in TOP},
            "template_gap": gap(tag + 8, gain, bare & own, bare & ~own) if (bare & ~own).any() else alone,
            "complexity_slope": slope(tag + 9, gain, own & (level >= 0)) if (level > 0).any() else alone}
        results["specific"][name] = over(tag + 7, gain - synonym, bare)
        means = {"synonym_vector": synonym, "other_vector": other, "random": random, "change": change[:, 0],
                 "top1_unsteered": rank[:, 0] < 1, "top1": place < 1, "top3": place < 3}
        rows += [record | {"way": name, "gain": over(tag + 100 + i, gain, keep)}
                 for i, (keep, record) in enumerate(by_facet(items, own, means))]
    return rows, *metrics.missing_apart(results, "relations.")
