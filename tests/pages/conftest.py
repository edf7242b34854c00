"""A run folder with everything that a page shows, written without training."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agebench.files import write_csv
from agebench.report.report_images import ReportImages

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Return a function that writes a completed run on 12 test images of three classes, and returns its folder."""

    def write(
        names: Sequence[str] = (),
        labels: Sequence[str] = ("a", "b", "c"),
        *,
        name: str = "run",
        protocol: str = "toy/random/class",
        overrides: Sequence[str] = ("data=toy",),
        **results: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / ".hydra").mkdir(parents=True)
        (folder / "report").mkdir()
        rng = np.random.default_rng(0)
        posterior = rng.dirichlet(np.ones(3), size=12)
        target = np.arange(12) % 3
        shown = [*names, *(f"image{i}.png" for i in range(len(names), 12))]
        rows = [
            [shown[i], "", labels[target[i]], labels[posterior[i].argmax()], *posterior[i], protocol] for i in range(12)
        ]
        columns = ["name", "identity", "target", "point", *(f"p({label})" for label in labels), "protocol"]
        write_csv(folder / "predictions.csv", columns, rows)
        split = [(shown[i], "test", "", labels[target[i]]) for i in range(12)]
        split += [(f"t{i}", "train", "", labels[i % 3]) for i in range(24)] + [("v", "val", "", labels[0])]
        write_csv(folder / "split.csv", ("name", "part", "identity", "target"), split)
        write_csv(folder / "metrics.csv", ("epoch", "train/loss", "val/accuracy"), [(0, 1.5, 0.4), (1, 1.0, 0.5)])
        layers = [("conv", "Conv2d", "(B, 8, 4, 4)", 80), ("fc", "Linear", "(B, 3)", 27)]
        write_csv(folder / "layers.csv", ("layer", "type", "output_shape", "parameters"), layers)
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(overrides)))
        found = {
            "status": "completed",
            "protocol": protocol,
            "data": {"train": 24, "val": 1, "test": 12, "val_is_test": False},
            "metrics": {"test/accuracy": 0.75},
            "intervals": {"test/accuracy": [0.5, 0.875]},
            "best": {"epoch": 1, "value": 0.5, "monitor": "val/accuracy", "tested": "best"},
            "epochs": 2,
            "params": {"total": 107, "trainable": 107},
        }
        (folder / "results.json").write_text(json.dumps(found | results))
        pixels = rng.integers(0, 256, size=(12, 1, 8, 8), dtype=np.uint8)
        ReportImages(np.arange(12), pixels, pixels[:2], pixels[:0], target[:2]).save(folder / "report" / "images.npz")
        return folder

    return write
