"""What a run will cost, before anything of it runs: tokens per stage, memory, and time from a short probe.

    prompt tokens      read once each, every layer in one pass
    steered tokens     the last tokens of a prompt, once per vector, layer and multiplier; they share its cache
    written tokens     at most, if no answer ends early

Counts follow from the suite and the constants of the stages; time is what the probe measured per token of each sort, so
it holds for this machine as busy as it is now. Judging is not counted.

    python -m report.plan --model data/models/pico-llama --suite testbed
"""
import importlib
import math
import time

import numpy as np
import torch

from lib import artifacts, engine, models, passes, stage, suite as suites
from lib.studies import mediation, propensity, relations, strength, subsets

PROBE = {"prompts": 8, "rows": 32, "texts": 64, "tokens": 48}


def mean_length(lm, suite, behaviours):
    """Mean tokens of a prompt: {"question", "summary", "email", "behaviour", "list", "raw"}, 0 where there is none."""
    found = {}
    for task, splits in suite.tasks.items():
        found[task] = [len(lm.chat(suite.system, item["prompt"])) for items in splits.values() for item in items[:8]]
    found["behaviour"] = [len(lm.chat(*suites.behaviour_prompts(suite, b, item, "USER_POS"))) + 1
                          for b in behaviours for item in b["items"][::max(1, len(b["items"]) // 4)]]
    found["list"] = [len(lm.encode(suites.fill(suite.templates[0]["pair"], x, y))) for r in suite.relations for x, y in r["pairs"][:4]]
    found["raw"] = [len(lm.encode(p.get("prompt") or p["positive_text"])) for v in suite.values for p in v["probes"][:8]]
    found["neutral"] = [len(lm.tokens(text)) for text in suite.neutral]
    return {name: float(np.mean(lengths)) if lengths else 0.0 for name, lengths in found.items()}


def heads_planned(lm, suite, profile):
    """(heads, shuffled lists) whose effects stage 01 measures: each head is one token behind each list."""
    one = importlib.import_module("01_extract")
    heads = 0 if relations.heads_of(lm)[0] is None else lm.n_layers * mediation.n_heads(lm)
    return heads, len(suite.relations) * one.N_MEDIATION[profile]


def alignment(lm, suite, profile, length):
    """{stage: (prompt tokens, steered tokens)} of relations and values."""
    one, two, three = (importlib.import_module(name) for name in ("01_extract", "02_tune", "03_transfer"))
    heads, lists = heads_planned(lm, suite, profile)
    per_list = one.SHOTS[profile] * length["list"]
    out = {"01_extract": (len(suite.relations) * 6 * one.LISTS[profile] * per_list + lists * per_list, lists * (heads + 1))}
    ways, layers = len(relations.WAYS), lm.n_layers
    words = sum(len(suites.relation_split(r, "tune")) for r in suite.relations)
    size = {name: sum(len(suites.value_split(v, name)) + len(suites.probe_split(suite.facts, name))
                      for v in suite.values) for name in ("tune", "evaluate")}
    whole = [v for v in suite.values if "positive_text" in v["probes"][0]]
    per_probe = 1 + sum(len(v["probes"]) for v in whole) / max(1, sum(len(v["probes"]) for v in suite.values)) * 2 * length["raw"]
    out["02_tune"] = ((words + size["tune"]) * length["raw"],
                      words * (layers * (1 + len(two.STRENGTHS["relative", profile]) + ways) + 1)
                      + size["tune"] * per_probe * (2 * layers * len(two.VALUE_STRENGTHS[profile]) + 1))
    pairs = sum(len(suites.relation_split(r, "evaluate")) for r in suite.relations if r["name"] == "antonym")
    contexts = len(three.SENTENCES) + 2
    front = (sum(three.SENTENCES) * length["neutral"] + three.DISTRACTORS * length["list"]) / contexts + length["list"]
    prompts, settings = pairs * len(suite.templates) * contexts, len(three.STRENGTHS) + 3
    arms = len(relations.ARMS)
    per_way = pairs * (len(suite.templates) + contexts + 1)
    text = len(suite.values) * sum(len(lm.tokens(sentence)) for sentence in suite.neutral)
    out["03_transfer"] = ((prompts + per_way) * front + size["evaluate"] * length["raw"] * (1 + 2 * three.N_EXAMPLES),
                          prompts * (1 + arms + three.N_RANDOM) + per_way * (1 + ways * (arms + three.N_RANDOM_WAYS))
                          + size["evaluate"] * per_probe * (1 + settings * (2 + three.N_RANDOM))
                          + text * (1 + settings * (2 + three.N_RANDOM_TEXT)))
    return out


def count(lm, suite, profile):
    """{stage: (prompt tokens, steered tokens, written tokens)}."""
    one, two, three, four, five = (importlib.import_module(name) for name in (
        "01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability"))
    traits, length, layers = suite.traits, mean_length(lm, suite, suite.behaviours), lm.n_layers
    size = {name: sum(len(suites.split(b["items"], name)) for b in suite.behaviours) for name in suites.SPLITS}
    voting = [b for b in suite.behaviours if b["name"] in two.LAYER_SETS] or suite.behaviours
    tuning = sum(len(suites.split(b["items"], "tune")) for b in voting)
    ask, write = length.get("question", 0), suite.max_new_tokens
    steps, end = len(five.STEPS), 2                                       # last prompt token and bracket
    out = {}

    texts = len(traits) * 5 * one.QUESTIONS[profile] * 2
    out["01_extract"] = (texts * (2 * ask + write) + length["behaviour"] * (len(one.SETTINGS) * size["extract"] + size["tune"]),
                         2 * size["extract"] * 5, texts * write)
    grid = (min(layers, two.MOST_LAYERS) * len(two.STRENGTHS[suite.strength, profile]) + 1 + len(two.REFINE[profile])
            + len(two.NARROW_DEPTHS) * len(two.NARROW_COARSE[profile]) + len(two.NARROW_STEPS[profile]))
    texts = len(traits) * grid * two.QUESTIONS[profile]
    scale = strength.config(profile)
    random = 2 * scale["n_prompts"] * layers * len(scale["shares"]) * scale["n_random"]          # chat and raw text
    out["02_tune"] = (texts * ask + tuning * length["behaviour"], tuning * 2 * layers * len(two.MULTIPLIERS) * end + random,
                      texts * write)
    arms = 4 * len(traits) + 1
    texts = {task: arms * three.N_PROMPTS[profile] for task in suite.tasks}
    texts["question"] = texts.get("question", 0) + len(traits) * three.N_PROMPTS[profile]
    own = 1 + len(three.SETTINGS) * (len(three.MULTIPLIERS) - 1)
    out["03_transfer"] = (sum(n * length.get(task, 0) for task, n in texts.items()) + len(three.SETTINGS) * size["evaluate"] * length["behaviour"],
                          len(three.SETTINGS) * size["evaluate"] * own * end, (sum(texts.values()) if traits else 0) * write)
    if traits:
        found = subsets.subsets(traits, [t["name"] for t in traits], four.LARGEST)[0]
        per = (len(four.METHODS) + len(four.REFERENCES)) * (four.N_PROMPTS[profile] + four.N_OTHER[profile])
        turns = sum(subset["k"] - 1 for subset in found) * len(four.ORDERED) * four.N_PROMPTS[profile]
        settings = len(four.TUNED) * len(four.SCALES) + len(four.UNIT_NORMS) * len(four.STRENGTHS) + len(four.BOUNDS)
        texts = len(found) * per + turns + four.LARGEST * four.TUNE_SUBSETS[profile] * four.N_TUNE[profile] * settings
        out["04_compose"] = (texts * np.mean([length["summary"], length["email"]]), 0, texts * write)
    else:
        out["04_compose"] = (0, 0, 0)
    vectors = 3 * steps + 1 + 2 * (five.N_RANDOM[profile] + 2 * one.N_SHUFFLED + 2)
    seen = 0.9 * (size["extract"] + size["tune"])
    out["05_reliability"] = (length["behaviour"] * (3 * size["evaluate"] + seen),
                             end * (size["evaluate"] * vectors + seen * (steps + 1)) + 6 * size["evaluate"] * (steps + 1), 0)
    for stage, extra in alignment(lm, suite, profile, length).items():
        out[stage] = tuple(np.add(out[stage], (*extra, 0)))
    return {stage: tuple(float(n) for n in counts) for stage, counts in out.items()}


def probe(lm, suite, length):
    """Seconds per (prompt, steered, written) token, each from one short run of the engine."""
    rng = np.random.default_rng(0)
    high = min(lm.model.get_input_embeddings().weight.shape[0], 1000)
    prompts = [rng.integers(3, high, max(8, int(length))).tolist() for _ in range(PROBE["prompts"])]
    rows = [((0, row),) for row in 1e-3 * rng.standard_normal((PROBE["rows"], lm.d_model)).astype(np.float32)]

    def timed(work):
        work()                                          # the first run pays for what is made once
        start = time.perf_counter()
        return work(), time.perf_counter() - start

    tokens = sum(map(len, prompts))
    read = timed(lambda: engine.read(lm, prompts))[1]
    swept = timed(lambda: engine.sweep(lm, prompts, rows, np.array([3, 4]), suffix=2))[1]
    steered = max(swept - read, 0.1 * swept) / (2 * PROBE["rows"] * len(prompts))
    asked = [lm.chat(suite.system, item["prompt"]) for item in suite.tasks.get("question", {}).get("evaluate", [])] or prompts
    asked = (asked * math.ceil(PROBE["texts"] / len(asked)))[:PROBE["texts"]]
    texts, written = timed(lambda: engine.generate(lm, asked, [rows[i % len(rows)] for i in range(len(asked))], PROBE["tokens"]))
    steps = max(len(lm.tokens(text)) for text in texts) + 1               # a batch ends with its longest answer
    return read / tokens, steered, written / (len(asked) * steps)


def main():
    args = stage.cli(__doc__, many=True).parse_args()
    suite = suites.load(args.suite, args.profile)
    for model in args.model:
        lm = models.load(model)
        read_out, counts = propensity.find(lm, suite), count(lm, suite, args.profile)
        costs = probe(lm, suite, np.mean([n for n in mean_length(lm, suite, suite.behaviours).values() if n] or [64]))
        weights = sum(p.numel() * p.element_size() for p in lm.model.parameters())
        work = passes.CPU_BUDGET if lm.device.type == "cpu" else torch.cuda.mem_get_info(lm.device)[0] / 2
        print(f"{lm.name} on {suite.name}, {args.profile}, {lm.device}; {lm.n_layers} layers x {lm.d_model}")
        print(propensity.told(lm, read_out) if read_out else "no behaviours, no read-out")
        print(f"memory   weights {weights / 2**30:.2f} GiB, batches at most {work / 2**30:.1f} GiB")
        print(f"{'stage':16s}{'prompt tokens':>16s}{'steered tokens':>16s}{'written tokens':>16s}{'minutes':>9s}")
        total = 0.0
        for name, numbers in counts.items():
            minutes = sum(n * cost for n, cost in zip(numbers, costs)) / 60
            total += minutes
            print(f"{name:16s}" + "".join(f"{n:16,.0f}" for n in numbers) + f"{minutes:9.1f}")
        heads, lists = heads_planned(lm, suite, args.profile)
        print(f"of these head mediation in 01_extract: {heads} heads x {lists} lists = {heads * lists:,} steered tokens")
        print(f"{'all':16s}" + "".join(f"{sum(c[i] for c in counts.values()):16,.0f}" for i in range(3)) + f"{total:9.1f}")


if __name__ == "__main__":
    artifacts.run(main)
