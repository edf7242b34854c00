"""`python tests/fuzz`: run agebench on damaged input and hostile overrides. Each must end well or in one sentence."""

import argparse
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

# Before NumPy and torch are imported: a process with threads cannot be forked safely.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

import cases
import harness

CORPUS = Path(__file__).with_name("corpus.txt")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=3000, help="number of random cases")
    parser.add_argument("--seed", type=int, default=0, help="of the random cases")
    parser.add_argument("--kind", default=",".join(cases.KINDS), help="kinds of cases, separated by commas")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="cases at the same time")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which a case hangs")
    parser.add_argument("--case", action="append", help="run this case and show its output; may be repeated")
    parser.add_argument("--corpus", action="store_true", help="run the cases in corpus.txt before the random ones")
    parser.add_argument("--show", action="store_true", help="show how each case ended, not only those that went wrong")
    parser.add_argument("--work", type=Path, help="folder for the inputs (default: a temporary one)")
    given = parser.parse_args()

    names = list(given.case or [])
    if given.corpus:
        names += read_corpus()
    if not given.case:
        names += cases.draw(given.cases, given.seed, given.kind.split(","))
    work = given.work or Path(tempfile.mkdtemp(prefix="agebench-fuzz-"))
    began = time.monotonic()
    harness.preload(work, every_verb=len(names) > 100)
    print(f"{len(names)} cases; everything is imported after {time.monotonic() - began:.0f} s", flush=True)
    table: dict[str, Counter[str]] = {}
    slowest: list[tuple[float, str]] = []
    for outcome in harness.run(names, work, jobs=given.jobs, limit=given.limit):
        kind = outcome.case.partition("/")[0] if "/" in outcome.case else "corpus"
        kind = kind if kind in cases.KINDS else "corpus"
        table.setdefault(kind, Counter())[outcome.ending] += 1
        slowest = sorted([*slowest, (outcome.seconds, outcome.case)])[-5:]
        if outcome.ending == "wrong" or given.case or given.show:
            again = shlex.join(["python", "tests/fuzz", "--case", outcome.case])
            print(f"{outcome.ending}: {outcome.why}\n  {outcome.command[:400]}\n  {again}", flush=True)
    show(table, time.monotonic() - began, slowest)
    wrong = sum(counts["wrong"] for counts in table.values())
    if wrong:
        print(f"the inputs of what is wrong are in {work}")
        sys.exit(1)
    shutil.rmtree(work, ignore_errors=True)
    sys.stdout.flush()
    os._exit(0)  # without the warnings of compiled extensions about their own leaks


def read_corpus() -> list[str]:
    """Return the cases of corpus.txt, without comments and without those that wait for a known fix."""
    lines = CORPUS.read_text(encoding="utf-8").splitlines()
    waiting = [each for each in lines if each.startswith("WAITING ")]
    if waiting:
        print(f"{len(waiting)} cases of the corpus are skipped, because they wait for a known fix")
    return [each for each in lines if each and not each.startswith(("#", "WAITING "))]


def show(table: dict[str, Counter[str]], seconds: float, slowest: list[tuple[float, str]]) -> None:
    endings = ("fine", "sentence", "wrong")
    print(f"{'kind':<10}{'tried':>8}" + "".join(f"{name:>10}" for name in endings))
    total: Counter[str] = sum(table.values(), Counter())
    for kind, counts in [*sorted(table.items()), ("all", total)]:
        print(f"{kind:<10}{counts.total():>8}" + "".join(f"{counts[name]:>10}" for name in endings))
    print(f"{seconds:.0f} s; slowest: " + ", ".join(f"{case} {s:.1f} s" for s, case in reversed(slowest)))


if __name__ == "__main__":
    main()
