"""Distillation: the loss against NumPy, runs with a teacher, and teachers that are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from agebench import build
from agebench.build.teacher import build_teacher
from agebench.distillation import Teacher
from agebench.errors import UserError
from agebench.heads import CORAL, CORN, DLDL, ORCNN, SORD, Binary, MeanVariance, Regression, Softmax, Unimodal
from agebench.models.weights import hash_tensors
from agebench.module import ImageModule
from agebench.training.fit import fit

BASE = (
    "data=digits",
    "data.limit=400",
    "data.batch_size=50",
    "model.hidden=[16]",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "callbacks.progress=null",
    "report=false",
)
ORDERED = (Softmax, CORAL, CORN, DLDL, MeanVariance, ORCNN, Regression, SORD, Unimodal)


@pytest.fixture(scope="module")
def teacher(compose_config, tmp_path_factory) -> Path:
    """Return the read-only folder of a teacher for digits, with batch norm."""
    folder = tmp_path_factory.mktemp("teacher")
    fit(compose_config(*BASE, "model.hidden=[32]", "trainer.max_epochs=5", "seed=7"), folder)
    return folder


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def stored_in(folder: Path) -> dict:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def taught_by(head, weight: float, temperature: float) -> Teacher:
    return Teacher(torch.nn.Identity(), head, weight=weight, temperature=temperature, facts={})


def test_the_loss_of_softmax_heads_is_that_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    ours, theirs, target = 3 * rng.normal(size=(6, 5)), 3 * rng.normal(size=(6, 5)), rng.integers(5, size=6)
    head = Softmax(5, list(range(5)), ordered=False)
    teacher = taught_by(head, 0.3, 4.0)

    outputs = torch.tensor(ours, dtype=torch.float32)
    taught = teacher.log_posterior(torch.tensor(theirs, dtype=torch.float32))
    loss = teacher.combine(head.loss(outputs, torch.tensor(target)), head.log_posterior(outputs), taught)

    cross_entropy = -log_softmax(ours, axis=1)[np.arange(6), target].mean()
    p, log_p, log_q = softmax(theirs / 4, axis=1), log_softmax(theirs / 4, axis=1), log_softmax(ours / 4, axis=1)
    assert loss.item() == pytest.approx(0.7 * cross_entropy + 0.3 * 16 * (p * (log_p - log_q)).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("student", ORDERED)
def test_every_ordered_head_learns_the_posterior_of_its_teacher(student) -> None:
    values = list(range(20, 28))
    head = student(8, values, ordered=True)
    head.set_label_counts(torch.full((8,), 10))
    taught = torch.tensor([[0.01, 0.04, 0.1, 0.3, 0.3, 0.15, 0.07, 0.03]] * 4).log()
    teacher = taught_by(head, 1.0, 1.0)
    outputs = torch.randn(4, head.num_outputs, generator=torch.Generator().manual_seed(0)).div(2).requires_grad_()
    optimizer = torch.optim.Adam([outputs, *head.parameters()], lr=0.05)
    losses = []

    for _ in range(300):
        loss = teacher.combine(torch.zeros(()), head.log_posterior(outputs), taught)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    p, q = taught.exp().double().numpy(), head.posterior(outputs).detach().double().numpy()
    assert np.isfinite(losses).all()
    assert losses[-1] == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=0.1, abs=2e-3)
    assert losses[-1] < losses[0]
    if student is Regression:  # its scale is that of its training errors, so that only its estimate learns
        assert head.estimate(outputs).tolist() == pytest.approx([23.5] * 4, abs=0.5)  # the teacher's median
    else:
        assert losses[-1] < min(0.3, 0.5 * losses[0])


@pytest.mark.parametrize(
    "head", [Binary(2, [0, 1], ordered=False), *(make(8, range(8), ordered=True) for make in ORDERED)]
)
def test_the_log_posterior_of_a_head_is_the_logarithm_of_its_posterior(head) -> None:
    outputs = torch.randn(16, head.num_outputs, generator=torch.Generator().manual_seed(1))

    found = head.log_posterior(outputs)

    expected = np.log(np.clip(head.posterior(outputs).detach().double().numpy(), 1e-12, None))
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-4, atol=1e-4)


def test_a_student_gets_the_augmented_images_of_its_teacher_which_does_not_change(
    compose_config, tmp_path, teacher, monkeypatch
) -> None:
    shown: list[tuple[str, torch.Tensor]] = []
    teachers: list[Teacher] = []
    log_posterior, normalised = Teacher.log_posterior, ImageModule._normalised

    def watch(self, images):
        teachers[:] = [self]
        return log_posterior(self, images)

    def record(self, images):
        is_teacher = bool(teachers) and self is teachers[0].network
        if self.training or is_teacher:
            shown.append(("teacher" if is_teacher else "student", images.clone()))
        return normalised(self, images)

    monkeypatch.setattr(Teacher, "log_posterior", watch)
    monkeypatch.setattr(ImageModule, "_normalised", record)
    fit(compose_config(*BASE, "augment=digits", "augment.mixup=0.2", f"teacher.run={teacher}"), tmp_path)

    assert [who for who, _ in shown] == ["student", "teacher"] * 24  # 3 epochs of 8 steps
    assert all(torch.equal(ours[1], theirs[1]) for ours, theirs in zip(shown[::2], shown[1::2], strict=True))
    sha = results(teacher)["weights_sha"]
    assert hash_tensors(teachers[0].network.state_dict()) == sha  # also its batch norm
    facts = results(tmp_path)["teacher"]
    assert (facts["run"], facts["weights_sha"], facts["weight"]) == (str(teacher), sha, 0.5)
    assert not any("teacher" in name for name in stored_in(tmp_path)["state_dict"])


@pytest.mark.parametrize("single", [False, True], ids=["many steps a call", "single steps"])
def test_the_training_loss_is_that_of_head_and_teacher(compose_config, monkeypatch, tmp_path, teacher, single) -> None:
    if single:
        monkeypatch.setattr("agebench.training.parts.can_multi_step", lambda *args: False)
    config = compose_config(
        *BASE, "data.batch_size=full", "trainer.max_epochs=1", f"teacher.run={teacher}", "teacher.weight=0.4"
    )
    data = build.build_data(config)
    module = build.build_module(config, data)
    taught = build_teacher(config, data.plan).network
    images, target, _ = data.part("train")[torch.arange(400)]
    module.train()
    with torch.no_grad():
        ours, theirs = module(images).double().numpy(), taught(images).double().numpy()

    fit(config, tmp_path)

    cross_entropy = -log_softmax(ours, axis=1)[np.arange(400), target.numpy()].mean()
    p, log_p, log_q = softmax(theirs / 2, axis=1), log_softmax(theirs / 2, axis=1), log_softmax(ours / 2, axis=1)
    expected = 0.6 * cross_entropy + 0.4 * 4 * (p * (log_p - log_q)).sum(1).mean()
    row = (tmp_path / "metrics.csv").read_text(encoding="utf-8-sig").splitlines()
    assert float(dict(zip(row[0].split(","), row[1].split(","), strict=True))["train/loss"]) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.ci
def test_a_weight_of_zero_is_a_training_without_a_teacher(compose_config, tmp_path, teacher) -> None:
    fit(compose_config(*BASE, "augment=digits"), tmp_path / "without")
    fit(compose_config(*BASE, "augment=digits", f"teacher.run={teacher}", "teacher.weight=0"), tmp_path / "zero")
    fit(compose_config(*BASE, "augment=digits", f"teacher.run={teacher}"), tmp_path / "half")

    shas = {name: results(tmp_path / name)["weights_sha"] for name in ("without", "zero", "half")}
    assert shas["without"] == shas["zero"] != shas["half"]


@pytest.mark.ci
def test_a_resumed_student_equals_an_uninterrupted_one_unless_the_teacher_changed(
    compose_config, tmp_path, teacher, monkeypatch
) -> None:
    copy = tmp_path / "teacher"
    shutil.copytree(teacher, copy)
    config = compose_config(*BASE, "augment=digits", f"teacher.run={copy}")
    fit(config, tmp_path / "whole")

    class Stop(BaseException):
        pass

    start = ImageModule.on_train_epoch_start

    def stop(module) -> None:
        if module.current_epoch == 2:
            raise Stop
        start(module)

    for name in ("resumed", "other"):
        with monkeypatch.context() as patch:
            patch.setattr(ImageModule, "on_train_epoch_start", stop)
            with pytest.raises(Stop):
                fit(config, tmp_path / name)
    fit(config, tmp_path / "resumed")

    whole, resumed = stored_in(tmp_path / "whole"), stored_in(tmp_path / "resumed")
    assert results(tmp_path / "resumed")["resumed"] == 1
    assert all(torch.equal(tensor, resumed["state_dict"][name]) for name, tensor in whole["state_dict"].items())

    shutil.rmtree(copy)
    fit(compose_config(*BASE, "seed=8"), copy)
    with pytest.raises(UserError, match=r"has changed since .* was started"):
        fit(config, tmp_path / "other")


def edited(folder: Path, to: Path, change) -> Path:
    """Return a copy of a run with a changed checkpoint."""
    shutil.copytree(folder, to)
    for path in (to / "checkpoints").glob("*.ckpt"):
        stored = torch.load(path, weights_only=True)
        change(stored["agebench"])
        torch.save(stored, path)
    return to


REFUSED = [
    (["data.image_size=10"], r"was trained with data\.image_size=8, .* set data\.image_size=8"),
    (["data.split.seed=1"], r"test images are images that the teacher .* was trained on: choose a teacher with the"),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED)
def test_a_teacher_of_other_pixels_or_of_the_test_images_is_refused(
    compose_config, tmp_path, teacher, overrides, sentence
) -> None:
    with pytest.raises(UserError, match=sentence):
        fit(compose_config(*BASE, f"teacher.run={teacher}", *overrides), tmp_path)


def foreign(stamp: dict) -> None:
    stamp["config"]["model"]["_target_"] = "subprocess.run"


def other_labels(stamp: dict) -> None:
    stamp["label_names"] = [f"{name}x" for name in stamp["label_names"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (foreign, r"names model\._target_=subprocess\.run, which is not part of agebench"),
        (other_labels, r"predicts the labels 0x, 1x, .* \(10\), and the student learns 0, 1, "),
    ],
)
def test_a_teacher_with_foreign_code_or_other_labels_is_refused(
    compose_config, tmp_path, teacher, change, sentence
) -> None:
    folder = edited(teacher, tmp_path / "edited", change)

    with pytest.raises(UserError, match=sentence):
        fit(compose_config(*BASE, f"teacher.run={folder}"), tmp_path / "run")


def test_a_teacher_must_be_completed_and_have_its_split(compose_config, tmp_path, teacher) -> None:
    from agebench.cli.rules import check_config

    folder = tmp_path / "copy"
    shutil.copytree(teacher, folder)
    config = compose_config(*BASE, f"teacher.run={folder}")
    (folder / "split.csv").unlink()
    with pytest.raises(UserError, match=r"has no readable split\.csv"):
        fit(config, tmp_path / "run")

    (folder / "results.json").write_text(json.dumps(results(folder) | {"status": "interrupted"}), encoding="utf-8")
    with pytest.raises(UserError, match="is interrupted: a teacher must be a completed run"):
        check_config(config)

    with pytest.raises(UserError, match="is not a run"):
        check_config(compose_config(*BASE, f"teacher.run={tmp_path / 'nothing'}"))
