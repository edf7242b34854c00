"""Fetch a published file once: mirrors in order, resumed where it broke off, checked before it gets its name."""

import hashlib
import http.client
import logging
import re
import time
import urllib.request
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from filelock import FileLock
from tqdm import tqdm

from agebench.errors import UserError

TIMEOUT_S = 10.0  # for a connection, and for the next bytes of one
ATTEMPTS = 4  # in a row without one new byte, before the next mirror's turn
BACKOFF_S = 0.5  # before the second attempt; doubles from there
CHUNK = 1 << 18  # bytes

_log = logging.getLogger(__name__)


class _RefusedError(Exception):
    """This address cannot give the file; another one may."""


class _BrokenOffError(Exception):
    """The transfer stopped; the same address may go on with it."""


class _WrongBodyError(Exception):
    """The file came whole, but is not the one that was meant."""


def download(
    urls: Sequence[str],
    path: Path,
    *,
    md5: str | None = None,
    sha256: str | None = None,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
) -> Path:
    """Fetch `path` from the first address that has it, unless it is there already; one process at a time.

    The bytes gather in `<path>.part`, which outlives an interruption and is resumed by the next call.

    Args:
        urls: The same file at several http or https addresses, the preferred one first.
        path: Where the file is to lie; its folder is made.
        md5: Hexadecimal sum the file must have.
        sha256: Likewise.
        size: Its length in bytes.
        check: Looks into the finished part before it gets its name; raises UserError to have it deleted.

    Returns:
        `path`.

    Raises:
        UserError: If no address gives the right file, if a file of that name has the wrong sum or size, or if the
            folder cannot be written.
    """
    if not urls:
        raise UserError(f"no address to fetch {path.name} from: give at least one http:// or https:// URL")
    for url in urls:
        if urlsplit(url).scheme not in ("http", "https"):
            raise UserError(f"cannot fetch {path.name} from {url!r}: only http:// and https:// addresses are served")

    verify = partial(_verify, sums={"md5": md5, "sha256": sha256}, size=size)
    if path.exists():
        try:
            verify(path)
        except _WrongBodyError as error:
            raise UserError(f"{path} is not the published file: {error}; move it away to have it fetched") from error
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(path.suffix + ".lock")):
            if not path.exists():  # else another process was faster
                part = path.with_suffix(path.suffix + ".part")
                _fetch_from_any(urls, path, part, size=size, verify=partial(verify, check=check))
                part.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; make room, or set data.root= to a folder you may write to"
        ) from error
    return path


def _fetch_from_any(
    urls: Sequence[str], path: Path, part: Path, *, size: int | None, verify: Callable[[Path], None]
) -> None:
    reasons = []
    for url in urls:
        _log.info("fetching %s from %s", path, url)
        try:
            _fetch(url, part, size=size, verify=verify)
            return
        except (_RefusedError, _BrokenOffError, _WrongBodyError) as error:
            _log.info("%s: %s", url, error)
            reasons.append(f"{url} ({error})")
    raise UserError(
        f"cannot download {path.name} from {' or '.join(reasons)}; connect to the network and try again, or fetch "
        f"{urls[0]} by hand into {path.parent.absolute()}, or set data.root= to a folder that has it"
    )


def _fetch(url: str, part: Path, *, size: int | None, verify: Callable[[Path], None]) -> None:
    """Bring `part` to its end from one address, and verify it."""
    inherited = part.exists()  # bytes of an earlier process or another mirror: they may belong to another file
    failures, longest = 0, _length(part)
    while True:
        try:
            _transfer(url, part, size=size)
            verify(part)
            return
        except _WrongBodyError as error:
            part.unlink()
            if not inherited:
                raise _WrongBodyError(f"{error}; what came was deleted") from error
            inherited, longest = False, 0
        except _BrokenOffError:
            failures = 1 if _length(part) > longest else failures + 1
            longest = max(longest, _length(part))
            if failures >= ATTEMPTS:
                raise
            time.sleep(BACKOFF_S * 2 ** (failures - 1))


def _transfer(url: str, part: Path, *, size: int | None) -> None:
    """Append to `part` what one request gives, from where it ends to the end of the file."""
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
                raise _BrokenOffError(f"bytes from {start} were asked for, bytes from {first} came")
        elif response.status == 200:  # the whole file, whatever was asked for
            start, total = 0, _number(response.headers.get("Content-Length", ""))
        else:
            raise _RefusedError(f"HTTP {response.status} {response.reason}")
        if size is not None and total is not None and total != size:
            raise _RefusedError(f"it has {total:,} bytes, not {size:,}")
        done = start
        with (
            part.open("ab" if start else "wb") as file,
            # disable=None: no bar where stderr is no terminal
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem, disable=None) as bar,
        ):
            while chunk := _read(response):
                file.write(chunk)
                bar.update(len(chunk))
                done += len(chunk)
    if total is not None and done != total:  # http.client says nothing of a body that ends early
        if done > total:
            part.unlink()
        raise _BrokenOffError(f"{done:,} of {total:,} bytes came")


def _request(url: str, part: Path, *, start: int) -> http.client.HTTPResponse | None:
    """Return the open answer, or None where the server says that there is nothing after `start`."""
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
            raise _BrokenOffError(f"it has nothing after byte {start}") from error
        kind = _BrokenOffError if error.code in (408, 429) or error.code >= 500 else _RefusedError
        raise kind(f"HTTP {error.code} {error.reason}") from error
    except URLError as error:  # no connection at all: waiting would only delay the message of someone offline
        raise _RefusedError(str(error.reason)) from error
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"{type(error).__name__}: {error}") from error


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that a redirect cannot lead to a local file or to ftp, as urllib's own can."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _BrokenOffError(f"{type(error).__name__}: {error}") from error


def _verify(
    file: Path, sums: dict[str, str | None], *, size: int | None, check: Callable[[Path], None] | None = None
) -> None:
    if size is not None and _length(file) != size:
        raise _WrongBodyError(f"it has {_length(file):,} bytes, not {size:,}")
    for algorithm, wanted in sums.items():
        if wanted is None:
            continue
        with file.open("rb") as stream:
            found = hashlib.file_digest(stream, algorithm).hexdigest()
        if found != wanted.lower():
            raise _WrongBodyError(f"its {algorithm} is {found}, not {wanted.lower()}")
    if check is not None:
        try:
            check(file)
        except UserError as error:
            raise _WrongBodyError(str(error)) from error


def _content_range(header: str) -> tuple[int | None, int | None]:
    """Return first byte and total length of `bytes 5-9/10`; None for what it does not say."""
    match = re.fullmatch(r"bytes\s+(\d+)-\d+/(\d+|\*)", header.strip())
    return (int(match[1]), _number(match[2])) if match else (None, None)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _length(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
