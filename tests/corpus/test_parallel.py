from __future__ import annotations

import multiprocessing
import time

import pytest

from vocable.corpus.parallel import processes


def test_a_failure_ends_the_pool_s_processes_and_no_others() -> None:
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), processes(1, time.sleep, (0,)) as pool:
        pool.submit(time.sleep, 60)
        other.start()  # as another thread might
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 30, "nobody waits for what was begun"
    other.join(0.5)
    assert other.is_alive()
    other.kill()
    other.join()
