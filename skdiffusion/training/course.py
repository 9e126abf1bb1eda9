"""The course of a fit: how long it may train, and the file that it can go on from.

A fit computes what has a closed form, always to its end and anew when it is resumed, and trains
networks one after the other. Each of them is a :class:`Leg` of the course.
"""

import math
from time import monotonic

from sklearn.exceptions import ConvergenceWarning

from skdiffusion._random import draw_seed
from skdiffusion._warn import warn
from skdiffusion.training.checkpoint import Checkpoint, Postponed

# Seconds between two states in a file.
INTERVAL = 30.0


class Course:
    """Time and file of one fit, whose clock starts now.

    Parameters
    ----------
    max_time : float, optional
        Seconds for the whole fit; None is no limit.
    checkpoint : Checkpoint, optional
        Where states are written to.

    Examples
    --------
    >>> from skdiffusion.training.course import Course
    >>> Course().has_time()
    True
    """

    def __init__(self, max_time=None, checkpoint=None):
        self._start, self._max_time = monotonic(), max_time
        self._end = math.inf if max_time is None else self._start + max_time
        self._checkpoint, self._aside = checkpoint, 0.0
        self._names, self._n_to_come, self._cut = [], 1, []

    @classmethod
    def of(cls, estimator, checkpoint, resume):
        """Course of a fit of an estimator; see :meth:`fit` of the estimators."""
        if checkpoint is None and resume:
            raise ValueError("resume=True goes on from a file: name it as checkpoint.")
        file = None if checkpoint is None else Checkpoint(checkpoint, estimator, resume)
        return cls(estimator.max_time, file)

    def seed(self, random_state):
        """Seed of the fit."""
        if self._checkpoint is None:
            return draw_seed(random_state)
        return self._checkpoint.seed(random_state)

    def require_data(self, *arrays):
        """Raise if a file that is resumed is that of a fit to other data."""
        if self._checkpoint is not None:
            self._checkpoint.require_data(*arrays)

    def has_time(self):
        """Whether there is time to train."""
        return self._end == math.inf or monotonic() + self._aside < self._end

    def has_room(self, seconds):
        """Whether so many seconds are left, and as many again as the fit has taken."""
        now = monotonic()
        return now + seconds + (now - self._start) < self._end

    def expect(self, n_legs):
        """Divide the time that is left among trainings to come."""
        self._n_to_come = n_legs

    def set_aside(self, times, function, *args):
        """Keep time for what follows a training: so many times what a call takes."""
        if self._end < math.inf:
            start = monotonic()
            function(*args)
            self._aside = times * (monotonic() - start)

    def leg(self, run, name):
        """Next training, which ``run`` is the state of; see :class:`Leg`."""
        end = self._end
        if end < math.inf:
            now = monotonic()
            end = now + (end - now) / self._n_to_come - self._aside
        self._n_to_come, self._aside = max(1, self._n_to_come - 1), 0.0
        self._names.append(name)
        key = f"{name} {self._names.count(name)}"
        return Leg(run, key, end, self._checkpoint, self._cut)

    def close(self):
        """Say what the time did not allow."""
        if self._max_time is None:
            return
        cut = [text for text, n_steps in self._cut if n_steps]
        if cut:
            warn(
                f"max_time={self._max_time:g} seconds ended training early ({'; '.join(cut)}): "
                "raise it, or lower max_iter.",
                ConvergenceWarning,
            )
        elif self._cut or monotonic() > self._end:
            trained = " No network was trained: raise max_time for one." if self._cut else ""
            warn(
                f"The fit took {monotonic() - self._start:.3g} seconds: what comes before training "
                f"takes longer than max_time={self._max_time:g}.{trained}",
                ConvergenceWarning,
            )

    def skip(self, name):
        """Note a training that there was no time for."""
        self._cut.append((name, 0))


class Leg:
    """One training of a course; a context in which signals wait for the end of a step.

    Parameters
    ----------
    run : object
        The training: ``state()`` returns tensors by name, ``restore(state)`` takes them, ``step``
        is the number of steps taken, ``n_steps`` the most.
    name : str
        What is trained, the same in a fit that goes on.
    end : float
        When it must end.
    checkpoint : Checkpoint or None
        Where its states are written to.
    cut : list
        Gets what was ended by time, and after how many steps.
    """

    def __init__(self, run, name, end, checkpoint, cut):
        self._run, self._name, self._end, self._cut = run, name, end, cut
        self._checkpoint, self._signals = checkpoint, Postponed()
        self._written = self._asked = monotonic()

    def __enter__(self):
        if self._checkpoint is not None:
            state = self._checkpoint.state(self._name)
            if state is not None:
                self._run.restore(state)
            self._signals.__enter__()
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None:
                self._signals.deliver()
        finally:
            self._signals.__exit__()

    def has_time(self, aside):
        """Whether another step fits into the time, ``aside`` seconds being needed after it."""
        if self._end == math.inf:
            return True
        now = monotonic()
        step, self._asked = now - self._asked, now
        enough = now + step + aside < self._end
        if not enough:
            done = f"{self._name}: step {self._run.step} of {self._run.n_steps}"
            self._cut.append((done, self._run.step))
        return enough

    def note(self):
        """After a step: write its state where that is due, and do what signals ask for."""
        if self._checkpoint is None:
            return
        if self._signals.came or monotonic() - self._written >= INTERVAL:
            self.write()
            self._signals.deliver()

    def write(self):
        """Write the state of the training."""
        if self._checkpoint is not None:
            self._checkpoint.write(self._name, self._run.state())
            self._written = monotonic()


class GeneratorState:
    """A generator as a part of the state of a training.

    Parameters
    ----------
    generator : torch.Generator
        The generator.
    """

    def __init__(self, generator):
        self._generator = generator

    def state(self):
        """Its state by name."""
        return {"generator": self._generator.get_state()}

    def restore(self, state):
        """Take a state back."""
        self._generator.set_state(state["generator"])
