package clustertest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

// sniffer is the first argument by which a test's program is told to capture.
const sniffer = "clustertest-sniff"

// Helper does what the test's program was started for in a node, and reports whether there was something. TestMain calls it
// first.
func Helper() bool {
	if len(os.Args) != 3 || os.Args[1] != sniffer {
		return false
	}
	var cfg sniff.Config
	err := json.Unmarshal([]byte(os.Args[2]), &cfg)
	if err == nil {
		err = sniff.Run(cfg, os.Stdin, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return true
}

// Capture reads what crosses a link of a node.
type Capture struct {
	c   *Cluster
	in  io.WriteCloser
	out *bufio.Scanner
}

// Uplink is the link of a node to the others.
const Uplink = "eth0"

// Capture begins to capture. It sees all frames from now on.
func (c *Cluster) Capture(node, link string, needles ...string) *Capture {
	c.t.Helper()
	cfg, err := json.Marshal(sniff.Config{Interface: link, Needles: needles, MeshPort: 15008})
	if err != nil {
		c.t.Fatal(err)
	}
	cmd := exec.Command(c.program, "in-net", node, c.Self(), sniffer, string(cfg)) //nolint:noctx // it ends with its input
	var stderr strings.Builder
	cmd.Stderr = &stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := errors.Join(inErr, outErr); err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("capture on %s of %s: %v: %s", link, node, err, &stderr)
		}
	})
	p := &Capture{c: c, in: in, out: bufio.NewScanner(out)}
	p.out.Buffer(nil, 1<<20)
	if !p.out.Scan() {
		c.t.Fatalf("capture on %s of %s did not begin", link, node)
	}
	return p
}

// Report gives what was seen since the last report.
func (p *Capture) Report() sniff.Report {
	p.c.t.Helper()
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		p.c.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.c.t.Fatalf("the capture has ended: %v", p.out.Err())
	}
	var r sniff.Report
	if err := json.Unmarshal(p.out.Bytes(), &r); err != nil {
		p.c.t.Fatal(err)
	}
	return r
}
