"""Judges: how strongly a text expresses a trait, and how coherent it is, both 0 to 100.

    rules            exact scorers: of the suite's grammar (lib.judging.scorers) if it has one, else of what can be
                     counted in any English text (lib.judging.counted)
    self             the model under test, unsteered
    model:<id>       another local model, a folder or a Hugging Face id
    api:<model>      a chat-completions endpoint with log-probabilities; OPENAI_BASE_URL and OPENAI_API_KEY say
                     which, and every answer is kept in JUDGE_CACHE (outputs/judge-cache)

A judge has .name, which goes into the manifest of all that it scored and differs where the judge does, and

    .read([(trait, item, text), ...])         -> [(expression, coherence, shares), ...], scores 0 to 100 or None
    .preferences([(trait, item, text), ...])  -> [score, ...], each -2 to 2 or None

with a trait's name or its record, and a task item of the suite. None means that there is no usable score; `shares`
(see `Words.read`) are None where nothing is asked in words. The same judge and scale serve every context that is
compared: a gap between two scales is not a finding.

All but `rules` are asked in words. A score is the mean of the numbers they may answer, weighted by the
probability of each, as Persona Vectors (arXiv:2507.21509) and Subbiah et al. 2026 (arXiv:2607.01802) have it;
where less than LEAST_SHARE of the probability lies on such answers the score is None ("unparsed").
"""
import functools
import re
from dataclasses import dataclass

import numpy as np

from lib import engine, metrics, models
from lib.artifacts import UserError, digest_of
from lib.judging import endpoint
from lib.judging.counted import Counted, preferred
from lib.judging.scorers import Grammar
from lib.suite import judge_kind

# --- settings that change a score ---------------------------------------------------------------------------
LEAST_SHARE = 0.25        # of the probability on usable answers, below which there is no score (Persona Vectors)
NUMBERS = tuple(str(n) for n in range(101))
PREFERENCES = {"A": 2, "B": 1, "C": 0, "D": -1, "E": -2}
# Asked where the suite's trait has no `judge_prompt` of its own.
EXPRESSION = """Rate how strongly an answer shows one trait of writing: {preference}.

Question:
{question}

Answer:
{answer}

Judge this trait alone, not whether the answer is right or good. 0 means that the trait is absent, 50 that it \
shows in part, 100 that it shows as strongly as it can. Reply with one whole number from 0 to 100 and nothing \
else, or with REFUSAL if the answer refuses the question."""
COHERENCE = """Rate how coherent an answer is as a piece of language.

Question:
{question}

Answer:
{answer}

Judge neither style nor opinion. 0 means that it is not valid language, 50 that it can be understood but \
rambles or repeats itself, 100 that it is clear from beginning to end. Reply with one whole number from 0 to \
100 and nothing else."""
PREFERENCE = """A writer was asked to: {preference}. How well does the answer below follow that wish?

Question:
{question}

Answer:
{answer}

A: it clearly shows what was asked for
B: it somewhat shows it
C: it neither shows nor contradicts it
D: it somewhat contradicts it
E: it clearly contradicts it

Reply with one letter and nothing else."""
# --- settings of `agreement` --------------------------------------------------------------------------------
LEAST_AGREED = 10         # texts that both judges score, and
LEAST_BOTH = 0.5          # share of all: agreement on a minority would be agreement on what is easy to score
# ------------------------------------------------------------------------------------------------------------


def load(name, suite, lm=None):
    """The judge called `name`; None is the suite's own. lm is the model under test, which `self` asks.

    A suite without traits gets one that judges nothing. UserError for an unknown judge, one that cannot judge the
    suite, a model or an endpoint that is not there."""
    traits, nobody = {trait["name"]: trait for trait in suite.traits}, Words("none", {}, None)
    if name is None and not traits:
        return nobody
    kind, which = judge_kind(suite.judge if name is None else name)
    if not traits:
        return nobody
    if kind == "rules":
        return Rules(Grammar(suite.grammar)) if suite.grammar else Counted(lm, suite)
    if kind == "api":
        there = endpoint.find(which)
        return Words(f"api:{which}@{there.place}", traits, functools.partial(endpoint.ask, there))
    if kind == "model":
        lm = models.load(which)
    elif lm is None:
        raise ValueError("the judge self needs the model under test")
    name = f"model:{lm.name}@{digest_of(lm.identity)[:12]}" if kind == "model" else "self"
    return Words(name, traits, functools.partial(ask_model, lm))


def can(judge, trait):
    """Whether a judge can score the trait of this name at all; one that counts cannot count everything."""
    return getattr(judge, "can", lambda _: True)(trait)


@dataclass(frozen=True)
class Rules:
    """Exact scorers: share of the places where a trait can show and does; words that parse, facts kept."""
    grammar: object              # lib.judging.scorers.Grammar
    name: str = "rules"

    def read(self, asked):
        found, coherent = [], {}
        for trait, item, text in asked:
            name, key = trait["name"] if isinstance(trait, dict) else trait, (item["id"], text)
            if key not in coherent:
                coherent[key] = float(self.grammar.coherence(text, item))
            pair = float(self.grammar.expression(name, text, item)), coherent[key]
            if not all(0 <= score <= 100 for score in pair):
                raise ValueError(f"rules: {name} on {item['id']} scored {pair}, outside 0..100")
            found.append((*pair, None))
        return found

    def preferences(self, asked):
        return preferred(self.read(asked))


@dataclass(frozen=True)
class Words:
    """A judge that is asked in words, each distinct question once per call.

    ask(questions, answers) -> [(probability of each answer (K,) or None, share), ...]; the share is that of all the
    probability which lies on the answers, None where it is not known."""
    name: str
    traits: dict                 # records of the suite by name
    ask: object

    def read(self, asked):
        """[(expression, coherence, {"expression": share, "coherence": share}), ...]. A score with no share was read
        from the text of an answer that came without log-probabilities; no score and no share is a refusal, a text
        that is no number, or a question that is too long for the model."""
        pairs = [(self._question(None, *one), self._question(COHERENCE, *one)) for one in asked]
        found = self._means([question for pair in pairs for question in pair], NUMBERS, np.arange(101.0))
        return [(shown[0], coherent[0], {"expression": shown[1], "coherence": coherent[1]})
                for shown, coherent in zip(found[::2], found[1::2])]

    def preferences(self, asked):
        questions = [self._question(PREFERENCE, *one) for one in asked]
        return [score for score, _ in self._means(questions, tuple(PREFERENCES), [*PREFERENCES.values()])]

    def _question(self, template, trait, item, text):
        """A template filled in; None: the trait's own, or EXPRESSION."""
        record = trait if isinstance(trait, dict) else self.traits[trait]
        return _fill(template or record.get("judge_prompt") or EXPRESSION, preference=record["preference"],
                     question=item["prompt"], answer=text)

    def _means(self, questions, answers, values):
        """[(score or None, share or None), ...] of questions; values (K,) of the answers (K,)."""
        distinct, found = list(dict.fromkeys(questions)), {}
        for question, (p, share) in zip(distinct, self.ask(distinct, answers) if distinct else []):
            usable = p is not None and (share is None or share >= LEAST_SHARE)
            mean = float(np.clip(p @ values / p.sum(), min(values), max(values))) if usable else None
            found[question] = mean, share
        return [found[question] for question in questions]


def _fill(template, **parts):
    """The template with its {places} filled in one pass: braces in a text mean nothing. Published prompts write the
    places with two braces."""
    places = "|".join(parts)
    return re.sub(rf"\{{\{{({places})\}}\}}|\{{({places})\}}", lambda m: parts[m[1] or m[2]], template)


# --- a local model ------------------------------------------------------------------------------------------
def ask_model(lm, questions, answers):
    """Probability that the model's reply to each question begins with each answer; see `Words.ask`.

    Answers are sequences of tokens: some tokenizers have a token for every number, some write it digit by
    digit, and a reply may begin with a space. The probability of a sequence is the product over its tokens,
    exact; of one that others continue ("1" in "10") what goes on into those is taken off. What follows a whole
    answer is not looked at ("85" in "85%"). All endings of a question are branches of one pass."""
    sequences = reply_tokens(lm, answers)
    nodes = sorted({ids[:k] for ids in sequences for k in range(len(ids))}, key=lambda node: (len(node), node))
    tokens = sorted({token for ids in sequences for token in ids})
    row, column = ({key: k for k, key in enumerate(keys)} for keys in (nodes, tokens))
    prompts, room = [lm.chat(None, question) for question in questions], max(map(len, nodes))
    fits = [i for i, prompt in enumerate(prompts) if not lm.max_tokens or len(prompt) + room <= lm.max_tokens]
    if not fits:
        return [(None, None)] * len(questions)
    found = engine.after_endings(lm, [prompts[i] for i in fits], nodes, tokens)
    step = np.exp(found["logits"].astype(np.float64) - found["logsumexp"][..., None])       # (N, node, token)
    children = {}
    for ids in {ids[:k + 1] for ids in sequences for k in range(len(ids))}:
        children.setdefault(ids[:-1], []).append(column[ids[-1]])
    p = np.zeros((len(fits), len(answers)))
    for ids, answer in sequences.items():
        reached = np.prod([step[:, row[ids[:k]], column[token]] for k, token in enumerate(ids)], axis=0)
        onward = step[:, row[ids]][:, children[ids]].sum(axis=1) if ids in row else 0.0
        p[:, answer] += reached * np.maximum(1 - onward, 0)
    told = {i: (each, float(each.sum())) for i, each in zip(fits, p)}
    return [told.get(i, (None, None)) for i in range(len(questions))]


def reply_tokens(lm, answers):
    """{token ids: index of the answer} of the ways in which a reply can begin with an answer: as it is, and
    after a space. UserError if the tokenizer cannot tell two answers apart."""
    head, sequences = lm.tokens("x"), {}
    for index, answer in enumerate(answers):
        for text in (answer, f" {answer}"):
            whole = lm.tokens("x" + text)          # after a letter: some tokenizers mark the beginning of a text
            ids, fault = tuple(whole[len(head):]), None
            if ids and whole[:len(head)] == head:
                other = sequences.setdefault(ids, index)
                fault = f"has the same tokens for {answers[other]!r} and {answer!r}" if other != index else None
            elif text == answer:
                fault = f"merges {answer!r} into the text before it"
            if fault:
                raise UserError(f"{lm.name}: cannot judge, its tokenizer {fault}")
    return sequences


# --- two judges ---------------------------------------------------------------------------------------------
def agreement(asked, first, second, address):
    """How far two judges agree on the same texts: (results, missing).

    asked    [(trait, item, text), ...]; the texts are resampled, each with all its traits
    address  of the bootstrap's draws
    results  {"judges": [name, name], "expression": part, "coherence": part}; part: "n" scores asked for,
             "unparsed" {"first", "second"}: share without a usable score, "spearman" and
             "mean_absolute_difference" (points of 100) over what both scored; estimates, see lib.metrics
    missing  {dotted key of results: reason}: fewer than LEAST_AGREED texts or LEAST_BOTH of the scores are there
             on both sides, or a judge gave all the same score (then there are differences, but no ranks)"""
    texts = [(item["id"], text) for _, item, text in asked]
    number = {text: k for k, text in enumerate(dict.fromkeys(texts))}
    labels = np.array([number[text] for text in texts])
    once = np.sort(np.unique(labels, return_index=True)[1])                  # coherence belongs to the text
    scores = np.array([[pair[:2] for pair in judge.read(asked)] for judge in (first, second)], float)   # None: nan
    results, over = {"judges": [first.name, second.name]}, metrics.estimator("texts", address)
    for k, (part, rows) in enumerate((("expression", np.arange(len(asked))), ("coherence", once))):
        pair, owner = scores[:, rows, k], labels[rows]                       # (judge, row)
        parsed = np.isfinite(pair)
        both = parsed.all(axis=0)
        (x, y), shared = pair[:, both], owner[both]
        found = results[part] = {"n": len(rows), "unparsed": {
            side: over((k, i), ~parsed[i], clusters=owner) for i, side in enumerate(("first", "second"))}}
        if both.mean() < LEAST_BOTH or len(set(shared)) < LEAST_AGREED:
            lost = [f"{judge.name} has no usable score for {int((~ok).sum())} of {len(rows)}"
                    for judge, ok in zip((first, second), parsed) if not ok.all()]
            why = metrics.Missing("; ".join(lost) or f"{len(set(owner))} texts, fewer than {LEAST_AGREED}")
            found |= {"mean_absolute_difference": why, "spearman": why}
            continue
        found["mean_absolute_difference"] = over((k, 2), np.abs(x - y), clusters=shared)
        flat = [judge.name for judge, values in ((first, x), (second, y)) if np.ptp(values) == 0]
        found["spearman"] = metrics.Missing(f"{' and '.join(flat)} gave all {len(x)} the same score") if flat else (
            metrics.bootstrap_corr(x, y, unit="texts", seed_address=[*address, k, 3], clusters=shared))
    return metrics.missing_apart(results)
