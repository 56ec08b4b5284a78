package local_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	flowpb "github.com/ambit-mesh/ambit/apis/flow"
	"github.com/ambit-mesh/ambit/internal/admin"
	"github.com/ambit-mesh/ambit/internal/flow"
	"github.com/ambit-mesh/ambit/internal/local/control"
)

func tellOnlyFlows(ctx context.Context) error { return tellFlows(ctx, http.NotFoundHandler()) }

// tellFlows is a proxy's admin port that tells of one connection that is over,
// whose reason is the process that tells, and of others on and on. Rest answers
// what is asked beside.
func tellFlows(ctx context.Context, rest http.Handler) error {
	log := flow.NewLog(16)
	srv := flow.NewServer(log, cmp.Or(flagValue("node"), "pod"), prometheus.NewRegistry())
	mux := http.NewServeMux()
	mux.Handle("/", rest)
	mux.Handle(flow.Path, srv.Handler())
	l, err := admin.Listen("127.0.0.1:15000", true, mux)
	if err != nil {
		return err
	}
	record := flow.Record{Start: time.Now(), Reason: fmt.Sprint(os.Getpid()), Verdict: flowpb.Verdict_VERDICT_FORWARDED}
	log.Append(&record)
	go func() {
		for ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			again := record
			again.Start = time.Now()
			log.Append(&again)
		}
	}()
	return l.Run(ctx)
}

const waypointPod = `
apiVersion: v1
kind: Pod
metadata: {name: wp, namespace: default, labels: {gateway.networking.k8s.io/gateway-name: wp}}
spec:
  containers:
  - {name: waypoint, image: none, command: [SELF, role-flows]}
`

// All proxies are asked, also those that come while somebody follows, and those
// that start again.
func TestFlows(t *testing.T) {
	m := up(t, withMesh(t, options(t, map[string]string{"client.yaml": client})))
	ctx, cancel := m.context()
	defer cancel()
	ask := func(req *flowpb.ObserveRequest, each func(f control.Flow, r *flowpb.FlowRecord) (stop bool)) {
		t.Helper()
		raw, err := proto.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		err = m.Flows(ctx, control.FlowsArgs{Request: raw}, func(f control.Flow) bool {
			var r flowpb.FlowRecord
			if err := proto.Unmarshal(f.Record, &r); err != nil {
				t.Error(err)
			}
			return each(f, &r)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]int{}
	ask(&flowpb.ObserveRequest{Last: 1}, func(f control.Flow, r *flowpb.FlowRecord) bool {
		if f.Problem != "" || f.From != r.GetNode()+"/ztunnel" {
			t.Errorf("%+v %v", f, r)
		}
		seen[f.From]++
		return false
	})
	if want := map[string]int{"n1/ztunnel": 1, "n2/ztunnel": 1}; !maps.Equal(seen, want) {
		t.Errorf("told by %v, want %v", seen, want)
	}

	pids := map[string][]string{}
	step := 0
	ask(&flowpb.ObserveRequest{Follow: true}, func(f control.Flow, r *flowpb.FlowRecord) bool {
		if r.GetReason() != "" && !slices.Contains(pids[f.From], r.GetReason()) {
			pids[f.From] = append(pids[f.From], r.GetReason())
		}
		switch {
		case step == 0 && len(pids) == 2:
			step++
			writeFile(t, m.files+"/waypoint.yaml", waypointPod)
		case step == 1 && len(pids["default/wp"]) > 0:
			step++
			if err := m.Call(ctx, control.OpRestart, control.RestartArgs{Component: "n1/ztunnel", Signal: 9}, nil); err != nil {
				t.Error(err)
				return true
			}
		}
		return step == 2 && len(pids["n1/ztunnel"]) == 2
	})
	if step != 2 || len(pids["n1/ztunnel"]) != 2 || len(pids["n2/ztunnel"]) != 1 {
		t.Errorf("after step %d told by %v", step, pids)
	}
}
