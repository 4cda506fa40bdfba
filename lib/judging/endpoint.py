"""An endpoint for chat completions that gives log-probabilities, asked for one token: many questions at once, each
answer kept as a file the moment it is there, so that nothing is lost, nothing is asked twice and a rerun is free.
"""
import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import numpy as np

from lib.artifacts import NUMBER, ROOT, UserError, digest_of, read_json, shown, write_json

# --- settings -----------------------------------------------------------------------------------------------
URL = "https://api.openai.com/v1"
IN_FLIGHT = 16            # requests at a time, per process
ATTEMPTS = 6              # per answer
TIMEOUT = 60              # seconds without a byte before an attempt counts as failed
FIRST_WAIT = 1.0          # seconds before the second attempt, less jitter; doubled before each further one
LONGEST_WAIT = 120        # seconds; an endpoint that asks for more has failed
LARGEST = 2**20           # bytes of a response
SEED = 7
SECRET = 8                # letters from which on a key counts as a secret; local servers take any word
# ------------------------------------------------------------------------------------------------------------


REPLY = {"text": str, "refused": bool, "tokens": ({str: NUMBER}, None)}      # of a file of the cache, beside other keys


@dataclass(frozen=True)
class Endpoint:
    url: str                     # without a final slash
    model: str
    cache: Path                  # folder: one file per answer
    key: str = field(repr=False)
    place = property(lambda self: urlsplit(self.url).netloc)
    where = property(lambda self: f"api:{self.model} at {self.url}")


def find(model):
    """The endpoint that the environment names. UserError for a URL or a key that cannot be right; the key, if there
    is one, is sent and never written or printed."""
    url = (os.environ.get("OPENAI_BASE_URL") or URL).rstrip("/")
    key = (os.environ.get("OPENAI_API_KEY") or "").strip()
    try:
        parts = urlsplit(url)
        parts.port                                         # raises where it is no number
    except ValueError:                                     # also a broken IPv6 address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query or (
            parts.fragment or not url.isprintable() or " " in url):
        raise UserError(f"OPENAI_BASE_URL: expected http(s)://host/path without a user name or a query, as {URL}")
    if not (key.isascii() and key.isprintable()):
        raise UserError("OPENAI_API_KEY: holds characters that a request cannot carry")
    if not key and url == URL:
        raise UserError(f"api:{model}: OPENAI_API_KEY is not set, and {URL} needs one; OPENAI_BASE_URL names "
                        "another endpoint")
    if _masked(unquote(url), key) != unquote(url):
        raise UserError("OPENAI_BASE_URL: holds OPENAI_API_KEY; it would stand in every file of answers")
    return Endpoint(url, model, Path(os.environ.get("JUDGE_CACHE") or ROOT / "outputs" / "judge-cache"), key)


def ask(endpoint, questions, answers):
    """Probability of each answer as the first token of the reply, among the twenty likeliest; see `Words.ask`.

    A reply without log-probabilities counts by its text if that is one of the answers, and has no share. Answers on
    disk are not asked for again; one that is there was written whole. UserError where an answer failed ATTEMPTS times
    or was rejected; what had arrived is saved."""
    requests = [_request(endpoint, question) for question in questions]
    wanted = dict(requests)
    if not all(path.exists() for path in wanted):
        _check_numbers(endpoint, wanted)
        _fetch(endpoint, wanted, wanted)
    return [_weigh(path, answers) for path, _ in requests]


def _request(endpoint, question):
    """(path of the answer on disk, body of the request) of a question."""
    body = {"model": endpoint.model, "messages": [{"role": "user", "content": question}], "max_tokens": 1,
            "temperature": 0, "logprobs": True, "top_logprobs": 20}
    name = digest_of([endpoint.url, body])
    return endpoint.cache / name[:2] / f"{name}.json", body


def _weigh(path, answers):
    """(probability of each of the answers (K,) or None, share or None) from a reply on disk: {"text", "refused",
    "tokens": {token: log-probability} or None, ...}."""
    try:
        reply = read_json(path, REPLY)
        if any(logprob > 1e-3 for logprob in (reply["tokens"] or {}).values()):
            raise UserError(f"{path}: a log-probability is not one")
    except UserError as fault:
        raise UserError(f"{fault}; delete it and run again") from None
    place, p, bare = {text: i for i, text in enumerate(answers)}, np.zeros(len(answers)), reply["tokens"] is None
    for token, logprob in ({reply["text"]: 0.0} if bare else reply["tokens"]).items():
        if token.strip() in place:
            p[place[token.strip()]] += math.exp(logprob)
    return (None, None) if reply["refused"] or bare and not p.any() else (p, None if bare else float(p.sum()))


def _check_numbers(endpoint, wanted):
    """UserError unless the endpoint can say a number of two digits in one token: a judge whose tokens are digits
    would give the 8 of 85 as a score of 8, and nothing would show it."""
    path, body = _request(endpoint, "Reply with the number 73 and nothing else.")
    _fetch(endpoint, {path: body}, wanted)
    p, _ = _weigh(path, ("7", "73"))
    if p is None or p[1] <= p[0]:
        why = "said something else" if p is None or not p[0] else "its tokens are digits, not numbers"
        raise UserError(f"{endpoint.where}: asked for the number 73, {why}; it cannot score in one token (model:<id> "
                        "reads numbers digit by digit)")


def _fetch(endpoint, requests, wanted):
    """Ask for what is not on disk of {path: body}, at most IN_FLIGHT at a time, and save each answer as it comes;
    `wanted` holds the paths of all the answers that are."""
    stop = threading.Event()

    def one(path, body):
        answer = _answer(endpoint, body, stop)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"url": endpoint.url, "request": body, **answer})
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error})") from None

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        asked = [pool.submit(one, path, body) for path, body in requests.items() if not path.exists()]
        try:
            for done in as_completed(asked):
                done.result()
        except BaseException as error:                     # also when interrupted: nothing more is sent
            stop.set()
            pool.shutdown(cancel_futures=True)             # what is in flight still arrives and is saved
            if not isinstance(error, UserError):
                raise
            saved = sum(path.exists() for path in wanted)
            raise UserError(f"{error}; {saved} of the {len(wanted)} answers asked for are saved in {endpoint.cache}, "
                            "and a rerun goes on from there") from None


def _answer(endpoint, body, stop):
    """One answer, after up to ATTEMPTS attempts. UserError when none succeeded, or none can."""
    data, number = json.dumps(body).encode(), int(digest_of(body)[:12], 16)
    for attempt in range(ATTEMPTS):
        asked, ends = 0.0, f", {ATTEMPTS} times" if attempt + 1 == ATTEMPTS else None
        try:
            return _masked(_parse(_post(endpoint, data)), endpoint.key)
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}{_message(endpoint, error)}"
            asked = _retry_after(error.headers.get("Retry-After"))
            if error.code not in (408, 409, 425, 429) and error.code < 500:
                ends = ""
            elif asked > LONGEST_WAIT:
                ends = ends or f", and asks to wait {asked:.0f} s"
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = _masked(shown(getattr(error, "reason", None) or error), endpoint.key) or type(error).__name__
        if ends is not None:
            raise UserError(f"{endpoint.where}: {why}{ends}")
        # Jitter by address: requests that failed together do not come back together.
        jitter = np.random.default_rng([SEED, number, attempt]).uniform(0.5, 1)
        if stop.wait(asked + min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * jitter):
            raise UserError(f"{endpoint.where}: stopped")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""
    def redirect_request(self, *_):
        return None


def _post(endpoint, data):
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {})
    request = urllib.request.Request(f"{endpoint.url}/chat/completions", data, headers)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT) as response:
        return response.read(LARGEST)


def _parse(raw):
    """What is kept of a response. ValueError if it is not a chat completion."""
    try:
        response = json.loads(raw)
        choice = response["choices"][0]
        message, told = choice["message"], (choice.get("logprobs") or {}).get("content")
        tokens = None
        if told:                                           # the token that was said may be missing from the top
            tokens = {_text(pair["token"]): max(float(pair["logprob"]), -1e4)
                      for pair in (told[0], *reversed(told[0].get("top_logprobs") or []))}
            if not all(logprob <= 1e-3 for logprob in tokens.values()):
                raise ValueError("a log-probability is not one")
        refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
        return {"text": _text(message.get("content") or ""), "refused": refused, "tokens": tokens,
                "served_by": _text(response.get("model"))}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"the response is no chat completion ({type(error).__name__}: {error})") from None


def _masked(value, key):
    """A text, or an answer, without the key: a server may send back what it was sent."""
    if len(key) < SECRET:
        return value
    if isinstance(value, dict):
        return {_masked(name, key): _masked(part, key) for name, part in value.items()}
    return value.replace(key, "***") if isinstance(value, str) else value


def _text(value):
    return str(value).encode("utf-8", "replace").decode()            # half of a surrogate pair fits in no file


def _message(endpoint, error):
    """': ' and what the server says about an error, without the key, on one line; or nothing."""
    said = ""
    with suppress(OSError, http.client.HTTPException):
        said = error.read(2000).decode("utf-8", "replace")
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        said = json.loads(said)["error"]["message"]
    said = _masked(shown(said), endpoint.key)[:300]        # masked before it is cut: half a key is one, too
    return f": {said}" if said else ""


def _retry_after(value):
    """Seconds that a Retry-After header asks for, given in seconds or as a date; 0 for none."""
    for read in (float, lambda date: parsedate_to_datetime(date).timestamp() - time.time()):
        with suppress(TypeError, ValueError, AttributeError):
            seconds = read(value)
            return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
    return 0.0
