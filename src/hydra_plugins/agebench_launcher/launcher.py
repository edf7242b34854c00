"""The launcher behind `-m`: every point is checked before the first starts, and runs in a process of its own."""

import contextlib
import itertools
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, filter_overrides, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from agebench.cli import main as cli
from agebench.cli.rules import check_config, check_sources
from agebench.errors import UserError
from agebench.sweep.job import Context
from agebench.sweep.point import Point, count_ranks
from agebench.sweep.slots import Slot, make_slots, visible_gpus

log = logging.getLogger(__name__)
# Of the sweep's command line these are not for its points.
MULTIRUN = ("-m", "--multirun")


class AgebenchLauncher(Launcher):
    """Runs each point as the command it is, in a process that a server with everything imported forks."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the points; a failed one returns NaN, which sweepers survive, and is noted for the exit code."""
        from agebench.sweep.board import Board
        from agebench.sweep.job import check_points, start_server
        from agebench.sweep.queue import Queue

        setup_globals()
        rest = enumerate(job_overrides, start=initial_job_idx)
        composed = [self._compose(overrides, index) for index, overrides in itertools.islice(rest, 1)]
        # It imports for some seconds, in which the other configs and the data are made ready.
        context = start_server()
        composed += [self._compose(overrides, index) for index, overrides in rest]
        configs, folders = [each[0] for each in composed], [each[1] for each in composed]
        names = sorted({str(config.sweep) for config in configs})
        if len(names) > 1:
            raise UserError(f"sweep names one folder for all points, and this gives {', '.join(names)}: choose one")
        check_sources(configs)
        twice = {folder for folder in folders if folders.count(folder) > 1}
        if twice:
            raise UserError(f"two points of the sweep would write {sorted(twice)[0]}: they are the same run")
        points = [
            Point(
                folder.name,
                folder,
                self._command(overrides, folder, index),
                (_alone(config, folder), self.hydra_context),
                ranks=count_ranks(config),
            )
            for index, (config, overrides, folder) in enumerate(
                zip(configs, job_overrides, folders, strict=True), start=initial_job_idx
            )
        ]
        slots = self._slots(configs, context)
        check_points(context, configs)
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        at_once = f", {len(slots)} at once" if len(slots) > 1 else ""
        count = f"{len(points)} point{'s' if len(points) > 1 else ''}"
        log.info("%s%s, in %s", count, at_once, Path(self.config.hydra.sweep.dir).absolute())
        options = self.config.launcher
        board = Board(len(points), at_once=len(slots), terminal=sys.stderr.isatty())
        Thread(target=_prepare_ending, daemon=True).start()  # while the first point runs
        queue = Queue(context, slots, board, timeout=options.timeout, fail_fast=options.fail_fast)
        try:
            queue.run(points)
        finally:
            cli.sweep_points += points
        if options.fail_fast and any(point.status == "failed" for point in points):
            raise cli.SweepError("a point failed, and launcher.fail_fast=true stopped the others")
        return [self._returned(*each) for each in zip(points, configs, strict=True)]

    def _compose(self, overrides: Sequence[str], index: int) -> tuple[DictConfig, Path]:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = f"{config.hydra.job.name}_{index}"
            config.hydra.job.num = index
        HydraConfig.instance().set_config(config)  # names of folders are worked out from it
        plain = config.copy()
        with open_dict(plain):
            del plain["hydra"]
        check_config(plain)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir)).absolute()
        return config, folder if folder.is_dir() else _known(folder)

    def _command(self, overrides: Sequence[str], folder: Path, index: int) -> list[str]:
        """Return the command line of one point: the sweep's flags and Hydra settings, the point's own choices."""
        flags = [argument for argument in cli.split_flags(sys.argv[1:])[0] if argument not in MULTIRUN]
        own = [f"hydra.run.dir={cli.quoted(str(folder))}", "hydra.mode=RUN", f"hydra.job.num={index}"]
        ours = ("hydra.mode=", "hydra/sweeper=", "hydra.sweeper.")
        hydra = [text for text in self.config.hydra.overrides.hydra if not text.lstrip("+~").startswith(ours)]
        return [*flags, *overrides, *hydra, *own]

    def _slots(self, configs: Sequence[DictConfig], context: Context) -> list[Slot]:
        from agebench.sweep.job import count_gpus

        on_cpu = all(str(config.trainer.accelerator) == "cpu" for config in configs)
        gpus = [] if on_cpu else visible_gpus(lambda: count_gpus(context))
        options = self.config.launcher
        return make_slots(gpus, jobs=options.jobs, gpus_per_job=options.gpus_per_job)

    def _returned(self, point: Point, config: DictConfig) -> JobReturn:
        done = JobReturn()
        done.cfg, done.hydra_cfg = config, OmegaConf.create({"hydra": config.hydra})
        done.overrides = filter_overrides(list(config.hydra.overrides.task))
        done.working_dir, done.task_name = str(point.folder), str(config.hydra.job.name)
        done.status, done.return_value = JobStatus.COMPLETED, None if math.isnan(point.best) else point.best
        return done


def _prepare_ending() -> None:
    """Import what the end of a sweep draws with."""
    with contextlib.suppress(Exception):  # the end itself will tell
        import numpy.random  # noqa: F401

        import agebench.comparison.sweep
        import agebench.report.style  # noqa: F401


def _alone(config: DictConfig, folder: Path) -> DictConfig:
    """Return a point's config as that of the single run it is."""
    config = config.copy()
    with read_write(config.hydra):
        config.hydra.mode, config.hydra.run.dir = RunMode.RUN, str(folder)
    return config


def _known(folder: Path) -> Path:
    """Return where a point lies already: it is called otherwise if other keys were swept then, but for its hash."""
    same = sorted(folder.parent.glob(f"*-{folder.name.rpartition('-')[2]}"))
    return same[0] if len(same) == 1 else folder


ConfigStore.instance().store(
    group="hydra/launcher",
    name="agebench",
    node={"_target_": "hydra_plugins.agebench_launcher.launcher.AgebenchLauncher"},
    provider="agebench",
)
