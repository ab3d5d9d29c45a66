"""The card tells figures of the results, and shows what came from outside as it is, and as nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from selfplay.exporting.export import Export, export
from selfplay.exporting.figures import without_path
from selfplay.exporting.formats import Options
from selfplay.exporting.markdown import code
from selfplay.judging import file_hash
from tests.folders import CONTEXT, candidate, clean_folder, dialogue, judged, run_folder

HOSTILE = (
    "x | y <script>alert(1)</script> [here](http://evil.example) ``` `\n# Title\n| --- |\u202e www.evil.example ![](u)"
)
FAULT = candidate("Eggs?", 0.1, 0.1, "flagged", label="malformed", rule="repeats itself")
SITE = [candidate("From the fridge?", 0.9, 0.8), FAULT, candidate("Hm", 0.1, 0.1, "lower_rank")]
ESTIMATES = {
    "before": {"mean": 0.2, "low": 0.1, "high": 0.3, "turns": 30, "extrapolated": True, "why": "not in English"},
    "after": {"mean": None, "low": None, "high": None, "turns": 0, "extrapolated": False, "why": "no turns"},
}


def card(folder: Path, out: Path, **asked: Any) -> tuple[dict[str, Any], str]:
    """Header and text."""
    export(folder, out, Export(("hub",), **asked))
    _, header, text = (out / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), text


def shown(text: str) -> str:
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(text))


def test_the_header_names_configurations_splits_and_size(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE] * 40])
    header, _ = card(tmp_path / "run", tmp_path / "out", validation=0.3)
    names = ["prompt-completion", "messages", "dpo", "kto", "reward"]
    assert [config["config_name"] for config in header["configs"]] == names
    assert [config.get("default", False) for config in header["configs"]] == [True, *[False] * 4]
    for config in header["configs"]:
        for part in config["data_files"]:
            assert (tmp_path / "out" / part["path"]).is_file()
    assert {"size_categories": ["n<1K"], "license": "unknown"}.items() <= header.items()
    assert "selfplay" in header["tags"]


def test_a_format_without_rows_is_no_configuration(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE[:1]]])
    header, text = card(tmp_path / "run", tmp_path / "out")
    assert "dpo" not in [config["config_name"] for config in header["configs"]]
    assert "No rows came out for: dpo." in text


def test_figures_are_those_of_the_run(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE] * 4, [SITE] * 6], summary={"estimated_genuine": ESTIMATES})
    _, text = card(tmp_path / "run", tmp_path / "out")
    assert "30 turns at 10 places in 10 conversations" in text
    assert "| `malformed` | 33.3% (10) | 0.0% (0) |" in text
    assert "| no fault found | 66.7% (20) | 100.0% (10) |" in text
    assert (
        "all turns: 20.0% [10.0%, 30.0%], of 30 turns, extrapolated: `not in English`".replace(
            "all turns", "`all turns`"
        )
        in text
    )
    assert "`chosen or kept turns`: not estimated (`no turns`)" in text
    assert "| `temperatures.1` | `4` |" in text
    assert "goes beyond what was calibrated: `not in English`" in text


def test_rules_come_with_their_measured_precision_if_they_are_those_that_were_used(tmp_path: Path) -> None:
    run_folder(tmp_path / "run", [[SITE]])
    _, text = card(tmp_path / "run", tmp_path / "out")
    assert "its measured precision is not stated" in text  # another rule file, by its hash
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_bytes())
    record["select"]["rules_hash"] = file_hash(None, "filters", "default_rules.json")
    path.write_text(json.dumps(record))
    _, text = card(tmp_path / "run", tmp_path / "out")
    (line,) = [line for line in text.splitlines() if line.startswith("| `repeats itself`")]
    rules = json.loads((Path(__file__).parent.parent / "filters" / "default_rules.json").read_bytes())
    (rule,) = [rule for rule in rules["sets"]["text"]["rules"] if rule["name"] == "repeats itself"]
    for figure in rule["precision"].values():
        assert f"[{figure['low']:.2f}, {figure['high']:.2f}], {figure['right']:,} of {figure['fired']:,}" in line
    assert "| `malformed` | `text` | 1 |" in line
    assert "judged by a large language model and not by people" in text


@pytest.mark.parametrize(
    ("rows", "given", "license", "told"),
    [
        ([None, None], None, "unknown", "| `web` | not stated | 3 |"),
        ([None, None], "Apache-2.0", "apache-2.0", "| `web` | not stated by the rows, given as `Apache-2.0` | 3 |"),
        (["MIT", "MIT"], None, "mit", "| `web` | `MIT` | 3 |"),
        (["MIT", None], None, "other", "| `web` | not stated | 2 |"),
        (["MIT", "CC-BY-NC-4.0"], None, "other", "| `web` | `CC-BY-NC-4.0` | 2 |"),
        (["House rules 7", "House rules 7"], None, "other", "| `web` | `House rules 7` | 3 |"),
    ],
)
def test_licences_come_from_the_rows_or_as_given(
    tmp_path: Path, rows: list[str | None], given: str | None, license: str, told: str
) -> None:
    talk = {"messages": CONTEXT + dialogue(1), "user_turns": [judged(3)]}
    more = {"source": "web", "license": rows[1], "dropped_for": "x", **talk}
    kept = [{"id": f"c{i}", "source": "web", "license": name, **talk} for i, name in enumerate(rows)]
    clean_folder(tmp_path / "clean", kept, [{"id": "c2", **more}])
    header, text = card(tmp_path / "clean", tmp_path / "out", source_license=given)
    assert header["license"] == license
    assert told in text


def test_the_card_says_whose_turns_are_learned(tmp_path: Path) -> None:
    clean_folder(tmp_path / "clean", [{"id": "c", "messages": CONTEXT + dialogue(1), "user_turns": [judged(3)]}])
    export(tmp_path / "clean", tmp_path / "out", Export(("hub", "messages"), rows=Options(side="assistant")))
    text = (tmp_path / "out" / "README.md").read_text()
    assert "for training the assistant" in text
    assert "for training a user simulator" not in text


def test_sources_that_are_many_are_not_all_told(tmp_path: Path) -> None:
    talk = {"messages": CONTEXT + dialogue(1), "user_turns": [judged(3)]}
    clean_folder(tmp_path / "clean", [{"id": f"c{i}", "source": f"page {i}", **talk} for i in range(23)])
    _, text = card(tmp_path / "clean", tmp_path / "out")
    assert "And 3 more." in text
    assert "in 23 conversations" in text


def test_cleaned_data_names_its_models_and_what_the_rules_misjudge(tmp_path: Path) -> None:
    talk = {"messages": CONTEXT + dialogue(2), "user_turns": [judged(3), judged(5, bad=True)], "model": "gpt-9"}
    clean_folder(tmp_path / "clean", [{"id": "c", **talk}])
    _, text = card(tmp_path / "clean", tmp_path / "out")
    assert "User turns written by: `gpt-9`." in text
    assert "| `malformed` | 50.0% (1) | 0.0% (0) |" in text
    assert "misjudge some turns of people" in text


def test_what_comes_from_outside_cannot_be_markup(tmp_path: Path) -> None:
    site = [SITE[0] | {"model": HOSTILE}, FAULT | {"rule": HOSTILE, "label": HOSTILE}]
    estimates = {"before": ESTIMATES["before"] | {"why": HOSTILE}}
    run_folder(tmp_path / "run", [[site]], extra={"license": HOSTILE}, summary={"estimated_genuine": estimates})
    header, text = card(tmp_path / "run", tmp_path / "out", source_license=HOSTILE)
    html = shown(text)
    assert "<script" not in html
    assert "<img" not in html
    assert "<a " not in html
    assert html.count("<h1>") == 1
    assert header["license"] == "other"
    clean = run_folder(tmp_path / "plain", [[SITE]])
    _, plain = card(clean, tmp_path / "plain-out")
    assert html.count("<td") - shown(plain).count("<td") == 0  # no cell more than there are
    assert "\u202e" not in text


@given(st.text(max_size=300))
def test_a_code_span_is_one_cell_of_code_whatever_it_holds(text: str) -> None:
    html = shown(f"| a | b |\n| --- | --- |\n| {code(text)} | x |\n")
    assert html.count("<td>") == 2
    assert html.count("<code>") == (0 if code(text) == "(empty)" else 1)


def test_no_path_of_this_machine_is_told(tmp_path: Path) -> None:
    assert without_path("/home/me/secret/model") == "model"
    assert without_path("./model") == "model"
    assert without_path(str(tmp_path)) == tmp_path.name
    assert without_path("Qwen/Qwen3-8B") == "Qwen/Qwen3-8B"
    run_folder(tmp_path / "run", [[SITE]])
    path = tmp_path / "run" / "run.json"
    record = json.loads(path.read_bytes())
    record["sample"] |= {"source": "/home/me/secret/in.jsonl", "model": "/home/me/secret/model"}
    path.write_text(json.dumps(record))
    _, text = card(tmp_path / "run", tmp_path / "out")
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert "`in.jsonl`" in text
