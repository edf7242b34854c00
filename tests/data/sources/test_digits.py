"""scikit-learn's digits, against scikit-learn."""

import numpy as np
from sklearn.datasets import load_digits

from agebench.data import split as splits
from agebench.data.records import Source
from agebench.data.sources.digits import Digits


def test_every_digit_is_scikit_learns_scaled_to_a_byte() -> None:
    source: Source = Digits()
    raw = load_digits()

    source.prepare()
    records = source.records()
    images = np.stack([np.asarray(source.open(row)) for row in range(len(records))])

    assert images.shape == (1797, 8, 8)
    assert images.dtype == np.uint8
    # Ink of 0 to 16: 16 is white, and no value is more than half a step off.
    assert np.abs(images - raw.images * 255 / 16).max() <= 0.5
    assert records.columns["class"].tolist() == raw.target.tolist()
    assert records.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
    assert len(np.unique(records.names)) == 1797
    assert source.present().all()


def test_the_default_split_is_a_tenth_and_a_tenth_of_1797() -> None:
    records = Digits().records()

    split = splits.random(records, records.columns["class"])

    assert [len(split.train), len(split.val), len(split.test)] == [1437, 180, 180]
