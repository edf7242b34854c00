"""The notebooks run, cell by cell as in Jupyter, with small sizes."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "tour": {"EPOCHS": 1, "SEEDS": (0, 1)},
    "cacd_lecture": {"EPOCHS": 1, "PEOPLE": 24, "IMAGES": 360, "PER_DECADE": 20},
    "comparing_heads": {"HEADS": ("softmax", "coral"), "SEEDS": (0,), "EPOCHS": 1, "PEOPLE": 24, "IMAGES": 240},
    "own_photos": {"EPOCHS": 1},
}


def code_cells(path: Path) -> list[str]:
    """Return the code cells of a file in jupytext's percent format."""
    marks = re.split(r"^# %%(.*)\n", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    cells = zip(marks[::2], marks[1::2], strict=True)
    return [text for mark, text in cells if "[markdown]" not in mark]


def run_cell(text: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last line, if that is an expression."""
    tree = ast.parse(text)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_every_notebook_is_run() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SMALL)


@pytest.mark.ci
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs_and_its_objects_show_themselves(name, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AGEBENCH_DATA", raising=False)
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []

    for text in code_cells(FOLDER / f"{name}.py"):
        value = run_cell(text, names)
        if "EPOCHS" in names and "train" not in names:  # the cell of the parameters
            assert SMALL[name].keys() <= names.keys()
            names.update(SMALL[name])
        for method in ("_repr_html_", "_repr_png_"):
            if hasattr(value, method):
                shown.append(getattr(value, method)())

    assert any(isinstance(each, str) and "<table>" in each for each in shown)
    assert any(isinstance(each, tuple) and each[0].startswith(b"\x89PNG") for each in shown)
