"""Read the runs of a comparison, and compare them as the user asked."""

from collections.abc import Callable, Sequence
from pathlib import Path

from agebench.comparison.folds import pool_folds
from agebench.comparison.tables import Comparison, compare
from agebench.runs.read import find_runs


def compare_folders(
    folders: Sequence[Path],
    metric: str | None,
    *,
    age_limit: int | None = None,
    by: Sequence[str] | None = None,
    note: Callable[[str], None],
) -> Comparison:
    """Return the comparison of the runs in and below folders.

    Args:
        folders: Folders of runs, sweeps or evaluations.
        metric: The test metric to rank by; None: mae for ages in years, else accuracy.
        age_limit: Compare decisions at this age limit.
        by: Columns of groups; the runs are ranked within each group of test images.
        note: Receives a sentence for each run that is left out.

    Raises:
        UserError: If there is no run, or no run has such a metric, limit or group.
    """
    runs, notes = pool_folds(find_runs(folders))
    for each in notes:
        note(each)
    if age_limit is not None:
        from agebench.comparison.decisions import at_age_limit

        runs, notes = at_age_limit(runs, age_limit)
        for each in notes:
            note(f"no decisions at {age_limit}: {each}")
    if by is not None:
        from agebench.comparison.by_group import by_group

        runs, notes = by_group(runs, list(by))
        for each in notes:
            note(each)
    return compare(runs, metric)
