"""Every estimator in a file: the same answers afterwards, the old file or the new one, no code."""

import copy
import os
import pickle
import re
import signal
import struct
import subprocess
import sys
import warnings
from functools import cache

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from cases import CASES, CLOSED, GAPS, UNFITTED
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import skdiffusion
from skdiffusion import CSDIImputer, LangevinSampler, ScoreSDE, _file
from skdiffusion.persistence import ModelFileError

pytestmark = pytest.mark.filterwarnings("ignore")


@cache
def case(name):
    return CASES[name]()


def assert_same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b):
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, other, check_exact=True)
        elif isinstance(one, list):
            assert_same(one, other)
        else:
            one, other = np.asarray(one), np.asarray(other)
            assert (one.dtype, one.shape) == (other.dtype, other.shape)
            assert one.tobytes() == other.tobytes()


SLOW = "density, regression"
QUICK = [pytest.param(n, marks=pytest.mark.slow) if n == SLOW else n for n in CASES]


@pytest.mark.parametrize("name", QUICK)
def test_answers_are_the_same_bit_for_bit(name, tmp_path):
    estimator, answers = case(name)
    before = answers(estimator)
    skdiffusion.save(estimator, tmp_path / "a")
    again = skdiffusion.load(tmp_path / "a")
    assert type(again) is type(estimator)
    # The same model gives the same bytes.
    skdiffusion.save(again, tmp_path / "b")
    assert_same(answers(again), before)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", UNFITTED)
def test_unfitted_estimators_keep_their_parameters(name, tmp_path):
    skdiffusion.save(UNFITTED[name], tmp_path / "a")
    again = skdiffusion.load(tmp_path / "a")
    texts = [re.sub("0x[0-9A-F]+", "", repr(one)) for one in (clone(again), UNFITTED[name])]
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    "name", ["imputer", "density", "sampler, data", "pool, linear", "conformal"]
)
def test_pickle_joblib_and_skops_keep_working(name, tmp_path):
    estimator, answers = case(name)
    expected = answers(estimator)
    joblib.dump(estimator, tmp_path / "a")
    data = skops.io.dumps(estimator)
    for again in (
        pickle.loads(pickle.dumps(estimator)),
        joblib.load(tmp_path / "a"),
        skops.io.loads(data, trusted=skdiffusion.trusted_types),
    ):
        for found, one in zip(answers(again), expected):
            # They do not keep the order of cells in memory.
            np.testing.assert_allclose(found, one, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", QUICK)
def test_the_list_for_skops_is_complete(name):
    try:
        data = skops.io.dumps(case(name)[0])
    except Exception as error:
        pytest.skip(f"skops does not write it: {error!r:.60}")
    untrusted = set(skops.io.get_untrusted_types(data=data)) - set(skdiffusion.trusted_types)
    # Estimators of scikit-learn that a user brings are for the user to trust.
    brought = name.startswith("pipe") or name in ("pool, forest", "pool, others")
    assert not {t for t in untrusted if t.startswith("skdiffusion.") or not brought}


UNWRITABLE = {
    "network": (
        ScoreSDE(network=lambda *args: None),
        r"^network is the function <function <lambda>",
    ),
    "target": (LangevinSampler(lambda x: -x), r"^target is the function .*joblib"),
    "step": (
        make_pipeline(FunctionTransformer(lambda x: x), CSDIImputer()),
        r"^steps\[0\]\[1\]\.func is the function .*set it to None before saving",
    ),
    "search": (
        GridSearchCV(CSDIImputer(), {}),
        r"is a GridSearchCV.*save what it has found, its best",
    ),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_written_is_named_with_a_remedy(name, tmp_path):
    estimator, message = UNWRITABLE[name]
    with pytest.raises(TypeError, match=message):
        skdiffusion.save(estimator, tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_only_on_demand(tmp_path):
    path = tmp_path / "a"
    skdiffusion.save(CSDIImputer(), path)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="overwrite=True"):
        skdiffusion.save(ScoreSDE(), path)
    assert path.read_bytes() == before
    path.chmod(0o640)
    skdiffusion.save(ScoreSDE(), str(path), overwrite=True)
    assert isinstance(skdiffusion.load(str(path)), ScoreSDE)
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(IsADirectoryError, match="name a file in it"):
        skdiffusion.save(ScoreSDE(), tmp_path, overwrite=True)
    with pytest.raises(FileNotFoundError):
        skdiffusion.load(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        skdiffusion.save(ScoreSDE(), tmp_path / "no folder" / "a")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_link_leads_to_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "a")
    skdiffusion.save(CSDIImputer(), tmp_path / "a")
    skdiffusion.save(ScoreSDE(), tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert isinstance(skdiffusion.load(tmp_path / "a"), ScoreSDE)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small fitted model: its bytes, and a place for what is made of them."""
    path = tmp_path_factory.mktemp("small") / "a"
    skdiffusion.save(case("pipe, columns")[0], path)
    return path.read_bytes(), path.with_name("b")


def test_every_flipped_byte_is_refused(small):
    data, path = small
    rng = np.random.default_rng(0)
    # All of the beginning, and a sample of what follows.
    places = {*range(80), *rng.choice(len(data), 500, replace=False).tolist(), len(data) - 1}
    for place in places:
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(ModelFileError, match="cannot be loaded"):
            skdiffusion.load(path)


def test_every_truncation_and_every_longer_file_is_refused(small):
    data, path = small
    rng = np.random.default_rng(0)
    for length in {*range(80), *rng.choice(len(data), 300, replace=False).tolist(), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match="cannot be loaded"):
            skdiffusion.load(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(ModelFileError, match="length is wrong"):
        skdiffusion.load(path)


@pytest.mark.parametrize("content", [b"", b"PK\3\4 a zip", pickle.dumps(print), b"{}" * 100])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(ModelFileError, match="no model of skdiffusion"):
        skdiffusion.load(tmp_path / "a")


def test_devices_and_folders_are_refused(tmp_path):
    with pytest.raises(OSError):
        skdiffusion.load(tmp_path)
    with pytest.raises(ModelFileError, match="no regular file"):
        skdiffusion.load(os.devnull)


def written(path, header, tensors=None):
    """A file with a right checksum and any header: what an attacker would write."""
    _file.write_file(path, _file.file_bytes(header, tensors or {}))
    return path


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ([], "header is none"),
        ({"format": "1", "content": None}, "header is none"),
        (
            {"format": 99, "skdiffusion": "9.1"},
            "format 99 of skdiffusion 9.1.*install a later version",
        ),
        ({"format": 1}, "KeyError"),
        ({"format": 1, "content": {"object": "os.system", "state": {}}}, "os.system.*not read"),
        ({"format": 1, "content": {"named": "builtins.eval"}}, "builtins.eval.*not read"),
        ({"format": 1, "content": {"array": "../../etc/passwd"}}, "KeyError"),
        (
            {"format": 1, "content": {"object": "skdiffusion.estimators.ScoreSDE", "state": 1}},
            "ScoreSDE",
        ),
    ],
)
def test_hostile_headers_are_refused(header, message, tmp_path):
    with pytest.raises(ModelFileError, match=message):
        skdiffusion.load(written(tmp_path / "a", header))


def test_deep_headers_are_refused(tmp_path):
    parts = _file.file_bytes({}, {})
    text = b'{"format":1,"content":' + b'{"list":[' * 100_000 + b"]}" * 100_000 + b"}"
    parts[2:4] = [struct.pack("<QQ", len(text), len(parts[4])), text]
    parts[1] = __import__("hashlib").sha256(b"".join(parts[2:])).digest()
    _file.write_file(tmp_path / "a", parts)
    with pytest.raises(ModelFileError, match="RecursionError"):
        skdiffusion.load(tmp_path / "a")


def test_nothing_is_imported_by_a_name_of_a_file(tmp_path, monkeypatch):
    (tmp_path / "trap.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    for node in (
        {"object": "trap.A", "state": {}},
        {"named": "trap.f"},
        {"called": "trap.f", "args": []},
    ):
        with pytest.raises(ModelFileError, match=r"trap\.. *.*not read"):
            skdiffusion.load(written(tmp_path / "a", {"format": 1, "content": node}))
    assert "trap" not in sys.modules


FULL = """
import resource, sys
import numpy as np, skdiffusion
from skdiffusion import CSDIImputer
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    skdiffusion.save([CSDIImputer(), np.zeros(10_000)], sys.argv[1], overwrite=True)
except OSError as error:
    print(error)
"""
KILLED = """
import os, sys
import numpy as np, skdiffusion
from skdiffusion import CSDIImputer
sync = os.fsync
def stop(number):
    print("half", flush=True)
    os.kill(os.getpid(), 9)
os.fsync = stop
skdiffusion.save([CSDIImputer(), np.zeros(10_000)], sys.argv[1], overwrite=True)
"""


def outcome(script, path):
    command = [sys.executable, "-c", script, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a"
    skdiffusion.save(ScoreSDE(), path)
    done = outcome(FULL, path)
    assert "no space: 0.1 MB are needed; what was there is kept" in done.stdout, done.stderr
    assert isinstance(skdiffusion.load(path), ScoreSDE)
    assert list(tmp_path.iterdir()) == [path]


def test_kill_in_the_middle_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "a"
    skdiffusion.save(ScoreSDE(), path)
    done = outcome(KILLED, path)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "half\n")
    assert isinstance(skdiffusion.load(path), ScoreSDE)


@pytest.mark.parametrize("stage", ["fsync", "replace"])
def test_ctrl_c_in_the_middle_leaves_the_old_file_whole(stage, tmp_path, monkeypatch):
    path = tmp_path / "a"
    skdiffusion.save(ScoreSDE(), path)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, stage, interrupted)
    with pytest.raises(KeyboardInterrupt):
        skdiffusion.save(CSDIImputer(), path, overwrite=True)
    assert isinstance(skdiffusion.load(path), ScoreSDE)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [CSDIImputer, ScoreSDE, LangevinSampler])
def test_a_device_that_is_not_there_becomes_auto(kind, tmp_path):
    skdiffusion.save(kind(device="cuda:99"), tmp_path / "a")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        again = skdiffusion.load(tmp_path / "a")
    assert again.device == "auto"
    assert "device='cuda:99' is not on this machine" in str(said[0].message)


def test_models_of_a_gpu_answer_without_one(tmp_path):
    estimator, answers = case("imputer, network")
    elsewhere = copy.deepcopy(estimator).set_params(device="cuda:99")
    skdiffusion.save(elsewhere, tmp_path / "a")
    assert_same(answers(skdiffusion.load(tmp_path / "a")), answers(estimator))


def test_parameters_younger_than_a_file_have_their_defaults(tmp_path):
    imputer = CSDIImputer(**CLOSED).fit(GAPS)
    expected = imputer.transform(GAPS)
    del imputer.solver
    skdiffusion.save(imputer, tmp_path / "a")
    again = skdiffusion.load(tmp_path / "a")
    assert again.solver == "auto"
    np.testing.assert_array_equal(again.transform(GAPS), expected)


@pytest.mark.parametrize("kind", [object, "string", "category"])
def test_densities_of_frames_with_text_of_any_type_are_kept(kind, tmp_path):
    rng = np.random.default_rng(0)
    text = pd.Series(np.where(rng.random(100) > 0.5, "u", "v")).astype(kind)
    frame = pd.DataFrame({"a": rng.normal(size=100), "text": text})
    density = ScoreSDE(base="gaussian", max_iter=0, random_state=0).fit(frame)
    skdiffusion.save(density, tmp_path / "text.skd")
    again = skdiffusion.load(tmp_path / "text.skd")
    drawn = density.sample(5, random_state=0)
    pd.testing.assert_frame_equal(again.sample(5, random_state=0), drawn)
