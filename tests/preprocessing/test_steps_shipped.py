"""Shipped datasets of public data: rows as their files have them, made ready as `obtain` says, become sessions."""

from __future__ import annotations

import subprocess
from pathlib import Path

from preprocessing.pipeline import prepare
from schemas.artifacts import Artifacts, Manifest
from schemas.dataset import read_dataset
from tests.preprocessing.small import NOW, sessions_of

YOOCHOOSE = """\
1,2014-04-07T10:51:09.277Z,214536502,0
1,2014-04-07T10:54:09.868Z,214536500,0
1,2014-04-07T10:54:46.998Z,214536500,0
2,2014-04-08T09:56:37.614Z,214662742,0
2,2014-04-08T09:57:19.373Z,214662742,S
2,2014-04-08T09:58:37.446Z,214536500,0
"""

REES46 = """\
event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session
2019-10-01 00:00:00 UTC,view,44600062,2103807459595387724,,shiseido,35.79,541312140,72d76fde
2019-10-01 00:00:01 UTC,view,3900821,2053013552326770905,appliances.environment.water_heater,aqua,33.20,541312140,72d76fde
2019-10-01 00:00:05 UTC,cart,3900821,2053013552326770905,appliances.environment.water_heater,aqua,33.20,541312140,72d76fde
2019-10-02 00:00:01 UTC,view,17200506,2053013559792632471,furniture.living_room.sofa,,543.10,519107250,566511c2
2019-10-02 00:00:04 UTC,view,44600062,2103807459595387724,,shiseido,35.79,519107250,566511c2
2019-10-02 00:00:05 UTC,view,44600062,2103807459595387724,,shiseido,35.79,554748717,
"""


def prepared(name: str, folder: Path) -> Manifest:
    """Run the shell command of `obtain` in the folder, then prepare."""
    dataset = read_dataset(name)
    subprocess.run(dataset.obtain.splitlines()[1], shell=True, check=True, cwd=folder)
    return prepare(Artifacts(folder / "artifacts"), dataset.at(folder), now=NOW)


def test_yoochoose(tmp_path: Path) -> None:
    (tmp_path / "yoochoose-clicks.dat").write_text(YOOCHOOSE)
    manifest = prepared("yoochoose", tmp_path)
    assert manifest.facts["quarantined"] == {}
    assert manifest.facts["dropped"]["drop_repeats"] == 2
    sessions = sessions_of(manifest)
    assert sessions["length"].to_list() == [2, 2]
    assert {"category", "weekday_sin", "item_age"} <= set(sessions.columns)


def test_rees46(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text(REES46)
    subprocess.run("gzip -c raw.csv > 2019-Oct.csv.gz", shell=True, check=True, cwd=tmp_path)
    manifest = prepared("rees46", tmp_path)
    assert manifest.facts["quarantined"] == {"session_id_null": 1}
    assert manifest.facts["dropped"]["drop_repeats"] == 1
    sessions = sessions_of(manifest)
    assert sessions["length"].to_list() == [2, 2]
    assert sessions["price"].list.len().to_list() == [2, 2]
