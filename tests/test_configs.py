"""A contract for every file in conf/: it has a description, composes, is valid, and names objects that exist."""

import inspect
from importlib.util import find_spec
from pathlib import Path

import lightning as L
import pytest
from hydra.utils import get_object
from omegaconf import OmegaConf

from agebench.cli.rules import LOGGERS, check_config

CONF = Path(__file__).parents[1] / "conf"
FILES = sorted(CONF.rglob("*.yaml"))
GROUPS = [path.relative_to(CONF).as_posix() for path in sorted(CONF.rglob("*")) if path.is_dir()]
GROUPS = [group for group in GROUPS if not group.startswith("hydra")]
CHOICES = [
    (group, path.stem)
    for group in GROUPS
    for path in sorted((CONF / group).glob("*.yaml"))
    if not path.stem.startswith("_")
]
# Overrides of choices without a default for a required key.
NEEDED = {
    ("data", "folder"): ["data.root=images"],
    ("data", "table"): ["data.root=images.csv"],
    ("model", "timm"): ["model.model_name=resnet10t"],
}
# Choices that need an extra to compose.
EXTRAS = {("experiment", "sweep_optuna"): ("hydra_plugins.hydra_optuna_sweeper", "optuna")}


def every(values):
    return pytest.mark.parametrize(
        ("group", "choice"), [pytest.param(*value, id="=".join(value), marks=absent(value)) for value in values]
    )


def absent(choice):
    """Return a mark that skips a choice whose extra is not installed."""
    plugin, extra = EXTRAS.get(choice, ("agebench", ""))
    return pytest.mark.skipif(find_spec(plugin) is None, reason=f"needs the extra: pip install agebench[{extra}]")


def targets(node) -> set[str]:
    """Return every _target_ in a config."""
    if isinstance(node, list):
        return set().union(*map(targets, node))
    if not isinstance(node, dict):
        return set()
    own = {node["_target_"]} if "_target_" in node else set()
    return own.union(*map(targets, node.values()))


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONF).as_posix() for path in FILES])
def test_the_first_line_is_a_description(path) -> None:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]

    assert lines[0].startswith("# ")
    assert 8 < len(lines[0]) <= 100


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONF).as_posix() for path in FILES])
def test_every_target_can_be_imported(path) -> None:
    for target in targets(OmegaConf.to_container(OmegaConf.load(path), resolve=False)):
        assert callable(get_object(target))


@every(CHOICES)
def test_a_choice_composes_and_passes_the_check(compose_config, group, choice) -> None:
    if group == "logger" and choice in LOGGERS.values():
        pytest.importorskip(choice, reason=f"needs the extra: pip install agebench[{choice}]")
    config = compose_config(f"{group}={choice}", *NEEDED.get((group, choice), []))

    check_config(config)


@pytest.mark.ci
@every([(group, choice) for group, choice in CHOICES if group == "experiment"])
def test_an_experiment_accepts_overrides(compose_config, group, choice) -> None:
    config = compose_config(f"experiment={choice}", "seed=5", "optim.lr=0.5", "debug=fast")

    check_config(config)
    assert (config.seed, config.optim.lr, config.trainer.max_epochs) == (5, 0.5, 1)


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("data", "cacd mnist hiragana73 digits demo folder table"),
        ("data/split", "official train80 random lecture identity kfold column"),
        ("head", "softmax binary"),
        ("optim", "sgd momentum adagrad rmsprop adam adamw timm"),
        ("scheduler", "constant step cosine plateau one_cycle"),
        ("augment", "none cacd hiragana digits standard randaugment"),
        ("logger", "tensorboard csv mlflow wandb trackio aim"),
        ("debug", "fast overfit profile"),
        ("experiment", "ds_ch14_cacd keras_cnn_mnist deep_convnet_mnist hiragana73_mlp hiragana73_cnn"),
    ],
)
def test_the_promised_choices_exist(group, names) -> None:
    assert set(names.split()) <= {choice for own, choice in CHOICES if own == group}


@every([(group, choice) for group, choice in CHOICES if group == "data"])
def test_every_data_set_has_the_promised_keys(compose_config, group, choice) -> None:
    config = compose_config(f"data={choice}", *NEEDED.get((group, choice), []))

    promised = {"root", "image_size", "batch_size", "target", "bins", "per_class", "limit", "name", "normalise"}
    assert promised <= set(config.data)
    assert config.data.name == choice
    assert config.data.batch_size == 32
    assert config.data.split.seed == 0


def test_the_data_folder_is_read_from_the_environment(compose_config, monkeypatch) -> None:
    monkeypatch.setenv("AGEBENCH_DATA", "/somewhere")
    assert compose_config("data=mnist").data.root == "/somewhere/mnist"

    monkeypatch.delenv("AGEBENCH_DATA")
    assert compose_config("data=mnist").data.root == "data/mnist"


@every([(group, choice) for group, choice in CHOICES if group == "optim"])
def test_every_optimizer_has_lr_and_weight_decay(compose_config, group, choice) -> None:
    config = compose_config(f"optim={choice}")

    assert config.optim.lr > 0
    assert config.optim.weight_decay >= 0


@every([(group, choice) for group, choice in CHOICES if group == "model"])
def test_every_network_has_the_keys_for_weights(compose_config, group, choice) -> None:
    config = compose_config(f"model={choice}")

    assert {"pretrained", "checkpoint_path"} <= set(config.model)
    assert config.model.pretrained is (choice == "convnext")


def test_the_defaults_are_the_promised_ones(compose_config) -> None:
    config = compose_config()

    assert config.optim._target_ == "torch.optim.Adam"
    assert config.optim.lr == 1e-3
    assert config.data.batch_size == 32
    assert config.trainer.max_epochs == 10
    assert config.callbacks.early_stopping.patience is None
    assert config.seed == 0
    assert config.data.split._target_.endswith(".random")
    assert (config.data.split.val_share, config.data.split.test_share) == (0.1, 0.1)
    assert (config.augment.flip, config.augment.degrees, config.augment.erase) == (0, 0, 0)
    assert config.model.pretrained is False


def test_the_fold_is_a_key(compose_config) -> None:
    assert compose_config("data/split=kfold", "data.split.fold=3").data.split.fold == 3


def test_every_argument_of_lightnings_trainer_is_a_key_unless_the_run_sets_it(compose_config) -> None:
    offered = set(inspect.signature(L.Trainer).parameters)
    ours = {"callbacks", "logger", "default_root_dir", "use_distributed_sampler"}
    ours |= {"enable_checkpointing", "enable_progress_bar", "enable_model_summary", "enable_autolog_hparams"}
    elsewhere = {
        "fast_dev_run",
        "barebones",
        "limit_predict_batches",
        "model_registry",
    }  # unused

    missing = offered - set(compose_config().trainer)

    assert missing <= ours | elsewhere


def test_the_trainers_defaults_are_those_of_lightning_except_for_known_keys(compose_config) -> None:
    parameters = inspect.signature(L.Trainer).parameters
    config = OmegaConf.to_container(compose_config().trainer)

    changed = {key for key, value in config.items() if key in parameters and value != parameters[key].default}

    assert changed <= {"devices", "precision", "max_epochs", "num_sanity_val_steps", "deterministic"} | {
        # None in Lightning, which then sets the same values
        "log_every_n_steps",
        "inference_mode",
    }


def test_the_age_lecture_has_its_published_settings(compose_config) -> None:
    config = compose_config("experiment=ds_ch14_cacd")

    assert config.model.model_name == "convnext_tiny.fb_in1k"
    assert (config.optim._target_, config.optim.lr) == ("torch.optim.Adam", 1e-4)
    assert (config.data.batch_size, config.trainer.max_epochs, config.data.target) == (32, 5, "decade")
    assert (config.data.split.per_label, config.data.split.test_share) == (200, 0.2)


def test_the_keras_slides_have_their_published_settings(compose_config) -> None:
    config = compose_config("experiment=keras_cnn_mnist")

    assert (config.data.batch_size, config.trainer.max_epochs) == (128, 20)
    assert (config.optim._target_, config.optim.lr, config.optim.eps) == ("torch.optim.Adam", 1e-3, 1e-7)
    assert config.data.split.val_from_test is True
