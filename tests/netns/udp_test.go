package netns_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/sys/unix"
)

// Ports of the probe's server for datagrams: an echo that names its client, and an
// application that speaks QUIC itself.
const (
	datagramPort = 9000
	quicPort     = 9443
)

var datagramClients = map[string]func(check) (string, error){
	"udp":        clientDatagrams,
	"udprefused": clientNoDatagrams,
	"quic":       clientQUIC,
}

func serveDatagrams() error {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: datagramPort})
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(from.Addr().Unmap().String()+" "), buf[:n]...), from)
		}
	}()
	return serveQUIC()
}

// serveQUIC echoes streams.
func serveQUIC() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, &key.PublicKey, key)
	if err != nil {
		return err
	}
	l, err := quic.ListenAddr(fmt.Sprintf(":%d", quicPort), &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		return err
	}
	go func() {
		for {
			c, err := l.Accept(context.Background())
			if err != nil {
				return
			}
			go func() {
				s, err := c.AcceptStream(context.Background())
				if err == nil {
					_, _ = io.Copy(s, s)
					_ = s.Close()
				}
			}()
		}
	}()
	return nil
}

// clientDatagrams sends datagrams of the size until each has come back; it gives the
// address that the server has seen.
func clientDatagrams(k check) (string, error) {
	network := "udp"
	if k.Network != "" {
		network = k.Network
	}
	c, err := net.Dial(network, k.Addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	saw := ""
	for i := range 5 {
		sent := append(fmt.Appendf(nil, "%d ", i), bytes.Repeat([]byte("x"), int(k.Size))...)
		// The answer to an earlier one that was asked twice may come late.
		earlier := func(answer []byte) bool {
			_, got, _ := bytes.Cut(answer, []byte(" "))
			number, rest, _ := bytes.Cut(got, []byte(" "))
			n, err := strconv.Atoi(string(number))
			return err == nil && n < i && bytes.Equal(rest, sent[2:])
		}
		answer, err := askOnce(c, sent, earlier)
		if err != nil {
			return "", fmt.Errorf("datagram %d: %w", i, err)
		}
		from, got, _ := bytes.Cut(answer, []byte(" "))
		if !bytes.Equal(got, sent) {
			return "", fmt.Errorf("datagram %d: %d bytes came back, of %d", i, len(got), len(sent))
		}
		saw = string(from)
	}
	return saw, nil
}

// askOnce sends a datagram until there is an answer that is not to be skipped: one
// may be lost.
func askOnce(c net.Conn, sent []byte, skip func([]byte) bool) ([]byte, error) {
	buf := make([]byte, 65536)
	var err error
	for range 10 {
		if _, err = c.Write(sent); err != nil {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		for n, err = c.Read(buf); err == nil; n, err = c.Read(buf) {
			if !skip(buf[:n]) {
				return buf[:n], nil
			}
		}
	}
	return nil, err
}

func clientNoDatagrams(k check) (string, error) {
	c, err := net.Dial("udp", k.Addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	for range 3 {
		_, _ = c.Write([]byte("x"))
		_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if n, err := c.Read(make([]byte, 100)); err == nil {
			return "", fmt.Errorf("%d bytes came back", n)
		}
	}
	return "", nil
}

func clientQUIC(k check) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := quic.DialAddr(ctx, k.Addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"echo"}}, nil)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.CloseWithError(0, "") }()
	s, err := c.OpenStreamSync(ctx)
	if err != nil {
		return "", err
	}
	sent := bytes.Repeat([]byte("quic"), int(k.Size)/4)
	errs := make(chan error, 1)
	go func() {
		_, err := s.Write(sent)
		errs <- errors.Join(err, s.Close())
	}()
	got, err := io.ReadAll(s)
	if err := errors.Join(err, <-errs); err != nil {
		return "", err
	}
	if !bytes.Equal(got, sent) {
		return "", fmt.Errorf("%d bytes came back, of %d", len(got), len(sent))
	}
	return "", nil
}

// Datagrams between all kinds of pods, to all kinds of addresses, of both families.
func TestDatagrams(t *testing.T) {
	files := world()
	m := start(t, files)
	m.captured("in")
	addresses := make(map[string][]string)
	for _, p := range m.status().Pods {
		addresses[p.Namespace+"/"+p.Name] = p.IPs
	}
	var list []check
	for _, server := range []string{"server-n1", "server-n2"} {
		for _, ns := range []string{"in", "out"} {
			for _, network := range []string{"udp4", "udp6"} {
				list = append(list, check{Kind: "udp", Addr: fmt.Sprintf("%s.%s.svc.cluster.local:%d", server, ns, datagramPort), Network: network, Size: 100})
			}
			for _, ip := range addresses[ns+"/"+server] {
				list = append(list, check{Kind: "udp", Addr: net.JoinHostPort(ip, fmt.Sprint(datagramPort)), Size: 1200})
			}
			list = append(list, check{Kind: "quic", Addr: fmt.Sprintf("%s.%s.svc.cluster.local:%d", server, ns, quicPort), Size: 1 << 20})
		}
	}
	for _, ns := range []string{"in", "out"} {
		for _, o := range m.succeed(ns, "client", list) {
			// As TCP: who is in the mesh is seen from its own address.
			if o.Check.Kind == "udp" && o.Error == "" && !strings.Contains(strings.Join(addresses[ns+"/client"], " "), o.Saw) {
				t.Errorf("%s/client → %s: seen as %s", ns, o.Check.Addr, o.Saw)
			}
		}
	}
	failed := m.accessLog(func(l map[string]any) bool {
		return l["protocol"] == "udp" && l["connection_security_policy"] == "mutual_tls" && l["error"] != nil
	})
	if len(failed) > 0 {
		t.Errorf("sessions failed: %v", failed)
	}
}

// A policy decides about datagrams as about connections, and plaintext ones are
// refused where mutual TLS is a must.
func TestDatagramPolicy(t *testing.T) {
	files := world()
	files["policy.yaml"] = allowFrom("in", "only-n1", "server-n2", "server-n1")
	m := start(t, files)
	m.captured("in")
	target := fmt.Sprintf("server-n2.in.svc.cluster.local:%d", datagramPort)
	m.until("the policy is enforced", func() bool {
		return m.checks("in", "client", []check{{Kind: "udprefused", Addr: target}})[0].Error == ""
	})
	m.succeed("in", "server-n1", []check{{Kind: "udp", Addr: target, Size: 100}})
	m.succeed("out", "client", []check{{Kind: "udprefused", Addr: target}})
	for _, d := range []string{"inbound", "outbound"} {
		m.until("a line names the policy, "+d, func() bool {
			return len(m.accessLog(func(l map[string]any) bool {
				text, _ := l["error"].(string)
				return l["protocol"] == "udp" && l["direction"] == d && strings.Contains(text, "in/only-n1")
			})) > 0
		})
	}
}

// sniffed is what a sniffer has counted.
type sniffed struct{ Frames, Readable, Tunnel int }

// probeSniff counts frames of a node's network until its input ends: all with UDP,
// those that hold a text, and those of tunnels over QUIC.
func probeSniff(text string) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(networkOrder(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	var n sniffed
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	fmt.Println("ready")
	buf := make([]byte, 65536)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
	for {
		size, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			select {
			case <-over: // and nothing more is waiting
				return json.NewEncoder(os.Stdout).Encode(n)
			default:
				continue
			}
		}
		frame := buf[:size]
		n.Frames++
		if bytes.Contains(frame, []byte(text)) {
			n.Readable++
		}
		// IPv4 without options, UDP, to port 15008.
		if size > 38 && frame[12] == 8 && frame[13] == 0 && frame[23] == unix.IPPROTO_UDP && int(frame[36])<<8|int(frame[37]) == 15008 {
			n.Tunnel++
		}
	}
}

func networkOrder(v uint16) uint16 { return v<<8 | v>>8 }

// sniff runs f while the frames of a node are looked at.
func (m *mesh) sniff(node, text string, f func()) (n sniffed) {
	m.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := m.command(m.t.Context(), "exec", node, "--", "/usr/bin/env", roleEnv+"=1", self, "sniff", text)
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if line, err := lines.ReadString('\n'); err != nil || line != "ready\n" {
		m.t.Fatalf("sniffer: %q, %v", line, err)
	}
	f()
	_ = in.Close()
	if err := json.NewDecoder(lines).Decode(&n); err != nil {
		m.t.Fatalf("sniffer: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		m.t.Fatalf("sniffer: %v", err)
	}
	return n
}

// Nobody on the way can read datagrams between enrolled pods.
func TestDatagramsAreUnreadable(t *testing.T) {
	m := start(t, world())
	m.captured("in")
	secret := strings.Repeat("x", 64) // what the checks send
	ask := func(ns string) func() {
		return func() {
			m.succeed(ns, "client", []check{{Kind: "udp", Addr: fmt.Sprintf("server-n2.%s.svc.cluster.local:%d", ns, datagramPort), Network: "udp4", Size: 200}})
		}
	}
	if n := m.sniff("n2", secret, ask("out")); n.Readable == 0 {
		t.Errorf("the sniffer does not see what can be read: %+v", n)
	}
	if n := m.sniff("n2", secret, ask("in")); n.Readable != 0 || n.Tunnel == 0 {
		t.Errorf("%d frames could be read, %d were of a tunnel over QUIC", n.Readable, n.Tunnel)
	}
}

// Where UDP does not get through everything goes over HTTP/2, at once from the
// second connection on.
func TestBlockedQUIC(t *testing.T) {
	files := world()
	files["in.yaml"] = strings.Replace(files["in.yaml"], "metadata:\n  name: in\n", "metadata:\n  name: in\n  annotations: {ambit-mesh.io/transport: h3}\n", 1)
	m := start(t, files)
	m.captured("in")
	tcp := check{Kind: "echo", Addr: "server-n2.in.svc.cluster.local:8080", Network: "tcp4", Size: 1_000_000}
	udp := check{Kind: "udp", Addr: fmt.Sprintf("server-n2.in.svc.cluster.local:%d", datagramPort), Network: "udp4", Size: 1000}
	over := func(tunnel string) int {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["tunnel"] == tunnel && l["direction"] == "outbound" && l["protocol"] == nil && l["error"] == nil && l["src.workload"] == "client"
		}))
	}
	m.succeed("in", "client", []check{tcp, udp})
	m.until("bytes went over HTTP/3", func() bool { return over("h3") > 0 })
	for _, p := range m.status().Pods {
		if p.Namespace == "in" && p.Name == "server-n2" {
			m.meddle("n2", net.JoinHostPort(p.IPs[0], "15008"), "", "udp")
		}
	}
	// From another pod, which has no tunnel yet. The first finds out.
	m.succeed("in", "server-n1", []check{tcp})
	began := time.Now()
	m.succeed("in", "server-n1", []check{tcp, udp})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("fallback took %s", took)
	}
	m.until("bytes went over HTTP/2", func() bool {
		return len(m.accessLog(func(l map[string]any) bool {
			return l["tunnel"] == "h2" && l["direction"] == "outbound" && l["error"] == nil && l["src.workload"] == "server-n1"
		})) >= 2
	})
}
