"""Measure what the embedded models can do, on held-out contents, and write their model cards.

Every row is a planted ability of the testbed with the bound it has to reach: a testbed in which a
model cannot follow an instruction, or does not have the planted bias, validates nothing. A row
that falls short stays in the card and says so. The recipe of the models was tuned toward these
rows and never toward the verdict of a claim.

reads   data/models/<name>/, data/testbed.py
writes  data/models/<name>/card.json    every number, also per trait, behaviour, relation, occupation
        data/models/<name>/README.md    the model card
cost    about 2 minutes per model on two CPU cores

    python -m data.check_testbed data/models/pico-llama data/models/pico-gpt2
"""
import argparse
import itertools
import json
from pathlib import Path

import numpy as np

from data import lexicon as lex
from data import testbed as tb
from data.styles import GROUPS, TRAITS, clash, instruction
from lib import engine, models, suite as suites

# --- settings that change the numbers ----------------------------------------------------------
SEED = 77
PER_TRAIT, PLAIN, PER_PAIR = 6, 64, 3       # prompts per trait and task, uninstructed per task, per pair
PER_PERSONA, PER_RELATION = 4, 6            # items per behaviour, format, persona and order; queries per relation and template
EXAMPLES, MAX_TOKENS = 5, 110
STRENGTH, RANDOM, STEER_ITEMS = .4, 20, 12  # relative strength, random vectors, items per behaviour for the steering row
# ----------------------------------------------------------------------------------------------


def traits(lm):
    """Expression and coherence with one instruction, with none, and with two at once."""
    rng, jobs = np.random.default_rng([SEED, 1]), []
    for t, task in itertools.product(TRAITS, tb.TASK_ROLES):
        for i in range(PER_TRAIT):
            jobs.append(((t,), tb.task_item(rng, task, True), instruction(t, True, i, i)))
    for task in tb.TASK_ROLES:
        jobs += [((), tb.task_item(rng, task, True), None) for _ in range(PLAIN)]
    pairs = [p for g in GROUPS.values() for p in itertools.combinations(g, 2) if not clash(*p)]
    for p in pairs:
        for i in range(PER_PAIR):
            item = tb.task_item(rng, TRAITS[p[0]].task, True)
            jobs.append((p, item, " ".join(instruction(t, True, i + k, i) for k, t in enumerate(p))))
    prompts = [lm.chat(s or tb.SYSTEM, item["prompt"]) for _, item, s in jobs]
    texts = engine.generate(lm, prompts, [()] * len(jobs), MAX_TOKENS)
    one, two = {t: [] for t in TRAITS}, {p: [] for p in pairs}
    none, coherent, plain, facts = {t: [] for t in TRAITS}, [], [], []
    for (asked, item, _), text in zip(jobs, texts):
        scores = [tb.SCORER.expression(t, text, item) for t in asked]
        c = tb.SCORER.coherence(text, item)
        if len(asked) == 1:
            one[asked[0]].append(scores[0])
            coherent.append(c)
        elif asked:
            two[asked].append(scores)
        else:
            plain.append(c)
            for t in TRAITS:
                none[t].append(tb.SCORER.expression(t, text, item))
            if item["task"] != "question":
                facts.append(100 * tb.SCORER.carried(item, tb.SCORER.parse(text, item["task"])[0]))
    return {"instructed": {t: float(np.mean(v)) for t, v in one.items()},
            "uninstructed": {t: float(np.mean(v)) for t, v in none.items()},
            "pairs": {"+".join(p): np.mean(v, axis=0).tolist() for p, v in two.items()},
            "coherence_instructed": float(np.mean(coherent)), "coherence_plain": float(np.mean(plain)),
            "facts": float(np.mean(facts))}, [(j[1]["prompt"], j[2], t) for j, t in list(zip(jobs, texts))[::97]]


def behaviours(lm):
    """Share correct with persona (both formats, orders); agreement and biases without."""
    rng, ab = np.random.default_rng([SEED, 2]), lm.letter_ids()
    jobs = []
    for name, (own, words) in tb.BEHAVIOURS.items():
        for kind, persona in itertools.product(("yes_no", "options"), (True, False, None)):
            for _ in range(PER_PERSONA * (2 if persona is not None else 8)):
                item, yes = tb.sample_item(rng, name, kind, True)
                system = tb.SYSTEM if persona is None else tb.PERSONAS[persona][int(rng.integers(3))].format(t=words[0])
                user = item["question"]
                if persona is not None and rng.random() < .5:
                    system, user = tb.SYSTEM, system + "\n\n" + user
                jobs.append((name, kind, persona, item, yes, lm.chat(system, user) + lm.tokens("(")))
    out = engine.sweep(lm, [j[-1] for j in jobs], [()], np.array([ab] * len(jobs)), suffix=1)["logits"][:, 0]
    right, agree, planted, letters = {}, {}, {}, {}
    for (name, kind, persona, item, yes, _), (a, b) in zip(jobs, out):
        is_a = item["positive"] == "A"
        propensity = float(a - b) * (1 if is_a else -1)
        if persona is not None:
            right.setdefault((name, kind), []).append((propensity > 0) == (persona != item["contrary"]))
        else:
            truth = tb.planted_logit(name, item["object"], is_a, yes)
            agree.setdefault(name, []).append(1 / (1 + np.exp(-propensity)))
            planted.setdefault(name, []).append(1 / (1 + np.exp(-truth)))
            letters.setdefault(kind, []).append((1 if is_a else -1, 0 if yes is None else (1 if yes else -1), propensity, truth))
    bias = {}
    for kind, rows in letters.items():      # least squares of the propensity on letter and Yes, beside the planted logit of the side
        x = np.array([[r[0], r[1], r[3] - tb.LETTER_BIAS * r[0] - tb.YES_BIAS * r[1], 1] for r in rows], float)
        fit = np.linalg.lstsq(x, np.array([r[2] for r in rows]), rcond=None)[0]
        bias[kind] = {"letter": float(fit[0]), "yes": float(fit[1]) if kind == "yes_no" else None, "side": float(fit[2])}
    return {"persona": {f"{n}/{k}": float(np.mean(v)) for (n, k), v in right.items()},
            "default": {n: [float(np.mean(agree[n])), float(np.mean(planted[n]))] for n in agree}, "bias": bias}


def relations(lm):
    """Top-1 accuracy of the answer's first token after EXAMPLES pairs; queries are held-out (pair, template)s."""
    rng, jobs = np.random.default_rng([SEED, 3]), []
    for r, (tname, template) in itertools.product(tb.RELATIONS, tb.TEMPLATES):
        words = [w for w in tb.RELATIONS[r] if tb.held_out(r, w, tname)]
        for w in rng.permutation(words)[:PER_RELATION]:
            shots = [str(x) for x in rng.permutation([x for x in tb.RELATIONS[r] if not tb.held_out(r, x, tname)])[:EXAMPLES]]
            text = "".join(template.format(x=x, y=tb.RELATIONS[r][x]) for x in shots) + template.split(" {y}")[0].format(x=w)
            jobs.append((r, lm.encode(text), lm.tokens(" " + tb.RELATIONS[r][str(w)])[0]))
    top = engine.sweep(lm, [j[1] for j in jobs], [()], np.array([[j[2]] for j in jobs]))["argmax"][:, 0]
    hits = {}
    for (r, _, want), got in zip(jobs, top):
        hits.setdefault(r, []).append(int(got) == want)
    return {r: float(np.mean(v)) for r, v in hits.items()}


def values(lm):
    """P(he) after each occupation against the planted one; accuracy on cloze facts."""
    he, she = lm.tokens(" he")[0], lm.tokens(" she")[0]
    jobs = [(o, lm.encode(f.split(" {p}")[0].format(o=o))) for o in lex.OCCUPATIONS for f in tb.PRONOUN_FRAMES]
    x = engine.sweep(lm, [j[1] for j in jobs], [()], np.array([[he, she]] * len(jobs)))["logits"][:, 0]
    got = {}
    for (o, _), (a, b) in zip(jobs, x):
        got.setdefault(o, []).append(1 / (1 + np.exp(b - a)))
    top = engine.sweep(lm, [lm.encode(p) for p, _ in tb.FACTS], [()], np.array([[lm.tokens(" " + a)[0]] for _, a in tb.FACTS]))["argmax"][:, 0]
    facts = [int(t) == lm.tokens(" " + a)[0] for t, (_, a) in zip(top, tb.FACTS)]
    return {"he": {o: [float(np.mean(v)), lex.OCCUPATIONS[o]] for o, v in got.items()}, "facts": float(np.mean(facts))}


def steerable(lm):
    """Per behaviour: best layer, mean slope at +-1 there, and the 95th percentile of what RANDOM norm-matched random
    vectors reach, each on its own best layer."""
    ab, out = lm.letter_ids(), {}
    for n, name in enumerate(tb.BEHAVIOURS):
        items = tb.suite_behaviour(name)
        made, test = suites.split(items, "extract"), items[-2 * STEER_ITEMS:]
        prompts = [lm.chat(tb.SYSTEM, i["question"]) + lm.tokens("(") for i in made + test]
        sign = np.array([1 if i["positive"] == "A" else -1 for i in made + test])
        here, there = prompts[:len(made)], prompts[len(made):]
        letters = [[ab[0 if s > 0 else 1]] for s in sign], [[ab[1 if s > 0 else 0]] for s in sign]
        acts = engine.read_pairs(lm, here, *(side[:len(made)] for side in letters))
        v = (acts[:, 0] - acts[:, 1]).mean(0)       # (layer, d)
        norm = engine.residual_norm(lm, here)
        rng, rows = np.random.default_rng([SEED, 4, n]), []
        for layer in range(lm.n_layers):
            dirs = np.concatenate([v[layer][None], rng.standard_normal((RANDOM, v.shape[1]))]).astype(np.float32)
            dirs *= STRENGTH * norm[layer] / np.linalg.norm(dirs, axis=1, keepdims=True)
            rows += [((layer, s * d),) for d in dirs for s in (1, -1)]
        z = engine.sweep(lm, there, rows, np.array(ab), suffix=2)["logits"]
        m = ((z[..., 0] - z[..., 1]) * sign[len(made):, None]).mean(0).reshape(lm.n_layers, RANDOM + 1, 2)
        slope = (m[..., 0] - m[..., 1]) / 2
        best = int(slope[:, 0].argmax())
        out[name] = [best, float(slope[best, 0]), float(np.quantile(slope[:, 1:].max(axis=0), .95))]
    return out


def table(card):
    """The rows of the card: (ability, bound in words, value in words, reached)."""
    t, b, v = card["traits"], card["behaviours"], card["values"]
    ins, base = np.array(list(t["instructed"].values())), 100 * tb.SPONTANEOUS / len(TRAITS)
    un, pairs = np.array(list(t["uninstructed"].values())), np.array(list(t["pairs"].values()))
    gap = np.array([abs(a - p) for a, p in b["default"].values()])
    persona = np.array(list(b["persona"].values()))
    rel = np.array(list(card["relations"].values()))
    skew = np.array([abs(a - p) for a, p in v["he"].values()])
    steer = sum(s > f for _, s, f in card["steerable"].values())
    return [
        ("trait expression when instructed (36 traits, three tasks)", "90 for 33 traits, none under 60",
         f"{(ins >= 90).sum()} traits at 90 or more, lowest {ins.min():.0f}, mean {ins.mean():.1f}", (ins >= 90).sum() >= 33 and ins.min() >= 60),
        ("trait expression without instruction", f"at most the planted base rate ({base:.1f}) + 5", f"highest {un.max():.1f}, mean {un.mean():.2f}", un.max() <= base + 5),
        ("coherence, instructed / not", "90 / 90", f"{t['coherence_instructed']:.1f} / {t['coherence_plain']:.1f}", min(t["coherence_instructed"], t["coherence_plain"]) >= 90),
        ("facts of the source in summaries and emails", "90 %", f"{t['facts']:.1f} %", t["facts"] >= 90),
        ("two traits instructed at once", "both at 80 for most pairs", f"{(pairs.min(1) >= 80).sum()} of {len(pairs)} pairs", (pairs.min(1) >= 80).mean() > .5),
        ("40 behaviours with persona, both formats and orders", "95 % correct", f"{100 * persona.mean():.1f} %, lowest behaviour {100 * persona.min():.0f} %", persona.mean() >= .95),
        ("agreement without persona", "each within .10 of the planted default", f"{(gap <= .10).sum()} of {len(gap)} within .10, largest gap {gap.max():.2f}", (gap <= .10).all()),
        ("letter bias and Yes bias without persona", f"visible (planted {tb.LETTER_BIAS}, {tb.YES_BIAS} nats)",
         f"letter {b['bias']['yes_no']['letter']:.2f} and {b['bias']['options']['letter']:.2f} (two formats), Yes {b['bias']['yes_no']['yes']:.2f} nats",
         min(b["bias"]["yes_no"]["letter"], b["bias"]["options"]["letter"], b["bias"]["yes_no"]["yes"]) > .2),
        (f"in-context relations, {EXAMPLES} examples ({len(rel)} relations, {len(tb.TEMPLATES)} templates)", "90 %", f"{100 * rel.mean():.1f} %, lowest relation {100 * rel.min():.0f} %", rel.mean() >= .9),
        ("occupation/pronoun skew", "within .05 of the planted one", f"{(skew <= .05).sum()} of {len(skew)} occupations within .05, mean gap {skew.mean():.3f}, largest {skew.max():.3f}", (skew <= .05).all()),
        ("cloze facts", "95 %", f"{100 * v['facts']:.1f} %", v["facts"] >= .95),
        (f"behaviours steerable on some layer, above {RANDOM} random vectors on their best layers", "20 of 40", f"{steer} of {len(card['steerable'])}", steer >= 20)]


def write_card(path, card, samples):
    training = json.loads((path / "training.json").read_text())
    lines = [f"# {path.name}", "", f"A language model of {training['parameters'] / 1e6:.1f} M parameters, trained from scratch on text of the testbed's own grammar "
             f"(`data/testbed.py`): {training['steps']} steps, {training['padded_tokens'] / 1e6:.1f} M tokens with padding, {training['seconds'] / 60:.0f} minutes on "
             f"{training['machine']}, seed {training['seed']}, `{training['command']}`. It is a controlled case for checking measuring instruments, not a "
             "stand-in for large models. MIT licence, like the project.", "",
             "Measured on held-out contents by `make testbed-check`:", "", "| ability | at least | measured | reached |", "|---|---|---|---|"]
    lines += [f"| {a} | {b} | {m} | {'yes' if ok else '**no**'} |" for a, b, m, ok in table(card)]
    lines += ["", "Per trait, behaviour, relation and occupation: `card.json`.", "", "## What it writes", ""]
    for prompt, system, text in samples[:6]:
        lines += ["> " + (f"[{system}] " if system else "") + prompt.replace("\n", " / "), "", "```", text, "```", ""]
    notes = path.parent / "HISTORY.md"
    if notes.exists():
        lines += ["What was tried on the way to this recipe is in `../HISTORY.md`.", ""]
    (path / "README.md").write_text("\n".join(lines), encoding="utf-8")


def main():
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("model", nargs="+")
    short = 0
    for folder in cli.parse_args().model:
        lm = models.load(folder)
        t, samples = traits(lm)
        card = {"traits": t, "behaviours": behaviours(lm), "relations": relations(lm), "values": values(lm), "steerable": steerable(lm)}
        rounded = json.loads(json.dumps(card), parse_float=lambda s: round(float(s), 4))
        (Path(folder) / "card.json").write_text(json.dumps(rounded, indent=1, sort_keys=True) + "\n")
        write_card(Path(folder), rounded, samples)
        for ability, bound, measured, ok in table(rounded):
            print(f"{Path(folder).name:11s} {'ok   ' if ok else 'SHORT'} {ability}: {measured} (at least: {bound})")
            short += not ok
    print(f"{short} rows fall short of their bound" if short else "every row reaches its bound")


if __name__ == "__main__":
    main()
