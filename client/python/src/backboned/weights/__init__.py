"""Weights files: an instance's saved, and PyTorch's converted.

``python -m backboned save`` and ``python -m backboned convert`` are its commands. Only
`convert` needs torch.
"""
