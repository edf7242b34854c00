"""What scores without a look at an image: always the median of the train labels, or the most common one."""

import csv

import numpy as np

from agebench.comparison.pairs import label_values, read_predictions
from agebench.runs.read import Run


def score_blind(run: Run, unit: str) -> dict[str, float]:
    """Return the MAE of the median and the accuracy of the most common label of a run's train part on its test images.

    Args:
        run: With split.csv and predictions.csv.
        unit: Of the target, empty for classes.

    Returns:
        `test/mae` (not for classes) and `test/accuracy`; nothing if the files cannot be read.
    """
    try:
        labels, leading, _ = read_predictions(run.folder / "predictions.csv", posterior=False)
        with (run.folder / "split.csv").open(encoding="utf-8-sig", newline="") as lines:
            index = {label: i for i, label in enumerate(labels)}
            train = np.array([index[row["label"]] for row in csv.DictReader(lines) if row["part"] == "train"])
        test = np.array([index[row[2]] for row in leading])
        if not len(train):
            return {}
        common = np.bincount(train, minlength=len(labels)).argmax()
        found = {"test/accuracy": float((test == common).mean())}
        if unit:
            values = np.array(label_values(labels, unit))
            found["test/mae"] = float(np.abs(values[test] - np.median(values[train])).mean())
    except (OSError, ValueError, KeyError, IndexError, csv.Error):
        return {}
    return found
