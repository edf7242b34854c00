import csv
from pathlib import Path

import numpy as np

from agebench.report.mistakes import write_mistakes
from agebench.report.outcome import Outcome


def read(path: Path) -> list[list[str]]:
    return list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))


def make(*, ordered: bool) -> Outcome:
    return Outcome(
        names=np.array(["right", "unsure", "sure"]),
        target=np.array([0, 0, 1]),
        posterior=np.array([[0.9, 0.1, 0.0], [0.4, 0.1, 0.5], [0.8, 0.2, 0.0]]),
        point=np.array([1.0, 3.0, 1.25]),
        values=np.array([1.0, 2.0, 3.0]),
        label_names=("10s", "20s", "30s"),
        ordered=ordered,
        unit="decades" if ordered else "",
    )


def test_nominal_mistakes_are_sorted_by_the_probability_of_the_wrong_class(tmp_path: Path) -> None:
    rows = read(write_mistakes(tmp_path / "mistakes.csv", make(ordered=False)))

    assert rows == [
        ["name", "target", "most_likely_label", "probability", "probability_of_target"],
        ["sure", "20s", "10s", "0.8000", "0.2000"],
        ["unsure", "10s", "30s", "0.5000", "0.4000"],
    ]


def test_ordered_mistakes_are_sorted_by_absolute_error(tmp_path: Path) -> None:
    rows = read(write_mistakes(tmp_path / "mistakes.csv", make(ordered=True)))

    assert rows[0][-2:] == ["point", "error_decades"]
    assert [(row[0], *row[-2:]) for row in rows[1:]] == [("unsure", "3.0000", "2.0000"), ("sure", "1.2500", "-0.7500")]


def test_invalid_bytes_of_a_file_name_are_escaped(tmp_path: Path) -> None:
    outcome = make(ordered=False)
    names = np.array(["a", "b", "caf\udce9.jpg"])
    odd = Outcome(names, outcome.target, outcome.posterior, outcome.point, outcome.values, ("1", "2", "3"), False, "")

    rows = read(write_mistakes(tmp_path / "mistakes.csv", odd))

    assert rows[1][0] == "caf\\udce9.jpg"
