"""What moves along on a card: contrasts of the project's own against naive passes, planted effects and nothing at all."""
import importlib

import numpy as np
import pytest
import torch

from lib import artifacts, hooks, metrics, models
from report import card_contrasts
from report.card_contrasts import beyond, conclude, limits
from tests import tiny

PAIRS = artifacts.read_json(card_contrasts.PAIRS)
NAMES = [{"name": f"c{i}", "positive": "this", "negative": "that"} for i in range(8)]


def test_the_pairs_are_whole():
    texts = [pair[side] for contrast in PAIRS for pair in contrast["pairs"] for side in card_contrasts.SIDES]
    assert len(PAIRS) == 8 and {len(contrast["pairs"]) for contrast in PAIRS} == {card_contrasts.N_PAIRS["full"]}
    assert len(set(texts)) == len(texts) == 160 and all(text == text.strip() for text in texts)
    assert all(len({pair["prompt"] for pair in contrast["pairs"]}) == 10 for contrast in PAIRS)


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contrasts") / "tiny"
    tiny.save(folder, "llama", max_position_embeddings=1024)
    return models.load(str(folder))


def test_states_and_odds_are_those_of_one_plain_pass(lm):
    few = [contrast | {"pairs": contrast["pairs"][:2]} for contrast in PAIRS[:2]]
    added = np.random.default_rng(0).standard_normal(lm.d_model).astype(np.float32)
    found = card_contrasts.measure(lm, "Be brief.", few, 1, [(), ((1, added),)])
    assert found["logprob"].shape == (2, 2, 2, 2) and found["states"].shape == (2, 2, 2, lm.d_model)
    for c, contrast in enumerate(few):
        for p, pair in enumerate(contrast["pairs"]):
            for s, side in enumerate(card_contrasts.SIDES):
                prompt, answer = lm.chat("Be brief.", pair["prompt"]), lm.tokens(pair[side])
                ids = torch.tensor([prompt + answer])
                with torch.inference_mode():
                    plain = lm.model(input_ids=ids, output_hidden_states=True, use_cache=False)
                    with hooks.steer(lm.layers, {1: torch.from_numpy(added)[None]}, last=len(answer) + 1):
                        steered = lm.model(input_ids=ids, use_cache=False).logits
                state = plain.hidden_states[2][0, -len(answer):].mean(dim=0).numpy()
                assert np.allclose(found["states"][c, p, s], state, atol=1e-4)
                for row, logits in enumerate((plain.logits, steered)):
                    logp = logits[0, len(prompt) - 1:-1].log_softmax(-1)
                    naive = logp.gather(1, torch.tensor(answer)[:, None]).mean().item()
                    assert found["logprob"][c, p, s, row] == pytest.approx(naive, abs=1e-4)


def test_a_limit_is_students():
    """t of a table: 2.262 for nine degrees, 2.228 for ten, both 97.5 %; 3.690 for nine degrees at 99.75 %."""
    x = np.random.default_rng(1).standard_normal(10)
    half = x.std(ddof=1) * np.sqrt(1.1)
    assert np.allclose(limits(x, 1), [x.mean() - 2.262 * half, x.mean() + 2.262 * half], atol=1e-3)
    assert np.allclose(limits(x, 10), [x.mean() - 3.690 * half, x.mean() + 3.690 * half], atol=2e-3)
    rms = np.sqrt((x ** 2).mean())
    assert np.allclose(limits(x, 1, mean=0.0), [-2.228 * rms, 2.228 * rms], atol=1e-3)


def test_one_more_draw_lies_within():
    rng = np.random.default_rng(2)
    inside = [low <= one <= high for *x, one in rng.standard_normal((4000, 7)) for low, high in [limits(np.array(x), 1)]]
    assert abs(np.mean(inside) - 0.95) < 0.012


@pytest.mark.parametrize("low, high, limit, side", [
    (3, 5, [-1, 2], 1), (1, 5, [-1, 2], 0), (-5, -3, [-1, 2], -1), (-0.5, 0.5, [-3, -1], 0), (0.5, 1, [-3, -1], 1), (None, None, [-1, 1], 0)])
def test_beyond_means_the_whole_interval(low, high, limit, side):
    """And beyond nothing too: where random vectors lower the odds, a vector that leaves them does not count."""
    assert beyond({"low": low, "high": high}, limit) == side


def data(rng, moved=0.0, turned=0.0, d=64):
    """Arrays of `measure`, and vectors: contrast 3 is moved by the vector, and contrast 5 lies along it."""
    logprob = rng.standard_normal((8, 10, 2, 1)) * 2 + np.zeros((8, 10, 2, 12))
    own = 0.3 * rng.standard_normal((8, 1, 1, 11))                 # of each vector, alike for all pairs
    logprob[..., 1:] += own * np.reshape([1, -1], (2, 1)) + 0.1 * rng.standard_normal((8, 10, 2, 11))
    logprob[3, :, 0, 1] += moved
    vectors = rng.standard_normal((6, d))
    states = 0.5 * rng.standard_normal((8, 10, 2, d)) + rng.standard_normal((8, 1, 2, d))
    states[5, :, 0] += turned * vectors[0]
    return logprob, states, vectors


def test_what_is_planted_is_found():
    for sign in (1, -1):
        records, cosines = conclude(NAMES, *data(np.random.default_rng(3), moved=8 * sign, turned=4 * sign))
        assert [r["moves"] for r in records] == [sign if i == 3 else 0 for i in range(8)]
        assert [r["along"] for r in records] == [sign if i == 5 else 0 for i in range(8)]
        assert records[3]["shift"]["value"] * sign > 6 and records[3]["shift"]["n"] == 10
        assert cosines.shape == (8, 6) and records[5]["cosine"]["value"] == pytest.approx(cosines[5, 0])


def test_where_there_is_nothing_it_rarely_speaks():
    """A random vector among random ones: each moves every contrast in its own way, alike for all pairs."""
    told = [any(r["moves"] or r["along"] for r in conclude(NAMES, *data(np.random.default_rng([4, i]), d=16))[0])
            for i in range(30)]
    assert sum(told) <= 3


def test_examples_and_vector_pull_against_the_lean(monkeypatch):
    """Four probes by hand: one that leans to the positive side gets negative examples and the vector turned round."""
    lean = np.array([2.0, -1.0, 4.0, -4.0])
    sides = {"positive": np.array([[9, 9, 9], [0.5, 0.0, 9], [9, 9, 9], [-2, 1, 9]], float),       # rows: none, v, -v
             "negative": np.array([[1, 9, -0.5], [9, 9, 9], [2, 9, 1], [9, 9, 9]], float)}
    given = []

    def preference(lm, probes, rows, before=None):
        given.append(rows)
        return lean[:, None] if before is None else sides[before[0]]

    monkeypatch.setattr(card_contrasts.values, "preference", preference)
    monkeypatch.setattr(card_contrasts.values, "examples", lambda value, side, n, address: side)
    monkeypatch.setattr(card_contrasts.suites, "value_split", lambda value, part, labels: ["a", "b", "c", "d"])
    found = card_contrasts.together(None, None, 3, np.float32([1, 2]))
    alone, both = (1 - size / 11 for size in (1 + 0.5 + 2 + 2, 0.5 + 0 + 1 + 1))
    assert found["value"] == pytest.approx(both - alone) and found["n"] == 4
    assert given[1][0] == () and [row[0][0] for row in given[1][1:]] == [3, 3] and (given[1][2][0][1] == [-1, -2]).all()


def test_examples_are_as_many_as_in_stage_03():
    assert card_contrasts.N_EXAMPLES == importlib.import_module("03_transfer").N_EXAMPLES


def test_random_vectors_move_nothing_on_an_embedded_model():
    """Each of six in the vector's place, nine others beside it, at half of the stream's norm; shuffled ones are random too."""
    lm = models.load(str(artifacts.ROOT / "data/models/pico-llama"))
    few = [contrast | {"pairs": contrast["pairs"][:5]} for contrast in PAIRS]
    drawn = metrics.norm_matched_random(np.full(lm.d_model, 40 / lm.d_model ** 0.5), 10, [5])
    found = card_contrasts.measure(lm, "You are a helpful assistant.", few, 3, [(), *(((3, v),) for v in drawn)])
    moves = 0
    for own in range(6):
        order = [own, *(i for i in range(10) if i != own)]
        records, _ = conclude(few, found["logprob"][..., [0, *(1 + i for i in order)]], found["states"], drawn[order])
        moves += sum(bool(record["moves"] or record["along"]) for record in records)
    assert np.abs(found["logprob"][..., 1:] - found["logprob"][..., :1]).max() > 0.1 and moves <= 2
