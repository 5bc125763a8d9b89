"""A linear rule that is learned while it is used."""

import math
from collections.abc import Iterable, Sequence
from operator import mul

# How much a measurement strays, as a share of it: 2 to 5 % on a quiet box, more beside other processes.
_NOISE = 0.1
# How much a coefficient may have changed since the measurement before, as a share of the largest. With that noise, a
# change of rates is followed within ten; what a hundred in a row do not show is still known to a third.
_DRIFT = 0.03
# A measurement that is off by more standard deviations than this counts as if it were off by so many: a box that was
# swapped out for a minute says nothing of its rates. A second one in a row, to the same side, counts in full, and what
# was known hardly: the rates are others now.
_ODD = 3.0
# Between these it is a measurement, of seconds or of tokens; beyond, no machine has made it.
_LEAST, _MOST = 1e-9, 1e9


class Line:
    """y = c · x, with coefficients that are never negative, corrected by each measurement: a Kalman filter.

    Args:
        scales: what makes each x comparable to the others, so that no scaled coefficient is expected to be the largest.
        start: the coefficients, as far as they are known; None if they are not.

    """

    def __init__(self, scales: Sequence[float], start: Sequence[float] | None = None) -> None:
        self._scales = tuple(scales)
        self._mean = [each / scale for each, scale in zip(start or [0.0] * len(scales), scales, strict=True)]
        self._variance: list[list[float]] = []
        self._odd = 0
        self._open(max(self._mean))

    def __repr__(self) -> str:
        return f"<Line {' '.join(f'{each:.3g}' for each in self.coefficients)}>"

    @property
    def known(self) -> bool:
        """Whether anything was measured, or given to start with."""
        return any(self._mean)

    @property
    def coefficients(self) -> list[float]:
        """What each x is multiplied by; zeros while nothing is known."""
        return list(map(mul, self._mean, self._scales))

    def at(self, x: Sequence[float]) -> float:
        """Return y."""
        return _dot(map(mul, x, self._scales), self._mean)

    def saw(self, x: Sequence[float], y: float) -> None:
        """Learn from a measurement; what cannot be one is left out."""
        x = list(map(mul, x, self._scales))
        size = math.hypot(*x)
        if not (_measurable(size) and _measurable(y)):
            return
        if not self.known:
            self._open(10 * y / size)
        expected = _dot(x, self._mean)
        error = y - expected
        noise = _NOISE * max(expected, y / 3)
        gains, variance = self._gains(x, noise)
        most = _ODD * math.sqrt(variance)
        odd = 0 if abs(error) <= most else 1 if error > 0 else -1
        if odd and odd == self._odd:
            self._open(max(self._mean))
            gains, variance = self._gains(x, noise)
        elif odd:
            error = odd * most
        self._odd = odd
        self._mean = [mean + gain * error / variance for mean, gain in zip(self._mean, gains, strict=True)]
        self._variance = [
            [each - gain * other / variance for each, other in zip(row, gains, strict=True)]
            for row, gain in zip(self._variance, gains, strict=True)
        ]
        self._raise()
        for at, row in enumerate(self._variance):
            row[at] += (_DRIFT * max(self._mean)) ** 2

    def scale(self, x: Sequence[float], y: float, most: float) -> None:
        """Learn from a measurement, if all have become larger or smaller together, by ``most`` times at the most.

        What the coefficients are to each other stays, and how well each is known. `saw` would take many measurements at
        the same x for all there is, and forget what other x have shown.
        """
        if not self.known:
            self.saw(x, y)
        expected = self.at(x)
        if not (_measurable(expected) and _measurable(y)):
            return
        factor = min(max(y / expected, 1 / most), most)
        self._mean = [factor * each for each in self._mean]
        self._variance = [[factor**2 * each for each in row] for row in self._variance]
        self._odd = 0

    def _gains(self, x: Sequence[float], noise: float) -> tuple[list[float], float]:
        """Return how each coefficient follows an error at ``x``, and the variance that the error has there."""
        gains = [_dot(row, x) for row in self._variance]
        return gains, max(_dot(gains, x), 0.0) + noise**2

    def _raise(self) -> None:
        """Bring negative coefficients up to zero, the others to what they most likely are then."""
        for _ in self._mean:
            lowest = min(range(len(self._mean)), key=self._mean.__getitem__)
            row = self._variance[lowest]
            if self._mean[lowest] >= 0 or row[lowest] <= 0:
                break
            factor = self._mean[lowest] / row[lowest]
            self._mean = [mean - factor * each for mean, each in zip(self._mean, row, strict=True)]
        self._mean = [max(mean, 0.0) for mean in self._mean]

    def _open(self, deviation: float) -> None:
        """Let every coefficient be known as badly as this, and by itself."""
        size = len(self._mean)
        self._variance = [[deviation**2 if row == column else 0.0 for column in range(size)] for row in range(size)]


def _measurable(value: float) -> bool:
    return _LEAST < value < _MOST


def _dot(one: Iterable[float], other: Iterable[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=False))
