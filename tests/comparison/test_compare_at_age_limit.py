"""`compare --age-limit`: decisions of all runs at one age limit, from predictions.csv."""

import json
import sys

import numpy as np
import pytest

from agebench.compare import main
from agebench.comparison.decisions import at_age_limit
from agebench.comparison.render import to_markdown
from agebench.comparison.tables import compare, shown_metrics
from agebench.errors import UserError
from agebench.runs.read import find_runs, read_run

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))  # of four people, six images are below 24


def decided(limit: float, rate: float) -> dict:
    return {
        "metrics": {"test/mae": 1.0, "test/false_adult_rate": rate, "test/false_adult_rate_at_28": rate},
        "intervals": {"test/mae": [0.5, 1.5], "test/false_adult_rate": [0, 1]},
        "decision": {"age_limit": limit},
    }


def test_all_runs_get_the_decisions_at_the_given_limit(make_run) -> None:
    runs = [read_run(make_run("old", points=TARGETS + 2)), read_run(make_run("good", points=TARGETS, head="coral"))]

    found, notes = at_age_limit(runs, 24)
    table = compare(found, "false_adult_rate").tables[0]

    assert not notes
    assert [run.metrics["test/false_adult_rate"] for run in found] == [2 / 6, 0]  # 22 and 23 are judged 24 and 25
    assert [run.metrics["test/false_minor_rate"] for run in found] == [0, 0]
    assert found[0].metrics["test/mae"] == 2
    assert [row.group.runs[0].folder.name for row in table.rows] == ["good", "old"]
    assert table.metric == "test/false_adult_rate"
    assert "test/false_minor_rate" in shown_metrics(table)
    low, high = found[1].result("intervals", "test/false_adult_rate")
    assert low == 0
    assert high > 0.5  # few people


def test_a_run_without_a_posterior_gets_the_decisions_without_the_area_under_the_curve(make_run) -> None:
    folder = make_run("points", points=TARGETS + 2, left_out={"metrics": ["nll"], "has_posterior": False})
    header, *rows = (folder / "predictions.csv").read_text().splitlines()
    empty = [",".join([*row.split(",")[:4], *[""] * 10, "demo/official/age"]) for row in rows]
    (folder / "predictions.csv").write_text("\n".join([header, *empty]) + "\n")

    (found,), notes = at_age_limit([read_run(folder)], 24)

    assert not notes
    assert found.metrics["test/false_adult_rate"] == 2 / 6
    assert "test/limit_auc" not in found.metrics


def test_the_metrics_at_another_limit_are_replaced(make_run) -> None:
    earlier = decided(21, 0.5)
    earlier["metrics"]["test/mae"] = 2.0
    run = read_run(make_run("a", points=TARGETS + 2, **earlier))

    (found,), _ = at_age_limit([run], 24)

    assert found.metrics["test/false_adult_rate"] == 2 / 6
    assert "test/false_adult_rate_at_28" not in found.metrics
    assert found.metrics["test/false_adult_rate_at_25"] == 1 / 6  # 23 is judged 25
    assert found.result("decision", "age_limit") == 24


def test_runs_with_different_limits_are_not_compared_by_their_decisions(make_run) -> None:
    runs = [read_run(make_run("a", **decided(18, 0.1))), read_run(make_run("b", head="coral", **decided(21, 0.2)))]

    (table,) = compare(runs, "false_adult_rate").tables

    assert table.metric == "test/mae"
    assert not [name for name in shown_metrics(table) if "false" in name]
    assert "decisions are not compared: the age limits are 18, 21; --age-limit N sets one" in table.notes


def test_a_run_of_classes_has_no_decisions_and_a_note(make_run) -> None:
    runs = [
        read_run(make_run("ages", points=TARGETS)),
        read_run(make_run("classes", points=TARGETS, protocol="digits/random/class")),
    ]

    found, notes = at_age_limit(runs, 24)

    assert [bool(run.result("decision")) for run in found] == [True, False]
    assert notes == [
        "classes: age_limit=24 needs ages, and data.target is class: set data.target=age, or age_limit=null"
    ]


@pytest.mark.parametrize(
    ("limit", "sentence"),
    [
        (18, "needs labels on both sides, and these start at 20 and end at 29 years"),
        (-1, "needs labels on both sides"),
        (99, "needs labels on both sides"),
    ],
)
def test_a_limit_that_no_run_can_have_is_an_error(make_run, limit, sentence) -> None:
    with pytest.raises(UserError, match=sentence):
        at_age_limit([read_run(make_run("a", points=TARGETS))], limit)


def test_a_run_without_predictions_cannot_have_decisions(make_run) -> None:
    folder = make_run("a", points=TARGETS)
    (folder / "predictions.csv").unlink()

    with pytest.raises(UserError, match=r"a has no predictions\.csv"):
        at_age_limit([read_run(folder)], 24)


def test_the_command_writes_the_rates_of_all_groups(make_run, monkeypatch, capsys) -> None:
    folder = make_run("runs/a", points=TARGETS + 2).parent
    make_run("runs/b", points=TARGETS, head="coral")
    line = ["compare", str(folder), "--age-limit", "24", "--metric", "false_adult_rate", "--format", "json"]
    monkeypatch.setattr(sys, "argv", line)

    main()

    groups = json.loads(capsys.readouterr().out)["tables"][0]["groups"]
    assert [group["metrics"]["test/false_adult_rate"]["mean"] for group in groups] == [0, pytest.approx(1 / 3)]
    assert groups[0]["interval"][1] > 0.5


def test_a_column_of_decisions_names_its_age(make_run, tmp_path) -> None:
    rates = {"test/mae": 1.0, "test/false_adult_rate": 0.5, "test/false_adult_rate_at_28": 0.25, "test/limit_auc": 0.9}
    decision = {"age_limit": 25.0}
    for head in ("coral", "softmax"):
        make_run(head, head=head, points=[20.0] * 12, metrics=rates, decision=decision)

    text = to_markdown(compare(find_runs([tmp_path]), columns=["false_adult_rate*", "limit_auc"]))

    header = [cell.strip() for cell in text.splitlines()[2].split("|")]
    ages = ["false_adult_rate (age limit 25)", "false_adult_rate_at_28", "limit_auc (age limit 25)"]
    assert [name for name in header if "_" in name] == ages
