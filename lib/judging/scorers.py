"""Exact scorers of a suite whose texts a grammar writes: what shows is counted, what stands there is parsed.

    text -> traits removed -> sentences parsed -> facts

The grammar is data, the suite's grammar.json (data/README.md): frames and slots of the neutral sentences, and the
surface forms of every trait.

    expression  0-100: share of the places where a trait can show at which it does show
    coherence   0-100: mean of (share of words in sentences that parse) and (share of facts carried)
"""
import re
from functools import cached_property

LINE = {"steps": r"(?:step |part )\d: |\d\. ", "headers": r"# (?:overview|details|outcome|background|notes)$",
        "questionanswer": r"q: [^?\n]*\? a: ", "screenplay": r"(?:narrator|voice|hero): ", "bullets": r"[-*•] "}
LINE = {name: re.compile("^(?:" + form + ")", re.M) for name, form in LINE.items()}
PHRASES = ("prefix", "suffix", "after", "once", "frame")        # kinds of traits whose forms are phrases


def _any(forms):
    """Regex of any of the forms, the longest first."""
    return "|".join(re.escape(form.lower()) for form in sorted(forms, key=len, reverse=True))


class Grammar:
    """tables: content of grammar.json. Items are task items of the suite, with their facts."""

    def __init__(self, tables):
        self.traits, self.frames, self.slots = tables["traits"], tables["frames"], tables["slots"]
        self.roles, self.sentences, self.ands = tables["roles"], tables["sentences"], tables["ands"]
        self.greetings, self.closings = tables["greetings"], tables["closings"]
        raised = re.findall(r"\*(\w+)\*", " ".join(frame for frames in self.frames.values() for frame in frames))
        self.raised = re.compile(r"\b(?:" + "|".join(sorted({word.upper() for word in raised})) + r")\b")

    @cached_property
    def patterns(self):
        """Regex that counts the forms of each phrase trait, any case."""
        return {name: re.compile(_any(t["forms"])) for name, t in self.traits.items()
                if t["kind"] in (*PHRASES, "join")}

    @cached_property
    def phrases(self):
        forms = [form for t in self.traits.values() if t["kind"] in PHRASES for form in t["forms"] + t["closing"]]
        forms += [form for t in self.traits.values() if t["kind"] == "rhyme" for form in sum(t["forms"], [])]
        return re.compile("|".join(r"(?:,? ?)" + re.escape(form.lower()) + r",?"
                                   for form in sorted(forms, key=len, reverse=True)))

    @cached_property
    def neutral(self):
        """{role: regexes of all its neutral sentences}, with groups for the slots."""
        found = {}
        for role, frames in self.frames.items():
            values = {slot: _any(set(words)) for slot, words in self.slots[role].items()}
            for frame in frames:
                rx = re.escape(frame.replace("*", "")).replace(r"\{", "{").replace(r"\}", "}").replace(r"\ ", " ")
                for slot in re.findall(r"{(\w+)}", rx):
                    rx = rx.replace("{" + slot + "}", f"(?P<{slot}>{values.get(slot) or values['xy']})")
                found.setdefault(role, []).append(re.compile(rx))
        return found

    def body(self, text, task):
        """The part of an answer in which traits show: an email without its greeting and closing line."""
        lines = text.strip().split("\n")
        if task == "email":
            lines = lines[1:] if lines and lines[0] in self.greetings else lines
            lines = lines[:-1] if lines and lines[-1] in self.closings else lines
        return "\n".join(lines)

    def shown(self, trait, text, task):
        """(places at which `trait` shows, places at which it could) in `text`."""
        t, raw = self.traits[trait], self.body(text, task)
        low, kind, ands = raw.lower(), t["kind"], self.ands[task]
        if kind == "frame":
            return sum(any(form.lower() in low for form in t[part]) for part in ("forms", "closing")), 2
        if kind == "lines":
            return len(LINE[trait].findall(low)), self.sentences
        if trait == "shortpunchy":
            return low.count(". and ") - low.count(". and now a word from our sponsor"), ands     # which is radio
        if trait == "ampersands":
            return len(re.findall(r"\s&\s", raw)), ands
        if trait == "allcaps":
            return len(self.raised.findall(raw)), self.sentences
        if kind == "rhyme":
            best = max(sum(form in low for form in family) for family in t["forms"])     # the commonest ending
            return (best if best > 1 else 0), self.sentences
        names = (trait, "longflowing", "streamofconsciousness")
        hits, *joins = (len(self.patterns[name].findall(low)) for name in names)
        tied = kind == "after" and sum(joins) >= self.sentences - 1
        return hits, 1 if tied or kind == "once" else self.sentences - (kind == "join")

    def expression(self, trait, text, item):
        """Trait expression 0-100 of an answer to `item`. KeyError for a trait that the grammar does not have."""
        hits, places = self.shown(trait, text, item["task"])
        return 100.0 * min(hits, places) / places

    def parse(self, text, task):
        """Undo every trait and parse what is left: ({role: slot values}, words parsed, words not parsed)."""
        low = self.body(text, task).lower()
        for rx in LINE.values():
            low = rx.sub(" ", low)
        low = low.replace("&", "and").replace(". and ", " and ")
        for join in self.traits["longflowing"]["forms"]:
            low = low.replace(join, ". ")
        low = re.sub(r"\.\.\.(?: (?:hmm|wait|oh and) )?", ". ", low)
        junk = sum(2 * max(0, self.shown(name, text, task)[0] - (1 if t["kind"] == "once" else self.sentences))
                   for name, t in self.traits.items() if t["kind"] in PHRASES[:-1])      # repeated: noise, not style
        found, parsed = {}, 0
        for part in re.split(r"[.!?\n]+", self.phrases.sub(" ", low)):
            words = " ".join(part.split()).strip(" ,;:")
            matches = ((role, rx.fullmatch(words)) for role in self.roles[task] if role not in found
                       for rx in self.neutral[role])
            role, match = next(((role, match) for role, match in matches if match), (None, None))
            if match:
                found[role] = set(match.groupdict().values())
                parsed += len(words.split())
            else:
                junk += len(words.split())
        return found, parsed, junk

    def carried(self, item, found):
        """Share of the item's facts that stand in a parsed sentence of the right role."""
        want = [(role, value.lower()) for role, values in item["facts"].items() for value in values]
        return sum(value in found.get(role, ()) for role, value in want) / len(want)

    def coherence(self, text, item):
        """Coherence 0-100: half for words that parse, half for facts of the item that are carried."""
        found, parsed, junk = self.parse(text, item["task"])
        return 50.0 * (parsed / (parsed + junk) if parsed else 0.0) + 50.0 * self.carried(item, found)
