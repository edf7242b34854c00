"""Runs one of the commands, such as train: flags in any position, fast --help, one sentence per error, exit codes.

This module imports nothing heavy, so that --help and errors in the command line appear before torch is imported.
"""

import os
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from agebench.cli.flags import config_dir, split_flags, unknown_flag
from agebench.cli.help import SWEEPING, show_help
from agebench.cli.overrides import key_takes_text, to_hydra
from agebench.cli.run_folder import check_log_name, log_traceback, remove_empty, remove_log
from agebench.config import config_folder
from agebench.errors import FailedError, SweepError, UserError
from agebench.interrupts import exit_code, handle_signals
from agebench.text import say

Task = Callable[[Any], Any]  # of the composed config
FULL_ERROR = "HYDRA_FULL_ERROR"
KEEPING = ("train", "report", "prepare")  # commands that continue where they were interrupted


def main(command: str, task: Task, *, config_name: str) -> None:
    """Run a command under Hydra and exit: 0 done, 1 a job failed, 2 the command, the config or the data is wrong.

    HYDRA_FULL_ERROR=1 shows the traceback of any error.

    Args:
        command: The name of the command, for messages.
        task: Takes the composed config.
        config_name: The primary config of the command in conf/.
    """
    flags, overrides = split_flags(sys.argv[1:])
    if {"--help", "-h"} & {*flags, *overrides}:
        with suppress(BrokenPipeError):  # `--help | head` closes the pipe early
            print(show_help(command, config_folder(), config_name, own=config_dir(flags)), flush=True)
        return
    if any(flag.startswith("--experimental-rerun") for flag in flags):  # reads a pickle, which could run any code
        overrides_file = "the overrides in .hydra/overrides.yaml of the run"
        say(f"agebench {command}: no --experimental-rerun: repeat {overrides_file}")
        sys.exit(2)
    if unknown := unknown_flag(flags):
        say(f"agebench {command}: {unknown}")
        sys.exit(2)
    if command not in SWEEPING and {"-m", "--multirun"} & set(flags):
        once = f"leave it out, and call {command} once per value"
        say(f"agebench {command}: -m is for {' and '.join(SWEEPING)}: {once}")
        sys.exit(2)
    is_text = partial(key_takes_text, conf=config_folder(), config_name=config_name)
    sys.argv[1:] = [*flags, *(to_hydra(each, is_text=is_text, sweeps=command in SWEEPING) for each in overrides)]
    try:
        with handle_signals():
            _run(task, config_name)
    except Exception as error:
        from agebench.cli.messages import explain

        message = explain(error, config_folder())
        if os.environ.get(FULL_ERROR) == "1" or message is None:
            sys.excepthook = _show_traceback
            raise
        say(f"agebench {command}: {message}")
        sys.exit(1 if isinstance(error, FailedError) else 2)
    except KeyboardInterrupt:
        _report_interrupt(command)
        sys.exit(exit_code())
    except SystemExit as end:
        # Lightning's test and predict exit without a message. An exit with a cause was reported before.
        if end.__cause__ is None and isinstance(end.__context__, KeyboardInterrupt):
            _report_interrupt(command)
        elif end.code == 1 and {"--package", "-p"} & set(flags):  # Hydra has printed why
            say(f"agebench {command}: --package takes a key of the config, such as trainer")
            sys.exit(2)
        raise


def _report_interrupt(command: str) -> None:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one message per DDP run
        with suppress(OSError):  # the terminal may be closed
            kept = "; finished work is kept" if command in KEEPING else ""
            say(f"agebench {command}: interrupted{kept}")


def _show_traceback(*error: Any) -> None:
    """Print a traceback without the control characters that the message may contain."""
    import traceback

    say("".join(traceback.format_exception(*error)))


def announce_loading() -> None:
    """Print a message before the imports that take seconds, unless they are already done."""
    if "torch" not in sys.modules and os.environ.get("LOCAL_RANK", "0") == "0":
        say("loading PyTorch and Lightning ...")  # no log file exists yet


def _run(task: Task, config_name: str) -> None:
    """Run a task, or every point of a sweep. Raise the error of the task, or SweepError if a point did not complete."""
    from agebench.sweep.environment import set_variable
    from agebench.sweep.session import SweepSession

    register_resolvers()
    _exclude_fixed_keys_from_names()
    errors: list[Exception] = []
    with SweepSession(full_error=os.environ.get(FULL_ERROR)) as session:
        try:
            # With this variable Hydra raises exceptions. Otherwise it prints its own report and exits with 1.
            # The task and the jobs of a sweep see the user's own value.
            with set_variable(FULL_ERROR, "1"):
                _call_hydra_until_composed(_make_job(task, errors, full_error=session.full_error), config_name)
        finally:
            if session.folder is not None:
                from agebench.sweep.summary import finish_sweep

                finish_sweep(session.folder, session.points)
    if errors:
        raise errors[0]
    total = len(session.points) + session.refused
    incomplete = total - sum(point.status == "completed" for point in session.points)
    if incomplete:
        others = "; the others are complete" if incomplete < total else ""
        raise SweepError(f"{incomplete} of {total} points failed{others}")


def _call_hydra_until_composed(job: Task, config_name: str) -> None:
    """Call _call_hydra, again if it refused a fixed key that only some choices of a swept group have.

    Hydra applies the fixed keys of a sweep to the default choice of each group, before it composes the points.
    """
    from hydra.errors import HydraException

    while True:
        try:
            return _call_hydra(job, config_name)
        except HydraException as error:
            refused = re.match(r"Could not override '([^']+)'", str(error))
            if refused is None or not _sweep_fixed_key(refused[1]):
                raise


def _sweep_fixed_key(key: str) -> bool:
    """Make a fixed key of a swept group a sweep over one value, `choice(VALUE)`. Return whether there is such a key."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    flags, texts = split_flags(sys.argv[1:])
    overrides = OverridesParser.create().parse_overrides(texts)
    groups = [each.key_or_group.replace("/", ".") for each in overrides if each.is_sweep_override()]
    fixed = [text for text in texts if text.startswith(f"{key}=") and not text.startswith(f"{key}=choice(")]
    if not (fixed and any(key.startswith(f"{group}.") for group in groups)):
        return False
    values = [f"{key}=choice({text.partition('=')[2]})" if text in fixed else text for text in texts]
    sys.argv[1:] = [*flags, *values]
    return True


def _call_hydra(job: Task, config_name: str) -> None:
    """Call a job with its config, which Hydra composes or which the sweep that started this process provides."""
    import hydra
    from hydra.core.utils import run_job, setup_globals

    from agebench.sweep.session import current_job

    from_sweep = current_job()
    if from_sweep is None or from_sweep.composed is None:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)()
    else:
        config, context = from_sweep.composed
        setup_globals()
        run_job(job, config, "hydra.run.dir", None, context)


def _make_job(task: Task, errors: list[Exception], *, full_error: str | None) -> Task:
    """Return the function that Hydra calls to run a task. Launchers may pickle it and call it in another process.

    Args:
        task: Takes the composed config.
        errors: Receives the task's exception, because Hydra would print its own report.
        full_error: The user's own value of HYDRA_FULL_ERROR.
    """

    def job(cfg: Any) -> Any:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        from agebench.sweep.environment import set_variable
        from agebench.sweep.session import current_job

        with set_variable(FULL_ERROR, full_error):
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                return _run_with_other_launcher(task, cfg)
            folder, alone = Path(HydraConfig.get().runtime.output_dir), current_job() is None
            try:
                check_log_name(HydraConfig.get().job.name)
                return task(cfg)
            except Exception as error:
                errors.append(error)
                if not isinstance(error, UserError):
                    log_traceback(error)
                elif alone:
                    remove_log(folder, HydraConfig.get().job.name)
                return None
            finally:
                chosen = any(each.startswith("hydra.run.dir=") for each in HydraConfig.get().overrides.hydra)
                outputs = Path(str(cfg.get("paths", {}).get("output", "outputs"))).absolute()
                remove_empty(folder, outputs=outputs if alone and not chosen else None)

    return job


def _run_with_other_launcher(task: Task, cfg: Any) -> Any:
    """Run a point of a sweep with another launcher than that of agebench, such as Ray's, and return its result.

    Raises:
        SweepError: If the task raises; its own exception is logged, and may not be picklable.
    """
    import logging

    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a Ray worker starts in the folder where `ray start` was called
    try:
        return task(cfg)
    except Exception as error:
        from agebench.cli.messages import explain

        logging.getLogger(__name__).exception("this point failed")
        message = explain(error, config_folder()) or f"{type(error).__name__}: {error}"
        raise SweepError(f"a point failed: {message} (see {hydra.runtime.output_dir})") from None


def register_resolvers() -> None:
    """Register the OmegaConf resolvers that conf/ uses for the names of folders."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from agebench.runs.identity import point_name
    from agebench.runs.members import home_of

    def name_point(differs: str, *, _root_: Any) -> str:
        config = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "hydra"])
        try:  # resolved, as the run itself hashes it
            plain: Any = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException:  # only resolvable at run time, or an error that is reported later
            plain = OmegaConf.to_container(config, resolve=False)
        return point_name(differs, plain)

    OmegaConf.register_new_resolver("agebench.point", name_point, replace=True)
    OmegaConf.register_new_resolver("agebench.home", home_of, replace=True)
    OmegaConf.register_new_resolver("agebench.kind", lambda finds: "lr_find/" if finds is True else "", replace=True)
    OmegaConf.register_new_resolver("agebench.from", lambda folder, path: str(Path(folder, path)), replace=True)


def _exclude_fixed_keys_from_names() -> None:
    """Exclude keys that are equal in all points from the names of points. Hydra accepts only a list of keys."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    texts = [a for a in sys.argv[1:] if not a.startswith("-") and "=" in a]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException:
        return  # Hydra is about to report it
    fixed = ["sweep", *(o.key_or_group for o in overrides if not o.is_sweep_override())]
    if not any(o.key_or_group == "hydra.job.config.override_dirname.exclude_keys" for o in overrides):
        sys.argv.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]")
