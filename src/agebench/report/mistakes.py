"""Table of the images with the worst predictions."""

from pathlib import Path

import numpy as np

from agebench.files import write_csv
from agebench.report.outcome import Outcome


def write_mistakes(path: Path, outcome: Outcome, *, most: int = 100) -> Path:
    """Write the images whose most likely label is wrong, worst first, and return the path.

    For ordered labels, the worst image has the largest absolute error of the point estimate. For nominal labels, it has
    the highest probability of a wrong label.
    """
    rows = np.arange(len(outcome))
    predicted = outcome.predicted
    probability = outcome.posterior[rows, predicted]
    error = outcome.point - outcome.values[outcome.target]
    badness = np.abs(error) if outcome.ordered else probability
    wrong = np.flatnonzero(predicted != outcome.target)
    worst = wrong[np.argsort(-badness[wrong], kind="stable")][:most]

    header = ["name", "target", "most_likely_label", "probability", "probability_of_target"]
    table = [
        [
            outcome.names[i],
            outcome.label_names[outcome.target[i]],
            outcome.label_names[predicted[i]],
            f"{probability[i]:.4f}",
            f"{outcome.posterior[i, outcome.target[i]]:.4f}",
        ]
        for i in worst
    ]
    if outcome.ordered:
        header += ["point", f"error_{outcome.unit or 'labels'}"]
        for row, i in zip(table, worst, strict=True):
            row += [f"{outcome.point[i]:.4f}", f"{error[i]:.4f}"]
    return write_csv(path, header, table)
