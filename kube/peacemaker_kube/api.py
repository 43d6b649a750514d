"""Asking the API server: plain documents in, plain documents out.

Connections, credentials and their renewal are the official client's; its typed models, which cost
an agent tens of megabytes, are not used.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self, TypeAlias

import urllib3
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from kubernetes.config.kube_config import list_kube_config_contexts
from kubernetes.watch.watch import iter_resp_lines

Document: TypeAlias = dict[str, Any]

MERGE_PATCH: Final = "application/merge-patch+json"

_TIMEOUT: Final = (5.0, 30.0)
"""Seconds to connect, and to wait for more of an answer."""

_CONNECTIONS: Final = 32
"""Kept open at most: the operator's watches and writers all at work use half of them."""

_NAMESPACE_FILE: Final = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"


class ConfigError(Exception):
    """No way to the API server is configured; the text says what was looked for."""


class ApiUnreachable(Exception):
    """The API server gave no answer, or none that could be understood."""


@dataclass(frozen=True, slots=True)
class Cause:
    """One thing that the API server has against a document."""

    field: str
    message: str


class ApiError(Exception):
    """The API server refused. `status` is the HTTP code, `reason` a word like NotFound."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        self.status = status
        self.reason = str(document.get("reason") or "")
        self.message = str(document.get("message") or f"HTTP status {status}")
        details = document.get("details")
        causes = details.get("causes") if isinstance(details, dict) else None
        self.causes = tuple(
            Cause(str(each.get("field", "")), str(each.get("message", ""))) for each in causes or ()
        )
        super().__init__(self.message)


class Lines:
    """The lines of a watch as they come; `close` ends it, from another thread as well."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        self._response = response
        self._is_closed = False

    def __iter__(self) -> Iterator[str]:
        """Raises ApiUnreachable when the connection breaks."""
        try:
            yield from iter_resp_lines(self._response)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise ApiUnreachable(f"the watch broke off: {error}") from None
        except AttributeError:
            if not self._is_closed:  # http.client's, whose file `close` took away from it
                raise

    def close(self) -> None:
        """End the reading; the connection is not used again."""
        self._is_closed = True
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # it may have ended of itself
            self._response.shutdown()
        self._response.close()


class Api:
    """One API server, and who we are to it. Threads may share it."""

    def __init__(self, configuration: Configuration, namespace: str = "default") -> None:
        configuration.keep_alive = True  # a peer that is gone is noticed, also by a silent watch
        configuration.connection_pool_maxsize = _CONNECTIONS
        configuration.retries = False  # whoever asks knows what to do when there is no answer
        self.client = ApiClient(configuration)
        self.namespace = namespace

    @classmethod
    def load(cls, kubeconfig: str | None = None) -> Self:
        """The server of a kubeconfig file; without one, that of the pod, then of $KUBECONFIG.

        Raises ConfigError.
        """
        configuration = Configuration()
        try:
            if kubeconfig is None:
                try:
                    load_incluster_config(client_configuration=configuration)
                except ConfigException:
                    pass
                else:
                    return cls(configuration, _own_namespace())
            load_kube_config(config_file=kubeconfig, client_configuration=configuration)
            _, context = list_kube_config_contexts(config_file=kubeconfig)
        except (ConfigException, OSError) as error:
            where = kubeconfig or "the pod's service account, $KUBECONFIG, ~/.kube/config"
            raise ConfigError(f"no API server is configured in {where}: {error}") from None
        return cls(configuration, context["context"].get("namespace") or "default")

    def get(self, path: str, **query: str) -> Document:
        return self._ask("GET", path, query)

    def create(self, path: str, body: Document, **query: str) -> Document:
        """POST. Raises ApiError 409 (AlreadyExists) where there is one of this name."""
        return self._ask("POST", path, query, body)

    def replace(self, path: str, body: Document, **query: str) -> Document:
        """PUT. Raises ApiError 409 (Conflict) if `metadata.resourceVersion` is not the newest."""
        return self._ask("PUT", path, query, body)

    def patch(self, path: str, body: Document, **query: str) -> Document:
        """A JSON merge patch. With `metadata.resourceVersion` in it, as with `replace`."""
        return self._ask("PATCH", path, query, body, MERGE_PATCH)

    def delete(self, path: str, **query: str) -> Document:
        return self._ask("DELETE", path, query)

    def watch(self, path: str, *, timeout: float, **query: str) -> Lines:
        """A watch that the server ends after `timeout` seconds. Raises ApiError, ApiUnreachable."""
        query |= {"watch": "true", "timeoutSeconds": f"{timeout:.0f}"}
        response = self._send("GET", path, query, None, "", (_TIMEOUT[0], timeout + _TIMEOUT[1]))
        if response.status >= 400:
            raise ApiError(response.status, _document(response))
        return Lines(response)

    def close(self) -> None:
        """Close the connections that are kept open."""
        self.client.rest_client.close()

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None = None,
        content: str = "application/json",
    ) -> Document:
        response = self._send(method, path, query, body, content, _TIMEOUT)
        document = _document(response)
        if response.status >= 400:
            raise ApiError(response.status, document)
        return document

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None,
        content: str,
        timeout: tuple[float, float],
    ) -> urllib3.BaseHTTPResponse:
        headers = {"Accept": "application/json", **({"Content-Type": content} if content else {})}
        request = self.client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        try:
            answer = self.client.rest_client.request(
                request[0], request[1], headers=request[2], body=request[3],
                _request_timeout=timeout,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise ApiUnreachable(str(error)) from None
        response: urllib3.BaseHTTPResponse = answer.response
        return response


def _document(response: urllib3.BaseHTTPResponse) -> Document:
    """The answer's document. What stands before the server may answer something else."""
    try:
        document = json.loads(response.data)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ApiUnreachable(f"the answer broke off: {error}") from None
    except ValueError:
        document = None
    if response.status >= 400 and not isinstance(document, dict):
        return {}  # an unknown path is answered in plain text
    if not isinstance(document, dict):
        raise ApiUnreachable(f"HTTP status {response.status} without a JSON object")
    return document


def _own_namespace() -> str:
    with open(_NAMESPACE_FILE, encoding="utf-8") as file:
        return file.read().strip()
