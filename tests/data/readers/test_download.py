"""Downloads from a local server with many kinds of failures."""

import hashlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from agebench.data.readers import download as module
from agebench.data.readers.download import download
from agebench.errors import UserError

BODY = bytes(i * i % 251 for i in range(5000))
OTHER = bytes(len(BODY))
MD5 = hashlib.md5(BODY).hexdigest()


@dataclass
class Site:
    """The address of a server, its behaviour, and its requests."""

    address: str = ""
    body: bytes = BODY
    ranges: bool = True
    break_after: list[int] = field(
        default_factory=list
    )  # body bytes sent before it closes the connection, per response
    statuses: list[int] = field(default_factory=list)  # of the first responses
    content_range: str | None = None  # sent instead of the right one
    redirect: str | None = None
    send_length: bool = True
    delay_s: float = 0.0
    requests: list[tuple[str, str | None]] = field(default_factory=list)  # path and Range of each

    def url(self, name: str = "file.bin") -> str:
        return f"{self.address}/{name}"

    @property
    def ranges_requested(self) -> list[str | None]:
        return [span for _, span in self.requests]


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "BACKOFF_S", 0.001)
    site = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers.get("Range")
            site.requests.append((self.path, span))
            time.sleep(site.delay_s)
            status = 404 if "missing" in self.path else site.statuses.pop(0) if site.statuses else 200
            if site.redirect:
                self.send_response(302)
                self.send_header("Location", site.redirect)
                self.end_headers()
                return
            if status != 200:
                self.send_error(status)
                return
            start, total = 0, len(site.body)
            if span and site.ranges:
                match = re.fullmatch(r"bytes=(\d+)-", span)
                assert match
                start = int(match[1])
                if start >= total:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{total}")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", site.content_range or f"bytes {start}-{total - 1}/{total}")
            else:
                self.send_response(200)
            if site.send_length:
                self.send_header("Content-Length", str(total - start))
            self.end_headers()
            self.wfile.write(site.body[start:][: site.break_after.pop(0) if site.break_after else total])

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.address = f"http://127.0.0.1:{server.server_port}"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()


def part_of(path: Path) -> Path:
    return path.parent / f"{path.name}.part"


def test_a_download_is_renamed_and_leaves_no_part_file(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.bin"

    returned = download([site.url()], path, md5=MD5, sha256=hashlib.sha256(BODY).hexdigest(), size=5000)

    assert returned == path
    assert path.read_bytes() == BODY
    assert not part_of(path).exists()
    assert site.requests == [("/file.bin", None)]


def test_an_interrupted_transfer_is_resumed(site: Site, tmp_path: Path) -> None:
    site.break_after = [1000, 500]

    path = download([site.url()], tmp_path / "file.bin")

    assert path.read_bytes() == BODY
    assert site.ranges_requested == [None, "bytes=1000-", "bytes=1500-"]


def test_a_part_file_of_an_earlier_process_is_resumed(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY[:4000])

    download([site.url()], path, md5=MD5)

    assert path.read_bytes() == BODY
    assert site.ranges_requested == ["bytes=4000-"]


def test_a_server_that_ignores_range_restarts_the_file(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY[:4000])

    download([site.url()], path)

    assert path.read_bytes() == BODY


def test_a_complete_part_file_is_accepted_if_the_server_has_no_more_bytes(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY)

    download([site.url()], path)

    assert path.read_bytes() == BODY
    assert site.ranges_requested == ["bytes=5000-"]


def test_a_part_file_of_the_known_size_is_verified_without_a_request(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY)

    download([site.url()], path, md5=MD5, size=len(BODY))

    assert path.read_bytes() == BODY
    assert site.requests == []


def test_a_part_file_longer_than_the_file_is_restarted(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY + b"more")

    download([site.url()], path)

    assert path.read_bytes() == BODY
    assert site.ranges_requested == ["bytes=5004-", None]


@pytest.mark.parametrize("header", ["bytes 0-4999/5000", "bytes 4000-4999/4900", "bytes */5000", "nonsense"])
def test_a_range_other_than_the_requested_one_is_not_appended(site: Site, tmp_path: Path, header: str) -> None:
    site.content_range = header
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(BODY[:4000])

    download([site.url()], path)

    assert path.read_bytes() == BODY
    assert site.ranges_requested == ["bytes=4000-", None]


def test_a_part_of_another_file_is_downloaded_again(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    part_of(path).write_bytes(OTHER[:4000])

    download([site.url()], path, md5=MD5)

    assert path.read_bytes() == BODY
    assert site.ranges_requested == ["bytes=4000-", None]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_is_reported_and_the_part_file_deleted(site: Site, tmp_path: Path, algorithm: str) -> None:
    site.body = OTHER
    path = tmp_path / "file.bin"
    found, wanted = (hashlib.new(algorithm, body).hexdigest() for body in (OTHER, BODY))
    sums = {algorithm: wanted}

    with pytest.raises(UserError, match=f"its {algorithm} is {found}, not {wanted}; the download was deleted"):
        download([site.url()], path, md5=sums.get("md5"), sha256=sums.get("sha256"))

    assert not path.exists()
    assert not part_of(path).exists()
    assert len(site.requests) == 1


def test_a_file_of_another_size_is_refused_before_the_transfer(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"

    with pytest.raises(UserError, match="it has 5,000 bytes, not 4,999") as refused:
        download([site.url()], path, size=4999)

    assert not path.exists()
    assert "the download was deleted" not in str(refused.value)


def test_a_failed_check_deletes_the_download(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    seen = []

    def check(file: Path) -> None:
        seen.append(file.read_bytes())
        raise UserError("it is not a zip file")

    with pytest.raises(UserError, match="it is not a zip file; the download was deleted"):
        download([site.url()], path, check=check)

    assert seen == [BODY]
    assert list(tmp_path.glob("file.bin")) + list(tmp_path.glob("*.part")) == []


def test_the_second_mirror_is_used_if_the_first_lacks_the_file(site: Site, tmp_path: Path) -> None:
    path = download([site.url("missing.bin"), site.url()], tmp_path / "file.bin", md5=MD5)

    assert path.read_bytes() == BODY
    assert [name for name, _ in site.requests] == ["/missing.bin", "/file.bin"]


def test_a_temporary_server_error_is_retried(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429]

    path = download([site.url()], tmp_path / "file.bin")

    assert path.read_bytes() == BODY
    assert len(site.requests) == 3


def test_a_server_that_always_stops_at_the_same_byte_is_abandoned(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.break_after = [1000] * 100
    path = tmp_path / "file.bin"

    with pytest.raises(UserError, match="1,000 of 5,000 bytes were received"):
        download([site.url()], path)

    assert len(site.requests) == module.ATTEMPTS
    assert part_of(path).read_bytes() == BODY[:1000]  # kept, so that it can be resumed later


def test_a_server_that_sends_some_bytes_every_time_is_not_abandoned(site: Site, tmp_path: Path) -> None:
    site.break_after = [500] * 9

    path = download([site.url()], tmp_path / "file.bin")

    assert path.read_bytes() == BODY
    assert len(site.requests) == 10 > module.ATTEMPTS


def test_a_server_that_stops_responding_is_abandoned_after_the_timeout(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    site.delay_s = 0.5

    with pytest.raises(UserError, match="timed out"):
        download([site.url()], tmp_path / "file.bin")


def test_without_a_network_the_error_says_what_to_do_without_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/mnist/file.bin"
        began = time.monotonic()

        with pytest.raises(UserError) as caught:
            download([url, url.replace("mnist", "mirror")], tmp_path / "file.bin")

    assert time.monotonic() - began < 3
    message = str(caught.value)
    assert message.startswith("cannot download file.bin from ")
    for needed in (url, "/mirror/file.bin", "refused", f"download {url} manually to {tmp_path}", "data.root"):
        assert needed in message


def test_a_failed_download_names_the_missing_folder_and_leaves_no_folder(site: Site, tmp_path: Path) -> None:
    site.statuses = [404]
    folder = tmp_path / "deep" / "mnits"

    with pytest.raises(UserError) as caught:
        download([site.url()], folder / "file.bin")

    assert str(caught.value).startswith(f"{folder} does not exist (check data.root), and the download into it failed: ")
    assert "check the network" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_keeps_a_folder_that_existed(site: Site, tmp_path: Path) -> None:
    site.statuses = [404]

    with pytest.raises(UserError, match=r"^cannot download"):
        download([site.url()], tmp_path / "file.bin")

    assert tmp_path.is_dir()


def test_a_failed_download_keeps_a_new_folder_with_bytes_to_resume(site: Site, tmp_path: Path) -> None:
    site.statuses, site.break_after = [200, *[500] * 8], [700]
    path = tmp_path / "new" / "file.bin"

    with pytest.raises(UserError, match="the download into it failed"):
        download([site.url()], path)

    assert part_of(path).read_bytes() == BODY[:700]


@pytest.mark.parametrize("url", ["ftp://host/file.bin", "file:///etc/passwd", "file.bin", ""])
def test_only_http_and_https_urls_are_accepted(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="give an http:// or https:// URL"):
        download([url], tmp_path / "file.bin")


def test_a_download_without_a_url_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without a URL"):
        download([], tmp_path / "file.bin")


@pytest.mark.parametrize("scheme", ["file", "ftp"])
def test_a_redirect_to_another_scheme_is_refused(site: Site, tmp_path: Path, scheme: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(BODY)
    site.redirect = f"{scheme}://127.0.0.1{secret}"

    with pytest.raises(UserError, match=r"unknown url type|is not allowed"):
        download([site.url()], tmp_path / "file.bin")

    assert not (tmp_path / "file.bin").exists()


@pytest.fixture
def secure_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Serve a redirect over https; return the address, and the list whose only item is the target."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", key, "-out", certificate, "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    target: list[str] = []

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "moved" in self.path:
                self.send_response(200)
                self.send_header("Content-Length", str(len(BODY)))
                self.end_headers()
                self.wfile.write(BODY)
                return
            self.send_response(302)
            self.send_header("Location", target[0])
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", target
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_https_may_redirect_to_https_only(site: Site, secure_site: tuple[str, list[str]], tmp_path: Path) -> None:
    address, target = secure_site
    target.append(f"{address}/moved")

    download([f"{address}/file.bin"], tmp_path / "first.bin")
    target[0] = site.url()
    with pytest.raises(UserError, match=r"it redirects to http://127.0.0.1.*, which is not https"):
        download([f"{address}/file.bin"], tmp_path / "second.bin")

    assert (tmp_path / "first.bin").read_bytes() == BODY
    assert not (tmp_path / "second.bin").exists()
    assert site.requests == []


def test_a_file_of_unknown_size_is_refused_above_the_limit(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 4999)

    with pytest.raises(UserError, match="it has 5,000 bytes, more than 4,999"):
        download([site.url()], tmp_path / "file.bin")

    assert not (tmp_path / "file.bin").exists()


@pytest.mark.parametrize("size", [None, 4999])
def test_a_response_without_a_length_is_stopped_at_the_limit(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 4999)
    site.send_length = False

    with pytest.raises(UserError, match="it has more than 4,999 bytes; the download was deleted"):
        download([site.url()], tmp_path / "file.bin", size=size)

    assert not (tmp_path / "file.bin").exists()
    assert not part_of(tmp_path / "file.bin").exists()


def test_an_existing_file_is_not_downloaded(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(BODY)

    download([site.url()], path, md5=MD5)

    assert site.requests == []


def test_an_existing_wrong_file_is_reported_and_kept(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(OTHER)

    with pytest.raises(UserError, match=r"file\.bin is not the published file: its md5 is .* move it away"):
        download([site.url()], path, md5=MD5)

    assert path.read_bytes() == OTHER


def test_a_folder_that_cannot_be_created_is_a_user_error(site: Site, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"")

    with pytest.raises(UserError, match="cannot write"):
        download([site.url()], tmp_path / "taken" / "file.bin")


def test_there_is_no_progress_bar_without_a_terminal(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download([site.url()], tmp_path / "file.bin")

    assert capsys.readouterr() == ("", "")


@pytest.mark.ci
def test_two_processes_download_once(site: Site, tmp_path: Path) -> None:
    site.delay_s = 1.0  # long enough for the second process to reach the lock
    path = tmp_path / "file.bin"
    code = (
        "from pathlib import Path; from agebench.data.readers.download import download; "
        f"download([{site.url()!r}], Path({str(path)!r}), md5={MD5!r})"
    )

    processes = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    codes = [process.wait(timeout=60) for process in processes]

    assert codes == [0, 0]
    assert path.read_bytes() == BODY
    assert len(site.requests) == 1
