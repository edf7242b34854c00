"""Print the coverage of lines and branches by package, from the report of `pytest --cov --cov-report=json`."""

import json
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

REPORT = Path(__file__).parents[1] / ".coverage" / "coverage.json"
LOWEST, AIM = 0.85, 0.92  # of each package, and of all together


def package(file: str) -> str:
    """Return the folder of a file, below src/agebench if it is there."""
    folder = PurePosixPath(file).parent.relative_to("src").as_posix()
    return folder.removeprefix("agebench").lstrip("/") or "top level"


def covered(counts: Counter[str]) -> float:
    """Return the share of lines and branches together that ran."""
    return (counts["covered_lines"] + counts["covered_branches"]) / (counts["num_statements"] + counts["num_branches"])


def main() -> None:
    """Print the table."""
    files: dict[str, Any] = json.loads(REPORT.read_text(encoding="utf-8"))["files"]
    counts: dict[str, Counter[str]] = {}
    for file, report in files.items():
        numbers = {name: number for name, number in report["summary"].items() if isinstance(number, int)}
        if numbers["num_statements"]:  # an empty __init__.py has nothing to cover
            for name in (package(file), "all"):
                counts.setdefault(name, Counter()).update(numbers)
    print(f"{'package':<32} {'lines':>7} {'covered':>8} {'branches':>9} {'covered':>8} {'together':>9}")
    for name, found in sorted(counts.items(), key=lambda each: (each[0] == "all", each[0])):
        shares = [
            found[part] / max(1, found[total])
            for part, total in (("covered_lines", "num_statements"), ("covered_branches", "num_branches"))
        ]
        low = (
            f"  below {LOWEST if name != 'all' else AIM}" if covered(found) < (AIM if name == "all" else LOWEST) else ""
        )
        print(
            f"{name:<32} {found['num_statements']:>7,} {shares[0]:>8.3f} {found['num_branches']:>9,} {shares[1]:>8.3f} "
            f"{covered(found):>9.3f}{low}"
        )


if __name__ == "__main__":
    main()
