"""Read the runs of a comparison, and compare them as the user asked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agebench.comparison.folds import pool_folds
from agebench.comparison.groups import count
from agebench.comparison.tables import Comparison, compare
from agebench.runs.read import Run, find_runs


@dataclass(frozen=True)
class Request:
    """What to compare.

    Args:
        metric: The test metric to rank by; None: mae for ages in years, else accuracy.
        age_limit: Compare decisions at this age limit; None: at those of the runs.
        by: Columns of groups; the runs are ranked within each group of test images.
        gaps: Columns of groups; the gap between the groups of each column is shown.
        columns: Names or patterns of the further metrics to show; None: the usual ones.
        evaluations: Whether evaluations of runs in the same folder are compared too.
    """

    metric: str | None = None
    age_limit: int | None = None
    by: Sequence[str] = ()
    gaps: Sequence[str] = ()
    columns: Sequence[str] | None = None
    evaluations: bool = False


def compare_folders(folders: Sequence[Path], request: Request, *, note: Callable[[str], None]) -> Comparison:
    """Return the comparison of the runs in and below folders.

    An evaluation of a run that is in the same folder is left out, unless the request or a folder names it. Its groups
    of test images are used.

    Args:
        folders: Folders of runs, sweeps or evaluations.
        request: What to compare.
        note: Receives a sentence for each run that is left out.

    Raises:
        UserError: If there is no run, or no run has such a metric, limit or group.
    """
    found = find_runs(folders)
    left_out = [] if request.evaluations else [run for run in found if _comes_with_its_run(run, folders)]
    if left_out:
        note(f"{count(len(left_out), 'evaluation')} of these runs left out: name the folder, or add --evaluations")
    hidden = {id(run) for run in left_out}
    runs, notes = pool_folds([run for run in found if id(run) not in hidden])
    for each in notes:
        note(each)
    if request.age_limit is not None:
        from agebench.comparison.decisions import at_age_limit

        runs, notes = at_age_limit(runs, request.age_limit)
        for each in notes:
            note(f"no decisions at {request.age_limit}: {each}")
    if request.by:
        from agebench.comparison.by_group import by_group

        runs, notes = by_group(runs, request.by, grouped=pool_folds(left_out)[0])
        for each in notes:
            note(each)
    compared = compare(runs, request.metric, columns=request.columns)
    if request.gaps:
        from agebench.comparison.gaps import with_gaps

        compared = with_gaps(compared, request.gaps, grouped=pool_folds(left_out)[0])
    return compared


def _comes_with_its_run(run: Run, folders: Sequence[Path]) -> bool:
    """Return whether a run is an evaluation, and every folder that has it also has the run that was evaluated."""
    if run.evaluated is None:
        return False
    tested = run.evaluated if run.evaluated.is_dir() else run.folder.parent.parent  # else the runs were moved
    given = [folder.resolve() for folder in folders]
    has_it = [folder for folder in given if run.folder.resolve().is_relative_to(folder)]
    return all(tested.resolve().is_relative_to(folder) for folder in has_it)
