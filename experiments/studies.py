"""`python experiments/studies.py NAME`: run a study again, and write its tables and pictures into its folder.

Each study with a `run.sh` can be run. It trains below the current folder and calls `agebench.compare` with
`--output tables/NAME`. All runs must be by one commit. Without a name, the age of every study is listed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
REPOSITORY = HERE.parent
RESULTS = re.compile(r"<!-- results.*? -->\n.*?<!-- end of results -->\n", re.DOTALL)
STAMP = re.compile(r"<!-- results of commit (\w+), (\S+) -->")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python experiments/studies.py", description=__doc__)
    parser.add_argument("names", nargs="*", help="the studies to run again")
    parser.add_argument("--work", type=Path, default=REPOSITORY / "outputs/experiments", help="folder of the runs")
    parser.add_argument("--draw", action="store_true", help="train nothing: use the runs that are there")
    given = parser.parse_args()
    if not given.names:
        print("\n".join(status()))
    folders = {HERE / name: given.work.resolve() / name for name in given.names}
    for study, work in folders.items():
        train(study, work, draw_only=given.draw)
    for study, work in folders.items():  # after all runs: it changes files, and runs note that
        draw(study, work)


def status() -> Iterator[str]:
    """Yield one line per study: the commit of its figures, and how often the code has changed since."""
    for readme in sorted(HERE.glob("*/README.md")):
        yield f"{readme.parent.name:<18}{age_of(readme) or 'by the code of today'}"


def age_of(readme: Path) -> str | None:
    """Return how old the figures of a study are, as a sentence; None if the code has not changed since."""
    stamp = STAMP.search(readme.read_text(encoding="utf-8"))
    if stamp is None:
        return "The figures were put together by hand and are older than the code; the text names their commit."
    commit, date = stamp.groups()
    counted = _git(
        "rev-list", "--count", f"{commit}..HEAD", "--", "src", "conf", f"experiments/{readme.parent.name}/run.sh"
    )
    if counted in (None, "0"):
        return None
    changes = "1 change" if counted == "1" else f"{counted} changes"
    return f"The figures are of commit {commit}, {date}; the code has had {changes} since then."


def train(study: Path, work: Path, *, draw_only: bool) -> None:
    """Run the commands of a study in a folder. Finished runs in it are kept, so an interrupted study continues."""
    script = study / "run.sh"
    if not script.is_file():
        can = ", ".join(sorted(path.parent.name for path in HERE.glob("*/run.sh")))
        sys.exit(f"experiments: {study.name} has no run.sh; those that have one are {can}")
    if draw_only:
        return
    work.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    done = subprocess.run(["sh", "-e", script], cwd=work, env=os.environ | {"PATH": path}, check=False)
    if done.returncode:
        sys.exit(f"experiments: {script} ended with exit code {done.returncode}; its finished runs are in {work}")


def draw(study: Path, work: Path) -> None:
    """Write the tables of the runs in a folder into a study's README.md, and the files that it names beside it."""
    readme = study / "README.md"
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(work.glob("**/results.json"))]
    results = [each for each in results if "git" in each]  # evaluations have none
    text = readme.read_text(encoding="utf-8")
    if not RESULTS.search(text):
        sys.exit(f"experiments: {readme} has no lines '<!-- results -->' and '<!-- end of results -->'")
    found = [read_table(path, work / "tables") for path in sorted((work / "tables").glob("**/compare.md"))]
    block = "\n".join([stamp(results), "", *found, describe(study.name, results), "", "<!-- end of results -->", ""])
    text = RESULTS.sub(lambda _: block, text)
    readme.write_text(text, encoding="utf-8")
    for picture in sorted((work / "tables").glob("**/*.png")):
        if f"({picture.name})" in text:
            shutil.copyfile(picture, study / picture.name)
    if "results.csv" in text and (work / "tables/compare.csv").is_file():
        shutil.copyfile(work / "tables/compare.csv", study / "results.csv")
    print(f"written to {readme}")


def read_table(path: Path, folder: Path) -> str:
    """Return a comparison whose headings start with the name of its folder and fit into the page of a study."""
    name = path.parent.relative_to(folder).as_posix()
    heading = "### " if name == "." else f"### {name}: "
    return re.sub(r"^## ", heading, path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def stamp(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the comment that names the commit of all runs.

    Raises:
        SystemExit: If there are no runs, or they are by several commits or by changed files.
    """
    commits = {str(each["git"]) for each in results}
    if len(commits) != 1 or (commit := next(iter(commits))).endswith(("-dirty", "None")):
        sys.exit(
            f"experiments: all runs must be by one commit without changed files, not by {', '.join(commits) or 'none'}"
        )
    date = _git("show", "--no-patch", "--format=%cs", commit)
    return f"<!-- results of commit {commit}, {date} -->"


def describe(name: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return one sentence about the runs: their number, seeds, threads and versions."""
    seeds = sorted({each["seed"] for each in results})
    threads = ", ".join(
        f"{count} CPU thread{'s' * (count > 1)}" for count in sorted({each["threads"] for each in results})
    )
    versions = results[0]["versions"]
    shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "lightning", "timm"))
    device = ", ".join(sorted({str(each["device"]) for each in results}))
    text = (
        f"{len(results)} runs, seeds {', '.join(map(str, seeds))}; {device}, {threads} a run; {shown}; "
        f"commit {results[0]['git']}. The command is `make experiments STUDIES={name}`."
    )
    return textwrap.fill(text, 120)


def _git(*arguments: str) -> str | None:
    """Return the output of a git command; None if it fails, such as outside of a checkout."""
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


if __name__ == "__main__":
    main()
