package local

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// to sends every request to a test server.
type to struct{ server *url.URL }

func (t to) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Host = t.server.Host
	return http.DefaultTransport.RoundTrip(r)
}

func TestReadyPodsThatAZtunnelHasNotHeardOf(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"workloads": [
			{"namespace": "shop", "name": "web", "workloadIps": ["10.0.0.1", "fd00::1"], "status": "Healthy"},
			{"namespace": "shop", "name": "cart", "workloadIps": ["10.0.0.2"], "status": "Unhealthy"}]}`))
	}))
	defer server.Close()
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	healthy, err := askZtunnel(&http.Client{Transport: to{at}})
	if err != nil {
		t.Fatal(err)
	}
	pod := func(name, ip string, ready corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Status: corev1.PodStatus{
			PodIP: ip, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
		}}
	}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"known":                       {pod("web", "10.0.0.1", corev1.ConditionTrue), ""},
		"not ready, and known so":     {pod("cart", "10.0.0.2", corev1.ConditionFalse), ""},
		"ready, and not known so yet": {pod("cart", "10.0.0.2", corev1.ConditionTrue), "shop/cart at 10.0.0.2"},
		"not known at all":            {pod("pay", "10.0.0.3", corev1.ConditionTrue), "shop/pay at 10.0.0.3"},
		"known is its predecessor":    {pod("web", "10.0.0.9", corev1.ConditionTrue), "shop/web at 10.0.0.9"},
	} {
		if got := firstUnknown([]*corev1.Pod{tc.pod}, healthy); got != tc.want {
			t.Errorf("%s: got %q, want %q", name, got, tc.want)
		}
	}
}
