"""The targets of the Makefile."""

import re
from pathlib import Path

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def recipe(target: str) -> list[str]:
    (found,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)
    return found.splitlines()


def test_the_documentation_is_built_strictly_and_served_on_this_machine_only() -> None:
    assert re.search(r"mkdocs build --strict$", recipe("docs")[0])
    assert re.search(r"mkdocs serve --dev-addr 127\.0\.0\.1:\d+$", recipe("docs-serve")[0])


def test_tensorboard_listens_on_this_machine_only_and_says_so() -> None:
    announced, command = recipe("tensorboard")

    assert re.search(r"echo .*127\.0\.0\.1 only", announced)
    assert re.search(r"tensorboard .*--host 127\.0\.0\.1$", command)
