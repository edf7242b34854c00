"""Write a small synthetic CACD: the same files and fields, with drawn faces that age."""

import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock

from agebench.data.records import Array
from agebench.data.sources.drawn_faces.person import sample_face
from agebench.data.sources.drawn_faces.photo import draw_photo
from agebench.errors import UserError
from agebench.progress import Bar

META = "celebrity2000_meta.mat"
FOLDER = "CACD2000"
MARK = b"agebench demo"  # in every written file, so that real data is never mistaken for the demo and replaced
DRAWING = 1  # increase this when the drawing changes, so that older data sets are drawn again
FIRST_YEAR, YEARS = 2004, 10
YOUNGEST, OLDEST = 14, 53  # age in FIRST_YEAR; ten years later the oldest are 62, as in CACD

GIVEN_LONG_HAIR = """Ada Brynn Celeste Daria Elin Fenja Greta Hedda Imogen Jolanta Kerstin Linnéa Maëlle Nadia Ottilie
Petra Renée Sølvi Tamsin Ursula Vesna Wilma Ysolde Zoë"""
GIVEN_SHORT_HAIR = """Alaric Bertil Caspian Dáire Edvin Florian Gideon Håkon Ivo Jürgen Kasimir Leopold Magnus Niño
Orlando Pavel Quentin Raúl Søren Tobias Ulric Viggo Wendel Zoltán"""
FAMILY = """O'Fennimore Östervang Ashgrove Brindlemoor Peñalora D'Alvarone Calderwick Dunmarrow Åkervind Eastermoss
Fallowmere Göllnitz O'Hallowby Glimmerford Hollowell Ibáñezar Inkpenny Jessamoor Kühlbrück D'Estremont Kettlewold
Larkhollow Lindqvär Mossington Nightlamb Oddersby Béaulincourt O'Quillane Plumstone Quaverley Rådmansö Rookhurst
Sedgewall Tørholm Thistlewaite Umberfield L'Orangère Velvetine Wexcombe Çelidor Yarrowdale Zephyrine Marrowick
Núñelar Pebblecroft Winterbourn O'Tarrowen Saltmarshe"""
LARGEST = len(FAMILY.split()) * len(GIVEN_LONG_HAIR.split())


@dataclass(frozen=True)
class Recipe:
    """The arguments that determine every byte of the data set."""

    people: int
    images: int
    seed: int
    size: int
    drawing: int = DRAWING


def write_demo(root: Path, *, people: int = 750, images: int = 3000, seed: int = 0, size: int = 250) -> None:
    """Write the demo data set into root, unless it is already there.

    The same arguments give the same bytes with the same versions of NumPy, SciPy and Pillow. An interrupted call leaves
    no data set that looks complete, and the next call starts over. A demo with other arguments is replaced.

    Args:
        root: Folder for `celebrity2000_meta.mat`, `CACD2000/*.jpg` and `demo.json`; created if missing.
        people: Number of people, 3 to 1152: about 10% have rank 1-2, 15% rank 3-5, and the rest 6-50.
        images: Number of photos in total, at least one for each person; ages range from 14 to 62.
        seed: Seed of the people and photos, at least 0.
        size: Side of the photos in px, at least 16; CACD has 250.

    Raises:
        UserError: If a number is out of range, or root contains CACD files that this function did not write.
    """
    for name, value, low, high in (
        ("people", people, 3, LARGEST),
        ("images", images, people, 10**6),
        ("seed", seed, 0, 2**32 - 1),
        ("size", size, 16, 4096),
    ):
        if not low <= value <= high:
            raise UserError(
                f"the demo needs {name} from {low} to {high}, got {value}; set data.source.{name} in that range"
            )
    demo = Recipe(people, images, seed, size)
    if _is_complete(root, demo):
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the demo needs a writable folder, got {root} ({error}); set data.root") from error
    with FileLock(root / ".demo.lock"):  # the jobs of a sweep may all call this at once
        if _is_complete(root, demo):
            return
        _refuse_foreign_files(root)
        _write(root, demo)


def _is_complete(root: Path, demo: Recipe) -> bool:
    try:
        written = json.loads((root / "demo.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    photos = sum(1 for _ in (root / FOLDER).glob("*.jpg"))
    return bool(written == vars(demo)) and (root / META).is_file() and photos == demo.images


def _refuse_foreign_files(root: Path) -> None:
    for path in sorted(root.iterdir()):
        name = path.name.lower()
        if not (name.startswith(("cacd", "celebrity")) or name.endswith((".jpg", ".mat"))):
            continue
        expected = path.name in (META, FOLDER)
        files = [file for file in path.iterdir() if not file.name.startswith(".")] if path.is_dir() else [path]
        if not (expected and all(_has_mark(file) for file in files)):
            raise UserError(
                f"the demo needs a folder without other CACD files, and {path} was not written by the demo; "
                f"set data.root to another folder, or use data=cacd for the real data"
            )


def _has_mark(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return MARK in file.read(116)


def _write(root: Path, demo: Recipe) -> None:
    people = draw_people(demo)
    rows = draw_rows(demo, people)
    partial = root / ".demo-partial"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / FOLDER).mkdir(parents=True)
    faces = [sample_face(demo.seed, k + 1, long_hair=bool(people["long_hair"][k])) for k in range(demo.people)]
    with Bar("drawing faces", total=demo.images) as bar:
        for row in range(demo.images):
            k = int(rows["identity"][row]) - 1
            rng = np.random.default_rng((3, demo.seed, k + 1, int(rows["index"][row])))
            image = draw_photo(faces[k], int(rows["age"][row]), rng, demo.size)
            image.save(partial / FOLDER / rows["name"][row], "JPEG", quality=int(rng.integers(55, 93)), comment=MARK)
            bar.update()
    (partial / META).write_bytes(_meta(people, rows))
    (partial / "demo.json").write_text(json.dumps(vars(demo)) + "\n", encoding="utf-8")
    # demo.json marks a complete data set, so it is removed first and replaced last.
    (root / "demo.json").unlink(missing_ok=True)
    shutil.rmtree(root / FOLDER, ignore_errors=True)
    for name in (FOLDER, META, "demo.json"):
        (partial / name).replace(root / name)
    partial.rmdir()


def draw_people(demo: Recipe) -> dict[str, Array]:
    """Return name, birth, rank, lfw and long_hair of each person, arrays of shape (people,), oldest first."""
    rng = np.random.default_rng((1, demo.seed))
    count = demo.people
    # Ages are evenly spaced, with 10% of the people at each end. Otherwise teens and sixties would be rare.
    spread = 1.25 * (np.arange(count) + rng.random(count)) / count - 0.125
    start = np.clip(np.rint(OLDEST - (OLDEST - YOUNGEST) * spread), YOUNGEST, OLDEST)
    # Each part takes people at even steps from the oldest to the youngest, so that it contains every decade.
    rank = np.arange(count) % 45 + 6
    rest = np.arange(count)
    for share, ranks in ((0.10, (1, 2)), (0.15, (3, 4, 5))):
        chosen = np.rint(np.linspace(0, len(rest) - 1, max(1, round(share * count)))).astype(np.int64)
        rank[rest[chosen]] = np.resize(ranks, len(chosen))
        rest = np.delete(rest, chosen)
    order = np.lexsort((rank, -start))  # CACD numbers people by year of birth, then rank
    long_hair = rng.random(count) < 0.5
    families = FAMILY.split()
    first = rng.integers(LARGEST, size=len(families))
    names = []
    for k in range(count):
        given = (GIVEN_LONG_HAIR if long_hair[k] else GIVEN_SHORT_HAIR).split()
        turn, family = divmod(k, len(families))  # no family gets a given name twice
        names.append(f"{given[(first[family] + turn) % len(given)]}_{families[family]}")
    return {
        "name": np.array(names),
        "birth": (FIRST_YEAR - start[order]).astype(np.int64),
        "rank": rank[order],
        "lfw": (rng.random(count) < 0.3).astype(np.int64),
        "long_hair": long_hair,
    }


def draw_rows(demo: Recipe, people: dict[str, Array]) -> dict[str, Array]:
    """Return the columns of the photos, each of shape (images,), sorted by identity, then year."""
    rng = np.random.default_rng((2, demo.seed))
    ages = FIRST_YEAR - people["birth"][:, None] + np.arange(YEARS)  # (people, YEARS)
    seen = np.bincount(ages.ravel())
    least = max(1, int(0.6 * demo.images / demo.people))
    share = np.full(demo.people, 1 / demo.people)
    photos = least + rng.multinomial(demo.images - least * demo.people, share)
    columns: dict[str, list[int]] = {"identity": [], "year": [], "number": [], "index": []}
    for k, count in enumerate(photos):
        weight = 1 / seen[ages[k]] ** 2  # more photos at the ages that few people reach
        every = int(count >= YEARS)
        in_year = every + rng.multinomial(count - every * YEARS, weight / weight.sum())
        for year, n in enumerate(in_year):
            columns["identity"] += [k + 1] * n
            columns["year"] += [FIRST_YEAR + year] * n
            # CACD numbers the photos of a person from 0001 at every age, with gaps where a photo was removed.
            columns["number"] += np.cumsum(rng.geometric(0.6, size=n)).tolist()
        columns["index"] += range(count)
    rows = {key: np.array(values) for key, values in columns.items()}
    owner = rows["identity"] - 1
    rows |= {key: people[key][owner] for key in ("birth", "rank", "lfw")}
    rows["age"] = rows["year"] - rows["birth"]
    parts = zip(rows["age"], people["name"][owner], rows["number"], strict=True)
    rows["name"] = np.array([f"{age}_{name}_{number:04d}.jpg" for age, name, number in parts])
    return rows


def _meta(people: dict[str, Array], rows: dict[str, Array]) -> bytes:
    """Return the bytes of a MATLAB 5 file with the two structures of CACD, in the same field order and types."""

    def column(values: Array, dtype: str) -> Array:
        if dtype == "name":
            cells = np.empty((len(values), 1), dtype=object)
            cells[:, 0] = [np.array([str(value)]) for value in values]
            return cells
        return values.astype(dtype)[:, None]

    photos = {
        "age": column(rows["age"], "uint8"),
        "identity": column(rows["identity"], "uint16"),
        "year": column(rows["year"], "uint16"),
        "feature": np.zeros((0, 0), np.uint8),
        "rank": column(rows["rank"], "uint8"),
        "lfw": column(rows["lfw"], "uint8"),
        "birth": column(rows["birth"], "uint16"),
        "name": column(rows["name"], "name"),
    }
    celebrities = {
        "name": column(people["name"], "name"),
        "identity": column(np.arange(len(people["name"])) + 1, "int32"),
        **{key: column(people[key], "int32") for key in ("birth", "rank", "lfw")},
    }
    import scipy.io  # here, because it is slow to import

    file = io.BytesIO()
    scipy.io.savemat(file, {"celebrityData": celebrities, "celebrityImageData": photos}, do_compression=True)
    # The first 116 bytes are free text, in which SciPy writes the current time; here they are constant.
    return (b"MATLAB 5.0 MAT-file, " + MARK).ljust(116) + file.getvalue()[116:]
