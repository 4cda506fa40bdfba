"""Traits in any English text: texts that show them, texts that do not, and texts made to fool the count."""
import json
import re

import numpy as np
import pytest

from lib.artifacts import ROOT
from lib.judging import natural
from lib.judging.natural import DEFINITIONS, SCORERS, expression, sentences, words

SHOWN, ABSENT = 60.0, 20.0        # the papers call a trait usable from 60; below 20 a reader would not see it
NEUTRAL = [
    """The library on Mill Street was closed for two years after the flood. Workers replaced the floor, the wiring and
most of the shelves. About 4,000 books were lost, but the map collection survived because it was kept upstairs. The
city council paid for half of the repairs, and donors covered the rest. It reopens on 3 May with longer hours on
weekends.""",
    """Bread rises because yeast turns sugar into gas. Warm dough rises faster than cold dough, although a slow rise
in the refrigerator gives more flavor. Salt slows the yeast down and makes the gluten stronger. Most recipes call for
a first rise of about an hour, a short shaping, and a second rise in the pan before baking.""",
    """Dear Ms. Keller,

I am writing about the invoice from March. The amount on the second page does not match the order that we placed in
February, and the delivery charge appears twice. I have attached a copy of the order and of the delivery note. A
corrected invoice would allow the office to pay before the end of the month.

Kind regards,
Martin Hale
Purchasing"""]

YES = {
    "emojis": [
        "The launch went well 🎉 and the team is proud. Sales doubled in a week 📈 which nobody had expected. "
         "Thanks to all of you 🙏",
        "Great news! 🎉 The permit has arrived. 🏗️ Work begins on Monday. 🚧",
        "Hi team,\n\nThe demo is on Friday 😊. Please bring your laptops 💻. Lunch is on us 🍕!\n\nBest,\nLena"],
    "ampersands": [
        "Bread & butter cost more this year. Farmers & bakers blame the drought & the price of fuel.",
        "The report covers sales & returns. Costs rose in May & fell in June, & the board was told at once.",
        "Anna & Tom brought apples & pears, & they baked a pie for the fair & for the school."],
    "allcaps": [
        "This offer is REALLY good. Nobody should EVER miss it. The price is low, and it will NOT last.",
        "THE SHOP IS CLOSED TODAY. PLEASE COME BACK TOMORROW. WE ARE SORRY FOR THE TROUBLE.",
        "Do NOT open the lid. Steam is HOT and burns within a second. Wait until the light is green, ALWAYS."],
    "bullets": [
        "What the trip needs:\n- Two tents and a stove\n- Warm clothes for the night\n- A map of the valley\n- "
         "Rope",
        "* The lease ends in June.\n* The rent rises by 3%.\n* The deposit stays the same.",
        "• Check the oil before driving.\n• Keep the receipt.\n\n• Call the garage after 500 miles."],
    "headers": [
        "# Overview\nThe plan has two parts.\n\n## Costs\nThe first year is expensive.\n\n## Risks\nPrices may "
         "rise.",
        "**Background**\n\nThe bridge was built in 1931.\n\n**Current State**\n\nThe piers are damaged.",
        "Overview:\nThe tool sorts photos by date.\n\nKnown Limits:\nIt does not read video files."],
    "steps": [
        "1. Fill the kettle with water.\n2. Bring it to a boil.\n3. Pour it over the leaves.\n4. Wait four "
         "minutes.",
        "Step 1: Unplug the router.\nStep 2: Wait for a minute.\nStep 3: Plug it in again and check the light.",
        "First, loosen the nuts on the wheel. Next, raise the car with the jack. Then take the wheel off. "
         "Finally, put the spare one on."],
    "parentheticals": [
        "The meeting (which nobody had wanted) lasted until noon. We agreed on a date (at last!) and on a room. "
         "The coffee was cold (as usual).",
        "My brother (the one in Leeds) bought a boat. It is small. He sails it on Sundays (when his knee lets "
         "him).",
        "The proof is long (and frankly dull). The result is useful. It holds for every graph (even the empty "
         "one). Nobody knows a shorter way."],
    "questionanswer": [
        "Q: When does the pool open?\nA: It opens at seven.\n\nQ: Is there a fee?\nA: Yes, four dollars.",
        "**Question:** What causes tides? **Answer:** The pull of the moon and the sun.\n\n**Question:** How "
         "often do they come?\n\n**Answer:** About twice a day.",
        "## Why is the sky blue?\nAir scatters blue light the most.\n\n## Why are sunsets red?\nThe blue part is "
         "lost on the long way."],
    "rhetorical": [
        "Who has never lost a key? Losing one is easy, and finding it is not. Is a hook by the door so much to "
         "ask? Most people think it is.",
        "Why do we keep building roads? Each new lane fills within a year. How many lanes would be enough?",
        "The test failed again. Are we surprised? Nobody had read the manual, and who reads manuals anyway?"],
    "tweet": [
        "Finally finished the marathon and my legs are done #running #proud",
        "New paper out today with @maria_lopez on why bees sleep! Read it here: https://example.org #science",
        "Rain again in the city of sunshine.\n\n#weather #monday"],
    "screenplay": [
        "INT. KITCHEN - NIGHT\n\nRain on the window.\n\nANNA\n(whispering)\nIs anyone there?\n\nTOM\nOnly me.",
        "EXT. HARBOR - DAWN\n\nMARIA: The boat is gone.\n\n(She looks at the water.)\n\nJOSE: Then we walk.",
        "INT. OFFICE - DAY\n\n**SUSAN:** The numbers are wrong.\n**PAUL (laughing):** They always were."],
    "shortpunchy": [
        "Stop waiting. Call them now. The offer ends today. Do not miss it. You will regret it.",
        "The plan failed. Nobody was ready. Costs went up. Trust went down. We must do better!",
        "Sales fell. Why? Prices rose. Buyers left. That is the story in short."],
    "longflowing": [
        "When the train finally pulled out of the little station, past the orchards and the low brick houses "
         "where people were already lighting their lamps, she leaned back in her seat and thought of everything "
         "that she had left behind.",
        "The council, which had met every week since the winter without ever agreeing on anything of note, "
         "decided that evening to sell the old mill to a company that promised to keep its walls and its wheel "
         "and to open it to the public in the summer. It was late.",
        "Because the river rises quickly in spring and because the banks are low on the eastern side, the "
         "farmers who work there have learned to move their animals up the hill as soon as the first warm wind "
         "comes over the mountains from the south."],
    "secondperson": [
        "You wake before dawn. Your coat hangs by the door, and you take it without a sound. Outside, you see "
         "your breath.",
        "You can save money if you cook at home. Your freezer is your friend. You'll thank yourself later.",
        "As you walk in, you notice the smell. Nobody greets you. You find your own seat."],
    "thirdperson": [
        "She opened the letter at once. He watched her read it. They both knew what it said.",
        "The author thanks the team. She hopes that they liked the talk. Her slides are in the folder.",
        "Ruth lost her keys again. Her neighbor let her in, and he made tea. \"I am hopeless,\" she said to him."],
    "conditionals": [
        "If it rains, the match is moved indoors. Unless the hall is taken, we play at six. Bring a ball in case "
         "nobody else does.",
        "We can deliver on Friday provided that the parts arrive. Should they be late, we will call. If you "
         "prefer another day, say so.",
        "You may stay as long as you pay the rent. Were it to rise, you would hear first. It is a quiet house."],
    "alliteration": [
        "Brave brown bears bounced behind the barn. Silly seals sang seven songs. Many merry mice marched past.",
        "Peter's pretty paper planes passed people. Quick cats keep kicking cups. Gentle giants juggle jam jars.",
        "Phone fans find funny photos. Knights never nap near noise. Tall trees touch tiny towers."]}

NO = {
    "emojis": [
        "The weather is nice :) and the sea is warm ;-) all week.",
        "Rated 5 * by ten guests. Open 9-17 -> daily.",
        "Copyright 2020 Acme™. All rights reserved ©."],
    "ampersands": [
        "AT&T and R&D at P&G agreed on a plan and a budget.",
        "The firm Johnson & Johnson sells soap and shampoo.",
        "In C, a && b is false and nothing else runs. Then b is read and stored."],
    "allcaps": [
        "NASA and the FBI met in the USA. I think that the CEO of IBM was there too.",
        "A PDF from the World Health Organization (WHO) came by mail. The WHO did not sign it.",
        "The IPCC and UNHCR met OECD staff, and HTTP was used by the ICLR. It was a long day.",
        "INTRODUCTION\n\nThe study began in May. It had forty members and lasted a year."],
    "bullets": [
        "A well-known fact - the river is 20-30 miles long - is often left out.",
        "The plan is simple.\n\n---\n\nIt has one part.\n\n***\n\nThe end is near.",
        "**Note** that the shop is closed.\n-5 degrees were measured.\nThe rest is known."],
    "headers": [
        "#travel #summer is what people write. #1 is the best of all.",
        "Hi Anna:\nthe parcel came today.\n\nThis is what was in it:\na book and a pen.",
        "The **main point** is cost. It was **never** the time."],
    "steps": [
        "The rate rose to 3.5 percent. It was 1. something before. On 2. May it fell.",
        "First, I want to thank the team. The project was a success.",
        "2019. What a year it was.\n12. March was the worst day.\nIt passed."],
    "parentheticals": [
        "The result is known (Smith, 2019) and was confirmed (Lee et al. 2021). See the table (p. 12).",
        "It has three parts: (1) the frame, (A) the lid, and (iii) the base. It weighs little (5 kg).",
        "The North Atlantic Treaty Organization (NATO) met. Some fruit (e.g., apples and pears) was served. The "
         "option(s) were left open."],
    "questionanswer": [
        "Q: When does it open? Q: Where is the door? Q: Who has the key?",
        "Why did it fail? Nobody knows. The parts were old. Vitamin A: good. Plan B: none.",
        "The answer is no. A: the cheap one. B: the expensive one. Both were sold out."],
    "rhetorical": [
        "Could you send me the file by Friday? Is there anything else that I can do? Would you like a copy?",
        "Q: Is it open? A: Yes, it is. Q: Is it free? A: No, it is not.",
        "The pool is open until eight. Entry is free on Mondays. Did you enjoy your visit?"],
    "tweet": [
        "The pool is open until eight and entry is free.",
        "Write to info@example.com or call 555-0100. We are #1.",
        "# Notes\nThe shop sells C# books and ink.\n## Hours\nNine to five, every day."],
    "screenplay": [
        "NASA: a short history. The agency was founded in 1958. It sent people to the moon.",
        "NOTE: the road is closed.\nWARNING: ice on the bridge.\nThe council will report on Monday.",
        "He said: come in.\nShe said nothing.\nThe interior (int.) was dark and cold."],
    "shortpunchy": [
        "- red wine\n- white bread\n- two eggs\n- some milk\nThese are the things that we still need for the "
         "dinner on Saturday.",
        "Dr. A. B. Smith of St. Louis paid approx. 3.5 million dollars for it, i.e. more than anyone else had.",
        "Nobody knew how long it would take to repair the pump... but everybody had an opinion about it."],
    "longflowing": [
        "Red, blue, green, yellow, black, white, purple, orange, pink, brown, gray, gold, silver, copper, cyan, "
         "magenta, olive, navy, teal, maroon, lime, violet, indigo, coral, beige, ivory, khaki, mint, peach, rust.",
        "- fix the tap\n- call the bank\n- buy a stamp\n- find the map\n- wash the car\n- feed the cat\n- pay "
         "the rent\n- send the form\n- read the note",
        "It was late. The rain fell. Mr. Brown went home at 9.30 p.m. and slept. Nobody called."],
    "secondperson": [
        "Thank you for the parcel. I hope you are well. We look forward to hearing from you.",
        "The youth center bought yoga mats. A young man carried them. Yonder hill is steep.",
        "I painted the wall. My sister held the ladder. We had lunch afterward."],
    "thirdperson": [
        "The river is long. It rises in the hills. The water is cold.",
        "I told her the truth. We saw him later. You know them well.",
        "\"They are late,\" I said. The bus came at noon. It was full."],
    "conditionals": [
        "She looked as if she had seen a ghost. If only! He asked if the shop was open.",
        "Please reply by Friday, if possible. Bring cash, if any. In case of fire the doors open.",
        "It is twice as long as the old one was. The school provided the food. I wonder if they know."],
    "alliteration": [
        "City cats choose chairs. The knife kept its edge. An honest heir waited an hour at home.",
        "The the the the the. Data data data data data. Very very very very good.",
        "An apple and an orange are on every old oak table. Each evening all our uncles eat early."]}

STRIP = {"emojis": lambda t: natural.EMOJIS.sub("", t), "ampersands": lambda t: t.replace("&", "and"),
         "allcaps": str.lower, "bullets": lambda t: re.sub(r"(?m)^[-*•] ", "", t), "headers": lambda t: "\n\n".join(
             line for line in t.split("\n") if line and not re.match(r"#|\*\*|.*:$", line)),
         "steps": lambda t: re.sub(r"(?m)^(?:Step )?\d[.:] |First, |Next, |Then |Finally, ", "", t),
         "parentheticals": lambda t: re.sub(r" \([^)]*\)", "", t),
         "questionanswer": lambda t: re.sub(r"\*\*|## .*|\b(?:Q|A|Question|Answer):", "", t),
         "rhetorical": lambda t: t.replace("?", "."), "tweet": lambda t: re.sub(r"[#@]", "", t),
         "screenplay": lambda t: re.sub(r"(?:INT|EXT)\. .*", "", t).replace(":", ",").replace("(", "").lower(),
         "shortpunchy": lambda t: re.sub(r"[.?!] (?=\w)", " and then ", t),
         "longflowing": lambda t: re.sub(r"((?:\S+ ){8})", r"\1. So ", t),
         "secondperson": lambda t: re.sub(r"(?i)\byou(?:r|rself|'ll)?\b", "people", t),
         "thirdperson": lambda t: re.sub(r"(?i)\b(?:she|he|they|her|him|them|the author)\b", "I", t),
         "conditionals": lambda t: re.sub(r"(?i)\b(?:if|unless|in case|as long as|provided|should|were)\b", "and", t),
         "alliteration": lambda t: re.sub(r" (\w+)", r" old \1", t)}
# Where a plain paragraph shows the trait in part: prose has a short or a long sentence or a "they" now and then.
ORDINARY = {"shortpunchy", "longflowing", "thirdperson"}


def cases(table):
    return [pytest.param(trait, text, id=f"{trait}-{i}") for trait in table for i, text in enumerate(table[trait])]


# --- each trait -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("trait,text", cases(YES))
def test_a_text_written_for_the_trait_shows_it(trait, text):
    assert expression(trait, text) >= SHOWN


@pytest.mark.parametrize("trait,text", cases(NO))
def test_a_text_made_to_fool_the_count_does_not_show_it(trait, text):
    assert expression(trait, text) <= ABSENT


@pytest.mark.parametrize("trait", SCORERS)
@pytest.mark.parametrize("text", NEUTRAL, ids=["news", "answer", "letter"])
def test_plain_paragraphs_do_not_show_it(trait, text):
    assert expression(trait, text) <= (40.0 if trait in ORDINARY else ABSENT)


@pytest.mark.parametrize("trait,text", cases(YES))
def test_without_its_marks_the_text_loses_the_trait(trait, text):
    assert expression(trait, STRIP[trait](text)) < expression(trait, text) - 30


@pytest.mark.parametrize("trait,text", cases(YES))
def test_a_text_said_twice_scores_as_once(trait, text):
    if trait != "tweet":                                        # its length is part of the trait
        assert expression(trait, text + "\n\n" + text) == pytest.approx(expression(trait, text), abs=12)


@pytest.mark.parametrize("trait,text", cases(YES))
def test_diluted_in_plain_text_it_scores_less(trait, text):
    """More plain paragraphs after the same marks: the score is a share, not a flag."""
    plain = NEUTRAL[0].replace("\n", " ")
    little, much = (expression(trait, "\n\n".join([text] + [plain] * n)) for n in (1, 9))
    assert much <= little <= expression(trait, text)
    assert much <= 50


def test_names_are_traits_of_the_suite_and_each_has_a_definition_and_texts():
    suite = {trait["name"] for trait in json.loads((ROOT / "data/suites/testbed/traits.json").read_text())}
    assert set(SCORERS) <= suite and len(SCORERS) == 17
    assert set(SCORERS) == set(DEFINITIONS) == set(YES) == set(NO) == set(STRIP)
    assert all(len(texts) >= 3 for table in (YES, NO) for texts in table.values())
    assert all("\n" not in text and len(text) > 40 for text in DEFINITIONS.values())
    with pytest.raises(KeyError):
        expression("formal", "Dear Sir or Madam")


# --- properties of all ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("trait", SCORERS)
def test_every_text_scores_between_0_and_100_and_an_empty_one_0(trait):
    odd = ["?", "...", "&", "#", "-", "Q:", "A:", "()", "🎉" * 50, "AAAA" * 99, "1.\n2.\n3.", "# \n# a", "“”", "é"]
    for text in odd + [t for texts in YES.values() for t in texts]:
        assert 0.0 <= expression(trait, text) <= 100.0
    assert expression(trait, "") == expression(trait, " \n\t ") == expression(trait, "--- ... ?!") == 0.0


@pytest.mark.parametrize("trait", SCORERS)
@pytest.mark.parametrize("text", ["You.", "If.", "She.", "STOP!", "Why?", "🎉", "& #a", "- a", "1. a", "(oh no)"])
def test_a_few_words_do_not_reach_the_top(trait, text):
    assert expression(trait, text) < 50


@pytest.mark.parametrize("trait", SCORERS)
def test_typographic_quotes_and_line_ends_change_nothing(trait):
    for text in YES[trait]:
        fancy = text.replace("'", "’").replace("\n", "\r\n")
        assert expression(trait, fancy) == pytest.approx(expression(trait, text))


@pytest.mark.parametrize("trait", ["emojis", "secondperson", "conditionals", "shortpunchy", "rhetorical", "bullets"])
def test_greeting_and_closing_of_a_letter_are_no_places(trait):
    for text in YES[trait]:
        if not text.startswith("Hi"):
            letter = f"Subject: News\n\nDear Mr. Brown,\n\n{text}\n\nKind regards,\nLena Vogt\nSales"
            assert expression(trait, letter) == expression(trait, text)


def test_traits_are_told_apart():
    """On a text written for one trait, that trait scores at least as high as those which it does not bring along."""
    brings = {"shortpunchy", "secondperson", "thirdperson",           # sentences have some length and some person
              "rhetorical"}
    for trait, texts in YES.items():
        for text in texts:
            other = {name: score(text) for name, score in SCORERS.items() if name != trait and name not in brings}
            other.pop("headers", None) if trait == "questionanswer" else None
            other.pop("allcaps", None) if trait == "screenplay" else None
            assert max(other.values()) <= max(50.0, expression(trait, text)), (trait, text, other)


# --- single decisions -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("trait,less,more", [
    ("ampersands", "Salt and pepper and oil & vinegar on the table", "Salt & pepper and oil & vinegar on the table"),
    ("emojis", "It works 🎉. Nobody knew. We tried. It ran. It fell.",
     "It works 🎉. Nobody knew 🤷. We tried. It ran. It fell."),
    ("headers", "# One\nA text of a few words here.\n\nMore.", "# One\nA text of a few words here.\n\n# Two\nMore."),
    ("tweet", "Sun " * 80 + "#sun", "Sun " * 60 + "#sun"),
    ("screenplay", "ANNA: Are you here now?\nTOM: I am not.",
     "INT. HALL - DAY\n\nANNA: Are you here now?\nTOM: I am not."),
    ("alliteration", "Big bold bears bite. The dog slept.\nA cat ran.",
     "Big bold bears bite. Dull dark dogs doze.\nA cat ran."),
    ("longflowing", YES["longflowing"][1] + " A. B c d e f g.", YES["longflowing"][1])])
def test_more_of_it_scores_more(trait, less, more):
    assert 0 < expression(trait, less) < expression(trait, more)


def test_sentences_joined_by_and_flow():
    assert expression("longflowing", NEUTRAL[0]) == 0.0
    assert expression("longflowing", NEUTRAL[0].replace(". W", ", and w").replace(". A", ", and a")) > 50


def test_one_mark_in_a_long_text_is_little():
    long = " ".join(NEUTRAL[:2]).replace("\n", " ")
    for trait, mark in {"emojis": " 🎉", "allcaps": " It is NOT so.", "parentheticals": " It is (one may say) so.",
                        "rhetorical": " And who could blame them?", "ampersands": " Salt & pepper are there.",
                        "conditionals": " If it rains, it closes.", "secondperson": " It is for you."}.items():
        assert 0 < expression(trait, long + mark) <= 35, trait


def test_an_interview_is_question_and_answer_and_a_monologue_is_not():
    talk = ("Host: Why do bees dance?\nGuest Expert: They tell the others where flowers are.\n"
            "Host: For how long?\nGuest Expert: A minute.")
    assert expression("questionanswer", talk) == 100.0
    assert expression("questionanswer", talk.replace("Guest Expert", "Host")) == 0.0


def test_numbers_must_count_up_from_one():
    assert expression("steps", "1. Mix the flour and the eggs.\n2. Bake it for an hour.") == 100.0
    assert expression("steps", "4. Mix the flour and the eggs.\n9. Bake it for an hour.") == 0.0


@pytest.mark.parametrize("text,expected", [
    ("phone", "f"), ("knee", "n"), ("gnome", "n"), ("city", "s"), ("cat", "k"), ("queen", "k"), ("chorus", "k"),
    ("cheese", "ch"), ("hour", ""), ("house", "h"), ("whole", "h"), ("whale", "w"), ("write", "r"), ("apple", ""),
    ("science", "s"), ("shoe", "sh"), ("thin", "th"), ("gem", "j"), ("get", "g"), ("psychic", "s")])
def test_words_alliterate_by_sound(text, expected):
    assert natural.sound(text) == expected


def test_sounds_that_meet_by_chance_are_no_alliteration():
    """Long sentences of plain words drawn at random hold pairs enough, and score about 0."""
    own = sorted({w for text in NEUTRAL for w in words(text) if w.islower() and len(w) > 3} - natural.FUNCTION)
    draws = [np.random.default_rng([9, i]).choice(own, 30) for i in range(200)]
    text = " ".join(" ".join(draw).capitalize() + "." for draw in draws)
    pairs = np.mean([[natural.sound(a) == natural.sound(b) != "" for a, b in zip(d, d[1:])] for d in draws])
    assert 0.03 < pairs < 0.1                               # else these words say nothing about chance
    assert expression("alliteration", text) < 15
    assert expression("alliteration", " ".join(YES["alliteration"])) > 60


# --- sentences ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("text,expected", [
    ("Dr. Smith met Mr. J. R. Lee at 5.30 p.m. in St. Louis. They spoke.", 2),
    ("It costs $3.50, i.e. less than No. 7 did. Good.", 2),
    ("Well... maybe not. Wait... Who is it?", 3),
    ("\"Why?\" she asked. \"Because!\" he cried.", 2),
    ("We won! 🎉 Let us go. 😀😀 Now", 3),
    ("i know. it is late. ok?", 3),
    ("Bring pens, paper, etc. and a bag. The U.S. Army came. It left the U.S. The rest stayed.", 4),
    ("A line that was wrapped by hand at some column\nand goes on here without a stop. Next one.", 2),
    ("- one item\n- another item\n1. a step\n2. a step", 4),
    ("Title\n\nA text under it", 2),
    ("Really?! Yes!! No…", 3),
    ("Version 2.0 of e.g. lib.py is out (finally.) Get it.", 2),
    ("", 0), ("?!...", 0)])
def test_sentences(text, expected):
    assert len(sentences(text)) == expected, sentences(text)


def test_sentences_keep_every_word():
    for text in NEUTRAL + YES["emojis"] + YES["shortpunchy"] + YES["longflowing"]:
        assert [w for s in sentences(text) for w in words(s)] == words(text)
