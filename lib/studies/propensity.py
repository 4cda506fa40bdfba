"""Propensity: how much rather a model opens its answer with the letter of the positive option.

    m = logit(positive letter) - logit(negative letter)                                          nats

at the end of a prompt that stops behind the opening bracket, "... (". Rows (see lib.hooks) act from the last prompt
token on, so the bracket is steered with it. Source: Tan et al. 2024, arXiv 2407.12404.
"""
import numpy as np

from lib import engine, suite as suites


def ask(lm, suite, behaviour, items, setting="BASE"):
    """(prompts, letters, suffix) of items in one prompt setting (lib.suite.SETTINGS).

    prompts  token ids up to and with the opening bracket; letters (item, 2): token ids of the positive and the negative
    letter; suffix: how many tokens at the end of a prompt are steered. UserError if A and B are not one token each."""
    letters, bracket = lm.letter_ids(), lm.tokens("(")
    prompts = [lm.chat(*suites.behaviour_prompts(suite, behaviour, item, setting)) + bracket for item in items]
    return (prompts, np.array([letters if item["positive"] == "A" else letters[::-1] for item in items]),
            1 + len(bracket))


def propensities(lm, suite, behaviour, items, rows, setting="BASE"):
    """(item, row) float64, nats: m of every item under every row."""
    prompts, letters, suffix = ask(lm, suite, behaviour, items, setting)
    logits = engine.sweep(lm, prompts, rows, letters, suffix=suffix)["logits"].astype(np.float64)
    return logits[..., 0] - logits[..., 1]


def closings(lm, suite, behaviour, items, rows):
    """(item, row) float64, nats: logit of what closes "(A)" behind the positive letter minus behind the negative one,
    the letter steered too. The released code adds the raw logits of all tokens of "(A)": m + this."""
    prompts, letters, suffix = ask(lm, suite, behaviour, items)
    close = lm.tokens("(A)")[suffix]                       # the token behind bracket and letter
    positive, negative = (
        engine.sweep(lm, [prompt + [int(letter)] for prompt, letter in zip(prompts, column)], rows, np.array([close]),
                     suffix=suffix + 1)["logits"][..., 0].astype(np.float64) for column in letters.T)
    return positive - negative
