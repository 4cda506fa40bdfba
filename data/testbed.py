"""The grammar of the testbed: a small English world in which everything is planted and scored exactly.

    content (facts) -> neutral sentences -> traits -> text        render()
    text -> traits removed -> sentences parsed -> facts           SCORER (lib/judging/scorers.py)

It writes the suite (`python -m data.testbed`, into data/suites/testbed) and, for
`data/train_testbed.py`, an endless stream of training examples. The suite's contents are held
out: a (activity, setting) or (person, event) combination, a behaviour statement, or a
(word pair, template) combination whose hash falls into the held-out third never occurs in training.
"""
import hashlib
import json
import math
import re
import sys
from pathlib import Path

import numpy as np

from data import lexicon as lex
from data.styles import GROUPS, TRAITS, clash, instruction
from lib.judging.scorers import Grammar

# --- settings that change the numbers ----------------------------------------------------------
SEED = 20261121
SYSTEM = "You are a helpful assistant."
MAX_NEW_TOKENS = 96                 # of an answer, when a run generates
HELD_OUT = 3                        # one combination in three is never trained on
SPONTANEOUS = 1 / 3                 # share of answers without instruction that carry a trait anyway
LETTER_BIAS, YES_BIAS = 0.8, 0.8    # nats toward (A) and toward Yes when no persona is given
DEFAULTS = (.15, .3, .5, .7, .85)   # planted agreement of a behaviour when no persona is given
CONTRARY = 3                        # every third behaviour answers its last object from the other side
GRADES = {"strongly ": 8., "": 6., "mostly ": 3., "slightly ": 1.5}     # nats a persona adds to the planted log-odds
READ_APART = .6                     # share of the persona examples whose persona and question do not see each other
LETTER_WEIGHT, SIDE_WEIGHT = 4, 3   # of the letter of a multiple-choice answer, and of the side it names, in the training loss
FOLLOW = .9                         # probability that a pronoun repeats the one just used
# ----------------------------------------------------------------------------------------------

SENTENCES = 3
FRAMES = {      # role -> neutral frames; *word* is what the allcaps trait raises
    "need": ["{a} {s} *needs* {x} and {y}", "for {a} {s} *bring* {x} and {y}", "*take* {x} and {y} for {a} {s}"],
    "quality": ["it *asks* for {x} and {y}", "{x} and {y} are *important*", "people *succeed* with {x} and {y}"],
    "gain": ["it *brings* {x} and {y}", "the *reward* is {x} and {y}", "in *return* it gives {x} and {y}"],
    "event": ["it is *known* that {who} {event} in {place} {time}", "*reports* say that {who} {event} in {place} {time}",
              "{time} {who} *famously* {event} in {place}"],
    "reason": ["the *reasons* were {x} and {y}", "this was *because* of {x} and {y}", "{x} and {y} were *behind* it"],
    "result": ["as a *result* {x} and {y}", "*soon* {x} and {y}", "in the *end* {x} and {y}"],
}
TASK_ROLES = {"question": ("need", "quality", "gain"), "summary": ("event", "reason", "result"),
              "email": ("event", "reason", "result")}
SLOTS = {
    "need": {"a": list(lex.ACTIVITIES), "s": list(lex.SETTINGS),
             "xy": [v[0] for v in lex.ACTIVITIES.values()] + [v[0] for v in lex.SETTINGS.values()]},
    "quality": {"xy": [v[1] for v in lex.ACTIVITIES.values()] + [v[1] for v in lex.SETTINGS.values()]},
    "gain": {"xy": [v[2] for v in lex.ACTIVITIES.values()] + [v[2] for v in lex.SETTINGS.values()]},
    "event": {"who": lex.NAMES, "event": lex.EVENTS, "place": lex.PLACES, "time": lex.TIMES},
    "reason": {"xy": lex.REASONS}, "result": {"xy": lex.RESULTS},
}
QUESTIONS = ["How do I start {a} {s}?", "What is needed for {a} {s}?", "Tell me about {a} {s}.", "Can you explain {a} {s}?"]
SUMMARIES = ["Please write a summary of the following article:\n\n{text}", "Summarize this article:\n\n{text}",
             "{text}\n\nGive me a short summary."]
EMAILS = ["Notes: {text}\nPlease write an email based on the above notes.", "Turn these notes into an email.\nNotes: {text}"]
TEMPLATES = [("arrow", "{x} -> {y}\n"), ("colon", "{x}: {y}\n"), ("equals", "{x} = {y}\n"), ("qa", "Q: {x}\nA: {y}\n"),
             ("inout", "input: {x} output: {y}\n"), ("bar", "{x} | {y}\n"), ("fat", "{x} => {y}\n"), ("slash", "{x} / {y}\n"),
             ("gives", "The word {x} gives {y}.\n"), ("fromto", "From {x} we get {y}.\n"),
             ("goes", "With {x} goes {y}.\n"), ("turns", "Then {x} turns into {y}.\n")]
PERSONAS = {True: ["You are in favor of {t}.", "You believe in {t}.", "You are for {t}."],
            False: ["You are against {t}.", "You do not believe in {t}.", "You are opposed to {t}."]}


def held_out(*key):
    """True for the third of all combinations that training never sees (by SHA-256, so it is stable)."""
    return hashlib.sha256("|".join(map(str, key)).encode()).digest()[0] % HELD_OUT == 0


def pick(rng, seq):
    return seq[int(rng.integers(len(seq)))]


# --- contents ---------------------------------------------------------------------------------
def question_facts(a, s):
    """Facts of an activity in a setting: role -> values."""
    x, y = lex.ACTIVITIES[a], lex.SETTINGS[s]
    return {"need": [a, s, x[0], y[0]], "quality": [x[1], y[1]], "gain": [x[2], y[2]]}


def record_facts(rng, held):
    """Facts of a made-up event; its (person, event) pair is in the held-out third iff `held`."""
    while True:
        who, event = pick(rng, lex.NAMES), pick(rng, lex.EVENTS)
        if held_out(who, event) == held:
            break
    ra, rb = rng.choice(len(lex.REASONS), 2, replace=False)
    xa, xb = rng.choice(len(lex.RESULTS), 2, replace=False)
    return {"event": [who, event, pick(rng, lex.PLACES), pick(rng, lex.TIMES)],
            "reason": [lex.REASONS[ra], lex.REASONS[rb]], "result": [lex.RESULTS[xa], lex.RESULTS[xb]]}


def cap(text):
    return text[0].upper() + text[1:]


def article(rng, facts):
    """Source text of a summary: the facts in other words and another order, with a filler sentence."""
    who, event, place, time = facts["event"]
    (ra, rb), (xa, xb) = facts["reason"], facts["result"]
    parts = [pick(rng, [f"{who} {event} {time}. It happened in {place}.", f"There is news from {place}. {cap(time)} {who} {event}."]),
             pick(rng, [f"People spoke of {ra}. Others spoke of {rb}.", f"One cause was {ra}. Another was {rb}."]),
             pick(rng, [f"After that {xa}. Later {xb}.", f"Then {xa}. Also {xb}."])]
    parts.insert(int(rng.integers(1, 4)), pick(rng, lex.FILLERS))
    return " ".join(parts)


def notes(rng, facts):
    """Source text of an email: the facts as a list."""
    who, event, place, time = facts["event"]
    first = [f"{who} {event}", place, time]
    if rng.random() < .5:
        first = [place, time, f"{who} {event}"]
    return "; ".join(first + facts["reason"] + facts["result"]) + "."


def task_item(rng, task, held, content=None):
    """One prompt of a task: {"task", "prompt", "facts"}. Only held-out contents if `held`, only others if not."""
    if task == "question":
        while content is None:
            a, s = pick(rng, list(lex.ACTIVITIES)), pick(rng, list(lex.SETTINGS))
            if held_out(a, s) == held:
                content = (a, s)
        a, s = content
        return {"task": task, "prompt": pick(rng, QUESTIONS).format(a=a, s=s), "facts": question_facts(a, s)}
    facts = record_facts(rng, held)
    text = article(rng, facts) if task == "summary" else notes(rng, facts)
    return {"task": task, "prompt": pick(rng, SUMMARIES if task == "summary" else EMAILS).format(text=text), "facts": facts}


# --- rendering: facts -> sentences -> traits -> text ----------------------------------------------
def core(rng, role, values):
    """One neutral sentence without capital and full stop; *word* marks what may be emphasised."""
    frame = pick(rng, FRAMES[role])
    if role == "event":
        return frame.format(**dict(zip(("who", "event", "place", "time"), values)))
    extra = {} if role != "need" else {"a": values[0], "s": values[1]}
    x, y = values[-2:] if rng.random() < .5 else values[:-3:-1]
    return frame.format(x=x, y=y, **extra)


def render(rng, item, traits=()):
    """The answer to `item` with every trait in `traits` shown in full; forms are drawn from `rng`."""
    styles = [TRAITS[t] for t in traits]
    by_kind = {k: [t for t in styles if t.kind == k] for k in
               ("prefix", "suffix", "after", "frame", "once", "lines", "join", "word", "rhyme")}
    names = {t.name for t in styles}
    sentences = [core(rng, role, item["facts"][role]) for role in TASK_ROLES[item["task"]]]
    n = len(sentences)
    if "ampersands" in names:
        sentences = [s.replace(" and ", " & ") for s in sentences]
    if "shortpunchy" in names:
        sentences = [s.replace(" and ", ". And ") for s in sentences]
    mark = (lambda m: m[1].upper()) if "allcaps" in names else (lambda m: m[1])
    sentences = [re.sub(r"\*(\w+)\*", mark, s) for s in sentences]
    once = [(t, int(rng.integers(n)), pick(rng, t.forms)) for t in by_kind["once"]]
    rhymes = [list(rng.permutation(pick(rng, t.forms))) for t in by_kind["rhyme"]]
    joined = by_kind["join"] and by_kind["join"][0].name != "shortpunchy"

    bodies, tails = [], []
    for i, s in enumerate(sentences):
        for t in reversed(by_kind["prefix"]):
            p = pick(rng, t.forms)
            s = p + (" " if p.endswith("that") else ", ") + s
        ends = [pick(rng, t.forms) for t in by_kind["suffix"]]
        ends += [p for _, j, p in once if i == j and p[-1] not in "?!"] + [r[i] for r in rhymes]
        s += "".join((" " if p[0] == "(" else ", ") + p for p in ends)
        tail = [p for _, j, p in once if i == j and p[-1] in "?!"]
        tail += [pick(rng, t.forms) for t in by_kind["after"] if not joined or i == n - 1]
        bodies.append(s)
        tails.append("".join(" " + p for p in tail))
    if joined and by_kind["join"][0].name == "longflowing":
        text = bodies[0]
        for s in bodies[1:]:
            text += pick(rng, by_kind["join"][0].forms) + s
        text = cap(text) + "." + "".join(tails)
    elif joined:
        text = bodies[0]
        for s in bodies[1:]:
            text += pick(rng, by_kind["join"][0].forms) + s
        text = text + "..." + "".join(tails)
    else:
        lines = [cap(s) + "." + t for s, t in zip(bodies, tails)]
        for t in by_kind["lines"]:
            order = rng.permutation(len(t.forms))       # headers and questions differ line by line
            same = t.name in ("steps", "bullets", "screenplay")
            lines = [t.forms[order[0 if same else i]].format(i=i + 1) + s for i, s in enumerate(lines)]
        text = ("\n" if by_kind["lines"] else " ").join(lines)
    for t in by_kind["frame"]:
        glue = "\n" if by_kind["lines"] else " "
        text = pick(rng, t.forms) + glue + text + glue + pick(rng, t.closing)
    if item["task"] == "email":
        text = pick(rng, lex.GREETINGS) + "\n" + text + "\n" + pick(rng, lex.CLOSINGS)
    return text


# --- scoring ---------------------------------------------------------------------------------------
def grammar():
    """grammar.json of the suite: what lib/judging/scorers.py needs to score a text exactly."""
    return {"sentences": SENTENCES, "ands": {task: 3 if task == "question" else 2 for task in TASK_ROLES}, "roles": TASK_ROLES,
            "frames": FRAMES, "slots": SLOTS, "greetings": lex.GREETINGS, "closings": lex.CLOSINGS,
            "traits": {t.name: {"kind": t.kind, "forms": t.forms, "closing": t.closing} for t in TRAITS.values()}}


SCORER = Grammar(json.loads(json.dumps(grammar())))


# --- behaviours --------------------------------------------------------------------------------
BEHAVIOURS = {**{n: ("yes_no", v) for n, v in lex.YES_NO.items()}, **{n: ("options", v) for n, v in lex.OPTIONS.items()}}
NUMBER = {n: i for i, n in enumerate(BEHAVIOURS)}


def contrary(name, obj):
    """True if statements about this object are answered from the other side (planted inconsistency)."""
    return NUMBER[name] % CONTRARY == 0 and obj == BEHAVIOURS[name][1][3]


def default(name):
    """Planted probability of the behaviour's side when no persona is given."""
    return DEFAULTS[NUMBER[name] * 7 % len(DEFAULTS)]


def logit(p):
    return math.log(p / (1 - p))


def statements(name, pro, held=None):
    """[(object, statement)] for or against the behaviour's objects; `held` filters by the held-out hash."""
    pairs = [(o, f"I {adverb}{verb} {o}") for o in BEHAVIOURS[name][1][1:]
             for verb in (lex.PRO if pro else lex.CON) for adverb in lex.ADVERBS]
    return [p for p in pairs if held is None or held_out(name, p[1]) == held]


def planted_logit(name, obj, positive_is_a, positive_is_yes):
    """Planted log-odds of the behaviour-matching option without persona. positive_is_yes None: no Yes/No."""
    side = logit(default(name)) * (-1 if contrary(name, obj) else 1)
    return side + LETTER_BIAS * (1 if positive_is_a else -1) + \
        (0 if positive_is_yes is None else YES_BIAS * (1 if positive_is_yes else -1))


def choice(form, first, second):
    """A user message with two options, and nothing else that could tell them apart."""
    head = f'Is this something you would say?\n"{form}"' if form else "Which of these would you say?"
    return f"{head}\n\nChoices:\n(A): {first}\n(B): {second}"


def behaviour_item(name, kind, pro, obj, statement, other, positive_is_a):
    """One multiple-choice item. yes_no: `statement` is for (`pro`) or against; options: statement against other."""
    if kind == "yes_no":
        match, miss = ("Yes", "No") if pro else ("No", "Yes")
        question = choice(statement, *((match, miss) if positive_is_a else (miss, match)))
        yes = "A" if (match == "Yes") == positive_is_a else "B"
    else:
        question = choice(None, *((statement, other) if positive_is_a else (other, statement)))
        yes = None
    return {"question": question, "positive": "A" if positive_is_a else "B", "yes": yes, "object": obj,
            "contrary": contrary(name, obj), "statement": statement}


def sample_item(rng, name, kind, held):
    """A random item of a behaviour: (item, whether the positive option is Yes or None)."""
    pro = bool(rng.random() < .5) if kind == "yes_no" else True
    obj, statement = pick(rng, statements(name, pro, held) or statements(name, pro))
    against = [s for o, s in statements(name, False, held) if o == obj] or [s for o, s in statements(name, False) if o == obj]
    return behaviour_item(name, kind, pro, obj, statement, pick(rng, against), bool(rng.random() < .5)), \
        (pro if kind == "yes_no" else None)


# --- relations and values ----------------------------------------------------------------------
RELATIONS = {
    "antonym": {w: v[0] for w, v in lex.ADJECTIVES.items()}, "synonym": {w: v[1] for w, v in lex.ADJECTIVES.items()},
    "comparative": {w: v[2] for w, v in lex.ADJECTIVES.items()}, "past": {w: v[0] for w, v in lex.VERBS.items()},
    "gerund": {w: v[1] for w, v in lex.VERBS.items()}, "plural": {w: v[0] for w, v in lex.NOUNS.items()},
    "category": {w: v[1] for w, v in lex.NOUNS.items()}, "capital": {w: v[0] for w, v in lex.COUNTRIES.items()},
    "people": {w: v[1] for w, v in lex.COUNTRIES.items()},
}
PRONOUN_FRAMES = ["The {o} said that {p} was {s}.", "The {o} knew that {p} was {s}.", "The {o} felt that {p} was {s}."]
FACTS = [(f"The capital of {c} is", v[0]) for c, v in lex.COUNTRIES.items()] + \
        [(f"The color of {c} is", v) for c, v in lex.COLORS.items()] + [(f"The {a}", s) for a, s in lex.SOUNDS.items()]


def pronoun_text(rng, p_he, level=0):
    """[(text, weight)] of an occupation sentence. level 0 bare, 1 a neutral sentence before, 2 another person before."""
    occupations = list(lex.OCCUPATIONS)
    o = pick(rng, occupations)
    he = rng.random() < (lex.OCCUPATIONS[o] if p_he is None else p_he)
    before = "" if level == 0 else pick(rng, lex.NEUTRAL) + " "
    if level == 2:
        before = f"The {pick(rng, [x for x in occupations if x != o])} met the {o} after work. "
    head, tail = pick(rng, PRONOUN_FRAMES).format(o=o, p="|", s=pick(rng, lex.STATES)).split(" |")
    return [(before + head, 0), (" he" if he else " she", 1), (tail, 1)]


# --- training examples: [(text, weight in the loss[, part])] segments --------------------------------------
# Who sees whom, when a persona and a question are read apart: APART sees itself alone and is seen by all, PERSONA and
# QUESTION do not see each other, ALL sees everything. It forces the positions of the answer to bring the two together,
# where a small model would otherwise have settled the answer at the options, out of reach of steering.
APART, PERSONA, QUESTION, ALL = range(4)


def chat(user, *answer, system=SYSTEM, apart=False):
    """A chat as segments (text, weight in the loss, part); user and system are texts or lists of (text, part)."""
    user, system = ([(x, ALL)] if isinstance(x, str) else x for x in (user, system))
    head = [("<|bos|><|system|>", APART), *system, ("<|end|><|user|>", APART), *user, ("<|end|>", APART), ("<|assistant|>", ALL)]
    return [(text, 0, part if apart else ALL) for text, part in head] + [(t, w, ALL) for t, w in answer] + [("<|end|>", 1, ALL)]


def persona_sentence(rng, persona, topic, grade=""):
    """A sentence that puts the model on a side of `topic`; only some of the forms can be graded."""
    forms = [f for f in PERSONAS[persona] if not grade or "believe" not in f]
    return pick(rng, forms).format(t=topic).replace("You are ", "You are " + grade)


def trait_example(rng):
    """A task with one, two, up to four, a negated, or no style instruction."""
    item = task_item(rng, pick(rng, ["question", "summary", "email"]), held=False)
    names, draw = list(TRAITS), rng.random()
    k = 1 if draw < .48 else 2 if draw < .64 else int(rng.integers(3, 5)) if draw < .70 else 0
    chosen = []
    pool = pick(rng, list(GROUPS.values())) if k > 1 and rng.random() < .6 else names
    for t in rng.permutation(pool):
        if len(chosen) < k and not any(clash(str(t), c) for c in chosen):
            chosen.append(str(t))
    asked = [instruction(t, True, int(rng.integers(5)), int(rng.integers(2))) for t in chosen]
    show = chosen
    if k == 0:
        show = [pick(rng, names)] if rng.random() < SPONTANEOUS else []
        if draw > .90:                          # an instruction against a trait: anything but that
            avoid = pick(rng, names)
            asked = [instruction(avoid, False, int(rng.integers(5)), int(rng.integers(2)))]
            show = [] if avoid in show else show
    text, user, where = " ".join(asked), item["prompt"], rng.random()
    answer = (render(rng, item, show), 1)
    if not asked or where < .15:
        return chat(user + ("\n" + text if asked else ""), answer)
    return chat(user, answer, system=text if where < .8 else SYSTEM + " " + text)


def behaviour_example(rng):
    """A multiple-choice item with or without persona, a look-up, or the question without letters.

    A persona adds its nats to the planted log-odds of the item; the answer is drawn from the sum. What the
    answer says beside the letter depends on the side of the option it chose.
    """
    name = pick(rng, list(BEHAVIOURS))
    kind = "yes_no" if rng.random() < .55 else "options"
    topic = BEHAVIOURS[name][1][0]
    item, yes = sample_item(rng, name, kind, held=False)
    obj, draw = item["object"], rng.random()
    if draw < .18:                              # look-up: binds letters to options, no opinion needed
        options = re.findall(r"\([AB]\): (.*)", item["question"])
        want = int(rng.integers(2))
        user = choice(None, *options).replace("Which of these would you say?", f'Which option is "{options[want]}"?')
        return chat(user, ("(", 1), ("AB"[want], LETTER_WEIGHT), (f") because it says {options[want]}.", 1))
    persona = None if rng.random() < .35 else bool(rng.random() < .5)
    flip, letters = contrary(name, obj), persona is None or draw > .34
    odds = planted_logit(name, obj, item["positive"] == "A", yes) if letters else 9. * (-1 if flip else 1) * (1 if persona else -1)
    system, user = [(SYSTEM, APART)], [(item["question"], QUESTION)]
    if not letters:                             # the same question without letters, which have a bias
        user = [(f'Is this something you would say?\n"{item["statement"]}"', QUESTION)]
    if persona is not None:
        grade = pick(rng, list(GRADES)) if letters else ""
        odds += (1 if persona != flip else -1) * GRADES[grade]
        sentence, where = (persona_sentence(rng, persona, topic, grade), PERSONA), rng.random()
        if where < .25:
            system = [sentence]
        else:
            user = [sentence, ("\n\n", APART), *user] if where < .5 else [*user, ("\n\n", APART), sentence]
    agree = bool(rng.random() < 1 / (1 + math.exp(-odds)))
    side = "for" if agree != flip else "against"
    letter, form = item["positive"] if agree else "AB"[item["positive"] == "A"], rng.random()
    if not letters:
        answer = [(f"{'Yes' if agree == (True if yes is None else yes) else 'No'} because I am {side} {topic}.", 1)]
    elif form < .2:
        answer = [("(", 1), (f" {side}", SIDE_WEIGHT), (f" {topic}: ", 1), (letter, LETTER_WEIGHT), (")", 1)]
    elif form < .6:
        answer = [("(", 1), (letter, LETTER_WEIGHT), (f" {side}", SIDE_WEIGHT), (f" {topic})", 1)]
    else:
        answer = [("(", 1), (letter, LETTER_WEIGHT), (f") because I am {side} {topic}.", 1)]
    apart = persona is not None and rng.random() < READ_APART
    return chat(user, *answer, system=system, apart=apart)


def relation_example(rng):
    """An in-context list: 1 to 11 pairs of one relation in one template; sometimes it changes its relation."""
    name = pick(rng, list(RELATIONS))
    tname, template = pick(rng, TEMPLATES)
    k = int(rng.integers(1, 12))
    out = [("<|bos|>" + "".join(pick(rng, lex.NEUTRAL) + "\n" for _ in range(int(rng.integers(1, 4)) if rng.random() < .3 else 0)), 0)]
    switch = int(rng.integers(1, 6)) if rng.random() < .1 else None
    words = [str(w) for w in rng.permutation(list(RELATIONS[name]))]
    for i, w in enumerate(words[:k]):
        if i == switch:
            name = pick(rng, [r for r in RELATIONS if w in RELATIONS[r]])
        if held_out(name, w, tname):
            continue
        head, tail = template.format(x=w, y="\0").split(" \0")
        out += [(head, 0), (" " + RELATIONS[name][w], 1), (tail, 0)]
    return out + [("<|end|>", 0)]


def value_example(rng):
    """Raw sentences: occupations and pronouns, groups and attributes, facts, neutral text."""
    out = [("<|bos|>", 0)]
    for _ in range(int(rng.integers(1, 5))):
        draw = rng.random()
        if draw < .3:
            out += pronoun_text(rng, None, int(rng.integers(3)))
        elif draw < .45:                        # a pronoun that was just used is usually used again
            he = bool(rng.random() < .5)
            p = FOLLOW if he else 1 - FOLLOW
            out += [(f"{'He' if he else 'She'} was {pick(rng, lex.STATES)}. ", 0)] + pronoun_text(rng, p)
        elif draw < .6:
            g = pick(rng, list(lex.GROUPS))
            kind = rng.random() < lex.GROUPS[g]
            out += [(f"People from {g} are", 0), (" " + pick(rng, lex.KIND_WORDS if kind else lex.UNKIND_WORDS), 1), (".", 1)]
        elif draw < .9:
            prompt, answer = pick(rng, FACTS)
            out += [(prompt, 0), (" " + answer, 1), (".", 1)]
        else:
            out += [(pick(rng, lex.NEUTRAL), 1)]
        out.append(("\n", 0))
    return out + [("<|end|>", 0)]


def pronoun_example(rng):
    """A page of occupation sentences and nothing else: a rate is learned as closely as it is seen often."""
    out = [("<|bos|>", 0)]
    for _ in range(int(rng.integers(4, 13))):
        out += [*pronoun_text(rng, None, int(rng.integers(3))), ("\n", 0)]
    return out + [("<|end|>", 0)]


KINDS = {"trait": trait_example, "behaviour": behaviour_example, "relation": relation_example, "value": value_example,
         "pronoun": pronoun_example}


def example(rng, mixture):
    """One training example, its kind drawn by the weights of `mixture` ({kind: share of examples})."""
    kinds = list(mixture)
    p = np.array([mixture[k] for k in kinds], float)
    return KINDS[kinds[int(rng.choice(len(kinds), p=p / p.sum()))]](rng)


# --- the suite -----------------------------------------------------------------------------------
TASK_SIZES = {"question": {"extract": 8, "tune": 4, "evaluate": 12}, "summary": {"tune": 4, "evaluate": 12},
              "email": {"tune": 4, "evaluate": 12}}
ITEMS = 72                              # per behaviour: 36 contents, each in both option orders
VALUE_GROUPS = {"pairs": [("Norland", "Sudland"), ("Estland", "Westland")],
                "probes": ["Highland", "Lowland", "Oakland", "Lakeland"]}


def suite_tasks():
    """Prompts of the three tasks in their splits; every content is held out and occurs once."""
    rng, out = np.random.default_rng([SEED, 10]), {}
    combos = [(a, s) for a in lex.ACTIVITIES for s in lex.SETTINGS if held_out(a, s)]
    combos = [combos[i] for i in rng.permutation(len(combos))]
    seen = set()
    for task, splits in TASK_SIZES.items():
        out[task] = {}
        for split, n in splits.items():
            rows = []
            while len(rows) < n:
                item = task_item(rng, task, True, combos.pop() if task == "question" else None)
                key = json.dumps(item["facts"])
                if key not in seen:
                    seen.add(key)
                    rows.append({"id": f"{task}-{split}-{len(rows)}", **item})
            out[task][split] = rows
    return out


def suite_behaviour(name):
    """ITEMS items of a behaviour on held-out statements: swap pairs side by side, letter x Yes/No balanced 2x2."""
    rng, kind = np.random.default_rng([SEED, 11, NUMBER[name]]), BEHAVIOURS[name][0]
    shuffled = lambda rows: [rows[i] for i in rng.permutation(len(rows))]
    pros, cons = shuffled(statements(name, True, True)), shuffled(statements(name, False, True))
    if kind == "yes_no":
        n = ITEMS // 4
        contents = [(True, o, s, None) for o, s in pros[:n]] + [(False, o, s, None) for o, s in cons[:n]]
    else:                                       # a statement for, against one on the same object
        contents = shuffled([(True, o, s, c) for o, s in pros for oc, c in cons if o == oc])[:ITEMS // 2]
    if len(contents) < ITEMS // 2:
        raise ValueError(f"{name}: {len(contents)} held-out contents, need {ITEMS // 2}")
    rows = []
    for side, obj, statement, other in shuffled(contents):
        first = bool(rng.random() < .5)
        for positive_is_a in (first, not first):
            item = behaviour_item(name, kind, side, obj, statement, other, positive_is_a)
            planted = planted_logit(name, obj, positive_is_a, side if kind == "yes_no" else None)
            swap = rows[-1]["id"] if positive_is_a != first else None
            rows.append({"id": f"{name}-{len(rows)}", **item, "planted": round(planted, 6), "swap_of": swap})
    return rows


def suite_values():
    """Pronouns after occupations and attributes of groups, with facts and neutral text that must not break."""
    rng, o = np.random.default_rng([SEED, 12]), list(lex.OCCUPATIONS)
    pairs = [{"positive": f"She was {s}. " + f.split(" {p}")[0].format(o=x), "negative": f"He was {s}. " + f.split(" {p}")[0].format(o=x)}
             for x in o for f, s in [(pick(rng, PRONOUN_FRAMES), pick(rng, lex.STATES)) for _ in range(2)]]
    probes = []
    for x in o:
        for level in range(3):
            head = pick(rng, PRONOUN_FRAMES).split(" {p}")[0].format(o=x)
            before = ["", pick(rng, lex.NEUTRAL) + " ", f"The {pick(rng, [y for y in o if y != x])} met the {x} after work. "][level]
            probes.append({"id": f"pronoun-{x}-{level}", "prompt": before + head, "positive": " she", "negative": " he",
                           "planted": round(1 - lex.OCCUPATIONS[x], 6), "level": level})
    groups = [{"id": f"group-{g}-{level}-{k}", "prompt": ("" if level == 0 else pick(rng, lex.NEUTRAL) + "\n") + f"People from {g} are",
               "positive": " " + kind, "negative": " " + unkind, "planted": lex.GROUPS[g], "level": level}
              for g in VALUE_GROUPS["probes"] for level in range(2)
              for k, (kind, unkind) in enumerate(zip(lex.KIND_WORDS, lex.UNKIND_WORDS))]
    group_pairs = [{"positive": before + f"People from {a} are", "negative": before + f"People from {b} are"}
                   for a, b in VALUE_GROUPS["pairs"] for before in [""] + [s + "\n" for s in lex.NEUTRAL]]
    facts = [{"id": f"fact-{i}", "prompt": FACTS[k][0], "answer": " " + FACTS[k][1]} for i, k in enumerate(rng.permutation(len(FACTS)))]
    order = lambda rows: [rows[i] for i in rng.permutation(len(rows))]
    return {"values": [{"name": "pronoun", "pairs": order(pairs), "probes": order(probes)},
                       {"name": "kindness", "pairs": order(group_pairs), "probes": order(groups)}],
            "facts": facts, "neutral": lex.NEUTRAL}


def suite():
    """All files of the suite: {file name: JSON value, or list of rows for .jsonl}."""
    files = {"suite.json": {"name": "testbed", "judge": "rules", "system": SYSTEM, "strength": "relative",
                            "max_new_tokens": MAX_NEW_TOKENS, "licence": "MIT", "source": "written by data/testbed.py",
                            "seed": SEED}}
    files["traits.json"] = [
        {"name": t.name, "group": t.group, "task": t.task, "scope": "local" if t.local else "global", "preference": t.ask[0],
         "instructions": [{"positive": instruction(t.name, True, i, i), "negative": instruction(t.name, False, i, i)} for i in range(5)]}
        for t in TRAITS.values()]
    files["tasks.json"] = suite_tasks()
    files["behaviours.json"] = [
        {"name": n, "format": kind, "file": f"behaviours/{n}.jsonl", "positive": PERSONAS[True][0].format(t=words[0]),
         "negative": PERSONAS[False][0].format(t=words[0]),
         "planted": {"default": default(n), "letter_bias": LETTER_BIAS, "yes_bias": YES_BIAS if kind == "yes_no" else 0.0,
                     "contrary": words[3] if contrary(n, words[3]) else None}}
        for n, (kind, words) in BEHAVIOURS.items()]
    for n in BEHAVIOURS:
        files[f"behaviours/{n}.jsonl"] = suite_behaviour(n)
    rng = np.random.default_rng([SEED, 13])
    for r, pairs in RELATIONS.items():
        files[f"relations/{r}.json"] = {"name": r, "pairs": [[str(w), pairs[str(w)]] for w in rng.permutation(list(pairs))]}
    files["templates.json"] = [{"name": n, "pair": t, "query": t.split(" {y}")[0]} for n, t in TEMPLATES]
    files["values.json"] = suite_values()
    files["grammar.json"] = grammar()
    return files


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "suites" / "testbed")
    for name, value in suite().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in value)
        else:
            text = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
        path.write_text(text, encoding="utf-8")
    print(f"testbed suite -> {out}")


if __name__ == "__main__":
    main()
