"""Read predictions.csv: the labels, the true and the estimated values, and the posteriors of the test images."""

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from agebench.files import plain_cell
from agebench.metrics.predictions import Array, LabelledPredictions
from agebench.metrics.table import UNITS

COLUMNS = ["name", "identity", "target", "point"]  # the columns of predictions.csv before the posterior

# What reading a damaged predictions.csv raises.
UNREADABLE = (OSError, ValueError, KeyError, IndexError, csv.Error, DeprecationWarning)


def unit_of(protocol: str) -> str:
    """Return the unit of the errors of a protocol, empty for classes."""
    return UNITS.get(protocol.rpartition("/")[2].partition("-")[0], "")


def read_predictions(path: Path, *, posterior: bool) -> tuple[list[str], list[list[str]], Array]:
    """Return the labels, the COLUMNS of each row, and the posterior, shape (N, R), or zeros if it is not requested."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        text = file.read()
    if '"' in text:  # a name with a comma or a line break in it
        rows = list(csv.reader(io.StringIO(text, newline="")))
        header = rows.pop(0)
        leading, rest = [row[:4] for row in rows], [",".join(row[4:]) for row in rows]
    else:
        lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
        header = lines.pop(0).split(",")
        split_lines = [line.split(",", 4) for line in lines]
        leading, rest = [row[:4] for row in split_lines], [row[4] for row in split_lines]
    if "'" in text:
        leading = [[plain_cell(cell) for cell in row] for row in leading]
    labels = [column[2:-1] for column in header if column.startswith("p(")]
    if header[:4] != COLUMNS or header[4 : 4 + len(labels)] != [f"p({label})" for label in labels] or not rest:
        raise ValueError("not a predictions.csv")
    shape = (len(rest), len(labels))
    if not posterior:
        return labels, leading, np.broadcast_to(np.zeros(1), shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # NumPy warns about text that is not a number
        num_trailing = len(header) - 4 - len(labels)  # the protocol
        numbers = ",".join(row.rsplit(",", num_trailing)[0] for row in rest) if num_trailing else ",".join(rest)
        return labels, leading, np.fromstring(numbers, sep=",").reshape(shape)


def label_values(labels: Sequence[str], unit: str) -> list[float]:
    """Return the values of the labels in the unit, as in agebench.data.target."""
    if unit == "years":
        return [float(label) for label in labels]
    if unit == "decades":
        return [float(label.removesuffix("s")) // 10 for label in labels]
    return [float(i) for i in range(len(labels))]


def labelled_predictions(
    labels: Sequence[str], targets: Sequence[str], points: Sequence[str], *, posterior: Array, unit: str
) -> LabelledPredictions:
    """Return the predictions of N images from the labels and the columns of predictions.csv."""
    index = {label: i for i, label in enumerate(labels)}
    return LabelledPredictions(
        posterior=posterior,
        point=np.array(points if unit else [index[p] for p in points], dtype=np.float64),
        target=np.array([index[t] for t in targets], dtype=np.int64),
        values=np.array(label_values(labels, unit)),
        ordered=bool(unit),
        unit=unit,
    )
