"""Cases of tables and lists of images."""

import random
import shlex
from collections.abc import Callable
from pathlib import Path

import damage
from materials import SMALL, Case, line, use
from overrides import TABLE

Random = random.Random


def _table(spoil: Callable[[Random, str], bytes]) -> Case:
    def case(rng: Random) -> list[str]:
        use("table.csv", "list.csv", "images")
        name = rng.choice(("table.csv", "table.csv", "list.csv"))
        Path(name).write_bytes(spoil(rng, Path(name).read_text(encoding="utf-8")))
        table, column = shlex.join(TABLE), "data/split=column data.split.file=list.csv"
        if name == "list.csv":
            return line(rng, f"audit {table} {column}", f"prepare {table} {column}")
        split = rng.choice(("random", "official", "identity", "kfold"))
        return line(
            rng,
            f"audit {table} data/split={split}",
            f"audit {table} data.source.label=class",
            f"prepare {table} data/split={split} data.target=decade",
            f"train {table} model=mlp {shlex.join(SMALL)}",
        )

    return case


TABLES = {name: _table(spoil) for name, spoil in damage.TEXT.items()}
