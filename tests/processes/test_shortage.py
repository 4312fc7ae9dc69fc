"""What numpy says of sizes that no machine holds is told as a lack of memory, not as a defect."""

import numpy as np
import pytest

from onnxprune.processes.memory import is_shortage


@pytest.mark.parametrize("shape", [(1 << 62,), (1 << 40, 1 << 40), (1 << 45,)])
def test_a_size_that_no_machine_holds_is_a_lack_of_memory(shape: tuple[int, ...]) -> None:
    with pytest.raises((ValueError, MemoryError)) as caught:
        np.zeros(shape, dtype=np.float64) + 1
    assert is_shortage(caught.value)


def test_other_errors_are_not() -> None:
    assert not is_shortage(ValueError("shapes (2,) and (3,) not aligned"))
