"""What the optimizers in the server have in common."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Any, Callable

import torch

from backboned import boundary
from backboned.layout import matching
from backboned.nn.hosted import HostedLink
from backboned.nn.lazy import raw
from backboned.nn.mirror import as_array
from backboned.nn.remote import RemoteBackbone, network_of
from backboned.nn.weak import Weak
from backboned.optim import memory
from backboned.optimizer import Optimizer, ParameterGroup, StepOptions, Stepped
from backboned.pipeline import StepInFlight
from backboned.training import Term, TrainStep


@boundary.verbs
class HostedOptimizer(torch.optim.Optimizer):
    """An optimizer of `torch.optim` whose steps are made in the server.

    Its groups may be changed like any optimizer's, by a scheduler too. New learning
    rates go along with the next step. Another change, or a new group, has the
    optimizer's state fetched and sent again before the next step.

    `state` is empty: `state_dict` fetches what the server remembers, and what
    `load_state_dict` put there is sent with the next step.

    Attributes
    ----------
    clip_norm : float or None
        Each step first bounds the norm of all gradients together, as
        ``torch.nn.utils.clip_grad_norm_`` does.
    norm_type : float
        The p of that norm.
    clip_value : float or None
        Each step first bounds each element, as ``clip_grad_value_`` does.
    last_step : Stepped or None
        What the last step did, e.g. ``last_step.grad_norm`` before it was clipped.
    """

    kind: str
    clip_norm: float | None = None
    norm_type: float = 2.0
    clip_value: float | None = None
    last_step: Stepped | None = None
    _link: HostedLink | None = None
    _network = Weak()  # It has this: one that is dropped is to be freed.
    _in_force: Optimizer | None = None

    @property
    def network(self) -> RemoteBackbone:
        """The network that has its parameters."""
        network: RemoteBackbone = self._network
        return network

    def _settle_in(self) -> None:
        """Find the network of the parameters, and make it hosted.

        Raises
        ------
        ValueError
            If a parameter is not in a network of the server, or they are in several.
        """
        self._network = _only_network(self.param_groups)
        self._link = self._network.host(self)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as any optimizer does; all of the same network."""
        param_group = {**param_group, "params": expanded(param_group["params"])}
        super().add_param_group(param_group)
        if self._link is not None:
            try:
                same = _only_network(self.param_groups) is self._network
            except ValueError:
                self.param_groups.pop()
                raise
            if not same:
                self.param_groups.pop()
                raise ValueError("an optimizer in the server has one network")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the gradients away, or make those that there are zero.

        The latter fetches them, and sends zeros.
        """
        link = self._own_link()
        tensors = self._tensors()
        if not set_to_none:
            super().zero_grad(set_to_none=False)
        elif len(tensors) == len(link.parameters()):
            link.zero_grad()
        else:
            link.zero_grad(tensors)

    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        clip_norm: float | None = None,
        norm_type: float | None = None,
        clip_value: float | None = None,
    ) -> Any:
        """Send the backwards that wait, and step with the gradients.

        Without gradients nothing happens, as in torch.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again, and gives it.
        clip_norm, norm_type, clip_value : float, optional
            For this step in place of the attributes.

        Returns
        -------
        What `closure` gave.

        Raises
        ------
        BackbonedError
            If a backward or the step fails. What waited is then lost, unless the
            answer is: then the next `step`, or the next use of the network, asks for
            it again, and it happens once.
        RuntimeError
            If the network has been handed to another optimizer, or this is a copy.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        link = self._own_link()
        options = self._options(clip_norm, norm_type, clip_value)
        self._put_in_force(link)
        made, result = link.step(options, self._covers_all(link))
        self.last_step = result if made else None
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state dict, also one that the optimizer of torch gave.

        It is sent before the next step.
        """
        super().load_state_dict(state_dict)
        if not self.state:
            self._in_force = None

    def train_step(
        self, x: torch.Tensor, terms: Sequence[Term], return_logits: bool
    ) -> TrainStep:
        """Make a whole training step; see `RemoteBackbone.train_step`."""
        link = self._ready_link()
        run = link.instance.train_step
        options = self._train_options(return_logits)
        result = link.train_step(functools.partial(run, as_array(x), terms, **options))
        self.last_step = result.step
        return result

    def train_step_async(
        self, x: torch.Tensor, terms: Sequence[Term], return_logits: bool
    ) -> StepInFlight:
        """Send a training step; see `RemoteBackbone.train_step_async`."""
        link = self._ready_link()
        send = link.instance.train_step_async
        options = self._train_options(return_logits)
        step = link.train_step_async(
            functools.partial(send, as_array(x), terms, **options)
        )
        step.add_done_callback(self._note_end)
        return step

    def _ready_link(self) -> HostedLink:
        """Give the link of a network that whole training steps may train."""
        link = self._own_link()
        with raw():
            frozen = [t for t in self._tensors() if not t.requires_grad]
        if frozen:
            raise ValueError(
                f"train_step steps all parameters of the optimizer, and {len(frozen)} "
                "of them are frozen; leave them out of its groups"
            )
        self._put_in_force(link)
        return link

    def _train_options(self, return_logits: bool) -> dict[str, Any]:
        return {
            "step": self._options(None, None, None),
            "batch_norm": self._network.batch_norms(),
            "return_logits": return_logits,
            "request_id": uuid.uuid4().hex,
            "timeout": self._own_link().timeout,
        }

    def _note_end(self, step: Any) -> None:
        if not step.error:
            self.last_step = step.result().step

    def _options(
        self,
        clip_norm: float | None,
        norm_type: float | None,
        clip_value: float | None,
    ) -> StepOptions:
        if clip_norm is None and clip_value is None:
            clip_norm, clip_value = self.clip_norm, self.clip_value
        return StepOptions(
            lr=[float(group["lr"]) for group in self.param_groups],
            clip_norm=clip_norm,
            norm_type=self.norm_type if norm_type is None else norm_type,
            clip_value=clip_value,
        )

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for group in self.param_groups for tensor in group["params"]]

    def _covers_all(self, link: HostedLink) -> bool:
        """Whether every parameter that may have a gradient is in a group."""
        mine = {id(tensor) for tensor in self._tensors()}
        with raw():
            return all(
                id(tensor) in mine or not tensor.requires_grad
                for tensor in link.parameters()
            )

    def _own_link(self) -> HostedLink:
        link = self._link
        if link is None:
            raise RuntimeError(
                "a copy of an optimizer in the server has no network; make one for "
                "the copied network, and load the state dict of the first into it"
            )
        if link.optimizer is not self or not link.hosting:
            raise RuntimeError(
                "the network was handed to another optimizer, or is mirrored again; "
                "make one optimizer with several groups, or a new one"
            )
        return link

    def _put_in_force(self, link: HostedLink) -> None:
        """Let the server have this optimizer, with these groups and this state."""
        if link.instance.frozen:
            self._thaw(link)
        wanted = self._described(link)
        if self.state:
            tensors = memory.to_server(self.state, self._names(link))
        elif self._in_force is None:
            link.configure(wanted)
            self._in_force = wanted
            return
        elif memory.equal_but_lr(wanted, self._in_force):
            return
        else:
            tensors = link.optimizer_state().tensors
        link.set_optimizer_state(wanted, tensors)
        self._in_force = wanted
        self.state.clear()

    def _thaw(self, link: HostedLink) -> None:
        """Let the server step what is frozen there and trains here."""
        names = self._names(link)
        held = set(matching(link.instance.frozen, list(names.values())))
        with raw():
            trains = any(
                tensor.requires_grad and names.get(id(tensor)) in held
                for tensor in self._tensors()
            )
        if trains:
            link.thaw()

    def _names(self, link: HostedLink) -> dict[int, str]:
        return {id(tensor): name for name, tensor in self._by_name(link).items()}

    def _described(self, link: HostedLink) -> Optimizer:
        """Describe this optimizer for the server.

        Raises
        ------
        ValueError
            If a parameter is in the network no more, or the groups differ in kind.
        """
        names = self._names(link)
        groups = []
        for group in self.param_groups:
            missing = [t for t in group["params"] if id(t) not in names]
            if missing:
                raise ValueError(
                    f"{len(missing)} parameters of the optimizer are in the network "
                    "no more; make a new optimizer"
                )
            mine = [names[id(t)] for t in group["params"]]
            groups.append(_described_group(group, mine, len(names)))
        return Optimizer(_kind(self.kind, self.param_groups), tuple(groups))

    def state_dict(self) -> dict[str, Any]:
        """Give the state dict that the optimizer of torch would have."""
        if self.state or self._in_force is None:
            return super().state_dict()
        link = self._own_link()
        tensors = link.optimizer_state().tensors
        try:
            for tensor, state in memory.from_server(tensors, self._by_name(link)):
                self.state[tensor] = state
            return super().state_dict()
        finally:
            self.state.clear()

    def _by_name(self, link: HostedLink) -> dict[str, torch.Tensor]:
        names = (spec.name for spec in link.instance.layout.parameters)
        return dict(zip(names, link.parameters()))


def expanded(params: Any) -> Any:
    """Put the parameters of a network in the place of the network."""
    if isinstance(params, RemoteBackbone):
        return list(params.parameters())
    if isinstance(params, (list, tuple)):
        return [
            {**item, "params": expanded(item["params"])}
            if isinstance(item, dict)
            else item
            for item in params
        ]
    return params


def refuse_local(**options: Any) -> None:
    """Refuse what only an optimizer beside local tensors can do.

    Raises
    ------
    ValueError
        If one of the options is set.
    """
    for name, value in options.items():
        if value:
            raise ValueError(f"{name}=True is for tensors in this process")


def _only_network(groups: list[dict[str, Any]]) -> RemoteBackbone:
    """Give the network that has the parameters of all groups."""
    found: RemoteBackbone | None = None
    mine: set[int] = set()
    for index, tensor in enumerate(t for group in groups for t in group["params"]):
        if id(tensor) in mine:
            continue
        network = network_of(tensor)
        if network is None:
            raise ValueError(
                f"parameter {index} of the optimizer is in no network of the server; "
                "give it an optimizer of torch.optim"
            )
        if found is not None and network is not found:
            raise ValueError("an optimizer in the server has one network")
        found = network
        mine.update(id(t) for t in network.layout_parameters())
    if found is None:
        raise ValueError("an optimizer needs parameters")
    return found


def _kind(made_as: str, groups: list[dict[str, Any]]) -> str:
    """Say which kind it is: Adam that loads a state of AdamW is AdamW, as in torch."""
    if made_as not in ("adam", "adamw"):
        return made_as
    default = made_as == "adamw"  # Groups of older versions do not say.
    decoupled = {bool(g.get("decoupled_weight_decay", default)) for g in groups}
    if len(decoupled) > 1:
        raise ValueError(
            "some groups have decoupled_weight_decay and some have not; in the server "
            "an optimizer is Adam or AdamW, so make them alike"
        )
    return "adamw" if True in decoupled else "adam"


def _described_group(
    group: dict[str, Any], names: list[str], count: int
) -> ParameterGroup:
    options = {
        key: group[key]
        for key in ("momentum", "dampening", "nesterov", "betas", "eps", "amsgrad")
        if key in group
    }
    return ParameterGroup(
        select=None if len(names) == count else names,
        lr=float(group["lr"]),
        weight_decay=float(group["weight_decay"]),
        maximize=bool(group["maximize"]),
        **options,
    )
