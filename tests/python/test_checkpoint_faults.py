"""Checkpoints on a disk that fails, and in files that somebody changed."""

import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from admin_http import scrape
from backboned.errors import (
    BackbonedError,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    ResourceExhausted,
)
from kept_server import KeptServer
from test_checkpoints import fill, saved, small, value_of
from test_lifecycle import wait_until


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, faulty=True) as kept:
        yield kept.start()


@pytest.fixture
def server(kept):
    with kept.connect(reconnect_timeout=30) as server:
        yield server


def loaded(server, name="a", **options):
    return value_of(server.load(name, module=False, **options))


def assert_tidy(kept, checkpoints):
    """Compare the folder with what is listed: nothing is left over."""
    assert not [path.name for path in kept.state.rglob(".*")]
    assert not kept.files("aside")
    assert len(kept.files("records")) == checkpoints
    text = "".join(path.read_text() for path in kept.files("records"))
    assert all(path.stem in text for path in kept.files("blobs"))


FAULTS = {
    "openat fail 1": Internal,
    "write fail 1": Internal,
    "write fail 3": Internal,
    "write full 0": ResourceExhausted,
    "write full 4000": ResourceExhausted,
    "write full 13500": ResourceExhausted,
    "write full 14000": ResourceExhausted,
    "fsync fail 1": Internal,
    "fsync fail-once 2": Internal,
    "fsync fail-once 4": Internal,
    "fsync fail-once 5": Internal,
    "rename fail 1": Internal,
    "rename fail 3": Internal,
}


@pytest.mark.parametrize("order", FAULTS)
def test_a_save_that_the_disk_refuses_changes_nothing(kept, server, order):
    net = small(server, 1)
    net.save("a")
    fill(net, 2)
    kept.order(order)
    with pytest.raises(FAULTS[order], match="in its state folder: ") as error:
        net.save("a")
    assert error.value.reason == "STORAGE_FAILED"
    kept.heal()
    assert (loaded(server), value_of(net)) == (1, 2)
    assert_tidy(kept, 1)
    net.save("a")
    assert loaded(server) == 2
    kept.restart(server)
    assert loaded(server) == 2
    assert_tidy(kept, 1)


def test_a_full_disk_keeps_nothing_else_up(kept, server):
    net = small(server, 1)
    net.save("a")
    kept.order("write full 0")
    for _ in range(3):
        fill(net, 2)
        with pytest.raises(ResourceExhausted, match="No space left") as error:
            net.save("b")
        assert error.value.reason == "STORAGE_FAILED"
    assert loaded(server) == 1
    server.delete_checkpoint("a")
    kept.heal()
    net.save("b")
    assert [*saved(server)] == ["b"]
    assert_tidy(kept, 1)


def test_the_metrics_count_what_the_disk_refuses(binary, tmp_path):
    """Saves of people, and those of the server for itself."""
    admin = tmp_path / "admin.sock"
    with KeptServer(
        binary, tmp_path, f"--listen=unix:{admin},serve=admin", faulty=True
    ) as kept:
        server = kept.start().connect()

        def saves():
            metrics = scrape(admin)
            return metrics["backboned_saves_total"], metrics[
                "backboned_refused_saves_total"
            ]

        net = small(server, 1)
        net.save("a")
        assert saves() == (1, 0)
        kept.order("write full 0")
        with pytest.raises(ResourceExhausted):
            net.save("a")
        assert saves() == (1, 1)
        server.create("seq-mnist", name="kept")
        wait_until(lambda: saves() == (1, 2))
        kept.heal()
        net.save("a")
        assert saves()[0] >= 2


@pytest.mark.parametrize("bytes_", [1, 7, 1000])
def test_writes_that_take_less_than_asked_are_made_whole(kept, server, bytes_):
    kept.order(f"write short {bytes_}")
    net = small(server, 3)
    net.save("a")
    kept.restart(server)
    assert loaded(server) == 3
    assert_tidy(kept, 1)


# The first two syncs are those of `numbers`.
@pytest.mark.parametrize("order", ["unlink fail 1", "fsync fail-once 3"])
def test_a_checkpoint_that_cannot_be_deleted_is_still_there(kept, server, order):
    small(server, 1).save("a")
    kept.order(order)
    with pytest.raises(Internal, match="cannot remove records/") as error:
        server.delete_checkpoint("a")
    assert error.value.reason == "STORAGE_FAILED"
    kept.heal()
    assert loaded(server) == 1
    server.delete_checkpoint("a")
    assert saved(server) == {}
    assert_tidy(kept, 0)


def test_what_cannot_be_removed_does_not_fail_the_save(kept, server):
    net = small(server, 1)
    net.save("a")
    fill(net, 2)
    kept.order("unlink fail 1")
    net.save("a")
    kept.heal()
    assert loaded(server) == 2
    net.save("a")
    assert len(saved(server)["a"]) == 1
    kept.restart(server)
    assert_tidy(kept, 1)


def test_calls_go_on_while_the_disk_is_stuck(kept, server):
    net, other = small(server, 1), small(server, 1)
    net.save("a")
    kept.order("write stick 0")
    fill(net, 2)
    done, made = [], []
    saving = threading.Thread(target=lambda: done.append(net.save("a")), daemon=True)
    saving.start()
    wait_until(lambda: [*kept.state.rglob(".*")])  # It has begun to write.
    for value in range(3, 9):
        fill(net, value)
        fill(other, value)
        assert value_of(net) == value_of(other) == value
        made.append(server.create("seq-mnist", module=False))
        assert [c.number for c in server.checkpoints()] == [1]
    assert not done
    kept.heal()
    wait_until(lambda: done)
    assert loaded(server) == 2  # The state of the call's time.


def test_an_unnamed_instance_is_deleted_while_the_disk_is_stuck(kept, server):
    net, other = small(server, 1), small(server, 1)
    kept.order("write stick 0")
    threading.Thread(target=lambda: net.save("a"), daemon=True).start()
    wait_until(lambda: [*kept.state.rglob(".*")])
    try:
        other.delete(timeout=5)
    finally:
        kept.heal()


def test_a_load_has_its_files_though_the_checkpoint_is_deleted(kept, server):
    small(server, 1).save("a")
    kept.order("read stick 0")
    with ThreadPoolExecutor(2) as pool:
        found = pool.submit(loaded, server)
        time.sleep(0.3)  # The server has the first call before the second.
        deleted = pool.submit(server.delete_checkpoint, "a")
        time.sleep(0.3)
        kept.heal()
    deleted.result()
    assert found.result() == 1 and saved(server) == {}


def test_who_gives_up_leaves_nothing(kept, server):
    net = small(server, 1)
    net.save("a")
    fill(net, 2)
    kept.order("write stick 0")
    with pytest.raises(DeadlineExceeded):
        net.save("b", timeout=0.2)
    with pytest.raises(BackbonedError):
        net.save("b", timeout=0.2)
    kept.heal()
    net.save("c")  # Comes behind those.
    assert sorted(saved(server)) == ["a", "c"]
    assert_tidy(kept, 2)


def damaged(how):
    """Give a function that damages a file in one way."""

    def flip(path):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)

    def cut(path):
        os.truncate(path, path.stat().st_size - 1)

    def empty(path):
        os.truncate(path, 0)

    def lengthen(path):
        path.write_bytes(path.read_bytes() + b"\0")

    def swap(path):
        path.unlink()
        path.symlink_to("/etc/passwd")

    def remove(path):
        path.unlink()

    return locals()[how]


DAMAGES = ["flip", "cut", "empty", "lengthen", "swap", "remove"]


@pytest.mark.parametrize("restarts", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_blob_is_told(kept, server, how, restarts):
    net = small(server, 1)
    net.save("good")
    good = set(kept.files("blobs"))
    fill(net, 2)
    net.save("bad")
    (blob, *_) = set(kept.files("blobs")) - good
    if restarts:
        kept.kill()
    damaged(how)(blob)
    if restarts:
        kept.start(server)
    with pytest.raises(FailedPrecondition, match=blob.stem) as error:
        server.load("bad")
    assert error.value.reason == "CHECKPOINT_UNREADABLE"
    with pytest.raises(FailedPrecondition):
        server.load("bad")
    assert loaded(server, "good") == 1
    if how in ("flip", "cut", "empty", "lengthen"):
        (aside,) = kept.files("aside")
        assert aside.name.startswith(blob.name)
        assert f"set blobs/{blob.name} of --state-dir aside" in kept.log()
    # The same state again mends both.
    if not restarts:
        net.save("again")
        assert loaded(server, "again") == loaded(server, "bad") == 2
    server.delete_checkpoint("bad")
    assert "bad" not in saved(server)


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_record_is_set_aside(kept, server, how):
    net = small(server, 1)
    net.save("good")
    (good,) = kept.files("records")
    fill(net, 2)
    net.save("bad")
    (record,) = set(kept.files("records")) - {good}
    blobs = kept.files("blobs")
    kept.kill()
    damaged(how)(record)
    kept.start(server)
    assert [*saved(server)] == ["good"]
    assert loaded(server, "good") == 1
    if how != "remove":
        (aside,) = kept.files("aside")
        assert f"set records/{record.name} of --state-dir aside" in kept.log()
        # Nothing that it may need is removed.
        assert kept.files("blobs") == blobs
        os.rename(aside, aside.parent.parent / "kept")
    assert not record.exists()


def test_a_record_that_is_damaged_while_the_server_runs_still_counts(kept, server):
    small(server, 1).save("a")
    (record,) = kept.files("records")
    record.write_text("{}")
    assert loaded(server) == 1
    kept.restart(server)
    assert saved(server) == {}


def test_files_that_are_no_records_are_left_alone(kept, server):
    small(server, 1).save("a")
    kept.kill()
    (kept.state / "records" / "note.txt").write_text("keep")
    (kept.state / "blobs" / "note.txt").write_text("keep")
    kept.start(server)
    assert loaded(server) == 1
    assert (kept.state / "records" / "note.txt").exists()
    assert (kept.state / "blobs" / "note.txt").exists()


def test_a_copy_of_the_folder_serves(binary, tmp_path, kept, server):
    for number in range(3):
        small(server, number).save(f"a-{number}")
    (copied := tmp_path / "copied" / "state").mkdir(parents=True)
    shutil.copytree(kept.state / "records", copied / "records")
    small(server, 7).save("late")
    server.delete_checkpoint("a-0")  # Its blobs are not copied.
    shutil.copytree(kept.state / "blobs", copied / "blobs")
    with KeptServer(binary, copied.parent) as second:
        with second.start().connect() as backup:
            assert sorted(saved(backup)) == ["a-0", "a-1", "a-2"]
            assert [loaded(backup, f"a-{number}") for number in (1, 2)] == [1, 2]
            with pytest.raises(FailedPrecondition):
                backup.load("a-0")
            backup.delete_checkpoint("a-0")
            assert_tidy(second, 2)


def test_a_second_server_of_a_folder_ends_with_a_sentence(kept, server, tmp_path):
    small(server, 1).save("a")
    ended = subprocess.run(
        [kept.binary, f"--listen=unix:{tmp_path}/2", f"--state-dir={kept.state}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line == f"backboned: --state-dir {kept.state} is used by another server"
    assert loaded(server) == 1


@pytest.mark.parametrize("text", ["2\n", "", "x\n"])
def test_a_folder_of_another_format_ends_the_start(binary, tmp_path, text):
    kept = KeptServer(binary, tmp_path)
    (kept.state / "format").write_text(text)
    assert kept.begin() == ""
    kept.process.wait(30)
    (line,) = kept.log().splitlines()
    assert "format" in line and kept.process.returncode == 1
    kept.kill()


root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@root
def test_a_folder_of_another_user_ends_the_start(binary, tmp_path):
    kept = KeptServer(binary, tmp_path)
    (kept.state / "blobs").mkdir()
    os.chown(kept.state / "blobs", 12345, 12345)
    assert kept.begin() == ""
    kept.process.wait(30)
    (line,) = kept.log().splitlines()
    assert line.endswith("/blobs is owned by user 12345, expected 0")
    kept.kill()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    folder = tmp_path / "state"
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(made).returncode:
        pytest.skip("no tmpfs can be mounted")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@root
def test_a_full_file_system(binary, tmp_path, small_disk):
    with KeptServer(binary, tmp_path) as kept:
        with kept.start().connect() as server:
            net = small(server, 1)
            net.save("a")
            (small_disk / "ballast").write_bytes(bytes(1 << 20))
            large = server.create("seq-mnist", seed=0, module=False)
            for number in range(12):
                fill(large, number)
                try:
                    large.save(f"large-{number}")
                except ResourceExhausted as error:
                    assert error.reason == "STORAGE_FAILED"
                    break
            else:
                pytest.fail("it was never full")
            before = saved(server)
            assert loaded(server) == 1
            fill(large, 0)
            assert value_of(large) == 0
            server.delete_checkpoint("large-0")
            (small_disk / "ballast").unlink()
            large.save("more")
            assert loaded(server, "more") == 0
        kept.restart()
        with kept.connect() as server:
            assert {*saved(server)} == {*before, "more"} - {"large-0"}
            assert_tidy(kept, len(before))


@root
def test_a_server_that_ends_on_a_full_disk(binary, tmp_path, small_disk):
    with KeptServer(binary, tmp_path) as kept:
        with kept.start().connect() as server:
            net = small(server, 1, name="a")
            wait_until(lambda: kept.files("records"))
            with open(small_disk / "ballast", "wb", buffering=0) as ballast:
                with pytest.raises(OSError):
                    while True:
                        ballast.write(bytes(4096))
            fill(net, 2)
        assert kept.end() == 1
        assert "cannot save instance=local/a: " in kept.log()
        assert "not all that changed could be saved" in kept.log().splitlines()[-1]
        assert kept.begin() == ""
        assert kept.process.wait(30) == 1
        kept.kill()
        line = kept.log().splitlines()[-1]
        assert line.endswith("state cannot be written: No space left on device")
        (small_disk / "ballast").unlink()
        with kept.start().connect() as server:
            assert value_of(server.instance("a", module=False)) == 1


@root
def test_a_read_only_file_system_ends_the_start(binary, tmp_path, small_disk):
    with KeptServer(binary, tmp_path) as kept:
        with kept.start().connect() as server:
            small(server, 1).save("a")
        kept.kill()
        remount = ["mount", "-o", "remount,ro", small_disk]
        if subprocess.run(remount).returncode:
            pytest.skip("it cannot be made read-only")
        assert kept.begin() == ""
        kept.process.wait(30)
        assert kept.log().splitlines()[-1].endswith(": Read-only file system")


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_read_that_fails_for_a_moment_loses_nothing(kept, server, number):
    small(server, 1).save("a")
    kept.order(f"read fail-once {number}")
    with pytest.raises(BackbonedError) as error:
        server.load("a")
    assert error.value.reason == "STORAGE_FAILED"
    kept.heal()
    assert loaded(server) == 1
    assert_tidy(kept, 1)


@pytest.mark.parametrize("number", [1, 2])
def test_a_start_that_cannot_read_ends_and_loses_nothing(kept, server, number):
    small(server, 1).save("a")
    kept.kill()
    kept.order(f"read fail-once {number}")
    assert kept.begin() == ""
    assert kept.log().splitlines()[-1].endswith("Input/output error")
    kept.kill()
    kept.heal()
    kept.start(server)
    assert loaded(server) == 1
    assert_tidy(kept, 1)


@pytest.mark.parametrize("order", ["write full 0", "write fail 1"])
def test_a_first_start_that_the_disk_refuses_can_be_repeated(binary, tmp_path, order):
    with KeptServer(binary, tmp_path, faulty=True) as kept:
        kept.order(order)
        assert kept.begin() == ""
        kept.kill()
        kept.heal()
        kept.start()
