"""The folder and the command line that the launcher gives a point."""

from types import SimpleNamespace

import pytest

from agebench.errors import UserError
from hydra_plugins.agebench_launcher import launcher


@pytest.mark.parametrize(
    ("existing", "asked", "expected"),
    [
        ([], "lr-0.1-abc123", "lr-0.1-abc123"),
        (["seed-0_lr-0.1-abc123"], "lr-0.1-abc123", "seed-0_lr-0.1-abc123"),
        (["lr-0.1-abc123"], "seed-0_lr-0.1-abc123", "lr-0.1-abc123"),
        (["seed-0_lr-0.1-abc123", "seed-0-abc123"], "lr-0.1-abc123", "lr-0.1-abc123"),  # ambiguous
        (["seed-0_lr-0.1-def456"], "lr-0.1-abc123", "lr-0.1-abc123"),
        (["seed-0_lr-0.1-fabc123"], "lr-0.1-abc123", "lr-0.1-abc123"),  # a longer hash with the same end
    ],
)
def test_a_point_keeps_the_only_folder_with_its_hash(tmp_path, existing, asked, expected) -> None:
    for name in existing:
        (tmp_path / name).mkdir()

    assert launcher._find_renamed(tmp_path / asked) == tmp_path / expected


def test_a_folder_of_another_sweep_is_not_used(tmp_path) -> None:
    (tmp_path / "other" / "seed-0-abc123").mkdir(parents=True)
    (tmp_path / "sweep").mkdir()

    assert launcher._find_renamed(tmp_path / "sweep" / "lr-0.1-abc123") == tmp_path / "sweep" / "lr-0.1-abc123"


def test_a_point_gets_its_overrides_and_the_sweeps_settings_but_not_the_settings_of_the_sweeper(
    monkeypatch, tmp_path
) -> None:
    ours = ["hydra.mode=MULTIRUN", "hydra/sweeper=optuna", "+hydra.sweeper.n_jobs=2", "hydra.verbose=true"]
    plugin = launcher.AgebenchLauncher()
    plugin.config = SimpleNamespace(hydra=SimpleNamespace(overrides=SimpleNamespace(hydra=ours)))
    monkeypatch.setattr("sys.argv", ["agebench-train", "-m", "--config-dir", "mine", "optim.lr=1,2"])

    line = plugin._command(["optim.lr=2"], tmp_path / "lr-2-abc123", 1)

    assert line == [
        "--config-dir",
        "mine",
        "optim.lr=2",
        "hydra.verbose=true",
        f"hydra.run.dir='{tmp_path}/lr-2-abc123'",  # as Hydra quotes a value
        "hydra.mode=RUN",
        "hydra.job.num=1",
    ]


@pytest.mark.parametrize(
    ("sweeps", "folders", "message"),
    [
        (("x", "y"), ("a", "b"), "sweep must be one name for all points, got x, y"),
        (("x", "x"), ("a", "a"), "two points of the sweep would write to .*a: they are the same run"),
    ],
)
def test_points_that_do_not_belong_together_are_refused(compose_config, tmp_path, sweeps, folders, message) -> None:
    composed = [
        launcher.Composed(i, [], compose_config("data=digits", f"sweep={sweep}"), tmp_path / folder)
        for i, (sweep, folder) in enumerate(zip(sweeps, folders, strict=True))
    ]

    with pytest.raises(UserError, match=message):
        launcher.AgebenchLauncher()._check(composed, None)
