"""Stage 01 - what separates texts for a concept from texts against it? One vector per concept and layer.

    v[l] = mean_i( h_l(positive_i) - h_l(negative_i) )

h_l is the output of block l. Layer 0 is the first block, there is no row for the embeddings, and nothing is
normalised. What a pair is, and where it is read:
    trait      two answers of the model, asked for the trait and against it; mean over the answer's tokens
    behaviour  one multiple-choice prompt, answered with either letter; at the letter. Where the letters are
               is found first of all (lib.studies.propensity); a format in which there are none is left out, and
             so are behaviours whose persona sentences the model does not tell apart (lib.studies.gates)
    relation   the end of an in-context list (template 0), minus the mean of that over all relations
    value      two raw sentences; at their last tokens
A trait pair counts if the judge finds the trait in the positive answer, not in the negative one, and both
coherent. The others are counted by reason. A trait with fewer than MIN_PAIRS pairs, or one that its instruction
does not raise, has no vector; later stages leave it out. A behaviour's pairs are balanced by letter and Yes/No.
Vectors come from the extraction split alone; only published_vectors, which repeats the released run, also takes
the tuning split. Reasons: report/methods.md. Fields and units: outputs/README.md.

reads   the suite's extraction split; of behaviours also the tuning split, for gates and published_vectors
writes  vectors.npy            one vector per concept and layer, rows in the order of concepts.json
        concepts.json          the concepts, their pairs, and four statistics per layer
        setting_vectors.npy    behaviours, made under each of five prompt settings
        shuffled_vectors.npy   the same with half of the pairs turned round: a control
        method_vectors.npy     behaviours, by principal component and by logistic regression
        published_vectors.npy  behaviours, from the first half of the items as in the released run
        way_vectors.npy        relations, made in other ways from the same lists
        head_effects.npy       indirect effect of every attention head; absent where heads cannot be reached
        relations.json         lists that are answered right, and the heads that were summed
        residual_norm.npy      mean ||h_l|| at the end of chat prompts; residual_norm_raw.npy: of raw text
        gates.json             what the model can be asked at all, before any vector
        traits.json            pairs asked, kept and dropped, per trait
        calibration.json       scores of texts on which a judge in words is tried; absent for one that counts
        responses.jsonl        every answer, its scores, and why its pair was dropped
        reference.jsonl        unsteered answers that a counting judge compares with; absent for others
        layers.json            mean split-half cosine per kind and layer
claims  none; stages 02 to 05 start from these vectors
cost    about a minute on one CPU core for the testbed and 3 M parameters; seconds with --profile smoke

    python 01_extract.py --model data/models/pico-llama
"""
import numpy as np

from lib import artifacts, stage

CLI = stage.cli(__doc__)
TEXTS = artifacts.ROOT / "data" / "calibration.json"       # what a judge in words is tried on
stage.begin(__name__, CLI, files=[TEXTS])      # up to date? says so and ends, before torch is imported

from lib import directions, engine, metrics, suite as suites, work
from lib.artifacts import UserError
from lib.judging import calibration, cases, counted, judges
from lib.studies import gates, propensity, relations, values

# --- settings that change the numbers -----------------------------------------------------------------------
SEED = 1
QUESTIONS = {"full": 4, "quick": 2, "smoke": 1}    # per instruction pair; pair j goes on where pair j - 1 stopped
MIN_PAIRS = {"full": 5, "smoke": 2}      # with fewer surviving pairs a trait is not extractable
EXPRESSED, COHERENT = 50, 50             # the filter of trait pairs
SETTINGS = ("BASE", "SYS_POS", "SYS_NEG", "USER_POS", "USER_NEG")
SHOTS = {"full": 10, "quick": 10, "smoke": 2}      # examples in an in-context list
LISTS = {"full": 40, "quick": 10, "smoke": 4}      # in-context lists per relation
N_MEDIATION = {"full": 25, "smoke": 2}   # of them, with shuffled answers, for the effects of heads, as published
N_HEADS = 10                             # heads that are summed, as published
# ------------------------------------------------------------------------------------------------------------


def why_dropped(name, positive, negative):
    """Reason for which two answers to one question (cases, see lib.judging.cases) do not count as a pair, or None."""
    if not positive["output"].strip() or not negative["output"].strip():
        return "empty answer"
    (high, low), coherence = ([c["expression"][name] for c in (positive, negative)],
                              [c["coherence"] for c in (positive, negative)])
    if None in (high, low, *coherence):
        return "no usable score"
    if high <= EXPRESSED:
        return "positive answer does not show the trait"
    if low >= EXPRESSED:
        return "negative answer shows the trait"
    return "incoherent answer" if min(coherence) < COHERENT else None


def ask(lm, suite, judge, refused=()):
    """Jobs (see lib.judging.cases) of all traits that the judge can score and is not refused for; positive and
    negative answer of a pair stand side by side."""
    n, jobs = suite.size(QUESTIONS, "preferences"), []
    for trait in [t for t in suite.traits if judges.can(judge, t["name"]) and t["name"] not in refused]:
        questions = suites.tasks(suite, "question", "extract", trait["name"])
        for j, pair in enumerate(trait["instructions"]):
            for i in range(n):
                item = questions[(j * n + i) % len(questions)]
                jobs += [{"record": {"key": f"trait/{trait['name']}", "instruction": j, "side": side,
                                     "item": item["id"]},
                          "prompt": lm.chat(pair[side], item["prompt"]), "row": (), "item": item,
                          "traits": [trait["name"]]} for side in ("positive", "negative")]
    return jobs


def extract_trait(lm, prompts, answers, address):
    """Vector of one trait; prompts and answers, token ids of kept pairs, alternate positive, negative."""
    whole = [prompt + answer for prompt, answer in zip(prompts, answers)]
    states = engine.read(lm, whole, tail=[len(answer) for answer in answers])
    return directions.describe(states[::2] - states[1::2], states[::2], states[1::2], address)


def extract_behaviour(lm, suite, number, read_out):
    """Vectors of one behaviour in the five settings, at the letters of `read_out`, from balanced items; at BASE also
    statistics, the other methods' directions, and the vector of the published split, which is
    made from the whole first half."""
    behaviour = suite.behaviours[number]
    whole, tune = (suites.split(behaviour["items"], part) for part in ("extract", "tune"))
    items, vectors, found = suites.balanced(whole), [], {}
    for setting in SETTINGS:
        used = whole + tune if setting == "BASE" else items
        prompts, letters = propensity.ask(lm, read_out, suite, behaviour, used, setting)
        states = engine.read_pairs(lm, prompts, letters[:, :1].tolist(), letters[:, 1:].tolist())
        published = (states[:, 0] - states[:, 1]).mean(axis=0)
        states = states[np.isin([item["id"] for item in used], [item["id"] for item in items])]
        diffs = states[:, 0] - states[:, 1]
        vectors.append(diffs.mean(axis=0))
        if setting == "BASE":
            # A - B is the largest part of a difference. It cancels over all items but not over a random half,
            # and the other half then has it with the opposite sign. An item with A and one with B are drawn
            # together; where the suite has swaps these are an item and its swap.
            is_a = np.array([item["positive"] == "A" for item in items])
            both = [(diffs[i] + diffs[j]) / 2 for i, j in zip(np.flatnonzero(is_a), np.flatnonzero(~is_a))]
            if len(both) < 2:
                raise UserError(f"behaviour {behaviour['name']}: extraction needs two items with positive "
                                f"option A and two with B")
            found = directions.describe(diffs, states[:, 0], states[:, 1], [SEED, 2, number], np.stack(both))
            found["methods"] = np.stack([[method(states[:, 0, l], states[:, 1, l]) for l in range(lm.n_layers)]
                                         for method in directions.METHODS.values()]).astype(np.float32)
            found["published"] = published
    return found | {"settings": np.stack(vectors)}


def extract_relation(lm, suite, number):
    """What one relation's lists give (lib.studies.relations.extract); query and examples are drawn by address."""
    relation, shots = suite.relations[number], suite.size(SHOTS, "relations")
    pairs = suites.relation_split(relation, "extract")
    if len(pairs) <= shots:
        raise UserError(f"relation {relation['name']}: {len(pairs)} pairs to extract from; {shots} examples "
                        f"and a query need {shots + 1}")
    addresses = [[SEED, 4, number, i] for i in range(suite.size(LISTS, "relations"))]
    return relations.extract(lm, pairs, suite.templates[0], shots, addresses,
                             suite.size(N_MEDIATION, "relations"), N_HEADS,
                             relations.in_turn(suite))


def residual_norms(lm, suite):
    """{name: (layer,)}: chat prompts are the extract questions and an item per behaviour; raw ones relation
    queries, or the values' sentences in a suite without relations. A name without prompts is left out."""
    chat = [lm.chat(suite.system, item["prompt"])
            for item in (suites.tasks(suite, "question", "extract") if suite.traits else [])]
    chat += [lm.chat(*suites.behaviour_prompts(suite, b, suites.split(b["items"], "extract")[0], "BASE"))
             for b in suite.behaviours]
    raw = [lm.encode(suites.fill(suite.templates[0]["query"], x)) for relation in suite.relations
           for x, _ in suites.relation_split(relation, "extract")]
    raw = raw or [lm.encode(pair["positive"]) for value in suite.values
                  for pair in suites.value_split(value, "extract")]
    prompts = {"residual_norm": chat, "residual_norm_raw": raw}
    return {name: engine.residual_norm(lm, texts) for name, texts in prompts.items() if texts}


def main():
    args = CLI.parse_args()

    # 1. model, suite, and what fixes the numbers
    at = stage.open(args, __file__)
    lm = at.lm
    read_out = propensity.find(lm, at.suite)               # before any work: where does this model have its letters?
    suite, missing = propensity.testable(at.suite, read_out)
    least = {"seed": SEED, "read_out": read_out and read_out.config(args.profile), "n_gate": gates.N_GATE[args.profile],
             "least_gap": gates.LEAST_GAP, "luck": gates.LUCK,
             "calibration": [artifacts.sha256(TEXTS), calibration.CALIBRATED, calibration.MOST_FAILED]}
    before = at.identity(at.config | least)
    suite, untold, gated, can = gates.behaviours(at, read_out, suite, before, [SEED, 8])
    tested, refused, trusted = calibration.check(at.judge, suite, TEXTS, at.out, before, [SEED, 13])
    names = {b["name"] for b in suite.behaviours}
    missing |= untold
    if read_out and work.is_main():
        print(f"{at.out.name.replace('_', ' ')}  {lm.name}  {propensity.told(lm, read_out)}")
    no_heads = relations.heads_of(lm)[1]                                             # None, or the reason
    config = at.config | least | {
              "left_out": [b["name"] for b in at.suite.behaviours if b["name"] not in names],
              "refused": sorted(refused),
              "questions": suite.size(QUESTIONS, "preferences"), "min_pairs": suite.size(MIN_PAIRS, "preferences"),
              "max_new_tokens": suite.max_new_tokens, "filter": [EXPRESSED, COHERENT],
              "settings": SETTINGS, "methods": list(directions.METHODS), "n_shuffled": directions.N_SHUFFLED,
              "shots": suite.size(SHOTS, "relations"), "lists": suite.size(LISTS, "relations"),
              "mediation": suite.size(N_MEDIATION, "relations"),
              "n_heads": N_HEADS, "ways": [way for way in relations.MADE if not (way == "heads" and no_heads)
                                           and (way != "mixed" or len(suite.templates) > 2)]}
    identity = at.identity(config)

    # 2. the model's answers for and against every trait, judged; a pair stands or falls as one
    jobs = ask(lm, suite, at.judge, refused)
    counted.refer(at.judge, ["question"] if jobs else [], at.out, identity)
    answers = cases.run(lm, at.judge, jobs, suite.max_new_tokens, at.out, identity, "01 answers") if jobs else []
    for positive, negative, job in zip(answers[::2], answers[1::2], jobs[::2]):
        positive["dropped"] = negative["dropped"] = why_dropped(job["traits"][0], positive, negative)
    traits, kept, raised = gates.traits(suite, jobs, answers, refused, suite.size(MIN_PAIRS, "preferences"), [SEED, 9])
    missing |= {f"traits.{name}": trait["reason"] for name, trait in traits.items() if trait["reason"]}
    gated += [gates.row("trait", name, "expression", gap, gates.above(gap)) for name, gap in raised.items()]

    # 3. one work unit per concept; relations are centred when the states of all are there
    names = {"trait": [name for name, trait in traits.items() if trait["extractable"]]}
    counted.refer(at.judge, [task for task in suite.tasks if task != "question"] if names["trait"] else [], at.out, identity)
    names |= {kind: [c["name"] for c in getattr(suite, kind + "s")]
              for kind in ("behaviour", "relation", "value")}
    order = [(kind, i) for kind in names for i in range(len(names[kind]))]
    if not order:
        raise UserError(f"{suite.folder}: nothing is extractable from {lm.name}: {'; '.join(set(missing.values()))}")

    def unit(key):
        kind, number = key.split("-")[0], int(key.split("-")[1])
        if kind == "norms":
            return residual_norms(lm, suite)
        if kind == "trait":
            mine = kept[names["trait"][number]]
            return extract_trait(lm, [jobs[i]["prompt"] for i in mine],
                                 [lm.tokens(answers[i]["output"]) for i in mine], [SEED, 1, number])
        if kind == "relation":
            return extract_relation(lm, suite, number)
        if kind == "value":
            return values.extract(lm, suite.values[number], [SEED, 6, number])
        return extract_behaviour(lm, suite, number, read_out)

    done = work.units(at.out, identity, ["norms-0", *(f"{kind}-{i}" for kind, i in order)], unit, "01 vectors")
    if not work.is_main():
        return
    lists = [done[f"relation-{i}"] for i in range(len(names["relation"]))]
    centred = relations.centre([found["states"] for found in lists], [SEED, 5])
    done |= {f"relation-{i}": found for i, found in enumerate(centred)}

    # 4. results: how many pairs survived, and how far they point the same way
    concepts, layers, reasons = [], [], {}
    for kind, i in order:
        name, found = names[kind][i], done[f"{kind}-{i}"]
        concepts.append({"key": f"{kind}/{name}", "kind": kind, "name": name, "n_pairs": found["n"],
                         "dropped": traits[name]["dropped"] if kind == "trait" else {}, **found["stats"]})
    for kind in filter(names.get, names):
        cosines = np.mean([c["split_half_cosine"] for c in concepts if c["kind"] == kind], axis=0).tolist()
        layers += [{"kind": kind, "what": "split_half_cosine", "layer": l, "value": value,
                    "n": len(names[kind])} for l, value in enumerate(cosines)]
    for trait in traits.values():
        for reason, n in trait["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + n
    n_kept = sum(trait["n_pairs"] for trait in traits.values())
    results = {"n_concepts": {kind: len(found) for kind, found in names.items()},
               "traits": {"n": len(traits), "n_extractable": len(names["trait"]), "n_asked": len(jobs) // 2,
                          "n_kept": n_kept, "dropped": reasons,
                          "not_extractable": sorted(set(traits) - set(names["trait"]))},
               "split_half_cosine": {kind: max(row["value"] for row in layers if row["kind"] == kind)
                                     for kind in filter(names.get, names)},
               "read_out": read_out and {"mass": read_out.mass, "masses": read_out.masses}}
    right = [found["list_right"] for found in lists]
    rows, gains = gates.lists(names["relation"], right, [found["list_chance"] for found in lists], [SEED, 10])
    none = metrics.Missing("the suite has no relations")
    results["lists_right"] = {name: metrics.bootstrap([each[:, i].mean() for each in right], unit="relations",
                                                      seed_address=[SEED, 7, i])
                              for i, name in enumerate(("clean", "shuffled"))} if lists else none
    results["gates"] = {"behaviours": can, "traits": gates.over("traits", raised, [SEED, 11]),
                        "lists": gains | {"all": gates.over("relations", gains, [SEED, 12])}}
    results["calibration"] = trusted if isinstance(trusted, metrics.Missing) else trusted | {
        "agreement": calibration.agreement(at.judge, answers, [SEED, 14])}
    results, gaps = metrics.missing_apart(results)
    results["not_testable"] = missing | gaps | ({"heads": no_heads} if no_heads else {})

    # 5. artifacts
    both = [done[f"behaviour-{i}"] for i in range(len(names["behaviour"]))]
    arrays = {"vectors": (np.stack([done[f"{kind}-{i}"]["vector"] for kind, i in order]),
                          ("concept", "layer", "d_model")),
              "shuffled_vectors": (np.stack([done[f"{kind}-{i}"]["shuffled"] for kind, i in order]),
                                   ("concept", "draw", "layer", "d_model"))}
    arrays |= {name: (norm, ("layer",)) for name, norm in done["norms-0"].items()}
    for name, part, axis, *axes in (
            ("setting", "settings", 1, "setting", "behaviour"), ("method", "methods", 1, "method", "behaviour"),
            ("published", "published", 0, "behaviour")):
        if both:
            arrays[f"{name}_vectors"] = np.stack([one[part] for one in both], axis), (*axes, "layer", "d_model")
    tables = {"concepts": concepts, "layers": layers} | ({"gates": gated + rows} if gated + rows else {})
    if lists:
        arrays["way_vectors"] = (np.stack([[np.broadcast_to(found[way], found["mean"].shape) for found in lists]
                                           for way in config["ways"]]), ("way", "relation", "layer", "d_model"))
        tables["relations"] = [{"name": name, "heads": found.get("chosen", []),
                                "right": dict(zip(("clean", "shuffled"), found["list_right"].mean(axis=0)))}
                               for name, found in zip(names["relation"], lists)]
        if not no_heads:
            arrays["head_effects"] = (np.stack([found["effects"] for found in lists]), ("relation", "layer", "head"))
    tables |= {"calibration": tested} if tested else {}
    if jobs:
        tables |= {"traits": list(traits.values()), "responses.jsonl": answers}
        tables |= {"reference.jsonl": told} if (told := counted.references(at.judge)) else {}
    at.save(config, f"{len(concepts)} vectors x {lm.n_layers} layers, {n_kept} of {len(jobs) // 2} trait pairs kept",
            arrays=arrays, tables=tables, results=results)


if __name__ == "__main__":
    stage.run(main)
