"""Samples of calls, round by round, and what is reported of them."""

import math
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any


def percentile(samples: Sequence[float], percent: float) -> float:
    """Give the smallest sample that `percent` of all samples do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def spread(values: Iterable[float]) -> list[float]:
    """Give median, minimum and maximum."""
    listed = list(values)
    return [median(listed), min(listed), max(listed)]


class Case:
    """One thing that is measured on several sides, alternating.

    Parameters
    ----------
    name : str
        E.g. ``batch 8``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.bytes = 0
        """That each call moves; 0: not what this is about."""
        self._rounds: dict[str, list[dict[str, Any]]] = {}

    def add(self, side: str, answer: dict[str, Any]) -> None:
        """Note a worker's answer, which ends this side's round."""
        self._rounds.setdefault(side, []).append(answer)
        self.bytes = answer.get("bytes", self.bytes)

    def values(self, side: str, key: str) -> list[Any]:
        """Give what each round's answer says under this key."""
        return [answer[key] for answer in self._rounds[side]]

    def percentiles(self, side: str, percent: float) -> list[float]:
        """Give the seconds that so many percent of each round's calls took at most."""
        return [percentile(a["latency_s"], percent) for a in self._rounds[side]]

    def medians(self, side: str) -> list[float]:
        """Give the median seconds of a call in each round."""
        return [median(answer["latency_s"]) for answer in self._rounds[side]]

    def paces(self, side: str) -> list[float]:
        """Give the seconds for each finished call in each round, all in flight."""
        return [a["wall_s"] / len(a["latency_s"]) for a in self._rounds[side]]

    def speeds(self, side: str) -> list[float]:
        """Give each round's bytes per second, by its median call."""
        return [self.bytes / seconds for seconds in self.medians(side)]

    def phases(self, side: str) -> dict[str, float]:
        """Give the median seconds of each part of a call; empty if not known."""
        names = self._rounds[side][0].get("phases", {})
        return {
            name: median(median(a["phases"][name]) for a in self._rounds[side])
            for name in names
        }

    def to_json(self) -> dict[str, Any]:
        """Give what is kept: rounds by their medians, calls by percentiles."""
        sides = {}
        for side, answers in self._rounds.items():
            calls = [seconds for a in answers for seconds in a["latency_s"]]
            sides[side] = {
                "round_medians_s": self.medians(side),
                "round_paces_s": self.paces(side),
                "percentiles_s": {
                    str(p): percentile(calls, p) for p in (50, 90, 99, 100)
                },
                "calls": len(calls),
                "phases_s": self.phases(side),
            }
        return {"name": self.name, "bytes": self.bytes, "sides": sides}


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Divide round by round: what was measured together is compared."""
    return [a / b for a, b in zip(above, below)]


def differences(of: Sequence[float], minus: Sequence[float]) -> list[float]:
    """Subtract round by round."""
    return [a - b for a, b in zip(of, minus)]
