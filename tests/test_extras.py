"""Extras (launchers, Optuna) and the sweep experiments: composed here, run only if the extra is installed."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from agebench.build import build_monitor
from agebench.cli.messages import install_command
from agebench.cli.rules import check_config
from agebench.errors import UserError
from agebench.sweep.session import SweepSession
from hydra_plugins.agebench_optuna.sweeper import StudySweeper, TrialLauncher, direction

QUICK = ("data=digits", "model=mlp", "trainer.max_epochs=1", "report=false")
PLUGINS = {"ray": "hydra_ray_launcher", "slurm": "hydra_submitit_launcher", "optuna": "hydra_optuna_sweeper"}
BROKEN = "model._target_=no.such,agebench.models.mlp.MLP"
CHOICE = "model._target_=choice(no.such,agebench.models.mlp.MLP)"


def needs(extra: str) -> pytest.MarkDecorator:
    try:
        there = find_spec(f"hydra_plugins.{PLUGINS[extra]}") is not None
    except ModuleNotFoundError:
        there = False
    return pytest.mark.skipif(not there, reason=f"needs the extra: pip install agebench[{extra}]")


def train(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command train in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "agebench.train", *QUICK, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def statuses(folder: Path) -> list[str]:
    return sorted(json.loads(file.read_text())["status"] for file in folder.glob("*/results.json"))


GRIDS = {
    "sweep_lr": {"optim.lr": 5, "seed": 3},
    "sweep_optim": {"optim": 4, "optim.lr": 4},
    "sweep_epochs": {"trainer.max_epochs": 4, "seed": 3},
    "sweep_early_stopping": {"callbacks.early_stopping.patience": 4, "seed": 3},
}


@pytest.mark.parametrize("name", GRIDS)
def test_a_sweep_experiment_has_the_promised_points(conf, name) -> None:
    hydra = OmegaConf.load(conf / "experiment" / f"{name}.yaml").hydra

    assert hydra.mode == "MULTIRUN"
    assert {key: len(value.split(",")) for key, value in hydra.sweeper.params.items()} == GRIDS[name]


@pytest.mark.parametrize("name", GRIDS)
def test_every_point_of_a_sweep_experiment_is_valid(compose_config, conf, name) -> None:
    params = OmegaConf.load(conf / "experiment" / f"{name}.yaml").hydra.sweeper.params
    corners = [[f"{key}={value.split(',')[end]}" for key, value in params.items()] for end in (0, -1)]

    for corner in corners:
        check_config(compose_config(f"experiment={name}", "data=demo", "model=lenet", *corner))


@pytest.mark.parametrize(
    ("overrides", "better"),
    [
        ([], "maximize"),
        (["data=demo", "data.target=age"], "minimize"),
        (["data=demo", "data.target=decade"], "maximize"),
        (["monitor=val/loss"], "minimize"),
        (["data=demo", "monitor=val/mae"], "minimize"),
        (["data=demo", "monitor=val/bias"], "minimize"),
        (["data=demo", "data.target=age", "monitor=val/accuracy"], "maximize"),
    ],
)
def test_a_search_has_the_direction_of_the_monitored_metric(compose_config, overrides, better) -> None:
    config = compose_config(*overrides)

    assert direction(config) == better
    unit = "years" if config.data.target == "age" else ""
    assert build_monitor(config, unit=unit)[1] == better[:3]


@needs("ray")
def test_a_job_on_a_ray_cluster_has_a_new_process_and_a_cpu() -> None:
    ray = compose_hydra("hydra/launcher=ray_cluster").launcher.ray

    assert ray.init.object_store_memory is None
    assert "object_store_memory" in ray.init  # otherwise the plugin sets it, which is an error in Ray
    assert (ray.remote.max_calls, ray.remote.num_cpus) == (1, 1)


@needs("optuna")
def test_the_study_is_stored_in_the_folder_of_the_sweep() -> None:
    hydra = compose_hydra("experiment=sweep_optuna", "sweep=here", "paths.output=/out")

    assert hydra.sweeper._target_.endswith(".StudySweeper")
    assert hydra.sweeper.storage == "sqlite:////out/sweeps/here/study.db"
    assert hydra.sweeper.study_name == "here"
    assert hydra.sweeper.max_failure_rate == 1


def compose_hydra(*overrides: str):
    """Compose a config as a command does, and return Hydra's own config."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    OmegaConf.register_new_resolver("agebench.from", lambda folder, path: str(Path(folder, path)), replace=True)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        own = "hydra.runtime.cwd=/work"
        return compose("config", overrides=[own, *overrides], return_hydra_config=True).hydra


@pytest.fixture
def study(tmp_path, compose_config):
    """Return a function that creates a study with trials in given states, and a sweeper that resumes it."""
    optuna = pytest.importorskip("optuna", reason="needs the extra: pip install agebench[optuna]")

    def make(states: str) -> tuple[StudySweeper, SimpleNamespace]:
        made = optuna.create_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db", load_if_exists=True)
        for state in states.split():
            trial = made.ask({"x": optuna.distributions.CategoricalDistribution(["a", "b"])})
            if state != "RUNNING":
                made.tell(trial, 1.0 if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
        sweeper = StudySweeper()
        sweeper.config = compose_config()
        sweeper.sweeper = SimpleNamespace(n_trials=5, job_idx=0, params={"x": "choice(a,b)"}, storage="s.db")
        return sweeper, made

    return make


@needs("optuna")
def test_ended_trials_count_and_an_interrupted_one_is_repeated_with_its_values(study) -> None:
    sweeper, made = study("COMPLETE FAIL RUNNING")
    interrupted = made.trials[2].params

    sweeper._resume(made)
    again = made.ask({"x": next(iter(made.trials[2].distributions.values()))})

    assert sweeper.sweeper.n_trials == 3  # of five: one complete, one failed
    assert again.params == interrupted


@needs("optuna")
def test_a_study_with_more_trials_than_asked_for_runs_none(study) -> None:
    sweeper, made = study("COMPLETE COMPLETE")
    sweeper.sweeper.n_trials = 1

    sweeper._resume(made)

    assert sweeper.sweeper.n_trials == 0
    assert sweeper.sweeper.job_idx == 2  # the next number is that of the next trial


@needs("optuna")
def test_a_trial_that_was_interrupted_twice_is_repeated_once(study) -> None:
    sweeper, made = study("RUNNING")
    sweeper._resume(made)
    made.ask({"x": next(iter(made.trials[0].distributions.values()))})

    sweeper.sweeper.n_trials = 5
    sweeper._resume(made)

    assert sweeper.sweeper.n_trials == 5
    assert [trial.state.name for trial in made.trials] == ["FAIL", "FAIL", "WAITING"]


@needs("optuna")
def test_a_study_rejects_another_search(study, compose_config) -> None:
    sweeper, made = study("COMPLETE")

    sweeper._claim(made, sweeper._search(["report=false"]))
    sweeper._claim(made, sweeper._search(["report=true"]))  # changes no result
    with pytest.raises(UserError, match=r"\(x differs\): choose another sweep=NAME"):
        sweeper._claim(made, sweeper._search(["x=choice(a,c)"]))
    sweeper.config = compose_config("data.batch_size=8")
    with pytest.raises(UserError, match="the rest of the config differs"):
        sweeper._claim(made, sweeper._search([]))


@needs("optuna")
def test_a_resumed_study_draws_other_values_although_the_seed_is_fixed(study) -> None:
    from optuna.distributions import UniformDistribution

    def draw(sweeper: StudySweeper, made) -> float:
        return sweeper.sweeper.sampler.sample_independent(made, made.ask(), "x", UniformDistribution(0, 1))

    sweeper, made = study("")
    sampler = OmegaConf.create({"_target_": "optuna.samplers.RandomSampler", "seed": 3})
    sweeper.config = OmegaConf.create({"hydra": {"sweeper": {"sampler": sampler}}})
    sweeper.sweeper.sampler = instantiate(sampler)
    sweeper._seed_again(0)
    first = draw(sweeper, made)
    sweeper.sweeper.sampler = instantiate(sampler)
    assert draw(sweeper, made) == first

    sweeper._seed_again(2)

    assert draw(sweeper, made) != first


class Refusing:
    """A launcher that refuses a call in which one trial is `bad`, as that of agebench does."""

    def launch(self, job_overrides, initial_job_idx):
        if any("bad" in overrides for overrides in job_overrides):
            raise UserError("bad is unknown")
        return [SimpleNamespace(return_value=index) for index, _ in enumerate(job_overrides, start=initial_job_idx)]


def test_a_refused_trial_fails_alone() -> None:
    with SweepSession() as session:
        done = TrialLauncher(Refusing()).launch([["good"], ["bad"], ["good"]], 4)

    assert [each.return_value for each in done] == [4, None, 6]
    assert session.refused == 1


def test_the_error_of_the_first_trial_of_a_study_is_raised() -> None:
    with SweepSession() as session, pytest.raises(UserError, match="bad is unknown"):
        TrialLauncher(Refusing()).launch([["bad"]], 0)

    assert session.refused == 0


@needs("slurm")
@pytest.mark.slow
def test_a_point_that_fails_under_submitit_does_not_stop_others(tmp_path) -> None:
    done = train(tmp_path, "hydra/launcher=submitit_local", "sweep=here", "-m", BROKEN)

    assert done.returncode == 1
    assert "a point failed: model._target_=no.such cannot be imported" in done.stderr
    assert statuses(tmp_path / "outputs/sweeps/here") == ["completed"]  # the other did not start


@needs("optuna")
@pytest.mark.slow
def test_a_search_continues_after_a_failed_trial_and_is_resumed_by_the_same_command(tmp_path) -> None:
    search = (
        "experiment=sweep_optuna",
        "sweep=here",
        "hydra.sweeper.sampler.seed=3",
        BROKEN.replace("=", "=choice(") + ")",
    )

    first = train(tmp_path, *search, "hydra.sweeper.n_trials=4", "-m")
    second = train(tmp_path, *search, "hydra.sweeper.n_trials=5", "-m")

    assert first.returncode == 1  # with this seed, the fourth trial is refused
    assert "trial 3 is refused: model._target_=no.such cannot be imported" in first.stderr
    assert "Best value" in first.stderr
    assert "1 of 4 points failed; the others are complete" in first.stderr
    assert "the study has 4 of 5 trials" in second.stderr
    assert statuses(tmp_path / "outputs/sweeps/here") == ["completed"] * 4  # the fifth has other values than the first
    number, name = r"[\d.e-]{1,9}", r"[\w.]+"
    short = rf"batch_size-\d+__target_-{name}_lr-{number}_weight_decay-{number}_optim-{name}-\w{{6}}"
    folders = (file.parent.name for file in (tmp_path / "outputs/sweeps/here").glob("*/results.json"))
    assert [folder for folder in folders if not re.fullmatch(short, folder)] == []


@needs("ray")
@pytest.mark.slow
def test_two_ray_nodes_share_a_sweep_started_from_another_folder(tmp_path) -> None:
    ray_cluster = pytest.importorskip("ray.cluster_utils")
    handler = signal.getsignal(signal.SIGTERM)
    node = {"num_cpus": 1, "include_dashboard": False}
    cluster = ray_cluster.Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(num_cpus=1)

    try:
        where = f"hydra.launcher.ray.init.address={cluster.address}"
        done = train(tmp_path, "hydra/launcher=ray_cluster", where, "sweep=here", "-m", "seed=0,1")
        again = train(tmp_path, "hydra/launcher=ray_cluster", where, "sweep=here", "-m", "seed=0,1")
    finally:
        cluster.shutdown()
        signal.signal(signal.SIGTERM, handler)  # Ray sets one, which would end the runs of other tests

    folder = tmp_path / "outputs/sweeps/here"
    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert statuses(folder) == ["completed", "completed"]
    assert all("nothing to do" in log.read_text() for log in folder.glob("*/train.log"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("choice", "extra"),
    [("hydra/launcher=ray", "ray"), ("hydra/launcher=submitit_slurm", "slurm"), ("hydra/sweeper=optuna", "optuna")],
)
def test_the_error_names_a_missing_extra(tmp_path, choice, extra) -> None:
    if not needs(extra).args[0]:
        pytest.skip(f"the extra {extra} is installed")

    done = train(tmp_path, choice, "-m", "seed=0,1")

    assert done.returncode == 2
    assert f"{choice} needs an extra: {install_command(extra)}; see docs/sweeps.md" in done.stderr
