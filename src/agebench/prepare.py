"""`python -m agebench.prepare`: check a data set, download or generate it if possible, and pack its pixels."""

from typing import Any

from agebench.cli.main import main as run_command

SHOWN_LABELS = 12


def prepare(cfg: Any) -> None:
    """Prepare the data set of a composed config and log which images it has."""
    import logging
    from pathlib import Path

    from agebench.build.keys import PrepareKeys
    from agebench.cli.rules import check_config

    check_config(cfg, PrepareKeys)
    from agebench.build.data import build_images
    from agebench.data.image_tree import export_tree, make_empty

    log = logging.getLogger("agebench.prepare")
    tree = None if cfg.export is None else Path(str(cfg.export)).expanduser()
    if tree is not None:
        make_empty(tree)  # before packing, which may take minutes
    images = build_images(cfg)
    _log_plan(images.plan, log)
    side = " x ".join(map(str, images.store.shape[1:]))
    log.info("packed as uint8 %s, %s, in %s", side, f"{images.num_bytes / 2**20:,.1f} MiB", images.store.folder)
    _list_unusable(images.plan, images.store.folder, log)
    if tree is not None:
        count = export_tree(images, tree)
        log.info("exported %s images to %s, one folder per part and label", f"{count:,}", tree)


def _log_plan(data: Any, log: Any) -> None:
    """Log the number of available images, the labels, and the size of each part of a plan."""
    from agebench.data.split import PARTS

    listed = len(data.records) + len(data.missing)
    available = len(data.records) - len(data.broken)
    log.info("%s: %s of %s images are available", data.name, f"{available:,}", f"{listed:,}")
    names = data.target.label_names
    if len(names) > SHOWN_LABELS:
        names = (*names[: SHOWN_LABELS - 2], "...", names[-1])
    log.info("protocol %s, %d labels: %s", data.protocol, data.target.num_labels, " ".join(names))
    people = data.records.columns.get("identity")
    for part in PARTS:
        rows = data.split.part(part)
        labels = len(set(data.target.labels[rows].tolist()))
        identities = "" if people is None else f", {len(set(people[rows].tolist())):,} identities"
        log.info("  %-5s %9s images, %3d labels%s", part, f"{len(rows):,}", labels, identities)


def _list_unusable(data: Any, folder: Any, log: Any) -> None:
    """Write missing.csv and broken.csv into the folder of the packed pixels."""
    from agebench.runs.tables import write_missing_and_broken

    counts = {"missing": len(data.missing), "broken": len(data.broken)}
    try:
        write_missing_and_broken(folder, data)
    except OSError as error:  # a shared cache may be read-only
        log.warning("cannot list the missing and broken images in %s: %s", folder, error.strerror or error)
        return
    if kinds := [kind for kind, count in counts.items() if count]:
        log.info("%s images are listed in %s there", " and ".join(kinds), " and ".join(f"{kind}.csv" for kind in kinds))


def main() -> None:
    """Run the command."""
    run_command("prepare", prepare, config_name="prepare")


if __name__ == "__main__":
    main()
