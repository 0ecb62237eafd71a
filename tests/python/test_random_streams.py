"""Any stream of calls, right or damaged, is answered by the contract.

Calls fail for the contract's reasons only, each version of the parameters is made by a
call that says so, reads give what was written before, a neighbour's answers stay as
they are, and the server keeps nothing.

The same 400 seeds run each time; `STREAMS_SECONDS` says for how long others follow, and
`STREAMS_SEED` which is the first. A failure names its seed: begin with it.
"""

import collections
import hashlib
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from backboned.transport.channel import DATA
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import error_pb2, instance_pb2
from random_streams import CHANGES, CLASSES, Target, draw
from test_lifecycle import wait_until
from test_soak import resident_bytes

SECONDS = float(os.environ.get("STREAMS_SECONDS", "0"))
FIRST = int(os.environ.get("STREAMS_SEED", "1"))
SEEDS = 400
PATIENCE_S = 60
LIFE = 200
"""The seeds that a pair of instances lives."""
GROWTH_BYTES = 64 << 20
MOST_CHUNK_BYTES = 2 << 20
OPTIONS = [
    "--max-in-flight-bytes=64MiB",
    "--max-memory-bytes=512MiB",
    "--max-tapes=64",
    "--session-quota=1",
]

OK, INVALID, CANCELLED, LATE, NOT_FOUND, UNIMPLEMENTED = (
    grpc.StatusCode[name].value[0]
    for name in ("OK", "INVALID_ARGUMENT", "CANCELLED", "DEADLINE_EXCEEDED")
    + ("NOT_FOUND", "UNIMPLEMENTED")
)
FINE = OK, "ERROR_REASON_UNSPECIFIED"
MALFORMED = INVALID, "ERROR_REASON_MALFORMED_STREAM"
CONTRACT = {
    "OK": "",
    "CANCELLED": " CLIENT_STALLED",
    "INVALID_ARGUMENT": "MALFORMED_STREAM SHAPE_MISMATCH DTYPE_MISMATCH INVALID_OPTION "
    "REQUEST_ID_REUSED",
    "DEADLINE_EXCEEDED": "",
    "NOT_FOUND": "INSTANCE_NOT_FOUND CACHE_MISS",
    "RESOURCE_EXHAUSTED": "LIMIT_REACHED OUT_OF_MEMORY",
    "FAILED_PRECONDITION": "TAPE_NOT_FOUND NO_GRADIENTS NO_OPTIMIZER READ_ONLY",
    "ABORTED": "STALE_VERSION ANSWER_EXPIRED NOT_BEGUN",
    "UNIMPLEMENTED": "",
}
"""By code: the reasons that a call's answer may have."""
ALLOWED = {
    (grpc.StatusCode[code].value[0], f"ERROR_REASON_{reason or 'UNSPECIFIED'}")
    for code, reasons in CONTRACT.items()
    for reason in reasons.split(" ")
}


class Answer:
    """The outcome of a call."""

    def __init__(self):
        self.result, self.data = None, b""
        self.status, self.reason, self.message = None, "", ""

    def take(self, part):
        assert self.status is None, "a part comes behind the last"
        name = part.WhichOneof("result")
        assert name is None or self.result is None, "a second result"
        if name is not None:
            self.result = part
        if part.HasField("chunk"):
            assert self.result is not None and part.chunk.offset == len(self.data)
            self.data += part.chunk.data
        if part.HasField("status"):
            self.status = part.status.code
            self.reason, self.message = reason_of(part.status), part.status.message
            assert (self.status, self.reason) in ALLOWED, self
            if self.ok:
                assert self.result is not None
                assert len(self.data) == announced_bytes(self.result)
            else:
                assert self.message

    def __repr__(self):
        return f"{self.status} {self.reason}: {self.message}"

    @property
    def ok(self):
        return self.status == OK

    @property
    def name(self):
        return self.result.WhichOneof("result")

    @property
    def version(self):
        """Of the instance; its uid is empty if the call is on none."""
        return getattr(
            getattr(self.result, self.name), "version", instance_pb2.Version()
        )

    @property
    def changed(self):
        """Say whether it made a version of the parameters, now or in an earlier try."""
        stepped = self.name == "backward" and self.result.backward.HasField("step")
        return self.name in CHANGES or stepped


def reason_of(status):
    detail = error_pb2.ErrorDetail()
    for each in status.details:
        assert each.Unpack(detail)
    return error_pb2.ErrorReason.Name(detail.reason)


def announced_bytes(message):
    """Give the bytes of all tensors that a result describes, however deep."""
    if message.DESCRIPTOR.name == "TensorSpec":
        size = {1: 4, 2: 8, 3: 2, 4: 2, 5: 1, 6: 8}[message.dtype]
        return size * int(np.prod(message.shape, dtype=np.int64))
    total = 0
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE and field.name != "chunk":
            inner = value if field.is_repeated else [value]
            total += sum(announced_bytes(each) for each in inner)
    return total


def is_broken(sent):
    """Say whether a chunk is too long or a number too low, which ends a stream."""
    last = 0
    for message in sent:
        if len(message.chunk.data) > MOST_CHUNK_BYTES:
            return True
        if message.WhichOneof("header"):
            if message.call <= last or message.after >= message.call:
                return True
            last = message.call
    return False


def assert_by_the_rules(stream, answers, end):
    """Compare which calls were answered, and the stream's end, with its parts."""
    aborted = stream.aborts_at is not None
    ends = {FINE, MALFORMED}
    if stream.sent is not None:
        ends = {MALFORMED if is_broken(stream.sent) else FINE}
    if not aborted:
        assert end in ends
    elif end[0] != CANCELLED:  # The server was faster.
        assert end in {FINE, MALFORMED}
    if end == FINE and not aborted:
        assert all(answer.status is not None for answer in answers.values())
    if stream.sent is None:
        return
    begun = {m.call for m in stream.sent if m.WhichOneof("header")}
    assert answers.keys() <= begun
    if end == FINE and not aborted:
        assert answers.keys() == begun
        for message in stream.sent:
            name, answer = message.WhichOneof("header"), answers.get(message.call)
            assert name is None or not answer.ok or answer.name == name


def assert_no_wrong_refusal(stream, answers):
    """Check that no call was refused that a client may make."""
    for number in stream.calls.keys() & answers.keys():
        each = answers[number]
        wrong = {NOT_FOUND, UNIMPLEMENTED}
        if each.reason != "ERROR_REASON_REQUEST_ID_REUSED":
            wrong.add(INVALID)
        assert each.status not in wrong, each


class Fuzzed:
    """A server, two instances in it, and what is known of them."""

    def __init__(self, server):
        self.server = server
        self.calls = grpc.insecure_channel(server.target).stream_stream(DATA + "Calls")
        self.instances, self.counts = [], collections.Counter()

    def renew(self):
        """Make the instances anew, after the first time."""
        for instance in self.instances:
            self.server.delete(instance.name)
        self.instances = [
            self.server.create(
                architecture="mnistmlp",
                num_classes=CLASSES,
                mlp_hidden_size=2,
                module=False,
            ),
            self.server.create(
                architecture="wide-resnet",
                num_classes=CLASSES,
                depth=10,
                widen_factor=1,
                dropout=0.5,
                module=False,
            ),
        ]
        samples = (1, 28, 28), (3, 8, 8)
        self.targets = [
            Target(instance.name, instance.layout, sample)
            for instance, sample in zip(self.instances, samples)
        ]
        self.tapes = {}
        self.written = {}

    def send(self, stream):
        """Send a stream; give the answers by call, and the end: code and reason."""
        reached, over = threading.Event(), threading.Event()

        def parts():
            yield from stream.parts[: stream.aborts_at]
            reached.set()
            if stream.aborts_at is not None:
                over.wait()  # Else the stream would be half-closed first.

        call = self.calls(
            parts(), timeout=PATIENCE_S, metadata=[("backboned-session", "random")]
        )
        if stream.aborts_at is not None:
            while call.is_active() and not reached.wait(0.01):
                pass
            call.cancel()
            over.set()
        answers = {}
        try:
            for raw in call:
                part = pb.CallsResponse.FromString(raw)
                assert part.call and not part.notice
                answers.setdefault(part.call, Answer()).take(part)
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata() or ())
            details = trailers.get("grpc-status-details-bin", b"")
            status = error_pb2.StatusDetails.FromString(details)
            return answers, (error.code().value[0], reason_of(status))
        return answers, FINE

    def run(self, streams, threads, meanwhile):
        """Send streams side by side, and check what comes of them."""
        before = [instance.info().version for instance in self.instances]
        running = [threads.submit(self.send, stream) for stream in streams]
        meanwhile()
        ended = [each.result() for each in running]
        # A call of a stream that was aborted may be read only now.
        wait_until(self._is_idle)
        for stream, (answers, end) in zip(streams, ended):
            assert_by_the_rules(stream, answers, end)
            assert_no_wrong_refusal(stream, answers)
            self._check_order(stream, answers)
            self.counts.update(each.status for each in answers.values())
        whole = all(stream.aborts_at is None for stream in streams)
        answers = [each for some, _ in ended for each in some.values()]
        excused = sum(each.status in (None, CANCELLED, LATE) for each in answers)
        for instance, version in zip(self.instances, before):
            self._check_versions(instance, version, answers, excused if whole else 99)

    def _is_idle(self):
        usage = self.server.info().principal_usage
        return usage.calls <= 1 and usage.in_flight_bytes == 0

    def _check_versions(self, instance, before, answers, excused):
        """Check that each version was made by a call that says so."""
        after = instance.info().version
        assert after.uid == before.uid
        mine = [each for each in answers if each.ok and each.version.uid == after.uid]
        told = {each.version.params for each in mine if each.changed}
        assert all(each.version.params <= after.params for each in mine)
        made = set(range(before.params + 1, after.params + 1))
        assert len(made - told) <= excused, (made, told)

    def _check_order(self, stream, answers):
        """Check that calls saw what earlier ones of their instance changed."""
        seen = {}
        for number, call in sorted(stream.calls.items()):
            answer = answers.get(number)
            if answer is None or not answer.ok or not answer.version.uid:
                continue
            if getattr(getattr(call.header, call.name), "request_id", ""):
                continue  # The answer may be an earlier call's.
            if call.name == "forward" and answer.result.forward.tape_id:
                tapes = self.tapes.setdefault(call.target.name, [])
                tapes.append(answer.result.forward.tape_id)
            uid, version = answer.version.uid, answer.version.params
            assert version >= seen.get(uid, 0), number
            if answer.changed:  # Those that read may work together.
                seen[uid] = version
            data = {"get_params": answer.data, "set_params": call.data}.get(call.name)
            if data is not None:
                digest = hashlib.sha256(data).digest()
                assert self.written.setdefault((uid, version), digest) == digest


@pytest.fixture
def far(start):
    return start(options=OPTIONS)


def test_any_stream_is_answered_by_the_contract(far):
    neighbour = far.create("seq-mnist", seed=0, module=False)
    x = np.random.default_rng(0).random((2, 1, 28, 28), np.float32)
    expected = neighbour.forward(x).out

    def meanwhile():
        assert np.array_equal(neighbour.forward(x).out, expected)

    fuzzed, end, settled, seed = Fuzzed(far), time.monotonic() + SECONDS, None, FIRST
    with ThreadPoolExecutor(2) as threads:
        while seed < FIRST + SEEDS or time.monotonic() < end:
            if (seed - FIRST) % LIFE == 0:
                fuzzed.renew()
                assert far.info().principal_usage.tapes == 0
                resident = resident_bytes(far.process.pid)
                settled = settled or (seed > FIRST and resident)
                assert not settled or resident - settled < GROWTH_BYTES
            dice = random.Random(seed)
            streams = [
                draw(dice, fuzzed.targets, fuzzed.tapes)
                for _ in range(dice.choice((1, 1, 1, 2)))
            ]
            try:
                fuzzed.run(streams, threads, meanwhile)
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
            seed += 1
    print(f"{seed - FIRST} seeds, {dict(fuzzed.counts)}")
    assert neighbour.version.params == neighbour.info().version.params == 1
