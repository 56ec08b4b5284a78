package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ambit-mesh/ambit/tests/cluster/internal/binaries"
	"github.com/ambit-mesh/ambit/tests/cluster/internal/box"
)

// The addresses of a cluster. Nobody outside its namespaces sees them.
const (
	lan         = "172.18.0.1/24" // the control plane's bridge
	controlIP   = "172.18.0.1"
	server      = "https://" + controlIP + ":6443"
	serviceCIDR = "10.96.0.0/16"
	serviceIP   = "10.96.0.1"
	dnsIP       = "10.96.0.10"
	podCIDR     = "10.244.0.0/16"
	lbCIDR      = "172.18.100.0/24" // for load balancers' addresses; led to the first node
)

// node is a machine of the cluster.
type node struct {
	box.Box
	number int
}

func (n node) ip() string   { return fmt.Sprintf("172.18.0.%d", 10+n.number) }
func (n node) pods() string { return fmt.Sprintf("10.244.%d.0/24", n.number) }

// cluster is where everything is.
type cluster struct {
	root, bin, cache, run, images string
	control                       box.Box
	nodes                         []node
}

func locate() (*cluster, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	root, err := binaries.Root(wd)
	if err != nil {
		return nil, err
	}
	cache := binaries.Cache(root)
	if dir := os.Getenv("AMBIT_CLUSTER_DIR"); dir != "" {
		cache = dir
	}
	c := &cluster{root: root, bin: binaries.Folder(root), cache: cache, run: filepath.Join(cache, "run"), images: filepath.Join(cache, "images")}
	c.control = box.Box{Name: "cp", Dir: filepath.Join(c.run, "cp")}
	for i, name := range []string{"n1", "n2"} {
		c.nodes = append(c.nodes, node{Box: box.Box{Name: name, Dir: filepath.Join(c.run, name)}, number: i + 1})
	}
	return c, nil
}

// boxOf finds a node, or the control plane, by name.
func (c *cluster) boxOf(name string) (box.Box, error) {
	if name == "cp" {
		return c.control, nil
	}
	n, err := c.node(name)
	return n.Box, err
}

func (c *cluster) node(name string) (node, error) {
	i := slices.IndexFunc(c.nodes, func(n node) bool { return n.Name == name })
	if i < 0 {
		return node{}, fmt.Errorf("no node %q: there are n1, n2 and, with the network of the control plane, cp", name)
	}
	return c.nodes[i], nil
}

func (c *cluster) kubeconfig(name string) string { return filepath.Join(c.run, name+".kubeconfig") }

func (c *cluster) program(name string) string { return filepath.Join(c.bin, name) }
