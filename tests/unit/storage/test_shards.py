import errno
import os
import subprocess
import sys

import pytest

from vasculome.errors import UserError
from vasculome.storage import shards


def _files(folder):
    return sorted(p.name for p in folder.rglob("*") if p.is_file())


def test_checksum_is_crc32c_and_length():
    # The check value of CRC-32C (Castagnoli), RFC 3720.
    assert shards.checksum(b"123456789") == "e3069283-9"


def test_write_replaces_whole_file_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    shards.write_bytes_atomic(path, b"old")
    shards.write_bytes_atomic(path, memoryview(b"newer"))
    assert path.read_bytes() == b"newer"
    assert shards.file_checksum(path) == shards.checksum(b"newer")
    assert _files(tmp_path) == ["file"]


def test_checksum_of_no_file_is_absent(tmp_path):
    assert shards.file_checksum(tmp_path / "none") == shards.ABSENT


def test_json_is_readable_and_refuses_nan(tmp_path):
    shards.write_json_atomic(tmp_path / "m.json", {"a": [1, 2]})
    assert (tmp_path / "m.json").read_text() == '{\n  "a": [\n    1,\n    2\n  ]\n}\n'
    with pytest.raises(ValueError):
        shards.write_json_atomic(tmp_path / "m.json", {"a": float("nan")})


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_full_disk_leaves_the_old_file_and_no_other(tmp_path, fault):
    path = tmp_path / "file"
    shards.write_bytes_atomic(path, b"old")
    with pytest.raises(UserError, match=str(path)), shards.appearing(path) as file:
        file.write(b"x" * 500)
        raise OSError(fault, os.strerror(fault))
    assert path.read_bytes() == b"old"
    assert _files(tmp_path) == ["file"]


def test_a_file_is_seen_once_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with shards.appearing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert _files(tmp_path) == ["file"]


def test_real_size_limit_is_a_user_error(tmp_path):
    code = (
        "import resource, sys, pathlib\n"
        "from vasculome.storage.shards import write_bytes_atomic\n"
        "from vasculome.errors import UserError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_bytes_atomic(pathlib.Path(sys.argv[1]), b'x' * 5000)\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert "size limit" in done.stdout, done.stderr
    assert _files(tmp_path) == []


def test_network_fault_stays_an_os_error(tmp_path, monkeypatch):
    def fail(handle):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shards.os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        shards.write_bytes_atomic(tmp_path / "file", b"x")
    assert _files(tmp_path) == []


def test_a_file_where_a_folder_is_needed(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(UserError, match="not a folder"):
        shards.write_bytes_atomic(tmp_path / "a" / "b" / "c", b"x")


def test_fence_stops_a_writer_whose_lease_is_lost(tmp_path):
    lease = tmp_path / "s.lease.json"
    shards.write_json_atomic(lease, {"token": "mine"})
    with shards.fenced(lease, "mine"):
        shards.write_bytes_atomic(tmp_path / "file", b"1")
        lease.write_text('{"token": "another"}')
        with pytest.raises(UserError, match="taken over"):
            shards.write_bytes_atomic(tmp_path / "file", b"2")
        with pytest.raises(UserError, match="taken over"):
            shards.remove_file(tmp_path / "file")
        lease.unlink()
        with pytest.raises(UserError, match="taken over"):
            shards.write_bytes_atomic(tmp_path / "file", b"3")
    assert (tmp_path / "file").read_bytes() == b"1"
    assert _files(tmp_path) == ["file"]
    shards.write_bytes_atomic(tmp_path / "file", b"4")
