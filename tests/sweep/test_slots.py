"""The GPUs that are visible to a sweep, and their assignment to slots."""

import pytest

from agebench.errors import UserError
from agebench.sweep.slots import make_slots, visible_gpus


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        (None, ["0", "1", "2"]),
        ("", []),
        ("3", ["3"]),
        ("2,0", ["2", "0"]),
        (" 1 , 4 ", ["1", "4"]),
        ("0,-1,2", ["0"]),
        ("GPU-8932f937,MIG-7a4b/1/0", ["GPU-8932f937", "MIG-7a4b/1/0"]),
    ],
)
def test_gpus_are_listed_by_the_environment_variable_or_counted(monkeypatch, variable, expected) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)

    assert visible_gpus(lambda: 3) == expected


@pytest.mark.parametrize(
    ("gpus", "jobs", "each", "expected"),
    [
        ("", "auto", 1, [None]),
        ("", 3, 1, [None, None, None]),
        ("0123", "auto", 1, ["0", "1", "2", "3"]),
        ("0123", "auto", 2, ["0,1", "2,3"]),
        ("01234", "auto", 2, ["0,1", "2,3"]),
        ("0123", 2, 1, ["0", "1"]),
        ("01", 5, 0, [None] * 5),
        ("01", "auto", 0, [None]),
    ],
)
def test_no_gpu_is_in_two_slots(gpus, jobs, each, expected) -> None:
    slots = make_slots(list(gpus), jobs=jobs, gpus_per_job=each)

    assert [slot.environment.get("CUDA_VISIBLE_DEVICES") for slot in slots] == expected


@pytest.mark.parametrize(("jobs", "each"), [(3, 1), (2, 2), ("auto", 3)])
def test_more_gpus_than_there_are_is_one_sentence(jobs, each) -> None:
    with pytest.raises(UserError, match=r"launcher\.jobs=.* needs [34] GPUs, and 2 are visible: lower"):
        make_slots(["0", "1"], jobs=jobs, gpus_per_job=each)
