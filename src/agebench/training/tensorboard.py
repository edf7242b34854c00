"""TensorBoard logger that writes one event file into the run directory, with one row on the HPARAMS page."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from torch.utils.tensorboard.summary import hparams

from agebench.interrupts import postponed
from agebench.lightning_internals import add_summary
from agebench.runs.cards import card_name, result_card


class RunTensorBoard(TensorBoardLogger):
    """Lightning's logger, but without subfolders, without the placeholder metric `hp_metric` and without hparams.yaml.

    A thread of TensorBoard writes the file. An interrupt must not leave its locks acquired, so it is postponed while a
    method runs.

    Args:
        save_dir: The run directory.
        purge_step: The first step of this start. TensorBoard hides the values of earlier starts from this step on.
    """

    def __init__(self, save_dir: str, purge_step: int = 0) -> None:
        # TensorBoard purges only from the second start event of a run on, so the first start needs one as well.
        super().__init__(save_dir, name="", version="", default_hp_metric=False, purge_step=purge_step)
        self.tested: dict[str, float] = {}

    def resume_at(self, step: int) -> None:
        """Hide the values that an interrupted start wrote at this step and later, because they are written again.

        Call this method before anything is written.
        """
        RunTensorBoard.__init__(self, str(self.save_dir), purge_step=step)  # the writer opens at its first use

    @rank_zero_only
    @postponed()
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log scalars without `epoch`, which Lightning adds and which needs no plot.

        With the best value of the monitored metric, its value on the test images is logged again, as the result.
        """
        self.tested |= {name: value for name, value in metrics.items() if name.startswith("test/")}
        cards = {card_name(name): value for name, value in metrics.items() if name != "epoch"}
        for name in metrics:
            if "/best_" in name:
                cards |= result_card(name, self.tested)
        super().log_metrics(cards, step)

    @rank_zero_only
    @postponed()
    def declare_hparams(self, params: Mapping[str, Any], group: str = "") -> None:
        """Write a run's hyperparameters, which the HPARAMS page shows next to its scalars.

        The runs of a group are one row of the page, with their average metrics.

        The columns of the page are not declared: TensorBoard would use the declaration of one run for all runs of a
        folder, and hide columns that only other runs have. Without a declaration it shows the columns of all runs, and
        first those in which runs differ.

        Args:
            params: The hyperparameters, equal for all runs of the group.
            group: The name of the group; empty if the run has a row of its own.
        """
        # torch would write a bool as a number.
        plain = {k: v if isinstance(v, int | float) and not isinstance(v, bool) else str(v) for k, v in params.items()}
        # SummaryWriter.add_hparams would create a sub-run.
        add_summary(self.experiment, hparams_pb(plain, trial_id=group) if group else hparams(plain, {})[1])

    @rank_zero_only
    @postponed()
    def finish_hparams(self) -> None:
        """Mark the run as successful on the HPARAMS page."""
        add_summary(self.experiment, hparams({}, {})[2])
        self.experiment.flush()

    @rank_zero_only
    @postponed()
    def save(self) -> None:
        """Flush the event file. The parent also writes hparams.yaml, which .hydra/config.yaml makes redundant."""
        self.experiment.flush()

    @rank_zero_only
    @postponed()
    def finalize(self, status: str) -> None:
        """Close the event file."""
        super().finalize(status)
