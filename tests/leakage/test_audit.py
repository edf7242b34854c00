"""Leakage of a split: counted manually, in plain loops, and on CACD's own metadata."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from agebench.data import split as splits
from agebench.data.records import Records
from agebench.data.sources.hiragana73 import Hiragana73
from agebench.data.split import PARTS, Split
from agebench.data.target import Target, make_target
from agebench.leakage.audit import audit, leak, verdict

TRAIN = [("ann", 20), ("ann", 22), ("ann", 22), ("ann", 30), ("bob", 40), ("bob", 50), ("cy", 60)]
VAL = [("cy", 60), ("eve", 10)]
TEST = [("ann", 22), ("bob", 40), ("dan", 33), ("ann", 25)]


def family(*, known: bool = True) -> tuple[Records, Split]:
    """Return the images above, train first."""
    people, ages = zip(*TRAIN, *VAL, *TEST, strict=True)
    columns = {"age": np.array(ages), "identity": np.array(people)}
    names = np.array([f"{i}.jpg" for i in range(len(ages))])
    records = Records(names, columns if known else {"age": columns["age"]})
    return records, Split("hand", np.arange(7), np.arange(7, 9), np.arange(9, 13))


def count_plainly(records: Records, target: Target, split: Split) -> dict[str, Any]:
    """Compute in loops over images what the audit computes with sorted arrays."""
    who, labels = records.columns["identity"].tolist(), target.labels.tolist()
    values = [float(target.values[label]) for label in labels]
    own_values, own_labels = defaultdict(list), defaultdict(list)
    for i in split.train.tolist():
        own_values[who[i]].append(values[i])
        own_labels[who[i]].append(labels[i])
    pairs = {(who[i], labels[i]) for i in split.train.tolist()}
    overall = median(values[i] for i in split.train.tolist())

    def commonest(found: list[int]) -> int:
        return min(Counter(found).items(), key=lambda item: (-item[1], item[0]))[0]

    most = commonest([labels[i] for i in split.train.tolist()])
    counted: dict[str, Any] = {}
    for part in ("test", "val"):
        rows = split.part(part).tolist()
        counted[f"{part}_identity_in_train"] = sum(who[i] in own_values for i in rows) / len(rows)
        both = sum((who[i], labels[i]) in pairs for i in rows) / len(rows)
        counted[f"{part}_identity_and_label_in_train"] = both
    guesses = {name: median(found) for name, found in own_values.items()}
    usual = {name: commonest(found) for name, found in own_labels.items()}
    rows = split.test.tolist()
    counted["lookup_accuracy"] = sum(usual.get(who[i], most) == labels[i] for i in rows) / len(rows)
    counted["majority_accuracy"] = sum(most == labels[i] for i in rows) / len(rows)
    counted["lookup_mae"] = counted["median_mae"] = None
    if target.ordered:
        counted["lookup_mae"] = sum(abs(guesses.get(who[i], overall) - values[i]) for i in rows) / len(rows)
        counted["median_mae"] = sum(abs(overall - values[i]) for i in rows) / len(rows)
    counted["splits"] = {
        part: {
            "images": len(split.part(part)),
            "identities": len({who[i] for i in split.part(part).tolist()}),
            "labels": len({labels[i] for i in split.part(part).tolist()}),
        }
        for part in PARTS
    }
    return {**counted, "unit": target.unit}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    numbers = {key: value for key, value in expected.items() if isinstance(value, float)}
    assert {key: found[key] for key in numbers} == pytest.approx(numbers, abs=1e-12)
    rest = expected.keys() - numbers.keys()
    assert {key: found[key] for key in rest} == {key: expected[key] for key in rest}
    assert found.keys() == expected.keys()


def test_the_audit_of_a_family_has_the_results_counted_manually() -> None:
    records, split = family()

    found = audit(records, make_target(records, "age"), split)

    # Medians: ann 22, bob 45, all of train 30. Most common labels: ann 22, bob (a tie) 40, all of train 22.
    assert found == {
        "splits": {
            "train": {"images": 7, "identities": 3, "labels": 6},
            "val": {"images": 2, "identities": 2, "labels": 2},
            "test": {"images": 4, "identities": 3, "labels": 4},
        },
        "test_identity_in_train": 3 / 4,
        "test_identity_and_label_in_train": 2 / 4,
        "val_identity_in_train": 1 / 2,
        "val_identity_and_label_in_train": 1 / 2,
        "lookup_mae": (0 + 5 + 3 + 3) / 4,
        "median_mae": (8 + 10 + 3 + 5) / 4,
        "lookup_accuracy": 2 / 4,
        "majority_accuracy": 1 / 4,
        "unit": "years",
    }


def test_errors_are_in_the_unit_of_the_target() -> None:
    records, split = family()

    found = audit(records, make_target(records, "decade"), split)

    # Decades of train: 2 2 2 3 | 4 5 | 6. Medians: ann 2, bob 4.5, all of train 3. Test: 2, 4, 3, 2.
    assert (found["lookup_mae"], found["median_mae"], found["unit"]) == ((0 + 0.5 + 0 + 0) / 4, 3 / 4, "decades")


def test_the_result_is_plain_json() -> None:
    records, split = family()
    found = audit(records, make_target(records, "age"), split)

    again = json.loads(json.dumps(found, allow_nan=False))

    assert again == found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["class", "age", "decade", "bins"])
@pytest.mark.parametrize("spelled", [True, False], ids=["names", "numbers"])
def test_the_audit_has_the_results_of_plain_loops(name, seed, spelled) -> None:
    rng = np.random.default_rng(seed)
    people, ages = rng.integers(0, 60, 500), rng.integers(18, 71, 500)
    identity = np.array([f"person {p}" for p in people]) if spelled else people * 1000 - 7
    columns = {"identity": identity, "age": ages, "class": rng.integers(0, 7, 500)}
    records = Records(np.array([f"{i}" for i in range(500)]), columns, tuple("abcdefg"))
    target = make_target(records, name, bins=[30, 50])
    train, val, test = np.split(rng.permutation(500)[:300], [120, 180])

    found = audit(records, target, Split("drawn", np.sort(train), np.sort(val), np.sort(test)))

    assert_same(found, count_plainly(records, target, Split("drawn", train, val, test)))


def test_without_identities_only_the_baselines_have_results() -> None:
    records, split = family(known=False)
    with_them, _ = family()

    found = audit(records, make_target(records, "age"), split)

    expected = audit(with_them, make_target(with_them, "age"), split)
    for part in PARTS:
        expected["splits"][part]["identities"] = None
    unknown = [key for key in expected if "identity" in key or key.startswith("lookup")]
    assert found == {**expected, **dict.fromkeys(unknown)}
    assert verdict(found).startswith("leak unknown: ")
    assert leak(found) is None


def test_val_and_test_have_equal_shares_if_val_is_test() -> None:
    records, split = family()

    found = audit(
        records, make_target(records, "age"), Split("lecture", split.train, split.test, split.test, val_is_test=True)
    )

    assert found["splits"]["val"] == found["splits"]["test"]
    assert found["val_identity_in_train"] == found["test_identity_in_train"] == 0.75


def test_the_verdict_on_a_leak_has_the_metrics_of_lookup_and_baseline() -> None:
    records, split = family()

    found = audit(records, make_target(records, "age"), split)

    assert verdict(found) == (
        "leaks: 75.0% of the test images are of an identity that is in train, 50.0% even with the same label, and "
        "an identity lookup, which sees no pixel, scores MAE 2.75 years (the median of train: 6.50), so a test metric "
        "near 2.75 shows no skill"
    )
    assert leak(found) == {
        "test_identity_in_train": 0.75,
        "test_identity_and_label_in_train": 0.5,
        "lookup_mae": 2.75,
        "median_mae": 6.5,
        "lookup_accuracy": 0.5,
        "majority_accuracy": 0.25,
        "unit": "years",
    }


def test_the_verdict_on_decades_has_mae_and_accuracy() -> None:
    records, split = family()

    sentence = verdict(audit(records, make_target(records, "decade"), split))

    assert "scores MAE 0.12 decades (the median of train: 0.75) and accuracy 0.750 (the most common label: 0.500)" in (
        sentence
    )


def test_the_verdict_on_classes_has_only_accuracy() -> None:
    identity = np.array([*"aabb", *"ab", *"ab"])
    labels = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    records = Records(np.arange(8).astype(str), {"class": labels, "identity": identity}, ("x", "y"))
    split = Split("hand", np.arange(4), np.arange(4, 6), np.arange(6, 8))

    found = audit(records, make_target(records, "class"), split)

    assert (found["lookup_mae"], found["median_mae"], found["unit"]) == (None, None, "")
    assert verdict(found).endswith(
        "no pixel, scores accuracy 1.000 (the most common label: 0.500), so a test metric near 1.000 shows no skill"
    )


@pytest.mark.parametrize(("accuracy", "start"), [(0.54, "shares identities, but"), (0.56, "leaks: ")])
def test_a_lookup_must_avoid_a_tenth_of_the_errors_to_be_called_a_leak(accuracy: float, start: str) -> None:
    shares = {"test_identity_in_train": 1.0, "test_identity_and_label_in_train": 1.0}
    scores = {"lookup_mae": None, "median_mae": None, "lookup_accuracy": accuracy, "majority_accuracy": 0.5}

    sentence = verdict({**shares, **scores, "unit": ""})

    assert sentence.startswith(start)


def test_a_split_without_shared_identities_is_clean() -> None:
    records, split = family()
    apart = Split("apart", split.train, np.array([8]), np.array([11]))

    found = audit(records, make_target(records, "age"), apart)

    assert verdict(found) == "clean: none of the 1 identities of test is in train"
    assert found["lookup_mae"] == found["median_mae"] == 3
    assert leak(found) is None


def test_the_verdict_names_a_val_part_that_leaks_if_test_is_clean() -> None:
    records, split = family()

    sentence = verdict(
        audit(records, make_target(records, "age"), Split("apart", split.train, split.val, np.array([11])))
    )

    assert sentence.endswith("; but 50.0% of the val images show one that is, so val looks better than test")


def test_shared_identities_that_do_not_predict_the_label_are_not_called_a_leak() -> None:
    rng = np.random.default_rng(0)
    columns = {"class": rng.integers(0, 5, 3000), "identity": rng.integers(0, 10, 3000)}
    records = Records(np.arange(3000).astype(str), columns, tuple("abcde"))
    target = make_target(records, "class")

    found = audit(records, target, splits.random(records, target.labels))

    assert found["test_identity_in_train"] == 1
    assert verdict(found).startswith("shares identities, but an identity lookup helps little: 100% of the test images")
    assert leak(found) is not None


@pytest.mark.data
@pytest.mark.parametrize("protocol", ["official", "train80", "identity", "kfold"])
def test_cacds_protocols_by_identity_are_clean(real_cacd, protocol) -> None:
    target = make_target(real_cacd, "decade")

    found = audit(real_cacd, target, getattr(splits, protocol)(real_cacd, target.labels))

    assert found["test_identity_in_train"] == found["val_identity_in_train"] == 0
    assert verdict(found).startswith("clean: ")
    if protocol == "official":
        has = {part: (counts["images"], counts["identities"]) for part, counts in found["splits"].items()}
        assert has == {"train": (145_275, 1_800), "val": (7_600, 80), "test": (10_571, 120)}


@pytest.mark.data
def test_cacds_random_split_leaks_the_age(real_cacd) -> None:
    target = make_target(real_cacd, "age")
    split = splits.random(real_cacd, target.labels)

    found = audit(real_cacd, target, split)

    assert_same(found, count_plainly(real_cacd, target, split))
    # Each person has images of ten consecutive years: the mean distance to their median is 2.5 years.
    assert found["lookup_mae"] == pytest.approx(2.5, abs=0.1)
    assert found["median_mae"] == pytest.approx(10, abs=0.1)
    assert found["test_identity_in_train"] > 0.999
    assert found["test_identity_and_label_in_train"] > 0.9


@pytest.mark.data
def test_the_identities_of_hiragana_are_pages(test_data: Path) -> None:
    records = Hiragana73(str(test_data / "hiragana73_sample"), download=False).records()
    target = make_target(records, "class")
    split = splits.random(records, target.labels)

    found = audit(records, target, split)

    assert_same(found, count_plainly(records, target, split))
    assert 0 < found["test_identity_in_train"] < 1
    pages = {Path(name).stem.partition("_")[2] for name in records.names[split.test].tolist()}
    assert found["splits"]["test"]["identities"] == len(pages)


def test_images_of_unknown_identity_are_not_the_same_person() -> None:
    ages = np.array([20, 60, 30, 20, 60, 30])
    records = Records(np.arange(6).astype(str), {"age": ages, "identity": np.array(["", "", "bo", "", "bo", ""])})

    found = audit(records, make_target(records, "age"), Split("hand", np.arange(3), np.array([3]), np.array([4, 5])))

    assert [found["splits"][part]["identities"] for part in PARTS] == [3, 1, 2]
    assert found["test_identity_in_train"] == 0.5
    assert found["val_identity_in_train"] == 0
    assert found["lookup_mae"] == (30 + 0) / 2  # bo's only train age is 30, which is also the median of train


def test_with_all_identities_unknown_the_verdict_is_unknown() -> None:
    records, split = family()
    unknown = Records(records.names, {**records.columns, "identity": np.full(len(records), "")})

    found = audit(unknown, make_target(unknown, "age"), split)

    assert verdict(found).startswith("leak unknown: ")
    assert found["splits"]["test"]["identities"] is None


def test_without_train_images_nothing_is_compared() -> None:
    records, _ = family()
    target = make_target(records, "age")

    found = audit(records, target, splits.test_only(records, target.labels))

    assert [found["splits"][part]["images"] for part in PARTS] == [0, 0, 13]
    assert found["splits"]["test"]["identities"] == len({name for name, _ in (*TRAIN, *VAL, *TEST)})
    unknown = ("test_identity_in_train", "val_identity_in_train", "lookup_mae", "median_mae", "majority_accuracy")
    assert [found[name] for name in unknown] == [None] * 5
    assert leak(found) is None
    assert verdict(found).startswith("no train images: ")


@pytest.mark.parametrize(("known", "rest"), [(True, "leaks: 75.0% of the test images"), (False, "leak unknown: ")])
def test_identical_images_in_train_and_test_are_a_leak(known: bool, rest: str) -> None:
    records, split = family(known=known)

    found = audit(records, make_target(records, "age"), split)

    copies = {"test_in_train": 2}
    expected = "leaks: 2 of the 4 test images are identical to a train image; by identity, "
    assert verdict({**found, "duplicates": copies}).startswith(expected + rest)
    assert verdict({**found, "duplicates": {"test_in_train": 0}}) == verdict(found)
