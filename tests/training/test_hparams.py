"""A run's row on TensorBoard's HPARAMS page."""

from omegaconf import OmegaConf

from agebench.training.hparams import hparams


def test_a_row_holds_what_names_a_run_and_what_was_typed_if_it_changes_the_result(compose_config) -> None:
    config = compose_config("model=lenet", "data.batch_size=64", "launcher.jobs=2", "data.num_workers=1", "seed=3")

    row = hparams(config, OmegaConf.to_container(config, resolve=True), "digits/random/class")

    assert row == {
        "data": "digits",
        "data.batch_size": 64,
        "head": "softmax",
        "model": "lenet",
        "optim": "adam",
        "optim.lr": 0.001,
        "protocol": "digits/random/class",
        "seed": 3,
    }
