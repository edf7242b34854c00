"""`train` on a simulated GPU: the place of the pixels, and weights that are equal to the bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import backend_registration

pytestmark = [
    pytest.mark.ci,
    pytest.mark.skipif(
        not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
        reason="this torch has no devices written in Python",
    ),
]
SCRIPT = Path(__file__).with_name("pretended_gpu.py")
FACES = [
    "data=demo",
    "data.source.images=600",
    "data.source.people=60",
    "data.image_size=32",
    "data.target=age",
    "model=small_cnn",
    "augment=cacd",
    "head=coral",
    "data.limit=300",
    "report=false",
]


def train_on_simulated_gpu(folder: Path, free: int, *arguments: str) -> int:
    """Train on the simulated GPU, and return the number of pixel bytes that were sent to it."""
    done = subprocess.run(
        [sys.executable, SCRIPT, str(free), *arguments, f"hydra.run.dir={folder}"],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return int(done.stdout.split()[-1])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("arguments", [["data=digits", "model=mlp"], FACES], ids=["digits", "faces"])
def test_pixels_on_the_gpu_train_the_same_network_as_pixels_in_memory(command, tmp_path, arguments) -> None:
    line = [*arguments, "trainer.max_epochs=2", f"paths.cache={tmp_path}/cache"]
    torch.set_num_threads(1)
    command("train", *line, "trainer.accelerator=cpu", "data.residency=ram", f"hydra.run.dir={tmp_path}/here")

    sent = train_on_simulated_gpu(tmp_path / "there", 2**40, *line, "data.residency=auto")

    here, there = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("here", "there"))
    images = sum(there["data"][part] for part in ("train", "val", "test"))
    side, channels = (8, 1) if "data=digits" in arguments else (32, 3)
    assert (here["residency"], there["residency"]) == ("ram", "gpu")
    assert sent == images * channels * side * side  # each image once, not once per epoch
    assert there["metrics"] == here["metrics"]
    assert (tmp_path / "there" / "predictions.csv").read_bytes() == (tmp_path / "here" / "predictions.csv").read_bytes()
    ours, expected = weights(tmp_path / "there"), weights(tmp_path / "here")
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[name], expected[name]) for name in ours)


def test_pixels_that_do_not_fit_on_the_gpu_stay_in_memory(tmp_path) -> None:
    line = ["data=digits", "model=mlp", "trainer.max_epochs=1", "report=false", f"paths.cache={tmp_path}/cache"]

    sent = train_on_simulated_gpu(tmp_path / "run", 1797 * 64, *line)

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["residency"], results["status"]) == ("ram", "completed")
    assert sent == (1437 + 180 + 180) * 64  # sent batch by batch
