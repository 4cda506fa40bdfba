"""Passes: how prompts and rows become calls of a model: caches, branches of one prefix, batches that fit the memory.

Rows that share a prefix are branches: copies of the suffix side by side at the *same* position ids, under a mask that
lets each copy see the prefix and itself only (`side_by_side`). Models whose attention cannot take such a mask (ALiBi,
recurrent layers) and prompts longer than a sliding window get copies of the cache as rows of a batch (`as_batch`):
slower, the same numbers. lib.probe finds which of these a model takes.
"""
import copy
import inspect
import math
import re
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lib.artifacts import UserError
from lib.hooks import checked, patch, stack, standing, steer

CPU_BUDGET = 1.5 * 2**30     # bytes of working memory per batch on a CPU; on a GPU half of what is free
CPU_TOKENS = 2048            # tokens per pass on a CPU: more only falls out of its caches
SPREAD = 0.7                 # shortest over longest prompt of a batch: a shorter one would be mostly padding
# How allocators say that memory is out: CPU, CUDA and HIP, cuBLAS and cuDNN, MPS. Not all raise an error of their own.
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|_ALLOC_FAILED|_OUT_OF_MEMORY|bad allocation|"
                       r"bad_alloc|failed to allocate", re.I)
BRANCH_TOKENS = 256          # suffix tokens side by side in one pass: their mask grows with the square
PIECES, FEW = 8, 32          # passes that the rows of a sweep over layers are cut into, and the least that one is worth
SHARED = 4                   # tokens that all prefixes of a batch begin with, from which on these are run once
KEPT = 1.5 * 2**30           # bytes of prefixes that `kept` holds; what does not fit is run again

_kept = None                 # inside `kept`: {prefix: (per layer the keys and values of its batch, its row there)}


# --- branches of a shared prefix ------------------------------------------------------------


def branch_over(lm, prefixes, suffixes, rows, keep_last, measure, outs, place=None):
    """Run every suffix under every row and fill the arrays `outs` (prompt, row, ...).

    measure(batch, logits) gets prompt indices and float32 logits (len(batch), row, position, vocabulary) at
    the last suffix positions, for some of the rows, and returns a (len(batch), row, ...) tensor per array.
    keep_last: how many positions, or how many for each prompt; a batch has the most that one of it needs.
    """
    if not len(rows):
        raise UserError("no rows to sweep over")
    check_rows(lm, rows, place)
    distinct, which = distinct_rows(rows, keep_zeros=place is not None)
    late = np.argsort([-unchanged(lm, row, place) for row in distinct], kind="stable")        # the unsteered row first
    distinct, which = [distinct[i] for i in late], np.argsort(late)[which]
    room = window(lm) if can_branch(lm) else 0
    lengths, kept = [len(prefix) for prefix in prefixes], np.broadcast_to(keep_last, len(suffixes))
    by_shape = {}        # by the prompt alone, so that a prompt takes the same path whatever stands beside it
    for i, suffix in enumerate(suffixes):
        whole = lengths[i] + len(suffix)
        by_shape.setdefault((len(suffix), None if whole <= room else lengths[i]), []).append(i)
    for (m, same), members in sorted(by_shape.items(), key=lambda item: item[0][0]):
        width = max(1, min(len(distinct), BRANCH_TOKENS // m))     # rows per pass
        if same is None and lm.skips:
            width = min(width, max(FEW, math.ceil(len(distinct) / PIECES)))
        order = sorted(members, key=lambda i: -lengths[i])

        def work(batch, m=m, width=width, fast=same is None):
            before, after = [prefixes[i] for i in batch], [suffixes[i] for i in batch]
            passes = side_by_side if fast else as_batch
            for start, logits in passes(lm, before, after, distinct, width, int(min(kept[batch].max(), m)), place):
                places = np.flatnonzero((which >= start) & (which < start + logits.shape[1]))
                for out, values in zip(outs, measure(batch, logits)):
                    out[np.ix_(batch, places)] = values.cpu().numpy()[:, which[places] - start]

        def need(longest, m=m, width=width, fast=same is None, most=int(min(kept[members].max(), m))):
            tokens = longest + width * m if fast else width * (longest + m)
            return tokens, longest + width * m, width * most

        each(batches(lm, lengths, need, order), work)


def side_by_side(lm, prefixes, suffixes, rows, width, keep_last, place=None):
    """Yields (first row, logits (B, rows, keep_last, V)): all rows as branches of one sequence. Blocks before the first
    that a row of the pass changes put out what they do without any row, and are not run (lm.skips) where that saves
    more than the unsteered pass which tells what they put out."""
    m = len(suffixes[0])
    cache, seen = prefill(lm, prefixes, m)
    ids = torch.tensor([list(suffix) for suffix in suffixes], device=lm.device)
    chunks = [rows[start:start + width] for start in range(0, len(rows), width)]
    firsts = [min(unchanged(lm, row, place) for row in chunk) if lm.skips else 0 for chunk in chunks]
    pays = sum(len(chunk) * first for chunk, first in zip(chunks, firsts)) > lm.n_layers    # more than it takes to know
    outputs = block_outputs(lm, ids, cache, seen) if pays else []
    for i, (chunk, first) in enumerate(zip(chunks, firsts)):
        n, first = len(chunk), first if pays else 0
        added = {layer: matrix.repeat_interleave(m, 0) for layer, matrix in stacked(lm, chunk, place).items()}
        wanted = torch.arange(n * m, device=lm.device).view(n, m)[:, m - keep_last:].flatten()
        with standing(lm.layers[:first], outputs[first - 1], n) if first else nullcontext(), acting(lm, added, place):
            logits = lm.model(input_ids=ids.repeat(1, n), past_key_values=cache, use_cache=True,
                              logits_to_keep=wanted, **branched(lm, seen, n, m)).logits
        for layer in cache.layers[first:]:
            layer.crop(-n * m)
        yield i * width, logits.float().view(len(ids), n, keep_last, -1)


def block_outputs(lm, ids, cache, seen):
    """What each block puts out for the unsteered suffixes `ids` (B, m) behind the cache, which stays as it was."""
    outputs, handles = [], []
    try:
        for block in lm.layers:
            handles.append(block.register_forward_hook(lambda _module, _args, output: outputs.append(output)))
        lm.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True, **branched(lm, seen, 1, ids.shape[1]))
    finally:
        for handle in handles:
            handle.remove()
    cache.crop(-ids.shape[1])
    return outputs


def unchanged(lm, row, place=None):
    """How many blocks put out the same under a row as without any: those before what it is given, or puts out."""
    return min((layer for layer, _ in row), default=lm.n_layers - 1) + (not row or place is None or not place.inputs)


def as_batch(lm, prefixes, suffixes, rows, width, keep_last, place=None):
    """The same for any model: rows as copies of the cache along the batch. The prefixes have one length, so
    that no pad stands between a token and those before it and any notion of position is right as it is. A cache
    may hold states of recurrent layers as well as keys and values, and some of these go on by one token at a time
    only (lm.steps). Without a cache (lm.copies) every row runs the whole prompt."""
    m = len(suffixes[0])
    cache, name = (DynamicCache(config=lm.model.config) if lm.copies else None), cache_name(lm)
    whole = [list(prefix) + list(suffix) for prefix, suffix in zip(prefixes, suffixes)]
    ids = torch.tensor(whole, device=lm.device)
    if cache is not None and ids.shape[1] > m:
        right_padded_pass(lm, ids[:, :-m], use_cache=True, **{name: cache})
    for start in range(0, len(rows), width):
        chunk = rows[start:start + width]
        n = len(chunk)
        repeated = ids.repeat_interleave(n, 0)
        pieces, branch = [repeated], None
        if cache is not None:
            pieces, branch = repeated[:, -m:].split(1 if lm.steps else m, dim=1), copy.deepcopy(cache)
            branch.reorder_cache(torch.arange(len(ids), device=lm.device).repeat_interleave(n))
        added, seen, logits = stacked(lm, chunk, place), repeated.shape[1] - sum(p.shape[1] for p in pieces), []
        added = {layer: matrix.repeat(len(ids), 1) for layer, matrix in added.items()}
        with acting(lm, added, place, last=m):
            for piece in pieces:
                seen += piece.shape[1]
                given = {} if cache is None else {name: branch}
                if name != "cache_params":         # models without attention have no use for a mask
                    given["attention_mask"] = torch.ones_like(repeated[:, :seen])
                logits.append(lm.model(input_ids=piece, use_cache=cache is not None, **given).logits)
        logits = torch.cat(logits, dim=1)[:, -keep_last:]
        yield start, logits.float().view(len(ids), n, keep_last, -1)


def prefill(lm, prefixes, room):
    """(cache, (B,) lengths) of prefixes padded on the right; `branched` hides these pads. `room`: how many tokens
    of one branch will follow. Equal prefixes are run once, and so is what all of them begin with."""
    seen = torch.tensor([len(prefix) for prefix in prefixes], device=lm.device)
    cache = new_cache(lm, int(seen.max()) + room)
    if seen.max() > 0:
        distinct = {prefix: i for i, prefix in enumerate(dict.fromkeys(map(tuple, prefixes)))}
        if _kept is None or not distinct.keys() <= _kept.keys():
            _run(lm, list(distinct), cache)
            _keep(distinct, cache)
        else:
            _take(distinct, cache)
        if len(distinct) < len(prefixes):
            cache.batch_select_indices(torch.tensor([distinct[tuple(prefix)] for prefix in prefixes], device=lm.device))
    return cache, seen


def _run(lm, prefixes, cache):
    """Fill the cache with different prefixes, their common head first and once."""
    ids, first, last = right_padded(lm, prefixes), min(prefixes), max(prefixes)       # these two share what all share
    head = next((k for k, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))
    head = head if head >= SHARED and len(prefixes) > 1 else 0
    if head:
        right_padded_pass(lm, ids[:1, :head], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(prefixes))
    right_padded_pass(lm, ids, head, past_key_values=cache, use_cache=True)


@contextmanager
def kept():
    """Inside, where one model runs, a prefix that was run is not run again by a later call, whatever rows and suffixes
    follow it there."""
    global _kept
    before, _kept = _kept, {}
    try:
        yield
    finally:
        _kept = before


def _keep(distinct, cache):
    if _kept is not None:
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        held = {id(keys): keys.nbytes + values.nbytes for batch, _ in _kept.values() for keys, values in batch}
        if sum(held.values()) + sum(keys.nbytes + values.nbytes for keys, values in layers) <= KEPT:
            _kept.update((prefix, (layers, row)) for prefix, row in distinct.items())


def _take(prefixes, cache):
    """Fill the cache with prefixes that are kept."""
    found = [(*_kept[prefix], len(prefix)) for prefix in prefixes]
    for number in range(len(cache.layers)):
        cache.update(*(torch.nn.utils.rnn.pad_sequence(
            [batch[number][part][row, :, :length].transpose(0, 1) for batch, row, length in found],
            batch_first=True).transpose(1, 2) for part in (0, 1)), number)


def right_padded_pass(lm, ids, start=0, **cache):
    """The model without its head, from token `start` on; the cache has those before. Under causal attention no token
    sees the pads on its right, so every token counts as one: positions are right by default and attention keeps its
    fast path without a mask."""
    lm.model.base_model(input_ids=ids[:, start:], attention_mask=torch.ones_like(ids), **cache)


class Growing(DynamicLayer):
    """Keys and values with spare room behind them. transformers' own layer copies everything for each new
    token, which takes four fifths of the time of a small model's generation."""
    room, buffers = 64, None

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            return super().update(key_states, value_states, *args, **kwargs)
        old = self.keys.shape[-2]
        new = old + key_states.shape[-2]
        fits = self.buffers is not None and self.buffers[0].shape[-2] >= new
        # After a selection of rows `keys` is a tensor of its own, after a crop it still lies in the buffer.
        if not fits or self.keys.data_ptr() != self.buffers[0].data_ptr():
            held = self.keys, self.values
            self.buffers = [t.new_empty(*t.shape[:2], new + self.room, t.shape[3]) for t in held]
            for buffer, kept in zip(self.buffers, held):
                buffer[:, :, :old] = kept
        for buffer, added in zip(self.buffers, (key_states, value_states)):
            buffer[:, :, old:new] = added
        self.keys, self.values = (buffer[:, :, :new] for buffer in self.buffers)
        return self.keys, self.values


def new_cache(lm, longest=math.inf):
    """An empty cache for sequences of `longest` tokens at most, or None for a model with layers that keep something
    else than keys and values, or that does not take a cache."""
    cache = DynamicCache(config=lm.model.config)
    kinds = {type(layer) for layer in cache.layers}
    if not (lm.copies and kinds <= {DynamicLayer, DynamicSlidingWindowLayer} and cache_name(lm) == "past_key_values"):
        return None
    full = longest <= window(lm)         # then a layer with a window keeps what one without it keeps
    cache.layers = [Growing() if full or type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def cache_name(lm):
    """What the model calls its cache, or None."""
    takes = inspect.signature(lm.model.forward).parameters
    return next((name for name in ("past_key_values", "cache_params") if name in takes), None)


def window(lm):
    """How many tokens every attention layer sees in full: the smallest sliding window or chunk, or infinity."""
    layers = DynamicCache(config=lm.model.config).layers
    return min((layer.sliding_window for layer in layers if hasattr(layer, "sliding_window")), default=math.inf)


def branched(lm, seen, n, m):
    """Mask and positions for n branches of m tokens each after cached prefixes of `seen` (B,) tokens."""
    device, longest = seen.device, int(seen.max())
    branch = torch.arange(n, device=device).repeat_interleave(m)
    offset = torch.arange(m, device=device).repeat(n)
    own = (branch[:, None] == branch) & (offset[:, None] >= offset)                            # (query, key)
    before = torch.arange(longest, device=device) < seen[:, None]                              # (B, key)
    sees = torch.cat([before[:, None].expand(-1, n * m, -1), own.expand(len(seen), -1, -1)], dim=2)
    mask = torch.zeros(sees.shape, dtype=lm.model.dtype, device=device)
    mask = mask.masked_fill_(~sees, torch.finfo(mask.dtype).min)[:, None]
    positions = seen[:, None] + offset
    return {"attention_mask": mask, "position_ids": positions.clamp(max=(lm.max_tokens or 2**31) - 1)}


def can_branch(lm, longest=0):
    """Whether the model takes branches of sequences of `longest` tokens. Within a sliding window attention is full
    attention; beyond it the keys of the branches would push those of the prefix out."""
    return bool(lm.branches) and longest <= window(lm)


def may_branch(lm):
    """Whether it is worth a try (lib.probe): layers that keep plain keys and values, positions that go by position
    ids. By index go those of ALiBi and of GPT-Neo's local layers."""
    config = lm.model.config.get_text_config(decoder=True)
    takes = inspect.signature(lm.model.forward).parameters
    return (new_cache(lm) is not None and {"position_ids", "logits_to_keep"} <= set(takes)
            and config._attn_implementation in ("sdpa", "eager")
            and not any(getattr(config, key, None) for key in ("alibi", "attention_layers")))


def stacked(lm, rows, place=None):
    return stack(rows, *shape(lm, place))


def check_rows(lm, rows, place=None):
    """Raises what `stacked` would, without a matrix of all rows for every layer."""
    for _ in checked(rows, *shape(lm, place)):
        pass


def shape(lm, place):
    return (lm.n_layers, lm.d_model) if place is None else (len(place.modules), place.width, np.nan)


def acting(lm, added, place, last=0):
    """The context in which stacked rows act: added to block outputs, or put in their place."""
    return steer(lm.layers, added, last) if place is None else patch(place, added, last)


def distinct_rows(rows, keep_zeros=False):
    """(rows without repetition and zero vectors, (S,) index into them of each of the S rows given).

    A grid of layers and multipliers holds the unsteered model once per layer; it is run once. Zeros that are put
    in the place of something do act: keep_zeros.
    """
    kept, which = {}, []
    for row in rows:
        row = tuple((int(layer), np.asarray(vector, dtype=np.float32)) for layer, vector in row)
        row = tuple((layer, vector) for layer, vector in row if keep_zeros or vector.any())
        key = tuple((layer, vector.tobytes()) for layer, vector in row)
        which.append(kept.setdefault(key, (len(kept), row))[0])
    return [row for _, row in kept.values()], np.array(which)


# --- batches --------------------------------------------------------------------------------


def batches(lm, lengths, need, order=None, most=None, equal=False):
    """Batches of indices, longest first, so that the largest need of memory comes at once.

    need(longest)  (query tokens, key tokens, positions with logits) of one item
    order          indices by falling length; None: all of them
    most           most items per batch; None: as many as memory allows, on a CPU CPU_TOKENS query tokens
    equal          True: only items of one length meet in a batch
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i]) if order is None else order
    on_gpu = lm.device.type == "cuda"
    budget = 0.5 * torch.cuda.mem_get_info(lm.device)[0] if on_gpu else CPU_BUDGET
    batches, start = [], 0
    while start < len(order):
        longest = lengths[order[start]]
        queries, keys, heads = need(longest)
        size = budget // memory(lm, queries, keys, heads)
        limit = min(len(order), start + min(size, most or (size if on_gpu else CPU_TOKENS // queries)))
        stop = start + 1
        while stop < limit and lengths[order[stop]] >= (1 if equal else SPREAD) * longest:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches


def each(batches, work):
    """work(batch) for every batch; out of memory halves a batch. UserError if a single item is too large."""
    todo = list(reversed(batches))
    while todo:
        batch, failed = todo.pop(), False
        try:
            work(batch)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and not NO_MEMORY.search(str(error)):
                raise
            failed = True
        if failed:                        # outside the handler: the traceback held the tensors
            if len(batch) == 1:
                raise UserError("out of memory with a single prompt: use shorter prompts or another device")
            for kind in (torch.cuda, torch.mps):
                kind.empty_cache() if kind.is_available() else None
            half = len(batch) // 2
            todo += [batch[half:], batch[:half]]


def memory(lm, queries, keys, heads):
    """Rough working memory of one item: activations, attention scores, cache (twice: it is copied when it
    grows) and logits (three times: as they come, in float32, and in the reduction)."""
    config = lm.model.config.get_text_config(decoder=True)
    size = lm.model.dtype.itemsize
    inner = getattr(config, "intermediate_size", None) or 4 * lm.d_model
    activations = queries * (8 * lm.d_model + 3 * inner) * size
    scores = getattr(config, "num_attention_heads", 1) * queries * keys * 4
    return activations + scores + 4 * lm.n_layers * keys * lm.d_model * size + heads * config.vocab_size * 12


def lengths_of(lm, prompts, room=0):
    """Length of every prompt. UserError if there is none, one is empty, or one is too long for the model."""
    if not len(prompts):
        raise UserError("no prompts")
    lengths = [len(prompt) for prompt in prompts]
    for i, length in enumerate(lengths):
        if length == 0:
            raise UserError(f"prompt {i} of {len(prompts)} is empty")
        if lm.max_tokens and length + room > lm.max_tokens:
            raise UserError(f"a prompt of {length} tokens" + f" and an answer of up to {room}" * bool(room)
                            + f", {lm.name} takes {lm.max_tokens} at most: {_start(lm, prompts[i])}")
    return lengths


def _start(lm, ids):
    """The first words of a prompt, for a message."""
    try:
        return repr(lm.tokenizer.decode(list(ids)[:40], skip_special_tokens=True)[:100].strip() + " ...")
    except Exception:                # ids that the tokenizer does not know
        return f"token ids {list(ids)[:8]} ..."


def counts_of(value, lengths, name):
    """One int or one per prompt as a list, each between 1 and its prompt's length."""
    counts = np.broadcast_to(np.asarray(value), (len(lengths),)).tolist()
    for i, (count, length) in enumerate(zip(counts, lengths)):
        if not 1 <= count <= length:
            raise UserError(f"prompt {i}: {name} {count}, but the prompt has {length} tokens")
    return counts


def right_padded(lm, sequences, width=None):
    """(B, T) token ids; the pad id is any valid one, its outputs are never looked at."""
    width = width or max(map(len, sequences))
    return torch.tensor([list(ids) + [0] * (width - len(ids)) for ids in sequences], device=lm.device)


def left_padded(lm, sequences):
    """(B, T) token ids and the mask that hides the pads."""
    width = max(map(len, sequences))
    pad = lm.model.generation_config.pad_token_id
    ids = torch.tensor([[pad] * (width - len(s)) + list(s) for s in sequences], device=lm.device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=lm.device)
    return ids, mask


def to_numpy(kept):
    """Captured layers as one (entries, layer, d_model) float32 array."""
    return torch.stack([layer.cpu() for layer in kept], dim=1).numpy()
