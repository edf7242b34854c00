"""The launcher of `-m`: checks all points before the first one starts, then runs each in a separate process."""

import contextlib
import itertools
import logging
import math
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from agebench.cli.flags import split_flags
from agebench.cli.main import FULL_ERROR
from agebench.cli.overrides import quoted
from agebench.cli.rules import check_config, check_sources
from agebench.errors import SweepError, UserError
from agebench.pages.drawer import Drawer, level_of
from agebench.sweep.environment import set_variable
from agebench.sweep.job import Context, check_points, count_gpus, start_server
from agebench.sweep.point import Point, count_ranks
from agebench.sweep.session import current_sweep
from agebench.sweep.slots import Slot, make_slots, visible_gpus

log = logging.getLogger(__name__)
MULTIRUN = ("-m", "--multirun")  # flags that are not passed on to the points


@dataclass
class Composed:
    """A point before it is checked: its overrides, its config and its folder."""

    index: int  # among all jobs of the sweep
    overrides: Sequence[str]
    config: DictConfig
    folder: Path


class AgebenchLauncher(Launcher):
    """Runs each point as a train command, in a process forked from a server with all imports done."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the context, the task and the config from which the points are composed."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the points and return their outcomes. The value of a failed point is None, which sweepers accept.

        Raises:
            UserError: If a point is invalid. In this case no point has started.
            SweepError: If a point failed and launcher.fail_fast=true.
        """
        setup_globals()
        with set_variable(FULL_ERROR, current_sweep().full_error):  # jobs inherit the environment
            rest = enumerate(job_overrides, start=initial_job_idx)
            composed = [self._compose(overrides, index) for index, overrides in itertools.islice(rest, 1)]
            context = start_server()  # imports for some seconds, while the other points are composed
            composed += [self._compose(overrides, index) for index, overrides in rest]
            slots = self._check(composed, context)
            points = [self._make_point(each) for each in composed]
            self._run(points, slots, context)
        return [_make_return(point, each.config) for point, each in zip(points, composed, strict=True)]

    def _compose(self, overrides: Sequence[str], index: int) -> Composed:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{index}"
            config.hydra.job.num = index
        HydraConfig.instance().set_config(config)  # the names of folders are resolved from it
        plain = config.copy()
        with open_dict(plain):
            del plain["hydra"]
        check_config(plain)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).absolute()
        return Composed(index, overrides, config, folder if folder.is_dir() else _find_renamed(folder))

    def _check(self, composed: Sequence[Composed], context: Context) -> list[Slot]:
        """Return the slots for the points, or raise UserError for the first point that cannot work."""
        configs, folders = [each.config for each in composed], [each.folder for each in composed]
        names = sorted({str(config.sweep) for config in configs})
        if len(names) > 1:
            raise UserError(f"sweep must be one name for all points, got {', '.join(names)}: choose one")
        check_sources(configs)
        twice = sorted(folder for folder in folders if folders.count(folder) > 1)
        if twice:
            raise UserError(f"two points of the sweep would write to {twice[0]}: they are the same run")
        on_cpu = all(str(config.trainer.accelerator) == "cpu" for config in configs)
        gpus = [] if on_cpu else visible_gpus(lambda: count_gpus(context))
        options = self.config.launcher
        slots = make_slots(gpus, jobs=options.jobs, gpus_per_job=options.gpus_per_job)
        check_points(context, configs)
        return slots

    def _make_point(self, composed: Composed) -> Point:
        return Point(
            composed.folder.name,
            composed.folder,
            self._command(composed.overrides, composed.folder, composed.index),
            (_as_single_run(composed.config, composed.folder), self.hydra_context),
            ranks=count_ranks(composed.config),
            report=composed.config.report,
        )

    def _command(self, overrides: Sequence[str], folder: Path, index: int) -> list[str]:
        """Return the command line of one point: the sweep's flags and Hydra settings, and the point's overrides."""
        flags = [argument for argument in split_flags(sys.argv[1:])[0] if argument not in MULTIRUN]
        own = [f"hydra.run.dir={quoted(str(folder))}", "hydra.mode=RUN", f"hydra.job.num={index}"]
        of_sweep = ("hydra.mode=", "hydra/sweeper=", "hydra.sweeper.")
        hydra = [text for text in self.config.hydra.overrides.hydra if not text.lstrip("+~").startswith(of_sweep)]
        return [*flags, *overrides, *hydra, *own]

    def _run(self, points: Sequence[Point], slots: Sequence[Slot], context: Context) -> None:
        from agebench.sweep.board import Board
        from agebench.sweep.queue import Queue

        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        at_once = f", {len(slots)} at once" if len(slots) > 1 else ""
        count = f"{len(points)} point{'s' if len(points) > 1 else ''}"
        log.info("%s%s, in %s", count, at_once, Path(self.config.hydra.sweep.dir).absolute())
        options = self.config.launcher
        board = Board(len(points), at_once=len(slots), terminal=sys.stderr.isatty())
        Thread(target=_preload_summary, daemon=True).start()  # while the first point runs
        with ExitStack() as stack:
            drawer = None
            if levels := {level_of(point.report) for point in points if point.report}:
                drawer = stack.enter_context(Drawer("full" if "full" in levels else "light"))
            queue = Queue(context, slots, board, timeout=options.timeout, fail_fast=options.fail_fast, drawer=drawer)
            try:
                queue.run(points)
            finally:
                current_sweep().points += points
        if options.fail_fast and any(point.status == "failed" for point in points):
            raise SweepError("a point failed, and launcher.fail_fast=true stopped the others")


def _make_return(point: Point, config: DictConfig) -> JobReturn:
    """Return the outcome of a point as Hydra's JobReturn, which sweepers expect."""
    done = JobReturn()
    done.cfg, done.hydra_cfg = config, OmegaConf.create({"hydra": config.hydra})
    done.overrides = filter_overrides(list(config.hydra.overrides.task))
    done.working_dir, done.task_name = str(point.folder), str(config.hydra.job.name)
    done.status, done.return_value = JobStatus.COMPLETED, None if math.isnan(point.best) else point.best
    return done


def _preload_summary() -> None:
    """Import what the summary of the sweep needs."""
    with contextlib.suppress(Exception):  # the summary itself will report the error
        import numpy.random  # noqa: F401

        import agebench.comparison.sweep
        import agebench.report.style
        import agebench.sweep.seed_means  # noqa: F401


def _as_single_run(config: DictConfig, folder: Path) -> DictConfig:
    """Return the config of a point, changed to that of a single run in a folder."""
    config = config.copy()
    with read_write(config.hydra):
        config.hydra.mode, config.hydra.run.dir = RunMode.RUN, str(folder)
    return config


def _find_renamed(folder: Path) -> Path:
    """Return the folder of the same point from an earlier call. If other keys were swept, only the hash is equal."""
    same = sorted(folder.parent.glob(f"*-{folder.name.rpartition('-')[2]}"))
    return same[0] if len(same) == 1 else folder


ConfigStore.instance().store(
    group="hydra/launcher",
    name="agebench",
    node={"_target_": "hydra_plugins.agebench_launcher.launcher.AgebenchLauncher"},
    provider="agebench",
)
