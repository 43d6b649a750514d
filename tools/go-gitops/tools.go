//go:build tools

// Package tools names what the manifests that the tests judge are made for: others' kinds, whose CRDs
// are written by controller-gen from their Go types, or, Argo CD's, are files of its module.
package tools

import (
	_ "github.com/argoproj/argo-cd/v3/pkg/apis/application"
	_ "github.com/fluxcd/helm-controller/api/v2"
	_ "github.com/fluxcd/kustomize-controller/api/v1"
	_ "github.com/fluxcd/source-controller/api/v1"
	_ "github.com/openshift/api/security/v1"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
