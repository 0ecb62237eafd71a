"""`RemoteBackbone`: a backbone in the server as a `torch.nn.Module`. Needs torch."""

from backboned.nn.remote import RemoteBackbone

__all__ = ["RemoteBackbone"]
