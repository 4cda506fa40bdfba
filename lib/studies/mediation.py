"""Causal mediation by attention heads: which heads carry a task, and the vector that they add up to.

Function vectors (Todd et al. 2024, arXiv 2310.15213): the mean output of a head over clean in-context lists is put in
place of its output at the last token of a list with shuffled answers; how far that raises the probability of the right
answer is the head's effect. The vector is the sum of the mean outputs of the heads with the largest effects.

A head's output is the part of the input of the attention's output projection that belongs to it, times its columns of
the projection. The projection's bias belongs to no head and is left out (their code counts it once per head). Only the
last token is patched, so a list is run once and every head is one more token behind its cache: heads are rows of a
batch, n_layers * n_heads tokens per list.
"""
import numpy as np
import torch
from transformers.pytorch_utils import Conv1D

from lib import engine
from lib.artifacts import UserError
from lib.hooks import Place

SAMPLE = [[6, 7, 8]]     # token ids of the pass that shows which projection comes last


def projections(lm):
    """The Place of all heads: inputs of the attention's output projections, one per layer.

    The output projection (self_attn.o_proj of Llama, attn.c_proj of GPT-2, attention.dense of GPT-NeoX, ...) is found
    by what it does: in the outermost module of a block whose class is an attention, the last map to be run, from one
    part per head to the width of the model. UserError if a layer has none, or one that is no plain linear map of
    n_heads equal parts."""
    heads = getattr(lm.model.config.get_text_config(decoder=True), "num_attention_heads", None)
    found = []
    for number, (attention, maps) in enumerate(zip(*_run_in(lm))):
        if not maps or not heads:
            raise UserError(f"{lm.name}: layer {number} has no attention output projection (looked for a linear map "
                            "in an attention module, as self_attn.o_proj is)")
        name, module = maps[-1]
        if not isinstance(module, (torch.nn.Linear, Conv1D)):
            raise UserError(f"{lm.name}: {attention}.{name} of layer {number} is a {type(module).__name__}, "
                            "expected Linear or Conv1D")
        if _matrix(module).shape[1] != lm.d_model:
            raise UserError(f"{lm.name}: {attention}.{name} of layer {number} puts out {_matrix(module).shape[1]} "
                            f"values, expected {lm.d_model}")
        found.append(module)
    widths = {_matrix(module).shape[0] for module in found}
    if len(widths) > 1 or min(widths) % heads:
        raise UserError(f"{lm.name}: output projections take {sorted(widths)} values, expected one number that is a "
                        f"multiple of {heads} heads")
    return Place(found, widths.pop(), True)


def _run_in(lm):
    """(names of the blocks' attention modules or None, [(name, module)] of the maps run in each, in their order)."""
    names, maps, handles = [], [], []
    for layer in lm.layers:
        outer = [(name, module) for name, module in layer.named_modules()
                 if type(module).__name__.endswith(("Attention", "AttentionSDPA")) and name]
        name, attention = min(outer, key=lambda item: item[0].count("."), default=(None, None))
        names.append(name), maps.append([])
        for inner, module in attention.named_modules() if attention is not None else ():
            if getattr(module, "weight", None) is not None and module.weight.ndim > 1:
                note = lambda *_, into=maps[-1], item=(inner, module): into.append(item)
                handles.append(module.register_forward_hook(note))
    try:
        engine.read(lm, SAMPLE)
    finally:
        for handle in handles:
            handle.remove()
    return names, maps


def n_heads(lm):
    return lm.model.config.get_text_config(decoder=True).num_attention_heads


def _matrix(module):
    """The weights of a projection as (input, output)."""
    return module.weight if isinstance(module, Conv1D) else module.weight.T


def part(lm, place, head):
    """Where a head's values lie in the input of the projection."""
    size = place.width // n_heads(lm)
    return slice(head * size, (head + 1) * size)


def effects(lm, place, means, prompts, tokens):
    """Average indirect effect of every head: (layer, head) float64, change of probability.

    means    (layer, width) mean inputs of the projections at the last token of clean lists
    prompts  token ids of lists with shuffled answers; tokens their right answers"""
    rows = [()]
    for layer in range(len(place.modules)):
        for head in range(n_heads(lm)):
            vector = np.full(place.width, np.nan, np.float32)
            vector[part(lm, place, head)] = means[layer, part(lm, place, head)]
            rows.append(((layer, vector),))
    found = engine.sweep(lm, prompts, rows, np.asarray(tokens)[:, None], place=place)
    p = np.exp(found["logits"][..., 0].astype(np.float64) - found["logsumexp"])
    return (p[:, 1:] - p[:, :1]).mean(axis=0).reshape(len(place.modules), n_heads(lm))


def strongest(effects, n):
    """[(layer, head)] of the n largest effects, largest first; all if there are fewer."""
    order = np.argsort(-effects, axis=None, kind="stable")[:n]
    return [tuple(int(i) for i in np.unravel_index(k, effects.shape)) for k in order]


def head_sum(lm, place, means, heads):
    """(d,) float32: sum of the mean outputs of [(layer, head)], without the projection's bias."""
    total = np.zeros(lm.d_model, np.float32)
    for layer, head in heads:
        where = part(lm, place, head)
        total += means[layer, where] @ _matrix(place.modules[layer])[where].float().cpu().numpy()
    return total
