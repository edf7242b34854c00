"""Exported models have the outputs of the trained network, for every head and both formats."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from agebench.calibration.calibration import Calibration
from agebench.errors import UserError
from agebench.inference.export import ExportedModel, compare, describe_difference, write_onnx, write_program
from agebench.models.normalise import Normalise
from agebench.module import ImageModule

CONF = Path(__file__).parents[2] / "conf"
HEADS = sorted(path.stem for path in (CONF / "head").glob("*.yaml"))
SHAPE = [3, 8, 8]


def module_of(head_name: str, *, ordered: bool = True) -> ImageModule:
    labels = 2 if head_name == "binary" else 6
    torch.manual_seed(0)
    node = OmegaConf.load(CONF / "head" / f"{head_name}.yaml")
    head = instantiate(node, labels, [20.0 * ordered + i for i in range(labels)], ordered=ordered)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(144, head.num_outputs)
    )
    nn.init.normal_(network[1].weight)
    return ImageModule(
        network,
        head,
        normalise=Normalise([0.4, 0.5, 0.6], [0.2, 0.3, 0.1]),
        augment=nn.Identity(),
        optim=torch.optim.SGD,
        scheduler=None,
        unit="years",
        channels_last=True,
        seed=0,
        stamp={},
    )


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=() if head in ("softmax", "regression") else pytest.mark.ci) for head in HEADS]
)
def test_onnx_runtime_has_the_outputs_of_the_network_for_any_batch_size(tmp_path, head) -> None:
    module = module_of(head)
    write_onnx(ExportedModel(module), SHAPE, tmp_path / "m.onnx", "{}")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])

    for count in (1, 4):
        images = torch.randint(256, (count, *SHAPE), dtype=torch.uint8)
        posterior, point = session.run(None, {"images": images.numpy()})

        with torch.no_grad():
            expected = module.eval().predict_step(images)
        assert np.abs(posterior - expected[0].numpy()).max() < 1e-5
        assert np.abs(point - expected[1].numpy()).max() < 1e-3


@pytest.mark.ci
@pytest.mark.parametrize(("head", "ordered"), [("softmax", False), ("softmax", True), ("regression", True)])
def test_the_sets_of_a_calibration_are_outputs_of_the_onnx_file(tmp_path, head, ordered) -> None:
    module = module_of(head, ordered=ordered)
    values = module.head.values.tolist()
    calibration = Calibration(
        coverage=0.9,
        temperature=1.7,
        threshold=0.13,
        ordered=ordered,
        values=tuple(values),
        over="image",
        groups=50,
        images=50,
        nll=(1.0, 1.0),
        weights_sha="",
    )
    write_onnx(ExportedModel(module, calibration), SHAPE, tmp_path / "m.onnx", "{}")
    images = torch.randint(256, (16, *SHAPE), dtype=torch.uint8)

    outputs = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    found = dict(
        zip([o.name for o in outputs.get_outputs()], outputs.run(None, {"images": images.numpy()}), strict=True)
    )

    with torch.no_grad():
        posterior, point = (each.double().numpy() for each in module.eval().predict_step(images))
    powers = posterior.clip(1e-12) ** (1 / 1.7)
    np.testing.assert_allclose(found["posterior"], powers / powers.sum(1, keepdims=True), atol=1e-5)
    sets = calibration.sets(calibration.temper(posterior), point)
    if ordered:
        np.testing.assert_array_equal(found["low"], [min(np.array(values)[each]) for each in sets])
        np.testing.assert_array_equal(found["high"], [max(np.array(values)[each]) for each in sets])
    else:
        np.testing.assert_array_equal(found["label_set"], sets)


@pytest.mark.parametrize(
    ("estimate", "low", "high"),
    [(20.0, 20, 23), (20.5, 20, 23), (22.0, 22, 23), (23.4, 22, 24), (24.0, 22, 24), (25.0, 22, 25)],
)
def test_an_estimate_outside_its_conformal_set_widens_the_range(estimate, low, high) -> None:
    posterior = torch.tensor([[0.1, 0.1, 0.3, 0.3, 0.1, 0.1]])  # at least 0.25 lies up to 22, and from 23 on
    network = ExportedModel(module_of("softmax"), None)

    found = network._sets(posterior, torch.tensor([estimate]), 0.25)

    assert [each.tolist() for each in found] == [[low], [high]]


def test_a_class_that_is_predicted_belongs_to_its_conformal_set() -> None:
    network = ExportedModel(module_of("softmax", ordered=False), None)
    posterior = torch.tensor([[0.1, 0.1, 0.3, 0.3, 0.1, 0.1]])

    (found,) = network._sets(posterior, torch.tensor([5.0]), 0.25)

    assert found.tolist() == [[False, False, True, True, False, True]]


def test_the_onnx_file_is_valid_and_contains_its_description(tmp_path) -> None:
    about = {"agebench": {"labels": ["20", "21"]}}
    write_onnx(ExportedModel(module_of("softmax")), SHAPE, tmp_path / "m.onnx", json.dumps(about["agebench"]))

    model = onnx.load(tmp_path / "m.onnx")

    onnx.checker.check_model(model, full_check=True)
    assert {entry.key: json.loads(entry.value) for entry in model.metadata_props} == {
        "agebench": {"labels": ["20", "21"]}
    }
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert [dimension.dim_param or dimension.dim_value for dimension in dimensions] == ["batch", *SHAPE]
    assert [output.name for output in model.graph.output] == ["posterior", "point"]


def test_a_torch_program_has_the_outputs_of_the_network(tmp_path) -> None:
    module = module_of("coral")
    write_program(ExportedModel(module), SHAPE, tmp_path / "m.pt2", '{"unit": "years"}')
    images = torch.randint(256, (7, *SHAPE), dtype=torch.uint8)
    extra = {"agebench.json": ""}

    posterior, point = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()(images)

    with torch.no_grad():
        expected = module.eval().predict_step(images)
    torch.testing.assert_close((posterior, point), expected)
    assert json.loads(extra["agebench.json"]) == {"unit": "years"}


@pytest.mark.ci
@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit of the size of files")
@pytest.mark.parametrize("write", [write_onnx, write_program])
def test_a_full_disk_is_an_os_error(tmp_path, write) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            write(ExportedModel(module_of("softmax")), SHAPE, tmp_path / "model", "{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert raised.value.errno == errno.EFBIG


def test_compare_finds_a_file_with_other_weights(tmp_path) -> None:
    module = module_of("softmax")
    write_onnx(ExportedModel(module), SHAPE, tmp_path / "m.onnx", "{}")
    assert compare(ExportedModel(module), SHAPE, tmp_path / "m.onnx", "onnx") < 1e-5

    nn.init.normal_(module.model[-1].weight)

    assert compare(ExportedModel(module), SHAPE, tmp_path / "m.onnx", "onnx") > 1e-2


def test_a_network_that_cannot_be_traced_raises_one_sentence(tmp_path) -> None:
    class DataDependent(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :6] if images.sum().item() > 0 else images.flatten(1)[:, 6:12]

    module = module_of("softmax")
    module.model = DataDependent()

    with pytest.raises(UserError, match=r"this network cannot be exported: .+"):
        write_onnx(ExportedModel(module), SHAPE, tmp_path / "m.onnx", "{}")
    assert not (tmp_path / "m.onnx").exists()


@pytest.mark.parametrize(
    ("difference", "sentence"),
    [
        (0.0, "the outputs are equal to PyTorch's, on random images"),
        (1e-12, "probabilities differ by at most 1.0e-12 from PyTorch's, on random images"),
        (2.3e-7, "probabilities differ by at most 2.3e-07 from PyTorch's, on random images"),
    ],
)
def test_the_difference_from_pytorch_is_a_sentence(difference, sentence) -> None:
    assert describe_difference(difference) == sentence
