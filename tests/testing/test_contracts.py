"""The contract checks accept what keeps a contract, and name the contract that a class breaks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from agebench.augment import Augment
from agebench.data.sources.digits import Digits
from agebench.errors import UserError
from agebench.heads.softmax import Softmax
from agebench.models.mlp import MLP
from agebench.testing import (
    ContractError,
    check_augmentation,
    check_backbone,
    check_config,
    check_head,
    check_source,
)


class Scaled(Softmax):
    def posterior(self, outputs):
        return super().posterior(outputs) * 1.01


class Summed(Softmax):
    def loss(self, outputs, target):
        return super().loss(outputs, target) * len(target)


class Overflowing(Softmax):
    def loss(self, outputs, target):
        odds = outputs.exp()
        return -(odds.gather(1, target[:, None])[:, 0] / odds.sum(dim=1)).log().mean()


class Detached(Softmax):
    def loss(self, outputs, target):
        return super().loss(outputs.detach(), target) + 0 * outputs.sum()


class Reversed(Softmax):
    def point(self, outputs):
        return self.values.flip(0)[self.posterior(outputs).argmax(dim=1)]


class Negative(Softmax):
    def posterior(self, outputs):
        moved = torch.zeros(self.num_labels)
        moved[0], moved[1] = 0.5, -0.5
        return super().posterior(outputs) + moved


class Backwards(Softmax):
    def loss(self, outputs, target):
        loss = super().loss(outputs, target)
        return 2 * loss.detach() - loss


class Ignorant(Softmax):
    def loss(self, outputs, target):
        return outputs.square().mean()


class Forgetful(Softmax):
    def __init__(self, num_labels, values, *, ordered, decode="auto"):
        super().__init__(num_labels, values, ordered=ordered, decode=decode)
        self.scale = 1 + torch.rand(())  # neither a parameter nor a buffer

    def posterior(self, outputs):
        return super().posterior(outputs * self.scale)


class Wavy(Softmax):
    """Adds waves that are lower than the rounding errors of the loss, and shorter than those of the outputs."""

    def loss(self, outputs, target):
        return super().loss(outputs, target) + 1e-3 * (1e3 * outputs).sin().sum(dim=1).mean()


class Refusing(Softmax):
    needs_order = False

    def __init__(self, num_labels, values, *, ordered, decode="auto"):
        if not ordered:
            raise UserError("this head needs an order")
        super().__init__(num_labels, values, ordered=ordered, decode=decode)


class Impossible(Softmax):
    def __init__(self, num_labels, values, *, ordered, decode="auto"):
        raise UserError("no labels are good enough")


class Paired(Softmax):
    def loss(self, outputs, target):
        return super().loss(outputs[[0, 1]], target[[0, 1]])


class Unlike(nn.Module):
    def __init__(self, num_labels, values, *, ordered, decode="auto"):
        super().__init__()


class WithoutValues(Softmax):
    def __init__(self, num_labels):
        super().__init__(num_labels, list(range(num_labels)), ordered=True)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (Scaled, r"posteriors of shape \(B, R\) = \(16, 49\).* sum to 1; got a row that sums to 1.01"),
        (Negative, "at least 0, .* got a value of -0"),
        (Backwards, "a small step against the gradient of a linear model must lower the loss"),
        (Ignorant, "must halve its mean absolute error"),
        (Forgetful, "must predict the same after its state_dict is saved and loaded; got another posterior"),
        (Wavy, "a training step in torch.bfloat16 must be close to one in float32"),
        (Summed, "mean of the losses of its images"),
        (Overflowing, "must be finite"),
        (Detached, "must have a gradient; got a gradient of zero"),
        (Reversed, "must be the m(edian|ean|ode) of the posterior"),
        (Refusing, "needs_order=False must take labels without an order"),
        (Impossible, "must support some ordered labels"),
        (Paired, r"a head must work for a batch of 1; it raised IndexError: .* at .*test_contracts.py:[0-9]+"),
        (Unlike, "must be a subclass of agebench.heads.base.Head; got Unlike"),
        (WithoutValues, r"a head must take \(num_labels, values, .* got the error: .*unexpected keyword argument"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_head_that_breaks_the_contract_is_named_with_the_contract(head, message) -> None:
    with pytest.raises(ContractError, match=message):
        check_head(head)


def test_a_head_whose_loss_is_no_mean_may_say_so() -> None:
    class Regularized(Softmax):
        def loss(self, outputs, target):
            return super().loss(outputs, target) * (1 + 1 / len(target))

    assert check_head(Regularized, loss_is_mean=False)
    with pytest.raises(ContractError, match="loss_is_mean=False"):
        check_head(Regularized)


class Pooled(nn.Module):
    """A backbone of one layer with options to break the contract."""

    def __init__(self, *, in_chans, num_classes, broken=""):
        super().__init__()
        self.broken = broken
        self.layer = nn.Linear(in_chans, 2 if broken == "classes" else num_classes)
        self.unused = nn.Linear(3, 3) if broken == "unused" else None
        self.scale = float(torch.rand(())) + 1 if broken == "state" else 1.0
        if broken == "constructor":
            raise TypeError("no such layer")

    def forward(self, images):
        if self.broken == "size":
            images = images - torch.zeros(28, 28)
        if self.broken == "grey":
            images = images[:, [0, 1, 2]][:, : self.layer.in_features]
        if self.broken == "one image":
            return self.layer(images.mean(dim=(2, 3))).squeeze()
        if self.broken == "norm of one":
            images = images / (len(images) - 1) if len(images) > 1 else nn.functional.linear(images, torch.ones(3, 3))
        outputs = self.layer(images.mean(dim=(2, 3))) * self.scale
        if self.broken == "batch":
            outputs = outputs - outputs.mean(dim=0)
        if self.broken == "chance":
            outputs = nn.functional.dropout(outputs, 0.5)
        return outputs / 0 if self.broken == "infinite" else outputs


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("classes", r"outputs \(B, num_classes\) = \(2, 7\), float32; got torch.float32 of shape \(2, 2\)"),
        ("unused", "must have a gradient; got none for unused.weight, unused.bias"),
        ("state", "same outputs after its state_dict"),
        ("batch", "must not depend on the other images"),
        ("chance", "must not depend on chance"),
        ("infinite", "outputs of a backbone must be finite"),
        ("one image", r"images \(1, C, S, S\) to outputs .* = \(1, 7\), float32; got torch.float32 of shape \(7,\)"),
        (
            "norm of one",
            "must work for a batch of 1 grey image of 64 x 64 px; it raised RuntimeError: .* at .*:[0-9]+$",
        ),
        ("size", "must work for a batch of 2 grey images of 64 x 64 px; it raised RuntimeError: The size of .* at .*"),
        ("grey", "must work for a batch of 2 grey images of 64 x 64 px; it raised IndexError: .* at .*"),
        ("constructor", "must take in_chans, .* keys of its YAML; it raised TypeError: no such layer at .*test_contra"),
    ],
)
def test_a_backbone_that_breaks_the_contract_is_named_with_the_contract(broken, message) -> None:
    check_backbone(Pooled)

    with pytest.raises(ContractError, match=message):
        check_backbone(Pooled, broken=broken)


def test_an_exception_of_a_backbone_is_the_cause_of_the_contract_error_and_its_line_is_named() -> None:
    with pytest.raises(ContractError) as raised:
        check_backbone(Pooled, broken="size")

    line = next(i for i, text in enumerate(Path(__file__).read_text().splitlines(), 1) if "torch.zeros(28, 28)" in text)
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert str(raised.value).endswith(f"test_contracts.py:{line}")


def test_an_unknown_option_of_a_backbone_is_named() -> None:
    with pytest.raises(ContractError, match=r"must take in_chans, num_classes and the keys.*unexpected.*'depth'"):
        check_backbone(MLP, depth=3)


def test_a_name_that_does_not_exist_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"agebench.models.MLQ cannot be imported.*did you mean 'MLP'"):
        check_backbone("agebench.models.MLQ")


class Change(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind

    def forward(self, images):
        if self.kind == "range":
            return images * 1.5
        if self.kind == "colour":
            return images @ images.new_ones(3, 3)
        if self.kind == "shape":
            return images[..., 1:]
        if self.kind == "in place":
            return images.mul_(0.5)
        if self.kind == "autocast":
            return (images.flatten(1) @ torch.eye(images[0].numel())).view_as(images).clamp(0, 1)
        return images * np.random.default_rng().random()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("range", "from 0 to 1; got values from 0 to 1.5"),
        ("shape", r"same shape \(8, 1, 31, 31\), float32, from 0 to 1; got .*\(8, 1, 31, 30\)"),
        ("in place", "must not change its input"),
        ("colour", "must work for a batch of 8 grey images of 31 x 31 px; it raised RuntimeError: .* at .*:[0-9]+$"),
        ("autocast", "same images under autocast"),
        ("chance", "draw from torch's random numbers only"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_an_augmentation_that_breaks_the_contract_is_named_with_the_contract(kind, message) -> None:
    check_augmentation(Augment, flip=0.5)

    with pytest.raises(ContractError, match=message):
        check_augmentation(Change, kind=kind)


class BrokenDigits(Digits):
    def __init__(self, broken):
        self.broken = broken

    def records(self):
        records = super().records()
        if self.broken == "names":
            records.names[5] = records.names[3]
        if self.broken == "classes":
            records.columns["class"][7] = 10
        if self.broken == "column":
            records.columns["klass"]
        if self.broken == "order":
            return records.take(np.random.default_rng().permutation(len(records)))
        return records

    def present(self):
        return super().present().astype(int) if self.broken == "present" else super().present()

    def open(self, row):
        image = super().open(row)
        if self.broken == "open":
            return np.asarray(image)
        return (
            Image.fromarray(np.random.default_rng().integers(0, 255, (8, 8), np.uint8))
            if self.broken == "noise"
            else image
        )

    def stamps(self, rows):
        return super().stamps(rows).astype(float) if self.broken == "stamps" else super().stamps(rows)

    def reading_order(self, rows):
        return rows[1:] if self.broken == "reading_order" else rows


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("names", "names of records must be unique; got 0003 twice"),
        ("classes", "integers from 0 to 9, indices into the 10 class_names; got 0 to 10"),
        ("order", "records in a fixed order"),
        ("column", r"must list and open its images; it raised KeyError: 'klass' at .*test_contracts.py:[0-9]+$"),
        ("present", "one bool per record"),
        ("open", r"must return a PIL.Image.Image; got ndarray"),
        ("noise", "same image in each call"),
        ("stamps", r"one uint64 per row.* got float64"),
        ("reading_order", "must return the same rows"),
    ],
)
def test_a_source_that_breaks_the_contract_is_named_with_the_contract(broken, message) -> None:
    check_source(BrokenDigits, broken="")

    with pytest.raises(ContractError, match=message):
        check_source(BrokenDigits, broken=broken)


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


SIZE = ("image_size: ${data.image_size}", "hidden: [512]")


def test_every_file_of_a_config_folder_is_checked(tmp_path) -> None:
    write(tmp_path, "model/wide.yaml", "# a wide network", "_target_: agebench.models.MLP", *SIZE)
    write(tmp_path, "data/split/quarter.yaml", "# a quarter for the test",
          "_target_: agebench.data.split.random", "_partial_: true",
          "val_share: 0.25", "test_share: 0.25", "seed: 0")  # fmt: skip

    assert check_config(tmp_path) == ["data/split=quarter", "model=wide"]
    assert check_config(tmp_path / "model" / "wide.yaml", "model.hidden=[8]") == ["model=wide"]


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("model/wide.yaml", ["_target_: agebench.models.MLP"], "must begin with a comment"),
        ("model/mlp.yaml", ["# my network", "_target_: agebench.models.MLP"], "must not be a choice of agebench"),
        (
            "model/wide.yaml",
            ["# my network", "_target_: agebench.models.MLP", "hiden: [8]", *SIZE],
            "did you mean 'hidden'",
        ),
        ("model/wide.yaml", ["# my network", "_target_: nowhere.Net"], "nowhere.Net cannot be imported"),
        ("models/wide.yaml", ["# my network", "_target_: agebench.models.MLP"], "folder of a config group: .* got mod"),
    ],
)
def test_a_config_that_breaks_the_contract_is_named_with_the_contract(tmp_path, name, lines, message) -> None:
    write(tmp_path, name, *lines)

    with pytest.raises(ContractError, match=message):
        check_config(tmp_path)


def test_the_state_of_hydra_is_as_before_a_check(tmp_path, compose_config) -> None:
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.hydra_config import HydraConfig

    compose_config("data=mnist")
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg

    check_config(write(tmp_path, "model/wide.yaml", "# a wide network", "_target_: agebench.models.MLP", *SIZE))

    assert (GlobalHydra.instance().hydra, HydraConfig.instance().cfg) == before
