"""Does what the optimizers in the server have in common."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import operator
import weakref
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Callable

import torch
from torch.optim import optimizer as _hooks

from backboned import errors, types
from backboned.losses import Terms, copied
from backboned.nn.hosted import HostedLink, warn_of_local_step
from backboned.nn.lazy import as_plain
from backboned.nn.module import RemoteBackbone, network_of
from backboned.nn.pending_calls import SentCall
from backboned.nn.refs import Weak
from backboned.nn.watch import as_array
from backboned.optim.state import HostedState, Place, Slots
from backboned.steps import StepInFlight, ended
from backboned.types import Version


@errors.verbs
class HostedOptimizer(torch.optim.Optimizer):
    """An optimizer of `torch.optim` whose steps are made in the server.

    Its groups may be changed like any optimizer's, by a scheduler too. New settings go
    along with the next step. Another list of parameters, `amsgrad` and
    `decoupled_weight_decay` have the optimizer's state fetched and sent again.

    `state` is fetched when somebody looks at it, and sent before the next step if it
    changed. Clearing it, or assigning an empty one, sends nothing. Tensors that were
    taken from it have old values after a step, until somebody looks at `state` again;
    writing to them before that is an error at the next step.

    Parameters
    ----------
    params : RemoteBackbone, or what torch.optim takes
        All of one network.
    *args, **options
        As of the optimizer of torch, whose `foreach` counts for nothing.

    Raises
    ------
    ValueError
        If a parameter is not in a network of the server, they are in several, or an
        option is for tensors in this process (`fused`, `capturable`,
        `differentiable`).

    Attributes
    ----------
    clip_norm, norm_type : float or None, float
        Each step first bounds the p-norm of all gradients together, as
        ``torch.nn.utils.clip_grad_norm_`` does.
    clip_value : float or None
        Each step first bounds each element, as ``clip_grad_value_`` does.
    last_step : Stepped or None
        What the last step did, e.g. ``last_step.grad_norm`` before it was clipped.
        Waits for the step, and raises its error.
    """

    kind: str
    clip_norm: float | None = None
    norm_type: float = 2.0
    clip_value: float | None = None
    _last: types.Stepped | SentCall | None = None
    _steps = 0
    _link: HostedLink | None = None
    _network = Weak()  # It has this: one that is dropped is to be freed.
    _state: Any = None  # A HostedState, but while its state dict is made.
    # By which it is known that all but settings is as the server was given it, with
    # these settings; the tensors that the server remembers then.
    _key: Any = None
    _given: Any = None
    _slots: Slots = {}
    # Which of the network's parameters are in no group.
    _others: Sequence[int] = ()
    # Steps have changed more than learning rates since then.
    _varies: bool = False

    def __init__(self, params: Any, *args: Any, **options: Any) -> None:
        make: Any = super().__init__
        given = inspect.signature(make).bind(_tensors_of(params), *args, **options)
        for name in _LOCAL:
            if given.arguments.get(name):
                raise ValueError(f"{name}=True is for tensors in this process")
        make(*given.args, **given.kwargs)
        self._network = _only_network(self.param_groups)
        self._link = self._network.host(self)

    @property
    def network(self) -> RemoteBackbone:
        """The network that has its parameters."""
        network: RemoteBackbone = self._network
        return network

    @property
    def last_step(self) -> types.Stepped | None:
        """The result of the last step; waits for it, and raises its error."""
        if isinstance(self._last, SentCall):
            if self._link is not None:
                self._link.make_sure()
            self._last = self._last.step
        return self._last

    @property
    def state(self) -> Any:
        """The tensors that it remembers, by parameter; fetched when somebody looks."""
        return self._state

    @state.setter
    def state(self, entries: Any) -> None:
        if entries is self._state:
            return
        if isinstance(entries, HostedState):
            entries = entries.bring()
        old = None if self._state is None else weakref.ref(self._state)
        self._state = HostedState(entries, self)
        held = None if old is None else old()
        if held is not None:
            held.bring()  # Whoever holds it keeps what it had.

    def __getstate__(self) -> dict[str, Any]:
        """Be copied and pickled with what it remembers."""
        link = self._link
        state = self._state
        if isinstance(state, HostedState) and not state.here:
            mine = link is not None and link.optimizer is self and link.hosting
            state = state.bring() if mine else defaultdict(dict)
        return {**super().__getstate__(), "state": state}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take what `load_state_dict` read, or what was pickled."""
        if "state" in state:
            self.state = state["state"]
        super().__setstate__({k: v for k, v in state.items() if k != "state"})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as any optimizer does; all of the same network."""
        tensors = _tensors_of(param_group["params"])
        super().add_param_group({**param_group, "params": tensors})
        if self._link is None:
            return
        try:
            if _only_network(self.param_groups) is not self._network:
                raise ValueError(_ONE_NETWORK)
        except ValueError:
            self.param_groups.pop()
            raise

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Take the gradients away, or send zeros in place of those that there are."""
        link = self._own_link()
        if set_to_none:
            tensors = self._tensors()
            everything = len(tensors) == len(link.parameters())
            link.zero_grad(None if everything else tensors)
        else:
            super().zero_grad(set_to_none=False)

    def step(  # type: ignore[override]
        self,
        closure: Callable[[], Any] | None = None,
        *,
        clip_norm: float | None = None,
        norm_type: float | None = None,
        clip_value: float | None = None,
    ) -> Any:
        """Send the backwards that wait, and a step with the gradients; do not wait.

        Without gradients nothing happens, as in torch. If the server refuses or fails,
        the next use of the network raises the error, which names the number of this
        call among those of this optimizer. Its backwards are then lost, unless the
        answer is: then the use after that asks for it again, and it happens once.

        Parameters
        ----------
        closure : callable, optional
            Computes the loss again, and gives it.
        clip_norm, norm_type, clip_value : float, optional
            For this step in place of the attributes.

        Returns
        -------
        The value that `closure` gave.

        Raises
        ------
        BackbonedError
            If an earlier step failed; this one is not made then. If what was written
            here cannot be pushed.
        RuntimeError
            If the network has been handed to another optimizer, or this is a copy.
        """
        clips = {"clip_norm": clip_norm, "norm_type": norm_type}
        clips["clip_value"] = clip_value
        if not self._is_watched():
            return self._step(closure, **clips)
        given = {name: value for name, value in clips.items() if value is not None}
        return _WATCHED_STEP(self, *([] if closure is None else [closure]), **given)

    # Torch would wrap it, for its hooks and its profiler, at the price of a small call.
    step.hooked = True  # type: ignore[attr-defined]

    def _is_watched(self) -> bool:
        """Say whether torch has hooks to call beside a step, or its profiler runs."""
        return bool(
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _hooks._global_optimizer_post_hooks
            or [*_hooks._global_optimizer_pre_hooks.values()] != [warn_of_local_step]
            or torch._C._autograd._profiler_enabled()
        )

    def _step(
        self, closure: Callable[[], Any] | None = None, **clips: float | None
    ) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        link = self._own_link()
        parameters = link.parameters()
        self._put_in_force(link, parameters)
        options = self._options(**clips)
        self._steps += 1
        self._last = link.step(options, self._covers_all(parameters), self._steps)
        return loss

    def train_step(
        self, x: torch.Tensor, terms: Terms, return_logits: bool
    ) -> types.TrainStep:
        """Make a whole training step; see `RemoteBackbone.train_step`."""
        link = self._own_link()
        size = 0
        if link.replay_bytes:
            terms, size = copied(terms)
            x = x.clone()
        run = self._whole_step(link, link.instance.train_step, x, terms, return_logits)
        result = link.train_step(run, size + x.nbytes)
        self._note_for_schedulers()
        self._last = result.step
        return result

    def train_step_async(
        self, x: torch.Tensor, terms: Terms, return_logits: bool
    ) -> StepInFlight:
        """Send a training step; see `RemoteBackbone.train_step_async`."""
        link = self._own_link()
        if link.replay_bytes:  # What may have to be repeated goes one by one.
            find = Version(link.instance.uid)
            return ended(find, lambda: self.train_step(x, terms, return_logits))
        call = link.instance.train_step_async
        send = self._whole_step(link, call, x, terms, return_logits)
        step = link.train_step_async(send)
        self._note_for_schedulers()
        step.add_done_callback(self._note_end)
        return step

    def _whole_step(
        self,
        link: HostedLink,
        call: Callable[..., Any],
        x: torch.Tensor,
        terms: Terms,
        return_logits: bool,
    ) -> Callable[..., Any]:
        """Put this optimizer in force, and give a call the step's arguments."""
        with as_plain():
            trains = [*map(_TRAINS, self._tensors())]
        if not all(trains):
            raise ValueError(
                "train_step steps all parameters of the optimizer, and "
                f"{trains.count(False)} of them are frozen; leave them out of its "
                "groups"
            )
        self._put_in_force(link, link.parameters())
        return functools.partial(
            call,
            as_array(x),
            terms,
            step=self._options(),
            batch_norm=self._network.batch_norms(),
            return_logits=return_logits,
            timeout=link.timeout,
        )

    def _note_for_schedulers(self) -> None:
        """Note a step that `step` did not make: learning rates may be scheduled now."""
        self._opt_called = True  # Newer versions of torch look here, older ones there.
        self._step_count = getattr(self, "_step_count", 0) + 1

    def _note_end(self, step: Any) -> None:
        if not step.error:
            self._last = step.result().step

    def _options(
        self,
        clip_norm: float | None = None,
        norm_type: float | None = None,
        clip_value: float | None = None,
    ) -> types.StepOptions:
        if clip_norm is None and clip_value is None:
            clip_norm, clip_value = self.clip_norm, self.clip_value
        groups = self.param_groups if self._varies else []
        return types.StepOptions(
            lr=[float(group["lr"]) for group in self.param_groups],
            clip_norm=clip_norm,
            norm_type=self.norm_type if norm_type is None else norm_type,
            clip_value=clip_value,
            settings=[types.GroupSettings(**_settings(group)) for group in groups],
        )

    def _tensors(self) -> list[torch.Tensor]:
        return list(itertools.chain(*map(_PARAMS, self.param_groups)))

    def _covers_all(self, parameters: list[Any]) -> bool:
        """Say whether every parameter that may have a gradient is in a group."""
        with as_plain():
            return not any([_TRAINS(parameters[i]) for i in self._others])

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

    def _put_in_force(self, link: HostedLink, parameters: list[Any]) -> None:
        """Let the server have this optimizer, with these groups and this state."""
        if link.instance.frozen:
            self._thaw(link)
        state, groups = self._state, self.param_groups
        settings = [[*map(group.get, _SETTINGS)] for group in groups]
        flags = [(len(g["params"]), *map(g.get, _STRUCTURE)) for g in groups]
        mine = [*map(id, self._tensors())]
        key = ([*map(id, parameters)], mine, flags)
        wanted = None if key == self._key else self._described(link)
        if wanted is not None:
            self._slots = self._slots_now()
            state.bring()
        if wanted is not None or state.changed(self._slots):
            names = self._names(link)
            tensors = {
                f"{names[id(parameter)]}/{what}": array
                for (parameter, what), array in state.remembered(self._slots).items()
            }
            link.set_optimizer(wanted or self._described(link), tensors)
            every, ids = enumerate(parameters), set(mine)
            self._others = [i for i, p in every if id(p) not in ids]
            # A copy, since somebody may write to a list of betas.
            self._key, self._given, self._varies = key, copy.deepcopy(settings), False
        elif settings != self._given:
            self._varies = True
        state.leave(self._slots)

    def _slots_now(self) -> Slots:
        """Say which tensors the server remembers of the parameters of the groups."""
        return {
            tensor: (*_SLOTS[self.kind], *_AMSGRAD[: bool(group.get("amsgrad"))])
            for group in self.param_groups
            for tensor in group["params"]
        }

    def fetch(self) -> dict[Place, types.Array]:
        """Get what the server remembers."""
        link = self._own_link()
        specs = link.instance.layout.parameters
        parameters = {s.name: p for s, p in zip(specs, link.parameters())}
        found = {}
        for key, array in link.optimizer_state().tensors.items():
            name, _, what = key.rpartition("/")
            found[parameters[name], what] = array
        return found

    def _thaw(self, link: HostedLink) -> None:
        """Let the server step what is frozen there and trains here."""
        names = self._names(link)
        held = set(types.matching(link.instance.frozen, list(names.values())))
        with as_plain():
            trains = any(
                tensor.requires_grad and names.get(id(tensor)) in held
                for tensor in self._tensors()
            )
        if trains:
            link.thaw()

    def _names(self, link: HostedLink) -> dict[int, str]:
        specs = link.instance.layout.parameters
        return {id(p): spec.name for spec, p in zip(specs, link.parameters())}

    def _described(self, link: HostedLink) -> types.Optimizer:
        """Describe this optimizer for the server.

        Raises ValueError if a parameter is in the network no more, or the groups differ
        in kind.
        """
        names = self._names(link)
        groups = []
        for group in self.param_groups:
            mine = [names[id(t)] for t in group["params"] if id(t) in names]
            if missing := len(group["params"]) - len(mine):
                raise ValueError(
                    f"{missing} parameters of the optimizer are in the network "
                    "no more; make a new optimizer"
                )
            groups.append(
                types.ParameterGroup(
                    select=None if len(mine) == len(names) else mine,
                    lr=float(group["lr"]),
                    amsgrad=bool(group.get("amsgrad", False)),
                    **_settings(group),
                )
            )
        return types.Optimizer(_kind(self.kind, self.param_groups), tuple(groups))

    def state_dict(self) -> dict[str, Any]:
        """Give the state dict that the optimizer of torch would have."""
        state = self._state
        if state.here:
            return super().state_dict()
        try:
            self._state = state.snapshot()
            return super().state_dict()
        finally:
            self._state = state


def _tensors_of(params: Any) -> Any:
    """Put the parameters of a network in the place of the network."""
    return [*params.parameters()] if isinstance(params, RemoteBackbone) else params


_ONE_NETWORK = "an optimizer in the server has one network"
# Options that only an optimizer beside local tensors can have.
_LOCAL = ("fused", "capturable", "differentiable")
# Options of a group that no step changes.
_STRUCTURE = ("amsgrad", "decoupled_weight_decay")
_PARAMS = operator.itemgetter("params")
_TRAINS = operator.attrgetter("requires_grad")
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_AMSGRAD = ("max_exp_avg_sq",)
_SLOTS = {"sgd": ("momentum_buffer",), "adam": _MOMENTS, "adamw": _MOMENTS}


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
            raise ValueError(_ONE_NETWORK)
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


_SETTINGS: dict[str, Callable[[Any], Any]] = {
    "weight_decay": float,
    "maximize": bool,
    "momentum": float,
    "dampening": float,
    "nesterov": bool,
    "betas": lambda betas: tuple(map(float, betas)),
    "eps": float,
}


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """Read the settings of a group that steps may change, but for the learning rate."""
    return {
        name: convert(group[name])
        for name, convert in _SETTINGS.items()
        if group.get(name) is not None
    }


_WATCHED_STEP: Any = torch.optim.Optimizer.profile_hook_step(HostedOptimizer._step)
