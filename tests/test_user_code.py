"""Exceptions of code outside agebench are named with the call, its tensors, and the innermost own line."""

import sys
from pathlib import Path

import pytest
import torch

from agebench.build.keys import NETWORK, check_nodes
from agebench.build.model import build_model
from agebench.build.module import build_augment, build_head
from agebench.errors import UserError
from agebench.user_code import describe, explain_own, place, reason

CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, *, in_chans, num_classes, fails=""):
        super().__init__()
        self.fails = fails
        if fails == "constructor":
            [].pop()

    def forward(self, x):
        if self.fails == "size":
            nn.functional.conv2d(x, torch.ones(3, 1, 20, 20, device=x.device))
        x = x.flatten(1).half()
        return helper(x)


def helper(x):
    return x.no_such_method()


class Renamed(nn.Module):
    def __init__(self, channels, classes):
        super().__init__()


class Narrow(nn.Sequential):
    def __init__(self, *, in_chans, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(17, num_classes))


class Sideways(nn.Module):
    def __init__(self, *, in_chans, num_classes):
        super().__init__()
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        return self.fc(x)  # along the width: 32x32 images would give four dimensions


class Head:
    def __init__(self, num_labels, values, *, ordered):
        raise KeyError("margin")


class Noise:
    def __init__(self, sigma):
        self.sigma = sigma / 0
"""
SHOWN = r"\(HYDRA_FULL_ERROR=1 shows the traceback\)"


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """Return the file of a module `own_parts` outside agebench."""
    file = tmp_path / "own_parts.py"
    file.write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_parts", raising=False)
    return file


def line_of(text: str) -> int:
    return next(number for number, line in enumerate(CODE.splitlines(), 1) if text in line)


def config(compose_config, target: str, **keys: str):
    """Return a config with an own network."""
    cfg = compose_config("data=digits", "model=mlp")
    cfg.model = {"_target_": f"own_parts.{target}", "pretrained": False, "checkpoint_path": None, **keys}
    return cfg


@pytest.mark.parametrize(
    ("target", "keys", "sentence"),
    [
        (
            "Net",
            {},
            rf"^Net.forward failed on x of shape \(2, 1, 8, 8\), float32: AttributeError: .* no attribute "
            rf"'no_such_method' at .*own_parts.py:{line_of('no_such_method')} {SHOWN}$",
        ),
        (
            "Net",
            {"fails": "constructor"},
            rf"^Net.__init__ failed: IndexError: pop from empty list at .*own_parts.py:{line_of('pop')} {SHOWN}$",
        ),
        (
            "Narrow",  # its forward is torch's
            {},
            r"^the forward of model Narrow failed on images of shape \(2, 1, 8, 8\), float32 \(.*2x64 and 17x10",
        ),
    ],
    ids=["forward", "constructor", "forward of a library"],
)
def test_an_exception_of_an_own_network_is_named_with_its_input_and_line(
    compose_config, own, target, keys, sentence
) -> None:
    with pytest.raises(UserError, match=sentence):
        build_model(config(compose_config, target, **keys), channels=1, num_outputs=10, image_size=8)


def test_an_own_network_that_needs_larger_images_is_refused_with_its_line_and_a_size(
    compose_config, own, monkeypatch
) -> None:
    monkeypatch.chdir(own.parent)
    cfg = config(compose_config, "Net", fails="size")
    own.write_text(CODE.replace("return x.no_such_method()", "return x.float() @ x.new_ones(x.shape[1], 10).float()"))

    failure = rf"^Net.forward failed on x of shape \(2, 1, 8, 8\), float32: .* at own_parts.py:{line_of('conv2d')} "

    with pytest.raises(UserError, match=rf"{failure}{SHOWN}; 24x24 images work: set data.image_size=24$"):
        build_model(cfg, channels=1, num_outputs=10, image_size=8)


def test_a_bug_that_another_image_size_only_hides_is_no_question_of_the_size(compose_config, own) -> None:
    with pytest.raises(UserError, match=rf"^Sideways.forward failed on .* cannot be multiplied .* {SHOWN}$"):
        build_model(config(compose_config, "Sideways"), channels=1, num_outputs=10, image_size=8)


def test_a_network_with_other_arguments_is_refused_with_those_that_agebench_passes(own) -> None:
    model = {"_target_": "own_parts.Renamed", "pretrained": False, "checkpoint_path": None}

    with pytest.raises(UserError) as raised:
        check_nodes({"model": model}, NETWORK)

    assert str(raised.value) == (
        "model: Renamed must take the arguments in_chans, num_classes, which agebench passes; "
        "it takes channels, classes"
    )


def test_a_missing_argument_without_an_annotation_is_named(own) -> None:
    augment = {"_target_": "own_parts.Noise", "mixup": None, "cutmix": None, "mix_probability": 1.0}

    with pytest.raises(UserError, match=r"^augment\.sigma is missing: Noise has no default for it$"):
        check_nodes({"augment": augment}, NETWORK)


def test_the_constructors_of_an_own_head_and_augmentation_are_named_with_their_line(compose_config, own) -> None:
    cfg = compose_config("data=digits", "model=mlp")
    cfg.head = {"_target_": "own_parts.Head"}
    cfg.augment = {"_target_": "own_parts.Noise", "sigma": 2}

    with pytest.raises(UserError, match=rf"^Head.__init__ failed: KeyError: 'margin' at .*:{line_of('margin')} "):
        build_head(cfg, [0.0, 1.0], ordered=True)
    with pytest.raises(UserError, match=rf"^Noise.__init__ failed: ZeroDivisionError: .* at .*:{line_of('/ 0')} "):
        build_augment(cfg)


def test_a_module_that_fails_during_its_import_is_named_with_the_line(compose_config, own) -> None:
    own.write_text("x = 1\nx.y\n")
    cfg = compose_config("data=digits", "model=mlp")
    cfg.head = {"_target_": "own_parts.Head"}

    with pytest.raises(UserError, match=r"cannot be imported: .* has no attribute 'y'.* at .*own_parts.py:2$"):
        build_head(cfg, [0.0, 1.0], ordered=True)


def test_a_syntax_error_in_own_code_is_named_with_file_and_line_only(compose_config, own, monkeypatch) -> None:
    monkeypatch.chdir(own.parent)
    own.write_text("x = 1\nclass Head(\n")
    cfg = compose_config("data=digits", "model=mlp")
    cfg.head = {"_target_": "own_parts.Head"}

    with pytest.raises(UserError, match=r"cannot be imported: SyntaxError: '\(' was never closed at own_parts.py:2$"):
        build_head(cfg, [0.0, 1.0], ordered=True)


def test_an_exception_of_agebench_or_of_a_library_has_no_place() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.nn.Linear(3, 2)(torch.ones(1, 4))

    assert place(raised.value) == ""
    assert explain_own(raised.value) == ""
    assert describe(raised.value).startswith("RuntimeError: ")


def test_the_reason_of_a_failed_run_has_the_line_of_own_code(own) -> None:
    from own_parts import Net

    with pytest.raises(AttributeError) as raised:
        Net(in_chans=1, num_classes=2)(torch.ones(1, 1, 2, 2))

    assert reason(raised.value).endswith(f"own_parts.py:{line_of('no_such_method')}")
    assert reason(UserError("give data.root")) == "give data.root"
