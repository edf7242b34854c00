"""Only that is shown in which runs differ."""

from agebench.comparison.parameters import differing, short_names, tell
from agebench.runs.read import read_run


def test_a_group_is_told_by_its_choice_and_not_by_its_keys(make_run) -> None:
    runs = [read_run(make_run("a")), read_run(make_run("b", head="coral", config={"head.sharpness": 2}))]

    assert differing(runs) == [{"head": "softmax"}, {"head": "coral"}]


def test_a_key_is_shown_if_it_differs_within_a_choice(make_run) -> None:
    runs = [
        read_run(make_run("a", config={"optim.lr": 0.1, "head.decode": "mean"})),
        read_run(make_run("b", config={"optim.lr": 0.01, "head.decode": "mean"})),
        read_run(make_run("c", head="coral", config={"optim.lr": 0.1, "head.decode": "mode"})),
    ]

    assert differing(runs) == [
        {"head": "softmax", "optim.lr": 0.1},
        {"head": "softmax", "optim.lr": 0.01},
        {"head": "coral", "optim.lr": 0.1},
    ]


def test_a_key_that_was_typed_is_shown_if_it_differs_at_all(make_run) -> None:
    runs = [
        read_run(make_run("a", config={"head.decode": "mean"}, typed=["head.decode=mean", "optim.lr=0.001"])),
        read_run(make_run("b", head="coral", config={"head.decode": "mode"})),
    ]

    assert differing(runs) == [
        {"head": "softmax", "head.decode": "mean"},
        {"head": "coral", "head.decode": "mode"},
    ]


def test_what_has_no_effect_is_no_parameter(make_run) -> None:
    runs = [
        read_run(make_run("a", typed=["data.num_workers=2"], config={"data.num_workers": 2, "data.root": "/x"})),
        read_run(make_run("b", seed=5, choices={"experiment": "other", "hydra/launcher": "joblib"})),
    ]

    assert differing(runs) == [{}, {}]


def test_a_class_of_ones_own_is_told_by_its_name(make_run) -> None:
    own = {"head._target_": "mine.heads.Cascade"}
    runs = [
        read_run(make_run("a", config=own, typed=["head._target_=mine.heads.Cascade"])),
        read_run(make_run("b", head="coral")),
    ]
    by_file = [read_run(make_run("c", config={"model._target_": "nets.Tiny"})), read_run(make_run("d"))]

    assert differing(runs) == [{"head": "Cascade"}, {"head": "coral"}]
    assert differing(by_file) == [{"model": "Tiny"}, {"model": "create_model"}]


def test_images_are_a_column_if_nothing_else_tells_two_apart(make_run) -> None:
    runs = [read_run(make_run("a", data_sha="1234567")), read_run(make_run("b", data_sha="abcdefg"))]

    assert differing(runs, images=True) == [{"images": "1234567"}, {"images": "abcdefg"}]
    assert differing(runs) == [{}, {}]


def test_a_run_without_a_config_does_not_make_every_key_differ(make_run, tmp_path) -> None:
    (tmp_path / "bare").mkdir()
    runs = [
        read_run(make_run("a", config={"optim.lr": 0.1})),
        read_run(make_run("b")),
        read_run(tmp_path / "bare"),
    ]

    assert differing(runs) == [{"optim.lr": 0.1}, {"optim.lr": 0.001}, {"optim.lr": None}]


def test_columns_are_headed_by_the_last_word_where_it_is_enough() -> None:
    found = short_names(["optim.lr", "data/split", "head.loss", "model.loss", "seed"])

    assert list(found.values()) == ["lr", "split", "head.loss", "model.loss", "seed"]


def test_values_are_told_briefly() -> None:
    assert [tell(value) for value in (None, 0.001, 1e-05, [1, 0.5], True, "a\nb")] == [
        "-",
        "0.001",
        "1e-05",
        "[1,0.5]",
        "True",
        "a b",
    ]
