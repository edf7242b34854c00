"""The parameters in which runs differ."""

from agebench.comparison.parameters import differing, format_value, short_names
from agebench.runs.read import read_run


def test_a_config_group_is_represented_by_its_choice(make_run) -> None:
    runs = [read_run(make_run("a")), read_run(make_run("b", head="coral", config={"head.sharpness": 2}))]

    assert differing(runs) == [{"head": "softmax"}, {"head": "coral"}]


def test_groups_are_in_the_order_of_a_command_and_before_single_keys(make_run) -> None:
    first = {"data": "demo", "model": "mlp", "optim": "adam", "trainer": "cpu"}
    second = {"data": "cacd", "model": "timm", "optim": "sgd", "trainer": "gpu"}
    runs = [
        read_run(make_run("a", choices=first, config={"seed_of_split": 1}, typed=["seed_of_split=1"])),
        read_run(make_run("b", choices=second, head="coral", config={"seed_of_split": 2})),
    ]

    params = differing(runs)

    assert list(params[0]) == ["data", "model", "head", "optim", "trainer", "seed_of_split"]


def test_a_key_that_differs_within_a_choice_is_a_parameter(make_run) -> None:
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


def test_an_override_that_differs_is_a_parameter(make_run) -> None:
    runs = [
        read_run(make_run("a", config={"head.decode": "mean"}, typed=["head.decode=mean", "optim.lr=0.001"])),
        read_run(make_run("b", head="coral", config={"head.decode": "mode"})),
    ]

    assert differing(runs) == [
        {"head": "softmax", "head.decode": "mean"},
        {"head": "coral", "head.decode": "mode"},
    ]


def test_keys_without_effect_are_not_parameters(make_run) -> None:
    runs = [
        read_run(make_run("a", typed=["data.num_workers=2"], config={"data.num_workers": 2, "data.root": "/x"})),
        read_run(make_run("b", seed=5, choices={"experiment": "other", "hydra/launcher": "joblib"})),
    ]

    assert differing(runs) == [{}, {}]


def test_a_custom_class_is_represented_by_its_name(make_run) -> None:
    own = {"head._target_": "mine.heads.Cascade"}
    runs = [
        read_run(make_run("a", config=own, typed=["head._target_=mine.heads.Cascade"])),
        read_run(make_run("b", head="coral")),
    ]
    by_file = [read_run(make_run("c", config={"model._target_": "nets.Tiny"})), read_run(make_run("d"))]

    assert differing(runs) == [{"head": "Cascade"}, {"head": "coral"}]
    assert differing(by_file) == [{"model": "Tiny"}, {"model": "create_model"}]


def test_a_recipe_is_a_parameter_without_its_parts_and_older_runs_have_none(make_run) -> None:
    recipes = {"recipe": "plain", "recipe@optim": "_plain_adamw", "recipe@head": "_plain_softmax"}
    none = {"recipe": "none", "recipe@optim": "_none_adamw", "recipe@head": "_none_softmax"}
    with_recipe, without, older = (
        read_run(make_run(name, choices=choices)) for name, choices in (("a", recipes), ("b", none), ("c", {}))
    )

    assert differing([with_recipe, older]) == [{"recipe": "plain"}, {"recipe": None}]
    assert differing([without, older]) == [{}, {}]


def test_the_training_images_are_a_parameter_if_all_others_are_equal(make_run) -> None:
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


def test_short_names_are_the_last_component_unless_it_is_ambiguous() -> None:
    found = short_names(["optim.lr", "data/split", "head.loss", "model.loss", "seed"])

    assert list(found.values()) == ["lr", "split", "head.loss", "model.loss", "seed"]


def test_values_have_a_short_text() -> None:
    assert [format_value(value) for value in (None, 0.001, 1e-05, [1, 0.5], True, "a\nb")] == [
        "-",
        "0.001",
        "1e-05",
        "[1,0.5]",
        "True",
        "a b",
    ]
