"""`RemoteBackbone`: a backbone in the server as a `torch.nn.Module`. Needs torch."""

from backboned.nn.module import RemoteBackbone

__all__ = ["RemoteBackbone"]
