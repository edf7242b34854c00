"""From a command line to a verb: flags anywhere, help at once, and one readable sentence for every mistake.

Nothing heavy is imported here: help and mistakes answer before torch would have loaded.
"""

import contextlib
import difflib
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agebench.config import config_folder
from agebench.errors import FailedError, UserError, chain, did_you_mean

# Hydra's flags that take a value of their own, after a space.
VALUED = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
VALUED |= {"--experimental-rerun"}


# Hydra's plugins that are extras of ours: a choice in the group hydra/launcher or hydra/sweeper, and the extra.
EXTRAS = {"ray": "ray", "ray_aws": "ray", "ray_cluster": "ray", "joblib": "joblib", "optuna": "optuna"}
EXTRAS |= {"submitit_local": "slurm", "submitit_slurm": "slurm"}
log = logging.getLogger(__name__)
UNWRITABLE = (errno.EEXIST, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


composed: tuple[Any, Any] | None = None  # in a job of a sweep: its config and Hydra's context, as the launcher has them
sweep_points: list[Any] = []  # of the multirun in this process: the launcher's agebench.sweep.point.Point
sweep_folder: Path | None = None


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return flags, their values among them, and overrides: Hydra's parser takes no override after a flag.

    A ~ in the value of an override is no mistake: it is the home folder where the shell would have put that.
    """
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(_with_home(argument))
        elif argument in VALUED:
            flags += [argument, *rest[:1]]
            rest = rest[1:]
        elif argument in ("--info", "-i"):  # its value may be left out, and would then be the first override
            given = bool(rest) and not rest[0].startswith("-") and "=" not in rest[0]
            flags.append(f"--info={rest.pop(0) if given else 'all'}")
        else:
            flags.append(argument)
    return flags, overrides


def quoted(value: str) -> str:
    """Return a text as a value in Hydra's override grammar, whatever characters it has."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value) + "'"


def _with_home(override: str) -> str:
    """Return an override with ~/ as shells put it at the start of a word, and any other ~ quoted: Hydra takes none."""
    key, sign, value = override.partition("=")
    if "'" in value or '"' in value:
        return override
    return key + sign + re.sub(r"[^][,{}()=]*~[^][,{}()=]*", lambda m: quoted(_home(m[0])), value)


def _home(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111  # Path's raises for a user whom nobody knows


def main(verb: str, task: Callable[[Any], Any], *, config_name: str) -> None:
    """Run a verb under Hydra and exit: 0 done, 1 a job failed, 2 the command, the config or the data is wrong.

    Args:
        verb: Its name, for messages.
        task: Takes the composed config.
        config_name: Its primary config in conf/.
    """
    flags, overrides = split_flags(sys.argv[1:])
    sys.argv[1:] = [*flags, *overrides]
    if any(a in ("--help", "-h") for a in sys.argv[1:]):
        from agebench.cli.help import show_help

        with contextlib.suppress(BrokenPipeError):  # `--help | head` has seen enough
            print(show_help(verb, config_folder(), config_name), flush=True)
        return
    full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    try:
        _run_hydra(task, config_name)
    except Exception as error:
        message = explain(error, config_folder())
        if full or message is None:
            raise
        print(f"agebench {verb}: {message}", file=sys.stderr)
        sys.exit(1 if isinstance(error, FailedError) else 2)
    except KeyboardInterrupt:
        print(f"agebench {verb}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning's test and predict end so, without a word
            print(f"agebench {verb}: interrupted; what was finished is kept", file=sys.stderr)
        raise


class SweepError(FailedError):
    """Some points of a sweep failed; each has already been reported."""


def _run_hydra(task: Callable[[Any], Any], config_name: str) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job, setup_globals
    from hydra.types import RunMode
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from agebench.runs.identity import point_name

    def name_point(differs: str, *, _root_: Any) -> str:
        config = OmegaConf.masked_copy(_root_, [key for key in _root_ if key != "hydra"])
        try:  # worked out, as the run hashes it
            plain: Any = OmegaConf.to_container(config, resolve=True)
        except OmegaConfBaseException:  # what is only known inside a run, or a mistake that is reported later
            plain = OmegaConf.to_container(config, resolve=False)
        return point_name(differs, plain)

    OmegaConf.register_new_resolver("agebench.point", name_point, replace=True)
    OmegaConf.register_new_resolver("agebench.from", lambda folder, path: str(Path(folder, path)), replace=True)
    _leave_out_of_names()
    environment = os.environ.pop("HYDRA_FULL_ERROR", None)

    failed: list[Exception] = []

    def job(cfg: Any) -> Any:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        elsewhere = HydraConfig.get().mode == RunMode.MULTIRUN  # a point under another launcher than ours
        if elsewhere:
            os.chdir(HydraConfig.get().runtime.cwd)  # a Ray worker starts where `ray start` was typed
        try:
            return task(cfg)
        except Exception as error:
            if elsewhere:
                log.exception("this point failed")
                message = explain(error, config_folder()) or f"{type(error).__name__}: {error}"
                folder = HydraConfig.get().runtime.output_dir
                raise SweepError(f"a point failed: {message} (see {folder})") from None
            failed.append(error)  # Hydra would print a report of its own
            return None
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    # Hydra then lets exceptions through instead of printing its own reports and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        if composed is None:
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)()
        else:
            config, context = composed
            setup_globals()
            run_job(job, config, "hydra.run.dir", None, context)
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if environment is not None:
            os.environ["HYDRA_FULL_ERROR"] = environment
        if sweep_folder is not None:
            from agebench.sweep.summary import end_sweep

            end_sweep(sweep_folder, sweep_points)
    if failed:
        raise failed[0]
    broken = sum(point.status != "completed" for point in sweep_points)
    if broken:
        others = "; the others are complete" if broken < len(sweep_points) else ""
        raise SweepError(f"{broken} of {len(sweep_points)} points failed{others}")


def _leave_out_of_names() -> None:
    """Keep what is the same for every point out of the points' names: Hydra knows only a list of keys to leave out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    texts = [a for a in sys.argv[1:] if not a.startswith("-") and "=" in a]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException:
        return  # Hydra is about to say so itself
    fixed = ["sweep", *(o.key_or_group for o in overrides if not o.is_sweep_override())]
    if not any(o.key_or_group == "hydra.job.config.override_dirname.exclude_keys" for o in overrides):
        sys.argv.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]")


def explain(error: BaseException, conf: Path) -> str | None:
    """Return one sentence on an error that the user can mend, or None if it is not of that kind."""
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    links = chain(error)
    for found in links:
        if isinstance(found, UserError | FailedError):
            return str(found)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full: make room, or choose another hydra.run.dir or paths.output"
    if isinstance(error, OSError) and error.filename and error.errno in UNWRITABLE:
        if error.errno in (errno.EACCES, errno.EPERM):  # which says not what was tried
            return (
                f"cannot read or write {error.filename}: {error.strerror}; see to its permissions, or choose another "
                "data.root, hydra.run.dir or paths.output"
            )
        return f"cannot write {error.filename}: {error.strerror}; choose another hydra.run.dir or paths.output"
    text = " ".join(str(error).split()) if str(error) else str(links[-1])
    match = re.search(r"Could not (?:find|load) '(hydra/(?:launcher|sweeper))/(\w+)'", text)
    if match and match[2] in EXTRAS:
        return f'{match[1]}={match[2]} needs an extra: pip install "agebench[{EXTRAS[match[2]]}]"; see docs/sweeps.md'
    if "Config group override must be a string" in text:  # a bare ValueError of Hydra's
        return "a group takes the name of a choice, as in model=mlp: no number, no null, and no spaces around ="
    if not any(isinstance(found, HydraException | OmegaConfBaseException) for found in links):
        return None
    if isinstance(error, OverrideParseException):
        if str(error.override).endswith(","):
            return f"cannot read {error.override}: it ends in a comma; give a value after it, or leave it out"
        reason = text.partition(" See http")[0].removeprefix(f"Error parsing override '{error.override}' ")
        reason = "" if reason.startswith("LexerNoViableAlt") else f" ({reason})"  # which tells nothing but its own name
        return (
            f"cannot read {error.override}{reason}: give KEY=VALUE without spaces around =, "
            f"""and quote other values than plain words and numbers twice: 'KEY="VALUE"'"""
        )
    if match := re.search(r"Ambiguous value for argument '([^=']+)=([^']*)'", text):
        return f"{match[1]} has several values: add -m to run them all, or write {match[1]}=[{match[2]}] for one list"
    if match := re.search(r"An item is already at '([^']*)'|^(\S+) appears more than once in the final defaults", text):
        name = match[1] or match[2]
        return f"{name} is in the config already: write {name}=VALUE without the +"
    if match := re.search(r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", text):
        return _no_key(match[1], conf)
    if match := re.search(r"Key '([^']+)' is not in struct full_key: (\S+)", text):
        return _no_key(match[2], conf)
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].rpartition("/")
        offered = re.search(r"Available options in '[^']+': (.*?)(?: Config search path|$)", text)
        choices = [name for name in offered[1].split() if not name.startswith("_")] if offered else []
        listed = f"; choose one of {', '.join(choices)}" if choices else ""
        return f"{group}={choice} does not exist{_nearest(choice, choices)}{listed}"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]} has no default: set {match[1]}=VALUE"
    where = re.search(r"full_key: (\S+)", text)
    text = re.sub(r" *(full_key:.*|object_type=\S+|Config search path:.*|See https?://\S+.*)", "", text)
    return f"{where[1]}: {text}" if where else text


def _no_key(key: str, conf: Path) -> str:
    known = known_names(conf)
    if key in known:
        return f"there is no config key {key!r} here: it belongs to another choice of its group, or to another verb"
    return f"there is no config key or group {key!r}{_nearest(key, known)}; --help lists the groups"


def known_names(conf: Path) -> list[str]:
    """Return every group and every dotted key that the configs define, without composing them."""
    from omegaconf import OmegaConf

    from agebench.config import flatten

    names: set[str] = set()
    for path in conf.rglob("*.yaml"):
        group = path.parent.relative_to(conf).as_posix()
        if group.startswith("hydra"):
            continue
        tree: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False) or {}
        tree.pop("defaults", None)
        prefix = "" if group in (".", "experiment", "debug") or path.stem == "config" else group.replace("/", ".") + "."
        if group != ".":
            names.add(group)
        for key in flatten(tree):
            parts = f"{prefix}{key}".split(".")
            names |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return sorted(n for n in names if not re.search(r"_target_|_partial_|^hydra\.sweeper\.params", n))


def _nearest(name: str, known: Sequence[str]) -> str:
    last = re.split(r"[./]", name)[-1]
    alike = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    ends = alike or [
        k for k in known if re.split(r"[./]", k)[-1] == last
    ]  # `lr` for `optim.lr`, `split` for `data/split`
    close = [min(ends, key=lambda k: (len(k), "/" not in k))] if ends else []
    return did_you_mean(close[0] if close else name, known)
