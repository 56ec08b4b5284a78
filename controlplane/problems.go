package controlplane

import (
	"slices"

	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/manifest"
)

// Problems takes all that is wrong with the manifests now, and logs what is new
// and what is settled.
func (e *engine) Problems(now []manifest.Problem) {
	e.mu.Lock()
	before := e.problems
	e.problems = slices.Clone(now)
	e.mu.Unlock()
	e.metrics.problems.Set(float64(len(now)))
	for _, p := range missing(before, now) {
		e.log.Warn("manifest problem; the last good state keeps serving", problemFields(p)...)
	}
	for _, p := range missing(now, before) {
		e.log.Info("manifest problem settled", problemFields(p)...)
	}
}

func (e *engine) currentProblems() []manifest.Problem {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.problems
}

// missing gives what of b is not in a.
func missing(a, b []manifest.Problem) []manifest.Problem {
	known := make(map[manifest.Problem]struct{}, len(a))
	for _, p := range a {
		known[p] = struct{}{}
	}
	return slices.DeleteFunc(slices.Clone(b), func(p manifest.Problem) bool {
		_, ok := known[p]
		return ok
	})
}

func problemFields(p manifest.Problem) []zap.Field {
	return []zap.Field{zap.Stringer("at", p.Position), zap.String("object", p.Object), zap.String("field", p.Field), zap.String("detail", p.Message)}
}
