"""The page of a run: what it says, that names are text, and that it loads nothing."""

import base64
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from agebench.files import write_csv
from agebench.pages.drawer import make_report
from agebench.pages.material import Material
from agebench.pages.run_page import page, stages
from agebench.pages.words import verdict, warnings
from agebench.report.report_images import ReportImages

HOSTILE = (
    "<script>alert(1)</script>.png",
    '"><img src=x onerror=alert(1)>.png',
    "あいうえお.png",
    "😀.png",
    "n" * 300 + ".png",
    "https://example.org/x.png",
    "\u202egnp.x\x1b[31m",
)


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data):
        self.text += data


def page_of(folder: Path) -> Elements:
    return Elements(page(Material.of(folder), [], level="light"))


def test_names_are_shown_and_become_no_element(write_run) -> None:
    labels = ("<b>bold</b>", "'\"&", "ね")
    folder = write_run(HOSTILE, labels, overrides=["data=<i>x</i>"], git="<u>g</u>")

    found = page_of(folder)

    tags = [tag for tag, _ in found.found]
    assert not {"script", "b2", "i", "u", "iframe", "object", "link"} & set(tags)
    assert all("onerror" not in attributes for _, attributes in found.found)
    assert "<script>alert(1)</script>.png" in [attributes.get("title") for _, attributes in found.found]
    for text in ("script>.png", "あいうえお.png", "😀.png", "n" * 300, *labels):
        assert text in found.text
    assert "<u>g</u>" in found.text
    assert r"\u202egnp.x\x1b[31m" in found.text  # as an escape: it would reorder the line


def test_nothing_is_loaded_from_elsewhere(write_run) -> None:
    found = page_of(write_run(HOSTILE))

    for tag, attributes in found.found:
        for name in ("src", "href", "data", "action", "srcset", "poster"):
            assert attributes.get(name, "#").startswith(("data:image/", "#")), (tag, attributes)
        assert "style" not in attributes
    policy = next(each["content"] for tag, each in found.found if each.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_the_verdict_has_the_interval_and_a_constant_guess(write_run) -> None:
    folder = write_run()

    text = page_of(folder).text

    # Each of the three labels is on a third of the test images.
    assert "The network recognises 75.0% of 12 test images (95% interval: 50.0% to 87.5%)." in text
    assert "Always guessing the most common label of train gets 33.3%." in text


def test_the_verdict_of_ages_is_an_error_in_years(write_run) -> None:
    found = {"test/mae": 5.25}
    folder = write_run(labels=("20", "30", "70"), protocol="toy/random/age", metrics=found, intervals={})

    said = verdict(Material.of(folder))

    # The median of train is 30; on test it is 10, 0 or 40 years off.
    assert said == "The network is 5.25 years off on average on 12 test images. " + (
        "Always guessing the median age of train is 16.67 years off."
    )


@pytest.mark.parametrize(("high", "doubtful"), [(0.4, True), (-0.1, False)])
def test_the_verdict_says_if_chance_can_explain_what_is_better_than_the_median(write_run, high, doubtful) -> None:
    found = {"metrics": {"test/mae": 16.0}, "baseline_difference": {"value": -0.67, "interval": [-2.5, high]}}
    folder = write_run(labels=("20", "30", "70"), protocol="toy/random/age", intervals={}, **found)

    said = verdict(Material.of(folder))

    assert ("The network is not shown to be better than always answering the median" in said) == doubtful


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ({"data": {"test": 12, "val_is_test": True}}, "validation images are the test images"),
        ({"metrics": {"test/accuracy": 0.3}}, "no better than a constant guess"),
        ({"status": "failed", "error": "OSError: <gone>"}, "The run failed: OSError: <gone>"),
        (
            {"leak": {"lookup_accuracy": 0.9, "majority_accuracy": 0.5, "unit": "", "test_identity_in_train": 0.8}},
            "Train and test share identities: for comparison: an identity lookup",
        ),
        (
            {"leak": {"images": 3, "identities": 0}},
            "Train and test share images: 3 of the test images are images that the model",
        ),
    ],
)
def test_what_a_reader_must_know_comes_before_the_verdict(write_run, results, expected) -> None:
    folder = write_run(**results)

    assert any(expected in each for each in warnings(Material.of(folder)))
    text = page_of(folder).text
    assert text.index(expected) < text.index(verdict(Material.of(folder)))


@pytest.mark.parametrize("left", [(), ("results.json",), ("results.json", "split.csv")])
def test_a_run_with_few_files_has_a_page_of_what_there_is(write_run, left) -> None:
    folder = write_run()
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.name not in left and path.is_file():
            path.unlink()

    text = page_of(folder).text

    assert ("This run is not started" in text) == (not left)
    assert "How to repeat it" in text


def test_the_command_of_a_run_with_own_code_can_be_repeated(write_run) -> None:
    folder = write_run(overrides=("model=senet", "trust=true", "resume='/runs/a'"), code={"lab.SENet": "abc123"})
    source = {"path": "/lab/conf", "provider": "command-line"}
    (folder / ".hydra" / "hydra.yaml").write_text(json.dumps({"hydra": {"runtime": {"config_sources": [source]}}}))

    text = page_of(folder).text

    assert "python -m agebench.train --config-dir=/lab/conf model=senet\n" in text
    assert "resume=" not in text
    assert "lab.SENet is not part of agebench" in text
    assert "PYTHONPATH" in text
    assert "level=full trust=true" in text


@pytest.mark.ci
@pytest.mark.parametrize("name", ["predictions.csv", "split.csv", "metrics.csv", "layers.csv", "report/images.npz"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"a,b\n1\n"])
def test_a_damaged_file_costs_only_its_part(write_run, name, content) -> None:
    folder = write_run()
    (folder / name).write_bytes(content)

    path = make_report(folder, level="light")

    assert "The network recognises 75.0%" in Elements(path.read_text(encoding="utf-8")).text


def test_the_stages_are_the_layers_of_one_output_size() -> None:
    rows = [
        ("conv1", "Conv2d", "(B, 32, 28, 28)", 320),
        ("norm1", "BatchNorm2d", "(B, 32, 28, 28)", 64),
        ("pool1", "MaxPool2d", "(B, 32, 14, 14)", 0),
        ("stage", "SwinBlock", "(B, 7, 7, 96)", 616),
        ("tokens", "Block", "(B, 197, 192)", 0),
        ("fc", "Linear", "(B, 10)", 0),
    ]
    names = ("layer", "type", "output_shape", "parameters")

    found = stages([dict(zip(names, map(str, row), strict=True)) for row in rows])

    assert [stage["size"] for stage in found] == [
        "28 × 28, 32 channels",
        "14 × 14, 32 channels",
        "7 × 7, 96 channels",
        "197 tokens of 192 numbers",
        "10 numbers",
    ]
    assert [(stage["count"], stage["parameters"], stage["share"]) for stage in found][:2] == [
        (2, "384", 38.4),
        (1, "0", 0.0),
    ]


def test_a_report_has_pictures_tables_and_the_page(write_run) -> None:
    folder = write_run()

    path = make_report(folder, level="light")

    written = {each.name for each in (folder / "report").iterdir()}
    assert {"index.html", "curves.png", "curves.csv", "confusion.png", "confusion.csv", "mistakes.csv"} <= written
    images = [attributes["src"] for tag, attributes in Elements(path.read_text(encoding="utf-8")).found if tag == "img"]
    assert sum(each.startswith("data:image/png;base64,") for each in images) >= 2
    assert path.stat().st_size < 1_000_000


@pytest.mark.ci
def test_the_projections_are_only_in_a_full_report(write_run) -> None:
    folder = write_run()
    rows = np.random.default_rng(1).normal(size=(12, 5))
    np.savez(folder / "report" / "features_test.npz", features=rows, labels=np.arange(12) % 3)

    make_report(folder, level="light")
    light = {path.name for path in (folder / "report").iterdir()}
    make_report(folder, level="full")

    full = {path.name for path in (folder / "report").iterdir()}
    projections = {"pca_test.png", "tsne_test.png", "projection_test.csv"}
    assert projections <= full
    assert not projections & light


def test_a_group_figure_is_drawn_from_the_tables(write_run) -> None:
    gap = {"by": "sex", "metric": "accuracy", "worst": "f", "best": "m", "gap": 0.2, "interval": [0.1, 0.3]}
    facts = {
        "columns": ["sex"],
        "over": "image",
        "gaps": [{**gap, "p": 0.01, "p_holm": 0.01}],
        "notes": ["few <p>"],
    }
    folder = write_run(groups=facts)
    rows = [["sex", "f", 6, 6, 0.6, 0.5, 0.7, ""], ["sex", "m", 6, 6, 0.8, 0.7, 0.9, ""]]
    header = ["by", "group", "images", "people", "accuracy", "accuracy_low", "accuracy_high", "note"]
    write_csv(folder / "by_group.csv", header, rows)

    path = make_report(folder, level="light")

    assert (folder / "report" / "by_group.png").is_file()
    assert "few <p>" in Elements(path.read_text(encoding="utf-8")).text


def test_predictions_are_read_as_the_outcome(write_run) -> None:
    folder = write_run(HOSTILE)
    written = json.loads((folder / "results.json").read_text())

    outcome = Material.of(folder).outcome

    assert outcome is not None
    assert len(outcome) == written["data"]["test"]
    assert outcome.label_names == ("a", "b", "c")
    assert outcome.target.tolist() == [0, 1, 2] * 4
    np.testing.assert_allclose(outcome.posterior, np.random.default_rng(0).dirichlet(np.ones(3), size=12))


@pytest.mark.parametrize("content", [b"secret", b"\x89PNG\r\n\x1a\nsecret"], ids=["no picture", "a link"])
def test_a_file_that_is_no_picture_of_the_run_is_not_shown(write_run, tmp_path, content) -> None:
    folder = write_run()
    (tmp_path / "secret").write_bytes(content)
    (folder / "report" / "calibration.png").symlink_to(tmp_path / "secret")

    make_report(folder, level="light")

    page_text = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert base64.b64encode(content).decode().rstrip("=") not in page_text


def test_images_that_do_not_fit_the_labels_are_left_out(write_run) -> None:
    folder = write_run()
    images = ReportImages.load(folder / "report" / "images.npz")
    replace(images, sample_target=images.sample_target + 50).save(folder / "report" / "images.npz")

    found = page_of(folder)

    assert "train image" not in [attributes.get("alt") for _, attributes in found.found]
    assert "Worst mistakes" in found.text
