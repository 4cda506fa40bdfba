"""Card parts: what cards of all kinds say (report/card_kinds.py). Nothing is computed here but which rows are shown, what
the inputs on which a relation or a value does little have in common, what a relation's vector adds to worked examples,
how asking for a behaviour compares with its vector, and for a trait what moves along (report/card_along.py).
"""
from lib import metrics, suite as suites
from report import card_along, draw
from report.card_read import clear, est, percent
from report.examples import harmless

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
    return [f"neutral text becomes {est(text['value'], 1)} times as surprising"] if clear(text, 1 + COSTS) > 0 else []


def new(read):
    """The word for inputs that the vector was not made from, as far as that is known."""
    return "" if "vector" in read.found["01_extract"].config else "new "


def origin(read, key, suite):
    """What the vector is the mean of, in words; of a vector from elsewhere its file."""
    config, (kind, _, name) = read.found["01_extract"].config, key.partition("/")
    if "vector" in config:
        file = config["vector"]
        factor = f", its coefficient, {file['coefficient']:g}, multiplied in" if file["coefficient"] != 1 else ""
        return (f"The vector comes from {harmless(file['file'])} ({file['format']}){factor}; whether it was made from these "
                "inputs is not known. Vectors of shuffled labels are of the concept's own pairs.")
    n = read("pairs", "01_extract", "concepts", {"key": key}, "n_pairs")
    if kind == "relation":
        pairs, shots = len(suites.relation_split(suites.relation(suite, name), "extract")), config["shots"]
        return (f"The vector is the mean state at the end of {n} lists of {shots} examples, drawn from {pairs} pairs, less "
                f"that of all {len(suite.relations)} relations of the suite.")
    of = {"trait": "pairs of answers, asked for it and against it", "value": "pairs of sentences",
          "behaviour": "questions, answered with either letter"}[kind]
    return f"The vector is the mean difference of {n} {of}."


def broken(read, key, harm):
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
        harm += ["it costs facts"] if clear(lost, COSTS) > 0 else []
    if text:
        answers.append(f"Perplexity of neutral text becomes {est(text, 2)} times what it was "
                       f"(random: {est(plain, 2)}).")
        harm += surprising(text)
    return answers or ["Facts and neutral text: not measured, the suite has neither."]


def moves_along(read, name, cases):
    """(traits, sentences): what else a trait's vector moves, of what can be counted in its cases [{arm: case}]."""
    found = card_along.along([{arm: case["output"] for arm, case in arms.items()} for arms in cases], name)
    if not found:
        return [], []
    for other, one in found.items():
        read.numbers[f"moves along: {other}"] = {"at": ["03_transfer", "cases"], "counted": other, "found": one}
    moved, n = card_along.moved(found), max(one["steered"]["n"] for one in found.values())
    told = ", ".join(f"{other} {est(found[other]['steered'])}, over random vectors {est(found[other]['over_random'])}"
                     for other in moved)
    return moved, [f"Of {len(found)} other traits that can be counted in any English text, {len(moved) or 'none'} "
                   f"{'move' if len(moved) > 1 else 'moves'} along beyond random vectors over {n} prompts, intervals "
                   f"widened for their number{'; points of 100: ' * bool(told)}{told}."]


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
            found = read.computed(f"gain by {what}", f"rank correlation of the gain with {what}", ["03_transfer", table],
                                  metrics.bootstrap_corr(x, gains, unit="inputs", seed_address=[SEED, i]))
            told.append(f"with {what} {est(found, 2)}")
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
    found = read.computed("right behind examples, steered less unsteered", "top-1 behind clean lists, vector less none",
                          ["03_transfer", "way_items"], found)
    return [f"Examples and vector together: {est(found, 0, 100)} points more of 100 than examples alone."]


def asking(read, name):
    """(asking, both): how much more the odds of a behaviour's answer move under its persona sentence than under one unit
    of the vector, and under both than under the sentence alone; nats, est. over contents."""
    artifact = read.found["03_transfer"]
    items, config = draw.table(artifact, "behaviour_items"), artifact.config
    mine = [i for i, item in enumerate(items) if item["behaviour"] == name]
    curves, plain = (artifact.array(f"propensity{of}")[mine].astype(float) for of in ("", "_unsteered"))
    asked = config["settings"].index("SYS_POS")
    here, there = (curves[:, config["pairs"].index(["BASE", setting]), config["multipliers"].index(1)]
                   for setting in ("BASE", "SYS_POS"))
    return [read.computed(what, what, ["03_transfer", "behaviour_items"], metrics.bootstrap(
        values, unit="contents", seed_address=[SEED, 3, tag], clusters=[items[i]["content"] for i in mine]))
        for tag, (what, values) in enumerate({
            "odds under the persona sentence less under the vector": plain[:, asked] - here,
            "odds under both less under the sentence": there - plain[:, asked]}.items())]


def tuned(read, key):
    return (read(name, "02_tune", "tuned", key, name) for name in ("layer", "strength", "coefficient"))


def dose(read, where="from the last prompt token on, answer included,", what=""):
    """[sentence]: where the vector is added, and what to use in a tool that adds it elsewhere."""
    n, kl, there, everywhere, why = (read(f"dose: {field}", CONTRASTS, "results", "dose", field) for field in (
        "n", "kl", "kl_at_all_positions", "coefficient_at_all_positions", "why"))
    same = f"coefficient {everywhere:.3g} has the same effect there" if everywhere else why
    return [f"It is added {where} and moves the next token by KL {kl:.2g} nats{what} "
            f"({n} prompts); a tool that adds it at all positions moves it by {there:.2g}, and {same}."]
