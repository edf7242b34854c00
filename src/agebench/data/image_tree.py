"""The images themselves, sorted into folders as other tools want them."""

import re
import shutil
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from agebench.data.packed import PackedImages
from agebench.errors import UserError


def export_tree(images: PackedImages, folder: Path) -> int:
    """Write `folder/<part>/<label>/<name>` for every image of the split: `train/10s/...`, as torchvision's ImageFolder.

    Files are copied byte for byte; images that are in no file of their own (MNIST's) become PNG. Where val is the test
    part, as in some lectures, there is `train` and `val` and no `test`.

    Args:
        images: The packed images.
        folder: Where to; must be empty or not exist.

    Returns:
        How many images were written.

    Raises:
        UserError: If the folder has something in it already, or cannot be written; nothing of the tree is left then.
    """
    make_empty(folder)
    try:
        return _export(images, folder)
    except BaseException as error:  # also Ctrl-C: half a tree would be taken for a whole one
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot export to {folder} ({reason}); nothing is left of it: choose another export="
        ) from error


def _export(images: PackedImages, folder: Path) -> int:
    plan = images.plan
    parts = ("train", "val") if plan.split.val_is_test else ("train", "val", "test")
    jobs = [(part, row) for part in parts for row in images.in_reading_order(plan.split.part(part)).tolist()]
    for part, row in tqdm(jobs, desc="exporting", unit="img", disable=None, leave=False):
        label = plan.target.label_names[plan.target.labels[row]]
        path = folder / part / _safe(label) / _below(str(plan.records.names[row]))
        if path.exists():
            raise UserError(f"cannot export {plan.records.names[row]}: another image was written to {path} before")
        path.parent.mkdir(parents=True, exist_ok=True)
        content = images.file(row)
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            content.save(path.with_name(f"{path.name}.png"))
    return len(jobs)


def make_empty(folder: Path) -> None:
    """Make a folder; raise UserError if that cannot be, or there is something in it already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot export to {folder} ({reason}); choose another export=FOLDER") from error
    if not empty:
        raise UserError(f"cannot export to {folder}: it is not an empty folder; choose another export=FOLDER")


def _below(name: str) -> PurePosixPath:
    """Return a name as a path that stays below the folder it is put in; a table's may be absolute."""
    parts = [_safe(part) for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return PurePosixPath(*parts)


def _safe(name: str) -> str:
    """Replace what Windows allows in no file name."""
    return re.sub(r'[<>:"|?*/\\\x00-\x1f]', "_", name)
