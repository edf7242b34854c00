"""The model card of an exported network."""

import pytest

from agebench.inference.hub_folder import model_card

RESULTS = {
    "protocol": "faces/random/age",
    "leak": None,
    "leak_checked": True,
    "metrics": {"test/mae": 5.25, "test/bias": None, "val/mae": 4.0, "test/qwk": 0.5},
    "intervals": {"test/mae": [4.5, 6.0], "test/qwk": [None, None]},
    "bootstrap": {"over": "identity", "groups": 40},
}
LEAK = {
    "lookup_mae": 2.5,
    "median_mae": 10.0,
    "unit": "years",
    "test_identity_in_train": 0.75,
    "lookup_accuracy": 0.1,
    "majority_accuracy": 0.1,
}


def card(**changes: object) -> str:
    description = {"labels": ["20", "21"], "protocol": "faces/random/age"}
    more = {"head": "Softmax", "outputs": "They are logits.", "about": "model.json"}
    return model_card({"architecture": "resnet18"}, description, RESULTS | changes, **more)


def test_the_card_has_the_intervals_of_the_test() -> None:
    text = card()

    assert "| test/mae | 5.2500 [4.5000, 6.0000] |\n| test/qwk | 0.5000 |\n" in text
    assert "95% bootstrap intervals over the test people" in text
    assert "val/mae" not in text
    assert "unknown" not in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"leak_checked": False, "bootstrap": {"over": "image"}},
            "The identities of the people are unknown, so the same person may be in train and test.",
        ),
        ({"leak": LEAK}, "75.0% of the test images are of an identity that is in train."),
    ],
)
def test_the_card_says_what_is_known_about_a_leak(changes, sentence) -> None:
    assert sentence in card(**changes)


def test_results_without_intervals_make_a_card_of_metrics_alone() -> None:
    text = card(intervals={}, bootstrap=None)

    assert "| test/mae | 5.2500 |\n" in text
    assert "bootstrap" not in text
