"""The page of `agebench.app`: a server on this machine that stores nothing and sends nothing to others.

The page is three static files. It sends a picture as the body of a request, and shows the row that `predict` would
write for it. Only this machine can connect, and only under the name of this machine: a website whose name was made to
point here (DNS rebinding) is refused.
"""

import base64
import io
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from agebench.data.background import has_other_background
from agebench.data.readers.folders import MAX_PIXELS, decode
from agebench.data.records import Array
from agebench.errors import BrokenImageError, UserError
from agebench.explanations import explain_images
from agebench.inference.evaluation_data import prepare
from agebench.inference.predict import Predictor
from agebench.runs.members import find_members

log = logging.getLogger(__name__)

MAX_BYTES = 32 * 2**20  # of a picture
MAX_RUNS = 8
HEAT = (213, 94, 0)  # red, green, blue
LOCAL = ("127.0.0.1", "localhost", "::1")
FILES = {"/": ("app.html", "text/html"), "/app.js": ("app.js", "text/javascript"), "/app.css": ("app.css", "text/css")}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class RefusedError(Exception):
    """A request that is answered with an error, which the page shows in the language of the reader.

    Args:
        code: The name of the sentence in app.js.
        text: The sentence in English.
        status: The HTTP status.
    """

    def __init__(self, code: str, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.code, self.status = code, status


class OneImage:
    """An image as the batches that Predictor takes.

    Args:
        pixels: uint8, shape (C, S, S).
    """

    def __init__(self, pixels: Array) -> None:
        self.pixels, self.names = pixels, ["picture"]
        self.broken: dict[int, str] = {}

    def __iter__(self) -> Iterator[Tensor]:
        yield torch.from_numpy(np.array(self.pixels[None]))  # (C, S, S) -> (1, C, S, S); a writable copy


class Page:
    """The runs, and the test images that the page offers.

    Args:
        cfg: The composed config of the command.

    Raises:
        UserError: If a run cannot be read, or there are too many.
    """

    def __init__(self, cfg: DictConfig) -> None:
        folders = find_members(cfg.run)
        if len(folders) > MAX_RUNS:
            raise UserError(
                f"app shows up to {MAX_RUNS} runs side by side, got {len(folders)}: name some of them in run="
            )
        own: Any = OmegaConf.to_container(cfg)
        self.runs = {
            f"{folder.absolute().parent.name}/{folder.absolute().name}": Predictor(
                OmegaConf.create({**own, "run": str(folder), "average": "posteriors"})
            )
            for folder in folders
        }
        self.examples = _find_examples(next(iter(self.runs.values())), cfg.examples)
        self._lock = threading.Lock()  # a trainer predicts for one request at a time

    def about(self) -> dict[str, Any]:
        """Return what the page shows before the first picture."""
        labels = [label for _, label in self.examples]
        return {"runs": list(self.runs), "examples": labels, "max_bytes": MAX_BYTES, "max_pixels": MAX_PIXELS}

    def read(self, data: bytes) -> Image.Image:
        """Return the decoded picture.

        Raises:
            RefusedError: If it cannot be read, or is too large.
        """
        try:
            return decode(data)
        except BrokenImageError as error:
            text = str(error)
            code = "pixels" if "too many" in text else "format" if "not an image" in text else "damaged"
            raise RefusedError("empty" if not data else code, f"this picture cannot be used: {text}") from error

    def predict(self, image: Image.Image | Array, *, invert: bool = False) -> list[dict[str, Any]]:
        """Return the answer of each run to a picture, or to the pixels of an example; inverted on request."""
        with self._lock:
            return [_answer(name, predictor, image, invert=invert) for name, predictor in self.runs.items()]


def _answer(name: str, predictor: Predictor, image: Image.Image | Array, *, invert: bool) -> dict[str, Any]:
    pixels = _pixels_for(predictor, image)
    pixels = 255 - pixels if invert else pixels
    columns, (row,) = predictor.tabulate(OneImage(pixels))
    labels, stamp = predictor.stamp["label_names"], predictor.stamp
    *given, _ = row  # without the column `problem`
    return {
        "run": name,
        "values": dict(zip(columns[1 : -1 - len(labels)], given[1 : len(given) - len(labels)], strict=True)),
        "labels": labels,
        "posterior": given[-len(labels) :],
        "ordered": stamp["ordered"],
        "unit": stamp["unit"],
        "numbers": list(stamp["values"]),
        "coverage": predictor.calibration.coverage if predictor.calibration else None,
        "other_background": bool(has_other_background(pixels[None], stamp.get("background"))[0]),
        "seen": _data_url(to_image(pixels)),
        "heat": _explain(predictor, pixels, np.array([float(share) for share in given[-len(labels) :]]).argmax()),
    }


def _explain(predictor: Predictor, pixels: Array, predicted: Any) -> dict[str, str] | None:
    """Return what raises the answer of a run as a transparent image, and the method; None for an average over views.

    Args:
        predictor: The run.
        pixels: The image, uint8, shape (C, S, S).
        predicted: The most likely label.
    """
    if predictor.model.facts:
        return None
    images = torch.from_numpy(np.array(pixels[None]))
    heat, method, _ = explain_images(predictor.model.module, images, np.array([predicted]))
    raised = heat[0].clip(0) / max(float(heat.max()), 1e-12)  # (S, S), in [0, 1]
    colours = np.zeros((*raised.shape, 4), dtype=np.uint8)
    colours[..., :3], colours[..., 3] = HEAT, 200 * raised
    return {"image": _data_url(Image.fromarray(colours)), "method": method}


def _pixels_for(predictor: Predictor, image: Image.Image | Array) -> Array:
    """Return a picture, or an example of another run, in the size of a run, uint8, shape (C, S, S)."""
    resize = predictor.resize
    if isinstance(image, Image.Image):
        return resize(image)
    return image if image.shape == (resize.channels, resize.size, resize.size) else resize(to_image(image))


def _find_examples(predictor: Predictor, count: int) -> list[tuple[Array, str]]:
    """Return test images of a run with their labels; none if its data set is not here."""
    if count == 0:
        return []
    first = predictor.model.first
    own = OmegaConf.create({"accelerator": "cpu", "precision": None})
    try:
        packed = prepare(own, first.config.copy(), first.stamp, run_dir=first.folder, user_keys=()).images
    except UserError as error:
        log.info("no example images: %s", error)
        return []
    plan = packed.plan
    rows = np.random.default_rng(0).permutation(plan.split.test)[:count]
    names = plan.target.label_names
    return [(np.array(packed.pixels[plan.rows[row]]), names[plan.target.labels[row]]) for row in rows.tolist()]


def to_image(pixels: Array) -> Image.Image:
    """Return uint8 pixels, shape (C, S, S), as an image."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def to_png(image: Image.Image) -> bytes:
    """Return an image as the content of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return file.getvalue()


def _data_url(image: Image.Image) -> str:
    return f"data:image/png;base64,{base64.b64encode(to_png(image)).decode()}"


class PageServer(ThreadingHTTPServer):
    """Serves the page on this machine only.

    Args:
        page: The page.
        port: 0 for any free port.
    """

    daemon_threads = True

    def __init__(self, page: Page, port: int) -> None:
        self.page = page
        super().__init__(("127.0.0.1", port), Handler)

    @property
    def address(self) -> str:
        """The address of the page."""
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "agebench", ""
    timeout = 60  # seconds without a byte

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: requests are no news."""

    def do_GET(self) -> None:  # the name that http.server calls
        """Answer with a file of the page, an example, or what the page shows first."""
        self._answer(self._get)

    def do_POST(self) -> None:
        """Answer with the predictions for the picture in the body, or for an example."""
        self._answer(self._predict)

    def _answer(self, find: Any) -> None:
        try:
            self._check_sender()
            content, kind = find(urlsplit(self.path))
            self._send(200, content, kind)
        except RefusedError as error:
            self.close_connection = True  # the body may not have been read
            self._send(error.status, json.dumps({"error": error.code, "text": str(error)}).encode(), "application/json")
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except Exception as error:
            log.exception("a picture could not be predicted")
            self.close_connection = True
            text = json.dumps({"error": "failed", "text": f"prediction failed: {type(error).__name__}"})
            self._send(500, text.encode(), "application/json")

    def _check_sender(self) -> None:
        """Raise RefusedError for a request that was not sent by the page itself."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        try:
            local = urlsplit(f"//{host}").hostname in LOCAL
        except ValueError:
            local = False
        if not local or origin not in (None, f"http://{host}"):
            raise RefusedError("host", "this page answers only to http://127.0.0.1 and http://localhost", 403)

    def _get(self, url: Any) -> tuple[bytes, str]:
        page = self.server.page
        if url.path in FILES:
            name, kind = FILES[url.path]
            return files("agebench.inference").joinpath("page", name).read_bytes(), f"{kind}; charset=utf-8"
        if url.path == "/about":
            return json.dumps(page.about()).encode(), "application/json"
        if url.path.startswith("/example/"):
            return to_png(to_image(self._example(url.path)[0])), "image/png"
        raise RefusedError("missing", "there is no such page", 404)

    def _example(self, path: str) -> tuple[Array, str]:
        number = path.removeprefix("/example/")
        if not number.isascii() or not number.isdecimal() or int(number[:9]) >= len(self.server.page.examples):
            raise RefusedError("missing", "there is no such example", 404)
        return self.server.page.examples[int(number[:9])]

    def _predict(self, url: Any) -> tuple[bytes, str]:
        page = self.server.page
        image: Image.Image | Array
        truth = None
        if url.path.startswith("/example/"):
            image, truth = self._example(url.path)
        elif url.path == "/predict":
            image = page.read(self._read_body())
        else:
            raise RefusedError("missing", "there is no such page", 404)
        answers = page.predict(image, invert=url.query == "invert")
        return json.dumps({"answers": answers, "truth": truth}).encode(), "application/json"

    def _read_body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            raise RefusedError("damaged", "the request has no length", 411)
        if len(length) > 12 or int(length) > MAX_BYTES:
            raise RefusedError("bytes", f"the file has more than {MAX_BYTES // 2**20} MiB", 413)
        return self.rfile.read(int(length))

    def _send(self, status: int, content: bytes, kind: str) -> None:
        headers: Mapping[str, str] = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)


def serve(cfg: DictConfig) -> None:
    """Serve the page of a config until the command is interrupted.

    Raises:
        UserError: If a run cannot be read, or the port is not free.
    """
    page = Page(cfg)
    try:
        server = PageServer(page, cfg.port)
    except OSError as error:
        why = error.strerror or str(error)
        raise UserError(f"port={cfg.port} cannot be used ({why}): set port=0 for any free port") from error
    with server:
        log.info("open %s in a browser on this machine; Ctrl-C ends it", server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            log.info("the page is closed")
