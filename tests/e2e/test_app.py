"""The local page of agebench.app: its answers, and the requests that it refuses."""

import base64
import csv
import io
import json
import re
import shutil
import struct
import threading
import zlib
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from agebench.explanations import explain_images
from agebench.inference.app_server import MAX_BYTES, Page, PageServer, to_image, to_png


class Client:
    """Sends requests to a page."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        """Return the status, and the content: JSON, or bytes of another type."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        assert response.headers["Cache-Control"] == "no-store"
        return response.status, json.loads(content) if "json" in response.headers["Content-Type"] else content


@pytest.fixture(scope="module")
def page(conf: Path, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Return the page of two runs: that of `trained`, and a calibrated copy."""
    other = tmp_path_factory.mktemp("copy") / "calibrated"
    shutil.copytree(trained / "run", other)
    results = json.loads((other / "results.json").read_text())
    names = [str(value) for value in range(14, 63)]
    stored = {"coverage": 0.9, "temperature": 2.0, "threshold": 0.3, "over": "identity", "groups": 20, "images": 30}
    stored |= {"ordered": True, "values": [float(name) for name in names], "weights_sha": results["weights_sha"]}
    (other / "calibration.json").write_text(json.dumps(stored | {"method": "conformal", "nll": {}}))
    keys = OmegaConf.load(conf / "app.yaml")
    changes = {"run": [f"{trained}/run", str(other)], "accelerator": "cpu", "examples": 3, "age_limit": 18}
    return Page(OmegaConf.merge({key: keys[key] for key in keys.keys() - {"run", "defaults", "hydra"}}, changes))


@pytest.fixture(scope="module")
def client(page: Page) -> Iterator[Client]:
    with PageServer(page, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Client(server.server_port)
        server.shutdown()
        thread.join()


def png_without_pixels(side: int) -> bytes:
    """Return a grey PNG file that ends where its pixels begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT"


def test_each_run_answers_with_the_row_of_predict(command, client: Client, page: Page, trained: Path) -> None:
    photo = next((trained / "data" / "demo" / "CACD2000").glob("*.jpg"))
    expected = []
    for i, predictor in enumerate(page.runs.values()):
        run = predictor.model.first.folder
        command("predict", f"run={run}", f"images={photo}", f"output={i}.csv", "accelerator=cpu", "age_limit=18")
        with Path(f"{i}.csv").open(encoding="utf-8-sig", newline="") as lines:
            expected += list(csv.DictReader(lines))

    status, found = client.ask("POST", "/predict", photo.read_bytes())

    assert status == 200
    assert found["truth"] is None
    for row, answer in zip(expected, found["answers"], strict=True):
        posterior = {f"p({name})": share for name, share in zip(answer["labels"], answer["posterior"], strict=True)}
        assert {**answer["values"], **posterior} == {key: row[key] for key in row if key not in ("name", "problem")}
    plain, calibrated = found["answers"]
    assert "low" not in plain["values"]
    assert calibrated["coverage"] == 0.9
    assert float(calibrated["values"]["low"]) <= float(calibrated["values"]["high"])


def test_the_answer_has_a_transparent_image_of_what_raises_it(client: Client, page: Page) -> None:
    (answer, _) = client.ask("POST", "/example/0")[1]["answers"]

    image = Image.open(io.BytesIO(base64.b64decode(answer["heat"]["image"].partition(",")[2])))
    alpha = np.asarray(image)[..., 3]
    predictor = next(iter(page.runs.values()))
    label = int(np.argmax([float(share) for share in answer["posterior"]]))
    images = torch.from_numpy(page.examples[0][0][None])
    heat, method, _ = explain_images(predictor.model.module, images, np.array([label]))
    assert answer["heat"]["method"] == method == "HiResCAM"
    assert image.size == (32, 32)
    assert np.array_equal(alpha > 0, heat[0] > heat.max() / 200)
    assert alpha.max() == 200


def test_an_example_is_answered_as_in_the_test_of_the_run(client: Client, page: Page, trained: Path) -> None:
    with (trained / "run" / "predictions.csv").open(encoding="utf-8-sig", newline="") as lines:
        tested = {(row["target"], f"{float(row['point']):.4g}") for row in csv.DictReader(lines)}

    _, about = client.ask("GET", "/about")
    answers = [client.ask("POST", f"/example/{i}")[1] for i in range(len(about["examples"]))]

    assert len(answers) == 3
    for label, found in zip(about["examples"], answers, strict=True):
        assert found["truth"] == label
        assert (label, f"{float(found['answers'][0]['values']['point']):.4g}") in tested
    assert client.ask("GET", "/example/0")[1].startswith(b"\x89PNG")
    assert client.ask("GET", "/example/3")[0] == 404


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"<script>alert(1)</script>", "format"),
        (png_without_pixels(100), "damaged"),
        (png_without_pixels(10_000), "pixels"),  # refused by its header: there are no pixels to decode
    ],
    ids=["empty", "text", "truncated", "100 megapixels"],
)
def test_a_bad_file_is_refused_with_a_sentence(client: Client, data: bytes, code: str) -> None:
    status, found = client.ask("POST", "/predict", data)

    assert status == 400
    assert found["error"] == code
    assert len(found["text"]) > 10


def test_a_large_file_is_refused_before_it_is_read(client: Client) -> None:
    status, found = client.ask("POST", "/predict", b"", Content_Length=str(MAX_BYTES + 1))

    assert (status, found["error"]) == (413, "bytes")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "localhost:8808"}, 200),
        ({"Host": "[::1]:8808", "Origin": "http://[::1]:8808"}, 200),
        ({"Host": "rebound.example:8808"}, 403),
        ({"Host": "127.0.0.1.example"}, 403),
        ({"Host": "["}, 403),
        ({"Host": "localhost:8808", "Origin": "http://other.example"}, 403),
        ({"Host": "localhost:8808", "Origin": "null"}, 403),
    ],
)
def test_only_the_page_itself_under_the_name_of_this_machine_is_answered(client: Client, headers, status) -> None:
    assert client.ask("GET", "/about", **headers)[0] == status


def test_the_page_loads_only_its_own_files(client: Client) -> None:
    for path in ("/", "/app.js", "/app.css"):
        status, content = client.ask("GET", path)
        assert status == 200
        # The rest are the names of this machine and of SVG.
        others = re.findall(rb"(?:https?:)?//[a-z][\w.]*\.[\w./]+", content)
        assert set(others) <= {b"http://www.w3.org/2000/svg"}
    assert client.ask("GET", "/../pyproject.toml")[0] == 404


def test_the_server_listens_on_this_machine_only(page: Page) -> None:
    with PageServer(page, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_a_port_in_use_ends_with_a_sentence(command, page: Page, trained: Path, capsys) -> None:
    with PageServer(page, 0) as server, pytest.raises(SystemExit) as end:
        command("app", f"run={trained}/run", f"port={server.server_port}", "accelerator=cpu", "examples=0")

    assert end.value.code == 2
    assert "set port=0 for any free port" in capsys.readouterr().err


def test_without_a_run_the_command_says_what_it_needs(command, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        command("app")

    assert end.value.code == 2
    assert "app needs a trained run: run=outputs/..." in capsys.readouterr().err


def test_pixels_become_an_image_of_the_same_values() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)

    assert np.array_equal(np.asarray(to_image(pixels)).transpose(2, 0, 1), pixels)
    assert np.array_equal(np.asarray(to_image(pixels[:1])), pixels[0])


def seen_pixels(answer: dict[str, Any]) -> np.ndarray:
    """Return the pixels that the network gets."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer["seen"].partition(",")[2]))))


def test_a_picture_is_inverted_on_request(client: Client) -> None:
    pixels = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)

    _, plain = client.ask("POST", "/predict", to_png(Image.fromarray(pixels)))
    _, inverted = client.ask("POST", "/predict?invert", to_png(Image.fromarray(pixels)))

    for before, after in zip(plain["answers"], inverted["answers"], strict=True):
        assert np.array_equal(seen_pixels(after), 255 - seen_pixels(before))
        assert after["posterior"] != before["posterior"]
        assert not before["other_background"]  # the runs know faces


def test_a_picture_with_the_other_background_is_reported(client: Client, page: Page, monkeypatch) -> None:
    first = next(iter(page.runs.values()))
    monkeypatch.setitem(first.stamp, "background", [0.0, 0.1])

    _, bright = client.ask("POST", "/predict", to_png(Image.new("RGB", (32, 32), "white")))
    _, inverted = client.ask("POST", "/predict?invert", to_png(Image.new("RGB", (32, 32), "white")))

    assert bright["answers"][0]["other_background"]
    assert not inverted["answers"][0]["other_background"]
