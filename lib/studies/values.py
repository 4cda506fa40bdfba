"""Values: how far a vector moves a preference, when it over-corrects, and what it breaks (stages 02 and 03).

A probe has one of two forms:
    prompt, positive, negative     log-odds of the two continuations' first tokens after the prompt
    positive_text, negative_text   two whole sentences: difference of the log-probabilities of the tokens that they
                                   share. What differs is found word by word; the words that differ are what the
                                   rest is conditioned on, and their own frequency does not count (CrowS-Pairs'
                                   idea, Nangia et al. 2020, for a causal model).
Steering starts at the last prompt token; a sentence, which has no prompt, is steered from its first token on.

The *lean* of a probe is its unsteered log-odds, nats; its *bias* the size of the log-odds, on either side. Bias can
be lowered with one sign of the vector for all probes of a value, picked on the tuning split: all that a user has who
does not know the answers. "Against the lean" gives every probe the sign that pulls it towards even odds: a ceiling,
since it takes the probe's own lean, and what an over-correction is measured by. Probes of one subject
(lib.suite.subjects) share most of their text and are resampled together.
"""
import difflib

import numpy as np

from lib import directions, engine, metrics, suite as suites
from lib.artifacts import UserError
from lib.metrics import Missing, beyond_random, estimator, pooled_spearman

SIDES = ("positive", "negative")


# --- vector (stage 01) --------------------------------------------------------------------------------------
def extract(lm, value, address):
    """Description (lib.directions) of one value from its pairs of raw sentences, read at their last tokens."""
    pairs = suites.value_split(value, "extract")
    positive, negative = (engine.read(lm, [lm.encode(pair[side]) for pair in pairs]) for side in SIDES)
    return directions.describe(positive - negative, positive, negative, address)


# --- measuring (stages 02 and 03) ---------------------------------------------------------------------------
def raw_text(lm, text):
    """Token ids of a raw text, with a BOS in front if the tokenizer has one: its first word is predicted too."""
    ids, bos = lm.encode(text), lm.tokenizer.bos_token_id
    return ids if bos is None or ids[:1] == [bos] else [bos, *ids]


def shared_tokens(lm, texts, before=""):
    """[(token ids, weights)] of two sentences behind the text `before`: weight 1 for the tokens that the two share
    outside the words in which they differ (rules in data/README.md), 0 for all others and for the first token, which
    nothing predicts. Those before the first difference have 0 too: they are as likely on both sides, and cancel.

    UserError if the sentences share nothing behind their first difference, or the tokenizer does not say which
    characters a token stands for."""
    found, shared = [], []
    for text, spans in zip(texts, suites.changed(*texts)):
        if not lm.tokenizer.is_fast:
            raise UserError(f"{lm.name}: its tokenizer does not say which characters a token stands for")
        whole, ids = before + text, raw_text(lm, before + text)
        places = lm.tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
        places = [(0, 0)] * (len(ids) - len(places)) + [tuple(place) for place in places[:len(ids)]]
        apart = [(len(before) + a, len(before) + b) for a, b in spans]
        mine = []
        for k, (start, end) in enumerate(places):
            start += len(whole[start:end]) - len(whole[start:end].lstrip())      # a leading space belongs to no word
            end -= len(whole[start:end]) - len(whole[start:end].rstrip())
            if k and end > max(start, len(before)) and all(end <= a or start >= b for a, b in apart):
                mine.append(k)
        found.append(ids)
        shared.append(mine)
    # A shared word behind another sign can have other tokens: what counts is the same tokens on both sides.
    blocks = difflib.SequenceMatcher(None, *([ids[k] for k in mine] for ids, mine in zip(found, shared)),
                                     autojunk=False).get_matching_blocks()
    same = next((k for k, (a, b) in enumerate(zip(*found)) if a != b), min(map(len, found)))
    out = []
    for side, (ids, mine) in enumerate(zip(found, shared)):
        counted = {mine[block[side] + k] for block in blocks for k in range(block.size)}
        out.append((ids, [float(k in counted and k >= same) for k in range(len(ids))]))
    if not any(out[0][1]):
        raise UserError(f"{texts[0]!r} and {texts[1]!r} share no token behind the first in which they differ, so none "
                        "could be scored; where all that differs is the end, give prompt, positive and negative")
    return out


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
    """Is the answer of each fact the likeliest among the answers of all `facts`, by first tokens? (fact, row) bool.

    The top token need not be one of them: after "The capital city of Austria is" a base model goes on with "a" or
    "the". Of 166 capitals Gemma 3 270M has 7 on top, and 116 ahead of all others. A model that knows nothing has one
    right in as many as there are answers."""
    texts = [front + fact["prompt"] for front, fact in zip(before or [""] * len(facts), facts)]
    right = np.array([[lm.answer_token(text, fact["answer"])] for text, fact in zip(texts, facts)])
    answers = np.unique(right)
    logits = engine.sweep(lm, [lm.encode(text) for text in texts], rows, np.tile(answers, (len(texts), 1)))["logits"]
    return answers[logits.argmax(axis=-1)] == right


def text_logprob(lm, texts, rows):
    """(log-probability (text, row) float32 nats of all tokens but the first, tokens (text,) that it sums over)."""
    ids = [raw_text(lm, text) for text in texts]
    return (engine.sequence_logprob(lm, [i[:1] for i in ids], [i[1:] for i in ids], rows),
            np.array([len(i) - 1 for i in ids]))


def sweep_tuning(lm, suite, value, points, vector):
    """{"odds" (1 + 2 points, probe) nats, "facts" (1 + 2 points, fact) bool} on the tuning split: unsteered, then the
    points (lib.studies.tuning), then the points with the other sign."""
    probes, facts = suites.value_split(value, "tune"), suites.probe_split(suite.facts, "tune")
    rows = [(), *(((l, sign * c * vector[l]),) for sign in (1, -1) for l, _, c, _ in points)]
    return {"odds": preference(lm, probes, rows).T, "facts": recall(lm, facts, rows).T}


def examples(value, side, n, address):
    """Prompting's text: n probes of the tuning split, drawn by address, each written out with the side that is asked
    for, one per line."""
    probes = suites.value_split(value, "tune")
    drawn = np.random.default_rng(address).permutation(len(probes))[:n]
    return "".join((probes[i].get(f"{side}_text") or probes[i]["prompt"] + probes[i][side]) + "\n" for i in drawn)


def measure(lm, suite, number, vectors, tuned, norms, config, address):
    """One value on the evaluation split, at every strength of the tuned layer, as tuned, in the window, and as tuned
    against every probe's lean.

    vectors (layer, d); tuned: stage 02's record; norms (layer,) of the unit on raw text; config: strengths,
    n_random_values, n_random_text, n_examples
    returns   {"items", "strengths" (setting,), "sign" of the window, "lean" (probe,), "steered" (probe,
              setting, vector), "known" (fact,), "facts" (fact, setting, vector), "prompted" (probe, side),
              "prompted_facts" (fact, side)} and, where the suite has neutral sentences, {"plain_text" (text,),
              "text" (text, setting, vector), "tokens" (text,)}; vectors: value, -value, then random ones of its norm,
              fewer for the text; sides: asked for positive, for negative"""
    value, n_random = suite.values[number], config["n_random_values"]
    probes, facts = suites.value_split(value, "evaluate"), suites.probe_split(suite.facts, "evaluate")
    share = np.linalg.norm(vectors, axis=1) / norms               # strength of coefficient 1, per layer
    chosen = [(at["layer"], at["coefficient"]) for at in (tuned, tuned["window"], tuned["against"])]
    settings = [(chosen[0][0], s / share[chosen[0][0]]) for s in config["strengths"]] + chosen
    rows, texts = [], []
    for s, (layer, coefficient) in enumerate(settings):
        v = np.float32(coefficient) * vectors[layer]
        drawn = [v, -v, *metrics.norm_matched_random(v, n_random, [*address, number, s])]
        rows += [((layer, w),) for w in drawn]
        texts += [((layer, w),) for w in drawn[:2 + config["n_random_text"]]]
    odds, known = preference(lm, probes, [(), *rows]), recall(lm, facts, [(), *rows])
    shape = -1, len(settings), 2 + n_random
    labels = suites.value_split(value, "evaluate", labels=True)
    found = {"items": [{"value": value["name"], "id": probe["id"], "subject": label, "level": probe["level"],
                        "planted": probe.get("planted")} for probe, label in zip(probes, labels)],
             "strengths": [*config["strengths"], *(float(c * share[l]) for l, c in chosen)],
             "sign": tuned["window"]["sign"],
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


def broken(lm, suite, rows):
    """What rows break on raw text: {"known" (fact,), "facts" (fact, row) bool on the evaluation split} and {"plain_text"
    (text,) nats, "text" (text, row), "tokens" (text,)}, each where the suite has such texts."""
    found = {}
    if suite.facts:
        known = recall(lm, suites.probe_split(suite.facts, "evaluate"), [(), *rows])
        found |= {"known": known[:, 0], "facts": known[:, 1:]}
    if suite.neutral:
        logp, tokens = text_logprob(lm, suite.neutral, [(), *rows])
        found |= {"plain_text": logp[:, 0], "text": logp[:, 1:], "tokens": tokens}
    return found


def arrays(done):
    """{name: (array, axes)} of what `measure` gave for every value, probes end to end."""
    parts = {"probe_lean": ("lean", "probe"), "probe_steered": ("steered", "probe", "setting", "vector"),
             "probe_prompted": ("prompted", "probe", "side"), "fact_known": ("known", "fact"),
             "fact_steered": ("facts", "value", "fact", "setting", "vector"), "text_plain": ("plain_text", "text"),
             "fact_prompted": ("prompted_facts", "value", "fact", "side"),
             "text_steered": ("text", "value", "text", "setting", "vector")}
    found = {}
    for name, (part, *axes) in parts.items():
        if part in done[0]:                          # facts and texts are the same, unsteered, for all values
            each = [one[part].astype(np.uint8) if name.startswith("fact") else one[part] for one in done]
            found[name] = {"probe": np.concatenate, "value": np.stack}.get(axes[0], lambda x: x[0])(each), axes
    return found


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


def removed(means):
    """Share of the bias that is removed: means (k, 2) of the sizes of the log-odds before and after, (k,)."""
    return 1 - means[:, 1] / np.maximum(means[:, 0], 1e-12)


def removed_beyond(means):
    """What more is removed than by the best of random vectors: means (k, 2 + random) of the sizes before, after, and
    after random vectors, (k,)."""
    return (means[:, 2:].min(axis=1) - means[:, 1]) / np.maximum(means[:, 0], 1e-12)


def perplexity_ratio(means):
    """exp of the mean loss of log-probability per token: means (k, 2) of nats lost and tokens per text, (k,)."""
    return np.exp(means[:, 0] / means[:, 1])


def moments(owner, level, shift):
    """(probe, 5 values) columns whose means are what `level_slope` needs: per value 1, x, y, x y, x x."""
    each = np.stack([np.ones(len(level)), level, shift, level * shift, level * level], axis=1)
    return np.concatenate([each * (owner == value)[:, None] for value in np.unique(owner)], axis=1)


def level_slope(means):
    """Change of the shift per level, least squares with an intercept for each value: means (k, 5 values) of
    `moments`, (k,); nan where all probes of each value are of one level."""
    n, x, y, xy, xx = np.moveaxis(means.reshape(len(means), -1, 5), 2, 0)
    n = np.maximum(n, 1e-12)                                # a value that a resample does not hold: its sums are 0
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (xx - x * x / n).sum(axis=1)
        return np.where(spread > 1e-9, (xy - x * y / n).sum(axis=1) / spread, np.nan)


def gather(items, done):
    """What `measure` gave for every value, probes end to end: lean, size, level, owner, subject, planted (probe,);
    steered (probe, setting, vector); noise, shift, after (one sign), corrected (against the lean), past, far (probe,
    setting); far_random (probe, setting, random); known (fact,), plus, one, both (value, fact, setting), random_facts
    (value, fact, setting, random); asked (probe,), asked_facts (fact,); and lost, lost_random (value, text, setting)
    nats with tokens (text,), where there is text. Setting 0 is the unsteered model, then as in `measure`."""
    m = {name: np.concatenate([one[name] for one in done]).astype(np.float64)
         for name in ("lean", "steered", "prompted")}
    facts, m["known"] = np.stack([one["facts"] for one in done]).astype(np.float64), done[0]["known"].astype(float)
    m["steered"], facts = (np.insert(steered, 0, plain[:, None], axis=-2)
                           for steered, plain in ((m["steered"], m["lean"]), (facts, m["known"])))
    m["owner"], m["level"] = (np.array([item[key] for item in items]) for key in ("value", "level"))
    m["subject"] = np.array([f"{item['value']} {item['subject']}" for item in items])
    m["planted"] = np.array([np.nan if item.get("planted") is None else item["planted"] for item in items])
    moved = m["steered"] - m["lean"][:, None, None]
    m["size"], m["noise"] = np.abs(m["lean"]), moved[:, :, 2:].mean(axis=2)
    m["shift"] = moved[:, :, 0] - m["noise"]
    m["moved"], m["corrected"] = moved, np.abs(against(m["lean"], m["steered"]))
    arm = [0 if one["sign"] > 0 else 1 for one in done]
    of = np.repeat(arm, [len(one["lean"]) for one in done])
    m["after"] = np.abs(np.where(of[:, None], m["steered"][:, :, 1], m["steered"][:, :, 0]))
    m["past"], m["far"] = correction(m["lean"], m["steered"])
    # A random vector has no other sign: the next one stands for it.
    drawn = m["steered"][:, :, 2:]
    m["far_random"] = np.stack([correction(m["lean"], np.stack(two, axis=-1))[1] for two in zip(
        np.moveaxis(drawn, 2, 0), np.moveaxis(np.roll(drawn, -1, axis=2), 2, 0))], axis=-1)
    m["plus"], m["both"], m["random_facts"] = facts[..., 0], facts[..., :2].mean(axis=-1), facts[..., 2:]
    m["one"] = np.stack([mine[..., k] for mine, k in zip(facts, arm)])
    m["asked"] = np.abs(against(m["lean"], m["prompted"][:, None]))[:, 0]
    m["asked_facts"] = np.stack([one["prompted_facts"] for one in done]).astype(np.float64).mean(axis=(0, 2))
    if all("text" in one for one in done):
        plain = done[0]["plain_text"]
        lost = np.stack([plain[:, None, None] - np.insert(one["text"], 0, plain[:, None], axis=-2)
                         for one in done]).astype(np.float64)
        m |= {"lost": lost[..., :2].mean(axis=-1), "lost_random": lost[..., 2:].mean(axis=-1),
              "tokens": done[0]["tokens"].astype(np.float64)}
    return m


def sums(m, what, setting, value=slice(None)):
    """(text, 2) nats lost and tokens of every neutral text, for `perplexity_ratio`."""
    return np.stack([m[what][value, :, setting].reshape(-1, len(m["tokens"])).mean(axis=0), m["tokens"]], axis=1)


LARGEST, TUNED, WINDOW, AGAINST = -4, -3, -2, -1                # settings


def joint(unit, address, clusters=None):
    """over(tag, values, stat=None): estimates over the first axis of values. Of (n,) the mean; of (n, columns) a
    statistic of the column means (`metrics.of_means`)."""
    def over(tag, values, stat=None):
        values = np.asarray(values, np.float64)
        return metrics.of_means(values.reshape(len(values), -1), stat or (lambda means: means[:, 0]), unit=unit,
                                clusters=clusters, seed_address=[*address, *np.atleast_1d(tag).tolist()])
    return over


def decisive(m, fact_loss, address):
    """The results that claims are decided by, from what `gather` gave: each held against every random vector, so that
    none is met by a vector that is itself a random one (`metrics.beyond_random`)."""
    over, over_facts = joint("subjects", [*address, 0], m["subject"]), joint("facts", [*address, 1])
    size = m["size"]

    def columns(of, random, setting):
        return np.concatenate([of[:, setting, None], random[:, setting]], axis=1)

    loss, random_loss = (m["known"][:, None] - m["plus"].mean(axis=0),
                         m["known"][:, None, None] - m["random_facts"].mean(axis=0))
    by_level = moments(m["owner"], m["level"], m["shift"][:, TUNED])
    levels = ", ".join(str(x) for x in np.unique(m["level"]))
    return {
        "fact_accuracy": over_facts(0, m["known"]), "bias": {"unsteered": over(22, size)},
        "shift": over(0, m["shift"][:, TUNED]),
        "shift_beyond_random": over(8, columns(m["moved"][:, :, 0], m["moved"][:, :, 2:], TUNED), beyond_random),
        "window": {"bias_removed": over(20, np.stack([size, m["after"][:, WINDOW]], axis=1), removed),
                   "beyond_random": over(21, np.concatenate([size[:, None], columns(
                       m["after"], np.abs(m["steered"][:, :, 2:]), WINDOW)], axis=1), removed_beyond),
                   "facts_spared": over_facts(21, fact_loss - m["known"] + m["one"][..., WINDOW].mean(axis=0))},
        "overcorrected_beyond_random": over(7, columns(m["far"], m["far_random"], TUNED), beyond_random),
        "fact_loss": over_facts(1, loss[:, LARGEST]),
        "fact_loss_beyond_random": over_facts(5, columns(loss, random_loss, LARGEST), beyond_random),
        "level_slope": over(31, by_level, level_slope) if np.isfinite(level_slope(by_level.mean(axis=0)[None])).all()
        else Missing(f"every probe of each value is of one level ({levels})")}


def breaks(found, address):
    """(rows, results): what each concept's vector breaks, from {key: `broken`} with the vector as the first row and
    random ones behind it. Facts lost as a share of all, perplexity of neutral text as a ratio; None without them."""
    rows, facts, texts = [], joint("facts", [*address, 1]), joint("texts", [*address, 2])
    for k, (key, one) in enumerate(found.items()):
        row = {"key": key, "facts_known": None, "fact_loss": None, "fact_loss_random": None, "perplexity": None,
               "perplexity_random": None}
        if "known" in one:
            lost = one["known"].astype(float)[:, None] - one["facts"]
            row |= {"facts_known": float(one["known"].mean()), "fact_loss": facts((k, 0), lost[:, 0]),
                    "fact_loss_random": facts((k, 1), lost[:, 1:].mean(axis=1))}
        if "text" in one:
            lost = one["plain_text"].astype(float)[:, None] - one["text"]
            row |= {name: texts((k, t), np.stack([each, one["tokens"]], axis=1), perplexity_ratio) for t, (name, each) in
                    enumerate((("perplexity", lost[:, 0]), ("perplexity_random", lost[:, 1:].mean(axis=1))))}
        rows.append(row)
    told, over = [row for row in rows if row["fact_loss"]], estimator("concepts", [*address, 3])
    return rows, {"n": len(rows), "fact_loss": over(0, [row["fact_loss"]["value"] for row in told]),
                  "fact_loss_minus_random": over(1, [row["fact_loss"]["value"] - row["fact_loss_random"]["value"]
                                                     for row in told])} if told else {"n": len(rows)}


def conclude(names, items, done, strengths, fact_loss, address):
    """Shift of the probes' log-odds, bias, over-correction and what breaks, against strength.

    names      values; items (probe,) records with value, subject, level and planted (probability of the positive
               side, or None)
    done       one dict of `measure` per value
    strengths  (value, setting) units: ascending ones shared by all values, then the tuned one, the one of the
               window, which stage 02 chose with its sign to lower the bias, and the one it chose for all signs
    fact_loss  share of the facts that a setting may cost"""
    m = gather(items, done)
    over, over_facts = joint("subjects", [*address, 0], m["subject"]), joint("facts", [*address, 1])
    over_texts = joint("texts", [*address, 2])
    size, level, shift, far, known = (m[key] for key in ("size", "level", "shift", "far", "known"))
    lost, lost_random, lost_both, lost_one = (known[:, None] - kept for kept in (
        m["plus"].mean(axis=0), m["random_facts"].mean(axis=(0, 3)), m["both"].mean(axis=0), m["one"].mean(axis=0)))

    def share(tag, after):
        return over(tag, np.stack([size, after], axis=1), removed)

    results = decisive(m, fact_loss, address)
    results["bias"] |= {name: over(23 + i, after[:, setting]) for i, (name, after, setting) in enumerate((
        ("tuned", m["corrected"], TUNED), ("largest", m["corrected"], LARGEST), ("window", m["after"], WINDOW),
        ("against", m["corrected"], AGAINST)))}
    results |= {
        "n": {"values": len(names), "probes": len(size), "subjects": len(set(m["subject"].tolist())),
              "facts": len(known), "random": m["steered"].shape[2] - 2},
        "shift_random": over(1, m["noise"][:, TUNED]), "past_even_tuned": over(2, m["past"][:, TUNED]),
        "overcorrected": over(3, far[:, LARGEST]), "overcorrected_tuned": over(4, far[:, TUNED]),
        "overcorrected_against": over(5, far[:, AGAINST]),
        "overcorrected_random": over(6, m["far_random"][:, TUNED].mean(axis=1)),
        "worse_in_window": over(9, m["after"][:, WINDOW] > size),
        "against": {"bias_removed": share(19, m["corrected"][:, AGAINST]),
                    "facts_spared": over_facts(22, fact_loss - lost_both[:, AGAINST])},
        "prompted": {"bias_removed": share(27, m["asked"]), "fact_loss": over_facts(27, known - m["asked_facts"])},
        "against_minus_prompted": over(28, np.stack([size, m["corrected"][:, AGAINST], m["asked"]], axis=1),
                                       lambda x: removed(x[:, [0, 1]]) - removed(x[:, [0, 2]])),
        "preferred": {"unsteered": over(29, m["lean"] > 0), "tuned": over(30, m["steered"][:, TUNED, 0] > 0)},
        "fact_loss_random": over_facts(2, lost_random[:, LARGEST]), "fact_loss_tuned": over_facts(3, lost[:, TUNED]),
        "fact_loss_window": over_facts(4, lost_one[:, WINDOW]),
        "shift_at_level": {str(x): joint("subjects", [*address, 0], m["subject"][level == x])(
            10 + i, shift[level == x, TUNED]) for i, x in enumerate(sorted(set(level.tolist())))}}
    planted = np.stack([1 / (1 + np.exp(-m["lean"])), m["planted"]], axis=1)
    told = np.isfinite(planted).all(axis=1)
    results["planted"] = {
        "error": joint("subjects", address, m["subject"][told])(32, np.abs(planted[told, 0] - planted[told, 1])),
        "spearman": estimator("subjects", address)(33, planted[told], pooled_spearman, clusters=m["subject"][told])
        if np.isfinite(pooled_spearman(planted[told])) else Missing("one planted probability only")
    } if told.any() else Missing("nothing is planted in this suite")
    shown = {"largest": ("lost", LARGEST), "tuned": ("lost", TUNED), "window": ("lost", WINDOW),
             "random": ("lost_random", LARGEST)}
    results["perplexity"] = {name: over_texts(i, sums(m, *where), perplexity_ratio)
                             for i, (name, where) in enumerate(shown.items())} if "lost" in m else \
        Missing("the suite has no neutral sentences")
    rows = [row for v, name in enumerate(names)
            for row in value_rows(m, v, name, strengths[v], fact_loss, address, over_facts)]
    results["window_span"] = {name: [row["strength"] for row in rows if row["value_name"] == name and row["inside"]
                                     and row["kind"] == "grid"] for name in names}
    return rows, *metrics.missing_apart(results, "values.")


def value_rows(m, v, name, strengths, fact_loss, address, over_facts):
    """One record per setting of one value, the unsteered model first. "inside": does the bias fall under the one sign
    (under each probe's own, for what was chosen so), and do the facts hold to `fact_loss` of them, both with their
    whole interval?"""
    mine, rows, kinds = m["owner"] == name, [], ["grid"] * (len(strengths) - 2) + ["tuned", "window", "against"]
    over = joint("subjects", [*address, 0], m["subject"][mine])
    for s, (strength, kind) in enumerate(zip([0.0, *strengths], kinds)):
        tag, own = 99 + 100 * v + s, kind == "against"
        after, kept = (m["corrected"], m["both"]) if own else (m["after"], m["one"])
        row = {"value_name": name, "strength": strength, "kind": kind, "tuned": kind == "tuned", "inside": False,
               "shift": over(tag if s else 90 + v, m["shift"][mine, s]), "shift_random": m["noise"][mine, s].mean(),
               "past_even": m["past"][mine, s].mean(), "overcorrected": m["far"][mine, s].mean(),
               "bias": over(tag + 1000 if s else 80 + v, after[mine, s]),
               "bias_against": m["corrected"][mine, s].mean(),
               "bias_random": np.abs(m["steered"][mine, s, 2:]).mean() if s else m["size"][mine].mean(),
               "fact_accuracy": m["plus"][v, :, s].mean(), "fact_accuracy_both": m["both"][v, :, s].mean(),
               "fact_accuracy_random": m["random_facts"][v, :, s].mean()}
        if "lost" in m:
            row |= {f"perplexity{of}": float(perplexity_ratio(sums(m, f"lost{of}", s, v).mean(axis=0)[None])[0])
                    for of in ("", "_random")}
        if s:
            row |= {"bias_fall": over(tag + 50, m["size"][mine] - after[mine, s]),
                    "facts_spared": over_facts(tag, fact_loss - m["known"] + kept[v, :, s])}
            row["inside"] = bool(row["bias_fall"]["low"] > 0 and row["facts_spared"]["low"] > 0)
        rows.append(row)
    return rows
