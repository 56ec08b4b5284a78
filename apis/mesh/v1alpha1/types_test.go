package v1alpha1_test

import (
	"encoding/json"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/ambit-mesh/ambit/apis/mesh/v1alpha1"
)

func TestAddToScheme(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{
		v1alpha1.KindAuthorizationPolicy, v1alpha1.KindPeerAuthentication, v1alpha1.KindRetryPolicy, v1alpha1.KindTimeoutPolicy,
		v1alpha1.KindFaultInjection, v1alpha1.KindRateLimitPolicy, v1alpha1.KindLoadBalancingPolicy, v1alpha1.KindCircuitBreakerPolicy,
		v1alpha1.KindOutlierDetectionPolicy, v1alpha1.KindHealthCheckPolicy, v1alpha1.KindSessionPersistencePolicy,
		v1alpha1.KindJWTAuthentication, v1alpha1.KindExternalAuthorizationPolicy, v1alpha1.KindTracingPolicy,
	} {
		for _, k := range []string{kind, kind + "List"} {
			if _, err := scheme.New(v1alpha1.GroupVersion().WithKind(k)); err != nil {
				t.Error(err)
			}
		}
	}
}

// An empty list of sources matches nobody and a missing one anybody, so the
// difference must not get lost on the way to the API server and back.
func TestEmptySourcesStayEmpty(t *testing.T) {
	for text, want := range map[string]bool{"{sources: []}": true, "{}": false, "{sources: null}": false} {
		rule := &v1alpha1.AuthorizationRule{}
		if err := yaml.Unmarshal([]byte(text), rule); err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(rule.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(b), `"sources":[]`); got != want {
			t.Errorf("%s becomes %s", text, b)
		}
	}
}

func TestLabelSelector(t *testing.T) {
	var none *v1alpha1.PodSelector
	if none.LabelSelector() != nil {
		t.Error("no selector becomes one")
	}
	selector := &v1alpha1.PodSelector{}
	if err := yaml.UnmarshalStrict([]byte(`{matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d]}]}`), selector); err != nil {
		t.Fatal(err)
	}
	got := selector.LabelSelector()
	if got.MatchLabels["a"] != "b" || got.MatchExpressions[0].Key != "c" || got.MatchExpressions[0].Values[0] != "d" {
		t.Errorf("got %+v", got)
	}
}
