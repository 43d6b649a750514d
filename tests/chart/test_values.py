"""values.yaml, its schema and the chart's README say the same, and refuse what is wrong."""

import json
from typing import Any

import pytest
import yaml

from chartfiles import copied_files, readme_file
from chartfiles.helm import HelmError
from chartfiles.paths import CHART, ROOT
from chartfiles.readme import values
from peacemaker import __version__
from tests.chart.rendering import render

SCHEMA = json.loads((CHART / "values.schema.json").read_bytes())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_bytes())


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("foo", 1, "at '': additional properties 'foo' not allowed"),
        ("operator.replica", 2, "at '/operator': additional properties 'replica' not allowed"),
        ("operator.replicas", 0, "at '/operator/replicas': minimum: got 0, want 1"),
        ("operator.replicas", "2", "at '/operator/replicas': got string, want integer"),
        ("operator.logLevel", "loud", "at '/operator/logLevel': value must be one of"),
        ("operator.statusInterval", "30", "at '/operator/statusInterval': '30' does not match"),
        ("operator.statusInterval", 30, "at '/operator/statusInterval': got number, want string"),
        ("operator.image.digest", "sha256:1", "at '/operator/image/digest': 'sha256:1' does not"),
        ("operator.image.repository", "", "at '/operator/image/repository': '' does not match"),
        (
            "operator.resources",
            {"limits": {"memry": "1Gi"}},
            "at '/operator/resources/limits': additional properties 'memry' not allowed",
        ),
        (
            "operator.resources",
            {"limits": {"memory": "1GB"}},
            "at '/operator/resources/limits/memory': '1GB' does not match",
        ),
        (
            "operator.tolerations",
            [{"operator": "Maybe"}],
            "at '/operator/tolerations/0/operator': value must be one of",
        ),
        ("operator.nodeSelector", {"a": True}, "at '/operator/nodeSelector/a': got boolean"),
        ("agent.maxUnavailable", "0%", "at '/agent/maxUnavailable': '0%' does not match"),
        ("agent.maxUnavailable", 0, "at '/agent/maxUnavailable': minimum: got 0, want 1"),
        ("agent.statusInterval", 0.5, "at '/agent/statusInterval': minimum: got 0.5, want 1"),
        ("agent.seLinuxType", "spc t", "at '/agent/seLinuxType': 'spc t' does not match"),
        ("agent.privileged", True, "at '/agent': additional properties 'privileged' not allowed"),
        ("image.pullPolicy", "Sometimes", "at '/image/pullPolicy': value must be one of"),
        ("image.tag", "a b", "at '/image/tag': 'a b' does not match"),
        ("image.pullSecrets", ["A"], "at '/image/pullSecrets/0': 'A' does not match"),
        ("settings.maxClaimPercent", 99, "at '/settings/maxClaimPercent': minimum: got 99"),
        ("settings.maxClaimPercent", 10001, "at '/settings/maxClaimPercent': maximum: got 10,001"),
        ("settings.suspended", True, "at '/settings': additional properties 'suspended' not"),
        ("policies.shipped", ["demo"], "at '/policies/shipped/0': value must be one of"),
        ("monitoring.enabled", "yes", "at '/monitoring/enabled': got string, want boolean"),
        ("webhook", None, "at '': missing property 'webhook'"),
        ("uninstall.timeout", "2 m", "at '/uninstall/timeout': '2 m' does not match"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(key: str, value: Any, said: str) -> None:
    with pytest.raises(HelmError) as refusal:
        render(None, f"--set-json={key}={json.dumps(value)}")
    assert said in str(refusal.value)


def every_schema(schema: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    if isinstance(schema, list):
        return [each for item in schema for each in every_schema(item, path)]
    if not isinstance(schema, dict):
        return []
    inner = [each for key, value in schema.items() for each in every_schema(value, f"{path}/{key}")]
    return [(path, schema), *inner]


def test_no_object_of_the_schema_takes_what_it_does_not_know() -> None:
    for path, schema in every_schema(SCHEMA):
        if schema.get("type") == "object" and not path.endswith("/global"):
            assert "additionalProperties" in schema, path
            assert schema["additionalProperties"] is not True, path


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    found: dict[str, Any] = (
        SCHEMA["definitions"][reference.rsplit("/", 1)[1]] if reference else schema
    )
    return found


def test_the_schema_requires_each_value_that_has_a_default_and_knows_no_other() -> None:
    def compare(schema: dict[str, Any], defaults: dict[str, Any], path: str) -> None:
        schema = resolved(schema)
        if "required" not in schema:
            return
        known = set(schema["properties"]) - {"global"}
        assert known == set(defaults) == set(schema["required"]), path
        for key, value in defaults.items():
            if isinstance(value, dict):
                compare(schema["properties"][key], value, f"{path}.{key}")

    compare(SCHEMA, DEFAULTS, "")


def test_the_readme_is_up_to_date_and_has_each_value() -> None:
    ((file, text),) = readme_file().items()
    assert file.read_text() == text, "run `make chart-docs`"
    documented = {value.path for value in values()}
    for section, content in DEFAULTS.items():
        assert {path for path in documented if path[:1] == (section,)}
        for key in content:
            assert any(path[:2] == (section, key) for path in documented), f"{section}.{key}"


def test_crds_and_policies_of_the_chart_are_those_of_the_repository() -> None:
    copies = copied_files()
    assert {file: file.read_text() for file in copies} == copies, "run `make chart-docs`"
    held = {*(CHART / "crds").iterdir(), *(CHART / "policies").iterdir()}
    assert held == set(copies)
    shipped = SCHEMA["properties"]["policies"]["properties"]["shipped"]["items"]["enum"]
    assert sorted(shipped) == sorted(file.stem for file in (CHART / "policies").iterdir())


def test_the_chart_has_the_products_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_bytes())
    assert chart["version"] == chart["appVersion"] == __version__
    overlay = (ROOT / "deploy/overlays/example/kustomization.yaml").read_text()
    assert overlay.count(f"newTag: {__version__}\n") == 2
