"""An exception as one sentence: what is wrong with the command, the config or the data, and how to fix it."""

import difflib
import errno
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from re import Match
from typing import Any

from agebench.errors import OUT_OF_MEMORY, FailedError, UserError, chain, did_you_mean, is_out_of_memory, one_line
from agebench.user_code import explain_own

# Hydra plugins that agebench installs as extras: the choice of hydra/launcher or hydra/sweeper, and the extra.
EXTRAS = {"ray": "ray", "ray_aws": "ray", "ray_cluster": "ray", "joblib": "joblib", "optuna": "optuna"}
EXTRAS |= {"submitit_local": "slurm", "submitit_slurm": "slurm"}
# Characters of Japanese keyboards, as they are and as repr() shows them.
WIDE = {"\u3000": "a full-width space", r"\u3000": "a full-width space", "＝": "a full-width ="}
WIDE |= {"、": "a Japanese comma", "，": "a full-width comma"}
WIDE |= {"\u00a0": "a no-break space", r"\xa0": "a no-break space"}
WIDE |= dict.fromkeys("\u201c\u201d\u2018\u2019", "curly quotes")  # of word processors, as the next line
WIDE |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "a dash that is not -")
# Full-width letters, digits and + - . / _
WIDE_LETTERS = re.compile("[\uff0b\uff0d-\uff19\uff21-\uff3a\uff3f\uff41-\uff5a]+")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MAX_LENGTH = 1_500  # characters of a sentence
UNWRITABLE = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
)


# How Hydra's parser begins messages that help no user.
PARSER_TERMS = ("LexerNoViableAlt", "missing EQUAL", "mismatched input", "extraneous input", "no viable alternative")


def explain(error: BaseException, conf: Path) -> str | None:
    """Return one sentence about an error that the user can fix, or None for any other error.

    A value that it repeats may be very long: then its middle is left out.

    Args:
        error: The exception that ended the command.
        conf: Folder of the configs, for the names of keys that exist.
    """
    sentence = _explain(error, conf)
    if sentence is None:
        return None
    sentence += wide_characters(sentence)
    if len(sentence) <= MAX_LENGTH:
        return sentence
    return f"{sentence[: MAX_LENGTH // 2]} ... {sentence[-MAX_LENGTH // 2 :]}"


def _explain(error: BaseException, conf: Path) -> str | None:
    from hydra.errors import HydraException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    links = chain(error)
    for found in links:
        if isinstance(found, UserError | FailedError):
            return str(found)
    if is_out_of_memory(error):
        return OUT_OF_MEMORY
    is_full = any(isinstance(found, OSError) and found.errno in FULL for found in links)
    if not is_full and (own := explain_own(error)):
        return own
    for found in links:  # torch.save raises a RuntimeError whose context is the OSError
        if not isinstance(found, OSError) or (found is not error and found.errno not in FULL):
            continue
        if sentence := _explain_os_error(found):
            return sentence
    # Hydra wraps some errors without a message, and the error of its parser is "None".
    text = next((one_line(str(link)) for link in links if str(link) not in ("", "None")), type(error).__name__)
    if text.startswith("Could not override"):  # its cause names the first part of the key that does not exist
        text += " " + one_line(str(_root_error(links)))
    # Hydra raises a plain ValueError for a value, and a TypeError for an item of a list.
    if "Config group override must be a string" in text or _is_from_hydra(
        error, r"argument of type .* is not iterable|can only concatenate str .*"
    ):
        return "a group takes the name of a choice, as in model=mlp: no number, no null, and no spaces around ="
    if "--resolve flag" in text:  # another plain ValueError
        return "--resolve needs --cfg job: it shows the composed config with its interpolations resolved"
    if not any(isinstance(found, HydraException | OmegaConfBaseException) for found in links):
        return None
    if sentence := _bare_key(links):
        return sentence
    if isinstance(error, OverrideParseException):
        sentence = _explain_parse_error(str(error.override), text)
        # A character in another argument may have split it, such as a space after a full-width comma.
        return sentence if wide_characters(sentence) else sentence + wide_characters(" ".join(sys.argv[1:]))
    if typo := _typo(links):
        return typo
    for pattern, explain_match in SENTENCES:
        if (match := re.search(pattern, text)) and (sentence := explain_match(match, conf)):
            return sentence
    where = re.search(r"full_key: (\S+)", text)
    text = re.sub(r" *(full_key:.*|object_type=\S+|Config search path:.*|See https?://\S+.*)", "", text)
    return f"{where[1]}: {text}" if where else text


def _is_from_hydra(error: BaseException, pattern: str) -> bool:
    """Return whether Hydra itself raised an exception, and its message matches a pattern."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    name = "" if frame is None else str(frame.tb_frame.f_globals.get("__name__"))
    return name.startswith("hydra.") and re.fullmatch(pattern, str(error)) is not None


def _explain_os_error(error: OSError) -> str | None:
    if error.errno in FULL:  # the system names no file
        return "the disk is full: free some space, or choose another hydra.run.dir or paths.output"
    if not error.filename or error.errno not in UNWRITABLE:
        return None
    if error.errno == errno.ELOOP:
        return f"{error.filename} is a link that agebench does not follow, or a loop of links: remove it"
    if error.errno == errno.ENAMETOOLONG:
        name = str(error.filename)
        return f"a path of {len(name):,} characters is too long: {name[:80]}...; choose another one"
    if error.errno in (errno.EACCES, errno.EPERM):  # does not say whether reading or writing was tried
        return (
            f"cannot read or write {error.filename}: {error.strerror}; check its permissions, or choose another "
            "data.root, hydra.run.dir or paths.output"
        )
    return f"cannot write {error.filename}: {error.strerror}; choose another hydra.run.dir or paths.output"


def wide_characters(sentence: str) -> str:
    """Return a hint to full-width characters, which are hard to see in what was typed; empty if there are none."""
    found = dict.fromkeys(name for character, name in WIDE.items() if character in sentence)
    if letters := WIDE_LETTERS.findall(sentence):
        found[f"full-width {' '.join(dict.fromkeys(letters))}"] = None
    return f"; it contains {' and '.join(found)}" if found else ""


def _explain_parse_error(override: str, text: str) -> str:
    if override.endswith(","):
        return f"cannot read {override}: it ends in a comma; add a value after it, or remove it"
    reason = text.partition(" See http")[0].removeprefix(f"Error parsing override '{override}' ")
    reason = "" if reason.startswith(PARSER_TERMS) else f" ({reason})"
    key = override.lstrip("+~").partition("=")[0]
    if not key.isascii() and not wide_characters(key):
        reason = f" (keys are in English, and {key} is none)"
    return (
        f"cannot read {override}{reason}: give KEY=VALUE without spaces around =, "
        "with a closing bracket for each opening one, and quotes around a value with spaces: 'KEY=my photos'"
    )


def _root_error(links: Sequence[BaseException]) -> BaseException:
    """Return OmegaConf's error, which has the node in which a key was not found; without one the last of the chain.

    In a debugger, OmegaConf chains its own cause to it, which has no node.
    """
    return next((link for link in reversed(links) if getattr(link, "parent_node", None) is not None), links[-1])


def _bare_key(links: Sequence[BaseException]) -> str | None:
    """Return a sentence about an override such as `lr` or `epochs`: a key of the composed config, without its group."""
    from omegaconf import OmegaConf

    from agebench.config import flatten

    typed = re.match(r"Could not override '(\w+)'", str(links[0]))
    root = getattr(_root_error(links), "parent_node", None)
    if typed is None or not OmegaConf.is_dict(root):
        return None
    plain: Any = OmegaConf.to_container(root, resolve=False)
    keys = [key for key in flatten(plain) if "." in key and not key.startswith("hydra.")]
    equal = [key for key in keys if key.endswith(f".{typed[1]}")]
    found = min(equal or [key for key in keys if key.endswith(f"_{typed[1]}")], key=len, default=None)
    return found and f"there is no config key or group {typed[1]!r} (did you mean {found!r}?); --help lists the groups"


def _missing_extra(match: Match[str], conf: Path) -> str | None:
    if match[2] not in EXTRAS:
        return None
    return f"{match[1]}={match[2]} needs an extra: {install_command(EXTRAS[match[2]])}; see docs/sweeps.md"


def install_command(extra: str) -> str:
    """Return the command that installs an extra, from the checkout if agebench was installed from one."""
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        installed = distribution("agebench")
    except PackageNotFoundError:
        return f'pip install -e ".[{extra}]" in the checkout'
    pip = "uv pip" if (installed.read_text("INSTALLER") or "").strip() == "uv" else "pip"
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if "dir_info" not in origin:
        return f'{pip} install "agebench[{extra}]"'
    return f'{pip} install -e ".[{extra}]" in {url2pathname(urlsplit(origin["url"]).path)}'


def _several_values(match: Match[str], conf: Path) -> str:
    if re.fullmatch(r"[+-]?\d+,\d+", match[2]):
        decimal = f", or {match[1]}={match[2].replace(',', '.')} for one number"
    else:
        decimal = ", or a backslash before a comma that is a part of the value"
    return (
        f"{match[1]} has several values: add -m to run them all, or write {match[1]}=[{match[2]}] for one list{decimal}"
    )


def _already_present(match: Match[str], conf: Path) -> str:
    name = match[1] or match[2]
    return f"{name} is already in the config: write {name}=VALUE without the +"


def _typo(links: Sequence[BaseException]) -> str | None:
    """Return a sentence about an override whose key resembles a key of the composed config, also of own YAML files."""
    typed = re.match(r"Could not override '([^']*)'", str(links[0]))
    cause: Any = _root_error(links)
    if typed is None or getattr(cause, "full_key", None) != typed[1]:
        return None
    group, dot, name = typed[1].rpartition(".")
    names = [str(key) for key in cause.parent_node if not str(key).startswith("_")]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f"there is no config key or group {typed[1]!r} (did you mean '{group}{dot}{near[0]}'?)" if near else None


def _no_key(match: Match[str], conf: Path) -> str:
    key, known = match[1], known_names(conf)
    if key in GIVEN:
        return f"{key} is set by agebench: set {GIVEN[key]} instead"
    absent = re.search(r"full_key: (\S+)", match.string)  # the group, if the command has no such group
    if absent and absent[1] == key and (choices := _choices_with(key, conf)):
        others = f" (or {', '.join(choices[1:4])}{', ...' if choices[4:] else ''})" if choices[1:] else ""
        return (
            f"there is no config key {key!r} here: it belongs to another choice of its group; "
            f"add {choices[0]}{others}, or remove the key"
        )
    if key in known:
        return f"there is no config key {key!r} here: it belongs to another command, or to another choice of its group"
    return f"there is no config key or group {key!r}{_nearest(key, known)}; --help lists the groups"


def _choices_with(key: str, conf: Path) -> list[str]:
    """Return the choices of a group that have a dotted key, as `finetune=gradual` has `finetune.epochs`."""
    from omegaconf import OmegaConf

    group, _, name = key.rpartition(".")
    files = sorted((conf / group.replace(".", "/")).glob("*.yaml")) if group else []
    return [
        f"{group.replace('.', '/')}={file.stem}"
        for file in files
        if file.stem[0] != "_" and name in OmegaConf.load(file)
    ]


def _no_choice(match: Match[str], conf: Path) -> str:
    group, _, choice = match[1].rpartition("/")
    offered = re.search(r"Available options in '[^']+': (.*?)(?: Config search path|$)", match.string)
    choices = [name for name in offered[1].split() if not name.startswith("_")] if offered else []
    listed = f"; choose one of {', '.join(choices)}" if choices else ""
    return f"{group}={choice} does not exist{_nearest(choice, choices)}{listed}"


def _missing_value(match: Match[str], conf: Path) -> str:
    return f"{match[1]} has no default: set {match[1]}=VALUE"


# Arguments that agebench passes to a network, and the keys that decide them.
GIVEN = {"model.in_chans": "data.channels", "model.num_classes": "data.target"}
# Messages of Hydra and OmegaConf, in the order in which they are tried. A function may return None to pass.
SENTENCES: tuple[tuple[str, Callable[[Match[str], Path], str | None]], ...] = (
    (r"Could not (?:find|load) '(hydra/(?:launcher|sweeper))/(\w+)'", _missing_extra),
    (r"Ambiguous value for argument '([^=']+)=(.*?)' 1\. To use", _several_values),
    (r"An item is already at '([^']*)'|^(\S+) appears more than once in the final defaults", _already_present),
    (r"Could not (?:override|append to config|delete from config)[^']*'([^']*)'", _no_key),
    (r"Key '[^']+' is not in struct full_key: (\S+)", _no_key),
    (r"Could not find '([^']+)'", _no_choice),
    (r"Missing mandatory value: (\S+)", _missing_value),
)


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
        if group == "recipe" and path.stem.startswith("_"):  # keys of other groups, without the names of the groups
            continue
        in_root = group in (".", "recipe", "experiment", "debug") or path.stem == "config"
        prefix = "" if in_root else group.replace("/", ".") + "."
        if group != ".":
            names.add(group)
        for key in flatten(tree):
            parts = f"{prefix}{key}".split(".")
            names |= {".".join(parts[: i + 1]) for i in range(len(parts))}
    return sorted(n for n in names if not re.search(r"_target_|_partial_|^hydra\.sweeper\.params", n))


def _nearest(name: str, known: Sequence[str]) -> str:
    """Return a suggestion for an unknown name: a very similar one, one with the same last part, or a similar one."""
    last = re.split(r"[./]", name)[-1]
    similar = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
    # `lr` stands for `optim.lr`, `split` for `data/split`, `cnn` for `small_cnn`.
    candidates = similar or [key for key in known if re.split(r"[./]", key)[-1] == last]
    candidates = candidates or [key for key in known if last in key.split("_")]
    best = min(candidates, key=lambda key: (len(key), "/" not in key), default=name)
    return did_you_mean(best, known)
