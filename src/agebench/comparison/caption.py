"""The heading and the caption of a table."""

import textwrap

from agebench.comparison.formatting import NONE, amount
from agebench.comparison.groups import count
from agebench.comparison.tables import Table
from agebench.identity_groups import resampled
from agebench.metrics.bootstrap import resamples_for
from agebench.metrics.by_group import LEAST
from agebench.metrics.table import find, is_decision
from agebench.runs.read import Run

BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "nearest to zero": "values nearest to zero are better",
}


def heading(table: Table) -> str:
    """Return the protocol and the number of test images of a table."""
    images = "" if table.images is None else f": {count(table.images, 'test image')}"
    people = table.rows[0].group.runs[0].result("bootstrap", "groups")
    over = table.rows[0].group.runs[0].result("bootstrap", "over")
    whose = f" of {people:,} {_units(table, over)}" if over == "identity" and isinstance(people, int) else ""
    group = f", {table.group}" if table.group else ""
    return f"{table.protocol}{group}{images}{whose} (split {table.split_sha[:8]})"


def _units(table: Table, over: object) -> str:
    return resampled(known=over == "identity", unit=table.unit)


def unranked_sentence(run: Run) -> str:
    """Return the status of a run that did not complete, its folder, and its error."""
    error = f": {textwrap.shorten(run.error, 160, placeholder=' ...')}" if run.error else ""
    return f"{run.status}: {run.folder}{error}"


def caption(table: Table, *, complete: bool = True) -> str:
    """Return the explanation of the numbers in a table.

    Args:
        table: The table.
        complete: Whether the table is shown with the columns of folds and training time.
    """
    metric = find(table.metric)
    sentences = [f"Ranked by {metric.name}, {BETTER[metric.better]}.", *_spread(table)]
    sentences += [*_folds(table)[: None if complete else 1], *_pairs(table), *_gaps(table), *_shared(table)]
    return " ".join(sentences)


def _spread(table: Table) -> list[str]:
    """Return sentences that explain the numbers after ± and in brackets."""
    sentences = []
    several = any(len(row.group.runs) > 1 for row in table.rows)
    if several:
        sentences.append("Several seeds (n > 1): mean ± standard deviation over seeds." + _over_seeds(table))
    alone = [row.group for row in table.rows if len(row.group.runs) == 1 and row.group.interval(table.metric)]
    if alone:
        about = alone[0].runs[0].result("bootstrap")
        over = ""
        if isinstance(about, dict) and isinstance(about.get("groups"), int):
            units = _units(table, about.get("over"))
            known = about.get("resamples")
            resamples = known if isinstance(known, int) else resamples_for(about["groups"])
            over = f" from {resamples:,} resamples of {about['groups']:,} {units}"
        wider = ", widened to that of Clopper and Pearson" if is_decision(table.metric) else ""
        sentences.append(f"One seed{' (n = 1)' if several else ''}: 95% bootstrap interval{over}{wider}.")
    return sentences


def _over_seeds(table: Table) -> str:
    """Return the sentence that explains the interval of a mean over seeds, or nothing."""
    if table.paired is None or not any(len(row.group.runs) > 1 and row.interval for row in table.rows):
        return ""
    resampled = f"{table.paired.resamples:,} resamples of {table.paired.drawn:,} {table.paired.over}"
    return f" In brackets: 95% bootstrap interval of that mean from {resampled}, without the spread over seeds."


def _gaps(table: Table) -> list[str]:
    """Return sentences that explain the gaps between groups of test images."""
    metrics = list(dict.fromkeys(metric for row in table.rows for metric, _ in row.gaps))
    if not metrics:
        return []
    about_ages = [
        "Gaps are not adjusted for the ages of the groups: groups of other ages may have other errors for this reason "
        "alone; compare with the gap of the baseline.",
    ]
    if any(row.standardised for row in table.rows):
        about_ages.append(
            "Age-standardised gap: the same, of means in which every group has the same share of each decade of age "
            "(direct standardisation to the images of all groups)."
        )
    return [
        f"Gap: difference of {' or '.join(find(name).name for name in metrics)}, averaged over seeds, between the "
        f"groups with the worst and the best value, of those with at least {LEAST} people (images, if people are "
        "unknown). Its 95% interval accounts for the selection of both groups (maxT); if it contains zero, the groups "
        "may be equal.",
        *(about_ages if table.unit else ()),
    ]


def _folds(table: Table) -> list[str]:
    """Return sentences that explain pooled folds."""
    folds = len(table.runs[0].folds)
    if not folds:
        return []
    pooled = f"Pooled over {folds} folds: each image is tested once, by a model that was not trained on it."
    each = "" if table.group else " The metric of each fold has a column."
    return [pooled, f"fit (s): the sum over folds.{each}"]


def _pairs(table: Table) -> list[str]:
    """Return sentences that explain the difference to the best row and its limitations."""
    paired = table.paired
    if paired is None or not paired.differences:
        return []
    compared = count(len(paired.differences), "comparison")
    return [
        f"Δ to best: mean difference to the best row over the same test images, averaged over seeds; 95% interval and "
        f"p-value from {paired.resamples:,} paired bootstrap resamples of {paired.drawn:,} {paired.over}, with Holm's "
        f"correction for {compared}.",
        f"They describe the variation over {paired.over}, not over seeds.",
        "The best row was selected on the same test images, so its result is optimistic.",
    ]


def _shared(table: Table) -> list[str]:
    """Return a sentence about the properties that all runs share and that therefore have no column."""
    size = {amount(row.group.average("params", "total")) for row in table.rows}
    epochs = {amount(row.group.average("epochs")) for row in table.rows}
    shared = []
    if len(size) == 1 and size != {NONE}:
        shared.append(f"{size.pop()} parameters")
    if len(epochs) == 1 and epochs != {NONE}:
        epoch = epochs.pop()
        shared.append(f"{epoch} epoch{'' if epoch == '1' else 's'}")
    return [f"All runs: {', '.join(shared)}."] if shared else []
