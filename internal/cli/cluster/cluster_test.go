package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/internal/cli"
)

// invoke runs the command line and gives its exit code and what it printed.
func invoke(t *testing.T, args ...string) (int, string, string) {
	t.Helper()
	dir := t.TempDir()
	var files [2]*os.File
	for i, name := range []string{"out", "err"} {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	in, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	code := cli.Main(args, cli.Streams{In: in, Out: files[0], Err: files[1], Program: "ambit"}, Part())
	var text [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		text[i] = string(b)
	}
	return code, text[0], text[1]
}

// Wrong calls and absent clusters have exit codes of their own, and errors that say
// what to do.
func TestClusterExitCodes(t *testing.T) {
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"check --kubeconfig /nowhere":                  {cli.ExitUnreachable, "--kubeconfig"},
		"version x":                                    {cli.ExitUsage, "usage: ambit version"},
		"enroll":                                       {cli.ExitUsage, "usage: ambit enroll NAMESPACE"},
		"install --set image":                          {cli.ExitUsage, "want NAME=VALUE"},
		"install --values /nowhere/values.yaml":        {cli.ExitUsage, "/nowhere/values.yaml"},
		"waypoint generate --for everything -n shop":   {cli.ExitUsage, "use service, workload, all or none"},
		"waypoint generate --from Anywhere -n shop":    {cli.ExitUsage, "want Same or All"},
		"ztunnel log --level loud":                     {cli.ExitUsage, "want debug, info, warn or error"},
		"explain deploy/web.shop -f ../../../examples": {cli.ExitUsage, "want CLIENT and SERVICE"},
		"ztunnel workloads --node a --of b/c":          {cli.ExitUsage, "none of the others can be"},
		"uninstall --keep-crds --delete-crds":          {cli.ExitUsage, "none of the others can be"},
		"explain deploy/x.shop cart.shop -f ../../../examples/shop/manifests": {cli.ExitFailed, "there is no pod of deploy/x.shop"},
	} {
		t.Run(line, func(t *testing.T) {
			code, _, text := invoke(t, strings.Fields(line)...)
			if code != want.code || !strings.Contains(text, want.text) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, want.code, want.text, text)
			}
		})
	}
}

// From directories alone, what a cluster would make of them is explained: captured
// by label, a waypoint, a route, a policy.
func TestExplainDirectories(t *testing.T) {
	shop := "../../../examples/shop/"
	code, out, text := invoke(t, "explain", "deploy/visitor.shop -> cart.shop:8080", "-f", shop+"manifests")
	if code != 0 || !strings.Contains(out, "not captured") || !strings.Contains(out, "not bound to a waypoint") {
		t.Errorf("exit code %d %s\n%s", code, text, out)
	}
	dir := t.TempDir()
	enrolled := "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {ambit-mesh.io/dataplane-mode: ambient}}\n"
	if err := os.WriteFile(filepath.Join(dir, "namespace.yaml"), []byte(enrolled), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, text = invoke(t, "explain", "deploy/visitor.shop", "cart.shop:8080", "-f", shop+"manifests", "-f", shop+"policies", "-f", dir)
	if code != 0 || !strings.Contains(out, "refused: ") || !strings.Contains(out, "spiffe://cluster.local/ns/shop/sa/visitor") {
		t.Errorf("exit code %d %s\n%s", code, text, out)
	}
	code, out, _ = invoke(t, "explain", "deploy/web.shop", "cart.shop:8080", "-f", shop+"manifests", "-f", shop+"policies", "-f", dir, "-o", "yaml")
	if code != 0 || !strings.Contains(out, "outcome: forwarded") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

func TestZtunnelDump(t *testing.T) {
	file := filepath.Join(t.TempDir(), "dump.json")
	dump := `{"workloads": [
	  {"uid": "a", "name": "web-1", "namespace": "shop", "workloadIps": ["10.0.0.1"], "protocol": "HBONE", "status": "Healthy", "serviceAccount": "web", "waypoint": {"destination": "wp.shop", "refusal": "gone"}},
	  {"uid": "b", "name": "db-1", "namespace": "data", "workloadIps": ["10.0.0.2"], "protocol": "TCP", "status": "Healthy"}],
	  "certificates": [{"identity": "spiffe://cluster.local/ns/shop/sa/web", "state": "Available", "certChain": [{"serialNumber": "7", "expirationTime": "2030-01-01T00:00:00Z"}]}],
	  "workloadState": {"u1": {"info": {"name": "web-1", "namespace": "shop"}, "connections": [{"direction": "outbound", "src": "10.0.0.1:5", "originalDst": "10.96.0.1:80", "protocol": "HBONE"}]}}}`
	if err := os.WriteFile(file, []byte(dump), 0o600); err != nil {
		t.Fatal(err)
	}
	for command, want := range map[string]string{
		"workloads": "wp.shop (not available: gone)", "certs": "2030-01-01T00:00:00Z", "connections": "10.96.0.1:80",
	} {
		code, out, text := invoke(t, "ztunnel", command, "--file", file, "-n", "shop")
		if code != 0 || !strings.Contains(out, want) || strings.Contains(out, "db-1") {
			t.Errorf("%s: exit code %d %s\n%s", command, code, text, out)
		}
	}
}

func TestCalledByKubectl(t *testing.T) {
	root := cli.Root(cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Program: "/usr/local/bin/kubectl-ambit"}, Part())
	if got := root.CommandPath(); got != "kubectl ambit" {
		t.Errorf("called %q", got)
	}
}

func TestEveryCommandHasAnExample(t *testing.T) {
	var visit func(*cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() != "help" && (c.Example == "" || c.Short == "" || !strings.Contains(c.Example, c.CommandPath())) {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	visit(cli.Root(cli.Streams{}, Part()))
}
