"""The programs that make load: against a server, and in simulated time."""

import json
import subprocess

import pytest

DEVICE_S = {"1": 0.012, "8": 0.048, "32": 0.18}


@pytest.fixture
def ask(binary):
    """Gives a program's answer to one command."""

    def ask_one(program, **command):
        path = binary.parent / program
        if not path.exists():
            pytest.skip(f"there is no {path}")
        done = subprocess.run(
            [path],
            input=json.dumps(command) + "\n",
            capture_output=True,
            check=True,
            text=True,
            timeout=60,
        )
        return json.loads(done.stdout)

    return ask_one


@pytest.fixture
def load(ask, server):
    server.create("seq-mnist", name="load-mlp", seed=0, exist_ok=True, module=False)

    def load_one(*clients, **words):
        clients = [{"instance": "load-mlp", **client} for client in clients]
        command = {"target": server.target, "seconds": 0.5, "clients": clients}
        return ask("bench-load", do="load", **{**command, **words})

    return load_one


@pytest.fixture
def simulate(ask):
    def simulate_one(*clients, **words):
        command = {"seconds": 100, "device_s": DEVICE_S, "clients": clients}
        return ask("bench-simulate", do="simulate", **{**command, **words})

    return simulate_one


FORWARD = {"do": "forward", "shape": [2, 1, 28, 28]}


def test_closed_loops_are_counted_each(load):
    answer = load({"count": 3, "label": "run", "in_flight": 2, "mix": [FORWARD]})
    assert [c["label"] for c in answer["clients"]] == ["run-1", "run-2", "run-3"]
    assert all(c["calls"] > 0 for c in answer["clients"])
    assert answer["calls"] == sum(c["calls"] for c in answer["clients"])
    assert answer["samples_per_s"] == 2 * answer["throughput"]
    assert answer["errors"] == {}


def test_percentiles_are_those_of_the_calls(load):
    answer = load({"mix": [FORWARD]})
    ordered = sorted(answer["latency_s"])
    assert answer["percentiles_s"]["100"] == ordered[-1]
    assert answer["percentiles_s"]["50"] == ordered[(len(ordered) + 1) // 2 - 1]


def test_open_loop_calls_at_its_rate(load):
    answer = load({"rate": 40, "arrivals": "fixed", "in_flight": 4, "mix": [FORWARD]})
    assert len(answer["latency_s"]) + answer["unstarted"] == 20
    assert answer["latency_s"]


def test_open_loop_counts_the_wait_for_a_free_place(load):
    # Far more than one call at a time can do.
    answer = load({"rate": 100_000, "in_flight": 1, "mix": [FORWARD]})
    assert answer["percentiles_s"]["100"] > 0.2
    assert answer["unstarted"] > 0


def test_training_steps_and_reads_are_made(load, server):
    instance = server.create("seq-mnist", name="load-steps", seed=0, module=False)
    step = {"do": "step", "shape": [4, 1, 28, 28]}
    answer = load({"instance": "load-steps", "mix": [step, {"do": "get_params"}]})
    info = instance.info()
    instance.delete()
    assert answer["errors"] == {}
    assert 0 < info.backwards == info.forwards
    assert info.tape_count == 0


def test_errors_are_counted_by_code(load):
    answer = load({"instance": "nobody", "mix": [FORWARD]})
    assert answer["calls"] == 0
    assert set(answer["errors"]) == {"NOT_FOUND"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"target": "192.0.2.1:1"}, "the target is not on this machine: 192.0.2.1:1"),
        ({"seconds": 601}, "a run takes at most 600 s"),
        ({"clients": []}, "there are no clients"),
    ],
)
def test_load_is_bounded(load, words, message):
    assert load({"mix": [FORWARD]}, **words) == {"error": message}


def test_too_many_calls_at_a_time_are_refused(load):
    answer = load({"in_flight": 1025, "mix": [FORWARD]})
    assert answer == {"error": "at most 1024 calls at a time"}


def test_simulation_is_the_same_again(simulate):
    clients = ({"count": 5, "pause_s": 0.01, "allow_merge": True}, {"rate": 10})
    first = simulate(*clients, seed=3)
    assert simulate(*clients, seed=3) == first
    assert simulate(*clients, seed=4) != first


def test_simulated_flood_leaves_the_others_their_share(simulate):
    answer = simulate({"count": 3, "pause_s": 0.0002}, {"in_flight": 10})
    for client in answer["clients"][:3]:
        assert client["device_share"] >= 0.9 / 4


def test_simulated_batches_gain_what_the_device_gains(simulate):
    apart = simulate({"count": 8, "allow_merge": True}, max_batch=0)
    together = simulate({"count": 8, "allow_merge": True})
    assert apart["batches"] == {"alone": pytest.approx(100 / 0.012, rel=0.01)}
    assert set(together["batches"]) == {"device_idle"}
    gain = together["throughput"] / apart["throughput"]
    assert gain == pytest.approx(8 * 0.012 / 0.048, rel=0.02)


def test_simulated_weights_divide_the_device(simulate):
    answer = simulate(
        {"principal": "lab", "in_flight": 2},
        {"principal": "guest", "in_flight": 2},
        shares={"lab": 3},
    )
    shares = [client["device_share"] for client in answer["clients"]]
    assert shares == pytest.approx([0.75, 0.25], abs=0.01)


def test_simulated_queue_refuses_over_its_limit(simulate):
    answer = simulate({"in_flight": 10}, max_queued=4, seconds=10)
    assert answer["refused"] > 0
    assert answer["throughput"] == pytest.approx(1 / 0.012, rel=0.01)


def test_what_merges_has_no_lane(simulate):
    answer = simulate({"allow_merge": True, "lane": True})
    assert answer == {"error": "what merges has no lane and no time of its own"}
