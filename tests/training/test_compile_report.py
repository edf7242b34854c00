"""`compile` changes nothing but the speed, and a log line says whether it pays."""

import time

import pytest
import torch

from agebench.runs.identity import config_hash
from agebench.training.compile_report import judge
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "data.limit=200",
    "data.batch_size=32",
    "model=small_cnn",
    "augment=digits",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)


@pytest.mark.parametrize(
    ("compile_s", "steps_ms", "batches", "epochs", "pays", "words"),
    [
        (40, (8, 10), 1_000, 30, True, "it pays after 20 epochs"),  # 2 s less per epoch
        (40, (8, 10), 1_000, 20, True, "it pays after 20 epochs"),
        (40, (8, 10), 1_000, 19, False, "does not pay in 19 epochs: compiling took 40 s"),
        (40, (8, 10), 1_000, 0, True, "it pays after 20 epochs"),  # the number of epochs is unlimited
        (0, (10, 8), 1_000, 30, False, "compile=max-autotune does not pay: compiling took 0 s, and a step of the "),
        (-1, (8, 10), 1_000, 30, True, "it pays after 1 epoch"),
    ],
)
def test_compiling_pays_if_the_run_has_enough_epochs(compile_s, steps_ms, batches, epochs, pays, words) -> None:
    compiled, eager = (each / 1000 for each in steps_ms)

    found, sentence = judge(
        "max-autotune", compile_s=compile_s, steps_s=(compiled, eager), batches=batches, epochs=epochs
    )

    assert found == pays
    assert words in sentence
    assert ("set compile=false" in sentence) == (not pays)


@pytest.fixture
def slow_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace torch.compile, which takes a minute, by one that makes each forward pass 20 ms longer."""

    def compile_network(forward, *, mode):
        def slower(images):
            time.sleep(0.02)
            return forward(images)

        return slower

    monkeypatch.setattr(torch, "compile", compile_network)


@pytest.mark.ci
def test_the_measurement_changes_no_state_of_the_run(compose_config, tmp_path, slow_compiler, caplog) -> None:
    fit(compose_config(*BASE, "compile=false"), tmp_path / "eager")
    with caplog.at_level("WARNING"):
        fit(compose_config(*BASE, "compile=true"), tmp_path / "compiled")

    (line,) = [record.getMessage() for record in caplog.records if "compile=" in record.getMessage()]
    assert line.startswith("compile=true does not pay: compiling took 0 s, and a step of the network takes ")
    for name in ("metrics.csv", "predictions.csv"):
        assert (tmp_path / "compiled" / name).read_bytes() == (tmp_path / "eager" / name).read_bytes()
    ours, theirs = (
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True) for name in ("compiled", "eager")
    )
    for key in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)


def test_the_mode_is_that_of_torch_compile(compose_config, tmp_path) -> None:
    config = compose_config(*BASE)
    config.compile = "no such mode"

    with pytest.raises(RuntimeError, match="no such mode"):
        fit(config, tmp_path)


def test_the_default_mode_has_the_hash_of_true_and_others_have_their_own() -> None:
    settings = (True, "default", False, "reduce-overhead", "max-autotune")
    true, default, *others = (config_hash({"compile": setting}) for setting in settings)

    assert default == true
    assert len({true, *others}) == 4
