"""One kernel for all lessons: starting one and importing torch takes longer than most of them."""

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    folder, env = tmp_path_factory.mktemp("lessons"), os.environ | {"OMP_NUM_THREADS": "1", "LANGUAGE": ""}
    manager.start_kernel(cwd=str(folder), env=env, extra_arguments=["--HistoryManager.enabled=False"])
    client = manager.blocking_client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        yield client
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
