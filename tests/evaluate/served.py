"""A listening test that runs in this process, as a browser meets it."""

import json
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from linnet.evaluate.listening.plan import Plan
from linnet.evaluate.listening.server import RunningTest, make_server

RATE = 16_000


def clips(speech: np.ndarray) -> list[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
    """Two words, through a good and a bad system."""
    found = []
    for place, name in enumerate(("list/veal.wav", "got.wav")):
        original = 0.5 * speech[place * RATE : (place + 1) * RATE].astype(np.float64)
        noise = 0.05 * np.random.default_rng(place).standard_normal(RATE)
        found.append((name, original, {"good 6": 0.9 * original, "bad 1": original + noise}))
    return found


class Served:
    """A test that runs in this process, as a browser meets it."""

    def __init__(self, plan: Plan, folder: Path, most: int | None = None) -> None:
        self.test = RunningTest(plan, folder / "answers.csv", most)
        self.server = make_server(self.test)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path) as reply:
            return reply.read()

    def post(self, told: object) -> None:
        urllib.request.urlopen(self.url + "/answers", json.dumps(told).encode()).close()

    def refused(self, told: object) -> str:
        with pytest.raises(urllib.error.HTTPError) as caught:
            self.post(told)
        assert caught.value.code == 400
        return json.loads(caught.value.read())["error"]

    def trials(self, listener: str) -> list[dict[str, Any]]:
        return json.loads(self.get(f"/trials?listener={listener}"))["trials"]
