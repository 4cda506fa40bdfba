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
from lib.metrics import estimator

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
    "contrast" (layer, d); "list_right" (list, [clean, shuffled]) is the answer the top token?; and, where the heads
    can be reached, "heads" (d,), "effects" (layer, head), "chosen" [(layer, head)]}.

    The effects are measured on the first n_mediation shuffled lists; n_heads of them are summed."""
    both = [[in_context(pairs, template, shots, address, shuffled=shuffled) for address in addresses]
            for shuffled in (False, True)]
    clean, shuffled = ([lm.encode(text) for text, _ in made] for made in both)
    tokens = np.array([lm.answer_token(text, " " + y) for text, (_, y) in both[0]])
    states, corrupt = engine.read(lm, clean), engine.read(lm, shuffled)
    top = engine.sweep(lm, clean + shuffled, [()], np.tile(tokens, 2)[:, None])["argmax"][:, 0].reshape(2, -1)
    found = {"states": states, "mean": states.mean(axis=0), "contrast": states.mean(axis=0) - corrupt.mean(axis=0),
             "list_right": (top == tokens).T.astype(np.uint8)}
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
    found = [engine.sweep(lm, prompts, rows, tokens, ranks=True)]
    if len(patches):
        found.append(engine.sweep(lm, prompts, patches, tokens, ranks=True,
                                  place=Place(lm.layers, lm.d_model, False)))
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
    layers = range(len(vector))
    added = [((l, found[l]),) for way, found in by_way.items() if way != "patch" for l in layers]
    patches = [((l, by_way["patch"][l]),) for l in layers] if "patch" in by_way else []
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
    for i in rng.permutation(len(free))[:distractors]:
        text += template["pair"].format(x=free[i][0], y=free[i][1])
    return text


def queries(suite, pairs, labels, templates, contexts, others, address):
    """(items, texts): every pair in every template and context. others: pairs of the relation that distracts.

    A context of (level, pair) is drawn once, by address, and used in all templates."""
    items, texts = [], []
    for c, (name, level, context) in enumerate(contexts):
        for template in templates:
            for p, (x, y) in enumerate(pairs):
                drawn = [*address, level, p] + ([c] if context[1] else [])
                texts.append(in_front(suite, context, template, (x, y), others, drawn)
                             + template["query"].format(x=x))
                items.append({"x": x, "y": y, "template": template["name"], "style": style(template),
                              "own": template["name"] == suite.templates[0]["name"], "context": name,
                              "level": level, "component": labels[p]})
    return items, texts


def lists(suite, pairs, labels, examples, shots, address):
    """(items, texts): every pair as the query of a clean list and of one with shuffled answers, in template 0, with
    `examples` of another split."""
    items, texts, template = [], [], suite.templates[0]
    for context in LISTS:
        for p, (x, y) in enumerate(pairs):
            texts.append(in_context(examples, template, shots, [*address, p], (x, y), context == "shuffled list")[0])
            items.append({"x": x, "y": y, "template": template["name"], "style": style(template), "own": True,
                          "context": context, "level": -1, "component": labels[p]})
    return items, texts


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
    words = {word for pair in _pairs(suite, name) for word in pair}
    others = [r["name"] for r in suite.relations if r["name"] not in (name, "synonym")]
    apart = [other for other in others if not words & {word for pair in _pairs(suite, other) for word in pair}]
    return (apart or others[::-1] or ["synonym"])[0]


def _pairs(suite, name):
    return next(r["pairs"] for r in suite.relations if r["name"] == name)


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
    order, rows = [relation["name"] for relation in suite.relations], {}
    found = [vectors_of(vectors, made, order, name, config["ways"]) for name in names]
    for w, way in enumerate(config["ways"]):
        layer = tuned["relation/antonym"]["ways"][way]["layer"]
        rows[way] = arms(found[0][way], [one[way] for one in found[1:]], layer, config["n_random_ways"], [seed, 6, w])
    added = [row for way in config["ways"] if way != "patch" for row in rows[way]]
    return {"items": items, **measure(lm, texts, [item["y"] for item in items], [(), *added], rows["patch"])}


# --- conclusions (stage 03) ---------------------------------------------------------------------------------
def per_pair(items):
    """(mean, clusters): mean(values, keep) gives (pair,) means over a pair's items that are kept; clusters (pair,) are
    the word components, so that pairs which share a word stay together when they are resampled."""
    words = [f"{item['x']} {item['y']}" for item in items]
    labels = {word: item["component"] for word, item in zip(words, items)}
    number = {word: i for i, word in enumerate(labels)}
    pair = np.array([number[word] for word in words])

    def mean(values, keep):
        total = np.bincount(pair[keep], np.asarray(values, np.float64)[keep], len(labels))
        return total / np.bincount(pair[keep], minlength=len(labels))
    return mean, list(labels.values())


def level_slope(mean, values, keep, context, level):
    """(pair,) change of values per level: least squares over a pair's means in each context at its level."""
    at = {name: keep & (context == name) for name in dict.fromkeys(context[keep].tolist())}
    curves = np.stack([mean(values, mine) for mine in at.values()], axis=1)
    return metrics.slopes([level[mine][0] for mine in at.values()], curves)


def columns(items, *keys):
    return [np.array([item[key] for item in items]) for key in keys]


def contexts(items, logp, rank, address):
    """Gain of the antonym's log-probability by template and by context, over controls.

    items  (prompt,) records of `queries`
    logp   (prompt, row) nats; rows: unsteered, then those of `arms`; rank likewise, 0 for the top token
    Gains are net of the mean random vector. Word components are resampled."""
    raw = (logp[:, 1:] - logp[:, :1]).astype(np.float64)
    noise = raw[:, len(ARMS):].mean(axis=1)
    gain, flipped, synonym, other = (raw[:, :len(ARMS)] - noise[:, None]).T
    template, kind, own, context, level = columns(items, "template", "style", "own", "context", "level")
    mean, clusters = per_pair(items)
    estimate, bare, missing = estimator("word components", address), level == 0, {}

    def over(tag, values, keep=bare):
        return estimate(tag, mean(values, keep), clusters=clusters)

    def slope(tag, keep, values=gain):
        return estimate(tag, level_slope(mean, values, keep, context, level), clusters=clusters)

    everywhere, names, styles = level >= 0, list(dict.fromkeys(template.tolist())), set(kind.tolist())
    tops = {f"top{k}": {name: over(100 + 10 * k + i, rank[:, i] < k) for i, name in enumerate(("unsteered", *ARMS))}
            | {"random": over(100 + 10 * k + 9, (rank[:, 1 + len(ARMS):] < k).mean(axis=1))} for k in TOP}
    results = {
        "n": {"pairs": len(clusters), "components": len(set(clusters)), "templates": len(names),
              "random": raw.shape[1] - len(ARMS)},
        "antonym_gain": over(0, gain), "own_template_gain": over(1, gain, bare & own),
        "flipped_gain": over(2, flipped), "synonym_vector_gain": over(3, synonym),
        "antonym_minus_synonym_vector": over(4, gain - synonym), "random_gain": over(5, noise),
        "other_vector_gain": over(9, other), **tops,
        "style": {name: over(40 + i, gain, bare & (kind == name)) for i, name in enumerate(STYLES) if name in styles},
        "context": {name: over(50 + i, gain, context == name)
                    for i, name in enumerate(dict.fromkeys(context.tolist()))}}
    if (level > 0).any():
        results |= {"complexity_slope": slope(6, everywhere), "complexity_slope_own": slope(7, own),
                    "logp_slope": {"unsteered": slope(12, everywhere, logp[:, 0]),
                                   "vector": slope(13, everywhere, logp[:, 1])},
                    "top1_slope": {"unsteered": slope(14, everywhere, rank[:, 0] < 1),
                                   "vector": slope(15, everywhere, rank[:, 1] < 1)}}
    else:
        missing |= dict.fromkeys((f"relations.{key}" for key in (
            "complexity_slope", "complexity_slope_own", "logp_slope", "top1_slope")), "the suite can make no context")
    neutral = everywhere & (level < level.max())
    if (level[neutral] > 0).any():
        results["neutral_slope"] = slope(10, neutral)
    else:
        missing["relations.neutral_slope"] = "the suite has no neutral sentences"
    if own.all():
        missing["relations.template_gap"] = "the suite has one template"
    else:
        gap = mean(gain, bare & own) - mean(gain, bare & ~own)
        results["template_gap"] = estimate(8, gap, clusters=clusters)
    if {"symbols", "sentence"} <= styles:
        gap = mean(gain, bare & (kind == "sentence")) - mean(gain, bare & (kind == "symbols"))
        results["sentence_minus_symbols"] = estimate(11, gap, clusters=clusters)
    else:
        missing["relations.sentence_minus_symbols"] = "the suite's templates are of one kind"
    for i, name in enumerate(STYLES):
        if name not in styles:
            missing[f"relations.style.{name}"] = f"the suite has no template of the kind {name}"
    facets = [("template", name, bare & (template == name)) for name in names]
    facets += [("context", name, context == name) for name in results["context"]]
    rows = [{"facet": facet, "x": x, "own": bool(own[keep].all()), "style": kind[keep][0],
             "level": int(level[keep][0]), "gain": over(60 + i, gain, keep), "synonym_vector": synonym[keep].mean(),
             "other_vector": other[keep].mean(), "flipped": flipped[keep].mean(), "random": noise[keep].mean(),
             "unsteered_logp": logp[keep, 0].mean(), "top1_unsteered": (rank[keep, 0] < 1).mean(),
             "top1": over(200 + i, rank[:, 1] < 1, keep), "top1_random": (rank[keep, 1 + len(ARMS):] < 1).mean()}
            for i, (facet, x, keep) in enumerate(facets)]
    return rows, results, missing


def ways(items, names, logp, rank, address):
    """The ways side by side: (rows, {"ways", "specific", "lists"}, missing).

    items  (prompt,) records of `queries`: all templates bare, the own one in all contexts, and lists (context in
           LISTS, level -1)
    logp   (prompt, row) nats; rows: unsteered, then for each of `names` those of `arms`; rank likewise"""
    shape = len(items), len(names), -1
    raw = (logp[:, 1:] - logp[:, :1]).astype(np.float64).reshape(shape)
    places = rank[:, 1:].reshape(shape)
    noise = raw[:, :, len(ARMS):].mean(axis=2)
    gain, flipped, synonym, other = np.moveaxis(raw[:, :, :len(ARMS)] - noise[:, :, None], 2, 0)
    template, own, context, level = columns(items, "template", "own", "context", "level")
    mean, clusters = per_pair(items)
    estimate = estimator("word components", address)

    def over(tag, values, keep):
        return estimate(tag, mean(values, keep), clusters=clusters)

    bare, listed = level == 0, {name: context == name for name in LISTS}
    prompts = {"zero_shot": bare & own, "shuffled_list": listed["shuffled list"]}
    results, rows, missing = {"ways": {}, "specific": {}}, [], {}
    results["lists"] = {name: {f"top{k}": over(10 * i + k, rank[:, 0] < k, keep) for k in TOP}
                        for i, (name, keep) in enumerate({**prompts, "clean_list": listed["clean list"]}.items())}
    for w, name in enumerate(names):
        tag = 1000 * (w + 1)
        found = results["ways"][name] = {
            "all_templates": over(tag, gain[:, w], bare), "flipped": over(tag + 1, flipped[:, w], bare),
            "synonym": over(tag + 2, synonym[:, w], bare), "other": over(tag + 3, other[:, w], bare),
            "random": over(tag + 4, noise[:, w], bare),
            "gain": {where: over(tag + 5 + i, gain[:, w], keep) for i, (where, keep) in enumerate(prompts.items())},
            "change": {where: over(tag + 50 + i, raw[:, w, 0], keep)
                       for i, (where, keep) in enumerate(prompts.items())}}
        for k in TOP:
            found[f"top{k}"] = {where: over(tag + 10 * k + i, places[:, w, 0] < k, keep)
                                for i, (where, keep) in enumerate(prompts.items())}
        results["specific"][name] = over(tag + 7, gain[:, w] - synonym[:, w], bare)
        if (bare & ~own).any():
            found["template_gap"] = estimate(tag + 8, mean(gain[:, w], bare & own) - mean(gain[:, w], bare & ~own),
                                             clusters=clusters)
        if (level > 0).any():
            found["complexity_slope"] = estimate(
                tag + 9, level_slope(mean, gain[:, w], own & (level >= 0), context, level), clusters=clusters)
        for key in ("template_gap", "complexity_slope"):
            if key not in found:
                missing[f"relations.ways.{name}.{key}"] = "the suite has one template, or can make no context"
        facets = [("template", x, bare & (template == x)) for x in dict.fromkeys(template.tolist())]
        facets += [("context", x, own & (context == x)) for x in dict.fromkeys(context.tolist())]
        rows += [{"way": name, "facet": facet, "x": x, "own": bool(own[keep].all()), "level": int(level[keep][0]),
                  "gain": over(tag + 100 + i, gain[:, w], keep), "synonym_vector": synonym[keep, w].mean(),
                  "other_vector": other[keep, w].mean(), "random": noise[keep, w].mean(),
                  "change": raw[keep, w, 0].mean(), "top1_unsteered": (rank[keep, 0] < 1).mean(),
                  "top1": (places[keep, w, 0] < 1).mean(), "top3": (places[keep, w, 0] < 3).mean()}
                 for i, (facet, x, keep) in enumerate(facets)]
    return rows, results, missing
