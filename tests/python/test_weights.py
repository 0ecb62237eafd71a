"""Weights files: save, load, convert; and files that do not fit."""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys

import backboned
import numpy as np
import pytest
import torch
from backboned.weights import convert as conversion
from backboned.weights.files import RawTensor, save, write

RESNET = {"architecture": "resnet18", "num_filters": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def server(binary, folder):
    """A server with a folder of weights."""
    options = [f"--weights-dir={folder}"]
    with backboned.local_server(binary=binary, threads=1, options=options) as server:
        yield server


def create(server, **options):
    return server.create(**{**RESNET, "num_classes": 5, "module": False, **options})


def run(*arguments):
    command = [sys.executable, "-m", "backboned", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def put(folder, name, state):
    tensors = {key: conversion.raw(key, tensor) for key, tensor in state.items()}
    return write(folder / f"{name}.safetensors", tensors)


@pytest.mark.parametrize("load_by", ["name", "order"])
def test_saved_instance_is_loaded_equal_to_the_bit(server, folder, load_by):
    net = create(server, seed=1)
    net.forward(np.ones((4, 3, 32, 32), np.float32), training=True)  # Moves buffers.
    sha256 = save(net, folder / "saved.safetensors")
    again = create(server, weights="saved", load_by=load_by)
    info = again.info(digest=True)
    assert info.digest == net.info(digest=True).digest
    assert (info.weights, info.weights_sha256) == ("saved", sha256)
    assert (again.weights, again.weights_sha256) == ("saved", sha256)
    content = (folder / "saved.safetensors").read_bytes()
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert again.missing_keys == again.unexpected_keys == ()
    assert again.get_buffers()["bn1.num_batches_tracked"] == 1


def test_library_reads_what_is_saved(server, folder):
    load_file = pytest.importorskip("safetensors.torch").load_file
    net = create(server, seed=2)
    save(net, folder / "ours.safetensors")
    loaded = load_file(folder / "ours.safetensors")
    names = [p.name for p in net.layout.parameters]
    assert set(names) <= set(loaded)
    flat = torch.cat([loaded[name].reshape(-1) for name in names])
    np.testing.assert_array_equal(flat.numpy(), net.get_params())
    for name, value in net.get_buffers().items():
        np.testing.assert_array_equal(loaded[name].numpy(), value)


def test_what_the_library_saves_is_loaded(server, folder):
    save_file = pytest.importorskip("safetensors.torch").save_file
    net = server.create("seq-mnist", seed=3)
    save_file(
        {k: v.detach().contiguous() for k, v in parameters_of(net).items()},
        folder / "theirs.safetensors",
        metadata={"format": "pt"},
    )
    again = server.create("seq-mnist", weights="theirs")
    assert torch.equal(again.get_params(), net.get_params())


def parameters_of(net):
    flat = net.get_params()
    return {
        p.name: flat[p.offset : p.offset + p.size].view(p.shape)
        for p in net.layout.parameters
    }


def test_trunk_is_loaded_under_a_fresh_classifier(server, folder):
    source = create(server, seed=4, num_classes=7)
    save(source, folder / "seven.safetensors")
    with pytest.raises(backboned.errors.InvalidArgument) as caught:
        create(server, weights="seven", partial=True)
    assert caught.value.reason == "SHAPE_MISMATCH"
    assert '2 keys do not fit: "classifier.weight" is [7, 32]' in caught.value.message

    state = {
        p.name: torch.from_numpy(value.reshape(p.shape))
        for p, value in by_parameter(source)
        if not p.name.startswith("classifier.")
    }
    state["head"] = torch.zeros(3)
    put(folder, "trunk", state)
    with pytest.raises(backboned.errors.InvalidArgument, match="is missing"):
        create(server, weights="trunk")
    net = create(server, seed=5, weights="trunk", partial=True)
    assert "classifier.weight" in net.missing_keys
    assert "bn1.running_mean" in net.missing_keys
    assert not [key for key in net.missing_keys if key.endswith("tracked")]
    assert net.unexpected_keys == ("head",)
    np.testing.assert_array_equal(
        net.get_params("!classifier.*"), source.get_params("!classifier.*")
    )
    drawn = create(server, seed=5)
    np.testing.assert_array_equal(
        net.get_params("classifier.*"), drawn.get_params("classifier.*")
    )


def by_parameter(net):
    flat = net.get_params()
    return [(p, flat[p.offset : p.offset + p.size]) for p in net.layout.parameters]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(server, folder, dtype):
    values = {
        p.name: torch.from_numpy(value.reshape(p.shape).copy()).to(dtype)
        for p, value in by_parameter(server.create("seq-mnist", seed=0, module=False))
    }
    put(folder, "narrow", values)
    net = server.create("seq-mnist", weights="narrow", module=False)
    expected = torch.cat([v.reshape(-1).float() for v in values.values()])
    np.testing.assert_array_equal(net.get_params(), expected.numpy())


@pytest.mark.parametrize("file_dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_floats_are_converted_to_the_instances(server, folder, file_dtype, dtype):
    values = {
        p.name: torch.from_numpy(value.reshape(p.shape).copy()).to(file_dtype)
        for p, value in by_parameter(server.create("seq-mnist", seed=0, module=False))
    }
    put(folder, "floats", values)
    net = server.create("seq-mnist", weights="floats", dtype=dtype)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, values[name].to(getattr(torch, dtype)))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_saved_in_its_own_type(server, folder, dtype):
    net = create(server, seed=1, dtype=dtype)
    save(net, folder / "typed.safetensors")
    again = create(server, weights="typed", dtype=dtype)
    assert again.info(digest=True).digest == net.info(digest=True).digest


@pytest.mark.parametrize(("old", "new"), [(64, 96), (96, 64), (64, 112)])
def test_a_position_embedding_is_resized_as_timm_does(server, folder, old, new):
    resample = pytest.importorskip("timm.layers").resample_abs_pos_embed
    sizes = {"embed_dim": 24, "depth": 2, "num_heads": 3, "num_classes": 5}
    source = server.create(architecture="vit-tiny", img_size=old, seed=1, **sizes)
    save(source.instance, folder / "small-images.safetensors")
    options = {"architecture": "vit-tiny", "img_size": new, **sizes}
    with pytest.raises(backboned.errors.InvalidArgument) as caught:
        server.create(weights="small-images", **options)
    tokens = [1 + (side // 16) ** 2 for side in (old, new)]
    assert (
        f'"pos_embed" is [1, {tokens[0]}, 24], expected [1, {tokens[1]}, 24] '
        "(of another image size: set resize_position_embedding)"
    ) in caught.value.message

    net = server.create(
        weights="small-images", resize_position_embedding=True, **options
    )
    expected = resample(source.pos_embed.detach(), [new // 16, new // 16])
    torch.testing.assert_close(net.pos_embed.detach(), expected, rtol=0, atol=1e-6)
    assert torch.equal(net.pos_embed[:, 0], source.pos_embed[:, 0])
    for name, parameter in net.named_parameters():
        if name != "pos_embed":
            assert torch.equal(parameter, dict(source.named_parameters())[name])


def test_resizing_says_how_weights_are_loaded(server):
    with pytest.raises(
        backboned.errors.InvalidArgument, match="resize_position_embedding"
    ):
        create(server, resize_position_embedding=True)


def test_unknown_weights_list_the_valid_ones(server, folder):
    put(folder, "known-weights", {"a": torch.zeros(1)})
    with pytest.raises(
        backboned.errors.NotFound, match="did you mean known-weights"
    ) as caught:
        create(server, weights="known-weigths")
    assert caught.value.reason == "WEIGHTS_NOT_FOUND"
    assert str(folder) not in caught.value.message
    for name in ("../weights/known-weights", "known-weights.safetensors/..", ""):
        with pytest.raises(
            backboned.errors.InvalidArgument, match="the name of a file"
        ):
            create(server, weights=name)


def test_server_without_a_folder_says_so(start):
    with pytest.raises(backboned.errors.NotFound, match="--weights-dir"):
        create(start(), weights="any")


def test_pretrained_architecture_wants_weights(server):
    pretrained = {"architecture": "resnet18-7x7-pt", "num_classes": 2}
    with pytest.raises(
        backboned.errors.FailedPrecondition, match="random_init"
    ) as caught:
        server.create(**pretrained)
    assert caught.value.reason == "WEIGHTS_REQUIRED"
    net = server.create(**pretrained, random_init=True, module=False)
    assert net.weights == ""


def test_copy_of_a_pretrained_network_has_its_parameters(server):
    net = server.create(architecture="resnet18-7x7-pt", num_classes=2, random_init=True)
    assert torch.equal(copy.deepcopy(net).get_params(), net.get_params())


def test_corrupt_file_is_refused(server, folder):
    (folder / "corrupt.safetensors").write_bytes(b"\xff" * 16)
    with pytest.raises(
        backboned.errors.FailedPrecondition, match="limit is 100000000"
    ) as e:
        create(server, weights="corrupt")
    assert e.value.reason == "WEIGHTS_UNREADABLE"


def test_wrong_options_are_refused(server):
    with pytest.raises(backboned.errors.InvalidArgument, match="'name' or 'order'"):
        create(server, weights="a", load_by="nmae")
    with pytest.raises(
        backboned.errors.InvalidArgument, match="how weights are loaded"
    ):
        create(server, partial=True)
    with pytest.raises(backboned.errors.InvalidArgument, match="not both"):
        create(server, weights="a", random_init=True)


def test_hosted_instance_may_begin_with_weights(start, server, folder):
    net = server.create("seq-mnist", seed=9, module=False)
    save(net, folder / "hosted.safetensors")
    other = start(instances=["seq-mnist=a@hosted"], options=[f"--weights-dir={folder}"])
    assert other.instance("a", module=False).weights == "hosted"
    np.testing.assert_array_equal(
        other.instance("a", module=False).get_params(), net.get_params()
    )


def test_missing_folder_stops_the_start(binary, tmp_path):
    with pytest.raises(
        backboned.errors.ServerStartError, match="is no readable folder"
    ):
        backboned.local_server(
            binary=binary, options=[f"--weights-dir={tmp_path / 'none'}"]
        )


# The commands.


def test_save_command_writes_what_loads(server, folder):
    net = server.create("seq-mnist", seed=6, name="to-save", module=False)
    done = run("save", server.target, "to-save", folder / "command.safetensors")
    assert done.returncode == 0, done.stderr
    assert "89,610 parameters" in done.stdout
    again = server.create("seq-mnist", weights="command", module=False)
    assert again.weights_sha256 in done.stdout
    np.testing.assert_array_equal(again.get_params(), net.get_params())
    assert not [f for f in os.listdir(folder) if f.endswith(".tmp")]


def test_commands_explain_mistakes(server, tmp_path):
    out = tmp_path / "a.safetensors"
    net = server.create("seq-mnist", name="here", module=False)
    torch.save({"a": 1}, tmp_path / "numbers.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "unknown.pt")
    torch.save({"conv_stem.weight": torch.zeros(1)}, tmp_path / "timm.pt")
    torch.save(torch.nn.Linear(1, 1), tmp_path / "module.pt")
    (tmp_path / "text.pt").write_text("hello")
    mistakes = [
        (["save", server.target, "there", out], "no instance"),
        (["save", "unix:/none", "here", out], "no socket"),
        (["save", server.target, net.name, tmp_path / "A.safetensors"], "named NAME"),
        (["save", server.target, net.name, tmp_path / "a.pt"], "named NAME"),
        (["save", server.target, net.name, tmp_path / "no" / out.name], "No such file"),
        (["convert", tmp_path / "none.pt", out], "No such file"),
        (["convert", tmp_path / "text.pt", out], "no file of torch.save"),
        (["convert", tmp_path / "numbers.pt", out], "a is no tensor"),
        (["convert", tmp_path / "unknown.pt", out], "--arch says which"),
        (["convert", tmp_path / "timm.pt", out], "not those of efficientnet_pytorch"),
        (["convert", tmp_path / "module.pt", out], "could run its code"),
    ]
    for arguments, message in mistakes:
        status, error = call(arguments)
        assert status == 1 and message in error, (arguments, error)
    assert not out.exists()
    assert "choose from" in run("sav").stderr
    done = run("save", "unix:/none", "here", out)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


def call(arguments):
    """Run a command in this process; give its status and what it said."""
    import contextlib
    import io

    from backboned.weights.cli import main

    error = io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()):
        status = main([str(argument) for argument in arguments])
    return status, error.getvalue()


def torchvision_names(net):
    """A state dict by torchvision's names, of an instance's parameters and buffers."""
    state = {}
    for p, value in by_parameter(net):
        state[p.name] = torch.from_numpy(value.reshape(p.shape).copy())
    for name, value in net.get_buffers().items():
        state[name] = torch.from_numpy(np.array(value))
    names = {"classifier.": "fc.", ".shortcut.": ".downsample."}
    pattern = re.compile("|".join(map(re.escape, names)))
    return {pattern.sub(lambda m: names[m[0]], k): v for k, v in state.items()}


@pytest.mark.parametrize("architecture", ["resnet18-7x7-pt", "resnet50-pt"])
def test_resnets_of_torchvision_are_converted(server, folder, architecture):
    pretrained = {"architecture": architecture, "module": False}
    net = server.create(**pretrained, num_classes=11, seed=8, random_init=True)
    state = torchvision_names(net)
    assert "layer2.0.downsample.1.running_var" in state and "fc.bias" in state
    name = architecture.replace("-pt", "-tv")
    torch.save({"state_dict": state}, folder / "tv.pt")
    status, error = call(["convert", folder / "tv.pt", folder / f"{name}.safetensors"])
    assert status == 0, error
    again = server.create(**pretrained, num_classes=11, weights=name)
    assert again.info(digest=True).digest == net.info(digest=True).digest

    status, error = call(
        ["convert", folder / "tv.pt", folder / "trunk.safetensors", "--trunk"]
    )
    assert status == 0, error
    fork = server.create(**pretrained, num_classes=3, weights="trunk", partial=True)
    assert fork.missing_keys == ("classifier.weight", "classifier.bias")
    (folder / "tv.pt").unlink()


def test_names_of_the_sources():
    one = torch.zeros(1)
    vit = {
        "module.cls_token": one,
        "module.patch_embed.proj.weight": one,
        "module.blocks.0.attn.qkv.weight": one,
        "module.head.weight": one,
        "module.head.bias": one,
    }
    result = conversion.convert(vit)
    assert result.family == "vit"
    assert list(result.tensors)[3:] == ["head.heads.0.weight", "head.heads.0.bias"]
    assert result.renamed["head.weight"] == "head.heads.0.weight"
    # Mammoth's MLP has its classifier twice, and its checkpoints a prefix.
    head = torch.zeros(3)
    mlp = {"net.fc1.bias": one, "net.classifier.bias": head, "net.net.1.bias": head}
    result = conversion.convert(mlp, "mammoth")
    assert list(result.tensors) == ["fc1.bias", "classifier.bias", "net.1.bias"]
    trunk = conversion.convert(mlp, "mammoth", trunk=True)
    assert list(trunk.tensors) == ["fc1.bias"]
    assert trunk.dropped == ("classifier.bias", "net.1.bias")
    efficientnet = {
        "_conv_stem.weight": one,
        "_blocks.0._bn1.weight": one,
        "_bn0.num_batches_tracked": one,
        "_fc.weight": head,
    }
    result = conversion.convert(efficientnet)
    assert result.family == "efficientnet"
    assert list(result.tensors)[2:] == ["_bn0.num_batches_tracked", "classifier.weight"]
    trunk = conversion.convert(efficientnet, trunk=True)
    assert trunk.dropped == ("_fc.weight",) and "classifier.weight" not in trunk.tensors
    with pytest.raises(backboned.errors.InvalidArgument, match="two keys become"):
        conversion.convert({"fc.bias": one, "classifier.bias": one}, "resnet")


@pytest.mark.parametrize(
    "odd",
    [
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.float8_e4m3fn),
        torch.zeros(2).to_sparse(),
    ],
    ids=["complex", "float8", "sparse"],
)
def test_tensor_of_a_type_that_no_file_has_is_refused(odd):
    with pytest.raises(backboned.errors.InvalidArgument, match="'a' is a tensor of"):
        conversion.raw("a", odd)


def test_conversion_runs_no_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(backboned.errors.InvalidArgument, match="could run its code"):
        conversion.load_state_dict(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


def test_file_keeps_the_order_and_replaces_at_once(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_text("old")
    tensors = {
        "z": RawTensor("F32", (2,), b"\0" * 8),
        "a": RawTensor("U8", (), b"\1"),
    }
    sha256 = write(path, tensors)
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    assert list(json.loads(content[8 : 8 + length])) == ["z", "a"]
    assert content[8 + length :] == b"\0" * 8 + b"\1"
    assert sha256 == hashlib.sha256(content).hexdigest()
    assert os.listdir(tmp_path) == ["a.safetensors"]
    assert path.stat().st_mode & 0o044  # The server may be somebody else.
    tensors["z"] = RawTensor("F32", (2,), None)
    with pytest.raises(TypeError):
        write(path, tensors)
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_commands_without_torch_say_what_convert_needs():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from backboned.weights.cli import main\n"
        "sys.exit(main(['convert', 'a.pt', 'a.safetensors']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "convert needs torch: pip install 'backboned[torch]'" in done.stderr
