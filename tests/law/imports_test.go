package law

import (
	"slices"
	"strings"
	"testing"
)

// reach says how far a rule looks.
type reach int

const (
	// everywhere looks at everything that the package needs, however indirectly.
	everywhere reach = iota
	// ourCode looks at what the package and our packages that it needs import
	// themselves; what a library or generated code of apis/ imports is its affair.
	ourCode
)

// rule forbids imports. Patterns are import paths, a path from the root of the
// module when they begin with "./", and everything below when they end in "/...".
type rule struct {
	name    string
	from    []string
	exempt  []string // of from
	forbid  []string
	allow   []string // of forbid
	reach   reach
	because string
}

// components are the roles of the mesh, one process each. The node agent, below
// ztunnel's folder, is one of its own.
var components = []string{"./ztunnel/...", "./waypoint/...", "./controlplane/..."}

// pure are the packages that take values and return values.
var pure = []string{
	"./controlplane/graph/...", "./controlplane/compile/...", "./controlplane/provision/...", "./controlplane/analyze/...",
	"./waypoint/route/...", "./internal/authz/...", "./internal/flow/join/...",
}

// clusterLibraries are what speaks to clusters and installs into them.
var clusterLibraries = []string{"k8s.io/client-go/...", "k8s.io/kubectl/...", "sigs.k8s.io/controller-runtime/...", "helm.sh/helm/..."}

// commandLine are the packages of the CLI.
var commandLine = []string{"./internal/cli/...", "./internal/local/...", "./internal/explain/..."}

var rules = []rule{
	{
		name:    "contracts stand alone",
		from:    []string{"./apis/..."},
		forbid:  []string{"./..."},
		allow:   []string{"./apis/..."},
		reach:   everywhere,
		because: "the contracts are what other programs build against; they must not drag an implementation along",
	},
	apart("ztunnel", "./ztunnel", "./ztunnel/internal/..."),
	apart("node agent", "./ztunnel/nodeagent/..."),
	apart("waypoint", "./waypoint/..."),
	apart("control plane", "./controlplane/..."),
	{
		name:    "mechanisms know no role",
		from:    []string{"./internal/..."},
		exempt:  commandLine,
		forbid:  slices.Concat(components, commandLine, []string{"./cmd/..."}),
		because: "a mechanism that knows who uses it cannot be used, tested or replaced alone",
	},
	{
		name:    "the command line runs components, it does not link them",
		from:    slices.Concat(commandLine, []string{"./cmd/ambit", "./cmd/local"}),
		forbid:  components,
		allow:   pure,
		because: "the CLI starts the same programs as a cluster does, so that what it shows is what runs; only pure packages, which decide and do nothing, may be asked in process",
	},
	{
		name:    "local meshes are free of what installs into clusters",
		from:    []string{"./cmd/local", "./internal/local/...", "./internal/cli"},
		forbid:  append([]string{"./internal/cli/..."}, clusterLibraries...),
		allow:   []string{"./internal/cli"},
		reach:   everywhere,
		because: "each pod of a local mesh is started by a process of this program, which should be small and start at once, and be built quickly",
	},
	{
		name:    "a control plane that reads files is free of what follows clusters",
		from:    []string{"./cmd/local-controlplane", "./controlplane", "./controlplane/command"},
		forbid:  clusterLibraries,
		reach:   everywhere,
		because: "these libraries take more of a program's size, and of the time to build it, than all else, and a local mesh has no cluster: they belong behind controlplane.Platform",
	},
	{
		name: "the node side is free of Kubernetes clients",
		from: []string{
			"./cmd/ztunnel", "./cmd/waypoint", "./cmd/nodeagent", "./cmd/cni", "./ztunnel/...", "./waypoint/...",
			"./internal/hbone/...", "./internal/h2wire/...", "./internal/http1/...", "./internal/http2/...", "./internal/message/...", "./internal/identity/...", "./internal/authz/...",
			"./internal/xdsclient/...", "./internal/netns/...", "./internal/zds/...", "./internal/wds/...", "./internal/certs/...", "./internal/snapshot/...", "./internal/flow/...", "./internal/trace/...", "./internal/stats/...",
		},
		forbid:  []string{"k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/...", "helm.sh/helm/..."},
		because: "proxies and node agents learn what they need by xDS and never talk to the Kubernetes API: a node that is taken over holds no cluster credential, and the binaries stay small",
	},
	{
		name:    "the CNI plugin is small",
		from:    []string{"./cmd/cni", "./ztunnel/nodeagent/plugin"},
		forbid:  []string{"google.golang.org/grpc/...", "k8s.io/...", "go.uber.org/zap/...", "github.com/prometheus/...", "./apis/...", "./internal/..."},
		because: "it runs for each pod of the node, before anything of the mesh does, and must have nothing that can fail",
	},
	{
		name: "pure packages take values and return values",
		from: pure,
		forbid: []string{
			"net", "net/http", "net/rpc", "os", "os/...", "io/ioutil", "syscall", "log", "log/...", "golang.org/x/sys/...",
			"go.uber.org/zap/...", "google.golang.org/grpc/...", "k8s.io/client-go/...", "sigs.k8s.io/controller-runtime/...", "github.com/prometheus/...",
			"github.com/fsnotify/...",
		},
		// Conditions name gRPC codes without a connection.
		allow:   []string{"google.golang.org/grpc/codes"},
		reach:   ourCode,
		because: "a decision without sockets, files, clock and logger is the same in a test, in the CLI and in the control plane",
	},
	{
		name:    "programs are leaves",
		from:    []string{"./..."},
		forbid:  []string{"./cmd/..."},
		because: "cmd reads flags and environment and nothing else; code that others need belongs into a package",
	},
	{
		name:    "test gear stays in tests",
		from:    []string{"./..."},
		exempt:  []string{"./tests/...", "./internal/testkit/...", "./internal/netns/netnstest/...", "./internal/hbone/hbonetest/..."},
		forbid:  []string{"testing", "go.uber.org/goleak/...", "pgregory.net/rapid/...", "./internal/testkit/...", "./internal/netns/netnstest/...", "./internal/hbone/hbonetest/..."},
		reach:   ourCode,
		because: "a program must not carry its tests' tools",
	},
}

// apart forbids a component to import another one.
func apart(name string, own ...string) rule {
	return rule{
		name:    name + " imports no other component",
		from:    own,
		forbid:  components,
		allow:   own,
		because: "components meet only in apis/ and on the wire, so that each can be adopted, upgraded and replaced alone",
	}
}

func matches(path string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		if rest, ok := strings.CutPrefix(p, "./"); ok {
			p = module + "/" + rest
		}
		prefix, below := strings.CutSuffix(p, "/...")
		return path == prefix || below && strings.HasPrefix(path, prefix+"/")
	})
}

func TestImports(t *testing.T) {
	all := packages(t)
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, p := range r.from {
				if path := module + "/" + strings.TrimPrefix(p, "./"); !strings.HasSuffix(p, "/...") && all[path] == nil {
					t.Errorf("there is no package %s: the rule holds nobody to anything", p)
				}
			}
			for path, p := range all {
				if !p.ours() || !matches(path, r.from) || matches(path, r.exempt) {
					continue
				}
				if chain := r.breach(all, path); chain != nil {
					t.Errorf("%s\nbecause %s", strings.Join(chain, "\n\timports "), r.because)
				}
			}
		})
	}
}

// breach gives a shortest chain of imports from a package to a forbidden one.
func (r rule) breach(all map[string]*pkg, from string) []string {
	via := map[string]string{from: ""}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		p := all[queue[0]]
		if p == nil || r.reach == ourCode && (!p.ours() || matches(p.ImportPath, []string{"./apis/..."})) {
			continue
		}
		for _, next := range p.Imports {
			if _, seen := via[next]; seen {
				continue
			}
			via[next] = p.ImportPath
			if matches(next, r.forbid) && !matches(next, r.allow) {
				return chain(via, next)
			}
			queue = append(queue, next)
		}
	}
	return nil
}

func chain(via map[string]string, end string) []string {
	var c []string
	for p := end; p != ""; p = via[p] {
		c = append(c, strings.TrimPrefix(p, module+"/"))
	}
	slices.Reverse(c)
	return c
}

// The rules must still be able to fail.
func TestRulesBite(t *testing.T) {
	fake := map[string]*pkg{}
	add := func(path string, imports ...string) {
		fake[path] = &pkg{ImportPath: path, Imports: imports}
	}
	add(module+"/ztunnel", module+"/internal/hbone")
	add(module+"/internal/hbone", module+"/internal/x")
	add(module+"/internal/x", "k8s.io/client-go/rest")
	add(module+"/ztunnel/nodeagent", module+"/ztunnel/internal/proxy")
	add(module+"/controlplane/graph", "lib")
	add("lib", "net/http")

	node := rules[slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.name, "the node side") })]
	if got := len(node.breach(fake, module+"/ztunnel")); got != 4 {
		t.Errorf("an indirect import of a Kubernetes client was not found (chain of %d)", got)
	}
	agent := rules[slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.name, "node agent") })]
	if agent.breach(fake, module+"/ztunnel/nodeagent") == nil {
		t.Error("a node agent that imports the ztunnel's guts was not found")
	}
	files := rules[slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.name, "a control plane that reads files") })]
	if files.breach(packages(t), module+"/cmd/controlplane") == nil {
		t.Error("the control plane of clusters was found to have no Kubernetes client")
	}
	purity := rules[slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.name, "pure") })]
	if c := purity.breach(fake, module+"/controlplane/graph"); c != nil {
		t.Errorf("a library's own import counts as ours: %v", c)
	}
	fake[module+"/controlplane/graph"].Imports = []string{"os"}
	if purity.breach(fake, module+"/controlplane/graph") == nil {
		t.Error("a pure package that imports os was not found")
	}
}
