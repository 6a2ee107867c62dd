"""Settings: from the environment and back, and what never shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from aiokafka.helpers import create_ssl_context
from hypothesis import given
from hypothesis import strategies as st

from metering.errors import MeteringError
from metering.variables import OF_SERVICES
from sinks.clickhouse.connection import connect
from streams.detection.__main__ import alert_sinks
from streams.settings import METADATA_MAX_AGE_MS, InvalidSettings, Settings, misspelt
from streams.stack.config import StackConfig
from streams.stack.places import REPO
from streams.targets import clickhouse_target
from tests.waiting import until

SECRET = "s3cret-never-shown"  # noqa: S105  only a test's
SECRETS = {
    "METER_KAFKA_PASSWORD": SECRET,
    "METER_CLICKHOUSE_PASSWORD": SECRET,
    "METER_WEBHOOK_SECRET": SECRET,
}
text = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=20)
url = text.filter(lambda t: t.strip() == t != "" and "," not in t)


def test_without_variables_everything_is_on_this_machine() -> None:
    settings = Settings.from_env({"PATH": "/bin", "KAFKA": "elsewhere:1"})
    assert settings == Settings()
    assert settings.kafka.startswith("127.0.0.1:")
    assert settings.webhooks == ()


def test_every_field_is_a_variable() -> None:
    settings = Settings.from_env(
        {
            "METER_KAFKA": "k1:9092,k2:9092",
            "METER_CLICKHOUSE": "https://ch:8443",
            "METER_LOG_DIR": "/var/log/meter",
            "METER_WEBHOOKS": "http://a/x,,http://b/y",
            "METER_ALERT_FLOOR_USD_PER_HOUR": "0",
            "METER_METRICS_PORT": "9100",
            **SECRETS,
        }
    )
    assert settings.kafka == "k1:9092,k2:9092"
    assert settings.clickhouse == "https://ch:8443"
    assert settings.log_dir == Path("/var/log/meter")
    assert settings.webhooks == ("http://a/x", "http://b/y")
    assert settings.alert_floor_usd_per_hour == 0.0
    assert settings.metrics_port == 9100
    assert settings.kafka_password.get_secret_value() == SECRET
    assert settings.webhook_secret.get_secret_value() == SECRET


def test_secrets_show_in_no_representation() -> None:
    settings = Settings.from_env(SECRETS)
    shown = (
        repr(settings),
        str(settings),
        f"{settings!r}{settings}",
        settings.model_dump_json(),
        json.dumps(settings.model_dump(mode="json")),
        repr(settings.model_dump()),
        repr(settings.model_copy(update={"kafka": "elsewhere:1"})),
    )
    for representation in shown:
        assert SECRET not in representation


ADDRESSES = {
    "METER_WEBHOOKS": (
        f"https://hooks.example/services/{SECRET},http://me:{SECRET}@h/,http://h:{SECRET}/,{SECRET},"
        f"http://[{SECRET}/,https://h/?token={SECRET},https://h/#{SECRET}"
    ),
    "METER_ALERTMANAGER": f"http://me:{SECRET}@alertmanager:9093/{SECRET}",
    "METER_CLICKHOUSE": f"http://me:{SECRET}@clickhouse:8123/?password={SECRET}",
}


def test_secrets_within_addresses_show_in_no_representation() -> None:
    settings = Settings.from_env(ADDRESSES)
    changed = settings.model_copy(update={"webhooks": (f"http://h/{SECRET}",)})
    config = StackConfig(Path("x"), webhooks=settings.webhooks)
    for each in (settings, changed):
        shown = (
            repr(each), str(each), each.model_dump_json(), repr(each.model_dump()), repr(config),
            repr(clickhouse_target(each)),
        )  # fmt: skip
        for representation in shown:
            assert SECRET not in representation
    assert "alertmanager='http://alertmanager:9093/…'" in repr(settings)
    assert Settings.from_env(settings.to_env()) == settings, "what is read is whole"


@pytest.mark.parametrize("url", [ADDRESSES["METER_CLICKHOUSE"], f"http://h/?password={SECRET}"])
def test_a_password_in_clickhouses_url_is_refused_unshown(url: str) -> None:
    with pytest.raises(MeteringError) as error:
        connect(clickhouse_target(Settings(clickhouse=url)))
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METER_WEBHOOKS", f"hooks.example/{SECRET}"),
        ("METER_WEBHOOKS", f"http://h:{SECRET}/"),
        ("METER_ALERTMANAGER", f"ftp://me:{SECRET}@h/"),
        ("METER_WEBHOOK_SECRET", f"whsec_{SECRET}!"),
    ],
)
def test_an_alert_target_that_can_not_be_used_is_an_error_that_shows_no_secret(
    name: str, value: str
) -> None:
    settings = Settings.from_env({"METER_WEBHOOKS": "http://h/", name: value})
    with pytest.raises(MeteringError) as error:
        alert_sinks(settings)
    assert SECRET not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("process", ["detection", "reconciler", "sentinel"])
async def test_a_process_without_its_neighbours_logs_no_secret(
    process: str, tmp_path: Path
) -> None:
    """Each says that it waits for Kafka, and none says with which password."""
    addresses = {name: value for name, value in ADDRESSES.items() if name != "METER_WEBHOOKS"}
    env = {
        **os.environ, **SECRETS, **addresses,
        "METER_WEBHOOKS": f"https://hooks.example/services/{SECRET},http://me:{SECRET}@h/",
        "METER_KAFKA": "127.0.0.1:1", "METER_KAFKA_USERNAME": "meter",
        "METER_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "METER_CLICKHOUSE": "http://127.0.0.1:1",
        "METER_TRITON_GRPC": "127.0.0.1:1", "METER_LOG_DIR": str(tmp_path / "log"),
        "METER_STATE_DIR": str(tmp_path / "state"),
    }  # fmt: skip
    (tmp_path / "log").mkdir()
    command = [sys.executable, "-m", f"streams.{process}"]
    log = tmp_path / "process.log"
    with log.open("wb") as stream:
        running = await asyncio.create_subprocess_exec(
            *command, env=env, stdout=stream, stderr=stream
        )
        try:
            await until(lambda: b"retrying until it succeeds" in log.read_bytes())
        finally:
            running.kill()
            await running.wait()
    assert SECRET not in log.read_text()


def test_every_secret_is_kept_as_one() -> None:
    """A field that is added later and is named like a secret must not be plain text."""
    named = {n for n in Settings.model_fields if "password" in n or "secret" in n}
    kept = {
        n for n in Settings.model_fields if "SecretStr" in str(Settings.model_fields[n].annotation)
    }
    assert named == kept == {n.removeprefix("METER_").lower() for n in SECRETS}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("METER_METRICS_PORT", "many"),
        ("METER_METRICS_PORT", "65536"),
        ("METER_METRICS_PORT", ""),
        ("METER_ALERT_FLOOR_USD_PER_HOUR", "-1"),
        ("METER_ALERT_FLOOR_USD_PER_HOUR", "nan"),
        ("METER_KAFKA_SECURITY_PROTOCOL", "TLS"),
        ("METER_KAFKA_SASL_MECHANISM", "GSSAPI"),
    ],
)
def test_a_value_that_can_not_be_used_is_an_error_that_names_the_variable(
    name: str, value: str
) -> None:
    with pytest.raises(InvalidSettings, match=name) as error:
        Settings.from_env({name: value, **SECRETS})
    assert isinstance(error.value, MeteringError)
    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_all_wrong_variables_are_named_at_once() -> None:
    with pytest.raises(InvalidSettings) as error:
        Settings.from_env({"METER_METRICS_PORT": "x", "METER_KAFKA_SASL_MECHANISM": "y"})
    assert "METER_METRICS_PORT" in str(error.value)
    assert "METER_KAFKA_SASL_MECHANISM" in str(error.value)


@given(
    st.fixed_dictionaries(
        {
            "kafka": text,
            "kafka_password": text,
            "webhook_secret": text,
            "alert_floor_usd_per_hour": st.floats(0, allow_nan=False),
            "metrics_port": st.integers(0, 65535),
            "webhooks": st.lists(
                text.filter(lambda t: t.strip() == t != "" and "," not in t), max_size=3
            ).map(tuple),
            "kafka_ca_file": st.none() | st.just("ca.pem"),
        }
    )
)
def test_what_a_child_process_reads_from_its_environment_is_what_its_parent_had(
    values: dict[str, Any],
) -> None:
    settings = Settings(**values)
    env = settings.to_env()
    assert all(name.startswith("METER_") for name in env)
    assert Settings.from_env(env) == settings


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("METER_WEBHOOK", "METER_WEBHOOKS"),
        ("METER_PRICEBOOK", "METER_PRICE_BOOK"),
        ("METER_ALERT_FLOOR", "METER_ALERT_FLOOR_USD_PER_HOUR"),
        ("meter_kafka", "METER_KAFKA"),
        ("METER_LOG_FSYNCH", "METER_LOG_FSYNC"),
        ("METER_METRIC_PORT", "METER_METRICS_PORT"),
        ("METER_XYZZY", None),
    ],
)
def test_a_misspelt_variable_is_a_warning_with_the_nearest_name(
    name: str, near: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    (warning,) = misspelt({"PATH": "/bin", "METER_KAFKA": "k:1", name: SECRET})
    assert name in warning
    assert SECRET not in warning
    assert (f"Is {near} meant?" in warning) if near is not None else ("meant" not in warning)
    Settings.from_env({name: SECRET})
    assert warning in caplog.text


def test_every_variable_that_the_project_reads_is_known() -> None:
    """A variable that is read somewhere and missing in the list would be called misspelt."""
    sources = [
        p
        for room in ("metering", "triton_models", "streams", "sinks")
        for p in (REPO / room).rglob("*.py")
    ]
    read = {name for p in sources for name in re.findall(r'"(METER_[A-Z_]*[A-Z])"', p.read_text())}
    assert {"METER_SIM_SPEEDUP", "METER_JAVA"} <= read
    assert misspelt(dict.fromkeys(read - {"METER_RECEIPT"}, "")) == []  # an output of a model


def test_a_model_in_triton_knows_the_variables_of_every_service() -> None:
    assert {f"METER_{name.upper()}" for name in Settings.model_fields} == OF_SERVICES


def test_what_kubernetes_sets_for_a_service_is_not_misspelt() -> None:
    env = {
        "METER_DETECTOR_SERVICE_HOST": "10.0.0.1",
        "METER_DETECTOR_SERVICE_PORT": "9400",
        "METER_DETECTOR_SERVICE_PORT_METRICS": "9400",
        "METER_DETECTOR_PORT": "tcp://10.0.0.1:9400",
        "METER_DETECTOR_PORT_9400_TCP_ADDR": "10.0.0.1",
    }
    assert misspelt(env) == []


@pytest.mark.parametrize("kafka", ["", "k:1,", "k:port", "k:0", "k:99999", "k:1,http://k:2"])
def test_an_address_of_kafka_that_is_none_is_an_error_that_names_the_variable(kafka: str) -> None:
    with pytest.raises(MeteringError, match="METER_KAFKA"):
        Settings(kafka=kafka).kafka_client()


@pytest.mark.parametrize("kafka", ["kafka", "k:1,k:2", "[::1]:9092", "10.0.0.1:9092, k"])
def test_a_list_of_addresses_of_kafka_is_taken_as_it_is(kafka: str) -> None:
    assert Settings(kafka=kafka).kafka_client()["bootstrap_servers"] == kafka


def test_a_plain_kafka_is_given_neither_tls_nor_credentials() -> None:
    assert Settings(kafka="k:1").kafka_client() == {
        "bootstrap_servers": "k:1",
        "security_protocol": "PLAINTEXT",
        "metadata_max_age_ms": METADATA_MAX_AGE_MS,
    }


@pytest.mark.parametrize(
    ("protocol", "tls", "sasl"),
    [("SSL", True, False), ("SASL_PLAINTEXT", False, True), ("SASL_SSL", True, True)],
)
def test_tls_and_sasl_are_given_where_the_protocol_has_them(
    protocol: str, tls: bool, sasl: bool
) -> None:
    settings = Settings.from_env(
        {
            "METER_KAFKA_SECURITY_PROTOCOL": protocol,
            "METER_KAFKA_USERNAME": "meter",
            **SECRETS,
        }
    )
    client = settings.kafka_client()
    assert client["security_protocol"] == protocol
    assert ("ssl_context" in client) is tls
    if tls:
        context = client["ssl_context"]
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    credentials = {name: value for name, value in client.items() if name.startswith("sasl")}
    wanted = {
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "meter",
        "sasl_plain_password": SECRET,
    }
    assert credentials == (wanted if sasl else {})


def test_a_ca_file_is_the_only_one_that_is_trusted(tmp_path: Path) -> None:
    certificate = create_ssl_context().get_ca_certs(binary_form=True)[0]
    ca_file = tmp_path / "ca.pem"
    ca_file.write_text(ssl.DER_cert_to_PEM_cert(certificate))
    settings = Settings(kafka_security_protocol="SSL", kafka_ca_file=ca_file)
    context = settings.kafka_client()["ssl_context"]
    assert context.get_ca_certs(binary_form=True) == [certificate]


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
def test_a_ca_file_that_can_not_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    settings = Settings(kafka_security_protocol="SSL", kafka_ca_file=ca_file)
    with pytest.raises(InvalidSettings, match=r"METER_KAFKA_CA_FILE=.*ca\.pem"):
        settings.kafka_client()
