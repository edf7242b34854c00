"""Who may import whom, read from the files; and what must not be imported before it is needed."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
VERBS = {f"agebench.{verb}" for verb in ("train", "evaluate", "predict", "prepare", "audit", "compare", "export")}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((SOURCE / "agebench").rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Modules of agebench that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in FILES else str(node.module)
                for alias in node.names
            }
    return {name for name in found if name.partition(".")[0] == "agebench"}


TREE = {name: imports(path) for name, path in FILES.items()}


def inside(package: str) -> list[str]:
    return [name for name in TREE if name == package or name.startswith(f"{package}.")]


def belongs(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def test_the_files_were_read() -> None:
    assert "agebench.heads.base" in TREE["agebench.module"]
    assert len(inside("agebench.data")) > 5
    assert len(inside("agebench.report")) > 5


@pytest.mark.parametrize("package", ["data", "models", "heads", "augment"])
def test_components_know_nothing_of_one_another(package) -> None:
    allowed = {f"agebench.{package}", "agebench.errors", "agebench.groups"}

    strangers = {(name, other) for name in inside(f"agebench.{package}") for other in TREE[name]}

    assert {pair for pair in strangers if not belongs(pair[1], allowed)} == set()


def test_the_module_knows_the_contract_of_heads_and_not_who_builds() -> None:
    used = TREE["agebench.module"]

    assert {name for name in used if belongs(name, {"agebench.heads"})} == {"agebench.heads.base"}
    assert not {
        name for name in used if belongs(name, {"agebench.build", "agebench.training.fit", "agebench.data"} | VERBS)
    }


@pytest.mark.parametrize("leaf", ["agebench.errors", "agebench.groups", "agebench.data.records"])
def test_leaves_import_nothing_of_ours(leaf) -> None:
    assert TREE[leaf] == set()


def test_the_report_stands_alone() -> None:
    used = {other for name in inside("agebench.report") for other in TREE[name]}

    assert {name for name in used if not belongs(name, {"agebench.report", "agebench.errors"})} == set()


def test_only_the_builder_names_data_and_models_and_heads() -> None:
    three = [{"agebench.data"}, {"agebench.models"}, {"agebench.heads"}]

    all_three = [name for name, used in TREE.items() if all(any(belongs(u, part) for u in used) for part in three)]

    assert all_three == ["agebench.build"]


def test_nobody_imports_a_verb() -> None:
    assert {(name, verb) for name, used in TREE.items() for verb in used & VERBS} == set()


def test_imports_form_no_circle() -> None:
    graphlib.TopologicalSorter(TREE).prepare()  # raises CycleError


def test_help_and_mistakes_load_nothing_heavy() -> None:
    light = ["agebench.train", "agebench.cli.main", "agebench.cli.help", "agebench.cli.rules", "agebench.runs.identity"]
    light += ["hydra_plugins.agebench_launcher.launcher"]
    code = f"import sys, {', '.join(light)}; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "agebench.cli.main" in loaded
    heavy = {
        "torch",
        "lightning",
        "timm",
        "torchvision",
        "torchmetrics",
        "matplotlib",
        "sklearn",
        "scipy",
        "tensorboard",
    }
    assert heavy & {name.partition(".")[0] for name in loaded} == set()
