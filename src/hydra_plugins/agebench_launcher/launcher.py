"""The launcher behind `-m`: every point is checked before the first starts, and one that fails stops no other."""

import logging
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import (
    JobReturn,
    JobStatus,
    configure_log,
    filter_overrides,
    run_job,
    setup_globals,
)
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict, read_write

from agebench.check import check_config, check_sources
from agebench.cli import SweepError
from agebench.errors import UserError

log = logging.getLogger(__name__)


class AgebenchLauncher(Launcher):
    """Runs the points of a sweep one after the other in this process."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra hands over."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the points, report each, and raise SweepError at the end if any failed."""
        setup_globals()
        points = [self._compose(overrides, initial_job_idx + i) for i, overrides in enumerate(job_overrides)]
        configs, folders = [p[0] for p in points], [p[1] for p in points]
        check_sources(configs)
        twice = {folder for folder in folders if folders.count(folder) > 1}
        if twice:
            raise UserError(f"two points of the sweep would write {sorted(twice)[0]}: they are the same run")
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        returns = []
        for i, (config, overrides, folder) in enumerate(zip(configs, job_overrides, folders, strict=True)):
            log.info("[%d/%d] %s", i + 1, len(configs), " ".join(filter_overrides(list(overrides))))
            returns.append(self._run(config, folder))
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
            if returns[-1].status == JobStatus.FAILED:
                error = returns[-1]._return_value
                (folder / "error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
                log.error("failed: %s: %s (traceback in %s/error.txt)", type(error).__name__, error, folder)
        for folder, done in zip(folders, returns, strict=True):
            ok = done.status == JobStatus.COMPLETED
            log.info(
                "%-10s %s  %s",
                "completed" if ok else "failed",
                f"{done.return_value:.4f}" if ok and done.return_value is not None else "      ",
                folder,
            )
        failed = sum(done.status == JobStatus.FAILED for done in returns)
        if failed:
            raise SweepError(f"{failed} of {len(returns)} points failed; the others are complete")
        return returns

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
        return config, Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))

    def _run(self, config: DictConfig, folder: Path) -> JobReturn:
        # A DDP rank is started from this process's command line: it must be this point, not the sweep.
        with read_write(config.hydra.run), open_dict(config.hydra.run):
            config.hydra.run.dir = str(folder)
        HydraConfig.instance().set_config(config)
        command = sys.argv
        own = [*config.hydra.overrides.task, "hydra.mode=RUN"]
        sys.argv = [command[0], *own]
        try:
            return run_job(
                hydra_context=self.hydra_context,
                task_function=self.task_function,
                config=config,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            sys.argv = command


ConfigStore.instance().store(
    group="hydra/launcher",
    name="agebench",
    node={"_target_": "hydra_plugins.agebench_launcher.launcher.AgebenchLauncher"},
    provider="agebench",
)
