"""Probe: does a model do what the engine takes for granted? Some twenty short passes when it is loaded.

The engine reads prompts that are padded on the right, steers copies or branches of a cached prefix, and generates
answers to prompts padded on the left. Each of these is held to a plain pass: one prompt, whole, without a cache, on
random tokens and in the model's own dtype. A path that disagrees is left for one that agrees, which is slower; where
none does, the model is refused in one line.

    lm.copies    copies of a cache, else whole prompts      (RWKV does not take the cache)
    lm.steps     copies go on by single tokens              (Mamba, Jamba)
    lm.branches  branches side by side, else copies         (ALiBi, recurrent layers)
    lm.skips     branches begin at the first block that is steered, else at the first of all
    lm.pads      answers in padded batches, else of equal lengths    (recurrent states that the pads change)
    lm.keeps     answers with a cache, else without
    refused      a later token, a neighbour or a pad changes a state (encoders); values that are not finite
"""
import math
from contextlib import contextmanager

import numpy as np
import torch

from lib import engine, passes
from lib.artifacts import UserError
from lib.hooks import capture, steer

ROUNDING = {torch.float32: 1e-4, torch.float16: 2e-2}     # of the largest value; bfloat16 has 8 bits
COARSE = 1e-1
STRENGTH = 0.5     # of a block's output: what the rows of the probe add
NEW = 3            # tokens of the answers compared


@torch.inference_mode()
def check(lm):
    """Hold every path of the engine to plain passes and set what `lm` does without.

    returns  lm
    Raises UserError, in one line that begins with the model's name, if it cannot be measured.
    """
    try:
        _check(lm)
    except UserError:
        raise
    except Exception as error:     # models fail in ways of their own
        raise UserError(f"{lm.name}: a short plain pass fails: {_line(error)}") from error
    return lm


def _check(lm):
    long, other, short = _tokens(lm)
    _shapes(lm, short)
    batch = [long, long[:5] + other[5:], short]
    together, alone, shorter = (_states(lm, ids) for ids in (batch, [long], [short]))
    logits = plain(lm, [long, other])
    if not (torch.isfinite(together).all() and torch.isfinite(alone).all() and torch.isfinite(logits).all()):
        raise UserError(f"{lm.name}: a plain pass gives values that are not finite: {_suspect(lm)}")
    if not (logits - logits.mean(-1, keepdim=True)).any():
        raise UserError(f"{lm.name}: all tokens are equally likely after every prompt: {_suspect(lm)}")
    if not same(lm, together[1, :5], together[0, :5]):
        raise UserError(f"{lm.name}: a later token changes an earlier state: not a causal language model")
    if not same(lm, together[0], alone[0]):
        raise UserError(f"{lm.name}: the other prompts of a batch change the states of a prompt")
    if not same(lm, together[2, :len(short)], shorter[0]):
        raise UserError(f"{lm.name}: pads on the right change the states of a prompt")

    first, middle = _rows(lm, alone)
    rows = [(), first + middle]
    steered = plain(lm, [long, other], rows[1:] * 2, 2)
    steered = torch.stack([logits[:, -1], steered[:, -1]], dim=1)     # (prompt, row, V)
    for lm.copies, lm.steps in ((True, False), (True, True), (False, False)):
        if agrees(lm, passes.as_batch, [long, other], rows, steered):
            break
    else:
        raise UserError(f"{lm.name}: rows steered in one batch differ from prompts steered alone")
    lm.branches = passes.may_branch(lm)
    if lm.branches:
        want = torch.stack([steered[0], plain(lm, [short] * 2, rows, 2)[:, -1]])
        lm.branches = agrees(lm, passes.side_by_side, [long, short], rows, want)
        want = torch.stack([plain(lm, [ids], [middle], 2)[:, -1].expand(3, -1) for ids in (long, short)])
        lm.skips = lm.branches
        lm.skips = lm.branches and agrees(lm, passes.side_by_side, [long, short], [middle] * 3, want)     # three: it pays
    for lm.pads, lm.keeps in ((True, True), (False, True), (True, False), (False, False)):
        if _generates(lm, [long, other, short], [first, middle, first]):
            break
    else:
        raise UserError(f"{lm.name}: generation by transformers follows other probabilities than plain passes do")


def paths(lm):
    """The paths that a model takes, in words."""
    window = passes.window(lm)
    words = ("branches" + (f" up to {window} tokens, then copies" if window < math.inf else "") if lm.branches else
             "whole prompts" if not lm.copies else "copies, by single tokens" if lm.steps else "copies")
    return (words + ("" if lm.pads else "; answers in batches of one length")
            + ("" if lm.keeps else "; no cache in answers"))


def plain(lm, ids, rows=None, last=1):
    """(prompt, token, vocabulary) float32 logits of whole prompts of one length without a cache, the last tokens of
    prompt i steered by row i."""
    with steer(lm.layers, passes.stacked(lm, rows or [()] * len(ids)), last):
        return lm.model(input_ids=torch.tensor(ids, device=lm.device), use_cache=False).logits.float()


def same(lm, found, want):
    """Equal up to rounding? For every layer of (..., layer, d), by its own largest value: those of the layers and of
    a few massive dimensions differ by orders of magnitude."""
    found, want = found.cpu(), want.cpu()
    of_layer = [i for i in range(want.ndim) if i != want.ndim - 2]
    bound = ROUNDING.get(lm.model.dtype, COARSE) * want.abs().amax(of_layer)
    return bool(((found - want).abs().amax(of_layer) <= bound).all())      # nan is never within a bound


def agrees(lm, path, prompts, rows, want):
    """Whether a path of lib.passes, steering the last two tokens, gives the logits `want` (prompt, row, V)."""
    prefixes, suffixes = zip(*((ids[:-2], ids[-2:]) for ids in prompts))
    try:
        (_, found), = path(lm, list(prefixes), list(suffixes), rows, len(rows), 1)
    except Exception:        # a mask, positions or a cache that the model does not take, each in its own words
        return False
    return same(lm, found[:, :, 0].flatten(0, 1)[:, None], want.flatten(0, 1)[:, None])


def _generates(lm, prompts, rows):
    """Whether the answers come from the probabilities of plain passes, step by step, prompt i under row i."""
    seen = {}

    def watch(ids, logits):
        for line, values in zip(ids.tolist(), logits.float().cpu()):
            seen.update({(i, step): values for i, prompt in enumerate(prompts) for step in range(NEW)
                         if line[len(line) - step - len(prompt):len(line) - step] == prompt})
        return logits

    with _put_out(lm.layers[:1]) as shapes:
        try:
            answers = engine.generate_ids(lm, prompts, rows, NEW, watch=watch)
        except Exception:
            return False
    if lm.keeps and shapes[-1][1] > 1:     # no cache after all: then only the newest token would be steered
        return False
    for i, (prompt, row, answer) in enumerate(zip(prompts, rows, answers)):
        fed = answer[:NEW - 1]
        want = plain(lm, [prompt + fed], [row], 1 + len(fed))[0, len(prompt) - 1:].cpu()
        found = torch.stack([seen[i, step] for step in range(1 + len(fed))])
        if not same(lm, found[:, None], want[:, None]):
            return False
    return True


def _tokens(lm):
    """Three lists of 9, 9 and 7 different token ids, none of them special; the last begins as the first does, for what
    a batch runs once."""
    config = lm.model.config
    special = {value for key, value in [*vars(config).items(), *vars(config.get_text_config(decoder=True)).items()]
               if key.endswith(("_token_id", "_token_index")) and isinstance(value, int)}
    special |= {*lm.eos, *getattr(lm.tokenizer, "all_special_ids", ())}
    size = min(lm.model.get_input_embeddings().weight.shape[0], len(lm.tokenizer) if lm.tokenizer else 2**31)
    usual = [i for i in np.random.default_rng(0).permutation(size).tolist() if i not in special]
    head, needed = passes.SHARED, 25 - passes.SHARED
    if len(usual) < needed:
        raise UserError(f"{lm.name}: {len(usual)} tokens that are not special, expected {needed} at least")
    return usual[:9], usual[9:18], usual[:head] + usual[18:needed]


def _states(lm, sequences):
    """(prompt, token, layer, d) float32 outputs of all blocks, the prompts padded on the right."""
    ids = passes.right_padded(lm, sequences)
    entries, positions = (where.flatten() for where in torch.meshgrid(*map(torch.arange, ids.shape), indexing="ij"))
    with capture(lm.layers, entries, positions) as kept:
        passes.right_padded_pass(lm, ids, use_cache=False)
    return torch.stack([layer.cpu() for layer in kept], dim=1).unflatten(0, ids.shape)


def _shapes(lm, ids):
    """UserError if a block puts out something else than the states of every token."""
    with _put_out(lm.layers) as found:
        passes.right_padded_pass(lm, passes.right_padded(lm, [ids]), use_cache=False)
    for shape in found:
        if shape != (1, len(ids), lm.d_model):
            raise UserError(f"{lm.name}: a block puts out {shape}, expected (batch, token, d_model), here "
                            f"{(1, len(ids), lm.d_model)}")
    if len(found) != lm.n_layers:
        raise UserError(f"{lm.name}: one pass ran {len(found)} blocks, expected each of its {lm.n_layers} once")


@contextmanager
def _put_out(layers):
    """Yields a list that fills with the shapes of what the layers put out."""
    def note(_module, _args, output):
        first = output[0] if isinstance(output, (tuple, list)) and output else output
        shapes.append(tuple(getattr(first, "shape", ())))

    shapes = []
    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        yield shapes
    finally:
        for handle in handles:
            handle.remove()


def _rows(lm, states):
    """Two rows, at the first and at the middle layer, half as strong as the states there."""
    rng, rows = np.random.default_rng(1), []
    for layer in (0, lm.n_layers // 2):
        vector = rng.standard_normal(lm.d_model)
        norm = float(states[0, :, layer].norm(dim=-1).mean())
        rows.append(((layer, STRENGTH * norm / np.linalg.norm(vector) * vector),))
    return rows


def _suspect(lm):
    """The first tensor of the weights that explains what a pass gave, in words."""
    named = list(lm.model.named_parameters())
    for wrong, says in ((lambda w: not torch.isfinite(w).all(), "is not finite"),
                        (lambda w: w.ndim > 1 and not w.any(), "is all zero")):
        for name, weight in named:
            if wrong(weight):
                return f"{name} of its weights {says}"
    return f"its weights are finite, so {lm.identity.get('dtype', lm.model.dtype)} is too narrow for it"


def _line(error):
    """An error of someone else's as part of one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
