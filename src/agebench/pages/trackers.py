"""Adds the report of a run to MLflow, Weights & Biases, Trackio and Aim, without torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agebench.runs.tracking import close_trackio, open_aim, open_trackio, read_entry


def add_report(folder: Path, page: Path, pictures: Sequence[Path], *, step: Any) -> None:
    """Add the page and the pictures of a report where tracking.json says that the run is logged.

    Args:
        folder: The run folder.
        page: The page.
        pictures: PNG files.
        step: The last optimizer step of the run; 0 if it is no number.
    """
    step = step if isinstance(step, int) else 0
    for tracker, add in _TRACKERS.items():
        if entry := read_entry(folder, tracker):
            add(entry, folder, page, pictures, step)


def _add_to_mlflow(entry: dict[str, Any], folder: Path, page: Path, pictures: Sequence[Path], step: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(entry["uri"])
    for path in (page, *pictures):
        client.log_artifact(entry["run"], str(path), "report")


def _add_to_wandb(entry: dict[str, Any], folder: Path, page: Path, pictures: Sequence[Path], step: int) -> None:
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


def _add_to_trackio(entry: dict[str, Any], folder: Path, page: Path, pictures: Sequence[Path], step: int) -> None:
    run = open_trackio(entry)
    import trackio

    shown = {f"report/{path.stem}": trackio.Image(path) for path in pictures}
    run.log({**shown, "report/page": trackio.Html(page, inject=False)}, step=step)
    close_trackio()


def _add_to_aim(entry: dict[str, Any], folder: Path, page: Path, pictures: Sequence[Path], step: int) -> None:
    import aim

    run = open_aim(entry)
    for path in pictures:
        run.track(aim.Image(str(path)), path.stem, step, context={"subset": "report"})
    run.set_artifacts_uri((Path(entry["repo"]) / "files").as_uri())
    run.log_artifact(str(page), page.name, block=True)
    run.close()


_TRACKERS = {"mlflow": _add_to_mlflow, "wandb": _add_to_wandb, "trackio": _add_to_trackio, "aim": _add_to_aim}
