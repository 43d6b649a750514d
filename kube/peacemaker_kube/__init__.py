"""What operator and agent share of Kubernetes: asking the API server, and keeping lists of it."""
