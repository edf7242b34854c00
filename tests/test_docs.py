"""The documents: every link leads somewhere, every command can be run, every error of the FAQ exists."""

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import pytest

from agebench import compare
from agebench.__main__ import COMMANDS
from agebench.build import keys
from agebench.cli import rules
from agebench.cli.flags import split_flags
from agebench.cli.help import SWEEPING
from agebench.cli.overrides import key_takes_text, to_hydra
from agebench.cli.rules import check_config
from agebench.lecture import LECTURES
from agebench.new.scaffold import KINDS

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "experiments/**/*.md", "benchmarks/*.md")
    for path in REPOSITORY.glob(pattern)
)
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
COMMAND = "python -m agebench."
# What an override in the tables about the lectures needs, if the table leaves it out.
NEEDED = {"data.split": "data=mnist"}


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def each_document(documents=DOCUMENTS):
    return pytest.mark.parametrize("path", documents, ids=map(name, documents))


def github_anchor(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


@cache
def anchors(path: Path) -> set[str]:
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    return {github_anchor(line.lstrip("#")) for line in text.splitlines() if re.match("#+ ", line)}


@pytest.mark.parametrize("document", ["README.md", "README.ja.md"])
def test_the_readme_shows_the_page_of_a_run_a_comparison_and_tensorboard(document) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")

    shown = re.findall(r"!\[[^\]]{10,}\]\(docs/images/(\w+)\.png\)", text)

    assert shown == ["page", "comparison", "tensorboard"]


def test_each_screenshot_is_small_and_taken_by_the_script() -> None:
    script = (REPOSITORY / "website" / "screenshots.py").read_text(encoding="utf-8")

    pictures = sorted((REPOSITORY / "docs" / "images").iterdir())

    assert len(pictures) >= 3
    for path in pictures:
        assert path.stat().st_size <= 200_000
        assert f'shoot("{path.stem}", ' in script


@each_document()
def test_every_link_leads_to_a_file_and_an_anchor_of_the_repository(path) -> None:
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))

    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        if "://" not in target and not (linked.exists() and (not anchor or anchor in anchors(linked))):
            dead.append(target)

    assert dead == []


def fenced_commands() -> Iterator[tuple[str, str]]:
    """Yield the commands in the code blocks of the documents, without those that use variables of a shell."""
    for path in DOCUMENTS:
        for _, language, body in FENCE.findall(path.read_text(encoding="utf-8")):
            for line in body.replace("\\\n", " ").splitlines():
                command = re.sub(r"^\s*(?:srun |!)?", "", line)
                if language in ("", "sh") and command.startswith(COMMAND) and "$" not in command:
                    yield re.sub(r"\s+#.*", "", command).strip(), name(path)


def table_commands(path: Path) -> list[list[str]]:
    """Return the lines of the tables of a page about the lectures, as lists of commands or overrides."""
    rows = [line.split(" | ") for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [re.findall(r"`([^`]+)`", row[1]) for row in rows if len(row) == 5]


def lecture_commands() -> Iterator[tuple[str, str]]:
    """Yield the commands in the tables about the lectures. A line without a command is a list of keys of train."""
    page = REPOSITORY / "docs/lectures.md"
    for line in (line for lines in table_commands(page) for line in lines):
        key = line.partition("=")[0]
        if line.split()[0] in COMMANDS:
            yield COMMAND + line.replace(",...", ""), name(page)
        elif "=" in line:
            yield f"{COMMAND}train {NEEDED.get(key.rpartition('.')[0] or key, '')} {line}", name(page)


LINES = dict((*lecture_commands(), *fenced_commands()))  # each once, with one of its documents


@pytest.mark.ci
@pytest.mark.parametrize("line", LINES, ids=[f"{LINES[line]}: {line}" for line in LINES])
def test_every_command_of_the_documents_is_valid(compose_config, conf, monkeypatch, line) -> None:
    monkeypatch.setattr(rules, "is_missing", lambda name: False)  # as on a machine with a GPU
    verb, *arguments = shlex.split(line.removeprefix(COMMAND))
    if verb == "compare":
        compare._parser().parse_args(arguments)
        return
    if verb == "new":
        assert arguments[0] in KINDS
        return
    if verb == "lecture":
        assert set(arguments) <= set(LECTURES)
        return
    flags, overrides = split_flags(arguments)
    if "--config-dir" in flags:
        pytest.skip("tests/e2e/test_extending.py runs it")
    if "experiment=sweep_optuna" in overrides:
        pytest.importorskip("optuna", reason="needs the extra: pip install agebench[optuna]")
    for package in ("mlflow", "wandb", "trackio", "aim"):
        if f"logger={package}" in overrides:
            pytest.importorskip(package, reason=f"needs the extra: pip install agebench[{package}]")
    if verb == "evaluate" and not any(each.startswith("data=") for each in overrides):
        overrides = [each.replace("data.groups=", "groups=") for each in overrides]  # as evaluate itself does
    config_name = "config" if verb == "train" else verb
    is_text = partial(key_takes_text, conf=conf, config_name=config_name)
    typed = [to_hydra(each, is_text=is_text, sweeps=verb in SWEEPING) for each in overrides]

    config = compose_config(*first_values(typed), name=config_name)

    check_config(config, getattr(keys, f"{verb.title()}Keys"))


def first_values(overrides: list[str]) -> list[str]:
    """Return the overrides of the first point of a sweep, without those of Hydra, which may need an extra."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    values = []
    for each in OverridesParser.create().parse_overrides(overrides):
        key = each.get_key_element()
        if key.startswith("hydra") or key == "sweep":
            continue
        values.append(f"{key}={next(each.sweep_string_iterator())}" if each.is_sweep_override() else each.input_line)
    return values


def test_both_pages_about_the_lectures_have_the_same_lines() -> None:
    english, japanese = (table_commands(REPOSITORY / "docs" / page) for page in ("lectures.md", "ja/lectures.md"))

    assert len(english) > 60
    assert english == japanese


def test_both_tutorials_have_the_same_commands_and_outputs() -> None:
    english, japanese = (
        FENCE.findall((REPOSITORY / "docs" / page).read_text(encoding="utf-8"))
        for page in ("tutorial.md", "ja/tutorial.md")
    )

    assert len(english) > 8
    assert english == japanese


def texts_of_the_code() -> set[str]:
    """Return every text in the source, with `\0` for each value that is filled in."""
    found = set()
    for path in (REPOSITORY / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_every_message_of_the_faq_is_a_message_of_the_code() -> None:
    headings = re.findall(r"^### `(.+)`$", (REPOSITORY / "docs/faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    texts = texts_of_the_code()

    unknown = []
    for heading in headings:
        pieces = [re.escape(piece.strip()) for piece in heading.split("...")]
        pattern = re.compile(".*".join(pieces), re.DOTALL)
        if not any(pattern.search(text) for text in texts):
            unknown.append(heading)

    assert len(headings) > 25
    assert unknown == []
