package local

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/ambit-mesh/ambit/internal/explain"
	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/system"
)

// backend answers the control socket.
type backend supervisor

var _ control.Backend = (*backend)(nil)

// Call answers an operation with one value.
func (b *backend) Call(ctx context.Context, op string, args json.RawMessage) (any, error) {
	s := (*supervisor)(b)
	switch op {
	case control.OpStatus:
		return s.status(ctx), nil
	case control.OpGet:
		return with(args, func(a control.GetArgs) (list, error) { return s.get(ctx, a) })
	case control.OpExplain:
		return with(args, func(a control.ExplainArgs) (explain.Report, error) { return s.explain(ctx, a) })
	case control.OpLogs:
		return with(args, s.logs)
	case control.OpRestart:
		return with(args, s.restart)
	case control.OpDown:
		return with(args, func(a control.DownArgs) (struct{}, error) {
			s.stop(a.Grace)
			return struct{}{}, nil
		})
	}
	return nil, fmt.Errorf("operation %q is not known: is the ambit command of another version than the running mesh?", op)
}

func with[A, R any](raw json.RawMessage, f func(A) (R, error)) (any, error) {
	var args A
	if err := json.Unmarshal(raw, &args); err != nil {
		return nil, fmt.Errorf("arguments: %w", err)
	}
	return f(args)
}

// Watch streams what happened and happens.
func (b *backend) Watch(ctx context.Context, send func(control.Event) error) error {
	return b.journal.follow(ctx, send)
}

// restart ends one of the mesh's processes, which is started again.
func (s *supervisor) restart(a control.RestartArgs) (system.Status, error) {
	var names []string
	for _, c := range s.components {
		name := c.Status().Name
		if name == a.Component {
			return c.Status(), c.Restart(syscall.Signal(a.Signal))
		}
		names = append(names, name)
	}
	if len(names) == 0 {
		return system.Status{}, fmt.Errorf("this local mesh runs without the mesh's processes (--mesh=false)")
	}
	return system.Status{}, fmt.Errorf("there is no component %q: want one of %s", a.Component, strings.Join(names, ", "))
}

// logs finds the file with somebody's output.
func (s *supervisor) logs(a control.Target) (control.LogsAnswer, error) {
	for _, c := range s.components {
		if st := c.Status(); st.Name == a.Name {
			return control.LogsAnswer{Path: st.Log}, nil
		}
	}
	if node, ok := strings.CutSuffix(a.Name, "/access"); ok && s.options.Mesh && s.node(node) != nil {
		return control.LogsAnswer{Path: s.files.access(node)}, nil
	}
	if a.Name == "supervisor" {
		return control.LogsAnswer{Path: s.inside.Path + "/supervisor.log"}, nil
	}
	m, err := s.find(a)
	if err != nil {
		return control.LogsAnswer{}, err
	}
	path, err := m.pod.LogFile(a.Container)
	return control.LogsAnswer{Path: path}, err
}

func (s *supervisor) node(name string) *node {
	i := slices.IndexFunc(s.nodes, func(n *node) bool { return n.wire.Name == name })
	if i < 0 {
		return nil
	}
	return s.nodes[i]
}
