"""Loggers for MLflow, Weights & Biases, Trackio and Aim, which need no server and receive what TensorBoard has.

tracking.json of a run names its entry there, so that a resumed run continues it and the process that draws the report
can add the page.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from agebench.runs.tracking import close_trackio, open_aim, open_trackio, read_entry, write_entry

SQLITE = "sqlite:///"


class RunMlflow(MLFlowLogger):
    """Lightning's logger for MLflow, whose runs have the name of the run directory.

    Args:
        save_dir: The run directory.
        tracking_uri: A database (`sqlite:///FILE`; files are stored next to it) or the address of a server.
        experiment: The name of the experiment.
    """

    def __init__(self, save_dir: str, tracking_uri: str, experiment: str = "agebench") -> None:
        self.folder, self.uri, files = Path(save_dir), tracking_uri, None
        if tracking_uri.startswith(SQLITE):
            database = Path(tracking_uri.removeprefix(SQLITE)).absolute()
            database.parent.mkdir(parents=True, exist_ok=True)
            self.uri, files = f"{SQLITE}{database}", database.with_name("mlflow-files").as_uri()
        super().__init__(
            experiment,
            run_name=_name(self.folder),
            tracking_uri=self.uri,
            artifact_location=files,
            run_id=read_entry(self.folder, "mlflow").get("run"),
        )

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, and the name of its group over seeds or folds as the tag `group`."""
        self.log_hyperparams(dict(params))
        if group:
            self.experiment.set_tag(self.run_id, "group", group)
        write_entry(self.folder, "mlflow", {"uri": self.uri, "run": self.run_id})

    def finish_hparams(self) -> None:
        """Do nothing: Lightning has ended the run."""


class RunWandb(WandbLogger):
    """Lightning's logger for Weights & Biases, whose runs have the name of the run directory.

    Args:
        save_dir: The run directory.
        project: The name of the project.
        offline: Whether to write to the run directory only, for `wandb sync`, instead of sending to the server.
    """

    def __init__(self, save_dir: str, project: str = "agebench", *, offline: bool = True) -> None:
        self.folder = Path(save_dir)
        self.entry: dict[str, Any] = {"project": project, "run": uuid4().hex[:8], "offline": offline}
        self.entry |= read_entry(self.folder, "wandb")
        settings = {"console": "off", "silent": offline}  # train.log has the output
        super().__init__(
            _name(self.folder), save_dir, self.entry["run"], offline=offline, project=project, settings=settings
        )

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, with the name of its group over seeds or folds as `group`."""
        self.log_hyperparams({**params, "group": group} if group else dict(params))
        write_entry(self.folder, "wandb", self.entry)

    @rank_zero_only
    def finish_hparams(self) -> None:
        """End the run, so that the process that draws the report can add the page to it."""
        self.experiment.finish()


class RunTrackio(Logger):
    """Logger for Trackio, whose runs have the name of the run directory.

    Args:
        save_dir: The run directory.
        folder: The folder with the databases of all projects.
        project: The name of the project.
    """

    def __init__(self, save_dir: str, folder: str, project: str = "agebench") -> None:
        super().__init__()
        self.folder = Path(save_dir)
        self.entry: dict[str, Any] = {"folder": str(Path(folder).absolute()), "project": project}
        self.entry |= {"run": _name(self.folder), **read_entry(self.folder, "trackio")}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The name of the project."""
        return str(self.entry["project"])

    @property
    def version(self) -> str:
        """The name of the run."""
        return str(self.entry["run"])

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The open `trackio.Run`, after `declare_hparams`."""
        return self._run

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, with the name of its group over seeds or folds as `group`."""
        resume = "allow" if read_entry(self.folder, "trackio") else "never"
        self.entry |= {"group": group or None, "config": dict(params)}
        self._run = open_trackio(self.entry, resume=resume)
        write_entry(self.folder, "trackio", self.entry)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: `declare_hparams` has logged them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at an optimizer step."""
        self.experiment.log(dict(metrics), step=step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run if the training has not succeeded; else `finish_hparams` ends it after the test."""
        if status != "success":
            self.finish_hparams()

    @rank_zero_only
    def finish_hparams(self) -> None:
        """End the run, so that the process that draws the report can add the page to it."""
        close_trackio()


class RunAim(Logger):
    """Logger for Aim, whose runs have the name of the run directory.

    A metric such as `val/accuracy` has the name `accuracy` and the context `{"subset": "val"}`, so that Aim draws it
    in the chart of `train/accuracy`.

    Args:
        save_dir: The run directory.
        repo: The folder of the Aim repository.
        experiment: The name of the experiment.
    """

    def __init__(self, save_dir: str, repo: str, experiment: str = "agebench") -> None:
        super().__init__()
        self.folder = Path(save_dir)
        self.entry = {"repo": str(Path(repo).absolute()), "experiment": experiment, **read_entry(self.folder, "aim")}
        self._run: Any = None

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return str(self.entry["experiment"])

    @property
    def version(self) -> str:
        """The hash of the run."""
        return str(self.entry.get("run", ""))

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The open `aim.Run`."""
        if self._run is None:
            (repo := Path(self.entry["repo"])).mkdir(parents=True, exist_ok=True)
            with FileLock(repo / ".lock"):  # the jobs of a sweep must not create the repository at once
                self._run = open_aim(self.entry)
            self._run.name = _name(self.folder)
            self.entry["run"] = self._run.hash
        return self._run

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, with the name of its group over seeds or folds as `group`."""
        self.experiment["hparams"] = {**params, "group": group} if group else dict(params)
        write_entry(self.folder, "aim", self.entry)

    @rank_zero_only
    def log_hyperparams(self, params: Any) -> None:
        """Do nothing: `declare_hparams` has logged them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics at an optimizer step."""
        for key, value in metrics.items():
            subset, _, name = key.rpartition("/")
            context = {"subset": subset} if subset else {}
            if key != "epoch":
                self.experiment.track(value, name, step, int(metrics.get("epoch", 0)), context=context)

    @rank_zero_only
    def finish_hparams(self) -> None:
        """End the run, so that the process that draws the report can add the page to it."""
        self.experiment.close()
        self._run = None  # Aim unlocks the run when it is deleted


def _name(folder: Path) -> str:
    """Return the name of a run: the last two parts of its folder, such as `mlp-softmax/2026-11-29_05-00-00-000000`."""
    return "/".join(folder.absolute().parts[-2:])
