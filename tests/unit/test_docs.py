"""The documentation says what the code says."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from peacemaker.parse import parse_policies
from peacemaker.signals import SIGNALS
from peacemaker_nodeagent.cli import main

ROOT = Path(__file__).parents[2]


def test_the_policy_reference_lists_every_signal_as_the_table_has_it() -> None:
    rows = [
        f"| `{s.name}` | {s.type.value} | {s.unit or '-'} | {s.meaning} | {s.source} |"
        for s in SIGNALS.values()
    ]
    text = (ROOT / "docs/policy.md").read_text()
    listed = [line for line in text.splitlines() if line.startswith(("| `node.", "| `vm."))]
    assert listed == rows


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return [part.split("```")[0] for part in text.split(f"```{language}\n")[1:]]


@pytest.mark.parametrize("document", ["README.md", "docs/policy.md"])
def test_policies_shown_in_documents_are_valid(document: str) -> None:
    policies = [b for b in blocks(document, "yaml") if "kind: PeacePolicy" in b]
    assert policies
    for text in policies:
        assert parse_policies(text, document)


def test_the_readme_shows_the_seed_policy_as_it_is_shipped() -> None:
    shipped = parse_policies((ROOT / "policies/seed-figure-7.yaml").read_bytes(), "shipped")
    shown = parse_policies(blocks("README.md", "yaml")[0], "README.md")
    assert shown == shipped


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs/agent.md").read_text()
    for command in main.commands:
        assert f"peacemaker-agent {command}" in text
        assert CliRunner().invoke(main, [command, "--help"]).exit_code == 0
