"""What the webhook has done so far, for whoever counts."""

import threading


class WebhookFigures:
    """Of any thread.

    `reviews` counts policies judged by what became of them. `certificate_expiry` is in seconds
    since the epoch, None while nothing is served that is to be trusted.
    """

    def __init__(self) -> None:
        self.reviews = dict.fromkeys(("allowed", "refused", "failed"), 0)
        self.certificate_expiry: float | None = None
        self._counting = threading.Lock()

    def count(self, result: str) -> None:
        """Count one review; kopf runs several at a time."""
        with self._counting:
            self.reviews[result] += 1
