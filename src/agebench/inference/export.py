"""A trained network as one file, from the bytes of an image to the posterior and the point."""

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from agebench.build.module import build_trained
from agebench.errors import UserError, told
from agebench.files import atomic_write, write_json
from agebench.inference.load import read_checkpoint
from agebench.module import ImageModule
from agebench.runs.folder import read_results
from agebench.runs.identity import versions

log = logging.getLogger(__name__)
CHECKED = (1, 5)  # images of the batches that the file is tried on
TOLERANCE = 1e-3  # of a probability: other kernels add up in another order


class Shipped(nn.Module):
    """What is exported: statistics, network and head in one.

    Args:
        module: The trained module.
    """

    def __init__(self, module: ImageModule) -> None:
        super().__init__()
        self.normalise, self.model, self.head = module.normalise, module.model, module.head
        self.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior, (B, R), and the point in the target's unit, (B,), of uint8 images (B, C, S, S)."""
        outputs = self.model(self.normalise(images)).float()
        return self.head.posterior(outputs), self.head.point(outputs)


def ship(cfg: DictConfig) -> None:
    """Export a run, try the file on random images beside PyTorch, and write a JSON file about it.

    Args:
        cfg: The composed config of the verb.

    Raises:
        UserError: If the run cannot be read, the network cannot be exported, or the file is there already.
    """
    output = Path(str(cfg.output)).expanduser()
    about_file = output.with_suffix(".json")
    if about_file == output:
        raise UserError(f"{output} is what is written about the model: give output= another ending, as .{cfg.format}")
    for file in (output, about_file):
        if file.exists():
            raise UserError(f"{file} is there already: give another output=, or delete it")
    run_dir = Path(str(cfg.run)).expanduser()
    path, stored, trained = read_checkpoint(run_dir, cfg.checkpoint, read_results(run_dir), trust=cfg.trust)
    network = Shipped(build_trained(trained, stored))
    about = describe(stored["agebench"], trained, weights=str(path))
    shape = about["input"]["shape"][1:]
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(output) as part:
            (write_onnx if cfg.format == "onnx" else write_program)(network, shape, part, json.dumps(about))
            difference = compare(network, shape, part, cfg.format)
            if not difference <= TOLERANCE:
                raise UserError(
                    f"the exported model is off by {difference:.2g} in a probability, more than {TOLERANCE:g}: nothing "
                    "was written; try another format="
                )
        write_json(about_file, about)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}; give another output=") from error
    log.info("images uint8 (batch, %d, %d, %d) -> posterior (batch, %d), point (batch)", *shape, len(about["labels"]))
    log.info("off by at most %.1e from PyTorch in a probability, on random images", difference)
    log.info("written to %s, %.1f MiB, and %s", output, output.stat().st_size / 2**20, about_file.name)


def describe(stamp: dict[str, Any], trained: DictConfig, *, weights: str) -> dict[str, Any]:
    """Return what one needs to know to use the model: what goes in, what comes out, and where it is from."""
    data = trained.data
    return {
        "input": {
            "name": "images",
            "dtype": "uint8",
            "shape": ["batch", data.channels, data.image_size, data.image_size],
            "channels": "grey" if data.channels == 1 else "RGB",
        },
        "resize": {key: data[key] for key in ("crop_mode", "crop_pct", "interpolation")},
        "outputs": {"posterior": ["batch", len(stamp["label_names"])], "point": ["batch"]},
        "labels": stamp["label_names"],
        "values": stamp["values"],
        "ordered": stamp["ordered"],
        "unit": stamp["unit"],
        "protocol": stamp["protocol"],
        "config": stamp["config_hash"],
        "weights": weights,
        "versions": versions(),
    }


def write_onnx(network: nn.Module, shape: list[int], path: Path, about: str) -> None:
    """Write an ONNX file with the weights in it; what is known about it is its metadata `agebench`."""
    program = _exported(torch.onnx.export, network, shape, input_names=["images"], output_names=["posterior", "point"])
    program.model.metadata_props["agebench"] = about
    program.save(path)


def write_program(network: nn.Module, shape: list[int], path: Path, about: str) -> None:
    """Write what torch.export.load reads; what is known about it is its extra file `agebench.json`."""
    program = _exported(torch.export.export, network, shape)
    with path.open("wb") as file:  # a path would have to end in .pt2
        torch.export.save(program, file, extra_files={"agebench.json": about})


def _exported(export: Any, network: nn.Module, shape: list[int], **more: Any) -> Any:
    for name in ("onnxscript", "onnx_ir"):  # which tell of every node that they have simplified
        logging.getLogger(name).setLevel(logging.WARNING)
    images = torch.zeros(2, *shape, dtype=torch.uint8)  # of one image, the batch would be taken for fixed
    if export is torch.onnx.export:
        more |= {"dynamo": True, "verbose": False}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export(network, (images,), dynamic_shapes={"images": {0: torch.export.Dim("batch")}}, **more)
    except Exception as error:  # tracing somebody's network may raise anything
        reason = told(error.__cause__ or error)[:300]
        raise UserError(f"this network cannot be exported: {reason}") from error


def compare(network: nn.Module, shape: list[int], path: Path, kind: str) -> float:
    """Return how far the file's posterior is from the network's at most, on random images."""
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
