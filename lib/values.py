"""Values: how far a vector moves a preference, when it over-corrects, and what it breaks (stages 02 and 03).

A probe has one of two forms:
    prompt, positive, negative     log-odds of the two continuations' first tokens after the prompt
    positive_text, negative_text   two whole sentences: difference of the log-probabilities of the tokens that they
                                   share. What differs is found word by word; the words that differ are what the
                                   rest is conditioned on, and their own frequency does not count (CrowS-Pairs'
                                   idea, Nangia et al. 2020, for a causal model).
Steering starts at the last prompt token; a sentence, which has no prompt, is steered from its first token on.

The *lean* of a probe is its unsteered log-odds, nats. Its *bias* is the size of the log-odds when it is steered
against its lean: the vector is added with the sign that pulls towards even odds, and what ends on the other side
counts as bias again.
"""
import difflib
import re

import numpy as np

from lib import directions, engine, metrics, suite as suites
from lib.artifacts import UserError
from lib.metrics import estimator, pooled_spearman

SIDES = ("positive", "negative")


# --- vector (stage 01) --------------------------------------------------------------------------------------
def extract(lm, value, address):
    """Description (lib.directions) of one value from its pairs of raw sentences, read at their last tokens."""
    positive, negative = (engine.read(lm, [lm.encode(pair[side]) for pair in value["pairs"]]) for side in SIDES)
    return directions.describe(positive - negative, positive, negative, address)


# --- measuring (stages 02 and 03) ---------------------------------------------------------------------------
def raw_text(lm, text):
    """Token ids of a raw text, with a BOS in front if the tokenizer has one, so that its first word is predicted too."""
    ids, bos = lm.encode(text), lm.tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def shared_tokens(lm, texts, before=""):
    """[(token ids, weights)] of two sentences behind the text `before`: weight 1 for the tokens of a sentence that lie
    outside the words in which the two differ, 0 for all others and for the first token, which nothing predicts.

    UserError if the sentences share nothing, or the tokenizer does not say which characters a token stands for."""
    words = [[(m.start(), m.end(), m.group()) for m in re.finditer(r"\w+|[^\w\s]", text)] for text in texts]
    matcher = difflib.SequenceMatcher(None, *([w for _, _, w in side] for side in words), autojunk=False)
    alike, found = [set(), set()], []
    for block in matcher.get_matching_blocks():
        for side, start in enumerate((block.a, block.b)):
            alike[side] |= set(range(start, start + block.size))
    for text, mine, same in zip(texts, words, alike):
        if not lm.tokenizer.is_fast:
            raise UserError(f"{lm.name}: its tokenizer does not say which characters a token stands for")
        spans = lm.tokenizer(before + text, return_offsets_mapping=True)["offset_mapping"]
        ids = raw_text(lm, before + text)
        spans = [(0, 0)] * (len(ids) - len(spans)) + [tuple(span) for span in spans[:len(ids)]]
        apart = [(len(before) + a, len(before) + b) for i, (a, b, _) in enumerate(mine) if i not in same]
        weights = [float(end > max(start, len(before)) and all(end <= a or start >= b for a, b in apart))
                   for start, end in spans]
        found.append((ids, [0.0, *weights[1:]]))
        if not any(found[-1][1]):
            raise UserError(f"{texts[0]!r} and {texts[1]!r} share no token that could be scored")
    return found


def preference(lm, probes, rows, before=None):
    """Log-odds of the positive side, (probe, row) float64 nats. before: one text to stand in front of each probe."""
    before, out = before or [""] * len(probes), np.empty((len(probes), len(rows)))
    whole = [i for i, probe in enumerate(probes) if "positive_text" in probe]
    bare = [i for i, probe in enumerate(probes) if "positive_text" not in probe]
    if bare:
        texts = [before[i] + probes[i]["prompt"] for i in bare]
        tokens = [[lm.answer_token(text, probes[i][side]) for side in SIDES] for i, text in zip(bare, texts)]
        logits = engine.sweep(lm, [lm.encode(text) for text in texts], rows, tokens)["logits"].astype(np.float64)
        out[bare] = logits[..., 0] - logits[..., 1]
    if whole:
        made = [side for i in whole for side in
                shared_tokens(lm, [probes[i][f"{side}_text"] for side in SIDES], before[i])]
        found = engine.sequence_logprob(lm, [ids[:1] for ids, _ in made], [ids[1:] for ids, _ in made], rows,
                                        [weights[1:] for _, weights in made]).astype(np.float64)
        out[whole] = found[::2] - found[1::2]
    return out


def recall(lm, facts, rows, before=None):
    """Is the answer of each fact the top token? (fact, row) bool."""
    texts = [front + fact["prompt"] for front, fact in zip(before or [""] * len(facts), facts)]
    right = np.array([[lm.answer_token(text, fact["answer"])] for text, fact in zip(texts, facts)])
    return engine.sweep(lm, [lm.encode(text) for text in texts], rows, right)["argmax"] == right


def text_logprob(lm, texts, rows):
    """(log-probability (text, row) float32 nats of all tokens but the first, tokens (text,) that it sums over)."""
    ids = [raw_text(lm, text) for text in texts]
    return (engine.sequence_logprob(lm, [i[:1] for i in ids], [i[1:] for i in ids], rows),
            np.array([len(i) - 1 for i in ids]))


def sweep_tuning(lm, suite, value, points, vector):
    """{"odds" (1 + 2 points, probe) nats, "facts" (1 + 2 points, fact) bool} on the tuning split: unsteered, then the
    points [(layer, relative strength, coefficient)], then the points with the other sign."""
    probes, facts = suites.probe_split(value["probes"], "tune"), suites.probe_split(suite.facts, "tune")
    rows = [(), *(((l, sign * c * vector[l]),) for sign in (1, -1) for l, _, c in points)]
    return {"odds": preference(lm, probes, rows).T, "facts": recall(lm, facts, rows).T}


def examples(value, side, n, address):
    """Prompting's text: n probes of the tuning split, drawn by address, each written out with the side that is asked
    for, one per line."""
    probes = suites.probe_split(value["probes"], "tune")
    drawn = np.random.default_rng(address).permutation(len(probes))[:n]
    return "".join((probes[i].get(f"{side}_text") or probes[i]["prompt"] + probes[i][side]) + "\n" for i in drawn)


def measure(lm, suite, number, vectors, tuned, norms, config, address):
    """One value on the evaluation split, at every strength of the tuned layer, as tuned, and in the window.

    vectors (layer, d); tuned: stage 02's record; norms (layer,) of raw text; config: strengths, n_random,
    n_random_text, n_examples
    returns   {"items", "strengths" (setting,) relative, "lean" (probe,), "steered" (probe, setting, vector), "known"
              (fact,), "facts" (fact, setting, vector), "prompted" (probe, side), "prompted_facts" (fact, side)} and,
              where the suite has neutral sentences, {"plain_text" (text,), "text" (text, setting, vector), "tokens"
              (text,)}; vectors: value, -value, then random ones of its norm, fewer for the text; sides: asked for
              positive, for negative"""
    value, n_random = suite.values[number], config["n_random"]
    probes, facts = suites.probe_split(value["probes"], "evaluate"), suites.probe_split(suite.facts, "evaluate")
    share = np.linalg.norm(vectors, axis=1) / norms               # relative strength of coefficient 1, per layer
    chosen = [(at["layer"], at["coefficient"]) for at in (tuned, tuned["window"])]
    settings = [(chosen[0][0], s / share[chosen[0][0]]) for s in config["strengths"]] + chosen
    rows, texts = [], []
    for s, (layer, coefficient) in enumerate(settings):
        v = np.float32(coefficient) * vectors[layer]
        drawn = [v, -v, *metrics.norm_matched_random(v, n_random, [*address, number, s])]
        rows += [((layer, w),) for w in drawn]
        texts += [((layer, w),) for w in drawn[:2 + config["n_random_text"]]]
    odds, known = preference(lm, probes, [(), *rows]), recall(lm, facts, [(), *rows])
    shape = -1, len(settings), 2 + n_random
    found = {"items": [{"value": value["name"], "id": probe["id"], "level": probe["level"],
                        "planted": probe.get("planted")} for probe in probes],
             "strengths": [*config["strengths"], *(float(c * share[l]) for l, c in chosen)],
             "lean": odds[:, 0], "steered": odds[:, 1:].reshape(shape),
             "known": known[:, 0].astype(np.uint8), "facts": known[:, 1:].reshape(shape).astype(np.uint8)}
    for name, things, score in (("prompted", probes, preference), ("prompted_facts", facts, recall)):
        asked = [[examples(value, side, config["n_examples"], [*address, number, 1000, i]) for i in range(len(things))]
                 for side in SIDES]
        found[name] = np.stack([score(lm, things, [()], front)[:, 0] for front in asked], axis=1).astype(float)
    if suite.neutral:
        logp, tokens = text_logprob(lm, suite.neutral, [(), *texts])
        found |= {"plain_text": logp[:, 0], "tokens": tokens,
                  "text": logp[:, 1:].reshape(-1, len(settings), 2 + config["n_random_text"])}
    return found


def arrays(done):
    """{name: (array, axes)} of what `measure` gave for every value, probes end to end."""
    joined = {name: np.concatenate([one[part] for one in done]) for name, part in (
        ("probe_lean", "lean"), ("probe_steered", "steered"), ("probe_prompted", "prompted"))}
    stacked = {name: np.stack([one[part] for one in done]).astype(kind) for name, part, kind in (
        ("fact_steered", "facts", np.uint8), ("fact_prompted", "prompted_facts", np.uint8), ("text_steered", "text", np.float32))
        if part in done[0]}
    once = {name: done[0][part] for name, part in (("fact_known", "known"), ("text_plain", "plain_text")) if part in done[0]}
    axes = {"probe_lean": ("probe",), "probe_steered": ("probe", "setting", "vector"), "probe_prompted": ("probe", "side"),
            "fact_known": ("fact",), "fact_steered": ("value", "fact", "setting", "vector"),
            "fact_prompted": ("value", "fact", "side"), "text_plain": ("text",),
            "text_steered": ("value", "text", "setting", "vector")}
    return {name: (array, axes[name]) for name, array in (joined | stacked | once).items()}


# --- conclusions (pure) -------------------------------------------------------------------------------------
def against(lean, steered):
    """Log-odds of each probe steered against its lean. lean (probe,), steered (probe, ..., vector) with vectors value
    and minus value first; returns (probe, ...)."""
    pick = (np.asarray(lean) > 0).reshape(-1, *[1] * (steered.ndim - 2))
    return np.where(pick, steered[..., 1], steered[..., 0])


def correction(lean, steered):
    """Each probe steered against its lean: (does it end past even odds, does it end further on the other side
    than it began on its own), both (probe, strength) bool. lean (probe,), steered (probe, strength, vector)
    log-odds in nats; vectors: value first, minus value second."""
    beyond = -np.sign(lean)[:, None] * against(lean, steered)
    return beyond > 0, beyond > np.abs(lean)[:, None]


def removed(pairs):
    """Share of the bias that is removed: (n, 2) of the size of the log-odds before and after; 0 where there is none."""
    before, after = pairs.mean(axis=0)
    return 1 - after / before if before > 0 else 0.0


def perplexity_ratio(sums):
    """exp of the mean loss of log-probability per token: (n, 2) of nats lost and tokens per text."""
    return float(np.exp(sums[:, 0].sum() / sums[:, 1].sum()))


def level_slope(rows):
    """Change of the shift per level, least squares with an intercept for each value: (n, 3) of value, level, shift."""
    x, y = rows[:, 1].copy(), rows[:, 2].copy()
    for value in np.unique(rows[:, 0]):
        mine = rows[:, 0] == value
        x[mine], y[mine] = x[mine] - x[mine].mean(), y[mine] - y[mine].mean()
    return x @ y / (x @ x) if (x @ x) > 0 else np.nan


def conclude(names, items, done, strengths, fact_loss, address):
    """Shift of the probes' log-odds, bias, over-correction and what breaks, against relative strength.

    names      values; items (probe,) records with value, level and planted (probability of the positive side, or None)
    done       one dict of `measure` per value
    strengths  (value, setting) relative: ascending ones shared by all values, then the tuned one, then the one of
               the window, which stage 02 chose to lower the bias
    fact_loss  share of the facts that a setting may cost"""
    over, facts_over, text_over = (estimator(unit, [*address, i]) for i, unit in enumerate(("probes", "facts", "texts")))
    lean, steered = (np.concatenate([one[part] for one in done]).astype(np.float64) for part in ("lean", "steered"))
    facts, known = np.stack([one["facts"] for one in done]).astype(np.float64), done[0]["known"].astype(np.float64)
    owner, level = (np.array([item[key] for item in items]) for key in ("value", "level"))
    asked = np.concatenate([one["prompted"] for one in done])[:, None]                  # (probe, 1, side)
    prompted_facts = np.stack([one["prompted_facts"] for one in done]).astype(np.float64)
    moved = steered - lean[:, None, None]
    noise, shift = moved[:, :, 2:].mean(axis=2), moved[:, :, 0] - moved[:, :, 2:].mean(axis=2)
    past, too_far = correction(lean, steered)
    corrected, random_far = np.abs(against(lean, steered)), np.zeros(too_far.shape)
    for r in range(2, steered.shape[2], 2):                    # a random vector and another one, as the two signs
        random_far += correction(lean, steered[:, :, [r, min(r + 1, steered.shape[2] - 1)]])[1]
    random_far /= len(range(2, steered.shape[2], 2))
    both, random_facts = facts[..., :2].mean(axis=-1), facts[..., 2:].mean(axis=-1)     # (value, fact, setting)
    loss, random_loss = known[:, None] - facts[..., 0].mean(axis=0), known[:, None] - random_facts.mean(axis=0)
    two_way_loss = known[:, None] - both.mean(axis=0)                                   # (fact, setting)
    largest, tuned, window = -3, -2, -1
    size = np.abs(lean)

    def bias(tag, after):
        return over(tag, np.stack([size, after], axis=1), removed)

    talked = np.abs(against(lean, asked))[:, 0]
    results, missing, levels = {
        "n": {"values": len(names), "probes": len(lean), "facts": len(known), "random": steered.shape[2] - 2},
        "shift": over(0, shift[:, tuned]), "shift_random": over(1, noise[:, tuned]),
        "past_even_tuned": over(2, past[:, tuned]), "overcorrected": over(3, too_far[:, largest]),
        "overcorrected_tuned": over(4, too_far[:, tuned]), "overcorrected_window": over(5, too_far[:, window]),
        "overcorrected_random": over(6, random_far[:, largest]),
        "overcorrected_excess": over(7, too_far[:, largest] - random_far[:, largest]),
        "window": {"bias_removed": bias(20, corrected[:, window]),
                   "facts_spared": facts_over(21, fact_loss - two_way_loss[:, window])},
        "bias": {"unsteered": over(22, size), "tuned": over(23, corrected[:, tuned]),
                 "largest": over(24, corrected[:, largest]), "window": over(25, corrected[:, window])},
        "prompted": {"bias_removed": bias(26, talked),
                     "fact_loss": facts_over(27, known - prompted_facts.mean(axis=(0, 2)))},
        "window_minus_prompted": over(28, np.stack([size, corrected[:, window], talked], axis=1),
                                      lambda x: removed(x[:, [0, 1]]) - removed(x[:, [0, 2]])),
        "preferred": {"unsteered": over(29, lean > 0), "tuned": over(30, steered[:, tuned, 0] > 0)},
        "fact_accuracy": facts_over(0, known), "fact_loss": facts_over(1, loss[:, largest]),
        "fact_loss_random": facts_over(2, random_loss[:, largest]), "fact_loss_tuned": facts_over(3, loss[:, tuned]),
        "fact_loss_window": facts_over(4, two_way_loss[:, window]),
        "shift_at_level": {str(x): over(10 + i, shift[level == x, tuned])
                           for i, x in enumerate(sorted(set(level.tolist())))}}, {}, set(level.tolist())
    number = np.array([names.index(name) for name in owner])
    by_level = np.stack([number, level, shift[:, tuned]], axis=1)
    if np.isfinite(level_slope(by_level)):
        results["level_slope"] = over(31, by_level, level_slope)
    else:
        missing["values.level_slope"] = f"the probes have one level, {min(levels)}"
    planted = np.array([np.nan if item.get("planted") is None else item["planted"] for item in items])
    given = np.isfinite(planted)
    if given.any():
        chance = 1 / (1 + np.exp(-lean[given]))
        results["planted"] = {"error": over(32, np.abs(chance - planted[given]))}
        pairs = np.stack([chance, planted[given]], axis=1)
        if np.isfinite(pooled_spearman(pairs)):
            results["planted"]["spearman"] = over(33, pairs, pooled_spearman)
        else:
            missing["values.planted.spearman"] = "one planted probability only"
    else:
        missing["values.planted"] = "nothing is planted in this suite"
    worse = None
    if all("text" in one for one in done):
        tokens = done[0]["tokens"].astype(np.float64)
        lost = np.stack([one["plain_text"][:, None, None] - one["text"] for one in done]).astype(np.float64)
        worse = {"value": lost[..., :2].mean(axis=-1), "random": lost[..., 2:].mean(axis=-1)}   # (value, text, setting)

        def sums(what, setting, v=slice(None)):
            return np.stack([worse[what][v, :, setting].reshape(-1, len(tokens)).mean(axis=0), tokens], axis=1)
        results["perplexity"] = {name: text_over(i, sums(what, setting), perplexity_ratio)
                                 for i, (name, what, setting) in enumerate((
                                     ("largest", "value", largest), ("tuned", "value", tuned),
                                     ("window", "value", window), ("random", "random", largest)))}
    else:
        missing["values.perplexity"] = "the suite has no neutral sentences"
    rows, spans = [], {}
    for v, name in enumerate(names):
        mine = owner == name
        kinds = ["grid"] * (len(strengths[v]) - 2) + ["tuned", "window"]
        rows.append({"value_name": name, "strength": 0.0, "kind": "grid", "tuned": False,
                     "shift": over(90 + v, 0 * lean[mine]), "shift_random": 0.0, "past_even": 0.0, "overcorrected": 0.0,
                     "bias": over(80 + v, size[mine]), "bias_random": size[mine].mean(),
                     "fact_accuracy": known.mean(), "fact_accuracy_both": known.mean(), "fact_accuracy_random": known.mean(),
                     "inside": False, "perplexity": 1.0, "perplexity_random": 1.0})
        for s, (strength, kind) in enumerate(zip(strengths[v], kinds)):
            tag = 100 + 100 * v + s
            kept = facts_over(tag, fact_loss - known + both[v, :, s])
            fall = over(tag + 50, size[mine] - corrected[mine, s])
            row = {"value_name": name, "strength": strength, "kind": kind, "tuned": kind == "tuned",
                   "shift": over(tag, shift[mine, s]), "shift_random": noise[mine, s].mean(),
                   "past_even": past[mine, s].mean(), "overcorrected": too_far[mine, s].mean(),
                   "bias": over(tag + 1000, corrected[mine, s]),
                   "bias_random": np.abs(steered[mine, s, 2:]).mean(), "bias_fall": fall,
                   "fact_accuracy": facts[v, :, s, 0].mean(), "fact_accuracy_both": both[v, :, s].mean(),
                   "fact_accuracy_random": random_facts[v, :, s].mean(), "facts_spared": kept,
                   "inside": bool(fall["low"] > 0 and kept["low"] > 0)}
            if worse:
                row |= {"perplexity": perplexity_ratio(sums("value", s, v)),
                        "perplexity_random": perplexity_ratio(sums("random", s, v))}
            rows.append(row)
        spans[name] = [row["strength"] for row in rows if row["value_name"] == name and row["kind"] == "grid" and row["inside"]]
    results["window_span"] = spans
    return rows, results, missing
