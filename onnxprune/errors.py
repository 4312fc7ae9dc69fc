"""The one tree of errors. Each class knows the exit code with which the command line ends (DESIGN, section 5)."""

from typing import Any


class OnnxpruneError(Exception):
    """Something the user can understand and act on: one line that says what, where and what to do.

    report: what a job had found out until then, a `Report`; None outside of jobs.
    """

    exit_code = 1
    report: Any = None


class Terminated(SystemExit):
    """The process was told to end; nothing on the way may take it for something else."""


class UsageError(OnnxpruneError):
    """An option or argument that makes no sense: wrong value, unknown name, pattern that matches nothing."""

    exit_code = 2


class ModelError(OnnxpruneError):
    """A model that cannot be read, is invalid, or uses what is not supported."""

    exit_code = 2


class DataError(OnnxpruneError):
    """Calibration or evaluation data that do not fit the model."""

    exit_code = 2


class ClusterError(OnnxpruneError):
    """A cluster that does not answer, has nobody to work, or other versions."""

    exit_code = 2


class DeviceError(OnnxpruneError):
    """A device or a latency command that does not answer, fails, or says no time."""

    exit_code = 2


class OutputError(OnnxpruneError):
    """An output that cannot be written, is the input, or exists and may not be replaced."""

    exit_code = 2


class GateError(OnnxpruneError):
    """A quality gate failed; nothing was written.

    last_good: the model of the step before; None if there was none.
    """

    exit_code = 3
    last_good: Any = None


class NothingToPruneError(OnnxpruneError):
    """Nothing can be removed as asked, or a target cannot be reached."""

    exit_code = 4
