"""`python -m agebench.prepare`: check a data set, fetch or draw what can be, and pack its pixels."""

from typing import Any

from agebench.cli.main import main as run_verb


def prepare(cfg: Any) -> None:
    """Set a data set up by a composed config and say what is there."""
    import logging
    from pathlib import Path

    from agebench.cli.rules import check_config

    check_config(cfg)
    from agebench.build.data import build_images
    from agebench.data.image_tree import export_tree, make_empty
    from agebench.data.split import PARTS
    from agebench.runs.tables import write_missing_and_broken

    log = logging.getLogger("agebench.prepare")
    tree = None if cfg.export is None else Path(str(cfg.export)).expanduser()
    if tree is not None:
        make_empty(tree)  # before the packing, which may take minutes
    images = build_images(cfg)
    data = images.plan
    listed = len(data.records) + len(data.missing)
    there = len(data.records) - len(data.broken)
    log.info("%s: %s of %s images are there", data.name, f"{there:,}", f"{listed:,}")
    log.info("protocol %s, %d labels: %s", data.protocol, data.target.num_labels, " ".join(data.target.label_names))
    people = data.records.columns.get("identity")
    for part in PARTS:
        rows = data.split.part(part)
        labels = len(set(data.target.labels[rows].tolist()))
        who = "" if people is None else f", {len(set(people[rows].tolist())):,} identities"
        log.info("  %-5s %9s images, %3d labels%s", part, f"{len(rows):,}", labels, who)
    side = " x ".join(map(str, images.store.shape[1:]))
    log.info("packed as uint8 %s, %s, in %s", side, f"{images.num_bytes / 2**20:,.1f} MiB", images.store.folder)
    losses = {"missing": len(data.missing), "broken": len(data.broken)}
    try:
        write_missing_and_broken(images.store.folder, data)
    except OSError as error:  # a cache that others have packed may be theirs alone to write
        log.warning("cannot list what is missing or broken in %s: %s", images.store.folder, error.strerror or error)
        losses = {}
    if lost := [kind for kind, count in losses.items() if count]:
        log.info("what is %s is listed in %s there", " or ".join(lost), " and ".join(f"{kind}.csv" for kind in lost))
    if tree is not None:
        count = export_tree(images, tree)
        log.info("exported %s images to %s, a folder a part and label", f"{count:,}", tree)


def main() -> None:
    """Run the verb."""
    run_verb("prepare", prepare, config_name="prepare")


if __name__ == "__main__":
    main()
