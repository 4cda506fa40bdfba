"""Engine: activations, steered propensity sweeps and steered generation, without the avoidable work.

    read              every layer's output at the last tokens of each prompt: one pass, no language-model head
    read_pairs        the same for two endings of one prefix, the prefix run once
    sweep             every prompt under every row: logits at the last position
    sequence_logprob  log p(continuation | prompt) under every row
    divergence        how far every row moves the next token's distribution: Kullback-Leibler, in nats
    after_endings     every prompt with every one of a few endings, unsteered: logits at the last position
    generate          greedy answers, prompt i under row i

Steering touches only the last `suffix` tokens of a prompt, so the key/value cache of the tokens before them
is the same for every row. It is computed once, and the rows follow as branches of one further pass: S copies
of the suffix, side by side at the *same* position ids, under a mask that lets each copy see the prefix and
itself only. A row changes nothing before its first layer: rows of late layers go together, and the blocks
before the first of them put out what they did without any row, and are not run. What all prompts of a batch
begin with, a system message say, is run once for all of them, and what several calls ask of the same prompts
inside `lib.passes.kept` once for all calls. All this is the naive computation regrouped (tests hold it to 1e-4).
Models whose attention cannot take such a mask (ALiBi, recurrent layers) and prompts longer than a sliding
window get copies of the cache as rows of a batch instead, which is slower and gives the same numbers. lib.probe
holds every path to a plain pass when a model is loaded, and says which ones it takes.

Prompts are lists of token ids; rows are tuples of (layer, vector), see lib.hooks. Prompts are packed by
length, batches fit a memory budget, and an out-of-memory error halves the batch.
"""
import numpy as np
import torch

from lib import passes
from lib.artifacts import UserError
from lib.hooks import Place, capture, steer

GENERATE_ROWS = {"cpu": 256, "cuda": 512}   # rows per batch: a CPU gains nothing from more
LEAST_ENDED = 8              # rows that must have ended before a batch is thinned: a new start costs some steps


@torch.inference_mode()
def read(lm, prompts, tail=1, place=None):
    """Block outputs of every layer, averaged over the last `tail` tokens of each prompt.

    prompts  N lists of token ids
    tail     tokens averaged, counted from the end: int, or one int per prompt (the length of its answer, say)
    place    lib.hooks.Place to read at; None: the block outputs
    returns  (N, layer, d_model) float32 array, with the width of the place instead of d_model
    Raises UserError for an empty list and for a prompt that is empty, too long or shorter than its tail.
    """
    lengths = passes.lengths_of(lm, prompts)
    tails = passes.counts_of(tail, lengths, "tail")
    place = place or Place(lm.layers, lm.d_model, False)
    out = np.empty((len(prompts), len(place.modules), place.width), np.float32)

    def work(batch):
        ids = passes.right_padded(lm, [prompts[i] for i in batch])
        where = [(row, position) for row, i in enumerate(batch)
                 for position in range(lengths[i] - tails[i], lengths[i])]
        entries, positions = torch.tensor(where).T
        with capture(place.modules, entries, positions, torch.tensor([tails[i] for i in batch]), place.inputs) as kept:
            passes.right_padded_pass(lm, ids, use_cache=False)
        out[batch] = passes.to_numpy(kept)

    passes.each(passes.batches(lm, lengths, lambda longest: (longest, longest, 0)), work)
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
    ends = [max(map(len, pair)) for pair in both]
    if not passes.can_branch(lm, max(map(len, prefixes), default=0) + max(ends, default=0)):
        whole = [list(prefix) + end for prefix, pair in zip(prefixes, both) for end in pair]
        return read(lm, whole).reshape(len(both), 2, lm.n_layers, lm.d_model)
    passes.lengths_of(lm, [list(prefix) + max(pair, key=len) for prefix, pair in zip(prefixes, both)])
    lengths = [len(prefix) for prefix in prefixes]
    out = np.empty((len(both), 2, lm.n_layers, lm.d_model), np.float32)

    def work(batch):
        width = max(ends[i] for i in batch)
        cache, seen = passes.prefill(lm, [prefixes[i] for i in batch], width)
        ids = passes.right_padded(lm, [end for i in batch for end in both[i]], width).view(len(batch), 2 * width)
        entries = torch.arange(len(batch)).repeat_interleave(2)
        positions = [side * width + len(end) - 1 for i in batch for side, end in enumerate(both[i])]
        with capture(lm.layers, entries, torch.tensor(positions)) as kept:
            lm.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True,
                                **passes.branched(lm, seen, 2, width))
        out[batch] = passes.to_numpy(kept).reshape(len(batch), 2, lm.n_layers, lm.d_model)

    passes.each(passes.batches(lm, lengths, lambda longest: (longest + 2 * max(ends), longest + 2 * max(ends), 0)), work)
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
    lengths = passes.lengths_of(lm, prompts)
    tokens = np.asarray(tokens, dtype=np.int64)
    tokens = np.broadcast_to(tokens, (len(prompts), tokens.shape[-1]))
    counts = passes.counts_of(suffix, lengths, "suffix")
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
    passes.branch_over(lm, prefixes, suffixes, rows, 1, measure, out.values(), place)
    return out


@torch.inference_mode()
def divergence(lm, prompts, rows, suffix=1):
    """KL(unsteered || steered) of the next token, over the whole vocabulary.

    prompts, rows, suffix  as in `sweep`
    returns  (N, S) float32 array, nats
    Summed in float64, row by row: small numbers are differences of large ones, and a large vocabulary under all rows
    would not fit. Kept are the unsteered log-probabilities, one vector per prompt.
    """
    counts = passes.counts_of(suffix, passes.lengths_of(lm, prompts), "suffix")
    out, plain = np.empty((len(prompts), 1 + len(rows)), np.float32), {}

    def measure(batch, logits):
        found = torch.empty(logits.shape[:2], device=logits.device)
        for b, i in enumerate(batch):
            plain.setdefault(i, logits[b, 0, -1].double().log_softmax(-1))      # the first row of all is unsteered
            p = plain[i].exp()
            for s, row in enumerate(logits[b, :, -1]):
                found[b, s] = (p * (plain[i] - row.double().log_softmax(-1))).sum().clamp(min=0)
        return (found,)

    prefixes, suffixes = zip(*((p[:-m], p[-m:]) for p, m in zip(prompts, counts)))
    passes.branch_over(lm, prefixes, suffixes, [(), *rows], 1, measure, [out])
    return out[:, 1:]


@torch.inference_mode()
def sequence_logprob(lm, prompts, continuations, rows, weights=None):
    """Sum of log p(continuation token | everything before it), steered from the last prompt token on.

    prompts, continuations  N lists of token ids each; rows: S rows
    weights  None, or N lists with a factor for every continuation token: 0 leaves a token out of the sum
    returns  (N, S) float32 array, nats
    """
    if len(prompts) != len(continuations) or not all(map(len, continuations)):
        raise UserError(f"{len(prompts)} prompts need as many continuations of one token at least")
    passes.lengths_of(lm, prompts)
    passes.lengths_of(lm, [list(p) + list(c) for p, c in zip(prompts, continuations)])
    out = np.empty((len(prompts), len(rows)), np.float32)
    if weights is not None and list(map(len, weights)) != list(map(len, continuations)):
        raise UserError("weights: expected one for every continuation token")

    def measure(batch, logits):
        last = slice(-logits.shape[2], None)
        target = torch.tensor([list(continuations[i])[last] for i in batch], device=logits.device)[:, None, :, None]
        picked = logits.gather(3, target.expand(-1, logits.shape[1], -1, -1))[..., 0] - logits.logsumexp(-1)
        if weights is not None:
            picked = picked * torch.tensor([list(weights[i])[last] for i in batch]).to(picked)[:, None]
        return (picked.sum(-1),)

    suffixes = [list(p[-1:]) + list(c[:-1]) for p, c in zip(prompts, continuations)]
    # The head runs over what counts, from the first such token on.
    counted = [len(c) if weights is None else len(c) - next((k for k, w in enumerate(weights[i]) if w), 0)
               for i, c in enumerate(continuations)]
    passes.branch_over(lm, [p[:-1] for p in prompts], suffixes, rows, counted, measure, [out])
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
    lengths = passes.lengths_of(lm, prompts, room)
    n, e = len(prompts), len(endings)
    if not passes.can_branch(lm, max(lengths) + room):
        found = sweep(lm, [prompt + ending for prompt in prompts for ending in endings], [()], tokens)
        return {"logits": found["logits"].reshape(n, e, len(tokens)),
                "logsumexp": found["logsumexp"].reshape(n, e)}
    m = 1 + room                              # a branch: the prompt's last token, an ending, pads that nothing sees
    width = max(1, min(e, passes.BRANCH_TOKENS // m))
    out = {"logits": np.empty((n, e, len(tokens)), np.float32), "logsumexp": np.empty((n, e), np.float32)}

    def work(batch):
        cache, seen = passes.prefill(lm, [prompts[i][:-1] for i in batch], m)
        for start in range(0, e, width):
            chunk = endings[start:start + width]
            ids = passes.right_padded(lm, [prompts[i][-1:] + ending for i in batch for ending in chunk], m)
            wanted = torch.tensor([k * m + len(ending) for k, ending in enumerate(chunk)], device=lm.device)
            logits = lm.model(input_ids=ids.view(len(batch), -1), past_key_values=cache, use_cache=True,
                              logits_to_keep=wanted, **passes.branched(lm, seen, len(chunk), m)).logits.float()
            cache.crop(-len(chunk) * m)
            place = np.ix_(batch, range(start, start + len(chunk)))
            out["logits"][place] = logits[:, :, tokens].cpu().numpy()
            out["logsumexp"][place] = logits.logsumexp(-1).cpu().numpy()

    passes.each(passes.batches(lm, lengths, lambda longest: (longest + width * m, longest + e * m, width)), work)
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
def generate_ids(lm, prompts, rows, max_new_tokens, first_token=True, watch=None):
    """`generate` as lists of token ids, without the end-of-sequence token.

    watch  None, or what lib.probe looks through: called with the token ids so far (B, T), padded on the left, and
           the logits (B, V) that follow; returns the logits
    """
    if len(prompts) != len(rows):
        raise UserError(f"{len(prompts)} prompts, {len(rows)} rows: expected one row per prompt")
    lengths = passes.lengths_of(lm, prompts, room=max_new_tokens)
    passes.check_rows(lm, rows)      # the whole request is checked before the first batch runs
    answers = [None] * len(prompts)

    def work(batch):
        ids, mask = passes.left_padded(lm, [prompts[i] for i in batch])
        added = passes.stacked(lm, [rows[i] for i in batch])
        cache = passes.new_cache(lm, ids.shape[1] + max_new_tokens) if lm.keeps else None
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
            last, acting = 1, added
            if not lm.keeps:     # each token runs the whole sequence, in which all steered tokens are steered again
                last, left, skip = ids.shape[1] - prompt + first_token, 1, 0
                acting = added if last else {}
            with steer(lm.layers, acting, last=last, skip=skip):
                ids = lm.model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=left, do_sample=False,
                                        use_cache=lm.keeps, past_key_values=cache,
                                        logits_processor=[watch] if watch else None,
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
                if cache is not None:
                    cache.batch_select_indices(kept.to(ids.device))

    # Equal prompts side by side, so that they meet in one batch.
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], list(prompts[i])))
    most = GENERATE_ROWS["cuda" if lm.device.type == "cuda" else "cpu"]
    passes.each(passes.batches(lm, lengths, lambda longest: (longest, longest + max_new_tokens, 1), order, most,
                               equal=not lm.pads), work)
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
