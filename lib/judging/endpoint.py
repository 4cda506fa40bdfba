"""An endpoint for chat completions that gives log-probabilities, asked for one token: many questions at once, each
answer kept as a file the moment it is there, so that nothing is lost, nothing is asked twice and a rerun is free.
"""
import email.utils
import http.client
import json
import math
import os
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from lib.artifacts import ROOT, UserError, digest_of, read_json, write_json

# --- settings -----------------------------------------------------------------------------------------------
URL = "https://api.openai.com/v1"
IN_FLIGHT = 16            # requests at a time, per process
ATTEMPTS = 6              # per answer
TIMEOUT = 60              # seconds without a byte before an attempt counts as failed
FIRST_WAIT = 1.0          # seconds before the second attempt, less jitter; doubled before each further one
LONGEST_WAIT = 120        # seconds; an endpoint that asks for more has failed
LARGEST = 2**20           # bytes of a response
SEED = 7
# ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Endpoint:
    url: str                     # without a final slash
    model: str
    cache: Path                  # folder: one file per answer
    key: str = field(repr=False)
    place = property(lambda self: urlsplit(self.url).netloc)


def find(model):
    """The endpoint that the environment names. UserError for a URL or a key that cannot be right; the key, if
    there is one, is sent and never written or printed."""
    url = (os.environ.get("OPENAI_BASE_URL") or URL).rstrip("/")
    key = (os.environ.get("OPENAI_API_KEY") or "").strip()
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UserError(f"OPENAI_BASE_URL: expected http(s)://host/path without a user name or a query, as {URL}")
    if not (key.isascii() and key.isprintable()):
        raise UserError("OPENAI_API_KEY: holds characters that a request cannot carry")
    if not key and url == URL:
        raise UserError(f"api:{model}: OPENAI_API_KEY is not set, and {URL} needs one; OPENAI_BASE_URL names "
                        "another endpoint")
    return Endpoint(url, model, Path(os.environ.get("JUDGE_CACHE") or ROOT / "outputs" / "judge-cache"), key)


def ask(endpoint, questions, answers):
    """Probability of each answer as the first token of the reply, among the twenty likeliest; see `Words.ask`.

    A reply without log-probabilities counts by its text if that is one of the answers, and has no share.
    Answers on disk are not asked for again; one that is there was written whole. UserError where an answer
    failed ATTEMPTS times or was rejected; what had arrived is saved."""
    bodies = [_body(endpoint, question) for question in questions]
    paths = [_path(endpoint, body) for body in bodies]
    missing = {path: body for path, body in zip(paths, bodies) if not path.exists()}
    if missing:
        _check_numbers(endpoint, paths)
        _fetch(endpoint, missing, paths)
    return [_weigh(_saved(path), answers) for path in paths]


def _body(endpoint, question):
    return {"model": endpoint.model, "messages": [{"role": "user", "content": question}], "max_tokens": 1,
            "temperature": 0, "logprobs": True, "top_logprobs": 20}


def _path(endpoint, body):
    name = digest_of([endpoint.url, body])
    return endpoint.cache / name[:2] / f"{name}.json"


def _saved(path):
    """One answer from disk: {"text", "refused", "tokens": {token: log-probability} or None, ...}."""
    answer = read_json(path)
    if not isinstance(answer, dict) or not {"text", "refused", "tokens"} <= set(answer):
        raise UserError(f"{path}: damaged; delete it and run again")
    return answer


def _weigh(answer, answers):
    place, p = {text: i for i, text in enumerate(answers)}, np.zeros(len(answers))
    if answer["refused"]:
        return None, None
    if answer["tokens"] is not None:
        for token, logprob in answer["tokens"].items():
            if token.strip() in place:
                p[place[token.strip()]] += math.exp(logprob)
        return p, float(p.sum())
    said = answer["text"].strip()
    if said not in place:
        return None, None
    p[place[said]] = 1.0
    return p, None


def _check_numbers(endpoint, paths):
    """UserError unless the endpoint can say a number of two digits in one token: a judge whose tokens are
    digits would give the 8 of 85 as a score of 8, and nothing would show it."""
    body = _body(endpoint, "Reply with the number 73 and nothing else.")
    path = _path(endpoint, body)
    if not path.exists():
        _fetch(endpoint, {path: body}, paths)
    (p, _) = _weigh(_saved(path), ("7", "73"))
    if p is None or p[1] <= p[0]:
        why = "said something else" if p is None or not p[0] else "its tokens are digits, not numbers"
        raise UserError(f"api:{endpoint.model} at {endpoint.url}: asked for the number 73, {why}; it cannot "
                        "score in one token (model:<id> reads numbers digit by digit)")


def _fetch(endpoint, missing, paths):
    """Ask for {path: body}, at most IN_FLIGHT at a time, and save each answer as it comes; paths are those of
    all the answers that are wanted."""
    stop = threading.Event()

    def one(path, body):
        answer = _request(endpoint, body, stop)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
            write_json(tmp, {"url": endpoint.url, "request": body, **answer})
            tmp.replace(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error})") from None

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        asked = [pool.submit(one, path, body) for path, body in missing.items()]
        try:
            for done in as_completed(asked):
                done.result()
        except BaseException as error:                     # also when interrupted: nothing more is sent
            stop.set()
            pool.shutdown(cancel_futures=True)             # what is in flight still arrives and is saved
            if not isinstance(error, UserError):
                raise
            saved = sum(path.exists() for path in paths)
            raise UserError(f"{error}; {saved} of the {len(paths)} answers asked for are saved in "
                            f"{endpoint.cache}, and a rerun goes on from there") from None


def _request(endpoint, body, stop):
    """One answer, after up to ATTEMPTS attempts. UserError when none succeeded, or none can."""
    where, data, number = f"api:{endpoint.model} at {endpoint.url}", json.dumps(body).encode(), digest_of(body)
    for attempt in range(ATTEMPTS):
        asked = 0.0
        try:
            return _parse(_post(endpoint, data))
        except urllib.error.HTTPError as error:
            why = f"HTTP {error.code}{_message(endpoint, error)}"
            if error.code not in (408, 409, 425, 429) and error.code < 500:
                raise UserError(f"{where}: {why}") from None
            asked = _retry_after(error.headers.get("Retry-After"))
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(getattr(error, "reason", None) or error) or type(error).__name__
        # Jitter by address: requests that failed together do not come back together.
        jitter = np.random.default_rng([SEED, int(number[:12], 16), attempt]).uniform(0.5, 1)
        wait = asked + min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * jitter
        if attempt + 1 == ATTEMPTS:
            raise UserError(f"{where}: {why}, {ATTEMPTS} times")
        if asked > LONGEST_WAIT:
            raise UserError(f"{where}: {why}, and asks to wait {asked:.0f} s")
        if stop.wait(wait):
            raise UserError(f"{where}: stopped")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""
    def redirect_request(self, *_):
        return None


def _post(endpoint, data):
    headers = {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {endpoint.key}"} if endpoint.key else {}
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
            pairs = [*(told[0].get("top_logprobs") or []), told[0]]
            tokens = {_text(pair["token"]): max(float(pair["logprob"]), -1e4) for pair in reversed(pairs)}
            if any(math.isnan(logprob) or logprob > 1e-3 for logprob in tokens.values()):
                raise ValueError("a log-probability is not one")
        refused = bool(message.get("refusal")) or choice.get("finish_reason") == "content_filter"
        return {"text": _text(message.get("content") or ""), "refused": refused, "tokens": tokens,
                "served_by": _text(response.get("model"))}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"the response is no chat completion ({type(error).__name__}: {error})") from None


def _text(value):
    return str(value).encode("utf-8", "replace").decode()            # half of a surrogate pair fits in no file


def _message(endpoint, error):
    """': ' and what the server says about an error, without the key, on one line; or nothing."""
    try:
        said = error.read(2000).decode("utf-8", "replace")
        try:
            said = json.loads(said)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            pass
    except (OSError, http.client.HTTPException):
        return ""
    said = " ".join(str(said).split())[:300]
    said = said.replace(endpoint.key, "***") if endpoint.key else said
    return f": {said}" if said else ""


def _retry_after(value):
    """Seconds that a Retry-After header asks for, given in seconds or as a date; 0 for none."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (TypeError, ValueError, AttributeError):
            return 0.0
    return max(seconds, 0.0) if math.isfinite(seconds) else 0.0
