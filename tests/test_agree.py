"""Agreement: the figures against published and hand-made cases, what is the same turn, and the verb."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from filters.agreement import GENUINE, MISSING, Ratings, agreement
from filters.labels import PRECEDENCE
from selfplay.cli import cli
from selfplay.errors import UsageError

NAMES = [label.value for label in PRECEDENCE]


def ratings(
    labels: list[list[int]], grades: list[list[int]] | None = None, clusters: list[int] | None = None
) -> Ratings:
    codes = np.array(labels, dtype=np.intp)
    return Ratings(
        tuple("abcdefghijklmnopqrstuvwxyz"[: codes.shape[1]]),
        codes,
        np.array(grades, dtype=np.intp) if grades else np.full_like(codes, MISSING),
        np.array(clusters if clusters else range(len(codes)), dtype=np.intp),
    )


def test_cohen_of_the_textbook_two_by_two() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: agreement .70, by chance .50, kappa .40."""
    no, yes = 0, GENUINE
    rows = [[yes, yes]] * 20 + [[yes, no]] * 5 + [[no, yes]] * 10 + [[no, no]] * 15
    found = agreement(ratings(rows), replicates=0)
    [pair] = found["pairs"]
    assert pair["agree"].value == pytest.approx(0.70)
    assert pair["cohen_genuine"].value == pytest.approx(0.40)
    assert pair["cohen_label"].value == pytest.approx(0.40)
    assert pair["cohen_label"].n == 50
    assert pair["confusion"][no][yes] == 10
    assert pair["confusion"][yes][no] == 5


def test_fleiss_of_its_wikipedia_table() -> None:
    """Ten subjects, 14 raters, five categories: kappa .210."""
    counts = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    rows = [[value for value, count in enumerate(row) for _ in range(count)] for row in counts]
    found = agreement(ratings(rows), replicates=0)["together"]
    assert found["fleiss_label"].value == pytest.approx(0.210, abs=5e-4)


def test_krippendorff_of_his_own_example_with_missing_values() -> None:
    """Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, example C: four observers, alpha .743."""
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0], [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3],
        [0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0], [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0],
    ]  # fmt: skip
    rows = [[value - 1 for value in unit] for unit in zip(*observers, strict=True)]
    found = agreement(ratings(rows), replicates=0)["together"]["krippendorff_label"]
    assert (found.value, found.n) == (pytest.approx(0.743, abs=5e-4), 11)


def test_grades_weigh_a_far_miss_more() -> None:
    chance = random.Random(0)
    first = [chance.randrange(4) for _ in range(200)]
    near = [[a, min(3, a + 1)] if n % 3 == 0 else [a, a] for n, a in enumerate(first)]
    far = [[a, 3 - a] if n % 3 == 0 else [a, a] for n, a in enumerate(first)]
    labels = [[0, 0]] * 200
    kappas = [agreement(ratings(labels, g), replicates=0)["pairs"][0]["cohen_grade"].value for g in (near, far)]
    assert kappas[0] > 0.85
    assert kappas[1] < kappas[0] - 0.3


def test_intervals_are_of_conversations_and_not_of_turns() -> None:
    chance = random.Random(1)
    rows: list[list[int]] = []
    clusters: list[int] = []
    for conversation in range(40):
        agree = chance.random() < 0.7  # all ten turns of a conversation agree, or none
        for _ in range(10):
            label = chance.choice([0, GENUINE])
            rows.append([label, label if agree else GENUINE - label])
            clusters.append(conversation)
    by_turn, by_cluster = (
        agreement(ratings(rows, clusters=given), replicates=300)["pairs"][0]["cohen_genuine"]
        for given in (None, clusters)
    )
    assert by_turn.value == by_cluster.value
    assert by_cluster.low < by_cluster.value < by_cluster.high
    assert by_cluster.high - by_cluster.low > 2 * (by_turn.high - by_turn.low)


def test_with_one_label_only_there_is_no_kappa() -> None:
    found = agreement(ratings([[3, 3]] * 20), replicates=20)
    assert found["pairs"][0]["cohen_label"].value is None
    assert found["together"]["krippendorff_label"].value is None
    assert found["pairs"][0]["agree"].value == 1.0


def test_a_missing_label_counts_for_nobody() -> None:
    rows = [[0, 0], [GENUINE, GENUINE], [MISSING, 0], [0, MISSING], [MISSING, MISSING]]
    found = agreement(ratings(rows), replicates=0)
    assert found["pairs"][0]["n"] == 2
    assert found["pairs"][0]["cohen_label"].value == 1.0


def row(n: int, label: str | None, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": f"Question {n // 3}?"}, {"role": "assistant", "content": "Answer."}]
    return {"id": f"t{n}", "messages": messages, "turn": f"turn {n}", "label": label, **more}


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


def agree(*files: str) -> dict[str, Any]:
    done = CliRunner().invoke(cli, ["agree", *files, "--json", "--bootstrap", "20"], catch_exceptions=False)
    assert done.exit_code == 0
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def test_people_judges_and_rules_by_the_marks_of_their_rows(tmp_path: Path) -> None:
    people = written(
        tmp_path / "p.jsonl", [row(n, NAMES[n % 9], groundedness=n % 4, annotator="ana") for n in range(12)]
    )
    judges = [
        row(n, NAMES[(n + shift) % 9], groundedness=1, judge=name)
        for n in range(18)
        for name, shift in (("m1", 0), ("m2", 1))
    ]
    judged = written(tmp_path / "j.jsonl", judges)
    # As `selfplay filter` leaves rows that a judge had labelled before: the label is the rules'.
    filtered = [{**each, "label": "follow_up", "rule": None, "evidence": None} for each in judges[::2]]
    found = agree(people, judged, written(tmp_path / "f.jsonl", filtered))
    assert [rater["name"] for rater in found["raters"]] == ["ana", "m1", "m2", "rules"]
    first = found["pairs"][0]
    assert (first["raters"], first["n"], first["cohen_label"]["value"]) == (["ana", "m1"], 12, 1.0)
    with_rules = next(pair for pair in found["pairs"] if pair["raters"] == ["m1", "rules"])
    assert with_rules["n"] == 18
    assert with_rules["cohen_grade"]["n"] == 0  # rules give no grade, whatever the row carried before
    assert found["conversations"] == 6
    assert "fleiss_label" in found["together"]


def test_without_ids_turns_are_matched_by_what_they_say(tmp_path: Path) -> None:
    rows = [row(n, NAMES[n % 9]) for n in range(9)]
    for each in rows:
        del each["id"]
    found = agree(
        written(tmp_path / "a.jsonl", rows),
        written(tmp_path / "b.jsonl", [{**r, "id": i} for i, r in enumerate(rows[::-1])]),
    )
    assert (found["matched_by"], found["turns"]) == ("messages and turn", 9)
    assert found["pairs"][0]["cohen_label"]["value"] == 1.0


def test_an_id_that_names_a_conversation_is_not_taken_for_a_turn(tmp_path: Path) -> None:
    rows = [{**row(n, NAMES[n % 9]), "id": f"c{n // 3}"} for n in range(9)]
    found = agree(written(tmp_path / "a.jsonl", rows), written(tmp_path / "b.jsonl", rows[::-1]))
    assert (found["matched_by"], found["pairs"][0]["cohen_label"]["value"]) == ("messages and turn", 1.0)


def test_what_cannot_be_matched_is_counted(tmp_path: Path) -> None:
    first = [row(n, "generic") for n in range(6)] + [row(0, "off_topic")]
    second = [row(n, "generic") for n in range(4, 9)] + [row(9, None, judge_error="not JSON")]
    found = agree(written(tmp_path / "a.jsonl", first), written(tmp_path / "b.jsonl", second))
    assert found["turns"] == 2
    assert [(r["rows"], r["unmatched"], r["repeated"], r["invalid"]) for r in found["raters"]] == [
        (7, 4, 1, 0),
        (6, 4, 0, 1),
    ]


def test_equal_ids_of_other_turns_are_not_compared(tmp_path: Path) -> None:
    other = [{**row(n, "generic"), "turn": "another" if n < 2 else f"turn {n}"} for n in range(6)]
    found = agree(
        written(tmp_path / "a.jsonl", [row(n, "generic") for n in range(6)]), written(tmp_path / "b.jsonl", other)
    )
    assert (found["turns"], found["equal_id_other_text"]) == (4, 2)


def test_the_rank_of_selfplay_rank_is_no_grade(tmp_path: Path) -> None:
    ranked = [row(n, NAMES[n % 9], groundedness=0.5) for n in range(9)]
    found = agree(
        written(tmp_path / "a.jsonl", ranked), written(tmp_path / "b.jsonl", [row(n, "generic") for n in range(9)])
    )
    assert found["pairs"][0]["cohen_grade"]["n"] == 0


def invoke(*files: str) -> Result:
    return CliRunner().invoke(cli, ["agree", *files])


def test_lines_for_people(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", [row(n, NAMES[n % 9], groundedness=n % 4) for n in range(30)])
    b = written(tmp_path / "b.jsonl", [row(n, NAMES[n % 8], groundedness=n % 4) for n in range(30)])
    done = invoke(a, b, "--bootstrap", "50")
    assert "30 turns of 10 conversations, matched by id" in done.stdout
    assert "a × b, 30 turns labelled by both" in done.stdout
    assert "  Cohen's kappa, grades (quadratic)        1.000 [1.000, 1.000]  n=30" in done.stdout
    assert "rows a, columns b" in done.stdout


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", [row(n, "generic") for n in range(3)])
    unlabelled = row(0, None)
    del unlabelled["label"]
    calls = {
        "only one rater": (good,),
        "no label; label the turns with": (good, written(tmp_path / "u.jsonl", [unlabelled])),
        "label 'bad' is none of malformed": (good, written(tmp_path / "b.jsonl", [row(0, "bad")])),
        "no turn is in two of the files": (good, written(tmp_path / "o.jsonl", [row(50, "generic")])),
        "no such file": (good, str(tmp_path / "none.jsonl")),
        "no row that could be used": (good, written(tmp_path / "x.jsonl", [{"turn": "x"}])),
    }
    for what, files in calls.items():
        done = invoke(*files)
        assert isinstance(done.exception, UsageError), what
        assert what in str(done.exception)
        assert "\n" not in str(done.exception)


def test_a_file_does_not_agree_with_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [row(n, "generic") for n in range(3)])
    with pytest.raises(UsageError, match="given twice"):
        CliRunner().invoke(cli, ["agree", path, path], catch_exceptions=False)


def test_a_folder_of_judged_turns_is_a_rater(tmp_path: Path) -> None:
    contexts = [{"id": f"c{n}", "messages": row(3 * n, None)["messages"]} for n in range(3)]
    turns = [
        {
            "id": f"x/{n}",
            "context": f"c{n // 3}",
            "source": "s",
            "text": f"turn {n}",
            "label": NAMES[n],
            "groundedness": 1,
        }
        for n in range(9)
    ]
    folder = tmp_path / "shipped"
    folder.mkdir()
    written(folder / "contexts.jsonl", contexts)
    written(folder / "judged_turns.jsonl", turns)
    found = agree(str(folder), written(tmp_path / "a.jsonl", [row(n, NAMES[n], groundedness=1) for n in range(9)]))
    assert (found["raters"][0]["name"], found["matched_by"], found["turns"]) == ("shipped", "messages and turn", 9)
    assert found["pairs"][0]["cohen_label"]["value"] == 1.0
