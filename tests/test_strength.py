"""The unit of strength: from planted curves, a linear model with a known answer, and a model with a rescaled stream."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lib import engine, metrics, suite as suites
from lib.studies import propensity, strength
from tests import tiny

SHARES = np.array(strength.SHARES)


def test_unit_norms_of_planted_curves():
    """Squares are met exactly, inside and below the grid; what is never reached is clamped; the first crossing counts."""
    def square(at):                                          # KL = KL_UNIT at the share `at`
        return strength.KL_UNIT * (SHARES / at) ** 2
    dips = np.where(SHARES > 0.5, 1e-4, square(0.15))
    curves = np.stack([square(0.3), square(1e-4), square(50.0), dips, square(SHARES[2])])
    noise = np.array([0.5, 1.5])                             # two vectors: their mean counts
    found, where = strength.unit_norms(curves[..., None] * noise, np.array([1, 10, 1, 1, 2]))
    np.testing.assert_allclose(found, [0.3, 0.001, SHARES[-1], 0.15, 2 * SHARES[2]], rtol=1e-5)
    assert where.tolist() == [0, -1, 1, 0, 0]
    rising = [strength.unit_norms(curves[:1, :, None], np.ones(1), kl)[0][0] for kl in (0.01, 0.05, 0.2)]
    np.testing.assert_allclose(rising, 0.3 * np.sqrt([0.2, 1, 4]), rtol=1e-5)


def linear(w, h):
    """`engine.divergence` of a model whose logits are w h, for any prompt."""
    def divergence(lm, prompts, rows, suffix):
        def logp(x):
            return torch.from_numpy(w @ x).log_softmax(-1)
        p = logp(h)
        return np.tile([float((p.exp() * (p - logp(h + v))).sum()) for ((_, v),) in rows], (len(prompts), 1))
    return divergence


def test_a_dimension_that_holds_the_norm_and_says_nothing_does_not_move_the_unit(monkeypatch):
    rng = np.random.default_rng(1)
    w, h = rng.normal(size=(50, 200)) / 4, rng.normal(size=200)
    found = {}
    for name, bulk in (("plain", []), ("massive", [1e3])):
        state, reads = np.r_[h, bulk], np.concatenate([w, np.zeros((50, len(bulk)))], axis=1)
        monkeypatch.setattr(engine, "divergence", linear(reads, state))
        norms = np.array([np.linalg.norm(state)])
        curve = strength.curve(SimpleNamespace(d_model=len(state)), [([1], 1)] * 2, norms, 50, [3])
        found[name] = strength.unit_norms(curve, norms)[0][0], norms[0]
    (plain, small), (massive, large) = found.values()
    assert large > 50 * small and massive == pytest.approx(plain, rel=0.15)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model, and the same with all that is written into the stream, and so its norm, eight times as large."""
    lm, scaled = (tiny.load(tmp_path_factory.mktemp(name), "llama") for name in ("plain", "scaled"))
    with torch.no_grad():
        scaled.model.get_input_embeddings().weight.mul_(8)
        for layer in scaled.layers:
            layer.self_attn.o_proj.weight.mul_(8)
            layer.mlp.down_proj.weight.mul_(8)
    return lm, scaled


def test_the_unit_goes_with_the_scale_of_the_stream(models):
    """A vector made from the stream has the same strength on both, and random vectors of one unit do what they should."""
    rng = np.random.default_rng(4)
    asked = [(rng.integers(6, 300, n).tolist(), 1) for n in (5, 9, 14, 14)]
    ids = [prompt for prompt, _ in asked]
    norms = [engine.residual_norm(lm, ids) for lm in models]
    np.testing.assert_allclose(norms[1], 8 * norms[0], rtol=1e-3)
    curves = [strength.curve(lm, asked, norm, 8, [5]) for lm, norm in zip(models, norms)]
    units = [strength.unit_norms(curve, norm)[0] for curve, norm in zip(curves, norms)]
    np.testing.assert_allclose(units[1], 8 * units[0], rtol=0.01)
    assert curves[0].shape == (3, len(SHARES), 8) and (np.diff(curves[0].mean(axis=2), axis=1) > 0).all()
    for l, unit in enumerate(units[0]):                      # fresh vectors
        v = metrics.norm_matched_random(np.full(32, unit / 32 ** 0.5), 60, [6, l])
        kl = engine.divergence(models[0], ids, [((l, x),) for x in v]).mean()
        assert strength.KL_UNIT / 1.5 < kl < 1.5 * strength.KL_UNIT


def test_prompts_are_of_the_tuning_split(models):
    lm, suite = models[0], suites.load("testbed", "smoke")
    read_out = propensity.find(lm, suite)
    found = strength.prompts(lm, suite, read_out, 4)
    assert {kind: len(some) for kind, some in found.items()} == {"": 4, "_raw": 4}
    texts = {tuple(lm.encode(suite.templates[0]["query"].format(x=x))) for r in suite.relations
             for x, _ in suites.relation_split(r, "tune")}
    assert {(tuple(ids), m) for ids, m in found["_raw"]} <= {(text, 1) for text in texts}
    chat = {tuple(lm.chat(suite.system, item["prompt"])): 1 for item in suite.tasks["question"]["tune"]}
    chat |= {tuple(propensity.ask(lm, read_out, suite, b, [item])[0][0]): read_out.suffix for b in suite.behaviours
             for item in suites.split(b["items"], "tune")}
    assert len({m for _, m in found[""]}) == 2 and all(chat[tuple(ids)] == m for ids, m in found[""])
