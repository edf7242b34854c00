"""Predict the labels of unlabelled images with a trained run."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig
from torch import Tensor

from agebench.build.limit import build_age_limit
from agebench.data.background import has_other_background
from agebench.data.resize import Resize
from agebench.data.unlabelled import Unlabelled
from agebench.errors import UserError
from agebench.files import write_csv
from agebench.inference.ensemble import load_model
from agebench.inference.evaluate import on_val
from agebench.inference.load import make_trainer
from agebench.metrics.age_limit import AgeLimit
from agebench.metrics.predictions import nearest_labels, probability_at_limit
from agebench.process import set_up_process

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
SHOWN = 10  # number of predictions printed on the console


class Images(Protocol):
    """Batches of uint8 images, shape (B, C, S, S). See agebench.data.unlabelled.Unlabelled."""

    names: list[str]
    broken: dict[int, str]

    def __iter__(self) -> Iterator[Tensor]: ...


class _Watched:
    """The images on their way to the network: inverted on request, and compared with the training images.

    Args:
        images: The images.
        invert: Whether to make dark pixels bright and bright pixels dark.
        background: The background of the training images, see agebench.data.background; None if it is unknown.

    Attributes:
        other: The number of images with the other background, counted while iterating.
    """

    def __init__(self, images: Images, *, invert: bool, background: Sequence[float] | None) -> None:
        self.images, self.invert, self.background, self.other = images, invert, background, 0

    def __iter__(self) -> Iterator[Tensor]:
        for batch in self.images:
            shown = 255 - batch if self.invert else batch
            self.other += int(has_other_background(shown.numpy(), self.background).sum())
            yield shown


class Predictor:
    """A trained run, or several that are averaged, ready to predict images.

    Args:
        cfg: The composed config of the command.

    Attributes:
        model: The run.
        stamp: The metadata in its checkpoint.
        resize: Resizes an image as in training.

    Raises:
        UserError: If the run cannot be read.
    """

    def __init__(self, cfg: DictConfig) -> None:
        self.model = load_model(cfg, partial(on_val, cfg))
        trained, self.stamp = self.model.first.config, self.model.first.stamp
        self.calibration = self.model.calibration(use=cfg.calibration)
        self.limit = build_age_limit(cfg, self.stamp)
        self.invert: bool | None = cfg.get("invert")  # None: the page of `app` has a box and a warning of its own
        data = trained.data
        self.resize = Resize(data.image_size, data.channels, data.crop_mode, data.crop_pct, data.interpolation)
        set_up_process(seed=trained.seed, matmul_precision=trained.matmul_precision)
        self.trainer = make_trainer(cfg, trained, devices=1)

    def tabulate(self, images: Images) -> tuple[list[str], list[list[str]]]:
        """Return the column names and the row of each image, see the function `tabulate`.

        Raises:
            UserError: If no image can be read.
        """
        watched = _Watched(images, invert=bool(self.invert), background=self.stamp.get("background"))
        predictions: Any = self.trainer.predict(self.model.module, watched)
        if len(images.broken) == len(images.names):
            name, reason = images.names[0], images.broken[0]
            raise UserError(f"none of the {len(images.names):,} images can be read, for example {name}: {reason}")
        if watched.other and self.invert is not None:
            dark = self.stamp["background"][0] < 0.5
            log.warning(
                "%s of %s images have a %s background, but the training images have a %s one: their predictions are "
                "probably wrong; set invert=%s",
                f"{watched.other:,}",
                f"{len(images.names) - len(images.broken):,}",
                *(("bright", "dark") if dark else ("dark", "bright")),
                str(not self.invert).lower(),
            )
        posterior, point = (torch.cat(part).float().numpy() for part in zip(*predictions, strict=True))
        sets = {}
        if self.calibration is not None:
            posterior = self.calibration.temper(posterior)
            sets = self.calibration.columns(self.calibration.sets(posterior, point), self.stamp["label_names"])
        return tabulate(images, self.stamp, posterior, point, sets=sets, age_limit=self.limit)


def predict_images(cfg: DictConfig) -> None:
    """Write a CSV file with the name, estimate, labels, posterior and problem of each image; see `tabulate`.

    Images are resized as in training and not augmented.

    Args:
        cfg: The composed config of the command.

    Raises:
        UserError: If the run or the images cannot be read.
    """
    output = Path(str(cfg.output)).expanduser()
    predictor = Predictor(cfg)
    images = Unlabelled(Path(str(cfg.images)).expanduser(), resize=predictor.resize, batch_size=cfg.batch_size)
    start = time.monotonic()
    columns, rows = predictor.tabulate(images)
    seconds = time.monotonic() - start
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_csv(output, columns, rows)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}; set another output=") from error
    _log_predictions(columns, rows, unit=predictor.stamp["unit"], seconds=seconds)
    log.info("written to %s", output)


def _log_predictions(columns: list[str], rows: list[list[str]], *, unit: str, seconds: float) -> None:
    """Log the first predictions, each with its most likely label and probability, and how many images were read."""
    read = [row for row in rows if row[1]]
    for row in (dict(zip(columns, each, strict=True)) for each in read[:SHOWN]):
        answer = f"{row['point']} years" if unit == "years" else row["label"]
        likeliest = row.get("most_likely_label", row["label"])  # classes have one answer
        share = f"{float(row[f'p({likeliest})']):.1%}"
        log.info("%s  %s  %s", row["name"], answer, share if answer == likeliest else f"({likeliest}: {share})")
    if len(read) > SHOWN:
        log.info("...")
    log.info("%s of %s images in %.1f s", f"{len(read):,}", f"{len(rows):,}", seconds)
    if unread := len(rows) - len(read):
        log.warning("%s could not be read: see the column `problem` of the CSV", f"{unread:,}")


def tabulate(
    images: Images,
    stamp: dict[str, Any],
    posterior: Array,
    point: Array,
    *,
    sets: Mapping[str, Sequence[str]],
    age_limit: AgeLimit | None = None,
) -> tuple[list[str], list[list[str]]]:
    """Return the column names, and the row of each image in the order of the names.

    For ordered labels the columns are the point estimate in the target's unit, the label nearest to it, the most likely
    label and its probability, and with an age limit the probability of an age at or above it. For classes, both `label`
    and `point` are the most likely label.

    Args:
        images: N images, n of which could be read.
        stamp: The metadata in the run's checkpoint.
        posterior: Posteriors of the n images, float, shape (n, R).
        point: Point estimates of the n images, float, shape (n,).
        sets: The columns of the conformal sets of the n images; empty without a calibration.
        age_limit: The age limit, or None.
    """
    names, most_likely = stamp["label_names"], posterior.argmax(1)
    labels = [names[i] for i in most_likely]
    answers: dict[str, Sequence[str]]
    if stamp["ordered"]:
        points, nearest = [f"{p:.6g}" for p in point], nearest_labels(point, np.array(stamp["values"]))
        probabilities = [f"{p:.6g}" for p in posterior.max(1)]
        answers = {"point": points, **sets, "label": [names[i] for i in nearest]}
        answers |= {"most_likely_label": labels, "probability": probabilities}
        if age_limit is not None:
            shares = probability_at_limit(posterior, age_limit)
            answers[f"p(>={age_limit.limit:g})"] = [f"{p:.6g}" for p in shares]
    else:
        answers = {"label": labels, "point": labels, **sets}
    columns = [*answers, *(f"p({name})" for name in names)]
    predictions = zip(*answers.values(), ([f"{p:.6g}" for p in each] for each in posterior), strict=True)
    rows: list[list[str]] = []
    for i, name in enumerate(images.names):
        if i in images.broken:
            rows.append([name, *[""] * len(columns), images.broken[i]])
        else:
            *given, each = next(predictions)
            rows.append([name, *given, *each, ""])
    return ["name", *columns, "problem"], rows
