"""A judge behind an HTTP endpoint that speaks OpenAI's chat completions, by the standard library.

    judge = EndpointJudge(base_url, "judge-model", key=key)
    report = judge_answers(items, judge, name="judge-model", log=Path("log.jsonl"))

There is no default host: prompts go where the caller says and nowhere else. Without arguments, the
address and the key are read from the environment variables `LLMASR_JUDGE_URL` and
`LLMASR_JUDGE_KEY` (:meth:`EndpointJudge.from_environment`). Redirects are not followed, because the
key would go along.
"""

import json
import logging
import os
import random
import time
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

log = logging.getLogger(__name__)

URL_VARIABLE, KEY_VARIABLE = "LLMASR_JUDGE_URL", "LLMASR_JUDGE_KEY"

# Worth another try: timeout, conflict, too many requests, and what servers say when they are busy.
TEMPORARY = frozenset({408, 409, 429, 500, 502, 503, 504})
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
EXCERPT = 500  # characters of an error's text

# Those of the judge of LLaVA and X-LLM.
TEMPERATURE, MAX_TOKENS = 0.2, 1024


class JudgeError(RuntimeError):
    """The endpoint gave no reply; the message says what it said instead, and never the key."""


@dataclass(frozen=True)
class EndpointJudge:
    """Asks a chat model behind HTTP; an object of this class is a judge.

    Attributes:
        base_url: address up to and with the version, such as `http://localhost:8000/v1`;
            `/chat/completions` is put behind it.
        model: the model's name there.
        key: sent as bearer token; None for servers that want none.
        timeout: seconds that the server may be silent.
        tries: how often a request is sent before a temporary failure is an error. The pauses double
            from 1 second up, with chance in them, or are what the server asks for, at most 60.

    Raises:
        ValueError: an argument is not as above.
    """

    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 120.0
    tries: int = 5

    def __post_init__(self) -> None:
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise ValueError(f"base_url is {self.base_url!r}; expected an http or https address")
        if "@" in address.netloc:
            raise ValueError("base_url holds a user name, which would be logged; use key instead")
        if not self.model:
            raise ValueError("model is empty; expected the model's name at the endpoint")
        if self.key is not None and not (self.key.isascii() and self.key.isprintable()):
            raise ValueError("key holds characters that no HTTP header may hold, or line ends")
        if not self.timeout > 0:
            raise ValueError(f"timeout is {self.timeout}; it must be above 0 seconds")
        if self.tries < 1:
            raise ValueError(f"tries is {self.tries}; at least 1 is needed")

    @classmethod
    def from_environment(cls, model: str) -> "EndpointJudge":
        """Return a judge at `LLMASR_JUDGE_URL`, with `LLMASR_JUDGE_KEY` if that is set."""
        url = os.environ.get(URL_VARIABLE, "")
        if not url:
            raise ValueError(f"the environment variable {URL_VARIABLE} is not set; it must hold"
                             " the address of the judge's endpoint")  # fmt: skip
        return cls(url, model, os.environ.get(KEY_VARIABLE) or None)

    def __call__(self, prompt: str) -> str:
        """Return the model's reply to one prompt.

        A reply without text, as of a model that refuses or runs out of tokens, is the empty string.

        Raises:
            JudgeError: the endpoint refuses, cannot be reached, or sends something else.
        """
        body = json.dumps({
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": TEMPERATURE,
            "max_tokens": MAX_TOKENS,
        })  # fmt: skip
        attempt = 0
        while True:
            attempt += 1
            try:
                return _content(self._send(body.encode()))
            except HTTPError as error:
                problem = f"HTTP {error.code}: {_excerpt(error)}"
                last = error.code not in TEMPORARY or attempt == self.tries
                pause = _pause(attempt, error.headers.get("Retry-After"))
            except (URLError, HTTPException, OSError) as error:
                problem, last = str(error) or repr(error), attempt == self.tries
                pause = _pause(attempt, None)
            if last:
                raise JudgeError(f"{self._address}: {problem} (try {attempt} of {self.tries})")
            log.warning("%s: %s; again in %.1f s", self._address, problem, pause)
            time.sleep(pause)

    @property
    def _address(self) -> str:
        return f"{self.base_url.rstrip('/')}/chat/completions"

    def _send(self, body: bytes) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        request = Request(self._address, data=body, headers=headers, method="POST")
        with build_opener(_NoRedirect).open(request, timeout=self.timeout) as response:
            return response.read()


class _NoRedirect(HTTPRedirectHandler):
    """Makes a redirect the error that its status is."""

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        """Follow nothing."""


def _content(response: bytes) -> str:
    try:
        content = json.loads(response)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError) as error:
        text = response[:EXCERPT].decode(errors="replace")
        raise JudgeError(f"the endpoint sent no chat completion but {text!r}") from error
    if content is None:
        return ""
    if not isinstance(content, str):
        raise JudgeError(f"the endpoint sent content {content!r}; expected text")
    return content


def _excerpt(error: HTTPError) -> str:
    return error.read(EXCERPT).decode(errors="replace")


def _pause(attempt: int, asked: str | None) -> float:
    """Return the seconds to wait: what the server asks for, else twice as long each time."""
    if asked is not None and asked.strip().isdigit():
        return min(float(asked), LONGEST_PAUSE)
    # chance, so that many clients do not come back all at once
    return min(FIRST_PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE) * random.uniform(0.5, 1.0)
