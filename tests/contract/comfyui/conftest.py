"""The servers the client's contract is held to: the simulator in each of its versions, and a real ComfyUI when
COMFYFLEET_COMFYUI_URL names one. It must be idle and nobody else's; the suite leaves pictures in its folders."""

import os
import uuid
from collections.abc import Iterator

import pytest

from comfyui.catalogue import node_class
from comfyui.client import ComfyClient
from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.comfyui.driving import until

REAL = os.environ.get("COMFYFLEET_COMFYUI_URL")
VERSIONS = ["0.3.34", "0.3.64", "0.45.2"]
#: What a call may take: none of these tests is about time, and the machine may be busy.
PATIENT_S = 20.0


@pytest.fixture(scope="package", params=[*VERSIONS, *(["real"] if REAL is not None else [])])
def server_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "real":
        assert REAL is not None
        yield REAL
    else:
        # A step takes 0.02 s on the small pictures of this suite.
        with running_simulator(version=request.param, step_s=1.0, load_s=0.2) as simulator:
            yield simulator.url


@pytest.fixture
def client(server_url: str) -> Iterator[ComfyClient]:
    """Connected, to an idle server. What a test leaves waiting or running is ended after it."""
    made = ComfyClient(server_url, client_id=uuid.uuid4().hex, limit_s=PATIENT_S)
    try:
        made.connect()
        yield made
        for item in made.queue().pending:
            made.dequeue(item.prompt_id)
        for item in made.queue().running:
            made.interrupt(item.prompt_id)
        until("the server is idle", lambda: not made.queue().running)
    finally:
        made.close()


@pytest.fixture
def checkpoint(client: ComfyClient) -> str:
    """A checkpoint the server has; the test is skipped on a server without any."""
    loader = node_class(client.object_info(), "CheckpointLoaderSimple")
    assert loader is not None
    choices = loader.inputs["ckpt_name"].choices
    if not choices:
        pytest.skip("this ComfyUI has no checkpoint")
    return str(choices[0])


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    """One of the test's own, to be mistreated."""
    with running_simulator(version="0.3.64", step_s=1.0, load_s=0.2) as process:
        yield process


@pytest.fixture
def its_client(simulator: SimulatorProcess) -> Iterator[ComfyClient]:
    made = ComfyClient(simulator.url, client_id=uuid.uuid4().hex, limit_s=PATIENT_S)
    try:
        made.connect()
        yield made
    finally:
        made.close()
