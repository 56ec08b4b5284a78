package admission

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/ambit-mesh/ambit/controlplane/compile"
	"github.com/ambit-mesh/ambit/controlplane/graph"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// never is a mesh of which nothing new is heard.
func never(ctx context.Context, holds func() bool) error {
	if holds() {
		return nil
	}
	return errors.New("nothing heard")
}

type meshFunc func(graph.Object) []compile.Finding

func (f meshFunc) Preview(o graph.Object) []compile.Finding { return f(o) }

func handler(t testing.TB, m Mesh, await func(context.Context, func() bool) error) (http.Handler, *prometheus.Registry) {
	t.Helper()
	reg := prometheus.NewRegistry()
	h, err := NewHandler(m, await, zaptest.NewLogger(t), reg)
	if err != nil {
		t.Fatal(err)
	}
	return h, reg
}

func post(h http.Handler, body []byte) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodPost, "/", bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func review(kind, object string) []byte {
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "u", Operation: admissionv1.Create, Namespace: "shop", Name: "r",
			Kind:   metav1.GroupVersionKind{Group: gatewayv1.GroupName, Version: "v1", Kind: kind},
			Object: runtime.RawExtension{Raw: []byte(object)},
		},
	})
	if err != nil {
		panic(err)
	}
	return body
}

func answer(t *testing.T, h http.Handler, body []byte) *admissionv1.AdmissionResponse {
	t.Helper()
	w := post(h, body)
	var got admissionv1.AdmissionReview
	if err := json.NewDecoder(w.Body).Decode(&got); err != nil || got.Response == nil {
		t.Fatalf("status %d, %v", w.Code, err)
	}
	if !got.Response.Allowed || got.Response.UID != "u" {
		t.Errorf("allowed %t, uid %q", got.Response.Allowed, got.Response.UID)
	}
	return got.Response
}

const someRoute = `{"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {"hostnames": ["a.example"]}}`

func TestFindingsAreWarnings(t *testing.T) {
	var seen graph.Object
	h, reg := handler(t, meshFunc(func(o graph.Object) []compile.Finding {
		seen = o
		return []compile.Finding{{Field: "spec.rules[0]", Message: "goes\nnowhere"}, {Message: "no waypoint"}}
	}), never)
	got := answer(t, h, review("HTTPRoute", someRoute))
	if want := []string{"ambit: spec.rules[0]: goes nowhere", "ambit: no waypoint"}; fmt.Sprint(got.Warnings) != fmt.Sprint(want) {
		t.Errorf("warnings %q, want %q", got.Warnings, want)
	}
	r, ok := seen.(*gatewayv1.HTTPRoute)
	if !ok || r.Namespace != "shop" || r.Name != "r" || len(r.Spec.Hostnames) != 1 {
		t.Errorf("judged %+v", seen)
	}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(`
# HELP ambit_controlplane_admission_reviews_total Objects reviewed before they were written, by what was said of them: nothing, warning or unreadable.
# TYPE ambit_controlplane_admission_reviews_total counter
ambit_controlplane_admission_reviews_total{said="warning"} 1
`)); err != nil {
		t.Error(err)
	}
}

// TestWhatWasWrittenJustBefore: a finding that goes when the mesh hears of more is
// never said.
func TestWhatWasWrittenJustBefore(t *testing.T) {
	heard := false
	h, _ := handler(t, meshFunc(func(graph.Object) []compile.Finding {
		if heard {
			return nil
		}
		return []compile.Finding{{Message: "no waypoint"}}
	}), func(ctx context.Context, holds func() bool) error {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("it is waited for without a bound")
		}
		if holds() {
			t.Error("it holds already")
		}
		heard = true
		if !holds() {
			t.Error("it does not hold")
		}
		return nil
	})
	if got := answer(t, h, review("HTTPRoute", someRoute)); len(got.Warnings) > 0 {
		t.Errorf("warnings %q", got.Warnings)
	}
}

// TestFewWait: a crowd of objects with findings is not kept waiting.
func TestFewWait(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	h, _ := handler(t, meshFunc(func(graph.Object) []compile.Finding { return []compile.Finding{{Message: "wrong"}} }),
		func(context.Context, func() bool) error {
			held <- struct{}{}
			<-release
			return nil
		})
	done := make(chan struct{})
	for range waiting {
		go func() {
			post(h, review("HTTPRoute", someRoute))
			done <- struct{}{}
		}()
		<-held
	}
	if got := answer(t, h, review("HTTPRoute", someRoute)); len(got.Warnings) != 1 {
		t.Errorf("warnings %q", got.Warnings)
	}
	close(release)
	for range waiting {
		<-done
	}
}

func TestWhatIsNotJudged(t *testing.T) {
	h, reg := handler(t, meshFunc(func(o graph.Object) []compile.Finding {
		t.Errorf("judged: %+v", o)
		return nil
	}), never)
	for name, body := range map[string][]byte{
		"a kind of somebody else":  review("Sizes", `{"kind": "Sizes"}`),
		"an object that is going":  review("HTTPRoute", `{"kind": "HTTPRoute", "metadata": {"name": "r", "deletionTimestamp": "2026-01-01T00:00:00Z"}}`),
		"an object of other types": review("HTTPRoute", `{"kind": "HTTPRoute", "spec": {"rules": 1}}`),
		"a deletion":               bytes.Replace(review("HTTPRoute", someRoute), []byte("CREATE"), []byte("DELETE"), 1),
		"a status":                 bytes.Replace(review("HTTPRoute", someRoute), []byte(`"name":"r",`), []byte(`"name":"r","subResource":"status",`), 1),
	} {
		t.Run(name, func(t *testing.T) {
			if got := answer(t, h, body); len(got.Warnings) > 0 {
				t.Errorf("warnings %q", got.Warnings)
			}
		})
	}
	if n, err := testutil.GatherAndCount(reg); n != 2 || err != nil {
		t.Errorf("%d series, %v", n, err)
	}
}

func TestWarningsAreBounded(t *testing.T) {
	findings := make([]compile.Finding, 20)
	for i := range findings {
		findings[i].Message = strings.Repeat("é\x00\r\n", 1000)
	}
	got := warnings(findings)
	if len(got) != maxWarnings+1 || got[maxWarnings] != "ambit: and 12 more: see ambit status" {
		t.Errorf("%d warnings, the last %q", len(got), got[len(got)-1])
	}
	total := 0
	for _, w := range got {
		total += len(w)
		if strings.ContainsAny(w, "\x00\r\n") {
			t.Errorf("%q", w)
		}
	}
	if total > 4096 {
		t.Errorf("%d bytes", total)
	}
}

// FuzzReview: whatever is sent, a review that can be read is allowed, and what is none
// is answered as an error.
func FuzzReview(f *testing.F) {
	f.Add([]byte("{}"))
	f.Add([]byte(`{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}`))
	f.Add(review("HTTPRoute", someRoute))
	f.Add(review("Gateway", `{"metadata": {"labels": {"a": null}}}`))
	c, err := compile.New(compile.Options{})
	if err != nil {
		f.Fatal(err)
	}
	h, _ := handler(f, c, never)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := post(h, body)
		text, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		var got admissionv1.AdmissionReview
		if err := json.Unmarshal(text, &got); err != nil || got.Response == nil {
			t.Fatalf("%q: %v", text, err)
		}
		if r := got.Response; !r.Allowed && (r.Result == nil || r.Result.Code < 400) {
			t.Errorf("denied without a reason: %s", text)
		}
	})
}
