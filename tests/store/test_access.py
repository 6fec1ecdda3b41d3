"""Who may come in and how: credentials by the usual chain, no secret in an address, clear errors in bounded time."""

from __future__ import annotations

import datetime
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fault_proxy import FaultProxy
from places import Place, make_place
from s3_servers import ACCESS_KEY, SECRET_KEY, Server, free_port, silent_server

from launcher.outcome import Failure, Reason
from launcher.store import open_store
from launcher.store.address import parse
from launcher.store.s3 import S3Store


@pytest.fixture
def rclone(tmp_path: Path, servers: Callable[[str], Server]) -> Place:
    """The server that really checks signatures."""
    return make_place("rclone", tmp_path, servers)


def failure_of(call: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        call()
    failure = caught.value
    assert failure.what
    assert failure.next_step
    return failure


@pytest.mark.parametrize(
    "address",
    [
        "s3://AKIAX:hunter2@bucket/prefix",
        "s3://bucket/prefix?endpoint_url=https://me:hunter2@host",
        "s3://bucket/prefix?secret_key=hunter2",
        "s3://bucket/prefix?aws_session_token=hunter2",
        "s3://bucket/prefix#hunter2",
    ],
)
def test_a_secret_in_an_address_is_refused_and_not_repeated(address: str) -> None:
    failure = failure_of(lambda: open_store(address))
    assert failure.reason is Reason.USAGE
    assert "hunter2" not in failure.text()
    assert "hunter2" not in str(failure.to_json())


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3:///prefix",
        "s3://Bucket",
        "s3://bucket/../x",
        "s3://bucket//x//y",
        "s3://bucket?addressing=odd",
        "s3://bucket?bandwidth_mib_s=0",
        "s3://bucket?bandwidth_mib_s=fast",
        "s3://bucket?endpoint_url=ftp://host",
        "s3://bucket?endpoint_url=http://storage.example.org",
        "s3://bucket:99/x",
    ],
)
def test_addresses_that_cannot_be_used_are_refused(address: str) -> None:
    assert failure_of(lambda: open_store(address)).reason is Reason.USAGE


def test_an_address_may_come_from_elsewhere_than_the_option() -> None:
    failure = failure_of(lambda: parse("s3://Bucket"))
    for name in ("--store", "TUNEYARD_STORE", "store.outside"):
        assert name in failure.what
    assert failure.where == ""


def test_an_unknown_option_is_named_and_its_value_is_not() -> None:
    text = failure_of(lambda: parse("s3://bucket?Region=hunter2&secret_key=hunter2")).text()
    assert "no option 'Region'" in text
    assert "no option 'secret_key'" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "option", ["hunter2=x", "xyzzy=", "wJalrXUtnFEMIKMDENGbPxRfiCYEXAMPLEKEY=x", "k+Y=x"]
)
def test_an_option_that_could_be_a_key_is_not_repeated(option: str) -> None:
    text = failure_of(lambda: parse(f"s3://bucket?{option}")).text()
    assert "an option it does not have; there are" in text
    assert option.partition("=")[0] not in text


def test_an_unreachable_server_is_reported_without_a_run_or_the_probes_step() -> None:
    address = parse("s3://bucket/x?endpoint_url=http://127.0.0.1:1").with_limits(
        connect_timeout_s=1, first_contact_s=1
    )
    failure = failure_of(lambda: S3Store(address, writable=True))
    assert failure.reason is Reason.NETWORK
    assert failure.where == str(address)
    assert ".probes" not in failure.text()
    assert "delete_object" not in failure.text()
    assert "retry" not in failure.next_step
    listing = failure_of(lambda: S3Store(address, writable=False).exists("stages/k"))
    assert listing.next_step == "check the network and endpoint_url, then try again"


def test_an_address_round_trips() -> None:
    text = "s3://bucket/some%20where/x?endpoint_url=https://s3.example.org:9000&region=eu-west-1&bandwidth_mib_s=2.5"
    assert parse(str(parse(text))) == parse(text)
    assert str(parse("s3://bucket")) == "s3://bucket"
    assert parse("s3://bucket/x?endpoint_url=http://minio:9000&allow_http=true").allow_http


def test_plain_http_must_be_allowed_also_for_an_endpoint_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://storage.example.org")
    assert failure_of(lambda: S3Store(parse("s3://bucket/x"), writable=False)).reason is Reason.USAGE
    monkeypatch.setenv("TUNEYARD_STORE_ALLOW_HTTP", "1")
    S3Store(parse("s3://bucket/x"), writable=False)


def test_the_environment_names_the_endpoint(rclone: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone.endpoint)
    store = open_store(f"s3://{rclone.bucket}/x")
    assert store.put_json("runs/r/plan.json", {})


def test_credentials_come_from_a_profile(
    rclone: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    address = f"s3://{rclone.bucket}/x?endpoint_url={rclone.endpoint}"
    failure = failure_of(lambda: open_store(address))
    assert "no credentials" in failure.what
    file = tmp_path / "credentials"
    file.write_text(f"[team]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    assert open_store(f"{address}&profile=team").put_json("runs/r/plan.json", {})
    assert failure_of(lambda: open_store(f"{address}&profile=other")).reason is Reason.STORE_FAILED


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("AWS_ACCESS_KEY_ID", "somebody-else", "access key"),
        ("AWS_SECRET_ACCESS_KEY", "wrong-one", "secret key"),
    ],
)
def test_wrong_credentials_are_reported_without_repeating_them(
    rclone: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: str, word: str
) -> None:
    monkeypatch.setenv(name, value)
    failure = failure_of(rclone.open)
    assert failure.reason is Reason.STORE_FAILED
    assert word in failure.what
    assert value not in failure.text()


def test_expired_credentials_are_read_again_during_an_upload(
    rclone: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mounted or refreshed credentials file: the old key is refused from some part on, the new one is taken."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    old = f"[default]\naws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    file.write_text(f"{old}aws_session_token = old\n")
    parts = [0]

    def expire(head: bytes) -> str | None:
        parts[0] += b"partNumber=" in head.split(b"\r\n")[0]
        if parts[0] >= 2 and b"x-amz-security-token: old" in head.lower():
            file.write_text(old)
            return "expired"
        return None

    rclone.limits["parallel"] = 1
    with FaultProxy(int(rclone.endpoint.rpartition(":")[2]), 1, 0, script=expire) as proxy:
        through = Place("rclone", tmp_path, proxy.endpoint, rclone.bucket, rclone.limits)
        directory = tmp_path / "d"
        directory.mkdir()
        (directory / "large").write_bytes(b"y" * (16 << 20))
        through.open().commit("stages/k", directory, {})
        assert proxy.done["expired"] == 1
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert rclone.elsewhere().open("stages/k").path("large").stat().st_size == 16 << 20


@pytest.mark.parametrize(
    ("fault", "reason", "word"),
    [
        ("expired", Reason.STORE_FAILED, "expired"),
        ("clock_skew", Reason.STORE_FAILED, "clock"),
        ("disk_full", Reason.DISK_FULL, "space"),
        ("slow_down", Reason.NETWORK, "SlowDown"),
        ("busy", Reason.NETWORK, "503"),
        ("refuse", Reason.NETWORK, "connection"),
        ("stall", Reason.NETWORK, "connection"),
    ],
)
def test_permanent_errors_are_reported_soon_and_by_name(
    rclone: Place, tmp_path: Path, fault: str, reason: Reason, word: str
) -> None:
    limits = {**rclone.limits, "read_timeout_s": 0.5, "call_timeout_s": 8}
    with FaultProxy(int(rclone.endpoint.rpartition(":")[2]), 1, 0, script=lambda _: fault) as proxy:
        through = Place("rclone", tmp_path, proxy.endpoint, rclone.bucket, limits)
        started = time.monotonic()
        failure = failure_of(through.open)
    assert time.monotonic() - started < 30
    assert failure.reason is reason
    assert word in failure.what
    assert rclone.bucket in failure.where


@pytest.mark.parametrize("hours", [-2, 2])
@pytest.mark.parametrize("kind", ["rclone", "versitygw"])
def test_a_wrong_clock_is_reported(
    tmp_path: Path,
    servers: Callable[[str], Server],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    hours: int,
) -> None:
    """Requests signed two hours early or late, and refused by the server itself."""
    place = make_place(kind, tmp_path, servers)
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    failure = failure_of(place.open)
    assert failure.reason is Reason.STORE_FAILED
    assert "clock" in failure.what


def test_a_server_that_drips_or_never_answers_times_out(rclone: Place, tmp_path: Path) -> None:
    limits = {**rclone.limits, "read_timeout_s": 1, "call_timeout_s": 2}
    with FaultProxy(
        int(rclone.endpoint.rpartition(":")[2]), 1, 0, stall_s=60, script=lambda _: "drip"
    ) as proxy:
        through = Place("rclone", tmp_path, proxy.endpoint, rclone.bucket, limits)
        started = time.monotonic()
        assert failure_of(through.open).reason is Reason.NETWORK
        assert time.monotonic() - started < 15
    with silent_server() as port:
        nobody = Place("rclone", tmp_path / "n", f"http://127.0.0.1:{port}", rclone.bucket, limits)
        assert failure_of(nobody.open).reason is Reason.NETWORK


def test_a_missing_server_or_bucket_is_named(rclone: Place, tmp_path: Path) -> None:
    limits = rclone.limits
    endpoint = f"http://127.0.0.1:{free_port()}"
    failure = failure_of(Place("rclone", tmp_path, endpoint, rclone.bucket, limits).open)
    assert failure.reason is Reason.NETWORK
    assert endpoint in failure.what
    failure = failure_of(Place("rclone", tmp_path, rclone.endpoint, "no-such-bucket", limits).open)
    assert failure.reason is Reason.STORE_FAILED
    assert "bucket" in failure.what


def test_boto3_is_imported_only_for_s3(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from launcher.store import open_store\n"
        f"store = open_store({str(tmp_path / 'store')!r})\n"
        "store.put_json('runs/r/plan.json', {})\n"
        "import launcher.cli.main, launcher.cli.submit, launcher.cli.gc\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('boto3', 'botocore', 's3transfer')])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
