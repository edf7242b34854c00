"""A trained run: its results, its page, and its predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from agebench.api.images import GivenImages, ImageOrPath, is_path
from agebench.api.pictures import Picture
from agebench.api.process import errors_as_exceptions, log_messages
from agebench.api.settings import to_overrides
from agebench.api.table import Table
from agebench.cli.compose import composed
from agebench.errors import UserError
from agebench.files import read_csv
from agebench.metrics.table import find
from agebench.pages.drawer import page_of
from agebench.runs.read import read_run

if TYPE_CHECKING:
    from agebench.inference.predict import Predictor
    from agebench.module import ImageModule

# Columns of predictions that are text; `point` is one for classes.
TEXTS = ("name", "label", "most_likely_label", "label_set", "problem")


class Run:
    """The folder of a run.

    Args:
        folder: The folder that `train` wrote.

    Attributes:
        folder: The folder.
        status: `completed`, `running`, `failed`, `interrupted` or `crashed`.

    Raises:
        UserError: If the folder is not that of a run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        found = read_run(self.folder)
        if found.status in ("not started", "unreadable"):
            raise UserError(f"{self.folder} is not a run: give a folder with the results.json that train wrote")
        self.status = found.status
        self.results: Mapping[str, Any] = found.results
        self._metrics = found.metrics
        self._predictors: dict[tuple[Any, ...], Predictor] = {}

    @property
    def metrics(self) -> dict[str, float | None]:
        """The test metrics by name: `accuracy`, `mae` (in the unit of the target), ... None if training diverged."""
        return {name.removeprefix("test/"): value for name, value in self._metrics.items()}

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95% intervals of the test metrics, over test images or people."""
        found = self.results.get("intervals") or {}
        return {str(name).removeprefix("test/"): (low, high) for name, (low, high) in found.items()}

    @property
    def page(self) -> Path | None:
        """The page of the run, to open in a browser; None without a report."""
        page = page_of(self.folder)
        return page if page.is_file() else None

    @property
    def pictures(self) -> dict[str, Picture]:
        """The pictures of the report by name, such as `confusion`. The last expression of a cell is shown."""
        return {path.stem: Picture(path) for path in sorted((self.folder / "report").glob("*.png"))}

    def table(self) -> Table:
        """Return the test metrics with their intervals and directions."""
        rows = []
        for name, value in self.metrics.items():
            low, high = self.intervals.get(name, (None, None))
            rows.append([name, value, low, high, find(name).better])
        data = self.results.get("data") or {}
        caption = f"{self.results.get('protocol')}: {data.get('test')} test images, 95% intervals; {self.folder}"
        return Table(["metric", "value", "low", "high", "better"], rows, caption=caption)

    def history(self) -> Table:
        """Return the metrics of each epoch."""
        return _read_table(self.folder / "metrics.csv")

    def test_predictions(self) -> Table:
        """Return the predictions for the test images, with identity, target and posterior."""
        return _read_table(self.folder / "predictions.csv")

    def predict(self, images: ImageOrPath, *, trust: bool = False, **settings: Any) -> Table:
        """Return what the run predicts for new images: a row per image, as `python -m agebench.predict` writes it.

        The columns are `name`, the estimate (`point` and `label`), the posterior `p(LABEL)`, and `problem`: why an
        image cannot be read.

        Args:
            images: A folder, an archive, a CSV file with a column `path`, an image file; a PIL image; an array of
                uint8 of shape (H, W), (H, W, 3) or (N, H, W, 3); or a list of image files, PIL images and arrays.
            trust: Whether to run code that is not part of agebench, if the run names it.
            settings: Further keys of the command, such as `tta="flip"`, `accelerator="cpu"` or `checkpoint="last"`.

        Raises:
            UserError: If the run or the images cannot be read.

        Examples:
            >>> run.predict(["me.jpg", "you.jpg"]).column("point")  # doctest: +SKIP
            [31.5, 48.0]
        """
        overrides = [*to_overrides("predict", [], settings | {"trust": trust, "run": str(self.folder)}), "images=."]
        with errors_as_exceptions(), composed("predict", overrides) as cfg, log_messages():
            from agebench.build.keys import PredictKeys
            from agebench.cli.rules import check_config
            from agebench.data.unlabelled import Unlabelled

            check_config(cfg, PredictKeys)
            predictor = self._predictor(cfg, (*sorted(settings.items()), trust))
            if is_path(images):
                given: Any = Unlabelled(Path(images).expanduser(), resize=predictor.resize, batch_size=cfg.batch_size)
            else:
                given = GivenImages(images, resize=predictor.resize, batch_size=cfg.batch_size)
            columns, rows = predictor.tabulate(given)
            return _typed(columns, rows, ordered=predictor.stamp["ordered"])

    def module(self, *, trust: bool = False) -> "ImageModule":
        """Return the trained network with its normalisation and head, for an analysis of your own.

        The module is a new one at each call, on the CPU, in evaluation mode, with the weights that the run tested. It
        maps images, uint8, shape (B, C, S, S), to outputs, float32, shape (B, K). `module.model` is the network, which
        takes normalised images; `module.head.posterior(outputs)` are the probabilities.

        Args:
            trust: Whether to run code that is not part of agebench, such as a network of your own.

        Raises:
            UserError: If the run has no checkpoint, or names other code and `trust` is false.

        Examples:
            >>> module = run.module()  # doctest: +SKIP
            >>> module.head.posterior(module(images))  # doctest: +SKIP
        """
        with errors_as_exceptions():
            from agebench.build.checkpoint import read_checkpoint
            from agebench.build.module import build_trained

            _, stored, config = read_checkpoint(self.folder, "tested", dict(self.results), trust=trust)
            return build_trained(config, stored).eval()

    def _predictor(self, cfg: Any, key: tuple[Any, ...]) -> "Predictor":
        """Return the loaded network, which the next call with the same settings uses again."""
        from agebench.inference.predict import Predictor

        if key not in self._predictors:
            self._predictors[key] = Predictor(cfg)
        return self._predictors[key]

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}, {self.status})"

    def _repr_html_(self) -> str:
        link = ""
        if self.page is not None:
            link = Markup('<p>Page of the run: <a href="{}">{}</a></p>').format(self.page.as_uri(), self.page)
        about = Markup("<p>{}</p>").format(self.status) if self.status != "completed" else ""
        return f"{about}{self.table().to_html()}{link}"


def load(run: str | Path) -> Run:
    """Return the run in a folder. The network is loaded at the first prediction.

    Args:
        run: The folder that `train` wrote.

    Raises:
        UserError: If the folder is not that of a run.

    Examples:
        >>> load("outputs/digits/mlp-softmax/2026-11-29_03-28-14-0").predict("photos")  # doctest: +SKIP
    """
    return Run(run)


def _read_table(path: Path) -> Table:
    try:
        rows = read_csv(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: the run has not written it yet, or it is damaged") from error
    columns = list(rows[0]) if rows else []
    return _typed(columns, [list(row.values()) for row in rows], ordered=True)


def _typed(columns: list[str], rows: list[list[str]], *, ordered: bool) -> Table:
    """Return a table whose numbers are numbers; empty cells are None."""
    texts = {*TEXTS, "identity", "target", "protocol"} | (set() if ordered else {"point"})
    typed = [
        [(cell or None) if name in texts else _number(cell) for name, cell in zip(columns, row, strict=True)]
        for row in rows
    ]
    return Table(columns, typed)


def _number(cell: str) -> float | str | None:
    try:
        return float(cell) if cell else None
    except ValueError:
        return cell
