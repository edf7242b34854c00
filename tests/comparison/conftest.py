"""Fixtures that write run folders."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

LABELS = range(20, 30)
MakeRun = Callable[..., Path]


def base_config(head: str, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "report": False,
        "paths": {"output": "outputs"},
        "model": {"_target_": "timm.create_model", "model_name": "convnext_atto", "pretrained": False},
        "head": {"_target_": f"agebench.heads.{head}.Head", "decode": "auto"},
        "optim": {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 0.001, "weight_decay": 0.05},
        "data": {
            "name": "demo",
            "root": "${paths.data}/demo",
            "batch_size": 32,
            "num_workers": 0,
            "source": {"_target_": "agebench.data.sources.Demo", "root": "${data.root}"},
            "split": {"_target_": "agebench.data.split.official", "seed": 0},
        },
        "trainer": {"max_epochs": 20, "profiler": None},
        "callbacks": {"checkpoint": {"save_last": True, "monitor": "auto"}},
    }


def update(tree: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        *folders, last = key.split(".")
        place = tree
        for name in folders:
            place = place.setdefault(name, {})
        place[last] = value


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Return a function that writes a run of ages from 20 to 29 on 12 test images of 4 people."""

    def make(
        name: str,
        *,
        points: Sequence[float] = (),
        targets: Sequence[int] = (20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21),
        people: Sequence[str] = ("a", "a", "a", "b", "b", "b", "c", "c", "c", "d", "d", "d"),
        names: Sequence[str] = (),
        labels: Sequence[int] = LABELS,
        head: str = "softmax",
        seed: int = 0,
        config: dict[str, Any] | None = None,
        choices: dict[str, str] | None = None,
        typed: Sequence[str] = (),
        age: float = 0,
        **results: Any,
    ) -> Path:
        folder = tmp_path / name
        (folder / ".hydra").mkdir(parents=True)
        composed = base_config(head, seed)
        update(composed, config or {})
        chosen = {"data": "demo", "data/split": "official", "model": "timm", "head": head, "optim": "adamw"}
        chosen |= {"experiment": "mine", "hydra/launcher": "agebench", "debug": None, **(choices or {})}
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(composed, sort_keys=False))
        (folder / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": {"runtime": {"choices": chosen}}}))
        (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([f"head={head}", f"seed={seed}", *typed]))
        found: dict[str, Any] = {
            "status": "completed",
            "seed": seed,
            "protocol": "demo/official/age",
            "split_sha": "aaaabbbbccccdddd",
            "data_sha": "1111222233334444",
            "data": {"train": 100, "val": 10, "test": len(targets), "val_is_test": False},
            "leak": None,
            "params": {"total": 1_190_000, "trainable": 1_190_000},
            "versions": {"torch": "2.15.0", "numpy": "2.4.6"},
            "device": "cpu",
            "threads": 1,
            "git": "abc",
            "best": {"epoch": 3, "value": 2.5, "monitor": "val/mae", "mode": "min", "tested": "best"},
            "epochs": 20,
            "timing": {"fit_s": 60.4, "train_images_per_s": 700.0, "data_wait_share": 0.01},
        }
        if len(points):
            error = np.abs(np.asarray(points, dtype=np.float64) - np.asarray(targets))
            right = np.clip(np.rint(points), labels[0], labels[-1]) == np.asarray(targets)
            found["metrics"] = {
                "test/loss": 1.5,
                "test/accuracy": float(right.mean()),
                "test/mae": float(error.mean()),
                "test/rmse": float(np.sqrt((error**2).mean())),
                "test/bias": float((np.asarray(points) - np.asarray(targets)).mean()),
                "test/cs5": float((error <= 5).mean()),
            }
            found["intervals"] = {"test/mae": [0.5, 4.5]}
            found["bootstrap"] = {"over": "identity", "groups": 4, "resamples": 10_000, "seed": 0}
            lines = ["name,identity,target,point," + ",".join(f"p({label})" for label in labels) + ",protocol"]
            for i, (point, target, who) in enumerate(zip(points, targets, people, strict=True)):
                likely = int(np.clip(np.rint(point), labels[0], labels[-1]))
                posterior = ",".join("0.55" if label == likely else "0.05" for label in labels)
                image = names[i] if names else f"{i}.jpg"
                lines.append(f"{image},{who},{target},{point},{posterior},demo/official/age")
            (folder / "predictions.csv").write_text("\n".join(lines) + "\n")
        for epoch in range(3):
            with (folder / "metrics.csv").open("a") as file:
                file.write("epoch,val/mae,train/loss\n" * (epoch == 0) + f"{epoch},{5 - epoch},{2 - epoch / 2}\n")
        found |= results
        (folder / "results.json").write_text(json.dumps(found))
        os.utime(folder / "results.json", (1e9 + age, 1e9 + age))
        return folder

    return make
