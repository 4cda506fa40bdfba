"""Chat: how a system text and a user text become the text of one prompt, by the tokenizer's own template.

Templates are programs, and what one does is found by rendering marks through it, once per model:
    content     some take a message as text, some as a list of parts
    system      some have no system role: they raise on one, or drop it without a word; then it opens the user message
    default     some write a system text of their own where none is given; it is taken out
    thinking    is switched off by the template's flag; what it leaves open before an answer is closed
    date        one that comes from a clock is always DATE; a prompt must not change from day to day
    bos         as the template has it, but never twice
A tokenizer without a template, or with one that gives no prompt, gets PLAIN. `Chat.identity` says what was done.
"""
import datetime
import re

from transformers.utils import chat_template_utils

from lib.artifacts import UserError, digest_of

# A base model has no template. Plain labels are what such models meet in their training text; the line break
# after the last label lets an answer begin without a leading space, as it does after most chat templates.
PLAIN = ("{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% else %}"
         "User: {{ m.content }}\n{% endif %}{% endfor %}"
         "{% if add_generation_prompt %}Assistant:\n{% endif %}")
DATE = "26 Jul 2024"
DAY = datetime.datetime.strptime(DATE, "%d %b %Y")
FLAGS = ("enable_thinking", "thinking")                  # Qwen 3, SmolLM 3, GLM; Granite, DeepSeek
OPEN_THOUGHT = re.compile(r"<(think|thinking|thought|reasoning)>(\s*)$")
THOUGHT = re.compile("think|thought|reasoning|channel")
SYSTEM, USER, ANSWER = "Mark-one", "Mark-two", "Mark-three"      # no template has them, trims them or changes them


class Chat:
    """The prompts of one tokenizer. identity: what its template is and how it is used, JSON-able; ends: token ids
    that the template puts behind an answer. Sets tokenizer.chat_template to PLAIN where that is used."""

    def __init__(self, tokenizer):
        self.tokenizer, self.bos = tokenizer, tokenizer.bos_token
        why = self._usable()
        if why:
            tokenizer.chat_template, self.template, self.parts = PLAIN, PLAIN, False
        self.kind, self.opening, self.ends = "plain" if why else "own", "", ()
        self.role, why_not = self._system_role()
        default, self.without, self.cut = self._default() if self.role else (None, None, 0)
        if not why:
            self.opening, self.ends = self._answer()
        flagged = self._try([(USER, "user")], thinking=True) != self._try([(USER, "user")])
        other = self._try([(USER, "user")], day=DAY + datetime.timedelta(days=400))
        first = self.text(None, USER)
        self.identity = {
            "sha256": digest_of(tokenizer.chat_template), "kind": self.kind, "why": why,
            "content": "list" if self.parts else "text",
            "system": "role" if self.role else "in user message", "system_why": why_not,
            "default_system": default and {"text": default, "now": self.without or "kept: it cannot be taken out"},
            "thinking": "switched off by the template's flag" if flagged else
                        "closed before the answer" if THOUGHT.search(self.opening) else "the template has none",
            "opening": self.opening, "date": DATE if other != self._try([(USER, "user")]) else None,
            "bos": self._bos(first), "before_user": first[:first.find(USER)]}

    def text(self, system, user):
        """The prompt, generation prompt included. No system text, None or "", means none of the template's own
        either. UserError if the template raises."""
        if system and not self.role:
            system, user = None, f"{system}\n\n{user}"
        messages = [(user, "user")]
        if system or self.without:
            messages.insert(0, (system or ("" if self.without == "an empty message" else SYSTEM), "system"))
        try:
            text = self._render(messages)
        except Exception as error:     # templates raise errors of several kinds
            raise UserError(f"the chat template fails on {user[:60]!r}: {error}") from error
        if not system and self.without == "cut":
            start = self.bos if self.bos and text.startswith(self.bos) else ""
            text = text[self.cut:]
            text = text if text.startswith(start) else start + text
        while self.bos and text.startswith(2 * self.bos):
            text = text[len(self.bos):]
        return text + self.opening

    def _render(self, messages, prompt=True, thinking=False, day=DAY):
        """What the template makes of [(text, role)]; `apply_chat_template` would pass no clock but today's."""
        def content(text):
            return [{"type": "text", "text": text}] if self.parts else text
        return chat_template_utils._compile_jinja_template(self.template).render(
            messages=[{"role": role, "content": content(text)} for text, role in messages], tools=None,
            documents=None, add_generation_prompt=prompt, strftime_now=day.strftime,
            date_string=day.strftime("%d %b %Y"),
            **dict.fromkeys(FLAGS, thinking), **self.tokenizer.special_tokens_map)

    def _try(self, messages, **options):
        """`_render`, or None where the template raises."""
        try:
            return self._render(messages, **options)
        except Exception:
            return None

    def _usable(self):
        """None, or why the tokenizer's template gives no prompt. Finds the form of a message's content."""
        if not self.tokenizer.chat_template:
            return "the tokenizer has no template"
        try:
            self.template = self.tokenizer.get_chat_template()
        except ValueError as error:                            # several of them, and none is the default
            return f"of several templates none is the default ({' '.join(str(error).split())[:80]})"
        why = "the template leaves the user's text out"
        for self.parts in (False, True):
            try:
                if USER in self._render([(USER, "user")]):
                    return None
            except Exception as error:
                why = f"the template raises {' '.join(str(error).split())[:80]!r}"
        return why

    def _system_role(self):
        """(whether the template shows a system message, None or why not)."""
        try:
            text = self._render([(SYSTEM, "system"), (USER, "user")])
        except Exception as error:
            return False, f"the template raises {' '.join(str(error).split())[:80]!r}"
        return (True, None) if SYSTEM in text and USER in text else (False, "the template drops it")

    def _default(self):
        """(system text that the template writes by itself or None, how it is kept out, length of a system block).

        What stands in every prompt, with a system text or without, is part of the format and no default."""
        shown, alone = self._render([(SYSTEM, "system"), (USER, "user")]), self._render([(USER, "user")])
        before, after = shown.split(SYSTEM, 1)
        default = alone[len(before):-len(after)] if len(alone) > len(before) + len(after) else ""
        if before + default + after != alone or not default.strip():
            return None, None, 0
        empty, block = self._try([("", "system"), (USER, "user")]), self._try([(SYSTEM, "system")], prompt=False)
        if empty and not empty.startswith(before) and default not in empty:
            return default, "an empty message", 0
        if block and SYSTEM in block and shown.startswith(block):
            return default, "cut", len(block)
        return default, "an empty message" if empty and default not in empty else None, 0

    def _bos(self, prompt):
        """Where the BOS of a prompt comes from."""
        raw, own = (self.tokenizer(prompt, add_special_tokens=added).input_ids[:1] == [self.tokenizer.bos_token_id]
                    for added in (True, False))
        if own or self.kind == "plain":
            return "template" if own else "tokenizer" if raw else "none"
        return "none, though the tokenizer puts one before raw text" if raw else "none"

    def _answer(self):
        """(what stands between the generation prompt and an answer, ids of what ends an answer).

        The first is an empty thought, the channel of answers, or a generation prompt that the template keeps for
        whole conversations. White space alone is not: answers begin with it."""
        asked = self._try([(USER, "user")]) or ""
        whole = self._try([(USER, "user"), (ANSWER, "assistant")], prompt=False) or ""
        before, found, after = whole.rpartition(ANSWER)
        thought = OPEN_THOUGHT.search(asked)
        opening = before[len(asked):] if found and before.startswith(asked) else ""
        if not opening.strip():
            opening = f"{'' if thought[2] else chr(10)}\n</{thought[1]}>\n\n" if thought else ""
        ids = self.tokenizer(after.strip(), add_special_tokens=False).input_ids[:1] if found else []
        return opening, tuple(i for i in ids if i in self.tokenizer.added_tokens_decoder)
