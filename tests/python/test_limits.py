"""Tests what one client can take of what all share: sessions, lists, memory."""

import re
import subprocess

import backboned
import numpy as np
import pytest
from backboned.types import Normalization, ParameterGroup


def test_clients_that_left_nothing_keep_nobody_out(start):
    target = start(options=["--max-sessions=5"]).target
    for _ in range(20):
        with backboned.connect(target) as client:
            assert client.info().version


def test_a_normalization_of_more_channels_than_images_have_is_refused(start):
    server = start()
    with pytest.raises(
        backboned.errors.InvalidArgument, match="200000 channels, at most"
    ):
        server.create(
            architecture="mnistmlp",
            num_classes=10,
            module=False,
            normalization=Normalization([0.5] * 200_000, [1.0] * 200_000),
        )
    assert server.instances() == []


def test_long_descriptions_leave_the_list_to_everybody(start):
    server = start()
    net = server.create("seq-mnist", name="m", module=False)
    patterns = [ParameterGroup(select=["*" * 256] * 255, lr=0.1)]  # 65,280 bytes.
    net.configure_optimizer("sgd", patterns)
    clones = [net.clone(f"m{i}", with_optimizer=True) for i in range(80)]
    with backboned.connect(server.target) as neighbour:
        names = [info.name for info in neighbour.instances()]
    assert names == sorted(["m", *(clone.name for clone in clones)])
    with pytest.raises(backboned.errors.InvalidArgument, match="at most 65536"):
        net.configure_optimizer(
            "sgd", [ParameterGroup(select=["*" * 256] * 4000, lr=0.1)]
        )


def test_patterns_of_optimizers_count_as_memory(start):
    server = start(options=["--max-memory-bytes=128MiB"])
    nets = [server.create("seq-mnist", seed=0, module=False) for _ in range(60)]
    groups = [ParameterGroup(select=["*" * 255] * 256, lr=0.1)]
    before = server.info().session_usage.memory_bytes
    for net in nets:
        net.configure_optimizer("sgd", groups)
    counted = server.info().session_usage.memory_bytes - before
    assert 60 * 255 * 256 <= counted < 2 * 60 * 255 * 256


def test_an_instance_over_the_memory_limit_ends_the_start(binary, tmp_path):
    ended = subprocess.run(
        [
            binary,
            f"--listen=unix:{tmp_path}/s",
            "--instance=seq-cifar10",
            "--max-memory-bytes=10MiB",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert re.fullmatch(
        r"backboned: --instance seq-cifar10: no room for \d+ more bytes: "
        r"this server uses \d+ of its 10485760 of max-memory-bytes",
        line,
    )


def test_equal_request_ids_of_two_scripts_are_two_requests(start):
    server = start(instances=["seq-mnist=shared"])
    answers = []
    for value in (1.0, 2.0):
        with backboned.connect(server.target) as script:
            net = script.instance("shared", module=False)
            flat = np.full(net.layout.elements, value, np.float32)
            answers.append(net.set_params(flat, request_id="1"))
            assert net.set_params(flat, request_id="1") == answers[-1]
    assert answers[0] != answers[1]
    assert server.instance("shared", module=False).get_params()[0] == 2.0


def test_an_instance_that_differs_is_not_the_existing_one(start):
    server = start()
    made = {"name": "a", "module": False}
    first = server.create(
        "seq-mnist", normalization=Normalization([0.5], [0.5]), **made
    )
    with pytest.raises(
        backboned.errors.AlreadyExists, match="has another normalization"
    ):
        server.create("seq-mnist", exist_ok=True, **made)
    again = server.create(
        "seq-mnist", exist_ok=True, normalization=Normalization([0.5], [0.5]), **made
    )
    assert again.uid == first.uid
    with pytest.raises(backboned.errors.AlreadyExists, match="is not read-only"):
        server.create(
            "seq-mnist",
            exist_ok=True,
            read_only=True,
            normalization=Normalization([0.5], [0.5]),
            **made,
        )


def test_a_full_queue_leaves_calls_for_what_needs_no_device(start):
    limits = start().info().limits
    assert limits["max_queued"] < limits["max_calls"]
