from __future__ import annotations

import os

from trio_gateway.engine.process.single_worker import single_worker


def test_only_one_worker_of_a_parent_is_let_in() -> None:
    with single_worker(os.getpid()) as first:
        with single_worker(os.getpid()) as second:
            assert (first, second) == (True, False)
        with single_worker(os.getpid() + 1) as other:
            assert other
    with single_worker(os.getpid()) as again:
        assert again
