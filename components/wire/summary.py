"""The statistical summary of a packet: eight statistics a signal. Pure; numpy does the arithmetic.

Population variance, ties in the mode to the smallest value. Heading is an angle: only its count and circular mean are
given, as none of the others means anything across north.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from components.wire.reading import Reading
from components.wire.signals import BY_KEY, SIGNALS, OxygenSensor, Signal, Value, most_raw, span

STATISTICS: Final = ("count", "mean", "median", "mode", "stdev", "variance", "max", "min")
Statistics = dict[str, float]

_SUMMARISED: Final = tuple(signal.key for signal in SIGNALS if signal.summarised)
_ROUNDING: Final = 1e-9
"""Of the greater of 1 and the figure; a packet's figures have 12 digits."""


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


def check_statistics(key: str, figures: Statistics) -> None:
    """Check that these statistics can be those of one list of the signal's values.

    Whether they are those of the packet's readings is not asked: the device signs both, and the readings are there.

    Args:
        key: A summarised signal.
        figures: All of STATISTICS; of heading, count and mean.

    Raises:
        ValueError: No list of values has them.
    """
    if key == "heading":
        fits = 0 <= figures["mean"] <= 360
    else:
        (least, most), (low, high) = _bounds(BY_KEY[key]), (figures["min"], figures["max"])
        slack = _ROUNDING * max(1.0, abs(low), abs(high))
        stdev, variance = figures["stdev"], figures["variance"]
        fits = (
            least - slack <= low
            and high <= most + slack
            and all(low - slack <= figures[name] <= high + slack for name in ("mean", "median", "mode", "max"))
            and 0 <= stdev <= (high - low) / 2 + slack
            and abs(stdev * stdev - variance) <= _ROUNDING * max(1.0, variance)
        )
    if not fits:
        raise ValueError(f"summary.{key}: no values have these statistics")


def _bounds(signal: Signal) -> tuple[float, float]:
    if isinstance(signal.codec, OxygenSensor):
        return 0, _number(signal.codec.decode(most_raw(signal)))
    return span(signal)


def _number(value: Value) -> float:
    # An oxygen sensor is summarised by its voltage.
    number = value["voltage_v"] if isinstance(value, Mapping) else value
    if not isinstance(number, (int, float)):
        raise TypeError(f"no number: {value!r}")
    return number
