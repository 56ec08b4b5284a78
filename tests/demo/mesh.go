package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/testkit/sniff"
)

// mesh is the local mesh of the demo, used by the ambit command as a user would.
type mesh struct {
	ambit string
	name  string
}

func (m *mesh) command(ctx context.Context, verb string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, m.ambit, append([]string{verb, "--name", m.name}, args...)...)
}

// output runs an ambit local command and gives what it printed.
func (m *mesh) output(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := m.command(ctx, verb, args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("ambit-local %s %s: %w: %s", verb, strings.Join(args, " "), err, strings.TrimSpace(errOut.String()+string(out)))
	}
	return string(out), nil
}

func (m *mesh) exec(ctx context.Context, target string, argv ...string) (string, error) {
	return m.output(ctx, "exec", append([]string{target, "--"}, argv...)...)
}

func (m *mesh) status(ctx context.Context) (control.Status, error) {
	var st control.Status
	out, err := m.output(ctx, "status", "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// access is a line of a ztunnel's access log.
type access struct {
	Node        string `json:"-"`
	Time        string `json:"time"`
	SrcAddr     string `json:"src.addr"`
	SrcWorkload string `json:"src.workload"`
	SrcIdentity string `json:"src.identity"`
	Peer        string `json:"peer.identity"`
	DstAddr     string `json:"dst.addr"`
	DstWorkload string `json:"dst.workload"`
	DstIdentity string `json:"dst.identity"`
	Direction   string `json:"direction"`
	Security    string `json:"connection_security_policy"`
	Policy      string `json:"policy"`
	Rule        string `json:"policy.rule"`
	Error       string `json:"error"`
	Trace       string `json:"traceparent"`
}

// id is the part of the trace that both ends have.
func (a access) id() string {
	parts := strings.Split(a.Trace, "-")
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// accessLog reads a node's access log.
func (m *mesh) accessLog(ctx context.Context, node string) ([]access, error) {
	out, err := m.output(ctx, "logs", node+"/access")
	if err != nil {
		return nil, err
	}
	var all []access
	for line := range strings.Lines(out) {
		a := access{Node: node}
		if json.Unmarshal([]byte(line), &a) == nil && a.Direction != "" {
			all = append(all, a)
		}
	}
	return all, nil
}

// sniffer is a capture that runs inside.
type sniffer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// sniff starts a capture on the link between the nodes.
func (m *mesh) sniff(ctx context.Context, self string, needles []string) (*sniffer, error) {
	cmd := m.command(ctx, "exec", "wire", "--", self, "sniff", "-needles", strings.Join(needles, "|"))
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &sniffer{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if line, err := s.out.ReadString('\n'); err != nil || line != "capturing\n" {
		return nil, errors.Join(fmt.Errorf("the capture does not begin: %q: %w", line, err), s.close())
	}
	return s, nil
}

// report gives what was seen since the last report.
func (s *sniffer) report() (sniff.Report, error) {
	var r sniff.Report
	if _, err := fmt.Fprintln(s.in); err != nil {
		return r, fmt.Errorf("ask the capture: %w", err)
	}
	line, err := s.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		return r, fmt.Errorf("read the capture's report: %w", err)
	}
	return r, nil
}

func (s *sniffer) close() error { return errors.Join(s.in.Close(), s.cmd.Wait()) }
