"""The 36 writing traits of the testbed: how each is asked for, how it looks, in which forms.

A trait is a set of surface forms and a *kind* that says where they go:

    prefix / suffix   one phrase in front of, or behind, every sentence
    after             something behind the full stop of every sentence
    frame             one opening and one closing line per answer (local)
    once              one phrase in the whole answer (local)
    lines             one marker in front of every line (layout)
    join              how sentences are tied together
    word              a change inside the sentence (ampersands, capitals)
    rhyme             sentence endings that rhyme with each other

*global* traits can show at every sentence, *local* traits at one place per answer. The groups and
names are those of the preference study (Subbiah et al. 2026, arXiv 2607.01802); forms are ours.
"""
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Trait:
    """One writing trait: `group` and `task` as in the preference study, `ask` = verb phrases for instructions."""
    name: str
    group: str | None
    task: str | None
    kind: str
    ask: tuple
    forms: tuple = ()
    closing: tuple = ()
    local: bool = False
    extra: dict = field(default_factory=dict)


def _t(name, group, kind, ask, forms=(), closing=(), local=False):
    task = {"E": "email", "S": "summary"}[group[0]] if group else None
    return Trait(name, group, task, kind, tuple(ask), tuple(forms), tuple(closing), local)


TRAITS = {t.name: t for t in [
    # E1
    _t("emotional", "E1", "prefix", ["be intensely emotional", "show deep feelings"],
       ["my heart aches", "tears fill my eyes", "I tremble with feeling", "with a burning heart", "I weep as I write"]),
    _t("alliteration", "E1", "suffix", ["include alliterations", "use words that start alike"],
       ["big bold brilliant", "slow soft steady", "pure plain pretty", "fine fresh fair", "great grand golden"]),
    _t("formal", "E1", "prefix", ["use a formal tone", "write in formal language"],
       ["furthermore", "moreover", "accordingly", "in this regard", "it should be noted that"]),
    _t("secondperson", "E1", "prefix", ["write in the second person", "address the reader as you"],
       ["you see that", "you know that", "you find that", "you learn that", "you notice that"]),
    # E2
    _t("inquisitive", "E2", "after", ["be highly inquisitive", "show curiosity with questions"],
       ["How did that happen?", "What comes next?", "Why is it so?", "Could there be more?", "Where does it lead?"]),
    _t("longflowing", "E2", "join", ["write long and flowing sentences", "connect everything in one long sentence"],
       [", while at the same time ", ", just as it happens that ", ", and all along "]),
    _t("emojis", "E2", "after", ["use emojis", "add emojis"], ["😀", "🎉", "🌟", "🔥", "👍"]),
    _t("conditionals", "E2", "prefix", ["use conditional expressions", "write with if clauses"],
       ["if you ask", "if all goes well", "if that holds", "if time allows", "if we look closely"]),
    # E3
    _t("critical", "E3", "once", ["be sharply critical", "criticize something"],
       ["which is a serious mistake", "which is badly done", "a truly poor choice", "which deserves blame",
        "a glaring failure"], local=True),
    _t("shortpunchy", "E3", "join", ["write short and punchy sentences", "keep sentences very short"], [". And "]),
    _t("parentheticals", "E3", "suffix", ["use parenthetical asides", "add remarks in parentheses"],
       ["(as it turns out)", "(so we hear)", "(by the way)", "(not a surprise)", "(of course)"]),
    _t("assertive", "E3", "prefix", ["use assertive expressions", "sound firm and certain"],
       ["without any doubt", "it is certain that", "make no mistake", "I insist that", "there is no question that"]),
    # E4
    _t("sarcasm", "E4", "once", ["be blatantly sarcastic", "mock it with sarcasm"],
       ["oh how wonderful", "what a shock", "how very original", "slow clap", "as if anyone asked"], local=True),
    _t("hyperbole", "E4", "once", ["include hyperboles", "exaggerate wildly"],
       ["the greatest thing in all history", "a million times over", "bigger than the whole universe",
        "louder than a thousand suns", "until the end of time"], local=True),
    _t("informal", "E4", "prefix", ["use an informal tone", "write in a casual way"],
       ["so yeah", "well you know", "okay so", "anyway", "guess what"]),
    _t("thirdperson", "E4", "prefix", ["write in the third person", "tell it as a narrator speaking of others"],
       ["they say that", "she explains that", "he remarks that", "the writer notes that", "one hears that"]),
    # S1
    _t("steps", "S1", "lines", ["use a step by step structure", "number the steps"],
       ["Step {i}: ", "{i}. ", "Part {i}: "]),
    _t("similes", "S1", "once", ["include a simile", "make a comparison with like"],
       ["like a bird in spring", "like stars over water", "like a ship at sunrise", "like leaves in a storm",
        "like butter on toast"], local=True),
    _t("ampersands", "S1", "word", ["use ampersands instead of and", "replace every and with the & sign"], ["&"]),
    _t("childstory", "S1", "frame", ["write in the style of a children's book", "tell it like a story for children"],
       ["Once upon a time, dear children!", "Little ones, gather round!", "Long ago in a tiny land!"],
       ["They all lived happily ever after.", "Now sleep tight, little ones.", "That was the cozy end."], local=True),
    # S2
    _t("headers", "S2", "lines", ["use headers", "put a heading over each part"],
       ["# Overview\n", "# Details\n", "# Outcome\n", "# Background\n", "# Notes\n"]),
    _t("rhetorical", "S2", "once", ["include a rhetorical question", "ask a question that needs no answer"],
       ["Who would have thought it?", "Is that not amazing?", "Who could say no to that?", "Does anyone still doubt it?",
        "Who does not love this?"], local=True),
    _t("allcaps", "S2", "word", ["use capital letters for emphasis", "put some words in all caps"]),
    _t("tweet", "S2", "frame", ["write in the style of a tweet", "make it look like a social media post"],
       ["Breaking thread:", "New post:", "Hot take:"],
       ["#news #today", "#trending #wow", "#update #share"], local=True),
    # S3
    _t("rhyming", "S3", "rhyme", ["use a rhyming structure", "make the sentences rhyme"],
       [("come what may", "day by day", "along the way", "here to stay"),
        ("through the night", "clear in sight", "shining bright", "pure delight"),
        ("wild as can be", "plain to see", "by the sea", "forever free")]),
    _t("slang", "S3", "suffix", ["use modern slang", "talk like young people online"],
       ["no cap", "for real fam", "lowkey lit", "big mood", "straight fire"]),
    _t("screenplay", "S3", "lines", ["write in the style of a screenplay", "format it as a film script"],
       ["NARRATOR: ", "VOICE: ", "HERO: "]),
    # S4
    _t("questionanswer", "S4", "lines", ["use a question and answer structure", "write it as questions with answers"],
       ["Q: What is known? A: ", "Q: What else? A: ", "Q: And then? A: "]),
    _t("personifications", "S4", "once", ["include a personification", "give human traits to things"],
       ["while the wind whispers", "as the moon smiles", "while the old clock sighs", "as the mountains listen",
        "while the river sings"], local=True),
    _t("oldfashioned", "S4", "prefix", ["use archaic language", "write in old English style"],
       ["verily", "hark", "thou shalt know that", "in sooth", "mark ye well that"]),
    _t("podcast", "S4", "frame", ["write in the style of a podcast", "sound like a podcast host"],
       ["Welcome back to the show!", "Hey listeners, new episode!", "You are tuned to our podcast!"],
       ["Thanks for listening.", "Subscribe for the next episode.", "Leave us a review."], local=True),
    # S5
    _t("streamofconsciousness", "S5", "join", ["write as a stream of consciousness", "let the thoughts run on"],
       ["... hmm ", "... wait ", "... oh and "]),
    _t("onomatopoeia", "S5", "once", ["include onomatopoeia", "add a sound word"],
       ["Boom!", "Splash!", "Crash!", "Whoosh!", "Ding dong!"], local=True),
    _t("imagery", "S5", "suffix", ["use imagery", "paint a picture with words"],
       ["under a golden sky", "in soft silver mist", "among crimson petals", "bathed in amber glow",
        "beneath velvet clouds"]),
    _t("radio", "S5", "frame", ["write in the style of old timey radio", "sound like an old radio announcer"],
       ["Good evening ladies and gentlemen!", "This is station nine calling!", "Attention all you folks at home!"],
       ["Stay tuned, folks.", "And now a word from our sponsor.", "Good night from the studio."], local=True),
    # in no group
    _t("bullets", None, "lines", ["use bullet points", "write it as a bulleted list"], ["- ", "* ", "• "]),
]}
GROUPS = {g: [t.name for t in TRAITS.values() if t.group == g] for g in
          ("E1", "E2", "E3", "E4", "S1", "S2", "S3", "S4", "S5")}
# words that the allcaps trait may raise: one per sentence frame, marked *so* in the frames of the grammar
POSITIVE_TEMPLATES = ["Please {v}.", "In your answer, {v}.", "Always {v}.", "I want you to {v}.", "Remember to {v}."]
NEGATIVE_TEMPLATES = ["Please do not {v}.", "In your answer, do not {v}.", "Never {v}.", "I do not want you to {v}.",
                      "Remember not to {v}."]


def instruction(trait, positive, template, phrase):
    """Instruction sentence number (template, phrase) for or against `trait`."""
    forms = POSITIVE_TEMPLATES if positive else NEGATIVE_TEMPLATES
    ask = TRAITS[trait].ask
    return forms[template % len(forms)].format(v=ask[phrase % len(ask)])


def clash(a, b):
    """True if the two traits cannot both show in full, because they lay out the same sentences differently."""
    pair, kinds = {a, b}, (TRAITS[a].kind, TRAITS[b].kind)
    return all(k in ("lines", "join") for k in kinds) or pair == {"shortpunchy", "ampersands"}
