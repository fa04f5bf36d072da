"""What the life of an attempt teaches: which models its worker holds now, and how long loading and running take. Pure.

A run is learnt from prompts that found their models loaded; from others only until one such was seen, because a part of
the load is hidden in the first sampler.
"""

from __future__ import annotations

from broker.core.estimates import Estimates
from broker.core.jobs import Job
from broker.core.roster import Worker
from broker.core.rules import Now
from broker.protocol.records import Reason, Timings

#: Ends after which ComfyUI holds no models: it was started anew, or told to let go of everything.
EMPTIED = frozenset(
    {Reason.OUT_OF_MEMORY, Reason.OUTPUT_LOST, Reason.COMFY_LOST, Reason.COMFY_UNREACHABLE, Reason.POISONED}
)


def began(estimates: Estimates, holder: Worker, job: Job, now: Now) -> None:
    """Its prompt runs."""
    if job.began_ms is None:
        job.began_ms = now.mono_ms
        models = job.record.needs.models
        job.cold = tuple(model for model in models if model not in holder.resident)
        holder.holds(models, estimates.size_bytes)


def told(estimates: Estimates, worker: Worker) -> None:
    """Show what is known of a worker where others look."""
    worker.speed, worker.load_ms = estimates.speed(worker.name), estimates.usual_load_ms(worker.name)


def succeeded(estimates: Estimates, holder: Worker, job: Job, timings: Timings, now: Now) -> None:
    began(estimates, holder, job, now)
    needs, worker, running_ms = job.record.needs, holder.name, timings.running_ms
    estimates.took(worker, running_ms)
    if job.record.expect_ms is not None:
        estimates.turned_out(job.record.expect_ms, running_ms)
    warm_ms = running_ms - min(timings.loading_ms, running_ms)
    if estimates.has_run(needs, worker) and holder.others.slowed(warm_ms / estimates.run_ms(needs, worker), now):
        return
    if not job.cold:
        estimates.ran(needs, worker, warm_ms)
    else:
        load_ms = min(running_ms, _load_ms(estimates, holder, job, timings))
        estimates.loaded(job.cold, worker, load_ms)
        if not estimates.has_run(needs, worker):
            estimates.ran(needs, worker, running_ms - load_ms)
    told(estimates, holder)


def failed(holder: Worker, reason: Reason) -> None:
    if reason in EMPTIED:
        holder.holds_nothing()


def _load_ms(estimates: Estimates, holder: Worker, job: Job, timings: Timings) -> int:
    """How much of a run with models that were not loaded was loading."""
    needs, running_ms = job.record.needs, timings.running_ms
    run_ms = estimates.run_ms(needs, holder.name)
    if estimates.has_run(needs, holder.name):
        return max(timings.loading_ms, running_ms - run_ms)
    if timings.loading_ms:
        return timings.loading_ms
    load_ms = sum(estimates.load_ms(model, holder.name) for model in job.cold)
    return running_ms * load_ms // max(1, load_ms + run_ms)
