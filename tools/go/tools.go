//go:build tools

// Package tools names the programs that the tests build from Go modules, so that `go mod tidy`
// keeps what they need. kube-apiserver cannot be installed by its path alone: its own go.mod points
// its staging modules at folders of its repository, so go.mod here points them at their releases.
package tools

import (
	_ "go.etcd.io/etcd/server/v3"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)
