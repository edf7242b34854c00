"""Extract the features of a run, and write its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agebench.data.datamodule import ImageDataModule
from agebench.data.split import PARTS
from agebench.leakage.seen_in_training import leak_sentence
from agebench.metrics.predictions import Predictions
from agebench.models.classifier import classifier_layers
from agebench.module import ImageModule
from agebench.report.outcome import Outcome
from agebench.report.projector import write_projector
from agebench.report.write import write_report

Array = npt.NDArray[Any]
MAX_IMAGES = 1_000  # images per part; a figure with more is hard to read


def extract_features(module: ImageModule, images: Tensor, *, batch_size: int = 256) -> Array:
    """Return the features of images, the input of the classifier layer, float32, shape (n, d).

    Args:
        module: The trained module; set to evaluation mode.
        images: uint8, shape (n, C, S, S).
        batch_size: Images per batch.
    """
    features: list[Tensor] = []
    layer = classifier_layers(module.model)[0]
    hook = layer.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].flatten(1).float().cpu()))
    try:
        with torch.no_grad():
            module.eval()
            for batch in images.split(batch_size):
                module(batch.to(module.device))
    finally:
        hook.remove()
    return torch.cat(features).numpy()


def write_run_report(
    run_dir: Path,
    module: ImageModule,
    data: ImageDataModule,
    *,
    predictions: Predictions,
    history: list[dict[str, float]],
    leak: Mapping[str, Any] | None,
    writer: Any | None,
) -> None:
    """Write report/ of a run. With a TensorBoard writer, also log the figures and write the projector's files."""
    features = {}
    for part in PARTS:
        if part == "val" and data.plan.split.val_is_test:
            continue
        pixels = data.part(part)
        chosen = np.sort(np.random.default_rng(0).permutation(len(pixels))[:MAX_IMAGES])
        rows = torch.from_numpy(chosen)
        batch = pixels[rows]
        features[part] = extract_features(module, batch.images), batch.target.cpu().numpy()
        if part == "test":
            tested, images = chosen, batch.images
    outcome = Outcome(
        names=data.plan.records.names[data.plan.split.test[predictions.rows]],
        target=predictions.target,
        posterior=predictions.posterior,
        point=predictions.point,
        values=data.plan.target.values,
        label_names=data.plan.target.label_names,
        ordered=data.plan.target.ordered,
        unit=data.plan.target.unit,
        note=leak_sentence(leak) if leak else "",
        lookup_mae=leak["lookup_mae"] if leak else None,
    )
    write_report(
        run_dir / "report",
        history=history,
        outcome=outcome,
        features=features,
        title=f"{data.plan.protocol} · {type(module.model).__name__}",
        writer=writer,
        step=0 if writer is None else module.trainer.global_step,
    )
    if writer is not None:
        # With trainer.limit_test_batches there are predictions for some images only.
        _, places, at = np.intersect1d(tested, predictions.rows, assume_unique=True, return_indices=True)
        shown = images[torch.from_numpy(places)].cpu().numpy()
        write_projector(run_dir, "test", features["test"][0][places], shown, _about(outcome, at))


def _about(outcome: Outcome, rows: Array) -> dict[str, list[str]]:
    """Return the metadata columns of the given rows for the projector: true label, prediction and name."""
    names = outcome.label_names
    return {
        "target": [names[label] for label in outcome.target[rows]],
        "point": [f"{p:.1f}" if outcome.ordered else names[int(p)] for p in outcome.point[rows]],
        "name": [str(name) for name in outcome.names[rows]],
    }
