"""The summary files of a sweep."""

import csv
from itertools import product

import numpy as np
import pytest

from agebench.comparison.sweep import write_sweep

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))


def test_every_point_has_a_row_also_if_it_is_not_finished(make_run, tmp_path) -> None:
    sweep = tmp_path / "sweep"
    make_run("sweep/lr-0.1_seed-0", points=TARGETS + 1, config={"optim.lr": 0.1})
    make_run("sweep/lr-0.2_seed-0", points=TARGETS + 2, config={"optim.lr": 0.2})
    make_run("sweep/lr-0.2_seed-1", config={"optim.lr": 0.2}, seed=1, status="failed", error="OSError: gone", best=None)
    make_run("sweep/lr-0.2_seed-0/evaluate/later", points=TARGETS + 2)
    (sweep / "lr-0.2_seed-2" / ".hydra").mkdir(parents=True)

    write_sweep(sweep)

    with (sweep / "sweep.csv").open(newline="", encoding="utf-8-sig") as lines:
        rows = list(csv.DictReader(lines))
    assert [(row["point"], row["status"], row["seed"], row["optim.lr"]) for row in rows] == [
        ("lr-0.1_seed-0", "completed", "0", "0.1"),
        ("lr-0.2_seed-0", "completed", "0", "0.2"),
        ("lr-0.2_seed-1", "failed", "1", "0.2"),
        ("lr-0.2_seed-2", "not started", "", ""),
    ]
    assert [row["test/mae"] for row in rows] == ["1", "2", "", ""]
    assert [(row["best_epoch"], row["best_value"], row["fit_s"]) for row in rows[1:3]] == [
        ("3", "2.5", "60.4"),
        ("", "", "60.4"),
    ]
    assert rows[2]["error"] == "OSError: gone"
    text = (sweep / "sweep.md").read_text(encoding="utf-8")
    assert text.startswith("# sweep: 2 of 4 points completed\n\n## demo/official/age: 12 test images")
    assert "| lr-0.2_seed-2 | not started |   - |    - |" in text
    assert "| OSError: gone |" in text
    header, points = (
        [[cell.strip() for cell in line.split("|")] for line in text.splitlines() if line.startswith(start)]
        for start in ("| point", "| lr-")
    )
    assert [row[header[0].index("at epoch")] for row in points] == ["4", "4", "-", "-"]  # epoch 3, counted from 1
    assert not list(sweep.glob("*.part"))


def test_a_sweep_on_faces_of_unknown_people_says_so(make_run, tmp_path, caplog) -> None:
    for lr in (0.1, 0.2):
        make_run(
            f"sweep/lr-{lr}",
            points=TARGETS + 1,
            people=[""] * 12,
            config={"optim.lr": lr},
            bootstrap={"over": "image", "groups": 12},
        )

    write_sweep(tmp_path / "sweep")

    sentence = "the identities of the people are unknown, so the same person may be in train and test"
    assert [record.message for record in caplog.records] == [sentence]
    for name in ("sweep.md", "sweep.html"):
        assert sentence in " ".join((tmp_path / "sweep" / name).read_text(encoding="utf-8").split())


def test_a_planned_point_without_a_folder_is_counted(make_run, tmp_path) -> None:
    sweep = tmp_path / "sweep"
    run = make_run("sweep/lr-0.1", points=TARGETS + 1, config={"optim.lr": 0.1})

    write_sweep(sweep, [run, sweep / "lr-0.2"])

    with (sweep / "sweep.csv").open(newline="", encoding="utf-8-sig") as lines:
        assert [(row["point"], row["status"]) for row in csv.DictReader(lines)] == [
            ("lr-0.1", "completed"),
            ("lr-0.2", "not started"),
        ]
    assert (sweep / "sweep.md").read_text(encoding="utf-8").startswith("# sweep: 1 of 2 points completed\n")
    assert "1 of 2 points completed" in (sweep / "sweep.html").read_text(encoding="utf-8")


def test_the_pictures_of_a_sweep_are_drawn(make_run, tmp_path) -> None:
    for i, (lr, decay) in enumerate(((0.1, 0), (0.2, 0), (0.1, 0.5))):
        make_run(f"sweep/{i}", points=TARGETS + i, config={"optim.lr": lr, "optim.weight_decay": decay})

    write_sweep(tmp_path / "sweep")

    assert {path.name for path in (tmp_path / "sweep").glob("*.png")} == {"ranking.png", "curves.png", "parallel.png"}


@pytest.mark.parametrize(
    ("points", "key"),
    [
        # Two keys have numbers; the one with more values is the axis.
        ([(lr, decay) for lr in (1e-3, 1e-2, 1e-1) for decay in (0, 1)], "optim.lr"),
        ([(lr, decay) for lr in (1e-3, 1e-2, 1e-1) for decay in (0, 1, 2, 3)], "optim.weight_decay"),
        ([(1e-3, 0), (1e-2, 0), (1e-3, 1)], None),  # two values are no curve
        ([(1e-3, 1), (1e-2, 2), (1e-1, 3)], None),  # no two points differ in one key alone
    ],
)
def test_a_sweep_over_three_numbers_or_more_has_a_picture_of_them(make_run, tmp_path, monkeypatch, points, key) -> None:
    settings: list[str] = []
    monkeypatch.setattr("agebench.report.tuning.draw_tuning", lambda lines, **about: settings.append(about["setting"]))
    for i, (lr, decay) in enumerate(points):
        make_run(f"sweep/{i}", points=TARGETS + i, config={"optim.lr": lr, "optim.weight_decay": decay})

    write_sweep(tmp_path / "sweep")

    assert [text.rpartition("(")[2].rstrip(")") for text in settings] == ([] if key is None else [key])


def test_the_picture_over_the_learning_rate_has_a_line_per_optimizer(make_run, tmp_path, monkeypatch) -> None:
    drawn: list[dict[str, dict[float, list[float]]]] = []
    monkeypatch.setattr("agebench.report.tuning.draw_tuning", lambda lines, **_: drawn.append(lines))
    for i, (optim, lr, seed) in enumerate(product(("adamw", "sgd"), (1e-3, 1e-2, 1e-1), (0, 1))):
        more = {"choices": {"optim": optim}, "config": {"optim.lr": lr, "optim._target_": optim}, "seed": seed}
        make_run(f"sweep/{i}", points=TARGETS + i, **more)

    write_sweep(tmp_path / "sweep")

    # Run i is i years off on all images.
    assert drawn == [
        {
            "adamw": {1e-3: [0, 1], 1e-2: [2, 3], 1e-1: [4, 5]},
            "sgd": {1e-3: [6, 7], 1e-2: [8, 9], 1e-1: [10, 11]},
        }
    ]


def test_the_curves_of_a_sweep_are_labelled_by_the_settings_that_differ(make_run, tmp_path, monkeypatch) -> None:
    labels: list[str] = []
    monkeypatch.setattr(
        "matplotlib.figure.Figure.legend",
        lambda figure, handles, **_: labels.extend(handle.get_label() for handle in handles),
    )
    for i, (lr, decay) in enumerate(((0.1, 0), (0.2, 0), (0.1, 0.5))):
        make_run(f"sweep/{i}", points=TARGETS + i, config={"optim.lr": lr, "optim.weight_decay": decay})

    write_sweep(tmp_path / "sweep")

    assert labels == ["lr   weight_decay", "0.1  0", "0.2  0", "0.1  0.5"]


def test_unreadable_points_are_listed_without_an_error(make_run, tmp_path, caplog) -> None:
    sweep = tmp_path / "sweep"
    make_run("sweep/good", points=TARGETS + 1)
    for name, text in {
        "list": "[]",
        "empty": "",
        "bare": '{"status": "completed"}',
        "bad": '{"status": "x", "seed": []}',
    }.items():
        (sweep / name).mkdir()
        (sweep / name / "results.json").write_text(text)
    (sweep / "bare" / "metrics.csv").write_bytes(b"\xff\xfe")

    write_sweep(sweep)

    with (sweep / "sweep.csv").open(newline="", encoding="utf-8-sig") as lines:
        status = {row["point"]: row["status"] for row in csv.DictReader(lines)}
    assert status == {
        "bad": "x",
        "bare": "completed",
        "empty": "unreadable",
        "good": "completed",
        "list": "unreadable",
    }
    assert "could not" not in caplog.text


def test_a_sweep_without_points_or_without_a_folder_raises_no_error(tmp_path, caplog) -> None:
    write_sweep(tmp_path)
    write_sweep(tmp_path / "nowhere")

    assert (tmp_path / "sweep.md").read_text() == f"# {tmp_path.name}: 0 of 0 points completed\n"
    assert "nowhere" in caplog.text
