"""`python -m agebench.train`: train a model, test it, write a run directory."""

import sys
from typing import Any

from agebench.cli.main import announce_loading
from agebench.cli.main import main as run_command
from agebench.cli.resume import expand_resume
from agebench.errors import UserError
from agebench.text import say


def train(cfg: Any) -> float | None:
    """Train with a composed config, and return the best value of the monitored metric, which sweepers optimize.

    The value is None instead of NaN: Optuna's sweeper counts None as a failed trial, but stops at a NaN.
    """
    import logging
    import math
    import os
    from contextlib import ExitStack
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from agebench.cli.rules import check_config
    from agebench.pages.drawer import Drawer, level_of
    from agebench.progress import VARIABLE
    from agebench.runs.folder import is_first_process
    from agebench.sweep.environment import set_variable
    from agebench.sweep.point import count_ranks
    from agebench.sweep.session import current_job
    from agebench.trust import check_trusted, find_foreign

    log = logging.getLogger("agebench.train")
    if isinstance(cfg.resume, str) and cfg.resume != "auto" and cfg.trust is not True:  # before any import
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        check_trusted(find_foreign(plain), cfg.resume)
    check_config(cfg)
    hydra = HydraConfig.get()
    if hydra.mode == RunMode.MULTIRUN and count_ranks(cfg) > 1 and "SLURM_NTASKS" not in os.environ:
        raise UserError(  # Lightning would start the other ranks with the command line of the sweep
            f"trainer.devices={cfg.trainer.devices} in a sweep needs agebench's launcher, or one SLURM task per "
            f"device: remove hydra/launcher={hydra.runtime.choices['hydra/launcher']}"
        )
    job, folder = current_job(), Path(hydra.runtime.output_dir)
    if cfg.lr_find:
        announce_loading()
        from agebench.training.lr_find import find_rate

        find_rate(cfg, folder)
        return None
    with ExitStack() as stack:
        drawer = None
        if cfg.report and job is None and is_first_process():  # a sweep draws the reports of its points
            drawer = stack.enter_context(Drawer(level_of(cfg.report)))  # imports while this process does
        announce_loading()
        from agebench.training.fit import fit

        with set_variable(VARIABLE, os.environ.get(VARIABLE) if cfg.callbacks.get("progress") else "0"):
            alone = job is None and hydra.mode != RunMode.MULTIRUN
            best = fit(cfg, folder, progress=job.progress if job else None, discard=alone)
        if drawer is not None:
            drawer.draw_missing(folder)
            for page in drawer.finish():
                log.info("page      %s", page.as_uri())
    return None if math.isnan(best) else best


def main() -> None:
    """Run the command."""
    try:
        sys.argv[1:] = expand_resume(sys.argv[1:])
    except UserError as error:
        from agebench.cli.messages import wide_characters

        say(f"agebench train: {error}{wide_characters(str(error))}")
        sys.exit(2)
    run_command("train", train, config_name="config")


if __name__ == "__main__":
    main()
