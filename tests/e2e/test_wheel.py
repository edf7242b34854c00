"""An unpacked wheel works without the checkout, from any directory."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_wheel_contains_the_configs_and_trains_without_the_checkout(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    build = [str(uv), "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(REPOSITORY)]
    if not uv.exists():
        pytest.skip("no uv in this environment to build the wheel with")
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")

    code = "import sys; sys.path.insert(0, 'site'); sys.argv = ['agebench', 'train', *sys.argv[1:]]\n"
    code += "import agebench, agebench.__main__; assert 'site' in agebench.__file__; agebench.__main__.main()"
    line = [sys.executable, "-c", code, "data=digits", "trainer.max_epochs=1", "report=false", "hydra.run.dir=out"]
    subprocess.run(line, cwd=tmp_path, check=True)

    assert (tmp_path / "site" / "agebench" / "conf" / "config.yaml").is_file()
    assert (tmp_path / "site" / "agebench" / "pages" / "templates" / "run.html").is_file()
    assert (tmp_path / "out" / "results.json").is_file()
