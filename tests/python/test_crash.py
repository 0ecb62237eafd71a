"""Acknowledged checkpoints are there after a crash, and after a power cut."""

import crash_rounds
import pytest
from backboned.errors import Unavailable
from kept_server import KeptServer, cut_power
from test_checkpoints import fill, saved, small, value_of


@pytest.fixture
def kept(binary, tmp_path):
    with KeptServer(binary, tmp_path, faulty=True, cut=True) as kept:
        yield kept


@pytest.mark.cpu
def test_some_rounds_of_the_crash_test(binary):
    line, lost = crash_rounds.run(binary, 9, seed=20261130)
    assert lost == 0, line


@pytest.mark.cpu
@pytest.mark.parametrize("sabotage", ["lie", "remove"])
def test_the_crash_test_finds_what_is_lost(binary, sabotage, capsys):
    line, lost = crash_rounds.run(binary, 12, seed=3, sabotage=sabotage)
    assert lost == 1 and line.endswith(", 1 lost")
    assert "crash-test: round " in capsys.readouterr().out


@pytest.mark.cpu
@pytest.mark.parametrize("is_cut", [False, True], ids=["kill", "power cut"])
def test_a_crash_before_each_call_of_a_save(kept, is_cut):
    """Of the old checkpoint and the new one, one is there, and whole."""
    kept.start()
    last, moment = 0.0, 0
    outcomes = set()
    while True:
        moment += 1
        with kept.connect() as server:
            net = small(server, last)
            net.save("a")
            fill(net, last + 1)
            kept.order(f"any kill {moment}")
            try:
                net.save("a")
            except Unavailable:
                is_made = False
            else:
                is_made = True
        if is_cut:
            cut_power(kept, moment)
        kept.kill()
        kept.heal()
        kept.start()
        with kept.connect() as server:
            assert len(saved(server)["a"]) in (1, 2)
            found = value_of(server.load("a", module=False))
        outcomes.add(found - last)
        assert found in ([last + 1] if is_made else [last, last + 1])
        assert not kept.files("aside")
        if is_made:
            break
        last = found
    assert moment > 10 and outcomes == {0, 1}


@pytest.mark.cpu
def test_a_start_that_is_killed_leaves_no_file(kept):
    kept.order("rename kill 1")
    kept.begin()
    kept.kill()
    kept.heal()
    kept.start()
    assert not [path.name for path in kept.state.glob(".*")]


@pytest.mark.cpu
@pytest.mark.parametrize(
    "is_cut",
    [pytest.param(False, id="kill"), pytest.param(True, id="power cut")],
)
def test_a_crash_before_each_call_of_the_first_start(binary, tmp_path, is_cut):
    for moment in range(1, 40):
        folder = tmp_path / str(moment)
        folder.mkdir()
        with KeptServer(binary, folder, faulty=True, cut=True) as kept:
            kept.order(f"any kill {moment}")
            is_served = bool(kept.begin())
            if is_cut:
                cut_power(kept, moment)
            kept.kill()
            kept.heal()
            kept.start()
        if is_served:
            break
    assert moment > 3
