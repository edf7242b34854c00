"""Imports between packages run one way, and heavy libraries are imported late."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
VERBS = (
    "train",
    "evaluate",
    "calibrate",
    "predict",
    "app",
    "prepare",
    "audit",
    "compare",
    "export",
    "score",
    "lecture",
)
# A package imports only itself and packages in the lines above.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "public", "text", "identity_groups", "interrupts", "accelerators"),
    ("config", "files", "schema", "progress", "user_code"),
    ("trust", "contract"),
    ("data", "models", "heads", "augment", "metrics"),
    ("leakage", "calibration", "report"),
    ("lectures",),
    ("runs",),
    ("pages",),
    ("comparison",),
    ("lightning_internals", "process", "batch_bar", "distillation", "step_check", "epoch_sums"),
    ("module",),
    ("build", "explanations"),
    ("report_arrays",),
    ("training", "inference"),
    ("sweep",),
    ("cli",),
    VERBS,
    ("testing", "api"),
    ("new",),
    ("__main__",),
)
LAYER = {package: number for number, layer in enumerate(LAYERS) for package in layer}


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted((SOURCE / "agebench").rglob("*.py"))}


def imports(path: Path) -> set[str]:
    """Return the modules of agebench that a file imports, at any level."""
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


def package(module: str) -> str:
    """Return the part of a dotted name after `agebench.`, empty for the package itself; `__main__` for commands."""
    return "__main__" if module.endswith(".__main__") else module.partition(".")[2].partition(".")[0]


def test_every_package_has_a_layer() -> None:
    assert {package(name) for name in FILES} - {""} == set(LAYER)


def test_imports_run_one_way() -> None:
    upward = {
        (name, other)
        for name, used in TREE.items()
        for other in used
        if package(name) and package(other) and package(name) != package(other)
        if LAYER[package(other)] >= LAYER[package(name)]
    }

    assert upward == set()


def test_imports_have_no_cycle() -> None:
    graphlib.TopologicalSorter(TREE).prepare()  # raises CycleError


def test_only_build_names_data_and_models_and_heads() -> None:
    three = [{"agebench.data"}, {"agebench.models"}, {"agebench.heads"}]

    all_three = {package(n) for n, used in TREE.items() if all(any(belongs(u, part) for u in used) for part in three)}

    assert all_three <= {"build"}


def test_the_module_imports_only_the_base_of_heads() -> None:
    heads = {name for name in TREE["agebench.module"] if belongs(name, {"agebench.heads"})}

    assert heads == {"agebench.heads.base"}


HEAVY = ("torch", "lightning", "timm", "torchvision", "torchmetrics", "tensorboard")
DRAWING = ("matplotlib", "sklearn", "scipy", "h5py", "PIL", "numpy", "pandas", "pyarrow", "polars")


def loaded_by(*modules: str) -> set[str]:
    """Return the top-level packages that are loaded after importing modules in a new process."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(modules) <= set(loaded)
    return {name.partition(".")[0] for name in loaded}


def test_the_verbs_load_nothing_heavy_for_help_and_errors() -> None:
    light = [f"agebench.{verb}" for verb in VERBS]
    light += ["agebench.cli.main", "agebench.cli.help", "agebench.cli.messages", "agebench.runs.folder"]
    light += ["agebench.pages.drawer", "agebench.report.__main__", "agebench.new.__main__"]

    assert loaded_by(*light) & {*HEAVY, *DRAWING} == set()


def test_the_launcher_loads_nothing_heavy() -> None:
    assert loaded_by("hydra_plugins.agebench_launcher.launcher") & {*HEAVY, "matplotlib", "sklearn", "scipy"} == set()


def test_audit_prepare_and_compare_do_not_load_torch() -> None:
    """Records, target, split, store, plan, readers, leakage, calibration, runs, comparison and report."""
    with_torch = {"agebench.data.datamodule", "agebench.data.loader", "agebench.data.residency"}
    with_torch |= {"agebench.data.unlabelled"}
    wings = ("data", "leakage", "calibration", "runs", "metrics", "comparison", "report", "pages")
    light = [name for name in FILES if package(name) in wings and name not in with_torch]

    assert loaded_by(*light, "agebench.build.data") & set(HEAVY) == set()


INTERNALS = "agebench.lightning_internals"
# Public names that start with an underscore: namedtuple's constructor, a config's key, and a function of the os module.
PUBLIC = {"_make", "_target_", "_exit"}


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_accesses(code: str) -> set[str]:
    """Return the private attributes that a file reads or sets on other objects, and its private imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and private(node.attr) and node.attr not in PUBLIC:
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                found.add(ast.unparse(node))
        elif isinstance(node, ast.ImportFrom):
            names = [*str(node.module).split("."), *(alias.name for alias in node.names)]
            found |= {ast.unparse(node)} if any(map(private, names)) else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if any(map(private, alias.name.split(".")))}
    return found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("loop._restarting = False", {"loop._restarting"}),
        ("self.experiment._get_file_writer()", {"self.experiment._get_file_writer"}),
        ("from lightning.pytorch.loops import _Loop", {"from lightning.pytorch.loops import _Loop"}),
        ("import torch._dynamo.exc", {"torch._dynamo.exc"}),
        ("self._rows = cfg._target_", set()),
        ("type(self).__name__", set()),
    ],
)
def test_private_accesses_are_found(code, expected) -> None:
    assert private_accesses(code) == expected


def test_only_lightning_internals_uses_private_attributes_of_other_libraries() -> None:
    found = {name: private_accesses(path.read_text(encoding="utf-8")) for name, path in FILES.items()}

    assert found.pop(INTERNALS)
    assert {name: accesses for name, accesses in found.items() if accesses} == {}


def test_no_file_overrides_private_methods_of_lightning() -> None:
    from lightning.pytorch.callbacks import Callback
    from lightning.pytorch.core import LightningModule
    from lightning.pytorch.loggers import TensorBoardLogger
    from torchmetrics import Metric

    bases = {name for base in (Callback, LightningModule, TensorBoardLogger, Metric) for name in dir(base)}
    overridden = {
        (name, node.name)
        for name, path in FILES.items()
        for owner in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef) and private(node.name) and node.name in bases
    }

    assert overridden == set()
