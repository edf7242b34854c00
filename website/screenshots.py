"""Takes the screenshots in docs/images, which are part of the repository.

It needs chromium (or Chrome: `--browser google-chrome`), and the folders of two trainings on drawn or included images:

    python -m agebench.train experiment=demo hydra.run.dir=outputs/screenshots/demo
    python -m agebench.train data=digits sweep=digits_models trainer.max_epochs=15 -m \\
        model=mlp,small_cnn optim.lr=3e-4,1e-3,3e-3 seed=0,1,2
    python website/screenshots.py
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

IMAGES = Path(__file__).parents[1] / "docs" / "images"
MAX_BYTES = 200_000
# Width and height of the window, and the time that the page has to load, in ms.
WINDOWS = {"page": (1000, 660, 0), "comparison": (1000, 653, 0), "tensorboard": (1060, 692, 20_000)}


def main() -> None:
    """Take the screenshots, and write them as PNG files of at most 256 colours."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--browser", default="chromium", help="command of Chromium or Chrome")
    parser.add_argument("--demo", type=Path, default=Path("outputs/screenshots/demo"), help="folder of a run")
    parser.add_argument("--sweep", type=Path, default=Path("outputs/sweeps/digits_models"), help="folder of a sweep")
    args = parser.parse_args()
    shoot("page", (args.demo / "report" / "index.html").resolve().as_uri(), args.browser)
    shoot("comparison", (args.sweep / "sweep.html").resolve().as_uri(), args.browser)
    with tensorboard(args.sweep) as address:
        shoot("tensorboard", f"{address}/#custom_scalars", args.browser)


def shoot(name: str, address: str, browser: str) -> None:
    """Write docs/images/NAME.png, the first screen of a page."""
    width, height, wait = WINDOWS[name]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        line = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        line += [f"--window-size={width},{height}", f"--screenshot={picture}", f"--user-data-dir={folder}/user"]
        line += [f"--virtual-time-budget={wait}"] if wait else []
        subprocess.run([*line, address], check=True, capture_output=True, timeout=300)
        packed = BytesIO()
        with Image.open(picture) as image:
            image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(packed, "PNG", optimize=True)
    if len(packed.getvalue()) > MAX_BYTES:
        raise SystemExit(
            f"{name}.png has {len(packed.getvalue()):,} bytes, more than {MAX_BYTES:,}: make its window smaller"
        )
    (IMAGES / f"{name}.png").write_bytes(packed.getvalue())
    print(f"{name}.png  {len(packed.getvalue()):,} bytes")


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Context manager: the address of a TensorBoard of a folder, on this machine only."""
    line = [sys.executable, "-m", "tensorboard.main", "--logdir", ".", "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(line, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        yield next(found[0] for text in server.stderr if (found := re.search(r"http://[^/\s]+", text)))
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
