"""The metrics of a server, against what was done, its log, and Prometheus' own lint."""

import contextlib
import re
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

import backboned
import grpc
import numpy as np
import pytest
from admin_http import ask, scrape
from backboned.types import ParameterGroup
from backboned.v1 import backbone_service_pb2 as backbone_pb
from backboned.v1 import instance_service_pb2 as instance_pb
from backboned.v1 import tensor_pb2 as tensor_pb
from waiting import wait_until

pytestmark = pytest.mark.cpu  # Names of devices are labels.
ROOT = Path(__file__).parents[2]
PROMTOOL = ROOT / "build/tools/promtool"
SERVICE = "/backboned.v1.InstanceService"
BACKBONES = "/backboned.v1.BackboneService"
CALLS = f"{BACKBONES}/Calls"
X = np.random.default_rng(0).random((4, 1, 28, 28), dtype=np.float32)
Y = np.array([1, 2, 3, 4])
# Metrics of their own that principals have: kMostPrincipals, and Scheduler's.
MOST_PRINCIPALS = 64


@pytest.fixture
def serve(binary, tmp_path):
    """Starts servers, and gives a client, the admin socket and the log of each."""
    with contextlib.ExitStack() as stack:

        def start_one(*options, calls=""):
            folder = tmp_path / f"server{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            log = folder / "log"
            arguments = [binary, "--threads=1", *options]
            arguments.append(f"--listen=unix:{folder}/calls{calls}")
            arguments.append(f"--listen=unix:{folder}/admin,serve=admin")
            with log.open("wb") as errors:
                process = subprocess.Popen(
                    arguments, stdout=subprocess.PIPE, stderr=errors
                )
            stack.callback(process.communicate)
            stack.callback(process.kill)
            assert process.stdout.readline(), log.read_text()
            client = None
            if not calls:
                client = stack.enter_context(
                    backboned.connect(f"unix:{folder}/calls", label="busy")
                )
            return client, folder / "admin", log

        yield start_one


def promtool(*arguments, text=""):
    """Run Prometheus' tool, and give what it says; it must find nothing wrong."""
    assert PROMTOOL.exists(), f"there is no {PROMTOOL}: run scripts/setup"
    ended = subprocess.run(
        [PROMTOOL, *arguments],
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


def be_busy(server):
    """Make calls of many kinds. Gives how many of some methods, by code."""
    net = server.create("seq-mnist", name="net", seed=0, module=False)
    for _ in range(3):
        made = net.forward(X, training=True, tape=True)
        net.backward({made.tape_id: {"out": np.ones_like(made.out)}})
    net.forward(X)
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
    for _ in range(2):
        net.train_step(X, [backboned.CrossEntropy(Y)])
    net.set_params(net.get_params())
    for _ in range(5):
        with pytest.raises(backboned.errors.NotFound):
            server.instance("nobody", False)
    with pytest.raises(backboned.errors.InvalidArgument):
        net.forward(X[:, :, :3])
    with grpc.insecure_channel(server.target) as channel:
        assert not list(channel.stream_stream(CALLS)(iter(()), timeout=30))
        for _ in range(2):
            with pytest.raises(grpc.RpcError):
                channel.unary_unary(f"{SERVICE}/ListBenchmarks")(
                    b"", metadata=[("backboned-principal", "alice")], timeout=30
                )
    return {
        ("Forward", "OK"): 4,
        ("Forward", "INVALID_ARGUMENT"): 1,
        ("Backward", "OK"): 3,
        ("TrainStep", "OK"): 2,
        ("SetParams", "OK"): 1,
        ("GetParams", "OK"): 1,
        ("CreateInstance", "OK"): 1,
        ("GetInstance", "NOT_FOUND"): 5,
        ("ListBenchmarks", "UNAUTHENTICATED"): 2,
    }


def logged_calls(log):
    """Give the fields of the log's lines of calls, but for streams of them."""
    lines = re.findall(r" (?:info|error) call (method=.*)$", log.read_text(), re.M)
    calls = [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines]
    return [call for call in calls if call["method"] != "Calls"]


def test_calls_are_those_that_were_made_and_those_of_the_log(serve):
    server, admin, log = serve()
    expected = be_busy(server)

    def agreeing():
        before = logged_calls(log)
        metrics = scrape(admin)
        count = sum(v for k, v in metrics.items() if k.startswith("backboned_calls_to"))
        settled = count == len(before) == len(logged_calls(log))
        return settled and (metrics, before)

    metrics, calls = wait_until(agreeing)
    for (method, code), count in expected.items():
        name = f'backboned_calls_total{{code="{code}",method="{method}"}}'
        assert metrics[name] == count, name
    by_code = Counter((call["code"], call["method"]) for call in calls)
    for (code, method), count in by_code.items():
        name = f'backboned_calls_total{{code="{code}",method="{method}"}}'
        assert metrics[name] == count, name
    for method in {call["method"] for call in calls}:
        begun = [c for c in calls if c["method"] == method and "total_ms" in c]
        labels = f'{{method="{method}"}}'
        if not begun:
            assert f"backboned_call_duration_seconds_count{labels}" not in metrics
            continue
        for metric, field in (
            ("backboned_call_received_bytes_total", "bytes_in"),
            ("backboned_call_sent_bytes_total", "bytes_out"),
        ):
            assert metrics[metric + labels] == sum(int(c[field]) for c in begun)
        computed = [c for c in begun if float(c["compute_ms"]) > 0]
        for metric, field, of in (
            ("backboned_call_duration_seconds", "total_ms", begun),
            ("backboned_call_queue_seconds", "queue_ms", computed),
            ("backboned_call_compute_seconds", "compute_ms", computed),
        ):
            assert metrics[f"{metric}_count{labels}"] == len(of)
            assert metrics[f'{metric}_bucket{{method="{method}",le="+Inf"}}'] == len(of)
            total = sum(float(c[field]) for c in of) / 1e3
            assert metrics[f"{metric}_sum{labels}"] == pytest.approx(total, rel=1e-4)
    assert metrics['backboned_call_compute_seconds_count{method="Forward"}'] == 4
    # They include the bytes of inputs: four of them, and a wrong one.
    assert (
        metrics['backboned_call_received_bytes_total{method="Forward"}'] > 4 * X.nbytes
    )
    assert metrics['backboned_refused_calls_total{reason="IDENTITY_REFUSED"}'] == 2


def test_an_answer_ends_with_its_times_and_its_request_id(serve):
    """As trailing metadata, of calls that succeed and of those that fail."""
    server, _, _ = serve()
    server.create("seq-mnist", name="net", module=False)
    spec = tensor_pb.TensorSpec(dtype=tensor_pb.DATA_TYPE_FLOAT32, shape=X.shape)
    extract = backbone_pb.ExtractRequest(instance="net", input=spec, data=X.tobytes())
    update = instance_pb.UpdateInstanceRequest()
    update.update_mask.paths.append("shared")

    def trailers(method, request):
        with grpc.insecure_channel(server.target) as channel:
            ask = channel.unary_unary(method)
            try:
                _, call = ask.with_call(request.SerializeToString(), timeout=30)
            except grpc.RpcError as error:
                call = error
        found = dict(call.trailing_metadata())
        text = found["server-timing"]
        assert re.fullmatch(
            r"queue;dur=\d+\.\d{3}, compute;dur=\d+\.\d{3}, total;dur=\d+\.\d{3}", text
        )
        queue, compute, total = map(float, re.findall(r"dur=([\d.]+)", text))
        assert queue + compute <= total
        return compute, found.get("backboned-request-id"), call.code()

    for name in ("net", "none"):
        extract.instance = update.instance = name
        update.request_id = f"of-{name}_1.2"
        code = grpc.StatusCode.OK if name == "net" else grpc.StatusCode.NOT_FOUND
        compute, *rest = trailers(f"{BACKBONES}/Extract", extract)
        assert (compute > 0, *rest) == (name == "net", None, code)
        assert trailers(f"{SERVICE}/UpdateInstance", update)[1:] == (
            update.request_id,
            code,
        )


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_log_has_the_traceparent_of_calls(serve):
    server, _, log = serve()
    zero = backbone_pb.CallsRequest(call=1, traceparent=TRACE.replace("-01", "-00"))
    zero.zero_grads.instance = "net"
    wrong = backbone_pb.CallsRequest(call=2, traceparent="mine")
    wrong.zero_grads.instance = "net"
    with grpc.insecure_channel(server.target) as channel:
        get = channel.unary_unary(f"{SERVICE}/ListBenchmarks")
        for sent in (TRACE, "nothing", f"{TRACE}-01"):
            get(b"", metadata=[("traceparent", sent)], timeout=30)
        calls = channel.stream_stream(CALLS)
        parts = (part.SerializeToString() for part in (zero, wrong))
        assert len(list(calls(parts, metadata=[("traceparent", TRACE)]))) == 2

    def found():
        calls = re.findall(r" call (method=.*)$", log.read_text(), re.M)
        fields = [dict(re.findall(r"(\w+)=(\S+)", call)) for call in calls]
        traced = [(f["method"], f.get("traceparent")) for f in fields]
        done = "Calls" in [method for method, _ in traced]
        return done and [call for call in traced if call[0] != "GetServer"]

    assert sorted(wait_until(found), key=str) == [
        ("Calls", TRACE),
        ("ListBenchmarks", TRACE),
        *[("ListBenchmarks", None)] * 2,
        ("ZeroGrads", TRACE.replace("-01", "-00")),
        ("ZeroGrads", None),
    ]


def test_gauges_are_what_the_server_tells_a_client(serve):
    server, admin, _ = serve("--max-tapes=7", "--max-instances=9", "--max-calls=11")
    be_busy(server)
    net = server.instance("net", False)
    made = net.forward(X, training=True, tape=True)
    info = server.info()
    (device,) = info.devices
    wait_until(lambda: scrape(admin)["backboned_calls_in_progress"] == 0)
    metrics = scrape(admin)
    expected = {
        "backboned_tapes": 1,
        "backboned_tapes_limit": 7,
        "backboned_tape_bytes": made.tape_bytes,
        "backboned_tape_limit_bytes": info.limits["max_tape_bytes"],
        "backboned_instances": 1,
        "backboned_instances_limit": 9,
        "backboned_calls_limit": 11,
        "backboned_sessions": 1,
        "backboned_sessions_limit": 4096,
        "backboned_in_flight_bytes": 0,
        "backboned_in_flight_limit_bytes": info.limits["max_in_flight_bytes"],
        "backboned_memory_limit_bytes": info.limits["max_memory_bytes"],
        "backboned_feature_cache_limit_bytes": info.limits["max_cache_bytes"],
        "backboned_serving": 1,
        'backboned_device_lost{device="cpu"}': 0,
        'backboned_device_queue_length{device="cpu"}': 0,
        'backboned_device_busy_seconds_total{device="cpu"}': device.busy,
        f'backboned_build_info{{torch="{info.torch_version}",'
        f'version="{info.version}"}}': 1,
        'backboned_principal_memory_bytes{on="host",principal="local"}': (
            info.principal_usage.memory_bytes
        ),
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    memory = metrics['backboned_memory_bytes{device="cpu",kind="allocated"}']
    assert memory >= info.principal_usage.memory_bytes
    assert 0 < time.time() - metrics["backboned_start_time_seconds"] < 600
    name = 'backboned_principal_device_seconds_total{device="cpu",principal="local"}'
    assert metrics[name] == pytest.approx(device.busy)
    net.release_tapes([made.tape_id])
    wait_until(lambda: scrape(admin)["backboned_tapes"] == 0)
    streams = scrape(admin)["backboned_streams_open"]
    with grpc.insecure_channel(server.target) as channel:
        over = threading.Event()
        stream = channel.stream_stream(CALLS)(b"" for _ in "x" if over.wait(60))
        wait_until(lambda: scrape(admin)["backboned_streams_open"] == streams + 1)
        stream.cancel()
        over.set()
        wait_until(lambda: scrape(admin)["backboned_streams_open"] == streams)


def test_counts_of_instances_outlive_them(serve):
    roomy, _, _ = serve()
    net = roomy.create("seq-mnist", module=False)
    one_tape = net.forward(X, training=True, tape=True).tape_bytes
    server, admin, _ = serve(
        f"--max-tape-bytes={3 * one_tape - 1}", "--session-quota=1"
    )
    net = server.create("seq-mnist", seed=0, module=False, feature_cache="1MiB")
    tapes = [net.forward(X, training=True, tape=True) for _ in range(3)]
    net.backward({made.tape_id: {"out": np.ones_like(made.out)} for made in tapes})
    other = server.create("seq-mnist", seed=0, module=False, feature_cache="1MiB")
    for _ in range(3):
        other.forward(X)
    counters = net.info()
    assert counters.demoted_tapes == counters.replayed_forwards > 0

    def counts():
        metrics = scrape(admin)
        return {
            what: metrics[f"backboned_{what}_total"]
            for what in (
                *("tape_demotions", "forward_replays"),
                *("feature_cache_hits", "feature_cache_misses"),
            )
        }

    before = counts()
    assert before == {
        "tape_demotions": counters.demoted_tapes,
        "forward_replays": counters.replayed_forwards,
        "feature_cache_hits": 2,
        "feature_cache_misses": 1,
    }
    assert scrape(admin)["backboned_feature_cache_bytes"] > 0
    net.delete()
    other.delete()
    assert counts() == before
    assert scrape(admin)["backboned_feature_cache_bytes"] == 0


def test_batches_by_reason_and_size(serve):
    server, admin, _ = serve("--max-batch=8")
    net = server.create("seq-mnist", seed=0, module=False)
    for count in (1, 2, 3, 8):
        net.forward(np.concatenate([X, X])[:count], allow_merge=True)
    net.forward(X)
    metrics = scrape(admin)
    sizes = {
        le: metrics[f'backboned_batch_samples_bucket{{device="cpu",le="{le}"}}']
        for le in ("1", "2", "4", "8", "64", "+Inf")
    }
    assert sizes == {"1": 1, "2": 2, "4": 3, "8": 4, "64": 4, "+Inf": 4}
    assert metrics['backboned_batch_samples_sum{device="cpu"}'] == 14
    reasons = {
        reason: metrics[f'backboned_batches_total{{device="cpu",reason="{reason}"}}']
        for reason in ("alone", "full", "delay", "incompatible", "device_idle")
    }
    assert sum(reasons.values()) == 5 and reasons["alone"] == 1


def test_prometheus_finds_nothing_wrong(serve):
    server, admin, _ = serve()
    be_busy(server)
    status, text = ask(admin, "/metrics")
    assert status == 200
    assert promtool("check", "metrics", text=text) == ""


def test_many_principals_have_a_bounded_number_of_metrics(serve):
    _, admin, _ = serve(calls=",principal-from=backboned-principal")
    many = MOST_PRINCIPALS + 20
    create = instance_pb.CreateInstanceRequest(name="net", benchmark="seq-mnist")
    create.seed = 0
    update = instance_pb.UpdateInstanceRequest(instance="net")
    update.update_mask.paths.append("shared")  # Of the instance's lane.
    with grpc.insecure_channel(f"unix:{admin.with_name('calls')}") as channel:
        for number in range(many):
            metadata = [("backboned-principal", f"p{number:02}")]
            for method, request in (
                ("CreateInstance", create),
                (
                    "UpdateInstance",
                    update,
                ),
            ):
                call = channel.unary_unary(f"{SERVICE}/{method}")
                call(request.SerializeToString(), metadata=metadata, timeout=30)
    metrics = scrape(admin)
    memory = {
        re.search(r'principal="(.*?)"', name)[1]: value
        for name, value in metrics.items()
        if name.startswith("backboned_principal_memory_bytes")
    }
    seconds = {
        re.search(r'principal="(.*?)"', name)[1]: value
        for name, value in metrics.items()
        if name.startswith("backboned_principal_device_seconds_total")
    }
    calls = {
        re.search(r'principal="(.*?)"', name)[1]: value
        for name, value in metrics.items()
        if name.startswith("backboned_principal_calls_total")
    }
    for by_principal in memory, seconds, calls:
        assert len(by_principal) == MOST_PRINCIPALS + 1
        assert "(other)" in by_principal and "p00" in by_principal
    busy = metrics['backboned_device_busy_seconds_total{device="cpu"}']
    assert sum(seconds.values()) == pytest.approx(busy)
    one = memory["p00"]
    assert memory["(other)"] == pytest.approx(one * 20)
    assert not [name for name in metrics if f"p{many - 1}" in name]


def test_a_scrape_waits_for_neither_work_nor_transfers(serve):
    server, admin, _ = serve()
    net = server.create("seq-cifar10", seed=0, module=False)
    images = np.zeros((64, 3, 32, 32), np.float32)
    over = threading.Event()
    computing = threading.Thread(target=lambda: net.forward(images))
    with grpc.insecure_channel(server.target) as channel:
        upload = channel.stream_unary("/backboned.v1.BackboneService/SetParams")
        call = upload.future((b"" for _ in "x" if over.wait(60)), timeout=60)
        computing.start()
        # Both are inside; the forward ends by itself, some scrapes later.
        wait_until(lambda: scrape(admin)["backboned_calls_in_progress"] == 2)
        over.set()
        assert call.exception() is not None
    computing.join()


PAGE = (ROOT / "docs/metrics.md").read_text()
# The label that makes buckets of a histogram.
BUCKET = "le"


def test_the_page_lists_the_metrics(serve):
    server, admin, _ = serve()
    be_busy(server)
    wait_until(lambda: "backboned_streams_total{" in ask(admin, "/metrics")[1])
    _, text = ask(admin, "/metrics")
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    labels = {name: set() for name in types}
    for name, listed in re.findall(r"^(backboned_\w+)\{(.*)\} ", text, re.M):
        family = name if name in types else re.sub("_(bucket|count|sum)$", "", name)
        labels[family] |= {*re.findall(r'(\w+)="', listed)} - {BUCKET}
    rows = re.findall(r"^\| `(backboned_\w+)` \| (\w+) \| (.*?) ?\|", PAGE, re.M)
    assert len({row[0] for row in rows}) == len(rows)
    assert {row[0]: row[1] for row in rows} == types
    assert {row[0]: {*re.findall(r"`(\w+)`", row[2])} for row in rows} == labels
