"""The page on which people watch a server, and the figures that it asks for."""

import base64
import contextlib
import datetime
import hashlib
import http.server
import json
import re
import signal
import subprocess
import threading
import time

import backboned
import grpc
import numpy as np
import pytest
from admin_http import fetch, scrape
from backboned.types import ParameterGroup
from backboned.v1 import instance_service_pb2 as pb
from browser import CHROMIUM, browser
from kept_server import KeptServer
from waiting import wait_until

SERVICE = "/backboned.v1.InstanceService"
X = np.random.default_rng(0).random((4, 1, 28, 28), dtype=np.float32)
Y = np.array([1, 2, 3, 4])
# Constants of server/admin/server_status.h.
MOST_PRINCIPALS, MOST_INSTANCES = 100, 200
MOST_COUNTED = 64  # kMostPrincipals of server/metrics/call_metrics.h.
SPANS = {"hour": 1, "day": 24, "month": 720}  # In hours.
FIELDS = {
    "format",
    "time",
    "monotonic_seconds",
    "server",
    "machine",
    "limits",
    "calls_by_code",
    "latency",
    "devices",
    "principals",
    "principals_left_out",
    "instances",
    "instances_left_out",
}
# A principal who has nothing.
IDLE = {
    "device_seconds": {},
    **dict.fromkeys(("calls_in_progress", "memory_bytes", "device_memory_bytes"), 0),
    **dict.fromkeys(("tapes", "tape_bytes", "instances", "instance_bytes"), 0),
}
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@pytest.fixture
def watched(start, tmp_path):
    """Gives a server, and the path of its admin socket."""
    path = tmp_path / "admin.sock"
    return start(options=[f"--listen=unix:{path},serve=admin"]), path


def status_of(path):
    """Give the status of the server whose admin socket this is."""
    status, headers, body = fetch(path, "/status.json")
    assert status == 200 and headers["Content-Type"] == "application/json"
    return json.loads(body)


def test_figures_of_a_server_that_did_nothing(watched):
    server, path = watched
    status = status_of(path)
    assert set(status) == FIELDS and status["format"] == 1  # No usage yet.
    info = server.info()
    told = status["server"]
    assert (told["version"], told["torch"], told["serving"]) == (
        info.version,
        info.torch_version,
        True,
    )
    assert told["addresses"] == [server.target]
    assert 0 <= status["time"] - told["start_time"] < 3600
    machine = status["machine"]
    assert machine["processor"] and machine["cores"] >= 1
    assert len(machine["load"]) == 3
    assert 0 < machine["process_memory_bytes"] < machine["memory_bytes"]
    assert 0 < machine["memory_available_bytes"] <= machine["memory_bytes"]
    assert 0 < machine["memory_usable_bytes"] <= machine["memory_bytes"]
    assert "state_disk" not in machine
    assert status["instances"] == [] and status["instances_left_out"] == 0
    assert status["principals_left_out"] == 0


def test_the_disk_of_the_state_folder(start, tmp_path):
    path = tmp_path / "admin.sock"
    (tmp_path / "state").mkdir()
    options = [f"--state-dir={tmp_path}/state", f"--listen=unix:{path},serve=admin"]
    start(options=options)
    disk = status_of(path)["machine"]["state_disk"]
    assert 0 <= disk["available_bytes"] <= disk["bytes"]


def test_figures_are_those_of_what_was_done(watched):
    server, path = watched
    net = server.create("seq-mnist", name="net", seed=0, module=False)
    for _ in range(3):
        made = net.forward(X, training=True, tape=True)
        net.backward({made.tape_id: {"out": np.ones_like(made.out)}})
    kept = net.forward(X, training=True, tape=True)
    net.configure_optimizer("sgd", [ParameterGroup(lr=0.1)])
    net.train_step(X, [backboned.CrossEntropy(Y)])
    with pytest.raises(backboned.errors.NotFound):
        server.instance("nobody", False)

    def settled():  # A call is counted after its answer.
        status, metrics = status_of(path), scrape(path)
        by_code = {}
        for name, value in metrics.items():
            if found := re.match(r'backboned_calls_total{code="(\w+)"', name):
                by_code[found[1]] = by_code.get(found[1], 0) + value
        met = status["calls_by_code"] == by_code and by_code.get("NOT_FOUND") == 1
        return met and (status, metrics)

    status, metrics = wait_until(settled)
    (instance,) = status["instances"]
    described = net.info()
    assert instance["owner"] == "local" and instance["name"] == "net"
    assert instance["uid"] == described.version.uid
    assert instance["benchmark"] == "seq-mnist"
    assert instance["architecture"] == described.architecture
    assert instance["memory_bytes"] == described.memory_bytes
    assert instance["params_version"] == described.version.params
    counters = instance["counters"]
    assert counters["forwards"] == described.forwards
    assert counters["backwards"] == described.backwards == 4  # A step has one.
    assert counters["steps"] == described.steps
    assert not instance["shared"] and not instance["read_only"]
    (principal,) = [x for x in status["principals"] if x["name"] == "local"]
    assert principal["tapes"] == 1 and principal["instances"] == 1
    assert principal["tape_bytes"] == status["limits"]["tape_bytes"]["used"] > 0
    assert principal["instance_bytes"] == instance["memory_bytes"]
    assert principal["calls_in_progress"] == 0
    assert principal["calls_by_code"] == status["calls_by_code"]  # Nobody else's.
    assert status["limits"]["tapes"]["used"] == 1
    (device,) = status["devices"]
    paid = principal["device_seconds"][device["name"]]
    assert 0 < paid <= device["busy_seconds"] * 1.0001
    assert device["queued"] == 0 and not device["lost"]
    assert sum(device["batches"].values()) > 0
    for name in ("queue", "compute"):
        told = status["latency"][name]
        of = f"backboned_call_{name}_seconds"
        counts = [v for k, v in metrics.items() if k.startswith(f"{of}_count")]
        sums = [v for k, v in metrics.items() if k.startswith(f"{of}_sum")]
        assert sum(told["counts"]) == sum(counts) > 0
        assert len(told["counts"]) == len(told["upper_bounds"]) + 1
        assert told["sum_seconds"] == pytest.approx(sum(sums), rel=1e-5)
    del kept


def counted(server):
    """Give the number of one's calls that have been counted."""
    return sum(row.calls for row in server.usage().rows)


def be_user(server, forwards):
    """Make some calls, and return when they are counted."""
    net = server.create("seq-mnist", name="net", seed=0, module=False)
    for _ in range(forwards):
        net.forward(X)
    with pytest.raises(backboned.errors.NotFound):
        server.instance("nobody", False)
    wait_until(lambda: counted(server) >= forwards + 2)


def uses_of_users(server, pause=0.0):
    """Give how many calls of alice and bob have been counted, after a pause."""
    time.sleep(pause)
    users = [row for row in server.usage().rows if row.principal in ("alice", "bob")]
    return sorted((row.principal, row.calls) for row in users)


def check_usage(usage, server):
    """Compare the use of alice and bob with what an admin is told."""
    assert set(usage) == {"time", *SPANS}
    asked = datetime.datetime.fromtimestamp(usage["time"], datetime.UTC)
    for span, hours in SPANS.items():
        report = server.usage(since=asked - datetime.timedelta(hours=hours))
        users = [row for row in report.rows if row.principal in ("alice", "bob")]
        told = [x for x in usage[span] if x["principal"] in ("alice", "bob")]
        assert told == [
            {
                "principal": row.principal,
                "calls": row.calls,
                "device_seconds": pytest.approx(row.device_time),
            }
            for row in sorted(users, key=lambda row: -row.device_time)
        ]
    assert len(told) == 2  # Of the month.


def test_usage_is_what_an_admin_is_told(binary, tmp_path):
    path = tmp_path / "admin.sock"
    options = [f"--listen=unix:{path},serve=admin"]
    for name in ("alice", "bob"):
        options.append(f"--listen=unix:{tmp_path}/{name}.sock,principal={name}")
    with KeptServer(binary, tmp_path, *options) as kept:
        kept.start()
        for name, forwards in ("alice", 3), ("bob", 30):
            with kept.connect(name) as server:
                be_user(server, forwards)
        with kept.connect() as server:  # A call is counted after its answer.
            wait_until(lambda: uses_of_users(server) == uses_of_users(server, 0.5))
        assert "usage" not in status_of(path)  # Nobody had looked.
        usage = wait_until(lambda: status_of(path).get("usage"))
        with kept.connect() as server:
            check_usage(usage, server)
        principals = {x["name"]: x for x in status_of(path)["principals"]}
        for name, forwards in ("alice", 3), ("bob", 30):
            calls = principals[name]["calls_by_code"]
            assert calls["NOT_FOUND"] == 1 and calls["OK"] > forwards
        assert kept.end() == 0
        kept.start()  # Usage outlives it, and counters do not.
        usage = wait_until(lambda: status_of(path).get("usage"))
        with kept.connect() as server:
            check_usage(usage, server)
        (bob,) = [x for x in status_of(path)["principals"] if x["name"] == "bob"]
        assert bob["calls_by_code"] == {}


def test_usage_without_a_state_folder(watched):
    server, path = watched
    be_user(server, 1)
    usage = wait_until(lambda: status_of(path).get("usage"))
    (told,) = usage["month"]
    assert told["principal"] == "local" and told["calls"] >= 3
    assert told["device_seconds"] > 0


def test_the_figures_are_bounded_and_count_what_they_leave_out(binary, tmp_path):
    calls, path = tmp_path / "calls", tmp_path / "admin.sock"
    process = subprocess.Popen(
        [
            *(binary, "--threads=1", "--max-instances=400"),
            f"--listen=unix:{calls},principal-from=backboned-principal",
            f"--listen=unix:{path},serve=admin",
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout.readline()
        with grpc.insecure_channel(f"unix:{calls}") as channel:
            create = channel.unary_unary(
                f"{SERVICE}/CreateInstance",
                request_serializer=pb.CreateInstanceRequest.SerializeToString,
            )
            for number in range(MOST_INSTANCES + 10):
                request = pb.CreateInstanceRequest(
                    name=f"net{number}", benchmark="seq-mnist", seed=0
                )
                name = f"p{number // 2}"  # Two instances each.
                create(request, metadata=[("backboned-principal", name)], timeout=60)

        def settled():  # A call is counted after its answer.
            status = status_of(path)
            return status["calls_by_code"]["OK"] == MOST_INSTANCES + 10 and status

        status = wait_until(settled)
    finally:
        process.kill()
        process.communicate()
    assert len(status["instances"]) == MOST_INSTANCES
    assert status["instances_left_out"] == 10
    *principals, others = status["principals"]
    assert len(principals) == MOST_PRINCIPALS
    assert status["principals_left_out"] == 5
    assert {each["instances"] for each in principals} == {2}
    # Calls are counted by name for fewer.
    assert others["name"] == "(other)"
    assert others["calls_by_code"] == {"OK": 2 * (105 - MOST_COUNTED)}
    named = [each for each in principals if each["calls_by_code"] == {"OK": 2}]
    assert len(named) <= MOST_COUNTED


def hash_of(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_the_page_may_run_its_own_script_and_load_nothing(watched):
    _, path = watched
    status, headers, body = fetch(path, "/")
    assert status == 200 and headers["Content-Type"] == "text/html; charset=utf-8"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    policy = dict(
        part.strip().split(" ", 1)
        for part in headers["Content-Security-Policy"].split(";")
    )
    page = body.decode()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.S)
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'{hash_of(script)}'"
    assert policy["style-src"] == f"'{hash_of(style)}'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    assert not re.search(r"\bon\w+=|style=|innerHTML|insertAdjacent|eval\(", page)
    assert fetch(path, "/", method="HEAD")[0] == 405
    assert fetch(path, "/status.json", method="POST")[0] == 405
    assert fetch(path, "/page.js")[0] == 404


class Tunnel(http.server.ThreadingHTTPServer):
    """Leads a browser to an admin socket, as `ssh -L` does; `change` may lie to it."""

    daemon_threads = True

    def __init__(self, path):
        self.path, self.change, self.asked = path, None, 0
        super().__init__(("127.0.0.1", 0), _Passes)
        self.url = f"http://127.0.0.1:{self.server_port}/"


class _Passes(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):  # noqa: N802
        try:
            status, headers, body = fetch(self.server.path, self.path)
        except OSError:
            return  # As a tunnel does whose server has gone.
        if self.path == "/status.json":
            self.server.asked += 1
            if self.server.change:
                figures = json.loads(body)
                self.server.change(figures)
                body = json.dumps(figures).encode()
        self.send_response(status)
        for name, value in headers.items():
            if name not in ("Content-Length", "Connection"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextlib.contextmanager
def tunnel(path):
    """Open a tunnel to an admin socket."""
    with Tunnel(path) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        try:
            yield opened
        finally:
            opened.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def chromium():
    """One browser for all tests of this file."""
    with browser() as started:
        yield started


NAMES = (
    "[...document.querySelectorAll('#instances tbody th span')].map(x => x.innerText)"
)
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@needs_browser
def test_the_page_shows_instances_and_sorts_and_filters_them(watched, chromium):
    server, path = watched
    big = server.create("seq-cifar10", name="big", seed=0, module=False)
    small = server.create("seq-mnist", name="small", seed=0, module=False)
    with tunnel(path) as led:
        chromium.show(led.url)
        chromium.until(f"{NAMES}.length === 2")
        assert chromium.value("document.querySelector('#state')?.innerText") == "serves"
        small.forward(X)
        chromium.until(f"{NAMES}[0] === 'local/small'")  # The last one that was used.
        sort = "[...document.querySelectorAll('#instances th button')]"
        sort += ".find(x => x.innerText === 'Memory')"
        chromium.value(f"{sort}.focus()")
        chromium.press("Enter")
        assert chromium.value(NAMES) == ["local/big", "local/small"]
        sorted_by = f"{sort}.parentNode.getAttribute('aria-sort')"
        assert chromium.value(sorted_by) == "descending"
        chromium.press("Enter")
        assert chromium.value(sorted_by) == "ascending"
        assert chromium.value(NAMES) == ["local/small", "local/big"]
        chromium.value("document.querySelector('#filter').focus()")
        for key in "cifar":
            chromium.press(key)
        assert chromium.value(NAMES) == ["local/big"]
        asked = led.asked
        wait_until(lambda: led.asked > asked)  # It is live, and the filter stays.
        assert chromium.value(NAMES) == ["local/big"]
        big.delete()
        chromium.until(f"{NAMES}.length === 0")
        who = chromium.value("document.querySelector('#who tbody').innerText")
        assert "local" in who
    assert chromium.messages == []


@needs_browser
def test_the_page_shows_calls_and_usage_of_each_principal(watched, chromium):
    _, path = watched

    def tell(status):
        status["principals"] = [
            {**IDLE, "name": name, "calls_by_code": calls}
            for name, calls in {
                "alice": {"OK": 12, "ABORTED": 1, "NOT_FOUND": 30},
                "bob": {"OK": 1500},
                "carol": {},
            }.items()
        ]
        alice = {"principal": "alice", "device_seconds": 90.0, "calls": 1}
        bob = {"principal": "bob", "device_seconds": 3600.0, "calls": 1500}
        status["usage"] = {
            **{"time": status["time"], "hour": [alice]},
            **{"day": [bob, alice], "month": [bob, alice]},
        }

    def rows(table):
        return chromium.value(
            f"[...document.querySelectorAll('{table} tbody tr')]"
            ".map(row => [...row.children].map(cell => cell.innerText))"
        )

    with tunnel(path) as led:
        led.change = tell
        chromium.show(led.url)
        chromium.until("document.querySelector('#used tbody tr') !== null")
        assert rows("#calls") == [
            ["bob", "1\u202f500", "–"],
            ["alice", "12", "NOT_FOUND 30, ABORTED 1"],
        ]
        assert rows("#used") == [
            ["bob", "–", *["1\u202fh\n1\u202f500 calls"] * 2],
            ["alice", *["1\u202fmin 30\u202fs\n1 call"] * 3],
        ]
    assert chromium.messages == []


@needs_browser
def test_texts_of_others_stay_texts(watched, chromium):
    server, path = watched
    net = server.create("seq-mnist", name="net", seed=0, module=False)
    evil = "<img src=x onerror=document.title='pwned'><b>&amp;\u202e\"'"

    def lie(status):
        for instance in status["instances"]:
            instance.update(owner=evil, name=evil, benchmark=evil, device=evil)
        for principal in status["principals"]:
            principal.update(name=evil, calls_by_code={evil: 7})
        status["devices"][0].update(name=evil, description=evil)
        status["calls_by_code"][evil] = 5
        status["limits"][evil] = {"used": 1, "limit": 2}
        status["machine"]["processor"] = evil
        status["server"].update(version=evil, addresses=[evil])
        use = {"principal": evil, "device_seconds": 7200.0, "calls": 3}
        status["usage"] = {"time": 0, "hour": [], "day": [use], "month": [use]}

    with tunnel(path) as led:
        led.change = lie
        chromium.show(led.url)
        chromium.until(f"{NAMES}.length === 1")
        assert chromium.value(NAMES) == [f"{evil}/{evil}"]
        assert "2\u202fh\n3 calls" in chromium.value(
            "document.querySelector('#used').innerText"
        )
        assert f"{evil} 7" in chromium.value(
            "document.querySelector('#calls').textContent"
        )
        assert chromium.value("document.querySelectorAll('img, main b b').length") == 0
        assert chromium.value("document.title") == "Backboned"
        assert chromium.value(SIDEWAYS) == 0
    assert chromium.messages == []
    assert net.info().name == "net"


@needs_browser
@pytest.mark.parametrize("width", [320, 390, 1020, 1030, 1200])
def test_nothing_scrolls_sideways(watched, chromium, width):
    server, path = watched
    server.create("seq-cifar10", name="a" * 64, seed=0, module=False)

    def lengthen(status):
        for principal in status["principals"]:
            principal["name"] = "principal-" + "x" * 54
            principal["calls_by_code"] = {"OK": 3e9, "RESOURCE_EXHAUSTED": 123456}
        use = {"principal": "x" * 64, "device_seconds": 7261.0, "calls": 30000}
        status["usage"] = {"time": 0, "hour": [use], "day": [use], "month": [use]}

    with tunnel(path) as led:
        led.change = lengthen
        chromium.show(led.url, width=width)
        chromium.until(f"{NAMES}.length === 1")
        assert chromium.value(SIDEWAYS) == 0
        assert chromium.value("innerWidth") == width  # Else it was zoomed out.


@needs_browser
def test_the_page_outlives_its_server(binary, chromium, tmp_path):
    path = tmp_path / "admin.sock"

    @contextlib.contextmanager
    def serving():
        process = subprocess.Popen(
            [
                *(binary, "--threads=1", "--instance=seq-mnist"),
                f"--listen=unix:{tmp_path}/calls",
                f"--listen=unix:{path},serve=admin",
            ],
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()
            process.communicate()

    said = "document.querySelector('#state')?.innerText"
    with tunnel(path) as led:
        with serving() as process:
            chromium.show(led.url)
            chromium.until(f"{said} === 'serves'")
            process.send_signal(signal.SIGKILL)
            chromium.until(f"/^no answer since \\d\\d:\\d\\d:\\d\\d$/.test({said})")
            assert "no answer" in chromium.value("document.title")
        assert chromium.value(NAMES) == ["server/seq-mnist"]  # What was known last.
        with serving():
            chromium.until(f"{said} === 'serves'")
            uid = status_of(path)["server"]["uid"]
            assert chromium.value("keep.uid") == uid  # Rates begin anew.
