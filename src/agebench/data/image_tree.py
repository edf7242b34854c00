"""Export the images to one folder per class, the layout that other tools expect."""

import re
import shutil
from pathlib import Path, PurePosixPath

from agebench.data.packed import PackedImages
from agebench.errors import UserError
from agebench.progress import Bar


def export_tree(images: PackedImages, folder: Path) -> int:
    """Write every image of the split to `folder/<part>/<label>/<name>`, the layout of torchvision's ImageFolder.

    Image files are copied unchanged. Images that are not single files, as in MNIST, are written as PNG. If val is the
    test part, there are only `train` and `val`.

    Args:
        images: The packed images.
        folder: Output folder; must be empty or not exist.

    Returns:
        Number of images written.

    Raises:
        UserError: If the folder is not empty or cannot be written. A partial export is deleted.
    """
    make_empty(folder)
    try:
        return _export(images, folder)
    except BaseException as error:  # also Ctrl-C, because a partial tree looks like a complete one
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot export to {folder} ({reason}); the partial export was deleted: choose another export=FOLDER"
        ) from error


def _export(images: PackedImages, folder: Path) -> int:
    plan = images.plan
    parts = ("train", "val") if plan.split.val_is_test else ("train", "val", "test")
    jobs = [(part, row) for part in parts for row in images.in_reading_order(plan.split.part(part)).tolist()]
    with Bar("exporting", total=len(jobs)) as bar:
        for part, row in jobs:
            label = plan.target.label_names[plan.target.labels[row]]
            path = folder / part / _safe_name(label) / _relative_path(str(plan.records.names[row]))
            if path.exists():
                raise UserError(f"cannot export {plan.records.names[row]}: another image already has the path {path}")
            path.parent.mkdir(parents=True, exist_ok=True)
            content = images.file(row)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                content.save(path.with_name(f"{path.name}.png"))
            bar.update()
    return len(jobs)


def make_empty(folder: Path) -> None:
    """Create a folder; raise UserError if that fails or the folder is not empty."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        empty = not any(folder.iterdir())
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot export to {folder} ({reason}); choose another export=FOLDER") from error
    if not empty:
        raise UserError(f"cannot export to {folder}: it is not an empty folder; choose another export=FOLDER")


def _relative_path(name: str) -> PurePosixPath:
    """Return an image name, which may be an absolute path in a table, as a relative path without `..`."""
    parts = [_safe_name(part) for part in re.split(r"[/\\]", name) if part not in ("", ".", "..")]
    return PurePosixPath(*parts)


def _safe_name(name: str) -> str:
    """Return a name without the characters that Windows forbids in file names."""
    return re.sub(r'[<>:"|?*/\\\x00-\x1f]', "_", name)
