"""Random streams of calls, right ones and damaged ones.

`draw` gives the parts of one stream. Some are what a client may send: calls on two
instances whose chunks alternate, with cancellations, timeouts and `after`. Most are
then spoilt: parts are lost, doubled, swapped, renumbered or given to nobody, headers'
fields change, and bytes are damaged.
"""

import dataclasses

import numpy as np
from backboned.v1 import backbone_service_pb2 as pb
from backboned.v1 import tensor_pb2

HEADERS = [
    field.name for field in pb.CallsRequest.DESCRIPTOR.oneofs_by_name["header"].fields
]
CHANGES = {"train_step", "set_params", "step"}
"""Calls that make a new version of the parameters if they succeed."""

CLASSES = 3
"""Of each instance."""

_FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
_INT64 = tensor_pb2.DATA_TYPE_INT64
_ROWS = 2
_MOST_BYTES = (1 << 22) - 4096
"""Of a part: gRPC ends the stream of a client that sends more than 4 MiB."""

_NUMBERS = (0, 1, 2, 3, 7, 127, 128, 1 << 31, (1 << 31) - 1, 1 << 40, (1 << 62) + 1)
_FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-310, 3e38, 1e308, float("inf"), float("nan"))
_WORDS = ("", "a", "out", "features", "layers.0", "*", "!*", "nobody", "x" * 300, "é")
_VARINTS = (b"\xff" * 9 + b"\x01", b"\x80" * 11, b"\xff\xff\xff\xff\x7f", b"\x80\x80")


@dataclasses.dataclass
class Target:
    """An instance that the calls are on, and the shape of one of its samples."""

    name: str
    layout: object
    sample: tuple


@dataclasses.dataclass
class Call:
    """A call as it was meant, and where its parts stand in the stream."""

    name: str
    header: object
    data: bytes
    target: Target
    number: int = 0


@dataclasses.dataclass
class Stream:
    """The parts of one stream.

    - `parts`: encoded.
    - `sent`: the same as messages; None if bytes were damaged.
    - `calls`: by number, those of a stream that a client may send; else empty.
    - `aborts_at`: how many parts go before the client cancels the stream; None: it
      half-closes behind the last.
    """

    parts: list
    sent: object
    calls: dict
    aborts_at: object = None


def spec(shape, dtype=_FLOAT32, name=""):
    return tensor_pb2.TensorSpec(name=name, dtype=dtype, shape=shape)


class Drawing:
    """Draws one stream; `tapes` are ids, by instance, of which it takes some."""

    def __init__(self, dice, targets, tapes):
        self.dice, self.targets, self.tapes = dice, targets, tapes

    def draw(self):
        dice = self.dice
        calls = [self._call() for _ in range(dice.randint(1, 8))]
        right = dice.random() < 0.25
        if not right and dice.random() < 0.5:
            self._spoil_header(dice.choice(calls))
        messages = self._deal(calls)
        if not right:
            for _ in range(dice.randint(0, 3)):
                self._spoil_order(messages)
        parts = [message.SerializeToString() for message in messages]
        damaged = not right and dice.random() < 0.4
        if damaged:
            for _ in range(dice.randint(1, 3)):
                self._damage(parts)
        stream = Stream(
            [part for part in parts if len(part) <= _MOST_BYTES],
            None if damaged else [m for m in messages if m.ByteSize() <= _MOST_BYTES],
            {call.number: call for call in calls} if right else {},
        )
        if dice.random() < 0.1:
            stream.aborts_at = dice.randint(0, len(stream.parts))
        return stream

    def _floats(self, count):
        # Small ones: what they are multiplied into stays finite for some steps.
        values = np.frombuffer(self.dice.randbytes(count), np.int8)
        return (values.astype(np.float32) / 1024).tobytes()

    def _call(self):
        dice = self.dice
        name, target = dice.choice(HEADERS), dice.choice(self.targets)
        part = pb.CallsRequest()
        header = getattr(part, name)
        header.SetInParent()
        if name != "release_tapes":
            header.instance = target.name
        if hasattr(header, "request_id") and dice.random() < 0.3:
            header.request_id = f"{name}{dice.randint(0, 3)}"
        data = getattr(self, f"_fill_{name}", lambda *_: b"")(header, target)
        return Call(name, part, data, target)

    def _fill_forward(self, header, target):
        dice = self.dice
        header.inputs.append(spec((_ROWS, *target.sample)))
        header.training = dice.random() < 0.3
        header.tape = dice.random() < 0.3
        header.allow_merge = dice.random() < 0.3
        header.return_buffers = dice.random() < 0.2
        if not header.tape:
            count = dice.randint(0, 2)
            header.outputs.extend(dice.sample(target.layout.outputs, count))
        return self._floats(_ROWS * int(np.prod(target.sample)))

    def _fill_backward(self, header, target):
        mine = self.tapes.get(target.name, [])
        tape = mine.pop() if mine and self.dice.random() < 0.9 else "unknown"
        grads = spec((_ROWS, CLASSES), name="out")
        header.tapes.add(tape_id=tape, gradients=[grads])
        header.accumulate = True
        header.zero_before = self.dice.random() < 0.5
        header.return_grads = self.dice.random() < 0.5
        return self._floats(_ROWS * CLASSES)

    def _fill_train_step(self, header, target):
        header.input.CopyFrom(spec((_ROWS, *target.sample)))
        header.terms.add().cross_entropy.labels.CopyFrom(spec((_ROWS,), _INT64))
        header.return_logits = self.dice.random() < 0.5
        labels = np.array(
            [self.dice.randrange(CLASSES) for _ in range(_ROWS)], np.int64
        )
        return self._floats(_ROWS * int(np.prod(target.sample))) + labels.tobytes()

    def _fill_release_tapes(self, header, _target):
        header.tape_ids.append("unknown")
        return b""

    def _fill_set_params(self, header, target):
        header.spec.CopyFrom(spec((target.layout.elements,)))
        return self._floats(target.layout.elements)

    def _fill_set_grads(self, header, target):
        header.grads.spec.CopyFrom(spec((target.layout.elements,)))
        return self._floats(target.layout.elements)

    def _fill_get_grads(self, header, _target):
        header.allow_absent = True
        return b""

    def _fill_set_buffers(self, header, target):
        data = b""
        for buffer in target.layout.buffers:
            whole = buffer.dtype == np.int64
            header.buffers.append(
                spec(buffer.shape, _INT64 if whole else _FLOAT32, buffer.name)
            )
            count = int(np.prod(buffer.shape))
            data += np.ones(count, np.int64 if whole else np.float32).tobytes()
        return data

    def _fill_configure_optimizer(self, header, _target):
        header.optimizer.kind = self.dice.randint(1, 3)
        header.optimizer.groups.add(lr=0.01)
        return b""

    def _fill_set_optimizer_state(self, header, _target):
        return self._fill_configure_optimizer(header, _target)

    def _deal(self, calls):
        """Give the parts of all calls: each call's in order, those of several mixed."""
        dice, waiting, hands, dealt, last = self.dice, calls[::-1], [], [], 0
        while waiting or hands:
            if waiting and (not hands or dice.random() < 0.4):
                last += dice.choice((1, 1, 1, 2, 1000))
                hand = self._hand(waiting.pop(), last)
                hands.append(hand)
            else:
                hand = dice.choice(hands)
            dealt.append(hand.pop(0))
            hands = [hand for hand in hands if hand]
        return dealt

    def _hand(self, call, number):
        """Give the parts of a call."""
        dice, call.number = self.dice, number
        cuts = [dice.randint(0, len(call.data)) for _ in range(dice.randint(0, 3))]
        edges = [0, *sorted(cuts), len(call.data)]
        chunks = [
            tensor_pb2.Chunk(offset=begin, data=call.data[begin:end])
            for begin, end in zip(edges, edges[1:])
            if begin < end
        ]
        if chunks and dice.random() < 0.5:
            call.header.chunk.CopyFrom(chunks.pop(0))
        if number > 1 and dice.random() < 0.2:
            call.header.after = dice.choice((number - 1, 1))
        if dice.random() < 0.1:
            call.header.timeout.FromMilliseconds(dice.choice((0, 1, 5, 60_000)))
        hand = [call.header, *(pb.CallsRequest(chunk=chunk) for chunk in chunks)]
        if dice.random() < 0.1:
            hand.insert(dice.randint(1, len(hand)), pb.CallsRequest(cancel=True))
        for message in hand:
            message.call = number
        return hand

    def _spoil_header(self, call):
        for _ in range(self.dice.randint(1, 3)):
            self._spoil_field(getattr(call.header, call.name))

    def _spoil_field(self, message):
        """Change a field, of whatever kind and however deep."""
        dice, field = self.dice, self.dice.choice(message.DESCRIPTOR.fields)
        if dice.random() < 0.15:
            message.ClearField(field.name)
        elif field.is_repeated:
            self._spoil_list(getattr(message, field.name), field)
        elif field.type == field.TYPE_MESSAGE:
            inner = getattr(message, field.name)
            inner.SetInParent()
            if inner.DESCRIPTOR.fields and dice.random() < 0.8:
                self._spoil_field(inner)
        else:
            setattr(message, field.name, self._value(field))

    def _spoil_list(self, values, field):
        dice = self.dice
        if field.type == field.TYPE_MESSAGE:
            if not values or dice.random() < 0.3:
                values.add()
            if dice.random() < 0.2:
                values.add().CopyFrom(values[0])
            self._spoil_field(dice.choice(values))
        elif values and dice.random() < 0.5:
            values[dice.randrange(len(values))] = self._value(field)
        else:
            for _ in range(dice.choice((1, 1, 2, 9, 300))):
                values.append(self._value(field))

    def _value(self, field):
        dice = self.dice
        if field.type == field.TYPE_BOOL:
            return dice.random() < 0.5
        if field.type == field.TYPE_STRING:
            return dice.choice((*_WORDS, *(target.name for target in self.targets)))
        if field.type == field.TYPE_BYTES:
            return dice.randbytes(dice.choice((0, 1, 32, 5056)))
        if field.type == field.TYPE_ENUM:
            return dice.randint(0, 9)
        if field.type == field.TYPE_DOUBLE:
            return dice.choice(_FLOATS)
        number = dice.choice(_NUMBERS)
        if field.type in (field.TYPE_INT32, field.TYPE_UINT32):
            number &= (1 << 31) - 1
        signed = field.type in (field.TYPE_INT32, field.TYPE_INT64)
        return -number if signed and dice.random() < 0.3 else number

    def _spoil_order(self, messages):
        """Lose, double, swap or change a part, or add one."""
        dice = self.dice
        if not messages or dice.random() < 0.3:
            messages.insert(dice.randint(0, len(messages)), self._stray(messages))
            return
        at = dice.randrange(len(messages))
        message = messages[at]
        kind = dice.choice(
            ("lose", "double", "swap", "number", "after", "offset", "longer", "time")
        )
        if kind == "lose":
            del messages[at]
        elif kind == "double":
            twin = pb.CallsRequest.FromString(message.SerializeToString())
            messages.insert(dice.randint(at, len(messages)), twin)
        elif kind == "swap":
            other = dice.randrange(len(messages))
            messages[at], messages[other] = messages[other], message
        elif kind == "number":
            message.call = dice.choice((*_NUMBERS, (1 << 64) - 1, messages[0].call))
        elif kind == "after":
            message.after = dice.choice((*_NUMBERS, message.call, (1 << 64) - 1))
        elif kind == "offset":
            message.chunk.offset = dice.choice((-1, *_NUMBERS))
        elif kind == "longer":
            message.chunk.data += dice.randbytes(dice.choice((1, 4, 1000)))
        else:
            self._spoil_field(message.timeout)

    def _stray(self, messages):
        """Give a part that belongs nowhere."""
        dice = self.dice
        number = dice.choice([message.call for message in messages] or [1])
        kind = dice.choice(("nobody", "cancel", "empty", "huge"))
        if kind == "empty":
            return pb.CallsRequest()
        if kind == "cancel":
            return pb.CallsRequest(call=number, cancel=True)
        if kind == "nobody":
            chunk = tensor_pb2.Chunk(data=b"of nobody")
            return pb.CallsRequest(call=dice.choice(_NUMBERS), chunk=chunk)
        size = dice.choice((1 << 20, (2 << 20) + 1, 4 << 20))
        return pb.CallsRequest(call=number, chunk=tensor_pb2.Chunk(data=bytes(size)))

    def _damage(self, parts):
        """Damage bytes of a part."""
        dice = self.dice
        at = dice.randrange(len(parts)) if parts else None
        if at is None:
            parts.append(dice.randbytes(dice.randint(0, 40)))
            return
        part = bytearray(parts[at])
        place = dice.randint(0, len(part))
        # The fields stand before the tensors' bytes.
        near = dice.randint(0, min(len(part), 60))
        kind = dice.randrange(6)
        if kind == 0:
            del part[place:]
        elif kind == 1 and part:
            part[min(near, len(part) - 1)] ^= 1 << dice.randrange(8)
        elif kind == 2:
            part[near:near] = dice.choice(_VARINTS)
        elif kind == 3:
            part[near:near] = dice.randbytes(dice.randint(1, 12))
        elif kind == 4:
            part[place:] = dice.choice(parts)[dice.randint(0, 20) :]
        else:
            # A field that nobody knows, of each wire type.
            unknown = (b"\xb8\x3e\x07", b"\xb9\x3e" + bytes(8), b"\xba\x3e\x02ab")
            part[near:near] = dice.choice((*unknown, b"\xbb\x3e\xbc\x3e", b"\xbf\x3e"))
        parts[at] = bytes(part)


def draw(dice, targets, tapes):
    """Draw a stream of calls on instances; takes the ids of tapes that it uses."""
    return Drawing(dice, targets, tapes).draw()
