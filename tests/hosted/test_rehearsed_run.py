"""Whole runs with a hosted contender as subprocesses: kills do not change the digest, keys do not leak."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import Launcher
from serving import MODEL, Server

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("rehearsal")]
EXPERIMENT = str(Path(__file__).with_name("rehearsal.yaml"))
SUBMIT = ("submit", EXPERIMENT, "--target", "local")
CANARY = "sk-canary-9d1f0c7e5b"


def test_kills_do_not_change_the_digest(launcher: Launcher, wait_until: Callable[..., None]) -> None:
    uninterrupted = launcher.json(*SUBMIT, "-o", "json")
    check_rehearsal(uninterrupted)
    shutil.rmtree(launcher.store)
    submit = launcher.start(*SUBMIT, "-o", "json")
    for stage in ("tune-hosted-s1", "predict-hosted-s1"):
        work = launcher.store / "runs" / uninterrupted["run_id"] / "work" / stage
        # After the first snapshot a job exists that a kill could lose.
        wait_until(lambda work=work: list(work.glob("*/state-*/_SUCCESS.json")), 180)
        for pid, command in launcher.processes().items():
            if f"--stage {stage}" in command:
                os.kill(pid, signal.SIGKILL)
    out, err = submit.communicate(timeout=300)
    assert submit.returncode == 0, err
    interrupted = json.loads(out)
    assert interrupted["results_digest"] == uninterrupted["results_digest"]
    assert interrupted["receipt"]["seconds_lost"] > 0


def check_rehearsal(verdict: dict[str, Any]) -> None:
    assert "was a rehearsal: no hosted service was asked" in verdict["summary"]
    contender = verdict["results"]["contenders"][0]
    assert (contender["model"], contender["rehearsed_by"]) == (MODEL, "random-llama")
    assert contender["seeds"][0]["curve"]
    cost = verdict["costs"][0]
    assert cost["rehearsed"]
    assert cost["training_usd"] == pytest.approx(contender["tokens"]["trained"] / 1e6 * 8, abs=1e-6)
    assert verdict["receipt"]["usd"] is None
    assert verdict["receipt"]["would_have_cost_usd"] > 0
    assert {price["model"] for price in verdict["receipt"]["hosted_prices"]} == {MODEL}


def everything_under(root: Path) -> bytes:
    return b"\n".join(
        path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and not path.is_symlink()
    )


@pytest.mark.parametrize("refused", [False, True], ids=["accepted", "refused"])
def test_no_key_appears_anywhere(
    launcher: Launcher, make_server: Callable[..., Server], refused: bool, tmp_path: Path
) -> None:
    server = make_server(keys={("sk-other" if refused else CANARY): "one"})
    contender = f"""
        [{{name: hosted, kind: hosted, model: {MODEL}, base_url: "{server.url}", epochs: 1, batch_rows: 4,
          max_new_tokens: 8}}]"""
    override = tmp_path / "override.yaml"
    override.write_text(f"contenders: {contender}\n")
    site = tmp_path / "site.yaml"
    site.write_text(f'provider_urls: [{{provider: openai, url: "{server.url}"}}]\n')
    environment = {**launcher.environment, "OPENAI_API_KEY": CANARY}
    done = subprocess.run(
        launcher.command(*SUBMIT, "-f", str(override), "--site", str(site)),
        env=environment,
        cwd=launcher.home,
        capture_output=True,
        timeout=240,
        check=False,
    )
    run_id = launcher.json("list", "-o", "json")
    why = launcher("why", next(iter(run_id))["run"] if isinstance(run_id, list) else "")
    assert (done.returncode == 0) is not refused, done.stderr.decode()
    said = done.stdout + done.stderr + (why.stdout + why.stderr).encode()
    assert CANARY.encode() not in said
    for root in (launcher.home, server.root):
        assert CANARY.encode() not in everything_under(root)
    if refused:
        assert b"check OPENAI_API_KEY" in said
