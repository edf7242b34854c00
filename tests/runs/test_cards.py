"""The tags of TensorBoard's cards, in the two orders in which TensorBoard shows them."""

from agebench.runs.cards import card_name, result_card

CURVES = ("train/loss", "train/loss_step", "train/grad_norm", "lr-Adam", "val/mae", "val/abs_bias", "val/nll")
LOGGED = (*CURVES, "val/best_mae", "test/mae", "test/accuracy")


def order_on_time_series(tag: str) -> list[tuple[bool, str]]:
    """Return a key that sorts like `compareTagNames` in TensorBoard's index.js, for tags without numbers."""
    return [(c not in "/_", c) for c in tag]


def test_time_series_opens_on_the_curves_of_train_and_val() -> None:
    tags = [*map(card_name, LOGGED), *result_card("val/best_mae", {"test/mae": 1.0}), "x_report/curves"]

    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in sorted(tags, key=order_on_time_series)))

    assert groups == ["train", "val", "val-and-test", "x_report", "x_steps", "x_test"]


def test_hparams_shows_the_result_before_the_curves_of_val() -> None:
    tags = [*map(card_name, LOGGED), *result_card("val/best_mae", {"test/mae": 1.0})]

    assert sorted(tags)[:5] == [
        "train/loss",
        "train/lr",
        "val-and-test/test_mae",
        "val-and-test/val_best_mae",
        "val/abs_bias",
    ]


def test_the_rate_of_each_group_of_parameters_has_a_card() -> None:
    assert [card_name(name) for name in ("lr-AdamW", "lr-AdamW/pg2")] == ["train/lr", "train/lr/pg2"]


def test_a_monitored_metric_that_the_test_does_not_have_gives_no_result_card() -> None:
    assert result_card("val/best_abs_bias", {"test/bias": -1.0}) == {}
    assert card_name("train/best_loss") == "val-and-test/train_best_loss"
