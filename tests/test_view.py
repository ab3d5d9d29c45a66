"""The server answers its own page only, tells annotators nothing, and loses no label."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from selfplay.cli import cli
from selfplay.errors import UsageError
from selfplay.judge.lessons import read_lessons
from selfplay.judge.raters import match, read_raters
from selfplay.judge.sheet import as_html
from selfplay.results import open_results
from selfplay.viewing import annotating
from selfplay.viewing.drawing import draw
from selfplay.viewing.marked import Marked
from selfplay.viewing.server import Answer, Server
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, run_folder

SECRET = {"model": "Hidden-7B", "temperature": 0.77, "label": "generic", "rule": "a-hidden-rule", "p_genuine": 0.1234,
          "groundedness": 0.5678, "evidence": "hidden-evidence", "rejected_for": "flagged",
          "selected": False}  # fmt: skip


def echo(method: str, path: str, body: bytes) -> Answer | None:
    return Answer(f"{method} {path} {body.decode()}".encode()) if path != "missing" else None


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(echo) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def ask(
    server: Server, method: str = "GET", path: str = "", body: bytes = b"", **headers: str | None
) -> tuple[int, str]:
    """One request as the page itself makes it, but for what `headers` says; None takes one away."""
    port = server.server_address[1]
    sent: dict[str, str | None] = {"Host": f"127.0.0.1:{port}"}
    if method == "POST":
        sent |= {"Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/json"}
        sent |= {"Content-Length": str(len(body))}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.putrequest(method, path or f"/{server.token}/", skip_host=True, skip_accept_encoding=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    found = answer.status, answer.read().decode()
    connection.close()
    return found


def test_it_answers_its_own_page(server: Server) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert ask(server) == (200, "GET  ")
    assert ask(server, path=f"/{server.token}/chunk/3?x") == (200, "GET chunk/3 ")
    assert ask(server, "POST", f"/{server.token}/mark", b'{"a": 1}') == (200, 'POST mark {"a": 1}')
    assert ask(server, path=f"/{server.token}/missing")[0] == 404
    assert ask(server, Host=f"localhost:{server.server_address[1]}")[0] == 200


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "", {"Host": "evil.example"}, 403),
        ("GET", "", {"Host": "127.0.0.1:1"}, 403),
        ("GET", "", {"Host": None}, 403),
        ("GET", "", {"Origin": "https://evil.example"}, 403),
        ("GET", "", {"Origin": "null"}, 403),
        ("GET", "", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", "", {"Sec-Fetch-Site": "same-site"}, 403),
        ("GET", "/", {}, 403),
        ("GET", "/chunk/0", {}, 403),
        ("GET", "/wrong-token/", {}, 403),
        ("GET", "/%C3%A4/", {}, 403),
        ("POST", "", {"Origin": None}, 403),
        ("POST", "", {"Origin": "http://localhost:1"}, 403),
        ("POST", "", {"Content-Type": "text/plain"}, 415),
        ("POST", "", {"Content-Length": "70000"}, 413),
        ("POST", "", {"Content-Length": "-1"}, 413),
        ("POST", "", {"Content-Length": None}, 413),
        ("PUT", "", {}, 501),
    ],
)
def test_it_answers_nobody_else(server: Server, method: str, path: str, headers: dict[str, Any], status: int) -> None:
    def never(method: str, path: str, body: bytes) -> Answer:
        raise AssertionError("asked")

    server.routes = never
    told = ask(server, method, path, **headers)
    assert told[0] == status
    assert server.token not in told[1]


def test_a_port_that_is_taken_is_one_line(server: Server) -> None:
    with pytest.raises(UsageError, match=r"--port \d+: .*name another"):
        Server(echo, server.server_address[1])


def many(folder: Path, count: int = 30, parts: int = 3) -> Path:
    sites = [[candidate(f"turn {i}-{j}", **SECRET) for j in range(2)] + [candidate("Ok.")] for i in range(count)]
    answer = {"role": "assistant", "content": "a"}
    contexts = {f"c{i}": [{"role": "user", "content": f"q{i}"}, answer] for i in range(count)}
    size = count // parts
    return run_folder(folder, [sites[at : at + size] for at in range(0, count, size)], contexts)


def test_the_order_is_the_seeds_alone(tmp_path: Path) -> None:
    one, many_parts = open_results(many(tmp_path / "a", parts=1)), open_results(many(tmp_path / "b", parts=6))
    order = [item["id"] for item in draw(one, 1000, 0)]
    assert len(order) == len(set(order)) == 90
    assert [item["id"] for item in draw(many_parts, 1000, 0)] == order
    assert [item["id"] for item in draw(many_parts, 10, 0)] == order[:10]  # more of them come behind
    assert [item["id"] for item in draw(one, 1000, 1)] != order
    sites = [item["row"]["site_id"] for item in draw(one, 1000, 0)]
    assert sites != sorted(sites)


def test_equal_turns_are_shown_once(tmp_path: Path) -> None:
    run_folder(tmp_path, [[[candidate("Ok."), candidate("Ok."), candidate("Why?")]]])
    assert sorted(item["turn"] for item in draw(open_results(tmp_path), 10, 0)) == ["Ok.", "Why?"]


def test_who_labels_sees_nothing_of_what_is_known(tmp_path: Path) -> None:
    items = draw(open_results(many(tmp_path / "run")), 100, 0)
    routes = annotating.routes(items, Marked(tmp_path / "ana.jsonl", "ana"))
    page = routes("GET", "", b"")
    assert page is not None
    text = page.body.decode()
    assert "turn 29-1" in text
    for secret in ("Hidden", "0.77", "hidden-rule", "hidden-evidence", "0.1234", "0.5678", "flagged", "c0#", "rank"):
        assert secret not in text.replace(open_rubric(), ""), secret
    assert routes("GET", "chunk/0", b"") is None
    assert "connect-src 'self'\"" in text
    assert "connect-src 'none'\"" in as_html(items).decode()  # a sheet in a file sends nothing anywhere


def open_rubric() -> str:
    from selfplay.judge.sheet import rubric

    return rubric()


def say(routes: Any, key: str, **mark: Any) -> tuple[int, str]:
    answer = routes("POST", "mark", json.dumps({"id": key, **mark}).encode())
    return int(answer.status), answer.body.decode()


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_label_is_in_the_file_at_once_and_can_be_changed(tmp_path: Path) -> None:
    items = draw(open_results(many(tmp_path / "run")), 100, 0)
    path = tmp_path / "deep" / "ana.jsonl"
    routes = annotating.routes(items, Marked(path, "ana"))
    first, second = items[0]["id"], items[1]["id"]
    assert say(routes, first, label="generic") == (200, "saved")
    (row,) = rows(path)
    assert (row["turn"], row["label"], row["groundedness"]) == (items[0]["turn"], "generic", None)
    assert say(routes, second, label="follow_up", groundedness=3, comment=" fine ") == (200, "saved")
    assert say(routes, first, label="off_topic", groundedness=0) == (200, "saved")
    assert [(row["label"], row["groundedness"], row["comment"], row["annotator"]) for row in rows(path)] == [
        ("off_topic", 0, None, "ana"), ("follow_up", 3, "fine", "ana"),
    ]  # fmt: skip
    assert not {"rule", "evidence", "p_genuine", "genuine", "rank", "selected"} & rows(path)[0].keys()
    # Started again it goes on there, and shows what was said.
    again = annotating.routes(items, Marked(path, "ana"))
    page = again("GET", "", b"")
    assert page is not None
    assert f'"{second}", {{"label": "follow_up", "groundedness": 3, "comment": "fine"}}' in page.body.decode()
    assert say(again, items[2]["id"], label="generic", groundedness=1) == (200, "saved")
    assert len(rows(path)) == 3


@pytest.mark.parametrize(
    "mark",
    [{"label": "nice"}, {"label": None}, {"label": ["generic"]}, {"label": "generic", "comment": 3},
     *({"label": "generic", "groundedness": grade} for grade in (4, -1, 1.0, True, "1"))],
)  # fmt: skip
def test_what_is_no_mark_is_not_saved(tmp_path: Path, mark: dict[str, Any]) -> None:
    items = draw(open_results(many(tmp_path / "run")), 5, 0)
    routes = annotating.routes(items, Marked(tmp_path / "ana.jsonl", "ana"))
    assert say(routes, items[0]["id"], **mark)[0] == 400
    assert say(routes, "another id", label="generic")[0] == 400
    for body in (b"", b"[]", b"[" * 60_000, b'{"id": []}', b"\xff"):
        answer = routes("POST", "mark", body)
        assert answer is not None
        assert answer.status == 400
    assert not (tmp_path / "ana.jsonl").exists()


def test_agree_and_train_read_the_file(tmp_path: Path) -> None:
    items = draw(open_results(many(tmp_path / "run")), 30, 0)
    for name in ("ana", "bo"):
        routes = annotating.routes(items, Marked(tmp_path / f"{name}.jsonl", name))
        for number, item in enumerate(items):
            label = "follow_up" if number % 2 else "generic"
            assert say(routes, item["id"], label=label, groundedness=number % 4) == (200, "saved")
    raters, _ = read_raters([str(tmp_path / "ana.jsonl"), str(tmp_path / "bo.jsonl")])
    assert [rater.name for rater in raters] == ["ana", "bo"]
    assert len(match(raters).ratings.labels) == 30
    lessons = read_lessons(tmp_path / "ana.jsonl")
    assert len(lessons) == 30
    assert set(lessons["source"]) == {"Hidden-7B", "tiny"}
    assert lessons["label"].to_list() == ["generic", "follow_up"] * 15
    assert lessons["turn"].to_list() == [item["turn"] for item in items]


def test_rows_of_cleaned_data_tell_their_source(tmp_path: Path) -> None:
    row = {"id": "c", "messages": CONTEXT + dialogue(1), "user_turns": [judged(3)], "source": "web"}
    clean_folder(tmp_path, [row])
    (item,) = draw(open_results(tmp_path), 10, 0)
    assert (item["row"]["id"], item["row"]["source"], item["row"]["turn"]) == ("c#2/0", "web", "Turn 1?")


def test_somebody_elses_labels_and_other_files_are_left_alone(tmp_path: Path) -> None:
    items = draw(open_results(many(tmp_path / "run")), 5, 0)
    path = tmp_path / "ana.jsonl"
    routes = annotating.routes(items, Marked(path, "ana"))
    say(routes, items[0]["id"], label="generic")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="labels by 'ana'; give each annotator a file"):
        Marked(path, "bo")
    path.write_bytes(before + b"\n")
    status, why = say(routes, items[1]["id"], label="generic")
    assert (status, why) == (409, f"{path} was changed by something else; start selfplay view again")
    assert path.read_bytes() == before + b"\n"
    for text in ("{}\n", "hello\n", json.dumps({"messages": CONTEXT, "turn": "x"}) + "\n"):
        path.write_text(text)
        with pytest.raises(UsageError, match="--annotate"):
            Marked(path, "ana")
        assert path.read_text() == text


def test_the_verb_serves_until_it_is_ended(tmp_path: Path) -> None:
    call = [sys.executable, "-c", "from selfplay.cli import main; main()", "view", str(many(tmp_path / "run"))]
    call += ["--annotate", str(tmp_path / "ana.jsonl"), "--annotator", "ana", "--n", "7"]
    with subprocess.Popen(call, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "7 turns in random order, 0 of them labelled by ana\n"
        url = process.stderr.readline().split()[0]
        with urllib.request.urlopen(url) as answer:
            assert "<title>Turns to judge</title>" in answer.read().decode()
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr.read() == "nothing labelled\n"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (["--annotate", "a.jsonl"], "--annotator NAME"),
        (["--annotate", "a.jsonl", "--annotator", " "], "--annotator NAME"),
        (["--annotator", "ana"], "--annotator goes with --annotate"),
        (["--n", "3"], "--n goes with --annotate"),
        (["--annotate", "a.jsonl", "--annotator", "ana", "--sites", "3"], "--sites does not go with --annotate"),
        (["--annotate", "{run}/a.jsonl", "--annotator", "ana"], "give a place outside it"),
        (["--annotate", "{run}", "--annotator", "ana"], "--annotate"),
        (["--by", "nothing"], "--by nothing"),
    ],
)
def test_options_that_contradict_are_one_line(tmp_path: Path, call: list[str], says: str) -> None:
    run = str(many(tmp_path / "run"))
    done = CliRunner().invoke(cli, ["view", run, *(part.format(run=run) for part in call)])
    assert isinstance(done.exception, UsageError)
    assert says in str(done.exception)
