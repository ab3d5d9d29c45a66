"""Launching: ready when it answers, one clear error when it dies, and nothing left behind, however we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selfplay.engines import sglang_server
from selfplay.engines.sglang import SglangEngine
from selfplay.errors import EngineError, UsageError
from tests.scripted_server import scripted
from tests.sglang_fakes import healthy

ROOT = Path(__file__).parent.parent

# Stands in for SGLang: a server with one worker process, told apart by its log.
FAKE = """
import os, subprocess, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("pids", os.getpid(), worker.pid, flush=True)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *args): pass
HTTPServer(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()
"""


def fake_python(folder: Path, program: str) -> str:
    """An interpreter that runs `program` whatever module it is told to run."""
    folder.joinpath("program.py").write_text(program)
    script = folder / "python"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {folder}/program.py "$@"\n')
    script.chmod(0o755)
    return str(script)


def pids(log: Path) -> list[int]:
    """Process ids in the last line that names them."""
    return [int(word) for word in [x for x in log.read_text().splitlines() if x.startswith("pids")][-1].split()[1:]]


def gone(ids: list[int], within: float = 5.0) -> bool:
    """Whether all processes end in time; a zombie has ended."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        if not any(alive(pid) for pid in ids):
            return True
        time.sleep(0.05)
    return False


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_close_ends_the_server_and_its_workers(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "sglang.log"
    server = sglang_server.launch("m", python=fake_python(tmp_path, FAKE), log_path=log)
    ids = pids(log)
    assert all(alive(pid) for pid in ids)
    server.close()
    server.close()
    assert gone(ids)


def test_early_death_shows_the_end_of_the_log(tmp_path: Path) -> None:
    python = fake_python(tmp_path, "raise SystemExit('CUDA out of memory\\nTried to allocate 80 GB')")
    with pytest.raises(EngineError, match=r"ended at once \(exit 1\).*CUDA out of memory \| Tried to allocate"):
        sglang_server.launch("m", python=python, log_path=tmp_path / "log")


def test_readiness_is_awaited_for_a_bounded_time(tmp_path: Path) -> None:
    program = "import os, time; print('pids', os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(EngineError, match="not ready after 1 s"):
        sglang_server.launch("m", python=fake_python(tmp_path, program), log_path=tmp_path / "log", ready_timeout=1)
    assert gone(pids(tmp_path / "log"))


def test_sigkill_of_the_parent_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    program = (
        "import sys, time; from selfplay.engines.sglang_server import launch\n"
        f"launch('m', python={fake_python(tmp_path, FAKE)!r}, log_path={str(log)!r})\n"
        "print('ready', flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=ROOT)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    ids = pids(log)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    assert gone(ids)


def test_a_dead_server_is_started_again_but_not_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = sglang_server.launch("m", python=fake_python(tmp_path, FAKE), log_path=log)
    seen = []
    for _ in range(sglang_server.REVIVALS + 1):
        seen.append(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        gone([server.pid])
        server.revive()
        if not server.died():
            server.wait_ready(20, lambda line: None)
    server.close()
    assert len(set(seen)) == sglang_server.REVIVALS + 1
    assert server.died()
    everyone = [int(w) for x in log.read_text().splitlines() if x.startswith("pids") for w in x.split()[1:]]
    assert gone(everyone)


def test_a_taken_port_is_a_usage_error(tmp_path: Path) -> None:
    with scripted(healthy) as other:
        port = int(other.url.rpartition(":")[2])
        with pytest.raises(UsageError, match="is taken"):
            sglang_server.launch("m", python=sys.executable, port=port, log_path=tmp_path / "log")


def test_no_sglang_anywhere_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SELFPLAY_SGLANG_PYTHON", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="--sglang-python"):
        sglang_server.find_python()
    with pytest.raises(UsageError, match="is no program"):
        sglang_server.find_python("/no/such/python")


def test_closing_the_engine_stops_the_server_it_launched(tmp_path: Path) -> None:
    log = tmp_path / "log"
    engine = SglangEngine.launch("m", python=fake_python(tmp_path, FAKE), log_path=log)
    ids = pids(log)
    engine.close()
    assert gone(ids)
