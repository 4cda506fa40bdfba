"""The alignment study: patching and mediation against plain forward passes, scores against naive ones, conclusions
against planted measurements, both embedded models against what was planted into them, the stages end to end."""
import importlib
import json
import sys

import numpy as np
import pytest
import torch

from lib import artifacts, engine, models, suite as suites
from lib.studies import mediation, relation_gains, relations, values
from lib.artifacts import UserError
from lib.hooks import Place, patch, stack
from tests import tiny

ROOT = artifacts.ROOT
ADDRESS = [7]
# One that shares prefixes side by side for each family of projections, and one that cannot (sliding windows).
HEADED = ("llama", "qwen2", "gpt2", "gptj", "mistral")
PROMPTS = [[1, 20, 31, 42, 7], [1, 9, 8, 55, 60, 61, 62], [1, 30]]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return tmp_path_factory.mktemp("alignment")


def load(world, architecture, **extra):
    return tiny.load(world / architecture, architecture, **extra)


def by_hand(lm, prompt, module, position, change, given=False):
    """Logits of the last token with change(values at `position`) put at a module's output, or input."""
    def before(_module, args):
        x = args[0].clone()
        x[0, position] = change(x[0, position])
        return (x, *args[1:])

    def after(_module, _args, output):
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        hidden[0, position] = change(hidden[0, position])
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    handle = module.register_forward_pre_hook(before) if given else module.register_forward_hook(after)
    with torch.no_grad():
        logits = lm.model(torch.tensor([prompt])).logits[0, -1].float().numpy()
    handle.remove()
    return logits


# --- patching --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", HEADED)
def test_patched_blocks_and_heads_are_those_of_whole_prompts(world, architecture):
    lm = load(world, architecture)
    place, rng = mediation.projections(lm), np.random.default_rng(0)
    state, head = rng.standard_normal(lm.d_model).astype(np.float32), rng.standard_normal(8).astype(np.float32)
    where = mediation.part(lm, place, 2)
    assert (place.width, where) == (32, slice(16, 24))
    vector = np.full(32, np.nan, np.float32)
    vector[where] = head
    for found, layer, module, change, given in (
            (engine.sweep(lm, PROMPTS, [(), ((1, state),)], np.arange(320), place=Place(lm.layers, 32, False)), 1,
             lm.layers[1], lambda x: torch.tensor(state), False),
            (engine.sweep(lm, PROMPTS, [(), ((1, vector),)], np.arange(320), place=place), 1, place.modules[1],
             lambda x: torch.cat([x[:16], torch.tensor(head), x[24:]]), True)):
        for i, prompt in enumerate(PROMPTS):
            for row, what in enumerate((lambda x: x, change)):
                want = by_hand(lm, prompt, module, -1, what, given)
                np.testing.assert_allclose(found["logits"][i, row], want, atol=1e-4)
        assert np.abs(found["logits"][:, 1] - found["logits"][:, 0]).max() > 0.1


def test_zeros_that_are_put_in_place_act(world):
    lm = load(world, "llama")
    place = Place(lm.layers, 32, False)
    found = engine.sweep(lm, PROMPTS, [((2, np.zeros(32)),)], np.arange(320), place=place)["logits"][0, 0]
    np.testing.assert_allclose(found, by_hand(lm, PROMPTS[0], lm.layers[2], -1, torch.zeros_like), atol=1e-4)


def test_nan_leaves_what_is_there_and_hooks_go():
    block, hidden = torch.nn.Identity(), torch.arange(8.0).view(1, 2, 4)
    added = stack([((0, [np.nan, 5, np.nan, np.nan]), (0, [np.nan, np.nan, np.nan, 6]))], 1, 4, fill=np.nan)
    for given in (False, True):
        with patch(Place([block], 4, given), added, last=1):
            changed = block(hidden)
        assert changed.tolist() == [[[0, 1, 2, 3], [4, 5, 6, 6]]] and hidden[0, 1, 3] == 7
        assert block(hidden) is hidden
    with pytest.raises(UserError, match="finite"):
        stack([((0, [np.inf, 0, 0, 0]),)], 1, 4, fill=np.nan)
    with pytest.raises(UserError, match="finite"):
        stack([((0, [np.nan, 0, 0, 0]),)], 1, 4)


def test_rank_counts_the_tokens_above(world):
    lm = load(world, "qwen2")
    tokens = np.array([[5], [17], [300]])
    found = engine.sweep(lm, PROMPTS, [()], tokens, ranks=True)
    logits = engine.sweep(lm, PROMPTS, [()], np.arange(320))["logits"][:, 0]
    assert found["rank"][:, 0].tolist() == [(x > x[t]).sum() for x, t in zip(logits, tokens[:, 0])]
    top = found["argmax"]
    assert engine.sweep(lm, PROMPTS, [()], top, ranks=True)["rank"].tolist() == [[0]] * 3


# --- heads -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("architecture", HEADED)
def test_all_heads_add_up_to_the_attention_without_its_bias(world, architecture):
    lm = load(world, architecture)
    for module in lm.model.modules():          # random models have no biases; GPT-2's projection can have one
        if getattr(module, "bias", None) is not None:
            module.bias.data.normal_(generator=torch.Generator().manual_seed(1))
    place, kept = mediation.projections(lm), []
    handle = place.modules[1].register_forward_hook(lambda _, __, out: kept.append(out[0, -1].numpy()))
    engine.read(lm, PROMPTS[:1])
    handle.remove()
    inputs = engine.read(lm, PROMPTS[:1], place=place)[0]
    bias = place.modules[1].bias
    total = mediation.head_sum(lm, place, inputs, [(1, head) for head in range(4)])
    np.testing.assert_allclose(total, kept[0] - (0 if bias is None else bias.numpy()), atol=1e-5)
    assert (architecture == "gpt2") == (bias is not None)


def test_effects_are_the_change_of_probability(world):
    lm = load(world, "gpt2")
    place, tokens = mediation.projections(lm), [40, 41, 42]
    means = engine.read(lm, PROMPTS, place=place).mean(axis=0) + 1
    found = mediation.effects(lm, place, means, PROMPTS, tokens)
    assert found.shape == (3, 4)
    for layer, head in ((0, 0), (2, 3)):
        where, change = mediation.part(lm, place, head), []
        for prompt, token in zip(PROMPTS, tokens):
            def put(x):
                x = x.clone()
                x[where] = torch.tensor(means[layer, where])
                return x
            with_, without = (np.exp(z - np.logaddexp.reduce(z)) for z in (
                by_hand(lm, prompt, place.modules[layer], -1, f, True) for f in (put, lambda x: x)))
            change.append(with_[token] - without[token])
        assert found[layer, head] == pytest.approx(np.mean(change), abs=1e-5)


def test_the_one_head_that_reaches_the_output_is_found(world):
    lm = load(world, "llama")
    place = mediation.projections(lm)
    for layer, module in enumerate(place.modules):
        keep = torch.zeros(32)
        keep[8:16] = layer == 1                   # head 1 of layer 1
        module.weight.data *= keep
    found = mediation.effects(lm, place, np.ones((3, 32), np.float32), PROMPTS, [40, 41, 42])
    assert np.abs(np.delete(found.ravel(), 5)).max() < 1e-7 < np.abs(found[1, 1])
    assert mediation.strongest(np.abs(found), 1) == [(1, 1)]
    assert mediation.strongest(np.array([[0.1, 0.3], [0.3, -1.0]]), 3) == [(0, 1), (1, 0), (0, 0)]


def test_heads_that_cannot_be_reached_are_named(world):
    lm = load(world, "lfm2")
    with pytest.raises(UserError, match="layer 0 has no attention"):
        mediation.projections(lm)
    place, reason = relations.heads_of(lm)
    assert place is None and "layer 0 has no attention" in reason


# --- lists and contexts ----------------------------------------------------------------------------------------
PAIRS = [[f"a{i}", f"b{i}"] for i in range(9)]
TEMPLATE = {"name": "colon", "pair": "{x}: {y}\n", "query": "{x}:"}


def test_shuffled_lists_hold_the_same_words_and_no_right_answer():
    for number in range(20):
        clean, query = relations.in_context(PAIRS, TEMPLATE, 4, [1, number])
        mixed, other = relations.in_context(PAIRS, TEMPLATE, 4, [1, number], shuffled=True)
        assert query == other and clean.endswith(f"\n{query[0]}:") and query[1] not in clean
        right, wrong = ([line.split(": ") for line in text.split("\n")[:-1]] for text in (clean, mixed))
        assert [x for x, _ in right] == [x for x, _ in wrong]
        assert sorted(y for _, y in right) == sorted(y for _, y in wrong)
        assert all(y == x.replace("a", "b") for x, y in right) and all(y != x.replace("a", "b") for x, y in wrong)
    text, _ = relations.in_context(PAIRS, TEMPLATE, 8, [2], query=["b3", "c"])
    assert "a3" not in text and text.count("\n") == 8
    with pytest.raises(UserError, match="to draw"):
        relations.in_context(PAIRS, TEMPLATE, 9, [2], query=["b3", "c"])


def test_contexts_stand_in_front_of_the_query():
    suite = suites.load("testbed")
    contexts, missing = relations.surroundings(suite, (0, 1, 3, 10), 3, "Write a word that means the same.\n")
    assert {name: level for name, level, _ in contexts} == {
        "bare": 0, "1 sentence": 1, "3 sentences": 2, "10 sentences": 3, "other pairs": 4, "instruction": 4}
    synonyms = suites.relation(suite, "synonym")["pairs"]
    pairs = suites.relation_split(suites.relation(suite, "antonym"), "evaluate")[:3]
    items, texts = relations.queries(suite, pairs, [0, 1, 2], suite.templates, contexts, synonyms, [3, 2])
    assert len(items) == len(texts) == 6 * 12 * 3 and not missing
    for item, text in zip(items, texts):
        template = next(t for t in suite.templates if t["name"] == item["template"])
        query = template["query"].format(x=item["x"])
        front = text.removesuffix(query)
        assert text.endswith(query)
        lines = front.split("\n")[:-1]
        count = {"bare": 0, "1 sentence": 1, "3 sentences": 3, "10 sentences": 10, "instruction": 1,
                 "other pairs": 3 * template["pair"].count("\n")}
        assert len(lines) == count[item["context"]]
        if "sentence" in item["context"]:
            assert len(set(lines)) == len(lines) and set(lines) <= set(suite.neutral)
        if item["context"] == "other pairs":
            shown = [pair for pair in synonyms if template["pair"].format(x=pair[0], y=pair[1]) in front]
            assert len(shown) >= 3 and not any({item["x"], item["y"]} & set(pair) for pair in shown)
    assert [relations.style(t) for t in suite.templates] == \
        ["symbols"] * 3 + ["labels"] * 2 + ["symbols"] * 3 + ["sentence"] * 4
    assert relations.unrelated(suite, "antonym") not in ("synonym", "comparative", "antonym")


# --- conclusions from planted measurements ---------------------------------------------------------------------
def relation_data(own_bonus=1.0, per_level=-0.5):
    items, gains = [], []
    for level, context in ((0, "bare"), (1, "1 sentence"), (2, "other pairs"), (2, "instruction")):
        for template, style in (("first", "symbols"), ("second", "symbols"), ("third", "sentence")):
            for word, component in (("hot", 0), ("cold", 0), ("big", 1), ("fast", 2)):
                own = template == "first"
                items.append({"x": word, "y": "?", "template": template, "own": own, "level": level,
                              "context": context, "style": style, "component": component})
                gains.append(2 + own_bonus * own + per_level * level)
    gains = np.array(gains)
    noise = (-0.3, 0.3, 0.6)                        # random vectors raise it by 0.2 on average
    logp = np.stack([0 * gains - 5, gains - 4.8, -gains - 4.8, 0 * gains - 4.8, 0 * gains - 4.3,
                     *(0 * gains - 5 + x for x in noise)], axis=1)
    rank = np.zeros(logp.shape, np.int32)
    rank[:, 0] = 2                                   # without a vector the antonym is third
    return items, logp, rank


def test_antonym_gain_is_net_of_random_vectors():
    rows, results, missing = relation_gains.contexts(*relation_data(), ADDRESS)
    assert set(missing) == {"relations.style.labels"}
    assert results["n"] == {"pairs": 4, "components": 3, "templates": 3, "random": 3}
    for key, value in (("antonym_gain", 2 + 1 / 3), ("own_template_gain", 3), ("flipped_gain", -2 - 1 / 3),
                       ("synonym_vector_gain", 0), ("other_vector_gain", 0.5), ("template_gap", 1),
                       ("complexity_slope", -0.5), ("neutral_slope", -0.5), ("random_gain", 0.2),
                       ("sentence_minus_symbols", -0.5)):
        assert results[key]["value"] == pytest.approx(value), key
    assert results["antonym_gain"]["n"] == 3        # components are resampled, not pairs
    assert results["logp_slope"]["unsteered"]["value"] == pytest.approx(0)
    assert [results[f"top{k}"]["unsteered"]["value"] for k in (1, 2, 3)] == [0, 0, 1]
    assert [row["x"] for row in rows] == [
        "first", "second", "third", "bare", "1 sentence", "other pairs", "instruction"]


def test_components_are_resampled_as_the_naive_way_does():
    """The interval of a clustered mean against resampling whole components by hand."""
    items, logp, rank = relation_data()
    rng = np.random.default_rng(5)
    logp[:, 1] += rng.standard_normal(len(items))
    found = relation_gains.contexts(items, logp, rank, ADDRESS)[1]["antonym_gain"]
    gain = logp[:, 1] + 4.8
    pairs = [np.mean([g for g, item in zip(gain, items) if item["level"] == 0 and item["x"] == x])
             for x in ("hot", "cold", "big", "fast")]
    groups, means, draws = [pairs[:2], pairs[2:3], pairs[3:]], [], np.random.default_rng([*ADDRESS, 0])
    for _ in range(2000):
        means.append(np.mean(sum((groups[c] for c in draws.integers(3, size=3)), [])))
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(means, [0.025, 0.975]).tolist())


def test_a_suite_without_neutral_sentences_says_what_it_cannot_tell():
    items, logp, rank = relation_data()
    keep = [i for i, item in enumerate(items) if item["level"] == 0]
    results, missing = relation_gains.contexts([items[i] for i in keep], logp[keep], rank[keep], ADDRESS)[1:]
    assert {"relations.complexity_slope", "relations.top1_slope", "relations.neutral_slope"} <= set(missing)
    assert "complexity_slope" not in results


def test_ways_side_by_side():
    """One way that is about antonyms, one that raises whatever stands in this format."""
    items, gains = [], []
    for context, level in (("bare", 0), ("other pairs", 1), ("clean list", -1), ("shuffled list", -1)):
        for template in ("first", "second") if level == 0 else ("first",):
            for word, component in (("hot", 0), ("cold", 0), ("big", 1)):
                items.append({"x": word, "y": "?", "template": template, "own": template == "first", "level": level,
                              "context": context, "component": component})
                gains.append({"bare": 2, "other pairs": 1, "clean list": 0, "shuffled list": 0.5}[context])
    gains = np.array(gains)[:, None]
    about = np.concatenate([gains, -gains, 0 * gains, 0 * gains, 0 * gains, 0 * gains], axis=1)
    form = np.concatenate([gains, -gains, gains, gains, 0 * gains, 0 * gains], axis=1)
    logp = np.concatenate([0 * gains, about + 0.1, form], axis=1) - 3
    rank = np.where(logp > -2.5, 0, 1).astype(np.int32)
    rows, results, missing = relation_gains.ways(items, ("about", "form"), logp, rank, ADDRESS)
    assert set(missing) == {"relations.mixed_minus_mean"}
    assert results["specific"]["about"]["value"] == pytest.approx(2)
    assert results["specific"]["form"]["value"] == pytest.approx(0)
    way = results["ways"]["about"]
    assert way["change"]["zero_shot"]["value"] == pytest.approx(2.1)
    assert way["gain"]["zero_shot"]["value"] == pytest.approx(2)
    assert way["gain"]["shuffled_list"]["value"] == pytest.approx(0.5)
    assert way["complexity_slope"]["value"] == pytest.approx(-1) and way["template_gap"]["value"] == pytest.approx(0)
    assert way["top1"]["zero_shot"]["value"] == 1 and results["lists"]["zero_shot"]["top1"]["value"] == 0
    assert {row["x"] for row in rows if row["facet"] == "context"} == {"bare", "other pairs", *relations.LISTS}


# --- values: scores against naive ones -------------------------------------------------------------------------
SENTENCES = {"id": "s", "level": 0, "positive_text": "the cat, it sat on a big mat.",
             "negative_text": "the dog, it sat on a red mat."}


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
@pytest.mark.parametrize("add_bos", [True, False])
def test_sentences_are_scored_by_the_tokens_they_share(tmp_path, architecture, add_bos):
    lm = models.load(str(tiny.save(tmp_path / "m", architecture, add_bos=add_bos)))
    vector = np.random.default_rng(1).standard_normal(32).astype(np.float32)
    rows = [(), ((1, vector),)]
    found = values.preference(lm, [SENTENCES], rows, ["yes. "])
    for row in range(2):
        total = []
        for side, apart in (("positive_text", ("cat", "big")), ("negative_text", ("dog", "red"))):
            text = SENTENCES[side]
            ids = [1, *lm.tokens("yes. " + text)]                  # a BOS is there in either case
            handle = lm.layers[1].register_forward_hook(
                lambda _, __, out: (out[0] + row * torch.tensor(vector), *out[1:]) if isinstance(out, tuple)
                else out + row * torch.tensor(vector))
            with torch.no_grad():
                logp = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            handle.remove()
            left, score = "yes. " + text, 0.0
            for position, token in enumerate(ids[1:], 1):           # the text is spelled out token by token
                piece = lm.tokenizer.decode([token])
                start = len("yes. " + text) - len(left)
                left = left[len(piece):]
                words = range(start + len(piece) - len(piece.lstrip()), start + len(piece))
                inside = [("yes. " + text).index(word) for word in apart]
                if start + len(piece) <= len("yes. ") or not piece.strip() or any(i in range(a, a + 3) for i in words for a in inside):
                    continue
                score += float(logp[position - 1, token])
            total.append(score)
        assert found[0, row] == pytest.approx(total[0] - total[1], abs=1e-3)
    assert abs(found[0, 1] - found[0, 0]) > 1e-3


def test_weights_leave_out_what_differs(world):
    lm = load(world, "llama")
    for side, (ids, weights) in zip(("cat", "dog"), values.shared_tokens(
            lm, [SENTENCES["positive_text"], SENTENCES["negative_text"]])):
        out = lm.tokenizer.decode([t for t, w in zip(ids, weights) if not w], skip_special_tokens=True)
        assert side in out and "sat" not in out and "mat" not in out and out.startswith("the")
    with pytest.raises(UserError, match="share no token"):
        values.shared_tokens(lm, ["cat", "dog"])
    with pytest.raises(UserError, match="where all that differs is the end"):
        values.shared_tokens(lm, ["the cat", "the dog"])


def test_a_word_more_on_one_side(world):
    """Every token of the shorter sentence counts, against the same ones of the longer, those in front too: they cancel."""
    lm = load(world, "llama")
    short, long = "the cat sat on a mat.", "the big cat sat on a mat."
    found = values.preference(lm, [{"id": "s", "level": 0, "positive_text": short, "negative_text": long}], [()])[0, 0]
    total = []
    for text in (short, long):
        ids = values.raw_text(lm, text)
        with torch.no_grad():
            logp = lm.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        pieces, seen = [lm.tokenizer.decode([token]) for token in ids], ""
        score = 0.0
        for k, piece in enumerate(pieces[1:], 1):
            seen = "".join(pieces[1:k + 1]).strip()
            inside = text == long and seen.startswith("the ") and len(seen) <= len("the big") and piece.strip()
            score += 0.0 if inside else float(logp[k - 1, ids[k]])
        total.append(score)
    assert found == pytest.approx(total[0] - total[1], abs=1e-3) and abs(found) > 1e-2


def test_both_forms_and_text_against_plain_passes(world):
    lm = load(world, "gpt2")
    probe = {"id": "p", "level": 1, "prompt": "the cat", "positive": " sat", "negative": " on"}
    row = ((0, np.random.default_rng(2).standard_normal(32).astype(np.float32)),)
    both = values.preference(lm, [SENTENCES, probe], [(), row])
    assert np.array_equal(both, np.concatenate([values.preference(lm, [x], [(), row]) for x in (SENTENCES, probe)]))
    ids = lm.encode("the cat")
    sides = [lm.answer_token("the cat", probe[side]) for side in values.SIDES]
    logits = by_hand(lm, ids, lm.layers[0], -1, lambda x: x + torch.tensor(row[0][1]))
    assert both[1, 1] == pytest.approx(logits[sides[0]] - logits[sides[1]], abs=1e-4)
    found, tokens = values.text_logprob(lm, ["the cat sat on the mat"], [()])
    ids = lm.encode("the cat sat on the mat")
    with torch.no_grad():
        logp = lm.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    assert tokens.tolist() == [len(ids) - 1]
    assert found[0, 0] == pytest.approx(sum(float(logp[i, t]) for i, t in enumerate(ids[1:])), abs=1e-3)
    with pytest.raises(UserError, match="weights"):
        engine.sequence_logprob(lm, [[1]], [[2, 3]], [()], [[1.0]])


# --- values: conclusions ---------------------------------------------------------------------------------------
def test_a_fact_is_known_by_its_rank_among_the_answers(world):
    """Against whole passes: the answer of each fact against those of all others, whatever token is on top."""
    lm, rng = load(world, "llama"), np.random.default_rng(5)
    facts = [{"prompt": f"{a} {b}", "answer": f" {c}"} for a, b, c in zip(*rng.choice([*"abcdefghijklm"], (3, 12)))]
    rows = [(), ((1, 3 * rng.standard_normal(lm.d_model).astype(np.float32)),)]
    first = [lm.answer_token(fact["prompt"], fact["answer"]) for fact in facts]
    with torch.no_grad():
        logits = [lm.model(torch.tensor([lm.encode(fact["prompt"])])).logits[0, -1] for fact in facts]
    found = values.recall(lm, facts, rows)
    assert found.shape == (12, 2) and found[:, 0].tolist() == [
        all(row[mine] >= row[other] for other in first) for row, mine in zip(logits, first)]
    assert found[:, 0].any() and not found[:, 0].all() and (found[:, 0] != found[:, 1]).any()
    assert any(known and row.argmax() != mine for known, row, mine in zip(found[:, 0], logits, first))


def test_overcorrection_counts_what_ends_further_on_the_other_side():
    lean = np.array([1.0, -1.0, 2.0])
    ends = np.array([[0.5, -0.5, -1.5], [-0.5, 0.5, 1.5], [2.5, 1.0, -1.0]])    # after the correction
    steered = np.zeros((3, 3, 4))
    steered[:, :, 0], steered[:, :, 1] = 99, -99    # the wrong sign would be seen at once
    for probe, sign in enumerate(lean > 0):
        steered[probe, :, 1 if sign else 0] = ends[probe]
    past, too_far = values.correction(lean, steered)
    assert past.tolist() == [[False, True, True], [False, True, True], [False, False, True]]
    assert too_far.tolist() == [[False, False, True], [False, False, True], [False, False, False]]
    assert values.against(lean, steered).tolist() == ends.tolist()


SETTINGS = [0.2, 2.5, 0.5, 0.3, 0.3]


def value_data():
    """Three probes; strengths 0.2 and 2.5, then tuned 0.5, window 0.3 with the sign minus, and 0.3 against every lean;
    random vectors do next to nothing."""
    lean = np.array([0.5, -0.5, 1.0])
    steered = np.stack([np.stack([lean + s, lean - s, lean + 0.1, lean - 0.3], axis=1)
                        for s in SETTINGS], axis=1)
    facts = np.ones((4, 5, 4))
    facts[:2, 1, 0] = 0                             # half the facts go at the largest strength under +v
    asked = np.stack([lean + 0.4, lean - 0.4], axis=1)
    text = np.zeros((2, 5, 3))
    text[:, 1, :2] = -np.log(3) * np.array([[4], [2]])          # three times the perplexity at the largest strength
    return {"lean": lean, "sign": -1, "steered": steered, "known": np.ones(4), "facts": facts, "prompted": asked,
            "prompted_facts": np.ones((4, 2)), "plain_text": np.zeros(2), "text": text, "tokens": np.array([4, 2])}


def test_value_conclusions_known_case():
    items = [{"value": "v", "subject": i, "level": i, "planted": 1 / (1 + np.exp(-lean))}
             for i, lean in enumerate((0.5, -0.5, 1.0))]
    rows, results, missing = values.conclude(["v"], items, [value_data()], [SETTINGS], 0.1, ADDRESS)
    assert not missing
    for key, value in (("shift", 0.6), ("shift_beyond_random", 0.4), ("fact_loss", 0.5), ("fact_loss_random", 0),
                       ("fact_loss_beyond_random", 0.5), ("fact_loss_window", 0), ("overcorrected", 1),
                       ("overcorrected_random", 0), ("overcorrected_beyond_random", 0), ("overcorrected_against", 0),
                       ("worse_in_window", 1 / 3), ("against_minus_prompted", -0.3 / 2), ("level_slope", 0)):
        assert results[key]["value"] == pytest.approx(value, abs=1e-12), key
    assert results["against"]["bias_removed"]["value"] == pytest.approx(0.9 / 2)
    assert results["window"]["bias_removed"]["value"] == pytest.approx(0.3 / 2)            # two fall by .3, one rises
    assert results["window"]["beyond_random"]["value"] == pytest.approx(0)                 # one random does the same
    assert results["window"]["facts_spared"]["value"] == pytest.approx(0.1)
    assert results["prompted"]["bias_removed"]["value"] == pytest.approx(1.2 / 2)
    assert results["bias"]["largest"]["value"] == pytest.approx((2 + 2 + 1.5) / 3)
    assert results["perplexity"]["largest"]["value"] == pytest.approx(3)
    assert results["perplexity"]["random"]["value"] == results["perplexity"]["window"]["value"] == 1
    assert results["planted"]["error"]["value"] == pytest.approx(0, abs=1e-12)
    assert results["planted"]["spearman"]["value"] == 1
    assert [row["kind"] for row in rows] == ["grid", "grid", "grid", "tuned", "window", "against"]
    assert [row["inside"] for row in rows[1:]] == [False, False, False, False, True]
    assert rows[1]["bias_against"] == pytest.approx(1.4 / 3) and results["window_span"] == {"v": []}
    lean = np.array([0.5, 0.5, 1.0])                             # leans on one side: one sign does for all
    same = {"lean": lean, "steered": lean[:, None, None] + np.array([[s, -s, 0.1, -0.3] for s in SETTINGS])}
    rows = values.conclude(["v"], items, [value_data() | same], [SETTINGS], 0.1, ADDRESS)[0]
    assert [row["inside"] for row in rows[1:]] == [True, False, True, True, True]


def test_a_window_needs_facts_that_hold_and_bias_that_falls():
    items = [{"value": "v", "subject": i, "level": 0, "planted": None} for i in range(3)]
    for part, index, put in (("facts", (slice(0, 2), 3), 0.0), ("steered", (slice(None), 3, slice(0, 2)), 9.0)):
        data = value_data()
        data[part][index] = put
        rows, results, missing = values.conclude(["v"], items, [data], [SETTINGS], 0.1, ADDRESS)
        assert not rows[-2]["inside"] and min(e["value"] for e in results["window"].values()) < 0
        assert set(missing) == {"values.level_slope", "values.planted"}


def test_level_slope_is_within_values():
    """A value with large shifts at high levels only must not pass for a rise with the level."""
    owner, level, shift = np.array([[0, 0, 1.0], [0, 1, 0.5], [1, 1, 9.0], [1, 2, 8.5]]).T
    def slope(rows):
        return values.level_slope(values.moments(owner[rows], level[rows], shift[rows]).mean(axis=0)[None])[0]
    assert slope([0, 1, 2, 3]) == pytest.approx(-0.5) == slope([0, 1, 2]) and np.isnan(slope([0, 2]))


def test_examples_are_written_out_on_the_side_that_is_asked_for():
    value = next(v for v in suites.load("testbed").values if v["name"] == "pronoun")
    tune = [probe["prompt"] for probe in suites.value_split(value, "tune")]
    text = values.examples(value, "positive", 4, [1])
    assert text.count(" she\n") == 4 and " he\n" not in text
    assert {line.removesuffix(" she") for line in text.split("\n")[:-1]} <= set(tune)
    assert values.examples(value, "negative", 4, [1]) == text.replace(" she\n", " he\n")


# --- the embedded models: what is planted is found ---------------------------------------------------------------
@pytest.mark.parametrize("name", ["pico-llama", "pico-gpt2"])
def test_planted_skew_and_relation_tables_are_recovered(name):
    lm, suite = models.load(str(ROOT / "data/models" / name)), suites.load("testbed")
    for value in suite.values:
        probes = suites.value_split(value, "evaluate")
        chance = 1 / (1 + np.exp(-values.preference(lm, probes, [()])[:, 0]))
        assert np.abs(chance - [probe["planted"] for probe in probes]).mean() < 0.05
    tables, words = {}, ("antonym", "synonym", "plural")
    for number, relation in enumerate(words):
        pairs = suites.relation_split(suites.relation(suite, relation), "extract")
        addresses = [[1, number, i] for i in range(12)]
        tables[relation] = relations.extract(lm, pairs, suite.templates[0], 10, addresses, 2, 10)
        assert tables[relation]["list_right"][:, 0].mean() > 0.8
        assert tables[relation]["effects"].shape == (6, 6) and len(tables[relation]["chosen"]) == 10
    made = relations.centre([tables[relation]["states"] for relation in words], [1])
    pairs = suites.relation_split(suites.relation(suite, "antonym"), "evaluate")
    layer = 3
    rows = relations.arms(made[0]["vector"], [made[1]["vector"], made[2]["vector"]], layer, 5, [2])
    logp = relations.measure(lm, [suite.templates[1]["query"].format(x=x) for x, _ in pairs], [y for _, y in pairs],
                             [(), *rows])["logp"]
    change = (logp[:, 1:] - logp[:, :1]).mean(axis=0)
    assert change[0] > 0.3 and change[0] > change[4:].mean() + 0.3      # over random vectors
    assert change[0] > change[2] + 1 and change[1] < 0                  # over the synonym's; the sign counts


# --- the stages end to end ---------------------------------------------------------------------------------------
def small_suite(folder, sentences=True):
    """A suite of relations and values alone; one value is of whole sentences."""
    source = ROOT / "data/suites/testbed"
    (folder / "relations").mkdir(parents=True)
    for name in ("suite.json", "templates.json", *(f"relations/{r}.json" for r in ("antonym", "synonym", "plural"))):
        (folder / name).write_bytes((source / name).read_bytes())
    head = json.loads((source / "values.json").read_text())
    if sentences:
        head["values"][1]["probes"] = [
            {"id": f"s{i}", "level": i % 2, "positive_text": f"the {a} man sat on the mat {i}.",
             "negative_text": f"the {b} man sat on the mat {i}."}
            for i, (a, b) in enumerate([("big", "red"), ("cat", "small")] * 6)]
    (folder / "values.json").write_text(json.dumps(head))
    return folder


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "mamba"])
def test_stages_on_relations_and_values_alone(tmp_path, architecture, monkeypatch, capsys):
    tiny.save(tmp_path / "tiny", architecture, max_position_embeddings=1024)
    suite = small_suite(tmp_path / "mine")
    argv = ["--model", tmp_path / "tiny", "--suite", suite, "--profile", "smoke", "--out", tmp_path / "out"]
    for stage in ("01_extract", "02_tune", "03_transfer"):
        monkeypatch.setattr(sys, "argv", [stage, *map(str, argv)])
        importlib.import_module(stage).main()
    folder = tmp_path / "out/tiny/mine-smoke"
    first, second, third = (artifacts.load(folder / s) for s in ("01_extract", "02_tune", "03_transfer"))
    headless = architecture == "mamba"
    assert first.config["ways"] == ["mean", "contrast", *([] if headless else ["heads"]), "mixed"]
    assert headless == ("heads" in first.results["not_testable"])
    assert headless == ("head_effects.npy" not in first.manifest["outputs"])
    ways = [way for way in relations.WAYS if not (headless and way == "heads")]
    assert set(third.results["relations"]["specific"]) == set(ways)
    assert headless == ("relations.specific.heads" in third.results["not_testable"])
    made, names = first.array("way_vectors"), [r["name"] for r in first.table("relations")]
    assert made.shape[:2] == (len(first.config["ways"]), 3) and names == ["antonym", "plural", "synonym"]
    tuned = second.table("tuned")
    assert set(tuned["relation/antonym"]["ways"]) == set(ways)
    tried = [c for c in second.table("candidates.jsonl") if (c["key"], c.get("way")) == ("relation/antonym", "patch")]
    record = max(tried, key=lambda c: c["score"])
    assert record["layer"] == tuned["relation/antonym"]["ways"]["patch"]["layer"]
    for claim in json.loads((ROOT / "report/claims.json").read_text()):
        if claim["id"].startswith("A"):
            value = third.results
            for part in claim["key"].removesuffix(".*").split("."):
                value = value[part]
            for estimate in value.values() if claim["key"].endswith(".*") else [value]:
                assert estimate["low"] <= estimate["value"] + 1e-9 <= estimate["high"] + 2e-9 and estimate["n"] > 0
    logp = third.array("way_logp")
    assert logp.shape == (len(third.table("way_items.jsonl")), 1 + len(ways) * (4 + third.config["n_random_ways"]))
    steered, items = third.array("probe_steered"), third.table("value_items.jsonl")
    assert steered.shape == (len(items), len(third.config["strengths"]) + 3, 2 + third.config["n_random"])
    whole = [item["value"] == "kindness" for item in items]                 # the value of whole sentences
    assert np.abs(steered - third.array("probe_lean")[:, None, None]).max(axis=(1, 2))[whole].min() > 0


def test_a_relation_alone_and_values_alone(tmp_path, monkeypatch):
    """Suites that lack one half say so and go through."""
    tiny.save(tmp_path / "tiny", "llama", max_position_embeddings=1024)
    for name, drop in (("words", "values.json"), ("people", "relations")):
        suite = small_suite(tmp_path / name, sentences=False)
        if drop == "values.json":
            (suite / drop).unlink()
        else:
            for file in (suite / "relations").iterdir():
                file.unlink()
        for stage in ("01_extract", "02_tune", "03_transfer"):
            monkeypatch.setattr(sys, "argv", [stage, "--model", str(tmp_path / "tiny"), "--suite", str(suite),
                                              "--profile", "smoke", "--out", str(tmp_path / "out")])
            importlib.import_module(stage).main()
        third = artifacts.load(tmp_path / f"out/tiny/{name}-smoke/03_transfer")
        missing = third.results["not_testable"]
        if name == "words":
            assert missing["values"] and "relations.context.1 sentence" in missing
            assert "relations.neutral_slope" in missing
            assert set(third.results["relations"]["context"]) == {"bare", "other pairs", "instruction"}
        else:
            assert missing["relations"] and "shift" in third.results["values"]
