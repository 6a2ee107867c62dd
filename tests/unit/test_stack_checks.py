"""What is refused before the stack starts anything."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from metering.errors import MeteringError
from streams.settings import Settings
from streams.stack.checks import check_settings


@pytest.mark.parametrize("secret", ["whsec_", "whsec_hunter2!", "whsec_a"])
def test_a_webhook_secret_that_no_detector_takes_is_refused_unshown(secret: str) -> None:
    with pytest.raises(MeteringError, match=r"^METER_WEBHOOK_SECRET: ") as caught:
        check_settings(Settings(webhook_secret=SecretStr(secret)))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("secret", ["", "plain", "whsec_aHVudGVyMg", "whsec_aHVudGVyMg=="])
def test_other_webhook_secrets_are_not(secret: str) -> None:
    check_settings(Settings(webhook_secret=SecretStr(secret)))
