"""Starts an SGLang server of our own and makes sure that nothing of it outlives us.

Knows processes, ports and logs; knows nothing of prompts.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from selfplay.errors import EngineError, UsageError
from selfplay.terminal import one_line

REVIVALS = 3
"""Times a server that died is started again within one run."""

# Reads until the pipe from us closes, which it does however we end, SIGKILL included; then ends the server's group.
WATCHDOG = 'read _; kill -s KILL -- "-$1" 2>/dev/null'


class Server:
    """A running `sglang.launch_server` with its own process group, log and watchdog."""

    def __init__(self, command: Sequence[str], url: str, log_path: Path, env: Mapping[str, str]) -> None:
        self.url = url
        self.log_path = log_path
        self._command = list(command)
        self._env = dict(env)
        self._lock = threading.Lock()
        self._revivals = 0
        self._closed = False
        self._process: subprocess.Popen[bytes]
        self._watchdog: subprocess.Popen[bytes]
        self._start("wb")
        atexit.register(self.close)

    @property
    def pid(self) -> int:
        """Process id of the server, which is also the id of its process group."""
        return self._process.pid

    def died(self) -> bool:
        """Whether the server's main process has ended."""
        return self._process.poll() is not None

    def revive(self) -> None:
        """Starts the server again, on the same port, if it has died; at most `REVIVALS` times. Does not wait."""
        with self._lock:
            if self._closed or not self.died() or self._revivals >= REVIVALS:
                return
            self._revivals += 1
            self._stop()
            self._start("ab")

    def wait_ready(self, timeout: float, progress: Callable[[str], None]) -> None:
        """Waits until the server answers.

        Raises:
            EngineError: It ended or was not ready in `timeout` seconds; with the last lines of its log.
        """
        import httpx

        began = told = time.monotonic()
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while True:
                if self.died():
                    code = self._process.returncode
                    raise EngineError(f"the SGLang server ended at once (exit {code}); {self._last_words()}")
                try:
                    if client.get(f"{self.url}/model_info").is_success:
                        return
                except httpx.HTTPError:
                    pass
                now = time.monotonic()
                if now - began > timeout:
                    raise EngineError(f"the SGLang server was not ready after {timeout:.0f} s; {self._last_words()}")
                if now - told >= 10:
                    told = now
                    progress(f"SGLang is starting, {now - began:.0f} s so far (log: {self.log_path})")
                time.sleep(0.5)

    def close(self) -> None:
        """Ends the server and all its workers. Safe to call twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._stop()
        atexit.unregister(self.close)

    def _start(self, mode: str) -> None:
        log: IO[bytes]
        with open(self.log_path, mode) as log:
            # A session of its own: Ctrl-C is for us to handle, and the whole group can be ended at once.
            self._process = subprocess.Popen(  # noqa: S603
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                start_new_session=True,
            )
        self._watchdog = subprocess.Popen(  # noqa: S603
            ["/bin/sh", "-c", WATCHDOG, "selfplay-watchdog", str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _stop(self) -> None:
        _signal_group(self._process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        # The workers may outlast their parent by a moment, and hold the GPU.
        _signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._watchdog.kill()
        self._watchdog.wait()
        if self._watchdog.stdin is not None:
            self._watchdog.stdin.close()

    def _last_words(self) -> str:
        return f"the end of {self.log_path}: {last_words(self.log_path)}"


def launch(
    model: str,
    *,
    python: str | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    log_path: str | Path = "sglang.log",
    extra_args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    ready_timeout: float = 1800.0,
    progress: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> Server:
    """Starts `python -m sglang.launch_server` and waits until it answers.

    Args:
        model: Local folder or Hugging Face id.
        python: An interpreter that has sglang; else SELFPLAY_SGLANG_PYTHON, else the one that runs us.
        port: A free one if not given.
        log_path: Everything the server says.
        extra_args: Further options of `sglang.launch_server`.
        env: Added to our environment.
        ready_timeout: Seconds to be ready in; large models load for many minutes.
        progress: Called with a line every ten seconds while waiting.

    Raises:
        UsageError: No Python with sglang is known, the port is taken, or the log cannot be written.
        EngineError: The server ended, or was not ready in time.
    """
    interpreter = find_python(python)
    if port is None:
        port = free_port(host)
    elif not port_is_free(host, port):
        raise UsageError(f"port {port} on {host} is taken; give another --port or leave it out")
    command = [interpreter, "-m", "sglang.launch_server", "--model-path", model, "--host", host, "--port", str(port)]
    log = Path(log_path)
    settings = {
        **os.environ,
        # Logprobs of the model itself at every temperature; by default SGLang divides by the temperature first.
        "SGLANG_RETURN_ORIGINAL_LOGPROB": "1",
        **(env or {}),
    }
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        server = Server([*command, *extra_args], f"http://{host}:{port}", log, settings)
    except OSError as error:
        raise UsageError(f"cannot start the SGLang server ({interpreter}, log {log}): {error.strerror}") from None
    try:
        server.wait_ready(ready_timeout, progress)
    except BaseException:
        server.close()
        raise
    return server


def find_python(python: str | None = None) -> str:
    """The interpreter to start SGLang with.

    Raises:
        UsageError: None has sglang.
    """
    named = python or os.environ.get("SELFPLAY_SGLANG_PYTHON")
    if named:
        found = shutil.which(os.path.expanduser(named))
        if found is None:
            raise UsageError(f"{named} is no program; --sglang-python takes the Python of SGLang's environment")
        return found
    if importlib.util.find_spec("sglang") is not None:
        return sys.executable
    raise UsageError(
        "this environment has no sglang, which pins its own torch: install it in one of its own and give its Python "
        "by --sglang-python or SELFPLAY_SGLANG_PYTHON, or give the --base-url of a running server"
    )


def free_port(host: str) -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
    return port


def port_is_free(host: str, port: int) -> bool:
    """Whether `port` can be bound now, a port that only lingers after a server's end included."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def last_words(log_path: Path, lines: int = 8) -> str:
    """The last lines of a log on one line, cause first where the log names one."""
    try:
        with open(log_path, encoding="utf-8", errors="replace") as log:
            tail = deque((line.strip() for line in log if line.strip()), maxlen=lines)
    except OSError:
        return "(no log)"
    return " | ".join(map(one_line, tail)) or "(empty)"


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
