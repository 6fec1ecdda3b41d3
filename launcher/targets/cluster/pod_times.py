"""How long pods have waited and run. Pure."""

from __future__ import annotations

from launcher.store.records import PodTimes
from launcher.targets.cluster.objects import Object, condition, main_state, seconds_of, terminated


def pod_times(pods: list[Object], now: float) -> tuple[PodTimes, ...]:
    """Measured seconds of each pod, oldest first: waiting (created to started) and running (started to ended).

    `lost` marks a pod that was evicted, preempted or on a lost node, and replaced.
    """
    found = []
    for pod in sorted(pods, key=lambda one: one["metadata"].get("creationTimestamp") or ""):
        created = seconds_of(pod["metadata"].get("creationTimestamp")) or now
        state = terminated(pod) or {}
        running = main_state(pod, "running") or {}
        started = seconds_of(state.get("startedAt") or running.get("startedAt"))
        ended = seconds_of(state.get("finishedAt")) or now
        found.append(
            PodTimes(
                pod=pod["metadata"]["name"],
                node=pod.get("spec", {}).get("nodeName"),
                # Never below 0: the clocks of API server, node and this machine differ.
                waiting_s=round(max(0.0, (started if started is not None else ended) - created), 3),
                running_s=round(max(0.0, ended - started), 3) if started is not None else 0.0,
                exit_code=state.get("exitCode"),
                lost=condition(pod, "DisruptionTarget") is not None,
            )
        )
    return tuple(found)
