"""The routes that post, watch and stop prompts: /prompt, /queue, /history, /interrupt, /free, and late /api/jobs.

They translate requests into calls on the queue and the executor. A body that is not what it should be is left to fail:
the real server answers 500 then, and so does this one.
"""

import json
import time
import uuid
from typing import Any

from aiohttp import web

from comfyui.simulator import jobs
from comfyui.simulator.parts import Simulator
from comfyui.simulator.queue import SECRETS
from comfyui.simulator.validate import problem, validate


def queue_info(sim: Simulator) -> dict[str, Any]:
    return {"exec_info": {"queue_remaining": sim.queue.remaining()}}


def prompt_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()

    @routes.get("/prompt")
    async def get_prompt(request: web.Request) -> web.Response:
        return web.json_response(queue_info(sim))

    @routes.post("/prompt")
    async def post_prompt(request: web.Request) -> web.Response:
        return _post(sim, await request.json())

    @routes.get("/queue")
    async def get_queue(request: web.Request) -> web.Response:
        running, waiting = sim.queue.items()
        return web.json_response({"queue_running": running, "queue_pending": waiting})

    @routes.post("/queue")
    async def post_queue(request: web.Request) -> web.Response:
        body = await request.json()
        if _asked(body, "clear"):
            sim.queue.clear()
        for prompt_id in _asked(body, "delete", ()):
            if sim.queue.delete(prompt_id):
                sim.rig.journal.note("deleted", prompt_id=prompt_id)
        return web.Response()

    @routes.post("/interrupt")
    async def post_interrupt(request: web.Request) -> web.Response:
        _interrupt(sim, await request.text())
        return web.Response()

    @routes.post("/free")
    async def post_free(request: web.Request) -> web.Response:
        body = await request.json()
        sim.executor.unload_models |= bool(body.get("unload_models", False))
        sim.executor.free_memory |= bool(body.get("free_memory", False))
        sim.executor.wake()
        return web.Response()

    return routes


def history_routes(sim: Simulator) -> web.RouteTableDef:
    routes = web.RouteTableDef()

    @routes.get("/history")
    async def get_history(request: web.Request) -> web.Response:
        query = request.query
        max_items = int(query["max_items"]) if "max_items" in query else None
        offset = int(query["offset"]) if "offset" in query and sim.rig.release.pages_history else -1
        return web.json_response(sim.queue.history(max_items, offset))

    @routes.get("/history/{prompt_id}")
    async def get_one(request: web.Request) -> web.Response:
        return web.json_response(sim.queue.remembered(request.match_info["prompt_id"]))

    @routes.post("/history")
    async def post_history(request: web.Request) -> web.Response:
        body = await request.json()
        if _asked(body, "clear"):
            sim.queue.forget_all()
        for prompt_id in _asked(body, "delete", ()):
            sim.queue.forget(prompt_id)
        return web.Response()

    return routes


def job_routes(sim: Simulator) -> web.RouteTableDef:
    """Only late servers have these, and only with /api."""
    routes = web.RouteTableDef()

    @routes.get("/api/jobs")
    async def get_jobs(request: web.Request) -> web.Response:
        found = jobs.all_jobs(*sim.queue.items(), sim.queue.history())
        try:
            return web.json_response(jobs.page(found, dict(request.query)))
        except ValueError as e:
            return web.json_response({"error": str(e)}, status=400)

    @routes.get("/api/jobs/{job_id}")
    async def get_job(request: web.Request) -> web.Response:
        job = _job(sim, request.match_info["job_id"])
        return web.json_response({"error": "Job not found"}, status=404) if job is None else web.json_response(job)

    @routes.post("/api/jobs/{job_id}/cancel")
    async def cancel_job(request: web.Request) -> web.Response:
        return web.json_response({"cancelled": _cancel(sim, request.match_info["job_id"])})

    @routes.post("/api/jobs/cancel")
    async def cancel_jobs(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except json.JSONDecodeError:
            return web.json_response({"error": "Request body must be valid JSON"}, status=400)
        ids = body.get("job_ids") if isinstance(body, dict) else None
        if not isinstance(ids, list):
            return web.json_response({"error": "job_ids must be a list"}, status=400)
        wrong = [job_id if isinstance(job_id, str) else repr(job_id) for job_id in ids if not jobs.is_job_id(job_id)]
        if wrong:
            text = "job_ids contains invalid id(s)"
            return web.json_response({"error": text, "invalid_ids": wrong}, status=400)
        return web.json_response({"cancelled": any([_cancel(sim, job_id) for job_id in ids])})

    return routes


def _asked(body: Any, name: str, default: Any = None) -> Any:
    """What a body has under a name; a list of something else asks for nothing, as in the real server."""
    return body[name] if name in body else default  # noqa: SIM401 - a list has no get


def _post(sim: Simulator, body: Any) -> web.Response:
    """The answer to POST /prompt; an accepted prompt is in the queue."""
    number: float
    if "number" in body:
        number = float(body["number"])
    else:
        number = sim.counter
        if isinstance(body, dict) and body.get("front"):
            number = -number
        sim.counter += 1
    if "prompt" not in body:
        return _refused(problem("no_prompt", "No prompt provided", "No prompt provided"))
    try:
        prompt_id = _prompt_id(sim, body)
    except ValueError as e:
        return _refused(problem("invalid_prompt_id", "prompt_id must be a valid UUID", str(e)))
    release = sim.rig.release
    targets = body.get("partial_execution_targets") if release.takes_targets else None
    graph = body["prompt"]
    verdict = validate(graph, sim.catalog.entry, lambda name: sim.rig.folders.picture(name).exists(), release, targets)
    if verdict.error is not None:
        sim.rig.journal.note("refused", prompt_id=prompt_id, error=verdict.error["type"])
        return _refused(verdict.error, verdict.node_errors)
    extra_data = body.get("extra_data", {})
    if "client_id" in body:
        extra_data["client_id"] = body["client_id"]
    client_id = extra_data.get("client_id") if isinstance(extra_data, dict) else None
    if release.modern:
        extra_data = {key: value for key, value in extra_data.items() if key not in SECRETS}
        extra_data["create_time"] = time.time_ns() // 1_000_000
    sim.rig.journal.note("received", prompt_id=prompt_id, number=number, client_id=client_id)
    try:
        sim.queue.put((number, prompt_id, graph, extra_data, verdict.outputs))
    finally:
        sim.executor.wake()
    return web.json_response({"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors})


def _refused(error: dict[str, Any], node_errors: dict[str, Any] | None = None) -> web.Response:
    body = {"error": error, "node_errors": node_errors if node_errors is not None else {}}
    return web.json_response(body, status=400)


def _prompt_id(sim: Simulator, body: dict[str, Any]) -> str:
    """The client's id where the version takes it, else a new one. Raises ValueError for one that is not taken."""
    if not sim.rig.release.takes_prompt_ids or "prompt_id" not in body:
        return str(uuid.uuid4())
    given = body["prompt_id"]
    if not sim.rig.release.modern:
        return str(given)
    if given is None:
        return str(uuid.uuid4())
    if not jobs.is_job_id(given):
        raise ValueError(
            "prompt_id must be a UUID string in canonical lowercase hyphenated form; "
            "omit it to let the server generate one"
        )
    return str(given)


def _interrupt(sim: Simulator, text: str) -> None:
    """Old servers ignore the body and stop whatever runs."""
    if sim.rig.release.interrupts_by_id:
        try:
            body = json.loads(text)
        except json.JSONDecodeError:
            body = {}
        prompt_id = body.get("prompt_id")
        if prompt_id and not sim.queue.is_running(prompt_id):
            return
    sim.executor.interrupt()


def _job(sim: Simulator, job_id: str) -> dict[str, Any] | None:
    entry = sim.queue.remembered(job_id).get(job_id)
    if entry is not None:
        return jobs.of_entry(job_id, entry, whole=True)
    for state, items in zip(("in_progress", "pending"), sim.queue.items(), strict=True):
        for item in items:
            if item[1] == job_id:
                return jobs.of_item(item, state, whole=True)
    return None


def _cancel(sim: Simulator, job_id: str) -> bool:
    """Interrupts it if it runs, else takes it out of the queue; False if it does neither."""
    if sim.queue.is_running(job_id):
        sim.executor.interrupt()
        return True
    return sim.queue.delete(job_id)
