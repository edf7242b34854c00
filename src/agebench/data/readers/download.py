"""Download a published file once, with several mirrors, resuming and a verified checksum."""

import hashlib
import http.client
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock

from agebench.errors import UserError
from agebench.progress import Bar

TIMEOUT_S = 10.0  # for connecting, and for waiting for the next bytes
ATTEMPTS = 4  # consecutive attempts without a new byte before the next mirror is tried
BACKOFF_S = 0.5  # delay before the second attempt; doubles for each further attempt
CHUNK = 1 << 18  # bytes
MAX_BYTES = 1 << 34  # largest download of unknown size, 16 GiB

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """This URL does not serve the file; another one may."""


class _TransferError(Exception):
    """The transfer stopped; it may be resumed from the same URL."""


class _WrongFileError(Exception):
    """The download is complete, but it is not the expected file."""


def download(
    urls: Sequence[str],
    path: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Download a file from the first URL that serves it, unless it exists; one process at a time.

    The bytes are written to `<path>.part`, which survives an interruption; the next call resumes it.

    Args:
        urls: http or https URLs of the same file, the preferred one first. An https URL may redirect only to https.
        path: Path of the downloaded file; its folder is created.
        md5: Expected MD5 in hexadecimal.
        sha256: Expected SHA-256 in hexadecimal.
        size: Expected size in bytes. Without it, a download of more than MAX_BYTES is refused.
        check: Called with the complete `.part` file before it is renamed. If it raises UserError, the file is deleted.

    Returns:
        `path`.

    Raises:
        UserError: If no URL serves the right file, an existing file has the wrong checksum or size, or the folder
            cannot be written.
    """
    if not urls:
        raise UserError(f"cannot download {path.name} without a URL: give at least one http:// or https:// URL")
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"cannot download {path.name} from {url!r}: give an http:// or https:// URL")

    verify = partial(_verify, sums={"md5": md5, "sha256": sha256}, size=size)
    if path.exists():
        try:
            verify(path)
        except _WrongFileError as error:
            raise UserError(f"{path} is not the published file: {error}; move it away to download it again") from error
        return path
    created = [folder for folder in path.parents if not folder.exists()]
    lock = path.with_suffix(path.suffix + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not path.exists():  # another process may have downloaded it
                part = path.with_suffix(path.suffix + ".part")
                _fetch_from_any(urls, path, part, size=size, verify=partial(verify, check=check))
                part.replace(path)
    except UserError as error:
        if not created:
            raise
        _remove_empty(created, lock)
        raise UserError(
            f"{path.parent.absolute()} does not exist (check data.root), and the download into it failed: {error}"
        ) from error
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free disk space, or set data.root to a writable folder"
        ) from error
    return path


def _remove_empty(folders: Sequence[Path], lock: Path) -> None:
    """Remove folders that were created for a file, the innermost first, unless they have more than its lock."""
    with suppress(OSError):  # a folder is not empty, or another process has removed it
        if all(file == lock for file in folders[0].iterdir()):
            lock.unlink(missing_ok=True)
            for folder in folders:
                folder.rmdir()


def _fetch_from_any(
    urls: Sequence[str], path: Path, part: Path, *, size: int | None, verify: Callable[[Path], None]
) -> None:
    reasons = []
    for url in urls:
        _log.info("downloading %s from %s", path, url)
        try:
            _fetch(url, part, size=size, verify=verify)
            return
        except (_RefusedError, _TransferError, _WrongFileError) as error:
            _log.info("%s: %s", url, error)
            reasons.append(f"{url} ({error})")
    raise UserError(
        f"cannot download {path.name} from {' or '.join(reasons)}; check the network and try again, or download "
        f"{urls[0]} manually to {path.parent.absolute()}, or set data.root to a folder that contains it"
    )


def _fetch(url: str, part: Path, *, size: int | None, verify: Callable[[Path], None]) -> None:
    """Download the rest of `part` from one URL, and verify the file."""
    inherited = part.exists()  # bytes of an earlier process or another mirror may belong to another file
    failures, longest = 0, _length(part)
    while True:
        try:
            _transfer(url, part, size=size)
            verify(part)
            return
        except _WrongFileError as error:
            part.unlink()
            if not inherited:
                raise _WrongFileError(f"{error}; the download was deleted") from error
            inherited, longest = False, 0
        except _TransferError:
            failures = 1 if _length(part) > longest else failures + 1
            longest = max(longest, _length(part))
            if failures >= ATTEMPTS:
                raise
            time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _transfer(url: str, part: Path, *, size: int | None) -> None:
    """Append the missing bytes to `part` with one request."""
    start = _length(part)
    if start and start == size:
        return
    response = _request(url, part, start=start)
    if response is None:
        return
    with response:
        total: int | None
        if response.status == 206:
            first, total = _content_range(response.headers.get("Content-Range", ""))
            if first != start:
                part.unlink(missing_ok=True)
                raise _TransferError(f"bytes from {start} were requested, bytes from {first} were received")
        elif response.status == 200:  # the complete file, even if a range was requested
            start, total = 0, _number(response.headers.get("Content-Length", ""))
        else:
            raise _RefusedError(f"HTTP {response.status} {response.reason}")
        if size is not None and total is not None and total != size:
            raise _RefusedError(f"it has {total:,} bytes, not {size:,}")
        most = MAX_BYTES if size is None else size
        if total is not None and total > most:
            raise _RefusedError(f"it has {total:,} bytes, more than {most:,}")
        done = start
        with (
            part.open("ab" if start else "wb") as file,
            Bar(f"downloading {part.stem}", total=total, unit="B", done=start) as bar,
        ):
            while chunk := _read(response):
                if done + len(chunk) > most:  # the declared length is missing or wrong
                    raise _WrongFileError(f"it has more than {most:,} bytes")
                file.write(chunk)
                bar.update(len(chunk))
                done += len(chunk)
    if total is not None and done != total:  # http.client does not report a body that ends early
        if done > total:
            part.unlink()
        raise _TransferError(f"{done:,} of {total:,} bytes were received")


def _request(url: str, part: Path, *, start: int) -> http.client.HTTPResponse | None:
    """Return the open response, or None if the server reports no bytes after `start`."""
    request = urllib.request.Request(url, headers={"User-Agent": "agebench", "Accept-Encoding": "identity"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response: http.client.HTTPResponse = _opener().open(request, timeout=TIMEOUT_S)
        return response
    except HTTPError as error:
        error.close()
        if error.code == 416 and start:
            if error.headers.get("Content-Range", "").replace(" ", "") == f"bytes*/{start}":
                return None
            part.unlink()
            raise _TransferError(f"it has nothing after byte {start}") from error
        kind = _TransferError if error.code in (408, 429) or error.code >= 500 else _RefusedError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except URLError as error:  # no connection: a retry would only delay the message
        raise _RefusedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(f"{type(error).__name__}: {error}") from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, where anybody on the way could replace the file."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Return the next request."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise _RefusedError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that does not follow redirects to local files or ftp, unlike urllib's default."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirects(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(f"{type(error).__name__}: {error}") from error


def _verify(
    file: Path, sums: dict[str, str | None], *, size: int | None, check: Callable[[Path], None] | None = None
) -> None:
    if size is not None and _length(file) != size:
        raise _WrongFileError(f"it has {_length(file):,} bytes, not {size:,}")
    for algorithm, wanted in sums.items():
        if wanted is None:
            continue
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        if found != wanted.lower():
            raise _WrongFileError(f"its {algorithm} is {found}, not {wanted.lower()}")
    if check is not None:
        try:
            check(file)
        except UserError as error:
            raise _WrongFileError(str(error)) from error


def _content_range(header: str) -> tuple[int | None, int | None]:
    """Return the first byte and the total length in a header such as `bytes 5-9/10`; None for a missing number."""
    match = re.fullmatch(r"bytes\s+(\d+)-\d+/(\d+|\*)", header.strip())
    return (int(match[1]), _number(match[2])) if match else (None, None)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
