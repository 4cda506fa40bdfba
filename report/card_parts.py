"""Card parts: what a card says about each kind of concept. Every number is read from a result or table of a stage,
and the card keeps where from. Nothing is computed here but which rows are shown, what the inputs on which a relation or
a value does little have in common, what a relation's vector adds to worked examples, and for a trait what moves along
(report/card_along.py).

A function per kind returns
    effect   the estimate that decides: the vector against random ones, whole interval above 0; least: what less than
             it comes to nothing
    answers  {one of QUESTIONS: [sentence, ...]}
    but      what else to say in the first line; along: what else moves (traits, contrasts)
    worst    the inputs on which it does least, [{"input", "found"}]
    picture  {"forest": [(label, estimate)], "unit", "x", "xlabel", "lines": [(label, [y], right axis?)], "window",
              "chosen", "inputs": [effect per input]}
"""
from lib import metrics
from lib.studies import reliability
from report import card_along, draw
from report.card_read import clear, deciding, est, percent, share, span

# --- what is said -------------------------------------------------------------------------------------------
SEED = 13
WORST = 5                    # inputs in full
OTHER_WAY = 0.1              # share of inputs that go the other way, from which the first line says so
COSTS = 0.05                 # of the facts, whole interval; and of the perplexity of neutral text
# ------------------------------------------------------------------------------------------------------------
TASKS, PLURAL = ("question", "summary", "email"), {"summary": "summaries", "email": "emails"}
QUESTIONS = ("Does it do anything?", "Better than asking?", "How strong?", "For whom does it fail?",
             "Does it hold elsewhere?", "What does it break?")
CONTRASTS = "card_contrasts"     # report/card_contrasts.py


# --- what a part is made of ---------------------------------------------------------------------------------
def surprising(text):
    """What to say in the first line of the perplexity of neutral text."""
    return [f"neutral text becomes {est(text['value'], 1)} times as surprising"] if text["low"] > 1 + COSTS else []


def broken(read, key, but):
    """What stage 03 says of facts and neutral text under a vector that is no value's."""
    answers = []

    def of(what, field):
        return read(what, "03_transfer", "breaks", {"key": key}, field)

    lost, known, random = (of("facts lost", "fact_loss"), of("facts known", "facts_known"),
                           of("facts lost to random vectors", "fact_loss_random"))
    text, plain = of("perplexity", "perplexity"), of("perplexity under random vectors", "perplexity_random")
    if lost:
        answers.append(f"Of {lost['n']} facts, of which it knows {percent(known)}, the model loses {percent(lost)} "
                       f"(random vectors of its norm: {percent(random)}).")
        but += ["it costs facts"] if lost["low"] > COSTS else []
    if text:
        answers.append(f"Perplexity of neutral text becomes {est(text, 2)} times what it was "
                       f"(random: {est(plain, 2)}).")
        but += surprising(text)
    return answers or ["Facts and neutral text: not measured, the suite has neither."]


def moves_along(read, name, cases):
    """(traits, sentences): what else a trait's vector moves, of what can be counted in its cases [{arm: case}]."""
    found = card_along.along([{arm: case["output"] for arm, case in arms.items()} for arms in cases], name)
    if not found:
        return [], []
    for other, one in found.items():
        read.numbers[f"moves along: {other}"] = {"at": ["03_transfer", "cases"], "counted": other, "found": one}
    moved, n = card_along.moved(found), max(one["steered"]["n"] for one in found.values())
    told = ", ".join(f"{other} {est(one['steered'])} (random vectors: {est(one['random']['value'])})"
                     for other, one in ((other, found[other]) for other in moved))
    return moved, [f"Of {len(found)} other traits that can be counted in any English text, {len(moved) or 'none'} "
                   f"{'move' if len(moved) > 1 else 'moves'} along over {n} prompts, intervals widened for their "
                   f"number{'; points of 100: ' * bool(told)}{told}."]


def contrasts(read, own):
    """(contrasts, sentences): which of data/contrasts.json a vector of any kind moves, and lies along; `own` is no other."""
    names = [row["name"] for row in draw.table(read.found[CONTRASTS], "contrasts") if row["name"] != own]
    rows = {name: {field: read(f"{name}: {field}", CONTRASTS, "contrasts", {"name": name}, field) for field in (
        "cosine", "cosine_limits", "shift", "shift_limits", "along", "moves", "positive", "negative")} for name in names}

    def told(counts, of, unit):
        some = sorted((row for row in rows.values() if row[counts]), key=lambda row: -abs(row[of]["value"]))
        return "; ".join(f"{row['positive']} rather than {row['negative']} {est(row[of], 2)}{unit} (limits "
                         f"{', '.join(draw.number(end, 2) for end in row[of + '_limits'])})" for row in some) or "none"

    n = max((row["shift"]["n"] for row in rows.values()), default=0)
    return [name for name, row in rows.items() if row["moves"]], [
        f"Of {len(rows)} contrasts between ways to answer, {n} pairs each, it moves beyond what random vectors of its norm "
        f"reach: {told('moves', 'shift', ' nats per token')}.",
        f"It lies along, beyond what vectors of shuffled labels reach, cosine: {told('along', 'cosine', '')}."]


def common(read, table, gains, of):
    """[sentence]: what the inputs on which a vector does little have in common. of {what: (input,)} beside gains."""
    told = []
    for i, (what, x) in enumerate(of.items()):
        if len(set(x)) > 1 and len(set(gains)) > 1:
            found = metrics.bootstrap_corr(x, gains, unit="inputs", seed_address=[SEED, i])
            read.numbers[f"gain by {what}"] = {"at": ["03_transfer", table], "found": found,
                                               "computed": f"rank correlation of the gain with {what}"}
            told.append(f"with {what} {est(deciding(found), 2)}")
    return [f"Rank correlation of an input's gain {', '.join(told)}."] if told else []


def asked_too(read):
    """[sentence]: answers behind worked examples with the vector added, less those without it."""
    artifact = read.found["03_transfer"]
    items, rank = draw.table(artifact, "way_items"), artifact.array("way_rank")
    lists, centred = [i for i, item in enumerate(items) if item["context"] == "clean list"], 1
    if not lists or artifact.config["ways"][0] != "centred":
        return []
    right = (rank[lists] == 0).astype(float)
    found = metrics.bootstrap(right[:, centred] - right[:, 0], unit="word components", seed_address=[SEED, 2],
                              clusters=[items[i]["component"] for i in lists])
    read.numbers["right behind examples, steered less unsteered"] = {
        "at": ["03_transfer", "way_items"], "computed": "top-1 behind clean lists, vector less none", "found": found}
    return [f"Examples and vector together: {est(deciding(found), 0, 100)} points more of 100 than examples alone."]


def tuned(read, key):
    return (read(name, "02_tune", "tuned", key, name) for name in ("layer", "strength", "coefficient"))


def dose(read, where="from the last prompt token on, answer included,"):
    """[sentence]: where the vector is added, and what to use in a tool that adds it elsewhere."""
    n, kl, there, everywhere, why = (read(f"dose: {field}", CONTRASTS, "results", "dose", field) for field in (
        "n", "kl", "kl_at_all_positions", "coefficient_at_all_positions", "why"))
    same = f"coefficient {everywhere:.3g} has the same effect there" if everywhere else why
    return [f"It is added {where} and moves the next token by KL {kl:.2g} nats ({n} "
            f"prompts); a tool that adds it at all positions moves it by {there:.2g}, and {same}."]


# --- kinds --------------------------------------------------------------------------------------------------
def trait(read, key, suite):
    name, but = key.partition("/")[2], []
    along, others = contrasts(read, name)

    def at(what, field, task="question"):
        return read(what, "03_transfer", "traits", {"trait": name, "task": task}, field)

    def of_inputs(field):
        return read(f"inputs: {field}", "03_transfer", "trait_inputs", {"trait": name}, field)

    effect, gain, shuffled = (at("gain over random vectors", "steered_minus_random"), at("gain", "gain"),
                              of_inputs("steered_minus_shuffled"))
    shown = at("expression", "expression")
    does = [f"Expression goes from {est(shown['unsteered'])} to {est(shown['steered'])} of 100 on {effect['n']} new "
            f"questions; {est(effect)} more than under random vectors"
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
        but.append(f"no strength kept coherence at {floor}")
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
                   f"new questions show {est(-behind)} points more of it (coherence by {est(-coherent)}).")
    worse, still, lean, length = (of_inputs(field) for field in ("worse", "unmoved", "by_unsteered", "by_length"))
    but += [f"it lowers the trait on {percent(worse['value'])} of the prompts"] if worse["value"] >= OTHER_WAY else []
    fails = [f"{share(worse)} of {worse['n']} prompts show less of it than unsteered, {share(still)} are "
             "unmoved."]
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
    return {"effect": effect, "least": least, "but": but, "along": counted + along, "worst": worst,
            "told": f"raises it by {est(effect)} points of 100 more than random vectors do{missed}",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read), fails, where,
                                            broken(read, key, but) + said + others))),
            "picture": {"forest": forest, "unit": "points of 100", "x": [row["strength"] for row in line],
                        "xlabel": f"strength, units (layer {layer})", "lines": lines, "ylabel": "of 100",
                        "window": window, "chosen": strength, "inputs": [gain for gain, _ in gains]}}


def behaviour(read, key, suite):
    name, but = key.partition("/")[2], []
    along, others = contrasts(read, name)

    def of(what, *steps, stage="05_reliability", table="behaviours"):
        return read(what, stage, table, {"name": name}, *steps)

    limit, n = of("random vectors reach", "random", "p95"), of("inputs", "n")
    shuffled, slope = max(map(abs, of("shuffled labels", "shuffled", "means"))), of("slope", "slope")
    contents = of("contents", "slope", "n")
    effect = span(of("slope, two multipliers", "control_slope"), of("its interval", "intervals", "control_slope"), contents)
    reach = reliability.reach(effect["low"], effect["high"], limit) if effect else "undecided"
    decided = effect and (effect if reach == "below" else {end: effect[end] - limit for end in ("value", "low", "high")})
    does = [f"One unit moves the odds of its answer by {est(effect, 2)} nats on {n} new inputs. "
            f"Random vectors of its norm reach {est(limit, 2)} (95 % of them), vectors of shuffled labels "
            f"{est(shuffled, 2)} at most.", f"The slope over all multipliers is {est(slope, 2)} nats per unit."]
    asked, vector, sentence, both = (of(what, *steps, stage="03_transfer") for what, *steps in (
        ("sentence", "sentence_effect", "SYS_POS"), ("vector", "vector_effect"), ("odds, sentence", "sentence"),
        ("odds, both", "sentence_and_vector")))
    but += ["asking for it does more"] if asked > vector else []
    prompt = [f"A persona sentence moves it by {est(asked, 2)} nats, the vector at one unit by {est(vector, 2)}. "
              f"Asked and steered the odds are {est(both, 2)}, asked alone {est(sentence, 2)} (means, no interval)."]
    layer, strength, coefficient = tuned(read, key)
    multipliers, curve, mass = (read("multipliers", "05_reliability", "config", "multipliers"), of("curve", "curve"),
                                of("probability of the letters", "mass", "matched"))
    low = [m for m, p in zip(multipliers, mass) if p < 0.5]
    how = [f"Layer {layer}, one unit (coefficient {coefficient:.3g}); tried from {multipliers[0]:g} to "
           f"{multipliers[-1]:g} units.", "The model answers with a letter at all of them." if not low else
           f"At {', '.join(f'{m:g}' for m in low)} units less than half of the probability is on the letters."]
    anti = span(of("goes the other way", "anti_steerable"),
                of("its interval, other way", "intervals", "anti_steerable"), contents)
    letter, yes, chance = (of(f"explained: {part}", "bias", part) for part in ("letter", "yes_marginal", "permuted"))
    each = of("each", "inputs", "each")
    if anti and anti["value"] >= OTHER_WAY:
        but.append(f"it goes the other way on {percent(anti['value'])} of the inputs")
    fails = [f"{share(anti)} of {n} inputs go the other way.",
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
    there = {setting: span(row["ood"], row["ood_interval"], contents) for setting, row in shifts}
    words = {"SYS_POS": "system prompt for it", "SYS_NEG": "system prompt against it",
             "USER_POS": "user's wish for it", "USER_NEG": "user's wish against it"}
    where = ["Slope under a " + ", a ".join(f"{words[setting]} {est(found, 2)}" for setting, found in there.items())
             + " nats per unit. In longer contexts and free text: not tested."]
    lost = [words[setting] for setting, found in there.items() if clear(found) <= 0]
    but += [f"it does not hold under a {' or a '.join(lost)}"] if lost and reach == "above" else []

    found, texts = read.found["05_reliability"], {b["name"]: b["items"] for b in suite.behaviours}[name]
    items, slopes = draw.table(found, "items"), found.array("slopes").tolist()
    shown = {item["id"]: item for item in texts}
    order = sorted(range(len(items)), key=lambda i: slopes[i])
    worst = [{"input": shown[items[i]["id"]]["question"],
              "found": f"slope {est(slopes[i], 2)} nats per unit; its answer is {items[i]['positive']}"}
             for i in order[:WORST]]
    forest = [("vector, \u00b11 unit", effect), ("random, 95 % of them", limit),
              ("shuffled labels, at most", shuffled), *((words[setting], found) for setting, found in there.items())]
    return {"effect": decided, "reach": reach, "but": but, "along": along, "worst": worst,
            "told": f"moves the odds of its answer by {est(effect, 2)} nats per unit, where random vectors reach "
                    f"{est(limit, 2)}",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read), fails, where, broken(read, key, but) + others))),
            "picture": {"forest": forest, "unit": "nats per unit", "x": multipliers,
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats", "window": None, "chosen": 1.0,
                        "lines": [("odds of its answer, nats", curve, False),
                                  ("probability of the letters", mass, True)],
                        "inputs": [slopes[i] for i in order]}}


def relation(read, key, suite):
    name, but = key.partition("/")[2], []
    along, others = contrasts(read, name)

    def of(what, *steps):
        return read(what, "03_transfer", "results", "relations", *steps)

    effect, gain = of("gain beyond random vectors", "antonym_beyond_random"), of("gain", "antonym_gain")
    top = {who: of(f"answered right, {who}", "top1", who) for who in ("unsteered", "vector", "random")}
    other, flipped = of("another relation's vector", "other_vector_gain"), of("flipped", "flipped_gain")
    does = [f"The answer gains {est(gain, 2)} nats of log-probability over random vectors, {est(effect, 2)} over the "
            f"best of them and of none; right answers go from {share(top['unsteered'])} to {share(top['vector'])} "
            f"(random: {share(top['random'])}).",
            f"Another relation's vector gains {est(other, 2)}, this one turned round {est(flipped, 2)}."]
    but += ["another relation's vector does as much"] if other["high"] > gain["low"] else []
    lists, bare = of("lists right", "lists", "clean_list", "top1"), of("bare right", "lists", "zero_shot", "top1")
    prompt = [f"With worked examples in front {share(lists)} are right, without {share(bare)} (unsteered).",
              *asked_too(read)]
    layer, strength, coefficient = tuned(read, key)
    matched = read("best of the grid", "02_tune", "tuned", key, "matched")
    how = [f"Layer {layer}, coefficient {coefficient:.3g}, which is {strength:.2g} units; on tuning pairs the best "
           f"of the grid over strength is {matched['strength']:.2g} units at layer {matched['layer']}."]
    where = {context: found for context, found in (of("contexts", "context") or {}).items()}
    lost = [context for context, found in where.items() if clear(found) <= 0]
    but += [f"it does not hold behind {', '.join(lost)}"] if lost and clear(effect) > 0 else []
    styles = of("styles", "style") or {}
    artifact = read.found["03_transfer"]
    items, logp = draw.table(artifact, "relation_items"), artifact.array("relation_logp")
    own = [i for i, item in enumerate(items) if item["context"] == "bare" and item["own"]]
    gains = sorted((float(logp[i, 1] - logp[i, 0]), i) for i in own)
    lower = sum(gain < 0 for gain, _ in gains)
    but += [f"it lowers {lower} of {len(gains)} answers"] if lower >= OTHER_WAY * len(gains) else []
    short = common(read, "relation_items", [gain for gain, _ in gains], {
        "the unsteered log-probability": [float(logp[i, 0]) for _, i in gains],
        "the length of the answer": [len(items[i]["y"]) for _, i in gains]})
    worst = [{"input": f"{items[i]['x']} -> {items[i]['y']}", "found": f"log-probability {est(float(logp[i, 0]), 2)} "
              f"unsteered, {est(float(logp[i, 1]), 2)} steered"} for _, i in gains[:WORST]]
    line = sorted((row for row in draw.table(read.found["02_tune"], "candidates") if row["key"] == key and "way" not
                   in row and row["layer"] == layer), key=lambda row: row["strength"])
    fails = [f"Bare, in the template of the lists, {lower} of {len(gains)} answers lose log-probability: the picture "
             "has all, random vectors not taken off, the list below the least.", *short]
    there = ["By context: " + "; ".join(f"{k} {est(v, 2)}" for k, v in where.items()) + ".",
             "By template: " + "; ".join(f"{k} {est(v, 2)}" for k, v in styles.items()) + "."]
    forest = [("over random vectors", gain), ("over the best of them", effect), ("another relation's", other),
              ("turned round", flipped), *((f"behind {k}", v) for k, v in where.items() if k != "bare")]
    return {"effect": effect, "but": but, "along": along, "worst": worst,
            "told": f"adds {est(effect, 2)} nats to the answer beyond the best of its random vectors and of none",
            "answers": dict(zip(QUESTIONS, (does, prompt, how + dose(read), fails, there, broken(read, key, but) + others))),
            "picture": {"forest": forest, "unit": "nats", "x": [row["strength"] for row in line],
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats",
                        "lines": [("gain on tuning pairs", [row["score"] for row in line], False)],
                        "window": None, "chosen": strength, "inputs": [gain for gain, _ in gains]}}


def value(read, key, suite):
    name, but = key.partition("/")[2], []
    along, others = contrasts(read, name)

    def of(what, *steps):
        return read(what, "03_transfer", "results", "values", *steps)

    effect, shift, noise = (of("shift beyond random vectors", "shift_beyond_random"), of("shift", "shift"),
                            of("random vectors", "shift_random"))
    prefer = {who: of(f"preferred, {who}", "preferred", who) for who in ("unsteered", "tuned")}
    does = [f"It shifts the log-odds by {est(shift, 2)} nats over random vectors, {est(effect, 2)} over the best of "
            f"them and of none; the positive side is preferred in {share(prefer['unsteered'])} of the probes before and "
            f"{share(prefer['tuned'])} after."]
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
    span_, removed = of("window", "window_span", name), of("bias removed with one sign", "window", "bias_removed")
    how = [f"Layer {layer}, strength {strength:.2g} units (coefficient {coefficient:.3g}).",
           f"One sign for all lowers the bias and keeps the facts at {', '.join(f'{s:g}' for s in span_)} units."
           if span_ else "With one sign for all, no strength lowers the bias and keeps the facts, both beyond doubt.",
           f"Picked for that on the tuning split it removes {percent(removed)} of the bias.",
           *dose(read, "at every token of a sentence, of a prompt at the last,")]
    worse, over = of("worse", "worse_in_window"), of("over-corrected", "overcorrected_tuned")
    if worse["value"] >= OTHER_WAY:
        but.append(f"in its window it adds bias to {percent(worse['value'])} of the probes")
    fails = [f"In the window {share(worse)} of the probes end with more bias than before; as tuned, against the "
             f"lean, {share(over)} end further on the other side than they began."]
    levels = of("levels", "shift_at_level") or {}
    where = [f"By complexity of the context: {'; '.join(f'level {k} {est(v, 2)}' for k, v in levels.items())} nats."]
    lost, text = of("facts lost", "fact_loss_tuned"), of("perplexity", "perplexity", "tuned")
    costs = [f"{percent(lost)} of {lost['n']} facts are lost as tuned."]
    costs += [f"Perplexity of neutral text becomes {est(text, 2)} times what it was."] if text else []
    but += ["it costs facts"] if lost["low"] > COSTS else []
    but += surprising(text) if text else []
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
    return {"effect": effect, "but": but, "along": along, "worst": worst,
            "told": f"shifts the log-odds by {est(effect, 2)} nats beyond the best of its random vectors and of none",
            "answers": dict(zip(QUESTIONS, (does, prompt, how, fails, where, costs + others))),
            "picture": {"forest": forest, "unit": "nats", "x": [row["strength"] for row in grid],
                        "xlabel": f"strength, units (layer {layer})", "ylabel": "nats",
                        "lines": [("shift, nats", [row["shift"]["value"] for row in grid], False),
                                  ("facts known", [row["fact_accuracy"] for row in grid], True)],
                        "window": [min(span_), max(span_)] if span_ else None, "chosen": strength,
                        "inputs": [gain for gain, _ in gains]}}


KINDS = {"trait": trait, "behaviour": behaviour, "relation": relation, "value": value}
