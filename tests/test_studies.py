"""The studies' figures name the commit that they are from, and say how often the code has changed since."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))
import studies

VERSIONS = {"torch": "2", "lightning": "3", "timm": "4"}


def git(folder: Path, *arguments: str) -> str:
    user = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *user, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """Return a repository with one commit and one study, which the script uses instead of its own."""
    for name in ("src/code.py", "docs/page.md", "experiments/heads/run.sh"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    readme = tmp_path / "experiments/heads/README.md"
    readme.write_text("# Heads\n\n<!-- results -->\nold\n<!-- end of results -->\n\n![a](ranking.png)\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first", "--date", "2026-11-01T12:00:00")
    monkeypatch.setattr(studies, "REPOSITORY", tmp_path)
    monkeypatch.setattr(studies, "HERE", tmp_path / "experiments")
    return tmp_path


def write_runs(work: Path, *commits: str) -> None:
    for number, commit in enumerate(commits):
        folder = work / f"outputs/run{number}"
        folder.mkdir(parents=True)
        results = {"git": commit, "seed": number, "threads": 1, "device": "cpu", "versions": VERSIONS}
        (folder / "results.json").write_text(json.dumps(results))
    (work / "tables/by head").mkdir(parents=True)
    (work / "tables/by head/compare.md").write_text("## Protocol\n\n| new |\n")
    (work / "tables/ranking.png").write_bytes(b"picture")
    (work / "tables/curves.png").write_bytes(b"not in the text")
    (work / "tables/compare.csv").write_text("all metrics")


def commit_of(repository: Path) -> str:
    return git(repository, "rev-parse", "--short=12", "HEAD").strip()


def test_a_drawn_study_has_the_tables_the_pictures_that_it_shows_and_its_commit(repository, tmp_path_factory) -> None:
    work, study = tmp_path_factory.mktemp("work"), repository / "experiments/heads"
    commit = commit_of(repository)
    write_runs(work, commit, commit)

    studies.draw(study, work)

    text = (study / "README.md").read_text()
    assert f"<!-- results of commit {commit}, " in text
    assert "\n### by head: Protocol\n\n| new |\n" in text
    assert "old" not in text
    assert "2 runs, seeds 0, 1; cpu, 1 CPU thread a run; torch 2, lightning 3, timm 4" in text.replace("\n", " ")
    assert text.endswith("<!-- end of results -->\n\n![a](ranking.png)\n")
    assert sorted(path.name for path in study.iterdir()) == ["README.md", "ranking.png", "run.sh"]


def test_a_study_that_names_its_csv_file_has_all_metrics(repository, tmp_path_factory) -> None:
    work, study = tmp_path_factory.mktemp("work"), repository / "experiments/heads"
    write_runs(work, commit_of(repository))
    (study / "README.md").write_text((study / "README.md").read_text() + "`results.csv`\n")

    studies.draw(study, work)

    assert (study / "results.csv").read_text() == "all metrics"


def test_a_study_is_as_old_as_the_changes_of_the_code_since_its_commit(repository, tmp_path_factory) -> None:
    work, readme = tmp_path_factory.mktemp("work"), repository / "experiments/heads/README.md"
    commit = commit_of(repository)
    write_runs(work, commit)
    studies.draw(readme.parent, work)
    ages = [studies.age_of(readme)]

    for file in ("docs/page.md", "src/code.py", "experiments/heads/run.sh"):
        (repository / file).write_text("changed")
        git(repository, "add", file)
        git(repository, "commit", "--quiet", "--message", file)
        ages.append(studies.age_of(readme))

    since = f"The figures are of commit {commit}, "
    assert ages[:2] == [None, None]  # a page is no code
    assert ages[2].startswith(since)
    assert ages[2].endswith("the code has had 1 change since then.")
    assert ages[3].endswith("the code has had 2 changes since then.")


@pytest.mark.parametrize("commits", [("a", "b"), ("a-dirty",), (None,), ()])
def test_runs_that_no_single_commit_repeats_are_not_drawn(repository, tmp_path_factory, commits) -> None:
    work, readme = tmp_path_factory.mktemp("work"), repository / "experiments/heads/README.md"
    write_runs(work, *commits)
    before = readme.read_text()

    with pytest.raises(SystemExit, match="by one commit without changed files"):
        studies.draw(readme.parent, work)

    assert readme.read_text() == before


def test_every_study_of_this_repository_has_an_age() -> None:
    here = Path(__file__).parents[1] / "experiments"

    names = [line.split()[0] for line in studies.status()]

    assert names == sorted(path.parent.name for path in here.glob("*/README.md"))
