"""The pages of a listening test, served from this machine, and the answers, each written down as soon as it comes.

Nothing that is sent tells which system a sound is. Answers that do not fit what was asked are refused, so that the file
holds nothing else.
"""

from __future__ import annotations

import csv
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from linnet.evaluate.listening.plan import COLUMNS, METHODS, ListeningError, Plan, Trial

_LISTENER = re.compile(r"[\w.@-]{1,40}")
_MOST_BYTES = 65_536  # of an answer
_LENGTH = re.compile(r"[0-9]{1,9}")  # of anything that is sent, in bytes


@dataclass
class RunningTest:
    """A test that runs: its plan, where answers go, and how many trials a listener gets."""

    plan: Plan
    answers: Path
    most: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def trials(self, listener: str) -> dict[str, Any]:
        """What a listener has still to do, as the page wants it.

        Raises:
            ListeningError: if the name is none.
        """
        if not _LISTENER.fullmatch(listener):
            raise ListeningError("a name has 1 to 40 letters, digits, points, hyphens or underscores")
        done = {row["trial"] for row in self._rows() if row["listener"] == listener}
        mine = self.plan.for_listener(listener, self.most)
        left = [self.plan.shown(trial, listener) for trial in mine if trial.key not in done]
        return {"trials": left, "done": len(mine) - len(left)}

    def answer(self, told: Any) -> None:
        """Write down one trial's answers: {listener, trial, scores by sound, seconds}.

        Raises:
            ListeningError: if they are not those to a trial of this listener.
        """
        try:
            listener, key, scores, seconds = told["listener"], told["trial"], told["scores"], float(told["seconds"])
            known = _LISTENER.fullmatch(listener) is not None and isinstance(scores, dict)
            mine = self.plan.for_listener(listener, self.most) if known else []
        except (TypeError, KeyError, ValueError) as error:
            raise ListeningError("an answer has listener, trial, scores and seconds") from error
        trial = next((trial for trial in mine if trial.key == key), None)
        if trial is None:
            raise ListeningError("no such trial for this listener")
        rows = [
            (self.plan.method, listener, trial.clip, system, score, trial.detail, key, f"{seconds:.1f}", f"{time.time():.0f}")
            for system, score in self._scores(trial, scores, listener)
        ]
        with self.lock:
            if any((row["listener"], row["trial"]) == (listener, key) for row in self._rows()):
                return  # sent twice, as a page does whose first try seemed lost
            fresh = not self.answers.exists()
            with self.answers.open("a", newline="", encoding="utf-8") as file:
                lines = csv.writer(file, lineterminator="\n")
                lines.writerows([COLUMNS, *rows] if fresh else rows)

    def _scores(self, trial: Trial, scores: dict[str, Any], listener: str) -> list[tuple[str, int]]:
        method, found = METHODS[self.plan.method], []
        if set(scores) != set(trial.sounds.values()):
            raise ListeningError("a trial is answered for all of its sounds")
        for system, sound in trial.sounds.items():
            score = scores[sound]
            if isinstance(score, bool) or not isinstance(score, int) or not method.low <= score <= method.high:
                raise ListeningError(f"a score is a whole number from {method.low} to {method.high}")
            if trial.words:
                score = int(self.plan.words(trial, listener)[score] == trial.words[trial.said])
            found.append((system, score))
        return found

    def _rows(self) -> Iterator[dict[str, str]]:
        if self.answers.exists():
            with self.answers.open(newline="", encoding="utf-8") as lines:
                yield from csv.DictReader(lines)


def page(plan: Plan) -> str:
    """The test's page as HTML, complete but for the sounds."""
    here, method = files("linnet.evaluate.listening.page"), METHODS[plan.method]
    shared = files("linnet.evaluate.page").joinpath("report.css").read_text(encoding="utf-8")
    data = {"method": plan.method, "title": method.title, "words": method.words, "task": method.task}
    parts = {
        "style": shared + here.joinpath("listen.css").read_text(encoding="utf-8"),
        "data": json.dumps(data).replace("<", "\\u003c"),
        "script": here.joinpath("listen.js").read_text(encoding="utf-8"),
    }
    text = here.joinpath("listen.html").read_text(encoding="utf-8")
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part)
    return text


def make_server(test: RunningTest, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of this test; `serve_forever` runs it. Port 0 is any that is free.

    Raises:
        OSError: if the address cannot be used.
    """
    html = page(test.plan).encode()

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # a browser that goes away needs no answer, and nobody has to be told
                super().handle()

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            sound = re.fullmatch(r"/sound/([0-9a-f]+)\.wav", url.path)
            if url.path == "/":
                self._send(html, "text/html; charset=utf-8")
            elif url.path == "/trials":
                self._json(lambda: test.trials(parse_qs(url.query).get("listener", [""])[0]))
            elif sound and sound[1] in test.plan.wavs:
                self._send(test.plan.wavs[sound[1]], "audio/wav")
            else:
                self.send_error(HTTPStatus.NOT_FOUND)

        def do_POST(self) -> None:
            length = self.headers.get("Content-Length") or "0"
            if self.path != "/answers":
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            if not _LENGTH.fullmatch(length):
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            if not 0 < int(length) <= _MOST_BYTES:
                self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
                return
            body = self.rfile.read(int(length))

            def answered() -> dict[str, Any]:
                try:
                    test.answer(json.loads(body))
                except ValueError as error:
                    raise ListeningError("an answer is JSON") from error
                return {}

            self._json(answered)

        def _json(self, work: Any) -> None:
            try:
                told, status = work(), HTTPStatus.OK
            except ListeningError as error:
                told, status = {"error": str(error)}, HTTPStatus.BAD_REQUEST
            except OSError as error:
                told = {"error": f"the answers' file cannot be used: {error.strerror}"}
                status = HTTPStatus.INTERNAL_SERVER_ERROR
            self._send(json.dumps(told).encode(), "application/json", status)

        def _send(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet: the terminal says how many answers there are."""

    return ThreadingHTTPServer((host, port), Handler)
