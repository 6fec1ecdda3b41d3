"""The status page: a tenant's jobs with their loss curves, as HTML without scripts."""

from __future__ import annotations

import time
from html import escape

from starlette.requests import Request
from starlette.responses import HTMLResponse

from jobs.rehearsal.job_store import FineTuningJob, JobStore, StepMetrics
from jobs.rehearsal.server_context import ServerContext, tenant_of

_JOBS_SHOWN = 50
_WIDTH, _HEIGHT = 320, 80
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d2733; }
h1 { font-size: 1.3rem } article { border-top: 1px solid #d5dbe3; padding: 1rem 0 }
.status { font-weight: 600 } .failed { color: #a40000 } .succeeded { color: #11693a }
small { color: #5a6675 } code { font-size: .9em }
svg { background: #f6f8fa } polyline { fill: none; stroke: #2457a7; stroke-width: 1.5 } .valid { stroke: #c05c00 }
"""
_HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class StatusPage:
    """The page `/` with a tenant's jobs."""

    def __init__(self, context: ServerContext) -> None:
        self._context = context

    async def show(self, request: Request) -> HTMLResponse:
        tenant = tenant_of(request)
        jobs = JobStore(self._context.state).all(tenant=tenant, limit=_JOBS_SHOWN)
        parts = "".join(self._job(job) for job in jobs) or "<p>No jobs yet.</p>"
        models = ", ".join(f"<code>{escape(name)}</code>" for name in sorted(self._context.models))
        html = (
            '<!doctype html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width"><meta http-equiv="refresh" content="10">'
            f"<title>Rehearsal</title><style>{_STYLE}</style>"
            f"<h1>Rehearsal: jobs of {escape(tenant)}</h1>"
            f"<p>This server trains adapters of its own models in place of the hosted ones: {models}.</p>{parts}</html>"
        )
        return HTMLResponse(html, headers=_HEADERS)

    def _job(self, job: FineTuningJob) -> str:
        created = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(job.created_at))
        error = job.error.message if job.error else ""
        tokens = "" if job.trained_tokens is None else f", {job.trained_tokens:,} tokens trained"
        model = f"<br><code>{escape(job.fine_tuned_model)}</code>" if job.fine_tuned_model else ""
        return (
            f"<article><code>{escape(job.id)}</code> "
            f'<span class="status {escape(job.status)}">{escape(job.status)}</span> '
            f"<small>{escape(job.model)}, {created}{tokens}</small>{model}"
            f"{f'<p>{escape(error)}</p>' if error else ''}"
            f"{_curve(JobStore(self._context.state).metrics(job))}</article>"
        )


def _curve(points: list[StepMetrics]) -> str:
    """Training and validation loss by step, as SVG; empty for fewer than two points."""
    lines = []
    every = [loss for point in points for loss in point.losses.values()]
    if len(points) < 2 or not every:
        return ""
    top, first, last = max(every) or 1.0, points[0].step, points[-1].step
    for name, style in (("train_loss", "train"), ("valid_loss", "valid")):
        shown = [
            f"{_WIDTH * (point.step - first) / max(last - first, 1):.1f},"
            f"{_HEIGHT * (1 - 0.95 * point.losses[name] / top):.1f}"
            for point in points
            if name in point.losses
        ]
        if len(shown) > 1:
            lines.append(f'<polyline class="{style}" points="{" ".join(shown)}"/>')
    label = f"loss {points[0].train_loss:.3f} to {points[-1].train_loss:.3f} over {last} steps"
    return (
        f'<p><svg role="img" aria-label="{escape(label)}" width="{_WIDTH}" height="{_HEIGHT}">{"".join(lines)}</svg>'
        f"<br><small>{escape(label)}</small></p>"
    )
