"""A training that needs more memory than there is."""

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")

# Limits the memory to what the process has after its imports, and a little more.
LIMITED = """
import resource, sys
import agebench.training.fit
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv.pop(1)) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from agebench.train import main
main()
"""


@pytest.mark.parametrize(
    ("mib", "arguments"),
    [
        (400, ["model=vgg16"]),  # 512 MiB of weights
        (700, ["model=small_cnn", "data.batch_size=64", "data.limit=64"]),  # 512 MiB after the first layer
    ],
)
def test_it_is_one_sentence_and_the_run_has_failed(tmp_path, mib, arguments) -> None:
    line = [sys.executable, "-c", LIMITED, str(mib), "data=digits", "data.image_size=256", "trainer.max_epochs=1"]
    line += ["report=false", "data.limit=64", "hydra.run.dir=out", f"paths.data={tmp_path}", *arguments]

    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)

    sentence = "the memory is exhausted: use a smaller batch size, image size or model, or close other programs"
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == f"agebench train: {sentence}"
    assert "Traceback" not in ended.stderr
    assert (found["status"], found["error"]) == ("failed", sentence)
