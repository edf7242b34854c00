"""Values as they are typed in a shell: what Hydra reads, for texts and for its own grammar."""

import logging
import shlex
import sys
from functools import partial

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from agebench.cli.main import main
from agebench.cli.overrides import key_takes_text, quoted, to_hydra, typed_text

# What bash passes on for a typed argument, and the values that Hydra then has, one per point.
TYPED = [
    # other scripts, and characters that Hydra's grammar does not have
    ("data.root=授業/データ", ["授業/データ"]),
    ("data.root=~/授業/データ", ["/home/me/授業/データ"]),
    ("data.root=~", ["/home/me"]),
    ("data.root=~/faces", ["/home/me/faces"]),
    ("data.root=~nobody-of-this-name/x", ["~nobody-of-this-name/x"]),
    ("data.root=backup~1/x~", ["backup~1/x~"]),
    ("paths.cache=~/キャッシュ", ["/home/me/キャッシュ"]),
    ("paths.output=出力", ["出力"]),
    ("paths.data=данные/лица", ["данные/лица"]),
    ("data.name=顔", ["顔"]),
    ("data.name=visages âgés", ["visages âgés"]),
    ("data.columns.path=ファイル名", ["ファイル名"]),
    ("data.columns.label=年齢 (歳)", ["年齢 (歳)"]),
    ("data.columns.identity=人物 ID", ["人物 ID"]),
    ("data.split.file=分割/split.csv", ["分割/split.csv"]),
    ("hydra.run.dir=出力/ひらがな", ["出力/ひらがな"]),
    ("hydra.run.dir=~/出力", ["/home/me/出力"]),
    ("hydra.sweep.dir=結果 1", ["結果 1"]),
    ("hydra.searchpath=[file:///home/me/設定 1]", [["file:///home/me/設定 1"]]),
    ("hydra.searchpath=['file:///home/me/conf']", [["file:///home/me/conf"]]),
    ("sweep=夏の実験", ["夏の実験"]),
    ("model.checkpoint_path=重み/best (2).ckpt", ["重み/best (2).ckpt"]),
    ("data=顔", ["顔"]),
    ("+callbacks.mine.note=はい", ["はい"]),
    # punctuation
    ("data.root=my photos", ["my photos"]),
    ("data.root=photos (2024)", ["photos (2024)"]),
    ("data.root=photos (2024", ["photos (2024"]),
    ("data.root=a=b", ["a=b"]),
    ("data.root=run#3", ["run#3"]),
    ("data.root=C:/faces", ["C:/faces"]),
    (r"data.root=C:\faces\new", [r"C:\faces\new"]),
    (r"data.root=C:\顔\new", [r"C:\顔\new"]),
    ("data.root=it's", ["it's"]),
    ("data.root=Ann's and Bob's", ["Ann's and Bob's"]),
    ('data.root=the "best"', ['the "best"']),
    ("data.root='old' and 'new'", ["'old' and 'new'"]),
    ("data.root=cats & dogs; more!", ["cats & dogs; more!"]),
    ("data.root=<a>|b`c^d", ["<a>|b`c^d"]),
    ("data.root=cost$5/$HOME", ["cost$5/$HOME"]),
    ("data.root=50%_*?@x+y", ["50%_*?@x+y"]),
    ("data.root=[2024] 顔", ["[2024] 顔"]),
    ("data.root=[2024]", ["[2024]"]),
    ("data.root={a}", ["{a}"]),
    ("data.root=a]b}c)d", ["a]b}c)d"]),
    ("data.root=${unclosed", ["${unclosed"]),
    (r"data.root=写真\,顔", ["写真,顔"]),
    (r"data.root=a\,b", ["a,b"]),
    ("data.root=顔 (1,2)", ["顔 (1,2)"]),
    ("data.root=  顔  ", ["顔"]),
    # texts that look like numbers or words of the grammar
    ("data.root=2024", ["2024"]),
    ("data.root=2024_11", ["2024_11"]),
    ("hydra.run.dir=2024_11", ["2024_11"]),
    ("sweep=1e3", ["1e3"]),
    ("data.name=007", ["007"]),
    ("data.name=true", ["true"]),
    ("data.split.file=2024", ["2024"]),
    # sweeps
    ("data.root=甲,乙", ["甲", "乙"]),
    ("data.root=~/甲,~/乙 (2)", ["/home/me/甲", "/home/me/乙 (2)"]),
    ("data.root=a,乙,2024", ["a", "乙", "2024"]),
    ("data.root=it's,顔", ["it's", "顔"]),
    ("data.root='a,b',乙", ["a,b", "乙"]),
    ("data.root=choice(甲,乙)", ["甲", "乙"]),
    ("data.root=choice(顔 (1),乙)", ["顔 (1)", "乙"]),
    ("data.name=顔,null", ["顔", None]),
    ("model=mlp,lenet", ["mlp", "lenet"]),
    ("seed=0,1,2", [0, 1, 2]),
    ("seed=range(3)", [0, 1, 2]),
    ("optim.lr=1e-4,1e-3", [1e-4, 1e-3]),
    # Hydra's grammar
    ("optim.lr=1e-3", [1e-3]),
    ("launcher.jobs=2", [2]),
    ("resume=false", [False]),
    ("report=False", [False]),
    ("data.root=null", [None]),
    ("data.root=", [""]),
    ("data.root='null'", ["null"]),
    ('data.root="my photos"', ["my photos"]),
    (r"data.root='it\'s'", ["it's"]),
    ("data.root='~/x'", ["~/x"]),
    ("data.bins=[18,30,45,60]", [[18, 30, 45, 60]]),
    ("model.hidden=[64,32],[16]", [[64, 32], [16]]),
    ("+data.classes=[あ,い,'う,え']", [["あ", "い", "う,え"]]),
    ("+data.places=[~/x,z~1,C:/顔]", [["/home/me/x", "z~1", "C:/顔"]]),
    ("+data.names={a: 顔,b: 2,c: [~]}", [{"a": "顔", "b": 2, "c": ["/home/me"]}]),
    ("data.root=${paths.data}/顔", ["data/顔"]),
    ("data.root=${paths.data}/x", ["data/x"]),
    ("data.batch_size=${seed}", [3]),
]


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    monkeypatch.chdir(tmp_path)


def read(override: str) -> list:
    """Return the values of an override as Hydra and OmegaConf read them, one per point of a sweep."""
    parsed = OverridesParser.create().parse_override(override)
    values = [parsed.value()]
    if parsed.is_sweep_override():  # as Hydra's sweeper does: one override per point
        points = [f"key={text}" for text in parsed.sweep_string_iterator()]
        values = [OverridesParser.create().parse_override(point).value() for point in points]
    trees = [OmegaConf.create({"paths": {"data": "data"}, "seed": 3, "x": value}) for value in values]
    return [OmegaConf.to_container(tree, resolve=True)["x"] for tree in trees]


@pytest.mark.parametrize(("typed", "values"), TYPED, ids=[typed for typed, _ in TYPED])
def test_a_value_is_read_as_it_is_typed(conf, typed, values) -> None:
    is_text = partial(key_takes_text, conf=conf, config_name="config")

    override = to_hydra(typed, is_text=is_text, sweeps=True)

    assert read(override) == values
    assert to_hydra(override, is_text=is_text, sweeps=True) == override  # a DDP rank gets the rewritten line


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("run=出力/実験 1", "出力/実験 1"),
        ("run=2024_11", "2024_11"),
        ("images=写真 (2024)/花子.jpg", "写真 (2024)/花子.jpg"),
        ("images=~/写真/[1].png", "/home/me/写真/[1].png"),
        ("images=a,b.png", "a,b.png"),
        ("images=顔,猫", "顔,猫"),
        ("output=結果, 最終.csv", "結果, 最終.csv"),
        ("output=${run}/顔.csv", "here/顔.csv"),
        ("checkpoint=重み/best.ckpt", "重み/best.ckpt"),
        ("batch_size=8", 8),
        ("precision=null", None),
    ],
)
def test_a_command_without_sweeps_takes_a_comma_as_text(conf, typed, value) -> None:
    is_text = partial(key_takes_text, conf=conf, config_name="predict")

    override = OverridesParser.create().parse_override(to_hydra(typed, is_text=is_text, sweeps=False))

    assert not override.is_sweep_override()
    assert OmegaConf.create({"run": "here", "x": override.value()}).x == value


def test_a_comma_in_the_name_of_an_existing_path_is_a_part_of_it(conf, tmp_path) -> None:
    (tmp_path / "甲,乙").mkdir()
    is_text = partial(key_takes_text, conf=conf, config_name="config")

    there, absent = (to_hydra(f"data.root={name}", is_text=is_text, sweeps=True) for name in ("甲,乙", "甲,丙"))

    assert read(there) == ["甲,乙"]
    assert read(absent) == ["甲", "丙"]


@pytest.mark.parametrize("typed", ["data.bins=[18,30", "optim.lr=interval(1,", "seed=", "~trainer", "x", "=3", "a=1,"])
def test_what_is_neither_a_text_nor_valid_is_left_to_hydra(conf, typed) -> None:
    assert to_hydra(typed, is_text=partial(key_takes_text, conf=conf, config_name="config"), sweeps=True) == typed


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("data.source.root", True),  # ${data.root}
        ("data.source.columns", False),  # ${data.columns}, a mapping
        ("model.image_size", False),  # ${data.image_size}
        ("callbacks.checkpoint.filename", True),
        ("callbacks.mine.save_dir", True),
        ("logger.csv.version", False),
        ("launcher.jobs", False),
        ("trainer.devices", False),
        ("data.batch_size", False),
        ("nowhere.at_all", False),
    ],
)
def test_the_configs_say_whether_a_key_takes_a_text(conf, key, expected) -> None:
    assert key_takes_text(key, conf, "config") is expected


@pytest.mark.parametrize(
    ("typed", "text"),
    [("出力/a b", "出力/a b"), ("2024_11", "2024_11"), (r"'it\'s'", "it's"), ("~/x", "/home/me/x"), ("a,b", "a,b")],
)
def test_a_folder_that_a_command_reads_before_hydra_is_the_same_text(typed, text) -> None:
    assert typed_text(typed) == text


@pytest.mark.parametrize(
    "path", ["plain", "with space", "a=b,c", "it's", "back\\slash", "ends in \\", "\\'both\\'", "[x]{y}$", "日本"]
)
def test_any_text_can_be_a_value_of_an_override(path) -> None:
    override = OverridesParser.create().parse_override(f"hydra.run.dir={quoted(path)}")

    assert override.value() == path


def test_a_command_gets_the_texts_of_its_line(monkeypatch, conf, tmp_path) -> None:
    line = (
        "data=table data.root=~/授業/一覧.csv 'data.columns.path=ファイル (名)' data.columns.label=年齢 "
        "hydra.run.dir=出力/ひらがな paths.cache=~/k optim.lr=1e-2 data.name=007 'sweep=夏 1' model.hidden=[8]"
    )
    monkeypatch.setattr(sys, "argv", ["agebench", *shlex.split(line)])
    seen = []
    GlobalHydra.instance().clear()

    def task(cfg):
        seen.append(cfg)
        assert (tmp_path / "出力" / "ひらがな").is_dir()

    main("train", task, config_name="config")

    GlobalHydra.instance().clear()
    data = seen[0].data
    assert (data.root, data.columns.path, data.columns.label) == ("/home/me/授業/一覧.csv", "ファイル (名)", "年齢")
    assert (seen[0].paths.cache, seen[0].optim.lr, data.name, seen[0].sweep) == ("/home/me/k", 0.01, "007", "夏 1")
    assert seen[0].model.hidden == [8]
    logging.getLogger("later").warning("later")
    assert "later" in (tmp_path / "出力" / "ひらがな" / "train.log").read_text(encoding="utf-8")
