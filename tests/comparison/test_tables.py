"""Which runs are ranked in one table, and the notes of the tables."""

import math

import numpy as np
import pytest
from scipy.stats import norm, t

from agebench.comparison.tables import compare
from agebench.errors import UserError
from agebench.runs.read import find_runs

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))


def compared(tmp_path, metric=None):
    return compare(find_runs([tmp_path]), metric)


def test_groups_are_ranked_by_their_means_and_equal_means_share_a_rank(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2, head="coral")
    make_run("b0", points=TARGETS + 1, head="corn")
    make_run("b1", points=TARGETS + 3, head="corn", seed=1)
    make_run("c", points=TARGETS - 1.5, head="orcnn")
    make_run("d", points=TARGETS + 9, head="sord")

    (table,) = compared(tmp_path).tables

    assert [(row.rank, row.group.params["head"]) for row in table.rows] == [
        (1, "orcnn"),
        (2, "coral"),
        (2, "corn"),
        (4, "sord"),
    ]
    assert [row.difference.value if row.difference else None for row in table.rows] == pytest.approx(
        [None, 0.5, 0.5, 7.5]
    )


@pytest.mark.parametrize(
    ("metric", "best_first"),
    [
        ("loss", [-1, 2, 3]),
        ("nll", [-1, 2, 3]),
        ("ece", [-1, 2, 3]),
        ("mae", [-1, 2, 3]),
        ("rmse", [-1, 2, 3]),
        ("median_error", [-1, 2, 3]),
        ("balanced_mae", [-1, 2, 3]),
        ("bias", [-1, 2, 3]),
        ("accuracy", [3, 2, -1]),
        ("top5", [3, 2, -1]),
        ("balanced_accuracy", [3, 2, -1]),
        ("macro_f1", [3, 2, -1]),
        ("cs5", [3, 2, -1]),
        ("within_1", [3, 2, -1]),
        ("qwk", [3, 2, -1]),
    ],
)
def test_the_best_value_of_each_metric_has_rank_1(make_run, tmp_path, metric, best_first) -> None:
    for value in (2, 3, -1):
        make_run(f"run{value}", config={"optim.lr": 10.0 + value}, metrics={f"test/{metric}": value})

    (table,) = compared(tmp_path, metric).tables

    assert [(row.rank, row.group.mean(f"test/{metric}")) for row in table.rows] == list(enumerate(best_first, start=1))


def test_p_values_are_corrected_for_the_number_of_rows(make_run, tmp_path) -> None:
    for i, head in enumerate(("a", "b", "c", "d")):
        make_run(head, points=TARGETS + i, head=head)

    (table,) = compared(tmp_path).tables

    # Every image differs by the same value, so no resample is on the other side of zero: 2 / 10,001 each, as a p-value
    # of Student's distribution for four people of three images, times three.
    smallest = 2 * t.sf(norm.isf(1 / 10_001) * math.sqrt(3 / 4), 3)
    assert [row.difference.p for row in table.rows[1:]] == pytest.approx([smallest] * 3)
    assert [row.adjusted for row in table.rows[1:]] == pytest.approx([3 * smallest] * 3)
    assert "95% intervals over only 4 people hold less often than 95% of the time: see docs/heads.md" in table.notes


def test_runs_of_different_protocols_have_separate_tables(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b", points=TARGETS + 1, protocol="demo/random/age", split_sha="eeee")

    found = compared(tmp_path)

    assert [table.protocol for table in found.tables] == ["demo/official/age", "demo/random/age"]
    assert [len(table.rows) for table in found.tables] == [1, 1]
    assert found.not_comparable == (
        "these runs are not comparable: they were tested under different protocols "
        "(demo/official/age, demo/random/age); each has its own table"
    )


def test_runs_with_different_test_images_have_separate_tables(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b", points=TARGETS + 1, split_sha="eeeeffffgggg")

    found = compared(tmp_path)

    assert len(found.tables) == 2
    assert "on different test images (demo/official/age: split_sha aaaabbbb, eeeeffff)" in found.not_comparable


def test_runs_with_different_training_images_are_in_one_table_with_a_note(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b", points=TARGETS + 1, data_sha="feed")

    (table,) = compared(tmp_path).tables

    assert table.parameters == ("images",)
    assert [note for note in table.notes if "data_sha" in note] == [
        "not all runs were trained and validated on the same images: data_sha is 1111222233334444 and feed"
    ]


def test_the_table_of_a_leaking_split_has_the_identity_lookup_as_a_baseline(make_run, tmp_path) -> None:
    leak = {"test_identity_in_train": 1.0, "lookup_mae": 2.5, "median_mae": 12.0, "lookup_accuracy": 0.1}
    leak |= {"majority_accuracy": 0.02, "unit": "years"}
    make_run("a", points=TARGETS + 2, leak=leak)
    make_run("b", points=TARGETS + 3, leak=leak, seed=1)

    (table,) = compared(tmp_path).tables

    assert [(each.name, each.metrics) for each in table.baselines] == [
        ("identity looked up", {"test/mae": 2.5}),
        ("always the median", {"test/mae": 12.0}),
    ]
    assert table.notes[0].startswith(
        "the split leaks: 100.0% of the test images show an identity that is also in train"
    )


def test_the_leak_of_some_groups_names_them(make_run, tmp_path) -> None:
    leak = {"test_identity_in_train": 0.5, "lookup_accuracy": 0.7, "majority_accuracy": 0.2, "unit": ""}
    shared = {"protocol": "demo/official/class"}
    make_run("a", points=TARGETS + 2, leak=leak, **shared)
    make_run("b", points=TARGETS + 3, head="coral", leak={"images": 3, "identities": 0}, **shared)
    make_run("c", points=TARGETS + 3, head="corn", **shared)

    (table,) = compared(tmp_path).tables

    assert [(each.name, each.metrics) for each in table.baselines] == [
        ("identity looked up (softmax)", {"test/accuracy": 0.7}),
        ("most common label (softmax)", {"test/accuracy": 0.2}),
    ]
    assert any(
        note.startswith("the test set leaks (coral): 3 of its images were used to train") for note in table.notes
    )


def test_unfinished_runs_are_listed_and_never_ranked(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b", points=TARGETS + 1, seed=1, status="failed", error="ValueError: no\nmore")
    make_run("c", points=TARGETS + 1, seed=2, status="interrupted")
    make_run("d", seed=3, status="running")

    found = compared(tmp_path)

    assert len(found.tables[0].runs) == 1
    assert [(run.folder.name, run.status, run.error) for run in found.unranked[:2]] == [
        ("b", "failed", "ValueError: no"),
        ("c", "interrupted", ""),
    ]
    name, status, error = found.unranked[2].folder.name, found.unranked[2].status, found.unranked[2].error
    assert (name, status) == ("d", "crashed")  # no process holds its lock
    assert "without a final status" in error


def test_a_diverged_group_is_last_and_has_a_note(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b0", points=TARGETS + 1, head="coral", metrics={"test/mae": None, "test/accuracy": None})
    make_run("b1", points=TARGETS + 1, head="coral", seed=1)

    (table,) = compared(tmp_path).tables

    assert [(row.rank, row.group.params["head"]) for row in table.rows] == [(1, "softmax"), (None, "coral")]
    assert "coral: 1 of 2 runs diverged (null metrics), so there is no mean" in table.notes


def test_different_devices_versions_and_code_have_a_note(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 2)
    make_run("b", points=TARGETS + 1, seed=1, versions={"torch": "2.6.0"}, device="NVIDIA H200", threads=8, git="def")

    (table,) = compared(tmp_path).tables

    assert table.notes == (
        "95% intervals over only 4 people hold less often than 95% of the time: see docs/heads.md",
        "not all runs have the same environment: torch 2.15.0 and 2.6.0; device NVIDIA H200 and cpu; threads 1 and 8; "
        "git abc and def",
    )


@pytest.mark.parametrize(
    ("codes", "heads", "sentence"),
    [
        (["aaa", "bbb"], ["softmax", "softmax"], "softmax: trained with different code of lab.Net: aaa and bbb"),
        (["aaa", "bbb"], ["softmax", "coral"], "not all runs were trained with the same code of lab.Net: aaa and bbb"),
        (["aaa", "aaa"], ["softmax", "coral"], None),
        (["aaa", None], ["softmax", "softmax"], None),  # a run of an older version
    ],
)
def test_runs_of_different_own_code_have_a_note(make_run, tmp_path, codes, heads, sentence) -> None:
    for seed, (sha, head) in enumerate(zip(codes, heads, strict=True)):
        own = {"code": {"lab.Net": sha, "lab.Source": "fff"}} if sha else {}
        make_run(f"run{seed}", points=TARGETS + 1, head=head, seed=seed, choices={"model": "net"}, **own)

    (table,) = compared(tmp_path).tables

    found = [note for note in table.notes if "code" in note]
    assert [note.removeprefix("net-") for note in found] == ([sentence] if sentence else [])


def test_a_run_that_was_resumed_with_other_code_has_a_note(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS, code={"lab.Net": "bbb"}, earlier_code=[{"lab.Net": "aaa"}, "damaged"])

    (table,) = compared(tmp_path).tables

    assert any(note.endswith("trained with different code of lab.Net: aaa and bbb") for note in table.notes)


@pytest.mark.parametrize("tested", ["best", "last"])
def test_only_an_epoch_selected_on_the_test_images_has_a_note(make_run, tmp_path, tested) -> None:
    make_run("a", points=TARGETS + 2, data={"test": 12, "val_is_test": True}, best={"epoch": 3, "tested": tested})

    (table,) = compared(tmp_path).tables

    notes = [
        note for note in table.notes if note.startswith("val is the test part: the best epoch was selected on the")
    ]
    assert len(notes) == (tested == "best")


def test_a_group_without_predictions_has_a_rank_but_no_difference(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1)
    make_run("b", points=TARGETS + 2, head="coral")
    (make_run("c", points=TARGETS + 3, head="corn") / "predictions.csv").unlink()

    (table,) = compared(tmp_path).tables

    assert [row.rank for row in table.rows] == [1, 2, 3]
    assert [row.difference is None for row in table.rows] == [True, False, True]
    assert "no paired difference: c has no predictions.csv" in table.notes


def test_the_metric_can_be_given_with_or_without_its_part(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1)
    make_run("b", points=TARGETS - 0.2, head="coral")

    assert compared(tmp_path, "cs5").tables[0].metric == compared(tmp_path, "test/cs5").tables[0].metric == "test/cs5"
    assert [row.group.params["head"] for row in compared(tmp_path, "accuracy").tables[0].rows] == ["coral", "softmax"]
    with pytest.raises(UserError, match=r"no run here has the metric 'maee' \(did you mean 'mae'\?\); known: acc"):
        compared(tmp_path, "maee")


def test_a_metric_that_is_not_a_mean_over_images_has_ranks_but_no_differences(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1)
    make_run("b", points=TARGETS + 2, head="coral")

    for metric, why in (
        ("rmse", "rmse is not a mean over images"),
        ("loss", "--metric nll"),
        ("bias", "absolute bias"),
    ):
        (table,) = compared(tmp_path, metric).tables
        assert table.paired is None
        assert any(why in note for note in table.notes)


def test_a_table_without_the_metric_uses_its_main_metric_and_has_a_note(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1)
    make_run("b", protocol="digits/random/class", metrics={"test/accuracy": 0.9})

    found = compared(tmp_path, "mae")

    assert [table.metric for table in found.tables] == ["test/mae", "test/accuracy"]
    assert "no run of this table has mae: it is ranked by accuracy" in found.tables[1].notes


def test_a_run_with_few_results_is_ranked(make_run, tmp_path) -> None:
    folder = make_run("a")
    (folder / "results.json").write_text('{"status": "completed", "metrics": {"test/accuracy": 0.5}}')

    (table,) = compared(tmp_path).tables

    assert (table.rows[0].rank, table.images, table.unit) == (1, None, "")


def test_losses_of_different_heads_are_not_ranked(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1, head="softmax")
    make_run("b", points=TARGETS + 1, head="corn")

    (table,) = compared(tmp_path, "loss").tables

    assert [row.rank for row in table.rows] == [None, None]
    assert any("losses of different heads are not comparable" in note for note in table.notes)
    assert [row.rank for row in compared(tmp_path, "MAE").tables[0].rows] == [1, 1]


def test_a_balanced_error_without_an_interval_has_a_note(make_run, tmp_path) -> None:
    for head, bounds in (("coral", [1.0, 3.0]), ("softmax", [None, None])):
        make_run(head, head=head, metrics={"test/balanced_mae": 2.0}, intervals={"test/balanced_mae": bounds})

    (table,) = compare(find_runs([tmp_path]), "balanced_mae").tables

    assert [row.interval for row in table.rows] == [(1.0, 3.0), None]
    assert "balanced_mae has no interval: a decade or label of the test has fewer than 5 images" in table.notes
