package local

import (
	"encoding/json"
	"errors"
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

// What a proxy still sends connections to is named by its name, so that whoever waits
// for it to hear of a pod's end can say for whom.
func TestWhoStillSendsToAPod(t *testing.T) {
	ztunnel := &proxyDump{}
	if err := json.Unmarshal([]byte(`{"workloads": [
		{"namespace": "shop", "name": "web", "workloadIps": ["10.0.0.1"], "status": "Healthy"},
		{"namespace": "shop", "name": "cart", "workloadIps": ["10.0.0.2"], "status": "Unhealthy"}]}`), ztunnel); err != nil {
		t.Fatal(err)
	}
	waypoint := &proxyDump{}
	if err := json.Unmarshal([]byte(`{"clusters": [{"endpoints": [
		{"workload": "shop/pay", "address": "10.0.0.3:8080"}, {"workload": "shop/pay", "address": "[fd00::3]:8080"}]}]}`), waypoint); err != nil {
		t.Fatal(err)
	}
	pod := func(name string, ips ...string) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
		for _, ip := range ips {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: ip})
		}
		return p
	}
	all := []answer{{"n1/ztunnel", ztunnel, nil}, {"shop/wp-1", waypoint, nil}}
	for name, tc := range map[string]struct {
		pod  *corev1.Pod
		want string
	}{
		"healthy for a ztunnel":                {pod("web", "10.0.0.1"), "n1/ztunnel has not heard of that"},
		"known to end":                         {pod("cart", "10.0.0.2"), ""},
		"an endpoint of a waypoint":            {pod("pay", "10.0.0.3"), "shop/wp-1 has not heard of that"},
		"by its second address":                {pod("pay", "10.0.0.9", "fd00::3"), "shop/wp-1 has not heard of that"},
		"the successor of the same name":       {pod("web", "10.0.0.8"), ""},
		"another one at the same address":      {pod("web-2", "10.0.0.1"), ""},
		"a pod that has no address to send to": {pod("web"), ""},
	} {
		if got := senders(all)(tc.pod); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	silent := append(all, answer{"n2/ztunnel", nil, errors.New("connection refused")})
	if got := senders(silent)(pod("cart", "10.0.0.2")); got != "n2/ztunnel does not tell whether it has heard of that: connection refused" {
		t.Errorf("with a proxy that does not answer: %q", got)
	}
}
