"""TensorBoard, read back as TensorBoard reads it."""

import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from agebench.tensorboard import RunTensorBoard

PARAMS = {"model": "mlp", "optim.lr": 0.001, "seed": 0, "report": True, "model.hidden": [64, 32]}


@pytest.fixture
def board(tmp_path) -> RunTensorBoard:
    logger = RunTensorBoard(str(tmp_path))
    logger.declare_hparams(PARAMS, ["best/val/accuracy", "test/accuracy"])
    logger.log_metrics({"train/loss": 2.0}, step=1)
    logger.log_metrics({"train/loss": 1.0, "best/val/accuracy": 0.75}, step=2)
    logger.log_metrics({"test/accuracy": 0.5}, step=2)
    logger.finish_hparams()
    logger.save()
    logger.finalize("success")
    return logger


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def hparams(events: EventAccumulator, tag: str) -> HParamsPluginData:
    content = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return HParamsPluginData.FromString(content)


def test_a_run_is_one_file_of_events_and_nothing_else(board, tmp_path) -> None:
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]

    assert len(names) == 1
    assert names[0].startswith("events.out.tfevents.")
    assert not list(tmp_path.rglob("hparams.yaml"))


def test_the_scalars_are_those_that_were_logged(board, tmp_path) -> None:
    events = read(tmp_path)

    assert set(events.Tags()["scalars"]) == {"train/loss", "best/val/accuracy", "test/accuracy"}  # and no hp_metric
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    assert [(e.step, e.value) for e in events.Scalars("test/accuracy")] == [(2, 0.5)]


def test_the_hparams_page_finds_the_params_and_the_metrics(board, tmp_path) -> None:
    events = read(tmp_path)

    session = hparams(events, "session_start_info").session_start_info.hparams
    kinds = {key: value.WhichOneof("kind") for key, value in session.items()}
    assert kinds == {
        "model": "string_value",
        "optim.lr": "number_value",
        "seed": "number_value",
        "report": "string_value",
        "model.hidden": "string_value",
    }
    assert session["optim.lr"].number_value == 0.001
    assert session["seed"].number_value == 0
    assert session["report"].string_value == "True"
    assert session["model.hidden"].string_value == "[64, 32]"
    experiment = hparams(events, "experiment").experiment
    assert {info.name for info in experiment.hparam_infos} == set(PARAMS)
    assert {info.name.tag for info in experiment.metric_infos} == {"best/val/accuracy", "test/accuracy"}


def test_a_run_that_ended_well_says_so(board, tmp_path) -> None:
    end = hparams(read(tmp_path), "session_end_info").session_end_info

    assert end.status == 1  # STATUS_SUCCESS


def test_a_run_that_has_not_ended_does_not_say_so(tmp_path) -> None:
    logger = RunTensorBoard(str(tmp_path))
    logger.declare_hparams(PARAMS, ["test/accuracy"])
    logger.save()

    assert "_hparams_/session_end_info" not in read(tmp_path).summary_metadata
    assert "_hparams_/session_start_info" in read(tmp_path).summary_metadata


def test_figures_and_hyperparameters_of_lightnings_leave_nothing_beside(board, tmp_path) -> None:
    board.log_hyperparams({"lr": 1})
    board.experiment.add_image("picture", torch.zeros(3, 4, 4))
    board.save()

    assert "hp_metric" not in read(tmp_path).Tags()["scalars"]
    assert all(path.name.startswith("events.out.tfevents.") for path in tmp_path.rglob("*"))


def test_a_run_that_goes_on_shows_no_point_twice(tmp_path) -> None:
    for values in ({1: 4.0, 2: 3.0, 3: 9.0}, {3: 2.0, 4: 1.0}):
        logger = RunTensorBoard(str(tmp_path))
        if 1 not in values:
            logger.go_on(3)
        logger.declare_hparams(PARAMS, ["test/accuracy"])
        for step, value in values.items():
            logger.log_metrics({"train/loss": value}, step=step)
        logger.finalize("success")
        time.sleep(1.1)  # files are read in the order of their names, which hold the second

    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    assert sorted(tag for tag in events.summary_metadata if "hparams" in tag) == [
        "_hparams_/experiment",
        "_hparams_/session_start_info",
    ]
