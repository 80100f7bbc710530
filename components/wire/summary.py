"""The statistical summary of a packet: eight statistics a signal. Pure; numpy does the arithmetic.

Population variance, ties in the mode to the smallest value. Heading is an angle: only its count and circular mean are
given, as none of the others means anything across north.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from components.wire.reading import Reading
from components.wire.signals import SIGNALS, Value

STATISTICS: Final = ("count", "mean", "median", "mode", "stdev", "variance", "max", "min")
Statistics = dict[str, float]

_SUMMARISED: Final = tuple(signal.key for signal in SIGNALS if signal.summarised)


def summarise(readings: Iterable[Reading]) -> dict[str, Statistics]:
    """Summarise each signal that the catalogue says is summarised.

    Args:
        readings: Of one packet; their order does not matter.

    Returns:
        Statistics by signal key, every summarised key; `{"count": 0}` for a signal without a value.
    """
    columns: dict[str, list[float]] = {key: [] for key in _SUMMARISED}
    for reading in readings:
        for key, numbers in columns.items():
            if key in reading.values:
                numbers.append(_number(reading.values[key]))
    return {key: (circular if key == "heading" else statistics)(numbers) for key, numbers in columns.items()}


def statistics(numbers: Sequence[float]) -> Statistics:
    """Return all of STATISTICS in the numbers' own unit (variance: its square); `{"count": 0}` for none.

    >>> statistics([4, 2, 4, 2])
    {'count': 4, 'mean': 3.0, 'median': 3.0, 'mode': 2.0, 'stdev': 1.0, 'variance': 1.0, 'max': 4.0, 'min': 2.0}
    """
    if not numbers:
        return {"count": 0}
    array = np.asarray(numbers, dtype=np.float64)
    distinct, occurrences = np.unique(array, return_counts=True)
    figures = (
        array.mean(),
        np.median(array),
        # argmax takes the first of equals, and `distinct` is sorted: ties go to the smallest.
        distinct[occurrences.argmax()],
        array.std(),
        array.var(),
        distinct[-1],
        distinct[0],
    )
    return {"count": len(numbers), **dict(zip(STATISTICS[1:], map(float, figures), strict=True))}


def circular(degrees: Sequence[float]) -> Statistics:
    """Return count and mean direction in [0, 360); no mean where the directions cancel out.

    >>> circular([350, 20])["mean"], circular([0, 180])
    (5.0, {'count': 2})
    """
    if not degrees:
        return {"count": 0}
    radians = np.radians(np.asarray(degrees, dtype=np.float64))
    east, north = float(np.sin(radians).mean()), float(np.cos(radians).mean())
    if math.hypot(east, north) < 1e-9:
        return {"count": len(degrees)}
    # Nine decimals: beyond that the figure is the arithmetic's noise, not the compass's.
    return {"count": len(degrees), "mean": round(math.degrees(math.atan2(east, north)) % 360, 9) % 360}


def _number(value: Value) -> float:
    # An oxygen sensor is summarised by its voltage.
    number = value["voltage_v"] if isinstance(value, Mapping) else value
    if not isinstance(number, (int, float)):
        raise TypeError(f"no number: {value!r}")
    return number
