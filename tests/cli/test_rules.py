"""Each rule of the config check, with one value that breaks it."""

import re

import pytest
from omegaconf import OmegaConf

from agebench.cli.rules import CROP_MODES, FILTERS, RESIDENCIES, RULES, RUN_RULES, check_config, check_rules
from agebench.data import residency, resize
from agebench.errors import UserError

BROKEN = [
    ("sweep=", "sweep must be the name of a folder below"),
    ("sweep=a/../../b", "sweep must be the name of a folder below"),
    ("launcher.jobs=0", "launcher.jobs must be auto, or an integer of 1 or more, got 0"),
    ("launcher.gpus_per_job=-1", "launcher.gpus_per_job must be an integer of 0 or more, got -1"),
    ("launcher.timeout=0", "launcher.timeout must be seconds above 0, or null, got 0"),
    ("launcher.fail_fast=1", "launcher.fail_fast must be true or false, got 1"),
    ("seed=-1", "seed must be an integer from 0 to 4294967295, got -1"),
    ("seed=4294967296", "seed must be an integer from 0 to 4294967295, got 4294967296"),
    ("seed=0.5", "seed must be an integer"),
    ("seed=true", "seed must be an integer"),
    ("seed=null", "seed must be an integer"),
    ("report=1", "report must be true or false, got 1"),
    (
        "data=demo data.target=age age_limit=0",
        "age_limit must be a whole number of years from 1 to 150, or null, got 0",
    ),
    ("data=demo data.target=age age_limit=-18", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=17.5", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=nan", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=true", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=adult", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=[18]", "age_limit must be a whole number of years"),
    ("data=demo data.target=age age_limit=1000", "age_limit must be a whole number of years"),
    ("age_limit=18", "age_limit=18 needs ages, and data.target is class: set data.target=age, or age_limit=null"),
    ("data=demo age_limit=18", "age_limit=18 must be an edge of the decades 10, 20, 30, ..."),
    (
        "data=cacd data.target=bins data.bins=[21,30] age_limit=18",
        "age_limit=18 must be an edge of data.bins=[21,30]: choose one of them, or data.target=age",
    ),
    ("challenge_ages=21", "challenge_ages must be a list of ages above 0 and at most 150 years, such as [18,21,25,30]"),
    ("challenge_ages=[]", "challenge_ages must be a list of ages"),
    ("challenge_ages=[18,old]", "challenge_ages must be a list of ages"),
    ("challenge_ages=[0]", "challenge_ages must be a list of ages"),
    ("challenge_ages=[18,inf]", "challenge_ages must be a list of ages"),
    ("acceptable=0", "acceptable must be a share above 0 and below 1, got 0"),
    ("acceptable=1%", "acceptable must be a share above 0 and below 1, got 1%"),
    ("acceptable=1", "acceptable must be a share above 0 and below 1, got 1"),
    ("priors=0.1", "priors must be a list of shares above 0 and below 1: [0.1,0.2,0.3], got 0.1"),
    ("priors=[0.1,1]", "priors must be a list of shares"),
    ("priors=[-0.1]", "priors must be a list of shares"),
    ("resume=true", "resume must be auto, false or the folder of a run, got True"),
    ("resume=0", "resume must be"),
    ("trust=1", "trust must be true or false, got 1"),
    ("channels_last=1", "channels_last must be true or false, got 1"),
    ("compile=inductor", "compile must be true or false, got inductor"),
    ("matmul_precision=higher", "matmul_precision must be one of highest, high, medium, got higher"),
    ("test_checkpoint=first", "test_checkpoint must be best or last, got first"),
    ("optim.lr=0", "optim.lr must be a number above 0, got 0"),
    ("optim.lr=-1e-3", "optim.lr must be a number above 0, got -0.001"),
    ("optim.lr=inf", "optim.lr must be a number above 0, got inf"),
    ("optim.lr=nan", "optim.lr must be a number above 0, got nan"),
    ("optim.lr=fast", "optim.lr must be a number above 0, got fast"),
    ("optim.weight_decay=-1", "optim.weight_decay must be a number of 0 or more, got -1"),
    ("paths.cache=null", "paths.cache must be a folder for packed pixels, got None"),
    ("data=cacd data.root=null", "data.source.root must be the path of the data, given as data.root=PATH (a folder"),
    ("data=folder data.root=2024", "data.source.root must be the path of the data, given as data.root=PATH (a folder"),
    ("data=mnist data.source.root=null", "data.source.root must be the path of the data"),
    ("data.batch_size=0", "data.batch_size must be an integer of 1 or more, or full, got 0"),
    ("data.batch_size=half", "data.batch_size must be"),
    ("data.batch_size=2.5", "data.batch_size must be"),
    ("data.eval_batch_size=full", "data.eval_batch_size must be"),
    ("data.image_size=0", "data.image_size must be a side in px of 1 or more, got 0"),
    ("data.image_size=[8,8]", "data.image_size must be"),
    ("data.channels=2", "data.channels must be 1 (grey) or 3 (colour), got 2"),
    ("data.channels=true", "data.channels must be"),
    ("data.crop_mode=crop", "data.crop_mode must be one of squash, center, border, got crop"),
    ("data.crop_pct=1.5", "data.crop_pct must be a share above 0 and at most 1, got 1.5"),
    ("data.crop_pct=0", "data.crop_pct must be a share above 0"),
    ("data.interpolation=linear", "data.interpolation must be one of nearest, lanczos, bilinear"),
    ("data.require_all=1", "data.require_all must be true or false, got 1"),
    ("data.residency=cpu", "data.residency must be one of auto, gpu, ram, mapped, got cpu"),
    ("data.num_workers=-1", "data.num_workers must be"),
    ("data.per_class=0", "data.per_class must be an integer of 1 or more, or null, got 0"),
    ("data.limit=0", "data.limit must be an integer of 1 or more, or null, got 0"),
    ("data.target=ages", "data.target must be one of class, decade, age, bins, got ages"),
    ("data.target=age", "data=digits has no target age: set data.target=class"),
    ("data=cacd data.target=class", "data=cacd has no target class: set data.target=decade (or age, bins)"),
    ("data=cacd data.target=bins", "data.target=bins needs the lower edges of the bins in years: data.bins=[18,30"),
    ("data.split=random", "data.split must be chosen as a group: data/split=NAME, got random"),
    ("data.split.seed=-1", "data.split.seed must be an integer from 0"),
    ("data/split=kfold data.split.fold=-1", "data.split.fold must be an integer of 0 or more, got -1"),
    ("trainer.max_epochs=ten", "trainer.max_epochs must be an integer number of epochs, got ten"),
    ("trainer.max_epochs=-2", "trainer.max_epochs must be"),
    ("trainer.precision=8", "trainer.precision must be one of 32-true, 16-mixed, bf16-mixed, got 8"),
    ("callbacks.early_stopping=5", "callbacks.early_stopping must be null or a group of keys, such as"),
    ("callbacks.early_stopping.patience=-1", "callbacks.early_stopping.patience must be a number of epochs, or null"),
    ("monitor=val/acuracy", "monitor must be auto or a metric of data.target=class, got val/acuracy (did you mean "),
    ("monitor=val/mae", "monitor must be auto or a metric of data.target=class, got val/mae"),
    ("scheduler=plateau +scheduler.monitor=val/mae", "scheduler.monitor must be auto or a metric of data.target=class"),
    ("monitor=test/accuracy", "monitor must be auto or a metric of data.target=class, got test/accuracy"),
    ("model=timm", "model.model_name has no default: set model.model_name=VALUE"),
]


@pytest.mark.parametrize(("line", "sentence"), BROKEN, ids=[line for line, _ in BROKEN])
def test_one_invalid_value_gives_one_sentence(compose_config, line, sentence) -> None:
    config = compose_config(*line.split())

    with pytest.raises(UserError) as raised:
        check_config(config)

    assert str(raised.value).startswith(sentence)


def test_bins_without_an_effect_cause_only_a_warning(compose_config, caplog) -> None:
    check_config(compose_config("data=cacd", "data.bins=[18,30]"))
    check_config(compose_config("data=cacd", "data.target=bins", "data.bins=[18,30]"))

    assert caplog.messages == ["data.bins is ignored: it needs data.target=bins, and the target is decade"]


def test_every_rule_has_a_value_that_breaks_it() -> None:
    broken = {line.split()[-1].partition("=")[0] for line, _ in BROKEN}

    assert {key for key, _, _ in RULES} <= broken


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("run", "", "the folder of a trained run: run=outputs/..."),
        ("images", ["a", "b"], "a folder of images, a zip or tar of one, or an image"),
        ("output", None, "a file to write"),
        ("checkpoint", None, "tested, best, last, or a file"),
        ("format", "ONNX!", "one of onnx, pt2"),
        ("batch_size", 0, "an integer of 1 or more"),
        ("precision", 8, "null for the run's, or 32-true, 16-mixed, bf16-mixed"),
        ("allow_leak", "maybe", "true or false"),
    ],
)
def test_one_invalid_value_for_a_trained_run_gives_one_sentence(key, value, needed) -> None:
    with pytest.raises(UserError, match=re.escape(f"{key} must be {needed}, got {value}")):
        check_rules(OmegaConf.create({key: value}), RUN_RULES)


def test_the_name_of_a_folder_may_be_a_number() -> None:
    check_rules(OmegaConf.create({"images": 2024, "precision": None}), RUN_RULES)


@pytest.mark.parametrize(
    "line",
    [
        "seed=0",
        "seed=4294967295",
        "data.batch_size=full",
        "data.batch_size=1",
        "trainer.precision=64-true",
        "callbacks.early_stopping=null",
        "callbacks.early_stopping.patience=0",
        "monitor=train/loss",
        "monitor=val/macro_f1",
        "data=cacd monitor=val/within_1",
        "data=cacd data.target=age monitor=val/cs5",
        "monitor=val/nll",
        "data=demo monitor=val/bias",
        "data=demo callbacks.checkpoint.monitor=val/abs_bias",
        "data=cacd data.target=bins data.bins=[18,30]",
        "data=demo data.target=age age_limit=18 challenge_ages=[18,24.5] acceptable=0.05 priors=[0.5]",
        "data=demo age_limit=20",
        "data=cacd data.target=bins data.bins=[18,30] age_limit=18",
        "trainer.max_epochs=null",
        "trainer.max_epochs=-1",
        "optim.lr=1",
        "trainer.precision=bf16-mixed trainer.accelerator=cpu",
    ],
)
def test_valid_values_pass(compose_config, line) -> None:
    check_config(compose_config(*line.split()))


def test_half_precision_on_a_cpu_suggests_bf16(compose_config) -> None:
    config = compose_config("trainer.precision=16-mixed", "trainer.accelerator=cpu")

    with pytest.raises(UserError, match=r"needs a GPU.*use trainer\.precision=bf16-mixed"):
        check_config(config)


def test_an_interpolation_of_a_missing_key_is_an_error(compose_config) -> None:
    config = compose_config("data.image_size=${nowhere}")

    with pytest.raises(Exception, match="Interpolation key 'nowhere' not found"):
        check_config(config)


def test_the_other_verbs_configs_pass(compose_config) -> None:
    check_config(compose_config("data=digits", name="prepare"))


def test_the_choices_are_those_of_the_data_package() -> None:
    assert CROP_MODES == resize.CROP_MODES
    assert FILTERS == resize.FILTERS
    assert RESIDENCIES == residency.RESIDENCIES
