"""`python -m agebench.audit`: measure what a split leaks. Images are opened only with `duplicates=true`."""

import contextlib
import gc
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

from agebench.cli.main import main as run_verb
from agebench.text import align_columns

SHOWN_GROUPS = 10  # of a column, in the log


def audit(cfg: Any, drawing: "Drawing | None" = None) -> dict[str, Any]:
    """Audit the split of a composed config, write audit.json, audit.png and split.csv, and return audit.json.

    With `duplicates=true` and identical images, it also writes duplicates.csv.

    Args:
        cfg: The composed config.
        drawing: Draws the picture; started here if None.
    """
    from hydra.core.hydra_config import HydraConfig

    with contextlib.closing(drawing or Drawing()) as drawing:
        return _audit(cfg, Path(HydraConfig.get().runtime.output_dir), drawing)


def _audit(cfg: Any, folder: Path, drawing: "Drawing") -> dict[str, Any]:
    import logging

    from agebench.build.keys import AuditKeys
    from agebench.cli.rules import check_config

    check_config(cfg, AuditKeys)
    from agebench.build.data import build_planner
    from agebench.data.split import test_sha
    from agebench.errors import UserError
    from agebench.leakage import audit as audits
    from agebench.leakage.duplicates import audit_duplicates, duplicates_sentence
    from agebench.runs.folder import check_folder

    check_folder(folder, "audit")
    log = logging.getLogger("agebench.audit")
    planner = build_planner(cfg)
    unavailable = "" if cfg.listed else _unavailable_images(planner, log)
    listed = bool(cfg.listed or unavailable)
    if cfg.duplicates and unavailable:
        raise UserError(f"duplicates=true compares the images, but {unavailable}: check data.root")
    data = planner.plan(listed=listed)
    if unavailable:
        log.info("%s: all %s images that it lists are audited", unavailable, f"{len(data.records):,}")
    found = audits.audit(data.records, data.target, data.split)
    head = {"protocol": data.protocol, "split_sha": test_sha(data.records, data.split.test)}
    found["duplicates"], copies = audit_duplicates(planner.source, data) if cfg.duplicates else (None, [])
    found |= audits.describe(data.records, data.split)
    found = {**head, "listed": listed, **found, "verdict": audits.verdict(found)}

    log.info("protocol %s", data.protocol)
    for line in table(found):
        log.info(line)
    if cfg.duplicates:
        log.info("%s", duplicates_sentence(found["duplicates"]))
    log.info("%s", found["verdict"])
    _write(cfg, folder, data, found, copies=copies, drawing=drawing)
    log.info("written to %s", folder)
    return found


class Drawing:
    """Draws the picture of an audit in a process that imports matplotlib while this one audits.

    Where processes cannot be forked safely, this process draws.
    """

    def __init__(self) -> None:
        self.forked = sys.platform == "linux"
        if self.forked:
            import multiprocessing

            context = multiprocessing.get_context("fork")
            self.line, theirs = context.Pipe()
            context.Process(target=_draw_when_asked, args=(theirs, self.line), daemon=True).start()
            theirs.close()

    def start(self, *picture: Any) -> None:
        """Draw, with the arguments of _draw."""
        if self.forked:
            self.line.send(picture)
        else:
            _draw(*picture)

    def finish(self) -> None:
        """Wait until the picture is drawn; raise the error if it cannot be."""
        if self.forked and (error := self.line.recv()) is not None:
            raise error

    def close(self) -> None:
        """End the process."""
        if self.forked:
            self.line.close()


def _draw_when_asked(line: Any, inherited: Any) -> None:
    import io

    inherited.close()  # the other end, so that this process notices when the audit closes it or dies

    import agebench.report.leak  # noqa: F401  # what it imports takes half a second
    from agebench.report.style import new_figure, plot_style

    with plot_style():  # the first figure loads the fonts
        new_figure(3, 2, "audit").savefig(io.BytesIO())
    with contextlib.suppress(EOFError):  # the audits have ended
        while True:
            picture = line.recv()
            try:
                _draw(*picture)
                line.send(None)
            except Exception as error:
                line.send(error)


def _write(
    cfg: Any, folder: Path, data: Any, found: dict[str, Any], *, copies: list[tuple[Any, ...]], drawing: Drawing
) -> None:
    """Write the folder of an audit."""
    import numpy as np

    from agebench.data.split import PARTS
    from agebench.files import write_json
    from agebench.leakage.duplicates import COLUMNS
    from agebench.runs.folder import write_config
    from agebench.runs.tables import write_split, write_table

    folder.mkdir(parents=True, exist_ok=True)
    target = data.target
    counts = {part: np.bincount(target.labels[data.split.part(part)], minlength=target.num_labels) for part in PARTS}
    drawing.start(folder / "audit.png", found, counts, target.label_names, target.values)
    write_config(folder, cfg)
    write_json(folder / "audit.json", found)
    write_split(folder, data)
    write_table(folder / "duplicates.csv", COLUMNS, copies)
    drawing.finish()


def _draw(file: Path, found: dict[str, Any], counts: Any, label_names: tuple[str, ...], values: Any) -> None:
    from agebench.files import atomic_write
    from agebench.report.leak import draw_leak
    from agebench.report.style import plot_style

    with plot_style():
        figure = draw_leak(found, counts, label_names=label_names, values=values, title=found["protocol"])
        with atomic_write(file) as part:
            figure.savefig(part, format="png")


def _unavailable_images(planner: Any, log: Any) -> str:
    """Prepare a source. If it lists images but none is available, return a phrase that says so, else an empty text.

    An audit needs the list only.
    """
    from agebench.errors import NoImagesError, UserError

    none = f"no image of data={planner.name} is available"
    try:
        planner.source.prepare()
    except UserError as refusal:
        try:
            planner.source.records()
        except UserError as error:
            if str(error) != str(refusal):
                log.warning("%s", refusal)
            raise
        if not isinstance(refusal, NoImagesError):
            log.warning("%s", refusal)
            return f"it is unknown which images of data={planner.name} are available"
        log.info("%s", refusal)
        return none
    return "" if planner.source.present().any() else none


def table(found: dict[str, Any]) -> list[str]:
    """Return the result of an audit as aligned lines of text: a table of the parts and one of the baselines."""
    tables = [
        align_columns(header, rows, [i > 0 for i in range(len(header))])
        for header, *rows in (_part_table(found), _baseline_table(found))
    ]
    first, second = (["  " + "   ".join(line) for line in lines] for lines in tables)
    lines = _content_lines(found)
    return [*first, "", *second, *([""] if lines else []), *lines]


def _content_lines(found: dict[str, Any]) -> list[str]:
    """Return a line about the ages, and one with the groups of each column, largest first."""
    lines = []
    if ages := found["ages"]:
        span = f"{ages['youngest']} to {ages['oldest']} years, median {ages['median']:g}"
        lines.append(f"  ages: {span} ({ages['images']:,} images)")
    for column, groups in found["groups"].items():
        sizes = sorted(((sum(parts.values()), name) for name, parts in groups.items()), key=lambda each: -each[0])
        more = f" and {len(sizes) - SHOWN_GROUPS} more" if len(sizes) > SHOWN_GROUPS else ""
        shown = ", ".join(f"{name} {count:,}" for count, name in sizes[:SHOWN_GROUPS] if count)
        lines.append(f"  {column}: {shown}{more}")
    return lines


def _part_table(found: dict[str, Any]) -> list[list[str]]:
    """Return a header, and for each part its counts and what it shares with train."""
    parts = [["part", "images", "identities", "labels", "identity in train", "with the same label"]]
    for part, has in found["splits"].items():
        people = "-" if has["identities"] is None else f"{has['identities']:,}"
        shares = [found.get(f"{part}_{name}_in_train") for name in ("identity", "identity_and_label")]
        cells = ["-" if share is None else f"{share:.1%}" for share in shares]
        parts.append([part, f"{has['images']:,}", people, str(has["labels"]), *cells])
    return parts


def _baseline_table(found: dict[str, Any]) -> list[list[str]]:
    """Return a header, and the test metrics of the identity lookup and of a constant prediction."""
    metrics = {f"MAE in {found['unit']}": "mae", "accuracy": "accuracy"} if found["unit"] else {"accuracy": "accuracy"}
    lines = [["on test, without seeing a pixel", *metrics]]
    middle = "always the median or most common label" if found["unit"] else "always the most common label"
    for name, keys in (("identity looked up", ("lookup",)), (middle, ("median", "majority"))):
        values = [found[f"{key}_{metric}"] for metric in metrics.values() for key in keys if f"{key}_{metric}" in found]
        if keys == ("lookup",) and found["test_identity_in_train"] == 0:
            values = [None] * len(values)  # without a shared identity, they would repeat the next line
        lines.append([name, *("-" if value is None else f"{value:.3f}" for value in values)])
    return lines


def folder_name(data: Any) -> str:
    """Return the protocol of a composed data config without the data set's name, safe as a folder name."""
    from agebench.data.protocol import capped_name, split_name, target_name

    try:
        kind = str(data.split._target_).rpartition(".")[2]
        name = capped_name(split_name(kind, data.split), data.per_class, data.limit)
        return re.sub(r"[^\w.\-]+", "-", f"{name}-{target_name(data.target, data.bins)}")
    except Exception:  # check_config reports what is wrong with the config
        return "audit"


def main() -> None:
    """Run the verb."""
    flags = set(sys.argv[1:])
    if not flags & {"--help", "-h"}:  # which answers without these imports
        from omegaconf import OmegaConf

        OmegaConf.register_new_resolver("agebench.protocol", lambda *, _root_: folder_name(_root_.data), replace=True)
    only_prints = flags & {"--help", "-h", "--cfg", "-c", "--info", "-i", "--hydra-help"}
    run_verb("audit", audit if only_prints else partial(audit, drawing=Drawing()), config_name="audit")
    gc.freeze()  # the exit does not look for cycles among the records, which takes 0.15 s for 163,446


if __name__ == "__main__":
    main()
