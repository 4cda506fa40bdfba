"""Engine: activations, steered propensity sweeps and steered generation, without the avoidable work.

    read              every layer's output at the last tokens of each prompt: one pass, no language-model head
    read_pairs        the same for two endings of one prefix, the prefix run once
    sweep             every prompt under every row: logits at the last position
    sequence_logprob  log p(continuation | prompt) under every row
    after_endings     every prompt with every one of a few endings, unsteered: logits at the last position
    generate          greedy answers, prompt i under row i

Steering touches only the last `suffix` tokens of a prompt, so the key/value cache of the tokens before them
is the same for every row. It is computed once, and the rows follow as branches of one further pass: S copies
of the suffix, side by side at the *same* position ids, under a mask that lets each copy see the prefix and
itself only. This is the naive computation regrouped (tests hold it to 1e-4). Models whose attention cannot
take such a mask (sliding windows, ALiBi, recurrent layers) get copies of the cache as rows of a batch
instead, which is slower and gives the same numbers.

Prompts are lists of token ids; rows are tuples of (layer, vector), see lib.hooks. Prompts are packed by
length, batches fit a memory budget, and an out-of-memory error halves the batch.
"""
import copy
import inspect

import numpy as np
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from lib.artifacts import UserError
from lib.hooks import Place, capture, checked, patch, stack, steer

CPU_BUDGET = 1.5 * 2**30     # bytes of working memory per batch on a CPU; on a GPU half of what is free
CPU_TOKENS = 2048            # tokens per pass on a CPU: more only falls out of its caches
SPREAD = 0.7                 # shortest over longest prompt of a batch: a shorter one would be mostly padding
GENERATE_ROWS = {"cpu": 256, "cuda": 512}   # rows per batch: a CPU gains nothing from more
LEAST_ENDED = 8              # rows that must have ended before a batch is thinned: a new start costs some steps
BRANCH_TOKENS = 256          # suffix tokens side by side in one pass: their mask grows with the square


@torch.inference_mode()
def read(lm, prompts, tail=1, place=None):
    """Block outputs of every layer, averaged over the last `tail` tokens of each prompt.

    prompts  N lists of token ids
    tail     tokens averaged, counted from the end: int, or one int per prompt (the length of its answer, say)
    place    lib.hooks.Place to read at; None: the block outputs
    returns  (N, layer, d_model) float32 array, with the width of the place instead of d_model
    Raises UserError for an empty list and for a prompt that is empty, too long or shorter than its tail.
    """
    lengths = _lengths(lm, prompts)
    tails = _counts(tail, lengths, "tail")
    place = place or Place(lm.layers, lm.d_model, False)
    out = np.empty((len(prompts), len(place.modules), place.width), np.float32)

    def work(batch):
        ids = _right_padded(lm, [prompts[i] for i in batch])
        where = [(row, position) for row, i in enumerate(batch)
                 for position in range(lengths[i] - tails[i], lengths[i])]
        entries, positions = torch.tensor(where).T
        with capture(place.modules, entries, positions, torch.tensor([tails[i] for i in batch]), place.inputs) as kept:
            _right_padded_pass(lm, ids, use_cache=False)
        out[batch] = _to_numpy(kept)

    _run(_batches(lm, lengths, lambda longest: (longest, longest, 0)), work)
    return out


@torch.inference_mode()
def read_pairs(lm, prefixes, positives, negatives):
    """Block outputs at the last token of prefix + positive and of prefix + negative.

    prefixes, positives, negatives  N lists of token ids each; the endings hold at least one token
    returns  (N, 2, layer, d_model) float32 array, positive first
    Raises UserError as `read` does.
    """
    if not len(prefixes) == len(positives) == len(negatives):
        raise UserError(f"{len(prefixes)} prefixes, {len(positives)} positives, {len(negatives)} negatives")
    both = [(list(a), list(b)) for a, b in zip(positives, negatives)]
    for i, pair in enumerate(both):
        if not all(pair):
            raise UserError(f"pair {i}: an ending is empty")
    if not _can_branch(lm):
        whole = [list(prefix) + end for prefix, pair in zip(prefixes, both) for end in pair]
        return read(lm, whole).reshape(len(both), 2, lm.n_layers, lm.d_model)
    ends = [max(map(len, pair)) for pair in both]
    _lengths(lm, [list(prefix) + max(pair, key=len) for prefix, pair in zip(prefixes, both)])
    lengths = [len(prefix) for prefix in prefixes]
    out = np.empty((len(both), 2, lm.n_layers, lm.d_model), np.float32)

    def work(batch):
        cache, seen = _prefill(lm, [prefixes[i] for i in batch])
        width = max(ends[i] for i in batch)
        ids = _right_padded(lm, [end for i in batch for end in both[i]], width).view(len(batch), 2 * width)
        entries = torch.arange(len(batch)).repeat_interleave(2)
        positions = [side * width + len(end) - 1 for i in batch for side, end in enumerate(both[i])]
        with capture(lm.layers, entries, torch.tensor(positions)) as kept:
            lm.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True,
                                **_branched(lm, seen, 2, width))
        out[batch] = _to_numpy(kept).reshape(len(batch), 2, lm.n_layers, lm.d_model)

    _run(_batches(lm, lengths, lambda longest: (longest + 2 * max(ends), longest + 2 * max(ends), 0)), work)
    return out


@torch.inference_mode()
def sweep(lm, prompts, rows, tokens, suffix=1, place=None, ranks=False):
    """Every prompt under every row: the logits of chosen tokens at the last position.

    prompts  N lists of token ids
    rows     S rows, added at each of the last `suffix` prompt tokens
    tokens   (N, K) or (K,) token ids whose logits are wanted
    suffix   int, or one int per prompt
    place    None: rows are added to block outputs. lib.hooks.Place: their values are put in place of what is there
             (activation patching), and nan leaves it as it is
    returns  {"logits": (N, S, K) float32, nats up to a constant; "logsumexp": (N, S) float32 over the
             vocabulary, so that logits - logsumexp are log-probabilities; "argmax": (N, S) int64 token ids;
             with ranks=True "rank": (N, S) int64, how many tokens have a higher logit than the first chosen one}
    Raises UserError for empty or too long prompts, suffixes longer than a prompt, rows that do not fit.
    """
    lengths = _lengths(lm, prompts)
    tokens = np.asarray(tokens, dtype=np.int64)
    tokens = np.broadcast_to(tokens, (len(prompts), tokens.shape[-1]))
    counts = _counts(suffix, lengths, "suffix")
    n, s = len(prompts), len(rows)
    out = {"logits": np.empty((n, s, tokens.shape[1]), np.float32), "logsumexp": np.empty((n, s), np.float32),
           "argmax": np.empty((n, s), np.int64), **({"rank": np.empty((n, s), np.int64)} if ranks else {})}

    def measure(batch, logits):
        logits = logits[:, :, -1]
        wanted = torch.from_numpy(tokens[batch]).to(logits.device)[:, None].expand(-1, logits.shape[1], -1)
        found = logits.gather(2, wanted)
        above = ((logits > found[..., :1]).sum(-1),) if ranks else ()
        return found, logits.logsumexp(-1), logits.argmax(-1), *above

    prefixes, suffixes = zip(*((p[:-m], p[-m:]) for p, m in zip(prompts, counts)))
    _branch_over(lm, prefixes, suffixes, rows, 1, measure, out.values(), place)
    return out


@torch.inference_mode()
def sequence_logprob(lm, prompts, continuations, rows, weights=None):
    """Sum of log p(continuation token | everything before it), steered from the last prompt token on.

    prompts, continuations  N lists of token ids each; rows: S rows
    weights  None, or N lists with a factor for every continuation token: 0 leaves a token out of the sum
    returns  (N, S) float32 array, nats
    """
    if len(prompts) != len(continuations) or not all(map(len, continuations)):
        raise UserError(f"{len(prompts)} prompts need as many continuations of one token at least")
    _lengths(lm, prompts)
    _lengths(lm, [list(p) + list(c) for p, c in zip(prompts, continuations)])
    out = np.empty((len(prompts), len(rows)), np.float32)
    if weights is not None and list(map(len, weights)) != list(map(len, continuations)):
        raise UserError("weights: expected one for every continuation token")

    def measure(batch, logits):
        target = torch.tensor([list(continuations[i]) for i in batch], device=logits.device)[:, None, :, None]
        picked = logits.gather(3, target.expand(-1, logits.shape[1], -1, -1))[..., 0] - logits.logsumexp(-1)
        if weights is not None:
            picked = picked * torch.tensor([list(weights[i]) for i in batch]).to(picked)[:, None]
        return (picked.sum(-1),)

    suffixes = [list(p[-1:]) + list(c[:-1]) for p, c in zip(prompts, continuations)]
    _branch_over(lm, [p[:-1] for p in prompts], suffixes, rows, max(map(len, suffixes)), measure, [out])
    return out


@torch.inference_mode()
def after_endings(lm, prompts, endings, tokens):
    """The logits of chosen tokens after every ending of every prompt, unsteered; a prompt is run once.

    prompts  N lists of token ids
    endings  E lists of token ids, the same for all prompts; an empty one is the prompt as it is
    tokens   (K,) token ids whose logits are wanted
    returns  {"logits": (N, E, K) float32, "logsumexp": (N, E) float32 over the vocabulary}
    Raises UserError for empty or too long prompts, ValueError without an ending.
    """
    prompts, endings, tokens = [list(p) for p in prompts], [list(e) for e in endings], list(tokens)
    room = max(map(len, endings))
    lengths = _lengths(lm, prompts, room)
    n, e = len(prompts), len(endings)
    if not _can_branch(lm):
        found = sweep(lm, [prompt + ending for prompt in prompts for ending in endings], [()], tokens)
        return {"logits": found["logits"].reshape(n, e, len(tokens)),
                "logsumexp": found["logsumexp"].reshape(n, e)}
    m = 1 + room                              # a branch: the prompt's last token, an ending, pads that nothing sees
    width = max(1, min(e, BRANCH_TOKENS // m))
    out = {"logits": np.empty((n, e, len(tokens)), np.float32), "logsumexp": np.empty((n, e), np.float32)}

    def work(batch):
        cache, seen = _prefill(lm, [prompts[i][:-1] for i in batch])
        for start in range(0, e, width):
            chunk = endings[start:start + width]
            ids = _right_padded(lm, [prompts[i][-1:] + ending for i in batch for ending in chunk], m)
            wanted = torch.tensor([k * m + len(ending) for k, ending in enumerate(chunk)], device=lm.device)
            logits = lm.model(input_ids=ids.view(len(batch), -1), past_key_values=cache, use_cache=True,
                              logits_to_keep=wanted, **_branched(lm, seen, len(chunk), m)).logits.float()
            cache.crop(-len(chunk) * m)
            place = np.ix_(batch, range(start, start + len(chunk)))
            out["logits"][place] = logits[:, :, tokens].cpu().numpy()
            out["logsumexp"][place] = logits.logsumexp(-1).cpu().numpy()

    _run(_batches(lm, lengths, lambda longest: (longest + width * m, longest + e * m, width)), work)
    return out


@torch.inference_mode()
def generate(lm, prompts, rows, max_new_tokens, first_token=True):
    """Greedy answers by transformers' own `generate`: prompt i under row i.

    prompts         N lists of token ids
    rows            N rows, added at the last prompt token and at every generated token that is fed back
    max_new_tokens  longest answer, tokens; an answer ends before that at an end-of-sequence token
    first_token     False leaves the last prompt token unsteered, and so the first generated token: what the
                    release of Subbiah et al. 2026 (arXiv:2607.01802) does
    returns         N strings in input order, special tokens left out
    """
    ids = generate_ids(lm, prompts, rows, max_new_tokens, first_token)
    return lm.tokenizer.batch_decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@torch.inference_mode()
def generate_ids(lm, prompts, rows, max_new_tokens, first_token=True):
    """`generate` as lists of token ids, without the end-of-sequence token."""
    if len(prompts) != len(rows):
        raise UserError(f"{len(prompts)} prompts, {len(rows)} rows: expected one row per prompt")
    lengths = _lengths(lm, prompts, room=max_new_tokens)
    _check(lm, rows)      # the whole request is checked before the first batch runs
    answers = [None] * len(prompts)

    def work(batch):
        ids, mask = _left_padded(lm, [prompts[i] for i in batch])
        added = _stack(lm, [rows[i] for i in batch])
        cache = _new_cache(lm)
        if cache is not None and ids.shape[1] > 1:
            # Rows of one prompt differ from its last token on only: the tokens before it are run once.
            both = torch.cat([ids[:, :-1], mask[:, :-1]], dim=1)      # a pad may look like a token
            distinct, owner = torch.unique(both, dim=0, return_inverse=True)
            before, real = distinct.chunk(2, dim=1)
            lm.model.base_model(input_ids=before, attention_mask=real, past_key_values=cache, use_cache=True,
                                position_ids=(real.cumsum(1) - 1).clamp(min=0))
            cache.batch_select_indices(owner)
        prompt, skip, rest = ids.shape[1], 0 if first_token else 1, torch.tensor(batch)
        thin = _Thin(lm.eos) if cache is not None else None
        while len(rest):
            left = prompt + max_new_tokens - ids.shape[1]
            with steer(lm.layers, added, last=1, skip=skip):
                ids = lm.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=left, do_sample=False,
                                        use_cache=True, past_key_values=cache,
                                        stopping_criteria=[thin] if thin else None)
            new = ids[:, prompt:].cpu()
            ended = torch.isin(new, torch.tensor(lm.eos, dtype=new.dtype)).any(dim=1)
            if new.shape[1] == max_new_tokens:
                ended[:] = True
            for i, answer in zip(rest[ended].tolist(), new[ended].tolist()):
                end = next((k for k, token in enumerate(answer) if token in lm.eos), len(answer))
                answers[i] = answer[:end]
            rest, skip = rest[~ended], 0
            if len(rest):
                kept = (~ended).nonzero()[:, 0]
                added = {layer: matrix[kept] for layer, matrix in added.items()}
                ids, mask = ids[kept.to(ids.device)], mask[kept.to(ids.device)]
                mask = torch.nn.functional.pad(mask, (0, ids.shape[1] - mask.shape[1]), value=1)
                cache.batch_select_indices(kept.to(ids.device))

    # Equal prompts side by side, so that they meet in one batch.
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], list(prompts[i])))
    most = GENERATE_ROWS["cuda" if lm.device.type == "cuda" else "cpu"]
    _run(_batches(lm, lengths, lambda longest: (longest, longest + max_new_tokens, 1), order, most), work)
    return answers


class _Thin:
    """Stopping criterion for `generate`: half of the rows have ended. The others go on without them, since an
    ended row costs as much per step as a live one."""

    def __init__(self, eos):
        self.eos, self.ended = torch.tensor(eos, dtype=torch.int64), torch.zeros(0, dtype=torch.bool)

    def __call__(self, ids, scores, **_):
        ended = torch.isin(ids[:, -1], self.eos.to(ids.device))
        self.ended = self.ended | ended if len(self.ended) == len(ended) else ended
        return torch.full_like(ended, bool(self.ended.sum() >= max(LEAST_ENDED, len(ended) / 2)))


def residual_norm(lm, prompts):
    """Mean Euclidean norm of every block's output at the last prompt token: (layer,) float32."""
    return np.linalg.norm(read(lm, prompts), axis=-1).mean(axis=0).astype(np.float32)


# --- branches of a shared prefix ------------------------------------------------------------


def _branch_over(lm, prefixes, suffixes, rows, keep_last, measure, outs, place=None):
    """Run every suffix under every row and fill the arrays `outs` (prompt, row, ...).

    measure(batch, logits) gets prompt indices and float32 logits (len(batch), row, position, vocabulary) at
    the last `keep_last` suffix positions, for some of the rows, and returns a (len(batch), row, ...) tensor
    per array.
    """
    if not len(rows):
        raise UserError("no rows to sweep over")
    _check(lm, rows, place)
    distinct, which = _distinct(rows, keep_zeros=place is not None)
    branched = _can_branch(lm)
    lengths = [len(prefix) for prefix in prefixes]
    by_shape = {}
    for i, suffix in enumerate(suffixes):
        by_shape.setdefault((len(suffix), None if branched else lengths[i]), []).append(i)
    for (m, _), members in sorted(by_shape.items(), key=lambda item: item[0][0]):
        width = max(1, min(len(distinct), BRANCH_TOKENS // m))     # rows per pass
        order = sorted(members, key=lambda i: -lengths[i])

        def work(batch, m=m, width=width):
            before, after = [prefixes[i] for i in batch], [suffixes[i] for i in batch]
            passes = _side_by_side if branched else _as_batch
            for start, logits in passes(lm, before, after, distinct, width, min(keep_last, m), place):
                places = np.flatnonzero((which >= start) & (which < start + logits.shape[1]))
                for out, values in zip(outs, measure(batch, logits)):
                    out[np.ix_(batch, places)] = values.cpu().numpy()[:, which[places] - start]

        def need(longest, m=m, width=width):
            tokens = longest + width * m if branched else width * (longest + m)
            return tokens, longest + width * m, width * min(keep_last, m)

        _run(_batches(lm, lengths, need, order), work)


def _side_by_side(lm, prefixes, suffixes, rows, width, keep_last, place=None):
    """Yields (first row, logits (B, rows, keep_last, V)): all rows as branches of one sequence."""
    m = len(suffixes[0])
    cache, seen = _prefill(lm, prefixes)
    ids = torch.tensor([list(suffix) for suffix in suffixes], device=lm.device)
    for start in range(0, len(rows), width):
        chunk = rows[start:start + width]
        n = len(chunk)
        added = {layer: matrix.repeat_interleave(m, 0) for layer, matrix in _stack(lm, chunk, place).items()}
        wanted = torch.arange(n * m, device=lm.device).view(n, m)[:, m - keep_last:].flatten()
        with _acting(lm, added, place):
            logits = lm.model(input_ids=ids.repeat(1, n), past_key_values=cache, use_cache=True,
                              logits_to_keep=wanted, **_branched(lm, seen, n, m)).logits
        cache.crop(-n * m)
        yield start, logits.float().view(len(ids), n, keep_last, -1)


def _as_batch(lm, prefixes, suffixes, rows, width, keep_last, place=None):
    """The same for any model: rows as copies of the cache along the batch. The prefixes have one length, so
    that no pad stands between a token and those before it and any notion of position is right as it is.
    Models without a cache of keys and values run the whole prompt for each row."""
    m = len(suffixes[0])
    cache, _ = _prefill(lm, prefixes)
    whole = [list(prefix) + list(suffix) for prefix, suffix in zip(prefixes, suffixes)]
    ids = torch.tensor(whole, device=lm.device)
    for start in range(0, len(rows), width):
        chunk = rows[start:start + width]
        n = len(chunk)
        repeated = ids.repeat_interleave(n, 0)
        given = {"attention_mask": torch.ones_like(repeated), "input_ids": repeated}
        if cache is not None:
            branch = copy.deepcopy(cache)
            branch.batch_repeat_interleave(n)
            given |= {"input_ids": repeated[:, -m:], "past_key_values": branch}
        added = {layer: matrix.repeat(len(ids), 1) for layer, matrix in _stack(lm, chunk, place).items()}
        with _acting(lm, added, place, last=m):
            logits = lm.model(use_cache=cache is not None, **given).logits[:, -keep_last:]
        yield start, logits.float().view(len(ids), n, keep_last, -1)


def _prefill(lm, prefixes):
    """(cache or None, (B,) lengths) of prefixes padded on the right; `_branched` hides these pads."""
    cache = _new_cache(lm)
    seen = torch.tensor([len(prefix) for prefix in prefixes], device=lm.device)
    if cache is not None and seen.max() > 0:
        _right_padded_pass(lm, _right_padded(lm, prefixes), past_key_values=cache, use_cache=True)
    return cache, seen


def _right_padded_pass(lm, ids, **cache):
    """The model without its head. Under causal attention no token sees the pads on its right, so every token
    counts as one: positions are right by default and attention keeps its fast path without a mask."""
    lm.model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), **cache)


class _Growing(DynamicLayer):
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


def _new_cache(lm):
    """An empty cache, or None for a model with layers that keep something else than keys and values."""
    cache = DynamicCache(config=lm.model.config)
    if not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers):
        return None
    cache.layers = [_Growing() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def _branched(lm, seen, n, m):
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


def _can_branch(lm):
    """Whether the model takes branches of one sequence; found out once per model.

    Excluded by declaration: layers that do not keep plain keys and values of all tokens (sliding, chunked,
    recurrent), and position schemes that go by index and not by position ids. Anything left is tried on a
    small example.
    """
    if lm.branches is None:
        config = lm.model.config.get_text_config(decoder=True)
        takes = inspect.signature(lm.model.forward).parameters
        plain = all(type(layer) is DynamicLayer for layer in DynamicCache(config=lm.model.config).layers)
        lm.branches = (plain and {"position_ids", "logits_to_keep"} <= set(takes)
                       and config._attn_implementation in ("sdpa", "eager")
                       and not any(getattr(config, key, None) for key in ("alibi", "attention_layers"))
                       and _branches_agree(lm))
    return lm.branches


def _branches_agree(lm):
    """Both ways on two short prefixes of random token ids: equal up to rounding?"""
    rng = np.random.default_rng(0)
    ids = rng.integers(lm.model.get_input_embeddings().num_embeddings, size=(2, 7)).tolist()
    rows = [(), ((0, rng.standard_normal(lm.d_model)),)]
    prefixes, suffixes = [ids[0][:5], ids[1][:3]], [ids[0][5:], ids[1][3:5]]
    try:
        (_, fast), = _side_by_side(lm, prefixes, suffixes, rows, 2, 1)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError):
        return False      # the mask or the positions were refused
    slow = torch.cat([next(_as_batch(lm, [a], [b], rows, 2, 1))[1] for a, b in zip(prefixes, suffixes)])
    rounding = {torch.float32: 1e-4, torch.float16: 2e-2}.get(lm.model.dtype, 1e-1)
    return bool((fast - slow).abs().max() <= rounding * slow.abs().max())


def _stack(lm, rows, place=None):
    return stack(rows, *_shape(lm, place))


def _check(lm, rows, place=None):
    """Raises what `_stack` would, without a matrix of all rows for every layer."""
    for _ in checked(rows, *_shape(lm, place)):
        pass


def _shape(lm, place):
    return (lm.n_layers, lm.d_model) if place is None else (len(place.modules), place.width, np.nan)


def _acting(lm, added, place, last=0):
    """The context in which stacked rows act: added to block outputs, or put in their place."""
    return steer(lm.layers, added, last) if place is None else patch(place, added, last)


def _distinct(rows, keep_zeros=False):
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


def _batches(lm, lengths, need, order=None, most=None):
    """Batches of indices, longest first, so that the largest need of memory comes at once.

    need(longest)  (query tokens, key tokens, positions with logits) of one item
    order          indices by falling length; None: all of them
    most           most items per batch; None: as many as memory allows, on a CPU CPU_TOKENS query tokens
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i]) if order is None else order
    on_gpu = lm.device.type == "cuda"
    budget = 0.5 * torch.cuda.mem_get_info(lm.device)[0] if on_gpu else CPU_BUDGET
    batches, start = [], 0
    while start < len(order):
        longest = lengths[order[start]]
        queries, keys, heads = need(longest)
        size = budget // _bytes(lm, queries, keys, heads)
        limit = min(len(order), start + min(size, most or (size if on_gpu else CPU_TOKENS // queries)))
        stop = start + 1
        while stop < limit and lengths[order[stop]] >= SPREAD * longest:
            stop += 1
        batches.append(order[start:stop])
        start = stop
    return batches


def _run(batches, work):
    """work(batch) for every batch; out of memory halves a batch. UserError if a single item is too large."""
    todo = list(reversed(batches))
    while todo:
        batch, failed = todo.pop(), False
        try:
            work(batch)
        except RuntimeError as error:     # a CPU allocator has no exception type of its own
            if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
                raise
            failed = True
        if failed:                        # outside the handler: the traceback held the tensors
            if len(batch) == 1:
                raise UserError("out of memory with a single prompt: use shorter prompts or another device")
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            half = len(batch) // 2
            todo += [batch[half:], batch[:half]]


def _bytes(lm, queries, keys, heads):
    """Rough working memory of one item: activations, attention scores, cache (twice: it is copied when it
    grows) and logits (three times: as they come, in float32, and in the reduction)."""
    config = lm.model.config.get_text_config(decoder=True)
    size = lm.model.dtype.itemsize
    inner = getattr(config, "intermediate_size", None) or 4 * lm.d_model
    activations = queries * (8 * lm.d_model + 3 * inner) * size
    scores = getattr(config, "num_attention_heads", 1) * queries * keys * 4
    return activations + scores + 4 * lm.n_layers * keys * lm.d_model * size + heads * config.vocab_size * 12


def _lengths(lm, prompts, room=0):
    """Length of every prompt. UserError if there is none, one is empty, or one is too long for the model."""
    if not len(prompts):
        raise UserError("no prompts")
    lengths = [len(prompt) for prompt in prompts]
    for i, length in enumerate(lengths):
        if length == 0:
            raise UserError(f"prompt {i} is empty")
        if lm.max_tokens and length + room > lm.max_tokens:
            raise UserError(f"prompt {i}: {length} + {room} tokens, {lm.name} takes {lm.max_tokens} at most")
    return lengths


def _counts(value, lengths, name):
    """One int or one per prompt as a list, each between 1 and its prompt's length."""
    counts = np.broadcast_to(np.asarray(value), (len(lengths),)).tolist()
    for i, (count, length) in enumerate(zip(counts, lengths)):
        if not 1 <= count <= length:
            raise UserError(f"prompt {i}: {name} {count}, but the prompt has {length} tokens")
    return counts


def _right_padded(lm, sequences, width=None):
    """(B, T) token ids; the pad id is any valid one, its outputs are never looked at."""
    width = width or max(map(len, sequences))
    return torch.tensor([list(ids) + [0] * (width - len(ids)) for ids in sequences], device=lm.device)


def _left_padded(lm, sequences):
    """(B, T) token ids and the mask that hides the pads."""
    width = max(map(len, sequences))
    pad = lm.model.generation_config.pad_token_id
    ids = torch.tensor([[pad] * (width - len(s)) + list(s) for s in sequences], device=lm.device)
    mask = torch.tensor([[0] * (width - len(s)) + [1] * len(s) for s in sequences], device=lm.device)
    return ids, mask


def _to_numpy(kept):
    """Captured layers as one (entries, layer, d_model) float32 array."""
    return torch.stack([layer.cpu() for layer in kept], dim=1).numpy()
