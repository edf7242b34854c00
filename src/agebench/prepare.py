"""`python -m agebench.prepare`: check a data set, fetch or draw what can be, and pack its pixels."""

from typing import Any

from agebench.cli import main as run_verb


def prepare(cfg: Any) -> None:
    """Set a data set up by a composed config and say what is there."""
    import logging

    from agebench.check import check_config

    check_config(cfg)
    from agebench.build import build_data
    from agebench.data.split import PARTS

    log = logging.getLogger("agebench.prepare")
    data = build_data(cfg)
    data.setup()
    listed = len(data.records) + len(data.missing)
    log.info("%s: %s of %s images are there", data.name, f"{len(data.records):,}", f"{listed:,}")
    log.info("protocol %s, %d labels: %s", data.protocol, data.target.num_labels, " ".join(data.target.label_names))
    people = data.records.columns.get("identity")
    for part in PARTS:
        rows = data.split.part(part)
        labels = len(set(data.target.labels[rows].tolist()))
        who = "" if people is None else f", {len(set(people[rows].tolist())):,} identities"
        log.info("  %-5s %9s images, %3d labels%s", part, f"{len(rows):,}", labels, who)
    store = data.pixels
    log.info("packed %s of uint8 in %s", f"{store.numel() / 2**20:,.1f} MiB {tuple(store.shape)}", data.cache)


def main() -> None:
    """Run the verb."""
    run_verb("prepare", prepare, config_name="prepare")


if __name__ == "__main__":
    main()
