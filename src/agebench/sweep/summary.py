"""The end of a sweep: the outcome of each point on the console, and the files that compare the points."""

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path

from agebench.sweep.point import Point
from agebench.text import align_columns

log = logging.getLogger("agebench.sweep")


def finish_sweep(folder: Path, points: Sequence[Point]) -> None:
    """Log the outcome of a sweep, also after an error, and write its tables, plots, page and TensorBoard's means.

    A sweep that ended before its first point leaves no folder.
    """
    if not any(folder.glob("*/results.json")):
        if [path.name for path in folder.glob("*")] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
            folder.rmdir()
            with contextlib.suppress(OSError):  # it holds other sweeps
                if folder.parent.name == "sweeps":
                    folder.parent.rmdir()
        return
    if len(points) > 1:
        for line in format_points(points):
            log.info("%s", line)
    if any(point.status != "completed" for point in points):
        log.info("repeat the command with sweep=%s to resume the incomplete points", folder.name)
    try:
        from agebench.comparison.sweep import write_sweep

        write_sweep(folder, [point.folder for point in points])
    except Exception:  # the runs are complete without it
        log.exception("the tables of the sweep could not be written")
    else:
        log.info("comparison of the points: %s", (folder / "sweep.html").absolute().as_uri())
    try:
        from agebench.sweep.seed_means import write_seed_means

        write_seed_means(folder)
    except Exception as error:  # a damaged metrics.csv, a full disk
        log.warning("TensorBoard has no means over seeds: %s: %s", type(error).__name__, error)


def format_points(points: Sequence[Point]) -> list[str]:
    """Return a table with one row per point: status, best value, time and folder."""
    monitors = sorted({point.monitor for point in points if point.monitor})
    header = ("status", f"best {'/'.join(monitors)}".strip(), "time", "point")
    rows = [
        (
            "not run" if point.status == "waiting" else point.status,
            f"{point.best:.4f}" if point.best == point.best else "",  # empty for NaN
            f"{point.seconds:.1f} s" if point.seconds else "",
            point.folder.name,
        )
        for point in points
    ]
    lines = align_columns(header, rows, [False, True, True, False])
    return [("  " + "  ".join(line)).rstrip() for line in lines]
