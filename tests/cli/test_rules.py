"""The check of a composed config: one sentence for each value that is wrong, and none for a value that is right."""

import re
import sys
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from agebench.build.keys import (
    NETWORK,
    TRAINING,
    AppKeys,
    AuditKeys,
    CalibrateKeys,
    EvaluateKeys,
    ExportKeys,
    PredictKeys,
    PrepareKeys,
    ReportKeys,
    ScoreKeys,
    TrainKeys,
    check_nodes,
)
from agebench.cli.rules import check_config, check_sources
from agebench.errors import UserError

GROUPS = ("data", "data/split", "model", "head", "optim", "finetune", "scheduler", "augment", "trainer", "callbacks")
GROUPS += ("logger",)
RUNS = "the folder of a trained run or of a sweep, or a list of runs: run=[outputs/...,outputs/...]"
RUN_KEYS = {"app": AppKeys, "predict": PredictKeys, "export": ExportKeys, "evaluate": EvaluateKeys}


@pytest.fixture
def configure(compose_config):
    """Return a function that composes a config from groups, and then sets and deletes keys, which is much faster."""
    parser = OverridesParser.create()

    def make(line: str, name: str = "config"):
        words = parser.parse_overrides(line.split())
        config = compose_config(*(w.input_line for w in words if w.key_or_group in GROUPS), name=name)
        with open_dict(config):
            for word in words:
                parent, _, key = word.key_or_group.rpartition(".")
                if word.is_delete():
                    del (OmegaConf.select(config, parent) if parent else config)[key]
                elif word.key_or_group not in GROUPS:
                    OmegaConf.update(config, word.key_or_group, word.value(), merge=False, force_add=True)
        return config

    return make


def check_all(config) -> None:
    """Check a config as a training does before it writes anything."""
    check_config(config)
    check_nodes(OmegaConf.to_container(config, resolve=True), (*NETWORK, *TRAINING))


BROKEN = [
    ("data.groups=sex", "data.groups must be a list of different columns, such as [sex,race], or null, got sex"),
    ("data.groups=[sex,race,sex]", "data.groups must be a list of different columns, such as [sex,race], or null, got"),
    ("data.groups=[1,'1']", "data.groups must be a list of different columns, such as [sex,race], or null, got"),
    ("data.groups=['']", "data.groups[0] must be a text, or an integer, got ''"),
    ("data.groups=[null]", "data.groups[0] must be a text, or an integer, got null"),
    ("data.groups={sex:1}", "data.groups must be a list of different columns, such as [sex,race], or null, got"),
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
    ("report=1", "report must be false, light (or true) or full, got 1"),
    ("report=fast", "report must be false, light (or true) or full, got fast"),
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
    ("challenge_ages=21", "challenge_ages must be a list of ages in years, such as [18,21,25,30]"),
    ("challenge_ages=[]", "challenge_ages must be a list of ages"),
    ("challenge_ages=[18,old]", "challenge_ages[1] must be a number above 0 and at most 150, got old"),
    ("challenge_ages=[0]", "challenge_ages[0] must be a number above 0 and at most 150, got 0"),
    ("challenge_ages=[18,inf]", "challenge_ages[1] must be a number above 0"),
    ("acceptable=0", "acceptable must be a number above 0 and below 1, or null, got 0"),
    ("acceptable=1%", "acceptable must be a number above 0 and below 1, or null, got 1%"),
    ("acceptable=1", "acceptable must be a number above 0 and below 1, or null, got 1"),
    ("priors=0.1", "priors must be a list of shares, such as [0.1,0.2,0.3], got 0.1"),
    ("priors=[0.1,1]", "priors[1] must be a number above 0 and below 1, got 1"),
    ("priors=[-0.1]", "priors[0] must be a number above 0 and below 1, got -0.1"),
    ("resume=true", "resume must be auto, false or the folder of a run, got true"),
    ("resume=0", "resume must be"),
    ("trust=1", "trust must be true or false, got 1"),
    ("channels_last=1", "channels_last must be true or false, got 1"),
    ("compile=inductor", "compile must be false, true (or default), reduce-overhead or max-autotune, got inductor"),
    ("matmul_precision=higher", "matmul_precision must be one of highest, high, medium, got higher"),
    ("test_checkpoint=first", "test_checkpoint must be best or last, got first"),
    ("optim.lr=0", "optim.lr must be a number above 0, got 0"),
    ("optim.lr=-1e-3", "optim.lr must be a number above 0, got -0.001"),
    ("optim.lr=inf", "optim.lr must be a number above 0, got inf"),
    ("optim.lr=nan", "optim.lr must be a number above 0, got nan"),
    ("optim.lr=fast", "optim.lr must be a number above 0, got fast"),
    ("optim.weight_decay=-1", "optim.weight_decay must be a number of 0 or more, got -1"),
    ("paths.cache=null", "paths.cache must be a folder for packed pixels, got null"),
    ("paths.cache=/", "paths.cache=/ is a folder of the system: choose a folder of your own"),
    ("paths.cache=/usr", "paths.cache=/usr is a folder of the system"),
    ("paths.cache=/usr/..", "paths.cache=/usr/.. is a folder of the system"),
    (f"paths.cache={__file__}", f"paths.cache={__file__} is not a folder, because {__file__} is a file"),
    (f"paths.cache={__file__}/x", f"paths.cache={__file__}/x is not a folder, because {__file__} is a file"),
    (
        "callbacks.checkpoint.filename=../../x",
        "callbacks.checkpoint.filename must be the name of a file inside",
    ),
    ("callbacks.checkpoint.filename=/tmp/x", "callbacks.checkpoint.filename must be"),
    ("callbacks.checkpoint.filename='{epoch:/>5}'", "callbacks.checkpoint.filename must be"),
    ("callbacks.checkpoint.filename='{val/mae:.2f}/../../x'", "callbacks.checkpoint.filename must be"),
    ("+callbacks.checkpoint.dirpath=/tmp/x", "callbacks.checkpoint.dirpath must be a folder inside"),
    ("+callbacks.other.dirpath=../x", "callbacks.other.dirpath must be a folder inside"),
    ("logger=csv logger.csv.name=../../x", "logger.csv.name must be the name of a file inside the run"),
    ("logger=csv logger.csv.version=/tmp/x", "logger.csv.version must be"),
    ("data.name=../x", "data.name must be a name without .. or a leading /"),
    ("data.name=/tmp/x", "data.name must be a name without .. or a leading /"),
    ("data=cacd data.root=null", "data.source.root must be the path of the data, given as data.root=PATH (a folder"),
    ("data=folder data.root=2024", "data.source.root must be the path of the data, given as data.root=PATH (a folder"),
    ("data=mnist data.source.root=null", "data.source.root must be the path of the data"),
    ("data.batch_size=0", "data.batch_size must be an integer of 1 or more, or full or auto, got 0"),
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
    ("data.ages=[110,0]", "data.ages must be an age and a higher one, such as [0,110], got [110, 0]"),
    ("data.ages=[20,20]", "data.ages must be an age and a higher one, such as [0,110], got [20, 20]"),
    ("data.ages=[0,500]", "data.ages must be an age and a higher one, such as [0,110], got [0, 500]"),
    ("data.ages=5", "data.ages must be an age and a higher one, such as [0,110], got 5"),
    ("data.ages=[0,20.5]", "data.ages[1] must be an integer of 0 or more, got 20.5"),
    ("data.ages=[-1,20]", "data.ages[0] must be an integer of 0 or more, got -1"),
    ("data.ages=[0]", "data.ages must be an age and a higher one, such as [0,110], got [0]"),
    ("data.target=age", "data=digits has no target age: set data.target=class"),
    ("data=cacd data.target=class", "data=cacd has no target class: set data.target=decade (or age, bins)"),
    ("data=cacd data.target=bins", "data.target=bins needs the lower edges of the bins in years: data.bins=[18,30"),
    ("data.split=random", "data.split must be chosen as a group: data/split=NAME, got random"),
    ("data.split.seed=-1", "data.split.seed must be an integer from 0"),
    ("data/split=kfold data.split.fold=-1", "data.split.fold must be an integer of 0 or more, got -1"),
    ("trainer.max_epochs=ten", "trainer.max_epochs must be an integer number of epochs, or -1 for no limit, got ten"),
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

# What agebench accepted, or ended with a traceback.
BROKEN += [
    ("trainer.check_val_every_n_epoch=0", "trainer.check_val_every_n_epoch must be an integer of 1 or more, or null"),
    ("trainer.accumulate_grad_batches=0", "trainer.accumulate_grad_batches must be an integer of 1 or more, got 0"),
    ("trainer.val_check_interval=0", "trainer.val_check_interval must be a number of steps, or a share of an epoch"),
    ("trainer.val_check_interval=1.5", "trainer.val_check_interval must be a number of steps, or a share of an epoch"),
    ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val must be a number of 0 or more, or null, got nan"),
    ("trainer.limit_train_batches=some/file", "trainer.limit_train_batches must be a number of batches, or a share"),
    ("trainer.limit_val_batches=1.5", "trainer.limit_val_batches must be a number of batches, or a share"),
    ("trainer.inference_mode=nope", "trainer.inference_mode must be true or false, got nope"),
    ("trainer.min_epochs='あ'", "trainer.min_epochs must be an integer of 0 or more, or null, got あ"),
    ("trainer.max_time=later", "trainer.max_time must be a time as DD:HH:MM:SS, a group of keys, or null, got later"),
    ("trainer.strategy=1", "trainer.strategy must be a text, or a group of keys, got 1"),
    ("trainer.profiler=1", "trainer.profiler must be a text, or null, got 1"),
    ("trainer.deterministic=2", "trainer.deterministic must be true or false, warn, or null, got 2"),
    (
        "trainer.devices=0",
        "trainer.devices must be an integer of 1 or more, a list, or auto or a text such as '0,1', got 0",
    ),
    ("trainer.devices=99", "trainer.devices=99 starts 99 processes, and this machine has "),
    ("+trainer.max_tme=1", "Trainer has no argument trainer.max_tme (did you mean 'max_time'?): remove it"),
    ("+trainer.logger=true", "trainer.logger is set by agebench: remove it"),
    ("~trainer.max_steps", "trainer.max_steps is missing: it must be an integer of -1 or more"),
    ("data.num_workers=1000", "data.num_workers=1000 starts 1000 processes, and this machine has "),
    ("scheduler=step scheduler.factor=2", "scheduler.factor must be a number above 0 and below 1, got 2"),
    ("scheduler=plateau scheduler.factor=2", "scheduler.factor must be a number above 0 and below 1, got 2"),
    ("scheduler.warmup_epochs=[1,2]", "scheduler.warmup_epochs must be a number of 0 or more, got [1, 2]"),
    ("scheduler.warmup_epochs=-1", "scheduler.warmup_epochs must be a number of 0 or more, got -1"),
    ("+scheduler.gamma=1", "constant has no argument scheduler.gamma: remove it"),
    (
        "callbacks.checkpoint.save_top_k=nan",
        "callbacks.checkpoint.save_top_k must be an integer of -1 or more, got nan",
    ),
    ("callbacks.early_stopping.min_delta=nan", "callbacks.early_stopping.min_delta must be a number of 0 or more"),
    ("+callbacks.early_stopping.strict=1", "callbacks.early_stopping.strict must be true or false, got 1"),
    (
        "+callbacks.lr_monitor.logging_interval=epochs",
        "callbacks.lr_monitor.logging_interval must be step or epoch, or",
    ),
    ("callbacks.progress.refresh_rate=x", "callbacks.progress.refresh_rate must be an integer of 0 or more, got x"),
    ("+callbacks.x=1", "callbacks.x must be null or a group of keys with a _target_, got 1"),
    ("+callbacks.x.y=1", "callbacks.x._target_ is missing"),
    (
        "+callbacks.x._target_=lightning.pytorch.callbacks.Timr",
        "callbacks.x._target_=lightning.pytorch.callbacks.Timr ",
    ),
    ("+logger.x=1", "logger.x must be a group of keys, or null, got 1"),
    ("logger.tensorboard.save_dir=1", "logger.tensorboard.save_dir must be a text, got 1"),
    ("monitor=null", "monitor must be a text, got null"),
    ("~seed", "seed is missing: it must be an integer from 0 to 4294967295"),
    ("launcher=nope", "launcher must be a group of keys, got nope"),
    ("paths.output=null", "paths.output must be a text, got null"),
    ("data.source=null", "data.source must be a group of keys, got null"),
    ("data.source._target_=nope.X", "data.source._target_=nope.X cannot be imported (No module named 'nope')"),
    ("data.source._target_=5", "data.source._target_ must be a text, got 5"),
    ("~data.source._target_", "data.source._target_ is missing"),
    ("data=demo data.source.people=0", "data.source.people must be an integer of 1 or more, got 0"),
    ("data=mnist data.source.download=maybe", "data.source.download must be true or false, got maybe"),
    ("data=table data.source.label=years", "data.source.label must be one of auto, class, age, got years"),
    ("data/split=random data.split.val_share=0", "data.split.val_share must be a number above 0 and below 1, got 0"),
    ("data/split=kfold data.split.k=x", "data.split.k must be an integer of 1 or more, got x"),
    ("~data.split._partial_", "data.split._partial_ is missing: it must be true"),
    ("model.checkpoint_path=1", "model.checkpoint_path must be a text, or null, got 1"),
    ("model.pretrained=1", "model.pretrained must be true or false, got 1"),
    ("+model.freeze=backbone", "model.freeze=backbone is now finetune=head: replace it"),
    ("finetune.mode=half", "finetune.mode must be one of none, head, head_then_all, gradual, all, got half"),
    (
        "finetune=all optim.layer_decay=0.5",
        "optim.layer_decay=0.5 and finetune.backbone_lr_ratio=0.3 both lower the rate of the backbone",
    ),
    (
        "finetune=head finetune.backbone_lr_ratio=0.3",
        "finetune.backbone_lr_ratio=0.3 has no effect with finetune=head: set it to null, or use finetune=all",
    ),
    (
        "scheduler=plateau trainer.limit_val_batches=0",
        "scheduler=plateau needs a metric of val at the end of an epoch, and trainer.limit_val_batches=0 computes none",
    ),
    (
        "scheduler=plateau trainer.check_val_every_n_epoch=null trainer.val_check_interval=3",
        "scheduler=plateau needs a metric of val at the end of an epoch, and trainer.check_val_every_n_epoch=null",
    ),
    ("finetune=gradual trainer.max_epochs=3", "finetune.epochs=3 leaves no epoch that trains all parameters"),
    ("model.hidden=[64,0]", "model.hidden[1] must be an integer of 1 or more, got 0"),
    ("+model.hiden=[64]", "MLP has no argument model.hiden (did you mean 'hidden'?): remove it"),
    ("+model.num_classes=3", "model.num_classes is set by agebench: remove it"),
    ("~model.image_size", "model.image_size is missing: it must be an integer"),
    ("model._target_=math.pi", "model._target_ must be the name of a class or function, got 3.14"),
    ("head.label_smoothing=much", "head.label_smoothing must be a number, got much"),
    ("+head.sigma=1", "Softmax has no argument head.sigma: remove it"),
    ("augment.scale=1", "augment.scale must be a list, got 1"),
    ("+augment.zoom=1", "Augment has no argument augment.zoom: remove it"),
    ("optim.fused='1'", "optim.fused must be true or false, or null, got 1"),
    ("optim.eps=false", "optim.eps must be a number of 0 or more, got false"),
    ("optim.betas=[0.9]", "optim.betas must be a list of 2 values, got [0.9]"),
    ("optim.betas=[0.9,1.0]", "optim.betas[1] must be a number of 0 or more and below 1, got 1.0"),
    ("+optim.amsgrad=maybe", "optim.amsgrad must be true or false, got maybe"),
    ("+optim.lrr=1", "Adam has no argument optim.lrr (did you mean 'lr'?): remove it"),
    ("~optim._partial_", "optim._partial_ is missing: it must be true"),
    ("optim=timm optim.opt=3", "optim.opt must be a text, got 3"),
    ("lr_find=yes", "lr_find must be true or false, got yes"),
    ("lr_find=true trainer.devices=2", "lr_find=true runs on one device: set trainer.devices=1"),
    ("lr_find=true trainer.num_nodes=2", "lr_find=true runs on one device: set trainer.devices=1"),
    ("lr_find=true resume=outputs/a", "lr_find=true starts a new network, and resume=FOLDER continues a run"),
    ("lr_find=true data.batch_size=auto", "lr_find=true needs a batch size: find it first"),
    ("data.batch_size=auto trainer.devices=[0,1]", "data.batch_size=auto measures one device"),
    ("swa.start=1", "swa.start must be a share of the epochs from 0 to below 1, such as 0.75, or null, got 1"),
    ("swa.start=0.5 ema.decay=0.9", "ema.decay and swa.start both average the weights: set one of them to null"),
    ("teacher.weight=1.5", "teacher.weight must be a number from 0 to 1, got 1.5"),
    ("teacher.temperature=0", "teacher.temperature must be a number above 0, got 0"),
    ("teacher.run=nowhere", "nowhere is not a run: it does not exist"),
]


@pytest.mark.parametrize(("line", "sentence"), BROKEN, ids=[line for line, _ in BROKEN])
def test_one_invalid_value_gives_one_sentence(configure, line, sentence) -> None:
    config = configure(line)

    with pytest.raises(UserError) as raised:
        check_all(config)

    assert str(raised.value).startswith(sentence)


def test_bins_without_an_effect_cause_only_a_warning(compose_config, caplog) -> None:
    check_config(compose_config("data=cacd", "data.bins=[18,30]"))
    check_config(compose_config("data=cacd", "data.target=bins", "data.bins=[18,30]"))

    assert caplog.messages == ["data.bins is ignored: it needs data.target=bins, and the target is decade"]


def test_fixed_ages_without_an_effect_cause_only_a_warning(compose_config, caplog) -> None:
    check_config(compose_config("data=cacd", "data.target=age", "data.ages=[0,110]"))
    check_config(compose_config("data=digits", "data.ages=[0,110]"))

    assert caplog.messages == ["data.ages is ignored: it needs data.target=age or decade, and the target is class"]


@pytest.fixture
def configure_run(conf):
    """Return a function that makes the config of a command that takes a trained run."""

    def make(command: str, line: str):
        config = OmegaConf.load(conf / f"{command}.yaml")
        del config["defaults"], config["hydra"]
        config.update({"run": "outputs/run", "images": "photos", "output": "out"})
        config.paths = {"data": "data", "cache": "cache", "output": "outputs"}
        for override in OverridesParser.create().parse_overrides(line.split()):
            config[override.key_or_group] = override.value()
        return config

    return make


@pytest.mark.parametrize(
    ("command", "line", "needed"),
    [
        ("evaluate", "run=''", f"{RUNS}, got ''"),
        ("export", "run=[]", f"{RUNS}, got []"),
        ("predict", "run=null", f"{RUNS}, got null"),
        ("predict", "average=median", "posteriors or weights, got median"),
        ("evaluate", "average=null", "posteriors or weights, got null"),
        ("export", "tta=rotate", "one of flip, shift, flip+shift, or null, got rotate"),
        ("evaluate", "tta=true", "one of flip, shift, flip+shift, or null, got true"),
        (
            "predict",
            "images=[a,b]",
            "a folder of images, a zip or tar of one, a CSV file with a column path, or an image, got ['a', 'b']",
        ),
        ("predict", "output=null", "a file to write, got null"),
        ("export", "checkpoint=null", "tested, best, last, or a file, got null"),
        ("export", "format=ONNX", "one of onnx, pt2, safetensors, got ONNX"),
        ("predict", "batch_size=0", "an integer of 1 or more, got 0"),
        ("predict", "accelerator=1", "a text, got 1"),
        ("predict", "precision=8", "null for the run's, or 32-true, 16-mixed, bf16-mixed, got 8"),
        ("evaluate", "allow_leak=maybe", "true or false, got maybe"),
        ("evaluate", "devices=nan", "an integer of 1 or more, a list, or auto or a text such as '0,1', got nan"),
    ],
)
def test_one_invalid_value_for_a_trained_run_gives_one_sentence(configure_run, command, line, needed) -> None:
    config = configure_run(command, line)

    with pytest.raises(UserError, match=re.escape(f"{line.partition('=')[0]} must be {needed}")):
        check_config(config, RUN_KEYS[command])


@pytest.mark.parametrize("command", RUN_KEYS)
def test_the_name_of_a_folder_may_be_a_number(configure_run, command) -> None:
    check_config(configure_run(command, "run=2024 images=2025 precision=null"), RUN_KEYS[command])


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
        "trainer.precision=32",
        "trainer.devices=[0] trainer.max_time=00:01:00:00 trainer.val_check_interval=0.5",
        "trainer.devices=8 trainer.strategy=ddp trainer.deterministic=warn",
        "+trainer.max_time.hours=1",
        "trainer.profiler=simple trainer.limit_train_batches=1 trainer.limit_test_batches=0.5",
        "scheduler=plateau +scheduler.monitor=val/loss +scheduler.mode=min",
        "scheduler=plateau +scheduler.monitor=train/loss trainer.limit_val_batches=0",
        "scheduler=plateau monitor=train/loss trainer.check_val_every_n_epoch=null",
        "finetune=head finetune.backbone_lr_ratio=null",
        "scheduler.warmup_epochs=1",
        "optim.eps=0 optim.fused=null +optim.amsgrad=true",
        "optim=timm optim.opt=lion +optim.filter_bias_and_bn=false",
        "callbacks.checkpoint=null callbacks.progress=null logger.tensorboard=null",
        "callbacks.checkpoint.monitor=null callbacks.lr_monitor=null",
        "+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
        "+trainer.profiler._target_=lightning.pytorch.profilers.SimpleProfiler",
        "model=timm model.model_name=resnet18 +model.drop_rate=0.1",
        "model.hidden=[]",
        "model=small_cnn head.class_weight=balanced",
        "head.class_weight=[1,2,3]",
        "data/split=kfold data.split.k=10 data.split.fold=9",
        "data=table data.columns.label=null",
        "data.root=null",
        "+mine=1",
    ],
)
def test_valid_values_pass(configure, line) -> None:
    check_all(configure(line))


def test_half_precision_on_a_cpu_suggests_bf16(compose_config) -> None:
    config = compose_config("trainer.precision=16-mixed", "trainer.accelerator=cpu")

    with pytest.raises(UserError, match=r"needs a GPU.*use trainer\.precision=bf16-mixed"):
        check_config(config)


@pytest.mark.parametrize(
    ("line", "key", "keys"),
    [("trainer.accelerator=cuda", "trainer.accelerator", None), ("accelerator=cuda", "accelerator", "predict")],
)
def test_an_accelerator_that_is_not_there_is_named_before_torch_is_imported(
    configure, configure_run, monkeypatch, line, key, keys
) -> None:
    config = configure(line) if keys is None else configure_run(keys, line)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it raises an error

    with pytest.raises(UserError, match=rf"no CUDA GPU is available here: leave {re.escape(key)} out"):
        check_config(config, TrainKeys if keys is None else RUN_KEYS[keys])


@pytest.mark.parametrize("data", ["mnist", "hiragana73", "cacd", "folder"])
@pytest.mark.parametrize(
    ("typed", "near"),
    [("mnits", "mnist"), ("MNIST2/raw", "mnist/raw"), ("photo.csv", "photos.csv"), ("写真（２０２４）", "写真 (2024)")],
)
def test_a_typo_in_a_typed_root_suggests_what_exists_beside_it(compose_config, tmp_path, data, typed, near) -> None:
    (tmp_path / "mnist").mkdir()
    (tmp_path / "photos.csv").touch()
    (tmp_path / "写真 (2024)").mkdir()
    config = compose_config(f"data={data}", f"data.root='{tmp_path}/{typed}'")

    with pytest.raises(
        UserError, match=rf"{typed} does not exist \(did you mean '{re.escape(f'{tmp_path}/{near}')}'\?\)"
    ):
        check_config(config)


@pytest.mark.parametrize(
    "overrides",
    [
        ("data=mnist", "data.root={folder}/new"),  # nothing similar
        ("data=mnist", "data.root={folder}/mnist"),
        ("data=mnist", "paths.data={folder}"),  # the default folder, below it
        ("data=demo", "data.root={folder}/mnist2"),  # is drawn there
    ],
)
def test_a_new_folder_for_a_download_passes(compose_config, tmp_path, overrides) -> None:
    for name in ("mnist", "mnists"):
        (tmp_path / name).mkdir()
    config = compose_config(*(each.format(folder=tmp_path) for each in overrides))

    check_config(config)


def test_an_interpolation_of_a_missing_key_is_an_error(compose_config) -> None:
    config = compose_config("data.image_size=${nowhere}")

    with pytest.raises(Exception, match="Interpolation key 'nowhere' not found"):
        check_config(config)


def keys_of(kind: Any) -> dict[str, Any]:
    """Return the annotation of each key that a schema describes; empty if it describes no keys."""
    if typing.is_typeddict(kind):
        return typing.get_type_hints(kind, include_extras=True)
    parts = () if typing.get_origin(kind) in (dict, list) else typing.get_args(kind)
    return next(filter(None, map(keys_of, parts)), {})


def without_entry(config: dict[str, Any], kind: Any, parent: str = "") -> Iterator[str]:
    """Yield the keys of a config that its schema lacks. Nodes that name a class are checked by its signature."""
    known = keys_of(kind)
    for key, value in config.items():
        if key not in known and not (isinstance(value, dict) and "_target_" in value):
            yield f"{parent}{key}"
        elif isinstance(value, dict) and "_target_" not in value and keys_of(known[key]):
            yield from without_entry(value, known[key], f"{parent}{key}.")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config", TrainKeys),
        ("audit", AuditKeys),
        ("prepare", PrepareKeys),
        ("calibrate", CalibrateKeys),
        ("report", ReportKeys),
        ("export", ExportKeys),
        ("predict", PredictKeys),
        ("app", AppKeys),
        ("evaluate", EvaluateKeys),
        ("score", ScoreKeys),
    ],
)
def test_every_key_of_every_command_has_an_entry_in_the_schema(compose_config, name, kind) -> None:
    config = OmegaConf.to_container(compose_config(name=name), resolve=False)

    assert {*without_entry(config, kind)} <= {"paths"}  # the fixture adds it to commands that have none


def test_the_other_verbs_configs_pass(compose_config) -> None:
    check_config(compose_config("data=digits", name="prepare"), PrepareKeys)


def test_the_groups_of_every_point_of_a_sweep_are_checked_before_it_starts(compose_config, tmp_path) -> None:
    (tmp_path / "faces.csv").write_text("path,label,sex\na.png,x,f\nb.png,y,m\n")
    points = [
        compose_config("data=table", f"data.root={tmp_path / 'faces.csv'}", f"data.groups=[{column}]")
        for column in ("sex", "sx")
    ]

    check_sources(points[:1])

    with pytest.raises(UserError, match=r"no column 'sx' \(did you mean 'sex'\?\)"):
        check_sources(points)
