"""The code blocks in docs/extending.md run."""

import json
import re
from pathlib import Path

import pytest

from agebench.testing import check_augmentation, check_backbone, check_config, check_head

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


def write_blocks(folder: Path, *names: str) -> None:
    """Write the code blocks whose first line is a comment with one of these file names."""
    blocks = re.findall(r"```\w+\n# (\S+)\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for name, text in blocks:
        if name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.ci
def test_the_head_in_the_docs_trains_and_has_metrics_with_intervals(command, tmp_path, monkeypatch):
    write_blocks(tmp_path, "myheads.py", "myconf/head/earth_mover.yaml")
    monkeypatch.syspath_prepend(str(tmp_path))

    small = ("data.source.images=300", "data.source.people=40", "data.image_size=16", "data.limit=100", "model=mlp")
    command("train", "--config-dir", "myconf", "head=earth_mover", "data=demo", "data.target=age", *small,
            "trainer.max_epochs=1", "report=false", "hydra.run.dir=run")  # fmt: skip

    results = json.loads(Path("run/results.json").read_text())
    assert results["status"] == "completed"
    assert {"test/mae", "test/loss"} <= results["intervals"].keys()


def test_the_parts_in_the_docs_keep_the_contracts(tmp_path, monkeypatch):
    configs = ("myconf/model/tinynet.yaml", "myconf/head/earth_mover.yaml", "myconf/augment/noise.yaml")
    write_blocks(tmp_path, "mynets.py", "myheads.py", "mychanges.py", *configs)
    monkeypatch.syspath_prepend(str(tmp_path))

    check_backbone("mynets.TinyNet", width=8)
    check_head("myheads.EarthMover")
    check_augmentation("mychanges.Noise", sigma=0.1)
    checked = check_config(tmp_path / "myconf")

    assert checked == ["augment=noise", "head=earth_mover", "model=tinynet"]
