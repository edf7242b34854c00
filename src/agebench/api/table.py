"""A table that shows itself in a notebook."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from agebench.errors import UserError
from agebench.text import align_columns, visible

SHOWN = 20  # rows that a notebook shows


class Table:
    """Rows with named columns.

    Args:
        columns: The names of the columns.
        rows: The rows: a value for each column.
        caption: A sentence below the table.

    Examples:
        >>> table = Table(["name", "years"], [["a.png", 31.5], ["b.png", 48.0]])
        >>> len(table), table[1]["years"]
        (2, 48.0)
        >>> print(table)
        name   years
        a.png  31.5
        b.png  48
    """

    def __init__(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str = "") -> None:
        self.columns, self.caption = list(columns), caption
        self.rows: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    def __getitem__(self, position: int) -> dict[str, Any]:
        return self.rows[position]

    def column(self, name: str) -> list[Any]:
        """Return the values of a column."""
        if name not in self.columns:
            raise UserError(f"the table has no column {name!r}; it has {', '.join(self.columns)}")
        return [row[name] for row in self.rows]

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame.

        Raises:
            UserError: If pandas is not installed.
        """
        try:
            import pandas  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional
        except ImportError as error:
            raise UserError("to_pandas needs pandas: pip install pandas; `rows` has the same values") from error
        return pandas.DataFrame(self.rows, columns=self.columns)

    def __repr__(self) -> str:
        shown = [[show(row[name]) for name in self.columns] for row in self.rows[:SHOWN]]
        lines = align_columns(self.columns, shown, [False] * len(self.columns))
        text = "\n".join("  ".join(line).rstrip() for line in lines)
        return visible("\n".join(filter(None, (text, self._more(), self.caption))))

    def to_html(self) -> str:
        """Return the first rows as an HTML table."""
        return html_table(self.columns, self.rows[:SHOWN], caption=" ".join(filter(None, (self._more(), self.caption))))

    def _repr_html_(self) -> str:
        return self.to_html()

    def _more(self) -> str:
        return f"... {len(self.rows) - SHOWN:,} more rows" if len(self.rows) > SHOWN else ""


def show(value: Any) -> str:
    """Return a value for people: numbers with four digits, nothing for None."""
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def html_table(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], *, caption: str = "", right: Collection[str] = ()
) -> str:
    """Return an HTML table. Every value is escaped; numbers and the columns in `right` are aligned to the right."""
    head = Markup().join(Markup("<th>{}</th>").format(name) for name in columns)
    body = Markup()
    for row in rows:
        cells = Markup()
        for name in columns:
            side = "right" if name in right or isinstance(row[name], int | float) else "left"
            cells += Markup('<td style="text-align: {}">{}</td>').format(side, visible(show(row[name])))
        body += Markup("<tr>{}</tr>\n").format(cells)
    below = Markup("<p>{}</p>").format(visible(caption)) if caption else escape("")
    return str(
        Markup("<table>\n<thead><tr>{}</tr></thead>\n<tbody>\n{}</tbody>\n</table>\n{}").format(head, body, below)
    )
