"""Cases of archives."""

import io
import os
import random
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import damage
import materials
from materials import SMALL, Case, line, use

Random = random.Random


def archive_line(rng: Random, path: str) -> list[str]:
    use("ages_run")
    folder = f"data=folder data.root={path} data.image_size=8"
    lines = [f"audit {folder}", f"prepare {folder}", f"predict run=ages_run images={path}"]
    return line(rng, *lines, f"train {folder} model=mlp {shlex.join(SMALL)}")


def _archive_bytes(spoil: Callable[[Random, bytes], bytes]) -> Case:
    def case(rng: Random) -> list[str]:
        name = f"classes{rng.choice(('.zip', '.tar', '.tar.gz'))}"
        Path(name).write_bytes(spoil(rng, (materials.base / name).read_bytes()))
        return archive_line(rng, name)

    return case


NAMES = (
    "../../x.png", "/x.png", "C:\\x.png", "a/../../x.png", "a\\b.png", "a\x00b.png", "a\nb.png", "\x1b[31m.png",
    ".png", "cat/", "cat/0.png", "CAT/0.png", "./cat/x.png", "cat//x.png", "x/" * 200 + "x.png", "y" * 300 + ".png",
    "あ/い.png", "e\u0301/1.png", "\udcff/1.png", "con/1.png", "cat/x.png.zip", "cat", "=1+1/1.png", " /1.png",
    "a/b/c/d/1.png", "",
)  # fmt: skip


def zip_member(rng: Random) -> list[str]:
    """Add a zip member with an odd name, mode, method or content."""
    use("classes.zip")
    image = (materials.base / "classes/cat/0.png").read_bytes()
    with zipfile.ZipFile("classes.zip", "a") as packed:
        info = zipfile.ZipInfo(rng.choice((*NAMES, *["dog/9.png"] * 20)).encode("utf-8", "replace").decode())
        info.external_attr = rng.choice((0, 0o100644, 0o120777, 0o060644, 0o010644, 0o040755)) << 16
        info.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        packed.writestr(info, rng.choice((image, image, b"", b"\x00" * 2**25, b"not an image", b"../../x")))
    if rng.random() < 0.3:
        raw = bytearray(Path("classes.zip").read_bytes())
        at = raw.find(b"PK\x01\x02") + rng.choice((8, 10, 16, 20, 24, 34, 38, 42))  # flags, method, CRC, sizes, offset
        raw[at : at + 2] = rng.randbytes(2)
        Path("classes.zip").write_bytes(raw)
    return archive_line(rng, "classes.zip")


def tar_member(rng: Random) -> list[str]:
    """Write a tar with an odd member before or after the images."""
    suffix = rng.choice((".tar", ".tar.gz"))
    image = (materials.base / "classes/cat/0.png").read_bytes()
    info = tarfile.TarInfo(rng.choice((*NAMES[:-1], *["dog/9.png"] * 20)))
    info.type = rng.choice((*[tarfile.REGTYPE] * 6, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE,
                            tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"Z"))  # fmt: skip
    info.linkname = rng.choice(("/etc/passwd", "cat/0.png", "../x", ""))
    info.pax_headers = rng.choice(({}, {}, {"path": "x" * 5000 + ".png"}, {"size": "-1"}, {"size": "9" * 30},
                                   {"mtime": "nan"}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}))  # fmt: skip
    content = rng.choice((image, image, b"", b"not an image", b"\x00" * 2**22))
    info.size = len(content) if info.type == tarfile.REGTYPE else 0
    first = rng.random() < 0.5
    with tarfile.open(materials.base / "classes.tar") as whole, tarfile.open(
        f"classes{suffix}", "w:gz" if suffix == ".tar.gz" else "w", format=rng.choice((0, 1, 2)), errors="replace",
        encoding="utf-8",
    ) as tar:  # type: ignore[call-overload]  # fmt: skip
        members = [(each, whole.extractfile(each).read()) for each in whole.getmembers()]  # type: ignore[union-attr]
        for each, data in [(info, content), *members] if first else [*members, (info, content)]:
            try:
                tar.addfile(each, io.BytesIO(data))
            except (ValueError, UnicodeError):  # the format cannot hold it
                continue
    return archive_line(rng, f"classes{suffix}")


def odd_archive(rng: Random) -> list[str]:
    """Write an archive that is valid and empty, nested, named otherwise, or no file."""
    name = rng.choice(("a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.png", "a", "あ.zip"))
    kind = rng.choice(("empty zip", "empty tar", "nested", "other", "folder", "fifo", "link", "many", "two", "text"))
    if kind == "empty zip":
        zipfile.ZipFile(name, "w").close()
    elif kind == "empty tar":
        tarfile.open(name, "w").close()
    elif kind == "nested":
        with zipfile.ZipFile(name, "w") as packed:
            packed.write(materials.base / "classes.tar", "inner/classes.tar")
    elif kind == "other":
        shutil.copy(materials.base / f"classes{rng.choice(('.zip', '.tar', '.tar.gz'))}", name)
    elif kind == "folder":
        shutil.copytree(materials.base / "classes", name)
    elif kind == "fifo":
        os.mkfifo(name)
    elif kind == "link":
        Path(name).symlink_to(rng.choice((name, "nowhere", "/dev/zero", "/", str(materials.base / "classes.zip"))))
    elif kind == "many":
        with zipfile.ZipFile(name, "w") as packed:
            for i in range(3000):
                packed.writestr(f"{i}/{i}.png", b"")
    elif kind == "two":
        Path(name).write_bytes(
            (materials.base / "classes.zip").read_bytes() + (materials.base / "classes.tar.gz").read_bytes()
        )
    else:
        Path(name).write_text("あ\n" * 1000)
    return archive_line(rng, name)


ARCHIVES = {name: _archive_bytes(spoil) for name, spoil in damage.BYTES.items()}
ARCHIVES |= damage.named(zip_member, tar_member, odd_archive)
