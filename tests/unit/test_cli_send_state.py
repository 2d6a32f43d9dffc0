"""What `toolledger send` keeps of files, and how it goes on: never counting twice what has no id, never mixing two files up."""

import os
from pathlib import Path

import msgspec
import pytest

from deploy.cli.send_state import Kept, State, fresh, go_on, identity_of, sample_before
from ingest.contract.errors import ConfigurationError

LINES = b"".join(b'{"n":%d}\n' % number for number in range(100))
HALF = LINES[:450]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "calls.ndjson"
    path.write_bytes(LINES)
    return path


def _kept(path: Path, *, finished: bool = False) -> State:
    """Return the state of a send that got half-way."""
    begun = fresh(identity_of(str(path)))
    offset = len(HALF)
    sample = sample_before(str(path), offset)
    return msgspec.structs.replace(begun, offset=offset, number=50, sample=sample, accepted=49, rejected=1, finished=finished)


def _go_on(kept: State | None, path: Path, *, anew: bool = False) -> tuple[State, str]:
    return go_on(kept, identity_of(str(path)), str(path), anew=anew)


def test_an_interrupted_send_goes_on_where_it_stopped(file: Path) -> None:
    kept = _kept(file)
    state, remark = _go_on(kept, file)
    assert state == kept
    assert "behind line 50" in remark


def test_the_same_file_makes_the_same_ids_even_if_nothing_was_kept(file: Path) -> None:
    """From wherever it is sent, as long as it is unchanged."""
    kept = _kept(file, finished=True)
    moved = file.rename(file.with_name("moved.ndjson"))
    state, remark = _go_on(None, moved)
    assert (state.seed, state.offset, remark) == (kept.seed, 0, "")


def test_a_finished_file_is_sent_again_from_its_start_with_the_same_ids(file: Path) -> None:
    kept = _kept(file, finished=True)
    state, _ = _go_on(kept, file)
    assert (state.seed, state.offset, state.accepted, state.finished) == (kept.seed, 0, 0, False)


@pytest.mark.parametrize(("finished", "accepted"), [(False, 49), (True, 0)])
def test_a_file_that_has_grown_goes_on_with_the_same_ids(file: Path, finished: bool, accepted: int) -> None:
    kept = _kept(file, finished=finished)
    file.write_bytes(LINES * 2)
    state, remark = _go_on(kept, file)
    assert (state.seed, state.offset, state.number, state.accepted) == (kept.seed, kept.offset, 50, accepted)
    assert "has grown" in remark


@pytest.mark.parametrize("changed", [LINES.replace(b"3", b"4"), LINES.replace(b'{"n":1}', b'{"n":7}') * 2, LINES[:300]])
def test_an_interrupted_file_that_was_changed_is_not_gone_on_with(file: Path, changed: bytes) -> None:
    """Neither from the old place nor, silently, from its start: what has no id would count twice."""
    kept = _kept(file)
    file.write_bytes(changed)
    with pytest.raises(ConfigurationError, match=r"has been changed since its send was interrupted behind line 50.*--anew"):
        _go_on(kept, file)
    state, _ = _go_on(kept, file, anew=True)
    assert (state.offset, state.accepted) == (0, 0)
    assert state.seed != kept.seed


def test_a_file_that_was_touched_is_another_one(file: Path) -> None:
    """Written anew with the same bytes, it may hold new calls."""
    first = fresh(identity_of(str(file)))
    os.utime(file, ns=(1, 1))
    assert fresh(identity_of(str(file))).seed != first.seed


def test_a_finished_file_that_was_changed_is_a_new_one_and_says_so(file: Path) -> None:
    kept = _kept(file, finished=True)
    file.write_bytes(LINES.replace(b"3", b"4"))
    state, remark = _go_on(kept, file)
    assert state.seed != kept.seed
    assert (state.offset, "new calls" in remark) == (0, True)


def test_a_changed_file_without_samples_is_another_one(file: Path) -> None:
    """Of a compressed file nothing tells that it has only grown."""
    kept = msgspec.structs.replace(_kept(file), sample="")
    file.write_bytes(LINES * 2)
    with pytest.raises(ConfigurationError, match="has been changed"):
        _go_on(kept, file)


def test_what_is_kept_is_of_one_file_and_one_place(tmp_path: Path, file: Path) -> None:
    here = Kept(tmp_path / "kept", "https://a key", str(file))
    with here.held("calls"):
        here.save(_kept(file))
        with pytest.raises(ConfigurationError, match="is being sent by another process"), here.held("calls"):
            pass
    assert Kept(tmp_path / "kept", "https://a key", str(file)).read() == _kept(file)
    assert Kept(tmp_path / "kept", "https://b key", str(file)).read() is None
    assert Kept(tmp_path / "kept", "https://a key", str(file) + "x").read() is None


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b'{"version":1}'])
def test_what_cannot_be_read_is_as_if_it_were_not_there(tmp_path: Path, file: Path, content: bytes) -> None:
    kept = Kept(tmp_path / "kept", "t", str(file))
    with kept.held("calls"):
        kept.save(_kept(file))
    (one,) = (tmp_path / "kept").glob("*.json")
    one.write_bytes(content)
    assert kept.read() is None


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path, file: Path) -> None:
    (tmp_path / "kept").touch()
    with pytest.raises(ConfigurationError, match="TOOLLEDGER_CACHE"), Kept(tmp_path / "kept", "t", str(file)).held("calls"):
        pass


def test_what_nobody_has_sent_for_a_month_is_forgotten(tmp_path: Path, file: Path) -> None:
    old, new = (Kept(tmp_path / "kept", target, str(file)) for target in ("old", "new"))
    for kept in (old, new):
        with kept.held("calls"):
            kept.save(_kept(file))
    for one in (tmp_path / "kept").iterdir():
        os.utime(one, ns=(1, 1))
    with new.held("calls"):
        new.save(_kept(file))
        new.tidy()
    assert (old.read(), new.read()) == (None, _kept(file))
