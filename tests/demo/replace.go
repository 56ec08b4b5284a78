package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"time"

	"github.com/ambit-mesh/ambit/internal/local/control"
	"github.com/ambit-mesh/ambit/internal/local/system"
)

const (
	// sourcePort is where a pod of web gives downloads, for the length of a step.
	sourcePort = "9999"
	// downloadSize is in bytes.
	downloadSize = 256 << 20
)

// block is a piece of a download: random bytes after its number. To make and to compare
// it costs the machine as little as a file would.
type block [1 << 20]byte

func newBlock() *block {
	b := new(block)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b[:])
	return b
}

func (b *block) number(n uint64) { binary.BigEndian.PutUint64(b[:], n) }

// give writes a download.
func give(w io.Writer) error {
	b := newBlock()
	for n := range uint64(downloadSize / len(b)) {
		b.number(n)
		if _, err := w.Write(b[:]); err != nil {
			return err
		}
	}
	return nil
}

// take reads a download to the end of a block, and calls f after the first. It gives how
// much came of it as it should, and what is wrong with what came after that.
func take(r io.Reader, f func() error) (good int64, err error) {
	want, got := newBlock(), new(block)
	for n := range uint64(downloadSize / len(want)) {
		want.number(n)
		if _, err := io.ReadFull(r, got[:]); err != nil {
			return good, err
		}
		if *want != *got {
			return good, fmt.Errorf("what came after %d bytes is not what was sent", good)
		}
		if good += int64(len(want)); n == 0 {
			if err := f(); err != nil {
				return good, err
			}
		}
	}
	switch n, err := r.Read(got[:1]); {
	case n > 0:
		return good, errors.New("there is more after the last byte")
	case err != io.EOF:
		return good, fmt.Errorf("after the last byte: %w", err)
	}
	return good, nil
}

// runSource serves downloads, and echoes what asks for none, until standard input ends.
func runSource() error {
	l, err := net.Listen("tcp", ":"+sourcePort)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		_ = l.Close()
	}()
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil {
				return
			}
			if b[0] == 'd' {
				_ = give(c)
				return
			}
			_, _ = io.Copy(c, c)
		}()
	}
}

// fetched is what became of a download and of a connection that was idle meanwhile.
type fetched struct {
	Bytes int64  `json:"bytes"`
	Wrong string `json:"wrong,omitempty"`
	Idle  bool   `json:"idle"`
}

// runFetch opens an idle connection, says "begun" when the download has, and prints
// what became of both.
func runFetch(addr string) error {
	idle, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer idle.Close()
	if _, err := idle.Write([]byte("e")); err != nil {
		return err
	}
	if err := beat(idle); err != nil {
		return err
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.Write([]byte("d")); err != nil {
		return err
	}
	var out fetched
	out.Bytes, err = take(c, func() error {
		fmt.Println("begun")
		// It goes on when both ztunnels have been replaced, and not before.
		_, err := bufio.NewReader(os.Stdin).ReadString('\n')
		return err
	})
	if err != nil {
		out.Wrong = err.Error()
	}
	out.Idle = beat(idle) == nil
	return json.NewEncoder(os.Stdout).Encode(out)
}

func beat(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// replace has both ztunnels replaced in the middle of a download.
func (d *demo) replace(ctx context.Context) (err error) {
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	visitor, web, err := apart(st)
	if err != nil {
		return err
	}
	source, err := d.role(ctx, web.Namespace+"/"+web.Name, "source")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, source.close()) }()
	fetch, err := d.role(ctx, visitor.Namespace+"/"+visitor.Name, "fetch", net.JoinHostPort(web.IPs[0], sourcePort))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fetch.close()) }()
	d.say("visitor on %s downloads 256 MiB from %s on %s, and has an idle connection beside it", visitor.Node, web.Name, web.Node)
	var took []string
	for _, node := range []string{visitor.Node, web.Node} {
		begin := time.Now()
		if err := d.succeed(ctx, node+"/ztunnel"); err != nil {
			return err
		}
		took = append(took, fmt.Sprintf("%.1f s", time.Since(begin).Seconds()))
	}
	if st, err = d.status(ctx); err != nil {
		return err
	}
	for _, c := range st.Components {
		if strings.HasSuffix(c.Name, "/ztunnel") && c.Draining == 0 {
			return fmt.Errorf("%s was replaced, and nothing is left that carries the download", c.Name)
		}
	}
	if _, err := fmt.Fprintln(fetch.in); err != nil {
		return err
	}
	line, err := fetch.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("the download gave nothing: %w", err)
	}
	var got fetched
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		return fmt.Errorf("download: %q: %w", line, err)
	}
	if got.Bytes != downloadSize || got.Wrong != "" || !got.Idle {
		return fmt.Errorf("of %d bytes %d came: %s; idle connection alive: %t", int64(downloadSize), got.Bytes, got.Wrong, got.Idle)
	}
	// From here on these are the processes that must stay.
	for _, c := range st.Components {
		d.pids[c.Name] = fmt.Sprint(c.Pid)
	}
	if err := d.unharmed(ctx); err != nil {
		return err
	}
	d.prove("a ztunnel is replaced under its connections", "both, ready after %s; 256 MiB whole, idle connection alive", strings.Join(took, " and "))
	return nil
}

// succeed replaces a component and waits for its successor.
func (d *demo) succeed(ctx context.Context, name string) error {
	find := func(st control.Status) (found system.Status) {
		for _, c := range st.Components {
			if c.Name == name {
				found = c
			}
		}
		return found
	}
	st, err := d.status(ctx)
	if err != nil {
		return err
	}
	before := find(st)
	d.say("$ ambit-local restart %s", name)
	if _, err := d.output(ctx, "restart", name); err != nil {
		return err
	}
	return d.await(ctx, name+" has a successor", func(st control.Status) (bool, error) {
		now := find(st)
		return now.Ready && now.Pid != before.Pid, nil
	})
}

// role runs this program in a pod and waits until it says that it is at work.
func (d *demo) role(ctx context.Context, pod string, args ...string) (*sniffer, error) {
	cmd := d.command(ctx, "exec", append([]string{pod, "--", d.self}, args...)...)
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
	r := &sniffer{cmd: cmd, in: in, out: bufio.NewReader(out)}
	if line, err := r.out.ReadString('\n'); err != nil {
		return nil, errors.Join(fmt.Errorf("%s in %s does not begin: %q: %w", args[0], pod, line, err), r.close())
	}
	return r, nil
}

// apart gives the visitor, and a pod of web on the other node.
func apart(st control.Status) (visitor, web control.Pod, err error) {
	for _, p := range st.Pods {
		if p.Name == "visitor" {
			visitor = p
		}
	}
	for _, p := range st.Pods {
		if strings.HasPrefix(p.Name, "web-") && p.Node != visitor.Node && len(p.IPs) > 0 {
			return visitor, p, nil
		}
	}
	return visitor, web, errors.New("there is no pod of web on another node than visitor")
}
