"""What is set for the whole system, in one ConfigMap; a wrong value moves nothing."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

CONFIG_MAP: Final = "peacemaker"
MAX_CLAIM_PERCENT: Final = "maxClaimPercent"
SUSPENDED: Final = "suspended"

_PERCENT = re.compile(r"[0-9]{1,5}")
_PERCENTS = range(100, 10_000 + 1)
_SWITCH: Final = {"true": True, "false": False}
_SHOWN_LENGTH: Final = 64


@dataclass(frozen=True, slots=True)
class Settings:
    """The PeaceLists' maxClaimPercent (100..10000), and whether everything is to be restored."""

    max_claim_percent: int = 100
    suspended: bool = False


@dataclass(frozen=True, slots=True)
class ConfigMapRecord:
    """What is needed of the ConfigMap. `data` is in order of key."""

    uid: str
    namespace: str
    data: tuple[tuple[str, str], ...]


def config_map_record(document: Mapping[str, Any]) -> ConfigMapRecord:
    """The record of a v1 ConfigMap."""
    metadata = document["metadata"]
    data = document.get("data") or {}
    return ConfigMapRecord(metadata["uid"], metadata["namespace"], tuple(sorted(data.items())))


@dataclass(frozen=True, slots=True)
class WrongSetting:
    """A value that is not taken."""

    key: str
    value: str
    allowed: str

    def __str__(self) -> str:
        shown = self.value[:_SHOWN_LENGTH]
        return f"data.{self.key} is {shown!r}: allowed {self.allowed}; the last known value stays"


def read_settings(
    data: Mapping[str, str], last: Settings
) -> tuple[Settings, tuple[WrongSetting, ...]]:
    """The settings that the ConfigMap's data mean, and what is wrong with them.

    A key that is absent means its default, a wrong value the last known one.
    """
    settings, wrong = Settings(), []
    percent = data.get(MAX_CLAIM_PERCENT)
    if percent is not None:
        text = percent.strip()
        if _PERCENT.fullmatch(text) and int(text) in _PERCENTS:
            settings = replace(settings, max_claim_percent=int(text))
        else:
            settings = replace(settings, max_claim_percent=last.max_claim_percent)
            wrong.append(WrongSetting(MAX_CLAIM_PERCENT, percent, "a whole number 100..10000"))
    switch = data.get(SUSPENDED)
    if switch is not None:
        suspended = _SWITCH.get(switch.strip())
        if suspended is None:
            wrong.append(WrongSetting(SUSPENDED, switch, '"true" or "false"'))
            suspended = last.suspended
        settings = replace(settings, suspended=suspended)
    return settings, tuple(wrong)
