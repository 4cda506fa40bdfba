"""What a run will cost, before anything of it runs: tokens per stage and study, memory, and time from a short probe.

    prompt tokens      read once each, every layer in one pass
    steered tokens     the last tokens of a prompt, once per vector, layer and multiplier; they share its cache
    texts              written; how long they get, the probe's steered and unsteered ones say
    readings           by the judge, of one text for one trait

Counts follow from the suite and the constants of the stages; time is what the probe measured per unit of each sort,
so it holds for this machine as busy as it is now. What an endpoint takes to judge is not counted.

With --budget it finds the level of each study (lib.sizes) at which a quick run takes that long, prints what that
measures, and writes it to plan.json in the run's folder, from which the stages take it.

    python -m report.plan --model data/models/pico-llama --suite testbed
    python -m report.plan --model data/models/pico-llama --profile quick --budget 10m
"""
import time

START = time.perf_counter()

import functools
import importlib
import os
from dataclasses import replace

import numpy as np
import torch

from lib import artifacts, directions, engine, models, passes, samples, sizes, stage, suite as suites
from lib.artifacts import UserError
from lib.judging import judges
from lib.judging.counted import N_REFERENCE
from lib.studies import gates, mediation, propensity, relations, strength, subsets
from report import budget
from report.budget import STAGES

LOADED = time.perf_counter() - START     # seconds that the imports take
PROBE = {"letters": 8, "prompts": 8, "rows": 32, "texts": 48, "readings": 12}
STRENGTHS = (0.0, 0.4, 0.8, 1.6)         # random vectors under which the probe writes, as shares of a norm
SLOWER = 0.8                             # of reading, float32's share of the time: below it a coarser precision costs time
WORDS = 6                                # tokens of an option's own words
# Seconds beside the model's work, on one core: intervals and tables of a stage; the page and its figures.
CONCLUDE = {"01_extract": 2, "02_tune": 2, "03_transfer": 12, "04_compose": 6, "05_reliability": 5}
PAGE = 12
SORTS = ("prompt tokens", "steered tokens", "texts", "readings")


def scripts():
    return [importlib.import_module(name) for name in STAGES]


def mean_length(lm, suite):
    """Mean tokens of a prompt, 0 where there is none: {"question", "summary", "email", "behaviour", "list", "raw",
    "neutral"}."""
    found = {task: [len(lm.chat(suite.system, item["prompt"])) for items in splits.values() for item in items[:8]]
             for task, splits in suite.tasks.items()}
    found["behaviour"] = []
    for b in suite.behaviours:
        some = [lm.chat(*suites.behaviour_prompts(suite, b, item, "USER_POS")) + [0]
                for item in b["items"][::max(1, len(b["items"]) // 4)]]
        head = len(os.path.commonprefix(some)) if lm.branches and len(some) > 1 else 0      # run once for all of a batch
        found["behaviour"] += [len(prompt) - head for prompt in some]
    found["list"] = [len(lm.encode(suites.fill(suite.templates[0]["pair"], x, y))) for r in suite.relations
                     for x, y in r["pairs"][:4]]
    found["raw"] = [len(lm.encode(probe.get("prompt") or probe["positive_text"]))
                    for value in suite.values for probe in value["probes"][:8]]
    found["neutral"] = [len(lm.tokens(text)) for text in suite.neutral]
    return {name: float(np.mean(lengths)) if lengths else 0.0 for name, lengths in found.items()}


# --- counts: {stage: [prompt tokens, steered tokens, texts, readings]} of a study -----------------------------
def preferences(lm, suite, length, words, judge):
    """Of the traits that the judge can score; words: tokens of an answer; judge: None, or of lib.judging.judges."""
    one, two, three, four, _ = scripts()
    traits = [trait for trait in suite.traits if judges.can(judge, trait["name"])]
    if not traits:
        return {}
    def size(constant):
        return suite.size(constant, "preferences")

    def ask(task):
        return length.get(task, 0)

    # 01: two answers a pair, each read once more. The prompt of a text is part of its time.
    texts = sum(len(trait["instructions"]) for trait in traits) * size(one.QUESTIONS) * 2
    out = {"01_extract": [texts * (ask("question") + words), 0, texts, texts]}
    # 02: the wide search, the narrow one
    grid = (min(lm.n_layers, two.MOST_LAYERS) * len(size(two.STRENGTHS[suite.strength])) + 1 + len(size(two.REFINE))
            + len(set(two.NARROW_DEPTHS)) * len(size(two.NARROW_COARSE)) + len(size(two.NARROW_STEPS)))
    texts = len(traits) * grid * size(two.QUESTIONS)
    out["02_tune"] = [0, 0, texts, texts]
    # 03: an unsteered text serves all traits; steered, prompted, both, random; in the first task three more
    n, total = size(three.N_PROMPTS), np.zeros(4)
    for task, part in [*((task, "evaluate") for task in three.TASKS), ("question", "extract")]:
        mine = [suites.tasks(suite, task, part, trait["name"])[:n] for trait in traits]
        plain = len({item["id"] for items in mine for item in items})
        arms = 1 if part == "extract" else 7 if task == three.TASKS[0] else 4
        each = sum(map(len, mine))
        total += [(plain + each) * max(0, ask(task) - ask("question")), 0, plain + arms * each, (1 + arms) * each]
    out["03_transfer"] = total
    # 04: alone, all methods that only add what was tuned are one
    found = subsets.subsets(suite.traits, [trait["name"] for trait in traits], four.LARGEST)[0]
    tasks, texts, readings = {subset["task"] for subset in found}, 0, 0
    apart = len(four.TUNED) * len(four.SCALES)
    settings = apart + len(four.UNIT_NORMS) * len(four.STRENGTHS) + len(four.BOUNDS)
    for k in {subset["k"] for subset in found}:
        mine = sum(subset["k"] == k for subset in found)
        same = (len(four.TUNED) - 1) if k == 1 else 0
        own = size(four.N_PROMPTS) * (len(four.METHODS) + len(four.REFERENCES) - 1 - 2 * same
                                      + (k - 1) * len(four.ORDERED))
        other = (len(four.METHODS) + 2 - same) * size(four.N_OTHER) * (len(tasks) - 1)
        tune = (min(size(four.TUNE_SUBSETS), mine) * size(four.N_TUNE)
                * (settings - (apart - len(four.SCALES) if k == 1 else 0)))
        texts += mine * (own + other) + tune
        readings += k * (mine * (own + other) + tune)
    out["04_compose"] = [0, 0, texts, readings]
    if judge is not None and not suite.grammar and judge.name == "rules":      # what coherence is compared with
        n = sum(min(N_REFERENCE, len(suite.tasks[task]["tune"])) for task in three.TASKS)
        out["01_extract"] = np.add(out["01_extract"], [0, 0, n, n])
    return out


def reliability(lm, suite, length, read_out):
    """Of the behaviours whose letters can be read."""
    one, two, three, _, five = scripts()
    suite, _ = propensity.testable(suite, read_out)
    if not suite.behaviours:
        return {}
    ask, end = length["behaviour"], read_out.suffix
    n = {name: sum(len(suites.split(b["items"], name)) for b in suite.behaviours) for name in suites.SPLITS}
    voting = [b for b in suite.behaviours if b["name"] in two.LAYER_SETS] or suite.behaviours
    tuning = sum(len(suites.split(b["items"], "tune")) for b in voting)
    seen = sum(len({item["id"] for item in trained} & {item["id"] for item in tested})
               for trained, tested in (suites.published_split(b["items"]) for b in suite.behaviours))
    steps, read = len(five.STEPS), len(one.SETTINGS) * n["extract"] + n["tune"]
    controls = suite.size(five.N_RANDOM, "reliability") + 2 * directions.N_SHUFFLED + 2
    closed = 2 * n["evaluate"] * (read_out.close is not None)
    rows = 1 + 3 * steps + len(five.CONTROLS) * controls
    # 05 also: vectors made in other ways, both halves of the extraction items, the options' own words, states. It reads an
    # input once (lib.passes.kept).
    ways = len(five.CONTROLS) * (3 + suite.size(five.N_DRAWS, "reliability") * (len(five.FLIPS) + len(five.FEW)))
    other = end * (n["evaluate"] * ways + n["extract"] * 2 * len(five.CONTROLS)) + 2 * n["evaluate"] * len(five.CONTROLS) * WORDS
    gated = len(suite.behaviours) * gates.N_GATE[suite.profile]
    return {"01_extract": [(read + 3 * gated) * ask, 2 * read, 0, 0],
            "02_tune": [tuning * ask, tuning * 2 * lm.n_layers * len(two.MULTIPLIERS) * end + unit_rows(lm, suite), 0, 0],
            "03_transfer": [len(three.SETTINGS) * n["evaluate"] * ask, len(three.SETTINGS) * n["evaluate"] * end
                            * (1 + len(three.SETTINGS) * (len(three.MULTIPLIERS) - 1)), 0, 0],
            "05_reliability": [(n["evaluate"] + seen + 2 * n["extract"]) * ask,
                               other + end * (n["evaluate"] * rows + seen * (steps + 1))
                               + (end + 1) * closed * (2 * steps + 1), 0, 0]}


def unit_rows(lm, suite):
    """Steered tokens of the curve that gives the unit of strength on one kind of text (lib.studies.strength)."""
    told = strength.config(suite.profile)
    return told["n_prompts"] * lm.n_layers * len(told["shares"]) * told["n_random"]


def heads_planned(lm, suite):
    """(heads, shuffled lists) whose effects stage 01 measures: each head is one token behind each list."""
    heads = 0 if relations.heads_of(lm)[0] is None else lm.n_layers * mediation.n_heads(lm)
    return heads, len(suite.relations) * suite.size(scripts()[0].N_MEDIATION, "relations")


def alignment(lm, suite, length, study):
    """Of "relations" or "values"."""
    one, two, three, _, _ = scripts()
    unit = unit_rows(lm, suite) if study == "relations" or not suite.relations else 0
    suite = replace(suite, **{other: [] for other in sizes.BOTH["alignment"] if other != study})
    if not getattr(suite, study):
        return {}
    def size(constant):
        return suite.size(constant, study)

    heads, lists = heads_planned(lm, suite)
    per_list = size(one.SHOTS) * length["list"]
    sentences = 2 * sum(len(value["pairs"]) for value in suite.values)
    out = {"01_extract": [(len(suite.relations) * 6 * size(one.LISTS) + lists) * per_list + sentences * length["raw"],
                          lists * (heads + 1), 0, 0]}
    ways, layers = len(relations.WAYS), lm.n_layers
    words = sum(len(suites.relation_split(r, "tune")) for r in suite.relations)
    probes = {name: sum(len(suites.value_split(v, name)) + len(suites.probe_split(suite.facts, name))
                        for v in suite.values) for name in ("tune", "evaluate")}
    whole = [v for v in suite.values if "positive_text" in v["probes"][0]]
    share = sum(len(v["probes"]) for v in whole) / max(1, sum(len(v["probes"] + suite.facts) for v in suite.values))
    per_probe = 1 - share + share * 2 * length["raw"]
    out["02_tune"] = [(words + probes["tune"]) * length["raw"],
                      words * (layers * (1 + len(size(two.STRENGTHS["relative"])) + ways) + 1)
                      + probes["tune"] * per_probe * (2 * layers * len(size(two.VALUE_STRENGTHS)) + 1) + unit, 0, 0]
    pairs = sum(len(suites.relation_split(r, "evaluate")) for r in suite.relations if r["name"] == "antonym")
    contexts = len(three.SENTENCES) + 2
    front = length["list"] + (sum(three.SENTENCES) * length["neutral"] + three.DISTRACTORS * length["list"]) / contexts
    prompts, settings = pairs * len(suite.templates) * contexts, len(size(three.STRENGTHS)) + 3
    arms = len(relations.ARMS)
    per_way = pairs * (len(suite.templates) + contexts + 1)
    text = len(suite.values) * sum(len(lm.tokens(sentence)) for sentence in suite.neutral)
    prompted = probes["evaluate"] * length["raw"] * (1 + 2 * three.N_EXAMPLES)
    out["03_transfer"] = [(prompts + per_way) * front + prompted,
                          prompts * (1 + arms + size(three.N_RANDOM)) + per_way * (1 + ways * (arms + three.N_RANDOM_WAYS))
                          + probes["evaluate"] * per_probe * (1 + settings * (2 + size(three.N_RANDOM_VALUES)))
                          + text * (1 + settings * (2 + size(three.N_RANDOM_TEXT))), 0, 0]
    return out


# --- time -----------------------------------------------------------------------------------------------------
def probe(lm, suite, length, read_out, judge):
    """What a unit of each sort takes here, each from one short run of the engine.

    returns  {"seconds": {sort: seconds}, "words": tokens of an answer, "busy": wall time over processor time, "of_bare":
             {"read", "sweep", "generate"}: tokens per second over those of lm.model(input_ids) on the same machine}"""
    rng = np.random.default_rng(0)
    high = min(lm.model.get_input_embeddings().weight.shape[0], 1000)
    some = [n for n in length.values() if n] or [64]
    prompts = rng.integers(3, high, (PROBE["prompts"], max(8, int(np.mean(some))))).tolist()
    suffix = read_out.suffix if read_out else 1
    layer, row = lm.n_layers // 2, rng.standard_normal((PROBE["rows"], lm.d_model)).astype(np.float32)
    row *= engine.residual_norm(lm, prompts)[layer] / np.linalg.norm(row, axis=1, keepdims=True)
    cpu, wall = time.process_time(), time.perf_counter()

    def timed(work, warm=None):
        (warm or work)()                                # the first run pays for what is made once
        start = time.perf_counter()
        return work(), time.perf_counter() - start

    @torch.inference_mode()
    def bare():
        return lm.model(input_ids=torch.tensor(prompts, device=lm.device), use_cache=False).logits[0, -1, 0].item()

    tokens = len(prompts) * len(prompts[0])
    plain = tokens / timed(bare)[1]
    read = timed(lambda: engine.read(lm, prompts))[1]
    rows = [((layer, v),) for v in 0.4 * row]
    swept = timed(lambda: engine.sweep(lm, prompts, rows, np.array([3, 4]), suffix=suffix))[1]
    n_steered = suffix * len(row) * len(prompts)
    seconds = {"prompt tokens": read / tokens, "steered tokens": max(swept - read, 0.1 * swept) / n_steered}
    shares = {"read": tokens / read, "sweep": (tokens + n_steered) / swept}
    words = 0.0
    if suite.traits:
        items = [suites.tasks(suite, "question", "evaluate")[i] for i in range(min(
            PROBE["texts"] // len(STRENGTHS), len(suites.tasks(suite, "question", "evaluate"))))]
        both = [(item, ((layer, s * v),) if s else ()) for item, v in zip(items, row.repeat(2, 0)) for s in STRENGTHS]
        asked = [lm.chat(suite.system, item["prompt"]) for item, _ in both]
        def write(n):
            return engine.generate(lm, asked, [steer for _, steer in both], n)
        texts, written = timed(lambda: write(suite.max_new_tokens), lambda: write(2))
        words = float(np.mean([len(lm.tokens(text)) for text in texts])) + 1
        seconds["texts"] = written / len(texts)
        shares["generate"] = (sum(map(len, asked)) + words * len(texts)) / written
        names = [trait["name"] for trait in suite.traits if judges.can(judge, trait["name"])]
        told = [(names[i % len(names)], item, text) for i, ((item, _), text) in enumerate(zip(both, texts)) if names]
        told = told[:PROBE["readings"]]
        if judge is not None and told:
            seconds["readings"] = timed(lambda: judge.read(told), lambda: judge.read(told[:1]))[1] / len(told)
    return {"seconds": {sort: seconds.get(sort, 0.0) for sort in SORTS}, "words": words,
            "busy": max(1.0, (time.perf_counter() - wall) / (time.process_time() - cpu)),
            "of_bare": {name: rate / plain for name, rate in shares.items()}}


def cost(counts, found):
    """{stage: seconds of the model's work} of {stage: counts of SORTS} at what `probe` found. Stage 01 is slower in as
    far as float32 is."""
    rates = [found["seconds"][sort] for sort in SORTS]
    return {name: float(np.dot(units, rates)) * (found["float32"] if name == STAGES[0] else 1)
            for name, units in counts.items()}


# --- what is said ---------------------------------------------------------------------------------------------
def measured(suite, judge):
    """Lines: what a run at these sizes measures per study, how exactly, and what it leaves out of the suite's."""
    full, lines = suites.load(suite.folder), []
    _, _, three, _, _ = scripts()
    n_traits = sum(judges.can(judge, trait["name"]) for trait in suite.traits)
    if n_traits:
        n = suite.size(three.N_PROMPTS, "preferences")
        lines.append(f"preferences  {n_traits} of {len(full.traits)} traits, {n} prompts per task; a trait's mean "
                     f"+-{2 / n ** 0.5:.2f} SD of its scores, the mean over traits +-{2 / n_traits ** 0.5:.2f} SD of them")
    if suite.behaviours:
        n = [len(suites.split(b["items"], "evaluate")) for b in suite.behaviours]
        of = np.mean([len(suites.split(b["items"], "evaluate")) for b in full.behaviours])
        made = np.mean([len(suites.split(b["items"], "extract")) for b in suite.behaviours])
        lines.append(f"reliability  {len(n)} of {len(full.behaviours)} behaviours, {np.mean(n):.0f} of {of:.0f} inputs "
                     f"each, vectors of {made:.0f} items; a behaviour's share +-{1 / np.mean(n) ** 0.5:.2f}, its mean "
                     f"slope +-{2 / np.mean(n) ** 0.5:.2f} SD of its inputs, the mean over behaviours "
                     f"+-{2 / len(n) ** 0.5:.2f} SD of them")
    pairs = sum(len(suites.relation_split(r, "evaluate")) for r in suite.relations if r["name"] == "antonym")
    probes = sum(len(suites.value_split(v, "evaluate")) for v in suite.values)
    if pairs:
        lines.append(f"relations    {pairs} antonym pairs in {len(suite.templates)} of {len(full.templates)} templates; "
                     f"means +-{2 / pairs ** 0.5:.2f} SD over pairs")
    if probes:
        lines.append(f"values       {len(suite.values)} of {len(full.values)} with {probes} probes; means "
                     f"+-{2 / probes ** 0.5:.2f} SD over probes")
    return [*lines, "half-widths of intervals: 1/sqrt(n) for a share, 2 SD/sqrt(n) for a mean of n; a larger budget "
            "extends these samples"]


def table(by_study, found, start):
    """Lines: counts and minutes of {study: {stage: counts}}, per stage and study."""
    lines = [f"{'stage':16s}{'study':14s}" + "".join(f"{sort:>16s}" for sort in SORTS) + f"{'minutes':>9s}"]
    busy = found["busy"]
    minutes = {name: CONCLUDE[name] * busy / 60 for name in STAGES}
    for name in STAGES:
        for study, counts in by_study.items():
            if name in counts:
                spent = cost(counts, found)[name] / 60
                minutes[name] += spent
                lines.append(f"{name:16s}{study:14s}" + "".join(f"{n:16,.0f}" for n in counts[name])
                             + f"{spent:9.1f}")
    minutes["start"] = fixed(found, start) / 60 - sum(CONCLUDE.values()) * busy / 60
    lines.append(f"{'starts, intervals, the page':94s}{fixed(found, start) / 60:9.1f}")
    return [*lines, f"{'all':94s}{sum(minutes.values()):9.1f}"], minutes


def fixed(found, start):
    """Seconds that no size changes: a start per stage, its intervals and tables, the page."""
    return start * (len(STAGES) + 1) + (sum(CONCLUDE.values()) + PAGE) * found["busy"]


def main():
    parser = stage.cli(__doc__, many=True)
    parser.add_argument("--budget", help="quick: time for all models together, such as 60m, 1.5h or 3600s")
    parser.add_argument("--keep", action="store_true", help="a plan of the same budget and suite stays as it is")
    args = parser.parse_args()
    stage.check(args)
    share = args.budget and budget.seconds(args.budget) / len(args.model)
    if bool(share) != (args.profile == "quick" and not args.sizes):
        raise UserError("--budget goes with --profile quick, and neither goes without the other or --sizes")
    full = suites.load(args.suite)
    for model in args.model:
        folder = stage.paths(args, model)
        if args.keep and (folder / stage.PLAN).is_file():
            kept = artifacts.read_json(folder / stage.PLAN)
            if (kept["budget"], kept["suite"]) == (share, full.digest):
                print(f'{folder / stage.PLAN}  kept  SIZES="{sizes.told(kept["levels"])}"')
                continue
        one_model(args, model, full, share, folder)


def reading(lm):
    """Processor seconds of reading a few prompts."""
    prompts = np.random.default_rng(0).integers(3, lm.model.get_input_embeddings().weight.shape[0] // 2,
                                                (PROBE["prompts"], 64)).tolist()
    engine.read(lm, prompts[:1])                            # the first run pays for what is made once
    start = time.process_time()
    engine.read(lm, prompts)
    return time.process_time() - start


def one_model(args, model, full, share, folder):
    asked = time.perf_counter()
    dtype = stage.dtype(args, model)
    wide = None if dtype == "float32" else reading(models.load(model))      # stage 01 is in float32 always
    began = time.perf_counter()
    lm = models.load(model, dtype)
    start = time.perf_counter() - began + LOADED
    kind = suites.judge_kind(args.judge or full.judge)[0] if args.judge or full.traits else ""
    judge = judges.load(args.judge, full, lm) if full.traits and kind != "api" else None
    levels = dict.fromkeys(sizes.STUDIES, 0.0) if share else stage.levels(args, model)
    suite = suites.load(args.suite, args.profile, levels)
    read_out = propensity.find(lm, full if suite.behaviours else suite, PROBE["letters"])
    length = mean_length(lm, full)
    found = probe(lm, suite, length, read_out, judge) | {"float32": 1.0 if wide is None else wide / reading(lm)}

    def counts(study, suite):
        return {"preferences": lambda: preferences(lm, suite, length, found["words"], judge),
                "reliability": lambda: reliability(lm, suite, length, read_out) if read_out else {},
                }.get(study, lambda: alignment(lm, suite, length, study))()

    if share:
        def spend(study, level):
            alone = samples.quick(full, {other: level if other == study else None for other in levels})
            return sum(cost(counts(study, alone), found).values())

        costs = {study: functools.cache(functools.partial(spend, study))
                 for study in sizes.STUDIES if counts(study, suite)}
        spent = time.perf_counter() - asked + LOADED
        suite = samples.quick(full, levels | budget.levels(costs, share - fixed(found, start) - spent))
        left_out = [study for study, level in suite.levels.items() if level is None]
    lines, minutes = table({study: counts(study, suite) for study in sizes.STUDIES}, found, start)
    if share:
        minutes["start"] += spent / 60

    weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
    work = passes.CPU_BUDGET if lm.device.type == "cpu" else torch.cuda.mem_get_info(lm.device)[0] / 2
    print(f"{lm.name} on {suite.name}, {args.profile}, {lm.device}; {lm.n_layers} layers x {lm.d_model}")
    print(propensity.told(lm, read_out) if read_out else "no behaviours, no read-out")
    print(f"memory   weights {weights / 2**30:.2f} GiB, batches at most {work / 2**30:.1f} GiB")
    print("tokens per second, of a bare forward pass: "
          + ", ".join(f"{name} {rate:.2f}" for name, rate in found["of_bare"].items()))
    if found["float32"] < SLOWER:
        print(f"{dtype} is slow here: of reading, float32 takes {found['float32']:.2f} of the time, and twice the memory")
    print("\n".join(lines))
    heads, lists = heads_planned(lm, suite)
    print(f"of these head mediation in 01_extract: {heads} heads x {lists} lists = {heads * lists:,} steered tokens")
    if judge is None and suite.traits:
        print("what the endpoint takes to judge is not in it")
    if suite.levels:
        print("\n".join(measured(suite, judge)))
    if share:
        if left_out:
            print(f"left out, for the least of it takes too long: {', '.join(left_out)}")
        if sum(minutes.values()) * 60 > 1.05 * share:
            print(f"the least that a quick run measures takes longer than {share / 60:g} min")
        folder.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(folder / stage.PLAN, {
            "budget": share, "suite": full.digest, "levels": suite.levels, "probe": found, "minutes": minutes})
        print(f'{folder / stage.PLAN}  the same elsewhere: PROFILE=quick SIZES="{sizes.told(suite.levels)}"')


if __name__ == "__main__":
    artifacts.run(main)
