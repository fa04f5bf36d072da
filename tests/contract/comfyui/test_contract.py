"""What the client promises a worker, on every version it may meet."""

import random
import uuid
from typing import Any

import pytest

from comfyui import workflow
from comfyui.catalogue import capability_digest, offers
from comfyui.check import check
from comfyui.client import ComfyClient
from comfyui.errors import ComfyFailed, ComfyRejected
from comfyui.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Preview,
    Progress,
    Status,
)
from comfyui.needs import needs
from comfyui.outputs import OutputFile
from comfyui.replies import Absent, Outcome, Pending, Running
from tests.contract.comfyui.driving import (
    finished,
    found_as,
    hear,
    hear_to_the_end,
    model_free,
    node,
    sampled,
    submit,
)

PNG = b"\x89PNG\r\n\x1a\n"
MIB = 1 << 20
LONG = 1000  # steps: much longer than any test listens


def has_preview_metadata(client: ComfyClient) -> bool:
    return client.features().own_prompt_id  # both came with 0.3.45


def test_facts_and_features_go_with_the_version(client: ComfyClient) -> None:
    stats = client.system_stats()
    assert stats.version >= (0, 3) and stats.devices and stats.devices[0].vram_total_bytes > 0
    features = client.features()
    assert features.own_prompt_id == (stats.version >= (0, 3, 45))
    assert features.targeted_interrupt == (stats.version >= (0, 3, 57))
    assert not features.atomic_cancel or stats.version >= (0, 4)


def test_object_info_answers_what_placement_asks(client: ComfyClient) -> None:
    info = client.object_info()
    able, work = offers(info), needs(model_free(), info)
    assert set(work.nodes) <= set(able.nodes) and work.models == ()
    assert check(model_free(), info) == ()
    digest = capability_digest(info)[0]
    client.upload(f"{uuid.uuid4().hex}.png", PNG)
    assert capability_digest(client.object_info())[0] == digest


def test_a_prompt_is_watched_to_its_end_and_its_picture_fetched(client: ComfyClient) -> None:
    prompt_id = submit(client, model_free())
    ours = [m for m in hear_to_the_end(client, prompt_id) if getattr(m, "prompt_id", None) == prompt_id]
    told = [
        m for m in ours if isinstance(m, ExecutionStart | ExecutionCached | Executing | Executed | ExecutionSuccess)
    ]
    entry = client.history(prompt_id)  # the end mark comes after the history
    assert entry is not None and (entry.outcome, entry.failure) == (Outcome.SUCCESS, None)
    assert told == [
        ExecutionStart(prompt_id),
        ExecutionCached(prompt_id, ()),
        Executing(prompt_id, "1"),
        Executing(prompt_id, "2"),
        Executing(prompt_id, "9"),
        Executed(prompt_id, "9", entry.files),
        ExecutionSuccess(prompt_id),
        Executing(prompt_id, None),
    ]
    assert entry.run_ms is not None and entry.run_ms >= 0
    [file] = entry.files
    assert (file.node_id, file.kind, file.folder) == ("9", "images", "output")
    assert file.filename.startswith("contract_")
    assert b"".join(client.view(file, limit_bytes=MIB)).startswith(PNG)
    assert client.garbled == 0


def test_the_same_prompt_again_gives_the_same_file(client: ComfyClient) -> None:
    work = model_free()
    first = finished(client, submit(client, work))
    again = submit(client, work)
    heard = hear_to_the_end(client, again)
    assert ExecutionCached(again, ("1", "2", "9")) in [
        ExecutionCached(m.prompt_id, tuple(sorted(m.nodes))) for m in heard if isinstance(m, ExecutionCached)
    ]
    assert Executed(again, "9", first.files) in heard
    assert finished(client, again).files == first.files


def test_progress_and_previews_arrive(client: ComfyClient, checkpoint: str) -> None:
    prompt_id = submit(client, sampled(checkpoint, steps=4))
    heard = hear_to_the_end(client, prompt_id)
    steps = [m.value for m in heard if isinstance(m, Progress) and m.prompt_id == prompt_id]
    assert steps == [1, 2, 3, 4]
    previews = [m for m in heard if isinstance(m, Preview)]
    assert previews and all(p.mime == "image/jpeg" and len(p.image) > 100 for p in previews)
    named = {(p.prompt_id, p.node) for p in previews}
    assert named == ({(prompt_id, "3")} if has_preview_metadata(client) else {(None, None)})
    [file] = finished(client, prompt_id).files
    assert b"".join(client.view(file, limit_bytes=MIB)).startswith(PNG)


def test_a_picture_that_is_only_sent_comes_as_png(client: ComfyClient) -> None:
    graph = model_free().graph()
    graph["9"] = node("SaveImageWebsocket", images=["2", 0])
    prompt_id = submit(client, workflow.of(graph))
    [picture] = [m for m in hear_to_the_end(client, prompt_id) if isinstance(m, Preview)]
    assert picture.mime == "image/png"
    assert finished(client, prompt_id).files == ()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"1": node("NoSuchNode")}, "NoSuchNode"),
        ({"9": node("ImageInvert", image=["1", 0])}, "no outputs"),
        ({"1": node("EmptyImage", width=99999, height=64, batch_size=1, color=0)}, "node 1 (EmptyImage): Value 99999"),
        ({"2": node("ImageInvert")}, "node 2 (ImageInvert): Required input is missing: image"),
    ],
)
def test_a_refused_graph_is_told_in_plain_words(client: ComfyClient, changed: dict[str, Any], words: str) -> None:
    prompt_id = str(uuid.uuid4())
    with pytest.raises(ComfyRejected) as caught:
        client.submit(workflow.of({**model_free().graph(), **changed}), prompt_id)
    assert words in str(caught.value) and caught.value.error
    assert client.find(prompt_id) == Absent()


def test_a_missing_model_names_node_and_file(client: ComfyClient) -> None:
    with pytest.raises(ComfyRejected) as caught:
        client.submit(sampled("missing.safetensors", steps=1), str(uuid.uuid4()))
    assert list(caught.value.node_errors) == ["4"]
    assert "node 4 (CheckpointLoaderSimple)" in str(caught.value) and "missing.safetensors" in str(caught.value)


def test_a_prompt_can_be_taken_without_all_its_outputs(client: ComfyClient) -> None:
    graph = model_free().graph()
    graph["10"] = node("SaveImage", images=["11", 0], filename_prefix="contract")
    graph["11"] = node("ImageScale", image=["2", 0], upscale_method="magic", width=8, height=8, crop="disabled")
    taken = client.submit(workflow.of(graph), str(uuid.uuid4()))
    assert list(taken.node_errors) == ["11"] and "magic" in taken.node_errors["11"][0]
    assert [file.node_id for file in finished(client, taken.prompt_id).files] == ["9"]


def test_a_failing_node_is_named(client: ComfyClient) -> None:
    broken = client.upload(f"{uuid.uuid4().hex}.png", b"no picture at all")
    work = workflow.of({"1": node("LoadImage", image=broken), "2": node("PreviewImage", images=["1", 0])})
    prompt_id = submit(client, work)
    heard = hear_to_the_end(client, prompt_id)
    entry = finished(client, prompt_id)
    assert entry.outcome is Outcome.ERROR and entry.failure is not None
    assert (entry.failure.node_id, entry.failure.node_type) == ("1", "LoadImage")
    assert broken in entry.failure.exception_message
    assert entry.failure in [m for m in heard if isinstance(m, ExecutionError)]
    assert not entry.failure.out_of_memory and not entry.failure.cuda_broken


def test_an_interrupt_stops_the_prompt_that_is_meant(client: ComfyClient, checkpoint: str) -> None:
    prompt_id = submit(client, sampled(checkpoint, steps=LONG))
    hear(client, lambda m: isinstance(m, Progress) and m.value >= 2)
    client.interrupt(str(uuid.uuid4()))
    hear(client, lambda m: isinstance(m, Progress) and m.value >= 5)  # it goes on
    assert client.interrupt(prompt_id)
    heard = hear_to_the_end(client, prompt_id)
    assert any(isinstance(m, ExecutionInterrupted) and m.node_id == "3" for m in heard)
    entry = finished(client, prompt_id)
    assert (entry.outcome, entry.failure, entry.files) == (Outcome.INTERRUPTED, None, ())


def test_an_interrupt_of_what_does_not_run_hits_nobody(client: ComfyClient) -> None:
    ended = submit(client, model_free())
    finished(client, ended)
    client.interrupt(ended)
    assert finished(client, submit(client, model_free())).outcome is Outcome.SUCCESS


def test_waiting_prompts_are_found_and_taken_back(client: ComfyClient, checkpoint: str) -> None:
    first = submit(client, sampled(checkpoint, steps=LONG))
    second, third = submit(client, model_free()), submit(client, model_free())
    found_as(client, first, Running)
    found = client.find(third)
    assert isinstance(found, Pending) and (found.ahead, found.item.client_id) == (2, client.client_id)
    client.dequeue(second)
    assert client.find(second) == Absent() and client.history(second) is None
    found = client.find(third)
    assert isinstance(found, Pending) and found.ahead == 1
    assert [item.prompt_id for item in client.queue().pending] == [third]
    client.dequeue(first)  # it runs: left alone
    assert isinstance(client.find(first), Running)
    assert client.interrupt(first)
    assert finished(client, third).outcome is Outcome.SUCCESS


def test_a_prompt_is_found_by_the_id_it_was_submitted_under(client: ComfyClient, checkpoint: str) -> None:
    wish = str(uuid.uuid4())
    taken = client.submit(sampled(checkpoint, steps=LONG), wish)
    assert (taken.prompt_id == wish) == client.features().own_prompt_id
    found_as(client, wish, Running)
    later = str(uuid.uuid4())
    waiting = client.submit(model_free(), later)
    found = client.find(later)
    assert isinstance(found, Pending) and found.item.prompt_id == waiting.prompt_id
    client.interrupt(taken.prompt_id)
    for prompt_id, real_id in ((wish, taken.prompt_id), (later, waiting.prompt_id)):
        assert finished(client, prompt_id).prompt_id == real_id


def test_numbers_survive_the_journey(client: ComfyClient) -> None:
    with pytest.raises(ValueError, match="not a UUID"):
        client.submit(model_free(), "A" * 32)
    number = client.submit(model_free(), str(uuid.uuid4())).number
    later = client.submit(model_free(), str(uuid.uuid4())).number
    assert number is not None and later is not None and later > number


def test_unknown_prompts_are_absent(client: ComfyClient) -> None:
    nobody = str(uuid.uuid4())
    assert client.find(nobody) == Absent() and client.history(nobody) is None
    client.dequeue(nobody)
    assert client.find("../../queue?x#y") == Absent()


def test_events_go_on_after_a_reconnect_in_mid_run(client: ComfyClient, checkpoint: str) -> None:
    prompt_id = submit(client, sampled(checkpoint, steps=LONG))
    hear(client, lambda m: isinstance(m, Progress) and m.value >= 2)
    client.connect()
    again = hear(client, lambda m: isinstance(m, Progress) and m.value >= 5)
    first = next(m for m in again if isinstance(m, Status))
    assert first.sid == client.client_id
    client.interrupt(prompt_id)
    assert any(isinstance(m, ExecutionInterrupted) for m in hear_to_the_end(client, prompt_id))


def test_many_reconnects_do_not_make_it_deaf(client: ComfyClient) -> None:
    for _ in range(20):
        client.connect()
    hear_to_the_end(client, submit(client, model_free()))


def test_a_result_is_found_without_a_socket(client: ComfyClient) -> None:
    client.disconnect()
    assert not client.connected
    assert finished(client, submit(client, model_free())).outcome is Outcome.SUCCESS


def test_another_clients_prompt_says_nothing_of_ours(client: ComfyClient, server_url: str) -> None:
    other = ComfyClient(server_url, client_id=uuid.uuid4().hex)
    try:
        prompt_id = submit(other, model_free())
        finished(other, prompt_id)
    finally:
        other.close()
    mine = submit(client, model_free())
    heard = hear_to_the_end(client, mine)
    assert {getattr(m, "prompt_id", mine) for m in heard} == {mine}


def test_uploads_are_named_by_their_content(client: ComfyClient) -> None:
    name = f"{uuid.uuid4().hex}.bin"
    assert not client.has_input(name)
    assert client.upload(name, b"one") == name
    assert client.has_input(name) and client.has_input(name, 3) and not client.has_input(name, 4)
    assert client.upload(name, b"one") == name
    other = client.upload(name, b"two")
    assert other != name and client.has_input(other)
    below = client.upload(name, b"three", subfolder="fleet/x")
    assert below == f"fleet/x/{name}" and client.has_input(below)


def test_a_large_upload_goes_in_parts_and_comes_back_whole(client: ComfyClient) -> None:
    parts = [random.randbytes(MIB) for _ in range(5)]
    name = client.upload(f"{uuid.uuid4().hex}.bin", iter(parts), size_bytes=5 * MIB)
    file = OutputFile("1", "images", name, "", "input")
    chunks = list(client.view(file, limit_bytes=5 * MIB))
    assert len(chunks) > 1 and b"".join(chunks) == b"".join(parts)
    with pytest.raises(ComfyFailed, match="limit"):
        list(client.view(file, limit_bytes=5 * MIB - 1))


def test_an_upload_can_be_loaded(client: ComfyClient) -> None:
    [file] = finished(client, submit(client, model_free())).files
    picture = b"".join(client.view(file, limit_bytes=MIB))
    value = client.upload(f"{uuid.uuid4().hex}.png", picture, subfolder="fleet")
    work = {"1": node("LoadImage", image=value), "2": node("PreviewImage", images=["1", 0])}
    [shown] = finished(client, submit(client, workflow.of(work))).files
    assert shown.folder == "temp"
    assert b"".join(client.view(shown, limit_bytes=MIB)).startswith(PNG)


def test_an_upload_of_another_size_than_announced_is_not_sent(client: ComfyClient) -> None:
    name = f"{uuid.uuid4().hex}.bin"
    for parts, size_bytes in (([b"12", b"34"], 3), ([b"12"], 3)):
        with pytest.raises(ValueError, match="announced"):
            client.upload(name, parts, size_bytes=size_bytes)
    with pytest.raises(ValueError, match="size_bytes"):
        client.upload(name, [b"1"])
    with pytest.raises(ValueError, match="slash"):
        client.upload("a/b.png", b"1")
    with pytest.raises(ValueError, match="quotation"):
        client.upload('b".png', b"1")
    with pytest.raises(ValueError, match="hidden"):
        client.upload("b.png", b"1", subfolder=".ssh")
    assert not client.has_input(name)
    assert client.upload(name, b"123") == name


def test_a_file_that_is_gone_has_failed(client: ComfyClient) -> None:
    file = OutputFile("9", "images", f"{uuid.uuid4().hex}.png", "", "output")
    with pytest.raises(ComfyFailed, match="no longer"):
        list(client.view(file, limit_bytes=MIB))


@pytest.mark.parametrize(
    ("filename", "subfolder", "folder"),
    [
        ("../x.png", "", "output"),
        ("/etc/passwd", "", "output"),
        ("x.png", "../..", "output"),
        ("x.png", "", "../"),
        ("x.png", "", "models"),
        ("a\0.png", "", "output"),
        ("", "", "output"),
        ("x" * 256, "", "output"),
        ("x.png", "\ud800", "output"),
    ],
)
def test_an_unsafe_name_is_never_asked_for(client: ComfyClient, filename: str, subfolder: str, folder: str) -> None:
    with pytest.raises(ComfyFailed, match="node 9"):
        client.view(OutputFile("9", "images", filename, subfolder, folder), limit_bytes=MIB)


def test_an_abandoned_download_does_not_disturb_the_next_call(client: ComfyClient) -> None:
    name = client.upload(f"{uuid.uuid4().hex}.bin", bytes(5 * MIB))
    chunks = client.view(OutputFile("1", "images", name, "", "input"), limit_bytes=5 * MIB)
    next(chunks)
    assert client.queue().running == ()  # in mid-download
    next(chunks)
    del chunks
    assert client.system_stats().version


def test_free_is_taken_and_work_goes_on(client: ComfyClient) -> None:
    client.free()
    assert finished(client, submit(client, model_free())).outcome is Outcome.SUCCESS
