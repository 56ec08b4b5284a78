package probe_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ambit-mesh/ambit/internal/local/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted gives a target whose exec probe succeeds at each + and fails at each
// - of the script, and at the end stays as it is.
func scripted(script string) *probe.Target {
	i := 0
	return &probe.Target{Exec: func(context.Context, []string) (int, error) {
		c := script[min(i, len(script)-1)]
		i++
		if c == '+' {
			return 0, nil
		}
		return 1, nil
	}}
}

func TestLoopReportsAtThresholds(t *testing.T) {
	for _, tc := range []struct {
		name   string
		probe  corev1.Probe
		script string
		want   string // seconds of reports, + healthy and - not
	}{
		{"defaults: one success, three failures", corev1.Probe{}, "+---+", "0+ 30- 40+"},
		{"failures from the beginning", corev1.Probe{}, "-----", "20-"},
		{"a failure that passes is not reported", corev1.Probe{}, "+--+-", "0+ 30+ 60-"},
		{"period and delay", corev1.Probe{PeriodSeconds: 1, InitialDelaySeconds: 5}, "+---+", "5+ 8- 9+"},
		{"thresholds", corev1.Probe{PeriodSeconds: 1, SuccessThreshold: 2, FailureThreshold: 1}, "+++-++", "1+ 3- 5+"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc.probe.Exec = &corev1.ExecAction{Command: []string{"check"}}
				ctx, cancel := context.WithTimeout(t.Context(), 65*time.Second)
				defer cancel()
				begin := time.Now()
				var got []string
				scripted(tc.script).Loop(ctx, &tc.probe, func(healthy bool, cause error) bool {
					mark := "-"
					if healthy {
						mark = "+"
					}
					if healthy != (cause == nil) {
						t.Errorf("healthy %t with cause %v", healthy, cause)
					}
					got = append(got, fmt.Sprintf("%d%s", int(time.Since(begin).Seconds()), mark))
					return true
				})
				if strings.Join(got, " ") != tc.want {
					t.Errorf("reports %q, want %q", got, tc.want)
				}
			})
		})
	}
}

func TestLoopEndsWhenToldTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reports := 0
		scripted("+").Loop(t.Context(), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{}}}, func(bool, error) bool {
			reports++
			return false
		})
		if reports != 1 {
			t.Errorf("%d reports", reports)
		}
	})
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	target := &probe.Target{
		Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
		Exec: func(_ context.Context, argv []string) (int, error) {
			if argv[0] == "missing" {
				return 0, errors.New("missing is not there")
			}
			return 3, nil
		},
	}
	for want, handler := range map[string]corev1.ProbeHandler{
		"exec probe check -x: exit code 3":                          {Exec: &corev1.ExecAction{Command: []string{"check", "-x"}}},
		"missing is not there":                                      {Exec: &corev1.ExecAction{Command: []string{"missing"}}},
		`probe port "grpc": the container has no port of that name`: {TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString("grpc")}},
		"host must be an IP address":                                {HTTPGet: &corev1.HTTPGetAction{Host: "example.com", Port: intstr.FromString("http")}},
		"none of httpGet":                                           {},
	} {
		err := target.Check(t.Context(), &corev1.Probe{ProbeHandler: handler})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
