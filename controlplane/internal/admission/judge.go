package admission

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	admissionv1 "k8s.io/api/admission/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
	"github.com/ambit-mesh/ambit/controlplane/internal/source/kube"
)

const (
	// patience is how long an object with findings waits for the mesh to be heard of
	// what was written just before: a Gateway in the same file, say.
	patience = 500 * time.Millisecond
	// waiting is how many may wait at a time; others are answered at once.
	waiting = 32
	// maxWarnings is how many findings are said of an object, and maxLength how many bytes
	// of each: API servers cut off what is longer than 4096 bytes in all.
	maxWarnings, maxLength = 8, 480
)

// Mesh is what objects are judged by.
type Mesh interface {
	// Preview gives what would be found of an object if it were written now.
	Preview(graph.Object) []compile.Finding
}

// judge answers reviews.
type judge struct {
	mesh Mesh
	// await returns when a condition holds of the mesh, or ctx ends.
	await   func(ctx context.Context, holds func() bool) error
	slots   chan struct{} // capacity waiting
	log     *zap.Logger
	reviews *prometheus.CounterVec
}

// NewHandler gives what answers an API server's reviews of objects. It takes in 7 MB
// at most, the size of a review of the largest objects there can be.
func NewHandler(m Mesh, await func(ctx context.Context, holds func() bool) error, log *zap.Logger, reg prometheus.Registerer) (http.Handler, error) {
	j := &judge{
		mesh: m, await: await, slots: make(chan struct{}, waiting), log: log,
		reviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ambit_controlplane_admission_reviews_total", Help: "Objects reviewed before they were written, by what was said of them: nothing, warning or unreadable.",
		}, []string{"said"}),
	}
	if err := reg.Register(j.reviews); err != nil {
		return nil, fmt.Errorf("admission: metrics: %w", err)
	}
	hook := &admission.Webhook{
		Handler: j,
		// What is no review is whoever's sent it: the answer says so, and the log stays ours.
		LogConstructor: func(logr.Logger, *admission.Request) logr.Logger { return logr.Discard() },
	}
	// A panic ends the request without an answer, which an API server passes over.
	return hook.WithRecoverPanic(false), nil
}

var _ admission.Handler = (*judge)(nil)

// Handle implements admission.Handler. It allows everything.
func (j *judge) Handle(ctx context.Context, req admission.Request) admission.Response {
	if req.Operation != admissionv1.Create && req.Operation != admissionv1.Update || req.SubResource != "" {
		return j.say("nothing", nil)
	}
	obj, err := kube.Decode(schema.GroupKind{Group: req.Kind.Group, Kind: req.Kind.Kind}, req.Object.Raw)
	if err != nil {
		// Of another version than ours, say: its status tells what comes of it.
		j.log.Warn("object for review not read", zap.String("kind", req.Kind.Kind), zap.String("namespace", req.Namespace), zap.String("name", req.Name), zap.Error(err))
		return j.say("unreadable", nil)
	}
	if obj == nil || obj.GetDeletionTimestamp() != nil {
		return j.say("nothing", nil)
	}
	if obj.GetNamespace() == "" {
		obj.SetNamespace(req.Namespace)
	}
	findings := j.findings(ctx, obj)
	if len(findings) == 0 {
		return j.say("nothing", nil)
	}
	return j.say("warning", warnings(findings))
}

// findings gives what is found of an object, now or once what was written just before
// has been heard of.
func (j *judge) findings(ctx context.Context, obj graph.Object) []compile.Finding {
	findings := j.mesh.Preview(obj)
	if len(findings) == 0 {
		return nil
	}
	select {
	case j.slots <- struct{}{}:
		defer func() { <-j.slots }()
	default:
		return findings
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Nothing is left to be said, or this is what there is to say.
	_ = j.await(ctx, func() bool {
		findings = j.mesh.Preview(obj)
		return len(findings) == 0
	})
	return findings
}

func (j *judge) say(what string, warnings []string) admission.Response {
	j.reviews.WithLabelValues(what).Inc()
	return admission.Allowed("").WithWarnings(warnings...)
}

// warnings gives findings as lines.
func warnings(findings []compile.Finding) []string {
	out := make([]string, 0, min(len(findings), maxWarnings+1))
	for i, f := range findings {
		if i == maxWarnings {
			out = append(out, fmt.Sprintf("ambit: and %d more: see ambit status", len(findings)-i))
			break
		}
		text := f.Message
		if f.Field != "" {
			text = f.Field + ": " + text
		}
		out = append(out, "ambit: "+line(text))
	}
	return out
}

// line gives text as one line that can be the value of an HTTP header.
func line(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > maxLength {
		text = strings.ToValidUTF8(text[:maxLength], "") + " ..."
	}
	return text
}
