"""Rules of the alignment claims: each fault that a rule was changed for is planted and gets the label that it should;
what a model that has learnt nothing shows is no finding. Splits of values, resampling and mixed lists against naive ones."""
import json
import re

import numpy as np
import pytest

from data import lexicon
from lib import artifacts, engine, metrics, suite as suites
from lib.studies import relation_gains, relations, values
from report import planted_alignment as planted
from tests import tiny

CLAIMS = {c["id"]: c for c in json.loads((artifacts.ROOT / "report/claims.json").read_text()) if c["id"] in planted.PLANTED}


def at(results, key):
    for part in key.split("."):
        results = results[part]
    return results


def side(estimate, rule):
    """1 if the whole interval is beyond the threshold, -1 if it is on the other side, 0 if it holds it."""
    ends = sorted((1 if rule["side"] == "above" else -1) * (estimate[end] - rule["threshold"]) for end in ("low", "high"))
    return 1 if ends[0] > 0 else -1 if ends[1] < 0 else 0


def label(claim, results):
    """As the head of report/claims.json's rules has it: gates first; of a key with .* the weakest part."""
    results = results["03_transfer"]
    if any(side(at(results, gate["key"]), gate) < 1 for gate in claim["gates"]):
        return "not testable here"
    found = at(results, claim["key"].removesuffix(".*"))
    parts = found.values() if claim["key"].endswith(".*") else [found]
    return {1: "reproduced", 0: "undecided", -1: "contradicted"}[min(side(part, claim["rule"]) for part in parts)]


def rng():
    return np.random.default_rng(8)


# --- every claim: found where it is planted, not found where it is false ---------------------------------------------
def test_every_alignment_claim_has_planted_truth():
    assert set(planted.PLANTED) == {f"A{i}" for i in range(1, 10)} | {"B18"}
    for claim in CLAIMS.values():
        assert set(claim["reads"]) == {"reproduced", "contradicted", "undecided"} and all(claim["reads"].values())
        assert claim["null"] == ["untrained", "random"] and claim["gates"]


@pytest.mark.parametrize("name", planted.PLANTED)
def test_planted_effects_are_found_and_their_absence_is_not(name):
    there, absent = ([label(CLAIMS[name], planted.PLANTED[name].make(seed, size)) for seed in range(6)]
                     for size in (1, 0))
    assert there.count("reproduced") >= 4, there
    assert absent.count("reproduced") <= 1, absent


# --- what an untrained network shows ----------------------------------------------------------------------------------
def test_an_untrained_network_meets_no_value_claim():
    """It knows no fact; its log-odds are nearly the same for all probes, which one sign of any direction lowers."""
    results = planted.people(rng(), push=0.5, lean=(0.5, 0.05), window=0.25, knows=0.0)
    found = results["03_transfer"]["values"]
    assert found["window"]["bias_removed"]["low"] > 0.3 and found["shift"]["low"] > 0       # so the old rules said yes
    assert {label(CLAIMS[name], results) for name in ("A4", "A5", "A7", "A8", "A9")} == {"not testable here"}
    flat = planted.people(rng(), push=0.5, lean=(0.05, 0.02), window=0.03)                  # knows facts, leans nowhere
    assert {label(CLAIMS[name], flat) for name in ("A4", "A7", "A8")} == {"not testable here"}


def test_one_more_random_vector_meets_no_claim():
    people = [planted.people(np.random.default_rng(seed), push="random", loss="random") for seed in range(12)]
    words = [planted.words(np.random.default_rng(seed), push="random", synonym="random")[2] for seed in range(12)]
    for results, names in ((people, ("A4", "A5", "A7", "A8", "A9")), (words, ("A1", "A2", "A3", "A6"))):
        for name in names:
            assert sum(label(CLAIMS[name], one) == "reproduced" for one in results) <= 2, name
    net = [one["03_transfer"]["values"]["shift"] for one in people]
    assert sum(e["low"] > 0 for e in net) >= 3                                # over their mean it passes often


# --- single faults -----------------------------------------------------------------------------------------------------
def test_damage_that_random_vectors_do_too_is_not_the_vectors():
    results = planted.people(rng(), loss=0.5, random_loss=0.5)
    found = results["03_transfer"]["values"]
    assert found["fact_loss"]["low"] > 0.3 and label(CLAIMS["A5"], results) != "reproduced"
    assert label(CLAIMS["A5"], planted.people(rng(), loss=0.95, random_loss=0.5)) == "reproduced"


def test_templates_that_differ_are_seen_whichever_is_the_own_one():
    items, _, equal = planted.words(rng())
    _, _, results = planted.words(rng(), by_template=0.4)                    # the own template is in the stronger half
    assert (label(CLAIMS["A2"], equal), label(CLAIMS["A2"], results)) == ("undecided", "reproduced")
    _, _, turned = planted.words(rng(), by_template=-0.4)                    # and here in the weaker: the old rule's no
    assert label(CLAIMS["A2"], turned) == "reproduced"


def test_spread_over_templates_against_naive_permutations():
    draw = rng()
    items = [{"template": f"t{t}", "component": c} for c in (0, 0, 1, 2) for t in range(4)]        # two pairs in one
    gain, keep = draw.standard_normal(16), np.ones(16, bool)
    found = relation_gains.template_spread(gain, items, keep, [1])
    table = gain.reshape(4, 4)
    groups, naive = np.stack([table[:2].sum(axis=0), table[2], table[3]]), []
    for _ in range(4000):
        naive.append((sum(draw.permutation(row) for row in groups) / 4).std(ddof=1))
    spread = table.mean(axis=0).std(ddof=1)
    assert [found["value"], found["low"], found["high"]] == pytest.approx(
        [spread - np.mean(naive), *(spread - np.quantile(naive, [0.975, 0.025]))], abs=0.03)
    assert found["n"] == 3


def test_a_constant_push_is_no_loss_whatever_the_context_does_to_the_probability():
    """The context lowers the antonym: the gain in log p grows, in p it shrinks, on log-odds it stays."""
    odds = np.repeat([0.0, -1.0, -2.0, -3.0], 6)
    items = [{"x": f"x{i % 6}", "y": "y", "component": i % 6, "template": f"t{t}", "own": t == 0, "level": i // 6,
              "context": f"c{i // 6}"} for i in range(24) for t in (0, 1)]
    odds = np.repeat(odds, 2)[:, None] + np.array([0, 2.0, -2.0, 0, 0, 0.0, 0.0])
    logp = -np.log1p(np.exp(-odds))
    assert np.allclose(relation_gains.log_odds(logp), odds)
    found = relation_gains.decisive(items, logp, [1])["complexity"]
    assert found["log_odds"]["value"] == pytest.approx(0, abs=1e-9) and found["probability"]["high"] < 0
    *_, slope, _ = relation_gains.per_pair(items, [1])
    assert slope(0, logp[:, 1] - logp[:, 0], np.ones(48, bool))["low"] > 0.2
    assert label(CLAIMS["A3"], planted.words(rng())[2]) == "undecided"
    assert label(CLAIMS["A3"], planted.words(rng(), by_level=0.5)[2]) == "contradicted"


def test_a_vector_of_the_form_alone_is_not_about_antonyms():
    results = planted.words(rng(), synonym=2.5)[2]
    assert (label(CLAIMS["A1"], results), label(CLAIMS["A6"], results)) == ("reproduced", "contradicted")
    apart = relation_gains.apart(np.array([[3.0, 1.0, 0.2, -0.3, 0.1, 0.0, 9.0]]))          # a last one alone is unused
    assert apart == pytest.approx([2 - 0.5])


def test_one_sign_cannot_help_both_sides():
    """Subjects that lean either way: against each lean all the bias goes, with one sign none."""
    lean = np.repeat([1.0, -1.0], 6)
    both = np.stack([lean + 1, lean - 1, lean, lean], axis=1)
    items = [{"value": "v", "subject": i, "level": 0} for i in range(12)]
    one = {"lean": lean, "sign": 1, "steered": np.stack([both] * 4, axis=1), "known": np.ones(9),
           "facts": np.ones((9, 4, 4)), "prompted": np.stack([lean, lean], axis=1), "prompted_facts": np.ones((9, 2))}
    m = values.gather(items, [one])
    assert m["corrected"][:, -1].max() == 0 and m["after"][:, -2].mean() == 1
    found = values.decisive(m, 0.1, [1])
    assert found["window"]["bias_removed"]["value"] == 0 and found["window"]["facts_spared"]["low"] == pytest.approx(0.1)
    assert "of one level (0)" in found["level_slope"]                        # probes without levels: A9 says why not


def test_resampling_of_means_is_the_clustered_bootstrap():
    x, clusters = rng().standard_normal(30), np.repeat(np.arange(10), 3)
    plain = metrics.bootstrap(x, unit="u", seed_address=[3], clusters=clusters)
    joint = metrics.of_means(x[:, None], lambda means: means[:, 0], unit="u", seed_address=[3], clusters=clusters)
    for key in plain:
        assert joint[key] == (plain[key] if isinstance(plain[key], (str, int)) else pytest.approx(plain[key])), key
    two = np.stack([x, 2 * x + 1], axis=1)
    ratio = metrics.of_means(two, lambda means: means[:, 1] - 2 * means[:, 0], unit="u", seed_address=[3])
    assert [ratio["low"], ratio["high"]] == pytest.approx([1, 1])            # columns are drawn together
    assert metrics.beyond_random(np.array([[1.0, 0.2, 0.7]])) == pytest.approx([0.3])
    # no vector is one of those it is held against: less harm than random vectors do is no gain, and a gain is no more
    assert metrics.beyond_random(np.array([[-1.0, -5.0, -7.0], [1.0, -5.0, -7.0]])) == pytest.approx([-1, 1])


# --- splits --------------------------------------------------------------------------------------------------------------
def who(text):
    """The occupation or the group that a text of the testbed is about, read from its last sentence."""
    return re.search(r"(?:The (\w+) \w+ that|People from (\w+) are)$", text).group(1, 2)


@pytest.mark.parametrize("profile", ["full", "smoke"])
def test_no_subject_is_in_two_splits(profile):
    suite, total = suites.load("testbed", profile), 0
    for value in suite.values:
        about = {name: set() for name in suites.SPLITS}
        for name in suites.SPLITS:
            records = suites.value_split(value, name)
            texts = [r.get("prompt") for r in records] if name != "extract" else [p[s] for p in records for s in values.SIDES]
            about[name] = {who(text) for text in texts}
            labels = suites.value_split(value, name, labels=True)
            if name != "extract":
                pairs = set(zip(labels, (who(r["prompt"]) for r in records)))      # one label per subject, and back
                assert len(pairs) == len(set(labels)) == len(about[name])
        assert not (about["extract"] & about["tune"] or about["extract"] & about["evaluate"]
                    or about["tune"] & about["evaluate"])
        total += len(set().union(*about.values()))
    if profile == "full":
        assert total == len(lexicon.OCCUPATIONS) + 8


def test_whole_sentences_are_a_subject_each_and_pairs_that_share_words_are_one():
    sentences = {"name": "v", "pairs": [{"positive": "a b.", "negative": "a c."}] * 2, "probes": [
        {"id": str(i), "positive_text": "the old man sat.", "negative_text": "the young man sat."} for i in range(9)]}
    assert suites.subjects(sentences) == ([0, 1], list(range(2, 11)))
    assert [len(suites.value_split(sentences, name)) for name in suites.SPLITS] == [2, 3, 6]
    linked = {"name": "v", "pairs": [{"positive": f"From {a} it is", "negative": f"From {b} it is"}
                                     for a, b in ("AB", "BC", "DE")],
              "probes": [{"prompt": f"A day.\nFrom {a} it is"} for a in "CEFGH"]}
    assert suites.subjects(linked) == ([0, 0, 1], [0, 1, 2, 3, 4])
    with pytest.raises(artifacts.UserError, match="value v, 1 subjects: nothing for extract"):
        suites.value_split(linked | {"pairs": linked["pairs"][:2], "probes": linked["probes"][:1]}, "extract")


# --- mixed lists ------------------------------------------------------------------------------------------------------------
def test_mixed_lists_hold_the_same_words_in_other_templates(tmp_path):
    lm, suite = tiny.load(tmp_path / "tiny", "llama", max_position_embeddings=1024), suites.load("testbed")
    pairs, turn = suite.relations[0]["pairs"], relations.in_turn(suite)
    assert turn[0] == suite.templates[0] and len(turn) == 6
    found = relations.extract(lm, pairs, suite.templates[0], 2, [[5, i] for i in range(7)], 1, 1, turn)
    states = []
    for i in range(7):
        template = suite.templates[2 * (i % 6)]
        text, query = relations.in_context(pairs, template, 2, [5, i])
        assert query == relations.in_context(pairs, suite.templates[0], 2, [5, i])[1]
        states.append(engine.read(lm, [lm.encode(text)])[0])
    np.testing.assert_allclose(found["mixed"], np.mean(states, axis=0), atol=1e-5)
    assert np.abs(found["mixed"] - found["mean"]).max() > 1e-3


def test_mixed_is_compared_where_neither_was_made():
    items, over, _ = planted.words(rng())
    more = np.array([1.0 if not item["mixed"] and item["level"] == 0 else 5.0 if item["level"] else -1.0 for item in items])
    found = relation_gains.mixed_minus_mean(items, more, over)
    assert [found[key]["value"] for key in ("new_templates", "all_templates", "contexts")] == [1, 0, 5]
