"""The cases by kind. A case writes its damaged input into the current folder and returns a command line."""

import random
import shlex
import shutil

import images
import metadata
import overrides
import packed
import run_files
import tables
from materials import Case

# Each kind: how many of 100 cases are of it, and its cases by name.
KINDS: dict[str, tuple[int, dict[str, Case]]] = {
    "override": (34, overrides.OVERRIDES),
    "table": (10, tables.TABLES),
    "mat": (7, metadata.MATS),
    "idx": (6, metadata.IDX),
    "archive": (9, packed.ARCHIVES),
    "image": (9, images.IMAGES),
    "bits": (8, run_files.CHECKPOINTS),
    "stamp": (8, run_files.STAMPS),
    "field": (6, run_files.RUN_FIELDS),
    "file": (6, run_files.RUN_FILES),
}
# Names that are drawn more often than the others of their kind.
OFTEN = {"value": 12, "added": 2, "compare": 2, "mat_field": 6, "zip_member": 6, "tar_member": 6, "odd_cell": 4}


def draw(count: int, seed: int, kinds: list[str]) -> list[str]:
    """Return cases as KIND/NAME/NUMBER. The same seed gives the same cases."""
    rng = random.Random(f"{seed} {kinds}")
    shares = [KINDS[kind][0] for kind in kinds]
    drawn = []
    for kind in rng.choices(kinds, shares, k=count):
        names = list(KINDS[kind][1])
        name = rng.choices(names, [OFTEN.get(each, 1) for each in names])[0]
        drawn.append(f"{kind}/{name}/{rng.randrange(10**6)}")
    return drawn


def build(case: str) -> list[str]:
    """Write the input of a case into the current folder, and return its command line.

    Args:
        case: KIND/NAME/NUMBER, a field to change (see run_files.change_named_field), or a command line such as
            `train data.limit=0`.
    """
    if run_files.CHANGE.fullmatch(case):
        return run_files.change_named_field(case)
    kind, _, rest = case.partition("/")
    if kind not in KINDS:
        overrides.surround()
        shutil.copytree("digits_run", "run")
        return shlex.split(case)
    return KINDS[kind][1][rest.partition("/")[0]](random.Random(case))
