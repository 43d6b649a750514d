"""Files that follow from others: what the chart holds copies of, its README, and deploy/base.

`python -m chartfiles` (`make chart-docs`) writes them anew. They are committed, since who installs
from a checkout, or lets GitOps do it, has neither make nor helm there; a test holds them equal.
"""

from chartfiles.base import base_files
from chartfiles.copies import copied_files
from chartfiles.readme import readme_file

__all__ = ["base_files", "copied_files", "readme_file"]
