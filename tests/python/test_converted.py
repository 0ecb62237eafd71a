"""Networks of torchvision and timm, converted and loaded, give the originals' bits."""

import subprocess
import sys

import numpy as np
import pytest
import torch

torchvision = pytest.importorskip("torchvision")
timm = pytest.importorskip("timm")


def make_resnet():
    return torchvision.models.resnet50(weights=None, num_classes=7)


def make_vit():
    return timm.create_model("vit_tiny_patch16_224", num_classes=7)


def features_of_resnet(model, x):
    model.fc = torch.nn.Identity()
    return model(x)


def features_of_vit(model, x):
    return model.forward_head(model.forward_features(x), pre_logits=True)


@pytest.mark.parametrize(
    ("architecture", "make", "features_of"),
    [
        ("resnet50-pt", make_resnet, features_of_resnet),
        ("vit-tiny", make_vit, features_of_vit),
    ],
)
def test_features_equal_the_originals(start, tmp_path, architecture, make, features_of):
    torch.manual_seed(3)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    torch.save(model.state_dict(), tmp_path / "original.pt")
    command = [sys.executable, "-m", "backboned", "convert"]
    files = [str(tmp_path / "original.pt"), str(tmp_path / "converted.safetensors")]
    subprocess.run([*command, *files], check=True, capture_output=True)

    server = start(threads=2, options=[f"--weights-dir={tmp_path}"])
    net = server.create(
        architecture=architecture, num_classes=7, weights="converted", module=False
    )
    x = torch.rand((2, 3, 224, 224))
    ours = net.forward(x.numpy(), ["out", "features"]).outputs
    with torch.no_grad():
        out = model(x)
        features = features_of(model, x)
    assert not net.missing_keys and not net.unexpected_keys
    assert np.array_equal(ours["out"], out.numpy())
    assert np.array_equal(ours["features"], features.numpy())
