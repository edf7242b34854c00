"""The names of splits in protocols."""

import pytest

from agebench.data.protocol import is_capped, without_fold


@pytest.mark.parametrize(
    ("protocol", "pooled", "fold"),
    [
        ("cacd/kfold5-0/age", "cacd/kfold5/age", 0),
        ("digits/kfold-by-image10-9/class", "digits/kfold-by-image10/class", 9),
        ("demo/kfold5-3-per20-limit100/bins-18-30", "demo/kfold5-per20-limit100/bins-18-30", 3),
        ("demo/official/age", "demo/official/age", None),
        ("demo/column-kfold5-0/age", "demo/column-kfold5-0/age", None),  # a list in a file kfold5-0.csv
        ("kfold5-0/random/bins-5-0", "kfold5-0/random/bins-5-0", None),
        ("None", "None", None),
    ],
)
def test_the_number_of_the_fold_is_separated_from_the_protocol(protocol, pooled, fold) -> None:
    found = without_fold(protocol)

    assert found == (pooled, fold)


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("demo/kfold5-limit100/age", True),
        ("demo/kfold5-per20/age", True),
        ("demo/kfold5/age", False),
        ("a-limit5/kfold5/bins-18", False),
    ],
)
def test_a_split_with_limits_is_recognised(protocol, expected) -> None:
    found = is_capped(protocol)

    assert found is expected
