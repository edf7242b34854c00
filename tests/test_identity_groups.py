"""Groups of images by identity: equal identities are one group, each unknown one is a group of its own."""

import numpy as np
import pytest

from agebench.identity_groups import factorize, group_codes, is_known


@pytest.mark.parametrize("dtype", [np.str_, np.bytes_, np.int64, np.uint16])
def test_factorize_gives_the_distinct_values_and_codes_of_numpys_unique(dtype: type) -> None:
    values = np.random.default_rng(0).integers(0, 50, 400).astype(dtype)

    distinct, codes = factorize(values)

    expected, expected_codes = np.unique(values, return_inverse=True)
    assert distinct.dtype == expected.dtype
    assert distinct.tolist() == expected.tolist()
    assert codes.tolist() == expected_codes.tolist()


def test_factorize_sorts_text_by_code_point_as_numpy_does() -> None:
    values = np.array(["é", "z", "𝒳", "Z", "", "あ", "a", "z"])

    distinct, codes = factorize(values)

    assert distinct.tolist() == ["", "Z", "a", "z", "é", "あ", "𝒳"]
    assert codes.tolist() == [4, 3, 6, 1, 0, 5, 2, 3]


def test_equal_identities_are_one_group_and_each_unknown_one_is_its_own() -> None:
    codes, count = group_codes(np.array(["bo", "", "ann", "", "bo"]), 5)

    assert codes.tolist() == [1, 2, 0, 3, 1]
    assert count == 4


def test_without_identities_each_image_is_a_group() -> None:
    for unknown in (None, np.array(["", "", ""])):
        codes, count = group_codes(unknown, 3)

        assert codes.tolist() == [0, 1, 2]
        assert count == 3


def test_numbers_are_known_identities_zero_included() -> None:
    numbers = np.array([7, 0, 7])

    codes, count = group_codes(numbers, 3)

    assert is_known(numbers).tolist() == [True, True, True]
    assert codes.tolist() == [1, 0, 1]
    assert count == 2
