"""Export a trained network as one file: from uint8 images to the posterior and the point estimate."""

import io
import json
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from agebench.calibration.calibration import Calibration
from agebench.errors import UserError, chain, one_line_message
from agebench.files import atomic_write, read_json, replace_nan, write_json, write_text
from agebench.inference.ensemble import load_model
from agebench.inference.evaluate import on_val
from agebench.inference.hub_folder import find_difference, hub_config, model_card, write_weights
from agebench.metrics.formulas import FLOOR
from agebench.module import ImageModule
from agebench.runs.identity import versions

log = logging.getLogger(__name__)
CHECKED = (1, 5)  # batch sizes for the check of the file
TOLERANCE = 1e-3  # of a probability: other kernels sum in another order


class ExportedModel(nn.Module):
    """Normalisation, network, head and calibration in one module.

    Args:
        module: The trained module.
        calibration: The calibration of its weights, or None.
    """

    def __init__(self, module: ImageModule, calibration: Calibration | None = None) -> None:
        super().__init__()
        self.normalise, self.model, self.head = module.normalise, module.model, module.head
        self.calibration = calibration
        self.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the posteriors and the point estimates of images, and with a calibration also the conformal sets.

        Args:
            images: uint8, shape (B, C, S, S).

        Returns:
            Posteriors, shape (B, R), and point estimates in the target's unit, shape (B,). With a calibration the
            posteriors are tempered, and two further outputs for ordered labels, `low` and `high` in the unit, have the
            shape (B,); for classes one further output, whether each label belongs to the set, bool, has shape (B, R).
        """
        outputs = self.model(self.normalise(images)).float()
        posterior, point = self.head.posterior(outputs), self.head.point(outputs)
        if self.calibration is None:
            return posterior, point
        tempered = (posterior.clamp(min=FLOOR).log() / self.calibration.temperature).softmax(dim=1)
        return tempered, point, *self._sets(tempered, point, self.calibration.threshold)

    def _sets(self, posterior: Tensor, point: Tensor, threshold: float) -> tuple[Tensor, ...]:
        """Return the sets of agebench.calibration.conformal in operations that ONNX has."""
        values, estimate = self.head.values, point[:, None]  # (R,), (B, 1)
        if not self.head.ordered:
            return ((posterior >= threshold) | (values == estimate),)
        below, above = (
            posterior.cumsum(dim=1),
            posterior.flip(1).cumsum(dim=1),
        )  # (B, R); above starts at the last label
        last = len(values) - 1
        low, high = (below < threshold).sum(dim=1), last - (above < threshold).sum(dim=1)  # (B,)
        low = torch.minimum(low, ((values <= estimate).sum(dim=1) - 1).clamp(min=0))
        high = torch.maximum(high, (values < estimate).sum(dim=1).clamp(max=last))
        return values[low], values[high]


def export_run(cfg: DictConfig) -> None:
    """Export a run, compare the file with PyTorch on random images, and write a JSON file that describes it.

    Args:
        cfg: The composed config of the command.

    Raises:
        UserError: If the run cannot be read, the network cannot be exported, or the output file exists.
    """
    output, description_file = _output_files(cfg)
    model = load_model(cfg, partial(on_val, cfg))
    first, calibration = model.first, model.calibration(use=cfg.calibration)
    network = ExportedModel(model.module, calibration)
    description = describe(first.stamp, first.config, weights=str(first.path), calibration=calibration)
    if model.facts:
        description |= {"weights": [str(each.path) for each in model.members], "ensemble": model.facts}
    if cfg.format != "safetensors":
        _check_description(description_file, description)
    shape = description["input"]["shape"][1:]
    log.info("exporting to %s ...", cfg.format)  # the exporters take seconds and do not report progress
    try:
        if cfg.format == "safetensors":
            _export_to_hub(cfg, model, output, description_file)
            return
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as part:
            (write_onnx if cfg.format == "onnx" else write_program)(network, shape, part, json.dumps(description))
            difference = compare(network, shape, part, cfg.format)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"a probability of the exported model differs from PyTorch by {difference:.2g}, more than "
                    f"{TOLERANCE:g}: nothing was written; try another format="
                )
        write_json(description_file, description)
    except (OSError, RuntimeError) as error:
        cause = next((each for each in chain(error) if isinstance(each, OSError)), None)
        if cause is None:
            raise
        raise UserError(f"cannot write {output}: {cause.strerror or cause}; set another output=") from error
    outputs = ", ".join(f"{name} ({', '.join(map(str, size))})" for name, size in description["outputs"].items())
    log.info("images uint8 (batch, %d, %d, %d) -> %s", *shape, outputs)
    log.info("%s", describe_difference(difference))
    log.info("written to %s, %s KiB, and %s", output, f"{output.stat().st_size / 2**10:,.0f}", description_file.name)


def _export_to_hub(cfg: DictConfig, model: Any, output: Path, description_file: Path) -> None:
    """Write the files of agebench.inference.hub_folder and the description, after timm has loaded the weights."""
    first, module = model.first, model.module
    if model.facts:
        raise UserError("format=safetensors needs one run without tta: use format=onnx or pt2 for several runs")
    network, shape = module.model.to(memory_format=torch.contiguous_format).eval(), first.config.data
    config = hub_config(first.config, network, num_outputs=module.head.num_outputs, normalise=module.normalise)
    others = [output.with_name(name) for name in ("config.json", "README.md")]
    for file in others:
        if file.exists():
            raise UserError(f"{file} already exists: set output= in another folder, or delete it")
    description = describe(first.stamp, first.config, weights=str(first.path), calibration=None)
    _check_description(description_file, description)
    images = torch.rand(
        2, shape.channels, shape.image_size, shape.image_size, generator=torch.Generator().manual_seed(0)
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part:
        write_weights(network, part)
        difference = find_difference(network, images, config, part)
        if not difference <= TOLERANCE:
            raise UserError(f"the outputs of timm's network differ by {difference:.2g}: nothing was written")
    head = type(module.head).__name__
    meaning = (
        "Their softmax has the probabilities of the labels." if head == "Softmax" else f"The head {head} reads them."
    )
    card = model_card(config, description, first.results, head=head, outputs=meaning, about=description_file.name)
    write_json(description_file, description)
    write_json(others[0], config)
    write_text(others[1], card)
    log.info("the largest difference of an output of timm's network is %.1e, on random images", difference)
    log.info("written to %s: %s, %s", output, description_file.name, ", ".join(file.name for file in others))


def _output_files(cfg: DictConfig) -> tuple[Path, Path]:
    """Return the path of the model and of its description, or raise UserError if one of them is another file.

    The description of another format of the same model may exist, because it is equal.
    """
    output = Path(str(cfg.output)).expanduser()
    description_file = output.with_suffix(".json")
    if description_file == output:
        raise UserError(f"{output} is the name of the description: set output= with another suffix, .{cfg.format}")
    for file in (output, description_file):
        if file.exists() and (file == output or "protocol" not in read_json(file)):
            raise UserError(f"{file} already exists: set another output=, or delete it")
    return output, description_file


def _check_description(file: Path, description: dict[str, Any]) -> None:
    """Raise UserError if a file exists and is not this description, which another format of the model has too."""
    if file.exists() and read_json(file) != json.loads(json.dumps(replace_nan(description))):
        raise UserError(f"{file} already exists and describes another model: set another output=, or delete it")


def describe_difference(difference: float) -> str:
    """Return a sentence about the largest difference of a probability from PyTorch's."""
    if difference == 0:
        return "the outputs are equal to PyTorch's, on random images"
    return f"probabilities differ by at most {difference:.1e} from PyTorch's, on random images"


def output_shapes(*, labels: int, ordered: bool, calibrated: bool) -> dict[str, list[str | int]]:
    """Return the shape of each output of the model by name, in their order."""
    shapes: dict[str, list[str | int]] = {"posterior": ["batch", labels], "point": ["batch"]}
    if calibrated and ordered:
        shapes |= {"low": ["batch"], "high": ["batch"]}
    elif calibrated:
        shapes |= {"label_set": ["batch", labels]}
    return shapes


def describe(
    stamp: dict[str, Any], trained: DictConfig, *, weights: str, calibration: Calibration | None
) -> dict[str, Any]:
    """Return the description of the model as plain data: its input, outputs, labels and origin."""
    data, labels = trained.data, len(stamp["label_names"])
    return {
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", data.channels, data.image_size, data.image_size],
            "channels": "grey" if data.channels == 1 else "RGB",
        },
        "resize": {key: data[key] for key in ("crop_mode", "crop_pct", "interpolation")},
        "outputs": output_shapes(labels=labels, ordered=stamp["ordered"], calibrated=calibration is not None),
        "calibration": None if calibration is None else calibration.facts,
        "labels": stamp["label_names"],
        "values": stamp["values"],
        "ordered": stamp["ordered"],
        "unit": stamp["unit"],
        "protocol": stamp["protocol"],
        "config": stamp["config_hash"],
        "weights": weights,
        "versions": versions(),
    }


def write_onnx(network: ExportedModel, shape: list[int], path: Path, description: str) -> None:
    """Write an ONNX file that contains the weights. The description is its metadata property `agebench`."""
    head, calibrated = network.head, network.calibration is not None
    names = [*output_shapes(labels=head.num_labels, ordered=head.ordered, calibrated=calibrated)]
    program = _exported(torch.onnx.export, network, shape, input_names=["images"], output_names=names)
    program.model.metadata_props["agebench"] = description
    program.save(path)


def write_program(network: ExportedModel, shape: list[int], path: Path, description: str) -> None:
    """Write a file for torch.export.load. The description is its extra file `agebench.json`."""
    program = _exported(torch.export.export, network, shape)
    file = io.BytesIO()  # on a full disk, torch would abort the process
    torch.export.save(program, file, extra_files={"agebench.json": description})
    path.write_bytes(file.getbuffer())


def _exported(export: Any, network: nn.Module, shape: list[int], **more: Any) -> Any:
    for name in ("onnxscript", "onnx_ir"):  # they log every node that they simplify
        logging.getLogger(name).setLevel(logging.WARNING)
    images = torch.zeros(2, *shape, dtype=torch.uint8)  # with one image, the exporter would fix the batch size
    if export is torch.onnx.export:
        more |= {"dynamo": True, "verbose": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export(network, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, **more)
    except Exception as error:  # tracing a network may raise anything
        reason = one_line_message(error.__cause__ or error)[:300]
        raise UserError(f"this network cannot be exported: {reason}") from error


def compare(network: nn.Module, shape: list[int], path: Path, kind: str) -> float:
    """Return the largest difference between the posteriors of the file and of the network, on random images."""
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(256, (n, *shape), generator=generator, dtype=torch.uint8) for n in CHECKED]
    if kind == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        found = [session.run(["posterior"], {"images": images.numpy()})[0] for images in batches]
    else:
        with path.open("rb") as file:
            loaded = torch.export.load(file).module()
        found = [loaded(images)[0].numpy() for images in batches]
    with torch.no_grad():
        expected = [network(images)[0].numpy() for images in batches]
    return max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
