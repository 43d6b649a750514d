// Command health says what Flux makes of objects: it reads {"exprs": …, "objects": […]} and writes,
// for each object, what kstatus says and what the health check expressions say.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type input struct {
	Exprs   kustomize.HealthCheckExpressions `json:"exprs"`
	Objects []unstructured.Unstructured      `json:"objects"`
}

func judge() error {
	var in input
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	evaluator, err := cel.NewStatusEvaluator(&in.Exprs)
	if err != nil {
		return err
	}
	out := [][2]status.Status{}
	for _, object := range in.Objects {
		generic, err := status.Compute(&object)
		if err != nil {
			return err
		}
		own, err := evaluator.Evaluate(context.Background(), &object)
		if err != nil { // as where an expression meets a field that is not there yet: Flux asks again
			own = &status.Result{Status: status.UnknownStatus}
		}
		out = append(out, [2]status.Status{generic.Status, own.Status})
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func main() {
	if err := judge(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
