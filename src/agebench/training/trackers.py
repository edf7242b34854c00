"""Loggers for MLflow and Weights & Biases, which work without a server and also receive what TensorBoard receives.

tracking.json of a run names its entry there, so that a resumed run continues it and the process that draws the report
can add the page.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightning.pytorch.loggers import MLFlowLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only

from agebench.files import read_json, write_json
from agebench.runs.folder import TRACKING

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
            run_id=_entry(self.folder, "mlflow").get("run"),
        )

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, and the name of its group over seeds or folds as the tag `group`."""
        self.log_hyperparams(dict(params))
        if group:
            self.experiment.set_tag(self.run_id, "group", group)
        _write_entry(self.folder, "mlflow", {"uri": self.uri, "run": self.run_id})

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
        self.entry |= _entry(self.folder, "wandb")
        settings = {"console": "off", "silent": offline}  # train.log has the output
        super().__init__(
            _name(self.folder), save_dir, self.entry["run"], offline=offline, project=project, settings=settings
        )

    @rank_zero_only
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Log a run's hyperparameters, with the name of its group over seeds or folds as `group`."""
        self.log_hyperparams({**params, "group": group} if group else dict(params))
        _write_entry(self.folder, "wandb", self.entry)

    @rank_zero_only
    def finish_hparams(self) -> None:
        """End the run, so that the process that draws the report can add the page to it."""
        self.experiment.finish()


def _name(folder: Path) -> str:
    """Return the name of a run: the last two parts of its folder, such as `mlp-softmax/2026-11-29_05-00-00-000000`."""
    return "/".join(folder.absolute().parts[-2:])


def _entry(folder: Path, tracker: str) -> dict[str, Any]:
    entry = read_json(folder / TRACKING).get(tracker)
    return entry if isinstance(entry, dict) else {}


def _write_entry(folder: Path, tracker: str, entry: Mapping[str, Any]) -> None:
    write_json(folder / TRACKING, {**read_json(folder / TRACKING), tracker: entry})
