"""What the tests of the catalogue share: a server on this machine, an empty cache, and what is left in it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ostinato.data.catalogue import Entry, File, Part, fetch, origins
from ostinato.errors import DataError

TEXT = b"to be or not to be\n" * 50


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Server:
    """Files at addresses of this machine."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                time.sleep(outer.delay)
                content = outer.files.get(self.path)
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no folder of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("OSTINATO_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "ostinato" / "data"


def one(server: Server, content: bytes = TEXT) -> Entry:
    """A data set of one file, known by `TEXT`, of which the server has `content`."""
    server.files["/a/input.txt"] = content
    origin = origins.Web(server.url("/a/input.txt"), "input.txt", len(TEXT), sha(TEXT))
    return Entry("one", "a test", "text", (File("folder/text.txt", len(TEXT), sha(TEXT), (Part(origin),)),), "none")


def left(cache: Path) -> list[str]:
    """What lies in the cache, but for locks."""
    return sorted(str(p.relative_to(cache)) for p in cache.rglob("*") if p.is_file() and p.suffix != ".lock")


def message(entry: Entry) -> str:
    with pytest.raises(DataError) as caught:
        fetch(entry)
    return str(caught.value)
