"""A closed road in the hills: distance driven -> place, heading, altitude, climb. Pure.

Two straights and two half circles. The exact derivative is known, so heading and climb agree with the places.
"""

import math

from components.virtual_car.identity import draw
from components.virtual_car.moment import Place

_STRAIGHT_M, _RADIUS_M = 1_900.0, 420.0
_BEND_M = math.pi * _RADIUS_M
ROUND_M = 2 * (_STRAIGHT_M + _BEND_M)
"""Metres once around."""
_HILLS = 3
_HILL_M = 9.0
_METRES_PER_DEGREE = 111_320.0


class Road:
    """One road.

    Args:
        seed: Where in central Europe it is, which way it runs, how high it lies.
    """

    def __init__(self, seed: int) -> None:
        self._lat0 = 47.5 + draw(seed, "lat", 40_000) / 10_000
        self._lon0 = 8.0 + draw(seed, "lon", 50_000) / 10_000
        self._turn_rad = math.radians(draw(seed, "turn", 360))
        self._base_m = 120.0 + draw(seed, "height", 400)

    def place(self, distance_m: float, speed_m_s: float) -> Place:
        """Where the car is after this distance, at this speed."""
        x, y, heading = _on_loop(distance_m % ROUND_M)
        cos, sin = math.cos(self._turn_rad), math.sin(self._turn_rad)
        east, north = x * cos + y * sin, y * cos - x * sin
        return Place(
            lat=self._lat0 + north / _METRES_PER_DEGREE,
            lon=self._lon0 + east / (_METRES_PER_DEGREE * math.cos(math.radians(self._lat0))),
            altitude_m=self._base_m + _HILL_M * math.sin(_hill_angle(distance_m)),
            heading_deg=math.degrees(heading + self._turn_rad) % 360,
            climb_m_s=self.slope(distance_m) * speed_m_s,
            speed_m_s=speed_m_s,
        )

    def slope(self, distance_m: float) -> float:
        """Metres up per metre driven."""
        return _HILL_M * math.tau * _HILLS / ROUND_M * math.cos(_hill_angle(distance_m))


def _hill_angle(distance_m: float) -> float:
    return math.tau * _HILLS * distance_m / ROUND_M


def _on_loop(s: float) -> tuple[float, float, float]:
    """Metres east and north of the middle and heading in radians, for a loop whose straights run north and south."""
    if s < _STRAIGHT_M:
        return -_RADIUS_M, s - _STRAIGHT_M / 2, 0.0
    s -= _STRAIGHT_M
    if s < _BEND_M:
        angle = s / _RADIUS_M
        return -_RADIUS_M * math.cos(angle), _STRAIGHT_M / 2 + _RADIUS_M * math.sin(angle), angle
    s -= _BEND_M
    if s < _STRAIGHT_M:
        return _RADIUS_M, _STRAIGHT_M / 2 - s, math.pi
    angle = (s - _STRAIGHT_M) / _RADIUS_M
    return _RADIUS_M * math.cos(angle), -_STRAIGHT_M / 2 - _RADIUS_M * math.sin(angle), math.pi + angle
