"""Add Debian's packages to a bill of materials of Python's: `sbom.py python.cdx.json status.d`.

The result is CycloneDX JSON on stdout, held to the format's schema. status.d holds one control file
a package.
"""

import json
import sys
from email.parser import HeaderParser
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL


def debian_component(control: str) -> Component:
    """The component of a Debian package, by its control file."""
    fields = HeaderParser().parsestr(control)
    name, version = fields["Package"], fields["Version"]
    qualifiers = {"arch": fields["Architecture"], "distro": "debian-12"}
    purl = PackageURL("deb", "debian", name, version, qualifiers)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        description=fields["Description"].splitlines()[0],
        purl=purl,
        bom_ref=str(purl),
    )


def main(python: Path, status: Path) -> None:
    """Print the bill of both; an error of the schema ends the build."""
    bom: Bom = Bom.from_json(json.loads(python.read_bytes()))
    bom.components.update(debian_component(file.read_text()) for file in status.iterdir())
    text = JsonV1Dot6(bom).output_as_string(indent=2)
    if errors := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text):
        sys.exit(f"the bill of materials is not as CycloneDX 1.6 wants it: {errors}")
    print(text)


main(Path(sys.argv[1]), Path(sys.argv[2]))
