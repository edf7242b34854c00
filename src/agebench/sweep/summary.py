"""The end of a sweep: what came of each point, and the tables and pictures that compare them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from agebench.sweep.point import Point

log = logging.getLogger("agebench.sweep")


def end_sweep(folder: Path, points: Sequence[Point]) -> None:
    """Tell what came of a sweep, however it ended, and write sweep.csv, sweep.md and its pictures."""
    if not any(folder.glob("*/results.json")):  # a mistake was found before the first point
        if [path.name for path in folder.glob("*")] == ["multirun.yaml"]:
            (folder / "multirun.yaml").unlink()
            folder.rmdir()
        return
    if len(points) > 1:
        for line in table(points):
            log.info(line)
    if any(point.status in ("interrupted", "waiting", "running", "failed") for point in points):
        log.info("what is not complete is taken up again by the same command with sweep=%s", folder.name)
    try:
        from agebench.comparison.sweep import write_sweep

        write_sweep(folder)
    except Exception:  # the runs are complete without it
        log.exception("the sweep's tables could not be written")
    else:
        log.info("compared in %s", folder / "sweep.md")


def table(points: Sequence[Point]) -> list[str]:
    """Return a line a point: status, best value, time and folder."""
    names = {"waiting": "not run"}
    rows = [
        (
            names.get(point.status, point.status),
            f"{point.best:.4f}" if point.best == point.best else "",
            f"{point.seconds:.1f} s" if point.seconds else "",
            str(point.folder.name),
        )
        for point in points
    ]
    monitors = sorted({point.monitor for point in points if point.monitor})
    head = ("status", f"best {'/'.join(monitors)}".strip(), "time", "point")
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
    return [
        f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]}".rstrip()
        for row in [head, *rows]
    ]
