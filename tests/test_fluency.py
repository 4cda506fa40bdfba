"""Coherence without a judge: broken language falls, plain paraphrase and style do not."""
import numpy as np
import pytest

from lib.artifacts import UserError
from lib.judging.fluency import HIGH, LEAST, LOW, PARTS, Reference, measures

UNSTEERED = [
    "The library on Mill Street was closed for two years after the flood. Workers replaced the floor, the "
    "wiring and most of the shelves. The city council paid for half of the repairs, and donors covered the "
    "rest.",
    "Bread rises because yeast turns sugar into gas. Warm dough rises faster than cold dough, although a "
    "slow rise in the refrigerator gives more flavor. Most recipes call for a first rise of about an hour "
    "and a second one in the pan.",
    "To change a tire, park the car on level ground and set the brake. Loosen the nuts before you raise the "
    "car. Take the wheel off, put the spare one on and tighten the nuts by hand. Lower the car and tighten "
    "them again in a star pattern.",
    "The committee met on Tuesday to talk about the new bus line. Three members were in favor, and two asked "
    "for a study of the costs. A decision is expected in June, when the budget for the next year will be "
    "known.",
    "Regular exercise helps people sleep better and lowers their blood pressure. It does not have to be "
    "hard: a walk of thirty minutes on most days is enough to see an effect. It is best to start slowly and "
    "to add a little every week.",
    "I am writing to ask about the order that we placed in February. The amount on the invoice does not "
    "match our records, and the delivery charge appears twice. Could you please send us a corrected version "
    "before the end of the month?",
    "Penguins keep warm with a thick layer of fat and feathers that overlap like tiles. In the coldest "
    "months they stand close together and take turns on the outside of the group. Their chicks stay between "
    "the feet of a parent.",
    "The article describes how a small town in the north brought its main street back to life. Empty shops "
    "were rented for a low price to young people with ideas, and a market was held every Saturday. After "
    "four years only two were vacant.",
    "A good password is long and easy to remember. Four unrelated words are harder to guess than one short "
    "word with signs in it. You should not use the same one twice, and a manager can keep track of them for "
    "you.",
    "The story is about a boy who finds a map in the attic of his grandmother. He follows it through the "
    "woods with his sister, and they learn that the treasure was never gold. The ending is quiet and a "
    "little sad, but it fits.",
    "Coffee should be stored in a closed jar away from light. It loses its smell within weeks once it has "
    "been ground, so it is better to buy whole beans. The freezer is fine for longer periods if the jar is "
    "tight.",
    "Our team will visit the plant on Thursday at ten. Please bring the plans for the second hall and a list "
    "of the open questions. Lunch is served at one, and the bus back to the station leaves at half past "
    "three."]
NATS = 0.4 + 0.05 * np.arange(len(UNSTEERED))              # nats per token, as a model has for its own answers
PARAPHRASES = [
    "After the flood it took two years until people could enter the library in Mill Street again. The "
    "wiring, the floor and nearly all shelves are new. Half of the money came from the city, and the other "
    "half was given by donors.",
    "If you want good coffee, keep the beans in a jar that closes well and stands in the dark. Ground coffee "
    "loses its smell in a few weeks, which is why whole beans are the better choice.",
    "On Thursday at ten we are going to see the plant. We need the plans of hall two and the questions that "
    "are still open. There will be lunch at one, and at half past three a bus takes everyone to the station."]
STYLES = [
    "OH NO, the library was CLOSED for two whole years! 😱 Can you BELIEVE it? But look: new floor, new "
    "wires, new shelves! 🎉 The city paid half, and the kindest donors paid the rest! ❤️",
    "1. Park the car on level ground.\n2. Set the brake.\n3. Loosen the nuts & raise the car.\n4. Take the "
    "wheel off.\n5. Put the spare one on.\n6. Lower the car & tighten the nuts.",
    "INT. ATTIC - NIGHT\n\nSAM\n(whispering)\nIt is a map. Look at the line in the corner.\n\nEMMA\nThen we "
    "go tonight. Bring the lamp and do not wake her."]
FOREIGN = [
    "La biblioteca de la calle del Molino estuvo cerrada durante dos años después de la inundación. Los "
    "obreros cambiaron el suelo y la mayor parte de los estantes. La ciudad pagó la mitad de las obras.",
    "Nach der Flut war die Bibliothek zwei Jahre lang geschlossen. Arbeiter haben den Boden und die meisten "
    "Regale ersetzt. Die Stadt hat die Hälfte der Kosten bezahlt, den Rest gaben Spender aus der Gegend.",
    "Библиотека была закрыта два года после наводнения. Рабочие заменили пол и почти все полки в большом "
    "зале."]
GIBBERISH = [
    "xqk brtl vvmno qzzt plkj wrtg hjkl mnbv cxzq trpl ghsd klqw zxcv bnml qwrt ypsd fghj",
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed tempor incididunt labore magna aliqua veniam "
    "nostrud ullamco laboris",
    "getElementById_0x3f foo.bar(baz[42]) {{ }} ;; nullptr nullptr </div> %%% qqq() >>> __init__ 0x0 0x0 0x0"]
REFERENCE = Reference.of(UNSTEERED)


def shuffled(text, address):
    own = text.split()
    return " ".join(own[i] for i in np.random.default_rng([7, address]).permutation(len(own)))


# --- what must stay and what must fall ------------------------------------------------------------------------
@pytest.mark.parametrize("text", PARAPHRASES + STYLES)
def test_paraphrases_and_styles_stay(text):
    assert REFERENCE.score(text) >= 75                      # the papers' bound on coherence


def test_each_unsteered_text_stays_when_it_is_left_out_of_the_reference():
    left = [Reference.of(UNSTEERED[:i] + UNSTEERED[i + 1:]).score(text) for i, text in enumerate(UNSTEERED)]
    assert min(left) >= 75 and np.mean(left) >= 90


def test_shuffled_words_fall_though_every_word_is_kept():
    scores = [REFERENCE.score(shuffled(text, i)) for i, text in enumerate(UNSTEERED * 4)]
    assert np.mean(scores) < 40 and np.mean(np.array(scores) < 75) > 0.9
    assert REFERENCE.parts(shuffled(UNSTEERED[0], 0))["function"] == REFERENCE.parts(UNSTEERED[0])["function"]


@pytest.mark.parametrize("text", FOREIGN + GIBBERISH)
def test_another_language_and_gibberish_fall(text):
    assert REFERENCE.score(text) < 40


@pytest.mark.parametrize("text", [
    "The shelves are new. " * 20, UNSTEERED[0] + " and the rest" * 25, "very " * 60, UNSTEERED[1] + "!" * 120,
    "haha " * 30 + UNSTEERED[2], " ".join([UNSTEERED[3]] * 4)])
def test_repetition_falls_however_likely_it_is(text):
    """A loop has next to no perplexity: it lies below the unsteered texts, and that must not help."""
    whole = Reference.of(UNSTEERED, NATS)
    assert whole.parts(text, 0.01)["perplexity"] == 100.0
    assert whole.score(text, 0.01) < 40


def test_more_damage_scores_less():
    def damaged(share):
        scores = []
        for i, text in enumerate(UNSTEERED):
            own, rng = text.split(), np.random.default_rng([8, i])
            at = rng.permutation(len(own))[:int(share * len(own))]
            for k, j in zip(np.sort(at), rng.permutation(at)):
                own[k] = text.split()[j]
            scores.append(REFERENCE.score(" ".join(own)))
        return np.mean(scores)
    none, some, half = map(damaged, (0, 0.2, 0.5))                  # from there on it is broken anyway
    assert none > 95 and none - 15 > some > half + 15 and half < 50


# --- perplexity -----------------------------------------------------------------------------------------------
def test_perplexity_is_100_in_the_band_and_falls_in_a_line_to_0_at_the_stated_distance():
    whole = Reference.of(UNSTEERED, NATS)
    low, middle, high = whole.bands["perplexity"]
    assert (low, high) == (pytest.approx(np.quantile(NATS, LOW)), pytest.approx(np.quantile(NATS, HIGH)))
    zero = PARTS["perplexity"][1]
    for nats, expected in [(0, 100), (low, 100), (high, 100), (high + zero / 4, 75), (high + zero, 0), (99, 0),
                           (np.inf, 0), (np.nan, 0)]:
        assert whole.parts(UNSTEERED[0], nats)["perplexity"] == pytest.approx(expected)
    assert whole.score(UNSTEERED[0], high + zero / 2) == pytest.approx(50)
    assert whole.score(UNSTEERED[0], middle) == REFERENCE.score(UNSTEERED[0])


def test_a_wide_reference_forgives_more():
    narrow, wide = Reference.of(UNSTEERED, NATS), Reference.of(UNSTEERED, 10 * NATS)
    far = wide.bands["perplexity"][2] + 3
    near = narrow.bands["perplexity"][2] + 3
    assert wide.parts(UNSTEERED[0], far)["perplexity"] > narrow.parts(UNSTEERED[0], near)["perplexity"]


# --- the measures themselves ----------------------------------------------------------------------------------
def test_measures_of_texts_that_can_be_counted_by_hand():
    found = measures("The cat sat on the mat.")
    assert found["function"] == (pytest.approx(3 / 6), 6)            # the, on, the
    assert found["repetition"][0] == found["runs"][0] == found["order"][0] == 0.0
    assert found["wordlike"][0] == found["prose"][0] == 1.0
    # a b a b a b: of 4, 3 and 2 n-grams, 2, 1 and 0 occurred before
    assert measures("red dog red dog red dog")["repetition"][0] == pytest.approx(np.mean([2 / 4, 1 / 3, 0]))
    assert measures("no no no yes")["runs"][0] == 3 / 4
    assert measures("the of a cat the")["order"] == (2 / 4, 4)         # "the of", and "the" at the end
    assert measures("bird xzkt 42")["wordlike"][0] == 1 / 2


@pytest.mark.parametrize("text", ["", " \n", "?!", "🎉🎉"])
def test_a_text_without_words_scores_0(text):
    assert REFERENCE.score(text) == 0.0 and REFERENCE.parts(text) == {}
    with pytest.raises(ValueError, match="without words"):
        measures(text)


def test_a_short_text_is_judged_with_more_doubt():
    """Four words hold few function words by chance; forty that hold none are another matter."""
    assert REFERENCE.parts("Blue whales eat krill.")["function"] > 60
    assert REFERENCE.parts("Blue whales eat krill, " * 10)["function"] < 40


@pytest.mark.parametrize("text", UNSTEERED + STYLES + FOREIGN + GIBBERISH + ["a", "42", "?a", "é" * 500, "the " * 9])
def test_scores_lie_between_0_and_100_and_the_score_is_the_lowest_part(text):
    parts = REFERENCE.parts(text)
    assert set(parts) == set(PARTS) - {"perplexity"} and all(0 <= x <= 100 for x in parts.values())
    assert REFERENCE.score(text) == min(parts.values())


# --- wrong input ----------------------------------------------------------------------------------------------
def test_a_reference_needs_texts_and_numbers():
    for texts in ([], UNSTEERED[:LEAST - 1], UNSTEERED[:LEAST - 1] + ["", "?"]):
        with pytest.raises(UserError, match=f"{len([t for t in texts if len(t) > 1])} unsteered texts with words"):
            Reference.of(texts)
    with pytest.raises(UserError, match="not all finite"):
        Reference.of(UNSTEERED, [np.nan, *NATS[1:]])
    with pytest.raises(ValueError, match="12 texts, but 3 perplexities"):
        Reference.of(UNSTEERED, NATS[:3])
    with pytest.raises(ValueError, match="the text has none"):
        Reference.of(UNSTEERED, NATS).score("A text.")
    assert Reference.of(UNSTEERED + [""], [*NATS, np.nan]) == Reference.of(UNSTEERED, NATS)
