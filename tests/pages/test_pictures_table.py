"""Which pictures a run gets."""

import logging
import re

import numpy as np
import pytest

from agebench.pages.material import Material
from agebench.pages.pictures import PICTURES, draw_pictures
from agebench.report.explained import Explained


def drawn(folder, level) -> set[str]:
    return {picture.name for picture, _ in draw_pictures(Material.of(folder), level=level)}


@pytest.mark.ci
def test_a_full_report_of_classes_has_their_pictures_with_tables(write_run, caplog) -> None:
    folder = write_run()
    rng = np.random.default_rng(0)
    Explained(
        rows=np.array([0, 1]),
        images=rng.integers(0, 255, (2, 1, 8, 8), dtype=np.uint8),
        heat=rng.normal(size=(2, 8, 8)),
        method="occlusion",
        layer="",
        kernels=rng.normal(size=(4, 1, 3, 3)),
        map_image=np.zeros((1, 8, 8), dtype=np.uint8),
        stages={"conv": rng.normal(size=(2, 4, 4))},
    ).save(folder / "report" / "explained.npz")

    with caplog.at_level(logging.WARNING):
        names = drawn(folder, "full")

    assert not caplog.records
    expected = (
        "curves augmentation confusion confusion_by_prediction reliability posteriors worst_images certain_images "
    )
    expected += "uncertain_images confused_pairs heat kernels feature_maps"
    assert names == set(expected.split())
    tables = {path.stem for path in (folder / "report").glob("*.csv")}
    assert tables == {
        *["confusion", "curves", "most_confused", "mistakes", "reliability", "posteriors", "contact_sheets"]
    }


def test_a_light_report_has_few_pictures(write_run) -> None:
    assert drawn(write_run(), "light") == {"curves", "confusion"}


def test_few_ages_have_estimates_and_a_confusion_matrix(write_run) -> None:
    ages = [str(age) for age in range(20, 23)]

    few = drawn(write_run(labels=ages, protocol="toy/random/age"), "light")

    assert few == {"curves", "confusion", "estimates", "error_by_age"}


def test_the_dark_page_does_not_invert_pictures_with_images() -> None:
    with_images = {"augmentation", "posteriors", "worst_images", "certain_images", "uncertain_images", "confused_pairs"}
    with_images |= {"heat", "kernels", "feature_maps", "tsne_test_images"}

    assert {picture.name for picture in PICTURES if picture.photos} == with_images


@pytest.mark.parametrize("name", ["heat", "calibration"])
def test_the_caption_speaks_of_ages_only_for_ages(write_run, name) -> None:
    digits = Material.of(write_run(name="digits"))
    ages = Material.of(write_run(name="ages", labels=["20", "21", "22"], protocol="toy/random/age"))
    picture = next(each for each in PICTURES if each.name == name)

    found = [bool(re.search(r"\bages?\b", picture.caption_of(run))) for run in (digits, ages)]

    assert found == [False, True]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_each_caption_is_a_sentence(picture) -> None:
    assert picture.caption[0].isupper()
    assert picture.caption.endswith((".", "?"))
