"""For TensorBoard: a run for each group of points that differ only in the seed or the fold, with their mean curves."""

import math
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import metadata
from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MarginChartContent
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from agebench.comparison.groups import Group, name_of, split_by_shown
from agebench.comparison.parameters import differing
from agebench.data.protocol import without_fold
from agebench.files import read_csv
from agebench.metrics.table import best_name, find
from agebench.runs.cards import card_name, result_card
from agebench.runs.identity import config_hash
from agebench.runs.read import SEED_MEANS, Run, number, points_of

EVENTS = "events.out.tfevents.*"
FOLD = "data.split.fold"
FIRST = ("train/loss", "val/loss", "train/accuracy", "val/accuracy", "val/mae")  # of the charts
FINAL = -1  # step of the values at the end of a run, which runs that stop early have at different steps
BAND = "x_std"  # group of the cards of the bounds, see agebench.runs.cards

Scalars = dict[tuple[str, int], float]  # values by tag and step


def write_seed_means(sweep: Path) -> None:
    """Write a TensorBoard run `<what differs> (mean of N)` for each group of N completed points of a sweep.

    The runs of an earlier call are replaced. Groups of one point and sweeps without TensorBoard have none.

    Args:
        sweep: The folder of the sweep.
    """
    for old in sweep.glob(SEED_MEANS):
        for file in old.glob(EVENTS):
            file.unlink()
        if not any(old.iterdir()):
            old.rmdir()
    groups = _find_groups(run for run in points_of(sweep) if run.status == "completed" and any(run.folder.glob(EVENTS)))
    params = differing([runs[0] for runs in groups])
    taken: set[str] = set()
    for runs, each in zip(groups, params, strict=True):
        if len(runs) < 2:
            continue
        name = re.sub(r'[\x00-\x1f/\\:*?"<>|]+', "-", name_of(Group(tuple(runs), each)))[:80]
        while name in taken:  # names that are equal after 80 characters
            name += "'"
        taken.add(name)
        _write(sweep / f"{name} (mean of {len(runs)})", [_read_scalars(run) for run in runs])


def _find_groups(runs: Iterable[Run]) -> list[list[Run]]:
    """Return the runs that differ only in the seed and the fold, without the fold in their configs."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        config = {key: value for key, value in run.config.items() if key != FOLD}
        protocol, fold = without_fold(str(run.result("protocol")))
        same = run.same if fold is None else (config_hash(config), protocol)
        groups.setdefault(same, []).append(replace(run, config=config, typed=run.typed - {FOLD}))
    return [part for runs_of_config in groups.values() for part in split_by_shown(runs_of_config)]


def _read_scalars(run: Run) -> Scalars:
    """Return the values of each epoch in metrics.csv, and the final ones in results.json, with the tags of a run."""
    found: Scalars = {}
    step = 0
    for row in read_csv(run.folder / "metrics.csv"):
        step = int(row["step"])
        for column, cell in row.items():
            if column not in ("epoch", "step") and cell:
                # TensorBoard counts steps from 0.
                found["train/lr" if column == "lr" else column, step - 1] = float(cell)
    monitor, best = run.result("best", "monitor"), number(run.result("best", "value"))
    if isinstance(monitor, str) and best is not None:
        name = best_name(monitor)
        tested = {key: value for key, value in run.metrics.items() if value is not None}
        cards = {card_name(name): best, **result_card(name, tested)}
        found |= {(tag, FINAL): value for tag, value in cards.items()}
    for name, value in run.metrics.items():
        if value is not None and find(name).headline:
            found[card_name(name), FINAL] = value
    return found


def _write(folder: Path, runs: Sequence[Scalars]) -> None:
    """Write the means of the values that all runs have, and charts of mean ± standard deviation for the curves."""
    writer = EventFileWriter(str(folder))
    curves: set[str] = set()
    last = max((step for run in runs for _, step in run), default=0) + 1
    for tag, step in runs[0]:
        values = [run.get((tag, step), math.nan) for run in runs]
        if not np.isfinite(values).all():
            continue
        mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
        scalars = {tag: mean}
        if tag.startswith(("train/", "val/")) and tag != "train/lr":
            scalars |= dict(zip(_band(tag), (mean, mean - std, mean + std), strict=True))
            curves.add(tag)
        for name, value in scalars.items():
            summary = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            writer.add_event(Event(wall_time=time.time(), step=last if step == FINAL else step, summary=summary))
    writer.add_event(Event(wall_time=time.time(), summary=_layout(curves)))
    writer.close()


def _band(tag: str) -> tuple[str, str, str]:
    """Return the tags of a chart. The points have none of them: TensorBoard lists runs that have only some."""
    return f"{BAND}/{tag}_mean", f"{BAND}/{tag}_lower", f"{BAND}/{tag}_upper"


def _layout(curves: Iterable[str]) -> Summary:
    """Return the charts of the page Custom Scalars. TensorBoard merges the equal charts of all groups."""
    order = sorted(curves, key=lambda tag: (FIRST.index(tag) if tag in FIRST else len(FIRST), tag))
    charts = []
    for tag in reversed(order):  # TensorBoard shows the last one first
        series = MarginChartContent.Series(**dict(zip(("value", "lower", "upper"), _band(tag), strict=True)))
        charts.append(Chart(title=tag, margin=MarginChartContent(series=[series])))
    layout = Layout(category=[Category(title="mean ± standard deviation", chart=charts)])
    tensor = TensorProto(dtype=DT_STRING, string_val=[layout.SerializeToString()])
    return Summary(
        value=[
            Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, metadata=metadata.create_summary_metadata(), tensor=tensor)
        ]
    )
