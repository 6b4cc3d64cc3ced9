"""The REST interface of a model server that takes up models.config at once, and has AVAILABLE whatever it lists.

For tests of what an agent makes of its registry and its disk, where a server that loads models would only take time.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from model_registry.serving import model_config
from model_registry.serving.model_config import ServedModel

_QUESTION = re.compile(r"/v1/models/([^/]+)(?:/labels/([^/]+)/metadata)?")


@dataclass
class StatedServer:
    """One.

    Attributes:
        config: The file that it takes up.
        url: Where it answers.
        fails: The versions that it cannot load, by model.
        dies_of: A version at whose sight it answers nothing any more.
    """

    config: Path
    url: str = ""
    fails: set[tuple[str, int]] = field(default_factory=set)
    dies_of: tuple[str, int] | None = None
    seen: dict[str, set[int]] = field(default_factory=dict)
    models: dict[str, ServedModel] = field(default_factory=dict)

    def answer(self, path: str) -> tuple[int, dict[str, Any]] | None:
        """What it says; None if it is gone."""
        self._poll()
        if self.dies_of and self.dies_of[1] in self.seen.get(self.dies_of[0], ()):
            return None
        asked = _QUESTION.fullmatch(path)
        model = self.models.get(asked[1]) if asked else None
        if asked is None or asked[1] not in self.seen:
            return 404, {"error": "no such model"}
        if asked[2]:
            version = model.labels.get(asked[2]) if model else None
            return (200, {"model_spec": {"version": str(version)}}) if version else (404, {"error": "no such label"})
        listed = model.versions if model else ()
        states = [self._state(asked[1], version, version in listed) for version in sorted(self.seen[asked[1]])]
        return 200, {"model_version_status": states}

    def _poll(self) -> None:
        if self.config.is_file():
            self.models = {one.name: one for one in model_config.from_text(self.config.read_text(), path="")}
        for name, model in self.models.items():
            self.seen.setdefault(name, set()).update(model.versions)

    def _state(self, model: str, version: int, listed: bool) -> dict[str, Any]:
        fails = (model, version) in self.fails
        status = {"error_code": "INTERNAL", "error_message": "no graph"} if fails else {"error_code": "OK"}
        return {"version": str(version), "state": "AVAILABLE" if listed and not fails else "END", "status": status}


@contextmanager
def run_stated_server(config: Path) -> Iterator[StatedServer]:
    """Runs one in this process."""
    stated = StatedServer(config)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = stated.answer(self.path)
            if answer is None:  # the connection ends without a word
                return
            body = json.dumps(answer[1]).encode()
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        stated.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield stated
        finally:
            http.shutdown()
            thread.join()
