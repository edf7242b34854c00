"""The targets of the Makefile."""

import re
from pathlib import Path

MAKEFILE = Path(__file__).parents[1] / "Makefile"


def test_tensorboard_listens_on_this_machine_only_and_says_so() -> None:
    _, recipe = re.findall(r"^tensorboard:(.*)\n((?:\t.*\n)+)", MAKEFILE.read_text(), re.MULTILINE)[0]

    announced, command = recipe.splitlines()

    assert re.search(r"echo .*127\.0\.0\.1 only", announced)
    assert re.search(r"tensorboard .*--host 127\.0\.0\.1$", command)
