"""A ComfyUI that breaks in the middle: what the client knows afterwards is the truth, or it says that it does not."""

import select
import signal
import time
import uuid

import pytest

from comfyui.client import ComfyClient
from comfyui.errors import ComfyFailed, ComfyLost, ComfyUnreachable
from comfyui.messages import ExecutionError
from comfyui.replies import Absent, Finished, Outcome
from comfyui.simulator.process import SimulatorProcess, running_simulator
from tests.contract.comfyui.driving import finished, hear_to_the_end, model_free, submit, until


@pytest.mark.parametrize("version", ["0.3.34", "0.3.64", "0.45.2"])
def test_a_prompt_whose_answer_was_lost_is_found_and_not_sent_twice(version: str) -> None:
    with running_simulator(version=version, zero_work=True) as simulator:
        client = ComfyClient(simulator.url, client_id=uuid.uuid4().hex)
        for number, kind in enumerate(["drop-reply", "not-json", "no-prompt-id"]):
            simulator.mischief(kind)
            wish = str(uuid.uuid4())
            taken = client.submit(model_free(), wish)
            entry = finished(client, wish)
            assert entry.prompt_id == taken.prompt_id and entry.outcome is Outcome.SUCCESS
            # A second one of each would have taken a number too.
            assert client.submit(model_free(), str(uuid.uuid4())).number == 2 * number + 1
        client.close()


def test_a_prompt_that_was_not_taken_is_told(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    simulator.mischief("http-500")
    wish = str(uuid.uuid4())
    with pytest.raises(ComfyUnreachable, match="500"):
        its_client.submit(model_free(), wish)
    assert its_client.find(wish) == Absent()


def test_a_prompt_nobody_knows_of_is_lost_until_asked_for_again(simulator: SimulatorProcess) -> None:
    client = ComfyClient(simulator.url, client_id=uuid.uuid4().hex, limit_s=1.0)
    until("it connects", lambda: _connects(client))
    wish = str(uuid.uuid4())
    simulator.signal(signal.SIGSTOP)
    with pytest.raises(ComfyLost, match=f"may or may not have prompt {wish}"):
        client.submit(model_free(), wish)
    simulator.signal(signal.SIGCONT)
    # It had the request, and takes it when it wakes.
    until("it is found", lambda: _settled(client, wish))
    client.close()


def test_a_hung_server_holds_no_call_beyond_its_limit(simulator: SimulatorProcess) -> None:
    client = ComfyClient(simulator.url, client_id=uuid.uuid4().hex, limit_s=0.4)
    until("it connects", lambda: _connects(client))
    simulator.signal(signal.SIGSTOP)
    for call in (client.queue, client.disconnect, client.connect, client.free):
        began = time.monotonic()
        if call == client.disconnect:
            call()
        else:
            with pytest.raises(ComfyUnreachable):
                call()
        assert time.monotonic() - began < 0.4 + 10  # without it, never: it does not wake before
    assert not client.connected
    simulator.signal(signal.SIGCONT)
    until("it answers again", lambda: _connects(client))
    client.close()


def test_a_restart_is_noticed_and_forgets_all(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    before = its_client.submit(model_free(), str(uuid.uuid4()))
    finished(its_client, before.prompt_id)
    simulator.kill()
    select.select([its_client.fileno()], [], [], 10)
    until("the socket's end", lambda: _has_ended(its_client))
    with pytest.raises(ComfyUnreachable, match=r"is it running\? \(.*refused"):
        its_client.find(before.prompt_id)
    simulator.restart()
    until("it answers again", lambda: _connects(its_client))
    assert its_client.find(before.prompt_id) == Absent()
    assert its_client.submit(model_free(), str(uuid.uuid4())).number == 0


def test_a_dropped_socket_is_opened_again(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    simulator.mischief("drop")
    until("the socket's end", lambda: _has_ended(its_client))
    its_client.connect()
    hear_to_the_end(its_client, submit(its_client, model_free()))


def test_a_silent_socket_does_not_hide_the_result(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    simulator.mischief("silent")
    assert finished(its_client, submit(its_client, model_free())).outcome is Outcome.SUCCESS
    assert its_client.connected


def test_a_history_that_comes_late_is_waited_for(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    simulator.mischief("late-history", seconds=0.5)
    prompt_id = submit(its_client, model_free())
    seen = until("it is done", lambda: its_client.history(prompt_id))
    assert seen.outcome is Outcome.SUCCESS
    assert not isinstance(its_client.find(prompt_id), Absent)


@pytest.mark.parametrize(("kind", "out_of_memory", "cuda_broken"), [("oom", True, False), ("cuda-poison", False, True)])
def test_a_card_in_trouble_is_recognised(
    simulator: SimulatorProcess, its_client: ComfyClient, kind: str, out_of_memory: bool, cuda_broken: bool
) -> None:
    simulator.mischief(kind)
    prompt_id = submit(its_client, model_free())
    heard = [m for m in hear_to_the_end(its_client, prompt_id) if isinstance(m, ExecutionError)]
    failure = finished(its_client, prompt_id).failure
    assert failure is not None and heard == [failure]
    assert (failure.out_of_memory, failure.cuda_broken) == (out_of_memory, cuda_broken)


def test_files_that_are_cut_or_too_large(simulator: SimulatorProcess, its_client: ComfyClient) -> None:
    simulator.mischief("huge", bytes=5 << 20)
    [huge] = finished(its_client, submit(its_client, model_free())).files
    with pytest.raises(ComfyFailed, match="over the limit"):
        list(its_client.view(huge, limit_bytes=1 << 20))
    [file] = finished(its_client, submit(its_client, model_free())).files
    simulator.mischief("cut", route="/view")
    with pytest.raises(ComfyUnreachable):
        list(its_client.view(file, limit_bytes=1 << 20))
    assert list(its_client.view(file, limit_bytes=1 << 20))


def _has_ended(client: ComfyClient) -> bool:
    try:
        client.receive()
    except ComfyUnreachable:
        return True
    return False


def _connects(client: ComfyClient) -> bool:
    try:
        client.connect()
    except ComfyUnreachable:
        return False
    return True


def _settled(client: ComfyClient, prompt_id: str) -> bool:
    try:
        return isinstance(client.find(prompt_id), Finished)
    except ComfyUnreachable:
        return False
