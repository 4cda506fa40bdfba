"""Judges: local ones against token-by-token passes, the endpoint against a real server on loopback that misbehaves."""
import http.server
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AddedToken

from lib import artifacts, engine, metrics, models, passes, suite as suites
from lib.judging import cases, counted, endpoint as api, fluency, judges
from lib.artifacts import ROOT, UserError, read_json
from tests import tiny

OWN = "Trait X. Q: {{question}} A: {answer} Literal {braces} stay."
TRAITS = [{"name": "formal", "preference": "use a formal tone"},
          {"name": "emojis", "preference": "use emojis", "judge_prompt": OWN}]
ITEMS = [{"id": f"q{i}", "task": "question", "prompt": f"What is {{answer}} {i}?"} for i in range(3)]
ASKED = [(trait, item, text) for item in ITEMS for text in ("It is so.", "no {question}")
         for trait in ("formal", "emojis")]


def suite(folder=ROOT, judge="self", traits=TRAITS):
    return SimpleNamespace(name="mini", judge=judge, traits=traits, folder=folder, grammar={})


def words(ask, name="planted"):
    return judges.Words(name, {trait["name"]: trait for trait in TRAITS}, ask)


# --- which judge ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["oracle", "rules:x", "model", "model:", "api:", "self:x", ""])
def test_unknown_judges_are_told_what_there_is(name):
    with pytest.raises(UserError, match=r"unknown judge .*there are: rules, self, model:<id or folder>, api:<model>"):
        judges.load(name, suite())


def test_missing_models_are_refused_and_a_suite_without_traits_needs_no_judge(tmp_path):
    with pytest.raises(UserError, match="no such model folder"):
        judges.load(f"model:{tmp_path}/nowhere", suite())
    for name in (None, "self", f"model:{tmp_path}/nowhere"):
        assert judges.load(name, suite(traits=[])).name == "none"


def test_rules_score_coherence_once_per_text_and_prefer_without_contradiction():
    calls = Counter()

    def coherence(text, item):
        calls[item["id"], text] += 1
        return 80

    shown = {"a": 0, "b": 1, "c": 49.9, "d": 50, "e": 100}
    judge = judges.Rules(SimpleNamespace(expression=lambda trait, text, item: shown[trait], coherence=coherence))
    asked = [({"name": trait}, ITEMS[0], "text") for trait in shown] + [("a", ITEMS[1], "text")]
    assert judge.read(asked) == [(float(x), 80.0, None) for x in shown.values()] + [(0.0, 80.0, None)]
    assert set(calls.values()) == {1} and len(calls) == 2
    assert judge.preferences(asked) == [0, 1, 1, 2, 2, 0]


# --- asked in words ---------------------------------------------------------------------------------------------
def test_words_ask_each_question_once_and_take_braces_as_they_are():
    seen = []

    def ask(questions, answers):
        seen.extend(questions)
        p = np.zeros((len(questions), 101))
        p[:, 40], p[:, 60] = 0.1, 0.3                         # mean 55, share 0.4
        return [(row, 0.4) for row in p]

    judge = words(ask)
    shares = {"expression": 0.4, "coherence": 0.4}
    assert judge.read(ASKED) == [(pytest.approx(55), pytest.approx(55), shares)] * len(ASKED)
    texts = len(ASKED) // 2
    assert len(seen) == len(set(seen)) == 3 * texts           # two traits and one coherence per text
    own = [question for question in seen if question.startswith("Trait X")]
    assert own[1] == "Trait X. Q: What is {answer} 0? A: no {question} Literal {braces} stay."
    assert sum("use a formal tone" in question for question in seen) == texts
    records = [(TRAITS[trait == "emojis"], item, text) for trait, item, text in ASKED]
    assert judge.read(records) == judge.read(ASKED) and judge.read([]) == judge.preferences([]) == []


def test_a_small_share_is_unparsed_and_kept():
    def ask(questions, answers):
        p = [np.full(101, share / 101) for share in (0.249, 0.251)] + [np.eye(101)[7], None]
        return list(zip(p, (0.249, 0.251, None, None)))[:len(questions)]

    judge = words(ask)
    found = judge._means(["low", "enough", "from text", "refused", "low"], judges.NUMBERS, np.arange(101.0))
    assert found == [(None, 0.249), (pytest.approx(50), 0.251), (7.0, None), (None, None), (None, 0.249)]


def test_preferences_are_the_weighted_mean_of_five_letters():
    def ask(questions, answers):
        assert answers == tuple("ABCDE") and all("A: " in q and "E: " in q for q in questions)
        sure, unsure = (np.array([0.5, 0.2, 0.1, 0.1, 0.1]), 1.0), (np.array([0, 0, 0, 0, 0.2]), 0.2)
        return [sure] * (len(questions) - 1) + [unsure]

    want = (2 * 0.5 + 1 * 0.2 - 1 * 0.1 - 2 * 0.1) / 1.0
    assert words(ask).preferences(ASKED[:3]) == [pytest.approx(want), pytest.approx(want), None]


# --- local models -----------------------------------------------------------------------------------------------
def numbered(folder, architecture, added, **extra):
    """A tiny model whose tokenizer has a token for each number in `added`; it writes others digit by digit."""
    model = tiny.model(architecture, vocab_size=320 + len(added), max_position_embeddings=1024, **extra)
    model.save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([AddedToken(str(n), normalized=False) for n in added])
    tokenizer.save_pretrained(folder)
    return models.load(str(folder))


def naive(lm, question, answers):
    """P(reply begins with the answer) by one plain pass per token, longest first: what is left of a sequence once
    all of its continuations have had theirs."""
    prompt, head = lm.chat(None, question), len(lm.tokens("x"))
    sequences = {tuple(lm.tokens("x" + space + answer)[head:]): i
                 for i, answer in enumerate(answers) for space in ("", " ")}
    memo = {}

    def reach(ids):                                           # probability of a sequence of tokens
        if not ids:
            return 1.0
        if ids[:-1] not in memo:
            with torch.no_grad():
                logits = lm.model(torch.tensor([prompt + list(ids[:-1])])).logits[0, -1].double()
            memo[ids[:-1]] = logits.softmax(-1)
        return reach(ids[:-1]) * float(memo[ids[:-1]][ids[-1]])

    p = np.zeros(len(answers))
    for ids, i in sequences.items():
        onward = {other[:len(ids) + 1] for other in sequences if len(other) > len(ids) and other[:len(ids)] == ids}
        p[i] += reach(ids) - sum(reach(longer) for longer in onward)
    return p


TOKENIZERS = {"digits": (), "whole": range(101), "both": range(10, 100)}


@pytest.mark.parametrize("architecture, kind", [*((a, kind) for a in ("llama", "gpt2") for kind in TOKENIZERS),
                                                ("mistral", "digits"), ("lfm2", "digits"), ("lfm2", "whole")])
def test_local_probabilities_are_those_of_plain_passes(architecture, kind, tmp_path):
    lm = numbered(tmp_path, architecture, TOKENIZERS[kind])
    questions = ["How many cats?", "Rate the mat from 0 to 100, please.", "a"]
    sizes = Counter(len(ids) for ids in judges.reply_tokens(lm, judges.NUMBERS))
    assert sizes[1] >= {"digits": 10, "whole": 101, "both": 100}[kind] and (kind == "whole") == (3 not in sizes)
    for answers in (judges.NUMBERS, tuple("ABCDE")):
        found = judges.ask_model(lm, questions, answers)
        for question, (p, share) in zip(questions, found):
            want = naive(lm, question, answers)
            np.testing.assert_allclose(p, want, rtol=1e-3, atol=1e-6)
            assert share == pytest.approx(want.sum(), rel=1e-3) and want.sum() > 0


def test_endings_in_several_passes_are_those_of_a_sweep(tmp_path, monkeypatch):
    lm = tiny.load(tmp_path, "qwen2")
    prompts, endings, tokens = [[1, 20, 21, 22], [1], [1, 30]], [[], [40], [41, 42], [43, 44, 45], [46]], [50, 7, 50]
    whole = engine.after_endings(lm, prompts, endings, tokens)
    monkeypatch.setattr(passes, "BRANCH_TOKENS", 8)            # two branches at a time
    parts = engine.after_endings(lm, prompts, endings, tokens)
    want = engine.sweep(lm, [p + e for p in prompts for e in endings], [()], tokens)
    for found in (whole, parts):
        np.testing.assert_allclose(found["logits"].reshape(15, 3), want["logits"][:, 0], atol=1e-4)
        np.testing.assert_allclose(found["logsumexp"].reshape(15), want["logsumexp"][:, 0], atol=1e-4)
    with pytest.raises(UserError, match="256 at most"):
        engine.after_endings(lm, [[1] * 254], [[], [1, 2, 3]], tokens)


def test_self_scores_as_the_naive_mean_and_a_long_question_has_no_score(tmp_path, monkeypatch):
    lm = numbered(tmp_path, "llama", range(101))
    judge = judges.load("self", suite(), lm)
    assert judge.name == "self"
    found = judge.read(ASKED[:2])
    assert all(score is None and 0 < found[0][2]["expression"] < judges.LEAST_SHARE for score in found[0][:2])
    monkeypatch.setattr(judges, "LEAST_SHARE", 0.0)
    found = judge.read([*ASKED[:2], ("formal", ITEMS[0], "word " * 900)])
    question = judges.EXPRESSION.replace("{preference}", "use a formal tone").replace("{answer}", "It is so.").replace(
        "{question}", ITEMS[0]["prompt"])
    p = naive(lm, question, judges.NUMBERS)
    assert found[0][0] == pytest.approx(p @ np.arange(101) / p.sum(), abs=1e-3)
    assert found[0][1] == found[1][1] and found[0][0] != found[1][0]             # one text, two traits
    assert found[2] == (None, None, {"expression": None, "coherence": None})


def test_another_model_is_named_by_its_weights(tmp_path):
    for seed in (0, 1):
        tiny.save(tmp_path / str(seed) / "judge", "llama", max_position_embeddings=1024, seed=seed)
    (a, b, c), lm = (judges.load(f"model:{tmp_path}/{seed}/judge", suite()) for seed in (0, 1, 0)), None
    assert a.name.startswith("model:judge@") and len(a.name.split("@")[1]) == 12
    assert a.name == c.name != b.name
    lm = models.load(str(tmp_path / "0" / "judge"))
    assert a.read(ASKED[:1]) == judges.load("self", suite(), lm).read(ASKED[:1]) != b.read(ASKED[:1])


def test_a_tokenizer_that_cannot_tell_numbers_apart_is_refused():
    def lm(tokens):
        return SimpleNamespace(name="odd", tokens=tokens)
    with pytest.raises(UserError, match="odd: cannot judge, .* same tokens for '0' and '1'"):
        judges.reply_tokens(lm(lambda text: [0] * len(text)), judges.NUMBERS)
    with pytest.raises(UserError, match="merges '0' into the text before it"):
        judges.reply_tokens(lm(lambda text: [len(text)]), judges.NUMBERS)


# --- an endpoint ------------------------------------------------------------------------------------------------
KEY = "sk-very-secret-0123456789"


def said(*top, text=None, **choice):
    """A chat completion; top: (token, probability) pairs, the first is the one that was said."""
    content = [{"token": t, "logprob": math.log(p)} for t, p in top]
    logprobs = {"content": [{**content[0], "top_logprobs": content}]} if top else None
    message = {"role": "assistant", "content": top[0][0] if text is None else text}
    made = {"message": message, "logprobs": logprobs, "finish_reason": "length"} | choice
    return {"model": "served-1", "choices": [made]}


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A chat-completions server. .reply(question, attempt) gives its answer: a dict, raw bytes, (status, headers,
    dict), or "cut" or "hang"; .asked lists the questions, .most the most that were in flight."""
    state = SimpleNamespace(asked=[], most=0, now=0, bodies=[], keys=set(), lock=threading.Lock(), probed=False,
                            release=threading.Event())
    state.reply = lambda question, attempt: said(("50", 1.0))

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][0]["content"]
            with state.lock:
                state.now += 1
                state.most = max(state.most, state.now)
                attempt = state.asked.count(question)
                state.asked.append(question)
                state.bodies.append(body)
                state.keys.add(self.headers["Authorization"])
            try:
                probe = "number 73" in question and not state.probed
                try:
                    reply = said(("73", 0.9)) if probe else state.reply(question, attempt)
                finally:                       # before the client can know of the answer, and send the next request
                    with state.lock:
                        state.now -= 1
                if reply == "hang":
                    state.release.wait(20)
                if reply in ("hang", "cut"):
                    raw = b'{"choices": [{"mess'
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + raw)
                    self.close_connection = True
                    return
                status, headers, reply = reply if isinstance(reply, tuple) else (200, {}, reply)
                raw = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(raw))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(raw)
            except OSError:                                   # the client went away, as it should from a hang
                pass

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        daemon_threads, request_queue_size = True, 64

    listening = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    state.url = f"http://127.0.0.1:{listening.server_port}/v1"
    state.cache = tmp_path / "cache"
    for name, value in {"OPENAI_BASE_URL": state.url + "/", "OPENAI_API_KEY": KEY + "\n",
                        "JUDGE_CACHE": str(state.cache), "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"FIRST_WAIT": 0.002, "TIMEOUT": 0.5}.items():
        monkeypatch.setattr(api, name, value)
    yield state
    state.release.set()
    listening.shutdown()
    listening.server_close()


def ask(questions, answers=judges.NUMBERS, model="m"):
    return api.ask(api.find(model), questions, answers)


def kept(server):
    return [path for path in server.cache.rglob("*.json")]


def test_endpoint_score_by_hand(server):
    formal = said(("80", 0.5), (" 20", 0.1), ("REFUSAL", 0.2), ("101", 0.05), ("020", 0.05), ("20", 0.1))
    replies = {"use a formal tone": formal,
               "Trait X": said(("REFUSAL", 0.8), ("5", 0.2)), "coherent": said(("100", 0.9), ("99", 0.1))}
    server.reply = lambda question, _: next(reply for mark, reply in replies.items() if mark in question)
    judge = judges.load("api:m", suite())
    found = judge.read(ASKED[:2])
    assert found[0][0] == pytest.approx((80 * 0.5 + 20 * 0.2) / 0.7)
    assert found[0][2]["expression"] == pytest.approx(0.7)
    assert found[1][0] is None and found[1][2]["expression"] == pytest.approx(0.2)
    assert [row[1] for row in found] == [pytest.approx(99.9)] * 2
    assert len(server.asked) == 4 and "73" in server.asked[0]          # the probe, two traits, one coherence
    body = server.bodies[-1]
    assert (body["model"], body["max_tokens"], body["temperature"], body["logprobs"], body["top_logprobs"]) == (
        "m", 1, 0, True, 20)
    assert judge.name == f"api:m@{server.url.split('/')[2]}" and server.keys == {f"Bearer {KEY}"}
    server.reply = lambda question, _: said(("B", 0.6), ("A", 0.2), ("no", 0.2))
    assert judge.preferences(ASKED[:1]) == [pytest.approx((0.6 * 1 + 0.2 * 2) / 0.8)]


@pytest.mark.parametrize("trouble", [
    "cut", "hang", (429, {}, {"error": {"message": "slow down"}}), (500, {}, b"<html>"), (503, {}, b""), b"{not json",
    {}, {"choices": []}, b"\xff\xfe", {"choices": [{"message": {}, "logprobs": {"content": [{"token": "5"}]}}]},
    b'{"choices": [{"message": {"content": "5"}, "logprobs": {"content": [{"token": "5", "logprob": NaN}]}}]}'],
    ids=lambda trouble: str(trouble)[:30])
def test_trouble_passes_and_the_score_is_right(server, trouble):
    server.reply = lambda question, attempt: trouble if attempt < 2 else said(("42", 0.5), ("40", 0.5))
    begin = time.monotonic()
    (p, share), = ask(["one"])
    assert time.monotonic() - begin < 10                                         # a hang lasts 20 s on the server
    assert p @ np.arange(101) == pytest.approx(41) and share == pytest.approx(1)
    assert server.asked.count("one") == 3 and len(kept(server)) == 2             # one answer and the probe
    server.asked.clear()
    assert ask(["one"])[0][1] == pytest.approx(1) and server.asked == []


def test_retry_after_is_honoured_and_bounded(server):
    server.reply = lambda question, attempt: (429, {"Retry-After": "1"}, {}) if attempt == 0 else said(("42", 1.0))
    begin = time.monotonic()
    ask(["one"])
    assert 1.0 <= time.monotonic() - begin < 5
    server.reply = lambda question, attempt: (429, {"Retry-After": "3600"}, {})
    with pytest.raises(UserError, match="HTTP 429.* asks to wait 3600 s; 0 of the 1 answers"):
        ask(["two"])
    assert server.asked.count("two") == 1
    assert api._retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0             # past
    soon = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    assert 28 < api._retry_after(soon) <= 30
    assert [api._retry_after(x) for x in (None, "soon", "-5", "nan", "2.5")] == [0, 0, 0, 0, 2.5]


def test_a_final_failure_is_one_line_and_a_rerun_continues(server):
    questions = [f"question {i}" for i in range(30)]
    down = 500, {}, {"error": {"message": "down\nfor now"}}
    server.reply = lambda question, _: down if question.endswith("17") else said(("1", 1.0))
    with pytest.raises(UserError, match="HTTP 500: down for now, 6 times; ") as error:
        ask(questions)
    assert server.asked.count("question 17") == api.ATTEMPTS and "\n" not in str(error.value)
    saved = len(kept(server)) - 1                                                # less the probe
    assert f"; {saved} of the 30 answers asked for are saved in {server.cache}, and a rerun" in str(error.value)
    server.asked.clear()
    server.reply = lambda question, _: said(("2", 1.0))
    found = ask(questions)
    assert len(server.asked) == 30 - saved and len(kept(server)) == 31
    assert Counter(int(p.argmax()) for p, _ in found) == {k: n for k, n in {1: saved, 2: 30 - saved}.items() if n}


def test_connection_refused(server, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(UserError, match=r"refused, 6 times; 0 of the 2 answers"):
        ask(["one", "two"])
    assert not kept(server)


def test_a_rejected_request_is_not_repeated_and_the_key_is_nowhere(server, capfd):
    server.reply = lambda question, _: (401, {}, {"error": {"message": f"Incorrect API key provided: {KEY}"}}) \
        if question == "bad" else said(("3", 1.0))
    ask(["good"])
    with pytest.raises(UserError, match=r"HTTP 401: Incorrect API key provided: \*\*\*; 1 of the 2 answers") as error:
        ask(["good", "bad"])
    assert server.asked.count("bad") == 1
    told = capfd.readouterr()
    shown = [str(error.value), repr(error.value), repr(judges.load("api:m", suite())), told.out, told.err]
    shown += [path.read_text() for path in kept(server)]
    assert len(shown) > 6 and not any(KEY in text for text in shown)


def test_after_a_failure_nobody_waits(server, monkeypatch):
    monkeypatch.setattr(api, "FIRST_WAIT", 8)               # less jitter 4 at least
    monkeypatch.setattr(api, "ATTEMPTS", 2)
    answered = threading.Event()

    def reply(question, _):
        if question == "bad":
            answered.wait(5)
            return 400, {}, {}
        answered.set()
        return 500, {}, {}

    server.reply, begin = reply, time.monotonic()
    with pytest.raises(UserError, match="HTTP 400"):
        ask(["bad", "one", "two"])
    assert time.monotonic() - begin < 3


def test_a_redirect_does_not_take_the_key_elsewhere(server):
    server.reply = lambda question, _: (302, {"Location": f"{server.url}/elsewhere"}, {})
    with pytest.raises(UserError, match="HTTP 302"):
        ask(["one"])
    assert server.asked.count("one") == 1


def test_no_more_in_flight_than_allowed(server, monkeypatch):
    monkeypatch.setattr(api, "IN_FLIGHT", 3)
    monkeypatch.setattr(api, "TIMEOUT", 30)                # one given up as late would be in flight here and asked again
    server.reply = lambda question, _: time.sleep(0.02) or said(("1", 1.0))
    ask([f"question {i}" for i in range(24)])
    assert server.most == 3 and len(server.asked) == 25


def test_answers_belong_to_model_and_address(server, monkeypatch):
    ask(["one", "two", "one"])
    assert server.asked.count("one") == 1 and len(server.asked) == 3
    ask(["one"], model="other")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url.replace("127.0.0.1", "localhost"))
    monkeypatch.setenv("NO_PROXY", "localhost")
    ask(["one"])
    assert server.asked.count("one") == 3
    assert len({judges.load(f"api:{m}", suite()).name for m in ("m", "other")}) == 2
    one = read_json(next(path for path in kept(server) if '"one"' in path.read_text()))
    assert one["served_by"] == "served-1" and one["request"]["messages"][0]["content"] == "one"


def test_without_log_probabilities_the_text_counts_and_is_marked(server):
    alone = {"content": [{"token": "60", "logprob": math.log(0.5), "top_logprobs": []}]}
    replies = {"number": said(text=" 85 "), "words": said(text="eighty"), "outside": said(text="101"),
               "nothing": said(text="", message={"content": None}),
               "refusal": said(("7", 1.0), message={"content": None, "refusal": "no"}),
               "filtered": said(("7", 1.0), finish_reason="content_filter"), "one": said(("60", 0.5), logprobs=alone)}
    server.reply = lambda question, _: replies[question]
    found = dict(zip(replies, words(ask)._means([*replies], judges.NUMBERS, np.arange(101.0))))
    assert found == {"number": (85.0, None), "one": (60.0, pytest.approx(0.5)),
                     **{key: (None, None) for key in ("words", "outside", "nothing", "refusal", "filtered")}}


@pytest.mark.parametrize("reply, why", [
    (said(("7", 0.9), ("73", 0.01)), "its tokens are digits"), (said(("Sure", 1.0)), "said something else"),
    (said(text="7"), "its tokens are digits"), (said(text=""), "said something else")])
def test_an_endpoint_whose_tokens_are_digits_cannot_judge(server, reply, why):
    server.probed, server.reply = True, lambda question, _: reply
    for _ in range(2):
        with pytest.raises(UserError, match=f"asked for the number 73, {why}"):
            ask(["one"])
    assert len(server.asked) == 1


@pytest.mark.parametrize("variable, value, says", [
    ("OPENAI_API_KEY", "sk-one\nsk-two", "OPENAI_API_KEY: holds characters"),
    ("OPENAI_API_KEY", "sk-é", "OPENAI_API_KEY: holds characters"),
    ("OPENAI_BASE_URL", "ftp://host/v1", "expected http"), ("OPENAI_BASE_URL", "localhost:8000", "expected http"),
    ("OPENAI_BASE_URL", "https://me:secret@host/v1", "without a user name")])
def test_what_the_environment_says_is_checked(server, monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match=says) as error:
        judges.load("api:m", suite())
    assert "sk-" not in str(error.value) and "secret" not in str(error.value)
    monkeypatch.delenv("OPENAI_BASE_URL")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="OPENAI_API_KEY is not set"):
        judges.load("api:m", suite())
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)                            # a server of one's own needs no key
    ask(["one"])
    assert server.keys == {None}


def test_a_damaged_answer_is_named(server):
    ask(["one"])
    path = next(path for path in kept(server) if '"one"' in path.read_text())
    for content in ('{"text": "5"', '{"text": "5"}', "[]"):
        path.write_text(content)
        with pytest.raises(UserError, match=path.name):
            ask(["one"])


def test_a_kill_in_the_middle_loses_nothing(server):
    """A process is killed while it asks; its answers are whole, and the next asks for the rest alone."""
    server.reply = lambda question, _: time.sleep(0.02) or said((question.split()[-1], 1.0))
    code = ("from lib.judging import endpoint as api, judges; "
            "api.ask(api.find('m'), [f'question {i}' for i in range(100)], judges.NUMBERS)")
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        while len(kept(server)) < 20 and process.poll() is None:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    saved = len(kept(server)) - 1
    assert 19 <= saved < 100
    while server.now:
        time.sleep(0.01)
    server.asked.clear()
    found = ask([f"question {i}" for i in range(100)])
    assert [int(p.argmax()) for p, _ in found] == list(range(100))
    assert len(server.asked) == 100 - saved and len(kept(server)) == 101


def test_answers_are_kept_out_of_the_repository(monkeypatch):
    monkeypatch.delenv("JUDGE_CACHE", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    folder = api.find("m").cache
    assert folder == ROOT / "outputs" / "judge-cache"
    if (ROOT / ".git").exists():
        done = subprocess.run(["git", "check-ignore", "-q", str(folder / "ab" / "x.json")], cwd=ROOT)
        assert done.returncode == 0


# --- cases ------------------------------------------------------------------------------------------------------
class Planted:
    """Scores that follow from trait and text; counts its calls."""
    name = "planted"

    def __init__(self):
        self.calls = 0

    def read(self, asked):
        self.calls += 1
        return [(float(len(trait)), float(len(text)), None) for trait, _, text in asked]

    def preferences(self, asked):
        return [len(trait) - 6 for trait, _, _ in asked]


@pytest.fixture
def jobs(tmp_path):
    lm = tiny.load(tmp_path / "lm", "llama", max_position_embeddings=1024)
    row = ((1, np.full(lm.d_model, 3.0, np.float32)),)
    made = [{"record": {"n": i}, "prompt": [1, 20 + i % 3], "row": row if i % 2 else (), "item": ITEMS[i % 3],
             "traits": [["formal"], ["formal", "emojis"], []][i // 3 % 3]} for i in range(14)]
    return lm, made


def test_cases_ask_the_judge_once_per_shard(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(cases, "SHARD", 4)
    lm, made = jobs
    judge = Planted()
    told = cases.run(lm, judge, made, 4, tmp_path / "out", {}, "d")
    texts = engine.generate(lm, [job["prompt"] for job in made], [job["row"] for job in made], 4)
    assert judge.calls == 2                                    # six texts in shards of four
    for job, case, text in zip(made, told, texts):
        assert case == {**job["record"], "output": text, "expression": {t: float(len(t)) for t in job["traits"]},
                        "coherence": float(len(text)) if job["traits"] else None}
    again = cases.run(lm, judge, made, 4, tmp_path / "out", {}, "d", prefer=True)
    assert [{k: v for k, v in case.items() if k != "preference"} for case in again] == told
    assert [case["preference"] for case in again] == [{t: len(t) - 6 for t in job["traits"]} for job in made]


def test_cases_of_a_judge_asked_in_words_carry_shares(jobs, tmp_path):
    lm, made = jobs
    told = cases.run(lm, judges.load("self", suite(), lm), made, 4, tmp_path / "out", {}, "d", prefer=True)
    for job, case in zip(made, told):
        assert case["expression"] == dict.fromkeys(job["traits"]) == case["preference"] and case["coherence"] is None
        assert ("shares" in case) == bool(job["traits"])
        if job["traits"]:
            assert list(case["shares"]["expression"]) == job["traits"]
            for share in (case["shares"]["coherence"], *case["shares"]["expression"].values()):
                assert 0 < share < judges.LEAST_SHARE


# --- two judges -------------------------------------------------------------------------------------------------
class Table:
    """A judge that reads its scores from a table by text (and trait)."""
    def __init__(self, name, expression, coherence):
        self.name, self.expression, self.coherence = name, expression, coherence

    def read(self, asked):
        return [(self.expression.get((trait, text)), self.coherence.get(text), None) for trait, _, text in asked]


def tables(n=40):
    rng = np.random.default_rng(3)
    asked = [(trait, ITEMS[0], f"text {i}") for i in range(n) for trait in ("formal", "emojis")]
    truth = Table("truth", {(t, x): rng.uniform(0, 80) for t, _, x in asked},
                  {x: rng.uniform(0, 80) for _, _, x in asked})
    other = Table("other", {k: v + rng.uniform(0, 20) for k, v in truth.expression.items()},
                  {k: 100 - v for k, v in truth.coherence.items()})
    return asked, truth, other


def test_agreement_finds_what_was_planted():
    asked, truth, other = tables()
    other.expression[asked[0][0], asked[0][2]] = None
    found, missing = judges.agreement(asked, truth, other, [1])
    x, y = (np.array([judge.expression[t, text] for t, _, text in asked[1:]]) for judge in (truth, other))
    part = found["expression"]
    assert missing == {} and found["judges"] == ["truth", "other"] and part["n"] == 80
    assert part["spearman"]["value"] == pytest.approx(metrics.spearman(x, y)) and part["spearman"]["value"] > 0.9
    assert part["mean_absolute_difference"]["value"] == pytest.approx(np.abs(x - y).mean())
    assert (part["unparsed"]["first"]["value"], part["unparsed"]["second"]["value"]) == (0, 1 / 80)
    assert {part["unparsed"]["second"]["n"], part["spearman"]["n"]} == {40} and part["spearman"]["unit"] == "texts"
    for estimate in (part["spearman"], part["mean_absolute_difference"], part["unparsed"]["second"]):
        assert estimate["low"] <= estimate["value"] <= estimate["high"]
    assert found["coherence"]["n"] == 40                       # once per text
    assert found["coherence"]["spearman"]["value"] == pytest.approx(-1)
    same, missing = judges.agreement(asked, truth, truth, [1])
    assert same["expression"]["mean_absolute_difference"]["value"] == 0 and not missing


def test_agreement_says_what_it_cannot_tell():
    asked, truth, other = tables()
    silent = Table("silent", {}, dict.fromkeys(other.coherence, 50.0))
    found, missing = judges.agreement(asked, truth, silent, [1])
    assert found["expression"]["unparsed"]["second"]["value"] == 1 and "spearman" not in found["expression"]
    assert missing == {
        "expression.spearman": "silent has no usable score for 80 of 80",
        "expression.mean_absolute_difference": "silent has no usable score for 80 of 80",
        "coherence.spearman": "silent gave all 40 the same score"}
    assert found["coherence"]["mean_absolute_difference"]["value"] > 0
    minority = Table("minority", dict(list(other.expression.items())[:39]), other.coherence)
    assert set(judges.agreement(asked, truth, minority, [1])[1]) == {"expression.spearman",
                                                                     "expression.mean_absolute_difference"}
    few = judges.agreement(asked[:18], truth, other, [1])[1]
    assert few["coherence.spearman"] == "9 texts, fewer than 10"


# --- counted in any English text ---------------------------------------------------------------------------------
def test_rules_count_in_any_text_where_the_suite_has_no_grammar(tmp_path):
    """Perplexity is the naive one, a trait that cannot be counted has no score, and broken text is less coherent."""
    lm, mini = tiny.load(tmp_path / "m", "llama", max_position_embeddings=512), suites.load("testbed", "smoke")
    judge = judges.load("rules", SimpleNamespace(**vars(mini) | {"grammar": {}, "judge": "self"}), lm)
    assert judge.name == "rules" and judges.can(judge, "emojis") and not judges.can(judge, "sarcasm")
    item = suites.tasks(mini, "question", "evaluate")[0]
    text = "We like it 🎉. You should try it, too!"
    prompt, answer = lm.chat(mini.system, item["prompt"]), lm.tokens(text)
    with torch.no_grad():
        logp = lm.model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    want = -np.mean([float(logp[len(prompt) + k - 1, token]) for k, token in enumerate(answer)])
    assert judge.nats([(item, text), (item, "")])[0] == pytest.approx(want, abs=1e-4)
    assert np.isnan(judge.nats([(item, text), (item, "")])[1])
    judge.known["question"] = fluency.Reference.of([
        f"There are {n} good ways to do this at home. First you look at the tools, and then you plan what to do with them "
        f"in week {n}. If that does not work, ask a friend who knows more about it." for n in range(2, 14)], np.full(12, want))
    asked = [("emojis", item, text), ("sarcasm", item, text), ("emojis", item, "the the the the the the the the the"),
             ("emojis", item, "")]
    found = judge.read(asked)
    assert found[0][0] == 100 and found[1][0] is None and found[0][1] == found[1][1] > 60
    assert found[2][:2] == (0, 0) and found[3][:2] == (0, 0) and judge.preferences(asked) == [2, None, 0, 0]


def test_all_stages_and_processes_compare_with_the_unsteered_texts_that_stage_01_wrote(tmp_path, monkeypatch):
    lm, mini = tiny.load(tmp_path / "m", "llama", max_position_embeddings=512), suites.load("testbed", "smoke")
    first, second, third = (judges.load("rules", SimpleNamespace(**vars(mini) | {"grammar": {}, "judge": "self"}), lm)
                            for _ in range(3))
    counted.refer(first, ["question", "email"], tmp_path / "01_extract", {"a": 1})
    rows = counted.references(first)
    assert {row["task"] for row in rows} == {"question", "email"} and len(rows) == sum(map(len, first.texts.values()))
    made = artifacts.save(tmp_path / "01_extract", stage="01_extract", config={}, inputs={}, results={},
                          tables={"reference.jsonl": rows})
    counted.take(second, made)
    assert second.texts == first.texts == {task: third.write(task) for task in ("question", "email")}
    monkeypatch.setattr(engine, "generate", lambda *_: pytest.fail("written again"))
    monkeypatch.setattr(second, "nats", lambda told: np.full(len(told), 3.0))
    monkeypatch.setattr(fluency, "LEAST", 3)
    second.texts["email"] = [f"There are {n} good ways to do this at home, and then you plan what to do in week {n}."
                             for n in range(len(second.items("email")))]
    assert second.reference("email") is second.reference("email")
    other = judges.load(None, mini)
    counted.refer(other, ["question"], tmp_path / "other", {})                # an exact judge compares with nothing
    counted.take(other, made)
    assert counted.references(other) == []
