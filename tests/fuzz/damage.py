"""Ways to damage bytes, text and nested data. Each is a function of a random generator and the undamaged content."""

import csv
import io
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

Random = random.Random


def named(*functions: Callable[..., Any]) -> dict[str, Callable[..., Any]]:
    """Return the functions by name."""
    return {function.__name__: function for function in functions}


def flip_bits(rng: Random, raw: bytes) -> bytes:
    damaged = bytearray(raw)
    for _ in range(rng.choice((1, 1, 3, 30))):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def flip_head(rng: Random, raw: bytes) -> bytes:
    """Flip bits of the first bytes, which hold sizes, types and offsets."""
    damaged = bytearray(raw)
    for _ in range(rng.choice((1, 2, 5))):
        damaged[rng.randrange(min(len(damaged), 256))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def flip_tail(rng: Random, raw: bytes) -> bytes:
    """Flip bits of the last bytes, which hold the directory of a zip."""
    damaged = bytearray(raw)
    for _ in range(rng.choice((1, 2, 5))):
        damaged[-1 - rng.randrange(min(len(damaged), 256))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def truncate(rng: Random, raw: bytes) -> bytes:
    return raw[: rng.choice((rng.randrange(len(raw)), len(raw) - 1, rng.randrange(min(len(raw), 64))))]


def blank(rng: Random, raw: bytes) -> bytes:
    """Overwrite a range by zeros or ones, as a failing disk does."""
    start = rng.randrange(len(raw))
    end = min(len(raw), start + rng.choice((1, 16, 512, 4096)))
    return raw[:start] + rng.choice((b"\x00", b"\xff")) * (end - start) + raw[end:]


def cut_out(rng: Random, raw: bytes) -> bytes:
    start = rng.randrange(len(raw))
    return raw[:start] + raw[start + rng.choice((1, 4, 512)) :]


def insert(rng: Random, raw: bytes) -> bytes:
    start = rng.randrange(len(raw) + 1)
    return raw[:start] + rng.randbytes(rng.choice((1, 4, 512))) + raw[start:]


def repeat(rng: Random, raw: bytes) -> bytes:
    start = rng.randrange(len(raw))
    return raw[:start] + raw[max(0, start - rng.choice((4, 512, 4096))) :]


def swap(rng: Random, raw: bytes) -> bytes:
    middle = rng.randrange(len(raw))
    return raw[middle:] + raw[:middle]


def empty(rng: Random, raw: bytes) -> bytes:
    return b""


def noise(rng: Random, raw: bytes) -> bytes:
    return rng.randbytes(rng.choice((1, 100, 5000)))


def web_page(rng: Random, raw: bytes) -> bytes:
    return b"<!DOCTYPE html><html><body>404</body></html>"


BYTES = named(
    flip_bits, flip_head, flip_tail, truncate, blank, cut_out, insert, repeat, swap, empty, noise, web_page
)  # fmt: skip

CELLS = (
    "", " ", "あ", "-1", "0", "201", "nan", "inf", "1e308", "1e999", "1.5", "null", "true", "None", "x" * 200_000,
    "=1+1", "@SUM(A1)", "\t", "\r", "a\nb", '"', "'", ",", ";", "\\", "../../etc/passwd", "/dev/null", "/dev/zero",
    ".", "..", "/", "~", "images", "no/such/file.png", "%s", "{}", "${x}", "\ufeff", "\u202e", "e\u0301", "９",
    "1_000", "0x10", "a/" * 3000 + "a.png", "b" * 300 + ".png", "\x1b[31m", "\x00", "٣", "10" * 200,
    "7" * 5000,
)  # fmt: skip


def _rows(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text)))


def _csv(rows: Sequence[Sequence[str]], **dialect: Any) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n", **dialect).writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


def odd_cell(rng: Random, text: str) -> bytes:
    rows = _rows(text)
    row = rng.randrange(1, len(rows))
    rows[row][rng.randrange(len(rows[row]))] = rng.choice(CELLS)
    return _csv(rows)


def odd_column(rng: Random, text: str) -> bytes:
    rows = _rows(text)
    column, cell = rng.randrange(len(rows[0])), rng.choice(CELLS)
    return _csv([rows[0], *([*row[:column], cell, *row[column + 1 :]] for row in rows[1:])])


def odd_header(rng: Random, text: str) -> bytes:
    header, *rows = _rows(text)
    header[rng.randrange(len(header))] = rng.choice((*CELLS, *header))
    return _csv([header, *rows])


def no_column(rng: Random, text: str) -> bytes:
    rows = _rows(text)
    column = rng.randrange(len(rows[0]))
    return _csv([[*row[:column], *row[column + 1 :]] for row in rows])


def no_header(rng: Random, text: str) -> bytes:
    return _csv(_rows(text)[1:])


def few_rows(rng: Random, text: str) -> bytes:
    return _csv(_rows(text)[: rng.choice((1, 2, 3, 5))])


def repeated_rows(rng: Random, text: str) -> bytes:
    rows = _rows(text)
    return _csv([*rows, *rng.choices(rows, k=rng.choice((1, 3, 50)))])


def ragged_rows(rng: Random, text: str) -> bytes:
    return _csv([row[: rng.randrange(len(row) + 1)] if rng.random() < 0.2 else [*row, "x"] for row in _rows(text)])


def shuffled_rows(rng: Random, text: str) -> bytes:
    header, *rows = _rows(text)
    rng.shuffle(rows)
    return _csv([header, *rows])


def open_quote(rng: Random, text: str) -> bytes:
    at = rng.randrange(len(text))
    return (text[:at] + '"' + text[at:]).encode()


def null_byte(rng: Random, text: str) -> bytes:
    at = rng.randrange(len(text))
    return (text[:at] + "\x00" + text[at:]).encode()


def other_encoding(rng: Random, text: str) -> bytes:
    text = text.removeprefix("\ufeff")  # not every encoding has it
    text = text.replace("img", "画像") if rng.random() < 0.5 else text
    return text.encode(rng.choice(("cp932", "utf-16", "utf-16-le", "utf-32", "utf-8-sig", "utf-7", "euc_jp")))


def other_lines(rng: Random, text: str) -> bytes:
    return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n", "\x0b", "\u2028", "\r\r\n"))).encode()


def other_delimiter(rng: Random, text: str) -> bytes:
    return _csv(_rows(text), delimiter=rng.choice(";\t| "))


def all_quoted(rng: Random, text: str) -> bytes:
    return _csv(_rows(text), quoting=csv.QUOTE_ALL)


def damaged_text(rng: Random, text: str) -> bytes:
    return bytes(rng.choice([*BYTES.values()])(rng, text.encode()))


TEXT = named(
    odd_cell, odd_column, odd_header, no_column, no_header, few_rows, repeated_rows, ragged_rows, shuffled_rows,
    open_quote, null_byte, other_encoding, other_lines, other_delimiter, all_quoted, damaged_text,
)  # fmt: skip

MISSING = object()
# Values for a field of a checkpoint or of a run's JSON and YAML files.
FIELDS: dict[str, Any] = {
    "missing": MISSING, "null": None, "true": True, "zero": 0, "one": 1, "minus": -1, "huge": 10**30, "float": 0.5,
    "nan": math.nan, "inf": math.inf, "empty": "", "text": "あ", "digit": "1", "long": "x" * 5000,
    "lines": "a\nb\x1b[0m", "path": "../../x", "interpolation": "${x}", "question": "???",
    "list": [], "numbers": [1, 2], "texts": ["a", "b"],
    "mapping": {}, "nested": {"a": {"b": 1}}, "target": {"_target_": "builtins.print", "_args_": ["ran"]},
}  # fmt: skip


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in nested data, at most three items of a list."""
    found = [path] if path else []
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += places(value, (*path, key))
    elif isinstance(tree, list):
        for i, value in enumerate(tree[:3]):
            found += places(value, (*path, i))
    return found


def change_field(rng: Random, tree: Any, value: Any) -> tuple[Any, ...]:
    """Replace or remove one value in nested data, and return its path. The upper levels are chosen most often."""
    found = places(tree)
    depth = min(rng.choice((1, 1, 2, 2, 3, 9)), max(map(len, found)))
    path = rng.choice([each for each in found if len(each) <= depth])
    for key in path[:-1]:
        tree = tree[key]
    set_field(tree, path[-1], value)
    return path


def set_field(tree: Any, key: Any, value: Any) -> None:
    """Replace or remove one value of a dictionary or list."""
    if value is MISSING:
        del tree[key]
    else:
        tree[key] = value


def odd_json(rng: Random, text: str) -> bytes:
    """Return JSON that is valid, but no object of a run; or that is not quite JSON."""
    return rng.choice(
        (b"null", b"[]", b"1", b'"text"', b"{}", b"[{}]", b"", b"{", b"\xff\xfe{}", b'{"status": "completed"}',
         b'{"status": []}', b'{"a": 1, "a": 2}', b"[" * 3000 + b"]" * 3000, b'{"a": 1' + b"0" * 5000 + b"}",
         json.dumps({"status": "completed", "metrics": {"test/loss": "0"}}).encode())
    )  # fmt: skip


def odd_yaml(rng: Random, text: str) -> bytes:
    return rng.choice(
        (b"", b"null", b"- 1", b"a: [", b"1", b"a: !!python/object/apply:os.system ['true']", b"&a [*a]", b"\x00",
         b"hydra: 1", b"hydra:\n  runtime: 1", b"hydra:\n  runtime:\n    choices: []", b"data: 1", b"- - - -", b"\t",
         b"- a=\n- =\n- ~\n- '+'", b"- trainer.max_epochs=", b"? [1]\n: 2", b"a: 1\na: 2", b"%YAML 9.9\n---\na")
    )  # fmt: skip
