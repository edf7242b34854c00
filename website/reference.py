"""Pages of the reference: commands from --help, keys from the YAML files, Python from docstrings, and error messages.

A page is Markdown with its path on the site. Nothing is written: MkDocs receives the texts when it builds the site.
"""

import ast
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NotRequired, Required, get_args, get_origin

import yaml

REPOSITORY = Path(__file__).parents[1]
SOURCE = REPOSITORY / "src"
CONF = REPOSITORY / "conf"
sys.path.insert(0, str(SOURCE))

from agebench.__main__ import COMMANDS  # noqa: E402
from agebench.build import keys as schemas  # noqa: E402
from agebench.build.nodes import find_target  # noqa: E402
from agebench.cli.help import describe as first_line  # noqa: E402
from agebench.public import public_names  # noqa: E402
from agebench.schema import describe  # noqa: E402

# The packages whose names a YAML file or a Python program uses, and what they hold.
PACKAGES = {
    "agebench.heads": "Heads",
    "agebench.models": "Networks",
    "agebench.data.sources": "Data sets",
    "agebench.augment": "Augmentation",
}
# Single modules, or files of a package.
MODULES = {
    "agebench.api": "Training and comparing in Python",
    "agebench.testing": "Contract suites for tests",
    "agebench.data.records": "Records of a data set",
    "agebench.data.split": "Splits",
    "agebench.metrics.table": "Table of metrics",
    "agebench.metrics.formulas": "Formulas of metrics",
    "agebench.metrics.bootstrap": "Intervals",
    "agebench.training.schedules": "Schedules",
    "agebench.runs.read": "Reading runs",
    "agebench.errors": "Errors",
}
NOT_KEYS = ("recipe", "experiment", "debug")  # groups whose files set keys of other groups
HIDDEN = {"defaults", "hydra", "_target_", "_partial_"}


def generate() -> dict[str, str]:
    """Return every page of the reference by its path on the site."""
    groups = [
        folder.relative_to(CONF).as_posix()
        for folder in sorted(p for p in CONF.rglob("*") if p.is_dir())
        if folder.relative_to(CONF).parts[0] != "hydra"
    ]
    pages = {"reference/commands.md": commands_page(), "reference/errors.md": errors_page()}
    pages["reference/keys/index.md"] = training_page(groups)
    pages |= {f"reference/keys/{group.replace('/', '-')}.md": group_page(group) for group in groups}
    pages |= python_pages()
    pages["reference/index.md"] = index_page()
    return pages


def index_page() -> str:
    """Return the first page of the reference."""
    return "\n".join(
        (
            "# Reference",
            "",
            "These pages are generated from the code when the site is built.",
            "",
            "- [Commands](commands.md): `--help` of every command, and its keys",
            "- [Keys](keys/index.md): every group, choice, key, default and range, from the YAML files in `conf/`",
            "- [Python](python/index.md): classes and functions, from their docstrings",
            "- [Error messages](errors.md): every sentence that a wrong command, config or data set can end with",
        )
    )


# --- commands


def commands_page() -> str:
    """Return the page of all commands."""
    lines = ["# Commands", "", "`agebench COMMAND ...` is the same as `python -m agebench.COMMAND ...`.", ""]
    lines += ["| command | purpose |", "|---|---|", *(f"| [`{n}`](#{n}) | {p} |" for n, p in COMMANDS.items())]
    for name in COMMANDS:
        lines += ["", f"## {name}", "", "```text", help_of(name), "```"]
        file = CONF / f"{name}.yaml"
        kind = getattr(schemas, f"{name.title()}Keys", None)
        if file.exists() and kind is not None:
            lines += ["", *key_table(read_keys(file), kind)]
    return "\n".join((*lines, ""))


def help_of(command: str) -> str:
    """Return what `--help` of a command prints."""
    # A terminal of 100 columns without colors; argparse reads both variables.
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": str(SOURCE)}
    called = [sys.executable, "-m", "agebench", command, "--help"]
    return subprocess.run(called, env=environment, capture_output=True, text=True, check=True).stdout.rstrip()


# --- keys


@dataclass(frozen=True)
class Key:
    """A key of a YAML file.

    Args:
        name: Dotted, without the group.
        default: The value as it is written.
        comment: The comment beside or above it.
        target: The object that receives it as an argument, if the node names one.
    """

    name: str
    default: str
    comment: str
    target: str = ""


def read_keys(path: Path) -> list[Key]:
    """Return the keys of a YAML file in their order."""
    text = path.read_text(encoding="utf-8")
    root = yaml.compose(text)
    return list(_keys_of(root, text, "")) if isinstance(root, yaml.MappingNode) else []


def _keys_of(node: yaml.MappingNode, text: str, prefix: str) -> Iterator[Key]:
    lines = text.splitlines()
    target = next((value.value for key, value in node.value if key.value == "_target_"), "")
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if key.value in HIDDEN:
            continue
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _keys_of(value, text, f"{name}.")
            continue
        default = text[value.start_mark.index : value.end_mark.index].strip()
        rest = lines[value.end_mark.line][value.end_mark.column :] if value.end_mark.line < len(lines) else ""
        beside = re.match(r"\s*#\s*(.*)", rest)
        yield Key(name, default, beside[1].strip() if beside else _above(lines, key.start_mark.line), target)


def _above(lines: list[str], line: int) -> str:
    """Return the comment in the lines above a key, except the description in the first line of a file."""
    found: list[str] = []
    while line > 1 and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        found.insert(0, lines[line].lstrip("# ").strip())
    return " ".join(found)


def key_table(keys: list[Key], kind: Any, prefix: str = "") -> list[str]:
    """Return a table of keys as lines of Markdown.

    Args:
        keys: The keys, without the name of their group.
        kind: The TypedDict of the command.
        prefix: The name of the group with a dot.
    """
    rows = []
    for key in keys:
        argument = arguments_of(key.target).get(key.name.rpartition(".")[2])
        allowed = describe_values(kind, f"{prefix}{key.name}".split("."), argument)
        default = "required" if key.default == "???" else code(key.default or "null")
        rows.append(f"| {code(prefix + key.name)} | {default} | {cell(allowed)} | {cell(key.comment)} |")
    if not rows:
        return ["No keys."]
    return ["| key | default | values | meaning |", "|---|---|---|---|", *rows]


def describe_values(kind: Any, parts: list[str], argument: Any) -> str:
    """Return the values that a key takes as words: from the schema, else from the argument's annotation, else ''."""
    found: Any = kind
    for part in parts:
        group = _typed_dict(found)
        found = typing.get_type_hints(group, include_extras=True).get(part) if group else None
    found = argument if found is None else found
    if found is None or found is Any:
        return ""
    words = describe(found)
    return "" if words.startswith("a group of keys") else words


def _typed_dict(kind: Any) -> Any:
    """Return the TypedDict inside an annotation, or None."""
    if typing.is_typeddict(kind):
        return kind
    inner = get_args(kind)[:1] if get_origin(kind) in (typing.Annotated, Required, NotRequired) else get_args(kind)
    return next((found for each in inner if (found := _typed_dict(each))), None)


@cache
def arguments_of(target: str) -> dict[str, Any]:
    """Return the annotations of the arguments of a class or function, or nothing without a name."""
    if not target:
        return {}
    found: Any = find_target("model", target)
    try:
        return typing.get_type_hints(found.__init__ if isinstance(found, type) else found, include_extras=True)
    except Exception:  # an annotation may name what only a type checker imports
        return {}


def training_page(groups: list[str]) -> str:
    """Return the page of the groups, and of the keys of a training that belong to no group."""
    lines = [
        "# Keys",
        "",
        "A config is composed from groups. `GROUP=CHOICE` selects a file of a group, and `KEY=VALUE` sets a key.",
        "Several values for a key and `-m` are a sweep. `--cfg job` prints the composed config.",
        "",
        "| group | choices |",
        "|---|---|",
    ]
    for group in groups:
        names = ", ".join(code(path.stem) for path in choices(group))
        lines.append(f"| [`{group}=`]({group.replace('/', '-')}.md) | {names} |")
    own = [key for key in read_keys(CONF / "config.yaml") if key.name.partition(".")[0] not in groups]
    lines += ["", "## Keys of a training run", "", *key_table(own, schemas.TrainKeys)]
    lines += ["", "The keys of the other commands are in [commands](../commands.md).", ""]
    return "\n".join(lines)


def choices(group: str) -> list[Path]:
    """Return the files of a group that can be chosen."""
    return [path for path in sorted((CONF / group).glob("*.yaml")) if not path.stem.startswith("_")]


def group_page(group: str) -> str:
    """Return the page of a group: its common keys, and each choice with its own keys."""
    prefix = f"{group.replace('/', '.')}."
    lines = [f"# {group}=", "", "| choice | description |", "|---|---|"]
    lines += [f"| [`{path.stem}`](#{path.stem}) | {cell(first_line(path))} |" for path in choices(group)]
    common = [
        replace(key, name=key.name.removeprefix(prefix))
        for key in read_keys(CONF / "config.yaml")
        if key.name.startswith(prefix)
    ]
    base = CONF / group / "_base.yaml"
    common += read_keys(base) if base.exists() else []
    if common:
        lines += ["", "## Keys of every choice", "", *key_table(common, schemas.TrainKeys, prefix)]
    for path in choices(group):
        lines += ["", f"## {path.stem}", "", f"{first_line(path)}.", ""]
        text = path.read_text(encoding="utf-8")
        if group in NOT_KEYS:
            lines += [f"`{group}={path.stem}` sets:", "", "```yaml", "\n".join(text.splitlines()[2:]), "```"]
            for part in sorted((CONF / group).glob(f"_{path.stem}_*.yaml")):  # of a recipe
                choice = part.stem.removeprefix(f"_{path.stem}_")
                keys = "\n".join(part.read_text(encoding="utf-8").splitlines()[1:])
                lines += ["", f"{first_line(part)}, for the choice `{choice}` only:", "", "```yaml", keys, "```"]
            continue
        target = re.search(r"^_target_: (\S+)$", text, re.MULTILINE)
        if target:
            lines += [f"Builds {code(target[1])}.", ""]
        lines += key_table(read_keys(path), schemas.TrainKeys, prefix)
    return "\n".join((*lines, ""))


def code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    return f"`{cell(' '.join(text.split()))}`"


def cell(text: str) -> str:
    """Return a text for a cell of a table."""
    return text.replace("|", "\\|")


# --- Python


def python_pages() -> dict[str, str]:
    """Return a page per package or module, which mkdocstrings fills from the docstrings."""
    pages = {}
    listed = ["# Python", "", "| import | content |", "|---|---|"]
    for name, title in (PACKAGES | MODULES).items():
        path = SOURCE / name.replace(".", "/")
        if not path.with_suffix(".py").exists() and not path.is_dir():
            continue
        modules = (
            [f"{name}.{file}" for file in dict.fromkeys(public_names(name).values())] if name in PACKAGES else [name]
        )
        page = name.removeprefix("agebench.").replace(".", "-")
        pages[f"reference/python/{page}.md"] = "\n".join([f"# {title}", "", *_blocks(name, modules)])
        listed.append(f"| [`{name}`]({page}.md) | {title} |")
    pages["reference/python/index.md"] = "\n".join((*listed, ""))
    return pages


def _blocks(name: str, modules: list[str]) -> list[str]:
    """Return the lines of mkdocstrings for the modules of a page; those of a package have a heading each."""
    shown = "true" if name in PACKAGES else "false"
    options = f"    options: {{show_root_heading: {shown}, show_root_toc_entry: {shown}, show_root_full_path: false}}"
    lines = [f"`from {name} import ...`", ""] if name in PACKAGES else []
    return [*lines, *(line for module in modules for line in (f"::: {module}", options, ""))]


# --- error messages


def errors_page() -> str:
    """Return the page of the sentences of UserError, in the order of the packages."""
    lines = [
        "# Error messages",
        "",
        "A wrong command, config or data set ends with one of these sentences and exit code 2. Words in angle brackets",
        "stand for values. The [FAQ](../faq.md) explains the messages that people meet most often.",
    ]
    for package in sorted({path.parent for path in (SOURCE / "agebench").rglob("*.py")}):
        sentences = [each for path in sorted(package.glob("*.py")) for each in user_errors(path)]
        if sentences:
            name = package.relative_to(SOURCE).as_posix().replace("/", ".")
            lines += ["", f"## {name}", "", *(f"- {escape(each)}" for each in dict.fromkeys(sentences))]
    return "\n".join((*lines, ""))


def user_errors(path: Path) -> list[str]:
    """Return the sentences of the UserErrors that a file raises, with names in angle brackets for values."""
    calls = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "UserError" and node.args
    ]
    sentences = [" ".join(_words(call.args[0]).split()) for call in sorted(calls, key=lambda call: call.lineno)]
    return [each for each in sentences if re.search(r"[a-z]{3,} .*[a-z]{3,}", re.sub("<[^>]*>", "", each))]


def _words(node: ast.expr) -> str:
    """Return the text of an expression."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_words, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _words(node.left) + _words(node.right)
    if isinstance(node, ast.FormattedValue):
        return _words(node.value)
    return _placeholder(node)


def _placeholder(node: ast.expr) -> str:
    """Return the name of a value in angle brackets: for `", ".join(names)` and `len(names)` it is `names`."""
    if isinstance(node, ast.Call):
        if getattr(node.func, "id", "") == "did_you_mean":  # a suggestion, only if a name is similar
            return ""
        if node.args and not isinstance(node.args[0], ast.Constant | ast.JoinedStr):
            return _placeholder(node.args[0])
    name = next((n for n in ast.walk(node) if isinstance(n, ast.Name | ast.Attribute)), None)
    found = getattr(name, "attr", None) or getattr(name, "id", None) or "value"
    return f"<{found.strip('_').lower()}>"


def escape(text: str) -> str:
    """Return a text whose characters have no meaning in Markdown or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~{}])", r"\\\1", text)
