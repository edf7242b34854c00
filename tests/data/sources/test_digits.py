"""The digits of scikit-learn, compared with scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits

from agebench.data import split as splits
from agebench.data.records import Source
from agebench.data.sources.digits import Digits
from agebench.testing import check_source


def test_digits_are_those_of_scikit_learn_scaled_to_bytes() -> None:
    source: Source = Digits()
    raw = load_digits()

    source.prepare()
    records = source.records()
    images = np.stack([np.asarray(source.open(row)) for row in range(len(records))])

    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    # The ink of 0 to 16 becomes 0 to 255; rounding changes a value by at most half a step.
    assert np.abs(images - raw.images * 255 / 16).max() <= 0.5
    assert records.columns["class"].tolist() == raw.target.tolist()
    assert records.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


def test_the_default_split_is_a_tenth_and_a_tenth_of_1797() -> None:
    records = Digits().records()

    split = splits.random(records, records.columns["class"])

    assert [len(split.train), len(split.val), len(split.test)] == [1437, 180, 180]


def test_digits_keep_the_contract_of_a_source() -> None:
    check_source(Digits)
