"""A comparison as Markdown, CSV, HTML and JSON."""

import csv
import io
import json
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm, t

from agebench.comparison.caption import caption, heading
from agebench.comparison.cells import lay_out
from agebench.comparison.groups import Group
from agebench.comparison.paired_differences import Difference, Paired
from agebench.comparison.render import notes_of, to_csv, to_html, to_json, to_markdown
from agebench.comparison.tables import Row, Table, compare
from agebench.runs.read import Run, find_runs

TARGETS = np.array((20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 21))


@pytest.fixture
def study(make_run, tmp_path):
    """Return a comparison of two heads, one with two seeds, and one failed run."""
    leak = {"test_identity_in_train": 1.0, "lookup_mae": 2.0, "median_mae": 4.0, "unit": "years"}
    make_run("coral-0", points=TARGETS + 1, head="coral", leak=leak)
    make_run("coral-1", points=TARGETS + 2, head="coral", seed=1, leak=leak)
    make_run("softmax-0", points=TARGETS + 3, leak=leak)
    make_run("softmax-1", seed=1, status="failed", error="UserError: a | b")
    return compare(find_runs([tmp_path]))


def test_the_markdown_of_a_comparison(study, tmp_path) -> None:
    assert (
        to_markdown(study)
        == f"""\
## demo/official/age: 12 test images of 4 people (split aaaabbbb)

| rank | head               |   n |            mae (years) ↓ |   Δ to best [95% CI] | p (Holm) | accuracy | bias |   cs5 | fit (s) |
| ---: | ------------------ | --: | -----------------------: | -------------------: | -------: | -------: | ---: | ----: | ------: |
|    1 | coral              |   2 | 1.50 ± 0.71 [1.50, 1.50] |                    - |        - |    0.083 | 1.50 | 1.000 |      60 |
|    - | identity looked up |   - |                     2.00 |                    - |        - |        - |    - |     - |       - |
|    2 | softmax            |   1 |        3.00 [0.50, 4.50] | +1.50 [+1.50, +1.50] |  < 0.049 |    0.083 | 3.00 | 1.000 |      60 |
|    - | always the median  |   - |                     4.00 |                    - |        - |        - |    - |     - |       - |

Ranked by mae, lower is better. Several seeds (n > 1): mean ± standard deviation over seeds. In brackets: 95% bootstrap
interval of that mean from 10,000 resamples of 4 people, without the spread over seeds. One seed (n = 1): 95% bootstrap
interval from 10,000 resamples of 4 people. Δ to best: mean difference to the best row over the same test images,
averaged over seeds; 95% interval and p-value from 10,000 paired bootstrap resamples of 4 people, with Holm's correction
for 1 comparison. They describe the variation over people, not over seeds. The best row was selected on the same test
images, so its result is optimistic. All runs: 1,190,000 parameters, 20 epochs.

- the split leaks: 100.0% of the test images show an identity that is also in train; an identity lookup uses no pixels
- 95% intervals over only 4 people hold less often than 95% of the time: see docs/heads.md
- n < 3: intervals and p-values describe these trained models on other people of the same kind, not the methods trained
  again with other seeds

## Not ranked: 1 run that did not complete

- failed: {tmp_path}/softmax-1: UserError: a | b
"""  # noqa: E501 (tables are not wrapped)
    )


@pytest.mark.parametrize("resamples", [10_000, 2_000])
def test_the_bound_of_a_p_value_is_rounded_up_by_less_than_one_unit_of_its_last_digit(
    resamples,
) -> None:
    least = 2 / (resamples + 1)
    bounds = [times * least for times in range(1, resamples // 2 + 1)]  # the smallest p, corrected for 1, 2, ... pairs
    rows = tuple(
        Row(
            Group((Run(Path("r"), "completed", {"metrics": {"test/mae": float(i)}}),), {}),
            rank=i + 1,
            difference=Difference(1.0, 0.5, 1.5, least),
            adjusted=bound,
        )
        for i, bound in enumerate(bounds)
    )
    paired = Paired({0: Difference(1.0, 0.5, 1.5, least)}, {0: least}, {}, least, "images", 12, resamples, ())
    table = Table("demo/official/age", "aaaa", "test/mae", "years", (), rows, (), paired, ())

    cells = lay_out(table)

    printed = [row[cells.header.index("p (Holm)")] for row in cells.rows]
    assert {text[:2] for text in printed} == {"< "}
    for text, bound in zip(printed, bounds, strict=True):
        shown = Decimal(text[2:])
        last_digit = Decimal(1).scaleb(min(0, math.floor(math.log10(bound))) - (bound >= 0.001))
        assert Decimal(bound) <= shown < Decimal(bound) + last_digit, text


def test_csv_has_one_row_per_group_with_unrounded_numbers(study, tmp_path) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(study))))

    assert [(row["rank"], row["head"], row["n"], row["seeds"]) for row in rows] == [
        ("1", "coral", "2", "0 1"),
        ("2", "softmax", "1", "0"),
    ]
    assert float(rows[0]["std"]) == pytest.approx(0.5**0.5, abs=1e-15)
    assert (rows[0]["low"], rows[0]["difference"], rows[1]["low"], rows[1]["high"]) == ("1.5", "", "0.5", "4.5")
    smallest = 2 * t.sf(norm.isf(1 / 10_001) * math.sqrt(3 / 4), 3)  # over four people
    assert float(rows[1]["p_holm"]) == pytest.approx(smallest)
    assert float(rows[1]["test/bias"]) == 3
    assert rows[0]["folders"] == f"{tmp_path}/coral-0; {tmp_path}/coral-1"


def test_json_has_all_results_under_stable_keys(study) -> None:
    found = json.loads(to_json(study))

    assert set(found) == {"tables", "unranked", "not_comparable"}
    (table,) = found["tables"]
    assert {"protocol", "split_sha", "metric", "parameters", "groups", "baselines", "caption", "notes"} <= set(table)
    first, second = table["groups"]
    assert (first["rank"], first["params"], first["seeds"], first["difference"]) == (1, {"head": "coral"}, [0, 1], None)
    assert first["metrics"]["test/mae"]["mean"] == 1.5
    assert set(second["difference"]) == {"value", "low", "high", "p", "p_holm"}
    assert table["baselines"][0] == {"name": "identity looked up", "metrics": {"test/mae": 2.0}}
    assert found["unranked"][0]["error"] == "UserError: a | b"


def test_html_is_self_contained_and_escapes_text(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1, config={"optim.note": "<b>&"})
    make_run("b", points=TARGETS + 2, config={"optim.note": "plain"})
    picture = tmp_path / "p.png"
    picture.write_bytes(b"\x89PNG")

    found = to_html(compare(find_runs([tmp_path])), {"ranking": picture})

    assert "&lt;b&gt;&amp;" in found
    assert "<b>" not in found
    assert 'src="data:image/png;base64,iVBORw=="' in found
    assert "http://" not in found
    assert "https://" not in found
    assert found.count("<tr") == 3


def test_the_page_says_how_many_groups_are_as_good_as_the_best(make_run, tmp_path) -> None:
    for i, off in enumerate((1, 1, 1, 2)):
        make_run(f"{i}", points=np.arange(20, 32) % 30 + off, config={"optim.lr": 0.1 * (i + 1)})

    page = to_html(compare(find_runs([tmp_path])))

    assert "Best of 4: lr=0.1, mae " in page
    assert " years, and 2 others with an equal result." in page


@pytest.mark.parametrize(("groups", "scrolls"), [(30, False), (31, True)])
def test_a_table_of_over_30_rows_scrolls_and_says_so(make_run, tmp_path, groups, scrolls) -> None:
    for i in range(groups):
        make_run(f"{i}", points=TARGETS + 1, config={"optim.lr": 0.1 * (i + 1)})

    page = to_html(compare(find_runs([tmp_path])))

    assert ("Scroll in the table to see all 31 rows." in page) == scrolls
    assert ('class="wide tall"' in page) == scrolls


def test_infinite_and_missing_numbers_are_null_in_json_and_empty_in_csv(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1, config={"optim.lr": float("inf")})
    make_run("b", config={"optim.lr": 1.0}, metrics={"test/mae": None})

    found = compare(find_runs([tmp_path]))

    assert json.loads(to_json(found))["tables"][0]["groups"][1]["metrics"]["test/mae"]["mean"] is None
    assert len(to_csv(found).splitlines()) == 3
    assert "n/a" in to_markdown(found)


def test_vertical_bars_in_a_cell_are_escaped(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1, config={"optim.note": "a|b"})
    make_run("b", points=TARGETS + 2, config={"optim.note": "c"})

    lines = to_markdown(compare(find_runs([tmp_path]))).splitlines()[2:6]

    assert r"a\|b" in lines[2]
    assert len({line.replace("\\|", "xx").count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1


def test_a_single_group_is_named_after_its_model_and_head(make_run, tmp_path) -> None:
    make_run("a", points=TARGETS + 1)

    (table,) = compare(find_runs([tmp_path])).tables

    assert lay_out(table).rows[0][1] == "convnext_atto-softmax"
    assert "Δ" not in caption(table)
    assert heading(table) == "demo/official/age: 12 test images of 4 people (split aaaabbbb)"


def test_classes_have_identities_that_may_be_no_people(make_run, tmp_path) -> None:
    for head, shift in (("softmax", 1), ("coral", 2)):
        make_run(head, points=TARGETS + shift, head=head, protocol="hiragana73/official/class")

    (table,) = compare(find_runs([tmp_path]), "accuracy").tables

    assert heading(table) == "hiragana73/official/class: 12 test images of 4 identities (split aaaabbbb)"
    assert "people" not in caption(table)
    assert "95% intervals over only 4 identities hold less often than 95% of the time: see docs/heads.md" in table.notes


def test_notes_for_a_csv_include_leaks_and_unranked_runs(study) -> None:
    notes = notes_of(study)

    assert notes[0].startswith("the split leaks")
    assert notes[-1].startswith("not ranked: failed: ")


def test_a_comparison_without_completed_runs_lists_the_runs(make_run, tmp_path) -> None:
    make_run("a", status="running")

    found = compare(find_runs([tmp_path]))

    assert to_markdown(found).startswith("## Not ranked: 1 run that did not complete")
    assert "did not complete" in to_html(found)
