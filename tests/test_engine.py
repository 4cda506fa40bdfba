"""lib.engine against the naive computation: one prompt, one row, everything through the whole model."""
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicLayer

from lib import engine, passes
from lib.artifacts import UserError
from lib.studies import mediation
from tests import tiny

VOCAB, D = 320, 32
KINDS = {"llama": {}, "llama-eager": {"attn_implementation": "eager"}, "qwen2": {"tie_word_embeddings": True},
         "gpt2": {}, "gptj": {},          # blocks of gptj and bloom give tuples
         "mistral": {}, "gemma3": {},     # sliding windows of 12: branches within it, copies of the cache beyond
         "bloom": {},                     # ALiBi: copies of the cache
         "lfm2": {}, "mamba": {}}         # states: copies of them, Mamba's go on by single tokens


@pytest.fixture(scope="module", params=KINDS)
def lm(request, tmp_path_factory):
    return tiny.load(tmp_path_factory.mktemp("engine") / request.param, request.param.split("-")[0],
                     **KINDS[request.param])


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return tiny.load(tmp_path_factory.mktemp("engine") / "only-llama", "llama")


def some(n_prompts=7, seed=0, shortest=2, longest=30):
    """Prompts of mixed lengths, the first two equal but for their last token."""
    rng = np.random.default_rng([seed, 1])
    prompts = [rng.integers(6, VOCAB, n).tolist() for n in rng.integers(shortest, longest, n_prompts)]
    return [prompts[0], prompts[0][:-1] + [prompts[0][-1] % 300 + 7], *prompts[2:]]


def some_rows():
    """Unsteered, one layer, all layers, a zero vector, a repetition, the last layer only."""
    v = np.random.default_rng(5).standard_normal((6, D)).astype(np.float32)
    return [(), ((0, v[0]),), ((0, v[1]), (1, v[2]), (2, v[3])), ((1, 0 * v[0]),), ((0, v[0]),),
            ((2, 3 * v[4]),), ((1, v[5]), (1, v[4]))]


def naive(lm, ids, row=(), start=None):
    """Logits (token, V) of one full forward pass, each vector added by a plain hook from `start` on."""
    def adder(vector):
        def hook(_module, _args, output):
            hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
            hidden[0, start:] += torch.as_tensor(vector)
            return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])
        return hook
    handles = [lm.layers[layer].register_forward_hook(adder(vector)) for layer, vector in row]
    with torch.no_grad():
        logits = lm.model(torch.tensor([ids]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return logits


def naive_read(lm, ids):
    """(layer, token, d): hidden states of transformers, and a hook for the last layer."""
    kept = []
    handle = lm.layers[-1].register_forward_hook(lambda _m, _a, output: kept.append(
        output if isinstance(output, torch.Tensor) else output[0]))
    with torch.no_grad():
        hidden = lm.model(torch.tensor([ids]), output_hidden_states=True, use_cache=False).hidden_states
    handle.remove()
    first = 0 if lm.model.config.model_type in ("mamba", "mamba2", "rwkv") else 1      # these leave the embedding out
    return torch.cat([*hidden[first:first + lm.n_layers - 1], kept[0]]).numpy()


def naive_generate(lm, ids, row, n, first_token=True):
    """Greedy decoding that recomputes the whole sequence for each token."""
    new = []
    for _ in range(n):
        token = int(naive(lm, ids + new, row, len(ids) - first_token)[-1].argmax())
        if token in lm.eos:
            break
        new.append(token)
    return new


def test_which_models_branch(lm):
    engine.sweep(lm, [[5, 6, 7]], [()], [8])
    assert lm.branches is (lm.name not in ("bloom", "lfm2", "mamba")) and lm.copies and lm.pads and lm.keeps
    assert lm.steps is (lm.name == "mamba")


def test_which_prompts_of_a_windowed_model_branch(lm, monkeypatch):
    """Up to its window and no longer; the numbers of both are in test_sweep."""
    fast, paths = 12 if lm.name in ("mistral", "gemma3") else 30 if lm.branches else 0, {}
    for name in ("side_by_side", "as_batch"):
        real = getattr(passes, name)

        def noted(lm, prefixes, suffixes, *rest, name=name, real=real):
            paths.update({len(p) + len(s): name for p, s in zip(prefixes, suffixes)})
            return real(lm, prefixes, suffixes, *rest)
        monkeypatch.setattr(passes, name, noted)
    engine.sweep(lm, [[6] * n for n in range(2, 30)], [()], [8])
    assert paths == {n: "side_by_side" if n <= fast else "as_batch" for n in range(2, 30)}


def test_read(lm):
    prompts = some()
    found = engine.read(lm, prompts)
    assert found.shape == (7, 3, D) and found.dtype == np.float32
    for ids, got in zip(prompts, found):
        np.testing.assert_allclose(got, naive_read(lm, ids)[:, -1], atol=1e-4)


def test_read_tail(lm):
    prompts = some()
    tails = [1 + i % len(p) for i, p in enumerate(prompts)]
    for tail in (2, tails):
        found = engine.read(lm, prompts, tail=tail)
        for ids, got, n in zip(prompts, found, np.broadcast_to(tail, 7)):
            np.testing.assert_allclose(got, naive_read(lm, ids)[:, -n:].mean(1), atol=1e-4)


def test_residual_norm(lm):
    prompts = some()
    want = np.mean([np.linalg.norm(naive_read(lm, ids)[:, -1], axis=-1) for ids in prompts], axis=0)
    np.testing.assert_allclose(engine.residual_norm(lm, prompts), want, rtol=1e-4)


def test_read_pairs(lm):
    prefixes = [*some(), []]
    positives = [[30, 31], [40], [50, 51, 52], [60], [70], [80, 81], [90], [11, 12]]
    negatives = [[32], [41], [53], [61, 62, 63, 64], [71], [82, 83], [91, 92], [13]]
    found = engine.read_pairs(lm, prefixes, positives, negatives)
    assert found.shape == (8, 2, 3, D)
    for prefix, ends, got in zip(prefixes, zip(positives, negatives), found):
        for end, side in zip(ends, got):
            np.testing.assert_allclose(side, naive_read(lm, prefix + end)[:, -1], atol=1e-4)


@pytest.mark.parametrize("suffix", [1, 2, "each"])
def test_sweep(lm, suffix):
    prompts, rows = some(), some_rows()
    tokens = np.random.default_rng(2).integers(VOCAB, size=(7, 2))
    suffix = [1, 2, 1, 2, 2, 1, len(prompts[-1])] if suffix == "each" else suffix     # the last has no prefix
    found = engine.sweep(lm, prompts, rows, tokens, suffix=suffix)
    assert found["logits"].shape == (7, 7, 2) and found["argmax"].shape == found["logsumexp"].shape == (7, 7)
    for i, (ids, m) in enumerate(zip(prompts, np.broadcast_to(suffix, 7))):
        for j, row in enumerate(rows):
            want = naive(lm, ids, row, len(ids) - m)[-1]
            np.testing.assert_allclose(found["logits"][i, j], want[tokens[i]], atol=1e-4)
            np.testing.assert_allclose(found["logsumexp"][i, j], want.logsumexp(0), atol=1e-4)
            assert found["argmax"][i, j] == want.argmax()
    for key in found:     # a zero vector is the unsteered model bit by bit
        assert np.array_equal(found[key][:, 3], found[key][:, 0])
    assert np.abs(found["logits"][:, 1] - found["logits"][:, 0]).max() > 0.1


def test_sweep_in_many_small_passes(lm, monkeypatch):
    prompts, rows = some(), some_rows()
    want = engine.sweep(lm, prompts, rows, [5, 6], suffix=2)
    monkeypatch.setattr(passes, "BRANCH_TOKENS", 4)
    monkeypatch.setattr(passes, "CPU_TOKENS", 60)
    monkeypatch.setattr(passes.Growing, "room", 1)
    found = engine.sweep(lm, prompts, rows, [5, 6], suffix=2)
    for key in ("logits", "logsumexp"):
        np.testing.assert_allclose(found[key], want[key], atol=1e-4)


@pytest.fixture
def ran(lm):
    """A list that fills with how many tokens a matrix of the first block is given, pass by pass."""
    if not lm.branches:
        pytest.skip("takes copies of the cache")
    inner, seen = next(m for m in lm.layers[0].modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2), []
    handle = inner.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[0] * given[0].shape[1]))
    yield seen
    handle.remove()


def headed(lm, head):
    """Prompts that begin with the same `head` tokens, two of them equal but for the last, one that is nothing more."""
    rest = [[30, 31, 32], [40, 41, 42], [40, 41, 43], [50], [60, 61, 62, 63]]
    return [[*range(7, 7 + head), *more] for more in (*rest, [9])]


@pytest.mark.parametrize("head, runs", [(6, [6, 4 * 3]), (passes.SHARED - 1, [4 * 6])])
def test_what_all_prompts_of_a_batch_begin_with_is_run_once(lm, ran, monkeypatch, head, runs):
    monkeypatch.setattr(passes, "SPREAD", 0.1)
    prompts, rows = headed(lm, head), some_rows()
    found = engine.sweep(lm, prompts, rows, [5, 6])
    assert ran[:len(runs)] == runs                  # the head, then four different prefixes with their pads
    for i, ids in enumerate(prompts):
        for j, row in enumerate(rows):
            np.testing.assert_allclose(found["logits"][i, j], naive(lm, ids, row, len(ids) - 1)[-1][[5, 6]], atol=1e-4)


def test_kept_prefixes_are_not_run_again(lm, ran):
    prompts, ends = headed(lm, 6), [[80], [81, 82]] * 3
    calls = {"sweep": lambda rows: engine.sweep(lm, prompts, rows, [5, 6])["logits"],
             "some": lambda rows: engine.sweep(lm, prompts[3:1:-1], rows, [5, 6])["logits"],
             "logprob": lambda rows: engine.sequence_logprob(lm, prompts, ends, rows),
             "pairs": lambda rows: engine.read_pairs(lm, [p[:-1] for p in prompts], [p[-1:] for p in prompts], ends)}
    rows = some_rows()
    want, tokens = {}, {}
    for name, call in calls.items():
        ran.clear()
        want[name], tokens[name] = call(rows), sum(ran)
    with passes.kept():
        first = calls["sweep"](rows)
        for name, call in calls.items():
            ran.clear()
            np.testing.assert_allclose(call(rows), want[name], atol=1e-4)
            assert sum(ran) <= tokens[name] - 6 - min(len(prompts), 2)
        ran.clear()
        assert np.array_equal(calls["sweep"](rows[::-1])[:, ::-1], first)        # rows behind them left no trace
    ran.clear()
    calls["sweep"](rows)
    assert sum(ran) == tokens["sweep"]                                           # nothing stays


def test_what_does_not_fit_is_not_kept(lm, ran, monkeypatch):
    monkeypatch.setattr(passes, "KEPT", 1)
    prompts, seen = headed(lm, 6), []
    with passes.kept():
        for _ in range(2):
            ran.clear()
            engine.sweep(lm, prompts, [()], [5, 6])
            seen.append(list(ran))
    assert seen[0] == seen[1]


@pytest.mark.parametrize("layer, inputs, runs", [(2, False, 1), (1, False, 1), (0, False, 1), (2, True, 1), (0, True, 40)])
def test_blocks_before_the_first_that_a_row_changes_are_not_run(lm, layer, inputs, runs):
    """Forty rows at one layer: how many tokens of theirs does the first block see? What a row changes is what naive
    passes give; test_sweep has other rows."""
    assert lm.skips is lm.branches
    if not lm.skips:
        pytest.skip("takes copies of the cache")
    if inputs and lm.name == "gptj":
        pytest.skip("its projection is tested in test_mediation")
    inner = next(m for m in lm.layers[0].modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2)
    seen, prompt = [], [5, 6, 7, 8, 9, 10, 11]
    place = mediation.projections(lm) if inputs else None
    vectors = np.random.default_rng(3).standard_normal((40, place.width if inputs else D)).astype(np.float32)
    rows = [((layer, vector),) for vector in vectors]
    handle = inner.register_forward_hook(lambda _m, given, _o: seen.append(given[0].shape[0] * given[0].shape[1]))
    found = engine.sweep(lm, [prompt], rows, [5, 6], place=place)
    handle.remove()
    assert sum(seen) == len(prompt) - 1 + runs
    assert not any("forward" in block.__dict__ for block in lm.layers)
    if not inputs:
        for row, got in zip(rows[::13], found["logits"][0, ::13]):
            np.testing.assert_allclose(got, naive(lm, prompt, row, len(prompt) - 1)[-1][[5, 6]], atol=2e-4)


@pytest.mark.parametrize("layer, rows, pays", [(0, 3, False), (0, 4, True), (1, 1, False), (1, 2, True),
                                               (2, 1, False), (2, 2, True)])
def test_blocks_are_skipped_where_that_pays(llama, layer, rows, pays):
    """What the rows save against the unsteered pass through three blocks; the first block's hooks see each pass."""
    seen, vectors = [], np.random.default_rng(4).standard_normal((rows, D)).astype(np.float32)
    handle = llama.layers[0].register_forward_hook(lambda _m, _args, output: seen.append(output.shape[1]))
    found = engine.sweep(llama, [[5, 6, 7, 8]], [((layer, vector),) for vector in vectors], [9])
    handle.remove()
    assert seen == ([3, 1, rows] if pays else [3, rows])
    for vector, got in zip(vectors, found["logits"][0]):
        np.testing.assert_allclose(got, naive(llama, [5, 6, 7, 8], ((layer, vector),), 3)[-1][[9]], atol=2e-4)


def test_an_error_leaves_the_blocks_as_they_were(llama, monkeypatch):
    before = engine.sweep(llama, [[5, 6, 7]], [()], [8])
    monkeypatch.setattr(llama.model.lm_head, "forward", Mock(side_effect=ValueError("x")))
    with pytest.raises(ValueError, match="x"):
        engine.sweep(llama, [[5, 6, 7]], [((2, np.full(D, i, np.float32)),) for i in (1, 2, 3)], [8])
    monkeypatch.undo()
    assert not any("forward" in block.__dict__ for block in llama.layers)
    assert np.array_equal(engine.sweep(llama, [[5, 6, 7]], [()], [8])["logits"], before["logits"])


@pytest.mark.parametrize("width", [256, 4])
def test_divergence(lm, monkeypatch, width):
    monkeypatch.setattr(passes, "BRANCH_TOKENS", width)          # in one pass, and with the unsteered row in another
    prompts, rows = some(), some_rows()
    suffix = [1 + i % 2 for i in range(len(prompts))]
    found = engine.divergence(lm, prompts, rows, suffix)
    assert found.shape == (7, 7) and found.dtype == np.float32
    for ids, m, got in zip(prompts, suffix, found):
        p, *logq = (naive(lm, ids, row, len(ids) - m)[-1].double().log_softmax(-1) for row in [(), *rows])
        np.testing.assert_allclose(got, [float((p.exp() * (p - q)).sum()) for q in logq], rtol=1e-3, atol=1e-5)
    assert not found[:, [0, 3]].any() and found[:, 1].min() > 1e-3


def test_sequence_logprob(lm):
    prompts, rows = some(), some_rows()
    continuations = [[30, 31], [40], [50, 51, 52], [60], [70], [80, 81], [90, 91, 92]]
    found = engine.sequence_logprob(lm, prompts, continuations, rows)
    assert found.shape == (7, 7)
    for i, (ids, more) in enumerate(zip(prompts, continuations)):
        for j, row in enumerate(rows):
            logp = naive(lm, ids + more, row, len(ids) - 1)[len(ids) - 1:-1].log_softmax(-1)
            assert found[i, j] == pytest.approx(float(logp[range(len(more)), more].sum()), abs=2e-4)


@pytest.mark.parametrize("first_token", [True, False])
def test_generate(lm, first_token):
    prompts, rows = some(), some_rows()
    prompts, rows = prompts + prompts[:3] + [[9]], rows + rows[4:] + rows[1:2]      # some under two rows
    found = engine.generate_ids(lm, prompts, rows, 8, first_token=first_token)
    assert found == [naive_generate(lm, ids, row, 8, first_token) for ids, row in zip(prompts, rows)]
    texts = engine.generate(lm, prompts, rows, 8, first_token=first_token)
    assert texts == [lm.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
    assert found[0] != found[1] != found[2]


def test_first_token_variant_changes_the_first_token_only_by_its_absence(llama):
    prompts, rows = some(), [((1, 20 * np.ones(D, np.float32)),)] * 7
    plain = engine.generate_ids(llama, prompts, [()] * 7, 1)
    assert engine.generate_ids(llama, prompts, rows, 1, first_token=False) == plain
    assert engine.generate_ids(llama, prompts, rows, 1) != plain


def test_generate_rows_are_independent(llama, monkeypatch):
    """Alone, in any order, in any batch: the same answers, in input order."""
    prompts, rows = some(12, seed=3), (some_rows() * 2)[:12]
    together = engine.generate_ids(llama, prompts, rows, 12)
    assert engine.generate_ids(llama, prompts[::-1], rows[::-1], 12) == together[::-1]
    assert [engine.generate_ids(llama, [p], [r], 12)[0] for p, r in zip(prompts, rows)] == together
    monkeypatch.setitem(engine.GENERATE_ROWS, "cpu", 5)
    assert engine.generate_ids(llama, prompts, rows, 12) == together


def test_generate_stops_at_eos(llama, monkeypatch):
    prompts, rows = some(), some_rows()
    free = engine.generate_ids(llama, prompts, rows, 12)
    stop = free[2][3]
    monkeypatch.setattr(llama, "eos", (stop,))
    monkeypatch.setattr(llama.model.generation_config, "eos_token_id", [stop])
    want = [ids[:ids.index(stop)] if stop in ids else ids for ids in free]
    assert engine.generate_ids(llama, prompts, rows, 12) == want and len(want[2]) <= 3
    monkeypatch.setattr(llama.model.generation_config, "pad_token_id", stop)      # one token in many models
    assert engine.generate_ids(llama, prompts, rows, 12) == want


def test_a_batch_goes_on_without_the_rows_that_have_ended(lm, monkeypatch):
    prompts, rows = some(12, seed=3), (some_rows() * 2)[:12]
    free, real, sizes = engine.generate_ids(lm, prompts, rows, 20), lm.model.generate, []
    common = np.bincount(sum((ids[2:] for ids in free), []), minlength=VOCAB).argsort()[-2:].tolist()
    common = sorted({*common, *lm.eos})       # an answer that had ended by itself ends again
    monkeypatch.setattr(lm, "eos", tuple(common))
    monkeypatch.setattr(lm.model.generation_config, "eos_token_id", common)
    monkeypatch.setattr(engine, "LEAST_ENDED", 1)
    monkeypatch.setattr(passes, "SPREAD", 0)
    monkeypatch.setattr(lm.model, "generate", lambda **k: sizes.append(len(k["input_ids"])) or real(**k))
    ends = [next((k for k, token in enumerate(ids) if token in common), len(ids)) for ids in free]
    assert engine.generate_ids(lm, prompts, rows, 20) == [ids[:end] for ids, end in zip(free, ends)]
    shared = passes.new_cache(lm) is not None          # other models keep a state that cannot be selected
    assert len(set(ends)) > 3 and sizes[0] == 12 and (sizes[1:] and sizes[1] <= 6 if shared else sizes == [12])


def test_a_pad_that_looks_like_a_token(llama, monkeypatch):
    """Padded to one length both prompts read [7, 7, 30, 31]; the mask tells them apart."""
    monkeypatch.setattr(llama.model.generation_config, "pad_token_id", 7)
    prompts = [[7, 7, 30, 31], [7, 30, 31]]
    want = [naive_generate(llama, ids, (), 6) for ids in prompts]
    assert engine.generate_ids(llama, prompts, [(), ()], 6) == want and want[0] != want[1]


def test_growing_cache_holds_what_a_plain_one_holds():
    torch.manual_seed(0)
    plain, growing = DynamicLayer(), passes.Growing()
    growing.room = 2
    steps = [("update", 3), ("update", 1), ("update", 1), ("select", [1, 0]), ("update", 1), ("crop", -2),
             ("update", 1), ("select", [0, 0, 1]), ("update", 4), ("crop", -9), ("update", 2)]
    rows = 2
    for step, value in steps:
        if step == "update":
            new = torch.randn(2, rows, 2, value, 4)
            for a, b in zip(plain.update(*new), growing.update(*new)):
                assert torch.equal(a, b)
        elif step == "select":
            rows = len(value)
            plain.batch_select_indices(torch.tensor(value)), growing.batch_select_indices(torch.tensor(value))
        else:
            plain.crop(value), growing.crop(value)
        assert torch.equal(plain.keys, growing.keys) and torch.equal(plain.values, growing.values)


def test_hooks_and_model_are_left_as_they_were(llama, monkeypatch):
    before = engine.read(llama, some())
    engine.generate(llama, some(), some_rows(), 3)
    with pytest.raises(ZeroDivisionError):
        with monkeypatch.context() as patch:
            patch.setattr(llama.model, "generate", lambda **_: 1 / 0)
            engine.generate(llama, some(), some_rows(), 3)
    assert not any(layer._forward_hooks for layer in llama.layers)
    assert np.array_equal(engine.read(llama, some()), before)


@pytest.mark.parametrize("message", ["", "DefaultCPUAllocator: can't allocate memory"])
def test_out_of_memory_halves_the_batch(llama, monkeypatch, message):
    prompts, rows = some(), some_rows()
    calls = (lambda: engine.read(llama, prompts), lambda: engine.sweep(llama, prompts, rows, [5])["logits"],
             lambda: engine.read_pairs(llama, prompts, prompts, prompts))
    whole, sizes, real = [call() for call in calls], [], passes.right_padded

    def tight(lm, sequences, width=None):
        sizes.append(len(sequences))
        if len(sequences) > 2:
            raise RuntimeError(message) if message else torch.OutOfMemoryError("simulated")
        return real(lm, sequences, width)
    monkeypatch.setattr(passes, "right_padded", tight)
    for call, want in zip(calls, whole):
        np.testing.assert_allclose(call(), want, atol=1e-4)
    assert max(sizes) > 2
    for error, expected, text in ((torch.OutOfMemoryError(), UserError, "single prompt"),
                                  (RuntimeError("another reason"), RuntimeError, "another reason")):
        monkeypatch.setattr(passes, "right_padded", Mock(side_effect=error))
        with pytest.raises(expected, match=text):
            engine.read(llama, prompts)


def test_out_of_memory_once_in_generation(llama, monkeypatch):
    prompts, rows = some(), some_rows()
    want, real, failed = engine.generate_ids(llama, prompts, rows, 6), llama.model.generate, []

    def once(**kwargs):
        if not failed:
            failed.append(len(kwargs["input_ids"]))
            raise torch.OutOfMemoryError("simulated")
        return real(**kwargs)
    monkeypatch.setattr(llama.model, "generate", once)
    assert engine.generate_ids(llama, prompts, rows, 6) == want and failed[0] > 1


def test_half_precision_branches_too(tmp_path):
    lm = tiny.load(tmp_path / "m", "llama", dtype="bfloat16")
    prompts, rows = some(), some_rows()
    found = engine.sweep(lm, prompts, rows, [5, 6], suffix=2)["logits"]
    assert lm.branches and found.dtype == np.float32
    for i, ids in enumerate(prompts):
        full = naive(lm, ids)[-1].float().numpy()
        np.testing.assert_allclose(found[i, 0], full[[5, 6]], atol=0.05 * np.abs(full).max())
    assert engine.read(lm, prompts).dtype == np.float32
    assert len(engine.generate(lm, prompts, rows, 4)) == 7


def test_user_errors(llama):
    v = np.ones(D, np.float32)
    bad = [(lambda: engine.read(llama, []), "no prompts"),
           (lambda: engine.read(llama, [[5], []]), "prompt 1 of 2 is empty"),
           (lambda: engine.read(llama, [[5] * 257]), "256 at most"),
           (lambda: engine.generate(llama, [[5] * 250], [()], 7), "250 tokens and an answer of up to 7"),
           (lambda: engine.generate(llama, [[5]], [(), ()], 7), "one row per prompt"),
           (lambda: engine.read(llama, [[5, 6]], tail=3), "tail 3"),
           (lambda: engine.sweep(llama, [[5, 6]], [()], [1], suffix=0), "suffix 0"),
           (lambda: engine.sweep(llama, [[5, 6]], [], [1]), "no rows"),
           (lambda: engine.sweep(llama, [[5, 6]], [((3, v),)], [1]), "layer 3"),
           (lambda: engine.generate(llama, [[5, 6]], [((0, v[:-1]),)], 2), "expected"),
           (lambda: engine.read_pairs(llama, [[5]], [[]], [[6]]), "an ending is empty"),
           (lambda: engine.read_pairs(llama, [[5]], [], [[6]]), "0 positives"),
           (lambda: engine.sequence_logprob(llama, [[5]], [[]], [()]), "one token")]
    for call, message in bad:
        with pytest.raises(UserError, match=message):
            call()
