"""The selection of test images for the report."""

import numpy as np
import pytest

from agebench.report.outcome import Outcome
from agebench.report.selection import (
    chosen_rows,
    confused_pairs,
    doubt,
    least_certain,
    most_certain,
    single_images,
    worst_mistakes,
)


def classes(*predictions: tuple[int, list[float]]) -> Outcome:
    """Return the outcome of (true label, posterior) per image."""
    target = np.array([each[0] for each in predictions])
    posterior = np.array([each[1] for each in predictions])
    labels = posterior.shape[1]
    return Outcome(
        names=np.array([f"{i}.png" for i in range(len(target))]),
        target=target,
        posterior=posterior,
        point=posterior.argmax(1).astype(float),
        values=np.arange(labels, dtype=float),
        label_names=tuple("abcdefgh"[:labels]),
        ordered=False,
        unit="",
    )


def ages(*predictions: tuple[int, float, list[float]], values=(20.0, 30.0, 40.0)) -> Outcome:
    """Return the outcome of (true label, estimate, posterior) per image."""
    return Outcome(
        names=np.array([f"{i}.png" for i in range(len(predictions))]),
        target=np.array([each[0] for each in predictions]),
        posterior=np.array([each[2] for each in predictions]),
        point=np.array([each[1] for each in predictions]),
        values=np.array(values),
        label_names=tuple(f"{v:g}" for v in values),
        ordered=True,
        unit="years",
    )


def test_the_worst_mistake_of_classes_has_the_highest_probability_of_a_wrong_label() -> None:
    outcome = classes((0, [0.9, 0.1, 0]), (0, [0.2, 0.5, 0.3]), (1, [0.05, 0.05, 0.9]), (2, [0.6, 0.3, 0.1]))

    rows = worst_mistakes(outcome)

    assert rows.tolist() == [2, 3, 1]  # image 0 is right


def test_the_worst_mistake_of_ages_has_the_largest_error_whatever_its_sign() -> None:
    flat = [1 / 3] * 3
    outcome = ages((0, 24.9, flat), (0, 36.0, flat), (2, 21.0, flat), (1, 37.0, flat))

    rows = worst_mistakes(outcome)

    assert rows.tolist() == [2, 1, 3]  # image 0 is nearest to the true age 20


def test_doubt_of_ages_is_the_standard_deviation_of_the_posterior() -> None:
    outcome = ages((0, 30.0, [0.5, 0.0, 0.5]), (0, 20.0, [1.0, 0.0, 0.0]), (1, 30.0, [0.1, 0.8, 0.1]))

    found = doubt(outcome)

    np.testing.assert_allclose(found, [10.0, 0.0, np.sqrt(0.2 * 100)], atol=1e-12)


def test_the_most_certain_images_are_right_and_the_least_certain_are_not_necessarily() -> None:
    outcome = classes((0, [0.9, 0.1]), (0, [0.01, 0.99]), (1, [0.3, 0.7]), (1, [0.51, 0.49]))

    certain, uncertain = most_certain(outcome), least_certain(outcome)

    assert certain.tolist() == [0, 2]
    assert uncertain.tolist() == [3, 2, 0, 1]


def test_equal_images_keep_their_order_and_the_number_is_limited() -> None:
    outcome = classes(*[(0, [0.2, 0.8])] * 5)

    rows = worst_mistakes(outcome, 3)

    assert rows.tolist() == [0, 1, 2]


def test_a_pair_counts_both_directions_and_starts_with_the_more_frequent_one() -> None:
    mistakes = [(0, 1, 2), (2, 1, 3), (1, 2, 2), (0, 2, 1)]  # (true, taken for, number of images)
    sure = {0: [1.0, 0, 0], 1: [0, 1.0, 0], 2: [0, 0, 1.0]}
    outcome = classes(*[(true, sure[taken]) for true, taken, number in mistakes for _ in range(number)])

    pairs = confused_pairs(outcome)

    assert [(pair.labels, pair.counts) for pair in pairs] == [((2, 1), (3, 2)), ((0, 1), (2, 0)), ((0, 2), (1, 0))]
    assert [rows.tolist() for rows in pairs[0].rows] == [[2, 3, 4], [5, 6]]


def test_the_first_example_of_a_pair_is_the_most_certain_mistake() -> None:
    outcome = classes((0, [0.4, 0.6]), (0, [0.1, 0.9]), (0, [0.3, 0.7]))

    (pair,) = confused_pairs(outcome)

    assert pair.rows[0].tolist() == [1, 2, 0]


def test_many_ordered_labels_have_no_confused_pairs() -> None:
    years = tuple(float(v) for v in range(14, 63))
    flat = [1 / len(years)] * len(years)

    pairs = confused_pairs(ages((0, 50.0, flat), (3, 14.0, flat), values=years))

    assert pairs == []


def test_all_images_that_are_shown_are_chosen_once() -> None:
    rng = np.random.default_rng(0)
    outcome = classes(*[(int(rng.integers(4)), rng.dirichlet(np.ones(4)).tolist()) for _ in range(500)])
    needed = {*worst_mistakes(outcome), *most_certain(outcome), *least_certain(outcome), *single_images(outcome)}
    needed |= {row for pair in confused_pairs(outcome) for rows in pair.rows for row in rows}

    rows = chosen_rows(outcome)

    assert rows.tolist() == sorted(needed)


@pytest.mark.parametrize("images", [1, 3])
def test_few_images_suffice(images) -> None:
    outcome = classes(*[(0, [0.4, 0.6])] * images)

    rows = chosen_rows(outcome)

    assert rows.tolist() == list(range(images))


def test_without_images_none_is_chosen() -> None:
    empty = np.zeros(0, dtype=np.int64)
    outcome = Outcome(
        names=empty.astype(str),
        target=empty,
        posterior=np.zeros((0, 2)),
        point=np.zeros(0),
        values=np.arange(2.0),
        label_names=("a", "b"),
        ordered=False,
        unit="",
    )

    rows = chosen_rows(outcome)

    assert len(rows) == 0
