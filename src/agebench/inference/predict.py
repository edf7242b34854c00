"""What a trained run says of images that nobody has labelled."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from omegaconf import DictConfig

from agebench.build.module import build_trained
from agebench.data.resize import Resize
from agebench.data.unlabelled import Unlabelled
from agebench.errors import UserError
from agebench.files import write_csv
from agebench.inference.load import make_trainer, read_checkpoint
from agebench.process import set_up_process
from agebench.runs.folder import read_results

log = logging.getLogger(__name__)
Array = npt.NDArray[Any]
SHOWN = 10  # answers on the console


def predict_images(cfg: DictConfig) -> None:
    """Write a CSV with a row an image: its name, likeliest label, point, posterior, and what was wrong with it.

    The point is in the target's unit (years, decades, bins), and the label once more where labels have no order.
    Images are brought to size as the run's were, and are never augmented.

    Args:
        cfg: The composed config of the verb.

    Raises:
        UserError: If the run or the images cannot be read, or the file to write is there already.
    """
    output = Path(str(cfg.output)).expanduser()
    if output.exists():
        raise UserError(f"{output} is there already: give another output=, or delete it")
    run_dir = Path(str(cfg.run)).expanduser()
    _, stored, trained = read_checkpoint(run_dir, cfg.checkpoint, read_results(run_dir), trust=cfg.trust)
    data = trained.data
    resize = Resize(data.image_size, data.channels, data.crop_mode, data.crop_pct, data.interpolation)
    images = Unlabelled(Path(str(cfg.images)).expanduser(), resize=resize, batch_size=cfg.batch_size)
    set_up_process(seed=trained.seed, matmul_precision=trained.matmul_precision)
    trainer = make_trainer(cfg, trained, devices=1)
    start = time.monotonic()
    answers: Any = trainer.predict(build_trained(trained, stored), images)
    seconds = time.monotonic() - start
    if len(images.broken) == len(images.names):
        name, reason = images.names[0], images.broken[0]
        raise UserError(f"none of the {len(images.names):,} images can be read, such as {name}: {reason}")
    posterior, point = (torch.cat(part).float().numpy() for part in zip(*answers, strict=True))
    columns, rows = tabulate(images, stored["agebench"], posterior, point)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_csv(output, columns, rows)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}; give another output=") from error
    read = [row for row in rows if row[1]]
    for name, label, at, *_ in read[:SHOWN]:
        log.info("%s  %s", name, f"{at} years" if stored["agebench"]["unit"] == "years" else label)
    if len(read) > SHOWN:
        log.info("...")
    log.info("%s of %s images in %.1f s", f"{len(read):,}", f"{len(rows):,}", seconds)
    if images.broken:
        log.warning("%s could not be read: the column problem says why", f"{len(images.broken):,}")
    log.info("written to %s", output)


def tabulate(
    images: Unlabelled, stamp: dict[str, Any], posterior: Array, point: Array
) -> tuple[list[str], list[list[str]]]:
    """Return the columns and a row of them for each image, in the order of the names.

    Args:
        images: Read through; of those that could be read there are answers.
        stamp: Of the run's weights.
        posterior: Float, shape (n, R).
        point: Float, shape (n,).
    """
    names = stamp["label_names"]
    labels = [names[best] for best in posterior.argmax(1)]
    points = [f"{p:.6g}" for p in point] if stamp["ordered"] else labels
    answers = zip(labels, points, ([f"{p:.6g}" for p in each] for each in posterior), strict=True)
    rows = []
    for place, name in enumerate(images.names):
        if place in images.broken:
            rows.append([name, *[""] * (2 + len(names)), images.broken[place]])
        else:
            label, at, each = next(answers)
            rows.append([name, label, at, *each, ""])
    return ["name", "label", "point", *(f"p({name})" for name in names), "problem"], rows
