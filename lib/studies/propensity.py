"""Propensity: how much rather a model opens its answer with the letter of the positive option.

    m = logit(positive letter) - logit(negative letter)                                          nats

at the first token in which "(A)" and "(B)" differ. Where that token stands depends on the tokenizer, and where a
model has its letters on the model, so the read-out is found (`find`), and m is read where the two letters hold most
of the probability. Rows (see lib.hooks) act from the last prompt token on, so that what stands between prompt and
letter is steered with it. Source: Tan et al. 2024, arXiv 2407.12404.
"""
from dataclasses import asdict, dataclass, replace

import numpy as np

from lib import engine, suite as suites
from lib.artifacts import UserError

# --- settings that change the numbers -----------------------------------------------------------------------
N_PROMPTS = 32           # tuning prompts per format on which the probability of the letters is measured
# A model that writes neither letter in nine of ten answers is not asked for a choice: m would be the odds of
# something that it hardly does. The smoke profile asks whether the code runs, on models that have no letters at all.
LEAST_MASS = {"full": 0.1, "quick": 0.1, "smoke": 0.0}
INNER = 0.5              # multipliers up to this size are in every slope, which three points carry
# ------------------------------------------------------------------------------------------------------------
BEHIND = ("\n", "x", ">", ".", "]")      # where a text is tokenised if the prompt's end would merge with it


@dataclass(frozen=True)
class ReadOut:
    """Where the letters are read: "open", the prompt as it is; "bracket", behind "("; "published", behind " (".

    prefix   ids appended to a prompt
    letters  ids of A and of B; close: id of what closes the bracket behind them, None where they do it themselves
    mass     {format: mean probability of the two letters on tuning prompts, given the prefix}
    masses   that of every candidate, by name"""
    name: str
    prefix: tuple
    letters: tuple
    close: int | None
    mass: dict = None
    masses: dict = None

    @property
    def suffix(self):
        """How many tokens at the end of a prompt are steered: its own last one, and the prefix."""
        return 1 + len(self.prefix)

    def config(self, profile):
        """What of it decides numbers, for a manifest's config; the masses are results."""
        low = [fmt for fmt, mass in self.mass.items() if mass < LEAST_MASS[profile]]
        return {"name": self.name, "prefix": self.prefix, "letters": self.letters, "close": self.close,
                "suffix": self.suffix, "least_mass": LEAST_MASS[profile], "not_testable": low}


# --- finding it ---------------------------------------------------------------------------------------------
def candidates(lm):
    """[ReadOut, ...] that the tokenizer allows, without masses; those that come to the same ids are one.

    Every id is held to the text: prefix and letter read "(A" or " (A", and the tokens of A and B differ in the
    letter alone. UserError if there is none."""
    end, found = lm.template.text("Be brief.", "Is it so?\n\nChoices:\n(A): Yes\n(B): No"), {}
    for name, forced in (("open", ""), ("bracket", "("), ("published", " (")):
        written = [lm.continuation(at, forced) for at in (end, *BEHIND)] if forced else [()]
        prefix = next((ids for ids in written if ids is not None), None)
        got = None if prefix is None else _letters(lm, end, forced, prefix)
        if got:
            found[got[:2]] = ReadOut(name, *got)
    if not found:
        raise UserError(f"{lm.name}: the tokenizer has no tokens for the letters in '(A)' and '(B)'")
    return list(found.values())


def _letters(lm, end, forced, prefix):
    """(prefix, letters, close) where "(A)" and "(B)" part behind the forced text; None where they cannot be told
    apart.

    As the tokenizer writes the whole, if that begins with the prefix; else with what follows as a text of its own."""
    def both(text):
        return [[lm.continuation(at, text.format(letter)) for letter in "AB"] for at in (end, *BEHIND)]
    rest = [[ids and [*prefix, *ids] for ids in pair] for pair in both("{})")] if forced else []
    for a, b in both((forced or "(") + "{})") + rest:
        k = next((k for k, (x, y) in enumerate(zip(a or (), b or ())) if x != y), None)
        if k is not None and a[:len(prefix)] == list(prefix) and a[k + 1:] == b[k + 1:] and len(a) <= k + 2:
            return tuple(a[:k]), (a[k], b[k]), (a[k + 1] if len(a) > k + 1 else None)
    return None


def sample(suite, fmt, n=N_PROMPTS):
    """[(behaviour, item), ...] of one format: n tuning items at most, half of them with positive option A,
    the first of every behaviour before the second of any."""
    behaviours = [(b, suites.split(b["items"], "tune")) for b in suite.behaviours if b["format"] == fmt]
    columns = [[[(b, item) for item in items if item["positive"] == letter] for b, items in behaviours]
               for letter in "AB"]
    ranked = [[column[r] for r in range(max(map(len, side), default=0)) for column in side if r < len(column)]
              for side in columns]
    half = min(n // 2, *map(len, ranked))
    return [*ranked[0][:half], *ranked[1][:half]] if half else sum(ranked, [])[:n]


def find(lm, suite, n=N_PROMPTS):
    """The ReadOut with the largest mean mass over the formats of the suite's behaviours, from n prompts of each; None
    without behaviours."""
    formats = sorted({b["format"] for b in suite.behaviours})
    if not formats:
        return None
    tried, masses = candidates(lm), {}
    tokens = sorted({token for one in tried for token in one.letters})
    for fmt in formats:
        prompts = [lm.chat(*suites.behaviour_prompts(suite, b, item, "BASE")) for b, item in sample(suite, fmt, n)]
        got = engine.after_endings(lm, prompts, [one.prefix for one in tried], tokens)
        p = np.exp(got["logits"].astype(np.float64) - got["logsumexp"][..., None]).mean(axis=0)   # (candidate, token)
        for row, one in zip(p, tried):
            masses.setdefault(one.name, {})[fmt] = round(float(sum(row[tokens.index(i)] for i in one.letters)), 4)
    best = max(tried, key=lambda one: sum(masses[one.name].values()))          # the first of equals
    return replace(best, mass=masses[best.name], masses=masses)


def read_out(extract):
    """The ReadOut that stage 01 (its Artifact) found; None where the suite has no behaviours."""
    kept = extract.config["read_out"]
    return kept and ReadOut(kept["name"], tuple(kept["prefix"]), tuple(kept["letters"]), kept["close"],
                            **extract.results["read_out"])


def testable(suite, found):
    """(suite without the behaviours of formats in which the letters hold too little, {key: reason})."""
    if found is None:
        return suite, {}
    least = LEAST_MASS[suite.profile]
    low = {fmt: f"the letters hold {mass:.3f} of the probability at best, less than {least}"
           for fmt, mass in found.mass.items() if mass < least}
    kept = [b for b in suite.behaviours if b["format"] not in low]
    reasons = {f"behaviours.{fmt}": reason for fmt, reason in low.items()}
    return replace(suite, behaviours=kept), reasons if kept else {"behaviours": "; ".join(sorted(set(low.values())))}


def told(lm, found):
    """The masses in a line."""
    each = [f"{name} " + "/".join(f"{mass:.3f}" for mass in by.values()) for name, by in found.masses.items()]
    text = lm.tokenizer.convert_ids_to_tokens([*found.prefix, *found.letters])
    return f"read-out {found.name}, {' '.join(text)}; of the probability ({'/'.join(found.mass)}): {', '.join(each)}"


# --- reading ------------------------------------------------------------------------------------------------
def ask(lm, found, suite, behaviour, items, setting="BASE"):
    """(prompts, letters) of items in one prompt setting (lib.suite.SETTINGS) for ReadOut `found`.

    prompts  token ids up to the letter; letters (item, 2): token ids of the positive and the negative letter"""
    prompts = [lm.chat(*suites.behaviour_prompts(suite, behaviour, item, setting)) + list(found.prefix)
               for item in items]
    return prompts, np.array([found.letters if item["positive"] == "A" else found.letters[::-1] for item in items])


def propensities(lm, found, suite, behaviour, items, rows, setting="BASE"):
    """(m, mass) of every item under every row, both (item, row) float64: m in nats, and the probability that the two
    letters hold together."""
    prompts, letters = ask(lm, found, suite, behaviour, items, setting)
    got = engine.sweep(lm, prompts, rows, letters, suffix=found.suffix)
    logits = got["logits"].astype(np.float64)
    return logits[..., 0] - logits[..., 1], np.exp(logits - got["logsumexp"][..., None]).sum(axis=-1)


def closings(lm, found, suite, behaviour, items, rows):
    """(item, row) float64, nats: logit of what closes "(A)" behind the positive letter minus behind the negative one,
    the letter steered too; 0 where the letter's token closes it. The released code adds the raw logits of all tokens
    of "(A)": m + this."""
    if found.close is None:
        return np.zeros((len(items), len(rows)))
    prompts, letters = ask(lm, found, suite, behaviour, items)
    positive, negative = (
        engine.sweep(lm, [prompt + [int(letter)] for prompt, letter in zip(prompts, column)], rows,
                     np.array([found.close]), suffix=found.suffix + 1)["logits"][..., 0].astype(np.float64)
        for column in letters.T)
    return positive - negative


# --- the window in which a model still answers --------------------------------------------------------------
def windowed(curves, mass, multipliers, profile):
    """curves (item, ..., multiplier) with nan at the points where the letters' mean mass (..., multiplier) over the
    items is below LEAST_MASS: the model writes something else there, and m is the odds of what it hardly does. INNER
    multipliers stay."""
    return np.where(answered(mass, profile) | (np.abs(multipliers) <= INNER), curves, np.nan)


def answered(mass, profile):
    return np.asarray(mass) >= LEAST_MASS[profile]


def window(mass, multipliers, profile):
    """How much lies outside, from the mean masses (behaviour, ..., multiplier): {"cut" share of the points that slopes
    leave out, "behaviours" with such a point, "outside": with an inner point where the model does not answer, which
    stays in the slope}."""
    lost, inner = ~answered(mass, profile), np.abs(multipliers) <= INNER
    lost = lost.reshape(len(lost), -1, len(inner))
    return {"cut": float((lost & ~inner).mean()), "behaviours": int((lost & ~inner).any(axis=(1, 2)).sum()),
            "outside": int((lost & inner).any(axis=(1, 2)).sum())}
