"""Read the runs of a comparison, and compare them as the user asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agebench.comparison.folds import pool_folds
from agebench.comparison.tables import Comparison, compare
from agebench.runs.read import find_runs


@dataclass(frozen=True)
class Request:
    """What to compare.

    Args:
        metric: The test metric to rank by; None: mae for ages in years, else accuracy.
        age_limit: Compare decisions at this age limit; None: at those of the runs.
        by: Columns of groups; the runs are ranked within each group of test images.
        gaps: Columns of groups; the gap between the groups of each column is shown.
        columns: Names or patterns of the further metrics to show; None: the usual ones.
    """

    metric: str | None = None
    age_limit: int | None = None
    by: Sequence[str] = ()
    gaps: Sequence[str] = ()
    columns: Sequence[str] | None = None


def compare_folders(folders: Sequence[Path], request: Request, *, note: Callable[[str], None]) -> Comparison:
    """Return the comparison of the runs in and below folders.

    Args:
        folders: Folders of runs, sweeps or evaluations.
        request: What to compare.
        note: Receives a sentence for each run that is left out.

    Raises:
        UserError: If there is no run, or no run has such a metric, limit or group.
    """
    runs, notes = pool_folds(find_runs(folders))
    for each in notes:
        note(each)
    if request.age_limit is not None:
        from agebench.comparison.decisions import at_age_limit

        runs, notes = at_age_limit(runs, request.age_limit)
        for each in notes:
            note(f"no decisions at {request.age_limit}: {each}")
    if request.by:
        from agebench.comparison.by_group import by_group

        runs, notes = by_group(runs, request.by)
        for each in notes:
            note(each)
    compared = compare(runs, request.metric, columns=request.columns)
    if request.gaps:
        from agebench.comparison.gaps import with_gaps

        compared = with_gaps(compared, request.gaps)
    return compared
