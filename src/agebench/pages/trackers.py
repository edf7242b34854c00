"""Adds the report of a run to MLflow and Weights & Biases, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agebench.files import read_json
from agebench.runs.folder import TRACKING


def add_report(folder: Path, page: Path, pictures: Sequence[Path], *, step: Any) -> None:
    """Add the page and the pictures of a report where tracking.json says that the run is logged.

    Args:
        folder: The run folder.
        page: The page.
        pictures: PNG files.
        step: The last optimizer step of the run; 0 if it is no number.
    """
    known = read_json(folder / TRACKING)
    if isinstance(entry := known.get("mlflow"), dict):
        from mlflow import MlflowClient

        client = MlflowClient(entry["uri"])
        for path in (page, *pictures):
            client.log_artifact(entry["run"], str(path), "report")
    if isinstance(entry := known.get("wandb"), dict):
        _add_to_wandb(entry, folder, page, pictures, step=step if isinstance(step, int) else 0)


def _add_to_wandb(entry: dict[str, Any], folder: Path, page: Path, pictures: Sequence[Path], *, step: int) -> None:
    import wandb

    run = wandb.init(
        project=entry["project"],
        id=entry["run"],
        dir=folder,
        mode="offline" if entry["offline"] else "online",
        resume="allow",
        settings=wandb.Settings(console="off", silent=True),
    )
    shown = {f"report/{path.stem}": wandb.Image(str(path)) for path in pictures}
    run.log({**shown, "report/page": wandb.Html(str(page), inject=False), "trainer/global_step": step})
    run.finish()
