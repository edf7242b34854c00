"""The process that draws reports: beside a run, after a failure, and after its death."""

import json
import logging

import pytest

from agebench.pages.drawer import Drawer, make_report, page_of, rewrite_page


@pytest.mark.ci
def test_another_process_makes_the_same_page_without_torch(write_run) -> None:
    folder, alone = write_run(), write_run(name="other")

    with Drawer("light") as drawer:
        drawer.draw(folder)
        pages = drawer.finish()
    ours = make_report(alone, level="light").read_text(encoding="utf-8")

    assert pages == [page_of(folder)]
    assert page_of(folder).read_text(encoding="utf-8").replace(str(folder), str(alone)) == ours.replace(
        "A run of agebench · other", "A run of agebench · run"
    )


def test_a_report_that_fails_is_one_sentence_and_the_next_one_is_drawn(write_run, caplog) -> None:
    good, bad = write_run(name="good"), write_run(name="bad")
    for path in (bad / "report").iterdir():
        path.unlink()
    (bad / "report").rmdir()
    (bad / "report").write_text("a file")

    with Drawer("light") as drawer:
        drawer.draw(bad)
        drawer.draw(good)
        pages = drawer.finish()

    assert pages == [page_of(good)]
    assert f"to make it: python -m agebench.report run={bad}" in caplog.text


def test_a_drawer_that_is_killed_is_one_sentence(write_run, caplog) -> None:
    folder = write_run()

    with Drawer("light") as drawer:
        drawer.process.kill()
        drawer.draw(folder)
        pages = drawer.finish()

    assert pages == []
    assert "the process that draws it ended" in caplog.text
    assert f"to make it: python -m agebench.report run={folder}" in caplog.text


def test_the_command_after_a_failed_full_report_makes_a_full_one(write_run, caplog) -> None:
    folder = write_run()

    with Drawer("full") as drawer:
        drawer.process.kill()
        drawer.draw(folder)
        drawer.finish()

    assert f"to make it: python -m agebench.report run={folder} level=full" in caplog.text


def test_a_page_that_exists_is_not_drawn_again(write_run) -> None:
    folder = write_run()
    page_of(folder).write_text("old")

    with Drawer("light") as drawer:
        drawer.draw_missing(folder)

        assert drawer.asked == []


def test_a_drawer_that_is_closed_early_says_how_many_reports_are_missing(write_run, caplog) -> None:
    caplog.set_level(logging.WARNING)
    folders = [write_run(name=f"run{i}") for i in range(3)]

    with Drawer("light") as drawer:
        for folder in folders:
            drawer.draw(folder)

    assert "reports are not drawn; to make one: python -m agebench.report run=" in caplog.text
    assert not page_of(folders[2]).exists()


def test_the_pictures_are_added_to_tensorboard_once(write_run) -> None:
    from PIL import Image
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = write_run(steps=90)
    (folder / "events.out.tfevents.1.x").touch()

    make_report(folder, level="light", board=True)

    events = EventAccumulator(str(folder), size_guidance={"images": 0}).Reload()
    assert set(events.Tags()["images"]) == {"x_report/curves", "x_report/confusion"}
    for tag in events.Tags()["images"]:
        (event,) = events.Images(tag)
        with Image.open(folder / "report" / f"{tag.removeprefix('x_report/')}.png") as image:
            assert (event.width, event.height, event.step) == (*image.size, 90)


def test_a_run_without_tensorboard_gets_no_event_file(write_run) -> None:
    folder = write_run()

    make_report(folder, level="light", board=True)

    assert not list(folder.glob("events*"))


@pytest.mark.ci
def test_a_page_that_is_written_again_has_the_new_numbers_and_the_same_pictures(write_run) -> None:
    folder = write_run()
    make_report(folder, level="full")
    before, results = page_of(folder).read_text(), json.loads((folder / "results.json").read_text())
    results["metrics"]["test/accuracy"] = 0.123
    (folder / "results.json").write_text(json.dumps(results))

    rewrite_page(folder)

    after = page_of(folder).read_text()
    assert "12.3%" in after
    assert "12.3%" not in before
    assert after.count("<img") == before.count("<img") > 3


def test_a_run_without_a_page_does_not_get_one(write_run) -> None:
    folder = write_run()

    assert rewrite_page(folder) is None
    assert not page_of(folder).exists()
