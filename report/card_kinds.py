"""Card kinds: what a card says about a trait, a behaviour, a relation and a value. Every number is read from a result or
table of a stage, and the card keeps where from; what more than one kind says stands in report/card_parts.py.

A function per kind returns
    effect   the estimate that decides: the vector against random ones, whole interval above 0; least: what less than
             it comes to nothing; told, n: what it does and on how many inputs, in words
    answers  {one of QUESTIONS: [sentence, ...]}
    but      what limits a vector that works, for the first line; harm: what speaks against any
    along    what else moves (traits, contrasts)
    worst    the inputs on which it does least, [{"input", "found"}]
    picture  {"forest": [(label, estimate)], "unit", "x", "xlabel", "lines": [(label, [y], right axis?)], "window",
              "chosen", "inputs": [effect per input]}
"""
import numpy as np

from lib.studies import reliability
from report import draw
from report.card_parts import (CONTRASTS, COSTS, OTHER_WAY, PLURAL, QUESTIONS, TASKS, WORST, asked_too, asking, broken, common,
                               contrasts, dose, moves_along, new, surprising, tuned)
from report.card_read import alike, clear, est, percent
from report.examples import harmless


def trait(read, key, suite):
    name, but, harm = key.partition("/")[2], [], []
    along, others = contrasts(read, name)

    def at(what, field, task="question"):
        return read(what, "03_transfer", "traits", {"trait": name, "task": task}, field)

    def of_inputs(field):
        return read(f"inputs: {field}", "03_transfer", "trait_inputs", {"trait": name}, field)

    effect, gain, shuffled = (at("gain over random vectors", "steered_minus_random"), at("gain", "gain"),
                              of_inputs("steered_minus_shuffled"))
    shown = at("expression", "expression")
    does = [f"Expression goes from {est(shown['unsteered'])} to {est(shown['steered'])} of 100 on {effect['n']} "
            f"{new(read)}questions; {est(effect)} more than under random vectors"
            + (f", {est(shuffled)} more than under vectors of shuffled labels." if shuffled else ".")]
    if shuffled and clear(effect) > 0 and clear(shuffled) <= 0:
        but.append("vectors of shuffled labels do as much")
    asked, both = at("prompt minus vector", "prompted_minus_steered"), at("both minus prompt", "both_minus_prompted")
    least = read("gain that counts", "02_tune", "config", "steers")
    but += [f"by less than {least} points"] if effect["value"] < least else []
    but += ["asking for it does more"] if clear(asked) > 0 else []
    prompt = [f"Asked for it the model reaches {est(shown['prompted'])}: {est(asked)} points more than steered. "
              f"Asked and steered: {est(both)} points more than asked."]
    layer, strength, coefficient = tuned(read, key)
    window, breaks, coherence, n = (read(what, "02_tune", "tuned", key, field) for what, field in (
        ("window", "window"), ("breaks", "breaks"), ("coherence", "coherence"), ("tuning questions", "n")))
    floor = read("least coherence", "02_tune", "config", "coherent")
    if not read("coherent", "02_tune", "tuned", key, "coherent"):
        harm.append(f"no strength kept coherence at {floor}")
    how = [f"Layer {layer}, strength {strength:.2g} units (coefficient {coefficient:.3g}), coherence there "
           f"{est(coherence, 0)}: picked as best on {n} tuning questions.",
           f"On these it gains a tenth of the scale, coherent, from {window[0]:.2g} to {window[1]:.2g} units."
           if window else "At no strength tried does it gain a tenth of the scale and stay coherent.",
           f"Text breaks from {breaks:.2g} units on." if breaks else "Text broke at no strength tried."]
    tried = sorted({row["strength"] for row in draw.table(read.found["02_tune"], "candidates")
                    if row["key"] == key and row["layer"] == layer and row["strength"]})
    read.numbers["strengths tried"] = {"at": ["02_tune", "candidates"], "layer": layer, "found": tried}
    how.append(f"Tried at this layer: {', '.join(f'{strength:.2g}' for strength in tried)}; what works only between two of "
               "these is not seen.")
    search, missed = read("published search", "02_tune", "tuned", key, "narrow"), ""
    behind, coherent = (read(f"tuned minus published search, {what}", "03_transfer", "results", "traits", f, "value")
                        for what, f in (("expression", "search_effect"), ("coherence", "search_coherence")))
    if behind is not None and behind <= -least:
        missed = f" ({est(-behind)} more where the published search sets it)"
        how.append(f"Where the published search sets it, layer {search['layer']}, {search['strength']:.2g} units, "
                   f"{new(read)}questions show {est(-behind)} points more of it (coherence by {est(-coherent)}).")
    worse, _, lean, length = (of_inputs(field) for field in ("worse", "unmoved", "by_unsteered", "by_length"))
    harm += [f"it lowers the trait on {percent(worse['value'])} of the prompts"] if worse["value"] >= OTHER_WAY else []
    fails = [f"{read.share('inputs: worse')} of {worse['n']} prompts show less of it than unsteered, "
             f"{read.share('inputs: unmoved')} are unmoved."]
    fails += [f"Rank correlation of the gain {what}: {est(found, 2)}." for what, found in (
        ("with what the answer showed unsteered", lean), ("with the prompt's length", length)) if found]
    there = {task: at(f"gain over random vectors, {task}", "steered_minus_random", task) for task in TASKS[1:]}
    where = [f"In {PLURAL[task]} it gains {est(found)} points more than random vectors."
             for task, found in there.items() if found] + [
        "Under a prompt that asks for it: see above. In longer contexts: not tested."]
    lost = [task for task, found in there.items() if clear(found) <= 0]
    but += [f"it does not hold in {' or '.join(PLURAL[task] for task in lost)}"] if lost and clear(effect) > 0 else []

    arms = {}
    for case in draw.table(read.found["03_transfer"], "cases"):
        if case["task"] in TASKS and name in case["expression"]:
            arms.setdefault((case["task"], case["item"]), {})[case["arm"]] = case
    counted, said = moves_along(read, name, arms.values())
    pairs = [(arm["steered"], arm["unsteered"]) for arm in arms.values() if {"steered", "unsteered"} <= set(arm)]
    gains = sorted(((new["expression"][name] - old["expression"][name], i) for i, (new, old) in enumerate(pairs)
                    if None not in (new["expression"][name], old["expression"][name])))
    prompts = {item["id"]: item["prompt"] for item in draw.table(read.found["03_transfer"], "prompts")}
    worst = [{"input": prompts[new["item"]], "found": f"expression {est(old['expression'][name], 0)} unsteered, "
              f"{est(new['expression'][name], 0)} steered", "text": new["output"]}
             for new, old in (pairs[i] for _, i in gains[:WORST])]
    line = sorted((row for row in draw.table(read.found["02_tune"], "candidates") if row["key"] == key and row["n"]
                   and "search" not in row and (row["layer"] == layer or not row["coefficient"])),
                  key=lambda row: row["strength"])
    forest = [("over random vectors", effect), ("over shuffled labels", shuffled), ("prompt minus vector", asked),
              ("both minus prompt", both),
              *((f"{PLURAL[task]}, over random", found) for task, found in there.items())]
    lines = [(what, [row[what] for row in line], False) for what in ("expression", "coherence")]
    averaged = ", averaged over the prompt's end and the first tokens of the answer"
    return {"effect": effect, "least": least, "but": but, "harm": harm, "along": counted + along, "worst": worst,
            "n": f"{effect['n']} questions",
            "told": f"raises it by {est(effect)} points of 100 more than random vectors do{missed}",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read, what=averaged), fails, where,
                                            broken(read, key, harm) + said + others))),
            "picture": {"forest": forest, "unit": "points of 100", "x": [row["strength"] for row in line],
                        "xlabel": f"strength, units (layer {layer})", "lines": lines, "ylabel": "of 100",
                        "window": window, "chosen": strength, "inputs": [gain for gain, _ in gains]}}


def behaviour(read, key, suite):
    name, but, harm = key.partition("/")[2], [], []
    along, others = contrasts(read, name)

    def of(what, *steps, stage="05_reliability", table="behaviours"):
        return read(what, stage, table, {"name": name}, *steps)

    limit, n = of("random vectors reach", "random", "p95"), of("inputs", "n")
    shuffled, slope = max(map(abs, of("shuffled labels", "shuffled", "means"))), of("slope", "slope")
    contents = of("contents", "slope", "n")
    effect = read.span("its interval", of("slope, two multipliers", "control_slope"),
                       of("its interval", "intervals", "control_slope"), contents)
    reach = reliability.reach(effect["low"], effect["high"], limit) if effect and not alike(effect) else "undecided"
    decided = effect and (effect if reach == "below" else effect | {
        end: effect[end] - limit for end in ("value", "low", "high")})
    does = [f"One unit moves the odds of its answer by {est(effect, 2)} nats on {n} {new(read)}inputs. "
            f"Random vectors of its norm reach {est(limit, 2)} (95 % of them), vectors of shuffled labels "
            f"{est(shuffled, 2)} at most.", f"The slope over all multipliers is {est(slope, 2)} nats per unit."]
    (record,), (asked, both) = [b for b in suite.behaviours if b["name"] == name], asking(read, name)
    but += ["asking for it does more"] if clear(asked) > 0 else []
    sentence, against = (f"\u201c{harmless(record[side])}\u201d" for side in ("positive", "negative"))
    prompt = [f"The sentence {sentence} moves it by {est(asked, 2)} nats more than the vector at one unit, asked and "
              f"steered by {est(both, 2)} more than asked. The sentence against it is {against}."]
    layer, strength, coefficient = tuned(read, key)
    multipliers, curve, mass = (read("multipliers", "05_reliability", "config", "multipliers"), of("curve", "curve"),
                                of("probability of the letters", "mass", "matched"))
    low = [m for m, p in zip(multipliers, mass) if p < 0.5]
    how = [f"Layer {layer}, one unit (coefficient {coefficient:.3g}); tried from {multipliers[0]:g} to "
           f"{multipliers[-1]:g} units.", "The model answers with a letter at all of them." if not low else
           f"At {', '.join(f'{m:g}' for m in low)} units less than half of the probability is on the letters."]
    anti = of("goes the other way", "anti_steerable")
    letter, yes, chance = (of(f"explained: {part}", "bias", part) for part in ("letter", "yes_marginal", "permuted"))
    each = of("each", "inputs", "each")
    if anti >= OTHER_WAY:
        harm.append(f"it goes the other way on {percent(anti)} of the inputs")
    fails = [f"{read.share('goes the other way', contents)} of {n} inputs go the other way.",
             f"Of the differences between inputs the letter explains {percent(letter)}, Yes or No {percent(yes)} "
             f"(both together by chance {percent(chance)}).",
             f"Rank correlation of an input's slope with its unsteered lean {est(each['propensity'], 2)}, with the "
             f"size of the lean {est(each['margin'], 2)}, with the prompt's length {est(each['length'], 2)}."]
    swap = of("swap", "swap")
    if swap:
        turned = percent(swap["flips_sign"])
        fails.append(f"Exchanging the two options alone turns the sign of {turned} of the slopes.")
    shifts = [(setting, row) for setting in ("SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG") if (row := read(
        f"BASE to {setting}", "03_transfer", "shifts", {"behaviour": name, "shift": f"BASE->{setting}"}))]
    there = {setting: read.span(f"BASE to {setting}", row["ood"], row["ood_interval"], contents) for setting, row in shifts}
    words = {"SYS_POS": "system prompt for it", "SYS_NEG": "system prompt against it",
             "USER_POS": "user's wish for it", "USER_NEG": "user's wish against it"}
    where = ["Slope under a " + ", a ".join(f"{words[setting]} {est(found, 2)}" for setting, found in there.items())
             + " nats per unit. In longer contexts and free text: not tested."]
    lost = [words[setting] for setting, found in there.items() if clear(found) <= 0]
    but += [f"it does not hold under a {' or a '.join(lost)}"] if lost and reach == "above" else []

    found = read.found["05_reliability"]
    items, slopes = draw.table(found, "items"), found.array("slopes").tolist()
    shown = {item["id"]: item for item in record["items"]}
    order = sorted(range(len(items)), key=lambda i: slopes[i])
    worst = [{"input": shown[items[i]["id"]]["question"],
              "found": f"slope {est(slopes[i], 2)} nats per unit; its answer is {items[i]['positive']}"}
             for i in order[:WORST]]
    forest = [("vector, \u00b11 unit", effect), ("random, 95 % of them", limit),
              ("shuffled labels, at most", shuffled), *((words[setting], found) for setting, found in there.items())]
    return {"effect": decided, "reach": reach, "but": but, "harm": harm, "along": along, "worst": worst, "n": f"{n} inputs",
            "told": f"moves the odds of its answer by {est(effect, 2)} nats per unit, where random vectors reach "
                    f"{est(limit, 2)}",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read), fails, where,
                                            broken(read, key, harm) + others))),
            "picture": {"forest": forest, "unit": "nats per unit", "x": multipliers,
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats", "window": None, "chosen": 1.0,
                        "lines": [("odds of its answer, nats", curve, False),
                                  ("probability of the letters", mass, True)],
                        "inputs": [slopes[i] for i in order]}}


def relation(read, key, suite):
    name, but, harm = key.partition("/")[2], [], []
    along, others = contrasts(read, name)

    def of(what, *steps):
        return read(what, "03_transfer", "results", "relations", *steps)

    effect, gain = of("gain beyond random vectors", "antonym_beyond_random"), of("gain", "antonym_gain")
    for who in ("unsteered", "vector", "random"):
        of(f"answered right, {who}", "top1", who)
    before, after, drawn = (read.share(f"answered right, {who}") for who in ("unsteered", "vector", "random"))
    n, templates = of("answers", "n", "pairs"), of("templates", "n", "templates")
    other, flipped = of("another relation's vector", "other_vector_gain"), of("flipped", "flipped_gain")
    does = [f"The first token of the answer, the only one that is scored, gains {est(gain, 2)} nats of log-probability over "
            f"random vectors, {est(effect, 2)} over the best of them and of none, without a list in front, in {templates} "
            f"templates; it is the likeliest in {before} of the prompts, steered in {after} (random: {drawn}).",
            f"Another relation's vector gains {est(other, 2)}, this one turned round {est(flipped, 2)}."]
    but += ["another relation's vector does as much"] if other["high"] > gain["low"] else []
    of("lists right", "lists", "clean_list", "top1"), of("bare right", "lists", "zero_shot", "top1")
    prompt = [f"With worked examples in front {read.share('lists right')} are right, without {read.share('bare right')} "
              "(unsteered, one template).",
              *asked_too(read)]
    layer, strength, coefficient = tuned(read, key)
    matched = read("best of the grid", "02_tune", "tuned", key, "matched")
    how = [f"Layer {layer}, coefficient {coefficient:.3g}, which is {strength:.2g} units; on tuning pairs the best "
           f"of the grid over strength is {matched['strength']:.2g} units at layer {matched['layer']}."]
    artifact = read.found["03_transfer"]
    items, logp = draw.table(artifact, "relation_items"), artifact.array("relation_logp").astype(float)
    where, styles = ({x: found[x] for x in dict.fromkeys(item[facet] for item in items)} for facet, found in (
        ("context", of("contexts", "context")), ("style", of("styles", "style"))))             # in the suite's order
    lost = [context for context, found in where.items() if clear(found) <= 0]
    but += [f"it does not hold behind {', '.join(lost)}"] if lost and clear(effect) > 0 else []
    pairs = {}
    for i, item in enumerate(items):
        if item["level"] == 0:
            pairs.setdefault((item["x"], item["y"]), []).append(i)
    plain, steered = (np.array([logp[at, row].mean() for at in pairs.values()]) for row in (0, 1))
    order = np.argsort(steered - plain, kind="stable")
    gains, words = (steered - plain)[order].tolist(), [list(pairs)[i] for i in order]
    lower = sum(gain < 0 for gain in gains)
    harm += [f"it lowers {lower} of {n} answers"] if lower >= OTHER_WAY * n else []
    short = common(read, "relation_items", gains, {"the unsteered log-probability": plain[order].tolist(),
                                                   "the length of the answer": [len(y) for _, y in words]})
    worst = [{"input": f"{x} -> {y}", "found": f"log-probability of the first token {est(plain[i], 2)} unsteered, "
              f"{est(steered[i], 2)} steered"} for i, (x, y) in list(zip(order, words))[:WORST]]
    line = sorted((row for row in draw.table(read.found["02_tune"], "candidates") if row["key"] == key and "way" not
                   in row and row["layer"] == layer), key=lambda row: row["strength"])
    fails = [f"{lower} of {n} answers lose log-probability, mean over the templates: the picture has all, random vectors "
             "not taken off, the list below the least.", *short]
    own = of("gain in the template of the lists", "own_template_gain")
    there = ["By context: " + "; ".join(f"{k} {est(v, 2)}" for k, v in where.items()) + ".",
             "By template: " + "; ".join(f"{k} {est(v, 2)}" for k, v in styles.items())
             + f"; the one of the lists {est(own, 2)}."]
    forest = [("over random vectors", gain), ("over the best of them", effect), ("another relation's", other),
              ("turned round", flipped), *((f"behind {k}", v) for k, v in where.items() if k != "bare")]
    return {"effect": effect, "but": but, "harm": harm, "along": along, "worst": worst, "n": f"{n} pairs",
            "told": f"adds {est(effect, 2)} nats to the first token of the answer beyond the best of its random vectors and "
                    "of none",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read), fails, there, broken(read, key, harm) + others))),
            "picture": {"forest": forest, "unit": "nats", "x": [row["strength"] for row in line],
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats",
                        "lines": [("gain on tuning pairs, template of the lists", [row["score"] for row in line], False)],
                        "window": None, "chosen": strength, "inputs": gains}}


def value(read, key, suite):
    name, but, harm = key.partition("/")[2], [], []
    along, others = contrasts(read, name)

    def of(what, *steps):
        return read(what, "03_transfer", "results", "values", *steps)

    effect, shift, noise = (of("shift beyond random vectors", "shift_beyond_random"), of("shift", "shift"),
                            of("random vectors", "shift_random"))
    for who in ("unsteered", "tuned"):
        of(f"preferred, {who}", "preferred", who)
    does = [f"It shifts the log-odds by {est(shift, 2)} nats over random vectors, {est(effect, 2)} over the best of "
            f"them and of none; the positive side is preferred in {read.share('preferred, unsteered')} of the probes before "
            f"and {read.share('preferred, tuned')} after."]
    asked, against = of("bias removed by examples", "prompted", "bias_removed"), of("vector minus examples",
                                                                                     "against_minus_prompted")
    both = read("examples and vector minus examples", CONTRASTS, "results", "together")
    prompt = [f"Examples in the prompt remove {percent(asked)} of the bias; the vector, against each probe's lean, "
              f"{percent(against)} more; both together remove {est(both, 0, 100)} points of 100 more than the examples "
              "alone."]
    but += ["examples in the prompt do more"] if clear(against) < 0 else []
    layer, strength, coefficient = tuned(read, key)
    rows = [row for row in draw.table(read.found["03_transfer"], "values") if row["value_name"] == name]
    grid = sorted((row for row in rows if row["kind"] == "grid"), key=lambda row: row["strength"])
    span, removed = of("window", "window_span", name), of("bias removed with one sign", "window", "bias_removed")
    how = [f"Layer {layer}, strength {strength:.2g} units (coefficient {coefficient:.3g}).",
           f"One sign for all lowers the bias and keeps the facts at {', '.join(f'{s:g}' for s in span)} units."
           if span else "With one sign for all, no strength lowers the bias and keeps the facts, both beyond doubt.",
           f"Picked for that on the tuning split it removes {percent(removed)} of the bias.",
           *dose(read, "at every token of a sentence, of a prompt at the last,")]
    worse, _ = of("worse", "worse_in_window"), of("over-corrected", "overcorrected_tuned")
    if worse["value"] >= OTHER_WAY:
        harm.append(f"in its window it adds bias to {percent(worse['value'])} of the probes")
    fails = [f"In the window {read.share('worse')} of the probes end with more bias than before; as tuned, against the "
             f"lean, {read.share('over-corrected')} end further on the other side than they began."]
    levels = dict(sorted((of("levels", "shift_at_level") or {}).items(), key=lambda level: int(level[0])))
    where = [f"By complexity of the context: {'; '.join(f'level {k} {est(v, 2)}' for k, v in levels.items())} nats."]
    lost, text = of("facts lost", "fact_loss_tuned"), of("perplexity", "perplexity", "tuned")
    costs = [f"{percent(lost)} of {lost['n']} facts are lost as tuned."]
    costs += [f"Perplexity of neutral text becomes {est(text, 2)} times what it was."] if text else []
    harm += ["it costs facts"] if clear(lost, COSTS) > 0 else []
    harm += surprising(text) if text else []
    TUNED = -3                                       # of the settings (lib/studies/values.py); row 0 is the vector
    artifact = read.found["03_transfer"]
    items, lean = draw.table(artifact, "value_items"), artifact.array("probe_lean").tolist()
    steered = artifact.array("probe_steered")[:, TUNED, 0].tolist()
    probes = {probe["id"]: probe for v in suite.values if v["name"] == name for probe in v["probes"]}
    gains = sorted((steered[i] - lean[i], i) for i in range(len(items)))

    def text_of(probe):
        return " / ".join(probe[side] for side in ("positive_text", "negative_text", "prompt") if side in probe)

    fails += common(read, "value_items", [gain for gain, _ in gains], {
        "the unsteered lean": [lean[i] for _, i in gains],
        "the length of the text": [len(text_of(probes[items[i]["id"]])) for _, i in gains]})
    worst = [{"input": text_of(probes[items[i]["id"]]),
              "found": f"log-odds {est(lean[i], 2)} unsteered, {est(steered[i], 2)} steered"}
             for _, i in gains[:WORST]]
    forest = [("over random vectors", shift), ("over the best of them", effect), ("random vectors", noise),
              *((f"context level {k}", v) for k, v in levels.items())]
    return {"effect": effect, "but": but, "harm": harm, "along": along, "worst": worst, "n": f"{effect['n']} subjects",
            "told": f"shifts the log-odds by {est(effect, 2)} nats beyond the best of its random vectors and of none",
            "answers": dict(zip(QUESTIONS, (does, prompt, how, fails, where, costs + others))),
            "picture": {"forest": forest, "unit": "nats", "x": [row["strength"] for row in grid],
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats",
                        "lines": [("shift, nats", [row["shift"]["value"] for row in grid], False),
                                  ("facts known", [row["fact_accuracy"] for row in grid], True)],
                        "window": [min(span), max(span)] if span else None, "chosen": strength,
                        "inputs": [gain for gain, _ in gains]}}


KINDS = {"trait": trait, "behaviour": behaviour, "relation": relation, "value": value}
