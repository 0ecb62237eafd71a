"""A backbone in the server, through NumPy arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from backboned import boundary, compute, garbage
from backboned.channel import CONTROL, DATA, Channel
from backboned.control import Control, delete_abandoned
from backboned.dtypes import Array, all_widened, widened
from backboned.errors import BackbonedError
from backboned.layout import Select, Version
from backboned.norms import BatchNorm
from backboned.optimizer import StepOptions
from backboned.results import Backward, Extracted, Forward, Grads
from backboned.state_verbs import StateVerbs
from backboned.stepping import OptimizerVerbs
from backboned.training import TrainingVerbs
from backboned.transfer import decoded, fresh_id
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import instance_service_pb2 as control_pb


@boundary.verbs
class Instance(Control, StateVerbs, OptimizerVerbs, TrainingVerbs):
    """A named backbone in the server; made by `Server.create` and `Server.instance`.

    Every method may raise the `BackbonedError`s: `NotFound` once the instance is
    deleted, `InvalidArgument` for wrong shapes, types or names, `ResourceExhausted`
    at a limit, `StaleVersion` if `if_version` does not hold, `Unavailable` if the
    server is not there, `DeadlineExceeded` after `timeout` seconds (the server
    object's unless given). A call that fails changes nothing, unless it was cut off
    by its deadline or a broken connection: then it may have happened. A `request_id`
    (1 to 64 of ``[A-Za-z0-9_.-]``) makes such a call safe to repeat: it is applied
    once. NaN and infinity are stored like any other number.

    Thread-safe. `Handle` lists its attributes.
    """

    def forward(
        self,
        x: Any,
        outputs: Sequence[str] = (),
        *,
        returnt: str | None = None,
        training: bool = False,
        tape: bool = False,
        input_grad: bool = False,
        grad_params: Select = None,
        no_param_grads: bool = False,
        return_buffers: bool = False,
        prerelu: bool = False,
        rng_state: bytes = b"",
        batch_norm: Sequence[BatchNorm] = (),
        buffers: Mapping[str, Any] | None = None,
        if_version: Version | None = None,
        allow_merge: bool = False,
        release_tapes: Sequence[str] = (),
        request_id: str = "",
        output_dtype: Any = None,
        cached: bool | None = None,
        timeout: float | None = None,
    ) -> Forward:
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
        if_version : Version, optional
            The state that must be found.
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
        request_id, timeout
            See the class.
        """
        options = compute.ForwardOptions(
            outputs=outputs,
            returnt=returnt,
            training=training,
            tape=tape,
            input_grad=input_grad,
            grad_params=grad_params,
            no_param_grads=no_param_grads,
            return_buffers=return_buffers,
            prerelu=prerelu,
            rng_state=rng_state,
            batch_norm=batch_norm,
            buffers=buffers,
            if_version=if_version,
            allow_merge=allow_merge,
            release_tapes=release_tapes,
            request_id=request_id,
            output_dtype=output_dtype,
            cached=cached,
        )
        result = compute.forward(self, compute.as_input(x), options, timeout)
        return dataclasses.replace(
            result,
            outputs=all_widened(result.outputs),
            buffers=all_widened(result.buffers),
        )

    def features(self, x: Any, timeout: float | None = None) -> Array:
        """Give the features of a batch in evaluation mode, [N, D]."""
        return self.forward(x, ["features"], timeout=timeout).features

    def backward(
        self,
        tapes: Mapping[str, Mapping[str, Any]],
        *,
        return_grads: bool | None = None,
        accumulate: bool = False,
        input_grad: bool = False,
        retain: bool = False,
        zero_before: bool = False,
        per_tape_grads: bool = False,
        squared_grads: bool = False,
        step: StepOptions | None = None,
        request_id: str = "",
        output_dtype: Any = None,
        timeout: float | None = None,
    ) -> Backward:
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
        request_id, timeout
            See the class.

        Raises
        ------
        FailedPrecondition
            If a tape is unknown, used, released or expired; with `step`, if there is
            no optimizer or it finds no gradient.
        """
        if return_grads is None:
            return_grads = not (per_tape_grads or squared_grads or step)
        options = compute.BackwardOptions(
            return_grads=return_grads,
            accumulate=accumulate,
            input_grad=input_grad,
            retain=retain,
            zero_before=zero_before,
            per_tape_grads=per_tape_grads,
            squared_grads=squared_grads,
            step=step,
            request_id=request_id,
            output_dtype=output_dtype,
        )
        arrays = {
            tape_id: {name: np.asarray(g, order="C") for name, g in gradients.items()}
            for tape_id, gradients in tapes.items()
        }
        result = compute.backward(self, arrays, options, timeout)
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
        """Drop tapes; unknown ids are fine. Gives how many of them there were."""
        request = pb.ReleaseTapesRequest(tape_ids=tape_ids)
        raw = self.channel.unary(
            DATA + "ReleaseTapes", request.SerializeToString(), timeout
        )
        return decoded(pb.ReleaseTapesResponse.FromString, raw).released_count

    def extract(
        self,
        x: Any,
        output: str = "features",
        *,
        l2_normalize: bool = False,
        allow_merge: bool = True,
        timeout: float | None = None,
    ) -> Extracted:
        """Give features or logits of a batch of at most 2 MiB, in evaluation mode.

        Parameters
        ----------
        x : array_like, [N, C, H, W]
            Floating-point and already normalised, or uint8 images that the server
            normalises.
        output : str
            ``features``, ``out`` or a stage ``layers.N``.
        l2_normalize : bool
            Divide each row by its Euclidean norm (at least 1e-12).
        allow_merge : bool
            Let the server run this with other calls, which changes the last bits.
        timeout : float, optional
            Seconds.
        """
        array = compute.as_input(x)
        return compute.extract(self, array, output, l2_normalize, allow_merge, timeout)


def _widened(grads: Grads) -> Grads:
    return grads._replace(flat=widened(grads.flat))


def create_instance(
    channel: Channel,
    request: control_pb.CreateInstanceRequest,
    timeout: float | None = None,
) -> Instance:
    """Make an instance as the contract's request says.

    An unnamed one is deleted some time after the last object that stands for it.
    """
    delete_abandoned(channel)
    request.request_id = request.request_id or fresh_id()
    raw = channel.unary(
        CONTROL + "CreateInstance", request.SerializeToString(), timeout
    )
    answer = decoded(control_pb.CreateInstanceResponse.FromString, raw)
    made = Instance(channel, answer.instance)
    made.made_here = not answer.existed
    made.rng_state = answer.rng_state
    made.missing_keys = tuple(answer.missing_keys)
    made.unexpected_keys = tuple(answer.unexpected_keys)
    made.begin_life()
    return made


def release_abandoned(channel: Channel, timeout: float) -> None:
    """Release what nobody refers to any more now, not with the next forward.

    For the end of a connection: does nothing if none is open or the server is gone.
    """
    if not channel.is_open:
        return
    try:
        delete_abandoned(channel, timeout)
        tapes = garbage.take_tapes(channel)
        if tapes:
            request = pb.ReleaseTapesRequest(tape_ids=tapes)
            channel.unary(DATA + "ReleaseTapes", request.SerializeToString(), timeout)
    except BackbonedError:
        pass  # They die with the session.
