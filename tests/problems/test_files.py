"""Where data files are looked for, and what is said when they are missing or damaged; with a real server."""

import functools
import hashlib
import http.server
import os
import threading

import pytest

from steelyard.problems import DataFileError, MissingDataError
from steelyard.problems.files import DataFile, find, present

CONTENT = b"real bytes"
HASH = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    monkeypatch.setenv("STEELYARD_DATA", "")
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)
    return tmp_path


@pytest.fixture
def server(tmp_path):
    """A web server of one file; its address."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "set.bin").write_bytes(CONTENT)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/set.bin"
        running.shutdown()


def put(folder, content=CONTENT):
    path = folder / "a_set" / "set.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_folders_of_the_variable_come_in_order_and_before_the_cache(places, monkeypatch):
    file = DataFile("a_set", "set.bin", (HASH,))
    in_cache = put(places / "cache" / "steelyard")
    assert find(file) == in_cache
    second, third = put(places / "second"), put(places / "third")
    monkeypatch.setenv("STEELYARD_DATA", os.pathsep.join(str(places / name) for name in ("first", "second", "third")))
    assert find(file) == second
    second.unlink()
    assert find(file) == third


def test_a_missing_file_is_downloaded_once_into_the_cache(server, places):
    file = DataFile("a_set", "set.bin", (HASH,), url=server)
    path = find(file)
    assert path == places / "cache" / "steelyard" / "a_set" / "set.bin"
    assert path.read_bytes() == CONTENT
    (places / "site" / "set.bin").unlink()
    assert find(file) == path


def test_a_download_with_another_hash_is_refused_and_not_kept(server, places):
    with pytest.raises(DataFileError, match="no longer gives the file"):
        find(DataFile("a_set", "set.bin", ("0" * 64,), url=server))
    assert not list((places / "cache").rglob("set.bin"))


@pytest.mark.parametrize("address", ["{server}.gone", "http://127.0.0.1:9/closed"])
def test_what_cannot_be_downloaded_says_where_to_put_it(server, address):
    with pytest.raises(MissingDataError, match=r"a_set/set\.bin is missing.*cannot be reached.*STEELYARD_DATA="):
        find(DataFile("a_set", "set.bin", (HASH,), url=address.format(server=server)))
    assert not present("a_set")  # though there is a folder now


def test_a_folder_with_a_file_is_present_in_any_of_the_places(places, monkeypatch):
    assert not present("a_set")
    (places / "cache" / "steelyard" / "a_set" / "another_folder").mkdir(parents=True)
    (places / "cache" / "steelyard" / "a_set" / ".DS_Store").touch()
    assert not present("a_set")
    put(places / "second")
    monkeypatch.setenv("STEELYARD_DATA", os.pathsep.join(str(places / name) for name in ("first", "second")))
    assert present("a_set")


@pytest.mark.parametrize("folder", ["~nosuchuser/data", "/proc/1/root/no", "/dev/null"])
def test_folders_that_are_none_hold_no_file(places, monkeypatch, folder):
    monkeypatch.setenv("STEELYARD_DATA", folder)
    assert not present("a_set")
    with pytest.raises(MissingDataError):
        find(DataFile("a_set", "file.txt"))


def test_a_file_without_an_address_says_how_to_make_it():
    with pytest.raises(MissingDataError, match=r"no public address.*Columns 0:21 of the original"):
        find(DataFile("a_set", "set.bin", (HASH,), how="Columns 0:21 of the original."))


def test_a_damaged_file_is_named_with_both_hashes(places, monkeypatch):
    path = put(places / "mine", b"other bytes")
    monkeypatch.setenv("STEELYARD_DATA", str(places / "mine"))
    with pytest.raises(DataFileError, match=f"damaged.*expected {HASH[:16]}") as caught:
        find(DataFile("a_set", "set.bin", (HASH,)))
    assert str(path) in str(caught.value)
