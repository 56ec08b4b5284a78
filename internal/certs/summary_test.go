package certs_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/zap"

	"github.com/ambit-mesh/ambit/internal/certs"
	"github.com/ambit-mesh/ambit/internal/testkit"
)

// What the metrics say follows the life of a certificate, in as many series for one
// identity as for many.
func TestMetricsFollowTheLifeOfCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prometheus.NewRegistry()
		a := &authority{ca: testkit.NewCA(t), life: 10 * time.Hour}
		m := certs.NewManager(a, zap.NewNop(), certs.NewMetrics(r))
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { ended <- m.Run(ctx) }()
		want := func(when, states, age string) {
			t.Helper()
			synctest.Wait()
			text := "# HELP ambit_trust_bundle_age_seconds Since when the authority has not said which roots to trust: the age of the newest answer; 0 before the first.\n# TYPE ambit_trust_bundle_age_seconds gauge\nambit_trust_bundle_age_seconds " + age + "\n" +
				"# HELP ambit_certificates Identities by the state of their certificates (valid, overdue, expired, missing); overdue ones are valid, and should have been renewed.\n# TYPE ambit_certificates gauge\n"
			for _, s := range strings.Fields(states) {
				name, n, _ := strings.Cut(s, "=")
				text += "ambit_certificates{state=\"" + name + "\"} " + n + "\n"
			}
			if err := testutil.GatherAndCompare(r, strings.NewReader(text), "ambit_certificates", "ambit_trust_bundle_age_seconds"); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		}
		want("at first", "expired=0 missing=0 overdue=0 valid=0", "0")
		for _, sa := range []string{"a", "b", "c"} {
			id := web
			id.ServiceAccount = sa
			_, release := m.Use(id)
			defer release()
		}
		want("issued", "expired=0 missing=0 overdue=0 valid=3", "0")
		a.set(true)
		id := web
		id.ServiceAccount = "late"
		_, release := m.Use(id)
		defer release()
		time.Sleep(time.Hour)
		want("the authority is away", "expired=0 missing=1 overdue=0 valid=3", "3600")
		time.Sleep(6 * time.Hour)
		want("renewal has failed for long", "expired=0 missing=1 overdue=3 valid=0", "25200")
		time.Sleep(3 * time.Hour)
		want("at the end", "expired=3 missing=1 overdue=0 valid=0", "36000")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
