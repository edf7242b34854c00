"""From a command line to a verb: flags anywhere, help at once, and one readable sentence for every mistake.

Nothing heavy is imported here: help and mistakes answer before torch would have loaded.
"""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agebench.errors import UserError

# Hydra's flags that take a value of their own, after a space.
VALUED = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
VALUED |= {"--experimental-rerun"}


def config_folder() -> Path:
    """Return the folder of the configs: inside an installed package, or beside src/ in a checkout."""
    here = Path(__file__).parent
    return here / "conf" if (here / "conf").is_dir() else here.parents[1] / "conf"


def flags_first(arguments: Sequence[str]) -> list[str]:
    """Move flags before overrides: Hydra's parser does not take up overrides again after a flag."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            overrides.append(argument)
            continue
        flags.append(argument)
        if argument in VALUED:
            flags.extend([value] if (value := next(rest, None)) is not None else [])
    return [*flags, *overrides]


def main(verb: str, task: Callable[[Any], Any], *, config_name: str) -> None:
    """Run a verb under Hydra and exit: 0 done, 1 a job failed, 2 the command, the config or the data is wrong.

    Args:
        verb: Its name, for messages.
        task: Takes the composed config.
        config_name: Its primary config in conf/.
    """
    sys.argv[1:] = flags_first(sys.argv[1:])
    if any(a in ("--help", "-h") for a in sys.argv[1:]):
        from agebench.help import show_help

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
        sys.exit(2 if not isinstance(error, SweepError) else 1)
    except KeyboardInterrupt:
        print(f"agebench {verb}: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(1)


class SweepError(Exception):
    """Some points of a sweep failed; each has already been reported."""


def _run_hydra(task: Callable[[Any], Any], config_name: str) -> None:
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import OmegaConf

    from agebench.run import point_name

    def name_point(differs: str, *, _root_: Any) -> str:
        keys = [key for key in _root_ if key != "hydra"]
        return point_name(differs, OmegaConf.to_container(OmegaConf.masked_copy(_root_, keys), resolve=False))  # type: ignore[arg-type]  # a config with string keys

    OmegaConf.register_new_resolver("agebench.point", name_point, replace=True)
    _leave_out_of_names()
    environment = os.environ.pop("HYDRA_FULL_ERROR", None)

    failed: list[Exception] = []

    def job(cfg: Any) -> Any:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        try:
            return task(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the launcher reports it and goes on
            failed.append(error)  # Hydra would print a report of its own
            return None
        finally:
            os.environ["HYDRA_FULL_ERROR"] = "1"

    # Hydra then lets exceptions through instead of printing its own reports and exiting with 1.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)(job)()
    finally:
        os.environ.pop("HYDRA_FULL_ERROR", None)
        if environment is not None:
            os.environ["HYDRA_FULL_ERROR"] = environment
    if failed:
        raise failed[0]


def _leave_out_of_names() -> None:
    """Keep what is the same for every point out of the points' names: Hydra knows only a list of keys to leave out."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    texts = [a for a in sys.argv[1:] if not a.startswith("-") and "=" in a]
    try:
        overrides = OverridesParser.create().parse_overrides(texts)
    except HydraException:
        return  # Hydra is about to say so itself
    fixed = [o.key_or_group for o in overrides if not o.is_sweep_override()]
    if fixed and not any(o.key_or_group == "hydra.job.config.override_dirname.exclude_keys" for o in overrides):
        sys.argv.append(f"hydra.job.config.override_dirname.exclude_keys=[{','.join(fixed)}]")


def explain(error: BaseException, conf: Path) -> str | None:
    """Return one sentence on an error that the user can mend, or None if it is not of that kind."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for found in chain:
        if isinstance(found, UserError | SweepError):
            return str(found)
    if not any(isinstance(found, HydraException | OmegaConfBaseException) for found in chain):
        return None
    text = " ".join(str(error).split()) if str(error) else str(chain[-1])
    if match := re.search(r"Could not (?:override|append to config)[^']*'([^']+)'", text):
        key = match[1].partition("@")[0]
        return f"there is no config key or group {key!r}{_nearest(key, known_names(conf))}; --help lists the groups"
    if match := re.search(r"Key '([^']+)' is not in struct full_key: (\S+)", text):
        return f"there is no config key {match[2]!r}{_nearest(match[2], known_names(conf))}"
    if match := re.search(r"Could not find '([^']+)'", text):
        group, _, choice = match[1].rpartition("/")
        choices = [path.stem for path in (conf / group).glob("*.yaml")]
        listed = f"; choose one of {', '.join(sorted(choices))}" if choices else ""
        return f"{group}={choice} does not exist{_nearest(choice, choices)}{listed}"
    if match := re.search(r"Missing mandatory value: (\S+)", text):
        return f"{match[1]} has no default: set {match[1]}=VALUE"
    return re.sub(r" *(full_key:.*|object_type=\S+|See https?://\S+.*)", "", text)


def known_names(conf: Path) -> list[str]:
    """Return every group and every dotted key that the configs define, without composing them."""
    from omegaconf import OmegaConf

    from agebench.run import flatten

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
    return sorted(n for n in names if "_target_" not in n and "_partial_" not in n)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = [k for k in known if "." not in name and k.rpartition(".")[2] == name][:1]  # `lr` for `optim.lr`
    close = close or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
