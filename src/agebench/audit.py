"""`python -m agebench.audit`: what a split leaks, told without opening an image."""

import contextlib
import re
from pathlib import Path
from typing import Any

from agebench.cli.main import main as run_verb
from agebench.text import align_columns


def audit(cfg: Any) -> dict[str, Any]:
    """Audit the split of a composed config; write audit.json, audit.png and split.csv, and return the former."""
    from hydra.core.hydra_config import HydraConfig

    folder = Path(HydraConfig.get().runtime.output_dir)
    try:
        return _audit(cfg, folder)
    except Exception:
        if folder != Path.cwd():
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()  # Hydra has made it
        raise


def _audit(cfg: Any, folder: Path) -> dict[str, Any]:
    import logging

    from agebench.cli.rules import RULES, check_config

    check_config(cfg, [*RULES, ("listed", lambda value: isinstance(value, bool), "true or false")])
    import numpy as np

    from agebench.build.data import build_planner
    from agebench.data.split import PARTS, test_sha
    from agebench.files import write_json
    from agebench.leakage import audit as audits
    from agebench.report.leak import draw_leak
    from agebench.report.style import plot_style
    from agebench.runs.folder import check_folder, write_config
    from agebench.runs.tables import write_split

    check_folder(folder, "audit")
    log = logging.getLogger("agebench.audit")
    planner = build_planner(cfg)
    lack = "" if cfg.listed else _lack_of_images(planner, log)
    data = planner.plan(listed=bool(cfg.listed or lack))
    if lack:
        log.info("%s: all %s that it lists are audited", lack, f"{len(data.records):,}")
    found = audits.audit(data.records, data.target, data.split)
    head = {"protocol": data.protocol, "split_sha": test_sha(data.records, data.split.test)}
    found = {**head, "listed": bool(cfg.listed or lack), **found, "verdict": audits.verdict(found)}

    log.info("protocol %s", data.protocol)
    for line in table(found):
        log.info(line)
    log.info("%s", found["verdict"])
    folder.mkdir(parents=True, exist_ok=True)
    write_config(folder, cfg)
    write_json(folder / "audit.json", found)
    write_split(folder, data)
    target = data.target
    counts = {part: np.bincount(target.labels[data.split.part(part)], minlength=target.num_labels) for part in PARTS}
    with plot_style():
        figure = draw_leak(found, counts, label_names=target.label_names, values=target.values, title=data.protocol)
        figure.savefig(folder / "audit.png")
    log.info("written to %s", folder)
    return found


def _lack_of_images(data: Any, log: Any) -> str:
    """Make a source ready; if it lists images and has none to open, return why: the list is then enough."""
    from agebench.errors import NoImagesError, UserError

    none = f"no image of data={data.name} is there"
    try:
        data.source.prepare()
    except UserError as refusal:
        try:
            data.source.records()
        except UserError as error:
            if str(error) != str(refusal):
                log.warning("%s", refusal)
            raise
        if not isinstance(refusal, NoImagesError):
            log.warning("%s", refusal)
            return f"which images of data={data.name} are there cannot be told"
        log.info("%s", refusal)
        return none
    return "" if data.source.present().any() else none


def table(found: dict[str, Any]) -> list[str]:
    """Return what was found as aligned lines of text."""
    parts = [["part", "images", "identities", "labels", "identity in train", "with the same label"]]
    for part, has in found["splits"].items():
        people = "-" if has["identities"] is None else f"{has['identities']:,}"
        shares = [found.get(f"{part}_{name}_in_train") for name in ("identity", "identity_and_label")]
        told = ["-" if share is None else f"{share:.1%}" for share in shares]
        parts.append([part, f"{has['images']:,}", people, str(has["labels"]), *told])
    metrics = {f"MAE in {found['unit']}": "mae", "accuracy": "accuracy"} if found["unit"] else {"accuracy": "accuracy"}
    blind = [["on test, without seeing a pixel", *metrics]]
    middle = "always the median or most common label" if found["unit"] else "always the most common label"
    for words, ways in (("identity looked up", ("lookup",)), (middle, ("median", "majority"))):
        figures = [
            found[f"{way}_{metric}"] for metric in metrics.values() for way in ways if f"{way}_{metric}" in found
        ]
        if ways == ("lookup",) and found["test_identity_in_train"] == 0:
            figures = [None] * len(figures)  # nobody to look up: they would be the next line's
        blind.append([words, *("-" if figure is None else f"{figure:.3f}" for figure in figures)])
    tables = [align_columns(header, rows, [i > 0 for i in range(len(header))]) for header, *rows in (parts, blind)]
    first, second = (["  " + "   ".join(line) for line in lines] for lines in tables)
    return [*first, "", *second]


def folder_name(data: Any) -> str:
    """Return the protocol of a composed data config without the data set's name, in letters that every disk takes."""
    from agebench.data.protocol import capped_name, split_name, target_name

    try:
        kind = str(data.split._target_).rpartition(".")[2]
        name = capped_name(split_name(kind, data.split), data.per_class, data.limit)
        return re.sub(r"[^\w.\-]+", "-", f"{name}-{target_name(data.target, data.bins)}")
    except Exception:  # whatever is wrong with the config, check_config is about to say in a sentence
        return "audit"


def main() -> None:
    """Run the verb."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver("agebench.protocol", lambda *, _root_: folder_name(_root_.data), replace=True)
    run_verb("audit", audit, config_name="audit")


if __name__ == "__main__":
    main()
