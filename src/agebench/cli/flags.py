"""The flags of a command line, such as `-m`, apart from its overrides."""

import difflib
from collections.abc import Sequence
from pathlib import Path

# Flags of Hydra that are followed by a value, after a space.
VALUED = {"--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
VALUED |= {"--experimental-rerun"}
FLAGS = VALUED | {"--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m"}
FLAGS |= {"--shell-completion", "-sc", "--info", "-i"}


def split_flags(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return flags (with their values) and overrides as two lists, because Hydra accepts no override after a flag."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            overrides.append(argument)
        elif argument in VALUED:
            flags += [argument, *rest[:1]]
            rest = rest[1:]
        elif argument in ("--info", "-i"):  # argparse would take the first override for its optional value
            given = bool(rest) and not rest[0].startswith("-") and "=" not in rest[0]
            flags.append(f"--info={rest.pop(0) if given else 'all'}")
        else:
            flags.append(argument)
    return flags, overrides


def config_dir(flags: Sequence[str]) -> Path | None:
    """Return the folder after --config-dir, or None.

    Args:
        flags: As `split_flags` returns them.
    """
    for flag, after in zip(flags, [*flags[1:], ""], strict=True):
        name, sign, value = flag.partition("=")
        if name in ("--config-dir", "-cd"):
            return Path(value if sign else after).expanduser()
    return None


def unknown_flag(flags: Sequence[str]) -> str:
    """Return a sentence about the first flag that Hydra does not have, such as `--model=mlp`; empty without one."""
    for flag in flags:
        name, sign, _ = flag.partition("=")
        is_short = not name.startswith("--")  # may stand for several flags, or include a value
        if name in FLAGS or (is_short and not sign) or (not is_short and any(each.startswith(name) for each in FLAGS)):
            continue
        if not sign and (near := difflib.get_close_matches(name, FLAGS, n=1, cutoff=0.8)):
            return f"there is no flag {name} (did you mean {near[0]}?)"
        typed = flag.lstrip("-")
        return f"there is no flag {name}: write {typed if sign else f'{typed}=VALUE'}, without dashes"
    return ""
