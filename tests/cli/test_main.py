"""Command lines and exit codes: flags anywhere, and one sentence with the fix for every error."""

import errno
import logging
import operator
import os
import re
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image

from agebench.cli.flags import split_flags, unknown_flag
from agebench.cli.main import main
from agebench.cli.messages import explain, install_command
from agebench.config import config_folder
from agebench.errors import UserError
from agebench.runs.identity import config_hash
from agebench.train import train

USERS_LINE = "model=convnext data=cacd -m optim.lr=1e-4,1e-3"


@pytest.fixture
def run_line(monkeypatch, tmp_path, conf):
    """Run a command line in this process, in an empty folder, with a task instead of a training."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.delenv("AGEBENCH_DATA", raising=False)

    def run(line: str, task=lambda cfg: None) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["agebench", *line.split(" ")])
        try:
            main("train", task, config_name="config")
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    yield run
    GlobalHydra.instance().clear()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (USERS_LINE, "-m model=convnext data=cacd optim.lr=1e-4,1e-3"),
        ("data=mnist --config-dir X model=mlp", "--config-dir X data=mnist model=mlp"),
        ("data=mnist --config-dir=X model=mlp", "--config-dir=X data=mnist model=mlp"),
        ("data=mnist --cfg job model=mlp", "--cfg job data=mnist model=mlp"),
        ("a=1 -c job b=2 -cn name c=3 -m", "-c job -cn name -m a=1 b=2 c=3"),
        ("a=1 -cd own -p trainer --resolve b=2", "-cd own -p trainer --resolve a=1 b=2"),
        ("a=1 --info b=2", "--info=all a=1 b=2"),
        ("a=1 --info searchpath b=2", "--info=searchpath a=1 b=2"),
        ("~trainer +x=1 -m ++y=-1", "-m ~trainer +x=1 ++y=-1"),
        ("a=1 --config-dir", "--config-dir a=1"),
        ("~model=mlp", "~model=mlp"),
        ("", ""),
    ],
)
def test_flags_may_stand_anywhere(line, expected) -> None:
    flags, overrides = split_flags(line.split())

    assert [*flags, *overrides] == expected.split()


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--model=mlp", "there is no flag --model: write model=mlp, without dashes"),
        ("-model=mlp", "there is no flag -model: write model=mlp, without dashes"),
        ("--optim.lr", "there is no flag --optim.lr: write optim.lr=VALUE, without dashes"),
        ("--data/split=random", "there is no flag --data/split: write data/split=random, without dashes"),
    ],
)
def test_an_option_with_dashes_is_repeated_without_them(flag, sentence) -> None:
    assert unknown_flag(["-m", flag]) == sentence


def test_a_flag_that_resembles_one_of_hydra_is_explained_by_it() -> None:
    assert unknown_flag(["--halp"]) == "there is no flag --halp (did you mean --help?)"


@pytest.mark.parametrize("flag", ["--cfg=job", "-cjob", "--multi", "-cp=conf", "-m", "-mr", "--info=all", "--resolve"])
def test_a_flag_of_hydra_is_not_unknown(flag) -> None:
    assert unknown_flag([flag]) == ""


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["optim.lrr=1"], "there is no config key or group 'optim.lrr' (did you mean 'optim.lr'?)"),
        (["optm.lr=1"], "there is no config key or group 'optm.lr' (did you mean 'optim.lr'?)"),
        (["lr=1"], "there is no config key or group 'lr' (did you mean 'optim.lr'?)"),
        (["epochs=3"], "there is no config key or group 'epochs' (did you mean 'trainer.max_epochs'?); --help lists"),
        (["batch_size=3"], "(did you mean 'data.batch_size'?)"),
        (["patience=3"], "(did you mean 'callbacks.early_stopping.patience'?)"),
        (["workers=0"], "(did you mean 'data.num_workers'?)"),
        (["model.in_chans=3"], "model.in_chans is set by agebench: set data.channels instead"),
        (["hidden=[3]"], "(did you mean 'model.hidden'?)"),
        (["trainer.max_epoch=1"], "'trainer.max_epoch' (did you mean 'trainer.max_epochs'?)"),
        (["modle=mlp"], "there is no config key or group 'modle' (did you mean 'model'?)"),
        (["split=random"], "there is no config key or group 'split' (did you mean 'data/split'?)"),
        (["~modle"], "there is no config key or group 'modle' (did you mean 'model'?)"),
        (["hydra.runn.dir=x"], "'hydra.runn.dir' (did you mean 'hydra.run.dir'?)"),
        (["model=resnet18", "model.hidden=[3]"], "there is no config key 'model.hidden' here: it belongs to another"),
        (["finetune.epochs=1"], "add finetune=gradual (or finetune=head_then_all), or remove the key"),
        (["+optim.lr=1"], "optim.lr is already in the config: write optim.lr=VALUE without the +"),
        (["+model=mlp"], "model is already in the config: write model=VALUE without the +"),
        (["data=minst"], "data=minst does not exist (did you mean 'mnist'?); choose one of cacd, demo, digits"),
        (["model=resnet8"], "model=resnet8 does not exist (did you mean 'resnet18'?); choose one of alexnet"),
        (["data/split=radnom"], "data/split=radnom does not exist (did you mean 'random'?); choose one of column"),
        (["experiment=ds_ch14"], "experiment=ds_ch14 does not exist (did you mean 'ds_ch14_cacd'?)"),
        (
            ["hydra/launcher=rays"],
            "hydra/launcher=rays does not exist (did you mean 'ray",
        ),  # ray, or ray_cluster without it
        (["optim.lr=1e-4,1e-3"], "optim.lr has several values: add -m to run them all, or write optim.lr=[1e-4,1e-3]"),
        (["data.name='甲','乙'"], "add -m to run them all, or write data.name=['甲','乙'] for one list, or"),
        (["optim.lr=[1"], "cannot read optim.lr=[1: give KEY=VALUE"),
        (["optim.lr", "=", "3"], "cannot read optim.lr: give KEY=VALUE without spaces"),
        (["data.name=顔"], "cannot read data.name=顔: give KEY=VALUE"),
        (["data.root=/x&y"], "cannot read data.root=/x&y: give KEY=VALUE without spaces around =, with a closing"),
        (["data=two", "words"], "and quotes around a value with spaces"),
        (["model=mlp\u3000optim=adamw"], "it contains a full-width space"),
        (["optim.lr=1e-3、1e-2"], "it contains a Japanese comma"),
        (["model＝mlp"], "it contains a full-width ="),
        (["モデル=mlp"], "cannot read モデル=mlp (keys are in English, and モデル is none): give KEY=VALUE"),
        (
            ["optim.lr=0,001"],
            "add -m to run them all, or write optim.lr=[0,001] for one list, or optim.lr=0.001 for one",
        ),
        (["model=cnn"], "model=cnn does not exist (did you mean 'keras_cnn'?)"),
        (["=3"], "a group takes the name of a choice, as in model=mlp"),
        (["optim=null"], "a group takes the name of a choice, as in model=mlp"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_override_is_explained_in_one_sentence_with_the_nearest_name(
    compose_config, conf, overrides, sentence
) -> None:
    with pytest.raises(Exception) as raised:  # noqa: PT011  # Hydra's kinds of errors differ; the sentence is the test
        compose_config(*overrides)

    message = explain(raised.value, conf)

    assert message is not None
    assert sentence in message
    assert "\n" not in message
    assert "_base" not in message
    assert "http" not in message


def test_a_missing_value_is_named(compose_config, conf) -> None:
    config = compose_config("model=timm")

    with pytest.raises(Exception, match="Missing mandatory value") as raised:
        _ = config.model.model_name

    assert explain(raised.value, conf) == "model.model_name has no default: set model.model_name=VALUE"


def test_a_permission_error_names_reading_and_writing(conf) -> None:
    message = explain(PermissionError(errno.EACCES, "Permission denied", "/disk/cacd"), conf)

    assert message is not None
    assert message.startswith(
        "cannot read or write /disk/cacd: Permission denied; check its permissions, or choose another"
    )


def test_an_interpolation_of_a_missing_key_names_both_keys(compose_config, conf) -> None:
    config = compose_config("optim.lr=${nowhere}")

    with pytest.raises(Exception, match="nowhere") as raised:
        OmegaConf.to_container(config, resolve=True)

    assert explain(raised.value, conf) == "optim.lr: Interpolation key 'nowhere' not found"


def test_a_missing_key_of_a_config_is_named(compose_config, conf) -> None:
    config = compose_config()

    with pytest.raises(Exception, match="struct") as raised:
        _ = config.optim.learning_rate

    assert explain(raised.value, conf).startswith("there is no config key or group 'optim.learning_rate'")


def test_a_full_disk_is_explained_without_a_file_name(conf) -> None:
    assert explain(OSError(28, "No space left on device"), conf) == (
        "the disk is full: free some space, or choose another hydra.run.dir or paths.output"
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        ImportError("libtorch_cpu.so: failed to map segment from shared object: Cannot allocate memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"),
    ],
)
def test_too_little_memory_is_one_sentence(conf, error) -> None:
    assert explain(error, conf) == (
        "the memory is exhausted: use a smaller batch size, image size or model, or close other programs"
    )


def test_the_middle_of_a_very_long_sentence_is_left_out(conf) -> None:
    message = explain(UserError(f"accelerator={'x' * 9_000} is not available here: choose cpu"), conf)

    assert message is not None
    assert message.startswith("accelerator=xxx")
    assert message.endswith("is not available here: choose cpu")
    assert len(message) < 1_600


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_path_that_is_too_long_is_explained_and_shortened(tmp_path, conf, name) -> None:
    with pytest.raises(OSError, match="too long") as raised:
        (tmp_path / name).stat()

    message = explain(raised.value, conf)

    assert message is not None
    assert message.startswith("a path of ")
    assert message.endswith("...; choose another one")
    assert len(message) < 200


def test_choices_from_the_users_config_folder_are_suggested(run_line, tmp_path, capsys) -> None:
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "my_network.yaml").write_text("# Mine\n_target_: torch.nn.Identity\n")

    code = run_line("--config-dir own model=my_netwrok")

    assert code == 2
    assert "did you mean 'my_network'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.widht=8", "there is no config key or group 'model.widht' (did you mean 'model.width'?)"),
        ("model.widths=8", "there is no config key or group 'model.widths' (did you mean 'model.width'?)"),
        ("model.hidden=8", "there is no config key 'model.hidden' here: it belongs to another choice of its group"),
    ],
)
def test_keys_of_the_composed_config_are_suggested_before_those_of_other_choices(
    run_line, tmp_path, capsys, override, sentence
) -> None:
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "tiny.yaml").write_text("# tiny\n_target_: mynets.Tiny\nwidth: 4\n")

    code = run_line(f"--config-dir own model=tiny {override}")

    assert code == 2
    assert capsys.readouterr().err.startswith(f"agebench train: {sentence}")


def test_an_ordinary_bug_is_not_explained(conf) -> None:
    with pytest.raises(ValueError, match="invalid literal") as raised:
        int("x")

    assert explain(raised.value, conf) is None


def test_the_message_of_a_wrapped_user_error_is_used(conf) -> None:
    error = RuntimeError("wrapped")
    error.__cause__ = UserError("needed 2, got 1: give one more")

    assert explain(error, conf) == "needed 2, got 1: give one more"


def test_a_run_that_ends_well_exits_with_0_and_gets_its_config(run_line) -> None:
    seen = []

    code = run_line("seed=3 optim.lr=0.5 hydra.run.dir=here", seen.append)

    assert code == 0
    assert (seen[0].seed, seen[0].optim.lr) == (3, 0.5)


@pytest.mark.parametrize(
    "line",
    [
        *("optim.lrr=1", "data=minst", "optim.lr=[1", "optim.lr=1,2", "= 3", "-m modle=a,b", "optim=[null]"),
        *("optim=[1,2]", "--resolve", "--experimental-rerun a.pickle", "logger='${x'"),
    ],
)
def test_a_wrong_line_exits_with_2_one_line_and_no_traceback(run_line, capsys, line) -> None:
    code = run_line(line, lambda cfg: pytest.fail("nothing must start"))

    assert code == 2
    assert re.fullmatch(r"agebench train: [^\n]{20,}\n", capsys.readouterr().err)


def test_a_package_that_does_not_exist_exits_with_2(run_line, capsys) -> None:
    code = run_line("--cfg job -p modle", lambda cfg: pytest.fail("nothing must start"))

    assert code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("agebench train: --package takes a key of the config")


@pytest.mark.parametrize(
    ("line", "shown", "hint"),
    [
        ("model=mlp\u3000optim=adam", "model=mlp\u3000optim=adam does not exist", "a full-width space"),
        ("optim.lr=1e-3\u3000", r"got '1e-3\u3000'", "a full-width space"),
        ("model=mlp\u00a0seed=1", "model=mlp\u00a0seed=1 does not exist", "a no-break space"),
        ("data=digits optim.lr＝0.1", "cannot read optim.lr＝0.1", "a full-width ="),
        ("data=digits\u3000optim.lr＝0.1", "data=digits\u3000optim.lr＝0.1", "a full-width space and a full-width ="),
        ("\uff53eed=1", "cannot read \uff53eed=1", "full-width \uff53"),
        ("optim\uff0elr=0.1", "cannot read optim\uff0elr=0.1", "full-width \uff0e"),
        ("model=\uff4dlp", "model=\uff4dlp does not exist (did you mean 'mlp'?)", "full-width \uff4d"),
        ("optim.lr=\uff10.\uff11", "got \uff10.\uff11", "full-width \uff10 \uff11"),
        ("\uff0dm seed=0,1", "cannot read \uff0dm", "full-width \uff0d"),
        ("-m seed=0，1", "seed must be", "a full-width comma"),
        ("-m model=mlp、lenet", "model=mlp、lenet does not exist", "a Japanese comma"),
        ("-m model=mlp， lenet", "cannot read lenet", "a full-width comma"),
        ("\u2212m seed=0,1", "cannot read \u2212m", "a dash that is not -"),
        ("“model=mlp”", "cannot read “model=", "curly quotes"),
    ],
)
def test_a_full_width_character_is_shown_as_typed_and_named(run_line, capsys, line, shown, hint) -> None:
    code = run_line(line, train)

    message = capsys.readouterr().err
    assert code == 2
    assert shown in message
    assert message.endswith(f"; it contains {hint}\n")


def test_a_user_error_exits_with_2_and_its_message(run_line, capsys) -> None:
    def task(cfg):
        raise UserError("no images under data/x: set data.root=FOLDER")

    code = run_line("hydra.run.dir=here", task)

    assert code == 2
    assert capsys.readouterr().err == "agebench train: no images under data/x: set data.root=FOLDER\n"


def test_an_ordinary_bug_keeps_its_traceback(run_line, tmp_path) -> None:
    bug = operator.index  # not code of this file, which would be the user's own

    with pytest.raises(TypeError):  # Python prints the traceback and exits with 1
        run_line("hydra.run.dir=here", bug)
    assert "TypeError: 'DictConfig' object cannot be interpreted" in (tmp_path / "here/train.log").read_text()


def test_an_exception_of_the_users_own_code_exits_with_2_and_its_file_and_line(run_line, capsys, tmp_path) -> None:
    def task(cfg):
        return 1 / 0

    code = run_line("hydra.run.dir=here", task)

    message, line = capsys.readouterr().err, task.__code__.co_firstlineno + 1
    assert code == 2
    assert message.startswith("agebench train: ")
    assert message.count("\n") == 1
    assert f"task failed: ZeroDivisionError: division by zero at {__file__}:{line} (HYDRA_FULL_ERROR=1" in message
    assert f'File "{__file__}", line {line}, in task' in (tmp_path / "here/train.log").read_text()


def test_with_hydra_full_error_the_traceback_has_the_line_of_the_users_own_code(run_line, monkeypatch) -> None:
    def task(cfg):
        return 1 / 0

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    with pytest.raises(ZeroDivisionError) as raised:
        run_line("hydra.run.dir=here", task)

    assert (__file__, task.__code__.co_firstlineno + 1) in [
        (str(entry.path), entry.lineno + 1) for entry in raised.traceback
    ]


def test_interrupting_exits_with_1(run_line, capsys) -> None:
    def task(cfg):
        raise KeyboardInterrupt

    assert run_line("hydra.run.dir=here", task) == 1
    assert "interrupted" in capsys.readouterr().err


def test_an_interruption_that_the_task_reported_is_not_reported_again(run_line, capsys) -> None:
    def task(cfg):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise SystemExit(1) from error

    assert run_line("hydra.run.dir=here", task) == 1
    assert capsys.readouterr().err == ""


def test_hydra_full_error_shows_the_traceback_and_is_restored(run_line, monkeypatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")

    with pytest.raises(Exception, match=r"optim\.lrr"):
        run_line("optim.lrr=1")

    assert os.environ["HYDRA_FULL_ERROR"] == "1"


@pytest.mark.ci
@pytest.mark.parametrize("value", [None, "1"])
def test_the_task_sees_the_users_value_of_hydra_full_error_and_it_is_restored(run_line, monkeypatch, value) -> None:
    if value is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", value)
    seen = []

    def task(cfg):
        seen.append(os.environ.get("HYDRA_FULL_ERROR"))

    run_line("hydra.run.dir=here", task)
    run_line("-m seed=0,1 hydra.sweep.dir=points hydra/launcher=basic", task)

    assert seen == [value] * 3
    assert os.environ.get("HYDRA_FULL_ERROR") == value


def test_a_sweep_over_two_values_runs_two_points(run_line, tmp_path) -> None:
    (tmp_path / "data" / "cacd").mkdir(parents=True)  # a sweep checks its data before its first point
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "cacd" / "53_Robin_Williams_0001.jpg")
    seen = []

    def task(cfg):
        seen.append(OmegaConf.to_container(cfg, resolve=True))
        return 0.5

    code = run_line(f"{USERS_LINE} hydra.sweep.dir=points hydra/launcher=basic", task)

    assert code == 0
    assert [config["optim"]["lr"] for config in seen] == [1e-4, 1e-3]
    assert {config["model"]["model_name"] for config in seen} == {"convnext_tiny.fb_in1k"}
    assert {config["data"]["name"] for config in seen} == {"cacd"}
    # The overrides that differ, then six digits of the config hash. Model and data do not differ.
    expected = [f"lr-{lr}-{config_hash(config)[:6]}" for lr, config in zip(("0.0001", "0.001"), seen, strict=True)]
    assert sorted(p.name for p in (tmp_path / "points").iterdir() if p.is_dir()) == sorted(expected)


def test_a_points_name_ends_in_the_hash_of_its_resolved_config(run_line, tmp_path) -> None:
    hashes = []

    def task(cfg):
        assert "${" in str(OmegaConf.to_container(cfg, resolve=False)["model"])
        hashes.append(config_hash(OmegaConf.to_container(cfg, resolve=True))[:6])
        return 0.0

    code = run_line("-m model=mlp data.image_size=8,16 hydra.sweep.dir=points debug=profile hydra/launcher=basic", task)

    assert code == 0
    expected = [f"image_size-{size}-{six}" for size, six in zip((8, 16), hashes, strict=True)]
    assert sorted(p.name for p in (tmp_path / "points").iterdir() if p.is_dir()) == sorted(expected)


def test_a_sweep_with_one_wrong_point_starts_none(run_line, capsys) -> None:
    code = run_line("-m optim.lr=1e-3,-1 hydra.sweep.dir=points", lambda cfg: pytest.fail("nothing must start"))

    assert code == 2
    assert "optim.lr must be a number above 0, got -1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("origin", "installer", "expected"),
    [
        ('{"url": "file:///my%20work", "dir_info": {"editable": true}}', "pip", 'pip install -e ".[ray]" in /my work'),
        ('{"url": "file:///work", "dir_info": {}}', "uv", 'uv pip install -e ".[ray]" in /work'),
        ('{"url": "https://x/agebench.whl", "archive_info": {}}', "pip", 'pip install "agebench[ray]"'),
        (None, None, 'pip install "agebench[ray]"'),
    ],
)
def test_an_extra_is_installed_from_where_agebench_was(tmp_path, monkeypatch, origin, installer, expected) -> None:
    installed = tmp_path / "agebench-9.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: agebench\nVersion: 9\n")
    for name, text in (("direct_url.json", origin), ("INSTALLER", installer)):
        if text is not None:
            (installed / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)

    command = install_command("ray")

    assert command == expected


def test_help_exits_with_0_and_does_not_run(run_line, capsys) -> None:
    code = run_line("data=mnist --help", lambda cfg: pytest.fail("nothing must start"))

    assert code == 0
    assert capsys.readouterr().out.startswith("usage: python -m agebench.train")


def test_the_composed_config_is_printed_wherever_the_flag_stands(run_line, capsys) -> None:
    code = run_line("optim.lr=0.25 --cfg job seed=7", lambda cfg: pytest.fail("nothing must start"))

    printed = OmegaConf.create(capsys.readouterr().out)
    assert code == 0
    assert (printed.optim.lr, printed.seed) == (0.25, 7)


def test_the_configs_are_found_beside_the_source(conf) -> None:
    assert config_folder().resolve() == conf
    assert (Path(config_folder()) / "config.yaml").is_file()


def test_a_fixed_key_of_a_swept_group_may_be_one_that_the_default_choice_lacks(run_line) -> None:
    points = []

    code = run_line(
        "finetune=head_then_all,gradual finetune.epochs=2 seed=3 -m hydra/launcher=basic",
        lambda cfg: points.append((cfg.finetune.mode, cfg.finetune.epochs, cfg.seed)),
    )

    assert (code, points) == (0, [("head_then_all", 2, 3), ("gradual", 2, 3)])


@pytest.mark.parametrize("line", ["finetune=gradual,head finetune.epochs=2", "finetune=gradual,all optim.epochs=2"])
def test_a_fixed_key_that_a_point_lacks_is_refused(run_line, line, capsys) -> None:
    code = run_line(f"{line} -m")

    assert code == 2
    assert "there is no config key" in capsys.readouterr().err
