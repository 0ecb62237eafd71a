"""A backbone in the server, through NumPy arrays."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask

from backboned import calls, contract, types
from backboned.calls import ReadOptions, WriteOptions, ask
from backboned.errors import InvalidArgument, MalformedAnswer, verbs
from backboned.instance_base import InstanceBase
from backboned.losses import Terms
from backboned.steps import Call, StepInFlight
from backboned.transport import tensors
from backboned.transport.channel import Channel
from backboned.transport.messages import SINGLE_BYTES, Recallable, Request, fresh_id
from backboned.transport.tensors import make_spec, widened
from backboned.types import Array, Grads, Select, StepOptions, TrainStep, Version
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import instance_service_pb2 as control_pb

if TYPE_CHECKING:
    from typing_extensions import Unpack


_NO_CONTEXT = contextlib.nullcontext()


@verbs
class Instance(InstanceBase):
    """A named backbone in the server; made by `Server.create` and `Server.instance`.

    Every method may raise the errors of `backboned.errors`: `NotFound` once the
    instance is deleted, `InvalidArgument` for wrong shapes, types or names,
    `ResourceExhausted` at a limit, `StaleVersion` if the state is not `if_version`,
    `Unavailable` if the server is not there, `DeadlineExceeded` after `timeout` seconds
    (the server object's unless given). A call that fails changes nothing, unless it was
    cut off by its deadline or a broken connection: then it may have happened. A
    `request_id` (1 to 64 of ``[A-Za-z0-9_.-]``) makes such a call safe to repeat: it is
    applied once. NaN and infinity are stored like any other number.

    Thread-safe. `InstanceBase` lists its attributes.
    """

    def info(
        self, digest: bool = False, timeout: float | None = None
    ) -> types.InstanceInfo:
        """Ask the server what it knows of the instance.

        With `digest` it computes the SHA-256 of parameters and buffers too.
        """
        request = control_pb.GetInstanceRequest(instance=self.address, digest=digest)
        return self.described(ask(self.channel, request, timeout).instance)

    def delete(self, timeout: float | None = None) -> None:
        """Delete the instance and its tapes; a namesake made later is spared."""
        self.deleted = True
        expected: WriteOptions = {"if_version": Version(self.uid), "timeout": timeout}
        calls.change(self, control_pb.DeleteInstanceRequest, expected)

    def clone(
        self,
        name: str | None = None,
        *,
        read_only: bool = False,
        frozen: types.Frozen | None = None,
        feature_cache: int | str = 0,
        shared: bool = False,
        with_grads: bool = False,
        with_optimizer: bool = False,
        num_classes: int | None = None,
        seed: int | None = None,
        **options: Unpack[WriteOptions],
    ) -> Instance:
        """Make an instance in this one's state.

        The two share their tensors until one of them is written.

        Parameters
        ----------
        name : str, optional
            Without one the clone gets a random name, and dies with this client, or
            with the last object that stands for it.
        read_only : bool
            Let nobody write the clone.
        frozen : Frozen, optional
            Its parameters that are not trained; by default this one's.
        feature_cache : int or str
            Bytes of its feature cache, as in `update`; by default it has none.
        shared : bool
            Let everybody read the clone, as in `update`.
        with_grads, with_optimizer : bool
            Take the gradients, the optimizer and its state along.
        num_classes : int, optional
            Give it a fresh classifier of so many classes, on the same trunk.
        seed : int, optional
            Of that classifier: the clone's is the one that the architecture with
            `num_classes` and this seed begins with.

        Raises
        ------
        AlreadyExists
            The name is taken.
        """
        calls.delete_abandoned(self.channel)
        settings = None
        if read_only or frozen is not None or feature_cache or shared:
            kept = self.frozen if frozen is None else frozen
            settings = contract.settings_message(read_only, kept, feature_cache, shared)
        answer = calls.change(
            self,
            control_pb.CloneInstanceRequest,
            options,
            name=name or "",
            settings=settings,
            with_grads=with_grads,
            with_optimizer=with_optimizer,
            num_classes=num_classes,
            seed=contract.checked_seed(seed),
        )
        made = type(self)(self.channel, answer.instance)
        made.made_here = True
        made.begin_life()
        return made

    def save(
        self, name: str, *, keep: int = 1, **options: Unpack[WriteOptions]
    ) -> types.Checkpoint:
        """Save the state that the instance has, on the server's disk.

        Once this returns, the checkpoint would survive a power cut. `Server.load` makes
        an instance of it.

        Parameters
        ----------
        name : str
            ``[a-z0-9][a-z0-9_.-]{0,63}``. It is the caller's own: others may have one
            of the same name.
        keep : int
            Of the checkpoints of this name the newest so many stay, this one among
            them.

        Raises
        ------
        FailedPrecondition
            The server keeps no state: it was started without ``--state-dir``.
        ResourceExhausted
            No room within the server's ``max_checkpoint_bytes``, or on its disk.
        """
        if keep < 1:
            raise InvalidArgument(f"keep is {keep}, must be at least 1")
        answer = calls.change(
            self, control_pb.SaveCheckpointRequest, options, name=name, keep=keep
        )
        return contract.read_checkpoint(answer.checkpoint)

    def checkpoints(self, timeout: float | None = None) -> list[types.Checkpoint]:
        """List what was saved of this very instance, the oldest first.

        Of an instance that `Server.load` made, that is what was saved since; the
        checkpoint that it was made of is one of another instance.
        """
        listed = calls.listed(self.channel, "checkpoints", timeout)
        own = [c for c in listed if c.instance.version.uid == self.uid]
        own.sort(key=lambda checkpoint: checkpoint.number)
        return list(map(contract.read_checkpoint, own))

    def update(
        self,
        *,
        read_only: bool | None = None,
        frozen: types.Frozen | None = None,
        feature_cache: int | str | None = None,
        shared: bool | None = None,
        **options: Unpack[WriteOptions],
    ) -> types.InstanceInfo:
        """Change settings, those that are given; say what the instance is then.

        Parameters
        ----------
        read_only : bool, optional
            Let nobody write it: parameters, gradients, buffers, optimizer. Forwards
            are refused if they would move its buffers or its generator.
        frozen : Frozen, optional
            The parameters that get no gradient unless a forward's `grad_params` says
            otherwise, and that no step of the server's optimizer changes.
        feature_cache : int or str, optional
            Bytes that the answers of forwards in evaluation may take that are kept
            for equal inputs, e.g. ``"256MiB"``; 0: none are kept.
        shared : bool, optional
            Let everybody read it as ``owner/name``, run forwards and backwards of it
            that change nothing, and clone it.
        """
        given = {
            "read_only": read_only,
            "frozen": frozen,
            "feature_cache_bytes": feature_cache,
            "shared": shared,
        }
        paths = [path for path, value in given.items() if value is not None]
        settings = contract.settings_message(read_only, frozen, feature_cache, shared)
        answer = calls.change(
            self,
            control_pb.UpdateInstanceRequest,
            options,
            settings=settings,
            update_mask=FieldMask(paths=paths),
        )
        return self.described(answer.instance)

    def forward(
        self,
        x: Any,
        outputs: Sequence[str] = (),
        *,
        timeout: float | None = None,
        **options: Unpack[calls.ForwardKeywords],
    ) -> types.Forward:
        """Run one forward with the state that it finds.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            Floating-point and already normalised, or uint8 images that the server
            normalises. The server converts it to the instance's dtype.
        outputs : sequence of str
            Names from `layout.outputs`; by default ``("out",)``.
        returnt : {"out", "features", "both", "full"}, optional
            Short for `outputs`: ``both`` is out and features, ``full`` is out and
            every stage.
        training : bool
            Batch statistics are used, and the buffers move on.
        tape : bool
            Keep the forward for `backward`; the result has its `tape_id`.
        input_grad : bool
            With `tape`: `backward` may ask for the input's gradient.
        grad_params : Select
            With `tape`: which parameters get gradients.
        no_param_grads : bool
            With `tape`: none does.
        return_buffers : bool
            Give the buffers after the forward too.
        prerelu : bool
            Give the stages as they are before their ReLU; needs `layout.prerelu`.
        rng_state : bytes
            What a stochastic network draws from in training:
            ``torch.get_rng_state().numpy().tobytes()``. The result has the state
            afterwards. Without it the instance's own generator moves on.
        batch_norm : sequence of BatchNorm
            How BatchNorm layers run; of several that name a layer the last decides.
        buffers : dict of str to array_like, optional
            All buffers to run with in place of the instance's own, which stay, also
            in training; `return_buffers` gives the moved ones.
        allow_merge : bool
            Let the server run this with other calls, which changes the last bits.
        release_tapes : sequence of str
            Tapes that are no longer needed.
        output_dtype : str or dtype, optional
            Of the outputs on the wire; by default they come as computed. bfloat16 is
            given as float32, which holds the same numbers.
        cached : bool, optional
            Ask the instance's feature cache for the answer by the input's digest, and
            upload the input only if it is not there; False: upload at once. By default
            what is likely to be there is asked for.
        """
        given: calls.ForwardOptions = {**options, "outputs": tuple(outputs)}
        result = calls.forward(self, np.asarray(x, order="C"), given, timeout)
        return dataclasses.replace(
            result,
            outputs=tensors.all_widened(result.outputs),
            buffers=tensors.all_widened(result.buffers),
        )

    def features(self, x: Any, timeout: float | None = None) -> Array:
        """Give the features of a batch in evaluation mode, [N, D]."""
        return self.forward(x, ["features"], timeout=timeout).features

    def backward(
        self,
        tapes: Mapping[str, Mapping[str, Any]],
        *,
        timeout: float | None = None,
        **options: Unpack[calls.BackwardOptions],
    ) -> types.Backward:
        """Compute the gradients of taped forwards, summed, the newest first.

        Parameters
        ----------
        tapes : dict of str to dict of str to array_like
            For each tape id the gradients of its outputs by name, floating-point in
            the outputs' shapes. An output that is not named has none.
        return_grads : bool, optional
            Give the summed gradients; by default unless `per_tape_grads`,
            `squared_grads` or `step`.
        accumulate : bool
            Add them to the instance's in the server.
        input_grad : bool
            Give each tape's input gradient.
        retain : bool
            The tapes survive.
        zero_before : bool
            Take the instance's gradients away before adding.
        per_tape_grads : bool
            Give each tape's own gradients.
        squared_grads : bool
            Give the sum over the tapes of the squares of each one's gradients, as
            EWC's Fisher information takes it.
        step : StepOptions, optional
            Step the optimizer afterwards, with the instance's gradients; needs
            `accumulate`. Should it fail, nothing has changed but that the tapes are
            used up.
        output_dtype : str or dtype, optional
            Of the gradients on the wire, as in `forward`.

        Raises
        ------
        FailedPrecondition
            If a tape is unknown, used, released or expired; with `step`, if there is
            no optimizer or it finds no gradient.
        """
        if options.get("return_grads") is None:
            others = ("per_tape_grads", "squared_grads", "step")
            options["return_grads"] = not any(map(options.get, others))
        arrays = {
            tape_id: {name: np.asarray(g, order="C") for name, g in gradients.items()}
            for tape_id, gradients in tapes.items()
        }
        result = calls.backward(self, arrays, options, timeout).take()
        return dataclasses.replace(
            result,
            grads=result.grads and _widened(result.grads),
            input_grads=[widened(g) for g in result.input_grads],
            tape_grads=[_widened(grads) for grads in result.tape_grads],
            squared_grads=result.squared_grads and _widened(result.squared_grads),
        )

    def release_tapes(
        self, tape_ids: Sequence[str], timeout: float | None = None
    ) -> int:
        """Drop tapes; unknown ids are fine. Give how many of them there were."""
        request = pb.ReleaseTapesRequest(tape_ids=tape_ids)
        count: int = ask(self.channel, request, timeout).released_count
        return count

    def extract(
        self,
        x: Any,
        output: str = "features",
        *,
        l2_normalize: bool = False,
        allow_merge: bool = True,
        timeout: float | None = None,
    ) -> types.Extracted:
        """Give features or logits of a batch of at most 2 MiB, in evaluation mode.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            As for `forward`.
        output : str
            ``features``, ``out`` or a stage ``layers.N``.
        l2_normalize : bool
            Divide each row by its Euclidean norm (at least 1e-12).
        allow_merge : bool
            Let the server run this with other calls, which changes the last bits.
        """
        array = np.asarray(x, order="C")
        if array.nbytes > SINGLE_BYTES:
            raise InvalidArgument(
                f"extract takes at most {SINGLE_BYTES} bytes, got {array.nbytes}; "
                "use forward, or a smaller batch"
            )
        request = pb.ExtractRequest(
            instance=self.address,
            input=make_spec(array),
            data=array.tobytes(),
            output=output,
            l2_normalize=l2_normalize,
            allow_merge=allow_merge,
        )
        answer = ask(self.channel, request, timeout)
        named, (view,) = tensors.place_tensors([answer.output])
        if view.nbytes != len(answer.data):
            raise MalformedAnswer(
                f"the answer has {len(answer.data)} bytes, expected {view.nbytes}"
            )
        view[:] = answer.data
        data = widened(named[answer.output.name])
        version = contract.read_version(answer.version)
        return types.Extracted(data, answer.instance, version, answer.digest)

    def get_params(
        self,
        select: Select = None,
        *,
        dtype: Any = None,
        **options: Unpack[ReadOptions],
    ) -> Array:
        """Read parameters of one version, [P]; `version` says which.

        `dtype` is what they are converted to on the wire, rounding to nearest, ties to
        even; by default they come as stored. bfloat16 is given as float32, which holds
        the same numbers.
        """
        flat, _ = calls.get_params(self, select, dtype, **options)
        return widened(flat)

    def set_params(
        self, values: Any, select: Select = None, **options: Unpack[WriteOptions]
    ) -> Version:
        """Replace parameters by a flat vector [P]: all selected, or none.

        It is floating-point, and converted to the instance's dtype. Gives the new
        version.
        """
        parts = [tensors.flat_float(values, "parameters", self.dtype)]
        return calls.set_params(self, parts, select, **options).take()

    def get_grads(
        self, select: Select = None, *, dtype: Any = None, timeout: float | None = None
    ) -> Array:
        """Read gradients that the server accumulated, [P]; `dtype` as in `get_params`.

        Raises FailedPrecondition if a selected parameter has none.
        """
        return self._get_grads(timeout, select, dtype=tensors.float_number(dtype)).flat

    def read_grads(
        self, select: Select = None, *, timeout: float | None = None
    ) -> Grads:
        """Read gradients that the server accumulated, and which there are."""
        return self._get_grads(timeout, select, allow_absent=True)

    def _get_grads(self, timeout: float | None, select: Select, **fields: Any) -> Grads:
        flat, result = calls.read(
            self,
            "GetGrads",
            lambda result: tensors.place_flat(result.grads.spec),
            {"timeout": timeout},
            selection=calls.selection(self, select),
            **fields,
        )
        return Grads(widened(flat), tuple(result.grads.present))

    def set_grads(
        self,
        values: Any,
        select: Select = None,
        *,
        present: Sequence[bool] = (),
        **options: Unpack[WriteOptions],
    ) -> Version:
        """Replace gradients in the server by a flat floating-point vector.

        `present` says for each selected parameter whether it gets one, and is in
        `values`; empty: each does.
        """
        flat = tensors.flat_float(values, "gradients", self.dtype)
        grads = pb.FlatGrads(spec=calls.flat_spec([flat]), present=present)
        fields = {"selection": calls.selection(self, select), "grads": grads}
        return calls.write(self, "SetGrads", [flat], options, **fields).take()

    def zero_grads(
        self, select: Select = None, **options: Unpack[WriteOptions]
    ) -> Version:
        """Take gradients away: there are none afterwards, which is not zero."""
        selected = calls.selection(self, select)
        answer = calls.change(self, pb.ZeroGradsRequest, options, selection=selected)
        return self.saw(answer.version)

    def get_buffers(
        self, select: Select = None, **options: Unpack[ReadOptions]
    ) -> dict[str, Array]:
        """Read buffers (BatchNorm statistics) of one version, by name."""
        return tensors.all_widened(calls.get_buffers(self, select, **options)[0])

    def set_buffers(
        self, values: Mapping[str, Any], **options: Unpack[WriteOptions]
    ) -> Version:
        """Replace the named buffers: all of them, or none. Give the new version.

        Raises InvalidArgument if there is no buffer of a name, or no name.
        """
        return calls.set_buffers(self, values, **options).take()

    def configure_optimizer(
        self,
        kind: str,
        groups: Sequence[types.ParameterGroup] = (types.ParameterGroup(),),
        **options: Unpack[WriteOptions],
    ) -> types.Optimizer:
        """Give the instance an optimizer, without state, in place of its own.

        `kind` is ``"sgd"``, ``"adam"`` or ``"adamw"``. No parameter may be in two
        groups; one in none is never stepped. Gives the optimizer with the defaults
        filled in.
        """
        message = contract.optimizer_message(types.Optimizer(kind, tuple(groups)))
        answer = calls.change(
            self, pb.ConfigureOptimizerRequest, options, optimizer=message
        )
        self.saw(answer.version)
        return contract.read_optimizer(answer.optimizer)

    def step(
        self, options: StepOptions | None = None, **call: Unpack[WriteOptions]
    ) -> types.Stepped:
        """Step the optimizer with the gradients that the server holds.

        A parameter without a gradient stays as it is. Raises FailedPrecondition if
        there is no optimizer, or no parameter of a group has a gradient.
        """
        return calls.step(self, options, call).take()

    def get_optimizer_state(
        self, **options: Unpack[ReadOptions]
    ) -> types.OptimizerState:
        """Read the optimizer and what it remembers, of one version.

        Raises FailedPrecondition if there is no optimizer.
        """
        found, result = calls.read(
            self,
            "GetOptimizerState",
            lambda result: tensors.place_tensors(result.tensors),
            options,
        )
        optimizer = contract.read_optimizer(result.optimizer)
        return types.OptimizerState(optimizer, found, self.version)

    def set_optimizer_state(
        self,
        optimizer: types.Optimizer,
        tensors: Mapping[str, Any],
        **options: Unpack[WriteOptions],
    ) -> Version:
        """Replace the optimizer and all that it remembers.

        `tensors` are as `get_optimizer_state` gives them: for each parameter all, or
        none.
        """
        arrays = [np.asarray(tensor, order="C") for tensor in tensors.values()]
        return calls.write(
            self,
            "SetOptimizerState",
            arrays,
            options,
            optimizer=contract.optimizer_message(optimizer),
            tensors=list(map(make_spec, arrays, tensors)),
        ).take()

    def train_step(
        self,
        x: Any,
        terms: Terms,
        step: StepOptions | None = None,
        *,
        timeout: float | None = None,
        recallable: Recallable | None = None,
        **options: Unpack[calls.TrainStepOptions],
    ) -> TrainStep:
        """Run a forward in training, the loss, its backward and a step.

        Equal to `forward` with `training`, `backward` with `accumulate` and
        `zero_before`, and `step`. Afterwards the server holds no gradients.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            float32 already normalised, or uint8 images that the server normalises.
        terms : CrossEntropy, MeanSquaredError or KlDivergence, or a sequence of them
            The loss is their weighted sum, added in this order.
        step : StepOptions, optional
            How the step is made.
        rng_state, batch_norm
            As for `forward`.
        return_logits : bool
            Give the logits.
        recallable : callable, optional
            Is told, before the call, how to ask for its answer if it is lost.

        Raises
        ------
        FailedPrecondition
            If there is no optimizer.
        InvalidArgument
            If a term is none.
        """
        request = Request(*calls.train_step_request(self, x, terms, step, options))
        if recallable is not None:
            recallable(functools.partial(calls.recall_train_step, self, request))
        key = (self.uid, options.get("return_logits"), np.shape(x))
        result = calls.train_step(self, request, timeout, key)
        self.version = result.version
        return result

    def train_step_async(
        self,
        x: Any,
        terms: Terms,
        step: StepOptions | None = None,
        *,
        timeout: float | None = None,
        within: contextlib.AbstractContextManager[Any] = _NO_CONTEXT,
        recallable: Recallable | None = None,
        **options: Unpack[calls.TrainStepOptions],
    ) -> StepInFlight:
        """Send a training step, and do not wait for its answer.

        The steps are made in the order of these calls, each of the state that the one
        before it left: results and parameters are those of `train_step`. Up to
        ``steps.depth`` are in flight; a further call waits for the oldest of them.
        `x` and the arrays of `terms` are copied.

        Other calls do not wait for the steps: ask for the last one's result first.

        Parameters
        ----------
        x, terms, step, rng_state, batch_norm, return_logits, request_id, recallable
            As for `train_step`.
        if_version : Version, optional
            What it must find if no step is in flight; by default the newest version
            of the parameters that this object saw.
        timeout : float, optional
            Seconds, from when it is sent.
        within : context manager, optional
            A context in which each call is made, in a thread of its own.

        Returns
        -------
        StepInFlight
            A future of the `TrainStep`. After a step that failed, those in flight
            behind it fail with `StepNotMade`.

        Raises
        ------
        BackbonedError
            Of a step that has failed, if nobody has seen its error yet. This one is
            not sent then.
        """
        if_version = options.pop("if_version", None)
        header, views = calls.train_step_request(self, x, terms, step, options)
        copies = [memoryview(bytes(view)) for view in views]

        def prepare(find: Version, sent: Callable[[], None]) -> Call:
            demand = pb.TrainStepHeader(if_version=contract.condition(find))
            request = Request(header + demand.SerializeToString(), copies, sent)
            if recallable is not None:
                recallable(functools.partial(calls.recall_train_step, self, request))

            def call() -> TrainStep:
                with within:
                    return calls.train_step(self, request, timeout)

            return call

        def first() -> Version:
            return if_version or Version(self.uid, self.version.params)

        def made(result: TrainStep) -> None:
            self.version = result.version

        return self.steps.submit(first, prepare, made)


def _widened(grads: Grads) -> Grads:
    return grads._replace(flat=widened(grads.flat))


def load_instance(
    channel: Channel,
    request: control_pb.LoadCheckpointRequest,
    timeout: float | None = None,
) -> Instance:
    """Make an instance of a checkpoint, as the contract's request says.

    An unnamed one is deleted some time after the last object that stands for it.
    """
    calls.delete_abandoned(channel)
    made = Instance(channel, ask(channel, request, timeout).instance)
    made.made_here = True
    made.begin_life()
    return made


def create_instance(
    channel: Channel,
    request: control_pb.CreateInstanceRequest,
    timeout: float | None = None,
) -> Instance:
    """Make an instance as the contract's request says.

    An unnamed one is deleted some time after the last object that stands for it.
    """
    calls.delete_abandoned(channel)
    request.request_id = request.request_id or fresh_id()
    answer = ask(channel, request, timeout)
    made = Instance(channel, answer.instance)
    made.made_here = not answer.existed
    made.rng_state = answer.rng_state
    made.missing_keys = tuple(answer.missing_keys)
    made.unexpected_keys = tuple(answer.unexpected_keys)
    made.begin_life()
    return made
