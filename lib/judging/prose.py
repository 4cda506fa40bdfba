"""Prose: words, lines and sentences of English text, as people and models write it: letters, lists, headers, emojis.

A *line* knows whether it is a header, a bullet or a numbered step. A *sentence* ends neither at an abbreviation, an
initial or a decimal nor at an ellipsis before a small letter; headers are none.
"""
import re
from collections import Counter, namedtuple

FUNCTION = frozenset("""the a an this that these those my your his her its our their some any no every each all both
 of in on at to for from with by about as into through after over between against during without before under around
 among upon within and or but so if because while than when where though although until unless since that whether i me
 you he him she it we us they them myself yourself himself herself itself themselves who whom whose which what how why
 am is are was were be been being have has had do does did will would can could shall should may might must not there
 here then up out down off only also just very too more most such own same other another now again once one
 it's i'm don't that's you're we're they're he's she's i've we've didn't doesn't isn't can't won't""".split())
EMOJI = ("[\U0001F1E6-\U0001F1FF\U0001F300-\U0001FAFF\u2600-\u26FF\u231A\u231B\u23F0\u2705\u270A-\u270D\u2728"
         "\u274C\u2753-\u2755\u2757\u2763\u2764\u2B50][\uFE0F\u200D\U0001F3FB-\U0001F3FF]*")
EMOJIS = re.compile(EMOJI)
WORD = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+(?:['-][^\W_]+)*")
Line = namedtuple("Line", "text header bullet step gap")        # gap: an empty line or a rule stands before it
GREETING = re.compile(r"(?:hi|hello|hey|dear|greetings|to whom|good (?:morning|afternoon|evening))\b", re.I)
CLOSING = re.compile(r"(?:(?:with )?(?:best|kind|kindest|warm|warmest|many|all the)\b.*|(?:yours|sincerely|regards|"
                     r"cheers|thanks|thank you|respectfully|love|take care)\b.*),?!?", re.I)
BULLET = re.compile(r"[-*•‣◦▪●·–+]\s+(?:\[[ xX]\]\s+)?")
STEP = re.compile(r"[#*_ ]*(?:(?:step|phase|stage|part)\s+(\d\d?)\s*(?:[.:)–-]|[*_]*$)|\(?(\d\d?)[.)](?=[\s*]))"
                  r"[*_:]*\s*", re.I)
TITLE = frozenset("of and the for in to a an on with our your".split())      # small words that a title may have
TITLES = frozenset("mr mrs ms dr prof st vs e.g i.e cf approx gen sen rep gov capt lt col sgt rev hon mt al".split())
NUMBERED = frozenset("no nos fig figs p pp vol ch sec eq art".split())       # abbreviations before a number
OFTEN = frozenset("etc inc ltd co corp jr sr dept est ave jan feb mar apr jun jul aug sep sept oct nov dec".split())
STARTERS = frozenset("""the a an this that these those he she it we i you they there here his her my our your their in
 on at if when while after before as but and so then however what why how who no yes please let""".split())
SCENE = re.compile(r"(?:INT|EXT|EST|I/E)\b[./ ]|(?:FADE (?:IN|OUT)|CUT TO|DISSOLVE TO|SCENE \d+)\b")
STOP = re.compile(rf"([.!?…]+[\"')\]*_]*(?:\s*{EMOJI})*|(?:{EMOJI})+)(?:\s+|$)")


def words(text):
    """Words and numbers in order; "well-known", "don't" and "3.5" are one each."""
    return WORD.findall(plain(text))


def plain(text):
    return text.translate(str.maketrans("‘’“”\u00a0", "''\"\" ")).replace("\r\n", "\n").replace("&amp;", "&")


def body(text):
    """A letter without its subject, greeting and closing lines, another text as it is; quotes made straight."""
    whole = [line.rstrip() for line in plain(text).strip().split("\n")]
    kept = [line for line in whole if not re.match(r"\W*subject\W*:", line, re.I)]
    while kept and not kept[0]:
        kept = kept[1:]
    if kept and GREETING.match(kept[0]) and len(words(kept[0])) <= 6:
        kept = kept[1:]
    for back in range(1, min(4, len(kept)) + 1):               # the closing phrase, and at most a name and an office
        if CLOSING.fullmatch(kept[-back].strip()) and all(len(words(line)) <= 5 for line in kept[-back:]):
            kept = kept[:-back]
            break
    return "\n".join(kept if any(WORD.search(line) or EMOJIS.search(line) for line in kept) else whole)


def is_header(line):
    """Markdown's '# Title', a line that is bold as a whole, a title of up to four words before a colon."""
    if re.match(r"#{1,6}\s+\S", line):
        return True
    if m := re.fullmatch(r"\*\*([^*]+)\*\*:?|__([^_]+)__:?", line):
        title = m[1] or m[2]
        return len(words(title)) <= 12 and title[-1] not in ".!" and not re.match(r"(?:Q|A)\w*\d*:", title)
    title = [w for w in words(line) if w.lower() not in TITLE]
    return (bool(re.fullmatch(r"[A-Z][^.!?:]*:", line)) and 0 < len(title) and len(words(line)) <= 4
            and not any(w.lower() in FUNCTION for w in title) and not GREETING.match(line)
            and not re.match(r"(?:Q|A|Question|Answer)\b", line))


def is_banner(line):
    """A few words in capitals, to be asked of a line that stands alone; no scene heading."""
    return line.isupper() and 1 < len(words(line)) <= 8 and line[-1] not in ".!" and not SCENE.match(line)


def lines(text):
    """Lines of `text` without their marks, hard-wrapped ones joined; headers, bullets and numbers are told apart."""
    rows = [row.strip() for row in text.split("\n")]
    cues = {row for row, n in Counter(rows).items() if n > 2}      # a speaker recurs, a header does not
    out, gap, seen = [], True, set()
    for line, after in zip(rows, rows[1:] + [""]):
        if not WORD.search(line) and not EMOJIS.search(line):
            gap = True
            continue
        header = line not in cues and (is_header(line) or gap and not after and is_banner(line))
        step, bullet = 0, bool(BULLET.match(line))
        inner = BULLET.sub("", line, count=1)
        if m := STEP.match(inner):
            number = int(m[1] or m[2])
            if number == 1 or number - 1 in seen:              # a date or a year at the beginning continues nothing
                seen.add(number)
                step, inner, bullet = number, inner[m.end():], False
        last = out[-1] if out else None
        if (last and not (gap or header or bullet or step or last.header) and last.text[-1:] not in ".!?:…"
                and (line[0].islower() or len(last.text) >= 60)):
            out[-1] = last._replace(text=f"{last.text} {line}")
        else:
            out.append(Line(inner.strip("#*_ ") if header else inner, header, bullet, step, gap))
        gap = False
    return out


def split(line):
    """Sentences of one line. Ellipses before a small letter, initials, abbreviations and decimals do not end one."""
    out, start = [], 0
    for m in STOP.finditer(line):
        if m.end() == len(line) or ends(line[start:m.start()], m[1], line[m.end():]):
            out.append(line[start:m.end(1)])
            start = m.end()
    found = []
    for piece in out + [line[start:]]:
        if WORD.search(piece) or (EMOJIS.search(piece) and not found):
            found.append(piece.strip())
        elif found:
            found[-1] += " " + piece.strip()
    return [piece.strip() for piece in found]


def ends(before, stop, after):
    first = WORD.match(after.lstrip("\"'([*_"))
    small = bool(first) and first[0][0].islower()
    if stop[0] not in ".!?…" or stop.startswith(("..", "…")):
        return not small
    if small and stop[-1] in "\"')]":
        return False                                            # "Why?" she asked.
    token = (before.split() or [""])[-1].lstrip("\"'([*_").lower()
    if stop[0] != "." or not token:
        return True
    if token in TITLES or (token in NUMBERED and first and first[0][0].isdigit()):
        return False
    if token in OFTEN or re.fullmatch(r"[a-hj-z]|(?:[a-z]{1,2}\.)+[a-z]{1,2}", token):
        return bool(first) and not small and first[0].lower() in STARTERS
    return True


def sentences(text):
    """Sentences of all lines but headers, in order, each a string with at least one word, number or emoji."""
    return [s for line in lines(text) if not line.header for s in split(line.text)]
