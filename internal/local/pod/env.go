package pod

import (
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// environment gives a container's variables and a function that looks them up.
func (p *Pod) environment(spec *corev1.Container) ([]string, func(string) (string, bool)) {
	values := make(map[string]string)
	lookup := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	env := []string{"PATH=" + p.host.SearchPath, "HOSTNAME=" + p.hostname(), "HOME=" + os.Getenv("HOME")}
	for _, e := range spec.Env {
		value := expand(e.Value, lookup)
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil {
			value = p.field(e.ValueFrom.FieldRef.FieldPath)
		}
		values[e.Name] = value
		env = append(env, e.Name+"="+value)
	}
	return env, lookup
}

// field gives what a fieldRef names. Which there are is checked beforehand.
func (p *Pod) field(path string) string {
	switch path {
	case "metadata.name":
		return p.obj.Name
	case "metadata.namespace":
		return p.obj.Namespace
	case "metadata.uid":
		return string(p.obj.UID)
	case "spec.nodeName":
		return p.obj.Spec.NodeName
	case "spec.serviceAccountName":
		return p.obj.Spec.ServiceAccountName
	case "status.hostIP":
		return p.host.Node.Addr4.String()
	case "status.podIP":
		return p.addrs()[0].String()
	case "status.podIPs":
		var all []string
		for _, a := range p.addrs() {
			all = append(all, a.String())
		}
		return strings.Join(all, ",")
	}
	return ""
}

// expand replaces $(NAME) by the variable's value. What names no variable stays,
// and $$ is a dollar sign.
func expand(s string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		rest := s[i+1:]
		switch end := strings.IndexByte(rest, ')'); {
		case rest[0] == '$':
			b.WriteByte('$')
			s = rest[1:]
		case rest[0] == '(' && end > 0:
			if v, ok := lookup(rest[1:end]); ok {
				b.WriteString(v)
			} else {
				b.WriteString(s[i : i+2+end])
			}
			s = rest[end+1:]
		default:
			b.WriteByte('$')
			s = rest
		}
	}
}
