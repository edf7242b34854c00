"""The event files of a run, read with TensorBoard's own readers."""

import os
import queue
import signal
import sys
import threading
import time
from itertools import count

import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import backend_context, get_experiment, list_session_groups
from tensorboard.plugins.hparams.api_pb2 import (
    ColParams,
    Experiment,
    GetExperimentRequest,
    ListSessionGroupsRequest,
    SessionGroup,
    Status,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from tensorboard.summary.writer import event_file_writer

from agebench.interrupts import handle_signals
from agebench.training.tensorboard import RunTensorBoard

PARAMS = {"model": "mlp", "optim.lr": 0.001, "seed": 0, "report": True, "model.hidden": [64, 32]}


@pytest.fixture
def board(tmp_path) -> RunTensorBoard:
    logger = RunTensorBoard(str(tmp_path))
    logger.declare_hparams(PARAMS)
    logger.log_metrics({"train/loss": 2.0, "epoch": 0}, step=1)
    logger.log_metrics({"train/loss": 1.0, "lr-Adam": 0.25}, step=2)
    logger.log_metrics({"test/accuracy": 0.5, "test/nll": 1.5}, step=2)
    logger.log_metrics({"val/best_accuracy": 0.75}, step=2)
    logger.finish_hparams()
    logger.save()
    logger.finalize("success")
    return logger


def read(folder) -> EventAccumulator:
    return EventAccumulator(str(folder)).Reload()


def scalars_page(folder, tag: str) -> dict[str, list[tuple[int, float]]]:
    """Return one curve per run, read like TensorBoard's server, which differs from EventAccumulator."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(runs, str(folder))
    found = provider.read_scalars(RequestContext(), experiment_id="", plugin_name="scalars", downsample=1000)
    return {run: [(point.step, point.value) for point in tags[tag]] for run, tags in found.items()}


def hparams_page(folder) -> tuple[Experiment, dict[str, SessionGroup]]:
    """Return the columns, and the rows by run, of the HPARAMS page of a folder."""
    runs = EventMultiplexer().AddRunsFromDirectory(str(folder)).Reload()
    provider = MultiplexerDataProvider(runs, str(folder))
    page, who = backend_context.Context(TBContext(data_provider=provider)), RequestContext()
    columns = get_experiment.Handler(who, page, "", GetExperimentRequest()).run()
    ask = ListSessionGroupsRequest(
        allowed_statuses=Status.values(),
        col_params=[ColParams(metric=info.name) for info in columns.metric_infos],
        slice_size=100,
    )
    found = list_session_groups.Handler(who, page, "", ask).run()
    assert found.total_size == len(found.session_groups)
    return columns, {row.sessions[0].name: row for row in found.session_groups}


def hparams(events: EventAccumulator, tag: str) -> HParamsPluginData:
    content = events.SummaryMetadata(f"_hparams_/{tag}").plugin_data.content
    return HParamsPluginData.FromString(content)


def test_a_run_writes_one_event_file_and_nothing_else(board, tmp_path) -> None:
    names = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]

    assert len(names) == 1
    assert names[0].startswith("events.out.tfevents.")
    assert not list(tmp_path.rglob("hparams.yaml"))


def test_the_event_file_has_exactly_the_logged_scalars(board, tmp_path) -> None:
    events = read(tmp_path)

    assert set(events.Tags()["scalars"]) == {
        "train/loss",
        "train/lr",
        "val-and-test/test_accuracy",
        "val-and-test/val_best_accuracy",
        "x_test/accuracy",
        "x_test/nll",
    }  # and no hp_metric
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.0)]
    for tag, value in (("x_test/accuracy", 0.5), ("val-and-test/test_accuracy", 0.5)):
        assert [(e.step, e.value) for e in events.Scalars(tag)] == [(2, value)]
    assert [(e.step, e.value) for e in events.Scalars("val-and-test/val_best_accuracy")] == [(2, 0.75)]
    assert [(e.step, e.value) for e in events.Scalars("train/lr")] == [(2, 0.25)]


def test_hyperparameters_are_numbers_or_strings(board, tmp_path) -> None:
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


def test_a_run_that_finished_has_the_status_success(board, tmp_path) -> None:
    end = hparams(read(tmp_path), "session_end_info").session_end_info

    assert end.status == 1  # STATUS_SUCCESS


def test_a_run_that_did_not_finish_has_no_status(tmp_path) -> None:
    logger = RunTensorBoard(str(tmp_path))
    logger.declare_hparams(PARAMS)
    logger.save()

    assert "_hparams_/session_end_info" not in read(tmp_path).summary_metadata
    assert "_hparams_/session_start_info" in read(tmp_path).summary_metadata


def test_images_and_hyperparameters_from_lightning_write_no_other_file(board, tmp_path) -> None:
    board.log_hyperparams({"lr": 1})
    board.experiment.add_image("picture", torch.zeros(3, 4, 4))
    board.save()

    assert "hp_metric" not in read(tmp_path).Tags()["scalars"]
    assert all(path.name.startswith("events.out.tfevents.") for path in tmp_path.rglob("*"))


@pytest.mark.ci
def test_a_resumed_run_shows_each_point_once(tmp_path) -> None:
    for values in ({1: 4.0, 2: 3.0, 3: 9.0}, {3: 2.0, 4: 1.0}):
        logger = RunTensorBoard(str(tmp_path))
        if 1 not in values:
            logger.resume_at(3)
        logger.declare_hparams(PARAMS)
        for step, value in values.items():
            logger.log_metrics({"train/loss": value}, step=step)
        logger.finalize("success")
        time.sleep(1.1)  # file names contain the second and determine the order of reading

    events = read(tmp_path)
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    (curve,) = scalars_page(tmp_path, "train/loss").values()
    assert curve == [(1, 4.0), (2, 3.0), (3, 2.0), (4, 1.0)]
    assert [tag for tag in events.summary_metadata if "hparams" in tag] == ["_hparams_/session_start_info"]


def test_runs_with_different_hyperparameters_and_metrics_share_one_page(tmp_path) -> None:
    """TensorBoard takes the columns of all runs from one run if a run declares them."""
    runs = {
        "digits/a": ({"data": "digits", "seed": 0, "model": "mlp"}, {"test/accuracy": 0.5, "val/best_accuracy": 0.25}),
        "sweeps/s/lr-0.1": ({"data": "cacd", "seed": 0, "optim.lr": 0.125}, {"test/mae": 6.5, "val/best_mae": 5.5}),
        "sweeps/s/lr-0.2": ({"data": "cacd", "seed": 0, "optim.lr": 0.25}, {"test/mae": 7.5, "val/best_mae": 4.5}),
    }
    for name, (params, metrics) in runs.items():
        logger = RunTensorBoard(str(tmp_path / name))
        logger.declare_hparams(params)
        for name_of_metric, value in metrics.items():  # the test comes first
            logger.log_metrics({name_of_metric: value}, step=3)
        logger.finish_hparams()
        logger.finalize("success")

    columns, rows = hparams_page(tmp_path)

    assert rows.keys() == runs.keys()
    for name, (params, metrics) in runs.items():
        plain = {key: value.string_value or value.number_value for key, value in rows[name].hparams.items()}
        assert plain == params
        shown = {value.name.tag: value.value for value in rows[name].metric_values}
        (tested, on_test), (best, on_val) = metrics.items()
        name_of_best = best.replace("val/", "val-and-test/val_")
        name_of_test = tested.replace("test/", "val-and-test/test_")
        assert shown == {f"x_{tested}": on_test, name_of_test: on_test, name_of_best: on_val}
    names = [info.name for info in columns.hparam_infos]
    assert sorted(names[:2]) == ["data", "optim.lr"]  # those that differ between runs come first
    assert sorted(names[2:]) == ["model", "seed"]
    assert [info.name.tag for info in columns.metric_infos] == [
        "val-and-test/test_accuracy",
        "val-and-test/test_mae",
        "val-and-test/val_best_accuracy",
        "val-and-test/val_best_mae",
        "x_test/accuracy",
        "x_test/mae",
    ]


def test_the_first_five_metrics_of_the_hparams_page_have_the_result_on_val_and_on_test(tmp_path) -> None:
    """TensorBoard shows the first five; the others must be ticked."""
    logger = RunTensorBoard(str(tmp_path))
    logger.declare_hparams(PARAMS)
    curves = (
        "train/loss",
        "train/accuracy",
        "val/loss",
        "val/accuracy",
        "val/mae",
        "val/abs_bias",
        "val/cs5",
        "lr-Adam",
    )
    logger.log_metrics(dict.fromkeys(curves, 1.0), step=1)
    logger.log_metrics({f"test/{name}": 2.0 for name in ("accuracy", "bias", "cs5", "loss", "mae")}, step=1)
    logger.log_metrics({"val/best_mae": 3.0}, step=1)
    logger.finalize("success")

    columns, _ = hparams_page(tmp_path)

    assert [info.name.tag for info in columns.metric_infos][:5] == [
        "train/accuracy",
        "train/loss",
        "train/lr",
        "val-and-test/test_mae",
        "val-and-test/val_best_mae",
    ]


def test_the_runs_of_a_group_are_one_row_with_their_average(tmp_path) -> None:
    for group, rate, values in (("a", 0.5, [0.25, 0.5, 0.75]), ("b", 0.25, [1.0, 0.0])):
        for seed, value in enumerate(values):
            logger = RunTensorBoard(str(tmp_path / f"{group}{seed}"))
            logger.declare_hparams({"optim.lr": rate}, group)
            logger.log_metrics({"val/accuracy": value}, step=3)
            logger.finish_hparams()
            logger.finalize("success")

    _, rows = hparams_page(tmp_path)

    shown = {row.name: (row.hparams["optim.lr"].number_value, row.metric_values[0].value) for row in rows.values()}
    assert shown == {"a": (0.5, 0.5), "b": (0.25, 0.5)}
    assert sorted(len(row.sessions) for row in rows.values()) == [2, 3]


class SignalAt:
    """A trace function that sends SIGTERM to this process at the n-th instruction of code that uses locks."""

    def __init__(self, position: int) -> None:
        self.left = position

    def __call__(self, frame, event, arg):
        if frame.f_code.co_filename not in (threading.__file__, queue.__file__, event_file_writer.__file__):
            return None
        frame.f_trace_opcodes = True
        return self.count_instruction

    def count_instruction(self, frame, event, arg):
        self.left -= event == "opcode"
        if self.left == 0:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return self.count_instruction


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize(("method", "arguments"), [("log_metrics", ({"train/loss": 1.0}, 2)), ("save", ())])
def test_a_signal_at_any_moment_of_writing_does_not_prevent_the_shutdown(tmp_path, method, arguments) -> None:
    handler, trace = signal.signal(signal.SIGTERM, signal.SIG_DFL), sys.gettrace()
    for position in count(1):
        logger = RunTensorBoard(str(tmp_path / str(position)))
        logger.log_metrics({"train/loss": 2.0}, step=1)

        interrupted = False
        try:
            with handle_signals():
                sys.settrace(SignalAt(position))
                getattr(logger, method)(*arguments)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(trace)
        closing = threading.Thread(target=logger.finalize, args=("failed",), daemon=True)
        closing.start()
        closing.join(10)

        assert not closing.is_alive(), f"instruction {position}"
        if not interrupted:  # it had fewer instructions
            break
    signal.signal(signal.SIGTERM, handler)
    assert position > 50
