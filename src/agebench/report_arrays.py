"""The arrays of a report that need the network or the pixels: features and images."""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from agebench.data.datamodule import ImageDataModule
from agebench.data.loader import Pixels
from agebench.explanations import write_explanations
from agebench.files import atomic_write
from agebench.metrics.predictions import Predictions
from agebench.models.classifier import classifier_layers
from agebench.module import ImageModule
from agebench.report.outcome import Outcome
from agebench.report.projector import write_projector
from agebench.report.report_images import ReportImages
from agebench.report.selection import chosen_rows, explained_rows

Array = npt.NDArray[Any]
MAX_IMAGES = 1_000  # images per part; a figure with more is hard to read
SAMPLE = 12  # train images before and after augmentation
LARGEST = 112  # px, side of a stored image
THUMBNAIL = 28  # px, side of an image in the figure of t-SNE


class FeatureRecorder:
    """Records the features of chosen images, the input of the classifier layer, while a network is tested.

    A test in several processes, in which none sees all images, records nothing.

    Args:
        module: The module.
        chosen: Rows of the test part, ascending, int64, shape (n,).
    """

    def __init__(self, module: ImageModule, chosen: Array) -> None:
        self.module, self.chosen = module, chosen
        self.seen = 0  # images, in the order of the part
        self.found: list[Tensor] = []

    def __enter__(self) -> Self:
        try:
            layer = classifier_layers(self.module.model)[0]
        except ValueError:  # a network of the user without a linear layer
            layer = torch.nn.Identity()
        self.hook = layer.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.hook.remove()

    def _record(self, _layer: Any, inputs: tuple[Tensor, ...]) -> None:
        first, last = np.searchsorted(self.chosen, (self.seen, self.seen + len(inputs[0])))
        at = torch.from_numpy(self.chosen[first:last] - self.seen)
        self.found.append(inputs[0].detach().flatten(1)[at.to(inputs[0].device)].float().cpu())
        self.seen += len(inputs[0])

    def features(self, predictions: Predictions) -> tuple[Array, Array] | None:
        """Return the rows of the part and their features, shape (n,) and (n, d); None if not every image was seen."""
        if not self.found or not np.array_equal(predictions.rows, np.arange(self.seen)):
            return None
        return self.chosen[self.chosen < self.seen], torch.cat(self.found).numpy()


def choose_rows(count: int) -> Array:
    """Return at most MAX_IMAGES rows of a part, the same in every run, ascending, int64."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MAX_IMAGES])


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


def write_arrays(
    run_dir: Path,
    module: ImageModule,
    data: ImageDataModule,
    *,
    predictions: Predictions,
    recorded: tuple[Array, Array] | None,
    parts: Sequence[str] = (),
) -> None:
    """Write the features and images of a report, and the files of TensorBoard's projector.

    Args:
        run_dir: The run directory.
        module: The trained module.
        data: The data.
        predictions: The predictions for the test part.
        recorded: Rows and features of test images, as a FeatureRecorder returns them.
        parts: Parts whose features are written: the network runs on their images. A light report needs none.
    """
    folder = run_dir / "report"
    folder.mkdir(exist_ok=True)
    outcome = outcome_of(data, predictions)
    _write_images(folder / "images.npz", module, data, outcome=outcome, rows=predictions.rows)
    chosen = explained_rows(outcome) if parts and np.isfinite(outcome.posterior).all() else np.array([], dtype=np.int64)
    if len(chosen):
        shown = data.part("test")[torch.from_numpy(predictions.rows[chosen])].images
        predicted = outcome.predicted[chosen]
        write_explanations(folder / "explained.npz", module, shown, rows=chosen, predicted=predicted)
    found = {} if recorded is None else {"test": recorded}
    for part in parts:
        if part not in found and not (part == "val" and data.plan.split.val_is_test):
            chosen = choose_rows(len(data.part(part)))
            found[part] = chosen, extract_features(module, data.part(part)[torch.from_numpy(chosen)].images)
    for part, (rows, features) in found.items() if parts else ():
        labels = data.plan.target.labels[data.plan.split.part(part)][rows]
        with atomic_write(folder / f"features_{part}.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, features=features, labels=labels, rows=rows, thumbnails=_thumbnails(data, part, rows, parts))
    if "test" in found:
        tested, features = found["test"]
        # With trainer.limit_test_batches there are predictions for some images only.
        _, places, at = np.intersect1d(tested, predictions.rows, assume_unique=True, return_indices=True)
        images = data.part("test")[torch.from_numpy(tested[places])].images
        write_projector(run_dir, "test", features[places], images.cpu().numpy(), _about(outcome, at))


def outcome_of(data: ImageDataModule, predictions: Predictions) -> Outcome:
    """Return the predictions with the names of images and labels."""
    target = data.plan.target
    return Outcome(
        names=data.plan.records.names[data.plan.split.test[predictions.rows]],
        target=predictions.target,
        posterior=predictions.posterior,
        point=predictions.point,
        values=target.values,
        label_names=target.label_names,
        ordered=target.ordered,
        unit=target.unit,
    )


def _write_images(path: Path, module: ImageModule, data: ImageDataModule, *, outcome: Outcome, rows: Array) -> None:
    """Write the test images that a report shows, and a sample of train before and after augmentation."""
    shown = chosen_rows(outcome) if np.isfinite(outcome.posterior).all() else np.array([], dtype=np.int64)
    train: Pixels = data.part("train")
    count = min(SAMPLE, len(train))
    sample = train[torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(train))[:count]))]
    after = sample.images[:0]
    if not module.skips_augmentation:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(module.seed)
            augmented = module.augment.cpu()(sample.images.cpu().float() / 255)
        after = (augmented.clamp(0, 1) * 255).round().to(torch.uint8)
    test = data.part("test")[torch.from_numpy(rows[shown])].images
    small, before, changed = (_reduced(each.cpu()).numpy() for each in (test, sample.images, after))
    ReportImages(shown, small, before, changed, sample.target.cpu().numpy()).save(path)


def _reduced(images: Tensor, side: int = LARGEST) -> Tensor:
    """Return images, uint8, shape (n, C, S, S), with a side of at most `side`."""
    if images.shape[-1] <= side or not len(images):
        return images
    smaller = torch.nn.functional.interpolate(images.float(), (side, side), mode="area")
    return smaller.round().to(torch.uint8)


def _thumbnails(data: ImageDataModule, part: str, rows: Array, parts: Sequence[str]) -> Array:
    """Return small images of the rows of a part, uint8, shape (n, C, s, s), s at most 28; none for a light report."""
    images = data.part(part)[torch.from_numpy(rows if parts else rows[:0])].images.cpu()
    return _reduced(images, THUMBNAIL).numpy()


def _about(outcome: Outcome, rows: Array) -> dict[str, list[str]]:
    """Return the metadata columns of the given rows for the projector: true label, prediction and name."""
    names = outcome.label_names
    return {
        "target": [names[label] for label in outcome.target[rows]],
        "point": [f"{p:.1f}" if outcome.ordered else names[int(p)] for p in outcome.point[rows]],
        "name": [str(name) for name in outcome.names[rows]],
    }
