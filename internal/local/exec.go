package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/process"
)

// wireName is the target that stands for the sandbox's own network namespace.
const wireName = "wire"

// Exec runs a program in a pod, in a node's network namespace, or in the
// sandbox's own.
func (b *backend) Exec(ctx context.Context, a control.ExecArgs, files []*os.File, signals <-chan syscall.Signal) (int, error) {
	s := (*supervisor)(b)
	if len(a.Argv) == 0 {
		return 0, errors.New("exec: no command")
	}
	proc, err := s.launch(a, files)
	if err != nil {
		return 0, err
	}
	for {
		select {
		case <-proc.Done():
			return proc.ExitCode(), nil
		case sig := <-signals:
			// As a terminal does, which signals the whole foreground group.
			proc.SignalGroup(sig)
		case <-ctx.Done():
			end(proc)
			return 0, errors.New("exec: nobody waits for the program any more")
		}
	}
}

// end makes a program end whose caller is gone.
func end(proc *process.Process) {
	proc.SignalGroup(syscall.SIGHUP)
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-proc.Done():
	case <-timer.C:
		proc.SignalGroup(syscall.SIGKILL)
		<-proc.Done()
	}
}

func (s *supervisor) launch(a control.ExecArgs, files []*os.File) (*process.Process, error) {
	n := s.node(a.Name)
	if n == nil && a.Name != wireName {
		m, err := s.find(a.Target)
		if err != nil {
			return nil, err
		}
		return m.pod.Exec(a.Container, a.Argv, a.Env, files[0], files[1], files[2])
	}
	cmd := process.Command{
		Argv: a.Argv, Dir: a.Dir, Stdin: files[0], Stdout: files[1], Stderr: files[2],
		Env: append([]string{"PATH=" + s.options.SearchPath, "HOME=" + os.Getenv("HOME")}, a.Env...),
	}
	if n != nil {
		cmd.Namespaces = n.wire.Namespaces
	}
	return s.reaper.Start(cmd)
}

// find gives a pod by its name, or one of those of a Deployment, a StatefulSet
// or a Service: the first that is ready, else the first, and one that is being ended
// only where there is no other.
func (s *supervisor) find(t control.Target) (*member, error) {
	kind, name, ok := strings.Cut(t.Name, "/")
	if !ok {
		kind, name = "pod", t.Name
	}
	matches := s.matcher(kind, name, &t)
	var found []*member
	namespaces := make(map[string]bool)
	for _, m := range s.sweep() {
		o := m.pod.Object()
		if (t.Namespace == "" || o.Namespace == t.Namespace) && matches(o) {
			found = append(found, m)
			namespaces[o.Namespace] = true
		}
	}
	switch {
	case len(found) == 0:
		return nil, s.notFound(t)
	case len(namespaces) > 1:
		return nil, fmt.Errorf("%s is in more than one namespace: name one with -n", t.Name)
	}
	rank := func(m *member) int {
		switch {
		case m.isRetired():
			return 2
		case !isReady(m.pod.Object()):
			return 1
		}
		return 0
	}
	return slices.MinFunc(found, func(a, b *member) int { return cmp.Compare(rank(a), rank(b)) }), nil
}

func (m *member) isRetired() bool { return m.pod.Object().DeletionTimestamp != nil }

func (s *supervisor) notFound(t control.Target) error {
	where := ""
	if t.Namespace != "" {
		where = " in namespace " + t.Namespace
	}
	var names []string
	for _, m := range s.sweep() {
		names = append(names, m.owner.Namespace+"/"+m.name)
	}
	if len(names) > 20 {
		names = append(names[:20], "...")
	}
	for _, n := range s.nodes {
		names = append(names, n.wire.Name)
	}
	return fmt.Errorf("nothing that runs is called %s%s: there are %s", t.Name, where, strings.Join(append(names, wireName), ", "))
}

// matcher gives what tells the pods that a name means.
func (s *supervisor) matcher(kind, name string, t *control.Target) func(*corev1.Pod) bool {
	switch kind {
	case "pod", "pods", "po":
		return func(p *corev1.Pod) bool { return p.Name == name }
	case "deploy", "deployment", "deployments", "sts", "statefulset", "statefulsets", "svc", "service", "services":
	default:
		// namespace/pod, as listings show it.
		if t.Namespace == "" {
			t.Namespace = kind
		}
		return func(p *corev1.Pod) bool { return p.Namespace == kind && p.Name == name }
	}
	objects, _, _ := s.state()
	s.mu.Lock()
	objects = slices.AppendSeq(objects, maps.Values(s.provisioned))
	s.mu.Unlock()
	selectors := make(map[string]labels.Selector) // by namespace
	for _, o := range objects {
		if o.GetName() != name {
			continue
		}
		switch r := o.Resource.(type) {
		case *appsv1.Deployment:
			if strings.HasPrefix(kind, "deploy") {
				selectors[o.GetNamespace()] = selectorOf(r.Spec.Selector)
			}
		case *appsv1.StatefulSet:
			if strings.HasPrefix(kind, "st") {
				selectors[o.GetNamespace()] = selectorOf(r.Spec.Selector)
			}
		case *corev1.Service:
			if strings.HasPrefix(kind, "s") && !strings.HasPrefix(kind, "st") && len(r.Spec.Selector) > 0 {
				selectors[o.GetNamespace()] = labels.SelectorFromSet(r.Spec.Selector)
			}
		}
	}
	return func(p *corev1.Pod) bool {
		sel, ok := selectors[p.Namespace]
		return ok && sel.Matches(labels.Set(p.Labels))
	}
}

// selectorOf gives a selector that was validated when it was read.
func selectorOf(s *metav1.LabelSelector) labels.Selector {
	sel, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return sel
}
