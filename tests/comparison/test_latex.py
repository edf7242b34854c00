"""A comparison as LaTeX tables."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from agebench.comparison.latex import escape, to_latex
from agebench.comparison.tables import compare
from agebench.runs.read import find_runs

TARGETS = np.arange(20, 30).repeat(4)
PEOPLE = [f"p{i}" for i in range(40)]


def cells(latex: str) -> list[list[str]]:
    """Return the cells of the first tabular, by LaTeX's own rules: rows end with \\\\ and cells with an unescaped &."""
    body = latex.split("\\begin{tabular}", 1)[1].split("\\end{tabular}")[0]
    rows = re.findall(r"^(.*) \\\\$", body, flags=re.MULTILINE)
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", row)] for row in rows]


@pytest.fixture
def latex(make_run, tmp_path) -> str:
    """Return the table of a head that is always 1 year off and one that is 2 or 3 years off, with two seeds."""
    facts = {"targets": TARGETS.tolist(), "people": PEOPLE}
    make_run("coral-0", points=TARGETS + 1, head="coral", **facts)
    make_run("coral-1", points=TARGETS - 1, head="coral", seed=1, **facts)
    make_run("softmax-0", points=TARGETS - 2, **facts)
    make_run("softmax-1", points=TARGETS - 3, seed=1, **facts)
    return to_latex(compare(find_runs([tmp_path])))


def test_the_best_mean_of_every_metric_is_bold_and_a_significant_difference_has_stars(latex) -> None:
    header, coral, softmax = cells(latex)

    assert header[:3] == ["head", "n", r"mae (years) $\downarrow$"]
    assert coral[:3] == ["coral", "2", r"\textbf{1.00 $\pm$ 0.00 [1.00, 1.00]}"]
    assert softmax[:3] == ["softmax", "2", r"2.50 $\pm$ 0.71 [2.50, 2.50]$^{***}$"]
    bias = header.index("bias (years)")
    assert (coral[bias], softmax[bias]) == (r"\textbf{0.00}", "$-$2.50")
    cs5 = header.index(r"cs5 $\uparrow$")
    assert coral[cs5] == softmax[cs5] == r"\textbf{1.000}"  # a tie


@pytest.mark.parametrize(
    ("p", "stars"),
    [(0.06, ""), (0.05, ""), (0.04, "$^{*}$"), (0.01, "$^{*}$"), (0.001, "$^{**}$"), (0.0009, "$^{***}$")],
)
def test_a_level_itself_is_not_significant(make_run, tmp_path, p, stars) -> None:
    make_run("coral", points=TARGETS + 1, targets=TARGETS.tolist(), people=PEOPLE, head="coral")
    make_run("softmax", points=TARGETS - 2, targets=TARGETS.tolist(), people=PEOPLE)
    comparison = compare(find_runs([tmp_path]))
    (table,) = comparison.tables
    best, other = table.rows
    changed = replace(comparison, tables=(replace(table, rows=(best, replace(other, adjusted=p))),))

    _, _, row = cells(to_latex(changed))

    assert "".join(re.findall(r"\$\^.*\$", row[2])) == stars


def test_every_row_of_the_tabular_has_as_many_cells_as_its_alignment_has_columns(latex) -> None:
    alignment = re.search(r"\\begin\{tabular\}\{([lr]+)\}", latex)

    assert alignment is not None
    assert {len(row) for row in cells(latex)} == {len(alignment[1])}
    assert latex.count("{") == latex.count("}")
    for environment in ("table", "tabular"):
        assert latex.count(f"\\begin{{{environment}}}") == latex.count(f"\\end{{{environment}}}") == 1


def test_the_row_of_a_baseline_has_a_cell_in_every_column(make_run, tmp_path) -> None:
    for name, size in (("small", 1000), ("large", 2000)):
        folder = make_run(name, points=TARGETS + 1, head=name, targets=TARGETS.tolist(), people=PEOPLE)
        (folder / "split.csv").write_text("name,part,identity,target\nt.jpg,train,x,24\n")
        file = folder / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"params": {"total": size, "trainable": size}}))

    header, *_, baseline = cells(to_latex(compare(find_runs([tmp_path]))))

    assert header[-1] == "parameters"
    assert baseline[0] == "\\textit{always the median}"
    assert baseline[2] == "2.50"  # of the targets 20 to 29 to 24
    assert (len(baseline), baseline[-1]) == (len(header), "--")


def test_a_single_run_is_not_bold(make_run, tmp_path) -> None:
    make_run("alone", points=TARGETS, targets=TARGETS.tolist(), people=PEOPLE)

    assert "textbf" not in to_latex(compare(find_runs([tmp_path])))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr_1e-4 & 50%", r"lr\_1e-4 \& 50\%"),
        (r"\input{/etc/passwd}", r"\textbackslash{}input\{/etc/passwd\}"),
        ("a\nb\x1b[31m", "a b [31m"),
        ("$x^2$ #1 ~", r"\$x\textasciicircum{}2\$ \#1 \textasciitilde{}"),
        ("a|b < c > d", "a$|$b $<$ c $>$ d"),
        ("ひらがな", "ひらがな"),
    ],
)
def test_names_cannot_contain_latex_commands(text, expected) -> None:
    assert escape(text) == expected


def test_the_notes_and_the_caption_of_the_other_formats_are_below_the_table_and_escaped(make_run, tmp_path) -> None:
    facts = {"targets": TARGETS.tolist(), "people": PEOPLE}
    make_run("coral", points=TARGETS + 1, head="coral", git="a_b", **facts)
    make_run("softmax", points=TARGETS - 2, **facts)
    comparison = compare(find_runs([tmp_path]))

    latex = to_latex(comparison)

    header, *_ = cells(latex)
    below = latex.split("\\end{tabular}")[1]
    assert r"$\Delta$ to best [95\% CI]" in header
    assert r"$\Delta$ to best: mean difference to the best row over the same test images" in below
    assert r"not all runs have the same environment: git a\_b and abc." in below
    assert re.findall(r"(?<!\\)[%&#_]", below) == []


def test_a_row_cannot_be_an_argument_of_the_line_break_before_it(make_run, tmp_path) -> None:
    facts = {"targets": TARGETS.tolist(), "people": PEOPLE, "typed": ["data.bins=x"]}
    make_run("a", points=TARGETS + 1, config={"data.bins": [18, 30]}, **facts)
    make_run("b", points=TARGETS - 2, config={"data.bins": [18, 40]}, **facts)

    latex = to_latex(compare(find_runs([tmp_path])))

    assert re.search(r"^\{\}\[18", latex, flags=re.MULTILINE)
    assert not re.search(r"^[\[*]", latex, flags=re.MULTILINE)


def test_the_most_common_label_has_a_cell_in_every_column(make_run, tmp_path) -> None:
    targets = [0, 0, 1, 2] * 10
    for name, rate in (("a", 0.1), ("b", 0.2)):
        points = [0.0] * 40 if name == "a" else [float(each) for each in targets]
        folder = make_run(
            name,
            points=points,
            targets=targets,
            people=PEOPLE,
            config={"optim.lr": rate},
            protocol="demo/official/class",
        )
        accuracy = {"test/accuracy": 0.5 if name == "a" else 1.0, "test/macro_f1": 0.5, "test/nll": 1.5}
        labels = ["0", "1", "2"]
        rows = [f"{i}.jpg,,{t},{p:.0f},0.4,0.3,0.3,x" for i, (t, p) in enumerate(zip(targets, points, strict=True))]
        (folder / "predictions.csv").write_text(
            "\n".join(["name,identity,target,point,p(0),p(1),p(2),protocol", *rows])
        )
        (folder / "split.csv").write_text(
            "name,part,identity,target\n"
            + "".join(f"t{i}.jpg,train,,{label}\n" for i, label in enumerate([*labels, "0"]))
        )
        file = folder / "results.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"metrics": accuracy, "intervals": {}}))

    header, *_, baseline = cells(to_latex(compare(find_runs([tmp_path]))))

    assert baseline[:2] == ["\\textit{most common label}", "--"]
    assert baseline[header.index(r"accuracy $\uparrow$")] == "0.500"
    assert len(baseline) == len(header)
    assert all(baseline)
