"""Parameters and gradients of a network as vectors, in Mammoth's words."""

from __future__ import annotations

import torch
from torch import nn

from backboned.layout import Layout
from backboned.nn.function import AnyLink


class FlatAccess:
    """Reads and writes parameters and gradients as vectors [P], in flat order."""

    _link: AnyLink

    @property
    def layout(self) -> Layout:
        """Names, shapes and order of the tensors."""
        return self._link.instance.layout

    def get_params(self) -> torch.Tensor:
        """Give all parameters as a vector [P], differentiable."""
        self._link.show_all()
        return torch.cat([p.reshape(-1) for p in self._link.parameters()])

    def set_params(self, values: torch.Tensor) -> None:
        """Give the parameters the values of a vector [P], which is copied."""
        with torch.no_grad():
            for parameter, part in self._cut(values, "parameters"):
                parameter.data = part

    def get_grads(self) -> torch.Tensor:
        """Give the gradients of all parameters as a vector [P].

        Raises
        ------
        RuntimeError
            If a parameter has none.
        """
        self._link.show_grads()
        parameters = self._link.parameters()
        missing = [
            spec.name
            for spec, parameter in zip(self.layout.parameters, parameters)
            if parameter.grad is None
        ]
        if missing:
            raise RuntimeError(f"no gradient yet of {', '.join(missing)}")
        return torch.cat([p.grad.reshape(-1) for p in parameters])  # type: ignore

    def set_grads(self, values: torch.Tensor) -> None:
        """Give the parameters' gradients the values of a vector [P], copied."""
        for parameter, part in self._cut(values, "gradients"):
            parameter.grad = part

    def _cut(
        self, values: torch.Tensor, what: str
    ) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """Cut a vector into copies in the parameters' shapes."""
        if values.shape != (self.layout.elements,):
            raise ValueError(
                f"{what} are a vector [{self.layout.elements}]; "
                f"got the shape {list(values.shape)}"
            )
        parameters = self._link.parameters()
        values = values.detach().to("cpu", torch.float32)
        parts = torch.split(values, [p.numel() for p in parameters])
        return [
            (parameter, part.reshape(parameter.shape).clone())
            for parameter, part in zip(parameters, parts)
        ]
