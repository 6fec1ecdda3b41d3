"""Machine seconds: each is counted once, as work, overhead, waiting, lost or failed."""

from __future__ import annotations

from tiny import make_plan

from launcher.costs.usage import Seconds, account
from launcher.outcome import Reason
from launcher.spec.plan import Stage
from launcher.store.records import PodTimes, TryEnd
from launcher.store.runs import Try

STAGE = make_plan().stage("train-lora-s1")


def pod(running_s: float, *, waiting_s: float = 0.0, lost: bool = False) -> PodTimes:
    return PodTimes(pod="p", waiting_s=waiting_s, running_s=running_s, lost=lost)


def one(reason: str, *pods: PodTimes, number: int = 1, stage: str = STAGE.name) -> Try:
    return Try(stage, number, 100.0, TryEnd(reason=Reason(reason), ended_at=130.0, pods=pods))


def on_nodes(nodes: int) -> Stage:
    return STAGE.model_copy(update={"resources": STAGE.resources.model_copy(update={"nodes": nodes})})


def test_preempted_pod_is_lost_and_the_rest_is_work_and_overhead() -> None:
    found = account(STAGE, [one("succeeded", pod(40, waiting_s=5, lost=True), pod(65, waiting_s=2))], 60.0)
    assert found == Seconds(productive=60, overhead=5, waiting=7, lost=40)
    assert found.paid == 105  # waiting costs nothing


def test_killed_tries_are_lost_and_failed_tries_failed() -> None:
    tries = [one("killed", pod(10)), one("internal", pod(20), number=2), one("succeeded", pod(30), number=3)]
    assert account(STAGE, tries, 30.0) == Seconds(productive=30, lost=10, failed=20)


def test_try_without_pods_holds_its_machine_from_start_to_end() -> None:
    assert account(STAGE, [one("terminated"), one("succeeded", number=2)], 50.0) == Seconds(50, lost=30)


def test_pods_of_several_nodes_count_once() -> None:
    assert account(on_nodes(2), [one("succeeded", pod(64), pod(64))], 60.0) == Seconds(60, overhead=4)


def test_other_stages_and_running_tries_are_ignored() -> None:
    running = Try(STAGE.name, 2, 100.0, None)
    assert account(STAGE, [running, one("killed", pod(9), stage="prepare")], None) == Seconds()
