"""Uploading, by the real library against a server of ours: what is sent, to where, and what never is."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from selfplay.errors import SelfplayError, UsageError
from selfplay.exporting.export import Export, export
from tests.folders import candidate, run_folder

SITE = [candidate("From the fridge?", 0.9, 0.8), candidate("Eggs?", 0.1, 0.1, "flagged")]
TOKEN = "hf_" + "t" * 34


class Hub(HTTPServer):
    """As much of the Hub as an upload of small files needs; keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.refuse: str | None = None

    @property
    def uploaded(self) -> dict[str, bytes]:
        """Files of the commits, by path."""
        lines = [line for path, body in self.asked if "/commit/" in path for line in body]
        files = [line["value"] for line in lines if line["key"] == "file"]
        return {file["path"]: base64.b64decode(file["content"]) for file in files}


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        told = [json.loads(line) for line in body.splitlines()] if "/commit/" in self.path else json.loads(body)
        self.server.asked.append((self.path, told))
        self.server.tokens.add(self.headers.get("Authorization"))
        host = f"http://127.0.0.1:{self.server.server_port}"
        if self.server.refuse and self.server.refuse in self.path:
            self.answer(403, {"error": "Forbidden: no write access"})
        elif self.path == "/api/repos/create":
            self.answer(200, {"url": f"{host}/datasets/me/turns", "name": "me/turns", "id": "1"})
        elif self.path.startswith("/api/datasets/me/turns/preupload/"):
            modes = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in told["files"]]
            self.answer(200, {"files": modes})
        elif self.path.startswith("/api/datasets/me/turns/commit/"):
            self.answer(
                200, {"commitUrl": f"{host}/datasets/me/turns/commit/abc", "commitOid": "abc", "hookOutput": ""}
            )
        else:
            self.answer(200, {"warnings": [], "errors": []})

    def do_GET(self) -> None:
        self.server.asked.append((self.path, None))
        self.answer(200, {"id": "me/turns", "sha": "abc", "siblings": [], "private": True})

    def answer(self, code: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    real = huggingface_hub.HfApi
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **more: real(endpoint=address, **more))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = run_folder(tmp_path / "run", [[SITE]])
    for name in ("quarantine.jsonl", "engine.log", "failed.jsonl"):
        (folder / name).write_text("secret")
    return folder


def test_card_and_data_are_uploaded_in_one_commit_and_nothing_else(tmp_path: Path, run: Path, hub: Hub) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("secret")
    (out / "data").mkdir()
    (out / "data" / "other.parquet").write_text("secret")
    export(run, out, Export(("dpo", "hub"), push_to_hub="me/turns", overwrite=True))
    assert hub.uploaded == {name: (out / name).read_bytes() for name in ("README.md", "data/dpo/train.parquet")}
    assert len([path for path, _ in hub.asked if "/commit/" in path]) == 1
    assert "secret" not in json.dumps(hub.asked)
    assert hub.tokens == {f"Bearer {TOKEN}"}
    assert TOKEN not in (out / "README.md").read_text() + (out / "export.json").read_text()


@pytest.mark.parametrize("public", [False, True])
def test_a_new_repository_is_private_unless_asked_for(tmp_path: Path, run: Path, hub: Hub, public: bool) -> None:
    export(run, tmp_path / "out", Export(("kto",), push_to_hub="me/turns", public=public))
    (made,) = [told for path, told in hub.asked if path == "/api/repos/create"]
    assert made["type"] == "dataset"
    assert made.get("private", made.get("visibility") == "private") is not public
    assert (tmp_path / "out" / "README.md").exists()  # what is pushed has a card, asked for or not


@pytest.mark.parametrize("where", ["create", "commit"])
def test_a_refused_upload_leaves_the_folder_and_is_one_line(tmp_path: Path, run: Path, hub: Hub, where: str) -> None:
    hub.refuse = where
    with pytest.raises(SelfplayError, match="is written, but the upload to me/turns failed") as found:
        export(run, tmp_path / "out", Export(("hub",), push_to_hub="me/turns"))
    assert "\n" not in str(found.value)
    assert TOKEN not in str(found.value)
    assert (tmp_path / "out" / "data" / "kto" / "train.parquet").exists()


def test_mistakes_are_told_before_any_work(
    tmp_path: Path, run: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--push-to-hub a/b/c"):
        export(run, tmp_path / "out", Export(push_to_hub="a/b/c"))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        export(run, tmp_path / "out", Export(push_to_hub="me/turns"))
    assert not (tmp_path / "out").exists()
    assert hub.asked == []
