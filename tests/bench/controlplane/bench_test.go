package controlplane

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ambit-mesh/ambit/controlplane/compile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// What a test does by itself is small.
var (
	sizes    = flag.String("sizes", "10:100", "SERVICES:PODS, ascending, with commas")
	ztunnels = flag.Int("ztunnels", 4, "nodes, each with a ztunnel")
	edits    = flag.Int("edits", 5, "edits of each kind")
	churn    = flag.Duration("churn", 2*time.Second, "how long pods change at a steady rate")
	rate     = flag.Int("rate", 100, "changes of pods a second")
	resting  = flag.Duration("rest", time.Second, "how long to rest before memory and CPU at rest are read")
	profiles = flag.String("profiles", "", "folder for CPU and heap profiles of the control plane")
)

// Goals at the last size.
const (
	goalAck    = 200 * time.Millisecond
	goalMemory = 1000 // MB
)

// result is what was measured of one size.
type result struct {
	services, pods, addresses    int
	ready, synced                time.Duration
	edits                        map[string]*latencies
	restMemory, churnMemory, max float64 // MB
	restCPU, churnCPU            float64 // cores
	rate                         float64 // changes a second, as reached
}

// latencies of edits: to the last client, and of the write alone.
type latencies struct{ ack, write []time.Duration }

// own is the time from the end of the write, which is the control plane's and the
// clients'.
func (l *latencies) own() []time.Duration {
	out := make([]time.Duration, len(l.ack))
	for i := range out {
		out[i] = l.ack[i] - l.write[i]
	}
	return out
}

func percentile(d []time.Duration, p int) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[min(len(s)-1, len(s)*p/100)]
}

func TestBench(t *testing.T) {
	w := newWorld(t, *ztunnels)
	program := build(t)
	var results []*result
	for size := range strings.SplitSeq(*sizes, ",") {
		r := &result{edits: make(map[string]*latencies)}
		if n, err := fmt.Sscanf(size, "%d:%d", &r.services, &r.pods); n != 2 || r.services < namespaces || r.services > r.pods || r.pods < 2*namespaces || r.services < w.services || r.pods < w.pods {
			t.Fatalf("-sizes %s: want SERVICES:PODS, at least %d and %d, ascending: %v", size, namespaces, 2*namespaces, err)
		}
		begin := time.Now()
		w.grow(r.services, r.pods)
		t.Logf("%d services and %d pods are there after %.0f s", r.services, r.pods, time.Since(begin).Seconds())
		measure(t, w, program, r)
		results = append(results, r)
	}
	report(results)
}

// measure runs a control plane on what there is.
func measure(t *testing.T, w *world, program string, r *result) {
	t.Helper()
	p := start(t, program, w.api.Kubeconfig)
	defer p.stop()
	r.ready = time.Since(p.began)
	f, connected, stop := connect(t, w, p)
	defer stop()
	r.addresses = f.want
	if err := await(t.Context(), "the whole mesh", f.full); err != nil {
		t.Fatal(err)
	}
	r.synced = r.ready + time.Since(connected)
	pause(t, *resting/2) // the first garbage is collected
	busy, begin := p.cpu(), time.Now()
	pause(t, *resting)
	r.restCPU, r.restMemory = (p.cpu()-busy).Seconds()/time.Since(begin).Seconds(), p.memory("VmRSS")
	name := fmt.Sprintf("-%d", r.pods)
	p.profile("heap"+name, "heap?gc=1")
	for _, e := range w.kinds() {
		for i := range *edits {
			one(t, f, r, e.kind, e, i)
		}
	}
	w.churn(t, p, f, r, name)
	r.max = p.memory("VmHWM")
}

// edit is a kind of edit.
type edit struct {
	kind     string
	waypoint bool
	types    []string
	// apply makes the i-th edit; name is in the name of what it changes.
	name  func(i int) string
	apply func(ctx context.Context, i int) error
}

// one makes one edit and takes its time.
func one(t *testing.T, f *fleet, r *result, row string, e edit, i int) {
	t.Helper()
	seen := f.expect(e.name(i), e.waypoint, e.types...)
	begin := time.Now()
	if err := e.apply(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	write := time.Since(begin)
	if err := await(t.Context(), e.kind+" "+e.name(i), seen); err != nil {
		t.Fatal(err)
	}
	if r.edits[row] == nil {
		r.edits[row] = &latencies{}
	}
	l := r.edits[row]
	l.ack, l.write = append(l.ack, time.Since(begin)), append(l.write, write)
}

// kinds are the edits. Pods whose number is a multiple of ten are edited here, the
// others change under load.
func (w *world) kinds() []edit {
	pod := func(i int) int { return i * namespaces % (w.pods - w.pods%namespaces) }
	patch := func(ctx context.Context, gvr schema.GroupVersionResource, ns, name, body string) error {
		_, err := w.dynamic.Resource(gvr).Namespace(ns).Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{})
		return err
	}
	// The first services have policies; every tenth of them has a route.
	service := func(i int) int { return i % min(w.services, 10*namespaces) }
	routed := func(i int) int {
		return i * namespaces % (min(w.services, routes*namespaces) / namespaces * namespaces)
	}
	round := rand.IntN(1 << 20) // another value than that of the size before
	return []edit{
		{
			kind: "one pod", types: []string{compile.TypeAddress},
			name:  func(i int) string { return fmt.Sprintf("/pod-%d/", pod(i)) },
			apply: func(ctx context.Context, i int) error { return w.toggle(ctx, pod(i)) },
		},
		{
			kind: "one service", types: []string{compile.TypeAddress},
			name: func(i int) string { return fmt.Sprintf("/svc-%d.", service(i)) },
			apply: func(ctx context.Context, i int) error {
				return patch(ctx, schema.GroupVersionResource{Version: "v1", Resource: "services"}, nsOf(service(i)), fmt.Sprintf("svc-%d", service(i)),
					fmt.Sprintf(`{"spec":{"ports":[{"name":"http","port":80,"targetPort":"http","appProtocol":"http"},{"name":"more","port":%d,"targetPort":9}]}}`, 1000+(round+i)%50000))
			},
		},
		{
			kind: "one route", waypoint: true, types: []string{compile.TypeFrontend, compile.TypeBackend},
			name: func(i int) string { return fmt.Sprintf("svc-%d", routed(i)) },
			apply: func(ctx context.Context, i int) error {
				return patch(ctx, schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}, "ns-0", fmt.Sprintf("route-%d", routed(i)),
					fmt.Sprintf(`{"spec":{"rules":[{"matches":[{"headers":[{"name":"x","value":"v%d-%d"}]}],"backendRefs":[{"name":"svc-%d","port":80}]}]}}`, round, i, routed(i)))
			},
		},
		{
			kind: "one policy", types: []string{compile.TypeAuthorization},
			name: func(i int) string { return fmt.Sprintf("policy-%d", service(i)) },
			apply: func(ctx context.Context, i int) error {
				return patch(ctx, schema.GroupVersionResource{Group: "ambit-mesh.io", Version: "v1alpha1", Resource: "authorizationpolicies"}, nsOf(service(i)), fmt.Sprintf("policy-%d", service(i)),
					fmt.Sprintf(`{"spec":{"rules":[{"name":"r","sources":[{"type":"ServiceAccount","serviceAccount":{"name":"n%d-%d"}}]}]}}`, round, i))
			},
		},
	}
}

// toggle makes a pod ready that is not, and the other way round.
func (w *world) toggle(ctx context.Context, pod int) error {
	w.down[pod] = !w.down[pod]
	return w.flip(ctx, pod, !w.down[pod])
}

// churn changes pods at a steady rate, and times edits of one beside that.
func (w *world) churn(t *testing.T, p *process, f *fleet, r *result, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), *churn)
	defer cancel()
	var load sync.WaitGroup
	turns := make(chan int)
	for range writers {
		load.Go(func() {
			for i := range turns {
				// Each round leaves pods in the other state.
				pods := w.pods / namespaces * (namespaces - 1)
				pod := i % pods
				if err := w.flip(t.Context(), pod/(namespaces-1)*namespaces+pod%(namespaces-1)+1, i/pods%2 == 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	made := 0
	load.Go(func() {
		defer close(turns)
		tick := time.NewTicker(time.Second / time.Duration(*rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				turns <- made
				made++
			}
		}
	})
	load.Go(func() { p.profile("cpu"+name, fmt.Sprintf("profile?seconds=%d", max(1, int(churn.Seconds()/2)))) })
	busy, begin := p.cpu(), time.Now()
	pods := w.kinds()[0]
	for i := 0; i < *edits || ctx.Err() == nil; i++ {
		one(t, f, r, "one pod, under load", pods, i)
	}
	r.churnCPU, r.churnMemory = (p.cpu()-busy).Seconds()/time.Since(begin).Seconds(), p.memory("VmRSS")
	load.Wait()
	r.rate = float64(made) / churn.Seconds()
}

func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func report(list []*result) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	last := list[len(list)-1]
	line := func(what, goal string, value func(*result) string) {
		fmt.Fprint(w, what)
		for _, r := range list {
			fmt.Fprint(w, "\t", value(r))
		}
		fmt.Fprintf(w, "\t%s\n", goal)
	}
	met := func(ok bool, goal string) string {
		return map[bool]string{true: goal + ": reached", false: goal + ": MISSED"}[ok]
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64(d.Microseconds())/1000) }
	line("services, pods", "to reach", func(r *result) string { return fmt.Sprintf("%d, %d", r.services, r.pods) })
	line("addresses for each of the ztunnels", fmt.Sprintf("(%d ztunnels)", *ztunnels), func(r *result) string { return fmt.Sprint(r.addresses) })
	line("start to ready, s", "", func(r *result) string { return fmt.Sprintf("%.2f", r.ready.Seconds()) })
	line("start to first full sync, s", "", func(r *result) string { return fmt.Sprintf("%.2f", r.synced.Seconds()) })
	for _, kind := range []string{"one pod", "one service", "one route", "one policy", "one pod, under load"} {
		goal := ""
		if kind != "one pod, under load" {
			goal = met(percentile(last.edits[kind].ack, 99) < goalAck, "p99 < 200")
		}
		line(kind+": edit to ack, p50 / p99, ms", goal, func(r *result) string {
			return ms(percentile(r.edits[kind].ack, 50)) + " / " + ms(percentile(r.edits[kind].ack, 99))
		})
		line("  of it the API's write, p50 / p99, ms", "", func(r *result) string {
			return ms(percentile(r.edits[kind].write, 50)) + " / " + ms(percentile(r.edits[kind].write, 99))
		})
		line("  from there to ack, p50 / p99, ms", "", func(r *result) string {
			own := r.edits[kind].own()
			return ms(percentile(own, 50)) + " / " + ms(percentile(own, 99))
		})
	}
	line("memory at rest, MB", "", func(r *result) string { return fmt.Sprintf("%.0f", r.restMemory) })
	line("memory under load, MB", "", func(r *result) string { return fmt.Sprintf("%.0f", r.churnMemory) })
	line("memory at most, MB", met(last.max < goalMemory, "< 1000"), func(r *result) string { return fmt.Sprintf("%.0f", r.max) })
	line("CPU at rest, cores", "", func(r *result) string { return fmt.Sprintf("%.3f", r.restCPU) })
	line("CPU under load, cores", "", func(r *result) string { return fmt.Sprintf("%.2f", r.churnCPU) })
	line("changes of pods a second", "", func(r *result) string { return fmt.Sprintf("%.0f", r.rate) })
	if first := list[0]; first != last {
		growth, memory := float64(last.pods)/float64(first.pods), last.max/first.max
		fmt.Fprintf(w, "growth: %.0f times the pods, %.1f times the memory\t\t\t%s\n", growth, memory, met(memory <= growth, "no worse than linear"))
		a, b := percentile(first.edits["one pod"].own(), 50), percentile(last.edits["one pod"].own(), 50)
		fmt.Fprintf(w, "growth: %.0f times the pods, %.1f times the time from write to ack of one\n", growth, float64(b)/float64(a))
	}
}
