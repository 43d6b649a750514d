"""Asking the API server: plain documents in, plain documents out, refusals with their causes."""

import json
from dataclasses import dataclass
from typing import Any

from kubernetes.client import ApiClient

Document = dict[str, Any]

GROUP = "/apis/peacemaker.dev/v1alpha1"
POLICIES = f"{GROUP}/peacepolicies"
LISTS = f"{GROUP}/peacelists"

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
STRICT_TRIAL = {"dryRun": "All", "fieldValidation": "Strict"}
"""Judge a document as `kubectl apply` does, unknown fields included, and store nothing."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that the API server has against a document."""

    field: str
    message: str


class Refused(Exception):
    """The API server refused; `causes` is empty where it gave none, `message` is all it said."""

    def __init__(self, status: Document) -> None:
        super().__init__(status["message"])
        self.code: int = status["code"]
        self.message: str = status["message"]
        self.causes = tuple(
            Cause(cause.get("field", ""), cause["message"])
            for cause in status.get("details", {}).get("causes", ())
        )


def ask(
    api: ApiClient,
    method: str,
    path: str,
    body: Document | None = None,
    *,
    accept: str = "application/json",
    content: str = "application/json",
    **query: str,
) -> Any:
    """The answer's document. Raises Refused."""
    request = api.param_serialize(
        method,
        path,
        query_params=list(query.items()),
        header_params={"Accept": accept, "Content-Type": content},
        body=body,
        auth_settings=["BearerToken"],
    )
    response = api.rest_client.request(request[0], request[1], headers=request[2], body=request[3])
    answer = json.loads(response.read())
    if response.status >= 400:
        raise Refused(answer)
    return answer
