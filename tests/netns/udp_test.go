package netns_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
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
		answer, err := askOnce(c, sent)
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

// askOnce sends a datagram until there is an answer: one may be lost.
func askOnce(c net.Conn, sent []byte) ([]byte, error) {
	buf := make([]byte, 65536)
	var err error
	for range 10 {
		if _, err = c.Write(sent); err != nil {
			continue
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = c.Read(buf); err == nil {
			return buf[:n], nil
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
	tunnelled := m.accessLog(func(l map[string]any) bool {
		return l["protocol"] == "udp" && l["connection_security_policy"] == "mutual_tls" && l["error"] != nil
	})
	if len(tunnelled) > 0 {
		t.Errorf("sessions failed: %v", tunnelled)
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
