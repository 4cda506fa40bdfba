"""Traits that can be counted in any English text: how much of a text shows one, 0 to 100.

    SCORERS      {trait: function(text) -> float}, under the names that the testbed's suite has for them
    DEFINITIONS  {trait: what is counted, in one sentence}, for reports

A score is a share: of the places where the trait can show (sentences, words, conjunctions), those where it does. A
style that nobody sets in every sentence has all of its places in fewer of them, and its definition says in how many.
The greeting and the closing of a letter are no places. A text of fewer than LEAST_WORDS words gets the matching part
of its share, so that a single word cannot reach 100; an empty text gets 0.

What is counted is the form of English prose. Whether a text makes sense is not asked: see lib.judging.fluency.
"""
import re
from collections import Counter
from math import comb

from lib.judging.prose import EMOJI, EMOJIS, FUNCTION, SCENE, WORD, body, lines, sentences, split, words

# --- settings that change a score ---------------------------------------------------------------------------
LEAST_WORDS = 8           # words and emojis from which a share counts in full
SHORT, LONG = 8, 30       # words: a sentence is punchy up to SHORT, flowing from LONG on
TWEET = 280               # characters
PARAGRAPHS = 3            # that one header can stand for
SAME_SOUND = 0.055        # chance that neighbouring content words begin alike: 0.052 in news, abstracts and threads
# ------------------------------------------------------------------------------------------------------------
SCORERS, DEFINITIONS = {}, {}


def expression(trait, text):
    """How much of `text` shows `trait`, float 0 to 100. KeyError for a trait that cannot be counted in any text."""
    return SCORERS[trait](text)


def scorer(share):
    """Register `share`, text without greeting and closing -> float, at most 1 of which counts, under its name."""
    def score(text):
        text = body(text)
        size = len(WORD.findall(text)) + len(EMOJIS.findall(text))
        return 100.0 * min(1.0, size / LEAST_WORDS) * min(1.0, max(0.0, share(text))) if size else 0.0
    score.__name__, score.__doc__ = share.__name__, share.__doc__
    SCORERS[share.__name__], DEFINITIONS[share.__name__] = score, " ".join(share.__doc__.split())
    return share


def part(found, every=1):
    """Share of true values in a list; with `every` = n, one in n is all that can be asked for."""
    return every * sum(map(bool, found)) / len(found) if found else 0.0


# --- layout -------------------------------------------------------------------------------------------------
@scorer
def bullets(text):
    """Share of sentences in lines marked by a bullet (- * • and the like); a single bullet is half a list."""
    found = [line.bullet for line in lines(text) if not line.header for _ in split(line.text)]
    return part(found) * (1.0 if sum(line.bullet for line in lines(text)) > 1 else 0.5)


@scorer
def headers(text):
    """Share of paragraphs under a header ('# Title', a bold line, a title of up to four words before a colon), up to
    three for each header; a single header counts half."""
    covered, left, named, inside = [], 0, 0, False
    for line in lines(text):
        if line.header:
            left, inside = PARAGRAPHS, False
        elif line.gap or not inside:
            named += left == PARAGRAPHS
            covered.append(left > 0)
            left, inside = left - 1, True
    return part(covered) * (1.0 if named > 1 else 0.5)


@scorer
def steps(text):
    """Share of sentences in numbered lines (1. or Step 1, counting up from 1, with what follows up to an empty line),
    or that begin with First, Next, Then, Finally and the like where three different ones or more are used."""
    order = re.compile(r"\W*(first|second|third|fourth|next|then|after that|finally|lastly)(?:ly)?\b(?! of\b)", re.I)
    named, numbers, ordinals, inside = [], set(), set(), False
    for line in lines(text):
        inside = bool(line.step) or inside and (line.bullet or not line.gap)
        numbers |= {line.step} - {0}
        for s in [] if line.header else split(line.text):
            m, n = order.match(s), re.match(r"\W*step (\d\d?)\s*[:.)–-]", s, re.I)
            numbers |= {int(n[1])} if n else set()
            ordinals |= {m[1].lower()} if m else set()
            named.append((inside or n, m))
    return part([(n and len(numbers) > 1) or (m and len(ordinals) > 2) for n, m in named])


TURN = re.compile(r"(?:^|\n|(?<=[.?!])[ ](?=\W*(?:Q|A|Question|Answer)\d*:))[ \t]*[-*_#>• ]*"
                  r"\b([A-Z][A-Za-z]*(?: [A-Z]\w+)?)\s?\d*[*_]*:[*_]*(?=\s)")


@scorer
def questionanswer(text):
    """Share of sentences in pairs of a question and its answer: a turn (Q:, Question:, Host: or another name) that
    ends in a question before another's turn, or a question as a header before a paragraph; an answer ends at an empty
    line."""
    pieces = TURN.split(text)
    hits, places, asked = 0, 0, ("", 0)
    for label, piece in zip(pieces[1::2], pieces[2::2]):
        own, answer = sentences(piece), sentences(piece.strip().split("\n\n")[0])
        if asked[1] and answer and label != asked[0] and label[0] != "Q":
            hits += asked[1] + len(answer)
        places += len(own)
        ends_so = bool(answer) and answer[-1].rstrip("*_\"')").endswith("?")
        asked = (label, len(own)) if ends_so and label not in ("A", "Answer") else ("", 0)
    asked = fresh = False
    for line in lines(pieces[0]):
        n = len(split(line.text))
        if line.header:
            asked, fresh = line.text.endswith("?"), True
            places += asked
        else:
            places += n
            asked = asked and (fresh or not line.gap)
            hits += (n + fresh) * asked
            fresh = False
    return hits / places if places else 0.0


@scorer
def screenplay(text):
    """Share of words in scene headings (INT., EXT.) and the paragraph after one, in cues (a NAME in capitals above
    its speech, NAME: speech) and in directions in brackets on a line of their own; half of it without two of the
    three kinds."""
    rows = [re.sub(r"^[*_#> ]+|[*_ ]+$", "", row).replace("**", "") for row in text.split("\n")]
    direction = re.compile(r"[(\[][^()\[\]]*[a-z][^()\[\]]*[)\]]\.?")
    caps, name = r"[A-Z][A-Z'’. -]*[A-Z]", r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
    stage = any(SCENE.match(row) or direction.fullmatch(row) for row in rows)
    said = re.compile(rf"({caps}{'|' + name if stage else ''})(?:\s*\([^)]*\))?:\s+\S")
    other = re.compile(r"(?:QUESTION|ANSWER|NOTES?|WARNING|IMPORTANT|PS|RE|FYI|UPDATE|TIP|STEP|NOTE)\b", re.I)
    kinds, found, total, mode = Counter(), 0, 0, ""
    for row, after in zip(rows, rows[1:] + [""]):
        n = len(words(row))
        total += n
        if not n:
            mode = "" if mode != "heading" else mode
            continue
        if SCENE.match(row):
            kind = mode = "heading"
        elif direction.fullmatch(row):
            kind = "direction"
        elif said.match(row) and not other.match(row):
            kind, mode = "cue", ""
        elif (re.fullmatch(rf"{caps}(?:\s*\([^)]*\))?:?", row) and n <= 5 and WORD.search(after)
              and after.upper() != after and not other.match(row)):
            kind = mode = "cue"
        else:
            kind = "spoken" if mode == "cue" else "action" if mode == "heading" else ""
            mode = "" if kind == "action" else mode
        kinds[kind] += 1
        found += n if kind else 0
    if kinds["heading"] == 0 and kinds["cue"] < 2:
        return 0.0
    return found / total * (1.0 if sum(kinds[k] > 0 for k in ("heading", "cue", "direction")) > 1 else 0.5)


@scorer
def tweet(text):
    """All or nothing for a hashtag or @mention beside at least three other words; falls to 0 from 280 to 560
    characters, and is divided by the number of lines, those of hashtags, mentions and links alone left out."""
    tag = r"(?:(?<=\s)|^)(?:#[A-Za-z]\w+|@[A-Za-z_]\w+)"
    rest = re.sub(tag + r"|https?://\S+", "", text, flags=re.M)
    rows = sum(bool(WORD.search(row)) for row in rest.split("\n"))
    if rest == text or not re.search(tag, text, re.M) or len(words(rest)) < 3:
        return 0.0
    return min(1.0, 2 - len(text) / TWEET) / rows


# --- marks --------------------------------------------------------------------------------------------------
@scorer
def emojis(text):
    """Share of sentences with an emoji, every second one being full; emoticons of letters and signs are none."""
    return part([EMOJIS.search(s) for s in sentences(text)], 2)


@scorer
def ampersands(text):
    """Share of "and"s written as & between blanks, taking at least one to 50 words; & between two capitalised words
    may be a name and counts only beside another one."""
    found = re.findall(r"(?:^|[\s(\"])(\w)\S*\s+&\s+(?=\W*(\w))", text)
    sure = sum(not (a.isupper() and b.isupper()) for a, b in found)
    hits = len(found) if sure else 0
    return hits / max(hits + len(re.findall(r"\band\b", text, re.I)), len(words(text)) / 50, 1)


ACRONYMS = frozenset("""NASA NATO IEEE NCAA UNESCO UNICEF OPEC FIFA UEFA AIDS COVID SARS MERS ASAP RSVP ISIS IKEA ESPN
 HIPAA OSHA NAFTA ASEAN BRICS EBITDA FEMA NOAA CERN ESA IMAX LIDAR RADAR SONAR LASER NAND JSON YAML ASCII UNIX SCUBA
 PIN SIM RAM ROM AI UK EU UN US USA UAE CEO CFO CTO CIO COO HR IT IQ ID API FAQ DIY FYI AKA ETA EOD VIP ATM IMF WHO
 FBI CIA IRS EPA FDA GDP IPO ROI KPI OK DNA RNA HIV TV UI UX SEO AWS IBM NBA NFL MLB USB URL IOS ISO AM PM AD BC BCE
 CE
 MIA SAT GRE PIE MAE ETF ESG SUV RV EV LA NYC USSR NAACP ACLU UCLA MOMA DARPA STEM GPA GPU CPU SAAS""".split())
SMALL = frozenset("""NOT ALL NO SO YES NOW BIG BUT YOU NEW WOW TOO ANY WHY HOW ONE TWO AND OUR MY ME WE HE SHE HIS
 HER THE IS ARE WAS CAN DID DO GO OFF OUT END TOP BAD FUN HOT OLD OWN SEE SAY BE IF IN ON UP TO OF OR ACT ASK BUY FAR
 FEW GET LET MAY NOR PAY PUT SAD SIX TEN TRY USE WAR WAY WIN HAD HAS HIM ITS FOR""".split())


# How no English word of four letters or more ends or begins: IPCC, OECD, UNHCR.
UNSAID = re.compile(r"(?=.{4}).*[^AEIOUY]{2}$(?<!ST|ND|NT|NS|NG|NK|NC|CK|LL|SS|FF|ZZ|RD|RT|RK|RM|RN|RS|RL|RP|LD|"
                    r"LT|LK|LF|LP|LS|LM|MP|MS|MB|SK|SP|SH|CH|TH|PH|GH|HT|WN|WS|WL|CT|PT|FT|XT|TS|KS|DS|PS|GS|BS|HS|"
                    r"CS|FS|TT|DD|GN)"
                    r"|[^AEIOUY]{4}|[^AEIOUYS][^AEIOUYHLRNW][^AEIOUY]")


@scorer
def allcaps(text):
    """Share of sentences with a word in capitals for emphasis, every second one being full: two letters or more and
    a vowel, no acronym (listed, put in brackets, unlike English spelling, or up to three letters and no common word),
    no title or cue line."""
    rows = text.split("\n")
    loud = [len(row) > 1 and row.isupper() for row in rows]
    whole = sum(len(words(row)) for row, x in zip(rows, loud) if x) > 0.5 * len(words(text))
    if not whole:
        text = "\n".join(row for row, x in zip(rows, loud) if not x or row.rstrip()[-1] in ".!?")
    named = set(re.findall(r"\(([A-Z]{2,})s?\)", text))
    def shout(word):
        return (word not in named and word not in ACRONYMS and re.search("[AEIOUY]", word)
                and ("'" in word or not UNSAID.match(word) if len(word) > 3 else word in SMALL))
    found = [any(shout(w) for w in re.findall(r"(?<![\w.&/-])[A-Z][A-Z']*[A-Z](?![\w&/-]|\.\w)", s))
             for s in sentences(text)]
    return part(found, 2)


ASIDE = re.compile(r"(?:(?<=\s)|^)\(([^()]{3,300})\)", re.M)
NO_ASIDE = re.compile(r"\s*(?:e\.g|i\.e|see (?:also )?(?:fig|table|section|page|chapter|appendix|the)|fig|table|"
                      r"section|page|pp?\.|cf|vol|ibid|https?:|a\.?k\.?a)\b", re.I)


def is_aside(inner):
    """No citation, number, example, cross-reference, label or acronym: two words or more, or an exclaimed one."""
    own = words(inner)
    if NO_ASIDE.match(inner) or len(own) <= 8 and re.search(r"\b(?:1[5-9]|20)\d\d[a-z]?\b", inner):
        return False
    if len(own) <= 4 and any(w[0].isdigit() for w in own) or not any(w.islower() for w in own):
        return False
    return len(own) > 1 or bool(re.search(r"ly$|[!?]$", inner.strip()))


@scorer
def parentheticals(text):
    """Share of sentences with an aside in round brackets, every third one being full; years, citations, numbers,
    labels, acronyms, single words, cross-references and examples (e.g., i.e.) are no asides."""
    marked = ASIDE.sub(lambda m: "asideaside" if is_aside(m[1]) else m[0], text)
    return part(["asideaside" in s for s in sentences(marked)], 3)


# --- sentences ----------------------------------------------------------------------------------------------
@scorer
def shortpunchy(text):
    """Share of sentences of at most 8 words that end like one (. ! ? … or an emoji), which fragments in lists do
    not."""
    end = re.compile(rf"(?:[.!?…][\"')\]*_]*|{EMOJI})\W*$")
    return part([len(words(s)) <= SHORT and end.search(s) for s in sentences(text)])


@scorer
def longflowing(text):
    """Share of words that lie in sentences of 30 words or more, of which at least a quarter are function words: a
    list of names or keywords does not flow."""
    sizes = [(len(own), len(own) >= LONG and 4 * sum(w.lower() in FUNCTION for w in own) >= len(own))
             for own in map(words, sentences(text))]
    return sum(n for n, long in sizes if long) / max(1, sum(n for n, _ in sizes))


FORMULA = re.compile(r"""\bthank(?:ing)?\syou\b|\bfinds?\syou\b|
 \bhope\s(?:that\s)?you(?:'re|\sare)?\s(?:all\s)?(?:doing\s|keeping\s)?well|
 \b(?:from|seeing|meeting)\syou\b|\b(?:if|should)\syou\shave\sany\b[^,.!?]*""", re.I | re.X)
FIRST = re.compile(r"\b(?:I|I'(?:m|ve|ll|d)|[Mm]e|[Mm]y|[Mm]ine|[Mm]yself|[Ww]e|[Ww]e'(?:re|ve|ll|d)|us|[Oo]urs?|"
                   r"[Oo]urselves|i|i'm)\b")                      # US is a country
SECOND = re.compile(r"\b(?:you|your|yours|yourself|yourselves|y'all)\b", re.I)
THIRD = re.compile(r"\b(?:he|him|his|himself|she|her|hers|herself|they|them|their|theirs|themselves)\b|"
                   r"\bthe (?:author|writer|sender|reviewer|narrator|speaker)\b", re.I)


@scorer
def secondperson(text):
    """Share of sentences with you, your or yourself, without the set phrases of letters (thank you, hope you are
    well, if you have any questions); a bare imperative is not counted."""
    return part([SECOND.search(FORMULA.sub(" ", s)) for s in sentences(text)])


@scorer
def thirdperson(text):
    """Share of sentences with he, she, they or the like (or the author, the writer) and, outside quoted speech, no I,
    we or you. Without that pronoun any plain description would count, and "it" stands in each of them."""
    told = [re.sub(r'"[^"]*"', " ", s) for s in sentences(text)]
    return part([THIRD.search(s) and not FIRST.search(s) and not SECOND.search(s) for s in told])


IF = re.compile(r"""
 (?<!\bas\s)\bif\b(?!\s*[,.;:!?)]|\s+(?:only|not|so|any|anything|ever|possible|necessary|needed|applicable|required|
   nothing|at\sall|and\swhen)\b)(?=\s+\S+\s+\S)
 |\bunless\b(?=\s+\S+\s+\S)
 |\b(?:provided|providing|assuming|supposing|on\scondition)\sthat\b
 |(?:^|[,;]\s)(?:provided|assuming|supposing)\s(?:you|we|they|he|she|it|I|the|there)\b
 |\bin\scase\b(?!\s+of\b)(?=\s+\S+\s+\S)
 |(?<!\btwice\s)(?<!\btimes\s)(?<!\btook\s)(?<!\btake\s)(?<!\bis\s)(?<!\bwas\s)(?<!\bnot\s)(?<!\blasted\s)
   \bas\slong\sas\s+(?:you|we|they|he|she|it|I|there|the|your|our|everyone|nobody|no)\s+\S+\s+\S""", re.I | re.X)
INDIRECT = re.compile(r"\b(?:wonder|wondering|wondered|ask|asks|asked|asking|see|check|checked|know|sure|unclear|"
                      r"unsure|tell|decide|find out|doubt|remember)\s(?:(?:me|him|her|us|them)\s)?if\b", re.I)
INVERTED = re.compile(r"\W*(?:should|had|were)\s(?:you|i|we|he|she|they|it|there|the|this|that|any\w*)\b[^?]*,[^?]*$",
                      re.I)


@scorer
def conditionals(text):
    """Share of sentences with a condition (if, unless, provided that, in case, as long as, Should you ..., with its
    clause), every second one being full; as if, if only, if not, if possible, questions with if (asked if) and the
    set phrase "if you have any questions" are none."""
    own = [INDIRECT.sub(" ", FORMULA.sub(" ", s)) for s in sentences(text)]
    return part([IF.search(s) or INVERTED.match(s) for s in own], 2)


REQUEST = re.compile(r"""\W*(?:(?:and|so|but|or|also|please|if\s[^,]*),?\s)?(?:
 (?:can|could|would|will)\syou\b(?!\s(?:believe|imagine|blame|guess))|(?:can|could|may|shall|should)\si\b
 |(?:shall|should|can|could)\swe\s(?:meet|schedule|talk|discuss|set|move)|do\syou\s(?:want|need|have|mind|think)
 |are\syou\s(?:able|available|free|interested|ok|okay|coming|all)|have\syou\s(?:had|got|heard)|how\s(?:are|is)\syou
 |how\s(?:can|may)\s(?:i|we)\shelp|what\s(?:would|do)\syou|when\s(?:are|can|could|would)\syou|any\s|let\sme
 |is\sthere\sany|what\stime\b|which\s(?:day|time|date)\b|does\s.*\bfor\syou)""", re.I | re.X)


@scorer
def rhetorical(text):
    """Share of sentences that are questions in running text, every third one being full; no Q: or speaker's line, no
    quoted question, request or offer (Could you, Would you like, How can I help), no last sentence that asks you."""
    own = sentences(text)
    found = [bool(re.search(r"\?[!?)*_]*(?:\s*" + EMOJI + r")*$", s)) and not REQUEST.match(s)
             and not re.match(r"\W*[A-Z]\w*(?: \w+)?\s*\d*[*_]*:", s) for s in own]
    if found and SECOND.search(own[-1]):
        found[-1] = False
    return part(found, 3)


# --- sounds -------------------------------------------------------------------------------------------------
SOUNDS = [(re.compile(rx), sound) for rx, sound in (
    ("[aeiou]|hour|honest|honou?r|heir|x-", ""), ("ph", "f"), ("kn|gn|pn", "n"), ("wr|rh", "r"),
    ("ps[iey]|sc[eiy]", "s"), ("wh(?=o[^ao]|ole)", "h"), ("chr|chem|chaos|char(?=ac|is)|choi?r", "k"), ("ch", "ch"),
    ("sh|sugar|sure", "sh"),
    ("th", "th"), ("c[eiy]", "s"), ("[ckq]", "k"), ("ge[mnor]|gi[an]|gy[mp]|j", "j"), ("[zx]", "z"))]


def sound(word):
    """The consonant that a lower-case English word begins with, as heard: "f" of phone, "n" of knee, "k" of cat, "h"
    of whole; "" for a vowel."""
    return next((heard for rx, heard in SOUNDS if rx.match(word)), word[0])


@scorer
def alliteration(text):
    """Share of sentences in which neighbouring content words (function words between them left out) begin at least
    twice with the same consonant as heard, above the share that chance gives to sentences of their lengths."""
    hits = chance = 0.0
    own = sentences(text)
    for s in own:
        content = [w for w in (w.lower() for w in words(s)) if w[0].isalpha() and len(w) > 2 and w not in FUNCTION]
        pairs = sum(sound(a) == sound(b) != "" and a[:5] != b[:5] for a, b in zip(content, content[1:]))
        n = max(0, len(content) - 1)
        hits += pairs > 1
        chance += 1 - sum(comb(n, k) * SAME_SOUND ** k * (1 - SAME_SOUND) ** (n - k) for k in (0, 1) if k <= n)
    return (hits - chance) / (len(own) - chance) if len(own) > chance else 0.0
