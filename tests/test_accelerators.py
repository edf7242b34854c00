"""What this machine lacks is found without torch."""

import sys
from pathlib import Path

import pytest

from agebench import accelerators


@pytest.fixture
def on_linux(monkeypatch, tmp_path: Path) -> Path:
    """Return an empty folder of device files, of a machine whose PyTorch supports GPUs."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(accelerators, "version", lambda package: "2.15.0")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize("name", ["gpu", "cuda", "mps", "tpu"])
def test_a_machine_without_a_driver_lacks_every_accelerator(on_linux, name) -> None:
    assert accelerators.is_missing(name, devices=on_linux)


@pytest.mark.parametrize("name", ["auto", "cpu", "of_another_package"])
def test_a_name_that_needs_no_known_driver_is_not_missing(on_linux, name) -> None:
    assert not accelerators.is_missing(name, devices=on_linux)


@pytest.mark.parametrize("file", ["nvidiactl", "nvidia0", "kfd", "dxg", "nvmap"])
def test_a_device_file_means_that_there_may_be_a_gpu(on_linux, file) -> None:
    (on_linux / file).touch()

    assert not accelerators.is_missing("gpu", devices=on_linux)


@pytest.mark.parametrize("hidden", ["", "-1"])
def test_hidden_gpus_are_missing(on_linux, monkeypatch, hidden) -> None:
    (on_linux / "nvidia0").touch()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)

    assert accelerators.is_missing("gpu", devices=on_linux)


def test_a_pytorch_for_cpus_lacks_the_gpu(on_linux, monkeypatch) -> None:
    (on_linux / "nvidia0").touch()
    monkeypatch.setattr(accelerators, "version", lambda package: "2.15.0+cpu")

    assert accelerators.is_missing("cuda", devices=on_linux)


def test_a_mac_may_have_its_own_gpu_and_never_one_of_cuda(monkeypatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")

    missing = {name: accelerators.is_missing(name) for name in ("gpu", "mps", "cuda")}

    assert missing == {"gpu": False, "mps": False, "cuda": True}
